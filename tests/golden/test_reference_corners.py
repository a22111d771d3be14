"""Corners of floating-point arithmetic by hand: in the scalar reference and in the vectorised model."""

import numpy as np
import pytest
from narrowgauge.golden import floating, reference
from narrowgauge.golden.floating import operations
from narrowgauge.golden.formats import Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from peers import E2M1, E4M3, FP16, FP32, each

pytestmark = pytest.mark.filterwarnings("error")

N, T, S8, C8 = NEAREST, TRUNCATE, stochastic(8), stochastic(8, corrected=True)
# (operation, format, operands, rounding, random word, flush) -> code, invalid, overflow; codes worked out by hand.
# FP16: 0x3C00 is 1.0, an ulp of it 2**-10; 0x0400 is the smallest normal number, 0x7BFF the largest, 0x7C00 Inf.
CORNERS = {
    "tie down to even": ("add", FP16, (0x3C00, 0x1000), N, 0, False, 0x3C00, 0, 0),
    "tie up to even": ("add", FP16, (0x3C01, 0x1000), N, 0, False, 0x3C02, 0, 0),
    "just above a tie": ("add", FP16, (0x3C00, 0x1001), N, 0, False, 0x3C01, 0, 0),
    "just below a tie": ("add", FP16, (0x3C01, 0x0FFF), N, 0, False, 0x3C01, 0, 0),
    "far below: only sticky, and a tie would be wrong": ("fma", FP16, (0x0001, 0x0001, 0x3C00), N, 0, False,
                                                         0x3C00, 0, 0),
    "tie of fma broken by a product below it": ("fma", FP16, (0x3C01, 0x1001, 0x3C00), N, 0, False, 0x3C01, 0, 0),
    "carry into the next binade": ("add", FP16, (0x3FFF, 0x1000), N, 0, False, 0x4000, 0, 0),
    "truncation keeps below the carry": ("add", FP16, (0x3FFF, 0x13FF), T, 0, False, 0x3FFF, 0, 0),
    "borrow: one ulp below 1 is half an ulp of 1": ("subtract", FP16, (0x3C00, 0x1000), N, 0, False, 0x3BFF, 0, 0),
    "tie below a power of two": ("subtract", FP16, (0x3C00, 0x0C00), N, 0, False, 0x3C00, 0, 0),
    "just below a power of two, truncated": ("subtract", FP16, (0x3C00, 0x0001), T, 0, False, 0x3BFF, 0, 0),
    "cancellation to a subnormal is exact": ("subtract", FP16, (0x0401, 0x0400), N, 0, False, 0x0001, 0, 0),
    "subnormal plus subnormal is normal": ("add", FP16, (0x03FF, 0x0001), N, 0, False, 0x0400, 0, 0),
    "tie between 0 and the smallest subnormal": ("multiply", FP16, (0x0001, 0x3800), N, 0, False, 0x0000, 0, 0),
    "negative: rounds to -0": ("multiply", FP16, (0x8001, 0x3800), N, 0, False, 0x8000, 0, 0),
    "just above that tie": ("multiply", FP16, (0x0001, 0x3801), N, 0, False, 0x0001, 0, 0),
    "three halves of the smallest subnormal, a tie": ("multiply", FP16, (0x0003, 0x3800), N, 0, False, 0x0002, 0, 0),
    "subnormal product rounds up to normal": ("multiply", FP16, (0x3BFF, 0x0400), N, 0, False, 0x0400, 0, 0),
    "the same, truncated": ("multiply", FP16, (0x3BFF, 0x0400), T, 0, False, 0x03FF, 0, 0),
    "largest plus just under half an ulp": ("add", FP16, (0x7BFF, 0x4BFF), N, 0, False, 0x7BFF, 0, 0),
    "largest plus half an ulp is Inf": ("add", FP16, (0x7BFF, 0x4C00), N, 0, False, 0x7C00, 0, 1),
    "half an ulp truncated is no overflow": ("add", FP16, (0x7BFF, 0x4C00), T, 0, False, 0x7BFF, 0, 0),
    "a whole ulp truncated is one": ("add", FP16, (0x7BFF, 0x5000), T, 0, False, 0x7BFF, 0, 1),
    "negative overflow": ("multiply", FP16, (0xFBFF, 0x4000), N, 0, False, 0xFC00, 0, 1),
    "fn: beyond 448 by a tie stays": ("add", E4M3, (0x7E, 0x58), N, 0, False, 0x7E, 0, 0),
    "fn: above the tie is NaN, and keeps its sign": ("add", E4M3, (0xFE, 0xD9), N, 0, False, 0xFF, 0, 1),
    "none: saturates": ("multiply", E2M1, (0x7, 0xF), N, 0, False, 0xF, 0, 1),
    "x - x is +0": ("subtract", FP16, (0x3C01, 0x3C01), N, 0, False, 0x0000, 0, 0),
    "x - x is +0 truncated": ("subtract", FP16, (0xBC01, 0xBC01), T, 0, False, 0x0000, 0, 0),
    "-0 + -0 is -0": ("add", FP16, (0x8000, 0x8000), N, 0, False, 0x8000, 0, 0),
    "-0 + +0 is +0": ("add", FP16, (0x8000, 0x0000), N, 0, False, 0x0000, 0, 0),
    "+0 - +0 is +0": ("subtract", FP16, (0x0000, 0x0000), N, 0, False, 0x0000, 0, 0),
    "-0 - +0 is -0": ("subtract", FP16, (0x8000, 0x0000), N, 0, False, 0x8000, 0, 0),
    "-0 times 1 is -0": ("multiply", FP16, (0x8000, 0x3C00), N, 0, False, 0x8000, 0, 0),
    "fma of a zero product of the addend's sign": ("fma", FP16, (0x8000, 0x3C00, 0x8000), N, 0, False, 0x8000, 0, 0),
    "fma of zeros of unlike signs": ("fma", FP16, (0x8000, 0x3C00, 0x0000), N, 0, False, 0x0000, 0, 0),
    "fma that cancels": ("fma", FP16, (0xBC00, 0x3C00, 0x3C00), N, 0, False, 0x0000, 0, 0),
    # 2 - 2**-23 + 2**-22 * (1 + 2**-46): a tie but for 2**-68. The factors are 8392705 and 8384513, of 2**46 + 1.
    "fma: a carry leaves the sticky bit": ("fma", FP32, (0x4B001001, 0x28FFE002, 0x3FFFFFFF), N, 0, False,
                                           0x40000001, 0, 0),
    "fma: the product is not rounded": ("fma", FP16, (0x3C01, 0x3C01, 0xBC02), N, 0, False, 0x0010, 0, 0),
    "fma: nor does it overflow": ("fma", FP16, (0x7BFF, 0x4000, 0xFBFF), N, 0, False, 0x7BFF, 0, 0),
    "Inf + 1": ("add", FP16, (0x7C00, 0x3C00), N, 0, False, 0x7C00, 0, 0),
    "1 - Inf": ("subtract", FP16, (0x3C00, 0x7C00), N, 0, False, 0xFC00, 0, 0),
    "Inf - Inf": ("subtract", FP16, (0x7C00, 0x7C00), N, 0, False, 0x7E00, 1, 0),
    "-Inf + -Inf": ("add", FP16, (0xFC00, 0xFC00), N, 0, False, 0xFC00, 0, 0),
    "0 * Inf": ("multiply", FP16, (0x8000, 0x7C00), N, 0, False, 0x7E00, 1, 0),
    "Inf * subnormal": ("multiply", FP16, (0x7C00, 0x8001), N, 0, False, 0xFC00, 0, 0),
    "Inf * subnormal, flushed: 0 * Inf": ("multiply", FP16, (0x7C00, 0x8001), N, 0, True, 0x7E00, 1, 0),
    "a negative NaN with payload": ("add", FP16, (0xFC01, 0x3C00), N, 0, False, 0x7E00, 1, 0),
    "fma: 0 * Inf + NaN": ("fma", FP16, (0x0000, 0x7C00, 0x7C01), N, 0, False, 0x7E00, 1, 0),
    "fma: Inf * 1 - Inf": ("fma", FP16, (0x7C00, 0x3C00, 0xFC00), N, 0, False, 0x7E00, 1, 0),
    "fma: Inf beats an overflowing product": ("fma", FP16, (0x7BFF, 0x7BFF, 0xFC00), N, 0, False, 0xFC00, 0, 0),
    "flush: a subnormal operand": ("add", FP16, (0x03FF, 0x8000), N, 0, True, 0x0000, 0, 0),
    "flush: it keeps its sign": ("add", FP16, (0x83FF, 0x8000), N, 0, True, 0x8000, 0, 0),
    "flush: a subnormal result, of the result's sign": ("subtract", FP16, (0x0400, 0x0401), N, 0, True, 0x8000, 0, 0),
    "flush: rounds up to the smallest normal": ("multiply", FP16, (0x3BFF, 0x0401), N, 0, True, 0x0400, 0, 0),
    "flush: p bits hold it, so it stays below": ("multiply", FP16, (0x3BFF, 0x0400), N, 0, True, 0x0000, 0, 0),
    "stochastic: half an ulp and the least word that carries": ("add", FP16, (0x3C00, 0x1000), S8, 128, False,
                                                                0x3C01, 0, 0),
    "stochastic: the word below": ("add", FP16, (0x3C00, 0x1000), S8, 127, False, 0x3C00, 0, 0),
    "stochastic: the window floors the exact fraction": ("add", FP16, (0x3C00, 0x0FFF), S8, 128, False, 0x3C00, 0, 0),
    "stochastic: floor of a difference, not difference of floors": (
        "subtract", FP16, (0x3C00, 0x0001), S8, 0, False, 0x3BFF, 0, 0),
    "stochastic: and its greatest word": ("subtract", FP16, (0x3C00, 0x0001), S8, 255, False, 0x3C00, 0, 0),
    "stochastic: an exact sum never changes": ("add", FP16, (0x3C00, 0x1400), S8, 255, False, 0x3C01, 0, 0),
    "stochastic: of a subnormal's own ulp": ("multiply", FP16, (0x0001, 0x3800), S8, 128, False, 0x0001, 0, 0),
    "stochastic: and just not": ("multiply", FP16, (0x0001, 0x3800), S8, 127, False, 0x0000, 0, 0),
    "stochastic: far below the window": ("multiply", FP16, (0x0001, 0x0001), S8, 255, False, 0x0000, 0, 0),
    "stochastic: overflow by the word": ("add", FP16, (0x7BFF, 0x4C00), S8, 128, False, 0x7C00, 0, 1),
    "corrected: a 512th and the greatest word": ("fma", FP16, (0x0400, 0x1400, 0x0040), C8, 255, False,
                                                 0x0041, 0, 0),
    "corrected: less than a 512th": ("multiply", FP16, (0x0001, 0x17FF), C8, 255, False, 0x0000, 0, 0),
}


