"""Arrays of logarithmic numbers under one scale, and what they are rounded from.

After LNS-Madam (arXiv 2106.13914). Source: numerics contract, section 6.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require
from ..formats import Float, Log, is_ieee, of_dtype
from .tables import thresholds

__all__ = [
    "SCALE_BIAS", "SCALE_MAX", "SCALE_MIN", "Logs", "codes_of", "largest", "levels", "narrowed", "quantise",
    "require_format", "require_result", "scale_of", "scale_of_array",
]

SCALE_BIAS = 127  # of the scale's code in the units
SCALE_MIN, SCALE_MAX = -127, 127  # exponents of a scale


def levels(values: ArrayLike, gamma: int) -> np.ndarray:
    """Return round(gamma * log2 |x|) of finite values that are not zero, as int64. Exact; 0 where x is zero."""
    mantissa, exponent = np.frexp(np.abs(np.asarray(values, np.float64)))
    table = np.array(thresholds(gamma), np.float64) * 2.0**-52  # exact
    rounded = np.searchsorted(table, 2 * mantissa, side="left")
    return np.where(mantissa > 0, (exponent.astype(np.int64) - 1) * gamma + rounded, 0)


def scale_of(level: ArrayLike, fmt: Log) -> Any:
    """Return the exponent of the least scale under which a number of this level is not above the top code.

    Parameters
    ----------
    level : int or array of int
        Of the largest magnitude: see `levels`.
    fmt : Log

    Returns
    -------
    int64
        ``ceil((level - top) / gamma)``, held within `SCALE_MIN` and `SCALE_MAX`.
    """
    level = np.asarray(level, np.int64)
    return np.clip(-((fmt.top - level) // fmt.gamma), SCALE_MIN, SCALE_MAX)


def codes_of(level: np.ndarray, some: np.ndarray, special: np.ndarray, negative: np.ndarray, fmt: Log, scale: ArrayLike
             ) -> np.ndarray:
    """Return codes of numbers: their levels, whether they are not zero, Inf or NaN, and negative."""
    t = np.clip(level - fmt.gamma * np.asarray(scale, np.int64), 0, fmt.top)
    t = np.where(special, fmt.top, np.where(some, t, 0))
    return (t | (negative & (t > 0)).astype(np.int64) << (fmt.bits - 1)).astype(np.uint32)


def largest(level: np.ndarray, some: np.ndarray, axis: int | None = None) -> Any:
    """Return the largest level of what is not zero along an axis; where all is, one that no number has."""
    floor = -(1 << 40)
    return np.where(some, level, floor).max(axis=axis, initial=floor)


def _special_level(work: Float, fmt: Log) -> int:
    """Return the level that Inf and NaN count as, among numbers of a work format."""
    return fmt.gamma * (work.emax + 1)


def scale_of_array(x: np.ndarray, fmt: Log, work: Float | None = None) -> int:
    """Return the scale of an array of float16 or float32: `scale_of` its largest magnitude.

    `work` is the format that its numbers are of, if that is not the dtype's.
    """
    top = np.abs(x).max(initial=0)
    if top == 0:
        return SCALE_MIN
    special = _special_level(work or of_dtype(x.dtype), fmt)
    return int(scale_of(levels(top, fmt.gamma) if np.isfinite(top) else special, fmt))


@dataclass(frozen=True)
class Logs:
    """An array of logarithmic numbers under one scale.

    Attributes
    ----------
    format : Log
    codes : ndarray of uint32
        Sign in the top bit, t below it.
    scale : int
        Exponent: a number is ``(-1)**s * 2**(scale + t/gamma)``, or zero where t = 0.
    invalid : bool
        The array had a NaN, which counts as the largest number.
    """

    format: Log
    codes: np.ndarray
    scale: int
    invalid: bool = False

    def values(self) -> np.ndarray:
        """Return float64 values, correct to float64's rounding."""
        return self.format.decode(self.codes, 2.0**self.scale)

    @property
    def T(self) -> "Logs":
        """The transposed array."""
        return replace(self, codes=self.codes.T)

    # As arrays have them.

    def reshape(self, *shape: int) -> "Logs":
        """Return the array in another shape."""
        return replace(self, codes=self.codes.reshape(*shape))

    def transpose(self, *axes: int) -> "Logs":
        """Return the array with its axes in another order."""
        return replace(self, codes=self.codes.transpose(*axes))

    def __getitem__(self, index: Any) -> "Logs":
        """Return a part of the array."""
        return replace(self, codes=self.codes[index])


def quantise(x: ArrayLike, fmt: Log, scale: int | None = None) -> Logs:
    """Round an array to logarithmic numbers, to the nearest logarithm; what rounds to t = 0 or below becomes zero.

    Parameters
    ----------
    x : array_like of float16 or float32
    fmt : Log
        With gamma at most 16,384.
    scale : int, optional
        Exponent of the scale, -127 to 127; the least under which the largest magnitude fits when not given (see
        `scale_of`). Larger magnitudes saturate. Inf and NaN become the top code with their sign; they count as numbers
        of the exponent above the dtype's largest.
    """
    x = np.asarray(x)
    require(x.dtype in (np.float16, np.float32), "dtype of x", str(x.dtype), "float16, float32")
    # Each threshold is computed to 60 digits.
    require(isinstance(fmt, Log) and fmt.gamma <= 1 << 14, "format", fmt, "a Log with gamma at most 16384")
    require(scale is None or isinstance(scale, (int, np.integer)) and SCALE_MIN <= scale <= SCALE_MAX, "scale", scale,
            f"an integer from {SCALE_MIN} to {SCALE_MAX}")
    special, some = ~np.isfinite(x), x != 0
    level = np.where(special, _special_level(of_dtype(x.dtype), fmt), levels(np.where(special, 0, x), fmt.gamma))
    scale = scale_of_array(x, fmt) if scale is None else scale
    return Logs(fmt, codes_of(level, some, special, np.signbit(x), fmt, scale), scale, bool(np.isnan(x).any()))


def narrowed(codes: np.ndarray, weight: Log, narrow: Log) -> np.ndarray:
    """Return the codes of weights in a narrower format of as many octaves.

    t is rounded, a half upward, and held at the top code. A zero has no sign.
    """
    codes, shift = np.asarray(codes).astype(np.int64), weight.bits - narrow.bits
    t = np.minimum(((codes & weight.top) + (1 << shift >> 1)) >> shift, narrow.top)
    return (t | ((codes >> (weight.bits - 1)) & (t > 0)) << (narrow.bits - 1)).astype(np.uint32)


def require_format(fmt: object, bits: int, gamma: int = 32) -> None:
    """Require a Log of at most so many bits and so large a gamma."""
    require(isinstance(fmt, Log) and 4 <= fmt.bits <= bits and fmt.gamma <= min(gamma, 1 << (fmt.bits - 2)), "format",
            fmt, f"a Log of 4 to {bits} bits, gamma 1 to {gamma} and at most 2**(bits-2), such as lns8")


def require_result(fmt: object) -> None:
    """Require a format that sums and decoded numbers can be rounded to."""
    require(is_ieee(fmt), "result", fmt,
            "a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16")
