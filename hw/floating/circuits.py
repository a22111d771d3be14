"""Floating point as the array asks for it: its circuits."""

from amaranth.hdl import Value
from amaranth.lib import data

from .cast import FloatCast
from .mac import FloatMAC

__all__ = ["FloatCircuits"]


class FloatCircuits:
    """Floating point in the array: see `circuits`."""

    converter, cell = FloatCast, FloatMAC
    held = ()

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [payload.a.eq(elements)]
