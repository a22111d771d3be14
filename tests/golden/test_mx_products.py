"""Products of microscaling, and the units' golden functions, against exact fractions."""

import itertools
import json
from fractions import Fraction
from math import inf

import numpy as np
import pytest
from microscaling import ORACLES, element_values, every_format, exact_round, floor_log2, grid, power
from narrowgauge.golden import mx
from narrowgauge.golden.formats import PRESETS, Fixed
from narrowgauge.golden.words import Stream


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
