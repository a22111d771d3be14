"""Logarithmic numbers in exact integers, and formats to try: what their tests share."""

from fractions import Fraction
from functools import lru_cache
from math import inf

import numpy as np
import pytest
from narrowgauge.golden.formats import PRESETS, Float

__all__ = ["GAMMAS", "LNS8", "RESULTS", "WIDE", "every_result", "exact_codes", "exact_constant", "exact_level",
           "exact_round", "exact_scale", "exact_weight", "gammas", "level_of_integer", "name_of", "random_codes"]

GAMMAS = [1, 2, 4, 8, 16, 32]
LNS8, WIDE = PRESETS["lns8"], PRESETS["lns16-update"]
gammas = pytest.mark.parametrize("gamma", GAMMAS)

# Results: the presets with Inf, wider and narrower ones, and some whose range is far from that of the sums.
RESULTS = {"fp32": PRESETS["fp32"], "fp16": PRESETS["fp16"], "bf16": PRESETS["bf16"], "fp8-e5m2": PRESETS["fp8-e5m2"],
           "e4m3": Float(4, 3), "e2m1": Float(2, 1), "e2m29": Float(2, 29), "e11m20": Float(11, 20),
           "e5m10-low": Float(5, 10, bias=60), "e6m9-high": Float(6, 9, bias=-20)}
every_result = pytest.mark.parametrize("result", [pytest.param(fmt, id=name) for name, fmt in RESULTS.items()])


def name_of(fmt):
    """Of a Log, in the names of tests."""
    return f"{fmt.bits}-{fmt.gamma}"


@lru_cache(None)
def level_of_integer(m, gamma):
    """round(gamma * log2(m)), which is half of floor(2 * gamma * log2(m)) + 1: exact, and never a tie."""
    return (m ** (2 * gamma)).bit_length() // 2


def exact_level(x, gamma):
    """round(gamma * log2 |x|) of a float that is neither zero nor special."""
    top, bottom = abs(float(x)).as_integer_ratio()
    twos = (top & -top).bit_length() - 1
    return level_of_integer(top >> twos, gamma) + gamma * (twos - bottom.bit_length() + 1)


def exact_scale(level, fmt):
    """The least scale that fits, found by trying."""
    return next((k for k in range(-127, 127) if level - fmt.gamma * k <= fmt.top), 127)


def exact_codes(xs, fmt, scale, emax):
    """Codes, scale, and whether something is beyond the top code, of a list of floats."""
    level = [fmt.gamma * (emax + 1) if not np.isfinite(x) else x and exact_level(x, fmt.gamma) for x in xs]
    if scale is None:
        some = [each for each, x in zip(level, xs) if x != 0]
        scale = exact_scale(max(some), fmt) if some else -127
    codes, above = [], False
    for each, x in zip(level, xs):
        t = 0 if x == 0 else max(each - fmt.gamma * scale, 0)
        above |= t > fmt.top or not np.isfinite(x)
        t = fmt.top if not np.isfinite(x) else min(t, fmt.top)
        codes.append(t | (bool(np.signbit(x)) and t > 0) << (fmt.bits - 1))
    return codes, scale, above


@lru_cache(None)
def exact_weight(k, count, fraction):
    """2**(k / count), rounded to `fraction` bits."""
    w = 1 << fraction
    while (2 * w + 1) ** count < 1 << (k + count * (fraction + 1)):
        w += 1
    return Fraction(w, 1 << fraction)


@lru_cache(None)
def exact_constant(r, gamma, count, fraction):
    """What 2**(r / gamma) counts as."""
    high, low = divmod(r, gamma // count)
    return exact_weight(high, count, fraction) * (1 + Fraction(low, gamma))


def exact_round(x, fmt):
    """A Fraction rounded to nearest even; a zero is +0."""
    if x == 0:
        return 0.0
    exponent = abs(x).numerator.bit_length() - abs(x).denominator.bit_length()
    exponent -= abs(x) < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, fmt.emin) - fmt.mantissa)
    q = round(abs(x) / unit) * unit
    value = inf if q > Fraction(fmt.max) else float(q)
    return -value if x < 0 < value else value


def random_codes(rng, fmt, shape, high=0.1):
    """Codes of which some are zero (of either sign), some near the top."""
    t = rng.integers(0, fmt.top + 1, shape)
    kind = rng.random(shape)
    t = np.where(kind < 0.1, 0, np.where(kind > 1 - high, fmt.top - rng.integers(0, 2, shape), t))
    return t | rng.integers(0, 2, shape) << (fmt.bits - 1)
