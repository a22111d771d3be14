"""Logarithmic numbers as the array asks for it: its circuits."""

from typing import ClassVar

from amaranth.hdl import C, Cat, Module, Signal, Value
from amaranth.lib import data

from ...golden.logarithmic import SCALE_MIN, LNSSystem
from ..log2 import Level
from ..rounding import unpack
from ..unit import StreamUnit
from .converter import LNSConverter, least_scale
from .dot import LNSDot

__all__ = ["LNSCircuits"]


class LNSCircuits:
    """Logarithmic numbers in the array: see `circuits`."""

    converter: ClassVar[type[StreamUnit]] = LNSConverter
    cell = LNSDot
    held = ("scale",)
    finite = False

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [payload.elements.as_value().eq(elements), payload.scale.eq(mode.scale), payload.given.eq(1)]

    @staticmethod
    def scale(m: Module, name: str, system: LNSSystem, magnitude: Value) -> Value:
        """Return the code of `golden.logarithmic.scale_of_array`, two cycles later."""
        level = Level(system.work, system.format.gamma, SCALE_MIN)
        parts = unpack(m, name, system.work, Cat(magnitude, C(0, 1)))
        found = level.find(m, name, parts.significand, parts.field, parts.infinite | parts.nan)
        kept = Signal.like(found, name=f"{name}_found")
        m.d.sync += kept.eq(found)
        rounded = level.round(m, name, kept)
        largest = Signal.like(rounded, name=f"{name}_level")
        m.d.sync += largest.eq(rounded)
        return least_scale(m, f"{name}_wanted", system.format, level, largest)
