"""Number formats against ml_dtypes, NumPy and exact fractions."""

import bisect
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from narrowgauge.golden import mx
from narrowgauge.golden.formats import PRESETS, BlockFloat, Fixed, Float, Log
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from odd_formats import ALL, PEERS
from peers import FINITE, each

pytestmark = pytest.mark.filterwarnings("error")

ROUNDINGS = {
    "nearest": NEAREST,
    "truncate": TRUNCATE,
    "stochastic1": stochastic(1),
    "stochastic8": stochastic(8),
    "stochastic16": stochastic(16),
    "corrected1": stochastic(1, corrected=True),
    "corrected8": stochastic(8, corrected=True),
    "corrected16": stochastic(16, corrected=True),
}


def exact_value(fmt, code):
    """The value of a code without sign, by the definition; codes past the last finite one go on alike."""
    field, fraction = divmod(code, 2**fmt.mantissa)
    significand = fraction + (2**fmt.mantissa if field else 0)
    shift = max(field, 1) - fmt.bias - fmt.mantissa
    return Fraction(significand << max(shift, 0), 1 << max(-shift, 0))


def rounds_up(discarded, odd, rounding, word):
    """Whether a magnitude that loses `discarded` of a unit goes away from zero."""
    if rounding.kind == "nearest":
        return discarded > Fraction(1, 2) or discarded == Fraction(1, 2) and odd
    if rounding.kind == "truncate":
        return False
    k = rounding.bits
    if rounding.corrected:
        return int(discarded * 2 ** (k + 1)) + 2 * word + 1 >= 2 ** (k + 1)
    return int(discarded * 2**k) + word >= 2**k


def exact_code(fmt, value, rounding=NEAREST, word=0):
    """The code of a finite value: its neighbours among all codes, and the distance between them."""
    magnitude = abs(Fraction(value))
    codes = range(fmt.max_code + 2)
    code = bisect.bisect_right(codes, magnitude, key=lambda c: exact_value(fmt, c)) - 1
    if code <= fmt.max_code:
        low, high = exact_value(fmt, code), exact_value(fmt, code + 1)
        # Even is the integer significand's parity: without stored mantissa bits the hidden one is odd.
        odd = low / (high - low) % 2 == 1
        code += rounds_up((magnitude - low) / (high - low), odd, rounding, word)
    if code > fmt.max_code:
        code = fmt.max_code if rounding.kind == "truncate" else fmt.overflow_code
    return code | (bool(np.signbit(value)) << (fmt.width - 1))


def neighbourhood(fmt, codes, dtype=np.float64):
    """Values of codes, midpoints, quarter points and their next numbers up and down, both signs."""
    low = fmt.decode(codes)
    below, above = fmt.decode(np.maximum(codes - 1, 0)), fmt.decode(np.minimum(codes + 1, fmt.max_code))
    with np.errstate(over="ignore"):
        gap = np.where(codes < fmt.max_code, above - low, low - below)
        points = np.concatenate([low, low + gap / 2, low + gap / 4, low + gap * 0.75]).astype(dtype)
        points = np.concatenate([points, np.nextafter(points, dtype(np.inf)), np.nextafter(points, dtype(-np.inf))])
    return np.concatenate([points, -points])


def codes_of(array):
    return array.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize]).astype(np.int64)


def assert_encodes_like(fmt, dtype, values):
    """Compare codes; where both are NaN ours must be the canonical one."""
    ours = fmt.encode(values).astype(np.int64)
    with np.errstate(all="ignore"):
        theirs = values.astype(dtype)
    nan = np.isnan(values)
    if fmt.nan_code is None:
        # ml_dtypes makes NaN a zero (with the sign inverted); ours is the largest finite value.
        assert np.all(ours[nan] == fmt.max_code)
        assert np.all(theirs[nan].astype(np.float32) == 0)
    else:
        nan = np.isnan(theirs.astype(np.float32))
        assert np.all(ours[nan] & fmt.nan_code == fmt.nan_code)
        assert np.all(ours[np.isnan(values)] == fmt.nan_code)
        assert np.all(np.isnan(fmt.decode(ours[nan])))
    different = np.flatnonzero((ours != codes_of(theirs)) & ~nan)
    assert different.size == 0, [(float(values[i]).hex(), hex(ours[i]), theirs[i]) for i in different[:5]]


