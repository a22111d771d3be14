"""The random words against the polynomial alone: multiplication by x, modulo x^32 + x^22 + x^2 + x + 1, over GF(2)."""

import numpy as np
import pytest
from narrowgauge.golden import lfsr

pytestmark = pytest.mark.filterwarnings("error")

POLYNOMIAL = sum(1 << power for power in (32, 22, 2, 1, 0))
PERIOD = 2**32 - 1
PRIMES = (3, 5, 17, 257, 65537)
EVERY_WIDTH = range(1, 17)


def shifted(state, count=1):
    """Bit by bit."""
    for _ in range(count):
        state <<= 1
        state ^= POLYNOMIAL if state >> 32 else 0
    return state


def drawn(state, count, bits):
    """The reference: the top bits, then as many single shifts."""
    result = []
    for _ in range(count):
        result.append(state >> (32 - bits))
        state = shifted(state, bits)
    return result


def product(a, b):
    """Of two polynomials, modulo POLYNOMIAL."""
    result = 0
    while b:
        result ^= a if b & 1 else 0
        a, b = shifted(a), b >> 1
    return result


def power_of_x(exponent):
    result, square = 1, 2
    while exponent:
        result = product(result, square) if exponent & 1 else result
        square, exponent = product(square, square), exponent >> 1
    return result


def rank(vectors):
    """Of integers as vectors over GF(2)."""
    basis = []
    for vector in vectors:
        for pivot in basis:
            vector = min(vector, vector ^ pivot)
        if vector:
            basis.append(vector)
    return len(basis)


def test_the_constants_are_the_polynomial():
    assert lfsr.WIDTH == 32
    assert lfsr.TAPS == POLYNOMIAL ^ 1 << 32


def test_the_prime_factors_of_the_period_are_complete():
    assert np.prod(PRIMES, dtype=object) == PERIOD
    assert all(p % d for p in PRIMES for d in range(2, int(p**0.5) + 1))