@pytest.mark.parametrize("operation, fmt, operands, rounding, word, flush, code, invalid, overflow", each(CORNERS))
def test_corners(operation, fmt, operands, rounding, word, flush, code, invalid, overflow):
    assert getattr(reference, operation)(*operands, fmt, rounding, word, flush) == (code, invalid, overflow)
    assert getattr(floating, operation)(*operands, fmt, rounding, word, flush=flush) == code


# (from, to, code, rounding) -> code, invalid, overflow: what the other format lacks.
CASTS = {
    "Inf to fn is NaN": (FP16, E4M3, 0x7C00, N, 0x7F, 0, 1),
    "-Inf to fn keeps its sign": (FP16, E4M3, 0xFC00, N, 0xFF, 0, 1),
    "Inf to fn under truncation too": (FP16, E4M3, 0x7C00, T, 0x7F, 0, 1),
    "Inf to saturating fn": (FP16, Float(4, 3, specials="fn", overflow="saturate"), 0x7C00, N, 0x7E, 0, 1),
    "Inf to saturating ieee stays": (FP16, Float(5, 2, overflow="saturate"), 0x7C00, N, 0x7C, 0, 0),
    "overflow to saturating ieee": (FP32, Float(5, 2, overflow="saturate"), 0x7F000000, N, 0x7B, 0, 1),
    "Inf to none": (FP16, E2M1, 0xFC00, N, 0xF, 0, 1),
    "NaN to none is the largest value": (FP16, E2M1, 0xFE00, N, 0x7, 1, 0),
    "NaN to fn": (FP16, E4M3, 0xFE01, N, 0x7F, 1, 0),
    "fn's NaN to ieee": (E4M3, FP16, 0xFF, N, 0x7E00, 1, 0),
    "NaN to a format without mantissa or NaN": (FP16, Float(4, 0), 0x7E00, N, 0x0E, 1, 0),
    "448 is finite in fn": (E4M3, FP16, 0x7E, N, 0x5F00, 0, 0),
    "464 is a tie": (FP16, E4M3, 0x5F40, N, 0x7E, 0, 0),
    "464.25 is above it": (FP16, E4M3, 0x5F41, N, 0x7F, 0, 1),
    "-0": (FP16, E4M3, 0x8000, N, 0x80, 0, 0),
    "a normal becomes subnormal, a tie": (FP16, E4M3, 0x1A00, N, 0x02, 0, 0),
    "a subnormal becomes normal": (FP16, FP32, 0x0001, N, 0x33800000, 0, 0),
    "the smallest fp32 is nothing in fp16": (FP32, FP16, 0x80000001, N, 0x8000, 0, 0),
}


