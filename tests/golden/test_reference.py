"""The scalar reference against gfloat and exact fractions; the vectorised model against the scalar reference.

Both are held against libraries as well in test_floating.py; here the formats are random: every mantissa, exponent,
bias, kind of special values and of overflow that `Float` allows.
"""

from fractions import Fraction

import gfloat
import numpy as np
import pytest
from gfloat.types import Domain, FormatInfo, RoundMode
from narrowgauge.golden import floating, reference
from narrowgauge.golden.floating import operations
from narrowgauge.golden.formats import Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from peers import BF16, E4M3, E5M2, FINITE, FP16, FP32, each

pytestmark = pytest.mark.filterwarnings("error")

EXTREME = {
    "e2m29": Float(2, 29),
    "e1m29-none": Float(1, 29, **FINITE),
    "e11m20": Float(11, 20),
    "e11m20-fn-saturating": Float(11, 20, 1030, specials="fn", overflow="saturate"),
    "e4m27-fn": Float(4, 27, specials="fn"),
    "e5m10-low": Float(5, 10, bias=1064),
    "e5m10-high": Float(5, 10, bias=-993),
    "e1m0-none": Float(1, 0, **FINITE),
    "e1m0-fn": Float(1, 0, specials="fn"),
    "e2m0-ieee": Float(2, 0),
    "e6m0-ieee": Float(6, 0),
    "e4m3-ieee-saturating": Float(4, 3, overflow="saturate"),
}


def random_format(rng):
    """Any Float, all its parameters drawn alike; a bias that `Float` refuses is drawn again."""
    while True:
        exponent = int(rng.integers(1, 12))
        mantissa = int(rng.integers(0, min(29, 31 - exponent) + 1))
        specials = str(rng.choice(["ieee", "fn", "none"]))
        overflow = "saturate" if specials == "none" else str(rng.choice(["infinity", "saturate"]))
        bias = None if rng.random() < 0.5 else int(rng.integers(-1000, 1070))
        try:
            return Float(exponent, mantissa, bias, specials, overflow)
        except ValueError:
            pass


def random_rounding(rng):
    bits = int(rng.integers(1, 17))
    return [NEAREST, TRUNCATE, stochastic(bits), stochastic(bits, corrected=True)][rng.integers(0, 4)]


def random_codes(fmt, count, rng):
    """Codes of any kind, one in four from the ends: zeros, subnormals, one binade's ends, the top, Inf and NaN."""
    top = (1 << (fmt.width - 1)) - 1
    ends = [0, 1, 2, (1 << fmt.mantissa) - 1, 1 << fmt.mantissa, fmt.max_code - 1, fmt.max_code, fmt.max_code + 1, top]
    ends = np.array(ends) % (top + 1) | rng.integers(0, 2, len(ends)) << (fmt.width - 1)
    return np.where(rng.integers(0, 4, count) == 0, rng.choice(ends, count), rng.integers(0, 2**fmt.width, count))


def partners(codes, fmt, rng):
    """Operands to go with others: one in three nearly cancels, one in three is some binades away, the rest are free."""
    sign = 1 << (fmt.width - 1)
    magnitude = codes & (sign - 1)
    near = np.clip(magnitude + rng.integers(-2, 3, codes.size), 0, sign - 1) | ~codes & sign
    away = magnitude + (rng.integers(-fmt.mantissa - 3, fmt.mantissa + 4, codes.size) << fmt.mantissa)
    away = np.clip(away ^ rng.integers(0, 1 << fmt.mantissa, codes.size), 0, sign - 1) | rng.choice([0, sign])
    return np.choose(rng.integers(0, 3, codes.size), [near, away, random_codes(fmt, codes.size, rng)])


def as_fraction(number):
    return (-1) ** number.sign * number.integer * Fraction(2) ** number.exponent


def as_gfloat(fmt):
    """The same format, as gfloat describes it."""
    nans = {"ieee": (1 << fmt.mantissa) - 1, "fn": 1, "none": 0}[fmt.specials]
    domain = Domain.Extended if fmt.specials == "ieee" else Domain.Finite
    return FormatInfo("any", fmt.width, fmt.mantissa + 1, bias=fmt.bias, is_signed=True, domain=domain, has_nz=True,
                      num_high_nans=nans, has_subnormals=True, is_twos_complement=False)


