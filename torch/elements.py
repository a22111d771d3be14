"""Formats whose numbers stand alone, in torch: floating and fixed point.

Source: numerics contract, sections 1 and 2.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ..golden.formats import PRESETS, Fixed, Float
from ..golden.rounding import Rounding
from .scaling import floor_log2, round_scaled, scaled

__all__ = ["decode", "encode", "encode_fixed", "encode_float", "round_float", "values_of"]

TABLE = 16  # bits of a code, at most, that is decoded by a table
# Of a dtype: the integers of its size, the bits of its mantissa, the exponents of its normal numbers.
LAYOUTS = {torch.float32: (torch.int32, 23, -126, 127), torch.float64: (torch.int64, 52, -1022, 1023)}


def encode_float(x: Tensor, fmt: Float, rounding: Rounding, words: Tensor | None = None) -> Tensor:
    """Round numbers to codes of a Float (int64), as `Float.encode` does."""
    x = x.to(torch.float64)
    magnitude = x.abs()
    special = ~torch.isfinite(magnitude)
    magnitude = magnitude.masked_fill(special, 0)
    exponent = torch.where(magnitude > 0, floor_log2(magnitude), fmt.emin).clamp_(min=fmt.emin)
    q = round_scaled(magnitude, fmt.mantissa - exponent, rounding, words)
    # The hidden one of q adds itself to the exponent field, and so does a carry out of q.
    codes = (exponent - fmt.emin << fmt.mantissa) + q
    codes[codes > fmt.max_code] = fmt.max_code if rounding.kind == "truncate" else fmt.overflow_code
    codes[special] = fmt.overflow_code if fmt.inf_code is None else fmt.inf_code
    codes |= torch.signbit(x).to(torch.int64) << fmt.width - 1
    codes[torch.isnan(x)] = fmt.max_code if fmt.nan_code is None else fmt.nan_code
    return codes


def encode_fixed(x: Tensor, fmt: Fixed, rounding: Rounding, words: Tensor | None = None) -> Tensor:
    """Round numbers to codes of a Fixed (int64), as `Fixed.encode` does."""
    numbers = torch.nan_to_num(x.to(torch.float64), nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    top = (1 << fmt.bits - 1) - 1
    magnitude = numbers.abs().clamp_(max=float(top + 2) * 2.0**-fmt.fraction)
    q = round_scaled(magnitude, torch.tensor(fmt.fraction, device=x.device), rounding, words)
    q = torch.where(numbers < 0, -q.clamp(max=top + 1), q.clamp(max=top))
    return q & (1 << fmt.bits) - 1


def encode(x: Tensor, fmt: Float | Fixed, rounding: Rounding, words: Tensor | None = None) -> Tensor:
    """Round numbers to codes (int64) of a Float or a Fixed."""
    return encode_float(x, fmt, rounding, words) if isinstance(fmt, Float) else encode_fixed(x, fmt, rounding, words)


@lru_cache(64)
def values_of(fmt: Float | Fixed) -> Tensor:
    """Return the values of all codes of a format of at most `TABLE` bits: float64."""
    return torch.from_numpy(fmt.decode(range(1 << fmt.width)))


def decode(codes: Tensor, fmt: Float | Fixed) -> Tensor:
    """Return the float64 values of codes. Exact."""
    if fmt.width <= TABLE:
        return values_of(fmt).to(codes.device)[codes.to(torch.int64)]
    codes = codes.to(torch.int64)
    negative = (codes >> fmt.width - 1 & 1).bool()
    if isinstance(fmt, Fixed):
        numbers = (codes & (1 << fmt.bits) - 1) - (negative.to(torch.int64) << fmt.bits)
        return numbers.to(torch.float64) * 2.0**-fmt.fraction
    magnitude = codes & (1 << fmt.width - 1) - 1
    field = magnitude >> fmt.mantissa
    significand = magnitude - (field << fmt.mantissa) + torch.where(field > 0, 1 << fmt.mantissa, 0)
    values = scaled(significand.to(torch.float64), field.clamp(min=1) - fmt.bias - fmt.mantissa)
    if fmt.inf_code is not None:
        values = values.masked_fill(magnitude == fmt.inf_code, torch.inf)
    if fmt.nan_code is not None:
        values = values.masked_fill(magnitude > (fmt.max_code if fmt.specials == "fn" else fmt.max_code + 1), torch.nan)
    return torch.where(negative, -values, values)


def round_float(x: Tensor, fmt: Float, rounding: Rounding, words: Tensor | None = None) -> Tensor:
    """Round float32 or float64 to a Float and return the values in the same dtype, as `Float.round` does.

    The dtype's normal numbers have most of the format's. These are rounded by an addition to the number's own bits. All
    else goes by way of codes.
    """
    integers, mantissa, emin, emax = LAYOUTS[x.dtype]
    below = mantissa - fmt.mantissa
    window = rounding.window if rounding.kind == "stochastic" else 0
    if fmt == PRESETS["fp32"] and x.dtype == torch.float32:
        return torch.where(torch.isnan(x), torch.nan, x)
    if not fmt.mantissa or below <= window or fmt.emin < emin or fmt.emax > emax:
        return decode(encode_float(x, fmt, rounding, words), fmt).to(x.dtype)
    bits = x.contiguous().view(integers)
    if rounding.kind == "nearest":
        rounded = (bits >> below & 1).add_(bits).add_((1 << below - 1) - 1)
    elif rounding.kind == "stochastic":
        assert words is not None, "they are drawn"
        rounded = (rounding.noise(words.to(integers)) << below - window).add_(bits)
    else:
        rounded = bits.clone()
    rounded = rounded.bitwise_and_(-1 << below).view(x.dtype)
    magnitude = x.abs()
    unusual = (magnitude < 2.0**fmt.emin) & (magnitude != 0)
    unusual |= ~(magnitude <= fmt.max)
    if unusual.any():
        some = None if words is None else words[unusual]
        rounded[unusual] = decode(encode_float(x[unusual], fmt, rounding, some), fmt).to(x.dtype)
    return rounded
