"""The units ``float-adder``, ``-multiplier``, ``-fma``, ``-cast`` and ``-mac``: parameters, and what they compute.

Source: numerics contract, sections 1, 2 and 4.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...base.checks import require, require_int, require_lengths
from ...base.parameters import Parameters
from ..accumulator import BANK, require_sums, runs
from ..formats import PRESETS, Float
from ..rounding import KINDS, NEAREST, Rounding, require_random, rounding_of
from ..words import counted
from .operations import add_flagged, cast_flagged, fma_flagged, multiply_flagged, negate

__all__ = [
    "MULTIPLIERS", "AdderParameters", "CastParameters", "FMAParameters", "MACParameters", "MultiplierParameters",
    "adder", "caster", "fused", "mac", "multiplier",
]

SUBNORMALS = ("keep", "flush")
MULTIPLIERS = ("dsp", "lut")


@dataclass(frozen=True)
class _FloatUnit(Parameters):
    """What the pipelined units have in common.

    Parameters
    ----------
    format : Float
        Of the operands.
    rounding : str
        ``nearest``, ``truncate`` or ``stochastic``.
    random_bits : int
        Width of a random word, 1 to 16. Only ``stochastic`` uses it, and the next two.
    corrected : bool
        Whether stochastic rounding is corrected (see `Rounding`).
    seed : int
        Seed of the random words, 0 to 2**31 - 1.
    subnormals : str
        ``keep``: gradual underflow. ``flush``: subnormal operands count as zeros of their sign, and a result
        that, rounded as if exponents had no lower end, is below the smallest normal number becomes one.
    latency : int, optional
        Cycles from an accepted transfer to its result, 1 to the class' `MOST`; `USUAL` when not given.
    """

    MOST: ClassVar[int]
    USUAL: ClassVar[int]

    format: Float = PRESETS["fp16"]
    rounding: str = "nearest"
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1
    subnormals: str = "keep"
    latency: int = None  # type: ignore[assignment]  # an integer, once made

    def __post_init__(self) -> None:
        require(isinstance(self.format, Float) and self.format.mantissa >= 1, "format", self.format,
                "a Float with a mantissa of 1 bit or more")
        require(self.rounding in KINDS, "rounding", self.rounding, ", ".join(KINDS))
        require_random(self)
        require(self.subnormals in SUBNORMALS, "subnormals", self.subnormals, ", ".join(SUBNORMALS))
        if self.latency is None:
            object.__setattr__(self, "latency", self.USUAL)
        require_int("latency", self.latency, 1, self.MOST)

    @property
    def mode(self) -> Rounding:
        """The Rounding."""
        return rounding_of(self.rounding, self.random_bits, self.corrected)

    def _like_format(self, name: str) -> None:
        """Make a format that was not given the operands' own; require a Float."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, self.format)
        value = getattr(self, name)
        require(isinstance(value, Float) and value.mantissa >= 1, name, value,
                "a Float with a mantissa of 1 bit or more")


@dataclass(frozen=True)
class AdderParameters(_FloatUnit):
    """Parameters of the unit ``float-adder``; see `_FloatUnit`."""

    MOST, USUAL = 6, 6


@dataclass(frozen=True)
class MultiplierParameters(_FloatUnit):
    """Parameters of the unit ``float-multiplier``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    result : Float, optional
        Format of the product; that of the operands when not given.
    multiplier : str
        ``dsp``: the family's multiplier block with its registers inside, where the Verilog is read with the
        family's macro defined, and ``*`` elsewhere. ``lut``: in LUTs.
    """

    result: Float = None  # type: ignore[assignment]  # a Float, once made
    multiplier: str = "dsp"

    MOST, USUAL = 5, 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._like_format("result")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))


@dataclass(frozen=True)
class FMAParameters(_FloatUnit):
    """Parameters of the unit ``float-fma``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    accumulator : Float, optional
        Format of the addend and of the result; that of the operands when not given.
    multiplier : str
        As in `MultiplierParameters`.
    """

    accumulator: Float = None  # type: ignore[assignment]  # a Float, once made
    multiplier: str = "dsp"

    MOST, USUAL = 7, 7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._like_format("accumulator")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))


@dataclass(frozen=True)
class CastParameters(_FloatUnit):
    """Parameters of the unit ``float-cast``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    result : Float
        The format to cast to.
    """

    format: Float = PRESETS["fp32"]
    result: Float = PRESETS["fp16"]

    MOST, USUAL = 3, 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._like_format("result")


