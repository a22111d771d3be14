"""The payload shape of logarithmic numbers."""

from amaranth.lib import data

from ...golden.formats import Log

__all__ = ["SCALE", "vector_layout"]

SCALE = 8  # bits of a scale's code


def vector_layout(fmt: Log, lanes: int) -> data.StructLayout:
    """Return the layout of numbers under one scale: ``codes`` (element 0 lowest) and ``scale`` (exponent + 127)."""
    return data.StructLayout({"codes": data.ArrayLayout(fmt.bits, lanes), "scale": SCALE})
