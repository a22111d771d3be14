"""Floating point as number systems: of any width, bf16, FP8, and the work format as it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.checks import require, require_int
from ..accumulator import two_sum
from ..formats import PRESETS, Float
from ..number_system import BankedSystem, Draws, Mode, NumberSystem, named
from .arithmetic import NATIVE, require_work
from .products import matmul, matmul_fp32
from .units import CastParameters, MACParameters, caster, mac

__all__ = ["BF16System", "FP8System", "FloatSystem", "PlainSystem"]


@dataclass(frozen=True)
class FloatSystem(BankedSystem):
    """Floating point as a number system, one element a vector; each product is added exactly, with one rounding.

    Parameters
    ----------
    format, accumulator, multiplier
        As in `MACParameters`.
    work : Float
        Where it is not the format of the operands, they are cast, to nearest even.
    chunk : int, optional
        As in `MACParameters`.
    """

    format: Float = PRESETS["fp16"]
    accumulator: Float = PRESETS["fp16"]
    multiplier: str = "dsp"
    work: Float = PRESETS["fp16"]
    chunk: int | None = None

    circuits = "narrowgauge.hw.floating:FloatCircuits"
    group = 1
    modes = {}

    def __post_init__(self) -> None:
        self.cell(2), self.converter(0)

    def cell(self, sums: int) -> MACParameters:
        """Return the cell's parameters."""
        return MACParameters(self.format, self.accumulator, sums, self.multiplier, self.chunk)

    @property
    def depth(self) -> int:  # type: ignore[override]  # follows from the cell, and is never set
        """Cycles from a transfer that a cell accepts to its addition."""
        return self.cell(2).depth

    @property
    def vector_bits(self) -> int:
        """Bits of a converted number."""
        return self.format.width

    def converter(self, side: int) -> CastParameters | None:
        """Return the parameters of a side's converter, if there is one."""
        return CastParameters(self.work, result=self.format) if self.work != self.format else None

    def convert(self, side: int, codes: np.ndarray, mode: Mode, draws: Draws
                ) -> tuple[tuple[np.ndarray, ...], bool, bool]:
        """Return the array of codes of vectors, and the sticky status."""
        codes = codes[:, 0]
        converter = self.converter(side)
        if converter is None:
            return (codes,), False, False
        found, invalid, overflow = caster(converter, codes)
        return (found,), bool(np.any(invalid)), bool(np.any(overflow))

    def dot(self, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, bool, bool]:
        """Return the codes of sums of products, and the sticky status."""
        return mac(self.cell(2), a[0], b[0], np.zeros(len(first), int), first, last)

    def format_of(self, mode: Mode) -> Float:
        """Return the format of the operands."""
        return self.format

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the product: sums in float64, rounded to odd there and then to the accumulator's format.

        A sum rounded to odd in 53 bits never lies where the second rounding would have a tie that the exact sum has
        not. What is Inf or NaN goes transfer by transfer, as the status depends on the way to it.
        """
        x, y = (self.format.decode(operand.arrays[0]) for operand in (a, b))
        if self.format.mantissa > 25 or not (np.isfinite(x).all() and np.isfinite(y).all()):
            return super().product(a, b)
        total = added = np.zeros((len(x), len(y)))
        chunk = self.chunk or x.shape[1]
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for first in range(0, x.shape[1], chunk):
                added = np.zeros_like(total)
                for column, row in zip(x.T[first:first + chunk, :, np.newaxis], y.T[first:first + chunk]):
                    added = self._sum(column * row, added)
                total = self._sum(added, total)
        total = added if self.chunk is None else total
        return (total, False, False) if np.isfinite(total).all() else super().product(a, b)

    def _sum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sums, rounded to odd and then to the accumulator's format. One that is exactly zero is +0."""
        added, error = two_sum(a, b)
        added += 0.0
        if error.any():
            odd = added.view(np.int64) & 1 == 1
            added = np.where((error == 0) | odd, added, np.nextafter(added, np.copysign(np.inf, error)))
        return self._rounded(added)

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """Return values rounded to the accumulator's format, as float64."""
        dtype = NATIVE.get(self.accumulator)
        return self.accumulator.nearest(values) if dtype is None else values.astype(dtype).astype(np.float64)


@dataclass(frozen=True)
class BF16System(FloatSystem):
    """bf16 operands of fp32 tensors, added in fp32."""

    format: Float = PRESETS["bf16"]
    accumulator: Float = PRESETS["fp32"]
    work: Float = PRESETS["fp32"]


@dataclass(frozen=True)
class FP8System(FloatSystem):
    """FP8 operands of fp32 tensors without a scale, added in fp32: E5M2 by default, which holds gradients too."""

    format: Float = PRESETS["fp8-e5m2"]
    accumulator: Float = PRESETS["fp32"]
    work: Float = PRESETS["fp32"]


@dataclass(frozen=True)
class PlainSystem(NumberSystem):
    """The work format as it is, for training alone: no operand is rounded.

    fp32: every product and every sum is rounded, in ascending order. fp16: each product is added exactly, with one
    rounding, in chunks; see `matmul`. Any other format: likewise, in one sum.

    Parameters
    ----------
    work : Float
        See `require_work`.
    chunk : int, optional
        With fp16, products that are summed apart before the sums are.
    """

    work: Float = PRESETS["fp32"]
    chunk: int | None = None

    refusal = "every product is rounded before it is added"
    group = 1
    modes = {}

    def __post_init__(self) -> None:
        require_work(self.work)
        require(self.chunk is None or self.work == PRESETS["fp16"], "chunk", self.chunk,
                f"None, because numbers are kept in {named(self.work)}, and column sums have chunks in fp16 alone")
        if self.chunk is not None:
            require_int("chunk", self.chunk, 1, 10**6)

    @property
    def arrayed(self) -> NumberSystem:
        """The float system of the work format, if each product is added exactly."""
        own = self.work != PRESETS["fp32"]
        return FloatSystem(self.work, self.work, work=self.work, chunk=self.chunk) if own else self

    @property
    def accumulator(self) -> Float:  # type: ignore[override]
        """The work format."""
        return self.work

    def format_of(self, mode: Mode) -> Float:
        """Return the work format."""
        return self.work

    def operand(self, array: Any, axis: int, mode: Mode, side: int, draws: Draws) -> tuple[Any, bool, bool]:
        """Return the array itself."""
        return array, False, False

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the product of arrays (M, K) and (K, N) in the work format."""
        if self.work == PRESETS["fp32"]:
            return matmul_fp32(a, b), False, False
        if self.work == PRESETS["fp16"]:
            return matmul(a, b, self.work, self.chunk), False, False
        system = FloatSystem(self.work, self.work, work=self.work)
        sides = [system.operand(each, 1 - side, {}, side, Draws(0))[0] for side, each in enumerate((a, b))]
        return system.product(*sides)[0], False, False
