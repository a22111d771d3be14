"""Matrix products on the machine's BLAS, cut so that it makes each part in the thread that asks for it."""

from collections.abc import Iterator

import numpy as np

__all__ = ["product", "slabs"]

# OpenBLAS starts its threads for products of more multiplications. Here the threads only cost time: products are
# small, other runs have the other cores, and a thread that waits for its turn keeps a core busy.
SERIAL = 1 << 18
DEPTH, WIDTH = 256, 128  # of the part of the second operand that stays in the cache


def slabs(rows: int, each: int) -> Iterator[slice]:
    """Yield slices of `rows` rows, each of `SERIAL` multiplications at most; a row has `each` of them."""
    step = max(1, SERIAL // max(1, each))
    return (slice(start, start + step) for start in range(0, rows, step))


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a @ b`` of floats whose sums are exact in any order: the order of additions is not said.

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
