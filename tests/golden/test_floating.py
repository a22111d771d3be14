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
import numpy as np
import pytest
from gfloat.formats import format_info_bfloat16, format_info_binary16, format_info_ocp_e4m3, format_info_ocp_e5m2
from gfloat.types import RoundMode
from narrowgauge.golden import floating
from narrowgauge.golden.rounding import stochastic
from peers import (
    BF16,
    E4M3,
    E5M2,
    EXACT_PRODUCTS,
    FP16,
    FP32,
    NARROW,
    PEERS,
    WIDE,
    all_pairs,
    assert_same,
    each,
    random_pairs,
    to_peer,
)

pytestmark = pytest.mark.filterwarnings("error")


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
