"""Exact scaling by powers of two, and rounding of scaled magnitudes, in torch."""

from typing import Any

import torch
from torch import Tensor

from ..golden.rounding import Rounding

__all__ = ["floor_log2", "power", "power_like", "round_scaled", "scaled"]


def power(exponent: Tensor) -> Tensor:
    """Return 2**exponent as float64, for integers from -1074 to 1023. Exact."""
    exponent = exponent.to(torch.int64)
    normal = (exponent.clamp(min=-1022) + 1023 << 52).view(torch.float64)
    low = (torch.ones_like(exponent) << (exponent + 1074).clamp(0, 52)).view(torch.float64)
    return torch.where(exponent < -1022, low, normal)


def power_like(exponent: Tensor, dtype: Any) -> Tensor:
    """Return 2**exponent in a dtype; where it has no such number, 0 or Inf."""
    return power(exponent).to(dtype)


def scaled(x: Tensor, exponent: Tensor) -> Tensor:
    """Return x * 2**exponent for float64, with exponents from -2000 to 2000.

    Exact, unless the result is below 2**-1022 or beyond float64's largest number.
    """
    half = exponent >> 1
    return x * power(half) * power(exponent - half)


def floor_log2(magnitude: Tensor) -> Tensor:
    """Return floor(log2 x) of positive finite numbers as int64; of zero -1."""
    return torch.frexp(magnitude).exponent.to(torch.int64) - 1


def round_scaled(magnitude: Tensor, exponent: Tensor, rounding: Rounding, words: Tensor | None = None) -> Tensor:
    """Round ``magnitude * 2**exponent`` to integers (int64): golden's function of that name."""
    if rounding.kind == "stochastic":
        assert words is not None, "they are drawn"
        window = scaled(magnitude, exponent + rounding.window).floor_().to(torch.int64)
        return window + rounding.noise(words.to(torch.int64)) >> rounding.window
    numbers = scaled(magnitude, exponent)
    return (numbers.round_() if rounding.kind == "nearest" else numbers.floor_()).to(torch.int64)
