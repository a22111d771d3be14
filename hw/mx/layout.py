"""The payload shape of MX blocks."""

from amaranth.lib import data

from ...golden.formats import Fixed

__all__ = ["block_layout"]


def block_layout(fmt):
    """Return the layout of one MX block: ``elements`` (codes, element 0 lowest) and ``scale`` (E8M0 code)."""
    width = fmt.element.bits if isinstance(fmt.element, Fixed) else fmt.element.width
    return data.StructLayout({"elements": data.ArrayLayout(width, fmt.block), "scale": 8})
