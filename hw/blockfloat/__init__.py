"""Block floating point in hardware: the converter and the variable-precision dot product (fMAC)."""

from .circuits import BFPCircuits
from .converter import BFPConverter
from .fmac import BFPFMAC

__all__ = ["BFPConverter", "BFPFMAC", "BFPCircuits"]