def test_the_length_is_maximal():
    """The order of the map divides 2**32 - 1, and none of its largest divisors."""
    identity = tuple(1 << i for i in range(32))
    assert lfsr.leap_matrix(PERIOD) == identity
    for prime in PRIMES:
        assert lfsr.leap_matrix(PERIOD // prime) != identity
    # The same of the polynomial itself, without the code under test.
    assert power_of_x(PERIOD) == 1
    assert all(power_of_x(PERIOD // prime) != 1 for prime in PRIMES)


@pytest.mark.parametrize("positions", [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 1000])
def test_leap_matrix_is_that_many_single_shifts(positions):
    assert lfsr.leap_matrix(positions) == tuple(shifted(1 << i, positions) for i in range(32))


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_a_draw_leaps_its_own_width(bits):
    """Both ways in which `words` leaps, from many states."""
    seed, lanes = 9, 64
    first, second = lfsr.words(seed, lanes, 0, 2, bits)
    starts = [lfsr.start_state(seed, lane) for lane in range(lanes)]
    assert first.tolist() == [state >> (32 - bits) for state in starts]
    assert second.tolist() == [shifted(state, bits) >> (32 - bits) for state in starts]


@pytest.mark.parametrize("positions", [0, 1, 5, 16, 100, 10**6, PERIOD - 1, PERIOD, PERIOD + 7, 2**70 + 12345])
def test_jump_is_a_power_of_x(positions):
    for state in (1, 0x80000000, 0xFFFFFFFF, 0x12345678):
        assert lfsr.jump(state, positions) == product(state, power_of_x(positions))


def test_jumps_add_up():
    state = lfsr.start_state(3, 4)
    assert lfsr.jump(lfsr.jump(state, 123456789), 987654321) == lfsr.jump(state, 123456789 + 987654321)
    assert lfsr.jump(0, 1000) == 0


# SplitMix64's first output for the states 0 and 1234567, as its authors and many libraries print it.
@pytest.mark.parametrize("seed, lane, output", [(0, 0, 0xE220A8397B1DCDAF), (18, 54919, 6457827717110365317)])
def test_start_state_is_the_high_half_of_splitmix64(seed, lane, output):
    assert (seed << 16) + lane in (0, 1234567)
    assert lfsr.start_state(seed, lane) == output >> 32


def test_start_states_are_never_zero_and_lanes_differ():
    for seed in [*range(300), 2**31 - 1]:
        states = {lfsr.start_state(seed, lane) for lane in range(64)}
        assert len(states) == 64 and all(0 < state <= PERIOD for state in states)
    assert len({lfsr.start_state(seed, 0) for seed in range(3000)}) == 3000


def unxorshift(z, shift):
    """Invert z ^ (z >> shift) on 64 bits."""
    x = z
    for _ in range(64 // shift):
        x = z ^ x >> shift
    return x


@pytest.mark.parametrize("low", [0, 1, 0x12345678, 0xFFFFFFFF])
def test_a_hash_of_zero_starts_at_all_ones(low):
    """SplitMix64 run backwards gives the seed and lane whose high half is zero."""
    z = unxorshift(low, 31)
    z = unxorshift(z * pow(0x94D049BB133111EB, -1, 2**64) % 2**64, 27)
    z = unxorshift(z * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64, 30)
    z = (z - 0x9E3779B97F4A7C15) % 2**64
    assert lfsr.start_state(z >> 16, z & 0xFFFF) == 0xFFFFFFFF


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_words_are_the_reference_bit_by_bit(bits):
    words = lfsr.words(seed=5, lanes=3, step=0, count=400, bits=bits)
    assert words.shape == (400, 3) and words.dtype == np.uint16
    for lane in range(3):
        assert words[:, lane].tolist() == drawn(lfsr.start_state(5, lane), 400, bits)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 100, 511, 1021])
@pytest.mark.parametrize("step", [0, 1, 2, 15, 16, 17, 999])
def test_slices_agree_with_one_long_run(step, count):
    for bits, lanes in ((8, 4), (11, 1), (16, 2)):
        long = LONG[bits]
        words = lfsr.words(77, lanes, step, count, bits)
        assert words.shape == (count, lanes)
        np.testing.assert_array_equal(words, long[step:step + count, :lanes])


LONG = {bits: np.array([drawn(lfsr.start_state(77, lane), 2100, bits) for lane in range(4)]).T for bits in (8, 11, 16)}


@pytest.mark.parametrize("count", [4096 * 16, 4096 * 16 + 1, 4096 * 17 - 1, 100_003])
def test_the_widest_layout_agrees_with_short_slices(count):
    """Above 65,536 draws the number of runs side by side stops growing."""
    words = lfsr.words(1, 3, 0, count)
    assert words.shape == (count, 3)
    for step in (0, 1, 16, 17, 24, 25, 4097, count // 2, count - 40):
        np.testing.assert_array_equal(words[step:step + 40], lfsr.words(1, 3, step, 40))


@pytest.mark.parametrize("bits", [1, 8, 13])
def test_a_far_step_is_jumped_to(bits):
    step = 10**15 + 1
    state = product(lfsr.start_state(6, 2), power_of_x(step * bits))
    assert lfsr.words(6, 3, step, 50, bits)[:, 2].tolist() == drawn(state, 50, bits)


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_consecutive_draws_are_independent_bits(bits):
    """As functions of the state, all bits of 32 // bits draws in a row: none repeats or follows from the others."""
    draws = 32 // bits
    outputs = []
    for i in range(32):
        word = 0
        for value in drawn(1 << i, draws, bits):
            word = word << bits | value
        outputs.append(word)
    assert rank(outputs) == draws * bits


@pytest.mark.parametrize("bits", range(1, 11))
def test_up_to_ten_bits_draws_cut_one_bit_stream(bits):
    """The draws, put end to end, are the bits that leave the register one by one: none is used twice or skipped."""
    words = lfsr.words(8, 1, 0, 120, bits)[:, 0].tolist()
    stream = "".join(f"{word:0{bits}b}" for word in words)
    assert stream == "".join(map(str, drawn(lfsr.start_state(8, 0), 120 * bits, 1)))


def test_every_word_is_as_likely():
    counts = np.bincount(lfsr.words(2, 16, 0, 2**14)[:, :].ravel(), minlength=256)
    expected = counts.sum() / 256
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert 150 < chi_squared < 380  # 255 degrees of freedom: beyond five standard deviations either way


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_stream_goes_on_where_it_stopped(bits):
    whole = lfsr.words(4, 5, 0, 100, bits)
    stream = lfsr.Stream(4, 5, bits=bits)
    parts = [stream.draw(count) for count in (1, 0, 17, 32)]
    assert stream.step == 50
    resumed = lfsr.Stream(4, 5, bits=bits, step=stream.step)
    parts += [resumed.draw(count) for count in (3, 47)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    stream.step = 20
    np.testing.assert_array_equal(stream.draw(10), whole[20:30])


def test_streams_of_other_seeds_and_lanes_differ():
    words = [lfsr.words(seed, 4, 0, 64) for seed in range(8)]
    columns = np.concatenate(words, axis=1).T
    assert len({column.tobytes() for column in columns}) == 32
    np.testing.assert_array_equal(lfsr.words(3, 9, 0, 64)[:, :4], words[3])


@pytest.mark.parametrize("bits", [0, -1, 17, 32, 8.0, True, None, "8"])
def test_a_draw_of_another_width_is_an_error(bits):
    with pytest.raises(ValueError, match=rf"^bits is {bits!r}; allowed: an integer from 1 to 16$"):
        lfsr.words(1, 1, 0, 4, bits)
    with pytest.raises(ValueError, match=r"^bits is "):
        lfsr.Stream(1, 1, bits=bits).draw(4)
