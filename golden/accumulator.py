"""Floating-point sums of scaled integers, as the units' accumulators make them: one rounding per addition.

Source: numerics contract, sections 2 and 3.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import require
from .formats import PRESETS, Float, is_ieee
from .products import slabs

__all__ = ["BANK", "RECURRENCE", "accumulate", "require_sums", "runs", "sum_groups", "sums_of", "two_sum"]

# Of the units' accumulators (`hw.accumulator`): cycles between additions to one sum, and from an addition to the sum.
RECURRENCE, BANK = 10, 12


def require_sums(accumulator: Float, accumulators: int) -> None:
    """Require a format and a number of sums that a bank of accumulators can hold."""
    require(is_ieee(accumulator, 2), "accumulator", accumulator,
            "a Float with specials 'ieee' and overflow 'infinity', such as fp32, bf16, fp16")
    require(type(accumulators) is int and accumulators in (2, 4, 8, 16), "accumulators", accumulators, "2, 4, 8, 16")


def accumulate(total: np.ndarray, integer: ArrayLike, exponent: ArrayLike, accumulator: Float,
               low: ArrayLike = 0) -> np.ndarray:
    """Add ``(integer + low) * 2**exponent`` to accumulators with one rounding, to nearest even.

    Parameters
    ----------
    total : array of float64
        Values of the accumulator format; an Inf or a NaN stays.
    integer, exponent : array of int
        The addend: the integer below 2**53 in magnitude (or any float64), the exponent within -1000 to 900.
    accumulator : Float
    low : array of float64, optional
        What the exact addend has beyond a float64 `integer`: at most half a unit in its last place.

    Returns
    -------
    array of float64
        New values. A sum that is exactly zero is +0.
    """
    exponent = np.asarray(exponent, np.int32)
    addend = np.ldexp(np.asarray(integer, np.float64), exponent)
    with np.errstate(invalid="ignore"):
        if np.any(low):
            # The exact sum in three parts; each is at most half a unit in the last place of the one before it.
            small, third = two_sum(total, np.ldexp(low, exponent))
            rounded, second = two_sum(small, addend)
            second, third = two_sum(second, third)
            rounded, second = two_sum(rounded, second)
            rounded = np.where(np.isfinite(total), rounded, total + addend)
            error = np.where(second != 0, second, third)
        else:
            rounded, error = two_sum(total, addend)
        # Rounded to odd, the sum keeps what the rounding to the accumulator needs to know.
        even = (rounded.view(np.int64) & 1) == 0
        toward = np.where(error > 0, np.inf, -np.inf)
        odd = np.where((error != 0) & even & np.isfinite(total), np.nextafter(rounded, toward), rounded)
    if accumulator == PRESETS["fp32"]:
        with np.errstate(over="ignore", invalid="ignore"):
            return odd.astype(np.float32).astype(np.float64)
    return accumulator.round(odd)


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 sum of two arrays, and its exact error."""
    rounded = a + b
    virtual = rounded - a
    return rounded, (a - (rounded - virtual)) + (b - virtual)


