"""Block floating point, MX and NVFP4 in torch: a scale for each group of elements.

Each function takes a tensor as (n, group, inner) of float32 or float64, and returns its rounded elements in units of
the group's scale, and what golden keeps of the group. Source: numerics contract, sections 3 and 5.
"""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ..golden import mx
from ..golden.formats import PRESETS, BlockFloat, Float
from ..golden.mx.elements import SCALE_BIAS, SCALE_NAN, SCALE_TOP
from ..golden.rounding import NEAREST, Rounding
from .elements import decode, encode_float
from .groups import slabs_of
from .scaling import floor_log2, power_like, scaled

__all__ = ["bfp_rows", "bfp_units", "bfp_values", "mx_codes", "mx_rows", "nvfp4_rows", "nvfp4_scale"]

EXACT = {torch.float32: (24, -126, 127), torch.float64: (53, -1022, 1023)}  # bits, and exponents of normal numbers


def _tops(x: Tensor) -> Tensor:
    """Return the largest magnitude of each group, (n, 1, inner); NaN where there is one."""
    return x.abs().amax(dim=1, keepdim=True)


def bfp_units(fmt: BlockFloat, exponents: Tensor) -> Tensor:
    """Return the exponents of the groups' units, for exponent codes."""
    return exponents - (fmt.bias + fmt.mantissa - 1)


