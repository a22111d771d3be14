"""Operations on codes of floating-point numbers of any width, each rounded once.

Source: numerics contract, sections 1, 2 and 4.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...base.checks import require
from ..arrays import as_codes, broadcast
from ..formats import Float
from ..rounding import NEAREST, Rounding

__all__ = [
    "ORDERS", "add", "add_flagged", "cast", "cast_flagged", "compare", "dot", "fma", "fma_flagged", "maximum",
    "multiply", "multiply_flagged", "negate", "subtract",
]

ORDERS = ("sequential", "chunked", "exact")
SLAB = 1 << 14  # elements worked on at a time, so that every intermediate array stays in the cache

# Every number on its way through an operation is an integer whose top bit is bit TOP: it holds the product of two
# 30-bit significands (the widest Float) exactly, and a sum of two still fits an int64.
TOP = 60
LOWEST = -(1 << 14)  # exponent of a zero: times the greatest number it is still below every other


@dataclass(frozen=True)
class _Parts:
    """Numbers taken apart: (-1)**negative * integer * 2**(exponent - TOP), or Inf, or NaN (arrays of one shape).

    The integer is 0 (then the exponent is below every other) or has its top bit at TOP. Where bits had to go below
    bit 0, bit 0 is set ("jammed"): the number lies strictly between two even integers, which is all that rounding at
    a bit far above has to know. A Float has up to 30 bits and stochastic rounding looks at 17 more: the rest is below.
    """

    negative: np.ndarray
    integer: np.ndarray
    exponent: np.ndarray
    inf: np.ndarray
    nan: np.ndarray


def _unpack(codes: np.ndarray, fmt: Float, flush: bool) -> _Parts:
    """Take int64 codes apart; with `flush`, subnormal numbers are zeros of their sign."""
    magnitude = codes & ((1 << (fmt.width - 1)) - 1)
    field = magnitude >> fmt.mantissa
    integer = (magnitude & ((1 << fmt.mantissa) - 1) | 1 << fmt.mantissa) << (TOP - fmt.mantissa)
    exponent = field - fmt.bias
    small = np.flatnonzero(field == 0)
    if small.size:
        fraction = np.zeros_like(small) if flush else magnitude[small]
        integer[small], exponent[small] = _normalise(fraction, fmt.emin - fmt.mantissa + TOP)
    above = magnitude > fmt.max_code
    inf = magnitude == fmt.inf_code if fmt.specials == "ieee" else np.zeros(codes.shape, bool)
    return _Parts((codes >> (fmt.width - 1)) & 1 == 1, integer, exponent, inf, above & ~inf)


def _normalise(integer: np.ndarray, exponent: Any) -> tuple[np.ndarray, Any]:
    """Return integer and exponent of ``integer * 2**(exponent - TOP)``, any integers below 2**(TOP+2), as in _Parts."""
    # The exponent of a float64 is the place of the top bit; without every 1 that follows a 1, conversion to float64
    # cannot carry into the next power of two.
    spread = (integer & ~(integer >> 1)).astype(np.float64)
    top = (spread.view(np.int64) >> 52) - 1023
    zero = integer == 0
    integer = integer << (TOP + 1 - top)
    exponent = exponent + top - TOP
    exponent[zero] = LOWEST
    return integer >> 1 | integer & 1, exponent


def _jam(integer: np.ndarray, shift: Any) -> np.ndarray:
    """Shift right, bits that are lost jammed into bit 0."""
    shift = np.minimum(shift, TOP + 1)
    shifted = integer >> shift
    return shifted | (shifted << shift != integer)


def _product(x: _Parts, y: _Parts) -> _Parts:
    """The exact product of numbers of up to 30 significant bits."""
    # Both fit 30 bits, so the product has its top bit at 58 or 59.
    product = (x.integer >> (TOP - 29)) * (y.integer >> (TOP - 29))
    high = product >> 59
    nan = x.nan | y.nan | x.inf & (y.integer == 0) | y.inf & (x.integer == 0)
    return _Parts(x.negative ^ y.negative, product << (2 - high), x.exponent + y.exponent + high, x.inf | y.inf, nan)


def _sum(x: _Parts, y: _Parts, signed_zeros: bool = True) -> _Parts:
    """The exact sum, jammed, of two numbers whose bit 0 is clear.

    A zero sum is -0 when both are -0 (and `signed_zeros`), else +0.
    """
    # Bits are lost only from a number shifted by 2 or more, whose bit 0 was clear; the sum is then above 2**(TOP-1),
    # and, the other number being even, jamming before the addition is the same as after it.
    exponent = np.maximum(x.exponent, y.exponent)
    first, second = _jam(x.integer, exponent - x.exponent), _jam(y.integer, exponent - y.exponent)
    total = np.where(x.negative, -first, first) + np.where(y.negative, -second, second)
    negative = total < 0
    if signed_zeros:
        negative |= (total == 0) & x.negative & y.negative
    integer, exponent = _normalise(np.abs(total), exponent)
    nan = x.nan | y.nan | x.inf & y.inf & (x.negative ^ y.negative)
    inf = x.inf | y.inf
    negative = np.where(inf, np.where(x.inf, x.negative, y.negative), negative)
    return _Parts(negative, integer, exponent, inf, nan)


def _pack(x: _Parts, fmt: Float, rounding: Rounding, random: Any, flush: bool
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round numbers to codes (int64); return them with the flags invalid and overflow."""
    integer, exponent = x.integer, x.exponent
    if not flush:  # bits below the last place of a subnormal number go before rounding
        small = np.flatnonzero(exponent < fmt.emin)
        if small.size:
            integer = integer.copy()
            integer[small] = _jam(integer[small], fmt.emin - exponent[small])
            exponent = np.maximum(exponent, fmt.emin)
    shift = TOP - fmt.mantissa
    if rounding.kind == "nearest":
        q = integer + ((1 << (shift - 1)) - 1) + (integer >> shift & 1) >> shift
    elif rounding.kind == "truncate":
        q = integer >> shift
    else:
        q = (integer >> (shift - rounding.window)) + rounding.noise(random) >> rounding.window
    # The hidden one of q adds itself to the exponent field, and so does a carry out of q.
    codes = ((exponent - fmt.emin) << fmt.mantissa) + q
    if flush:  # rounded as if exponents had no lower end, it is below the smallest normal number (or was zero)
        codes[codes < 1 << fmt.mantissa] = 0
    overflow = (codes > fmt.max_code) & ~(x.inf | x.nan)
    codes[overflow] = fmt.max_code if rounding.kind == "truncate" else fmt.overflow_code
    codes[x.inf] = fmt.overflow_code if fmt.inf_code is None else fmt.inf_code
    if fmt.inf_code is None:
        overflow |= x.inf & ~x.nan
    codes |= x.negative.astype(np.int64) << (fmt.width - 1)
    codes[x.nan] = fmt.max_code if fmt.nan_code is None else fmt.nan_code
    return codes, x.nan, overflow


