"""Rounding: nearest-even, truncate and stochastic, on scaled magnitudes. One rounding per operation.

Source: numerics contract, section 2.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import require, require_int

__all__ = [
    "KINDS", "NEAREST", "TRUNCATE", "Rounding", "require_random", "round_scaled", "round_shift", "rounding_of",
    "stochastic",
]

KINDS = ("nearest", "truncate", "stochastic")


@dataclass(frozen=True)
class Rounding:
    """How a magnitude loses its fraction.

    Parameters
    ----------
    kind : str
        ``nearest`` (ties to even), ``truncate`` (toward zero) or ``stochastic``. The latter rounds away from zero when
        ``floor(d * 2**bits) + r >= 2**bits``, and toward zero otherwise. d is the discarded fraction of a unit in the
        last place, r the random word. The result is low by 2**-(bits+1) units on average.
    bits : int
        Width of the random word, 1 to 16. Only ``stochastic`` uses it.
    corrected : bool
        Whether stochastic rounding takes one bit more of d, and adds half of that bit: ``floor(d * 2**(bits+1)) + 2*r +
        1 >= 2**(bits+1)``. It has no bias for a d of ``bits`` bits, nor on average for a d of many more bits.
    """

    kind: str
    bits: int = 8
    corrected: bool = False

    def __post_init__(self) -> None:
        require(self.kind in KINDS, "rounding", self.kind, ", ".join(KINDS))
        require_int("bits", self.bits, 1, 16)
        require(type(self.corrected) is bool, "corrected", self.corrected, "true, false")

    @property
    def window(self) -> int:
        """Bits of the discarded fraction that meet the noise."""
        return self.bits + self.corrected

    def noise(self, random: Any) -> Any:
        """Return what is added to the window: the random word, with the half appended if corrected."""
        return 2 * random + 1 if self.corrected else random


NEAREST = Rounding("nearest")
TRUNCATE = Rounding("truncate")


def stochastic(bits: int = 8, corrected: bool = False) -> Rounding:
    """Return the stochastic rounding with `bits` random bits."""
    return Rounding("stochastic", bits, corrected)


def rounding_of(kind: str, bits: int = 8, corrected: bool = False) -> Rounding:
    """Return the rounding of a kind; `bits` and `corrected` count for ``stochastic`` alone."""
    return Rounding(kind, bits, corrected) if kind == "stochastic" else Rounding(kind)


def require_random(parameters: Any) -> None:
    """Require `random_bits`, `corrected` and `seed` of parameters that a stochastic rounding can use."""
    require_int("random_bits", parameters.random_bits, 1, 16)
    require(type(parameters.corrected) is bool, "corrected", parameters.corrected, "true, false")
    require_int("seed", parameters.seed, 0, 2**31 - 1)


def _random(rounding: Rounding, random: Any, shape: tuple[int, ...]) -> np.ndarray:
    require(random is not None, "random", random, "one random word per element, because rounding is stochastic")
    random = np.broadcast_to(np.asarray(random).astype(np.int64), shape)
    return rounding.noise(random)


def round_scaled(magnitude: ArrayLike, exponent: ArrayLike, rounding: Rounding, random: ArrayLike | None = None
                 ) -> np.ndarray:
    """Round ``magnitude * 2**exponent`` to integers (int64).

    Parameters
    ----------
    magnitude : array of float64
        Finite and not negative; the scaled value must stay below 2**45.
    exponent : int or array of int
        Power-of-two scale.
    rounding : Rounding
    random : array of int, optional
        Random words of the shape of `magnitude`.
    """
    magnitude = np.asarray(magnitude, np.float64)
    if rounding.kind == "stochastic":
        window = np.floor(np.ldexp(magnitude, np.asarray(exponent) + rounding.window)).astype(np.int64)
        return (window + _random(rounding, random, magnitude.shape)) >> rounding.window
    # ldexp rounds only below 2**-1022, far from any half: floor and rint see the exact value.
    scaled = np.ldexp(magnitude, exponent)
    return (np.rint(scaled) if rounding.kind == "nearest" else np.floor(scaled)).astype(np.int64)


def round_shift(magnitude: ArrayLike, shift: ArrayLike, rounding: Rounding, random: ArrayLike | None = None
                ) -> np.ndarray:
    """Round ``magnitude / 2**shift`` for integer arrays: not negative, below 2**40, shift 0 to 62 (int64)."""
    magnitude = np.asarray(magnitude).astype(np.int64)
    shift = np.asarray(shift).astype(np.int64)
    if rounding.kind == "truncate":
        return magnitude >> shift
    if rounding.kind == "nearest":
        quotient = magnitude >> shift
        rest = 2 * (magnitude - (quotient << shift))
        one = np.int64(1) << shift
        return quotient + ((rest > one) | ((rest == one) & (quotient & 1 == 1)))
    up = np.maximum(rounding.window - shift, 0)
    window = (magnitude << up) >> np.maximum(shift - rounding.window, 0)
    return (window + _random(rounding, random, np.broadcast(magnitude, shift).shape)) >> rounding.window