@pytest.mark.parametrize("fmt, result, code, rounding, expected, invalid, overflow", each(CASTS))
def test_casts_to_what_lacks_it(fmt, result, code, rounding, expected, invalid, overflow):
    assert reference.cast(code, fmt, result, rounding) == (expected, invalid, overflow)
    found = operations.cast_flagged(code, fmt, result, rounding, None, False)
    assert [v.item() for v in found] == [expected, invalid, overflow]
    if rounding == N:  # Float.encode is the authority
        assert result.encode(fmt.decode(code)) == expected


def test_a_flushed_result_is_that_of_a_wider_exponent():
    """Rounded as if exponents had no lower end: in a format that has room below, by `Float.encode`."""
    rng = np.random.default_rng(9)
    wide = Float(8, 10)
    a, b = rng.integers(0, 2**16, (2, 50_000))
    number = (np.abs(FP16.decode(a)) < 2) & (np.abs(FP16.decode(b)) < 2) & (a & 0x7C00 > 0) & (b & 0x7C00 > 0)
    a, b = a[number], b[number]
    b[::2] = (b[::2] & 0x83FF) | (1 << 10)  # the products of these are near the smallest normal number
    for rounding in (N, T, S8, C8):
        w = rng.integers(0, 256, a.size)
        value = wide.decode(wide.encode(FP16.decode(a) * FP16.decode(b), rounding, w))
        value = np.where(np.abs(value) < 2.0**-14, np.copysign(0, value), value)
        assert np.mean(value == 0) > 0.3
        np.testing.assert_array_equal(floating.multiply(a, b, FP16, rounding, w, flush=True), FP16.encode(value))
