"""OCP microscaling against its definition in exact fractions, with ml_dtypes' element tables."""

import json
from fractions import Fraction
from math import floor

import ml_dtypes
import numpy as np
import pytest
from microscaling import BITS, ORACLES, element_values, every_format, exact_element, floor_log2, grid, power, specimens
from narrowgauge.golden import mx
from narrowgauge.golden.formats import PRESETS, Fixed, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream, counted

MANTISSA = {"mxfp8-e5m2": 2, "mxfp8-e4m3": 3, "mxfp6-e3m2": 2, "mxfp6-e2m3": 3, "mxfp4-e2m1": 1, "mxint8": 6}
ROUNDINGS = [NEAREST, TRUNCATE, stochastic(8), stochastic(5, corrected=True), stochastic(16)]


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
