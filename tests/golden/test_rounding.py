"""Rounding of scaled magnitudes against exact fractions, and the bias of stochastic rounding by enumeration."""

from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, Rounding, round_scaled, round_shift, stochastic

pytestmark = pytest.mark.filterwarnings("error")

WIDTHS = (1, 2, 3, 8, 13, 16)
ROUNDINGS = {"nearest": NEAREST, "truncate": TRUNCATE}
ROUNDINGS |= {f"stochastic{k}": stochastic(k) for k in WIDTHS}
ROUNDINGS |= {f"corrected{k}": stochastic(k, corrected=True) for k in WIDTHS}
BOTH = [pytest.param(False, id="plain"), pytest.param(True, id="corrected")]

each_rounding = pytest.mark.parametrize("rounding", [pytest.param(r, id=name) for name, r in ROUNDINGS.items()])


def exact(value, rounding, word):
    """Round a non-negative Fraction as the contract's text says."""
    whole = value.numerator // value.denominator
    d = value - whole
    if rounding.kind == "nearest":
        return round(value)  # Python rounds a Fraction to nearest even
    if rounding.kind == "truncate":
        return whole
    k = rounding.bits
    if rounding.corrected:
        return whole + (int(d * 2 ** (k + 1)) + 2 * word + 1 >= 2 ** (k + 1))
    return whole + (int(d * 2**k) + word >= 2**k)


def every_word(magnitude, shift, rounding):
    """round_shift of an array under each random word: shape (words, ...)."""
    words = np.arange(2**rounding.bits).reshape(-1, *[1] * magnitude.ndim)
    return round_shift(magnitude + 0 * words, shift, rounding, words + 0 * magnitude)


def some_words(rounding, count, rng):
    words = rng.integers(0, 2**rounding.bits, count)
    words[::5], words[1::5] = 0, 2**rounding.bits - 1
    return words


@each_rounding
def test_round_scaled_is_the_definition(rounding):
    rng = np.random.default_rng(1)
    scaled = np.concatenate([
        rng.integers(0, 2**20, 300) + rng.integers(0, 2**20, 300) / 2**20,
        rng.integers(0, 2**45, 100).astype(float),
        rng.integers(0, 2**27, 300) + rng.choice([0, 0.25, 0.5, 0.75, 2.0**-20, 1 - 2.0**-20, 0.5 + 2.0**-20], 300),
        np.ldexp(rng.random(200), rng.integers(-60, 44, 200)),
        [0.0, 0.5, 1.5, 2.5, np.nextafter(0.5, 0), np.nextafter(0.5, 1), np.nextafter(1, 0), np.nextafter(2.0**45, 0)],
    ])
    # The value is spread over magnitude and scale, so that the magnitude may be anything float64 has.
    exponent = rng.integers(-900, 900, scaled.size)
    words = some_words(rounding, scaled.size, rng)
    result = round_scaled(np.ldexp(scaled, -exponent), exponent, rounding, words)
    assert result.dtype == np.int64
    assert result.tolist() == [exact(Fraction(s), rounding, w) for s, w in zip(scaled.tolist(), words.tolist())]


@each_rounding
def test_round_scaled_takes_the_smallest_magnitudes(rounding):
    """Where scaling itself rounds, into float64's subnormals, no bit that counts is lost."""
    magnitude = np.array([5e-324, 1e-310, 2.0**-1022, np.nextafter(2.0**-1000, 1), 0.0])
    assert round_scaled(magnitude, -60, rounding, 2**rounding.bits - 1).tolist() == [0] * 5
    word = 2**rounding.bits - 1
    expected = exact(Fraction(3, 4), rounding, word)
    assert round_scaled(np.array([3 * 2.0**-1074]), 1072, rounding, word).tolist() == [expected]


@each_rounding
def test_round_shift_is_the_definition(rounding):
    rng = np.random.default_rng(2)
    width = rng.integers(1, 41, 1500)
    magnitude = rng.integers(0, 2**40, 1500) >> (40 - width)
    shift = rng.integers(0, 63, 1500)
    shift[:900] = np.clip(width[:900] - rng.integers(-2, 8, 900), 0, 62)
    # Exact ties and exact values among them.
    magnitude[:300] = magnitude[:300] >> shift[:300] << shift[:300]
    magnitude[300:600] |= 1 << np.minimum(shift[300:600], 40) >> 1
    magnitude[300:450] &= -1 << np.maximum(shift[300:450] - 1, 0)
    magnitude = np.minimum(magnitude, 2**40 - 1)
    words = some_words(rounding, magnitude.size, rng)
    result = round_shift(magnitude, shift, rounding, words)
    assert result.dtype == np.int64
    expected = [exact(Fraction(m, 2**s), rounding, w)
                for m, s, w in zip(magnitude.tolist(), shift.tolist(), words.tolist())]
    assert result.tolist() == expected


@each_rounding
def test_the_two_functions_agree(rounding):
    rng = np.random.default_rng(3)
    magnitude, shift = rng.integers(0, 2**40, 20_000), rng.integers(0, 63, 20_000)
    words = some_words(rounding, 20_000, rng)
    np.testing.assert_array_equal(round_shift(magnitude, shift, rounding, words),
                                  round_scaled(magnitude.astype(float), -shift, rounding, words))


@pytest.mark.parametrize("rounded, sign", [pytest.param(round_scaled, -1, id="scaled"),
                                           pytest.param(round_shift, 1, id="shift")])
