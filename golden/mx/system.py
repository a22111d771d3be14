"""Microscaling formats as a number system."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...base.checks import require
from .. import formats
from ..formats import Fixed, Float
from ..number_system import BankedSystem, Draws, Mode, Operand
from ..rounding import KINDS, Rounding, require_random, rounding_of
from .elements import MX, PRESETS, SCALE_RULES, WithElement, union
from .numbers import quantise
from .products import matmul
from .units import MXConverterParameters, MXDotParameters, WideDotParameters, convert, dots

__all__ = ["MXPairParameters", "MXSystem", "recoded"]


@dataclass(frozen=True)
class MXPairParameters:
    """Parameters of a converter of an array that makes blocks of one of two elements, by a mode of the operand.

    Parameters
    ----------
    first, second : MXConverterParameters
        Of other tensors, and of gradients.
    """

    first: MXConverterParameters
    second: MXConverterParameters

    @property
    def element(self) -> Float | Fixed:
        """The element of all blocks."""
        elements = self.first.element, self.second.element
        return elements[0] if elements[0] == elements[1] else union(*elements)

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its block."""
        return self.first.latency + 1


@lru_cache
def recoded(element: Float | Fixed, common: Float | Fixed) -> np.ndarray:
    """Return the codes of a `union` for all codes of finite numbers of an element (uint16); the others are 0."""
    values = element.decode(np.arange(256) & ((1 << element.width) - 1))
    return common.encode(np.where(np.isfinite(values), values, 0)).astype(np.uint16)


