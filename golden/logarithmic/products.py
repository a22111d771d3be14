"""Products by addition: the unit ``lns-dot``, its parameters and what it computes, and matrix products.

After LNS-Madam (arXiv 2106.13914). Source: numerics contract, section 6.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require, require_int, require_lengths
from ...base.parameters import Parameters
from ..accumulator import runs
from ..arrays import as_rows
from ..formats import PRESETS, Float, Log
from ..products import product
from .numbers import SCALE_BIAS, Logs, require_format, require_result
from .tables import constants, weights

__all__ = ["LNSDotParameters", "dot", "dots", "matmul", "product_table"]

SLAB = 1 << 20  # products worked on at a time, so that they stay in the cache


@dataclass(frozen=True)
class LNSDotParameters(Parameters):
    """Parameters of the unit ``lns-dot`` and of `matmul`.

    Parameters
    ----------
    format : Log
        Of both operands: 4 to 9 bits, gamma 1 to 16 and at most 2**(bits-2); products below 2**41.
    lanes : int
        Products added per transfer: 4 to 64.
    accumulation : str
        ``direct``: one sum, of the products' constants shifted by their quotients. ``bins``: a sum for each remainder,
        of shifted ones. The result is the same unless something saturates.
    accumulator : int, optional
        Bits of each bin, sign included, weighing 2**lsb and more; the direct sum has the constants' fraction below
        them. Wide enough for the largest product, and at most 48; when not given, 15 bits more than that, so that no
        sum of 32,768 products saturates (or 48).
    lsb : int
        Products whose quotient is below it are dropped.
    constants : int
        How many constants stand for the remainders: a power of two, at most gamma; see `constants`.
    fraction : int
        Fraction bits of the constants, 4 to 10.
    result : Float
        What an emitted sum is rounded to: as in `LNSDecoderParameters`.
    """

    format: Log = PRESETS["lns8"]
    lanes: int = 16
    accumulation: str = "direct"
    accumulator: int = None  # type: ignore[assignment]  # an integer, once made
    lsb: int = 0
    constants: int = None  # type: ignore[assignment]  # an integer, once made
    fraction: int = 8
    result: Float = PRESETS["fp32"]

    def __post_init__(self) -> None:
        require_format(self.format, 9, 16)
        require(self.quotient <= 40, "format", self.format, "one whose largest product is below 2**41")
        require_int("lanes", self.lanes, 4, 64)
        require(self.accumulation in ("direct", "bins"), "accumulation", self.accumulation, "direct, bins")
        require_int("lsb", self.lsb, 0, self.quotient)
        require_int("fraction", self.fraction, 4, 10)
        # Golden holds every sum in 64 bits.
        least, most = max(self.quotient - self.lsb + 2, 8), 60 - self.fraction - self.format.gamma.bit_length()
        if self.accumulator is None:
            object.__setattr__(self, "accumulator", min(least + 15, most, 48))
        require_int("accumulator", self.accumulator, least, min(most, 48))
        gamma = self.format.gamma
        if self.constants is None:
            object.__setattr__(self, "constants", gamma)
        allowed = [1 << k for k in range(gamma.bit_length())]
        require(type(self.constants) is int and self.constants in allowed, "constants", self.constants,
                ", ".join(map(str, allowed)))
        require_result(self.result)

    @property
    def quotient(self) -> int:
        """Largest quotient of a product."""
        return 2 * self.format.top // self.format.gamma

    @property
    def table(self) -> tuple[tuple[int, ...], int]:
        """What `constants` returns: the integers for each remainder, and their fraction bits."""
        return constants(self.format.gamma, self.constants, self.fraction)

    @property
    def rows(self) -> list[tuple[int, int]]:
        """For ``bins``: the powers of two, as (bin, shift), that the bins are multiplied by and added."""
        return [(index, shift) for index, weight in enumerate(weights(self.constants, self.fraction))
                for shift in range(weight.bit_length()) if weight >> shift & 1]

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its emitted sum."""
        direct = self.accumulation == "direct"
        return 11 + direct + (self.lanes - 1).bit_length() + (0 if direct else (len(self.rows) - 1).bit_length())

    @property
    def most(self) -> int:
        """Greatest direct sum, in units of 2**(lsb - fraction bits), or bin, in its own; the least is -most - 1."""
        return (1 << (self.accumulator - 1 + self.below)) - 1

    @property
    def below(self) -> int:
        """Bits of the sum, or of a bin, that weigh less than 2**lsb."""
        if self.accumulation == "direct":
            return self.table[1]
        return self.format.gamma.bit_length() - 1 if self.constants < self.format.gamma else 0


