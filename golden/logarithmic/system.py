"""Logarithmic numbers as a number system."""

from dataclasses import dataclass

import numpy as np

from ..formats import PRESETS, Float, Log
from ..system import ScaledSystem
from .numbers import SCALE_BIAS
from .products import DotParameters, dots
from .units import ConverterParameters, convert

__all__ = ["System"]


@dataclass(frozen=True)
class System(ScaledSystem):
    """Logarithmic numbers as a number system of the array: see `array`.

    Parameters
    ----------
    format, lanes, accumulation, lsb, constants, fraction
        As in `DotParameters`.
    sum_bits : int, optional
        Its ``accumulator``.
    work : Float
        As in `ConverterParameters`.
    accumulator : Float
        What sums are rounded to: the ``result`` of `DotParameters`.
    """

    format: Log = PRESETS["lns8"]
    lanes: int = 16
    accumulation: str = "direct"
    sum_bits: int = None
    lsb: int = 0
    constants: int = None
    fraction: int = 8
    work: Float = PRESETS["fp32"]
    accumulator: Float = PRESETS["fp32"]

    def default(self, name):
        """Return the value of a mode that is not given: a scale whose largest number is between 16 and 32."""
        return SCALE_BIAS + 4 - self.format.top // self.format.gamma

    def cell(self, sums):
        """Return the cell's parameters."""
        return DotParameters(self.format, self.lanes, self.accumulation, self.sum_bits, self.lsb, self.constants,
                             self.fraction, self.accumulator)

    def converter(self, side):
        """Return the parameters of a side's converter."""
        return ConverterParameters(self.format, self.work, self.lanes)

    def convert(self, side, codes, mode, step):
        """Return the arrays (codes, scales) of vectors, no draws, and the sticky status."""
        count = len(codes)
        found, scale, invalid, overflow = convert(self.converter(side), codes, np.full(count, mode["scale"]),
                                                  np.ones(count, bool))
        return (found, scale), 0, bool(invalid.any()), bool(overflow.any())

    def dot(self, a, b, first, last):
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = dots(self.cell(2), a, b, first, last)
        return codes, False, overflow
