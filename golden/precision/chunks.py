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

__all__ = ["COUNT", "FRACTION", "GUARD", "NARROW", "WIDE", "chunk_sums", "chunks_of", "decide", "ratio", "sum_chunks",
           "sum_limit", "sums_of", "threshold_code"]

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

    Groups of one exponent code are added exactly. Both sums are then brought under the largest code that has chunks
    other than zero. They are rounded down once, to `guard` bits below the unit of a group of that code. The order of
    the groups does not matter.

    Parameters
    ----------
    exponents, low, high : array of int, shape (n,)
        Of each group: its exponent code, and `chunk_sums`.
    guard : int
    limit : int, optional
        Where the sums of one code saturate; see `sum_limit`.
    """
    codes, places = np.unique(np.asarray(exponents, np.int64).reshape(-1), return_inverse=True)
    words = np.zeros((len(codes), 2), np.int64)
    np.add.at(words, places.reshape(-1), np.stack([low, high], axis=-1).astype(np.int64).reshape(-1, 2))
    saturated = limit is not None and bool((words > limit).any())
    if limit is not None:
        words = np.minimum(words, limit)
    used = words.any(axis=1)
    sums, before = [0, 0], 0
    # To halve and round down from code to code gives what one rounding of the whole sum gives.
    for code, pair in zip(codes[used].tolist(), words[used].tolist()):
        sums = [(each >> (code - before)) + (word << guard) for each, word in zip(sums, pair)]
        before = code
    return sums[0], sums[1], saturated


def sum_limit(group: int, count: int = COUNT) -> int:
    """Return the greatest sum that the unit holds for a code: no less than that of 2**count groups."""
    return (1 << ((3 * group).bit_length() + count)) - 1


def threshold_code(threshold: Fraction | float, fraction: int = FRACTION) -> int:
    """Return a threshold in units of 2**-fraction: to nearest even, held within 0 and below 2 [ours]."""
    return min(max(round(Fraction(threshold) * (1 << fraction)), 0), (2 << fraction) - 1)


def decide(numerator: int, quarter: int, code: int, fraction: int = FRACTION) -> int:
    """Return 4 if numerator / (4 * quarter) is the threshold or above, else 2. An all-zero tensor gets 4 [ours]."""
    return WIDE if numerator << fraction >= 4 * code * quarter else NARROW


def chunks_of(array: ArrayLike, fmt: BlockFloat, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the exponent codes of an array's groups along that axis, and their `chunk_sums`: each of shape (n,)."""
    blocks = blockfloat.quantise(array, replace(fmt, mantissa=WIDE), axis=axis, rounding=TRUNCATE)
    return blocks.exponents.reshape(-1), *chunk_sums(np.abs(blocks.mantissas).reshape(-1, fmt.group))


def sums_of(array: ArrayLike, fmt: BlockFloat, axis: int) -> tuple[int, int]:
    """Return (numerator, denominator / 4) of a tensor's r, from groups along that axis."""
    return sum_chunks(*chunks_of(array, fmt, axis), limit=sum_limit(fmt.group))[:2]


def ratio(array: ArrayLike, fmt: BlockFloat, axis: int = -1) -> float:
    """Return r(X) of an array under a BlockFloat: a float. NaN for nothing but zeros."""
    numerator, quarter = sums_of(array, fmt, axis)
    return numerator / (4 * quarter) if quarter else math.inf if numerator else math.nan
