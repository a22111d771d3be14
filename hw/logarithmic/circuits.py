"""Logarithmic numbers as the array asks for it: its circuits."""

from amaranth.hdl import Value
from amaranth.lib import data

from .converter import LNSConverter
from .dot import LNSDot

__all__ = ["LNSCircuits"]


class LNSCircuits:
    """Logarithmic numbers in the array: see `circuits`."""

    converter, cell = LNSConverter, LNSDot
    held = ("scale",)

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [payload.elements.as_value().eq(elements), payload.scale.eq(mode.scale), payload.given.eq(1)]
