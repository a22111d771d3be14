"""The softmax head: from logits to probabilities, errors p - y and losses, in fixed point."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require
from ..rounding import round_shift
from ..words import counted
from .functions import exponentials, logarithms, reciprocals
from .parameters import SoftmaxParameters

__all__ = ["errors", "gradient", "probabilities"]


def parts_of(parameters: SoftmaxParameters, logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (order, fixed, large, nan, infinite) of codes.

    order: integers that ascend as the numbers do, 0 for zeros of both signs. fixed: the numbers in fixed point with
    `fraction` fraction bits, rounded to nearest, halves away from zero. large: whether a number is too large for fixed
    point.
    """
    p, fmt = parameters, parameters.format
    magnitude = logits & ((1 << (fmt.width - 1)) - 1)
    sign = 1 - 2 * (logits >> (fmt.width - 1) & 1)
    field = magnitude >> fmt.mantissa
    significand = (magnitude & ((1 << fmt.mantissa) - 1)) + np.where(field > 0, 1 << fmt.mantissa, 0)
    large = np.maximum(field, 1) > p.field_top
    shift = np.maximum(field, 1) - fmt.bias - fmt.mantissa + p.fraction
    # The additional bit decides the rounding.
    doubled = np.where(shift >= -1, significand << np.clip(shift + 1, 0, 40),
                       significand >> np.clip(-shift - 1, 0, 62))
    fixed = np.where(large, 0, sign * ((doubled + 1) >> 1))
    values = fmt.decode(logits)
    return sign * magnitude, fixed, large, np.isnan(values), np.isinf(values)


def distances_of(parameters: SoftmaxParameters, parts: Sequence[np.ndarray], starts: np.ndarray, row: np.ndarray
               ) -> np.ndarray:
    """Return how far each logit is below the greatest of its row: `fraction` fraction bits, held at the largest."""
    order, fixed, large, _, _ = parts
    greatest = np.maximum.reduceat(order, starts)[row]
    # Of equal codes any is the greatest.
    chosen = order == greatest
    top = np.maximum.reduceat(np.where(chosen, fixed, np.iinfo(np.int64).min), starts)[row]
    beside = large | np.logical_or.reduceat(chosen & large, starts)[row]
    return np.where(chosen, 0, np.where(beside, parameters.loss_top, np.minimum(top - fixed, parameters.loss_top)))


