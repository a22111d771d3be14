"""Block floating point against scalar arithmetic in exact fractions, written from the numerics contract, section 3."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import accumulator, groups
from narrowgauge.golden import blockfloat as bf
from narrowgauge.golden.formats import PRESETS, BlockFloat, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream, counted

pytestmark = pytest.mark.filterwarnings("error")

FP32, FP16, BF16 = PRESETS["fp32"], PRESETS["fp16"], PRESETS["bf16"]
FAST4 = PRESETS["fast-4"]
# The numerics of fp32, but another object: it never takes the float32 path of `matmul`.
GENERAL_FP32 = Float(8, 23, overflow="saturate")
ROUNDINGS = {
    "nearest": NEAREST,
    "truncate": TRUNCATE,
    "stochastic8": stochastic(8),
    "stochastic1": stochastic(1),
    "stochastic16": stochastic(16),
    "corrected8": stochastic(8, corrected=True),
    "corrected3": stochastic(3, corrected=True),
    "corrected16": stochastic(16, corrected=True),
}
ACCUMULATORS = {"fp32": FP32, "bf16": BF16, "fp16": FP16, "e4m3-bias3": Float(4, 3, bias=3), "e8m21": Float(8, 21)}


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


def noise(rounding, shape, rng):
    words = rng.integers(0, 2**rounding.bits, shape)
    words[..., ::5], words[..., 1::5] = 0, 2**rounding.bits - 1
    return words


def specimens(fmt, dtype, rng):
    """Groups (rows) that go through, below and above the exponent field, full of ties, carries and zeros."""
    g, limits = fmt.group, np.finfo(dtype)
    low = max(-fmt.bias - fmt.mantissa - 2, int(limits.minexp) - int(limits.nmant) - 1)
    high = min(2**fmt.exponent - 1 - fmt.bias + 3, int(limits.maxexp))
    centre = rng.integers(low, max(high, low + 1), (16, 1))
    below = rng.integers(0, fmt.mantissa + 3, (16, g)) * rng.integers(0, 2, (16, 1))
    # Few bits: exact values and ties. All bits: the rest. All ones: carry-outs.
    few = rng.integers(0, 2 ** (fmt.mantissa + 1), (16, g)) / 2**fmt.mantissa
    ones = 2 - np.ldexp(1.0, -rng.integers(1, 25, (16, g)))
    significand = np.choose(rng.integers(0, 3, (16, g)), [few, rng.random((16, g)) + 1, ones])
    x = np.ldexp(significand, centre - below) * rng.choice([1, -1], (16, g)) * (rng.random((16, g)) < 0.9)
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    tiny, huge = limits.smallest_subnormal, limits.max
    rows = [[0, -0.0], [tiny, -tiny], [3 * tiny, 0], [huge, 1], [np.inf, 0, 1, -1], [1, -np.inf], [np.nan, 0, -1],
            [-np.nan, np.inf, 1], [limits.smallest_normal, tiny]]
    directed = np.array([list(itertools.islice(itertools.cycle(row), g)) for row in rows], dtype)
    return np.concatenate([x, directed])


@pytest.mark.parametrize("mantissa", range(2, 9))
@each("rounding", ROUNDINGS)
def test_quantise_is_the_definition(rounding, mantissa):
    rng = np.random.default_rng(mantissa)
    sizes = itertools.cycle([1, 2, 3, 4, 7, 16, 33, 64, 5])
    for exponent, dtype in itertools.product(range(3, 10), (np.float16, np.float32, np.float64)):
        # Of the narrow dtypes, fields that meet their exponents; of float64, all that are allowed.
        ends = (2**exponent - 1 - 480, 481) if dtype == np.float64 else (2**exponent // 16, 2**exponent * 15 // 16)
        bias = None if rng.random() < 0.5 else int(rng.integers(*ends))
        fmt = BlockFloat(next(sizes), mantissa, exponent, bias)
        x = specimens(fmt, dtype, rng)
        words = noise(rounding, x.shape, rng)
        blocks = bf.quantise(x, fmt, rounding=rounding, random=words[:, np.newaxis])
        expected = [exact_group(row, fmt, rounding, w) for row, w in zip(x.tolist(), words.tolist())]
        assert blocks.exponents[:, 0].tolist() == [code for code, _ in expected], (fmt, dtype)
        assert blocks.mantissas[:, 0].tolist() == [q for _, q in expected], (fmt, dtype)
        assert blocks.exponents.dtype == np.int16
        assert blocks.mantissas.dtype == (np.int8 if mantissa < 8 else np.int16)
        assert blocks.invalid is True


@pytest.mark.parametrize("group", range(1, 65))
def test_every_group_size(group):
    rng = np.random.default_rng(group)
    fmt = BlockFloat(group, 4, 5)
    x = specimens(fmt, np.float32, rng)
    words = noise(stochastic(8), x.shape, rng)
    blocks = bf.quantise(x, fmt, rounding=stochastic(8), random=words)
    expected = [exact_group(row, fmt, stochastic(8), w) for row, w in zip(x.tolist(), words.tolist())]
    assert blocks.exponents[:, 0].tolist() == [code for code, _ in expected]
    assert blocks.mantissas[:, 0].tolist() == [q for _, q in expected]


@pytest.mark.parametrize(
    "mantissa, words, expected",
    [
        pytest.param(4, [0, 0, 0, 0], [14, -3, 0, -8], id="m4-no-noise"),
        pytest.param(4, [0x80] * 4, [15, -3, 0, -8], id="m4-half-noise"),
        pytest.param(4, [0xFF, 0x01, 0xC8, 0x40], [15, -3, 1, -8], id="m4-noise"),
        pytest.param(2, [0, 0, 0, 0], [3, 0, 0, -2], id="m2-no-noise"),
        pytest.param(2, [0x80] * 4, [3, -1, 0, -2], id="m2-half-noise"),
        pytest.param(2, [0xFF, 0x01, 0xC8, 0x40], [3, 0, 0, -2], id="m2-noise"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_vector_of_the_contract(mantissa, words, expected, dtype):
    x = np.array([1.8125, -0.40625, 0.0390625, -1.0], dtype)
    blocks = bf.quantise(x, BlockFloat(4, mantissa), rounding=stochastic(8), random=words)
    assert blocks.exponents.tolist() == [127]
    assert blocks.mantissas.tolist() == [expected]
    if not any(words):
        truncated = bf.quantise(x, BlockFloat(4, mantissa), rounding=TRUNCATE)
        assert truncated.mantissas.tolist() == [expected]


@each("rounding", {"nearest": NEAREST, "stochastic8": stochastic(8)})
@pytest.mark.parametrize("shape", [(5,), (16,), (3, 37), (37, 3), (2, 19, 4), (2, 3, 2, 9)], ids=str)
def test_any_axis_and_tail(shape, rounding):
    """Every group found by walking the array, its words drawn in C order with the grouped axis last."""
    fmt = BlockFloat(8, 3, 6)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    x[..., -1] = 0
    for axis in range(-len(shape), len(shape)):
        stream = Stream(11, 8, vector=5) if rounding.kind == "stochastic" else None
        blocks = bf.quantise(x, fmt, axis=axis, rounding=rounding, random=stream)
        length = shape[axis]
        groups = -(-length // 8)
        rest = [n for i, n in enumerate(shape) if i != axis % len(shape)]
        assert blocks.exponents.shape == (*rest, groups) and blocks.mantissas.shape == (*rest, groups, 8)
        assert (blocks.length, blocks.axis, blocks.invalid) == (length, axis, False)
        words = iter(counted(11, 8, 5, int(np.prod(rest)) * groups).tolist())
        values = blocks.values()
        assert values.shape == shape and values.dtype == np.float64
        for where in np.ndindex(*rest):
            index = [*where]
            index.insert(axis % len(shape), slice(None))
            line = x[tuple(index)].tolist()
            for j in range(groups):
                part = line[8 * j:8 * j + 8]
                code, q = exact_group(part + [0.0] * (8 - len(part)), fmt, rounding, next(words))
                assert blocks.exponents[(*where, j)] == code
                assert blocks.mantissas[(*where, j)].tolist() == q
                exact = [n * power(code - fmt.bias - 2) for n in q]
                assert [Fraction(v) for v in values[tuple(index)][8 * j:8 * j + 8].tolist()] == exact[:len(part)]
        if stream:
            assert stream.drawn == int(np.prod(rest)) * groups


@each("rounding", ROUNDINGS)
def test_large_arrays_are_cut_into_slabs_unseen(rounding):
    """More elements than are worked on at a time, against the same rows one part at a time."""
    fmt = BlockFloat(16, 4)
    rng = np.random.default_rng(2)
    x = np.ldexp(rng.standard_normal((3001, 35), dtype=np.float32), rng.integers(-40, 40, (3001, 1)))
    assert x.size > groups.SLAB
    words = rng.integers(0, 2**rounding.bits, (3001, 3, 16))
    whole = bf.quantise(x, fmt, rounding=rounding, random=words)
    for part in np.array_split(np.arange(3001), 13):
        blocks = bf.quantise(x[part], fmt, rounding=rounding, random=words[part])
        np.testing.assert_array_equal(whole.exponents[part], blocks.exponents)
        np.testing.assert_array_equal(whole.mantissas[part], blocks.mantissas)


def test_input_layout_and_dtype_do_not_matter():
    x = np.random.default_rng(3).integers(-2000, 2000, (12, 20)).astype(np.float16)
    x[2, 3] = np.float16(6e-8)
    expected = bf.quantise(x.astype(np.float64), FAST4)
    for same in (x, x.astype(np.float32), x.astype(">f4"), np.asfortranarray(x.astype(np.float32)), x.tolist(),
                 np.repeat(x, 2, axis=1).astype(np.float32)[:, ::2], x.astype(np.longdouble)):
        blocks = bf.quantise(same, FAST4)
        np.testing.assert_array_equal(blocks.exponents, expected.exponents)
        np.testing.assert_array_equal(blocks.mantissas, expected.mantissas)
    integers = bf.quantise(np.arange(-8, 8), FAST4)
    np.testing.assert_array_equal(integers.values(), np.arange(-8, 8))


@each("rounding", ROUNDINGS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_input_is_left_alone(dtype, rounding):
    x = np.random.default_rng(4).standard_normal((4, 32)).astype(dtype)
    words = np.random.default_rng(4).integers(0, 2**rounding.bits, (4, 2, 16))
    copies = x.copy(), words.copy()
    bf.quantise(x, FAST4, rounding=rounding, random=words)
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(words, copies[1])


@pytest.mark.parametrize("bits", [0x7C01, 0xFE00, 0x7FFF], ids=hex)
def test_nan_raises_invalid_and_nothing_else_does(bits):
    x = np.ones((2, 4), np.float16)
    x[1, 2] = np.uint16(bits).view(np.float16)
    for dtype in (np.float16, np.float32, np.float64):
        with np.errstate(invalid="ignore"):
            values = x.astype(dtype) if dtype != np.float16 else x
        blocks = bf.quantise(values, BlockFloat(4, 4))
        assert blocks.invalid is True
        assert blocks.exponents.tolist() == [[127], [255]]
        assert blocks.mantissas[1, 0].tolist() == [15, 15, -15 if bits >> 15 else 15, 15]
    for harmless in (np.inf, -np.inf, 65504, 0):
        x[1, 2] = harmless
        assert bf.quantise(x, BlockFloat(4, 4, 3)).invalid is False


def test_signalling_nan_of_float32():
    x = np.array([0x7F800001, 0xFF800001, 0, 0x3F800000], np.uint32).view(np.float32)
    blocks = bf.quantise(x, BlockFloat(4, 4))
    assert blocks.invalid is True and blocks.mantissas.tolist() == [[15, -15, 0, 15]]


def test_stochastic_words_must_come_and_fit():
    x = np.ones(16, np.float32)
    with pytest.raises(ValueError, match="^random is None; allowed: a Stream or an array, because rounding is stoch"):
        bf.quantise(x, FAST4, rounding=stochastic(8))
    with pytest.raises(ValueError, match=r"^random is \(8, 8\); allowed: a Stream of 16 lanes and 8 bits$"):
        bf.quantise(x, FAST4, rounding=stochastic(8), random=Stream(1, 8))
    with pytest.raises(ValueError, match=r"^random is \(16, 4\); allowed: a Stream of 16 lanes and 8 bits$"):
        bf.quantise(x, FAST4, rounding=stochastic(8), random=Stream(1, 16, bits=4))


def random_blocks(fmt, shape, rng, codes=None):
    """Blocks with any mantissas, and exponent codes drawn from `codes`, both ends among them."""
    low, high = codes or (0, 2**fmt.exponent - 1)
    top = 2**fmt.mantissa - 1
    exponents = rng.integers(low, high + 1, shape).astype(np.int16)
    exponents.flat[:2] = [low, high][:exponents.size]
    mantissas = rng.integers(-top, top + 1, (*shape, fmt.group)).astype(np.int8 if fmt.mantissa < 8 else np.int16)
    return bf.Blocks(fmt, exponents, mantissas, shape[-1] * fmt.group)


@pytest.mark.parametrize("group, exponent", [(1, 3), (3, 5), (16, 8), (7, 9), (64, 8)])
@pytest.mark.parametrize("mantissa", range(2, 9))
def test_pack_and_unpack_are_inverse(mantissa, group, exponent):
    fmt = BlockFloat(group, mantissa, exponent)
    rng = np.random.default_rng(5)
    for shape in ((1,), (3, 2), (5, 1, 3)):
        blocks = random_blocks(fmt, shape, rng)
        exponents, planes = bf.pack(blocks)
        count = int(np.prod(shape))
        assert exponents.dtype == np.uint8 and exponents.size == -(-count * exponent // 8)
        assert len(planes) == fmt.chunks == (mantissa + 1) // 2
        assert all(plane.dtype == np.uint8 and plane.size == -(-count * group * 3 // 8) for plane in planes)
        again = bf.unpack(exponents, planes, fmt, shape, blocks.length, axis=0)
        for name in ("exponents", "mantissas"):
            ours, theirs = getattr(again, name), getattr(blocks, name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert (again.format, again.length, again.axis) == (fmt, blocks.length, 0)


def test_packed_bytes_by_hand():
    fmt = BlockFloat(group=3, mantissa=4, exponent=5)
    mantissas = np.array([[-0b1001, 0b0110, 0], [1, -0b1111, 0b0011]], np.int8)
    exponents, planes = bf.pack(bf.Blocks(fmt, np.array([0b10110, 0b00011], np.int16), mantissas, 6))
    assert exponents.tolist() == [0b011_10110, 0b00]
    # Rising bits from the right, (sign, chunk) of each element, the six elements cut into bytes.
    low = (0b0_11, 0b1_11, 0b0_01, 0b0_00, 0b0_10, 0b1_01)
    high = (0b0_00, 0b1_11, 0b0_00, 0b0_00, 0b0_01, 0b1_10)
    for plane, elements in zip(planes, (low, high)):
        word = int("".join(f"{element:03b}" for element in elements), 2)
        assert plane.tolist() == [word & 255, word >> 8 & 255, word >> 16]
    assert planes[0].tolist() == [0x15, 0xF2, 0x01] and planes[1].tolist() == [0x0E, 0x70, 0x00]


def test_a_packed_group_takes_the_bits_of_the_paper():
    """e + g * (m/2) * 3 bits."""
    for mantissa, bits in ((2, 8 + 16 * 3), (4, 8 + 16 * 6)):
        exponents, planes = bf.pack(random_blocks(BlockFloat(16, mantissa), (8,), np.random.default_rng(6)))
        assert 8 * (exponents.size + sum(plane.size for plane in planes)) == 8 * bits


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


CONVERTERS = {
    "default": bf.BFPConverterParameters(),
    "g4-m8-e3-fp16": bf.BFPConverterParameters(group=4, mantissa=8, exponent=3, work=FP16, random_bits=3, seed=0),
    "g7-m5-e5-bf16-corrected": bf.BFPConverterParameters(7, 5, 5, BF16, random_bits=12, corrected=True, seed=2**31 - 1),
    "g64-m2-e8-e6m9": bf.BFPConverterParameters(64, 2, 8, Float(6, 9, bias=40), random_bits=16, seed=9),
}


@each("parameters", CONVERTERS)
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_convert_is_the_scalar_loop(parameters, step):
    rng = np.random.default_rng(step)
    work, n = parameters.work, 150
    codes = rng.integers(0, 2**work.width, (n, parameters.group))
    # Near each other, so that groups hold more than one element that counts; zeros, Inf and NaN here and there.
    field = rng.integers(0, 2**work.exponent - 1, (n, 1)) - rng.integers(0, 4, codes.shape)
    near = rng.random(n) < 0.8
    others = codes & ~(2**work.exponent - 1 << work.mantissa)
    codes[near] = (np.clip(field, 0, 2**work.exponent - 2) << work.mantissa | others)[near]
    codes[rng.random(codes.shape) < 0.1] = 0
    codes[3], codes[5, 1], codes[6, 2] = 0, work.inf_code, work.nan_code
    codes[7] = 1 << (work.width - 1)
    precision, rounding = rng.integers(-1, 11, n), rng.integers(0, 4, n)
    result = bf.convert(parameters, codes, precision, rounding, step)
    stream = Stream(parameters.seed, parameters.group, bits=parameters.random_bits, vector=step)
    none = np.zeros(parameters.group, int)
    for i in range(n):
        m = min(max(int(precision[i]), 2), parameters.mantissa)
        kind = {0: NEAREST, 1: TRUNCATE, 3: NEAREST}.get(int(rounding[i]))
        words = none if kind else stream.draw(1)[0]
        kind = kind or stochastic(parameters.random_bits, parameters.corrected)
        x = work.decode(codes[i]).tolist()
        fmt = BlockFloat(parameters.group, m, parameters.exponent)
        code, q = exact_group(x, fmt, kind, words.tolist())
        assert (int(result[0][i]), result[1][i].tolist()) == (code, q), i
        assert result[2][i] == any(v != v for v in x)
        assert result[3][i] == any(not abs(v) < 2.0 ** (fmt.emax + 1) for v in x)
    assert [r.dtype for r in result] == [np.int16, np.int16, bool, bool]


def test_convert_resumes_and_takes_nothing():
    parameters = CONVERTERS["default"]
    rng = np.random.default_rng(14)
    codes = rng.integers(0, 2**32, (60, 16))
    precision, rounding = np.full(60, 4), rng.integers(0, 3, 60)
    whole = bf.convert(parameters, codes, precision, rounding, 7)
    used = 7 + int((rounding[:25] == 2).sum())
    parts = [bf.convert(parameters, codes[part], precision[part], rounding[part], step)
             for part, step in ((slice(25), 7), (slice(25, None), used))]
    for one, *two in zip(whole, *parts):
        np.testing.assert_array_equal(one, np.concatenate(two))
    empty = bf.convert(parameters, codes[:0], precision[:0], rounding[:0])
    assert [r.shape for r in empty] == [(0,), (0, 16), (0,), (0,)]


FMACS = {
    "default": bf.BFPFMACParameters(),
    "g4-m8-e3-fp16": bf.BFPFMACParameters(4, 8, 3, FP16, accumulators=2),
    "g7-m5-e5-bf16": bf.BFPFMACParameters(7, 5, 5, BF16, accumulators=16),
    "g64-m2-e8-e4m3": bf.BFPFMACParameters(64, 2, 8, Float(4, 3), accumulators=4),
}
PATTERNS = {  # probabilities of `first` and of `last`
    "rare": (0.05, 0.05),
    "often": (0.4, 0.5),
    "never-first": (0.0, 0.3),
    "always": (1.0, 1.0),
    "never-last": (0.2, 0.0),
}


def transfers(parameters, n, rng, spread):
    """Operands of n transfers, products around one with exponents that vary by `spread`."""
    sides, middle = [], parameters.format.bias
    for _ in range(2):
        precision = rng.integers(0, 11, n)
        top = 2 ** np.clip(precision, 2, parameters.mantissa) - 1
        q = rng.integers(-top[:, np.newaxis], top[:, np.newaxis] + 1, (n, parameters.group))
        q[rng.random(n) < 0.1] = 0
        exponents = np.clip(middle + rng.integers(-spread, spread + 1, n), 0, 2**parameters.exponent - 1)
        sides.append((exponents, q, precision))
    return sides


def scalar_fmac(parameters, a, b, slot, first, last):
    totals, codes, overflow = [0.0] * parameters.accumulators, [], False
    bias = 2 ** (parameters.exponent - 1) - 1
    for i in range(len(slot)):
        unit = 0
        for exponents, _, precision in (a, b):
            unit += int(exponents[i]) - bias - (min(max(int(precision[i]), 2), parameters.mantissa) - 1)
        addend = power(unit) * sum(x * y for x, y in zip(a[1][i].tolist(), b[1][i].tolist()))
        before = 0.0 if first[i] else totals[slot[i]]
        totals[slot[i]] = exact_add(before, addend, parameters.accumulator)
        overflow |= np.isinf(totals[slot[i]]) and not np.isinf(before)
        if last[i]:
            codes.append(int(parameters.accumulator.encode(totals[slot[i]])))
    return codes, overflow


@each("pattern", PATTERNS)
@each("parameters", FMACS)
@pytest.mark.parametrize("spread", [2, 150])
def test_fmac_is_the_scalar_loop(parameters, pattern, spread):
    rng = np.random.default_rng(15)
    n = 250
    a, b = transfers(parameters, n, rng, spread)
    slot = rng.integers(0, parameters.accumulators, n)
    first, last = (rng.random(n) < p for p in pattern)
    codes, overflow = bf.fmac(parameters, a, b, slot, first, last)
    assert codes.dtype == np.uint32 and type(overflow) is bool
    assert (codes.tolist(), overflow) == scalar_fmac(parameters, a, b, slot, first, last)


@pytest.mark.parametrize("slots", [
    pytest.param(np.zeros(40, np.uint8), id="one-slot"),
    pytest.param(np.arange(40) % 8, id="in-turn"),
    pytest.param(np.arange(40) // 5, id="one-after-another"),
    pytest.param(7 - np.arange(40) // 5, id="backwards"),
])
def test_fmac_interleaving_does_not_matter_to_a_slot(slots):
    parameters = FMACS["default"]
    rng = np.random.default_rng(16)
    a, b = transfers(parameters, 40, rng, 4)
    first, last = rng.random(40) < 0.3, np.ones(40, bool)
    codes, _ = bf.fmac(parameters, a, b, slots, first, last)
    for slot in np.unique(slots):
        mine = slots == slot
        alone, _ = bf.fmac(parameters, *(tuple(x[mine] for x in side) for side in (a, b)), slots[mine], first[mine],
                           last[mine])
        np.testing.assert_array_equal(codes[mine], alone)


def test_fmac_overflow_is_reported_once_per_start_and_inf_stays():
    parameters = FMACS["g4-m8-e3-fp16"]
    full, zero = np.full(4, 255), np.zeros(4, int)
    q = np.array([full, full, -full, zero, full])
    side = (np.full(5, 7), q, np.full(5, 8))
    ones = (np.full(5, 7), np.full((5, 4), 255), np.full(5, 8))
    slot, last = np.zeros(5, int), np.ones(5, bool)
    codes, overflow = bf.fmac(parameters, side, ones, slot, np.zeros(5, bool), last)
    assert overflow is False and FP16.decode(codes).max() < np.inf
    many = [tuple(np.repeat(x, 40, axis=0) for x in (part[0][:1], part[1][:1], part[2][:1])) for part in (side, ones)]
    codes, overflow = bf.fmac(parameters, *many, np.zeros(40, int), np.arange(40) == 35, np.ones(40, bool))
    values = FP16.decode(codes)
    stuck = np.flatnonzero(np.isinf(values))
    assert overflow is True and stuck[0] > 1 and stuck[-1] == 34 and np.all(np.diff(stuck) == 1)
    assert values[35] == values[0]


def test_fmac_takes_nothing():
    parameters = FMACS["default"]
    empty = (np.zeros(0, int), np.zeros((0, 16), int), np.zeros(0, int))
    codes, overflow = bf.fmac(parameters, empty, empty, np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool))
    assert codes.shape == (0,) and overflow is False


def test_fmac_of_quantised_rows_is_their_matmul():
    """The unit's view and the tensor's view of the same sums."""
    rng = np.random.default_rng(17)
    parameters = FMACS["default"]
    a, b = operands(FAST4, FAST4, rng, shape=(3, 4), length=90)
    product = bf.matmul(a, b, parameters.accumulator)
    rows, columns, groups = np.meshgrid(np.arange(3), np.arange(4), np.arange(6), indexing="ij")
    rows, columns, groups = rows.ravel(), columns.ravel(), groups.ravel()
    four = np.full(rows.size, 4)
    codes, _ = bf.fmac(parameters, (a.exponents[rows, groups], a.mantissas[rows, groups], four),
                       (b.exponents[columns, groups], b.mantissas[columns, groups], four),
                       (rows * 4 + columns) % 8, groups == 0, groups == 5)
    assert_same(FP32.decode(codes).reshape(3, 4), product)