@pytest.fixture(scope="module")
def float32_patterns():
    """10**7 float32 bit patterns: every exponent, NaN, Inf and subnormals as they come."""
    return np.random.default_rng(2110).integers(0, 2**32, 10**7, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize("fmt, dtype", each(PEERS))
def test_decode_agrees_on_every_code(fmt, dtype):
    codes = np.arange(2**fmt.width)
    theirs = codes.astype(np.uint16 if fmt.width > 8 else np.uint8).view(dtype)
    with np.errstate(invalid="ignore"):
        theirs = theirs.astype(np.float64)
    ours = fmt.decode(codes)
    np.testing.assert_array_equal(ours, theirs)
    number = ~np.isnan(ours)
    np.testing.assert_array_equal(np.signbit(ours[number]), np.signbit(theirs[number]))


@pytest.mark.parametrize("fmt, dtype", each(PEERS))
def test_encode_agrees_on_every_float16(fmt, dtype):
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        values = values.astype(np.float32)
    assert_encodes_like(fmt, dtype, values)


@pytest.mark.parametrize("fmt, dtype", each(PEERS))
def test_encode_agrees_on_random_float32_patterns(fmt, dtype, float32_patterns):
    for values in np.array_split(float32_patterns, 150):
        assert_encodes_like(fmt, dtype, values)


@pytest.mark.parametrize("fmt, dtype", each(PEERS))
def test_encode_agrees_on_random_float32_in_range(fmt, dtype):
    """The patterns above mostly miss a narrow range: exponents from below the subnormals to above the top."""
    rng = np.random.default_rng(15456)
    low, high = max(fmt.emin - fmt.mantissa - 3, -126), min(fmt.emax + 3, 128)
    exponent = rng.integers(low, high, 10**5) + 127
    bits = rng.integers(0, 2, 10**5) << 31 | exponent << 23 | rng.integers(0, 2**23, 10**5)
    assert_encodes_like(fmt, dtype, bits.astype(np.uint32).view(np.float32))


@pytest.mark.parametrize("fmt, dtype", each(PEERS))
def test_encode_agrees_on_ties_and_their_neighbours(fmt, dtype):
    assert_encodes_like(fmt, dtype, neighbourhood(fmt, np.arange(fmt.max_code + 1), np.float32))


@pytest.mark.parametrize("fmt, dtype", each({"float16": PEERS["float16"], "float32": (Float(8, 23), np.float32)}))
def test_encode_agrees_with_numpy_on_float64(fmt, dtype):
    """ml_dtypes converts a float64 by way of float32, so NumPy's own formats are the peers here."""
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 2**64, 300_000, dtype=np.uint64).view(np.float64)
    exponent = rng.integers(fmt.emin - fmt.mantissa - 3, fmt.emax + 3, 300_000)
    sign = rng.choice([-1.0, 1.0], exponent.size)
    codes = rng.integers(0, fmt.max_code, 20_000)
    directed = neighbourhood(fmt, np.concatenate([codes, np.arange(2000), fmt.max_code - np.arange(2000)]))
    values = np.concatenate([patterns, sign * np.ldexp(rng.random(exponent.size) + 1, exponent), directed])
    assert_encodes_like(fmt, dtype, values)


def test_float64_is_rounded_once():
    # Just above a tie of bf16: by way of float32 it would become the tie and go down to 1.0.
    assert Float(8, 7).round(1 + 2**-8 + 2**-40) == 1 + 2**-7
    assert Float(8, 7).round(1 + 2**-8) == 1


@pytest.mark.parametrize("fmt", each(ALL))
def test_decode_is_the_definition(fmt):
    top = fmt.max_code
    codes = np.arange(top + 1) if top < 2**11 else np.random.default_rng(3).integers(0, top + 1, 2000)
    codes = np.concatenate([codes, [0, min(1, top), top]])
    values = fmt.decode(codes)
    assert [Fraction(v) for v in values] == [exact_value(fmt, int(c)) for c in codes]
    np.testing.assert_array_equal(fmt.decode(codes | 1 << (fmt.width - 1)), -values)
    assert fmt.max == values.max() == values[-1]
    assert fmt.max == 0 or np.frexp(fmt.max)[1] - 1 == fmt.emax


@pytest.mark.parametrize("fmt", each(ALL))
def test_encode_inverts_decode(fmt):
    codes = np.random.default_rng(4).integers(0, fmt.max_code + 1, 5000)
    codes = np.concatenate([codes, codes | 1 << (fmt.width - 1)])
    for rounding in ROUNDINGS.values():
        word = 2**rounding.bits - 1
        np.testing.assert_array_equal(fmt.encode(fmt.decode(codes), rounding, word), codes)


