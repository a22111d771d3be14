"""OCP microscaling against its definition in exact fractions, with ml_dtypes' element tables."""

import doctest
import itertools
import json
from fractions import Fraction
from functools import lru_cache
from math import floor, inf
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from narrowgauge.golden import accumulator, mx
from narrowgauge.golden.formats import PRESETS, Fixed, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream, counted

ORACLES = {"mxfp8-e5m2": ml_dtypes.float8_e5m2, "mxfp8-e4m3": ml_dtypes.float8_e4m3fn,
           "mxfp6-e3m2": ml_dtypes.float6_e3m2fn, "mxfp6-e2m3": ml_dtypes.float6_e2m3fn,
           "mxfp4-e2m1": ml_dtypes.float4_e2m1fn, "mxint8": None}
BITS = {"mxfp8-e5m2": 8, "mxfp8-e4m3": 8, "mxfp6-e3m2": 6, "mxfp6-e2m3": 6, "mxfp4-e2m1": 4, "mxint8": 8}
MANTISSA = {"mxfp8-e5m2": 2, "mxfp8-e4m3": 3, "mxfp6-e3m2": 2, "mxfp6-e2m3": 3, "mxfp4-e2m1": 1, "mxint8": 6}
ROUNDINGS = [NEAREST, TRUNCATE, stochastic(8), stochastic(5, corrected=True), stochastic(16)]
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


def exact_scale(top, name, rule):
    """The scale code of a block with the largest magnitude `top`, from the words of the rule."""
    if top == 0:
        return 0
    largest = grid(name)[-1]
    emax = floor_log2(largest)
    if rule == "floor":
        exponent = floor_log2(top) - emax
    elif rule == "ceil":
        exponent = -floor_log2(1 / top) - emax
    elif rule == "even":
        unit = power(floor_log2(top) - MANTISSA[name])
        exponent = floor_log2(floor(top / unit + Fraction(1, 2)) * unit) - emax
    else:
        exponent = floor_log2(top / largest)
        exponent += power(exponent) * largest < top
    return min(max(exponent, -127), 127) + 127


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


def exact_block(xs, name, rule, rounding, words):
    """Scale code and element values (scaled, Fractions) of one block of finite numbers."""
    top = max(abs(Fraction(float(x))) for x in xs)
    code = exact_scale(top, name, rule)
    values = []
    for x, word in zip(xs, words, strict=True):
        x = Fraction(float(x))
        q = grid(name)[exact_element(abs(x) / power(code - 127), name, rounding, int(word))]
        values.append((-q if x < 0 else q) * power(code - 127))
    return code, values


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


# Formats.


@every_format
def test_presets_are_those_of_ocp(name):
    fmt = mx.PRESETS[name]
    assert fmt.block == 32
    np.testing.assert_array_equal(fmt.decode(np.arange(1 << BITS[name])), element_values(name))
    assert mx.MX.from_json(json.dumps(fmt.to_json())) == mx.parse(name) == mx.parse(fmt) == fmt
    assert mx.parse(fmt.to_json()) == fmt


def test_a_format_of_ones_own_survives_json():
    for element in (Float(3, 3, bias=5), Float(1, 5, bias=0, specials="none", overflow="saturate"), Fixed(5, 2)):
        fmt = mx.MX(element, 20)
        assert mx.MX.from_json(json.dumps(fmt.to_json())) == fmt
        hash(fmt)


@pytest.mark.parametrize("settings, message", [
    ({"element": "fp16"}, r"^element is 'fp16'; allowed: fp8-e5m2, fp8-e4m3, fp6-e3m2, fp6-e2m3, fp4-e2m1, int8, "),
    ({"element": PRESETS["fp16"]}, r"^element is Float\(.*; allowed: .*a Float of up to 8 bits"),
    ({"element": Fixed(9, 6)}, r"^element is Fixed\(bits=9, fraction=6\); allowed: .*a Fixed of 3 to 8 bits"),
    ({"element": Float(6, 1)}, r"^element is Float\("),
    ({"element": None}, r"^element is None; allowed"),
    ({"element": Float(3, 2, bias=7)}, r"^element is Float\("),
    ({"element": Float(3, 2, bias=-1)}, r"^element is Float\("),
    ({"element": Float(5, 0)}, r"^element is Float\("),
    ({"element": Fixed(8, 7)}, r"^element is Fixed\("),
    ({"block": 0}, r"^block is 0; allowed: an integer from 1 to 1024$"),
])
def test_formats_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        mx.MX(**settings)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"^format is 'mxfp5'; allowed: mxfp8-e5m2, .*, mxint8$"):
        mx.parse("mxfp5")
    with pytest.raises(ValueError, match=r"^scale_rule is 'round'; allowed: floor, ceil, even, rceil$"):
        mx.quantise(np.ones(32), mx.MX(), scale_rule="round")
    with pytest.raises(ValueError, match=r"^scale_rule is 'round'"):
        mx.scale_codes(1.0, mx.MX(), "round")


