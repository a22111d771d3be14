"""Matrix products of floating-point numbers, each addition rounded."""

import numpy as np

from ...base.checks import require
from ..arrays import as_real
from ..formats import PRESETS, Float, is_ieee
from ..products import product

__all__ = ["matmul", "matmul_fp32"]

SLAB = 1 << 14  # sums worked on at a time, so that every intermediate array stays in the cache
FEW = 64  # sums, at most, whose additions NumPy is given all at once


def matmul(a: np.ndarray, b: np.ndarray, accumulator: Float = PRESETS["fp16"], chunk: int | None = None) -> np.ndarray:
    """Return the matrix product, float64 values of `accumulator`: each element is `dot` of a row and a column.

    Parameters
    ----------
    a : array of float, shape (M, K)
        Numbers of at most 12 significant bits, such as those of fp16, or Inf or NaN.
    b : array of float, shape (K, N)
    accumulator : Float
        With specials 'ieee', overflow 'infinity', and at most 50 bits from the first of its largest number to the
        last of its smallest: fp16 and narrower.
    chunk : int, optional
        As in `dot` with the order ``chunked``; None is the order ``sequential``.
    """
    fmt = accumulator
    require(is_ieee(fmt, 0) and fmt.emax - fmt.emin + fmt.mantissa < 50, "accumulator", fmt,
            "a Float with specials 'ieee', overflow 'infinity' and a range of at most 50 bits, such as fp16")
    require(chunk is None or type(chunk) is int and chunk >= 1, "chunk", chunk, "None, or an integer, 1 or more")
    a, b = as_real("a", a, np.float64), as_real("b", b, np.float64)
    require(a.ndim == b.ndim == 2 and a.shape[1] == len(b), "shapes", (a.shape, b.shape), "(M, K) and (K, N)")
    if len(a) > b.shape[1]:  # the longer side comes last, where NumPy's loops are
        return matmul(b.T, a.T, fmt, chunk).T
    (rows, depth), columns = a.shape, b.shape[1]
    result = np.zeros((rows, columns))
    if not (depth and result.size):
        return result
    size = min(chunk or depth, depth)
    whole = depth - depth % size
    # Chunks side by side, (size, chunks, ...): they are independent of each other. The short last one follows.
    parts = [(a[:, :whole].reshape(rows, -1, size).transpose(2, 1, 0), b[:whole].reshape(-1, size, columns)
              .transpose(1, 0, 2)), (a[:, whole:].T[:, np.newaxis], b[whole:, np.newaxis])]
    parts = [(np.ascontiguousarray(x), np.ascontiguousarray(y)) for x, y in parts[:1 + (whole < depth)]]
    with np.errstate(invalid="ignore", over="ignore"):
        # No sum on the way is above that of the magnitudes, and each of its roundings adds at most half a unit.
        steps = min(size + whole // size + 1, 1 << 20)  # with more, the bound is above any limit
        bound = product(np.abs(a), np.abs(b)) + steps * 2.0 ** (fmt.emin - fmt.mantissa - 1)
        bound *= (1 + 2.0 ** -(fmt.mantissa + 1)) ** steps
        limit, height = fmt.max / 2, max(1, SLAB // columns)
        for row in range(0, rows, height):
            total = result[row:row + height]
            inside = bool((bound[row:row + height] < limit).all())
            several = max(1, SLAB // total.size)
            for left, right in parts:
                for first in range(0, left.shape[1], several):
                    x = left[:, first:first + several, row:row + height, np.newaxis]
                    y = right[:, first:first + several, np.newaxis]
                    sums = np.zeros((x.shape[1], *total.shape))
                    _accumulate(sums, x, y, fmt, inside)
                    if chunk is None:
                        total[:] = sums[0]
                    else:
                        _accumulate(total, sums, np.ones(len(sums)), fmt, inside)
    return result


def _accumulate(total: np.ndarray, x: np.ndarray, y: np.ndarray, fmt: Float, inside: bool) -> None:
    """Add the products of x and y, along their first axis, to the total in place: each rounded once, to nearest even.

    The products have at most 24 bits. The float64 sum, rounded again, is the sum rounded once. A product of
    2**(emax + 2) or more overflows both ways. Below that, every bit of the total is within 52 of the sum's first one,
    so the float64 sum is exact unless bits of the product are lost. That is then less than a quarter of the total's
    last place, and the float64 sum is no farther from the total: both round to the total.

    `inside` tells that no sum is near overflow, Inf or NaN.
    """
    value, power = np.empty_like(total), np.empty_like(total)
    value_bits, power_bits, total_bits = (array.view(np.int64) for array in (value, power, total))
    # As arrays: turning Python's integers into them takes longer than adding a few sums.
    exponent, sign, lowest, highest, shift = (np.array(bits, np.int64) for bits in (
        0x7FF << 52, -1 << 63, (fmt.emin + 1023) << 52, (fmt.emax + 1023) << 52,
        ((52 - fmt.mantissa) << 52) + (1 << 51)))
    up, down = 2.0 ** (1023 - fmt.emax), 2.0 ** (fmt.emax - 1023)
    for a, b in zip(x, y):
        np.multiply(a, b, out=value)
        np.add(value, total, out=value)
        # Adding and subtracting 1.5 * 2**(52 - mantissa) times the sum's power of two rounds at `fmt`'s last place.
        np.bitwise_and(value_bits, exponent, out=power_bits)
        np.maximum(power_bits, lowest, out=power_bits)
        if not inside:
            np.minimum(power_bits, highest, out=power_bits)
        np.add(power_bits, shift, out=power_bits)
        np.add(value, power, out=total)
        np.subtract(total, power, out=total)
        # A sum rounded to zero has lost its sign.
        np.bitwise_and(value_bits, sign, out=value_bits)
        np.bitwise_or(total_bits, value_bits, out=total_bits)
        if not inside:  # from 2**(emax + 1) on, and only there, the first product is Inf
            np.multiply(total, up, out=total)
            np.multiply(total, down, out=total)


def matmul_fp32(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product of float32 matrices (M, K) and (K, N) as float32.

    Sums start at +0 and take the products in rising order along K; every product and every
    sum is rounded to nearest even.
    """
    columns, b = np.ascontiguousarray(a.T), np.ascontiguousarray(b)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    if total.size <= FEW:  # so few sums that calls would cost more than their additions
        products = columns[:, :, np.newaxis] * b[:, np.newaxis]
        return np.add.accumulate(np.concatenate([total[np.newaxis], products]), axis=0)[-1]
    rows = max(1, SLAB // b.shape[1])
    product = np.empty_like(total[:rows])
    for start in range(0, len(total), rows):
        part = total[start:start + rows]
        for column, row in zip(columns[:, start:start + rows, np.newaxis], b):
            part += np.multiply(column, row, out=product[:len(part)])
    return total
