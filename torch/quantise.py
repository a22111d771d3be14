"""Quantisation of tensors to every format of the project: equal to golden to the bit, with a straight-through gradient.

Source: numerics contract, sections 1 to 6 and 13.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..base.checks import require
from ..golden import formats, integer, logarithmic, mx
from ..golden.formats import BlockFloat, Fixed, Float, Log
from ..golden.mx import MX, NVFP4
from ..golden.mx.elements import SCALE_BIAS, SCALE_NAN, SCALE_RULES
from ..golden.rounding import KINDS, Rounding, rounding_of
from . import blocks, elements, tensors
from .groups import Layout, slabs_of
from .scaling import power_like
from .words import element_words

__all__ = ["FORMATS", "Encoded", "encode", "format_of", "quantise"]

# By name, beside an object of `Float`, `BlockFloat`, `MX`, `Log` or `Fixed`.
FORMATS: tuple[str, ...] = (*formats.PRESETS, *mx.PRESETS, "nvfp4", "int8")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor in codes.

    Attributes
    ----------
    format : Float, BlockFloat, MX, Log or Fixed, or one of the names ``nvfp4`` and ``int8``
    codes : Tensor
        Float, Fixed and Log: codes as int64, in the shape of the tensor. int8: integers, int8. The others: the elements
        as golden has them, of shape (..., groups, group) with the grouped axis last. BlockFloat: signed magnitudes,
        int16. MX and NVFP4: element codes, uint8.
    scales : Tensor, optional
        Of each group, shape (..., groups). BlockFloat: exponent codes, int16. MX: E8M0 codes, uint8. NVFP4: E4M3
        codes, uint8.
    scale : float, optional
        Of the whole tensor. Log and int8: the exponent. NVFP4: the fp32 scale.
    """

    format: Any
    codes: Tensor
    scales: Tensor | None = None
    scale: float | None = None
    _layout: Layout | None = field(default=None, repr=False)

    def values(self) -> Tensor:
        """Return the float64 values in the shape of the tensor. Exact; of a Log correct to float64's rounding."""
        fmt = self.format
        if isinstance(fmt, (Float, Fixed)):
            return elements.decode(self.codes, fmt)
        if isinstance(fmt, Log):
            return tensors.log_values(self.codes, fmt, int(self.scale))  # type: ignore[arg-type]  # it has one
        if fmt == "int8":
            return self.codes.to(torch.float64) * 2.0 ** int(self.scale)  # type: ignore[arg-type]
        assert self.scales is not None and self._layout is not None
        if isinstance(fmt, BlockFloat):
            numbers = self.codes.to(torch.float64)
        else:
            numbers = elements.decode(self.codes, blocks.ELEMENT if fmt == "nvfp4" else fmt.element)
        units, layout = _units(fmt, self.scales.to(torch.int64), self.scale, torch.float64), self._layout
        found = (numbers * units.unsqueeze(-1)).flatten(-2)
        return found[..., :layout.length].movedim(-1, layout.axis)


def format_of(fmt: Any) -> Any:
    """Return the format that a name of `FORMATS`, a format, or its JSON means."""
    if isinstance(fmt, (Float, BlockFloat, Log, Fixed, MX)) or fmt in ("nvfp4", "int8"):
        return fmt
    if isinstance(fmt, dict):
        return formats.parse(fmt) if "type" in fmt else mx.parse(fmt)
    require(isinstance(fmt, str) and fmt in FORMATS, "format", fmt,
            ", ".join(FORMATS) + ", a Float, BlockFloat, MX, Log or Fixed")
    return mx.PRESETS[fmt] if fmt in mx.PRESETS else formats.PRESETS[fmt]


