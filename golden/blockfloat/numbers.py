"""Arrays in block floating point: quantiser, memory layout, exact group dot product, matrix product.

Source: numerics contract, section 3, after FAST (arXiv 2110.15456).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require
from ..accumulator import sum_groups
from ..arrays import broadcast
from ..formats import PRESETS, BlockFloat, Float
from ..groups import as_groups, draw_words, from_groups, slabs_of
from ..rounding import NEAREST, Rounding
from ..words import Stream

__all__ = ["Blocks", "dot", "matmul", "pack", "passes", "quantise", "unpack"]


@dataclass(frozen=True)
class Blocks:
    """An array in block floating point, its groups laid along one axis.

    Attributes
    ----------
    format : BlockFloat
    exponents : ndarray of int16, shape (..., groups)
        Exponent codes; the grouped axis comes last.
    mantissas : ndarray of int8 (int16 for 8-bit magnitudes), shape (..., groups, group)
        Signed magnitudes; a tail is padded with zeros. A zero has no sign.
    length : int
        Elements along the grouped axis, padding not counted.
    axis : int
        Where the grouped axis belongs in the array that was quantised.
    invalid : bool
        A NaN was met (and saturated).
    overflow : bool
        A group was above the exponent field, or had an Inf or a NaN.
    """

    format: BlockFloat
    exponents: np.ndarray
    mantissas: np.ndarray
    length: int
    axis: int = -1
    invalid: bool = False
    overflow: bool = False

    def values(self) -> np.ndarray:
        """Return the float64 values in the shape of the array that was quantised. Exact."""
        shift = self.exponents.astype(np.int32) - (self.format.bias + self.format.mantissa - 1)
        values = np.ldexp(self.mantissas.astype(np.float64), shift[..., np.newaxis])
        return from_groups(values, self.length, self.axis)


def quantise(x: ArrayLike, fmt: BlockFloat, *, axis: int = -1, rounding: Rounding = NEAREST,
             random: Stream | ArrayLike | None = None) -> Blocks:
    """Quantise an array to block floating point along one axis.

    Parameters
    ----------
    x : array_like of float
        Any shape of one dimension or more; float16, float32 or float64, taken exactly.
    fmt : BlockFloat
    axis : int
        Axis along which groups lie; its tail is padded with zeros.
    rounding : Rounding
        The carry out of a magnitude saturates under each.
    random : Stream or array of int, optional
        For a stochastic rounding: a stream of `group` lanes, or the words themselves, of shape (..., groups, group).
        The stream is drawn from once a group, in C order with the grouped axis last.

    Returns
    -------
    Blocks
        A group whose exponent is above the field, or that holds an Inf or a NaN, gets the top
        exponent code, and every non-zero element of it saturates. Below the field the group
        is aligned to the lowest exponent. An all-zero group has exponent code 0.
    """
    flat, shape, length = as_groups(x, axis, fmt.group)
    words = draw_words(random, rounding, fmt.group, len(flat))
    exponents = np.empty(len(flat), np.int16)
    mantissas = np.empty(flat.shape, np.int8 if fmt.mantissa < 8 else np.int16)
    invalid = overflow = False
    for part in slabs_of(len(flat), fmt.group):
        noise = None if words is None else words[part]
        nan, above = _quantise_rows(flat[part], fmt, rounding, noise, exponents[part], mantissas[part])
        invalid, overflow = invalid | nan, overflow | above
    return Blocks(fmt, exponents.reshape(shape), mantissas.reshape(*shape, fmt.group), length, axis, invalid, overflow)


def _quantise_rows(x: np.ndarray, fmt: BlockFloat, rounding: Rounding, random: Any, exponents: np.ndarray,
                   mantissas: np.ndarray) -> tuple[bool, bool]:
    """Quantise rows of one group each into the given arrays; return whether one had a NaN, or was above the field."""
    top_q = (1 << fmt.mantissa) - 1
    # The maximum along the short axis is six times faster on a transposed copy.
    top = np.abs(np.ascontiguousarray(x.T)).max(axis=0)
    special = ~np.isfinite(top)
    exponent = np.frexp(np.where(special, 1, top))[1] - 1
    above = special | (exponent > fmt.emax) & (top != 0)
    exponent = np.where(top == 0, fmt.emin, np.clip(exponent, fmt.emin, fmt.emax))
    exponent[above] = fmt.emax
    exponents[:] = exponent + fmt.bias

    window = rounding.window if rounding.kind == "stochastic" else 0
    shift = fmt.mantissa - 1 + window - exponent
    limits = np.finfo(x.dtype)
    wide = shift.max() >= limits.maxexp or shift.min() < limits.minexp
    with np.errstate(invalid="ignore", over="ignore"):
        if wide:  # the power of two itself is no number of this dtype
            scaled = np.ldexp(x.astype(np.float64), shift[:, np.newaxis])
        else:
            scaled = x * np.ldexp(x.dtype.type(1), shift)[:, np.newaxis]
        # Scaling rounds only where the result is subnormal, far below the first bit that counts.
        if rounding.kind == "stochastic":
            q = np.abs(scaled).astype(np.int16 if fmt.mantissa + window < 14 else np.int32)
            q += rounding.noise(random.astype(q.dtype))
            q >>= window
            np.minimum(q, top_q, out=q)
            q *= 1 - 2 * np.signbit(x).view(np.int8)
        else:
            q = np.rint(scaled, out=scaled) if rounding.kind == "nearest" else scaled
            q = np.clip(q, -top_q, top_q, out=q)
        np.copyto(mantissas, q, casting="unsafe")
    if above.any():
        saturated = np.where(np.signbit(x[above]), -top_q, top_q)
        mantissas[above] = np.where(x[above] == 0, 0, saturated)
    return bool(special.any() and np.isnan(x[special]).any()), bool(above.any())


def pack(blocks: Blocks) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the memory layout: ``(exponents, planes)`` as uint8 arrays of packed bits.

    Exponents lie apart from mantissas, `exponent` bits each. Each 2-bit chunk has a plane of its
    own, the lowest first, in which every element takes 3 bits: the chunk, then the sign. So a
    group takes ``exponent + group * chunks * 3`` bits. Bits fill each byte from the lowest.
    """
    fmt = blocks.format
    shifts = np.arange(fmt.exponent)
    exponents = np.packbits((blocks.exponents.reshape(-1, 1) >> shifts) & 1, bitorder="little")
    q = blocks.mantissas.reshape(-1).astype(np.int16)
    magnitude = np.abs(q)
    planes = []
    for c in range(fmt.chunks):
        chunk = (magnitude >> (2 * c)) & 3 | (q < 0) << 2
        planes.append(np.packbits((chunk[:, np.newaxis] >> np.arange(3)) & 1, bitorder="little"))
    return exponents, planes