def sum_groups(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], offset: int, bits: int,
               accumulator: Float) -> np.ndarray:
    """Return a matrix product of groups (float64 values of `accumulator`): sums of their scaled dot products.

    The groups are added in ascending order, with one rounding each, from +0 on.

    Parameters
    ----------
    a, b : tuple (exponents, integers)
        Arrays of shapes (rows, groups) and (rows, groups, group): row i of `a` and row j of `b` make result (i, j).
    offset : int
        A group's dot product is ``(integer sum) * 2**(exponent of a + exponent of b - offset)``.
    bits : int
        Sums of products of integers, even of their magnitudes, do not exceed ``2**bits``; 53 or less.
    accumulator : Float
    """
    (ea, qa), (eb, qb) = a, b
    rows, columns, groups = len(ea), len(eb), ea.shape[1]
    if not (rows and columns and groups):
        return np.zeros((rows, columns))
    # An all-zero group adds zero whatever its exponent: the top one leaves the range as it is.
    ea, eb = (np.where(q.any(axis=-1), e, e.max()).astype(np.int64) for e, q in ((ea, qa), (eb, qb)))
    # So small, float32 or float64 sums of them are exact in any order.
    exact = bits <= 24
    kind = np.float32 if exact else np.float64
    qa = np.ascontiguousarray(np.moveaxis(qa, 1, 0)).astype(kind)
    qb = np.ascontiguousarray(np.transpose(qb, (1, 2, 0))).astype(kind)
    low, high = int(ea.min() + eb.min()) - offset, int(ea.max() + eb.max()) - offset
    # Where every addend is a normal float32 well inside the range, and so is every integer times
    # its scale of a, the machine's own float32 addition is the one rounding that is asked for.
    middle = int(ea.min() + ea.max()) // 2
    inside = low >= -126 and high + 24 + groups.bit_length() < 126 and int(ea.max()) - middle + 24 < 126
    if exact and accumulator == PRESETS["fp32"] and inside:
        single = np.zeros((rows, columns), np.float32)
        scale_a, scale_b = (np.ldexp(np.float32(1), (e - part).astype(np.int32)) for e, part in
                            ((ea, middle), (eb, offset - middle)))
        for part in slabs(rows, columns * qa.shape[2]):
            sums = single[part]
            for k in range(groups):
                term = qa[k, part] @ qb[k]
                term *= scale_a[part, k, np.newaxis]
                term *= scale_b[:, k]
                sums += term
        return single.astype(np.float64) + 0.0
    total = np.zeros((rows, columns))
    for part in slabs(rows, columns * qa.shape[2]):
        slab = total[part]
        for k in range(groups):
            slab = accumulate(slab, qa[k, part] @ qb[k], ea[part, k, np.newaxis] + eb[:, k] - offset, accumulator)
        total[part] = slab
    return total


def runs(slot: ArrayLike, first: ArrayLike) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Cut transfers into runs: those of one slot, from a `first` up to the next; each run is a sum of its own.

    Returns
    -------
    count : int
        Runs.
    levels : list of (ndarray of int, ndarray of int)
        For each depth within a run: the runs that reach it, and their transfers at that depth. Additions of one
        level are independent of each other, so they can be made together.
    """
    order = np.argsort(slot, kind="stable")
    if not len(order):
        return 0, []
    starts = (np.diff(np.asarray(slot)[order], prepend=-1) != 0) | np.asarray(first, bool)[order]
    run = np.cumsum(starts) - 1
    depth = np.arange(len(order)) - np.flatnonzero(starts)[run]
    by_depth = np.split(np.argsort(depth, kind="stable"), np.cumsum(np.bincount(depth))[:-1])
    return int(run[-1]) + 1, [(run[level], order[level]) for level in by_depth]


def sums_of(accumulator: Float, integer: ArrayLike, exponent: ArrayLike, slot: ArrayLike, first: ArrayLike,
            last: ArrayLike, low: ArrayLike = 0) -> tuple[np.ndarray, bool]:
    """Add transfers to the sums of a bank of accumulators, in order.

    Parameters
    ----------
    accumulator : Float
    integer, exponent : array, shape (n,)
        Of each transfer's addend, as `accumulate` takes them.
    slot : array of int, shape (n,)
        Which sum each transfer adds to.
    first, last : array of bool, shape (n,)
        Start from +0; emit the sum after this addition.
    low : array of float64, shape (n,), optional
        As `accumulate` takes it.

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the accumulator format, in order.
    overflow : bool
        Whether a finite sum became infinite.
    """
    integer, exponent, low = np.broadcast_arrays(integer, exponent, low)
    count, levels = runs(slot, first)
    totals, sums, overflow = np.zeros(count), np.zeros(len(integer)), False
    for where, rows in levels:
        before = totals[where]
        totals[where] = accumulate(before, integer[rows], exponent[rows], accumulator, low[rows])
        overflow |= bool((np.isinf(totals[where]) & ~np.isinf(before)).any())
        sums[rows] = totals[where]
    return accumulator.encode(sums[np.asarray(last, bool)]), overflow