@lru_cache(64)
def product_table(parameters: LNSDotParameters) -> np.ndarray:
    """Return what a product adds, by index: int64, read-only, in the units of the direct sum or of a bin.

    The index of a product is the sum of its operands' own, see `_indices`.
    """
    p = parameters
    fmt, gamma = p.format, p.format.gamma
    level = np.arange(2 * fmt.top + 1)
    quotient, remainder = level // gamma, level % gamma
    if p.accumulation == "direct":
        factors = p.table[0]
    else:
        low = gamma // p.constants
        factors = tuple(gamma + r % low if low > 1 else 1 for r in range(gamma))
    shift = np.maximum(quotient - p.lsb, 0)
    magnitude = np.where(quotient >= p.lsb, np.array(factors, np.int64)[remainder] << shift, 0)
    table = np.zeros(2 * _ZERO * _sign(fmt) + 1, np.int64)
    for signs, factor in ((0, 1), (1, -1), (2, 1)):
        table[signs * _sign(fmt):][:len(level)] = factor * magnitude
    table.flags.writeable = False
    return table


def _sign(fmt: Log) -> int:
    """Return what a sign adds to an index: more than two levels do."""
    return 1 << fmt.bits


_ZERO = 3  # signs' worth of what a zero adds: more than two numbers do that are not


def _indices(codes: np.ndarray, fmt: Log) -> np.ndarray:
    """Return for each code what it adds to the index of a product."""
    t = codes & fmt.top
    return np.where(t == 0, _ZERO * _sign(fmt), t + (codes >> (fmt.bits - 1)) * _sign(fmt))


def dot(a: np.ndarray, b: np.ndarray, parameters: LNSDotParameters) -> np.ndarray:
    """Return what one transfer of ``lns-dot`` adds, before anything saturates.

    Parameters
    ----------
    a, b : array of int, shape (..., lanes)
        Codes.
    parameters : LNSDotParameters

    Returns
    -------
    int64 array of shape (...) for `direct`, and (..., constants) for `bins`
        In the units of the sum, 2**(lsb - fraction bits); of a bin, 2**lsb, or 2**lsb / gamma where there are fewer
        constants than remainders.
    """
    p = parameters
    a, b = (np.asarray(each).astype(np.int64) for each in (a, b))
    terms = product_table(p)[_indices(a, p.format) + _indices(b, p.format)]
    if p.accumulation == "direct":
        return terms.sum(axis=-1)
    which = ((a & p.format.top) + (b & p.format.top)) % p.format.gamma // (p.format.gamma // p.constants)
    return np.stack([np.where(which == each, terms, 0).sum(axis=-1) for each in range(p.constants)], axis=-1)


def _total(sums: np.ndarray, parameters: LNSDotParameters) -> np.ndarray:
    """Return the sum in units of 2**(lsb - fraction bits), from what is accumulated."""
    p = parameters
    if p.accumulation == "direct":
        return sums
    # What the low part of a remainder is worth is in the bins already.
    total = (sums * np.array(weights(p.constants, p.fraction), np.int64)).sum(axis=-1)
    return total >> (p.fraction + p.below - p.table[1])


def _rounded(total: np.ndarray, exponent: ArrayLike, result: Float) -> np.ndarray:
    """Return values (float64) of the result format for total * 2**exponent, rounded once; a zero is +0."""
    # float64 has 53 bits: of more, the low ones become one that is set if any of them was.
    wide, low = np.abs(total) >> 53 != 0, (total & 1023) != 0
    total = np.where(wide, (total >> 10 | low) << 10, total)
    return result.round(np.ldexp(total.astype(np.float64), np.asarray(exponent, np.int32))) + 0.0


def _saturate(sums: np.ndarray, parameters: LNSDotParameters) -> tuple[np.ndarray, bool]:
    """Return what the accumulators hold of sums, and whether any was beyond them."""
    held = np.clip(sums, -parameters.most - 1, parameters.most)
    return held, bool((held != sums).any())


def dots(parameters: LNSDotParameters, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray,
         last: np.ndarray) -> tuple[np.ndarray, bool]:
    """Golden function of ``lns-dot``: transfers in order.

    Parameters
    ----------
    parameters : LNSDotParameters
    a, b : tuple (codes, scale)
        Integer arrays of shapes (n, lanes) and (n,): codes, and codes of scales, 0 to 254. Of the transfers of a sum,
        the scales of the last one count.
    first, last : array of bool, shape (n,)
        Start from 0; emit the sum after this addition (it is kept).

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the result format, in order.
    overflow : bool
        Whether a sum, or a bin, saturated, or a finite sum became infinite.
    """
    p = parameters
    (x, a_scale), (y, b_scale) = ((as_rows("codes", codes, p.lanes).astype(np.int64),
                                   np.asarray(scale).astype(np.int64)) for codes, scale in (a, b))
    require_lengths(a=x, b=y, a_scale=a_scale, b_scale=b_scale, first=first, last=last)
    terms = dot(x, y, p)
    totals, overflow = np.zeros(len(terms), np.int64), False
    count, levels_of_depth = runs(np.zeros(len(terms), np.int64), first)
    sums = np.zeros((count, *terms.shape[1:]), np.int64)
    for where, rows in levels_of_depth:
        sums[where], over = _saturate(sums[where] + terms[rows], p)
        overflow |= over
        totals[rows] = _total(sums[where], p)
    last = np.asarray(last, bool)
    exponent = a_scale + b_scale - 2 * SCALE_BIAS + p.lsb - p.table[1]
    values = _rounded(totals[last], exponent[last], p.result)
    return p.result.encode(values), overflow or bool(np.isinf(values).any())


