"""Logarithmic numbers against integer arithmetic, exact fractions, and the package xlns."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement
from math import inf

import numpy as np
import pytest
import xlns
from narrowgauge.golden import logarithmic
from narrowgauge.golden.formats import PRESETS, Fixed, Float, Log
from narrowgauge.golden.logarithmic import LNSConverterParameters, LNSDecoderParameters, LNSDotParameters, Logs

GAMMAS = [1, 2, 4, 8, 16, 32]
LNS8, WIDE = PRESETS["lns8"], PRESETS["lns16-update"]
gammas = pytest.mark.parametrize("gamma", GAMMAS)

# Formats of a dot product at the ends of what is allowed, with the largest quotient of their products.
FORMATS = {"lns8": (LNS8, 31), "4-1": (Log(4, 1), 14), "4-4": (Log(4, 4), 3), "5-1": (Log(5, 1), 30),
           "5-2": (Log(5, 2), 15), "6-16": (Log(6, 16), 3), "7-4": (Log(7, 4), 31), "9-16": (Log(9, 16), 31)}
every_format = pytest.mark.parametrize("fmt", [pytest.param(fmt, id=name) for name, (fmt, _) in FORMATS.items()])

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


# Products.


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


def exact_product(x, y, p):
    """The bin and the value in it (of which the constant is no part) of a product of two codes, and its lsb-th part."""
    fmt = p.format
    tx, ty = x & fmt.top, y & fmt.top
    quotient, remainder = divmod(tx + ty, fmt.gamma)
    high, low = divmod(remainder, fmt.gamma // p.constants)
    value = 0 if not tx or not ty or quotient < p.lsb else Fraction(2) ** quotient * (1 + Fraction(low, fmt.gamma))
    return high, -value if (x ^ y) >> (fmt.bits - 1) else value


class ExactSums:
    """What a dot product accumulates, by definition: Fractions of units of 1."""

    def __init__(self, p):
        self.p, self.overflow = p, False
        self.weights = [exact_weight(k, p.constants, p.fraction) for k in range(p.constants)]
        self.start()

    def start(self):
        """From 0."""
        self.sums = [Fraction(0)] * (1 if self.p.accumulation == "direct" else self.p.constants)

    def add(self, xs, ys):
        """Of a transfer: all at once, then limits."""
        p = self.p
        for x, y in zip(xs, ys, strict=True):
            high, value = exact_product(x, y, p)
            if p.accumulation == "direct":
                self.sums[0] += value * self.weights[high]
            else:
                self.sums[high] += value
        # The accumulator's bits weigh 2**lsb and more; below are those that the products have.
        below = exact_below(p)
        low, high = -(1 << (p.accumulator - 1)), (1 << (p.accumulator - 1)) - Fraction(1, 1 << below)
        held = [min(max(each, low << p.lsb), high * 2**p.lsb) for each in self.sums]
        self.overflow |= held != self.sums
        self.sums = held

    def total(self):
        """The sum of the bins times their constants."""
        if self.p.accumulation == "direct":
            return self.sums[0]
        return sum(each * weight for each, weight in zip(self.sums, self.weights))


def exact_below(p):
    """Bits of products below their leading unit: of the constants, or, in bins, of the linear part."""
    gamma = p.format.gamma
    if p.accumulation == "direct":
        parts = [exact_constant(r, gamma, p.constants, p.fraction) for r in range(gamma)]
        return max(each.denominator for each in parts).bit_length() - 1
    return gamma.bit_length() - 1 if p.constants < gamma else 0


def exact_dots(p, a, b, first, last):
    """Emitted values and overflow."""
    sums, values = ExactSums(p), []
    for k in range(len(first)):
        if first[k]:
            sums.start()
        sums.add(a[0][k].tolist(), b[0][k].tolist())
        if last[k]:
            scale = Fraction(2) ** (int(a[1][k]) + int(b[1][k]) - 254)
            values.append(exact_round(sums.total() * scale, p.result))
            sums.overflow |= values[-1] in (inf, -inf)
    return values, sums.overflow


def assert_dots(p, a, b, first, last):
    """That `dots` is the definition, signs of zeros too; return whether anything overflowed."""
    values, overflow = exact_dots(p, a, b, first, last)
    codes, over = logarithmic.dots(p, a, b, first, last)
    assert codes.dtype == np.uint32
    got = p.result.decode(codes)
    np.testing.assert_array_equal(got, values)
    assert not np.signbit(got[got == 0]).any()
    assert over == overflow
    return overflow


def random_codes(rng, fmt, shape, high=0.1):
    """Codes of which some are zero (of either sign), some near the top."""
    t = rng.integers(0, fmt.top + 1, shape)
    kind = rng.random(shape)
    t = np.where(kind < 0.1, 0, np.where(kind > 1 - high, fmt.top - rng.integers(0, 2, shape), t))
    return t | rng.integers(0, 2, shape) << (fmt.bits - 1)


A = [(0, 124), (1, 100), (0, 82), (0, 127)]
W = [(0, 114), (0, 120), (1, 127), (1, 64)]


def test_the_vector_of_the_contract():
    a, w = (np.array([[s << 7 | t for s, t in codes]]) for codes in (A, W))
    bins = LNSDotParameters(lanes=4, accumulation="bins")
    assert logarithmic.dot(a, w, bins).tolist() == [[0, -67108864, 0, 0, -134217728, 0, 536870912, -8388608]]
    assert logarithmic.dot(a, w, LNSDotParameters(lanes=4)).tolist() == [160138526720]
    for p in (bins, LNSDotParameters(lanes=4)):
        codes, overflow = logarithmic.dots(p, (a, [127]), (w, [127]), [True], [True])
        assert p.result.decode(codes).tolist() == [float(np.float32(160138526720 / 256))] and not overflow


def every_setting(fmt, few=True):
    """LNSDotParameters of a format: every count of constants, and some fractions and lsbs."""
    counts = [1 << k for k in range(fmt.gamma.bit_length())]
    quotient = 2 * fmt.top // fmt.gamma
    for accumulation in ("direct", "bins"):
        for count in counts:
            for fraction, lsb in [(8, 0), (4, quotient // 3), (10, quotient)] if few else [
                    (fraction, lsb) for fraction in range(4, 11) for lsb in range(quotient + 1)]:
                yield LNSDotParameters(fmt, 4, accumulation, lsb=lsb, constants=count, fraction=fraction)


def assert_every_pair(p):
    fmt = p.format
    codes = np.arange(1 << fmt.bits)
    got = logarithmic.dot(codes[:, np.newaxis, np.newaxis], codes[:, np.newaxis], p)
    x, y = (each.ravel().tolist() for each in np.meshgrid(codes, codes, indexing="ij"))
    # Each pair's definition, of which there are few different ones.
    cached = lru_cache(None)(lambda tx, ty, sign: exact_product(tx | sign << (fmt.bits - 1), ty, p))
    expected = [cached(min(u & fmt.top, v & fmt.top), max(u & fmt.top, v & fmt.top), (u ^ v) >> (fmt.bits - 1))
                for u, v in zip(x, y)]
    if p.accumulation == "direct":
        unit = Fraction(2) ** (p.lsb - exact_below(p))
        weight = [exact_weight(k, p.constants, p.fraction) for k in range(p.constants)]
        scaled = lru_cache(None)(lambda high, value: value * weight[high] / unit)
        np.testing.assert_array_equal(got.ravel(), [int(scaled(*each)) for each in expected])
        assert all(scaled(*each).denominator == 1 for each in set(expected))
        return
    unit = Fraction(2) ** (p.lsb - exact_below(p))
    assert all(Fraction(value / unit).denominator == 1 for _, value in set(expected))
    bins = got.reshape(-1, p.constants)
    high = np.array([each[0] for each in expected])
    whole = lru_cache(None)(lambda value: int(value / unit))
    picked = np.take_along_axis(bins, high[:, np.newaxis], 1)[:, 0]
    np.testing.assert_array_equal(picked, [whole(value) for _, value in expected])
    assert (bins != 0).sum() == (picked != 0).sum()  # all other bins get nothing


@every_format
def test_every_pair_of_codes(fmt):
    more = [LNSDotParameters(fmt, constants=2, lsb=9, fraction=10),
            LNSDotParameters(fmt, constants=4, accumulation="bins", lsb=1)] if fmt.bits == 8 else []
    for p in every_setting(fmt) if fmt.bits < 7 else [LNSDotParameters(fmt), *more]:
        assert_every_pair(p)


@pytest.mark.sweep
@every_format
def test_every_pair_of_codes_and_every_setting(fmt):
    for p in every_setting(fmt, few=fmt.bits > 5):
        assert_every_pair(p)


@every_format
def test_bins_make_the_direct_sum_when_nothing_saturates(fmt):
    rng = np.random.default_rng(11)
    n = 300
    for direct in every_setting(fmt):
        if direct.accumulation == "bins":
            continue
        bins = LNSDotParameters(**{**direct.__dict__, "accumulation": "bins"})
        a, b = ((random_codes(rng, fmt, (n, 4)), rng.integers(90, 160, n)) for _ in range(2))
        first, last = rng.random(n) < 0.1, rng.random(n) < 0.5
        codes, overflow = logarithmic.dots(direct, a, b, first, last)
        again, also = logarithmic.dots(bins, a, b, first, last)
        assert not overflow and not also
        np.testing.assert_array_equal(codes, again)


@pytest.mark.parametrize("accumulation", ["direct", "bins"])
@every_format
def test_dots_is_the_definition(fmt, accumulation):
    rng = np.random.default_rng(13)
    overflows = []
    quotient = 2 * fmt.top // fmt.gamma
    for trial in range(6):
        lsb = int(rng.choice([0, quotient // 4, quotient // 2]))
        least = max(quotient - lsb + 2, 8)
        p = LNSDotParameters(fmt, int(rng.integers(4, 9)), accumulation, None if trial == 0 else least + trial % 2, lsb,
                             1 << int(rng.integers(0, fmt.gamma.bit_length())), int(rng.integers(4, 11)),
                             list(RESULTS.values())[trial])
        assert LNSDotParameters.from_json(json.dumps(p.to_json())) == p
        n = 60
        scales = [rng.integers(0, 255, n) if trial % 2 else rng.integers(100, 140, n) for _ in range(2)]
        a, b = ((random_codes(rng, fmt, (n, p.lanes), 0.6 if trial else 0.1), scale) for scale in scales)
        if trial > 1:  # of one sign, so that sums saturate, at either end
            a[0][:40] &= fmt.top
            b[0][:40] = (b[0][:40] & fmt.top) | (np.arange(40) // 20 << (fmt.bits - 1))[:, np.newaxis]
        overflows.append(assert_dots(p, a, b, rng.random(n) < 0.08, rng.random(n) < 0.7))
    assert any(overflows)


@every_result
@pytest.mark.parametrize("accumulation", ["direct", "bins"])
def test_results_at_both_ends_of_their_range(result, accumulation):
    p = LNSDotParameters(lanes=4, accumulation=accumulation, accumulator=40, result=result)
    rng = np.random.default_rng(17)
    n = 150
    a, b = (random_codes(rng, LNS8, (n, 4)) for _ in range(2))
    seen = set()
    for place in (result.emin - result.mantissa, result.emin, 0, result.emax):
        total = np.clip(254 + place - 25 + rng.integers(-9, 10, n), 0, 508)
        low = np.clip(total - 127, 0, 254)
        assert_dots(p, (a, low), (b, total - low), np.ones(n, bool), np.ones(n, bool))
        codes, _ = logarithmic.dots(p, (a, low), (b, total - low), np.ones(n, bool), np.ones(n, bool))
        magnitude = codes & ~np.uint32(1 << (result.width - 1))
        seen |= {"inf"} if (magnitude == result.inf_code).any() else set()
        seen |= {"zero"} if (magnitude == 0).any() else set()
        seen |= {"subnormal"} if ((magnitude > 0) & (magnitude < 1 << result.mantissa)).any() else set()
    if result.emax < 120:
        assert seen == {"inf", "zero", "subnormal"}


@every_result
def test_totals_of_more_than_53_bits_round_once(result):
    rng = np.random.default_rng(19)
    total = rng.integers(0, 1 << 62, 400) >> rng.integers(0, 40, 400)
    # A tie of the result, one to either side of it, and one in the last bit of all.
    tie = (1 << 61) + (np.arange(8) << (61 - result.mantissa)) + (1 << (60 - result.mantissa))
    tie = np.concatenate([tie + d for d in (0, 1, -1, 512, -512, 1024, -1024)]) >> rng.integers(0, 4, 56)
    total = np.concatenate([total, tie, [0, 1, 1 << 53, (1 << 53) + 1, (1 << 62) - 1, 1 << 62]])
    total = np.concatenate([total, -total])
    for place in (0, result.emin - result.mantissa - 60, result.emin - 62, result.emax - 61):
        exponent = np.clip(place + rng.integers(-2, 3, total.size), -300, 320)
        got = logarithmic.products._rounded(total, exponent, result)
        expected = [exact_round(Fraction(t) * Fraction(2) ** e, result)
                    for t, e in zip(total.tolist(), exponent.tolist())]
        np.testing.assert_array_equal(got, expected)
        assert not np.signbit(got[got == 0]).any()


@pytest.mark.parametrize("accumulation", ["direct", "bins"])
def test_a_long_sum_keeps_its_last_bit_beyond_53(accumulation):
    # 4096 products of 2**31 are 2**43, 2**55 units. A product of 2**30 more makes a tie of the result's 13 bits, which
    # the last transfer decides: its products leave one unit, of 2**-12, which float64 would lose.
    result = Float(8, 12)
    p = LNSDotParameters(lanes=64, accumulation=accumulation, constants=4, fraction=10, accumulator=46, result=result)
    units, bits = p.table
    assert bits == 12
    a, b = np.full((66, 64), 124), np.full((66, 64), 124)
    a[64:] = 0
    a[64, 0] = b[64, 0] = 120
    sums = {sum(units[r] for r in some): some for some in combinations_with_replacement(range(2, 8), 7)}
    plus, minus = next((sums[total + 1], sums[total]) for total in sums if total + 1 in sums)
    a[65, :14], b[65, :14] = 1, np.array(plus + minus) - 1
    b[65, 7:14] |= 128
    scale, first, last = np.full(66, 127), np.arange(66) == 0, np.arange(66) >= 63
    for sign in (1, -1):
        a[65, :14] |= 128 if sign < 0 else 0
        codes, overflow = logarithmic.dots(p, (a, scale), (b, scale), first, last)
        exact = [Fraction(2) ** 43, Fraction(2) ** 43 + 2**30]
        exact.append(exact[-1] + sign * Fraction(1, 4096))
        assert result.decode(codes).tolist() == [exact_round(each, result) for each in exact] and not overflow
        assert (exact_round(exact[2], result) > 2**43) == (sign > 0)
        assert float(exact[2]) == exact[1]


def test_sums_saturate_transfer_by_transfer_and_at_both_ends():
    p = LNSDotParameters(lanes=4, accumulator=33)
    top = np.full((1, 4), 127)  # products of 431 / 256 * 2**31, of which 1.2 fill 33 bits
    minus, one_minus = top | 128, np.array([[0, 0, 0, 255]])
    scale, one = np.full(3, 127), np.ones(3, bool)
    most, least = float(np.float32(2.0**32 - 2.0**-8)), -(2.0**32)
    product = 431 * 2.0**23
    cases = [
        ([top, top, top], [most] * 3),
        ([minus, minus, minus], [least] * 3),
        ([top, one_minus, minus], [most, 2.0**32 - 2.0**-8 - product, least]),
    ]
    for transfers, expected in cases:
        codes, overflow = logarithmic.dots(p, (np.concatenate(transfers), scale), (np.resize(top, (3, 4)), scale),
                                           np.arange(3) == 0, one)
        assert p.result.decode(codes).tolist() == [float(np.float32(each)) for each in expected] and overflow
    # Within one transfer, what is beyond may come back.
    mixed = np.array([[127, 127, 255, 255]])
    codes, overflow = logarithmic.dots(p, (mixed, [127]), (top, [127]), [True], [True])
    assert codes.tolist() == [0] and not overflow
    exactly = np.array([[120, 120, 120, 120]]) | 128  # 4 * 2**30
    codes, overflow = logarithmic.dots(p, (exactly, [127]), (np.full((1, 4), 120), [127]), [True], [True])
    assert p.result.decode(codes).tolist() == [-(2.0**32)] and not overflow
    codes, overflow = logarithmic.dots(p, (exactly & 127, [127]), (np.full((1, 4), 120), [127]), [True], [True])
    assert p.result.decode(codes).tolist() == [most] and overflow


def test_bins_and_direct_differ_once_something_saturates():
    # Bins of 33 bits hold as many products each as the direct sum holds of all: here the sum is full, no bin is.
    a, b = np.array([[127, 126, 125, 124]]), np.full((1, 4), 127)
    results = {}
    for accumulation in ("direct", "bins"):
        p = LNSDotParameters(lanes=4, accumulation=accumulation, accumulator=33)
        codes, overflow = logarithmic.dots(p, (a, [127]), (b, [127]), [True], [True])
        results[accumulation] = p.result.decode(codes).tolist()[0], overflow
    assert results["direct"] == (2.0**32, True)
    assert results["bins"] == ((431 + 395 + 362 + 332) * 2.0**23, False)


def test_products_below_lsb_are_dropped_before_they_are_added():
    a = np.array([[16, 17, 15, 15]])
    b = np.array([[16, 16, 16, 15 | 128]])  # quotients 4, 4, 3, 3
    for lsb, expected in ((3, 256 * 2 + 279 * 2 + 470 - 431), (4, 256 + 279), (5, 0)):
        assert logarithmic.dot(a, b, LNSDotParameters(lanes=4, lsb=lsb)).tolist() == [expected]


def test_no_sum_leaves_64_bits():
    # Golden's integers, at the limits of all parameters: the held sum, and a transfer of 64 of the largest products.
    for bits in range(4, 10):
        for gamma in (1, 2, 4, 8, 16):
            for count in (1, 2, 4, 8, 16):
                for fraction in range(4, 11):
                    for accumulation in ("direct", "bins"):
                        make = {"format": Log(bits, gamma), "lanes": 64, "accumulation": accumulation,
                                "constants": count, "fraction": fraction}
                        try:
                            default = LNSDotParameters(**make)
                        except ValueError:
                            continue
                        widest = min(48, 60 - fraction - gamma.bit_length())
                        least = max(default.quotient + 2, 8)
                        assert least <= default.accumulator == min(least + 15, widest)
                        largest = int(logarithmic.product_table(default).max())
                        narrow = LNSDotParameters(**make, accumulator=least)
                        assert largest <= narrow.most  # every product fits
                        if default.accumulator == least + 15:
                            assert 32768 * largest <= default.most
                        p = LNSDotParameters(**make, accumulator=widest)
                        assert p.most + 64 * largest < 1 << 63
                        merged = sum(exact_weight(k, count, fraction) for k in range(count)) * 2**fraction
                        assert p.accumulation == "direct" or (p.most + 1) * merged < 1 << 63


def test_dots_take_nothing():
    none, codes = np.zeros(0, int), np.zeros((0, 16), int)
    for accumulation in ("direct", "bins"):
        out, overflow = logarithmic.dots(LNSDotParameters(accumulation=accumulation), (codes, none), (codes, none),
                                         none, none)
        assert out.shape == (0,) and not overflow


def test_the_scales_of_the_last_transfer_count():
    p = LNSDotParameters(lanes=4)
    ones = np.full((3, 4), 8)
    codes, _ = logarithmic.dots(p, (ones, [0, 254, 127]), (ones, [3, 130, 128]), [True, False, False],
                                [False, False, True])
    assert p.result.decode(codes).tolist() == [12 * 4 * 2]


# Matrix products.


def by_dots(a, b, p):
    """A matrix product by `dots`, transfer by transfer."""
    steps = max(1, -(-a.codes.shape[1] // p.lanes))
    out, overflow = np.zeros((len(a.codes), b.codes.shape[1])), False
    for i, j in np.ndindex(out.shape):
        x, y = np.zeros((2, steps * p.lanes), np.int64)
        x[:a.codes.shape[1]], y[:a.codes.shape[1]] = a.codes[i], b.codes[:, j]
        codes, over = logarithmic.dots(p, (x, np.full(steps, a.scale + 127)), (y, np.full(steps, b.scale + 127)),
                                       np.arange(steps) == 0, np.arange(steps) == steps - 1)
        out[i, j] = p.result.decode(codes)[0]
        overflow |= over
    return out, overflow


@pytest.mark.parametrize("shape", [(3, 50, 4), (1, 16, 1), (2, 5, 3), (5, 33, 2), (4, 32, 4), (1, 1, 1), (2, 0, 3)],
                         ids=str)
@pytest.mark.parametrize("settings, saturates", [
    ({}, False), ({"accumulation": "bins"}, False), ({"constants": 2, "result": PRESETS["fp16"], "lanes": 7}, False),
    ({"accumulation": "bins", "constants": 4, "fraction": 5}, False), ({"lsb": 20}, False),
    ({"lsb": 20, "accumulation": "bins", "constants": 1, "lanes": 5}, False),
    ({"accumulator": 33}, True), ({"accumulator": 33, "accumulation": "bins", "lanes": 4}, True),
    ({"format": Log(9, 16), "fraction": 10}, False), ({"format": Log(5, 1), "accumulator": 32, "lanes": 6}, True),
    ({"accumulator": 16, "lsb": 17, "accumulation": "bins", "constants": 2}, True),
], ids=str)
def test_matmul_is_dots(shape, settings, saturates):
    p = LNSDotParameters(**settings)
    m, k, n = shape
    rng = np.random.default_rng(23)
    # Mostly of one sign and large, so that what can saturate does.
    sign = 1 << (p.format.bits - 1)
    a, b = (random_codes(rng, p.format, size, 0.8) & ~np.where(rng.random(size) < 0.7, sign, 0)
            for size in ((m, k), (k, n)))
    if m > 2:
        a[1], b[:, 0] = 0, 0
    for scales in ((-20, 5), (-100, -90) if p.result == PRESETS["fp32"] else (-25, -24)):
        a_logs, b_logs = (Logs(p.format, codes.astype(np.uint32), scale) for codes, scale in zip((a, b), scales))
        values, overflow = logarithmic.matmul(a_logs, b_logs, p)
        expected, over = by_dots(a_logs, b_logs, p)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected)
        assert overflow == over and (not saturates or k < 33 or overflow) and not np.signbit(values[values == 0]).any()


@pytest.mark.parametrize("settings, k", [
    ({}, 20000), ({"accumulation": "bins"}, 20000), ({"format": Log(9, 16), "fraction": 10}, 4000),
    ({"format": Log(5, 1)}, 3000), ({"format": Log(7, 4), "constants": 2, "accumulation": "bins"}, 3000),
], ids=str)
def test_both_ways_of_matmul_agree(settings, k):
    p = LNSDotParameters(**settings)
    rng = np.random.default_rng(29)
    x, y = (random_codes(rng, p.format, (rows, k), 0.9) for rows in (3, 2))
    # The first sum is as large as it can be, and odd in its smallest unit.
    odd = next((r for r in range(2, p.format.gamma) if p.table[0][r] & 1), 2)
    x[0], y[0] = p.format.top, p.format.top
    x[0, -1], y[0, -1] = 1, odd - 1
    fast = logarithmic.products._exact_product(x, y, p)
    ordered, overflow = logarithmic.products._ordered_product(x, y, p)
    assert not overflow
    np.testing.assert_array_equal(fast, ordered)
    table, top = p.table[0], p.format.top  # and in Python's integers
    products = [0 if not u & top or not v & top else
                (-1) ** ((u ^ v) >> (p.format.bits - 1)) *
                (table[((u & top) + (v & top)) % p.format.gamma] << ((u & top) + (v & top)) // p.format.gamma)
                for u, v in zip(x[0].tolist(), y[0].tolist())]
    assert fast[0, 0] == sum(products)
    assert k < 4000 or sum(products) > 1 << 53 and sum(products) & 1  # so K was cut, or float64 would not hold it


def test_matmul_is_taken_in_slabs(monkeypatch):
    p = LNSDotParameters(accumulator=33, lanes=4)
    rng = np.random.default_rng(31)
    a, b = (Logs(p.format, random_codes(rng, p.format, size).astype(np.uint32), 0) for size in ((9, 21), (21, 5)))
    whole = logarithmic.matmul(a, b, p)
    monkeypatch.setattr(logarithmic.products, "SLAB", 40)
    parts = logarithmic.matmul(a, b, p)
    np.testing.assert_array_equal(whole[0], parts[0])
    assert whole[1] == parts[1]


@pytest.mark.parametrize("settings", [{}, {"accumulator": 33}, {"accumulator": 33, "accumulation": "bins"}], ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 3, 0), (2, 0, 3), (0, 0, 0)], ids=str)
def test_matmul_of_nothing(shape, settings):
    p = LNSDotParameters(**settings)
    m, k, n = shape
    a, b = (Logs(p.format, np.zeros(size, np.uint32), 0) for size in ((m, k), (k, n)))
    values, overflow = logarithmic.matmul(a, b, p)
    assert values.shape == (m, n) and not values.any() and not overflow


def test_matmul_reports_infinite_results():
    p = LNSDotParameters(result=PRESETS["fp16"])
    one = logarithmic.quantise(np.float32([[300.0]]), LNS8)
    values, overflow = logarithmic.matmul(one, one, p)
    assert values.tolist() == [[inf]] and overflow


def test_matmul_of_quantised_numbers_is_near_the_product():
    rng = np.random.default_rng(37)
    x, y = rng.standard_normal((20, 64)).astype(np.float32), rng.standard_normal((64, 30)).astype(np.float32)
    a, b = logarithmic.quantise(x, LNS8), logarithmic.quantise(y, LNS8)
    exact = a.values() @ b.values()
    limit = np.abs(a.values()) @ np.abs(b.values())
    for count, bound in ((8, 0.002), (4, 0.034), (2, 0.062), (1, 0.062)):
        values, overflow = logarithmic.matmul(a, b, LNSDotParameters(constants=count))
        assert not overflow and (np.abs(values - exact) <= bound * limit).all()


def test_matmul_checks_its_operands():
    p = LNSDotParameters()
    a, b = (Logs(LNS8, np.zeros(shape, np.uint32), 0) for shape in ((2, 3), (3, 4)))
    with pytest.raises(ValueError, match=r"^format of the operands is \(Log\(bits=6.*; allowed: Log\(bits=8, gamma=8"):
        logarithmic.matmul(Logs(Log(6, 8), a.codes, 0), b, p)
    with pytest.raises(ValueError, match=r"^format of the operands is "):
        logarithmic.matmul(a, b, LNSDotParameters(Log(7, 4)))
    with pytest.raises(ValueError, match=r"^shapes is \(\(2, 3\), \(2, 3\)\); allowed: \(M, K\) and \(K, N\)$"):
        logarithmic.matmul(a, a, p)
    with pytest.raises(ValueError, match=r"^shapes is \(\(3,\), \(3, 4\)\); "):
        logarithmic.matmul(Logs(LNS8, a.codes[0], 0), b, p)


# The converter and the decoder.

WORKS = {"fp32": PRESETS["fp32"], "bf16": PRESETS["bf16"], "fp16": PRESETS["fp16"], "e4m3": Float(4, 3),
         "e5m26": Float(5, 26), "e8m2-saturating": Float(8, 2, overflow="saturate")}


@pytest.mark.parametrize("work", [pytest.param(fmt, id=name) for name, fmt in WORKS.items()])
@pytest.mark.parametrize("fmt", [LNS8, Log(4, 1), Log(12, 32), Log(16, 1)], ids=name_of)
def test_convert_is_the_definition(work, fmt):
    p = LNSConverterParameters(fmt, work, 6)
    assert LNSConverterParameters.from_json(json.dumps(p.to_json())) == p
    rng = np.random.default_rng(41)
    n = 200
    # Magnitudes near each other, as in a tensor, anywhere; anything at all; zeros; Inf and NaN.
    codes = rng.integers(0, work.max_code + 1, (n, 1)) - rng.integers(0, 12 << work.mantissa, (n, 6))
    codes = np.maximum(codes, rng.integers(0, 2, (n, 6)))
    codes = np.where(rng.random((n, 1)) < 0.2, rng.integers(0, work.max_code + 1, (n, 6)), codes)
    codes = np.where(rng.random((n, 6)) < 0.1, 0, codes)
    codes[::20] = 0
    special = rng.random((n, 6)) < 0.02
    codes = np.where(special, rng.integers(work.inf_code, 1 << (work.width - 1), (n, 6)), codes)
    codes = np.where(rng.random((n, 6)) < 0.01, work.inf_code, codes)
    codes |= rng.integers(0, 2, (n, 6)) << (work.width - 1)
    scale, given = rng.integers(0, 255, n), rng.random(n) < 0.5
    out, used, invalid, overflow = logarithmic.convert(p, codes, scale, given)
    assert out.dtype == np.uint32 and used.dtype == np.int64
    for k in range(n):
        xs = work.decode(codes[k]).tolist()
        expected, exponent, above = exact_codes(xs, fmt, int(scale[k]) - 127 if given[k] else None, work.emax)
        assert (out[k].tolist(), int(used[k])) == (expected, exponent + 127), k
        assert (bool(invalid[k]), bool(overflow[k])) == (bool(np.isnan(xs).any()), above), k


@pytest.mark.parametrize("work", ["fp16", "fp32"])
def test_convert_is_quantise_with_a_scale_for_each_transfer(work):
    p = LNSConverterParameters(LNS8, PRESETS[work], 5)
    rng = np.random.default_rng(43)
    dtype = np.float16 if work == "fp16" else np.float32
    x = np.ldexp(rng.standard_normal((300, 5)), rng.integers(-10, 10, (300, 1))).astype(dtype)
    x[5, 2], x[9, 1], x[11] = np.inf, np.nan, 0
    given, scale = rng.random(300) < 0.3, rng.integers(110, 140, 300)
    out, used, invalid, _ = logarithmic.convert(p, p.work.encode(x), scale, given)
    for k in range(300):
        logs = logarithmic.quantise(x[k], LNS8, int(scale[k]) - 127 if given[k] else None)
        assert (logs.codes.tolist(), logs.scale + 127, logs.invalid) == (out[k].tolist(), used[k], invalid[k])


@lru_cache(None)
def exact_power(r, gamma):
    """2**(r / gamma), to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return Fraction(Decimal(2) ** (Decimal(r) / gamma))


