"""The payload shape of MX blocks."""

from amaranth.lib import data

from ...golden.mx import MX

__all__ = ["block_layout"]


def block_layout(fmt: MX) -> data.StructLayout:
    """Return the layout of one MX block: ``elements`` (codes, element 0 lowest) and ``scale`` (E8M0 code)."""
    return data.StructLayout({"elements": data.ArrayLayout(fmt.element.width, fmt.block), "scale": 8})