def matmul(a: Logs, b: Logs, parameters: LNSDotParameters) -> tuple[np.ndarray, bool]:
    """Return the matrix product of two arrays of logarithmic numbers: float64 values of the result format.

    Parameters
    ----------
    a, b : Logs, shapes (M, K) and (K, N)
    parameters : LNSDotParameters
        Each sum takes `lanes` products after the other, in rising order along K, as the unit does; the last ones may
        be fewer.

    Returns
    -------
    values : ndarray of float64, shape (M, N)
    overflow : bool
        Whether a sum or a bin saturated, or a result became infinite.
    """
    p, fmt = parameters, parameters.format
    require(a.format == b.format == fmt, "format of the operands", (a.format, b.format), f"{fmt}, the dot product's")
    require(a.codes.ndim == b.codes.ndim == 2 and a.codes.shape[1] == b.codes.shape[0], "shapes",
            (a.codes.shape, b.codes.shape), "(M, K) and (K, N)")
    x, y = a.codes.astype(np.int64), np.ascontiguousarray(b.codes.T).astype(np.int64)
    largest = int(product_table(p).max())
    fits = largest * x.shape[1] <= p.most
    if fits and p.lsb == 0:
        total, overflow = _exact_product(x, y, p), False
    else:
        total, overflow = _ordered_product(x, y, p)
    values = _rounded(total, a.scale + b.scale + p.lsb - p.table[1], p.result)
    return values, overflow or bool(np.isinf(values).any())


def _exact_product(x: np.ndarray, y: np.ndarray, parameters: LNSDotParameters) -> np.ndarray:
    """Return the sums of all products, of x (M, K) and y (N, K), where nothing is dropped and nothing saturates.

    2**((8*qa + ra + 8*qb + rb) / 8) is 2**qa times a factor of ra and b alone. So all products with one ra are a
    product of matrices. The products with all ra are one with an axis of K * gamma. Its sums are exact in float64.
    """
    fmt, gamma = parameters.format, parameters.format.gamma
    table, _ = parameters.table
    (tx, sx), (ty, sy) = ((each & fmt.top, 1.0 - 2.0 * (each >> (fmt.bits - 1))) for each in (x, y))
    sx, sy = np.where(tx == 0, 0.0, sx), np.where(ty == 0, 0.0, sy)
    # As many steps along K at a time as leave the sums below 2**53.
    step = max(1, 2**53 // (max(table) << (2 * fmt.top // gamma)))
    total = np.zeros((len(x), len(y)), np.int64)
    remainders = np.arange(gamma)
    for start in range(0, x.shape[1], step):
        part = slice(start, start + step)
        left = np.ldexp(sx[:, part], (tx[:, part] // gamma).astype(np.int32))[:, :, np.newaxis]
        left = np.where(tx[:, part, np.newaxis] % gamma == remainders, left, 0.0)
        level = ty[:, part, np.newaxis] + remainders
        right = np.array(table, np.float64)[level % gamma] * sy[:, part, np.newaxis]
        right = np.ldexp(right, (level // gamma).astype(np.int32))
        axis = left.shape[1] * gamma
        total += product(left.reshape(len(x), axis), right.reshape(len(y), axis).T).astype(np.int64)
    return total


def _ordered_product(x: np.ndarray, y: np.ndarray, parameters: LNSDotParameters) -> tuple[np.ndarray, bool]:
    """Return the sums of x (M, K) and y (N, K), `lanes` products at a time, and whether any saturated."""
    p = parameters
    table = product_table(p)
    total, overflow = np.zeros((len(x), len(y)), np.int64), False
    rows = max(1, SLAB // max(1, len(y) * p.lanes))
    iy = _indices(y, p.format).astype(np.int32)
    for low in range(0, len(x), rows):
        ix = _indices(x[low:low + rows], p.format).astype(np.int32)
        sums = np.zeros((len(ix), len(y)) + (() if p.accumulation == "direct" else (p.constants,)), np.int64)
        for start in range(0, x.shape[1], p.lanes):
            part = slice(start, start + p.lanes)
            if p.accumulation == "direct":
                terms = table[ix[:, np.newaxis, part] + iy[:, part]].sum(axis=-1)
            else:
                terms = dot(x[low:low + rows, np.newaxis, part], y[:, part], p)
            sums, over = _saturate(sums + terms, p)
            overflow |= over
        total[low:low + rows] = _total(sums, p)
    return total, overflow
