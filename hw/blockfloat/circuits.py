"""Block floating point as the array asks for it: its circuits."""

from amaranth.hdl import Value
from amaranth.lib import data

from .converter import BFPConverter
from .fmac import BFPFMAC

__all__ = ["BFPCircuits"]


class BFPCircuits:
    """Block floating point in the array: see `circuits`."""

    converter, cell = BFPConverter, BFPFMAC
    held = ("precision",)

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [payload.elements.as_value().eq(elements), payload.precision.eq(mode.precision),
                payload.rounding.eq(mode.rounding)]
