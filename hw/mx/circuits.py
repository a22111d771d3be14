"""Microscaling as the array asks for it: its circuits."""

from typing import Any

from amaranth.hdl import Value
from amaranth.lib import data

from ...golden.mx import MXPairParameters
from .converter import MXConverter
from .dot import MXDot
from .pair import MXPair

__all__ = ["MXCircuits"]


class MXCircuits:
    """Microscaling formats in the array: see `circuits`."""

    cell = MXDot
    held = ()

    @staticmethod
    def converter(parameters: Any, addressed: bool = False) -> MXConverter | MXPair:
        kind = MXPair if isinstance(parameters, MXPairParameters) else MXConverter
        return kind(parameters, addressed)

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        chosen = [payload.gradient.eq(mode.gradient)] if "gradient" in dict(mode.shape()) else []
        return [payload.elements.as_value().eq(elements), *chosen]
