"""Arrays that users give: taken as NumPy arrays, or refused in one line."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..base.checks import require

__all__ = ["as_codes", "as_real", "as_rows", "broadcast"]


def as_real(name: str, x: ArrayLike, dtype: DTypeLike | None = None) -> np.ndarray:
    """Return `x` as an array of real numbers, of `dtype` if there is one; what is none is refused in one line."""
    try:
        x = np.asarray(x)
        require(x.dtype.kind != "c", f"dtype of {name}", str(x.dtype), "real numbers")
        return x if dtype is None and x.dtype.kind in "biuf" else x.astype(dtype or np.float64, copy=False)
    except (TypeError, ValueError) as error:
        if "allowed: " in str(error):
            raise
    raise ValueError(f"{name} is {type(x).__name__}; allowed: an array of real numbers")


def as_codes(name: str, codes: ArrayLike) -> np.ndarray:
    """Return codes as an array of integers; other numbers are refused in one line."""
    codes = np.asarray(codes)
    require(codes.dtype.kind in "biu" or not codes.size, f"dtype of {name}", str(codes.dtype), "integers: codes")
    return codes


def as_rows(name: str, x: ArrayLike, width: int) -> np.ndarray:
    """Return transfers as rows of `width` elements; refuse an array of another size in one line."""
    x = np.asarray(x)
    require(x.size % width == 0, f"shape of {name}", x.shape, f"(n, {width})")
    return x.reshape(x.size // width, width)


def broadcast(**arrays: ArrayLike) -> tuple[np.ndarray, ...]:
    """Return arrays broadcast to one shape; require that there is one."""
    try:
        return np.broadcast_arrays(*arrays.values())
    except ValueError:
        shapes = {name: np.shape(array) for name, array in arrays.items()}
    raise ValueError(f"shapes is {shapes}; allowed: those that broadcast to one")
