"""The operations of training's work format on whole arrays."""

from functools import lru_cache
from typing import Any

import numpy as np

from ...base.checks import require
from ..formats import PRESETS, Float, is_ieee

__all__ = ["NATIVE", "Arithmetic", "arithmetic", "require_work"]

NATIVE = {PRESETS["fp32"]: np.float32, PRESETS["fp16"]: np.float16}
MOST = 10  # mantissa bits of a format that is computed in float64 and rounded again


def require_work(work: Any) -> None:
    """Raise ValueError if training cannot work in a format: see `Arithmetic`."""
    fits = is_ieee(work, 2) and work.mantissa <= MOST and work.emax <= 127 and work.emin - work.mantissa >= -149
    require(fits or work in NATIVE, "work", work, "fp32, fp16, bf16, or another Float with specials 'ieee', overflow "
            f"'infinity', 2 to {MOST} mantissa bits and no number beyond fp32's")


class Arithmetic:
    """Operations on arrays of a work format's numbers, each rounded once, to nearest even.

    fp32 and fp16 are NumPy's dtypes. Numbers of another format are held as float32: operations are made in float64 and
    rounded. Rounding twice is harmless, as float64 has more than twice as many bits as operands, and two more.

    Parameters
    ----------
    work : Float

    Attributes
    ----------
    dtype : numpy.dtype
        Of the arrays.
    native : bool
        Whether NumPy's operations on the dtype are the format's.
    """

    def __init__(self, work: Float) -> None:
        require_work(work)
        self.work, self.native = work, work in NATIVE
        self.dtype = np.dtype(NATIVE.get(work, np.float32))

    def number(self, x: Any) -> Any:
        """Return numbers, such as a constant, rounded to the format."""
        x = np.asarray(x)
        rounded = x if self.native else self.work.round(x.astype(np.float64))
        return rounded.astype(self.dtype)[()]

    def add(self, a: Any, b: Any) -> Any:
        """Return a + b."""
        return a + b if self.native else self.number(np.add(a, b, dtype=np.float64))

    def subtract(self, a: Any, b: Any) -> Any:
        """Return a - b."""
        return a - b if self.native else self.number(np.subtract(a, b, dtype=np.float64))

    def multiply(self, a: Any, b: Any) -> Any:
        """Return a * b."""
        return a * b if self.native else self.number(np.multiply(a, b, dtype=np.float64))

    def divide(self, a: Any, b: Any) -> Any:
        """Return a / b."""
        return a / b if self.native else self.number(np.divide(a, b, dtype=np.float64))

    def root(self, x: Any) -> Any:
        """Return the square root."""
        return np.sqrt(x) if self.native else self.number(np.sqrt(x, dtype=np.float64))


@lru_cache(64)
def arithmetic(work: Float) -> Arithmetic:
    """Return the operations of a work format."""
    return Arithmetic(work)