def _rows(lasts: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where rows start and which each transfer belongs to; the last row may be unfinished."""
    index = np.arange(len(lasts))
    first = np.concatenate([[True], lasts[:-1]]) if len(lasts) else np.zeros(0, bool)
    place = index - np.maximum.accumulate(np.where(first, index, 0))
    first = place % classes == 0
    return np.flatnonzero(first), np.cumsum(first) - 1


def probabilities(parameters: SoftmaxParameters, logits: ArrayLike) -> np.ndarray:
    """Return the probabilities of rows of logits: ndarray of int64 with ``2 * kept`` fraction bits, and exact.

    Parameters
    ----------
    parameters : SoftmaxParameters
    logits : array of int, shape (rows, up to `classes`)
        Codes, none of them NaN.
    """
    logits = np.asarray(logits).astype(np.int64)
    require(logits.ndim == 2, "shape of logits", logits.shape, "(rows, classes)")
    if not logits.size:
        return np.zeros(logits.shape, np.int64)
    starts, row = np.arange(len(logits)) * logits.shape[1], np.repeat(np.arange(len(logits)), logits.shape[1])
    found = exact_probabilities(parameters, parts_of(parameters, logits.ravel()), starts, row)[0]
    return found.reshape(logits.shape)


def exact_probabilities(parameters: SoftmaxParameters, parts: Sequence[np.ndarray], starts: np.ndarray, row: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p = parameters
    distances = distances_of(p, parts, starts, row)
    powers = exponentials(p, distances)
    sums = np.add.reduceat(powers, starts)
    return (powers >> (p.guard - p.kept)) * reciprocals(p, sums)[row], distances, sums


def errors(parameters: SoftmaxParameters, logits: np.ndarray, targets: np.ndarray, lasts: np.ndarray, step: int = 0,
           random: ArrayLike | None = None) -> tuple[np.ndarray, ...]:
    """Golden function of ``softmax-grad``: transfers in order, each the logit of one class.

    Parameters
    ----------
    parameters : SoftmaxParameters
    logits : array of int, shape (n,)
        Codes.
    targets : array of int, shape (n,)
        1 where the class is the example's; each class marked so has y = 1.
    lasts : array of int, shape (n,)
        1 ends the row; so does the `classes`-th logit of a row, in any case.
    step : int
        Errors before the first of these. Every error draws one random word, exact or not.
    random : array_like of int, optional
        A word for each error, in place of the unit's own.

    Returns
    -------
    errors : ndarray of uint32, shape (m,)
        p - y of each class of the rows that were ended, in order, in the format `parameters.error`. The magnitude is
        rounded once; 1 becomes the largest number. 0 for each class of a row with a NaN.
    ends : ndarray of uint32, shape (m,)
        1 with a row's last error.
    losses : ndarray of uint32, shape (m,)
        The row's loss, with each of its errors: ln(sum of e**z) - z of the last marked class, in nats. It has
        `fraction` fraction bits. `loss_top` stands for all larger losses, and for a row with a NaN. 0 if no class was
        marked.
    invalid, overflow : ndarray of bool, shape (n,)
        The logit is NaN; it is Inf, which counts as the number next to the largest.
    """
    p = parameters
    logits, targets, lasts = (np.asarray(each).astype(np.int64).ravel() for each in (logits, targets, lasts))
    targets, lasts = targets == 1, lasts == 1
    starts, row = _rows(lasts, p.classes)
    parts = parts_of(p, logits)
    *_, nan, infinite = parts
    # Drop a last row that was not ended.
    sizes = np.diff(np.append(starts, len(logits)))
    if len(sizes) and not lasts[-1] and sizes[-1] < p.classes:
        starts, sizes = starts[:-1], sizes[:-1]
    count = int(sizes.sum())
    if not count:
        return (*np.zeros((3, 0), np.uint32), nan, infinite)
    row, targets = row[:count], targets[:count]
    parts = tuple(each[:count] for each in parts)
    exact, distances, sums = exact_probabilities(p, parts, starts, row)

    words = None
    if p.rounding == "stochastic":
        words = counted(p.seed, 1, step, count, p.random_bits)[:, 0] if random is None else np.ravel(random)[:count]
    magnitude = np.where(targets, (1 << 2 * p.kept) - exact, exact)
    rounded = round_shift(magnitude, 2 * p.kept - (p.bits - 1), p.mode, words)
    found = np.where(targets, -rounded, np.minimum(rounded, (1 << (p.bits - 1)) - 1))

    place = np.maximum.reduceat(np.where(targets, np.arange(count), -1), starts)
    low = p.value - p.fraction
    losses = logarithms(p, sums) + (distances[place] << low)
    losses = np.minimum((losses + (1 << low >> 1)) >> low, p.loss_top)
    void = np.logical_or.reduceat(nan[:count], starts)
    losses = np.where(void, p.loss_top, np.where(place < 0, 0, losses))
    found = np.where(void[row], 0, found) & ((1 << p.bits) - 1)
    ends = np.zeros(count, np.uint32)
    ends[starts + sizes - 1] = 1
    return found.astype(np.uint32), ends, losses[row].astype(np.uint32), nan, infinite


def gradient(parameters: SoftmaxParameters, logits: ArrayLike, y: np.ndarray, step: int = 0,
             random: ArrayLike | None = None) -> tuple[np.ndarray, ...]:
    """Return the errors of a batch of rows, as the unit gives them.

    Parameters
    ----------
    parameters : SoftmaxParameters
    logits : array of int, shape (rows, classes)
        Codes; at most `parameters.classes` in a row.
    y : array of int, shape (rows,)
        The class of each row.
    step : int
    random : array_like of int, optional
        As in `errors`.

    Returns
    -------
    errors : ndarray of uint32, shape (rows, classes)
    losses : ndarray of uint32, shape (rows,)
    invalid, overflow : ndarray of bool, shape (rows, classes)
    """
    logits, y = np.asarray(logits), np.asarray(y)
    require(logits.ndim == 2 and 1 <= logits.shape[1] <= parameters.classes, "logits", logits.shape,
            f"rows of 1 to {parameters.classes} classes")
    require(y.shape == logits.shape[:1] and bool(((y >= 0) & (y < logits.shape[1])).all()), "y", y.shape,
            f"a class from 0 to {logits.shape[1] - 1} for each of {len(logits)} rows")
    targets = np.arange(logits.shape[1]) == y[:, np.newaxis]
    lasts = np.broadcast_to(np.arange(logits.shape[1]) == logits.shape[1] - 1, logits.shape)
    found, _, losses, invalid, overflow = errors(parameters, logits, targets, lasts, step, random)
    return (found.reshape(logits.shape), losses.reshape(logits.shape)[:, -1], invalid.reshape(logits.shape),
            overflow.reshape(logits.shape))