def gfloat_formats(count, seed):
    """Random formats that gfloat can say: no exponent of one bit, and some mantissa.

    Without stored mantissa bits its ties go by the exponent's parity, ours by the hidden one's (docs/numerics.md).
    """
    rng = np.random.default_rng(seed)
    formats = (random_format(rng) for _ in iter(int, 1))
    return [fmt for fmt, _ in zip((f for f in formats if f.mantissa and f.exponent > 1), range(count))]


def test_decode_agrees_with_gfloat():
    rng = np.random.default_rng(1)
    for fmt in gfloat_formats(100, 2):
        info = as_gfloat(fmt)
        assert info.max == fmt.max
        for code in random_codes(fmt, 20, rng).tolist():
            theirs = gfloat.decode_float(info, code).fval
            ours = reference.decode(code, fmt)
            if ours.kind == "finite":
                assert as_fraction(ours) == Fraction(theirs) and ours.sign == np.signbit(theirs), (fmt, hex(code))
            else:
                assert np.isnan(theirs) if ours.kind == "nan" else theirs == (-1) ** ours.sign * np.inf


# gfloat's StochasticFastest adds r / 2**k to the discarded fraction, its StochasticFast (r + 1/2) / 2**k, and asks
# whether that reaches 1: with an integer r, the definitions of numerics.md, plain and corrected. Its mode called
# Stochastic rounds the fraction to k bits first (to nearest even), which is neither of ours.
MODES = {
    "nearest": (NEAREST, RoundMode.TiesToEven),
    "truncate": (TRUNCATE, RoundMode.TowardZero),
    **{f"stochastic{k}": (stochastic(k), RoundMode.StochasticFastest) for k in (1, 5, 8, 16)},
    **{f"corrected{k}": (stochastic(k, corrected=True), RoundMode.StochasticFast) for k in (1, 5, 8, 16)},
}


@pytest.mark.parametrize("rounding, mode", each(MODES))
def test_round_exact_agrees_with_gfloat(rounding, mode):
    rng = np.random.default_rng(3)
    for fmt in gfloat_formats(40, 4):
        info = as_gfloat(fmt)
        sat = fmt.overflow == "saturate"
        for _ in range(20):
            # Up to 12 bits below the last place, so that gfloat's sum of fraction and noise is exact in float64.
            bits = fmt.mantissa + 1 + int(rng.integers(0, 13))
            integer = int(rng.integers(1, 1 << bits)) | int(rng.random() < 0.5) << bits - 1
            low, high = max(fmt.emin - fmt.mantissa - 3, -1074), fmt.emax - fmt.mantissa + 2
            exponent = int(rng.integers(low, high)) - (bits - fmt.mantissa - 1)
            exponent = min(max(exponent, -1074), 1023 - bits)
            word, sign = int(rng.integers(0, 2**rounding.bits)), int(rng.integers(0, 2))
            theirs = gfloat.round_float(info, (-1) ** sign * np.ldexp(float(integer), exponent), mode, sat,
                                        word, rounding.bits)
            code, invalid, overflow = reference.round_exact(reference.Number("finite", sign, integer, exponent), fmt,
                                                            rounding, word)
            case = (fmt, hex(integer), exponent, word)
            if np.isnan(theirs):
                assert code & (1 << (fmt.width - 1)) - 1 == fmt.nan_code and overflow, case
            else:
                assert fmt.decode(code) == theirs and np.signbit(fmt.decode(code)) == np.signbit(theirs), case
            assert not invalid


def test_exact_results_are_those_of_fractions():
    rng = np.random.default_rng(5)
    for _ in range(60):
        f, g = random_format(rng), random_format(rng)
        for a, b in zip(random_codes(f, 10, rng).tolist(), random_codes(g, 10, rng).tolist()):
            x, y = reference.decode(a, f), reference.decode(b, g)
            if x.kind == y.kind == "finite":
                first, second = Fraction(float(f.decode(a))), Fraction(float(g.decode(b)))
                assert as_fraction(reference.product(x, y)) == first * second
                assert as_fraction(reference.total(x, y)) == first + second


