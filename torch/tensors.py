"""Formats with one scale for a whole tensor, in torch: logarithmic numbers and plain INT8.

Source: numerics contract, sections 6 and 13.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ..golden import integer, logarithmic
from ..golden.formats import PRESETS, Log
from ..golden.logarithmic.tables import thresholds
from .scaling import scaled

__all__ = ["int8_codes", "int8_scale", "levels", "log_codes", "log_scale", "log_values"]


@lru_cache(16)
def _thresholds(gamma: int) -> Tensor:
    return torch.tensor(thresholds(gamma), dtype=torch.float64) * 2.0**-52  # exact


def levels(magnitude: Tensor, gamma: int) -> Tensor:
    """Return round(gamma * log2 x) of positive finite numbers as int64, exact: `logarithmic.levels`. Of zero 0."""
    mantissa, exponent = torch.frexp(magnitude.to(torch.float64))
    rounded = torch.searchsorted(_thresholds(gamma).to(magnitude.device), 2 * mantissa)
    return ((exponent.to(torch.int64) - 1) * gamma + rounded).masked_fill_(mantissa == 0, 0)


def _special(x: Tensor, fmt: Log) -> int:
    """Return the level that Inf and NaN count as: that of the exponent above the dtype's largest."""
    return fmt.gamma * (PRESETS["fp16" if x.dtype == torch.float16 else "fp32"].emax + 1)


def log_scale(x: Tensor, fmt: Log) -> int:
    """Return the exponent of the scale of a tensor: `logarithmic.numbers.scale_of_array`."""
    top = x.abs().max() if x.numel() else torch.zeros(())
    if top == 0:
        return logarithmic.SCALE_MIN
    level = int(levels(top, fmt.gamma)) if torch.isfinite(top) else _special(x, fmt)
    return int(logarithmic.scale_of(level, fmt))


def log_codes(x: Tensor, fmt: Log, scale: int) -> Tensor:
    """Round numbers to codes of a Log (int64) under a scale, to the nearest logarithm: `logarithmic.quantise`."""
    special = ~torch.isfinite(x)
    t = (levels(x.masked_fill(special, 0).abs(), fmt.gamma) - fmt.gamma * scale).clamp_(0, fmt.top)
    t = t.masked_fill_(x == 0, 0).masked_fill_(special, fmt.top)
    return t | (torch.signbit(x) & (t > 0)).to(torch.int64) << fmt.bits - 1


@lru_cache(8)
def _magnitudes(fmt: Log) -> Tensor:
    """Return the magnitudes of all t under the scale 1: golden's own, so that no other exp2 has a say in a bit."""
    return torch.from_numpy(fmt.decode(range(fmt.top + 1)))


def log_values(codes: Tensor, fmt: Log, scale: int) -> Tensor:
    """Return the float64 values of codes under a scale."""
    magnitude = _magnitudes(fmt).to(codes.device)[codes & fmt.top] * 2.0**scale
    return torch.where((codes >> fmt.bits - 1 & 1 == 1) & (codes & fmt.top > 0), -magnitude, magnitude)


def int8_scale(x: Tensor) -> int:
    """Return the exponent of the scale of a tensor: `integer.scale_of`."""
    magnitude = x.to(torch.float64).abs()
    finite = magnitude.masked_fill(~torch.isfinite(magnitude), 0.0)
    return integer.scale_of([float(finite.max())] if x.numel() else [])


def int8_codes(x: Tensor, scale: int) -> Tensor:
    """Return the integers of numbers under a scale, as float64 without a negative zero: `integer.quantise`."""
    exponent = torch.tensor(-scale, device=x.device)
    rounded = scaled(x.to(torch.float64), exponent).round_().clamp_(-integer.TOP, integer.TOP)
    return torch.nan_to_num(rounded, nan=0.0) + 0.0
