"""The array in hardware: a grid of dot-product cells of any number system, fed from one memory."""

from .grid import CellArray

__all__ = ["CellArray"]
