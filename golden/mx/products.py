"""Exact dot products of MX blocks, and matrix products.

Source: OCP Microscaling Formats (MX) Specification 1.0; numerics contract, section 5.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...base.checks import require
from ..accumulator import accumulate, sum_groups, two_sum
from ..formats import PRESETS, Float
from ..products import product
from .elements import MX, SCALE_BIAS, SCALE_NAN
from .numbers import Blocks, integers_of

__all__ = ["dot", "matmul"]


def _checked(a: Blocks, b: Blocks) -> tuple[np.ndarray, ...]:
    """Integers of the elements of both, NaN-free, and which blocks are NaN."""
    qa, qb = (integers_of(x.format)[x.elements] for x in (a, b))
    bad = [np.isnan(q).any(axis=-1) | (x.scales == SCALE_NAN) for q, x in ((qa, a), (qb, b))]
    return np.nan_to_num(qa, copy=False), np.nan_to_num(qb, copy=False), *bad


def _group_sums(multiply: Callable, qa: np.ndarray, qb: np.ndarray, a: MX, b: MX) -> tuple[Any, Any]:
    """Return exact dot products of integers as ``(high, low)``: float64 arrays, whose exact sum they are.

    `multiply` makes float64 dot products, in any order, of the operands' integers or of halves of their bits; a, b are
    the MX formats. The low part is at most half a unit in the last place of the high one.
    """
    if a.bits + b.bits + a.block.bit_length() <= 53:
        return multiply(qa, qb), 0
    half_a, half_b = a.bits // 2, b.bits // 2
    (high_a, low_a), (high_b, low_b) = (_halves(q, half) for q, half in ((qa, half_a), (qb, half_b)))
    high = multiply(high_a, high_b)
    middle = multiply(high_a, low_b) + multiply(low_a, high_b)
    high, error = two_sum(high, middle)
    return two_sum(high, error + multiply(low_a, low_b))


def _halves(q: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Split float64 integers into a multiple of ``2**bits`` and what is below."""
    high = np.ldexp(np.floor(np.ldexp(q, -bits)), bits)
    return high, q - high


def dot(a: Blocks, b: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact dot products of corresponding blocks, as float64 arrays ``(high, low)``.

    Their exact sum is the dot product. `low` is 0 wherever one float64 holds the sum, as it does for all pairs of
    presets but E5M2 with E5M2 or E4M3. A block with the NaN scale, or with an element that is Inf or NaN (which
    `quantise` never makes), gives NaN.
    """
    require(a.format.block == b.format.block, "blocks", (a.format.block, b.format.block), "of equal length")
    qa, qb, bad_a, bad_b = _checked(a, b)
    high, low = _group_sums(lambda x, y: np.einsum("...i,...i->...", x, y), qa, qb, a.format, b.format)
    shift = a.scales.astype(np.int32) + b.scales - 2 * SCALE_BIAS + a.format.unit + b.format.unit
    return np.where(bad_a | bad_b, np.nan, np.ldexp(high, shift)), np.where(bad_a | bad_b, 0, np.ldexp(low, shift))


def matmul(a: Blocks, b: Blocks, accumulator: Float = PRESETS["fp32"]) -> np.ndarray:
    """Return the matrix product of two MX matrices, float64 values of `accumulator`.

    Parameters
    ----------
    a : Blocks, shape (M, K)
        In blocks along K.
    b : Blocks, shape (K, N)
        In blocks along K, so its arrays are (N, blocks) and (N, blocks, block).
    accumulator : Float
        Starts at +0. The exact dot products of the pairs of blocks are added in rising order along K, with one
        rounding each, to nearest even. A NaN block makes every sum that it enters NaN.
    """
    for name, operand, axis in (("a", a, (-1, 1)), ("b", b, (0, -2))):
        require(operand.scales.ndim == 2 and operand.axis in axis, f"axis of {name}", operand.axis,
                "the reduction axis of the product")
    require(a.length == b.length and a.format.block == b.format.block, "operands",
            ((a.length, a.format.block), (b.length, b.format.block)), "equal reduction lengths and blocks")
    qa, qb, bad_a, bad_b = _checked(a, b)
    ea, eb = (x.scales.astype(np.int64) for x in (a, b))
    offset = 2 * SCALE_BIAS - a.format.unit - b.format.unit
    bits = a.format.bits + b.format.bits + (a.format.block - 1).bit_length()
    if bits < 53:
        total = sum_groups((ea, qa), (eb, qb), offset, bits, accumulator)
    else:
        total = np.zeros((len(ea), len(eb)))
        for k in range(ea.shape[1]):
            high, low = _group_sums(lambda x, y: product(x, y.T), qa[:, k], qb[:, k], a.format, b.format)
            total = accumulate(total, high, ea[:, k, np.newaxis] + eb[:, k] - offset, accumulator, low)
    return np.where(np.any(bad_a, axis=1)[:, np.newaxis] | np.any(bad_b, axis=1), np.nan, total)
