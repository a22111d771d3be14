"""Floating-point operations against ml_dtypes, NumPy, the C library and gfloat, and the units' golden functions.

What the oracles do differently, found here and in their sources:

- ml_dtypes computes an operation of narrow formats in float32 and rounds the result again. For the sums and products
  of all its formats that is as good as one rounding, by two facts: 24 bits are more than twice 8 and two, and what
  is subnormal in a narrow format was exact in float32 (a bf16 product has 16 bits, so none that reaches 2**-134,
  half its smallest subnormal, has bits below float32's last, 2**-149). So the comparison below is of every pair, with
  no exceptions. NumPy's float16 does the same, and 24 = 2 * 11 + 2 is just enough.
- Their NaN keeps a sign and payload bits of its own; ours is always the canonical one. Only being NaN is compared.
- ml_dtypes' maximum of zeros of unlike signs is its second operand; ours is +0.
- For stochastic rounding with gfloat see test_reference.py.
"""

import ctypes
import ctypes.util

import gfloat
import ml_dtypes
import numpy as np
import pytest
from gfloat.formats import format_info_bfloat16, format_info_binary16, format_info_ocp_e4m3, format_info_ocp_e5m2
from gfloat.types import RoundMode
from narrowgauge.golden import floating, reference
from narrowgauge.golden.floating import (
    AdderParameters,
    CastParameters,
    FMAParameters,
    MACParameters,
    MultiplierParameters,
)
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import blocks, key

pytestmark = pytest.mark.filterwarnings("error")

FINITE = {"specials": "none", "overflow": "saturate"}
FP16, BF16, FP32 = PRESETS["fp16"], PRESETS["bf16"], PRESETS["fp32"]
E5M2, E4M3, E2M1 = PRESETS["fp8-e5m2"], PRESETS["fp8-e4m3"], PRESETS["fp4-e2m1"]

# Not here: float8_e4m3fnuz, float8_e5m2fnuz and float8_e4m3b11fnuz have one zero and NaN where our -0 is;
# float8_e8m0fnu has neither sign nor zero.
NARROW = {
    "float8_e5m2": (E5M2, ml_dtypes.float8_e5m2),
    "float8_e4m3fn": (E4M3, ml_dtypes.float8_e4m3fn),
    "float8_e4m3": (Float(4, 3), ml_dtypes.float8_e4m3),
    "float8_e3m4": (Float(3, 4), ml_dtypes.float8_e3m4),
    "float6_e3m2fn": (Float(3, 2, **FINITE), ml_dtypes.float6_e3m2fn),
    "float6_e2m3fn": (Float(2, 3, **FINITE), ml_dtypes.float6_e2m3fn),
    "float4_e2m1fn": (E2M1, ml_dtypes.float4_e2m1fn),
}
WIDE = {
    "float16": (FP16, np.float16),
    "bfloat16": (BF16, ml_dtypes.bfloat16),
    "float32": (FP32, np.float32),
}
PEERS = NARROW | WIDE
EXACT_PRODUCTS = {name: PEERS[name] for name in ("float16", "float8_e5m2", "float8_e4m3fn")}  # in float32


def each(table):
    """Parametrize over a dict, its keys as ids."""
    return [pytest.param(*(value if isinstance(value, tuple) else (value,)), id=key) for key, value in table.items()]


def pattern(dtype):
    return {1: np.uint8, 2: np.uint16, 4: np.uint32}[np.dtype(dtype).itemsize]


def to_peer(codes, dtype):
    return np.asarray(codes).astype(pattern(dtype)).view(dtype)


def all_pairs(fmt):
    a, b = np.meshgrid(np.arange(2**fmt.width), np.arange(2**fmt.width), indexing="ij")
    return a.ravel(), b.ravel()


def random_pairs(fmt, count, rng):
    """Pairs of any codes; pairs whose exponents are near, which align, tie and cancel; and pairs whose product is near
    either end of the range."""
    m, half, top = fmt.mantissa, 1 << (fmt.width - 1), (1 << fmt.exponent) - 1
    a, b = rng.integers(0, 2**fmt.width, (2, count))
    field = a >> m & top
    fraction = rng.choice([0, 1, (1 << m) - 1, 1 << m >> 1], count) ^ (rng.integers(0, 1 << m, count) & 1)
    near = field + rng.integers(-m - 3, m + 4, count)
    low, high = fmt.bias + rng.integers(-m - 2, 3, count) - field, fmt.bias + top + rng.integers(-3, 2, count) - field
    for index, exponent in enumerate((near, low, high)):
        part = slice(index + 1, None, 8)
        b[part] = (b & (half | (1 << m) - 1) | np.clip(exponent, 0, top) << m)[part]
        part = slice(index + 5, None, 8)
        b[part] = (b & half | np.clip(exponent, 0, top) << m | fraction)[part]
    b[4::64] = a[4::64] ^ half
    return a, b