@dataclass(frozen=True)
class MACParameters(Parameters):
    """Parameters of the unit ``float-mac``.

    Parameters
    ----------
    format : Float
        Of the operands.
    accumulator : Float
        Format of the sums, with Inf and NaN: fp32, bf16, fp16.
    accumulators : int
        Sums kept side by side: 2, 4, 8 or 16.
    multiplier : str
        As in `MultiplierParameters`.
    chunk : int, optional
        So many products are summed apart, from +0, before their sum is added to the total; see `mac`.
    """

    format: Float = PRESETS["fp16"]
    accumulator: Float = PRESETS["fp16"]
    accumulators: int = 16
    multiplier: str = "dsp"
    chunk: int | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.format, Float) and self.format.mantissa >= 1, "format", self.format,
                "a Float with a mantissa of 1 bit or more")
        require_sums(self.accumulator, self.accumulators)
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))
        if self.chunk is not None:
            require_int("chunk", self.chunk, 1, 10**6)

    @property
    def depth(self) -> int:
        """Cycles from an accepted transfer to its addition."""
        return 3

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its emitted sum."""
        return self.depth + BANK + (0 if self.chunk is None else 1 + BANK)


def _words(parameters: _FloatUnit, step: int, count: int) -> np.ndarray | None:
    """Return the random words of `count` transfers from `step` on, or None when the rounding draws none."""
    if parameters.rounding != "stochastic":
        return None
    return counted(parameters.seed, 1, step, count, parameters.random_bits)[:, 0]


def adder(parameters: AdderParameters, a: np.ndarray, b: np.ndarray, subtract: np.ndarray, step: int = 0
          ) -> tuple[np.ndarray, ...]:
    """Golden function of ``float-adder``: transfers in order, each ``a + b`` or ``a - b``.

    Parameters
    ----------
    parameters : AdderParameters
    a, b : array of int, shape (n,)
        Codes of the format.
    subtract : array of bool, shape (n,)
    step : int
        Transfers before the first one here: with stochastic rounding each of them drew one random word.

    Returns
    -------
    codes : ndarray of uint32, shape (n,)
    invalid : ndarray of bool, shape (n,)
        The result is NaN, or would be in a format that has one: a NaN came in or the operation has no value.
    overflow : ndarray of bool, shape (n,)
        The result is no NaN, and beyond the largest finite value after rounding although the operands were finite;
        or it is infinite and the format has no Inf.
    """
    b = np.where(subtract, negate(b, parameters.format), b)
    return add_flagged(a, b, parameters.format, parameters.mode, _words(parameters, step, len(a)),
                       parameters.subnormals == "flush")


def multiplier(parameters: MultiplierParameters, a: np.ndarray, b: np.ndarray, step: int = 0) -> tuple[np.ndarray, ...]:
    """Golden function of ``float-multiplier``: ``a * b``; `step` and what is returned as in `adder`.

    Parameters
    ----------
    parameters : MultiplierParameters
    a, b : array of int, shape (n,)
        Codes of the operands' format; the results are codes of ``parameters.result``.
    """
    return multiply_flagged(a, b, parameters.format, parameters.result, parameters.mode,
                            _words(parameters, step, len(a)), parameters.subnormals == "flush")


def fused(parameters: FMAParameters, a: np.ndarray, b: np.ndarray, c: np.ndarray, step: int = 0
          ) -> tuple[np.ndarray, ...]:
    """Golden function of ``float-fma``: ``a * b + c``; `step` and what is returned as in `adder`.

    Parameters
    ----------
    parameters : FMAParameters
    a, b : array of int, shape (n,)
        Codes of the operands' format.
    c : array of int, shape (n,)
        Codes of ``parameters.accumulator``, and so are the results.
    """
    return fma_flagged(a, b, c, parameters.format, parameters.accumulator, parameters.mode,
                       _words(parameters, step, len(a)), parameters.subnormals == "flush")


def caster(parameters: CastParameters, a: np.ndarray, step: int = 0) -> tuple[np.ndarray, ...]:
    """Golden function of ``float-cast``: `step` and what is returned as in `adder`.

    Parameters
    ----------
    parameters : CastParameters
    a : array of int, shape (n,)
        Codes of ``parameters.format``; the results are codes of ``parameters.result``.
    """
    return cast_flagged(a, parameters.format, parameters.result, parameters.mode, _words(parameters, step, len(a)),
                        parameters.subnormals == "flush")


def mac(parameters: MACParameters, a: np.ndarray, b: np.ndarray, slot: np.ndarray, first: np.ndarray, last: np.ndarray
        ) -> tuple[np.ndarray, bool, bool]:
    """Golden function of ``float-mac``: transfers in order, each adds a product to a sum.

    The exact product is added with one rounding, to nearest even; subnormals are kept. Unlike in `fma`, a sum that
    is exactly zero is always +0. Inf and NaN follow IEEE 754: Inf - Inf and 0 * Inf are NaN, and a NaN sum stays.

    With `MACParameters.chunk` a slot has a sum of the chunk and a total. A chunk ends with its last product, or with
    `last`. Then the total becomes total + sum, rounded once, and the next product starts a chunk.

    Parameters
    ----------
    parameters : MACParameters
    a, b : array of int, shape (n,)
        Codes of the operands' format.
    slot : array of int, shape (n,)
        Which accumulator each transfer adds to.
    first, last : array of bool, shape (n,)
        Start from +0; emit the sum after this addition (the accumulator keeps it). Of chunks this is the total.

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the accumulator format, in order.
    invalid : bool
        Whether an operand was, or a sum became, NaN.
    overflow : bool
        Whether a finite sum plus a finite product, or a finite sum of a chunk, became infinite.
    """
    a, b, last = np.asarray(a), np.asarray(b), np.asarray(last, bool)
    require_lengths(a=a, b=b, slot=slot, first=first, last=last)
    count, levels = runs(slot, first)
    sums, totals, emitted = np.zeros(count, np.uint32), np.zeros(count, np.uint32), np.zeros(len(a), np.uint32)
    length, fmt, chunk = np.zeros(count, int), parameters.accumulator, parameters.chunk
    invalid = overflow = False
    for where, rows in levels:
        sums[where], bad, over = fma_flagged(a[rows], b[rows], sums[where], parameters.format, fmt, NEAREST, None,
                                             False, signed_zeros=False)
        invalid |= bool(bad.any())
        overflow |= bool(over.any())
        emitted[rows] = sums[where]
        if chunk is None:
            continue
        length[where] += 1
        ends = last[rows] | (length[where] == chunk)
        where, rows = where[ends], rows[ends]
        totals[where], bad, over = add_flagged(totals[where], sums[where], fmt, NEAREST, None, False)
        invalid |= bool(bad.any())
        overflow |= bool(over.any())
        emitted[rows], sums[where], length[where] = totals[where], 0, 0
    return emitted[last], invalid, overflow
