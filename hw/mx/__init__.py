"""OCP microscaling in hardware: the converter to MX blocks and the dot product of two of them."""

from .circuits import MXCircuits
from .converter import MXConverter
from .dot import MXDot
from .layout import block_layout

__all__ = ["MXCircuits", "MXConverter", "MXDot", "block_layout"]