def assert_decode(p, codes, scale):
    """That `decode` rounds what codes of shape (n, lanes) mean, correctly."""
    out, overflow = logarithmic.decode(p, codes, scale)
    assert out.dtype == np.uint32
    got = p.result.decode(out)
    assert not np.signbit(got[got == 0]).any()
    fmt = p.format
    rounded = lru_cache(None)(
        lambda t, k: exact_round(exact_power(t % fmt.gamma, fmt.gamma) * Fraction(2) ** (k + t // fmt.gamma), p.result))
    for k in range(len(codes)):
        expected = []
        for code in codes[k].tolist():
            value = rounded(code & fmt.top, int(scale[k]) - 127) if code & fmt.top else 0.0
            expected.append(0.0 - value if code > fmt.top else value)
        assert got[k].tolist() == expected, (codes[k], scale[k])
        assert overflow[k] == (inf in expected or -inf in expected)


@every_result
@pytest.mark.parametrize("fmt", [LNS8, Log(4, 1), Log(4, 4), Log(12, 32), Log(16, 16)],
                         ids=name_of)
def test_decode_rounds_correctly(result, fmt):
    p = LNSDecoderParameters(fmt, result, 3)
    assert LNSDecoderParameters.from_json(json.dumps(p.to_json())) == p
    rng = np.random.default_rng(47)
    for place in (result.emin - result.mantissa - 1, result.emin, 0, result.emax):
        n = 150
        t = rng.integers(0, fmt.top + 1, (n, 3))
        codes = t | rng.integers(0, 2, (n, 3)) << (fmt.bits - 1)
        scale = np.clip(127 + place - t[:, 0] // fmt.gamma + rng.integers(-2, 3, n), 0, 254)
        assert_decode(p, codes, scale)


@pytest.mark.sweep
@every_result
@gammas
def test_decode_every_code_under_every_scale(result, gamma):
    fmt = Log(max(4, gamma.bit_length() + 3), gamma)
    p = LNSDecoderParameters(fmt, result, 1 << 4)
    codes = np.resize(np.arange(1 << fmt.bits), (255, 1 << fmt.bits))
    assert_decode(p, codes.reshape(-1, 16), np.repeat(np.arange(255), (1 << fmt.bits) // 16))


def test_decode_has_both_ends():
    p = LNSDecoderParameters(LNS8, PRESETS["fp16"], 4)
    codes = np.array([[0, 128, 127, 255], [1, 129, 8, 136], [1, 0, 0, 128]])
    out, overflow = logarithmic.decode(p, codes, [254, 127 - 26, 127])
    assert PRESETS["fp16"].decode(out).tolist() == [[0, 0, inf, -inf], [0, 0, 2.0**-24 * 0, 0], [1.0908203125, 0, 0, 0]]
    assert out[1].tolist() == [0, 0, 0, 0]  # 2**-25 is a tie, to even; no zero is negative
    assert overflow.tolist() == [True, False, False]


def test_converter_and_decoder_take_nothing():
    none = np.zeros(0, int)
    out, used, invalid, overflow = logarithmic.convert(LNSConverterParameters(), np.zeros((0, 16), int), none, none)
    assert out.shape == (0, 16) and used.shape == invalid.shape == overflow.shape == (0,)
    out, overflow = logarithmic.decode(LNSDecoderParameters(), np.zeros((0, 16), int), none)
    assert out.shape == (0, 16) and overflow.shape == (0,)


@gammas
def test_what_is_decoded_is_quantised_to_the_same_codes(gamma):
    bits = max(4, gamma.bit_length() + 3)
    fmt = Log(bits, gamma)
    codes = np.arange(1 << bits).reshape(-1, 8)
    scale = np.full(len(codes), 120)
    decoded, _ = logarithmic.decode(LNSDecoderParameters(fmt, PRESETS["fp32"], 8), codes, scale)
    again, _, _, overflow = logarithmic.convert(LNSConverterParameters(fmt, PRESETS["fp32"], 8), decoded, scale,
                                                np.ones(len(codes), bool))
    np.testing.assert_array_equal(again, np.where(codes == 1 << (bits - 1), 0, codes))
    assert not overflow.any()


# Bad parameters.

FORMAT16 = r"; allowed: a Log of 4 to 16 bits, gamma 1 to 32 and at most 2\*\*\(bits-2\), such as lns8$"
FORMAT9 = r"; allowed: a Log of 4 to 9 bits, gamma 1 to 16 and at most 2\*\*\(bits-2\), such as lns8$"
RESULT = r"; allowed: a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16$"
WORK = (r"; allowed: a Float with specials 'ieee', 2 mantissa bits or more and exponents within fp32's, such as fp32, "
        r"bf16, fp16$")


@pytest.mark.parametrize("cls, settings, message", [
    (LNSConverterParameters, {"format": Log(3, 1)}, r"^format is Log\(bits=3, gamma=1\)" + FORMAT16),
    (LNSConverterParameters, {"format": Log(17, 8)}, r"^format is Log\(bits=17, gamma=8\)" + FORMAT16),
    (LNSConverterParameters, {"format": WIDE}, r"^format is Log\(bits=16, gamma=2048\)" + FORMAT16),
    (LNSConverterParameters, {"format": Log(6, 32)}, r"^format is Log\(bits=6, gamma=32\)" + FORMAT16),
    (LNSConverterParameters, {"format": "lns8"}, r"^format is 'lns8'" + FORMAT16),
    (LNSConverterParameters, {"format": PRESETS["fp16"]}, r"^format is Float\(.*" + FORMAT16),
    (LNSConverterParameters, {"work": PRESETS["fp8-e4m3"]}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": Float(5, 1)}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": Float(9, 10)}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": Float(8, 10, bias=128)}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": None}, r"^work is None" + WORK),
    (LNSConverterParameters, {"lanes": 0}, r"^lanes is 0; allowed: an integer from 1 to 64$"),
    (LNSConverterParameters, {"lanes": 65}, r"^lanes is 65; allowed: an integer from 1 to 64$"),
    (LNSConverterParameters, {"lanes": 8.0}, r"^lanes is 8.0; allowed: an integer from 1 to 64$"),
    (LNSDecoderParameters, {"format": Log(8, 64)}, r"^format is Log\(bits=8, gamma=64\)" + FORMAT16),
    (LNSDecoderParameters, {"result": PRESETS["fp8-e4m3"]}, r"^result is Float\(.*" + RESULT),
    (LNSDecoderParameters, {"result": Float(5, 10, overflow="saturate")}, r"^result is Float\(.*" + RESULT),
    (LNSDecoderParameters, {"result": Float(5, 0)}, r"^result is Float\(.*" + RESULT),
    (LNSDecoderParameters, {"result": Fixed(8, 7)}, r"^result is Fixed\(.*" + RESULT),
    (LNSDecoderParameters, {"lanes": True}, r"^lanes is True; allowed: an integer from 1 to 64$"),
    (LNSDotParameters, {"format": Log(3, 1)}, r"^format is Log\(bits=3, gamma=1\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(10, 16)}, r"^format is Log\(bits=10, gamma=16\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(9, 32)}, r"^format is Log\(bits=9, gamma=32\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(4, 8)}, r"^format is Log\(bits=4, gamma=8\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(8, 4)},
     r"^format is Log\(.*; allowed: one whose largest product is below 2\*\*41$"),
    (LNSDotParameters, {"lanes": 3}, r"^lanes is 3; allowed: an integer from 4 to 64$"),
    (LNSDotParameters, {"lanes": 65}, r"^lanes is 65; allowed: an integer from 4 to 64$"),
    (LNSDotParameters, {"accumulation": "tree"}, r"^accumulation is 'tree'; allowed: direct, bins$"),
    (LNSDotParameters, {"accumulator": 32}, r"^accumulator is 32; allowed: an integer from 33 to 48$"),
    (LNSDotParameters, {"accumulator": 49}, r"^accumulator is 49; allowed: an integer from 33 to 48$"),
    (LNSDotParameters, {"accumulator": 46, "format": Log(9, 16), "fraction": 10},
     r"^accumulator is 46; allowed: an integer from 33 to 45$"),
    (LNSDotParameters, {"accumulator": 7, "lsb": 31}, r"^accumulator is 7; allowed: an integer from 8 to 48$"),
    (LNSDotParameters, {"accumulator": 40.0}, r"^accumulator is 40.0; allowed: an integer from 33 to 48$"),
    (LNSDotParameters, {"lsb": 32}, r"^lsb is 32; allowed: an integer from 0 to 31$"),
    (LNSDotParameters, {"lsb": -1}, r"^lsb is -1; allowed: an integer from 0 to 31$"),
    (LNSDotParameters, {"constants": 3}, r"^constants is 3; allowed: 1, 2, 4, 8$"),
    (LNSDotParameters, {"constants": 16}, r"^constants is 16; allowed: 1, 2, 4, 8$"),
    (LNSDotParameters, {"constants": True}, r"^constants is True; allowed: 1, 2, 4, 8$"),
    (LNSDotParameters, {"constants": 2, "format": Log(5, 1)}, r"^constants is 2; allowed: 1$"),
    (LNSDotParameters, {"fraction": 3}, r"^fraction is 3; allowed: an integer from 4 to 10$"),
    (LNSDotParameters, {"fraction": 11}, r"^fraction is 11; allowed: an integer from 4 to 10$"),
    (LNSDotParameters, {"result": PRESETS["fp6-e3m2"]}, r"^result is Float\(.*" + RESULT),
])
def test_parameters_that_make_no_sense(cls, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        cls(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call, message", [
    (lambda: logarithmic.quantise(np.ones(3), LNS8), r"^dtype of x is 'float64'; allowed: float16, float32$"),
    (lambda: logarithmic.quantise([1, 2], LNS8), r"^dtype of x is 'int64'; allowed: float16, float32$"),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), Log(24, 1 << 15)),
     r"^format is Log\(bits=24, gamma=32768\); allowed: a Log with gamma at most 16384$"),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), "lns8"), r"^format is 'lns8'; allowed: a Log "),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), LNS8, 128),
     r"^scale is 128; allowed: an integer from -127 to 127$"),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), LNS8, -128), r"^scale is -128; "),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), LNS8, 1.5), r"^scale is 1.5; "),
])
def test_arguments_that_make_no_sense(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("parameters", [
    LNSConverterParameters(), LNSDecoderParameters(), LNSDotParameters(),
    LNSConverterParameters(Log(12, 32), Float(5, 6), 3), LNSDecoderParameters(Log(4, 4), Float(4, 3), 1),
    LNSDotParameters(Log(7, 4), 9, "bins", 30, 3, 2, 5, PRESETS["bf16"]),
], ids=lambda p: type(p).__name__)
def test_parameters_go_through_json_both_ways(parameters):
    data = json.loads(json.dumps(parameters.to_json()))
    assert type(parameters).from_json(data) == parameters == type(parameters).from_json(json.dumps(data))
    hash(parameters)


def test_what_is_not_given_is_chosen():
    p = LNSDotParameters()
    assert (p.accumulator, p.constants, p.quotient, p.below) == (48, 8, 31, 8)
    assert LNSDotParameters.from_json('{"accumulator": null, "constants": null}') == p
    narrow = LNSDotParameters(Log(4, 4), lsb=2)
    assert (narrow.accumulator, narrow.constants, narrow.quotient) == (23, 4, 3)
    assert LNSDotParameters(Log(5, 1)).below == 0  # a constant of 1 has no fraction
    assert LNSDotParameters(constants=2, accumulation="bins").below == 3