def test_scales_are_e8m0():
    codes = np.arange(256, dtype=np.uint8)
    ones = mx.Blocks(mx.MX("int8", 1), codes[:, np.newaxis], np.full((256, 1, 1), 64, np.uint8), 1)
    np.testing.assert_array_equal(ones.values()[:, 0], codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float64))


# Quantising.


@every_format
@pytest.mark.parametrize("rule", mx.SCALE_RULES)
def test_scale_rules_are_their_definitions(name, rule):
    rng = np.random.default_rng(5)
    tops = np.abs(specimens(np.float64, rng, 400, 4)).max(axis=1)
    # Every edge of every rule, one float64 and one float32 to either side.
    edges = np.concatenate([np.linspace(1, 2, 513)[:-1], np.exp2([-127, -126, 127, 128, -150, 150.0])])
    around = [edges, np.nextafter(edges, 0), np.nextafter(edges, 9), edges * (1 - 2.0**-24), edges * (1 + 2.0**-23)]
    tops = np.concatenate([tops, *around, [0, 5e-324, 1.7e308]])
    codes = mx.scale_codes(tops, mx.PRESETS[name], rule)
    assert codes.tolist() == [exact_scale(Fraction(float(t)), name, rule) for t in tops]


def test_scale_codes_of_no_numbers():
    assert mx.scale_codes([np.inf, np.nan, 0.0], mx.MX()).tolist() == [255, 255, 0]


@every_format
@pytest.mark.parametrize("rule", mx.SCALE_RULES)
@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_quantise_is_the_definition(name, rule, rounding, dtype):
    rng = np.random.default_rng(7)
    fmt = mx.MX(mx.PRESETS[name].element, 5)
    x = specimens(dtype, rng, 40, 5)
    words = rng.integers(0, 1 << rounding.bits, x.shape)
    blocks = mx.quantise(x, fmt, rounding=rounding, scale_rule=rule,
                         random=words if rounding.kind == "stochastic" else None)
    assert blocks.scales.dtype == blocks.elements.dtype == np.uint8 and not blocks.invalid
    values = blocks.values()
    for row in range(len(x)):
        code, exact = exact_block(x[row], name, rule, rounding, words[row])
        assert blocks.scales[row, 0] == code
        assert [Fraction(v) for v in values[row].tolist()] == exact
    if name != "mxint8":
        assert (np.signbit(values) == np.signbit(x)).all()  # zeros too


