"""The random words against a reading of the contract in Python's integers, published vectors, and statistics."""

import hashlib

import numpy as np
import pytest
from narrowgauge.golden import words
from narrowgauge.golden.words import Stream, blocks, blocks_of, key, stages

pytestmark = pytest.mark.filterwarnings("error")

EVERY_WIDTH = range(1, 17)


def left(x, places, width):
    """Rotate an integer of `width` bits."""
    return (x << places | x >> width - places) % (1 << width)


def block(key, index):
    """The reference: numerics contract, section 2, line by line, as 16 bytes."""
    k0, k1, k2, high = key % 2**16, key >> 16 & 0xFFFF, key >> 32 & 0xFFFF, key >> 32
    r, h = index % 2**16 ^ k0, index >> 16
    for k in (k1, None, k2, None):
        h ^= left(r, 1, 16) & left(r, 14, 16)
        h ^= left(r, 13, 16) if k is None else k
        r ^= left(h, 9, 16) & left(h, 11, 16) ^ left(h, 4, 16)
    s = h << 16 | r
    t = left(s, 5, 32) ^ (left(s, 18, 32) & left(s, 11, 32)) ^ high
    u = left(t, 9, 32) ^ left(s, 22, 32) ^ (left(t, 21, 32) & left(s, 28, 32)) ^ 0xA4093822
    v = left(u, 13, 32) ^ left(t, 27, 32) ^ (left(s, 7, 32) & left(u, 26, 32)) ^ 0x299F31D0
    s ^= left(u, 3, 32) ^ (left(v, 21, 32) & left(u, 12, 32))
    t ^= left(v, 17, 32) ^ (left(u, 25, 32) & left(v, 6, 32))
    u ^= left(t, 9, 32) ^ (left(s, 26, 32) & left(t, 14, 32))
    v ^= left(s, 22, 32) ^ (left(t, 2, 32) & left(s, 11, 32))
    return b"".join(each.to_bytes(4, "little") for each in (s, t, u, v))


def chain(*parts):
    found = 0x243F6A8885A308D3
    for part in parts:
        found = int.from_bytes(block(found, part)[:8], "little")
    return found


def test_the_constants_are_digits_of_pi():
    """By Machin's formula, in integers."""
    def arctangent(x):
        unit, total, power, k = 1 << 240, 0, (1 << 240) // x, 1
        while power:
            total += power // k if k % 4 == 1 else -(power // k)
            power, k = power // (x * x), k + 2
        return total, unit
    (a, unit), (b, _) = arctangent(5), arctangent(239)
    fraction = 4 * (4 * a - b) - 3 * unit
    digits = f"{fraction >> 40:050x}"
    assert digits.startswith(f"{words.START:016x}")
    assert f"{words.U:08x}" in digits and f"{words.V:08x}" in digits


def test_blocks_are_those_that_were_measured_before():
    """Of keys whose chain had three words, made by another implementation."""
    first = chain(1, 1 << 8, 0)
    assert first == 0x0EA4DA7D66509C4D
    found = blocks(first, np.arange(1 << 16, dtype=np.uint32))
    assert found[0].tobytes().hex() == "3d3ba14b0993a5362c3e8596993739bd"
    assert hashlib.md5(found.tobytes()).hexdigest() == "08f3c3a793b9b98709265a05a7d5172e"
    second = chain(3462, 7 << 8, 100000)
    assert second == 0xB54FFE1035C3AC31
    found = blocks(second, np.array([0, 1, 0xFFFFFF], np.uint32))
    assert [each.tobytes().hex() for each in found] == [
        "ab1a46e9d5d145fc3c0baffebb6e0d09", "2dc032bc6828e0c9643c9820e7c7690f", "85662350da705e57ff8927f879b0905e"]


def test_blocks_and_keys_are_the_reference():
    rng = np.random.default_rng(1)
    index = np.concatenate([[0, 1, 2**16 - 1, 2**16, 2**32 - 1], rng.integers(0, 2**32, 300)]).astype(np.uint32)
    for seed, step in [(0, 0), (1, 0), (2**32 - 1, 2**32 - 1), (3462, 100000)]:
        number = key(seed, step)
        assert number == chain(seed, step)
        found = blocks(number, index)
        assert [each.tobytes() for each in found] == [block(number, int(each)) for each in index]
        # The states that the hardware starts in end in the block.
        assert np.array_equal(np.stack(stages(number, index)[-1], 1).astype("<u4").view(np.uint8), found)
    assert len(blocks(key(1), np.arange(0, dtype=np.uint32))) == 0
    many = np.arange(3 * words.SLAB + 5, dtype=np.uint32)
    assert blocks(key(1), many)[-1].tobytes() == block(key(1), len(many) - 1)


@pytest.mark.parametrize("lanes, bits, count", [(1, 1, 1), (16, 8, 1), (17, 8, 2), (32, 8, 2), (48, 3, 4), (64, 8, 4),
                                               (8, 9, 1), (9, 16, 2), (16, 12, 2), (64, 16, 8)])
def test_a_vector_takes_whole_blocks(lanes, bits, count):
    assert blocks_of(lanes, bits) == count
    number, use, vectors = key(7, 3), 5, [0, 1, 100, 7]
    found = words.words(number, lanes, np.array(vectors), bits, use)
    size = 1 if bits <= 8 else 2
    for vector, row in zip(vectors, found):
        text = b"".join(block(number, (use << 22) + vector * count + part) for part in range(count))
        wide = [int.from_bytes(text[size * lane:size * (lane + 1)], "little") for lane in range(lanes)]
        assert row.tolist() == [each >> 8 * size - bits for each in wide]