def vector_and_scalar(fmt, other, rounding, flush, count, rng):
    """Yield the name, the vectorised results and the scalar ones of every operation on operands of all kinds."""
    a, c = random_codes(fmt, count, rng), random_codes(other, count, rng)
    b, w = partners(a, fmt, rng), rng.integers(0, 2**rounding.bits, count)
    w[::5], w[1::5] = 0, 2**rounding.bits - 1
    # For fma, one addend in three that nearly cancels the product, as far as its format allows.
    with np.errstate(all="ignore"):
        product = np.nan_to_num(fmt.decode(a) * fmt.decode(b))
    c = np.where(rng.random(count) < 0.33, other.encode(-np.clip(product, -other.max, other.max)), c)
    rows = list(zip(a.tolist(), b.tolist(), c.tolist(), w.tolist()))
    yield ("add", operations.add_flagged(a, b, fmt, rounding, w, flush),
           [reference.add(a, b, fmt, rounding, w, flush) for a, b, _, w in rows], rows)
    yield ("multiply", operations.multiply_flagged(a, b, fmt, other, rounding, w, flush),
           [reference.multiply(a, b, fmt, rounding, w, flush, other) for a, b, _, w in rows], rows)
    yield ("fma", operations.fma_flagged(a, b, c, fmt, other, rounding, w, flush),
           [reference.fma(a, b, c, fmt, rounding, w, flush, other) for a, b, c, w in rows], rows)
    yield ("cast", operations.cast_flagged(a, fmt, other, rounding, w, flush),
           [reference.cast(a, fmt, other, rounding, w, flush) for a, _, _, w in rows], rows)
    yield ("subtract", [floating.subtract(a, b, fmt, rounding, w, flush=flush)],
           [reference.subtract(a, b, fmt, rounding, w, flush)[:1] for a, b, _, w in rows], rows)
    yield ("compare", [floating.compare(a, b, fmt, flush=flush)],
           [[reference.compare(a, b, fmt, flush)] for a, b, _, _ in rows], rows)
    yield ("maximum", [floating.maximum(a, b, fmt, flush=flush)],
           [[reference.maximum(a, b, fmt, flush)] for a, b, _, _ in rows], rows)


def assert_same(fmt, other, rounding, flush, count, rng):
    for name, vector, scalar, rows in vector_and_scalar(fmt, other, rounding, flush, count, rng):
        for ours, expected in zip(vector, zip(*scalar)):
            different = np.flatnonzero(ours != np.array(expected))
            assert not different.size, (name, fmt, other, rounding, flush, [
                ([hex(v) for v in rows[i]], hex(ours[i]), hex(expected[i])) for i in different[:3]])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("flush", [False, True], ids=["keep", "flush"])
def test_vectorised_operations_are_the_reference(flush, seed):
    """Codes and both flags, between two random formats under a random rounding."""
    rng = np.random.default_rng(100 + seed)
    for _ in range(12):
        assert_same(random_format(rng), random_format(rng), random_rounding(rng), flush, 100, rng)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(100))
def test_vectorised_operations_are_the_reference_at_length(seed):
    rng = np.random.default_rng(1000 + seed)
    for _ in range(40):
        assert_same(random_format(rng), random_format(rng), random_rounding(rng), bool(rng.random() < 0.5), 100, rng)


@pytest.mark.parametrize("rounding", [pytest.param(value[0], id=name) for name, value in MODES.items()])
@pytest.mark.parametrize("fmt", each(EXTREME | {"fp32": FP32, "fp16": FP16, "e5m2": E5M2, "e4m3": E4M3}))
def test_extreme_formats_under_every_rounding(fmt, rounding):
    rng = np.random.default_rng(7)
    for flush in (False, True):
        assert_same(fmt, FP32, rounding, flush, 20, rng)
        assert_same(fmt, fmt, rounding, flush, 20, rng)


