"""Random words by address: a block of 16 bytes for each (key, index), made without a state.

A word belongs to (seed, step, use, vector, lane), not to a cycle or to an order. So a run resumes at any step, and
circuits of any schedule make the same words. Source: numerics contract, section 2; the function is ours.
"""

from functools import lru_cache

import numpy as np

from ..base.checks import require, require_int

__all__ = [
    "STAGES", "START", "USE", "VECTOR", "Stream", "blocks", "blocks_of", "chained", "counted", "key", "stages", "words",
]

# Bits of pi.
START, U, V = 0x243F6A8885A308D3, 0xA4093822, 0x299F31D0
# Bits of an index: those of a block's number in its operand, and above them those of the use.
VECTOR, USE = 22, 10
# Registers of the hardware, one behind the other.
STAGES = 7
# Blocks that are made at a time, so that every intermediate array stays in the cache.
SLAB = 1 << 13


def _left(x: np.ndarray, places: int) -> np.ndarray:
    """Rotate unsigned integers left, in their own width."""
    kind = x.dtype.type
    return x << kind(places) | x >> kind(8 * x.itemsize - places)


def _f(r: np.ndarray) -> np.ndarray:
    return _left(r, 1) & _left(r, 14)


def _g(left: np.ndarray) -> np.ndarray:
    return (_left(left, 9) & _left(left, 11)) ^ _left(left, 4)


def stages(key: int, index: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Return what the hardware's registers hold of blocks, stage by stage: (r, l), (s, t, u), (s, t, u, v).

    Parameters
    ----------
    key : int
        64 bits.
    index : ndarray of uint32

    Returns
    -------
    list of `STAGES` tuples
        Four of (r, l), uint16; then (s, t, u), (s, t, u, v) and the block itself, four uint32.
    """
    k0, k1, k2 = (np.uint16(key >> place & 0xFFFF) for place in (0, 16, 32))
    high = np.uint32(key >> 32)
    r, left = (index & np.uint32(0xFFFF)).astype(np.uint16) ^ k0, (index >> np.uint32(16)).astype(np.uint16)
    found: list[tuple[np.ndarray, ...]] = []
    for more in (k1, None, k2, None):
        left = left ^ _f(r) ^ (_left(r, 13) if more is None else more)
        r = r ^ _g(left)
        found.append((r, left))
    s = left.astype(np.uint32) << np.uint32(16) | r
    t = _left(s, 5) ^ (_left(s, 18) & _left(s, 11)) ^ high
    u = _left(t, 9) ^ _left(s, 22) ^ (_left(t, 21) & _left(s, 28)) ^ np.uint32(U)
    found.append((s, t, u))
    v = _left(u, 13) ^ _left(t, 27) ^ (_left(s, 7) & _left(u, 26)) ^ np.uint32(V)
    s = s ^ _left(u, 3) ^ (_left(v, 21) & _left(u, 12))
    t = t ^ _left(v, 17) ^ (_left(u, 25) & _left(v, 6))
    found.append((s, t, u, v))
    u = u ^ _left(t, 9) ^ (_left(s, 26) & _left(t, 14))
    v = v ^ _left(s, 22) ^ (_left(t, 2) & _left(s, 11))
    found.append((s, t, u, v))
    return found


def blocks(key: int, index: np.ndarray) -> np.ndarray:
    """Return the blocks of indices (n,), uint32: bytes of shape (n, 16)."""
    out = np.empty((len(index), 4), "<u4")
    for start in range(0, len(index), SLAB):
        part = slice(start, start + SLAB)
        for column, word in enumerate(stages(key, index[part])[-1]):
            out[part, column] = word
    return out.view(np.uint8)


@lru_cache(1 << 10)
def key(seed: int, step: int = 0) -> int:
    """Return the key of a step, of 64 bits; seed and step have 32 bits each."""
    require_int("seed", seed, 0, (1 << 32) - 1)
    require_int("step", step, 0, (1 << 32) - 1)
    return chained(chained(START, seed), step)


def chained(key: int, index: int) -> int:
    """Return the key that follows a key in a chain: the first 8 bytes of its block."""
    return int.from_bytes(blocks(key, np.array([index], np.uint32))[0, :8].tobytes(), "little")


def blocks_of(lanes: int, bits: int) -> int:
    """Return the blocks of a vector of so many lanes, a power of two: a block has 16 bytes, or 8 words of 9 to 16 bits.
    """
    return 1 << (-(-lanes // (16 if bits <= 8 else 8)) - 1).bit_length()


def words(key: int, lanes: int, vectors: np.ndarray, bits: int, use: int = 0) -> np.ndarray:
    """Return the random words of vectors, shape (n, lanes), uint16.

    Parameters
    ----------
    key : int
        See the function `key`.
    lanes : int
    vectors : ndarray of int, shape (n,)
        Numbers of the vectors.
    bits : int
        Width of a word, 1 to 16.
    use : int
        0 to 2**`USE` - 1. The blocks of its vectors are 2**`VECTOR`; beyond them the next use's follow, and in the end
        the first one's.
    """
    require_int("bits", bits, 1, 16)
    require_int("use", use, 0, (1 << USE) - 1)
    count = blocks_of(lanes, bits)
    first = np.asarray(vectors).astype(np.uint32) * np.uint32(count) + np.uint32(use << VECTOR)
    index = first if count == 1 else (first[:, np.newaxis] + np.arange(count, dtype=np.uint32)).ravel()
    found = blocks(key, index).reshape(len(first), count * 16)
    found = (found if bits <= 8 else found.view("<u2"))[:, :lanes]
    return (found >> found.dtype.type(8 * found.itemsize - bits) if bits % 8 else found).astype(np.uint16)


def counted(seed: int, lanes: int, first: int, count: int, bits: int = 8) -> np.ndarray:
    """Return the words of `count` vectors of a unit that counts them, from the `first` one on: see `words`."""
    return words(key(seed), lanes, np.arange(first, first + count), bits)


class Stream:
    """The words of one use in a step, or of a unit that counts its vectors: each `draw` takes the next vectors'.

    Parameters
    ----------
    seed, step, use : int
        As for `key` and `words`.
    lanes, bits : int
        As for `words`.
    vector : int
        The first one to draw.
    row : (length, pitch), optional
        After so many vectors the next one is `pitch` behind the first of these. None: they follow each other.
    bounded : bool
        Whether the use has no more vectors than fit its index. A unit's count goes on.

    Attributes
    ----------
    drawn : int
        Vectors drawn so far.
    """

    def __init__(self, seed: int, lanes: int, *, bits: int = 8, step: int = 0, use: int = 0, vector: int = 0,
                 row: tuple[int, int] | None = None, bounded: bool = False) -> None:
        self.lanes, self.bits, self.use, self.vector, self.row, self.bounded = lanes, bits, use, vector, row, bounded
        self.drawn = 0
        self.key = key(seed, step)

    def draw(self, count: int) -> np.ndarray:
        """Return the words of the next `count` vectors, shape (count, lanes), and move on."""
        numbers = np.arange(self.drawn, self.drawn + count)
        if self.row:
            rows, at = np.divmod(numbers, self.row[0])
            numbers = rows * self.row[1] + at
        numbers += self.vector
        if self.bounded and count:
            limit = (1 << VECTOR) // blocks_of(self.lanes, self.bits)
            require(int(numbers[-1]) < limit, "vectors", int(numbers[-1]) + 1,
                    f"at most {limit} of {self.lanes} lanes in one operand, because each has random words of its own")
        self.drawn += count
        return words(self.key, self.lanes, numbers, self.bits, self.use)
