"""Arrays cut into groups along one axis, each group to be quantised on its own."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import require
from .arrays import as_real
from .rounding import Rounding
from .words import Stream

__all__ = ["as_groups", "draw_words", "from_groups", "slabs_of"]

SLAB = 1 << 16  # elements worked on at a time, so that every intermediate array stays in the cache


def as_groups(x: ArrayLike, axis: int, group: int) -> tuple[np.ndarray, tuple[int, ...], int]:
    """Return the rows of one group each that `axis` of an array is cut into, its tail padded with zeros.

    Returns
    -------
    rows : ndarray, shape (n, group)
        In C order with the grouped axis last; float32 for float16 and float32, else float64.
    shape : tuple of int
        The shape (..., groups) of an array with one number per row.
    length : int
        Elements along the axis, padding not counted.
    """
    x = as_real("x", x)
    require(x.ndim > 0, "shape of x", x.shape, "one dimension or more")
    require(-x.ndim <= axis < x.ndim, "axis", axis, f"an integer from {-x.ndim} to {x.ndim - 1}")
    if x.dtype not in (np.float32, np.float64):
        x = x.astype(np.float32 if x.dtype == np.float16 else np.float64)
    x = np.moveaxis(x, axis, -1)
    length = x.shape[-1]
    groups = -(-length // group)
    if length % group:
        x = np.concatenate([x, np.zeros((*x.shape[:-1], groups * group - length), x.dtype)], axis=-1)
    return np.ascontiguousarray(x).reshape(-1, group), (*x.shape[:-1], groups), length


def draw_words(random: Stream | ArrayLike | None, rounding: Rounding, group: int, rows: int) -> np.ndarray | None:
    """Return the random words for rows of groups, shape (rows, group), or None unless the rounding is stochastic.

    Parameters
    ----------
    random : Stream or array of int
        A stream of `group` lanes, which is drawn from once a row, or the words themselves.
    rounding : Rounding
    group, rows : int
    """
    if rounding.kind != "stochastic":
        return None
    require(random is not None, "random", random, "a Stream or an array, because rounding is stochastic")
    if isinstance(random, Stream):
        require(random.lanes == group and random.bits == rounding.bits, "random", (random.lanes, random.bits),
                f"a Stream of {group} lanes and {rounding.bits} bits")
        return random.draw(rows)
    words = np.asarray(random)
    require(words.size == rows * group, "shape of random", words.shape, f"{rows} rows of {group} words")
    return words.reshape(rows, group)


def slabs_of(rows: int, group: int) -> Iterator[slice]:
    """Yield slices of `rows` groups of `group` elements each, at most `SLAB` elements per slice."""
    step = max(1, SLAB // group)
    return (slice(start, start + step) for start in range(0, rows, step))


def from_groups(values: np.ndarray, length: int, axis: int) -> np.ndarray:
    """Return an array of shape (..., groups, group) without its padding, its last two axes back at `axis`."""
    values = values.reshape(*values.shape[:-2], values.shape[-2] * values.shape[-1])
    return np.moveaxis(values[..., :length], -1, axis)
