"""Microscaling in exact fractions, with ml_dtypes' element tables: what its tests share."""

from fractions import Fraction
from functools import lru_cache
from math import floor, inf

import ml_dtypes
import numpy as np
import pytest

__all__ = ["BITS", "ORACLES", "element_values", "every_format", "exact_element", "exact_round", "floor_log2", "grid",
           "power", "specimens"]

ORACLES = {"mxfp8-e5m2": ml_dtypes.float8_e5m2, "mxfp8-e4m3": ml_dtypes.float8_e4m3fn,
           "mxfp6-e3m2": ml_dtypes.float6_e3m2fn, "mxfp6-e2m3": ml_dtypes.float6_e2m3fn,
           "mxfp4-e2m1": ml_dtypes.float4_e2m1fn, "mxint8": None}
BITS = {"mxfp8-e5m2": 8, "mxfp8-e4m3": 8, "mxfp6-e3m2": 6, "mxfp6-e2m3": 6, "mxfp4-e2m1": 4, "mxint8": 8}

every_format = pytest.mark.parametrize("name", ORACLES)


def power(exponent):
    return Fraction(2)**exponent


def floor_log2(x):
    """Of a positive Fraction."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if x >= power(exponent) else exponent - 1


@lru_cache
def element_values(name):
    """The values of all element codes, by somebody else's table (MXINT8: by its definition)."""
    codes = np.arange(1 << BITS[name], dtype=np.uint8)
    if name == "mxint8":
        return codes.view(np.int8) / 64
    return codes.view(ORACLES[name]).astype(np.float64)


@lru_cache
def grid(name):
    """The finite magnitudes in order; in every format the place of a magnitude is its code."""
    values = element_values(name)[:1 << (BITS[name] - 1)]
    return [Fraction(float(v)) for v in values if np.isfinite(v)]


def exact_element(y, name, rounding, word):
    """The magnitude code of a Fraction that is not negative."""
    values = grid(name)
    if y >= values[-1]:
        return len(values) - 1
    low = next(k for k in reversed(range(len(values))) if values[k] <= y)
    rest = (y - values[low]) / (values[low + 1] - values[low])
    if rounding.kind == "nearest":
        return low + (rest > Fraction(1, 2) or rest == Fraction(1, 2) and low % 2)
    if rounding.kind == "truncate":
        return low
    k = rounding.bits
    if rounding.corrected:
        return low + (floor(rest * 2**(k + 1)) + 2 * word + 1 >= 2**(k + 1))
    return low + (floor(rest * 2**k) + word >= 2**k)


def specimens(dtype, rng, rows, block):
    """Blocks over the whole range, narrow and wide, with ties, powers of two, tiny numbers and zeros."""
    low, high = (-149, 127) if dtype == np.float32 else (-300, 300)
    place = rng.integers(low, high + 1, (rows, 1))
    place[: rows // 4] = rng.integers(-149, -120, (rows // 4, 1))
    place[rows // 4: rows // 3] = rng.integers(115, 128, (rows // 3 - rows // 4, 1))
    short = rng.integers(0, 1 << 8, (rows, block)) / 256.0
    long = rng.random((rows, block))
    significand = 1 + np.where(rng.random((rows, block)) < 0.5, short, long)
    significand[rng.random((rows, block)) < 0.1] = 1
    just_below = rng.random((rows, block)) < 0.1
    significand[just_below] = 2 - np.exp2(-rng.integers(1, 24, just_below.sum()))
    exponent = place - rng.integers(0, rng.choice([1, 3, 9, 25], (rows, 1)), (rows, block))
    with np.errstate(over="ignore"):
        x = np.ldexp(significand, exponent).astype(dtype)
    x = np.where(np.isfinite(x), x, np.finfo(dtype).max)
    x[rng.random(x.shape) < 0.05] = 0
    x[rng.random(rows) < 0.02] = 0
    return x * np.where(rng.random(x.shape) < 0.5, -1, 1).astype(dtype)


def exact_round(x, fmt):
    """A Fraction rounded to nearest even in an IEEE-like format; an exact zero is +0."""
    if x == 0:
        return 0.0
    exponent = max(floor_log2(abs(x)), fmt.emin) - fmt.mantissa
    q = round(abs(x) / power(exponent)) * power(exponent)
    value = inf if q > Fraction(fmt.max) else float(q)
    return -value if x < 0 else value
