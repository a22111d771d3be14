"""Floating point as a number system."""

from dataclasses import dataclass

import numpy as np

from ...base.parameters import Parameters
from ..accumulator import BANK, RECURRENCE
from ..formats import PRESETS, Float
from .units import CastParameters, MACParameters, caster, mac

__all__ = ["System"]


@dataclass(frozen=True)
class System(Parameters):
    """Floating point as a number system of the array, one element a vector: see `array`.

    Parameters
    ----------
    format, accumulator, multiplier
        As in `MACParameters`.
    work : Float
        Where it is not the format of the operands, they are cast, to nearest even.
    """

    format: Float = PRESETS["fp16"]
    accumulator: Float = PRESETS["fp16"]
    multiplier: str = "dsp"
    work: Float = PRESETS["fp16"]

    group = 1
    recurrence = RECURRENCE
    modes = {}

    def __post_init__(self):
        self.cell(2), self.converter(0)

    def cell(self, sums):
        """Return the cell's parameters."""
        return MACParameters(self.format, self.accumulator, sums, self.multiplier)

    def converter(self, side):
        """Return the parameters of a side's converter, if there is one."""
        return CastParameters(self.work, result=self.format) if self.work != self.format else None

    @property
    def depth(self):
        """Cycles from a transfer that a cell accepts to its addition."""
        return self.cell(2).latency - BANK

    def interval(self, a, b):
        """Return the cycles that a transfer takes."""
        return 1

    def convert(self, side, codes, mode, step):
        """Return the array of codes of vectors, no draws, and the sticky status."""
        codes = codes[:, 0]
        if self.work == self.format:
            return (codes,), 0, False, False
        found, invalid, overflow = caster(self.converter(side), codes)
        return (found,), 0, bool(np.any(invalid)), bool(np.any(overflow))

    def dot(self, a, b, first, last):
        """Return the codes of sums of products, and the sticky status."""
        return mac(self.cell(2), *a, *b, np.zeros(len(first), int), first, last)
