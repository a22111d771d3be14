"""Floating-point formats that other packages have, too: what tests share."""

import ml_dtypes
import numpy as np
import pytest
from narrowgauge.golden.formats import PRESETS, Float

__all__ = ["BF16", "E2M1", "E4M3", "E5M2", "EXACT_PRODUCTS", "FINITE", "FP16", "FP32", "NARROW", "PEERS", "WIDE",
           "all_pairs", "assert_same", "each", "pattern", "random_pairs", "to_peer"]

FINITE = {"specials": "none", "overflow": "saturate"}
FP16, BF16, FP32 = PRESETS["fp16"], PRESETS["bf16"], PRESETS["fp32"]
E5M2, E4M3, E2M1 = PRESETS["fp8-e5m2"], PRESETS["fp8-e4m3"], PRESETS["fp4-e2m1"]

# Not here: float8_e4m3fnuz, float8_e5m2fnuz and float8_e4m3b11fnuz have one zero and NaN where our -0 is;
# float8_e8m0fnu has neither sign nor zero.
NARROW = {
    "float8_e5m2": (E5M2, ml_dtypes.float8_e5m2),
    "float8_e4m3fn": (E4M3, ml_dtypes.float8_e4m3fn),
    "float8_e4m3": (Float(4, 3), ml_dtypes.float8_e4m3),
    "float8_e3m4": (Float(3, 4), ml_dtypes.float8_e3m4),
    "float6_e3m2fn": (Float(3, 2, **FINITE), ml_dtypes.float6_e3m2fn),
    "float6_e2m3fn": (Float(2, 3, **FINITE), ml_dtypes.float6_e2m3fn),
    "float4_e2m1fn": (E2M1, ml_dtypes.float4_e2m1fn),
}
WIDE = {
    "float16": (FP16, np.float16),
    "bfloat16": (BF16, ml_dtypes.bfloat16),
    "float32": (FP32, np.float32),
}
PEERS = NARROW | WIDE
EXACT_PRODUCTS = {name: PEERS[name] for name in ("float16", "float8_e5m2", "float8_e4m3fn")}  # in float32


def each(table):
    """Parametrize over a dict, its keys as ids."""
    return [pytest.param(*(value if isinstance(value, tuple) else (value,)), id=key) for key, value in table.items()]


def pattern(dtype):
    return {1: np.uint8, 2: np.uint16, 4: np.uint32}[np.dtype(dtype).itemsize]


def to_peer(codes, dtype):
    return np.asarray(codes).astype(pattern(dtype)).view(dtype)


def all_pairs(fmt):
    a, b = np.meshgrid(np.arange(2**fmt.width), np.arange(2**fmt.width), indexing="ij")
    return a.ravel(), b.ravel()


def random_pairs(fmt, count, rng):
    """Pairs of any codes; pairs whose exponents are near, which align, tie and cancel; and pairs whose product is near
    either end of the range."""
    m, half, top = fmt.mantissa, 1 << (fmt.width - 1), (1 << fmt.exponent) - 1
    a, b = rng.integers(0, 2**fmt.width, (2, count))
    field = a >> m & top
    fraction = rng.choice([0, 1, (1 << m) - 1, 1 << m >> 1], count) ^ (rng.integers(0, 1 << m, count) & 1)
    near = field + rng.integers(-m - 3, m + 4, count)
    low, high = fmt.bias + rng.integers(-m - 2, 3, count) - field, fmt.bias + top + rng.integers(-3, 2, count) - field
    for index, exponent in enumerate((near, low, high)):
        part = slice(index + 1, None, 8)
        b[part] = (b & (half | (1 << m) - 1) | np.clip(exponent, 0, top) << m)[part]
        part = slice(index + 5, None, 8)
        b[part] = (b & half | np.clip(exponent, 0, top) << m | fraction)[part]
    b[4::64] = a[4::64] ^ half
    return a, b


def assert_same(ours, theirs, fmt, *operands):
    """Equal codes; where theirs is NaN ours is the canonical one."""
    with np.errstate(all="ignore"):
        nan = np.isnan(theirs.astype(np.float32))
    if fmt.nan_code is None:
        assert not nan.any()
    else:
        # A result that is beyond the format with neither Inf nor a rule to saturate has a NaN with its sign.
        bad = nan & (ours != fmt.nan_code)
        if fmt.specials == "fn":
            bad &= ours != fmt.nan_code | 1 << (fmt.width - 1)
        assert not bad.any()
    different = np.flatnonzero((ours != theirs.view(pattern(theirs.dtype))) & ~nan)
    assert not different.size, [(*(hex(v[i]) for v in operands), hex(ours[i]), theirs[i]) for i in different[:5]]
