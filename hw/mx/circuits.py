"""Microscaling as the array asks for it: its circuits."""

from amaranth.hdl import Value
from amaranth.lib import data

from .converter import MXConverter
from .dot import MXDot

__all__ = ["MXCircuits"]


class MXCircuits:
    """Microscaling formats in the array: see `circuits`."""

    converter, cell = MXConverter, MXDot
    held = ()

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [payload.elements.as_value().eq(elements)]
