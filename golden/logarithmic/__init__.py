"""Logarithmic numbers: tables, the numbers, products by addition, the units' twins, and the number system."""

from .numbers import SCALE_BIAS, SCALE_MAX, SCALE_MIN, Logs, levels, narrowed, quantise, scale_of
from .products import LNSDotParameters, dot, dots, matmul, product_table
from .system import LNSSystem
from .tables import DIGITS, constants, powers, thresholds, weights
from .units import LNSConverterParameters, LNSDecoderParameters, convert, decode

__all__ = [
    "DIGITS", "SCALE_BIAS", "SCALE_MAX", "SCALE_MIN", "LNSConverterParameters", "LNSDecoderParameters",
    "LNSDotParameters", "LNSSystem", "Logs", "constants", "convert", "decode", "dot", "dots", "levels", "matmul",
    "narrowed", "powers", "product_table", "quantise", "scale_of", "thresholds", "weights",
]
