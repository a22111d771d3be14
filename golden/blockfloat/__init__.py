"""Block floating point: the numbers, the units' twins, and the number system of the array."""

from .numbers import Blocks, dot, matmul, pack, passes, quantise, unpack
from .system import System
from .units import ConverterParameters, FMACParameters, convert, fmac

__all__ = [
    "Blocks", "ConverterParameters", "FMACParameters", "System", "convert", "dot", "fmac", "matmul", "pack", "passes",
    "quantise", "unpack",
]