@every_format
def test_nearest_elements_are_ml_dtypes_casts(name):
    # Blocks that hold a number of scale 1 beside every float32 with 8 mantissa bits in reach, and a bit more or less.
    fmt = mx.PRESETS[name]
    top = grid(name)[-1]
    y = np.arange(1 << 15, dtype=np.uint32)
    y = np.concatenate([(y << 16).view(np.float32), ((y << 16) | 1).view(np.float32), ((y << 16) - 1).view(np.float32)])
    y = y[np.isfinite(y)]
    y = y[y < float(2 * power(floor_log2(top)))]
    y = np.resize(y, (-(-len(y) // 31), 31)) * np.where(np.arange(31) % 2, -1, 1).astype(np.float32)
    x = np.column_stack([y, np.full(len(y), float(power(floor_log2(top))), np.float32)])
    blocks = mx.quantise(x, fmt)
    assert (blocks.scales == 127).all()
    limited = np.clip(x, -float(top), float(top))
    if name == "mxint8":
        expected = np.rint(limited * 64).astype(np.int8).view(np.uint8)
    else:
        expected = limited.astype(ORACLES[name]).view(np.uint8)
    np.testing.assert_array_equal(blocks.elements[:, 0], expected)


@every_format
@pytest.mark.parametrize("rounding", [NEAREST, TRUNCATE], ids=str)
def test_float32_and_float64_round_alike(name, rounding):
    # float32 goes through a table, float64 does not: the same numbers, many of them.
    x = specimens(np.float32, np.random.default_rng(11), 6000, 32)
    for rule in mx.SCALE_RULES:
        narrow = mx.quantise(x, mx.PRESETS[name], rounding=rounding, scale_rule=rule)
        wide = mx.quantise(x.astype(np.float64), mx.PRESETS[name], rounding=rounding, scale_rule=rule)
        np.testing.assert_array_equal(narrow.scales, wide.scales)
        np.testing.assert_array_equal(narrow.elements, wide.elements)


@every_format
def test_no_magnitude_is_above_the_largest_element_under_ceil_and_rceil(name):
    rng = np.random.default_rng(12)
    x = np.ldexp(rng.uniform(1, 2, (500, 2)), rng.integers(-40, 40, (500, 1)))
    top, largest = np.abs(x).max(axis=1), float(grid(name)[-1])
    above = {rule: (top > np.ldexp(largest, mx.scale_codes(top, mx.PRESETS[name], rule).astype(int) - 127)).any()
             for rule in mx.SCALE_RULES}
    assert above == {"floor": True, "ceil": False, "even": True, "rceil": False}


@every_format
def test_nan_and_inf_make_the_block_nan(name):
    x = np.ones((6, 32), np.float32)
    x[1, 3], x[2, 0], x[3, 31], x[4, 4:6] = np.nan, np.inf, -np.inf, (np.inf, np.nan)
    blocks = mx.quantise(x, mx.PRESETS[name])
    assert (blocks.scales[:, 0] == 255).tolist() == [False, True, True, True, True, False]
    assert not blocks.elements[1:5].any() and (blocks.invalid, blocks.overflow) == (True, True)
    assert np.isnan(blocks.values()[1:5]).all() and (blocks.values()[[0, 5]] == 1).all()
    only_inf = mx.quantise(x[2:4], mx.PRESETS[name])
    assert (only_inf.invalid, only_inf.overflow) == (False, True)


@every_format
def test_both_ends_of_the_scale(name):
    fmt = mx.PRESETS[name]
    largest = float(grid(name)[-1])
    high = mx.quantise(np.array([1e300, -1.0, 2.0**120]), fmt)
    assert high.scales == 254 and high.overflow and not high.invalid
    assert high.values().tolist()[0] == np.ldexp(largest, 127)
    assert not mx.quantise(np.array([np.ldexp(largest, 127)]), fmt).overflow
    low = mx.quantise(np.array([2.0**-149, -(2.0**-127)], np.float32), fmt)
    assert low.scales == 0 and not low.overflow
    assert low.values()[1] == -(2.0**-127)
    zero = mx.quantise(np.zeros(40, np.float32), fmt)
    assert not zero.scales.any() and not zero.elements.any() and not zero.values().any()


def test_int8_is_symmetric_but_decodes_its_most_negative_code():
    fmt = mx.PRESETS["mxint8"]
    blocks = mx.quantise(np.array([-1.999, 1.999, -1.0, 1 / 128, 3 / 128]), fmt)
    assert blocks.elements[0, :5].view(np.int8).tolist() == [-127, 127, -64, 0, 2]
    lowest = mx.Blocks(fmt, np.array([127], np.uint8), np.full((1, 32), 128, np.uint8), 32)
    assert (lowest.values() == -2).all()
    assert mx.dot(lowest, lowest)[0] == 128


@pytest.mark.parametrize("shape", [(3, 40), (2, 3, 32), (5, 1), (64,), (4, 7, 2)], ids=str)
@pytest.mark.parametrize("rounding", [NEAREST, stochastic(8)], ids=str)
def test_any_axis_and_tail(shape, rounding):
    x = np.random.default_rng(3).standard_normal(shape)
    fmt = mx.MX("fp6-e2m3", 8)
    for axis in range(-len(shape), len(shape)):
        stream = Stream(4, 8) if rounding.kind == "stochastic" else None
        blocks = mx.quantise(x, fmt, axis=axis, rounding=rounding, random=stream)
        values = blocks.values()
        assert values.shape == shape and blocks.length == shape[axis]
        rows = np.moveaxis(x, axis, -1).reshape(-1, shape[axis])
        got = np.moveaxis(values, axis, -1).reshape(rows.shape)
        per_row = -(-shape[axis] // 8)
        words = counted(4, 8, 0, len(rows) * per_row)
        for k, row in enumerate(rows):
            for j in range(per_row):
                part = row[8 * j:8 * j + 8]
                _, exact = exact_block(part, "mxfp6-e2m3", "floor", rounding, words[k * per_row + j, :len(part)])
                assert [Fraction(v) for v in got[k, 8 * j:8 * j + 8].tolist()] == exact


def test_float16_is_taken_exactly():
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = x[np.isfinite(x)].reshape(-1, 32)
    a, b = mx.quantise(x, mx.MX()), mx.quantise(x.astype(np.float64), mx.MX())
    np.testing.assert_array_equal(a.elements, b.elements)
    np.testing.assert_array_equal(a.scales, b.scales)


# Products.


def exact_round(x, fmt):
    """A Fraction rounded to nearest even in an IEEE-like format; an exact zero is +0."""
    if x == 0:
        return 0.0
    exponent = max(floor_log2(abs(x)), fmt.emin) - fmt.mantissa
    q = round(abs(x) / power(exponent)) * power(exponent)
    value = inf if q > Fraction(fmt.max) else float(q)
    return -value if x < 0 else value


def exact_add(total, addend, fmt):
    return total if np.isinf(total) or np.isnan(total) else exact_round(Fraction(total) + addend, fmt)


def random_blocks(name, rng, shape, block, spread=3, centre=127):
    """Blocks of any finite codes; small ones, large ones and zeros more often."""
    fmt = mx.MX(mx.PRESETS[name].element, block)
    codes = np.flatnonzero(np.isfinite(element_values(name)))
    elements = rng.choice(codes, (*shape, block)).astype(np.uint8)
    kind = rng.random((*shape, 1))
    elements = np.where(kind < 0.2, codes[np.nanargmax(element_values(name)[codes])], elements)
    elements = np.where((kind > 0.8) & (rng.random(elements.shape) < 0.8), rng.integers(0, 3, elements.shape), elements)
    scales = np.clip(centre + rng.integers(-spread, spread + 1, shape), 0, 254)
    return mx.Blocks(fmt, scales.astype(np.uint8), elements.astype(np.uint8), shape[-1] * block)


def fractions(blocks, name):
    """Values as Fractions, shape (..., blocks, block)."""
    scaled = [[[Fraction(float(element_values(name)[q])) * power(int(scale) - 127) for q in block]
               for scale, block in zip(scales, elements)]
              for scales, elements in zip(blocks.scales, blocks.elements)]
    return scaled


PAIRS = [(name, name) for name in ORACLES] + [("mxfp8-e4m3", "mxfp8-e5m2"), ("mxfp8-e5m2", "mxfp4-e2m1"),
                                              ("mxint8", "mxfp8-e5m2"), ("mxfp6-e3m2", "mxfp8-e4m3")]


@pytest.mark.parametrize("first, second", PAIRS)
@pytest.mark.parametrize("block", [3, 32, 300])
def test_dot_is_exact(first, second, block):
    rng = np.random.default_rng(21)
    a, b = random_blocks(first, rng, (1, 40), block, 120), random_blocks(second, rng, (1, 40), block, 120)
    high, low = mx.dot(a, b)
    for k, (x, y) in enumerate(zip(fractions(a, first)[0], fractions(b, second)[0])):
        assert Fraction(float(high[0, k])) + Fraction(float(np.broadcast_to(low, high.shape)[0, k])) == sum(
            p * q for p, q in zip(x, y))


def test_dot_of_a_nan_block_or_element_is_nan():
    fmt = mx.PRESETS["mxfp8-e5m2"]
    elements = np.full((5, 32), 0x3C, np.uint8)
    elements[1, 7], elements[2, 0] = 0x7C, 0xFF  # Inf, NaN
    scales = np.array([127, 127, 127, 255, 127], np.uint8)
    a = mx.Blocks(fmt, scales, elements, 32)
    b = mx.Blocks(fmt, np.full(5, 127, np.uint8), np.zeros((5, 32), np.uint8), 32)
    for x, y in ((a, b), (b, a)):
        high, low = mx.dot(x, y)
        assert np.isnan(high).tolist() == [False, True, True, True, False]
        assert not np.any(low)


@pytest.mark.parametrize("first, second", PAIRS)
@pytest.mark.parametrize("accumulator", ["fp32", "bf16", "fp16"])
def test_matmul_is_the_scalar_loop(first, second, accumulator):
    rng = np.random.default_rng(23)
    fmt = PRESETS[accumulator]
    # Places where fp16 and fp32 sums are normal, subnormal and infinite.
    emax = {name: floor_log2(grid(name)[-1]) for name in ORACLES}
    for target in (0, fmt.emin, fmt.emin - fmt.mantissa, fmt.emax - 4):
        for spread in (1, 6):
            centre = 127 + (target - emax[first] - emax[second]) // 2
            a = random_blocks(first, rng, (4, 4), 8, spread, centre)
            b = random_blocks(second, rng, (3, 4), 8, spread, centre)
            b = mx.Blocks(b.format, b.scales, b.elements, b.length, 0)
            b.elements[1, 2], b.scales[1, 2] = b.elements[1, 1], b.scales[1, 1]
            got = mx.matmul(a, b, fmt)
            for i, row in enumerate(fractions(a, first)):
                for j, column in enumerate(fractions(b, second)):
                    total = 0.0
                    for x, y in zip(row, column):
                        total = exact_add(total, sum(p * q for p, q in zip(x, y)), fmt)
                    assert got[i, j] == total and np.signbit(got[i, j]) == np.signbit(total)


@every_format
def test_long_sums_meet_ties_and_cancel(name):
    # The same block once with each sign, in every order, beside blocks 24 bits below: one rounding shows.
    rng = np.random.default_rng(29)
    fmt = PRESETS["fp32"]
    a = random_blocks(name, rng, (30, 6), 4, 0)
    a.scales[:] = 127 + rng.choice([-48, -25, -24, -23, 0], a.scales.shape)
    one = mx.MX(a.format.element, 4).encode(np.array([1.0, -1, 1, 1]))
    b = mx.Blocks(a.format, np.full((2, 6), 127, np.uint8), np.resize(one, (2, 6, 4)), 24, 0)
    b.elements[1, :, 1:] = b.elements[1, :, :1]
    got = mx.matmul(a, b, fmt)
    for i, row in enumerate(fractions(a, name)):
        for j, column in enumerate(fractions(b, name)):
            total = 0.0
            for x, y in zip(row, column):
                total = exact_add(total, sum(p * q for p, q in zip(x, y)), fmt)
            assert got[i, j] == total


def test_the_lowest_bits_of_e5m2_products_survive_cancellation():
    # 2**30 leaves again and 2**-32, 63 bits below, is what remains; then beside a tie of fp32, either way.
    fmt = mx.MX("fp8-e5m2", 8)
    large, small = 0x78, 0x01  # 2**15 and 2**-16
    cases = [
        ((large | 0x80, 0, 0), (large, small, 0), 2.0**-32),
        ((large | 0x80, 0, 0), (large, small | 0x80, 0), -2.0**-32),
        ((large, 0, 0), (0, small, 0x54), 2.0**30 + 128),  # 0x54 is 2**6, half a unit of fp32 at 2**30
        ((large, 0, 0), (0, small | 0x80, 0x54), 2.0**30),
    ]
    for before, after, expected in cases:
        rows = np.zeros((1, 2, 8), np.uint8)
        rows[0, :, :3] = before, after
        columns = np.zeros((1, 2, 8), np.uint8)
        columns[0, :, :3] = [(large, 0x3C, 0x3C), (large, small, 0x3C)]
        scales = np.full((1, 2), 127, np.uint8)
        a, b = mx.Blocks(fmt, scales, rows, 16), mx.Blocks(fmt, scales, columns, 16, 0)
        assert mx.matmul(a, b)[0, 0] == expected
        p = mx.MXDotParameters("fp8-e5m2", block=8, lanes=4)
        codes, _, _ = mx.dots(p, (scales[0], rows[0]), (scales[0], columns[0]), [0, 0], [True, False], [False, True])
        assert p.accumulator.decode(codes).tolist() == [expected]


def test_matmul_with_nan_blocks():
    x = np.ones((3, 64))
    x[1, 40] = np.nan
    a, b = mx.quantise(x, mx.MX()), mx.quantise(np.ones((64, 2)), mx.MX(), axis=0)
    np.testing.assert_array_equal(mx.matmul(a, b), [[64, 64], [np.nan, np.nan], [64, 64]])


def test_matmul_checks_its_operands():
    a, b = mx.quantise(np.ones((3, 64)), mx.MX()), mx.quantise(np.ones((64, 2)), mx.MX(), axis=0)
    with pytest.raises(ValueError, match=r"^axis of b is 1; allowed: the reduction axis of the product$"):
        mx.matmul(a, mx.quantise(np.ones((64, 2)), mx.MX(), axis=1))
    with pytest.raises(ValueError, match=r"^operands is .*; allowed: equal reduction lengths and blocks$"):
        mx.matmul(a, mx.quantise(np.ones((63, 2)), mx.MX(), axis=0))
    with pytest.raises(ValueError, match=r"^operands is"):
        mx.matmul(mx.quantise(np.ones((3, 64)), mx.MX(block=16)), b)
    with pytest.raises(ValueError, match=r"^blocks is \(16, 32\); allowed: of equal length$"):
        mx.dot(mx.quantise(np.ones((3, 64)), mx.MX(block=16)), a)


# What the units compute.


@pytest.mark.parametrize("settings", [
    {}, {"element": "int8", "work": PRESETS["bf16"], "scale_rule": "even", "block": 9},
    {"element": "fp4-e2m1", "rounding": "stochastic", "random_bits": 5, "corrected": True, "scale_rule": "rceil"},
    {"element": "fp8-e5m2", "rounding": "truncate", "scale_rule": "ceil", "block": 64},
], ids=str)
def test_convert_is_quantise_block_by_block(settings):
    p = mx.MXConverterParameters(**settings)
    assert mx.MXConverterParameters.from_json(json.dumps(p.to_json())) == p
    rng = np.random.default_rng(31)
    codes = rng.integers(0, 1 << p.work.width, (300, p.block))
    codes &= ~(1 << p.work.mantissa)  # no Inf, no NaN ...
    codes[::10, 3] = rng.choice([p.work.inf_code, p.work.nan_code, p.work.max_code], 30)  # ... but these
    scales, elements, invalid, overflow = mx.convert(p, codes, step=77)
    stream = Stream(p.seed, p.block, bits=p.random_bits, vector=77)
    for k, x in enumerate(p.work.decode(codes)):
        blocks = mx.quantise(x, p.format, rounding=p.mode, scale_rule=p.scale_rule, random=stream)
        assert blocks.scales[0] == scales[k] and (blocks.elements[0] == elements[k]).all()
        assert (blocks.invalid, blocks.overflow) == (invalid[k], overflow[k])


def test_overflow_of_the_converter_with_finite_numbers():
    p = mx.MXConverterParameters(element="int8", scale_rule="rceil")
    codes = np.zeros((2, 32), int)
    codes[:, 0] = p.work.max_code, p.work.max_code - (1 << 18)  # 2**128 - 2**104 and 2**128 - 2**122
    scales, elements, invalid, overflow = mx.convert(p, codes)
    assert scales.tolist() == [254, 254] and elements[:, 0].tolist() == [127, 126]
    assert invalid.tolist() == [False, False] and overflow.tolist() == [True, False]


@pytest.mark.parametrize("first, second", list(itertools.product(ORACLES, repeat=2)))
@pytest.mark.parametrize("accumulator", ["fp32", "bf16"])
def test_dots_is_the_scalar_loop(first, second, accumulator):
    rng = np.random.default_rng(37)
    p = mx.MXDotParameters(mx.PRESETS[first].element, mx.PRESETS[second].element, block=8, lanes=4,
                           accumulator=PRESETS[accumulator], accumulators=4)
    assert mx.MXDotParameters.from_json(json.dumps(p.to_json())) == p
    assert (p.format, p.format_b) == (mx.MX(mx.PRESETS[first].element, 8), mx.MX(mx.PRESETS[second].element, 8))
    a, b = (random_blocks(name, rng, (1, 300), 8, 9) for name in (first, second))
    a.scales[0, ::50] = 255
    slot, start, last = rng.integers(0, 4, 300), rng.random(300) < 0.1, rng.random(300) < 0.6
    codes, invalid, overflow = mx.dots(p, (a.scales[0], a.elements[0]), (b.scales[0], b.elements[0]), slot, start, last)
    sums, expected = {}, []
    for k, (x, y) in enumerate(zip(fractions(a, first)[0], fractions(b, second)[0])):
        total = 0.0 if start[k] else sums.get(slot[k], 0.0)
        total = np.nan if a.scales[0, k] == 255 else exact_add(total, sum(p * q for p, q in zip(x, y)), p.accumulator)
        sums[slot[k]] = total
        if last[k]:
            expected.append(total)
    np.testing.assert_array_equal(p.accumulator.decode(codes), expected)
    assert invalid and not overflow


def test_equal_elements_are_one_parameter():
    default, pair = mx.MXDotParameters(), mx.MXDotParameters(element_b="fp8-e5m2")
    settings = {"element": "fp8-e4m3", "block": 32, "lanes": 8, "accumulator": "fp32", "accumulators": 16}
    assert default.to_json() == settings and pair.to_json() == settings | {"element_b": "fp8-e5m2"}
    for same in (None, "fp8-e4m3", PRESETS["fp8-e4m3"]):
        assert mx.MXDotParameters.from_json({"element_b": same}) == mx.MXDotParameters(element_b=same) == default
    assert mx.MXDotParameters("int8", {"type": "Fixed", "bits": 8, "fraction": 6}) == mx.MXDotParameters("int8") != pair
    short = mx.MXDotParameters(element_b=Fixed(3, 1))
    assert short.to_json()["element_b"] == {"type": "Fixed", "bits": 3, "fraction": 1}
    assert mx.MXDotParameters.from_json(json.dumps(short.to_json())) == short


def test_dots_reports_overflow():
    p = mx.MXDotParameters(accumulator=PRESETS["fp16"], block=8, lanes=8)
    ones = mx.MX().encode(np.ones(8))
    elements, always = np.resize(ones, (3, 8)), np.ones(3, bool)
    for scale, expected in ((127 + 12, [32768.0, inf, inf]), (127 + 11, [16384.0, 32768.0, 49152.0])):
        codes, invalid, overflow = mx.dots(p, (np.full(3, scale), elements), (np.full(3, 127), elements),
                                           np.zeros(3, int), ~always, always)
        assert p.accumulator.decode(codes).tolist() == expected
        assert (invalid, overflow) == (False, expected[-1] == inf)


@every_format
def test_a_sum_stays_infinite_until_it_is_nan_until_it_starts_again(name):
    p = mx.MXDotParameters(mx.PRESETS[name].element, block=8, lanes=8)
    rng = np.random.default_rng(39)
    a, b = (random_blocks(name, rng, (1, 7), 8, 0) for _ in range(2))
    a.elements[0, :] = b.elements[0, :] = p.format.encode(np.ones(8))
    a.scales[0, :3] = b.scales[0, :3] = 254
    a.elements[0, 1:3] = rng.integers(0, 8, (2, 8))
    b.scales[0, 3] = 255
    codes, invalid, overflow = mx.dots(p, (a.scales[0], a.elements[0]), (b.scales[0], b.elements[0]), np.zeros(7, int),
                                       np.arange(7) == 5, np.ones(7, bool))
    assert [str(value) for value in p.accumulator.decode(codes)] == ["inf"] * 3 + ["nan"] * 2 + ["8.0", "16.0"]
    assert invalid and overflow


def test_units_take_nothing():
    p = mx.MXConverterParameters(rounding="stochastic")
    scales, elements, invalid, overflow = mx.convert(p, np.zeros((0, 32), int))
    assert scales.shape == invalid.shape == overflow.shape == (0,) and elements.shape == (0, 32)
    none, q = np.zeros(0, int), np.zeros((0, 32), int)
    codes, invalid, overflow = mx.dots(mx.MXDotParameters(), (none, q), (none, q), none, none, none)
    assert codes.shape == (0,) and not invalid and not overflow


@pytest.mark.parametrize("cls, settings, message", [
    (mx.MXConverterParameters, {"block": 7}, r"^block is 7; allowed: an integer from 8 to 64$"),
    (mx.MXConverterParameters, {"scale_rule": "round"}, r"^scale_rule is 'round'; allowed: floor, ceil, even, rceil$"),
    (mx.MXConverterParameters, {"rounding": "up"}, r"^rounding is 'up'; allowed: nearest, truncate, stochastic$"),
    (mx.MXConverterParameters, {"work": PRESETS["fp16"]}, r"^work is Float\(.*; allowed: fp32, bf16, "),
    (mx.MXConverterParameters, {"random_bits": 17}, r"^random_bits is 17; allowed: an integer from 1 to 16$"),
    (mx.MXConverterParameters, {"corrected": 1}, r"^corrected is 1; allowed: true, false$"),
    (mx.MXConverterParameters, {"seed": -1}, r"^seed is -1; "),
    (mx.MXDotParameters, {"element_b": "fp9"},
     r"^element_b is 'fp9'; allowed: fp8-e5m2, fp8-e4m3, .*, int8, a Float of"),
    (mx.MXDotParameters, {"element_b": Fixed(9, 6)}, r"^element_b is Fixed\(bits=9, fraction=6\); allowed: "),
    (mx.MXDotParameters, {"element": "fp9", "element_b": "fp8-e4m3"}, r"^element is 'fp9'; "),
    (mx.MXDotParameters, {"lanes": 5}, r"^lanes is 5; allowed: a divisor of the block, 32, of 4 or more$"),
    (mx.MXDotParameters, {"lanes": 2}, r"^lanes is 2; "),
    (mx.MXDotParameters, {"accumulator": PRESETS["fp8-e4m3"]}, r"^accumulator is "),
    (mx.MXDotParameters, {"accumulators": 3}, r"^accumulators is 3; allowed: 2, 4, 8, 16$"),
])
def test_unit_parameters_that_make_no_sense(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**settings)


# NVFP4.


def nearest_code(y, values):
    """Index of the nearest of rising values, ties to the even index; beyond the last it saturates."""
    if y >= values[-1]:
        return len(values) - 1
    low = next(k for k in reversed(range(len(values))) if values[k] <= y)
    rest = (y - values[low]) / (values[low + 1] - values[low])
    return low + (rest > Fraction(1, 2) or rest == Fraction(1, 2) and low % 2)


def test_nvfp4_is_its_definition():
    rng = np.random.default_rng(41)
    scale_values, element_values_ = grid("mxfp8-e4m3"), grid("mxfp4-e2m1")
    for trial in range(30):
        x = specimens(np.float32, rng, 3, 40) if trial % 2 else rng.standard_normal((3, 40)).astype(np.float32)
        x = x.astype(np.float32) * np.float32(2.0**-3)
        quantised = mx.quantise_nvfp4(x)
        tensor = Fraction(exact_round(Fraction(float(np.abs(x).max())) / (448 * 6), PRESETS["fp32"]))
        assert Fraction(quantised.tensor_scale) == tensor
        values = quantised.values()
        assert values.shape == x.shape
        for row in range(3):
            for j in range(3):
                part = [Fraction(float(v)) for v in x[row, 16 * j:16 * j + 16]]
                top = max(map(abs, part))
                code = nearest_code(top / 6 / tensor, scale_values) if top else 0
                assert quantised.scales[row, j] == code
                step = scale_values[code] * tensor
                for v, got in zip(part, values[row, 16 * j:16 * j + 16]):
                    q = element_values_[nearest_code(abs(v) / step, element_values_)] if step else Fraction(0)
                    assert Fraction(float(got)) == (q if v >= 0 else -q) * step


def test_nvfp4_rounds_its_quotients_once():
    values = grid("mxfp8-e4m3")
    middles = [(p + q) / 2 for p, q in zip(values, values[1:])]
    for tensor_scale in np.float32([1.1, 0.7, 2.0**-9 / 3]):
        near = np.float32([float(6 * Fraction(float(tensor_scale)) * m) for m in middles])
        near = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1e9))])
        x = np.zeros((len(near), 16), np.float32)
        x[:, 5] = near
        quantised = mx.quantise_nvfp4(x, tensor_scale=tensor_scale)
        assert quantised.scales[:, 0].tolist() == [
            nearest_code(Fraction(float(v)) / 6 / Fraction(float(tensor_scale)), values) for v in near]