@dataclass(frozen=True)
class _Request:
    """What to round a tensor to: checked arguments of `quantise`."""

    format: Any
    rounding: Rounding
    axis: int
    words: Any
    scale: Any
    scale_rule: str

    @classmethod
    def of(cls, x: Any, fmt: Any, rounding: Any, axis: int, words: Any, scale: Any, scale_rule: str) -> "_Request":
        require(isinstance(x, Tensor), "x", type(x).__name__, "a torch.Tensor")
        require(x.dtype in DTYPES, "dtype of x", str(x.dtype), ", ".join(map(str, DTYPES)))
        fmt = format_of(fmt)
        if isinstance(rounding, str):
            require(rounding in KINDS, "rounding", rounding, f"{', '.join(KINDS)}, or a Rounding")
            rounding = rounding_of(rounding)
        require(isinstance(rounding, Rounding), "rounding", rounding, f"{', '.join(KINDS)}, or a Rounding")
        scaled = isinstance(fmt, Log) or fmt == "int8"
        require(not scaled or rounding.kind == "nearest", "rounding", rounding.kind,
                "nearest, the only one of logarithmic numbers and of int8")
        require(not (isinstance(fmt, Log) or fmt == "nvfp4") or x.dtype != torch.float64, "dtype of x", str(x.dtype),
                "float32, float16 or bfloat16, because the format is logarithmic or nvfp4")
        require(scale is None or scaled or fmt == "nvfp4", "scale", scale, "None, because each group has its own, "
                "or numbers have none")
        limits = (integer.SCALE_MIN, integer.SCALE_MAX) if fmt == "int8" else (logarithmic.SCALE_MIN,
                                                                              logarithmic.SCALE_MAX)
        require(scale is None or fmt == "nvfp4" or type(scale) is int and limits[0] <= scale <= limits[1], "scale",
                scale, f"an integer from {limits[0]} to {limits[1]}")
        require(scale_rule in SCALE_RULES, "scale_rule", scale_rule, ", ".join(SCALE_RULES))
        return cls(fmt, rounding, axis, words, scale, scale_rule)

    @property
    def group(self) -> int | None:
        """Elements that share a scale, or None."""
        if self.format == "nvfp4":
            return NVFP4.BLOCK
        return getattr(self.format, "group", None) or getattr(self.format, "block", None)


def _wide(x: Tensor) -> Tensor:
    """Return numbers as float32 or float64, exact."""
    return x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().to(torch.float32)


def _scale_of(request: _Request, x: Tensor) -> Any:
    """Return the scale of a whole tensor, or None where its format has none."""
    fmt, given = request.format, request.scale
    if isinstance(fmt, Log):
        return tensors.log_scale(x, fmt) if given is None else given
    if fmt == "int8":
        return tensors.int8_scale(x) if given is None else given
    return blocks.nvfp4_scale(x, given) if fmt == "nvfp4" else None


def _units(fmt: Any, scales: Tensor, scale: Any, dtype: torch.dtype) -> Tensor:
    """Return what the elements of groups are multiplied by, from the codes (int64) of the groups' scales."""
    if isinstance(fmt, BlockFloat):
        return power_like(blocks.bfp_units(fmt, scales), dtype)
    if fmt == "nvfp4":
        return elements.decode(scales, blocks.SCALE) * scale
    return power_like(scales - SCALE_BIAS, dtype).masked_fill_(scales == SCALE_NAN, torch.nan)


def _rows(request: _Request, x: Tensor, words: Tensor | None, scale: Any) -> tuple[Tensor, Tensor]:
    """Return (rounded elements, scale codes) of groups (n, group, inner)."""
    fmt, rounding = request.format, request.rounding
    if isinstance(fmt, BlockFloat):
        return blocks.bfp_rows(x, fmt, rounding, words)
    if fmt == "nvfp4":
        return blocks.nvfp4_rows(x, scale, rounding, words)
    return blocks.mx_rows(x, fmt, rounding, words, request.scale_rule)


