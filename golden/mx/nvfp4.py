"""NVFP4: a scale for each block of 16 elements, and another one for the tensor."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require
from ..formats import PRESETS
from ..groups import as_groups, draw_words, from_groups
from ..rounding import NEAREST, Rounding
from ..words import Stream

__all__ = ["NVFP4", "quantise_nvfp4"]


@dataclass(frozen=True)
class NVFP4:
    """An array in NVFP4: E2M1 elements, an E4M3 scale for each block of 16 and one fp32 scale for the tensor.

    Attributes
    ----------
    tensor_scale : float
        Value of the fp32 scale; NaN if the array held an Inf or a NaN, which makes all its values NaN.
    scales : ndarray of uint8, shape (..., blocks)
        E4M3 codes, not negative.
    elements : ndarray of uint8, shape (..., blocks, 16)
        E2M1 codes.
    length, axis : int
        As in `Blocks`.
    """

    tensor_scale: float
    scales: np.ndarray
    elements: np.ndarray
    length: int
    axis: int = -1

    BLOCK = 16

    def values(self) -> np.ndarray:
        """Return the float64 values, element * block scale * tensor scale. Exact."""
        scale = PRESETS["fp8-e4m3"].decode(self.scales) * self.tensor_scale
        values = PRESETS["fp4-e2m1"].decode(self.elements) * scale[..., np.newaxis]
        return from_groups(values, self.length, self.axis)


def quantise_nvfp4(x: ArrayLike, *, axis: int = -1, rounding: Rounding = NEAREST,
                   random: Stream | ArrayLike | None = None, tensor_scale: float | None = None) -> NVFP4:
    """Quantise an array to NVFP4 along one axis.

    The tensor scale is amax / (448 * 6), rounded to fp32; a block's scale is its largest magnitude / 6 / tensor scale,
    rounded to E4M3; an element is x / (block scale * tensor scale), rounded to E2M1. The quotients are exact before
    their one rounding (to nearest even for the scales), and what is beyond the largest number saturates. Where the
    scales multiply to zero, the elements are zeros.

    Parameters
    ----------
    x : array_like of float16 or float32
        Any shape of one dimension or more.
    axis, rounding, random
        As in `quantise`, with 16 lanes or words per block.
    tensor_scale : float, optional
        An fp32 value to use instead of the array's own.
    """
    x = np.asarray(x)
    require(x.dtype in (np.float16, np.float32), "dtype of x", str(x.dtype), "float16, float32")
    flat, shape, length = as_groups(x, axis, NVFP4.BLOCK)
    words = draw_words(random, rounding, NVFP4.BLOCK, len(flat))
    element, scale = PRESETS["fp4-e2m1"], replace(PRESETS["fp8-e4m3"], overflow="saturate")
    flat = flat.astype(np.float64)
    top = np.abs(flat).max(axis=1, initial=0)
    # The operands have few bits, so an exact quotient is a midpoint of the next rounding, or far from one. The rounding
    # of float64 never moves a quotient across a midpoint: there is one rounding in effect.
    if tensor_scale is None:
        tensor_scale = PRESETS["fp32"].round(top.max(initial=0) / (scale.max * element.max))
    tensor_scale = float(np.float32(tensor_scale))
    if not np.isfinite(top).all():
        tensor_scale = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = scale.encode(np.where(top == 0, 0, top / (element.max * tensor_scale)))
        divisor = (scale.decode(scales) * tensor_scale)[:, np.newaxis]
        quotients = np.where(divisor == 0, 0, flat / divisor)
    elements = element.encode(np.nan_to_num(quotients), rounding, words)
    return NVFP4(tensor_scale, scales.astype(np.uint8).reshape(shape),
                 elements.astype(np.uint8).reshape(*shape, NVFP4.BLOCK), length, axis)
