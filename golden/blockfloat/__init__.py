"""Block floating point: the numbers, the units' twins, and the number system of the array."""

from .numbers import Blocks, dot, matmul, pack, passes, quantise, unpack
from .system import BFPSystem
from .units import ConverterParameters, FMACParameters, convert, fmac

__all__ = [
    "BFPSystem", "Blocks", "ConverterParameters", "FMACParameters", "convert", "dot", "fmac", "matmul", "pack",
    "passes", "quantise", "unpack",
]
