"""Random words: one 32-bit maximal-length LFSR per lane, replayed from (seed, lane, step).

The register is x^32 + x^22 + x^2 + x + 1 in Galois form and shifts left: the bit that leaves
at the top is fed back at positions 22, 2, 1 and 0. A k-bit draw takes the top k bits and then
leaps k positions, so that draws never share a bit. Source: numerics contract, section 2; the
hash and the bit order are ours.
"""

from functools import lru_cache

import numpy as np

from ..base.checks import require_int

__all__ = ["TAPS", "WIDTH", "Stream", "jump", "leap_matrix", "start_state", "words"]

WIDTH = 32
TAPS = 1 << 22 | 1 << 2 | 1 << 1 | 1
MASK = (1 << WIDTH) - 1


def start_state(seed: int, lane: int) -> int:
    """Return the 32-bit state, never zero, in which `lane` starts under `seed`.

    A SplitMix64 step over ``seed * 2**16 + lane``, whose high half is taken.
    """
    z = ((seed << 16) + lane + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return ((z ^ (z >> 31)) >> 32) or MASK


def _shift(state: int) -> int:
    return ((state << 1) & MASK) ^ (TAPS if state >> (WIDTH - 1) else 0)


@lru_cache(1 << 12)
def leap_matrix(positions: int) -> tuple[int, ...]:
    """Return the register's GF(2) map over `positions` shifts, as 32 column words.

    Column i is the state reached from the state with only bit i set. The next state of s is the XOR of the columns of
    the bits set in s. The hardware's XOR trees are this table.
    """
    if positions == 0:
        return tuple(1 << i for i in range(WIDTH))
    if positions % 2:
        return tuple(_apply(leap_matrix(positions - 1), _shift(1 << i)) for i in range(WIDTH))
    half = leap_matrix(positions // 2)
    return tuple(_apply(half, column) for column in half)


def _apply(columns: tuple[int, ...], state: int) -> int:
    result = 0
    for i in range(WIDTH):
        if state >> i & 1:
            result ^= columns[i]
    return result


def jump(state: int, positions: int) -> int:
    """Return `state` moved on by any number of single shifts (a Python int, of any size)."""
    return _apply(leap_matrix(positions), state)


def _leap(states: np.ndarray, bits: int) -> np.ndarray:
    """Advance an array of states by `bits` (at most 16) shifts at once."""
    out = states >> np.uint32(WIDTH - bits)
    states = states << np.uint32(bits)
    if bits <= 10:  # what is fed back at 22 does not reach the top again before the leap is done
        fed = out ^ (out << np.uint32(1))
        fed ^= out << np.uint32(2)
        fed ^= out << np.uint32(22)
        return states ^ fed
    columns = leap_matrix(bits)
    for i in range(bits):
        states ^= ((out >> np.uint32(i)) & np.uint32(1)) * np.uint32(columns[WIDTH - bits + i])
    return states


def words(seed: int, lanes: int, step: int, count: int, bits: int = 8) -> np.ndarray:
    """Return random words of shape (count, lanes), uint16: draws step .. step+count-1 of each lane.

    Parameters
    ----------
    seed, lanes, step, count : int
        Lanes 0 .. lanes-1 of `seed`; `step` earlier draws are jumped over, not computed.
    bits : int
        Width of a draw, 1 to 16.
    """
    require_int("bits", bits, 1, 16)
    # Make many short runs side by side, each after a jump, instead of a long run. Run r makes draws r*depth .. of its
    # lane, so NumPy works on (runs * lanes) states at a time.
    runs = max(1, min(4096, count // 16))
    depth = -(-count // runs)
    states = np.empty((runs, lanes), np.uint32)
    states[0] = [jump(start_state(seed, lane), step * bits) for lane in range(lanes)]
    filled, columns = 1, depth * bits
    while filled < runs:  # doubling: the second half is the first, jumped by its length
        take = min(filled, runs - filled)
        states[filled:filled + take] = _apply_array(leap_matrix(columns), states[:take])
        filled, columns = filled * 2, columns * 2
    out = np.empty((runs, depth, lanes), np.uint16)
    for i in range(depth):
        out[:, i] = states >> np.uint32(WIDTH - bits)
        states = _leap(states, bits)
    return out.reshape(runs * depth, lanes)[:count]


def _apply_array(columns: tuple[int, ...], states: np.ndarray) -> np.ndarray:
    result = np.zeros_like(states)
    for i in range(WIDTH):
        result ^= ((states >> np.uint32(i)) & np.uint32(1)) * np.uint32(columns[i])
    return result


class Stream:
    """The lanes of one unit: each `draw` takes the next words of every lane.

    Parameters
    ----------
    seed, lanes : int
        As for `words`.
    bits : int
        Width of a draw.
    step : int
        Draws already taken; set it to resume a run.
    """

    def __init__(self, seed: int, lanes: int, *, bits: int = 8, step: int = 0) -> None:
        self.seed, self.lanes, self.bits, self.step = seed, lanes, bits, step
        self._start, self._ahead = step, np.empty((0, lanes), np.uint16)

    def draw(self, count: int) -> np.ndarray:
        """Return the next `count` draws, shape (count, lanes), and move on."""
        # A jump takes milliseconds, however few words follow it: make many, hand out slices.
        at = self.step - self._start
        if at < 0 or at + count > len(self._ahead):
            self._start, at = self.step, 0
            self._ahead = words(self.seed, self.lanes, self.step, max(count, 4096), self.bits)
        self.step += count
        return self._ahead[at:at + count]