@dataclass(frozen=True)
class MXSystem(WithElement, BankedSystem):
    """Microscaling formats as a number system.

    Where gradients have an element or a rounding of their own, the mode ``gradient`` of an operand chooses it. An
    array's converters then make elements of the `union` of both.

    Parameters
    ----------
    element, gradients_element : str, dict, Float or Fixed
        Of all tensors, and of gradients if that is given: as in `MX`.
    block : int
    lanes : int
        As in `MXDotParameters`.
    scale_rule, rounding, random_bits, corrected
        As in `MXConverterParameters`.
    gradients_rounding : str, optional
        The rounding of gradients, if it is not that of the other tensors.
    accumulator : Float
    work : Float
    seed : int
        Of an array's random words, 0 to 2**31 - 1. In training they have the run's.
    """

    element: Float | Fixed = formats.PRESETS["fp8-e4m3"]
    gradients_element: Float | Fixed | None = None
    block: int = 32
    lanes: int = 8
    scale_rule: str = "floor"
    rounding: str = "nearest"
    gradients_rounding: str | None = None
    random_bits: int = 8
    corrected: bool = False
    accumulator: Float = formats.PRESETS["fp32"]
    work: Float = formats.PRESETS["fp32"]
    seed: int = 1

    circuits = "narrowgauge.hw.mx:MXCircuits"

    def __post_init__(self) -> None:
        self._check_element()
        if self.gradients_element is not None:
            self._check_element("gradients_element")
        # Any block can be trained with; an array asks for more.
        self.format_of({})
        if self.gradients_element == self.element:
            object.__setattr__(self, "gradients_element", None)
        if self.gradients_rounding == self.rounding:
            object.__setattr__(self, "gradients_rounding", None)
        for name in ("rounding", "gradients_rounding"):
            value = getattr(self, name)
            require(value in KINDS or name == "gradients_rounding" and value is None, name, value, ", ".join(KINDS))
        require(self.scale_rule in SCALE_RULES, "scale_rule", self.scale_rule, ", ".join(SCALE_RULES))
        require_random(self)

    def to_json(self) -> dict:
        """Return the settings as a dict of plain JSON values."""
        return super().to_json() | self._named("gradients_element")

    @property
    def group(self) -> int:  # type: ignore[override]
        """Elements of a vector."""
        return self.block

    @property
    def modes(self) -> Mapping[str, int]:  # type: ignore[override]
        """Fields of an operand, and their bits."""
        return {"gradient": 1} if self.gradients_element or self.gradients_rounding else {}

    @property
    def random(self) -> tuple[int, int] | None:  # type: ignore[override]
        """Lanes and bits of the words of a vector, if a rounding takes any."""
        return (self.block, self.random_bits) if "stochastic" in (self.rounding, self.gradients_rounding) else None

    def default(self, name: str) -> int:
        """Return the value of a mode that is not given."""
        return 0

    def mode(self, kind: str, array: Any) -> Mode:
        """Return the modes of an operand in training."""
        return {name: int(kind == "gradients") for name in self.modes}

    def cell(self, sums: int) -> MXDotParameters:
        """Return the cell's parameters."""
        kind = MXDotParameters if self.gradients_element is None else WideDotParameters
        return kind(self.common, None, self.block, self.lanes, self.accumulator, sums)

    def converter(self, side: int) -> MXConverterParameters | MXPairParameters:
        """Return the parameters of a side's converter."""
        return MXPairParameters(*map(self._converter, (0, 1))) if self.modes else self._converter(0)

    def _converter(self, gradient: int) -> MXConverterParameters:
        """Return the parameters of the converter of gradients, or of other tensors."""
        mode = {"gradient": gradient}
        return MXConverterParameters(self.format_of(mode).element, self.block, self.scale_rule,
                                     self.rounding_of(mode).kind, self.random_bits, self.corrected, self.seed,
                                     self.work)

    @property
    def common(self) -> Float | Fixed:
        """The element that cells multiply."""
        return self.element if self.gradients_element is None else union(self.element, self.gradients_element)

    @property
    def vector_bits(self) -> int:
        """Bits of a converted vector: a scale, and elements."""
        return 8 + self.block * self.common.width

    def interval(self, a: Mode, b: Mode) -> int:
        """Return the cycles that a transfer takes."""
        return self.block // self.lanes

    def convert(self, side: int, codes: np.ndarray, mode: Mode, draws: Draws
                ) -> tuple[tuple[np.ndarray, ...], bool, bool]:
        """Return the arrays (scales, elements) of vectors, and the sticky status."""
        scales, elements, invalid, overflow = convert(self._converter(mode.get("gradient", 0)), codes,
                                                      random=draws.stream(self.block, self.random_bits))
        if self.gradients_element is not None:
            elements = recoded(self.format_of(mode).element, self.common)[elements]
        return (scales, elements), bool(invalid.any()), bool(overflow.any())

    def dot(self, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, bool, bool]:
        """Return the codes of sums of dot products, and the sticky status."""
        return dots(self.cell(2), a, b, np.zeros(len(first), int), first, last)

    def format_of(self, mode: Mode) -> MX:
        """Return the MX format of operands of these modes."""
        return MX(mode.get("gradient") and self.gradients_element or self.element, self.block)

    def rounding_of(self, mode: Mode) -> Rounding:
        """Return the rounding of operands of these modes."""
        kind = mode.get("gradient") and self.gradients_rounding or self.rounding
        return rounding_of(kind, self.random_bits, self.corrected)

    def describe(self, mode: Mode) -> dict:
        """Return the format, by its preset's name if it has one, and the rounding."""
        fmt = self.format_of(mode)
        named = next((name for name, preset in PRESETS.items() if preset == fmt), None)
        return super().describe(mode) | {"format": named or fmt.to_json()}

    def operand(self, array: Any, axis: int, mode: Mode, side: int, draws: Draws) -> tuple[Any, bool, bool]:
        """Return Blocks, and the sticky status: an Inf makes a block NaN, and what else is too large saturates."""
        rounding = self.rounding_of(mode)
        blocks = quantise(array, self.format_of(mode), axis=axis, rounding=rounding, scale_rule=self.scale_rule,
                          random=draws.of(rounding, self.block))
        return blocks, blocks.invalid, blocks.overflow

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the product of Blocks in the accumulator's format, see `matmul`, and the sticky status.

        An infinite sum stays infinite. Only a NaN can hide it, and then sums are made transfer by transfer.
        """
        found = matmul(a, b, self.accumulator)
        overflow = bool(np.isinf(found).any())
        invalid = bool(np.isnan(found).any())
        if invalid and not overflow:
            operands = [Operand((each.scales, recoded(each.format.element, self.common)[each.elements]))
                        for each in (a, b)]
            with suppress(ValueError):  # no cell has such blocks
                overflow = super().product(*operands)[2]
        return found, invalid, overflow
