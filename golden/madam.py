"""Madam: multiplicative weight updates, which are additions to the codes of logarithmic weights.

After LNS-Madam (arXiv 2106.13914). Source: numerics contract, section 7.
"""

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np

from ..base.checks import require, require_int
from ..base.parameters import Parameters
from .formats import PRESETS, Float, Log
from .logarithmic import DIGITS, levels, narrowed
from .words import counted

__all__ = ["MadamParameters", "correction", "growth", "steps_of", "twin", "update", "updates"]


@dataclass(frozen=True)
class MadamParameters(Parameters):
    """Parameters of the unit ``madam-update``.

    Parameters
    ----------
    weight : Log
        Of the weights that are updated: 8 to 16 bits.
    narrow : Log
        Of the weights in dot products: as many octaves in fewer bits, under the same scale.
    gradient : Float
        Specials ``ieee``, 2 mantissa bits or more, within the exponents of fp32.
    second_bits, second_gamma, second_bias : int
        Of the second moment v, which is kept as an unsigned code V: v = 2**(V / second_gamma - second_bias), and 0
        where V = 0. 6 to 16; 1, 2, 4, 8 or 16; -128 to 320.
    memory : int
        Steps over which v averages: v <- (1 - 1/memory) * v + g**2 / memory. 2 to 65,536.
    clip : int
        Largest normalised gradient, 1 to 15.
    lanes : int
        Weights of a transfer, 1 to 16.
    random_bits : int
        Of the stochastic rounding of V, 1 to 16, and as many as it takes for V to fall at all with such a memory.
    seed : int
        Of the random words, 0 to 2**31 - 1.
    """

    weight: Log = PRESETS["lns16-update"]
    narrow: Log = PRESETS["lns8"]
    gradient: Float = PRESETS["fp32"]
    second_bits: int = 10
    second_gamma: int = 8
    second_bias: int = 96
    memory: int = 1000
    clip: int = 10
    lanes: int = 1
    random_bits: int = 8
    seed: int = 1

    def __post_init__(self) -> None:
        weight, narrow, gradient = self.weight, self.narrow, self.gradient
        require(isinstance(weight, Log) and 8 <= weight.bits <= 16 and weight.gamma <= 1 << (weight.bits - 2), "weight",
                weight, "a Log of 8 to 16 bits, gamma at most 2**(bits-2), such as lns16-update")
        require(isinstance(narrow, Log) and 4 <= narrow.bits < weight.bits and
                weight.gamma == narrow.gamma << (weight.bits - narrow.bits), "narrow", narrow,
                "a Log of 4 bits or more with the octaves of `weight` in fewer bits, such as lns8")
        require(isinstance(gradient, Float) and gradient.specials == "ieee" and gradient.mantissa >= 2 and
                gradient.emin >= -126 and gradient.emax <= 127, "gradient", gradient,
                "a Float with specials 'ieee', 2 mantissa bits or more and exponents within fp32's, such as fp32, "
                "bf16, fp16")
        require_int("second_bits", self.second_bits, 6, 16)
        require(type(self.second_gamma) is int and self.second_gamma in (1, 2, 4, 8, 16), "second_gamma",
                self.second_gamma, "1, 2, 4, 8, 16")
        require_int("second_bias", self.second_bias, -128, 320)
        require_int("memory", self.memory, 2, 65536)
        require_int("clip", self.clip, 1, 15)
        require_int("lanes", self.lanes, 1, 16)
        require_int("random_bits", self.random_bits, 1, 16)
        require_int("seed", self.seed, 0, 2**31 - 1)
        # What a step forgets must not be rounded to nothing, or v would never fall.
        forgotten = -math.log2(1 - 1 / self.memory) * self.second_gamma
        least = next(bits for bits in range(1, 18) if forgotten * 2**bits > 0.5)
        require(self.random_bits >= least, "random_bits", self.random_bits,
                f"an integer from {least} to 16, because memory is {self.memory}")

    @property
    def second_top(self) -> int:
        """Largest code V."""
        return (1 << self.second_bits) - 1

    @property
    def shift(self) -> int:
        """Bits that `narrow` lacks."""
        return self.weight.bits - self.narrow.bits

    @property
    def thresholds(self) -> tuple[int, ...]:
        """For n in 1..clip: the least 2 * log2 of the normalised gradient, in codes of V, that rounds to n or more.

        Half of a step is a tie, which goes to the even 0.
        """
        return _thresholds(self.second_gamma, self.clip)