def test_nvfp4_uses_its_whole_range():
    x = np.array([[2688.0, *[1.0] * 15], [6.0, *[0.5] * 15]], np.float32)
    quantised = mx.quantise_nvfp4(x)
    assert quantised.tensor_scale == 1 and quantised.scales[:, 0].tolist() == [0x7E, 0x38]
    assert quantised.values()[0, 0] == 2688 and (quantised.values()[1] == x[1]).all()


def test_nvfp4_bad_input():
    x = np.ones((2, 32), np.float32)
    x[1, 20] = np.inf
    assert np.isnan(mx.quantise_nvfp4(x).values()).all()
    assert not mx.quantise_nvfp4(np.zeros((2, 7), np.float32)).values().any()
    with pytest.raises(ValueError, match=r"^dtype of x is 'float64'; allowed: float16, float32$"):
        mx.quantise_nvfp4(np.ones(3))


def test_nvfp4_given_scale_and_stochastic_rounding():
    x = np.random.default_rng(43).standard_normal((4, 64)).astype(np.float32)
    words = Stream(1, 16)
    quantised = mx.quantise_nvfp4(x, rounding=stochastic(8), random=words, tensor_scale=2.0**-9)
    assert quantised.tensor_scale == 2.0**-9 and words.drawn == 16
    flat = x.reshape(-1, 16)
    noise = counted(1, 16, 0, 16)
    values = quantised.values().reshape(-1, 16)
    for k, row in enumerate(flat):
        step = Fraction(float(grid("mxfp8-e4m3")[quantised.scales.reshape(-1)[k]])) / 512
        for v, word, got in zip(row, noise[k], values[k]):
            v = Fraction(float(v))
            q = grid("mxfp4-e2m1")[exact_element(abs(v) / step, "mxfp4-e2m1", stochastic(8), int(word))] * step
            assert Fraction(float(got)) == (q if v >= 0 else -q)


