"""Floating point as the array asks for it: its circuits."""

from .cast import FloatCast
from .mac import FloatMAC

__all__ = ["FloatCircuits"]


class FloatCircuits:
    """Floating point in the array: see `circuits`."""

    converter, cell = FloatCast, FloatMAC
    held = ()

    @staticmethod
    def convert(payload, elements, mode):
        return [payload.a.eq(elements)]
