"""Block floating point: the numbers, the units' twins, and the number system of the array."""

from .numbers import Blocks, dot, matmul, pack, passes, quantise, unpack
from .system import BFPSystem
from .units import BFPConverterParameters, BFPFMACParameters, convert, fmac

__all__ = [
    "BFPSystem", "Blocks", "BFPConverterParameters", "BFPFMACParameters", "convert", "dot", "fmac", "matmul", "pack",
    "passes", "quantise", "unpack",
]