@torch.compiler.disable
def encode(x: Tensor, format: Any, rounding: Rounding | str = "nearest", axis: int = -1, words: Any = None, *,
           scale: float | None = None, scale_rule: str = "floor") -> Encoded:
    """Round a tensor to codes of a format; the codes equal golden's. Parameters as in `quantise`."""
    request = _Request.of(x, format, rounding, axis, words, scale, scale_rule)
    fmt, rounding = request.format, request.rounding
    if isinstance(fmt, (Float, Fixed)):
        random = element_words(words, rounding, tuple(x.shape), x.device)
        return Encoded(fmt, elements.encode(x.detach(), fmt, rounding, random))
    # The exponent that Inf counts as is that of the dtype.
    scale = _scale_of(request, x.detach())
    if isinstance(fmt, Log):
        return Encoded(fmt, tensors.log_codes(x.detach(), fmt, scale), scale=scale)  # type: ignore[arg-type]
    if fmt == "int8":
        return Encoded(fmt, tensors.int8_codes(_wide(x), scale).to(torch.int8), scale=scale)  # type: ignore[arg-type]
    layout = Layout.of(x, axis, request.group or 1)
    cut, random = layout.cut(_wide(x)), layout.words(words, rounding, x.device)
    found, scales = torch.empty_like(cut, dtype=torch.float64), torch.empty(len(cut), 1, layout.inner,
                                                                            dtype=torch.int64, device=x.device)
    for part in slabs_of(cut):
        found[part], scales[part] = _rows(request, cut[part], None if random is None else random[part], scale)
    found, scales = layout.last(found), layout.last(scales).squeeze(-1)
    if isinstance(fmt, BlockFloat):
        return Encoded(fmt, found.to(torch.int16), scales.to(torch.int16), None, layout)
    codes = (elements.encode_float(found, blocks.ELEMENT, rounding_of("nearest")).to(torch.uint8) if fmt == "nvfp4"
             else blocks.mx_codes(found, fmt))
    return Encoded(fmt, codes, scales.to(torch.uint8), scale, layout)


def _values(request: _Request, x: Tensor) -> Tensor:
    """Return the rounded values of a tensor, in its own dtype."""
    fmt, rounding, dtype, wide = request.format, request.rounding, x.dtype, _wide(x)
    if isinstance(fmt, Float):
        random = element_words(request.words, rounding, tuple(x.shape), x.device)
        return elements.round_float(wide, fmt, rounding, random).to(dtype)
    if request.group is None:
        found = encode(x, fmt, rounding, request.axis, request.words, scale=request.scale)
        return found.values().to(dtype)
    layout, scale = Layout.of(x, request.axis, request.group), _scale_of(request, wide)
    cut, random = layout.cut(wide), layout.words(request.words, rounding, x.device)
    if isinstance(fmt, BlockFloat):
        quick = blocks.bfp_values(cut, fmt, rounding, random)
        if quick is not None:
            return layout.joined(quick).to(dtype)
    out = torch.empty_like(cut)
    for part in slabs_of(cut):
        found, scales = _rows(request, cut[part], None if random is None else random[part], scale)
        units = _units(fmt, scales, scale, found.dtype)
        torch.mul(found, units, out=out[part]) if found.dtype == out.dtype else out[part].copy_(found * units)
    return layout.joined(out).to(dtype)


class _StraightThrough(torch.autograd.Function):
    """Rounds forward, and lets the gradient pass as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, request: _Request) -> Tensor:
        return _values(request, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@torch.compiler.disable
def quantise(x: Tensor, format: Any, rounding: Rounding | str = "nearest", axis: int = -1, words: Any = None, *,
             scale: float | None = None, scale_rule: str = "floor") -> Tensor:
    """Round a tensor to a format and return the values. The gradient passes straight through, everywhere.

    Parameters
    ----------
    x : Tensor
        float32, float64, float16 or bfloat16, taken exactly; of any strides, and empty ones too.
    format : Float, BlockFloat, MX, Log or Fixed, or a name of `FORMATS`
    rounding : Rounding, or its kind
        ``nearest``, ``truncate``, ``stochastic``. Log and int8 have ``nearest`` alone.
    axis : int
        Along which the groups of BlockFloat, MX and NVFP4 lie; its tail counts as padded with zeros.
    words : Draws, or tensor of int, optional
        For a stochastic rounding. Either an address ``Draws(seed, step, use)``, whose words are those of the hardware;
        or the words themselves: of the shape of x for Float and Fixed, else of shape (..., groups, group) with the
        grouped axis last.
    scale : int or float, optional
        Log and int8: exponent of the scale, the tensor's own when not given. NVFP4: the fp32 scale of the tensor.
    scale_rule : str
        Of MX: see `mx.scale_codes`.

    Returns
    -------
    Tensor
        Of the shape and the dtype of x. Golden's float64 values, which this dtype rounds where it lacks bits or range.

    Raises
    ------
    ValueError
        One line: what is wrong, and what is allowed.

    Notes
    -----
    ``encode`` returns the codes, and the exact values in float64. The dtype float16 counts an Inf as 2**16 for a Log,
    as golden does; all others count it as 2**128.
    """
    return _StraightThrough.apply(x, _Request.of(x, format, rounding, axis, words, scale, scale_rule))