@pytest.mark.parametrize("seed", range(8))
def test_vectorised_dot_is_the_reference(seed):
    rng = np.random.default_rng(200 + seed)
    words = {"sequential": 7, "chunked": 10, "exact": 1}
    for _ in range(6):
        fmt, accumulator, rounding = random_format(rng), random_format(rng), random_rounding(rng)
        a = random_codes(fmt, 42, rng)
        b = partners(a, fmt, rng)
        if rng.random() < 0.5:  # Inf and NaN would soon be everywhere: half of the cases go without
            a, b = (np.where(x & (1 << (fmt.width - 1)) - 1 > fmt.max_code, 1, x) for x in (a, b))
        a, b = a.reshape(6, 7), b.reshape(6, 7)
        a[:, 1], b[:, 1] = a[:, 0], b[:, 0] ^ 1 << (fmt.width - 1)  # cancels the first product
        for order, count in words.items():
            w, flush = rng.integers(0, 2**rounding.bits, (6, count)), bool(rng.random() < 0.3)
            ours = floating.dot(a, b, fmt, rounding, w, accumulator=accumulator, order=order, chunk=3, flush=flush)
            expected = [reference.dot(*(v.tolist() for v in row[:2]), fmt, rounding, row[2].tolist(), flush,
                                      accumulator, order, 3) for row in zip(a, b, w)]
            assert ours.tolist() == expected, (order, fmt, accumulator, rounding, flush)


@pytest.mark.parametrize("rounding", [pytest.param(value[0], id=name) for name, value in MODES.items()])
@pytest.mark.parametrize("fmt", each({"fp32": FP32, "bf16": BF16, "e5m2": E5M2} | {
    name: fmt for name, fmt in EXTREME.items() if fmt.max_code}))
def test_exact_dot_keeps_every_bit(fmt, rounding):
    """Sums whose end is far below their start: ones, a half ulp of the result, and the least products there are."""
    rng = np.random.default_rng(10)
    one = min(max(fmt.bias, 1) << fmt.mantissa, fmt.max_code)
    half = max(one - (fmt.mantissa + 1 << fmt.mantissa), 0)
    for _ in range(10):
        a = np.array([one, half, 1, *rng.integers(1, fmt.max_code + 1, 3)])[rng.permutation(6)]
        b = np.array([one, one, 1, *rng.integers(one // 2, one + 1, 3)])[rng.permutation(6) if rng.random() < 0.5
                                                                         else slice(None)]
        a ^= rng.integers(0, 2, 6) << (fmt.width - 1)
        a, b = (np.where(rng.random(6) < 0.2, 0, v) for v in (a, b))
        for accumulator in (fmt, FP32, Float(2, 29)):
            word = int(rng.integers(0, 2**rounding.bits))
            ours = floating.dot(a, b, fmt, rounding, [word], accumulator=accumulator, order="exact")
            assert ours == reference.dot(a.tolist(), b.tolist(), fmt, rounding, [word], False, accumulator, "exact")


def test_exact_dot_breaks_a_tie_far_below():
    """1 + 2**-24 + 2**-298 in fp32."""
    ones, tiny = [0x3F800000, 0x33800000, 0x00000001], [0x3F800000, 0x3F800000, 0x00000001]
    assert floating.dot(ones, tiny, FP32, order="exact") == 0x3F800001
    assert floating.dot(ones[:2], tiny[:2], FP32, order="exact") == 0x3F800000


@pytest.mark.parametrize("word", [0, 1, 40000, 65535])
def test_exact_dot_keeps_the_widest_window(word):
    """1 + j * 2**-46 + 2**-298 in the widest format under the widest window: the least j that the word carries."""
    fmt, rounding, ulp = Float(2, 29), stochastic(16, corrected=True), 2.0**-23
    for j, up in ((2**17 - 1 - 2 * word, 1), (2**17 - 2 - 2 * word, 0)):
        a, b = FP32.encode([1, j * ulp, 2.0**-149]), FP32.encode([1, ulp, 2.0**-149])
        assert floating.dot(a, b, FP32, rounding, [word], accumulator=fmt, order="exact") == fmt.encode(1.0) + up


@pytest.mark.parametrize("shift", range(8, 24))
def test_exact_dot_where_int64_ends(shift):
    """Eight products of 42 bits, all but one of them `shift` places up: their sum has 46 + shift bits and no zeros."""
    fmt = Float(11, 20)
    a = np.array([fmt.bias + shift << 20 | 0xFFFFF] * 7 + [fmt.bias << 20 | 0xFFFFF])
    b = np.full(8, fmt.bias << 20 | 0xFFFFF)
    for accumulator in (fmt, FP32, Float(2, 29)):
        ours = floating.dot(a, b, fmt, stochastic(16), [12345], accumulator=accumulator, order="exact")
        assert ours == reference.dot(a.tolist(), b.tolist(), fmt, stochastic(16), [12345], False, accumulator, "exact")