@lru_cache(64)
def _thresholds(second_gamma: int, clip: int) -> tuple[int, ...]:
    return tuple(math.floor(_log2(Decimal(2 * n - 1) / 2) * 2 * second_gamma) + 1 for n in range(1, clip + 1))


def _log2(value: Decimal) -> Decimal:
    """Return log2 of a Decimal to `DIGITS` digits; exact for powers of two."""
    exponent = 0
    with localcontext() as context:
        context.prec = DIGITS
        while value >= 2:
            value, exponent = value / 2, exponent + 1
        while value < 1:
            value, exponent = value * 2, exponent - 1
        return exponent + (value.ln() / Decimal(2).ln() if value != 1 else Decimal(0))


@lru_cache(64)
def growth(second_gamma: int, memory: int, bits: int) -> tuple[int, tuple[int, ...], int]:
    """Return (low, table, end): by how much V grows, in units of 2**-bits, for d = 2 * log2|g| - log2 v in codes.

    ``table[d - low]`` for d of low .. low + len(table) - 1. Below, the growth is as for `low`; above, it is
    ``(d << bits) + end``.

    It is round(2**bits * gamma * log2(1 - 1/memory + 2**(d/gamma) / memory)).
    """
    unit = Decimal(second_gamma * 2**bits)
    keep, take = Decimal(memory - 1) / memory, Decimal(1) / memory

    def exact(d: int) -> int:
        with localcontext() as context:
            context.prec = DIGITS
            return round(unit * _log2(keep + take * Decimal(2) ** (Decimal(d) / second_gamma)))

    with localcontext() as context:
        context.prec = DIGITS
        floor, end = round(unit * _log2(keep)), round(unit * _log2(take))
    low = 0
    while exact(low - 1) != floor:
        low -= 1
    low -= 1
    high = 0
    while exact(high) != (high << bits) + end:
        high += 1
    return low, tuple(exact(d) for d in range(low, high)), end


@lru_cache(1 << 16)
def correction(parameters: MadamParameters, step: int) -> int:
    """Return round(second_gamma * log2(1 - (1 - 1/memory)**step)) for steps counted from 1: the start of v at 0."""
    require_int("step", step, 1, 2**31 - 1)
    with localcontext() as context:
        context.prec = DIGITS
        kept = (Decimal(parameters.memory - 1) / parameters.memory) ** step
        return round(parameters.second_gamma * _log2(1 - kept)) if kept < 1 else 0


def steps_of(difference: np.ndarray, parameters: MadamParameters) -> np.ndarray:
    """Return |normalised gradient|, rounded and clipped, for D = 2 * log2 of it in codes of V."""
    return np.searchsorted(np.array(parameters.thresholds), difference, side="right")


