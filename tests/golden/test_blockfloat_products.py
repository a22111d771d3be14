"""Products in block floating point, and their sums, against scalar arithmetic in exact fractions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from blocks import BF16, FAST4, FP16, FP32, assert_same, each, exact_add, operands, power, random_blocks
from narrowgauge.golden import accumulator
from narrowgauge.golden import blockfloat as bf
from narrowgauge.golden.formats import BlockFloat, Float

pytestmark = pytest.mark.filterwarnings("error")

# The numerics of fp32, but another object: it never takes the float32 path of `matmul`.
GENERAL_FP32 = Float(8, 23, overflow="saturate")

ACCUMULATORS = {"fp32": FP32, "bf16": BF16, "fp16": FP16, "e4m3-bias3": Float(4, 3, bias=3), "e8m21": Float(8, 21)}


@pytest.mark.parametrize("a_mantissa", range(2, 9))
@pytest.mark.parametrize("b_mantissa", range(2, 9))
def test_dot_is_the_merged_chunk_products(a_mantissa, b_mantissa):
    rng = np.random.default_rng(7)
    a = random_blocks(BlockFloat(16, a_mantissa, 8), (40,), rng)
    b = random_blocks(BlockFloat(16, b_mantissa, 5, bias=3), (40,), rng)
    # The largest of either sign among them.
    a.mantissas[:2], b.mantissas[:2] = 2**a_mantissa - 1, 2**b_mantissa - 1
    b.mantissas[1] *= -1
    integer, exponent = bf.dot(a, b)
    assert integer.dtype == exponent.dtype == np.int64
    sign = np.sign(a.mantissas.astype(int)) * np.sign(b.mantissas)
    pairs = list(itertools.product(range((a_mantissa + 1) // 2), range((b_mantissa + 1) // 2)))
    assert bf.passes(a_mantissa, b_mantissa) == len(pairs)
    merged = np.zeros(40, np.int64)
    for c, d in pairs:
        chunk_a, chunk_b = (np.abs(x.mantissas.astype(int)) >> 2 * n & 3 for x, n in ((a, c), (b, d)))
        partial = (sign * chunk_a * chunk_b).sum(axis=-1)
        assert np.abs(partial).max() <= 144
        merged += partial << 2 * (c + d)
    np.testing.assert_array_equal(integer, merged)
    assert np.abs(integer).max() == 16 * (2**a_mantissa - 1) * (2**b_mantissa - 1)
    exact = [sum(Fraction(p) * Fraction(q) for p, q in zip(x, y))
             for x, y in zip(a.values().reshape(-1, 16).tolist(), b.values().reshape(-1, 16).tolist())]
    assert [int(n) * power(int(e)) for n, e in zip(integer, exponent)] == exact


def test_passes_and_bounds_of_the_contract():
    assert [bf.passes(*pair) for pair in ((2, 2), (2, 4), (4, 2), (4, 4), (3, 5))] == [1, 2, 2, 4, 6]
    full = bf.Blocks(FAST4, np.zeros(1, np.int16), np.full((1, 16), 15, np.int8), 16)
    assert bf.dot(full, full)[0].tolist() == [3600]


def test_dot_broadcasts():
    rng = np.random.default_rng(8)
    a, b = random_blocks(FAST4, (3, 1, 5), rng), random_blocks(FAST4, (4, 5), rng)
    integer, exponent = bf.dot(a, b)
    assert integer.shape == exponent.shape == (3, 4, 5)
    one = bf.Blocks(FAST4, a.exponents[2, 0, 4:], a.mantissas[2, 0, 4:], 16)
    other = bf.Blocks(FAST4, b.exponents[1, 4:], b.mantissas[1, 4:], 16)
    assert [x[0] for x in bf.dot(one, other)] == [integer[2, 1, 4], exponent[2, 1, 4]]


def addends(fmt, rng, count):
    """Accumulator values with an addend each: alike, cancelling, near or far, tying, subnormal."""
    top = fmt.max_code
    low = min(2 ** (fmt.mantissa + 2), top + 1)
    codes = np.concatenate([rng.integers(0, top + 1, count), rng.integers(0, low, count // 2),
                            top - rng.integers(0, 4, count // 4)])
    total = fmt.decode(codes) * rng.choice([1.0, -1.0], codes.size)
    integer = rng.integers(-(2**31) + 1, 2**31, codes.size) >> rng.integers(0, 31, codes.size)
    at = np.frexp(np.where(total == 0, fmt.decode(1), total))[1] - np.frexp(np.maximum(np.abs(integer), 1))[1]
    exponent = at + rng.integers(-fmt.mantissa - 4, fmt.mantissa + 4, codes.size)
    far = rng.random(codes.size) < 0.2
    exponent = np.where(far, rng.integers(-1000, 950, codes.size), exponent)
    # Exact negatives of the total, and those with half a unit, or a little less or more, to spare.
    for i in range(0, codes.size, 3):
        mantissa, scale = np.frexp(total[i])
        whole = int(mantissa * 2 ** (fmt.mantissa + 1))
        if fmt.mantissa + 4 < 30:
            integer[i], exponent[i] = -whole * 8 + rng.integers(-5, 6), scale - fmt.mantissa - 4
        if i % 2:
            integer[i], exponent[i] = rng.choice([-3, -1, 1, 3]), max(int(scale), 2 - fmt.bias) - fmt.mantissa - 2
    return total, integer, np.clip(exponent, -1000, 950)


@each("fmt", ACCUMULATORS | {"e11m20": Float(11, 20), "e2m2": Float(2, 2)})
def test_accumulate_rounds_once_to_nearest_even(fmt):
    total, integer, exponent = addends(fmt, np.random.default_rng(9), 3000)
    result = accumulator.accumulate(total, integer, exponent, fmt)
    expected = [exact_add(t, int(n) * power(int(e)), fmt) for t, n, e in zip(total.tolist(), integer, exponent)]
    assert_same(result, expected)


@each("fmt", ACCUMULATORS)
def test_accumulate_directed(fmt):
    m, bias = fmt.mantissa, fmt.bias
    tiny, huge = 1 - bias - m, 2**fmt.exponent - 2 - bias - m  # exponents of the lowest bits at both ends
    inf = np.inf
    rows = [  # total, integer, exponent, result
        (1.0, -1, 0, 0.0),  # an exact zero is +0
        (-1.0, 1, 0, 0.0),
        (0.0, 0, 950, 0.0),
        (-0.0, 0, -1000, 0.0),
        (0.0, 1, tiny - 1, 0.0),  # a tie with zero
        (0.0, -1, tiny - 1, -0.0),  # no exact zero: it keeps its sign
        (-0.0, -1, -1000, -0.0),
        (0.0, 1, -1000, 0.0),
        (0.0, 3, tiny - 2, 2.0**tiny),  # above the tie
        (0.0, 3, tiny - 1, 2.0 ** (tiny + 1)),  # a tie to even
        (2.0**tiny, 1, tiny, 2.0 ** (tiny + 1)),
        (2.0 ** (tiny + m), -1, tiny, (2**m - 1) * 2.0**tiny),  # into the subnormals
        (1.0, 1, -m - 1, 1.0),  # a tie to even below
        (1.0, 3, -m - 1, 1 + 2.0 ** (1 - m)),  # a tie to even above
        (1.0, -1, -m - 2, 1.0),  # a tie where the binade ends
        (1.0, -3, -m - 2, 1 - 2.0**-m),  # the next tie there, to even
        (1.0, 1, -1000, 1.0),  # a huge distance leaves ties and their neighbours in place
        (1.0, 2**29 + 1, -m - 30, 1 + 2.0**-m),
        (1.0, 2**29 - 1, -m - 30, 1.0),
        (fmt.max, 1, huge, inf),
        (fmt.max, 1, huge - 1, inf),  # a tie, to even: over
        (fmt.max, 2**29 - 1, huge - 30, fmt.max),
        (-fmt.max, -1, huge - 1, -inf),
        (fmt.max, -1, -1000, fmt.max),
        (1.0, 1, 949, inf),
        (-1.0, -1, 949, -inf),
        (inf, -(2**31) + 1, 940, inf),  # an Inf stays
        (-inf, 1, 0, -inf),
        (0.0, 2**31 - 1, huge + m + 1, inf),
    ]
    total, integer, exponent, expected = (np.array(column) for column in zip(*rows))
    assert_same(accumulator.accumulate(total, integer, exponent, fmt), expected)
    for row in rows:
        assert_same(accumulator.accumulate(np.float64(row[0]), row[1], row[2], fmt), row[3])


def test_accumulate_far_below_a_tie_does_not_lose_the_remainder():
    """What rounds twice through float64 goes wrong: a tie plus something 2**60 smaller."""
    tied = np.array([1 + 2.0**-23])
    up = accumulator.accumulate(accumulator.accumulate(tied, 1, -24, Float(11, 20)), 0, 0, FP32)
    assert up.shape == (1,)
    base = np.array([1.0, 1.0, -1.0, -1.0])
    # 2**30 + 1 units of 2**-54 around half a unit of the last place.
    result = accumulator.accumulate(base, np.array([2**30 + 1, 2**30 - 1, -(2**30) - 1, -(2**30) + 1]), -54, FP32)
    assert_same(result, [1 + 2.0**-23, 1.0, -1 - 2.0**-23, -1.0])
    # The total is the small part: below float64's reach from the addend.
    small = np.array([2.0**-100, -(2.0**-100), 0.0])
    result = accumulator.accumulate(small, np.array([2**24 + 1] * 3), 0, FP32)
    assert_same(result, [2.0**24 + 2, 2.0**24, 2.0**24])


def scalar_matmul(a, b, fmt):
    """Groups in rising order, one rounded addition each, from +0."""
    def fractions(blocks):
        unit = blocks.exponents.astype(int) - blocks.format.bias - blocks.format.mantissa + 1
        return [[(power(int(e)), q) for e, q in zip(*row)] for row in zip(unit, blocks.mantissas.tolist())]

    result = []
    for row in fractions(a):
        for column in fractions(b):
            total = 0.0
            for (ua, qa), (ub, qb) in zip(row, column):
                total = exact_add(total, ua * ub * sum(x * y for x, y in zip(qa, qb)), fmt)
            result.append(total)
    return np.reshape(result, (len(a.exponents), len(b.exponents)))


@pytest.mark.parametrize("spread", [1, 8, 30])
@pytest.mark.parametrize("group, ma, mb, length", [(16, 4, 4, 70), (16, 2, 4, 64), (16, 8, 8, 33), (7, 3, 5, 50),
                                                   (1, 4, 4, 9), (64, 8, 7, 130), (512, 8, 8, 1030), (16, 4, 4, 5)])
@each("fmt", ACCUMULATORS)
def test_matmul_is_the_scalar_loop(fmt, group, ma, mb, length, spread):
    rng = np.random.default_rng(10)
    shape = (5, 4) if length < 1000 else (2, 2)
    a, b = operands(BlockFloat(group, ma), BlockFloat(group, mb), rng, shape=shape, length=length, spread=spread)
    assert_same(bf.matmul(a, b, fmt), scalar_matmul(a, b, fmt))


@pytest.mark.parametrize("fmt", [pytest.param(FP16, id="fp16"), pytest.param(FP32, id="fp32")])
def test_matmul_at_the_ends_of_the_range(fmt):
    """Sums that overflow, that are subnormal, and that end in a negative zero."""
    rng = np.random.default_rng(11)
    for centre in (fmt.emax - 2, fmt.emin + 3, fmt.emin - fmt.mantissa, fmt.emin - fmt.mantissa - 2):
        for low in (0, centre // 2, centre):
            a, b = operands(FAST4, FAST4, rng, centre=(centre - low, low), spread=2)
            assert_same(bf.matmul(a, b, fmt), scalar_matmul(a, b, fmt))


@pytest.mark.parametrize("group", [1, 2, 16])
def test_a_zero_product_makes_a_negative_zero_positive(group):
    """The first group underflows to -0; the second is -q * 0, an exact zero, and so is the sum."""
    block = BlockFloat(group, 4)
    a = np.zeros((2, 2 * group), np.float32)
    a[:, 0], a[:, group:] = -(2.0**-40), -1
    b = np.zeros((2 * group, 3), np.float32)
    b[0] = 1
    a, b = bf.quantise(a, block), bf.quantise(b, block, axis=0)
    assert_same(bf.matmul(a, b, FP16), np.zeros((2, 3)))
    first = bf.Blocks(block, a.exponents[:, :1], a.mantissas[:, :1], group)
    other = bf.Blocks(block, b.exponents[:, :1], b.mantissas[:, :1], group, 0)
    assert_same(bf.matmul(first, other, FP16), np.full((2, 3), -0.0))


FAST_CASES = {  # formats of a and b, length, exponent codes of a and of b, whether float32 may do it
    "ordinary": ((16, 4, 8), (16, 4, 8), 256, (110, 130), (110, 130), True),
    "uneven": ((16, 2, 8), (16, 4, 5), 160, (110, 130), (5, 25), True),
    "one-element-groups": ((1, 4, 8), (1, 4, 8), 40, (100, 140), (100, 140), True),
    "wide-mantissas": ((64, 8, 8), (64, 8, 8), 512, (110, 130), (110, 130), True),
    "too-wide-for-float32": ((512, 8, 8), (512, 8, 8), 1024, (120, 130), (120, 130), False),
    "small-times-large": ((16, 4, 8), (16, 4, 8), 64, (0, 2), (250, 255), True),
    "large-times-small": ((16, 4, 8), (16, 4, 8), 64, (250, 255), (0, 2), True),
    "nine-exponent-bits": ((16, 4, 9), (16, 4, 9), 64, (0, 20), (490, 511), True),
    "nine-exponent-bits-reversed": ((16, 4, 9), (16, 4, 9), 64, (490, 511), (0, 20), True),
    "a-reaches-too-far": ((16, 2, 8), (16, 2, 8), 64, (0, 210), (130, 130), False),
    "a-just-reaches": ((16, 2, 8), (16, 2, 8), 64, (0, 202), (130, 130), True),
    "lowest-addends": ((16, 2, 8), (16, 2, 8), 64, (50, 60), (80, 90), True),
    "one-lower": ((16, 2, 8), (16, 2, 8), 64, (50, 60), (79, 90), False),
    "highest-addends": ((16, 2, 8), (16, 2, 8), 64, (170, 176), (170, 178), True),
    "one-higher": ((16, 2, 8), (16, 2, 8), 64, (170, 177), (170, 178), False),
    "subnormal-addends": ((16, 4, 8), (16, 4, 8), 64, (50, 60), (70, 80), False),
    "large-addends": ((16, 4, 8), (16, 4, 8), 64, (240, 250), (110, 120), False),
}


@pytest.mark.parametrize("a_format, b_format, length, a_codes, b_codes, fast",
                         [pytest.param(*row, id=name) for name, row in FAST_CASES.items()])
def test_float32_path_is_taken_and_equals_the_general_one(monkeypatch, a_format, b_format, length, a_codes, b_codes,
                                                          fast):
    rng = np.random.default_rng(12)
    groups = length // a_format[0]
    a = random_blocks(BlockFloat(*a_format), (9, groups), rng, a_codes)
    b = random_blocks(BlockFloat(*b_format), (11, groups), rng, b_codes)
    # All-zero groups have code 0, which must not count.
    a.mantissas[3, 0], a.exponents[3, 0] = 0, 0
    b.mantissas[4, -1], b.exponents[4, -1] = 0, 0
    b = bf.Blocks(b.format, b.exponents, b.mantissas, length, 0)
    general = bf.matmul(a, b, GENERAL_FP32)
    assert np.abs(general).max() < GENERAL_FP32.max
    calls = []
    real = accumulator.accumulate
    monkeypatch.setattr(accumulator, "accumulate", lambda *arguments: calls.append(1) or real(*arguments))
    assert_same(bf.matmul(a, b), general)
    assert bool(calls) == (not fast)
    assert_same(general[:3, :3], scalar_matmul(
        bf.Blocks(a.format, a.exponents[:3], a.mantissas[:3], length),
        bf.Blocks(b.format, b.exponents[:3], b.mantissas[:3], length, 0), FP32))


def test_matmul_of_zeros():
    a = bf.quantise(np.zeros((3, 20), np.float32), FAST4)
    b = bf.quantise(np.zeros((20, 2), np.float32), FAST4, axis=0)
    for fmt in (FP32, BF16):
        assert_same(bf.matmul(a, b, fmt), np.zeros((3, 2)))


def test_matmul_result_is_near_the_product():
    """A sanity check of axes and scales, by a path that shares nothing with the others."""
    rng = np.random.default_rng(13)
    a, b = rng.standard_normal((20, 100)), rng.standard_normal((100, 30))
    product = bf.matmul(bf.quantise(a, BlockFloat(16, 8)), bf.quantise(b, BlockFloat(16, 8), axis=0))
    np.testing.assert_allclose(product, a @ b, atol=0.5)


def test_matmul_checks_its_operands():
    def block(shape, axis, group=16):
        return bf.quantise(np.ones(shape, np.float32), BlockFloat(group), axis=axis)

    right = block((32, 3), 0)
    with pytest.raises(ValueError, match="^axis of a is 0; allowed: the reduction axis of the product$"):
        bf.matmul(block((5, 32), 0), right)
    with pytest.raises(ValueError, match="^axis of b is -1; allowed: the reduction axis of the product$"):
        bf.matmul(block((5, 32), -1), block((32, 3), -1))
    with pytest.raises(ValueError, match=r"^operands is \(\(33, 16\), \(32, 16\)\); allowed: equal reduction lengths"):
        bf.matmul(block((5, 33), 1), right)
    with pytest.raises(ValueError, match=r"^operands is \(\(32, 8\), \(32, 16\)\); allowed: equal reduction lengths"):
        bf.matmul(block((5, 32), 1, 8), right)
    assert bf.matmul(block((5, 32), 1), block((32, 3), -2)).tolist() == [[32.0] * 3] * 5