def assert_same(ours, theirs, fmt, *operands):
    """Equal codes; where theirs is NaN ours is the canonical one."""
    with np.errstate(all="ignore"):
        nan = np.isnan(theirs.astype(np.float32))
    if fmt.nan_code is None:
        assert not nan.any()
    else:
        # A result that is beyond the format with neither Inf nor a rule to saturate has a NaN with its sign.
        bad = nan & (ours != fmt.nan_code)
        if fmt.specials == "fn":
            bad &= ours != fmt.nan_code | 1 << (fmt.width - 1)
        assert not bad.any()
    different = np.flatnonzero((ours != theirs.view(pattern(theirs.dtype))) & ~nan)
    assert not different.size, [(*(hex(v[i]) for v in operands), hex(ours[i]), theirs[i]) for i in different[:5]]


def assert_arithmetic(fmt, dtype, a, b):
    x, y = to_peer(a, dtype), to_peer(b, dtype)
    with np.errstate(all="ignore"):
        assert_same(floating.add(a, b, fmt), x + y, fmt, a, b)
        assert_same(floating.subtract(a, b, fmt), x - y, fmt, a, b)
        assert_same(floating.multiply(a, b, fmt), x * y, fmt, a, b)


def assert_order(fmt, dtype, a, b):
    x, y = to_peer(a, dtype), to_peer(b, dtype)
    with np.errstate(all="ignore"):
        nan = np.isnan(x.astype(np.float32)) | np.isnan(y.astype(np.float32))
        greatest = np.maximum(x, y)
        order = floating.compare(a, b, fmt)
        assert order.dtype == np.int8
        np.testing.assert_array_equal(order == -1, x < y)
        np.testing.assert_array_equal(order == 0, x == y)
        np.testing.assert_array_equal(order == 1, x > y)
        np.testing.assert_array_equal(order == 2, nan)
    ours = floating.maximum(a, b, fmt)
    zeros = (fmt.decode(a) == 0) & (fmt.decode(b) == 0)
    assert_same(ours[~zeros], greatest[~zeros], fmt, a[~zeros], b[~zeros])
    sign = 1 << (fmt.width - 1)
    np.testing.assert_array_equal(ours[zeros], (a & b & sign)[zeros])


@pytest.mark.parametrize("fmt, dtype", each(NARROW))
def test_every_pair_agrees_with_ml_dtypes(fmt, dtype):
    a, b = all_pairs(fmt)
    assert_arithmetic(fmt, dtype, a, b)
    assert_order(fmt, dtype, a, b)


@pytest.mark.parametrize("fmt, dtype", each(WIDE))
def test_wide_pairs_agree_with_numpy_and_ml_dtypes(fmt, dtype):
    rng = np.random.default_rng(2024)
    a, b = random_pairs(fmt, 2**18, rng)
    assert_arithmetic(fmt, dtype, a, b)
    assert_order(fmt, dtype, a, b)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("fmt, dtype", each(WIDE))
def test_wide_pairs_agree_at_length(fmt, dtype, seed):
    """2**24 random and as many directed pairs, over the seeds."""
    rng = np.random.default_rng(seed)
    for _ in range(4):
        assert_arithmetic(fmt, dtype, *rng.integers(0, 2**fmt.width, (2, 2**18)))
        assert_arithmetic(fmt, dtype, *random_pairs(fmt, 2**18, rng))


