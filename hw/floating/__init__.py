"""Floating-point units of any format: adder, multiplier, fused multiply-add, cast, accumulating multiply-add."""

from .adder import FloatAdder
from .cast import FloatCast
from .circuits import FloatCircuits
from .fma import FloatFMA
from .mac import FloatMAC
from .multiplier import FloatMultiplier

__all__ = ["FloatAdder", "FloatCast", "FloatFMA", "FloatMAC", "FloatMultiplier", "FloatCircuits"]