def test_the_shared_addition_takes_addends_of_two_parts():
    rng = np.random.default_rng(47)
    fmt = PRESETS["fp32"]
    totals = fmt.round(np.ldexp(rng.standard_normal(4000), rng.integers(-3, 60, 4000)))
    high = np.ldexp(rng.integers(-(1 << 53), 1 << 53, 4000).astype(float), rng.integers(-3, 8, 4000))
    cancel = rng.random(4000) < 0.3
    high[cancel] = -totals[cancel]
    low = np.spacing(high) / 2 * rng.choice([0, 1, -1, 0.5, 2.0**-20, -(2.0**-40)], 4000)
    for total in (np.inf, -np.inf, np.nan):
        assert str(accumulator.accumulate(np.array([total]), high[:1], 0, fmt, np.ones(1))[0]) == str(total)
    got = accumulator.accumulate(totals, high, 0, fmt, low)
    for total, h, lower, new in zip(totals, high, low, got):
        assert new == exact_round(Fraction(total) + Fraction(h) + Fraction(lower), fmt)


# The page.


def test_the_examples_of_the_page_print_what_they_show():
    failures, examples = doctest.testfile(str(Path(__file__).parents[2] / "docs" / "mx.md"), module_relative=False)
    assert examples > 20 and not failures
