"""FAST's measure r(X): the sums of a tensor's lower and higher chunks, and the choice between 2 and 4 bits.

Source: numerics contract, section 3, after FAST (arXiv 2110.15456).
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from .. import blockfloat
from ..formats import BlockFloat
from ..rounding import TRUNCATE

__all__ = ["COUNT", "FRACTION", "GUARD", "NARROW", "WIDE", "chunk_sums", "decide", "ratio", "sum_chunks", "sum_limit",
           "sums_of", "threshold_code"]

NARROW, WIDE = 2, 4  # the widths that FAST chooses from
GUARD, COUNT, FRACTION = 8, 20, 8  # the defaults of `AdaptiveParameters`


def chunk_sums(magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums (low, high) of the lower and the higher 2-bit chunks of each group: int64, shape (n,).

    Of magnitudes of 4 bits, shape (n, group); bits above are not looked at. As 2 bits, truncated, are the higher chunk,
    a group adds ``low`` to the numerator of r and ``4 * high`` to its denominator, in units of 2**(exponent - 3).
    """
    magnitudes = np.asarray(magnitudes).astype(np.int64)
    return (magnitudes & 3).sum(axis=1), (magnitudes >> 2 & 3).sum(axis=1)


def sum_chunks(exponents: np.ndarray, low: np.ndarray, high: np.ndarray, *, guard: int = GUARD,
               limit: int | None = None) -> tuple[int, int, bool]:
    """Return the sums (numerator, denominator / 4, saturated) of a tensor's groups, scaled by their exponents [ours].

    Both sums are integers under one exponent, the largest one of the groups so far, with `guard` bits below the unit of
    a group of that exponent. For each group in order: where its exponent is larger, both sums are shifted right by the
    difference, else the group's are, which have `guard` bits added first; what is shifted out is dropped. So a sum is
    low by less than one of its units, 2**-guard of that of the largest group, for each group and for each rise.

    Parameters
    ----------
    exponents, low, high : array of int, shape (n,)
        Of each group: its exponent code, and `chunk_sums`.
    guard : int
    limit : int, optional
        Where sums saturate; see `sum_limit`.
    """
    exponents = np.asarray(exponents, np.int64).reshape(-1)
    top = np.maximum.accumulate(exponents)
    shift = np.minimum(top - exponents, 62)
    addends = [(np.asarray(each, np.int64) << guard) >> shift for each in (low, high)]
    # While the exponent stays nothing is shifted, and numbers that are not negative saturate alike in any order.
    starts = np.flatnonzero(np.diff(top, prepend=-1))
    sums, saturated = [0, 0], False
    for start, end in zip(starts, [*starts[1:], len(top)]):
        rise = int(top[start] - top[start - 1]) if start else 0
        sums = [(each >> rise) + int(part[start:end].sum()) for each, part in zip(sums, addends)]
        if limit is not None:
            saturated |= max(sums) > limit
            sums = [min(each, limit) for each in sums]
    return sums[0], sums[1], saturated


def sum_limit(group: int, guard: int = GUARD, count: int = COUNT) -> int:
    """Return the greatest sum that the unit holds: no less than that of 2**count groups of one exponent."""
    return (1 << ((3 * group).bit_length() + guard + count)) - 1


def threshold_code(threshold: Fraction | float, fraction: int = FRACTION) -> int:
    """Return a threshold in units of 2**-fraction: to nearest even, held within 0 and below 2 [ours]."""
    return min(max(round(Fraction(threshold) * (1 << fraction)), 0), (2 << fraction) - 1)


def decide(numerator: int, quarter: int, code: int, fraction: int = FRACTION) -> int:
    """Return 4 if numerator / (4 * quarter) is the threshold or above, else 2. An all-zero tensor gets 4 [ours]."""
    return WIDE if numerator << fraction >= 4 * code * quarter else NARROW


def sums_of(array: ArrayLike, fmt: BlockFloat, axis: int) -> tuple[int, int]:
    """Return (numerator, denominator / 4) of a tensor's r, from groups along that axis."""
    blocks = blockfloat.quantise(array, replace(fmt, mantissa=WIDE), axis=axis, rounding=TRUNCATE)
    low, high = chunk_sums(np.abs(blocks.mantissas).reshape(-1, fmt.group))
    return sum_chunks(blocks.exponents, low, high, limit=sum_limit(fmt.group))[:2]


def ratio(array: ArrayLike, fmt: BlockFloat, axis: int = -1) -> float:
    """Return r(X) of an array under a BlockFloat: a float. NaN for nothing but zeros."""
    numerator, quarter = sums_of(array, fmt, axis)
    return numerator / (4 * quarter) if quarter else math.inf if numerator else math.nan