def _run(operation: Callable, operands: Sequence[ArrayLike], rounding: Rounding, random: ArrayLike | None
         ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Call ``operation(*codes, random)`` on slabs of broadcast operands; return codes (uint32), invalid, overflow."""
    if rounding.kind == "stochastic":
        require(random is not None, "random", random, "one random word per element, because rounding is stochastic")
        operands = [*operands, random]  # type: ignore[list-item]  # it is given
    # Operands in order, and the random words.
    arrays = broadcast(**{name: as_codes(name, each) for name, each in zip("abcd", operands)})
    shape, size = arrays[0].shape, arrays[0].size
    arrays = tuple(array.reshape(-1) for array in arrays)
    codes, invalid, overflow = np.empty(size, np.uint32), np.empty(size, bool), np.empty(size, bool)
    for start in range(0, size, SLAB):
        part = slice(start, start + SLAB)
        slabs = [array[part].astype(np.int64) for array in arrays]
        word = slabs.pop() if rounding.kind == "stochastic" else None
        codes[part], invalid[part], overflow[part] = operation(*slabs, word)
    return codes.reshape(shape), invalid.reshape(shape), overflow.reshape(shape)


def cast_flagged(a: ArrayLike, fmt: Float, result: Float, rounding: Rounding, random: ArrayLike | None, flush: bool
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `cast` does, and the flags invalid and overflow."""
    return _run(lambda a, r: _pack(_unpack(a, fmt, flush), result, rounding, r, flush), (a,), rounding, random)


def add_flagged(a: ArrayLike, b: ArrayLike, fmt: Float, rounding: Rounding, random: ArrayLike | None, flush: bool
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `add` does, and the flags invalid and overflow."""
    def operation(a: np.ndarray, b: np.ndarray, random: Any) -> tuple:
        return _pack(_sum(_unpack(a, fmt, flush), _unpack(b, fmt, flush)), fmt, rounding, random, flush)
    return _run(operation, (a, b), rounding, random)


def multiply_flagged(a: ArrayLike, b: ArrayLike, fmt: Float, result: Float, rounding: Rounding,
                     random: ArrayLike | None, flush: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `multiply` does, and the flags invalid and overflow."""
    def operation(a: np.ndarray, b: np.ndarray, random: Any) -> tuple:
        return _pack(_product(_unpack(a, fmt, flush), _unpack(b, fmt, flush)), result, rounding, random, flush)
    return _run(operation, (a, b), rounding, random)


def fma_flagged(a: ArrayLike, b: ArrayLike, c: ArrayLike, fmt: Float, accumulator: Float, rounding: Rounding,
                random: ArrayLike | None, flush: bool, signed_zeros: bool = True
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `fma` does, and the flags invalid and overflow."""
    def operation(a: np.ndarray, b: np.ndarray, c: np.ndarray, random: Any) -> tuple:
        product = _product(_unpack(a, fmt, flush), _unpack(b, fmt, flush))
        total = _sum(product, _unpack(c, accumulator, flush), signed_zeros)
        return _pack(total, accumulator, rounding, random, flush)
    return _run(operation, (a, b, c), rounding, random)


def negate(codes: ArrayLike, fmt: Float) -> np.ndarray:
    """Return codes (int64) with the sign changed."""
    return np.asarray(codes).astype(np.int64) ^ (1 << (fmt.width - 1))


def add(a: ArrayLike, b: ArrayLike, fmt: Float, rounding: Rounding = NEAREST, random: ArrayLike | None = None, *,
        flush: bool = False) -> np.ndarray:
    """Return the codes of ``a + b`` (uint32), rounded once.

    Source: numerics contract, sections 1, 2 and 4, which every operation here follows.

    Parameters
    ----------
    a, b : array_like of int
        Codes of `fmt`, of shapes that broadcast.
    fmt : Float
        Any.
    rounding : Rounding
    random : array_like of int, optional
        Random words for a stochastic rounding, one per result (broadcast).
    flush : bool
        Subnormal operands count as zeros of their sign, and so do results that, rounded as if exponents had no
        lower end, are below the smallest normal number.

    Raises
    ------
    ValueError
        `random` is missing for a stochastic rounding.

    Notes
    -----
    A NaN result is the canonical NaN. A sum that is exactly zero is -0 when both operands are -0, else +0.
    """
    return add_flagged(a, b, fmt, rounding, random, flush)[0]


def subtract(a: ArrayLike, b: ArrayLike, fmt: Float, rounding: Rounding = NEAREST, random: ArrayLike | None = None, *,
             flush: bool = False) -> np.ndarray:
    """Return the codes of ``a - b``: `add` of a and b with its sign changed."""
    return add_flagged(a, negate(b, fmt), fmt, rounding, random, flush)[0]


def multiply(a: ArrayLike, b: ArrayLike, fmt: Float, rounding: Rounding = NEAREST, random: ArrayLike | None = None, *,
             result: Float | None = None, flush: bool = False) -> np.ndarray:
    """Return the codes of ``a * b`` in the format `result` (that of the operands when not given); else as `add`.

    Infinity times zero is NaN.
    """
    return multiply_flagged(a, b, fmt, result or fmt, rounding, random, flush)[0]


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike, fmt: Float, rounding: Rounding = NEAREST,
        random: ArrayLike | None = None, *, accumulator: Float | None = None, flush: bool = False) -> np.ndarray:
    """Return the codes of ``a * b + c``, rounded once; else as `add`.

    `c` and the result are codes of `accumulator`, which is `fmt` when not given. The product is exact: with
    `flush` it is not flushed, only the operands and the result are.
    """
    return fma_flagged(a, b, c, fmt, accumulator or fmt, rounding, random, flush)[0]


def cast(a: ArrayLike, fmt: Float, result: Float, rounding: Rounding = NEAREST, random: ArrayLike | None = None, *,
         flush: bool = False) -> np.ndarray:
    """Return the codes in the format `result` of the codes `a` of `fmt`; else as `add`.

    NaN and Inf go to formats without them as `Float.encode` has it.
    """
    return cast_flagged(a, fmt, result, rounding, random, flush)[0]


def _order(codes: ArrayLike, fmt: Float, flush: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes and signs as int64, and where there is NaN; flushed when asked."""
    codes = np.asarray(codes).astype(np.int64)
    magnitude = codes & ((1 << (fmt.width - 1)) - 1)
    if flush:
        magnitude = np.where(magnitude >> fmt.mantissa == 0, 0, magnitude)
    nan = magnitude > (fmt.max_code if fmt.inf_code is None else fmt.inf_code)
    return magnitude, codes >> (fmt.width - 1) & 1, nan


def compare(a: ArrayLike, b: ArrayLike, fmt: Float, *, flush: bool = False) -> np.ndarray:
    """Return -1, 0 or 1 (int8) for a below, equal to or above b, and 2 where either is NaN; -0 equals +0.

    Parameters as in `add`.
    """
    (x, x_negative, x_nan), (y, y_negative, y_nan) = _order(a, fmt, flush), _order(b, fmt, flush)
    x, y = x * (1 - 2 * x_negative), y * (1 - 2 * y_negative)
    return np.where(x_nan | y_nan, 2, np.sign(x - y)).astype(np.int8)


def maximum(a: ArrayLike, b: ArrayLike, fmt: Float, *, flush: bool = False) -> np.ndarray:
    """Return the codes (uint32) of the greater one; the canonical NaN where either is NaN; +0 is above -0.

    Parameters as in `add`; with `flush` a subnormal result is a zero of its sign.
    """
    (x, x_negative, x_nan), (y, y_negative, y_nan) = _order(a, fmt, flush), _order(b, fmt, flush)
    # ~magnitude orders negative numbers, -0 just below +0.
    greater = np.maximum(x ^ -x_negative, y ^ -y_negative)
    codes = np.where(greater < 0, ~greater | 1 << (fmt.width - 1), greater)
    return np.where(x_nan | y_nan, fmt.max_code if fmt.nan_code is None else fmt.nan_code, codes).astype(np.uint32)


def dot(a: Any, b: Any, fmt: Float, rounding: Rounding = NEAREST, random: Any = None, *,
        accumulator: Float | None = None, order: str = "sequential", chunk: int = 16, flush: bool = False
        ) -> np.ndarray:
    """Return the codes (uint32) of the dot products along the last axis.

    Parameters
    ----------
    a, b : array_like of int
        Codes of `fmt`, of shapes that broadcast to (..., n).
    fmt : Float
    rounding : Rounding
    random : array_like of int, optional
        Random words of shape (..., words): one per rounding, in the order in which they are made.
    accumulator : Float, optional
        Format of the sums and of the result; `fmt` when not given.
    order : str
        ``sequential``: one `fma` per product, in rising order, from +0 (n words). ``chunked``: the same for each
        `chunk` products (the last chunk may be shorter), then the chunks' sums `add`-ed in rising order, from +0
        (n words, and one more per chunk). ``exact``: one rounding of the exact sum (1 word).
    chunk : int
        Products in a chunk, 1 or more.
    flush : bool
        As in `add`, for every operation; ``exact`` flushes operands and results alone.

    Returns
    -------
    ndarray of uint32, shape (...)
        An exact sum that is zero is +0.
    """
    require(order in ORDERS, "order", order, ", ".join(ORDERS))
    require(type(chunk) is int and chunk >= 1, "chunk", chunk, "an integer, 1 or more")
    accumulator = accumulator or fmt
    a, b = broadcast(a=as_codes("a", a), b=as_codes("b", b))
    require(a.ndim > 0, "shape of a and b", a.shape, "one dimension or more")
    n = a.shape[-1]
    starts = range(0, n, chunk)
    words = {"sequential": n, "chunked": n + len(starts), "exact": 1}[order]
    if rounding.kind == "stochastic":
        require(random is not None, "random", random, f"{words} random words per result, because rounding is "
                "stochastic")
        random = np.asarray(random)
        require(random.ndim > 0 and random.shape[-1] == words, "shape of random", random.shape,
                f"(..., {words}), one word per rounding")
        word = np.moveaxis(random, -1, 0)
    else:
        word = [None] * words
    if order == "exact":
        return _dot_exact(a, b, fmt, accumulator, rounding, word[0], flush)

    def run(begin: int, end: int) -> np.ndarray:
        total = np.zeros(a.shape[:-1], np.uint32)
        for k in range(begin, end):
            total = fma(a[..., k], b[..., k], total, fmt, rounding, word[k], accumulator=accumulator, flush=flush)
        return total

    if order == "sequential":
        return run(0, n)
    total = np.zeros(a.shape[:-1], np.uint32)
    for index, begin in enumerate(starts):
        total = add(total, run(begin, min(begin + chunk, n)), accumulator, rounding, word[n + index], flush=flush)
    return total


def _dot_exact(a: np.ndarray, b: np.ndarray, fmt: Float, accumulator: Float, rounding: Rounding, random: Any,
               flush: bool) -> np.ndarray:
    """Round the exact sums of products once."""
    shape, rows = a.shape[:-1], (math.prod(a.shape[:-1]), a.shape[-1])
    x, y = (_unpack(codes.reshape(-1).astype(np.int64), fmt, flush) for codes in (a, b))
    # Significands as integers of the format's own width, so that narrow formats need few bits.
    drop = TOP - fmt.mantissa
    product = (x.integer >> drop) * (y.integer >> drop)
    product = np.where(x.negative ^ y.negative, -product, product).reshape(rows)
    exponent = (x.exponent + y.exponent).reshape(rows)
    exponent = np.where(product == 0, exponent.max(initial=2 * LOWEST), exponent)  # zeros need no room
    low = exponent.min(initial=0)
    parts = _product(x, y)
    shift = exponent - low
    if shift.max(initial=0) + 2 * (fmt.mantissa + 1) + rows[1].bit_length() <= TOP:
        total = (product << shift).sum(axis=-1)
        integer, top = _normalise(np.abs(total), np.full(total.shape, low - 2 * fmt.mantissa + TOP))
    else:  # too wide for int64: Python's integers, of any size
        total = (product.astype(object) << shift.astype(object)).sum(axis=-1)
        total = np.asarray(total, object)
        kept = np.array([_leading(abs(int(value))) for value in total], np.int64).reshape(-1, 2)
        integer, top = _normalise(kept[:, 0], kept[:, 1] + (low - 2 * fmt.mantissa + TOP))
    negative = (total < 0).astype(bool)
    inf, nan = parts.inf.reshape(rows), parts.nan.reshape(rows).any(axis=-1)
    minus = parts.negative.reshape(rows)
    down, up = (inf & minus).any(axis=-1), (inf & ~minus).any(axis=-1)
    total = _Parts(np.where(down | up, down, negative), integer, top, down | up, nan | down & up)
    words = None if random is None else np.broadcast_to(random, shape).reshape(-1).astype(np.int64)
    return _pack(total, accumulator, rounding, words, flush)[0].astype(np.uint32).reshape(shape)


def _leading(value: int) -> tuple[int, int]:
    """Return the leading bits of a Python integer, the rest jammed, and how many bits were dropped."""
    drop = max(value.bit_length() - TOP, 0)
    kept = value >> drop
    return kept | (kept << drop != value), drop
