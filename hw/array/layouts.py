"""Widths and layouts that the array's parts share."""

from amaranth.lib import data

from ...golden.array import ArrayParameters
from ...golden.number_system import NumberSystem
from ..pipeline import UNCHECKED

__all__ = ["UNCHECKED", "mode_layout", "request_layout", "size_of"]


def size_of(count: int) -> int:
    """Return the bits of an index below `count`, one at the least."""
    return max((count - 1).bit_length(), 1)


def request_layout(parameters: ArrayParameters, span: int | None = None) -> data.StructLayout:
    """Return the layout of a vector that is to be read: where it is, how it is converted, and where it goes.

    A block of the memory has `span` rows, or as many as a vector has elements. ``inside`` numbers the vectors of a
    block's row, if there are several.

    ``at`` is its place in its row of the operand, and ``place`` the row's in the buffer. ``of`` is the side that it is
    for. ``arrived`` tells whether it completes what a tile needs. ``random`` is the index of the random words of the
    row's first vector, if it may need any.
    """
    system = parameters.system
    low = max(system.group.bit_length() - 1, 1)
    span = span or system.group
    inside = {"inside": size_of(span // system.group)} if span > system.group else {}
    return data.StructLayout({
        "block": size_of(parameters.blocks), "index": size_of(span), **inside, "transposed": 1, "tail": low,
        "mode": mode_layout(system),
        "lanes": max(parameters.rows, parameters.columns), "at": size_of(parameters.words),
        "place": size_of(parameters.words), "arrived": 1, "of": 1,
        **({"random": 32} if system.random else {}),
    })


def mode_layout(system: NumberSystem) -> data.StructLayout:
    """Return the layout of an operand's modes; a bit that means nothing where there are none."""
    return data.StructLayout(system.modes or {"unused": 1})
