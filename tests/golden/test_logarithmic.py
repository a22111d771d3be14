"""Logarithmic numbers against integer arithmetic, exact fractions, and the package xlns."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import xlns
from logarithms import (
    GAMMAS,
    LNS8,
    WIDE,
    exact_codes,
    exact_constant,
    exact_level,
    exact_round,
    exact_scale,
    exact_weight,
    gammas,
    name_of,
)
from narrowgauge.golden import logarithmic
from narrowgauge.golden.formats import PRESETS, Log
from narrowgauge.golden.logarithmic import LNSDecoderParameters, LNSDotParameters, Logs


def least_significand(r, gamma, bits):
    """The least integer m with m**(2 * gamma) above 2**((r + 1/2) / gamma + bits) to that power: by bisection."""
    low, high = 1 << bits, 2 << bits
    while low < high:
        middle = (low + high) // 2
        if middle ** (2 * gamma) > 1 << (2 * r + 1 + 2 * gamma * bits):
            high = middle
        else:
            low = middle + 1
    return low


def near_thresholds(gamma, which):
    """float32 numbers from two below to two above thresholds between 1 and 2."""
    first = np.array([least_significand(r, gamma, 23) for r in which])
    return np.ldexp((first[:, np.newaxis] + np.arange(-2, 2)).ravel().astype(np.float64), -23).astype(np.float32)


def every_code(name):
    """Every number of fp16 (float16) or bf16 (float32), NaN and Inf too."""
    codes = np.arange(1 << 16, dtype=np.uint32)
    return codes.astype(np.uint16).view(np.float16) if name == "fp16" else (codes << 16).view(np.float32)


# Tables.


@pytest.mark.parametrize("bits", [0, 2, 7, 10, 23, 40, 52])
@gammas
def test_thresholds_are_their_definition(gamma, bits):
    table = logarithmic.thresholds(gamma, bits)
    assert len(table) == gamma
    for r, threshold in enumerate(table):
        target = 1 << (2 * r + 1 + 2 * gamma * bits)
        assert threshold ** (2 * gamma) < target < (threshold + 1) ** (2 * gamma)


def test_thresholds_of_the_wide_format_are_their_definition():
    table = logarithmic.thresholds(2048)
    assert len(table) == 2048 and sorted(set(table)) == list(table)
    for r in [0, 1, 2046, 2047, *np.random.default_rng(1).integers(0, 2048, 20).tolist()]:
        target = 1 << (2 * r + 1 + 4096 * 52)
        assert table[r] ** 4096 < target < (table[r] + 1) ** 4096


@pytest.mark.parametrize("bits", [4, 24, 40])
@gammas
def test_powers_are_their_definition(gamma, bits):
    table = logarithmic.powers(gamma, bits)
    assert len(table) == gamma and table[0] == 1 << bits
    for r, power in enumerate(table[1:], 1):
        assert power**gamma < 1 << (r + gamma * bits) < (power + 1) ** gamma


def test_constants_of_the_contract():
    assert logarithmic.constants(8, 8, 8) == ((256, 279, 304, 332, 362, 395, 431, 470), 8)
    assert LNSDotParameters().table == ((256, 279, 304, 332, 362, 395, 431, 470), 8)


@pytest.mark.parametrize("fraction", range(4, 11))
@pytest.mark.parametrize("gamma, count", [(gamma, count) for gamma in GAMMAS for count in GAMMAS if count <= gamma])
def test_constants_are_their_definition(gamma, count, fraction):
    assert [Fraction(w, 1 << fraction) for w in logarithmic.weights(count, fraction)] == [
        exact_weight(k, count, fraction) for k in range(count)]
    table, bits = logarithmic.constants(gamma, count, fraction)
    assert [Fraction(each, 1 << bits) for each in table] == [exact_constant(r, gamma, count, fraction)
                                                             for r in range(gamma)]
    assert bits == 0 or any(each & 1 for each in table)  # no bit that none needs


@pytest.mark.parametrize("count, bound", [(8, 0), (4, 3.16), (2, 6.03), (1, 6.07)])
def test_the_error_of_fewer_constants_is_one_sided(count, bound):
    spread = 8 // count
    with localcontext() as context:
        context.prec = 40
        errors = [100 * ((1 + Decimal(r % spread) / 8) / Decimal(2) ** (Decimal(r % spread) / 8) - 1) for r in range(8)]
        assert min(errors) == 0 and abs(max(errors) - Decimal(str(bound))) < Decimal("0.005")
        # The rounding of the constants comes on top: half of a unit, where they are not all exact.
        for fraction in range(4, 11):
            table, bits = logarithmic.constants(8, count, fraction)
            for r, each in enumerate(table):
                got = 100 * (Decimal(each) / 2**bits / Decimal(2) ** (Decimal(r) / 8) - 1)
                assert abs(got - errors[r]) <= 100 * Decimal(2) ** -(fraction + 1) * (1 + errors[r] / 100)


def test_a_hybrid_product_stays_below_the_next_octave_but_for_one():
    # The width of a product relies on it: see test_no_sum_leaves_64_bits.
    above = {(gamma, count): [r for r in range(gamma) if exact_constant(r, gamma, count, fraction) >= 2]
             for gamma in GAMMAS[:5] for count in GAMMAS[:5] if count <= gamma for fraction in range(4, 11)}
    assert {key: rest for key, rest in above.items() if rest} == {(16, 2): [15]}


# Conversion.


@pytest.mark.parametrize("gamma", [*GAMMAS, 2048])
@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_levels_of_every_number(name, gamma):
    x = every_code(name)
    x = x[np.isfinite(x)]
    got = logarithmic.levels(x, gamma)
    assert got.dtype == np.int64
    assert got.tolist() == [0 if v == 0 else exact_level(v, gamma) for v in x.tolist()]


@pytest.mark.parametrize("gamma", [8, *(pytest.param(g, marks=pytest.mark.sweep) for g in (1, 2, 4, 16, 32, 2048))])
def test_levels_of_every_significand_of_fp32(gamma):
    m = np.arange(1 << 23, 1 << 24, dtype=np.int32)
    bounds = [least_significand(r, gamma, 23) for r in range(gamma)]
    expected = np.searchsorted(bounds, m, side="right")
    np.testing.assert_array_equal(logarithmic.levels(np.ldexp(m.astype(np.float32), -23), gamma), expected)


@pytest.mark.parametrize("gamma", [*GAMMAS, 2048])
def test_levels_of_fp32(gamma):
    rng = np.random.default_rng(2)
    limits = np.finfo(np.float32)
    around = near_thresholds(gamma, range(gamma) if gamma < 100 else [0, 2047, *rng.integers(0, 2048, 30).tolist()])
    random = rng.integers(1, 0x7F800000, 300 if gamma > 100 else 2000, dtype=np.uint32).view(np.float32)
    tiny = rng.integers(1, 1 << 23, 50, dtype=np.uint32).view(np.float32)  # subnormal
    ends = np.float32([2.0**-149, 2.0**-148, 3 * 2.0**-149, limits.tiny, limits.max, 1, 2, 1 - 2.0**-24])
    x = np.concatenate([around, np.ldexp(around, -126), np.ldexp(around, 126), random, tiny, ends]).astype(np.float32)
    assert logarithmic.levels(x, gamma).tolist() == [exact_level(v, gamma) for v in x.tolist()]
    assert logarithmic.levels(-x, gamma).tolist() == logarithmic.levels(x, gamma).tolist()


def test_levels_of_float64_next_to_a_threshold():
    for gamma in (1, 8, 32):
        near = [t + d for t in logarithmic.thresholds(gamma) for d in (-1, 0, 1, 2)]
        x = np.ldexp(np.array(near, np.float64), -52)
        assert logarithmic.levels(x, gamma).tolist() == [exact_level(v, gamma) for v in x.tolist()]
        assert logarithmic.levels(np.ldexp(x, -1000), gamma).tolist() == [
            exact_level(v, gamma) for v in np.ldexp(x, -1000).tolist()]
    subnormal = np.array([5e-324, 3 * 5e-324, 2.0**-1022, np.finfo(np.float64).max])
    assert logarithmic.levels(subnormal, 8).tolist() == [exact_level(v, 8) for v in subnormal.tolist()]


@pytest.mark.parametrize("fmt", [Log(4, 1), Log(4, 4), LNS8, Log(8, 64), Log(16, 1), WIDE, Log(16, 1 << 14),
                                 Log(24, 8)], ids=name_of)
def test_the_scale_is_the_least_that_fits(fmt):
    low, high = -150 * fmt.gamma, 129 * fmt.gamma
    level = np.unique(np.concatenate([np.linspace(low, high, 500).astype(np.int64), [low, high],
                                      *(k * fmt.gamma + fmt.top + np.arange(-1, 2) for k in range(-129, 130, 7))]))
    got = logarithmic.scale_of(level, fmt)
    assert got.tolist() == [exact_scale(each, fmt) for each in level.tolist()]
    assert logarithmic.scale_of(int(level[0]), fmt) == got[0]


@pytest.mark.parametrize("fmt", [Log(4, 1), LNS8, Log(16, 1), WIDE], ids=name_of)
def test_zeros_have_the_least_scale(fmt):
    for x in (np.zeros((3, 4), np.float32), np.zeros((0, 4), np.float16), -np.zeros(1, np.float32)):
        logs = logarithmic.quantise(x, fmt)
        assert (logs.scale, logs.invalid, logs.codes.shape) == (-127, False, x.shape) and not logs.codes.any()
        assert not logs.values().any() and not np.signbit(logs.values()).any()
    # As do those of a format with steps so fine that its thresholds would take seconds.
    nothing = logarithmic.numbers.largest(np.zeros(3, np.int64), np.zeros(3, bool))
    assert logarithmic.scale_of(nothing, Log(24, 1 << 22)) == -127


@pytest.mark.parametrize("fmt", [LNS8, Log(5, 4), Log(6, 1), WIDE], ids=name_of)
@pytest.mark.parametrize("dtype, emax", [(np.float16, 15), (np.float32, 127)], ids=["float16", "float32"])
def test_quantise_is_the_definition(fmt, dtype, emax):
    rng = np.random.default_rng(3)
    for trial in range(12):
        places = rng.integers(-24 if emax == 15 else -149, emax + 1) - rng.integers(0, 12, 40)
        with np.errstate(over="ignore", under="ignore"):
            x = np.ldexp(rng.uniform(-2, 2, 40), places).astype(dtype)
        x[:3] = 0, -0.0, rng.choice([1, -2, 0.5])
        if trial == 3:
            x[rng.integers(0, 40, 3)] = np.inf, -np.inf, np.nan
        for scale in (None, 0, int(rng.integers(-127, 128))):
            logs = logarithmic.quantise(x, fmt, scale)
            codes, used, _ = exact_codes(x.tolist(), fmt, scale, emax)
            assert (logs.codes.tolist(), logs.scale, logs.format) == (codes, used, fmt)
            assert logs.codes.dtype == np.uint32 and logs.invalid == np.isnan(x).any()


@pytest.mark.parametrize("fmt", [LNS8, WIDE], ids=["lns8", "lns16"])
@pytest.mark.parametrize("name, emax", [("fp16", 15), ("bf16", 127)])
@pytest.mark.parametrize("scale", [None, -20, 3])
def test_quantise_every_number(fmt, name, emax, scale):
    x = every_code(name)
    logs = logarithmic.quantise(x, fmt, scale)
    codes, used, _ = exact_codes(x.tolist(), fmt, scale, emax)
    assert logs.invalid and logs.scale == used
    np.testing.assert_array_equal(logs.codes, codes)
    finite = x[np.isfinite(x)]
    largest = logarithmic.quantise(finite, fmt, scale)
    codes, used, _ = exact_codes(finite.tolist(), fmt, scale, emax)
    assert largest.scale == used and not largest.invalid
    np.testing.assert_array_equal(largest.codes, codes)


def test_inf_and_nan_are_the_top_code_with_their_sign():
    x = np.array([[np.inf, -np.inf, np.nan, 1, 65504]], np.float16)
    x = np.concatenate([x, np.array([[0xFE00, 0x7C01, 0xFC01, 0, 0x8000]], np.uint16).view(np.float16)])
    logs = logarithmic.quantise(x, LNS8)
    # As 2**16: 128 - 127 / 8 rounds up to 1; 1 is 2**-1 of the scale, and nothing.
    assert logs.scale == 1 and logs.invalid
    assert logs.codes.tolist() == [[127, 255, 127, 0, 120], [255, 127, 255, 0, 0]]
    only = logarithmic.quantise(np.array([np.inf], np.float32), LNS8)
    assert (only.scale, only.codes.tolist(), only.invalid) == (113, [127], False)


def test_numbers_beyond_a_given_scale_saturate_or_vanish():
    x = np.float32([2.0**15.9, 2.0**20, -(2.0**20), 2.0**0.07, 2.0**0.06, 1, -(2.0**-3)])
    logs = logarithmic.quantise(x, LNS8, 0)
    assert logs.codes.tolist() == [127, 127, 255, 1, 0, 0, 0]
    assert logs.values().tolist()[4:] == [0, 0, 0]


def test_values_are_within_a_unit_of_float64_and_right_in_float32():
    for fmt, scale in ((LNS8, 0), (LNS8, -127), (WIDE, 0), (WIDE, 7)):
        codes = np.arange(1 << fmt.bits, dtype=np.uint32)
        values = Logs(fmt, codes, scale).values()
        half = len(codes) // 2
        np.testing.assert_array_equal(values[half:], -values[:half])
        p = LNSDecoderParameters(fmt if fmt.gamma <= 32 else LNS8, lanes=1)
        table = [Fraction(Decimal(2) ** (Decimal(r) / fmt.gamma)) for r in range(fmt.gamma)]
        for t in range(1, half) if fmt == LNS8 else range(5 * 2048, 6 * 2048):  # every remainder
            exact = table[t % fmt.gamma] * Fraction(2) ** (t // fmt.gamma + scale)
            assert abs(Fraction(values[t]) / exact - 1) < Fraction(1, 1 << 52)
            assert float(np.float32(values[t])) == exact_round(exact, PRESETS["fp32"])
        if fmt == LNS8:
            decoded, _ = logarithmic.decode(p, codes, np.full(len(codes), scale + 127))
            np.testing.assert_array_equal(PRESETS["fp32"].decode(decoded[:, 0]), values.astype(np.float32))


def test_a_transposed_array_keeps_its_scale():
    logs = logarithmic.quantise(np.float32([[1, 2, 3], [4, 5, np.nan]]), LNS8)
    assert logs.T.codes.tolist() == logs.codes.T.tolist()
    assert (logs.T.format, logs.T.scale, logs.T.invalid) == (logs.format, logs.scale, True)


# The package xlns has logarithms of any size under no scale: its x is our level. Its zero is minus infinity, ours the
# lowest code; it has no code that is the largest, and no Inf or NaN. It computes the logarithm in float64 and rounds a
# half to even, but a number that is no power of two is never half-way, and those that we take are farther from it than
# float64's error. Its products are exact sums of logarithms, as ours are before they are added; its sums round each
# result to a logarithm again, which ours never do, and nothing is compared there.


@pytest.mark.parametrize("fraction", [0, 3, 5, 11])
def test_xlns_finds_the_same_logarithms(fraction):
    gamma = 1 << fraction
    rng = np.random.default_rng(5)
    around = near_thresholds(gamma, rng.permutation(gamma)[:64].tolist())
    x = np.concatenate([every_code("fp16")[1:0x7C00].astype(np.float32), np.ldexp(around, rng.integers(-120, 120, 1)),
                        rng.integers(1, 0x7F800000, 5000, dtype=np.uint32).view(np.float32)])
    assert logarithmic.levels(x, gamma).tolist() == [xlns.xlnsv(v, fraction).x for v in x.tolist()]


def test_xlns_encodes_as_quantise_does():
    x = np.random.default_rng(6).standard_normal(2000).astype(np.float32)
    x[:2] = 0
    for fmt, fraction in ((LNS8, 3), (WIDE, 11), (Log(6, 4), 2)):
        logs = logarithmic.quantise(x, fmt)
        for v, code in zip(x.tolist(), logs.codes.tolist()):
            other = xlns.xlnsv(v, fraction)
            t = other.x - fmt.gamma * logs.scale
            assert code == (t | other.s << (fmt.bits - 1) if t > 0 else 0)


def test_xlns_multiplies_as_the_dot_product_does():
    p = LNSDotParameters(lanes=4, constants=8)
    rng = np.random.default_rng(7)
    a, b = (rng.integers(1, 128, 500) | rng.integers(0, 2, 500) << 7 for _ in range(2))
    terms = logarithmic.dot(a[:, np.newaxis], b[:, np.newaxis], p)
    for x, y, term in zip(a.tolist(), b.tolist(), terms.tolist()):
        u, v = (xlns.xlnsv("", 3) for _ in range(2))
        (u.x, u.s), (v.x, v.s) = (x & 127, x > 127), (y & 127, y > 127)
        product = u * v
        quotient, remainder = divmod(product.x, 8)
        assert term == (-1) ** product.s * (p.table[0][remainder] << quotient)
        # A constant is half a unit of 2**-8 off at most.
        assert abs(term / 256 / float(product) - 1) < 2.0**-9 + 1e-12