@pytest.mark.parametrize("bits", EVERY_WIDTH)
def test_a_stream_draws_as_words_are_addressed(bits):
    whole = words.words(key(3, 9), 20, np.arange(50), bits, 6)
    stream = Stream(3, 20, bits=bits, step=9, use=6)
    drawn = [stream.draw(count) for count in (0, 1, 7, 30, 12)]
    assert np.array_equal(np.concatenate(drawn), whole) and stream.drawn == 50
    assert np.array_equal(Stream(3, 20, bits=bits, step=9, use=6, vector=31).draw(5), whole[31:36])
    assert whole.max() < 1 << bits
    # Of rows of five vectors the last two, from row 2 on.
    part = Stream(3, 20, bits=bits, step=9, use=6, vector=13, row=(2, 5))
    assert np.array_equal(np.concatenate([part.draw(3), part.draw(4)]), whole[[13, 14, 18, 19, 23, 24, 28]])


def test_a_use_ends_where_the_next_one_begins():
    """A bounded stream says so before it repeats the next use's words; a unit's count goes on, to its own start."""
    last = (1 << 22) - 1
    stream = Stream(1, 16, use=2, vector=last, bounded=True)
    row = stream.draw(1)
    with pytest.raises(ValueError, match="^vectors is 4194305; allowed: at most 4194304 of 16 lanes"):
        stream.draw(1)
    assert np.array_equal(stream.draw(0), row[:0])
    with pytest.raises(ValueError, match="at most 1048576 of 64 lanes"):
        Stream(1, 64, bounded=True).draw(1 << 22)
    unit = Stream(1, 16, vector=2**32 - 1)
    assert unit.draw(2)[1].tolist() == Stream(1, 16).draw(1)[0].tolist()


@pytest.mark.parametrize("made", [lambda: key(-1), lambda: key(1 << 32), lambda: key(1, 1 << 32),
                                  lambda: words.words(1, 1, np.arange(2), 17), lambda: words.words(1, 1, [0], 8, 1024)])
def test_what_has_no_address_is_refused(made):
    with pytest.raises(ValueError, match="allowed"):
        made()


def windows(values, length=8):
    """Every window of bytes along the first axis of (n, lanes), as 64-bit integers."""
    return np.concatenate([np.lib.stride_tricks.sliding_window_view(lane, length).copy().view("<u8").ravel()
                           for lane in values.astype(np.uint8).T])


def test_no_lane_repeats_another_ones_words():
    """Of the seed whose lanes 7 and 15 were the same from draw 1,125 on, of neighbours, and of every use and step."""
    parts = [words.words(key(3462), 64, np.arange(4000), 8, 900)]
    parts += [words.words(key(seed, step), 16, np.arange(300), 8, use)
              for seed in (3461, 3462, 3463) for step in (0, 1, 2, 2**31) for use in (0, 1, 2, 255, 1023)]
    found = np.concatenate([windows(each) for each in parts])
    assert len(np.unique(found)) == len(found)


def test_blocks_of_a_key_differ():
    found = blocks(key(5), np.arange(1 << 18, dtype=np.uint32) * np.uint32(12345)).view("<u8")
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == 1 << 18


def test_every_bit_is_right_half_of_the_time_and_pairs_are_independent():
    """Bits of 2**16 blocks, their pairs, and pairs of bits in neighbouring blocks: within 5.5 standard deviations."""
    count = np.arange(1 << 16)
    for index in (count, count << 16, count % 1024 << 22 | count >> 10):
        bits = np.unpackbits(blocks(key(11, 4), index.astype(np.uint32)), axis=1).astype(np.float32) * 2 - 1
        n = len(bits)
        for a, b in ((bits, None), (bits, bits), (bits[1:], bits[:-1]), (bits[2:], bits[:-2])):
            sums = bits.sum(axis=0) if b is None else a.T @ b
            if a is b:
                np.fill_diagonal(sums, 0)
            assert np.abs(sums).max() < 5.5 * n**0.5


def test_one_bit_of_an_address_changes_half_of_the_block():
    """Of seed, step and index: each of 128 bits changes in 0.47 to 0.53 of 8,192 blocks."""
    rng = np.random.default_rng(2)
    index = rng.integers(0, 2**32, 8192).astype(np.uint32)
    base = np.unpackbits(blocks(key(1, 1), index), axis=1)
    others = [blocks(key(1, 1), index ^ np.uint32(1 << place)) for place in range(32)]
    others += [blocks(key(1 ^ 1 << place, 1), index) for place in range(32)]
    others += [blocks(key(1, 1 ^ 1 << place), index) for place in range(32)]
    for other in others:
        share = (np.unpackbits(other, axis=1) ^ base).mean(axis=0)
        assert share.min() > 0.47 and share.max() < 0.53


@pytest.mark.parametrize("bits", [1, 2, 8, 12])
def test_rounding_is_unbiased_in_every_lane(bits):
    """Means of 2**16 words a lane are within 5 standard deviations of an even distribution's."""
    drawn = Stream(21, 32, bits=bits).draw(1 << 16).astype(np.float64)
    levels = 1 << bits
    deviation = ((levels**2 - 1) / 12 / len(drawn)) ** 0.5
    assert np.abs(drawn.mean(axis=0) - (levels - 1) / 2).max() < 5 * deviation
