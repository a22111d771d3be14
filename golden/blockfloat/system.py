"""Block floating point as a number system."""

from dataclasses import dataclass

import numpy as np

from ...base.checks import require_int
from ...base.parameters import Parameters
from ..accumulator import BANK, RECURRENCE
from ..formats import PRESETS, Float
from .numbers import passes
from .units import ConverterParameters, FMACParameters, convert, fmac

__all__ = ["System"]


@dataclass(frozen=True)
class System(Parameters):
    """Block floating point as a number system of the array: see `array`.

    An instruction chooses each operand's precision and its rounding (0 nearest even, 1 truncate, 2 stochastic).

    Parameters
    ----------
    group, mantissa, exponent, accumulator, chunks
        As in `FMACParameters`.
    work, random_bits, corrected
        As in `ConverterParameters`.
    seed : int
        Of the random words of rows, 0 to 2**31 - 2; those of columns have the next one.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    accumulator: Float = PRESETS["fp32"]
    chunks: str = "serial"
    work: Float = PRESETS["fp32"]
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1

    recurrence = RECURRENCE

    def __post_init__(self):
        require_int("seed", self.seed, 0, 2**31 - 2)
        self.cell(2), self.converter(0)

    @property
    def modes(self):
        """Fields of an operand, and their bits."""
        return {"precision": self.mantissa.bit_length(), "rounding": 2}

    def default(self, name):
        """Return the value of a mode that is not given."""
        return {"precision": self.mantissa, "rounding": 0}[name]

    def cell(self, sums):
        """Return the cell's parameters."""
        return FMACParameters(self.group, self.mantissa, self.exponent, self.accumulator, self.chunks, sums)

    def converter(self, side):
        """Return the parameters of a side's converter."""
        return ConverterParameters(self.group, self.mantissa, self.exponent, self.work, self.random_bits,
                                   self.corrected, self.seed + side)

    @property
    def depth(self):
        """Cycles from a transfer that a cell accepts to its addition."""
        return self.cell(2).latency - BANK

    def interval(self, a, b):
        """Return the cycles that a transfer takes."""
        cell = self.cell(2)
        return passes(*(min(max(mode["precision"], 2), self.mantissa) for mode in (a, b))) if cell.serial else 1

    def convert(self, side, codes, mode, step):
        """Return the arrays (exponents, mantissas, precisions) of vectors, the draws, and the sticky status."""
        count = len(codes)
        exponents, mantissas, invalid, overflow = convert(
            self.converter(side), codes, np.full(count, mode["precision"]), np.full(count, mode["rounding"]), step)
        draws = count if mode["rounding"] == 2 else 0
        arrays = exponents, mantissas, np.full(count, mode["precision"])
        return arrays, draws, bool(invalid.any()), bool(overflow.any())

    def dot(self, a, b, first, last):
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = fmac(self.cell(2), a, b, np.zeros(len(first), int), first, last)
        return codes, False, overflow