def test_scale_and_words_broadcast(rounded, sign):
    magnitude, shift, words = np.arange(12).reshape(3, 4), np.arange(4), np.array([[0], [3], [1]])
    result = rounded(magnitude, sign * shift, stochastic(2), words)
    expected = [[exact(Fraction(4 * i + s, 2**s), stochastic(2), int(words[i, 0])) for s in range(4)] for i in range(3)]
    assert result.tolist() == expected


@pytest.mark.parametrize("corrected", BOTH)
@pytest.mark.parametrize("k", range(1, 9))
def test_exact_values_never_change_whatever_the_word(k, corrected):
    whole = np.concatenate([np.arange(40), [2**24 - 1, 2**30]])
    rounding = stochastic(k, corrected)
    assert np.all(every_word(whole << 9, 9, rounding) == whole)
    for word in range(2**k):
        np.testing.assert_array_equal(round_scaled(np.ldexp(whole, -7), 7, rounding, word), whole)


@pytest.mark.parametrize("corrected", BOTH)
@pytest.mark.parametrize("k", range(1, 9))
def test_adjacent_results_only_and_more_noise_never_lowers(k, corrected):
    d = np.arange(2**12)
    result = every_word(5 * 2**12 + d, 12, stochastic(k, corrected))
    assert set(np.unique(result)) == {5, 6}
    assert np.all(np.diff(result, axis=0) >= 0) and np.all(np.diff(result, axis=1) >= 0)


def mean_bias(rounding, grid_bits):
    """Mean of (rounded - exact) in units, over all words and every d = (j + 1/2) / 2**grid_bits, exactly."""
    shift = grid_bits + 1
    odd = 2 * np.arange(2**grid_bits) + 1
    total = sum(int(round_shift(odd, shift, rounding, np.int64(word)).sum()) for word in range(2**rounding.bits))
    return Fraction(total, 2 ** (rounding.bits + grid_bits)) - Fraction(1, 2)


@pytest.mark.parametrize("k", range(1, 9))
def test_mean_bias_is_half_a_step_of_the_noise(k):
    assert mean_bias(stochastic(k), 14) == -Fraction(1, 2 ** (k + 1))


@pytest.mark.parametrize("k", range(1, 9))
def test_corrected_mean_bias_vanishes(k):
    assert mean_bias(stochastic(k, corrected=True), 14) == 0


@pytest.mark.parametrize("grid_bits", [16, 18])
def test_corrected_bias_is_over_100_times_smaller_on_a_plain_grid(grid_bits):
    """As measured in the contract: d = j / 2**grid_bits with its exact values, k = 8."""
    d = np.arange(2**grid_bits)

    def bias(rounding):
        total = sum(int(round_shift(d, grid_bits, rounding, np.int64(word)).sum()) for word in range(256))
        return total / 256 / d.size - d.mean() / 2**grid_bits

    plain, corrected = bias(stochastic(8)), bias(stochastic(8, corrected=True))
    assert plain == pytest.approx(-(2.0**-9), rel=2e-2)
    assert abs(plain) > 100 * abs(corrected)


@pytest.mark.parametrize("k", range(1, 9))
def test_a_fraction_of_k_bits_is_unbiased_in_both(k):
    """Noise of k bits resolves such a d, so that each one is rounded up with probability d."""
    d = np.arange(2**k)
    for corrected in (False, True):
        up = every_word(d, k, stochastic(k, corrected)).sum(axis=0)
        np.testing.assert_array_equal(up, d)


@pytest.mark.parametrize("k", range(1, 9))
def test_a_fraction_of_one_bit_more_goes_half_a_step_off(k):
    """With k words no odd d of k+1 bits can be met: plain is low by half a step of the noise, corrected high."""
    d = np.arange(1, 2 ** (k + 1), 2)
    np.testing.assert_array_equal(2 * every_word(d, k + 1, stochastic(k)).sum(axis=0), d - 1)
    np.testing.assert_array_equal(2 * every_word(d, k + 1, stochastic(k, corrected=True)).sum(axis=0), d + 1)


@pytest.mark.parametrize("corrected", BOTH)
@pytest.mark.parametrize("k", range(1, 9))
def test_window_and_noise_describe_the_addition(k, corrected):
    """What the hardware builds from: add the noise to the top bits of the discarded fraction, take the carry."""
    rounding = stochastic(k, corrected)
    words = np.arange(2**k)[:, np.newaxis]
    d = np.arange(2**11)
    carry = ((d >> (11 - rounding.window)) + rounding.noise(words)) >> rounding.window
    np.testing.assert_array_equal(every_word(d, 11, rounding), carry)


@pytest.mark.parametrize("rounded", [round_scaled, round_shift])
def test_stochastic_needs_words(rounded):
    with pytest.raises(ValueError, match="^random is None; allowed: one random word per element, because rounding"):
        rounded(np.array([1]), 0, stochastic(8))


@pytest.mark.parametrize("kind", ["up", "Nearest", "", None, 0])
def test_unknown_kind_is_an_error(kind):
    with pytest.raises(ValueError, match=f"^rounding is {kind!r}; allowed: nearest, truncate, stochastic$"):
        Rounding(kind)


@pytest.mark.parametrize("bits", [0, 17, -1, True, 8.0, "8", None])
def test_senseless_word_width_is_an_error(bits):
    with pytest.raises(ValueError, match=f"^bits is {bits!r}; allowed: an integer from 1 to 16$"):
        stochastic(bits)


@pytest.mark.parametrize("corrected", [1, 0, "yes", None])
def test_corrected_must_be_a_bool(corrected):
    with pytest.raises(ValueError, match=f"^corrected is {corrected!r}; allowed: true, false$"):
        stochastic(8, corrected)
