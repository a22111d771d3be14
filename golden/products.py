"""Matrix products on the machine's BLAS, in parts so small that BLAS starts no threads for them."""

from collections.abc import Iterator

import numpy as np

__all__ = ["product", "slabs"]

# OpenBLAS starts threads for products of more multiplications. The products here are too small for threads, and
# other training runs use the other cores. A waiting thread keeps a core busy.
SERIAL = 1 << 18
DEPTH, WIDTH = 256, 128  # of the part of the second operand that stays in the cache


def slabs(rows: int, each: int) -> Iterator[slice]:
    """Yield slices of `rows` rows, with `each` multiplications per row and at most `SERIAL` per slice."""
    step = max(1, SERIAL // max(1, each))
    return (slice(start, start + step) for start in range(0, rows, step))


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a @ b`` of floats, in no certain order of additions: for exact sums, and for bounds.

    Parameters
    ----------
    a : ndarray, shape (M, K)
    b : ndarray, shape (K, N)
        Of the same dtype.

    Returns
    -------
    ndarray, shape (M, N)
    """
    total = np.zeros((len(a), b.shape[1]), a.dtype)
    for depth in (slice(start, start + DEPTH) for start in range(0, len(b), DEPTH)):
        for width in (slice(start, start + WIDTH) for start in range(0, b.shape[1], WIDTH)):
            part = np.ascontiguousarray(b[depth, width])
            for rows in slabs(len(a), part.size):
                total[rows, width] += a[rows, depth] @ part
    return total
