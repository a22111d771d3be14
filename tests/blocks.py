"""Block floating point in exact fractions, written from the numerics contract, section 3."""

from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import blockfloat as bf
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.rounding import NEAREST

__all__ = ["BF16", "FAST4", "FP16", "FP32", "assert_same", "each", "exact_add", "exact_group", "exact_round",
           "floor_log2", "operands", "power", "random_blocks"]

FP32, FP16, BF16 = PRESETS["fp32"], PRESETS["fp16"], PRESETS["bf16"]
FAST4 = PRESETS["fast-4"]


def each(names, table):
    return pytest.mark.parametrize(names, [pytest.param(value, id=key) for key, value in table.items()])


def power(exponent):
    return Fraction(1 << max(exponent, 0), 1 << max(-exponent, 0))


def floor_log2(x):
    """Of a positive Fraction."""
    n = x.numerator.bit_length() - x.denominator.bit_length()
    return n if power(n) <= x else n - 1


def exact_group(xs, fmt, rounding, words):
    """One group of floats by the text: its exponent code and its signed magnitudes."""
    m, top = fmt.mantissa, 2**fmt.mantissa - 1
    emin, emax = -fmt.bias, 2**fmt.exponent - 1 - fmt.bias
    negative = np.signbit(xs)
    finite = [Fraction(abs(x)) if np.isfinite(x) else None for x in xs]
    nonzero = [x for x in finite if x != 0]
    if not nonzero:
        return 0, [0] * len(xs)
    special = None in nonzero
    exponent = emax + 1 if special else max(map(floor_log2, nonzero))
    if exponent > emax:
        return 2**fmt.exponent - 1, [0 if x == 0 else -top if s else top for x, s in zip(finite, negative)]
    exponent = max(exponent, emin)
    result = []
    for x, s, word in zip(finite, negative, words):
        scaled = x * power(m - 1 - exponent)
        if rounding.kind == "nearest":
            q = round(scaled)  # Python rounds a Fraction to nearest even
        elif rounding.kind == "truncate":
            q = int(scaled)
        elif rounding.corrected:
            q = (int(scaled * 2 ** (rounding.bits + 1)) + 2 * word + 1) >> (rounding.bits + 1)
        else:
            q = (int(scaled * 2**rounding.bits) + word) >> rounding.bits
        result.append(min(q, top) * (-1 if s else 1))
    return exponent - emin, result


def exact_round(x, fmt):
    """A Fraction rounded to nearest even in an IEEE-like format: its float64 value, an exact zero being +0."""
    if x == 0:
        return 0.0
    unit = power(max(floor_log2(abs(x)), 1 - fmt.bias) - fmt.mantissa)
    magnitude = round(abs(x) / unit) * unit
    largest = (2 - power(-fmt.mantissa)) * power(2**fmt.exponent - 2 - fmt.bias)
    return float(np.copysign(np.inf if magnitude > largest else float(magnitude), 1 if x > 0 else -1))


def exact_add(total, addend, fmt):
    return total if np.isinf(total) else exact_round(Fraction(total) + addend, fmt)


def assert_same(values, expected):
    """Equal, zeros with the same sign."""
    values, expected = np.asarray(values), np.asarray(expected)
    assert values.shape == expected.shape
    different = np.argwhere((values != expected) | (np.signbit(values) != np.signbit(expected)))
    assert different.size == 0, [(tuple(i), values[tuple(i)].hex(), expected[tuple(i)].hex()) for i in different[:5]]


def random_blocks(fmt, shape, rng, codes=None):
    """Blocks with any mantissas, and exponent codes drawn from `codes`, both ends among them."""
    low, high = codes or (0, 2**fmt.exponent - 1)
    top = 2**fmt.mantissa - 1
    exponents = rng.integers(low, high + 1, shape).astype(np.int16)
    exponents.flat[:2] = [low, high][:exponents.size]
    mantissas = rng.integers(-top, top + 1, (*shape, fmt.group)).astype(np.int8 if fmt.mantissa < 8 else np.int16)
    return bf.Blocks(fmt, exponents, mantissas, shape[-1] * fmt.group)


def operands(a_format, b_format, rng, *, shape=(5, 4), length=70, spread=3, centre=(0, 0), rounding=NEAREST):
    """Two matrices along a reduction of `length`, exponents varying by `spread`, with zeros and all-zero groups."""
    rows, columns = shape
    a = np.ldexp(rng.standard_normal((rows, length)), centre[0] + rng.integers(-spread, spread + 1, (rows, length)))
    b = np.ldexp(rng.standard_normal((length, columns)), centre[1] + rng.integers(-spread, spread + 1, (length, 1)))
    a[rng.random(a.shape) < 0.2] = 0
    if length > a_format.group:
        a[0, :a_format.group] = 0
        b[-a_format.group:, 1] = 0
    return (bf.quantise(a, a_format, rounding=rounding), bf.quantise(b, b_format, axis=0, rounding=rounding))