def bfp_rows(x: Tensor, fmt: BlockFloat, rounding: Rounding, words: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (signed magnitudes as floats, exponent codes as int64 (n, 1, inner)): see `blockfloat.quantise`.

    The magnitudes are float64 where the dtype of x has not all powers of two that are needed; else of the dtype of x.
    """
    limit, top = (1 << fmt.mantissa) - 1, _tops(x)
    special, zero = ~torch.isfinite(top), top == 0
    exponent = floor_log2(top.masked_fill(special, 1))
    above = special | (exponent > fmt.emax) & ~zero
    exponent = exponent.masked_fill_(zero, fmt.emin).clamp_(fmt.emin, fmt.emax).masked_fill_(above, fmt.emax)
    window = rounding.window if rounding.kind == "stochastic" else 0
    bits, lowest, highest = EXACT[x.dtype]
    shift = (fmt.mantissa - 1 + window - exponent).masked_fill_(zero, 0)  # whatever scales zeros
    narrow = fmt.emax - fmt.mantissa + 1 <= highest and fmt.emin - fmt.mantissa + 1 >= lowest - bits + 1
    narrow = narrow and fmt.mantissa + window + 1 <= bits
    if not narrow or shift.numel() and not lowest <= shift.min() <= shift.max() <= highest:
        q = scaled(x.to(torch.float64), shift)
    else:
        q = x * power_like(shift, x.dtype)
    # Scaling rounds only where the result is subnormal, far below the first bit that counts.
    q = _rounded(q, limit, rounding, words)
    if above.any():
        saturated = torch.where(torch.signbit(x), -limit, limit).masked_fill_(x == 0, 0).to(q.dtype)
        q = torch.where(above, saturated, q)
    return q, exponent + fmt.bias


def bfp_values(x: Tensor, fmt: BlockFloat, rounding: Rounding, words: Tensor | None) -> Tensor | None:
    """Return the values (n, group, inner) of float32 groups, several times as fast as `bfp_rows`, or None.

    None where a group has an Inf or a NaN, or a scale is no normal number of float32: then `bfp_rows` has to do it.
    """
    window = rounding.window if rounding.kind == "stochastic" else 0
    if x.dtype != torch.float32 or fmt.mantissa + window > 23 or not x.numel():
        return None
    top = torch.empty(len(x), 1, x.shape[2], device=x.device)
    for part in slabs_of(x):
        torch.amax(x[part].abs(), dim=1, keepdim=True, out=top[part])
    # Of normal float32: the exponents, and the bits of powers of two.
    fields = top.view(torch.int32) >> 23
    lowest = max(fmt.mantissa + max(window - 1, 0), fmt.emin + 127)
    fields.masked_fill_(top == 0, lowest)  # whatever scales zeros
    if not lowest <= fields.min() <= fields.max() <= min(254, fmt.emax + 127):
        return None
    scales = (fmt.mantissa - 1 + window + 254 - fields << 23).view(torch.float32)
    units = (fields - (fmt.mantissa - 1) << 23).view(torch.float32)
    out, limit = torch.empty_like(x), (1 << fmt.mantissa) - 1
    for part in slabs_of(x):
        q = _rounded(x[part] * scales[part], limit, rounding, None if words is None else words[part])
        torch.mul(q, units[part], out=out[part])
    return out


def _rounded(q: Tensor, limit: int, rounding: Rounding, words: Tensor | None) -> Tensor:
    """Return scaled numbers rounded to integers within limits, as floats; no zero has a sign."""
    if rounding.kind == "nearest":
        # So small, a number is rounded by an addition, which leaves no zero with a sign.
        magic = 1.5 * 2.0 ** (EXACT[q.dtype][0] - 1)
        return q.clamp_(-limit, limit).add_(magic).sub_(magic)
    # Turned into an integer, a number loses its fraction; what integers do not hold is in groups that saturate anyway.
    if words is None:
        return q.to(torch.int32).clamp_(-limit, limit).to(q.dtype)
    integers = q.abs().to(torch.int32).add_(rounding.noise(words.to(torch.int32))) >> rounding.window
    return integers.clamp_(max=limit).to(q.dtype).copysign_(q).add_(0.0)


def _wanted(top: Tensor, fmt: mx.MX, rule: str) -> Tensor:
    """Return the scale codes that a rule wants for finite magnitudes: `mx.elements.wanted_codes`."""
    half, exponent = torch.frexp(top.to(torch.float64))
    significand, largest = 2 * half, _magnitude(fmt)
    codes = exponent.to(torch.int64) + (SCALE_BIAS - 1 - largest.emax)
    if rule != "floor":
        codes += {"ceil": lambda: significand > 1,
                  "even": lambda: significand >= 2 - 2.0 ** -(largest.mantissa + 1),
                  "rceil": lambda: significand > largest.max / 2.0**largest.emax}[rule]()
    return codes.masked_fill_(top == 0, 0)


@lru_cache(64)
def _magnitude(fmt: mx.MX) -> Float:
    """Return `MX.magnitude`: one object for a format, which remembers its largest number."""
    return fmt.magnitude


def _nearest(x: Tensor, fmt: Float) -> Tensor:
    """Round float32 to the nearest numbers of a saturating Float of few bits, as values; a zero keeps its sign."""
    fields = x.view(torch.int32) & 0x7F800000
    # 1.5 * 2**(23 - mantissa) times a number's power of two: what is added has the last place of the format.
    shift = (23 - fmt.mantissa << 23) + (1 << 22)
    power = fields.clamp_(fmt.emin + 127 << 23, fmt.emax + 127 << 23).add_(shift).view(torch.float32)
    return (x + power).sub_(power).clamp_(-fmt.max, fmt.max).copysign_(x)


def mx_rows(x: Tensor, fmt: mx.MX, rounding: Rounding, words: Tensor | None, rule: str) -> tuple[Tensor, Tensor]:
    """Return (element values, scale codes as int64 (n, 1, inner)): see `mx.quantise`.

    A block with a NaN or an Inf has the NaN scale and zeros for elements.
    """
    top = _tops(x)
    special = ~torch.isfinite(top)
    codes = _wanted(top.masked_fill(special, 0), fmt, rule).clamp_(0, SCALE_TOP)
    shift = SCALE_BIAS - codes
    if x.dtype == torch.float32 and rounding.kind == "nearest":
        # 2**127 is float32's largest power, and 2**-127 is one of its subnormal ones.
        elements = _nearest(x * power_like(shift, x.dtype), _magnitude(fmt))
    else:
        found = encode_float(scaled(x.to(torch.float64), shift), fmt.magnitude, rounding, words)
        elements = decode(found, fmt.magnitude).to(x.dtype)
    if fmt.magnitude.specials == "none" and fmt.magnitude.exponent == 1:  # integers have no negative zero
        elements = elements + 0.0
    if special.any():
        elements = elements.masked_fill(special, 0.0)
    return elements, codes.masked_fill_(special, SCALE_NAN)


def mx_codes(elements: Tensor, fmt: mx.MX) -> Tensor:
    """Return the codes (uint8) of element values."""
    codes = encode_float(elements, fmt.magnitude, NEAREST)
    if not isinstance(fmt.element, Float):  # sign and magnitude to two's complement
        top = 1 << fmt.element.bits - 1
        magnitude = codes & top - 1
        codes = torch.where((codes & top).bool(), -magnitude, magnitude) & 2 * top - 1
    return codes.to(torch.uint8)


ELEMENT, SCALE = PRESETS["fp4-e2m1"], replace(PRESETS["fp8-e4m3"], overflow="saturate")  # of NVFP4


def nvfp4_scale(x: Tensor, given: float | None) -> float:
    """Return NVFP4's tensor scale of a tensor of float32, or the given one; NaN if the tensor has an Inf or a NaN."""
    top = float(x.abs().max()) if x.numel() else 0.0
    if not top < float("inf"):
        return float("nan")
    scale = torch.tensor(top / (SCALE.max * ELEMENT.max) if given is None else given, dtype=torch.float64)
    return float(scale.to(torch.float32))


def nvfp4_rows(x: Tensor, scale: float, rounding: Rounding, words: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (element values as float64, scale codes as int64 (n, 1, inner)): see `mx.quantise_nvfp4`."""
    x = x.to(torch.float64)
    top = _tops(x)
    codes = encode_float((top / (ELEMENT.max * scale)).masked_fill(top == 0, 0), SCALE, NEAREST)
    divisor = decode(codes, SCALE) * scale
    quotients = torch.nan_to_num((x / divisor).masked_fill(divisor == 0, 0))
    found = encode_float(quotients, ELEMENT, rounding, words)
    return decode(found, ELEMENT), codes
