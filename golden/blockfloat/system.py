"""Block floating point as a number system."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import PRESETS, BlockFloat, Float
from ..number_system import BankedSystem, Draws, Mode
from ..rounding import KINDS, Rounding, require_random, rounding_of
from .numbers import matmul, passes, quantise
from .units import BFPConverterParameters, BFPFMACParameters, convert, fmac

__all__ = ["BFPSystem"]


@dataclass(frozen=True)
class BFPSystem(BankedSystem):
    """Block floating point as a number system.

    The modes of an operand are its precision and its rounding (0 nearest even, 1 truncate, 2 stochastic).

    Parameters
    ----------
    group, mantissa, exponent, accumulator, chunks
        As in `BFPFMACParameters`.
    work, random_bits, corrected
        As in `BFPConverterParameters`.
    seed : int
        Of an array's random words, 0 to 2**31 - 1. In training they have the run's.
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

    circuits = "narrowgauge.hw.blockfloat:BFPCircuits"
    adaptive = True

    def __post_init__(self) -> None:
        require_random(self)
        # Any format can be trained in; an array asks for more.
        BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def modes(self) -> Mapping[str, int]:  # type: ignore[override]
        """Fields of an operand, and their bits."""
        return {"precision": self.mantissa.bit_length(), "rounding": 2}

    @property
    def random(self) -> tuple[int, int]:  # type: ignore[override]
        """Lanes and bits of the words of a vector."""
        return self.group, self.random_bits

    def default(self, name: str) -> int:
        """Return the value of a mode that is not given."""
        return {"precision": self.mantissa, "rounding": 0}[name]

    def cell(self, sums: int) -> BFPFMACParameters:
        """Return the cell's parameters."""
        return BFPFMACParameters(self.group, self.mantissa, self.exponent, self.accumulator, self.chunks, sums)

    def converter(self, side: int) -> BFPConverterParameters:
        """Return the parameters of a side's converter."""
        return BFPConverterParameters(self.group, self.mantissa, self.exponent, self.work, self.random_bits,
                                      self.corrected, self.seed)

    @property
    def vector_bits(self) -> int:
        """Bits of a converted vector: an exponent, and signs and magnitudes."""
        return self.exponent + self.group * (1 + self.mantissa)

    def interval(self, a: Mode, b: Mode) -> int:
        """Return the cycles that a transfer takes."""
        return passes(*(self.format_of(mode).mantissa for mode in (a, b))) if self.cell(2).serial else 1

    def convert(self, side: int, codes: np.ndarray, mode: Mode, draws: Draws
                ) -> tuple[tuple[np.ndarray, ...], bool, bool]:
        """Return the arrays (exponents, mantissas, precisions) of vectors, and the sticky status."""
        count = len(codes)
        exponents, mantissas, invalid, overflow = convert(
            self.converter(side), codes, np.full(count, mode["precision"]), np.full(count, mode["rounding"]),
            random=draws.stream(*self.random))
        arrays = exponents, mantissas, np.full(count, mode["precision"])
        return arrays, bool(invalid.any()), bool(overflow.any())

    def dot(self, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, bool, bool]:
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = fmac(self.cell(2), a, b, np.zeros(len(first), int), first, last)
        return codes, False, overflow

    def format_of(self, mode: Mode) -> BlockFloat:
        """Return the BlockFloat of operands of these modes: a precision beyond the ends counts as the end."""
        return BlockFloat(self.group, min(max(mode["precision"], 2), self.mantissa), self.exponent)

    def rounding_of(self, mode: Mode) -> Rounding:
        """Return the rounding of operands of these modes; 3 counts as nearest."""
        return rounding_of(KINDS[mode["rounding"] % 3], self.random_bits, self.corrected)

    def describe(self, mode: Mode) -> dict:
        """Return the format, spelled out, and the rounding: a preset's name would promise FAST's roundings as well."""
        return super().describe(mode) | {"format": {"type": "BlockFloat", **self.format_of(mode).to_json()}}

    def operand(self, array: Any, axis: int, mode: Mode, side: int, draws: Draws) -> tuple[Any, bool, bool]:
        """Return Blocks, and the sticky status."""
        rounding = self.rounding_of(mode)
        blocks = quantise(array, self.format_of(mode), axis=axis, rounding=rounding,
                          random=draws.of(rounding, self.group))
        return blocks, blocks.invalid, blocks.overflow

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the product of Blocks in the accumulator's format, see `matmul`, and the sticky status.

        Operands are finite. So an infinite sum stays infinite.
        """
        found = matmul(a, b, self.accumulator)
        return found, False, bool(np.isinf(found).any())
