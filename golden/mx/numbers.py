"""Arrays in an MX format: quantiser and values.

Source: OCP Microscaling Formats (MX) Specification 1.0; numerics contract, section 5.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require
from ..groups import as_groups, draw_words, from_groups, slabs_of
from ..rounding import NEAREST, Rounding
from ..words import Stream
from .elements import MX, SCALE_BIAS, SCALE_NAN, SCALE_RULES, SCALE_TOP, wanted_codes

__all__ = ["Blocks", "integers_of", "quantise", "quantise_rows"]


@dataclass(frozen=True)
class Blocks:
    """An array in an MX format, its blocks laid along one axis.

    Attributes
    ----------
    format : MX
    scales : ndarray of uint8, shape (..., blocks)
        E8M0 codes; the blocked axis comes last.
    elements : ndarray of uint8, shape (..., blocks, block)
        Element codes; a tail is padded with zeros.
    length : int
        Elements along the blocked axis, padding not counted.
    axis : int
        Where the blocked axis belongs in the array that was quantised.
    invalid, overflow : bool
        Whether a NaN was met; whether an Inf or a NaN was, or a scale above the largest was wanted.
    """

    format: MX
    scales: np.ndarray
    elements: np.ndarray
    length: int
    axis: int = -1
    invalid: bool = False
    overflow: bool = False

    def values(self) -> np.ndarray:
        """Return the float64 values in the shape of the array that was quantised. Exact."""
        scales = self.scales.astype(np.int32)[..., np.newaxis]
        values = np.ldexp(_values(self.format)[self.elements], scales - SCALE_BIAS)
        values = np.where(scales == SCALE_NAN, np.nan, values)
        return from_groups(values, self.length, self.axis)


@lru_cache(32)
def _values(fmt: MX) -> np.ndarray:
    """Values of all element codes (and of the bytes above them, which count as their low bits)."""
    width = fmt.element.width
    return fmt.decode(np.arange(max(256, 1 << width)) & ((1 << width) - 1))


@lru_cache(32)
def integers_of(fmt: MX) -> np.ndarray:
    """What the element codes are in units of ``2**fmt.unit``, as float64: NaN where Inf or NaN."""
    values = _values(fmt)
    return np.where(np.isfinite(values), np.ldexp(values, -fmt.unit), np.nan)


def quantise(x: ArrayLike, fmt: MX, *, axis: int = -1, rounding: Rounding = NEAREST, scale_rule: str = "floor",
             random: Stream | ArrayLike | None = None) -> Blocks:
    """Quantise an array to an MX format along one axis.

    Parameters
    ----------
    x : array_like of float
        Any shape of one dimension or more; float16, float32 or float64, taken exactly.
    fmt : MX
    axis : int
        Axis along which blocks lie; its tail is padded with zeros.
    rounding : Rounding
        Of the elements; a magnitude beyond the largest element saturates under each.
    scale_rule : str
        See `scale_codes`.
    random : Stream or array of int, optional
        For a stochastic rounding: a stream of `block` lanes, or the words themselves, of shape (..., blocks, block).
        The stream is drawn from once a block, in C order with the blocked axis last.

    Returns
    -------
    Blocks
        A block that holds a NaN or an Inf gets the NaN scale, and its elements are zeros.
    """
    require(scale_rule in SCALE_RULES, "scale_rule", scale_rule, ", ".join(SCALE_RULES))
    flat, shape, length = as_groups(x, axis, fmt.block)
    words = draw_words(random, rounding, fmt.block, len(flat))
    scales, elements = np.empty(len(flat), np.uint8), np.empty(flat.shape, np.uint8)
    invalid = overflow = False
    for part in slabs_of(len(flat), fmt.block):
        nan, above = quantise_rows(flat[part], fmt, scale_rule, rounding, None if words is None else words[part],
                                   scales[part], elements[part])
        invalid, overflow = invalid | bool(nan.any()), overflow | bool(above.any())
    return Blocks(fmt, scales.reshape(shape), elements.reshape(*shape, fmt.block), length, axis, invalid, overflow)


def quantise_rows(x: np.ndarray, fmt: MX, rule: str, rounding: Rounding, random: np.ndarray | None, scales: np.ndarray,
                  elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise rows of one block each into the given arrays; return which had a NaN and which overflowed."""
    # The maximum along the short axis is several times faster on a transposed copy.
    top = np.abs(np.ascontiguousarray(x.T)).max(axis=0)
    special = ~np.isfinite(top)
    wanted = wanted_codes(np.where(special, 0, top).astype(np.float64), fmt, rule)
    codes = np.clip(wanted, 0, SCALE_TOP)
    scales[:] = np.where(special, SCALE_NAN, codes)
    shift = (SCALE_BIAS - codes).astype(np.int32)[:, np.newaxis]
    # Scaling rounds only what is far below the first bit that counts.
    with np.errstate(invalid="ignore", over="ignore"):
        if x.dtype == np.float32 and rounding.kind != "stochastic":
            scaled = x * np.ldexp(np.float32(1), shift)
            bits = scaled.view(np.uint32)
            index = bits >> np.uint32(LOST)
            index |= (bits & np.uint32((1 << LOST) - 1)) != 0
            np.take(_table(fmt, rounding), index, out=elements, mode="clip")
        else:
            elements[:] = fmt.encode(np.ldexp(x.astype(np.float64), shift), rounding, random)
    elements[special] = 0
    return np.isnan(top), special | (wanted > SCALE_TOP)


LOST = 14  # bits of a float32 that are jammed into one


@lru_cache(32)
def _table(fmt: MX, rounding: Rounding) -> np.ndarray:
    """Element codes of all float32 numbers whose lowest `LOST` bits are clear.

    That leaves 9 mantissa bits. Elements have 7 or fewer, so they round alike from a float32 and from the float32 with
    its lost bits jammed into the ninth: that one differs from every element and every midpoint in the same direction.
    """
    values = (np.arange(1 << (32 - LOST), dtype=np.uint32) << np.uint32(LOST)).view(np.float32)
    return fmt.encode(np.nan_to_num(values), rounding)