def unpack(exponents: np.ndarray, planes: Sequence[np.ndarray], fmt: BlockFloat, shape: tuple[int, ...], length: int,
           axis: int = -1) -> Blocks:
    """Return the Blocks whose `pack` gave these arrays.

    Parameters
    ----------
    shape : tuple of int
        Shape of the exponents, (..., groups).
    length, axis : int
        As in `Blocks`.
    """
    count = int(np.prod(shape))
    bits = np.unpackbits(exponents, count=count * fmt.exponent, bitorder="little")
    codes = bits.reshape(count, fmt.exponent).astype(np.int16) @ (1 << np.arange(fmt.exponent, dtype=np.int16))
    magnitude, negative = np.zeros(count * fmt.group, np.int16), np.zeros(count * fmt.group, bool)
    for c, plane in enumerate(planes):
        chunk = np.unpackbits(plane, count=count * fmt.group * 3, bitorder="little").reshape(-1, 3)
        magnitude |= (chunk[:, 0] | chunk[:, 1] << 1).astype(np.int16) << (2 * c)
        negative = chunk[:, 2].astype(bool)
    mantissas = np.where(negative, -magnitude, magnitude)
    mantissas = mantissas.astype(np.int8 if fmt.mantissa < 8 else np.int16).reshape(*shape, fmt.group)
    return Blocks(fmt, codes.reshape(shape), mantissas, length, axis)


def passes(a_mantissa: int, b_mantissa: int) -> int:
    """Return the chunk pairs, and so the serial dot product's cycles, for two precisions."""
    return ((a_mantissa + 1) // 2) * ((b_mantissa + 1) // 2)


def dot(a: Blocks, b: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact dot products of corresponding groups as ``(integer, exponent)``: integer * 2**exponent.

    Both are int64 of the broadcast shape of the exponents. Equal to the merged chunk dot
    products, sum of 4**(c+d) * D_cd.
    """
    require(a.format.group == b.format.group, "groups", (a.format.group, b.format.group), "of equal length")
    broadcast(a=a.exponents, b=b.exponents)
    integer = np.einsum("...i,...i->...", a.mantissas.astype(np.int64), b.mantissas.astype(np.int64))
    return integer, a.exponents.astype(np.int64) + b.exponents.astype(np.int64) - _offset(a.format, b.format)


def _offset(a: BlockFloat, b: BlockFloat) -> int:
    """Return what the sum of two exponent codes has above the exponent of their product's unit."""
    return a.bias + a.mantissa - 1 + b.bias + b.mantissa - 1


def matmul(a: Blocks, b: Blocks, accumulator: Float = PRESETS["fp32"]) -> np.ndarray:
    """Return the matrix product of two block-floating-point matrices, float64 values of `accumulator`.

    Parameters
    ----------
    a : Blocks, shape (M, K)
        Grouped along K.
    b : Blocks, shape (K, N)
        Grouped along K, so its arrays are (N, groups) and (N, groups, group).
    accumulator : Float
        Starts at +0. Groups are added in rising order along K, one rounding each.
    """
    for name, operand, axis in (("a", a, (-1, 1)), ("b", b, (0, -2))):
        require(operand.exponents.ndim == 2 and operand.axis in axis, f"axis of {name}", operand.axis,
                "the reduction axis of the product")
    require(a.length == b.length and a.format.group == b.format.group, "operands",
            ((a.length, a.format.group), (b.length, b.format.group)), "equal reduction lengths and groups")
    bits = (a.format.group << (a.format.mantissa + b.format.mantissa)).bit_length() - 1
    return sum_groups((a.exponents, a.mantissas), (b.exponents, b.mantissas), _offset(a.format, b.format), bits,
                      accumulator)
