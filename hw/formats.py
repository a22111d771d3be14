"""Payload shapes of the number formats: each is one packed vector, its first field lowest."""

from amaranth.lib import data

from ..golden.formats import BlockFloat

__all__ = ["group_layout"]


def group_layout(fmt: BlockFloat) -> data.StructLayout:
    """Return the layout of one BFP group of a BlockFloat format.

    ``elements`` (element 0 lowest, each ``magnitude`` and above it ``sign``), ``exponent``
    (code) and ``precision``: the bits, 2 to `fmt.mantissa`, that its magnitudes use.
    """
    element = data.StructLayout({"magnitude": fmt.mantissa, "sign": 1})
    return data.StructLayout({
        "elements": data.ArrayLayout(element, fmt.group),
        "exponent": fmt.exponent,
        "precision": fmt.mantissa.bit_length(),
    })