def spread(fmt, rng, count):
    """Values of a format's whole range and past both ends, with ties and subnormals, and the ends of float64."""
    low, high = max(fmt.emin - fmt.mantissa - 4, -1074), min(fmt.emax + 4, 1024)
    random = np.ldexp(rng.random(count) + 1, rng.integers(low, high, count))
    near = neighbourhood(fmt, rng.integers(0, fmt.max_code + 1, count // 8))
    ends = neighbourhood(fmt, np.unique(np.maximum([0, 1, fmt.max_code - 1, fmt.max_code], 0)))
    far = np.array([5e-324, 2.0**-1022, 1e-300, 1e300, np.finfo(np.float64).max])
    values = np.concatenate([random, -random, near, ends, far, -far, [0.0, -0.0]])
    return values[np.isfinite(values)]


@pytest.mark.parametrize("rounding", each(ROUNDINGS))
@pytest.mark.parametrize("fmt", each(ALL))
def test_encode_is_the_definition(fmt, rounding):
    rng = np.random.default_rng(5)
    values = spread(fmt, rng, 32)
    words = rng.integers(0, 2**rounding.bits, values.size)
    words[::7], words[3::7] = 0, 2**rounding.bits - 1
    codes = fmt.encode(values, rounding, words)
    expected = [exact_code(fmt, float(v), rounding, int(w)) for v, w in zip(values, words)]
    assert codes.dtype == np.uint32
    different = [(v.hex(), w, c, e) for v, w, c, e in zip(values, words, codes, expected) if c != e]
    assert not different, different[:5]


@pytest.mark.parametrize("value", [1e6, 1e30, 3e38, 1e300, np.finfo(np.float64).max])
@pytest.mark.parametrize("fmt", [pytest.param(PRESETS[n], id=n) for n in ("fp16", "fp8-e5m2", "fp8-e4m3", "fp4-e2m1")])
def test_far_too_large_overflows(fmt, value):
    """Scaled to the top exponent these do not fit an int64."""
    assert fmt.encode(value) == fmt.overflow_code
    assert fmt.encode(-value) == fmt.overflow_code | 1 << (fmt.width - 1)
    assert fmt.encode(value, TRUNCATE) == fmt.max_code
    assert fmt.encode(value, stochastic(8), 0) == fmt.overflow_code


@pytest.mark.parametrize(
    "fmt, infinity, nan",
    [
        pytest.param(Float(5, 2), 0x7C, 0x7E, id="ieee"),
        pytest.param(Float(5, 2, overflow="saturate"), 0x7C, 0x7E, id="ieee-saturate"),
        pytest.param(Float(4, 3, specials="fn"), 0x7F, 0x7F, id="fn"),
        pytest.param(Float(4, 3, specials="fn", overflow="saturate"), 0x7E, 0x7F, id="fn-saturate"),
        pytest.param(Float(2, 1, **FINITE), 0x7, 0x7, id="none"),
        pytest.param(Float(4, 0), 0xF, 0xE, id="ieee-without-mantissa"),
    ],
)
@pytest.mark.parametrize("rounding", each(ROUNDINGS))
def test_inf_and_nan_bypass_rounding(fmt, infinity, nan, rounding):
    word = 2**rounding.bits - 1
    negative = 1 << (fmt.width - 1)
    codes = fmt.encode([np.inf, -np.inf, np.nan, -np.nan], rounding, word)
    assert codes.tolist() == [infinity, infinity | negative, nan, nan]


def test_signalling_nan_becomes_canonical():
    for values in (np.array([0x7F800001, 0xFF800001], np.uint32).view(np.float32),
                   np.array([0x7C01, 0xFC01], np.uint16).view(np.float16)):
        assert PRESETS["fp16"].encode(values).tolist() == [0x7E00, 0x7E00]


def test_stochastic_without_words_is_an_error():
    with pytest.raises(ValueError, match="random is None; allowed: one random word per element"):
        Float(5, 10).encode([1.0], stochastic(8))


def test_shapes_and_input_dtypes_are_kept_apart():
    fmt = PRESETS["fp16"]
    assert fmt.encode(1.5).shape == () and fmt.decode(0x3E00).shape == ()
    assert fmt.encode(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    grid = np.arange(-12, 12).reshape(2, 3, 4)
    for dtype in (np.int32, np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(fmt.round(grid.astype(dtype)), grid)
    for dtype in (np.uint16, np.int16, np.int64):
        np.testing.assert_array_equal(fmt.decode(fmt.encode(grid).astype(dtype)), grid)


@pytest.mark.parametrize("rounding", each(ROUNDINGS))
@pytest.mark.parametrize("bits, fraction",
                         [(1, 0), (2, 1), (8, 7), (8, -3), (16, 20), (32, 31), (32, 0), (5, 64), (9, -64)])
def test_fixed_encode_is_the_definition(bits, fraction, rounding):
    fmt = Fixed(bits, fraction)
    rng = np.random.default_rng(6)
    top = 2 ** (bits - 1)
    steps = np.concatenate([
        rng.integers(-top - 2, top + 2, 40) + rng.integers(-4, 5, 40) / 4,
        rng.uniform(-1.2 * top, 1.2 * top, 40),
        rng.uniform(-2, 2, 20),
        [0.0, -0.0, top - 1, top - 0.5, top, -top, -top - 0.5, -top - 1],
        [1e280, -1e30, 5e-324, np.inf, -np.inf],
    ])
    values = np.ldexp(steps, -fraction)
    words = rng.integers(0, 2**rounding.bits, values.size)
    expected = []
    for value, word in zip(values.tolist(), words.tolist()):
        scaled = Fraction(min(max(value, -1e308), 1e308)) * Fraction(2) ** fraction
        whole = int(abs(scaled))
        magnitude = whole + rounds_up(abs(scaled) - whole, whole % 2 == 1, rounding, word)
        expected.append(min(max(-magnitude if scaled < 0 else magnitude, -top), top - 1) % 2**bits)
    codes = fmt.encode(values, rounding, words)
    assert codes.dtype == np.uint32
    assert codes.tolist() == expected


@pytest.mark.parametrize("bits, fraction", [(1, 0), (8, 7), (8, -3), (12, 64)])
def test_fixed_decode_is_the_definition(bits, fraction):
    codes = np.arange(2**bits)
    expected = [Fraction((c ^ 2 ** (bits - 1)) - 2 ** (bits - 1)) / Fraction(2) ** fraction for c in codes.tolist()]
    assert [Fraction(v) for v in Fixed(bits, fraction).decode(codes)] == expected
    np.testing.assert_array_equal(Fixed(bits, fraction).encode(Fixed(bits, fraction).decode(codes)), codes)


def test_fixed_nan_is_zero_and_high_bits_are_ignored():
    assert Fixed(8, 7).encode([np.nan]).tolist() == [0]
    assert Fixed(8, 7).decode([0x1FF, -1]).tolist() == [-(2.0**-7)] * 2


@pytest.mark.parametrize("bits, gamma", [(8, 8), (5, 1), (16, 2048)])
def test_log_decode(bits, gamma):
    codes = np.arange(2**bits)
    values = Log(bits, gamma).decode(codes, scale=0.25)
    half = 2 ** (bits - 1)
    assert values[0] == values[half] == 0 and not np.signbit(values[half])
    np.testing.assert_array_equal(values[half:], -values[:half])
    octaves = np.arange(gamma, half, gamma)
    np.testing.assert_array_equal(values[octaves], np.ldexp(0.25, octaves // gamma))
    np.testing.assert_allclose(values[1:half], 0.25 * 2.0 ** (codes[1:half] / gamma), rtol=2**-52)


# What `narrowgauge list formats` tells.


def test_limits_of_floats_are_those_of_ml_dtypes_and_numpy():
    for name, dtype in (("fp32", np.float32), ("fp16", np.float16), ("bf16", ml_dtypes.bfloat16),
                        ("fp8-e5m2", ml_dtypes.float8_e5m2), ("fp8-e4m3", ml_dtypes.float8_e4m3fn),
                        ("fp6-e3m2", ml_dtypes.float6_e3m2fn), ("fp6-e2m3", ml_dtypes.float6_e2m3fn),
                        ("fp4-e2m1", ml_dtypes.float4_e2m1fn)):
        info = ml_dtypes.finfo(dtype)
        ends = float(info.smallest_subnormal), float(info.max)
        assert PRESETS[name].limits == (info.bits, info.nmant + 1, *ends, False)


def test_limits_of_other_formats():
    # 4 bits and a sixteenth of 8; 15 * 2**(128 - 3).
    assert BlockFloat(16, 4).limits == (5.5, 4, 2.0**-130, 15 * 2.0**125, False)
    # Elements of up to 6, and of 1/2 at the least, under scales from 2**-127 to 2**127.
    assert mx.PRESETS["mxfp4-e2m1"].limits == (4.25, 2, 2.0**-128, 6 * 2.0**127, False)
    assert mx.PRESETS["mxint8"].limits[:2] == (8.25, 7)
    assert Fixed(8, 6).limits == (8, 7, 2.0**-6, 127 / 64, False)
    # Each number is twice the one before.
    assert Log(4, 1).limits == (4, 0, 2, 128, True) and Log(8, 8).limits.largest == 2 ** (127 / 8)
    assert Log(16, 1).limits.largest == np.inf  # beyond float64
