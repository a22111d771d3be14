"""Number formats of other packages, and unusual ones: what tests share."""

import ml_dtypes
import numpy as np
from narrowgauge.golden.formats import Float
from peers import FINITE

__all__ = ["ALL", "PEERS", "UNUSUAL"]

# Not here: float8_e4m3fnuz, float8_e5m2fnuz, float8_e4m3b11fnuz put NaN where our -0 is and have one zero;
# float8_e8m0fnu has neither sign nor zero.
PEERS = {
    "float16": (Float(5, 10), np.float16),
    "bfloat16": (Float(8, 7), ml_dtypes.bfloat16),
    "float8_e5m2": (Float(5, 2), ml_dtypes.float8_e5m2),
    "float8_e4m3fn": (Float(4, 3, specials="fn"), ml_dtypes.float8_e4m3fn),
    "float8_e4m3": (Float(4, 3), ml_dtypes.float8_e4m3),
    "float8_e3m4": (Float(3, 4), ml_dtypes.float8_e3m4),
    "float6_e3m2fn": (Float(3, 2, **FINITE), ml_dtypes.float6_e3m2fn),
    "float6_e2m3fn": (Float(2, 3, **FINITE), ml_dtypes.float6_e2m3fn),
    "float4_e2m1fn": (Float(2, 1, **FINITE), ml_dtypes.float4_e2m1fn),
}
UNUSUAL = {
    "e8m23": Float(8, 23),
    "e11m20": Float(11, 20),
    "e2m29": Float(2, 29),
    "e5m10-bias40": Float(5, 10, bias=40),
    "e5m10-bias-negative": Float(5, 10, bias=-20),
    "e4m3-bias1060": Float(4, 3, bias=1060),
    "e4m3-bias-900": Float(4, 3, bias=-900, specials="fn"),
    "e1m3-none": Float(1, 3, **FINITE),
    "e1m0-none": Float(1, 0, **FINITE),
    "e1m2-fn": Float(1, 2, specials="fn"),
    "e4m0-ieee": Float(4, 0),
    "e4m0-none": Float(4, 0, **FINITE),
    "e3m1-saturating": Float(3, 1, overflow="saturate"),
    "e4m3-fn-saturating": Float(4, 3, specials="fn", overflow="saturate"),
}
ALL = {name: fmt for name, (fmt, _) in PEERS.items()} | UNUSUAL