def update(parameters: MadamParameters, weights: np.ndarray, gradients: np.ndarray, seconds: np.ndarray,
           correction: Any, rate: Any, bound: Any, words: np.ndarray) -> tuple[np.ndarray, ...]:
    """Update weights of any shape, each on its own, with random words of one's own.

    Parameters
    ----------
    parameters : MadamParameters
    weights, gradients, seconds : array of int
        Codes of the weights, of the gradients and V.
    correction : int or array of int
        See the function of that name; -32,768 to 0.
    rate : int or array of int
        A normalised gradient of 1 moves t by 2**rate: 0 to 7. The learning rate is 2**rate / weight.gamma.
    bound : int or array of int
        Largest t of a weight, 1 to the top code.
    words : array of int
        Random words.

    Returns
    -------
    weights, narrow, seconds : ndarray of uint32
        The new codes. A zero weight stays zero. Other weights never become zero or change sign.
    invalid, overflow : ndarray of bool
        invalid: a gradient was NaN, which changes nothing. overflow: a gradient was Inf, or its square was above the
        largest v and counted as the largest v.
    """
    p, fmt = parameters, parameters.gradient
    weights, gradients, seconds, correction, rate, bound = (
        np.asarray(each).astype(np.int64) for each in (weights, gradients, seconds, correction, rate, bound))
    g = fmt.decode(gradients)
    nan, infinite = np.isnan(g), np.isinf(g)
    finite = np.where(nan | infinite, 0, g)
    # 2 * log2|g| in codes of V; 0 is none.
    square = levels(finite, 2 * p.second_gamma) + p.second_gamma * p.second_bias
    square = np.where(infinite, p.second_top, np.where(finite == 0, 0, np.maximum(square, 0)))
    overflow = infinite | (square > p.second_top)
    square = np.minimum(square, p.second_top)

    low, table, end = growth(p.second_gamma, p.memory, p.random_bits)
    d = np.where(square > 0, square - seconds, low)
    inside = np.array(table)[np.clip(d - low, 0, len(table) - 1)]
    grown = (seconds << p.random_bits) + np.where(d < low + len(table), inside, (d << p.random_bits) + end)
    moved = np.clip((grown + np.asarray(words).astype(np.int64)) >> p.random_bits, 0, p.second_top)
    moved = np.where(nan, seconds, moved)

    count = np.where((square > 0) & ~nan, steps_of(square - moved + correction, p), 0)
    away = (gradients >> (fmt.width - 1) ^ weights >> (p.weight.bits - 1)) & 1 == 1
    t = weights & p.weight.top
    change = count << rate
    new = np.clip(np.where(away, t + change, t - change), 1, bound)
    new = np.where(t == 0, 0, new) | (weights & ~p.weight.top)
    return (new.astype(np.uint32), narrowed(new, p.weight, p.narrow), moved.astype(np.uint32), nan, overflow)


def updates(parameters: MadamParameters, weights: np.ndarray, gradients: np.ndarray, seconds: np.ndarray,
            correction: Any, rate: Any, bound: Any, step: int = 0) -> tuple[np.ndarray, ...]:
    """Golden function of ``madam-update``: transfers of `lanes` weights each, in order.

    Parameters
    ----------
    parameters : MadamParameters
    weights, gradients, seconds : array of int, shape (n, lanes)
    correction, rate, bound : array of int, shape (n,)
        As for `update`.
    step : int
        Transfers before the first of these. Every transfer draws one random word per lane, needed or not.

    Returns
    -------
    weights, narrow, seconds : ndarray of uint32, shape (n, lanes)
    invalid, overflow : ndarray of bool, shape (n,)
        Whether the transfer raised the sticky status: see `update`.
    """
    p = parameters
    weights, gradients, seconds = (np.asarray(each).reshape(-1, p.lanes) for each in (weights, gradients, seconds))
    correction, rate, bound = (np.asarray(each).reshape(-1, 1) for each in (correction, rate, bound))
    words = counted(p.seed, p.lanes, step, len(weights), p.random_bits)
    *codes, invalid, overflow = update(p, weights, gradients, seconds, correction, rate, bound, words)
    return (*codes, np.any(invalid, axis=1), np.any(overflow, axis=1))


def twin(weights: np.ndarray, gradients: np.ndarray, seconds: np.ndarray, step: int, *, lr: float = 2.0**-7,
         clip: float = 10, decay: float = 0.999, bound: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Return what `update` approximates: float64 arrays (weights, seconds), after LNS-Madam's own code.

    v = decay * v + (1 - decay) * g**2; gn = g / sqrt(v / (1 - decay**step)), clipped and rounded to an integer, NaN to
    0; w = w * 2**(-lr * gn * sign(w)), |w| at most `bound`.
    """
    gradients = np.asarray(gradients, np.float64)
    seconds = decay * np.asarray(seconds, np.float64) + (1 - decay) * gradients**2
    with np.errstate(divide="ignore", invalid="ignore"):
        normalised = gradients / np.sqrt(seconds / (1 - decay**step))
    normalised = np.rint(np.nan_to_num(np.clip(normalised, -clip, clip)))
    weights = weights * np.exp2(-lr * normalised * np.sign(weights))
    return np.clip(weights, -bound, bound), seconds
