"""The random words of golden's `words`, made in torch: the same bits for the same address.

Source: numerics contract, section 2.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ..base.checks import require
from ..golden.number_system import Draws, vectors_of
from ..golden.rounding import Rounding
from ..golden.words import USE, VECTOR, U, V, blocks_of, key

__all__ = ["count_of", "element_words", "group_words", "words"]

LANES = 16  # numbers of a row that share a vector, where numbers have no groups
SLAB = 1 << 16  # blocks that are made at a time, so that every intermediate tensor stays in the cache


def _twice(r: Tensor) -> Tensor:
    """Return 16-bit numbers in both halves of 32 bits: a shift right by 16 - n is then a rotation left by n."""
    return (r << 16).bitwise_or_(r)


def _left(x: Tensor, places: int) -> Tensor:
    """Rotate 32-bit numbers left, into a new tensor."""
    return (x >> (32 - places)).bitwise_and_((1 << places) - 1).bitwise_or_(x << places)


def _signed(word: int) -> int:
    """Return 32 bits as the int32 that has them."""
    return (word ^ 1 << 31) - (1 << 31)


def _mixed(x: Tensor, y: Tensor, more: Tensor | int) -> Tensor:
    """Return x ^ y ^ more in the memory of x."""
    return x.bitwise_xor_(y).bitwise_xor_(more)


def _both(x: Tensor, p: int, y: Tensor, q: int) -> Tensor:
    """Return x rotated left by p places, and y by q, where both have a one."""
    return _left(x, p).bitwise_and_(_left(y, q))


def _blocks(key: int, index: Tensor) -> Tensor:
    """Return the blocks of indices (n,), int32: int32 of shape (n, 4). What can be is done in place."""
    k0, k1, k2 = (key >> place & 0xFFFF for place in (0, 16, 32))
    r, left = (index & 0xFFFF).bitwise_xor_(k0), (index >> 16).bitwise_and_(0xFFFF)
    for more in (k1, None, k2, None):
        both = _twice(r)
        left = _mixed((both >> 15).bitwise_and_(both >> 2), left, both >> 3 if more is None else more)
        both = _twice(left.bitwise_and_(0xFFFF))
        r = _mixed((both >> 7).bitwise_and_(both >> 5), r, both >> 12).bitwise_and_(0xFFFF)
    s = (left << 16).bitwise_or_(r)
    t = _mixed(_both(s, 18, s, 11), _left(s, 5), _signed(key >> 32))
    u = _mixed(_both(t, 21, s, 28), _left(t, 9), _left(s, 22)).bitwise_xor_(_signed(U))
    v = _mixed(_both(s, 7, u, 26), _left(u, 13), _left(t, 27)).bitwise_xor_(_signed(V))
    s = _mixed(_both(v, 21, u, 12), s, _left(u, 3))
    t = _mixed(_both(u, 25, v, 6), t, _left(v, 17))
    u = _mixed(_both(s, 26, t, 14), u, _left(t, 9))
    v = _mixed(_both(t, 2, s, 11), v, _left(s, 22))
    return torch.stack([s, t, u, v], dim=1)


def words(draws: Draws, lanes: int, count: int, bits: int, device: Any = None) -> Tensor:
    """Return the random words of `count` vectors of so many lanes, from an address on: uint8 or int32, (count, lanes).

    Words of at most 8 bits are uint8. The bits are those of `golden.number_system.Draws.stream`.
    """
    require(draws.row is None, "row of words", draws.row, "None")
    each = blocks_of(lanes, bits)
    limit = (1 << VECTOR) // each
    require(0 <= draws.vector <= limit - count, "vectors", draws.vector + count,
            f"at most {limit} of {lanes} lanes in one operand, because each has random words of its own")
    require(0 <= draws.use < 1 << USE, "use", draws.use, f"an integer from 0 to {(1 << USE) - 1}")
    address = key(draws.seed, draws.step)
    first = draws.vector * each + (draws.use << VECTOR)
    found = torch.empty(count * each, 4, dtype=torch.int32, device=device)
    for start in range(0, len(found), SLAB):
        stop = min(start + SLAB, len(found))
        index = torch.arange(first + start, first + stop, device=device).to(torch.int32)
        found[start:stop] = _blocks(address, index)
    if bits <= 8:
        numbers = found.view(torch.uint8).view(count, each * 16)[:, :lanes]
        return numbers >> (8 - bits) if bits < 8 else numbers
    return (found.view(torch.int16).view(count, each * 8)[:, :lanes].to(torch.int32) & 0xFFFF) >> (16 - bits)


def count_of(x: Tensor, axis: int, group: int) -> int:
    """Return the vectors of random words that the groups of a tensor along an axis take."""
    return x.numel() // max(1, x.shape[axis]) * -(-x.shape[axis] // group)


def group_words(given: Any, rounding: Rounding, group: int, rows: int, device: Any) -> Tensor | None:
    """Return the random words for rows of groups, shape (rows, group), or None unless the rounding is stochastic.

    Parameters
    ----------
    given : Draws, or tensor or array of int
        An address, or the words themselves, in the order of golden's `draw_words`.
    """
    if rounding.kind != "stochastic":
        return None
    if isinstance(given, Draws):
        return words(given, group, rows, rounding.bits, device)
    found = _given(given, device)
    require(found.numel() == rows * group, "shape of words", tuple(found.shape), f"{rows} rows of {group} words")
    return found.reshape(rows, group)


def element_words(given: Any, rounding: Rounding, shape: tuple[int, ...], device: Any) -> Tensor | None:
    """Return a random word for each number, of that shape, or None unless the rounding is stochastic.

    For an address they are those of `Draws.rows`: 16 numbers of a row share a vector.
    """
    if rounding.kind != "stochastic":
        return None
    if isinstance(given, Draws):
        *outer, columns = shape or (1,)
        each = vectors_of(columns)
        found = words(given, LANES, math.prod(outer) * each, rounding.bits, device)
        return found.reshape(math.prod(outer), each * LANES)[:, :columns].reshape(shape)
    found = _given(given, device)
    require(found.shape == shape, "shape of words", tuple(found.shape), str(tuple(shape)))
    return found


def _given(given: Any, device: Any) -> Tensor:
    require(given is not None, "words", given,
            "Draws(seed) or a tensor of random words, because the rounding is stochastic")
    found = torch.as_tensor(given, device=device)
    require(not found.is_floating_point() and not found.is_complex(), "dtype of words", str(found.dtype), "integers")
    return found
