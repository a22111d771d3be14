"""Floating point of any width: the operations on codes, matrix products, the units' twins, and the number system."""

from .operations import ORDERS, add, cast, compare, dot, fma, maximum, multiply, subtract
from .products import matmul
from .system import System
from .units import (
    MULTIPLIERS,
    AdderParameters,
    CastParameters,
    FMAParameters,
    MACParameters,
    MultiplierParameters,
    adder,
    caster,
    fused,
    mac,
    multiplier,
)

__all__ = [
    "MULTIPLIERS", "ORDERS", "AdderParameters", "CastParameters", "FMAParameters", "MACParameters",
    "MultiplierParameters", "System", "add", "adder", "cast", "caster", "compare", "dot", "fma", "fused", "mac",
    "matmul", "maximum", "multiplier", "multiply", "subtract",
]
