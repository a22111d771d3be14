"""Block floating point against scalar arithmetic in exact fractions, written from the numerics contract, section 3."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from blocks import FAST4, each, exact_group, power, random_blocks
from narrowgauge.golden import blockfloat as bf
from narrowgauge.golden import groups
from narrowgauge.golden.formats import BlockFloat
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream, counted

pytestmark = pytest.mark.filterwarnings("error")

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