@pytest.mark.parametrize("fmt, dtype", each(WIDE))
def test_ends_of_the_range_agree(fmt, dtype):
    """Every pair of the codes at both ends of every binade's neighbourhood."""
    top = (1 << (fmt.width - 1)) - 1
    binades = np.unique(np.clip(np.arange(0, 1 << fmt.exponent, max(1, (1 << fmt.exponent) // 32)), 0, None))
    codes = [code << fmt.mantissa for code in binades.tolist()] + [fmt.max_code, fmt.max_code + 1, top, 1, 2]
    codes = np.array(codes)
    codes = np.unique(np.clip(np.concatenate([codes - 1, codes, codes + 1]), 0, top))
    codes = np.concatenate([codes, codes | top + 1])
    a, b = (v.ravel() for v in np.meshgrid(codes, codes, indexing="ij"))
    assert_arithmetic(fmt, dtype, a, b)
    assert_order(fmt, dtype, a, b)


@pytest.fixture(scope="module")
def fmaf():
    """The C library's fused multiply-add on float32, as a function of three code arrays."""
    library = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
    library.fmaf.restype, library.fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3

    def call(a, b, c):
        rows = zip(*(to_peer(v, np.float32).tolist() for v in (a, b, c)))
        return np.array([library.fmaf(*row) for row in rows], np.float32)
    return call


def fma_operands(count, rng):
    """Fused operands of float32: any, and with an addend near the product, which ties, cancels and borrows."""
    a, b = random_pairs(FP32, count, rng)
    c = rng.integers(0, 2**32, count)
    with np.errstate(all="ignore"):
        product = to_peer(a, np.float32) * to_peer(b, np.float32)
    near = product.view(np.uint32).astype(np.int64) ^ 1 << 31
    c[::3] = near[::3]
    shifted = np.clip((near & 0x7FFFFFFF) + (rng.integers(-50, 50, count) << 23), 0, 0x7F7FFFFF)
    c[1::3] = (shifted | rng.integers(0, 2, count) << 31)[1::3]
    return a, b, c


def test_fma_agrees_with_the_c_library(fmaf):
    a, b, c = fma_operands(30_000, np.random.default_rng(11))
    assert_same(floating.fma(a, b, c, FP32), fmaf(a, b, c), FP32, a, b, c)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(8))
def test_fma_agrees_with_the_c_library_at_length(fmaf, seed):
    a, b, c = fma_operands(2**20, np.random.default_rng(seed))
    assert_same(floating.fma(a, b, c, FP32), fmaf(a, b, c), FP32, a, b, c)


@pytest.mark.parametrize("fmt, dtype", each(EXACT_PRODUCTS | NARROW))
def test_fma_with_a_wide_accumulator_is_its_addition(fmt, dtype):
    """The products are exact in float32, so its addition is the one rounding."""
    rng = np.random.default_rng(12)
    a, b = random_pairs(fmt, 2**16, rng)
    c = rng.integers(0, 2**32, a.size)
    x, y = to_peer(a, dtype), to_peer(b, dtype)
    with np.errstate(all="ignore"):
        product = x.astype(np.float32) * y.astype(np.float32)
        c[::2] = ((product.view(np.uint32).astype(np.int64) ^ 1 << 31) + (rng.integers(-12, 13, a.size) << 23))[::2]
        c &= 2**32 - 1
        expected = product + to_peer(c, np.float32)
    assert_same(floating.fma(a, b, c, fmt, accumulator=FP32), expected, FP32, a, b, c)


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("result", PEERS)
def test_casts_agree(name, result):
    """Every code of the narrow formats, and random ones of the wide: between any two formats by way of float32,
    which holds each of them."""
    (fmt, dtype), (other, target) = PEERS[name], PEERS[result]
    if fmt.width < 32:
        codes = np.arange(2**fmt.width)
    else:
        codes = np.random.default_rng(13).integers(0, 2**32, 2**17)
        codes[::2] = codes[::2] & 0x8FFFFFFF | 0x38000000  # into the range of the narrow formats
    with np.errstate(all="ignore"):
        theirs = to_peer(codes, dtype).astype(np.float32).astype(target)
    if other.nan_code is None:  # ml_dtypes makes NaN a zero; ours is the largest finite value
        nan = np.isnan(fmt.decode(codes))
        assert np.all(floating.cast(codes[nan], fmt, other) == other.max_code)
        codes, theirs = codes[~nan], theirs[~nan]
    assert_same(floating.cast(codes, fmt, other), theirs, other, codes)


def test_product_in_a_wider_format_agrees_with_numpy():
    """result: exact products of fp16 in fp32, of fp8 in fp16 and bf16 (each rounds once from an exact float32)."""
    rng = np.random.default_rng(14)
    a, b = random_pairs(FP16, 2**16, rng)
    with np.errstate(all="ignore"):
        product = to_peer(a, np.float16).astype(np.float32) * to_peer(b, np.float16).astype(np.float32)
    assert_same(floating.multiply(a, b, FP16, result=FP32), product, FP32, a, b)
    for fmt, dtype in (NARROW["float8_e5m2"], NARROW["float8_e4m3fn"]):
        a, b = all_pairs(fmt)
        with np.errstate(all="ignore"):
            product = to_peer(a, dtype).astype(np.float32) * to_peer(b, dtype).astype(np.float32)
            for other, target in WIDE.values():
                assert_same(floating.multiply(a, b, fmt, result=other), product.astype(target), other, a, b)


GFLOAT = {
    "fp16": (FP16, format_info_binary16),
    "bf16": (BF16, format_info_bfloat16),
    "fp8-e5m2": (E5M2, format_info_ocp_e5m2),
    "fp8-e4m3": (E4M3, format_info_ocp_e4m3),
}


@pytest.mark.parametrize("bits", [1, 4, 8, 13, 16])
@pytest.mark.parametrize("corrected, mode", [pytest.param(False, RoundMode.StochasticFastest, id="plain"),
                                             pytest.param(True, RoundMode.StochasticFast, id="corrected")])
@pytest.mark.parametrize("fmt, info", each(GFLOAT))
def test_stochastic_rounding_agrees_with_gfloat(fmt, info, corrected, mode, bits):
    """Sums and products that are exact in float64, and so are their fractions plus the noise: 20 bits below the last
    place at most."""
    rng = np.random.default_rng(15)
    rounding = stochastic(bits, corrected)
    a, b = random_pairs(fmt, 6000, rng)
    a, b = (np.where(v & (1 << (fmt.width - 1)) - 1 > fmt.max_code, 1, v) for v in (a, b))
    words = rng.integers(0, 2**bits, a.size)
    words[::5], words[1::5] = 0, 2**bits - 1
    x, y = fmt.decode(a), fmt.decode(b)
    near = np.abs(np.frexp(x)[1] - np.frexp(y)[1]) <= 16
    for operation, exact, rows in ((floating.add, x + y, near), (floating.multiply, x * y, slice(None))):
        exact, word = exact[rows], words[rows]
        theirs = gfloat.round_ndarray(info, exact, mode, False, word, bits)
        ours = operation(a[rows], b[rows], fmt, rounding, word)
        values = fmt.decode(ours)
        np.testing.assert_array_equal(values, theirs)
        number = ~np.isnan(values) & (exact != 0)
        np.testing.assert_array_equal(np.signbit(values[number]), np.signbit(theirs[number]))


def test_stochastic_sums_average_the_exact_sum():
    """Over all words, 1 + x in fp16 is low by less than one word's weight, and within half of it when corrected."""
    words = np.arange(256)
    for x in (0x0C01, 0x1000, 0x1234, 0x8C01):  # fractions of an ulp of 1 with up to 19 bits
        exact = 1 + FP16.decode(x)
        ulp = 2.0**-10 if exact > 1 else 2.0**-11
        for rounding, most in ((stochastic(8), 2.0**-8), (stochastic(8, corrected=True), 2.0**-9)):
            mean = FP16.decode(floating.add(0x3C00, x, FP16, rounding, words)).mean()
            assert abs(mean - exact) <= most * ulp


DOT_SHAPES = [(5, 1), (3, 16), (4, 17), (2, 33)]


@pytest.mark.parametrize("shape", DOT_SHAPES, ids=str)
@pytest.mark.parametrize("fmt, dtype", each(EXACT_PRODUCTS))
def test_dot_in_order_is_float32_addition(fmt, dtype, shape):
    """The products are exact in float32, so NumPy's additions, one by one, are the reference."""
    rng = np.random.default_rng(16)
    a, b = (v.reshape(shape) for v in random_pairs(fmt, int(np.prod(shape)), rng))
    a, b = (np.where(v & (1 << (fmt.width - 1)) - 1 > fmt.max_code, 1, v) for v in (a, b))
    product = to_peer(a, dtype).astype(np.float32) * to_peer(b, dtype).astype(np.float32)

    def in_order(values):
        total = np.zeros(values.shape[0], np.float32)
        for column in values.T:
            total = total + column
        return total

    sequential = in_order(product)
    assert_same(floating.dot(a, b, fmt, accumulator=FP32), sequential, FP32)
    for chunk in (1, 4, 16):
        sums = [in_order(product[:, begin:begin + chunk]) for begin in range(0, shape[1], chunk)]
        ours = floating.dot(a, b, fmt, accumulator=FP32, order="chunked", chunk=chunk)
        assert_same(ours, in_order(np.stack(sums, axis=1)), FP32)


@pytest.mark.parametrize("result", WIDE)
def test_exact_dot_rounds_the_exact_sum_once(result):
    """E4M3 products span 36 bits: float64 sums them exactly, and NumPy rounds that once (ml_dtypes twice)."""
    other, target = WIDE[result]
    rng = np.random.default_rng(17)
    a, b = rng.integers(0, 256, (2, 3000, 40))
    a, b = (np.where(v & 127 == 127, 1, v) for v in (a, b))
    a[::3, 20:], b[::3, 20:] = a[::3, :20], b[::3, :20] ^ 128  # cancels to zero
    a[1::3, 20:], b[1::3, 20:] = a[1::3, :20], b[1::3, :20] ^ 128
    a[1::3, 7] ^= 2 * rng.integers(0, 2, 1000)  # but for a little
    a = np.where(a & 127 == 127, 1, a)
    exact = (E4M3.decode(a) * E4M3.decode(b)).sum(axis=1)
    assert np.mean(exact == 0) > 0.3
    with np.errstate(over="ignore"):
        theirs = other.encode(exact) if result == "bfloat16" else exact.astype(target).view(pattern(target))
    np.testing.assert_array_equal(floating.dot(a, b, E4M3, accumulator=other, order="exact"), theirs)


def test_exact_dot_of_a_wide_range():
    """fp32: what float64, even extended, cannot hold. The great products cancel and the least remains."""
    big, one, tiny = 0x7F000000, 0x3F800000, 0x00000001
    a = np.array([big, tiny, big, one, one])
    b = np.array([big, tiny, big ^ 1 << 31, tiny, tiny ^ 1 << 31])
    wide = Float(11, 20)
    assert floating.dot(a, b, FP32, order="exact", accumulator=wide) == wide.encode(2.0**-298)
    assert floating.dot(a, b, FP32, order="exact") == 0
    assert floating.dot(a[:4], b[:4], FP32, order="exact") == tiny
    assert floating.dot(a, b, FP32) == 0x7F800000  # in order it overflows


def test_dot_of_inf_and_nan():
    one, inf, minus, nan = 0x3C00, 0x7C00, 0xFC00, 0x7E00
    rows = np.array([[one, inf, one], [minus, one, minus], [inf, one, minus], [0, one, nan], [one, one, one]])
    for order in ("sequential", "chunked", "exact"):
        result = floating.dot(rows, np.full(3, one), FP16, order=order, chunk=2)
        assert result.tolist() == [inf, minus, nan, nan, 0x4200]
    assert floating.dot([inf], [0], FP16, order="exact") == nan
    # The sign is that of the Inf, however great the finite products are.
    assert floating.dot([0x7BFF, inf], [0x7BFF, 0x8001], FP16, order="exact") == minus
    assert floating.dot([0xFBFF, minus], [0x7BFF, 0x8001], FP16, order="exact") == inf


def test_dot_of_nothing_and_of_broadcast_shapes():
    for order in ("sequential", "chunked", "exact"):
        assert floating.dot(np.zeros((2, 0), int), np.zeros((2, 0), int), FP16, order=order).tolist() == [0, 0]
        assert floating.dot(np.zeros((0, 4), int), np.zeros(4, int), FP16, order=order).shape == (0,)
        result = floating.dot(np.full((2, 1, 4), 0x3C00), np.full((3, 4), 0x4000), FP16, order=order)
        assert result.dtype == np.uint32 and result.tolist() == [[0x4800] * 3] * 2
        assert floating.dot([0x8000] * 3, [0x3C00] * 3, FP16, order=order) == 0  # -0 products: it starts from +0


def test_shapes_broadcast_and_integers_of_any_dtype_will_do():
    column, row = np.array([[0x3C00], [0xBC00]], np.uint16), np.array([0x4000, 0x0000, 0x3C00], np.int64)
    assert floating.add(column, row, FP16).tolist() == [[0x4200, 0x3C00, 0x4000], [0x3C00, 0xBC00, 0]]
    assert floating.add(column, row, FP16).dtype == np.uint32
    assert floating.multiply(0x4000, row.astype(np.int16), FP16).tolist() == [0x4400, 0, 0x4000]
    assert floating.fma(column, 0x3C00, row, FP16).shape == (2, 3)
    assert floating.cast(0x3C00, FP16, FP32).shape == () and floating.cast(0x3C00, FP16, FP32) == 0x3F800000
    assert floating.add(np.zeros((2, 0), int), 0, FP16).shape == (2, 0)
    words = np.array([0, 255])
    assert floating.add(0x3C00, 0x1000, FP16, stochastic(8), words).tolist() == [0x3C00, 0x3C01]


def test_slabs_do_not_show():
    """More elements than are worked on at a time, in two dimensions, with words."""
    rng = np.random.default_rng(18)
    a, b, w = rng.integers(0, 2**16, (3, 7, floating.operations.SLAB // 3))
    whole = floating.add(a, b, FP16, stochastic(16), w)
    for row in range(7):
        np.testing.assert_array_equal(whole[row], floating.add(a[row], b[row], FP16, stochastic(16), w[row]))


ERRORS = {
    "add-random": (lambda: floating.add(0, 0, FP16, stochastic(8)),
                   r"^random is None; allowed: one random word per element, because rounding is stochastic$"),
    "dot-order": (lambda: floating.dot([0], [0], FP16, order="tree"),
                  r"^order is 'tree'; allowed: sequential, chunked, exact$"),
    "dot-chunk": (lambda: floating.dot([0], [0], FP16, chunk=0), r"^chunk is 0; allowed: an integer, 1 or more$"),
    "dot-chunk-float": (lambda: floating.dot([0], [0], FP16, chunk=2.0), r"^chunk is 2.0; allowed: an integer"),
    "dot-random": (lambda: floating.dot([0], [0], FP16, stochastic(8)), r"^random is None; allowed: 1 random words"),
    "dot-words": (lambda: floating.dot([0] * 5, [0] * 5, FP16, stochastic(8), [0] * 5, order="chunked", chunk=4),
                  r"^shape of random is \(5,\); allowed: \(\.\.\., 7\), one word per rounding$"),
    "reference-order": (lambda: reference.dot([0], [0], FP16, order="tree"), r"^order is 'tree'; allowed: sequential"),
    "format": (lambda: AdderParameters(format=Float(4, 0)), r"^format is Float.*; allowed: a Float with a mantissa"),
    "format-name": (lambda: AdderParameters(format="fp16"), r"^format is 'fp16'; allowed: a Float with a mantissa"),
    "rounding": (lambda: AdderParameters(rounding="up"), r"^rounding is 'up'; allowed: nearest, truncate, stochastic$"),
    "random-bits": (lambda: AdderParameters(random_bits=17), r"^random_bits is 17; allowed: an integer from 1 to 16$"),
    "corrected": (lambda: AdderParameters(corrected=1), r"^corrected is 1; allowed: true, false$"),
    "seed": (lambda: AdderParameters(seed=-1), r"^seed is -1; allowed: an integer from 0 to 2147483647$"),
    "subnormals": (lambda: AdderParameters(subnormals="drop"), r"^subnormals is 'drop'; allowed: keep, flush$"),
    "latency": (lambda: AdderParameters(latency=0), r"^latency is 0; allowed: an integer from 1 to \d+$"),
    "latency-fma": (lambda: FMAParameters(latency=99), r"^latency is 99; allowed: an integer from 1 to \d+$"),
    "result": (lambda: MultiplierParameters(result=PRESETS["fast-4"]), r"^result is BlockFloat.*; allowed: a Float"),
    "cast": (lambda: CastParameters(result=Float(4, 0)), r"^result is Float.*; allowed: a Float with a mantissa"),
    "multiplier": (lambda: FMAParameters(multiplier="soft"), r"^multiplier is 'soft'; allowed: dsp, lut$"),
    "accumulator": (lambda: FMAParameters(accumulator=16), r"^accumulator is 16; allowed: a Float with a mantissa"),
    "mac-accumulator": (lambda: MACParameters(accumulator=E4M3), r"^accumulator is Float.*; allowed: .* 'ieee'"),
    "mac-accumulators": (lambda: MACParameters(accumulators=3), r"^accumulators is 3; allowed: 2, 4, 8, 16$"),
    "mac-multiplier": (lambda: MACParameters(multiplier=None), r"^multiplier is None; allowed: dsp, lut$"),
    "mac-format": (lambda: MACParameters(format=None), r"^format is None; allowed: a Float with a mantissa"),
}


@pytest.mark.parametrize("call, message", each(ERRORS))
def test_senseless_arguments_raise_and_name_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


PARAMETERS = {
    "adder": AdderParameters(),
    "adder-stochastic": AdderParameters(format=E4M3, rounding="stochastic", random_bits=5, corrected=True, seed=9),
    "multiplier": MultiplierParameters(),
    "multiplier-wide": MultiplierParameters(format=E5M2, result=Float(4, 9), subnormals="flush", multiplier="lut"),
    "fma": FMAParameters(format=BF16, accumulator=FP32, rounding="truncate"),
    "fma-same": FMAParameters(),
    "cast": CastParameters(),
    "mac": MACParameters(format=E4M3, accumulator=FP32, accumulators=4),
}


@pytest.mark.parametrize("parameters", each(PARAMETERS))
def test_parameters_go_through_json_both_ways(parameters):
    assert type(parameters).from_json(parameters.to_json()) == parameters


def test_a_format_that_is_not_given_is_the_operands():
    assert MultiplierParameters.from_json('{"format": "bf16", "result": null}').result == BF16
    assert FMAParameters.from_json('{"format": "bf16"}').accumulator == BF16


MODES = {
    "nearest": {},
    "truncate": {"rounding": "truncate"},
    "stochastic": {"rounding": "stochastic", "random_bits": 11, "seed": 77},
    "corrected-flush": {"rounding": "stochastic", "corrected": True, "subnormals": "flush"},
}


@pytest.mark.parametrize("mode", each(MODES))
def test_units_are_the_reference_with_a_word_per_transfer(mode):
    """Codes and flags; every transfer draws one word of lane 0, whatever its operands."""
    rng, step, n = np.random.default_rng(19), 1000, 300
    a, b = random_pairs(E5M2, n, rng)
    a[:20], b[:20] = E5M2.max_code, E5M2.max_code ^ rng.integers(0, 2, 20) << 7
    c, subtract = rng.integers(0, 2**16, n), rng.random(n) < 0.5
    make = {"format": E5M2, **mode}
    units = {
        "adder": (floating.adder, AdderParameters(**make), (a, b, subtract)),
        "multiplier": (floating.multiplier, MultiplierParameters(result=E4M3, **make), (a, b)),
        "fused": (floating.fused, FMAParameters(accumulator=FP16, **make), (a, b, c)),
        "caster": (floating.caster, CastParameters(result=E2M1, **make), (a,)),
    }
    for name, (unit, p, operands) in units.items():
        flush, k = p.subnormals == "flush", p.random_bits
        # A block for each transfer, of which its first byte, or two, have the word.
        found = blocks(key(p.seed), np.arange(step, step + len(operands[0]), dtype=np.uint32))
        drawn = (found[:, 0] >> (8 - k) if k <= 8 else found.view("<u2")[:, 0] >> (16 - k)).tolist()
        expected = []
        for word, *row in zip(drawn, *(v.tolist() for v in operands)):
            if name == "adder":
                scalar = reference.subtract if row[2] else reference.add
                expected.append(scalar(*row[:2], E5M2, p.mode, word, flush))
            elif name == "multiplier":
                expected.append(reference.multiply(*row, E5M2, p.mode, word, flush, E4M3))
            elif name == "fused":
                expected.append(reference.fma(*row, E5M2, p.mode, word, flush, FP16))
            else:
                expected.append(reference.cast(*row, E5M2, E2M1, p.mode, word, flush))
        codes, invalid, overflow = unit(p, *operands, step=step)
        assert codes.dtype == np.uint32 and invalid.dtype == overflow.dtype == bool
        assert list(zip(codes.tolist(), invalid.tolist(), overflow.tolist())) == expected, name
        assert invalid.any() and overflow.any()
        first, rest = unit(p, *(v[:100] for v in operands), step=step), \
            unit(p, *(v[100:] for v in operands), step=step + 100)
        for whole, *parts in zip((codes, invalid, overflow), first, rest):
            np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_units_take_no_transfers():
    none = np.zeros(0, int)
    for mode in MODES.values():
        for result in (floating.adder(AdderParameters(**mode), none, none, none.astype(bool)),
                       floating.multiplier(MultiplierParameters(**mode), none, none),
                       floating.fused(FMAParameters(**mode), none, none, none),
                       floating.caster(CastParameters(**mode), none)):
            assert [v.shape for v in result] == [(0,)] * 3
    codes, invalid, overflow = floating.mac(MACParameters(), none, none, none, none.astype(bool), none.astype(bool))
    assert codes.shape == (0,) and invalid is False and overflow is False


def mac_transfers(fmt, n, slots, rng):
    a, b = random_pairs(fmt, n, rng)
    return a, b, rng.integers(0, slots, n), rng.random(n) < 0.1, rng.random(n) < 0.4


@pytest.mark.parametrize("fmt, dtype", each(EXACT_PRODUCTS))
def test_mac_is_float32_addition(fmt, dtype):
    """The products are exact in float32, so NumPy's additions are the reference: Inf and NaN as well."""
    rng = np.random.default_rng(20)
    a, b, slot, first, last = mac_transfers(fmt, 3000, 8, rng)
    calm = np.arange(a.size) < 2000  # without Inf and NaN at first, or they would be everywhere
    a, b = (np.where(calm & (v & (1 << (fmt.width - 1)) - 1 > fmt.max_code), 1, v) for v in (a, b))
    sums, emitted = np.zeros(8, np.float32), []
    with np.errstate(all="ignore"):
        product = to_peer(a, dtype).astype(np.float32) * to_peer(b, dtype).astype(np.float32)
        for i in range(a.size):
            before = np.float32(0) if first[i] else sums[slot[i]]
            sums[slot[i]] = before + product[i] + np.float32(0)  # the last term makes -0 the unit's +0
            if last[i]:
                emitted.append(sums[slot[i]])
    parameters = MACParameters(format=fmt, accumulator=FP32, accumulators=8)
    codes, invalid, overflow = floating.mac(parameters, a, b, slot, first, last)
    assert codes.dtype == np.uint32
    assert_same(codes, np.array(emitted, np.float32), FP32)
    assert (invalid, overflow) == (True, False)


def test_mac_is_the_reference_one_by_one():
    """fp16 sums of fp16 products, which overflow: each transfer is an fma but for the sign of an exact zero."""
    rng = np.random.default_rng(21)
    a, b, slot, first, last = mac_transfers(FP16, 4000, 4, rng)
    a, b = (np.where(v & 0x7FFF > FP16.max_code, 1, v) for v in (a, b))
    a[5::50], b[5::50] = a[4:-1:50], b[4:-1:50] ^ 0x8000
    slot[5::50] = slot[4:-1:50]
    first[4::50] = True
    sums, emitted, overflowed, invalid = [0] * 4, [], False, False
    for i in range(a.size):
        before = 0 if first[i] else sums[slot[i]]
        x, y, c = reference.decode(int(a[i]), FP16), reference.decode(int(b[i]), FP16), reference.decode(before, FP16)
        exact = reference.total(reference.product(x, y), c)
        code, bad, over = (0, False, False) if exact.is_zero else reference.round_exact(exact, FP16)
        sums[slot[i]], invalid, overflowed = code, invalid | bad, overflowed | over
        if last[i]:
            emitted.append(code)
    assert overflowed and 0x8000 in emitted and 0 in emitted  # a negative sum may round to -0
    ours = floating.mac(MACParameters(accumulators=4), a, b, slot, first, last)
    assert ours[0].tolist() == emitted and ours[1:] == (invalid, overflowed)


ONE, INF, NAN, BIG, TINY = 0x3C00, 0x7C00, 0x7E00, 0x7BFF, 0x0001
# transfers (a, b, first) into one slot -> the last sum, invalid, overflow
MACS = {
    "starts from +0": ([(0x8000, ONE, True)], 0, False, False),
    "-0 plus a -0 product is +0": ([(0x8001, TINY, True), (0x8000, ONE, False)], 0, False, False),
    "a negative product below the subnormals": ([(0x8001, TINY, True)], 0x8000, False, False),
    "1 - 1 is +0": ([(ONE, ONE, True), (0xBC00, ONE, False)], 0, False, False),
    "overflow": ([(BIG, ONE, True), (BIG, ONE, False)], INF, False, True),
    "overflow of a product alone": ([(BIG, BIG, True)], INF, False, True),
    "a great product is not rounded before it cancels": ([(BIG, ONE, True), (0xFBFF, 0x4000, False)], 0xFBFF,
                                                         False, False),
    "Inf that came in is no overflow": ([(INF, ONE, True), (BIG, BIG, False)], INF, False, False),
    "Inf - Inf": ([(INF, ONE, True), (INF, 0xBC00, False)], NAN, True, False),
    "Inf from overflow, minus Inf": ([(BIG, BIG, True), (0xFC00, ONE, False)], NAN, True, True),
    "0 * Inf": ([(0, INF, True)], NAN, True, False),
    "NaN stays": ([(0xFC01, ONE, True), (ONE, ONE, False)], NAN, True, False),
    "first forgets NaN": ([(NAN, ONE, True), (ONE, ONE, True)], ONE, True, False),
    "first forgets Inf": ([(INF, ONE, True), (ONE, ONE, True)], ONE, False, False),
}


@pytest.mark.parametrize("transfers, code, invalid, overflow", each(MACS))
def test_mac_corners(transfers, code, invalid, overflow):
    a, b, first = (np.array(column) for column in zip(*transfers))
    last = np.arange(a.size) == a.size - 1
    codes, *flags = floating.mac(MACParameters(), a, b, np.full(a.size, 3), first, last)
    assert codes.tolist() == [code] and flags == [invalid, overflow]


def test_truncation_is_toward_zero_of_the_exact_result():
    """Magnitudes never grow, and the next code up is beyond: for every pair of E4M3."""
    fmt = Float(4, 3)
    a, b = all_pairs(fmt)
    number = (np.abs(fmt.decode(a)) <= fmt.max) & (np.abs(fmt.decode(b)) <= fmt.max)
    a, b = a[number], b[number]
    for operation, exact in ((floating.add, fmt.decode(a) + fmt.decode(b)),
                             (floating.multiply, fmt.decode(a) * fmt.decode(b))):
        codes = operation(a, b, fmt, TRUNCATE)
        magnitude = codes & 0x7F
        assert np.all(fmt.decode(magnitude) <= np.abs(exact))
        below_top = magnitude < fmt.max_code
        assert np.all(fmt.decode(magnitude + 1)[below_top] > np.abs(exact)[below_top])
        assert np.all(np.signbit(fmt.decode(codes)) == np.signbit(exact))
        np.testing.assert_array_equal(operation(a, b, fmt, NEAREST), fmt.encode(exact))
