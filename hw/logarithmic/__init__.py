"""Logarithmic numbers in hardware: converter, decoder, and the dot product that multiplies by adding."""

from .circuits import LNSCircuits
from .converter import LNSConverter
from .decoder import LNSDecoder
from .dot import LNSDot
from .layout import vector_layout

__all__ = ["LNSConverter", "LNSDecoder", "LNSDot", "LNSCircuits", "vector_layout"]
