"""Floating point of any width: the operations on codes, matrix products, the units' twins, and the number system."""

from .arithmetic import Arithmetic, arithmetic, require_work
from .operations import ORDERS, add, cast, compare, dot, fma, maximum, multiply, subtract
from .products import matmul, matmul_fp32
from .system import BF16System, FloatSystem, FP8System, PlainSystem
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
    "MULTIPLIERS", "ORDERS", "AdderParameters", "Arithmetic", "BF16System", "CastParameters", "FMAParameters",
    "FP8System", "FloatSystem", "MACParameters", "MultiplierParameters", "PlainSystem", "add", "adder", "arithmetic",
    "cast", "caster", "compare", "dot", "fma", "fused", "mac", "matmul", "matmul_fp32", "maximum", "multiplier",
    "multiply", "require_work", "subtract",
]
