"""Floating point of any width: the operations on codes, each rounded once, and the units made of them.

Source: numerics contract, sections 1, 2 and 4.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..base.checks import require, require_int, require_lengths
from ..base.parameters import Parameters
from . import lfsr
from .accumulator import BANK, RECURRENCE, require_sums, runs
from .arrays import as_codes, as_real, broadcast
from .formats import PRESETS, Float
from .products import product
from .rounding import KINDS, NEAREST, TRUNCATE, stochastic

__all__ = [
    "AdderParameters", "CastParameters", "FMAParameters", "MACParameters", "MultiplierParameters", "System",
    "add", "adder", "cast", "caster", "compare", "dot", "fma", "fused", "mac", "matmul", "maximum", "multiplier",
    "multiply", "subtract",
]

SUBNORMALS = ("keep", "flush")
MULTIPLIERS = ("dsp", "lut")
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


def _unpack(codes, fmt, flush):
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


def _normalise(integer, exponent):
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


def _jam(integer, shift):
    """Shift right, bits that are lost jammed into bit 0."""
    shift = np.minimum(shift, TOP + 1)
    shifted = integer >> shift
    return shifted | (shifted << shift != integer)


def _product(x, y):
    """The exact product of numbers of up to 30 significant bits."""
    # Both fit 30 bits, so the product has its top bit at 58 or 59.
    product = (x.integer >> (TOP - 29)) * (y.integer >> (TOP - 29))
    high = product >> 59
    nan = x.nan | y.nan | x.inf & (y.integer == 0) | y.inf & (x.integer == 0)
    return _Parts(x.negative ^ y.negative, product << (2 - high), x.exponent + y.exponent + high, x.inf | y.inf, nan)


def _sum(x, y, signed_zeros=True):
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


def _pack(x, fmt, rounding, random, flush):
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


def _run(operation, operands, rounding, random):
    """Call ``operation(*codes, random)`` on slabs of broadcast operands; return codes (uint32), invalid, overflow."""
    if rounding.kind == "stochastic":
        require(random is not None, "random", random, "one random word per element, because rounding is stochastic")
        operands = [*operands, random]
    # Operands in order, and the random words.
    operands = broadcast(**{name: as_codes(name, each) for name, each in zip("abcd", operands)})
    shape = operands[0].shape
    operands = [operand.reshape(-1) for operand in operands]
    size = operands[0].size
    codes, invalid, overflow = np.empty(size, np.uint32), np.empty(size, bool), np.empty(size, bool)
    for start in range(0, size, SLAB):
        part = slice(start, start + SLAB)
        slabs = [operand[part].astype(np.int64) for operand in operands]
        word = slabs.pop() if rounding.kind == "stochastic" else None
        codes[part], invalid[part], overflow[part] = operation(*slabs, word)
    return codes.reshape(shape), invalid.reshape(shape), overflow.reshape(shape)


def _cast(a, fmt, result, rounding, random, flush):
    return _run(lambda a, r: _pack(_unpack(a, fmt, flush), result, rounding, r, flush), (a,), rounding, random)


def _add(a, b, fmt, rounding, random, flush):
    def operation(a, b, random):
        return _pack(_sum(_unpack(a, fmt, flush), _unpack(b, fmt, flush)), fmt, rounding, random, flush)
    return _run(operation, (a, b), rounding, random)


def _multiply(a, b, fmt, result, rounding, random, flush):
    def operation(a, b, random):
        return _pack(_product(_unpack(a, fmt, flush), _unpack(b, fmt, flush)), result, rounding, random, flush)
    return _run(operation, (a, b), rounding, random)


def _fma(a, b, c, fmt, accumulator, rounding, random, flush, signed_zeros=True):
    def operation(a, b, c, random):
        product = _product(_unpack(a, fmt, flush), _unpack(b, fmt, flush))
        total = _sum(product, _unpack(c, accumulator, flush), signed_zeros)
        return _pack(total, accumulator, rounding, random, flush)
    return _run(operation, (a, b, c), rounding, random)


def _negate(codes, fmt):
    return np.asarray(codes).astype(np.int64) ^ (1 << (fmt.width - 1))


def add(a, b, fmt, rounding=NEAREST, random=None, *, flush=False):
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
    return _add(a, b, fmt, rounding, random, flush)[0]


def subtract(a, b, fmt, rounding=NEAREST, random=None, *, flush=False):
    """Return the codes of ``a - b``: `add` of a and b with its sign changed."""
    return _add(a, _negate(b, fmt), fmt, rounding, random, flush)[0]


def multiply(a, b, fmt, rounding=NEAREST, random=None, *, result=None, flush=False):
    """Return the codes of ``a * b`` in the format `result` (that of the operands when not given); else as `add`.

    Infinity times zero is NaN.
    """
    return _multiply(a, b, fmt, result or fmt, rounding, random, flush)[0]


def fma(a, b, c, fmt, rounding=NEAREST, random=None, *, accumulator=None, flush=False):
    """Return the codes of ``a * b + c``, rounded once; else as `add`.

    `c` and the result are codes of `accumulator`, which is `fmt` when not given. The product is exact: with
    `flush` it is not flushed, only the operands and the result are.
    """
    return _fma(a, b, c, fmt, accumulator or fmt, rounding, random, flush)[0]


def cast(a, fmt, result, rounding=NEAREST, random=None, *, flush=False):
    """Return the codes in the format `result` of the codes `a` of `fmt`; else as `add`.

    NaN and Inf go to formats without them as `Float.encode` has it.
    """
    return _cast(a, fmt, result, rounding, random, flush)[0]


def _order(codes, fmt, flush):
    """Return codes and signs as int64, and where there is NaN; flushed when asked."""
    codes = np.asarray(codes).astype(np.int64)
    magnitude = codes & ((1 << (fmt.width - 1)) - 1)
    if flush:
        magnitude = np.where(magnitude >> fmt.mantissa == 0, 0, magnitude)
    nan = magnitude > (fmt.max_code if fmt.inf_code is None else fmt.inf_code)
    return magnitude, codes >> (fmt.width - 1) & 1, nan


def compare(a, b, fmt, *, flush=False):
    """Return -1, 0 or 1 (int8) for a below, equal to or above b, and 2 where either is NaN; -0 equals +0.

    Parameters as in `add`.
    """
    (x, x_negative, x_nan), (y, y_negative, y_nan) = _order(a, fmt, flush), _order(b, fmt, flush)
    x, y = x * (1 - 2 * x_negative), y * (1 - 2 * y_negative)
    return np.where(x_nan | y_nan, 2, np.sign(x - y)).astype(np.int8)


def maximum(a, b, fmt, *, flush=False):
    """Return the codes (uint32) of the greater one; the canonical NaN where either is NaN; +0 is above -0.

    Parameters as in `add`; with `flush` a subnormal result is a zero of its sign.
    """
    (x, x_negative, x_nan), (y, y_negative, y_nan) = _order(a, fmt, flush), _order(b, fmt, flush)
    # ~magnitude orders negative numbers, -0 just below +0.
    greater = np.maximum(x ^ -x_negative, y ^ -y_negative)
    codes = np.where(greater < 0, ~greater | 1 << (fmt.width - 1), greater)
    return np.where(x_nan | y_nan, fmt.max_code if fmt.nan_code is None else fmt.nan_code, codes).astype(np.uint32)


def dot(a, b, fmt, rounding=NEAREST, random=None, *, accumulator=None, order="sequential", chunk=16, flush=False):
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

    def run(begin, end):
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


def _dot_exact(a, b, fmt, accumulator, rounding, random, flush):
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


def _leading(value):
    """Return the leading bits of a Python integer, the rest jammed, and how many bits were dropped."""
    drop = max(value.bit_length() - TOP, 0)
    kept = value >> drop
    return kept | (kept << drop != value), drop


@dataclass(frozen=True)
class _FloatUnit(Parameters):
    """What the pipelined units have in common.

    Parameters
    ----------
    format : Float
        Of the operands.
    rounding : str
        ``nearest``, ``truncate`` or ``stochastic``.
    random_bits : int
        Width of a random word, 1 to 16. Only ``stochastic`` uses it, and the next two.
    corrected : bool
        Whether stochastic rounding is corrected (see `Rounding`).
    seed : int
        Seed of the random words, 0 to 2**31 - 1.
    subnormals : str
        ``keep``: gradual underflow. ``flush``: subnormal operands count as zeros of their sign, and a result
        that, rounded as if exponents had no lower end, is below the smallest normal number becomes one.
    latency : int, optional
        Cycles from an accepted transfer to its result, 1 to the class' `MOST`; `USUAL` when not given.
    """

    format: Float = PRESETS["fp16"]
    rounding: str = "nearest"
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1
    subnormals: str = "keep"
    latency: int = None

    def __post_init__(self):
        require(isinstance(self.format, Float) and self.format.mantissa >= 1, "format", self.format,
                "a Float with a mantissa of 1 bit or more")
        require(self.rounding in KINDS, "rounding", self.rounding, ", ".join(KINDS))
        require_int("random_bits", self.random_bits, 1, 16)
        require(type(self.corrected) is bool, "corrected", self.corrected, "true, false")
        require_int("seed", self.seed, 0, 2**31 - 1)
        require(self.subnormals in SUBNORMALS, "subnormals", self.subnormals, ", ".join(SUBNORMALS))
        if self.latency is None:
            object.__setattr__(self, "latency", self.USUAL)
        require_int("latency", self.latency, 1, self.MOST)

    @property
    def mode(self):
        """The Rounding."""
        return {"nearest": NEAREST, "truncate": TRUNCATE,
                "stochastic": stochastic(self.random_bits, self.corrected)}[self.rounding]

    def _like_format(self, name):
        """Make a format that was not given the operands' own; require a Float."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, self.format)
        value = getattr(self, name)
        require(isinstance(value, Float) and value.mantissa >= 1, name, value,
                "a Float with a mantissa of 1 bit or more")


@dataclass(frozen=True)
class AdderParameters(_FloatUnit):
    """Parameters of the unit ``float-adder``; see `_FloatUnit`."""

    MOST, USUAL = 6, 6


@dataclass(frozen=True)
class MultiplierParameters(_FloatUnit):
    """Parameters of the unit ``float-multiplier``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    result : Float, optional
        Format of the product; that of the operands when not given.
    multiplier : str
        ``dsp``: the family's multiplier block with its registers inside, where the Verilog is read with the
        family's macro defined, and ``*`` elsewhere. ``lut``: in LUTs.
    """

    result: Float = None
    multiplier: str = "dsp"

    MOST, USUAL = 5, 5

    def __post_init__(self):
        super().__post_init__()
        self._like_format("result")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))


@dataclass(frozen=True)
class FMAParameters(_FloatUnit):
    """Parameters of the unit ``float-fma``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    accumulator : Float, optional
        Format of the addend and of the result; that of the operands when not given.
    multiplier : str
        As in `MultiplierParameters`.
    """

    accumulator: Float = None
    multiplier: str = "dsp"

    MOST, USUAL = 7, 7

    def __post_init__(self):
        super().__post_init__()
        self._like_format("accumulator")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))


@dataclass(frozen=True)
class CastParameters(_FloatUnit):
    """Parameters of the unit ``float-cast``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    result : Float
        The format to cast to.
    """

    format: Float = PRESETS["fp32"]
    result: Float = PRESETS["fp16"]

    MOST, USUAL = 3, 3

    def __post_init__(self):
        super().__post_init__()
        self._like_format("result")


@dataclass(frozen=True)
class MACParameters(Parameters):
    """Parameters of the unit ``float-mac``.

    Parameters
    ----------
    format : Float
        Of the operands.
    accumulator : Float
        Format of the sums, with Inf and NaN: fp32, bf16, fp16.
    accumulators : int
        Sums kept side by side: 2, 4, 8 or 16.
    multiplier : str
        As in `MultiplierParameters`.
    """

    format: Float = PRESETS["fp16"]
    accumulator: Float = PRESETS["fp16"]
    accumulators: int = 16
    multiplier: str = "dsp"

    def __post_init__(self):
        require(isinstance(self.format, Float) and self.format.mantissa >= 1, "format", self.format,
                "a Float with a mantissa of 1 bit or more")
        require_sums(self.accumulator, self.accumulators)
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))

    @property
    def latency(self):
        """Cycles from an accepted transfer to its emitted sum."""
        return 3 + BANK


@dataclass(frozen=True)
class System(Parameters):
    """Floating point as a number system of the array, one element a vector: see `array`.

    Parameters
    ----------
    format, accumulator, multiplier
        As in `MACParameters`.
    work : Float
        Where it is not the format of the operands, they are cast, to nearest even.
    """

    format: Float = PRESETS["fp16"]
    accumulator: Float = PRESETS["fp16"]
    multiplier: str = "dsp"
    work: Float = PRESETS["fp16"]

    group = 1
    recurrence = RECURRENCE
    modes = {}

    def __post_init__(self):
        self.cell(2), self.converter(0)

    def cell(self, sums):
        """Return the cell's parameters."""
        return MACParameters(self.format, self.accumulator, sums, self.multiplier)

    def converter(self, side):
        """Return the parameters of a side's converter, if there is one."""
        return CastParameters(self.work, result=self.format) if self.work != self.format else None

    @property
    def depth(self):
        """Cycles from a transfer that a cell accepts to its addition."""
        return self.cell(2).latency - BANK

    def interval(self, a, b):
        """Return the cycles that a transfer takes."""
        return 1

    def convert(self, side, codes, mode, step):
        """Return the array of codes of vectors, no draws, and the sticky status."""
        codes = codes[:, 0]
        if self.work == self.format:
            return (codes,), 0, False, False
        found, invalid, overflow = caster(self.converter(side), codes)
        return (found,), 0, bool(np.any(invalid)), bool(np.any(overflow))

    def dot(self, a, b, first, last):
        """Return the codes of sums of products, and the sticky status."""
        return mac(self.cell(2), *a, *b, np.zeros(len(first), int), first, last)


def _words(parameters, step, count):
    """Return the random words of `count` transfers from `step` on, or None when the rounding draws none."""
    if parameters.rounding != "stochastic":
        return None
    return lfsr.words(parameters.seed, 1, step, count, parameters.random_bits)[:, 0]


def adder(parameters, a, b, subtract, step=0):
    """Golden function of ``float-adder``: transfers in order, each ``a + b`` or ``a - b``.

    Parameters
    ----------
    parameters : AdderParameters
    a, b : array of int, shape (n,)
        Codes of the format.
    subtract : array of bool, shape (n,)
    step : int
        Transfers before the first one here: with stochastic rounding each of them drew one random word.

    Returns
    -------
    codes : ndarray of uint32, shape (n,)
    invalid : ndarray of bool, shape (n,)
        The result is NaN, or would be in a format that has one: a NaN came in or the operation has no value.
    overflow : ndarray of bool, shape (n,)
        The result is no NaN, and beyond the largest finite value after rounding although the operands were finite;
        or it is infinite and the format has no Inf.
    """
    b = np.where(subtract, _negate(b, parameters.format), b)
    return _add(a, b, parameters.format, parameters.mode, _words(parameters, step, len(a)),
                parameters.subnormals == "flush")


def multiplier(parameters, a, b, step=0):
    """Golden function of ``float-multiplier``: ``a * b``; `step` and what is returned as in `adder`.

    Parameters
    ----------
    parameters : MultiplierParameters
    a, b : array of int, shape (n,)
        Codes of the operands' format; the results are codes of ``parameters.result``.
    """
    return _multiply(a, b, parameters.format, parameters.result, parameters.mode,
                     _words(parameters, step, len(a)), parameters.subnormals == "flush")


def fused(parameters, a, b, c, step=0):
    """Golden function of ``float-fma``: ``a * b + c``; `step` and what is returned as in `adder`.

    Parameters
    ----------
    parameters : FMAParameters
    a, b : array of int, shape (n,)
        Codes of the operands' format.
    c : array of int, shape (n,)
        Codes of ``parameters.accumulator``, and so are the results.
    """
    return _fma(a, b, c, parameters.format, parameters.accumulator, parameters.mode,
                _words(parameters, step, len(a)), parameters.subnormals == "flush")


def caster(parameters, a, step=0):
    """Golden function of ``float-cast``: `step` and what is returned as in `adder`.

    Parameters
    ----------
    parameters : CastParameters
    a : array of int, shape (n,)
        Codes of ``parameters.format``; the results are codes of ``parameters.result``.
    """
    return _cast(a, parameters.format, parameters.result, parameters.mode, _words(parameters, step, len(a)),
                 parameters.subnormals == "flush")


def mac(parameters, a, b, slot, first, last):
    """Golden function of ``float-mac``: transfers in order, each adds a product to a sum.

    The exact product is added with one rounding, to nearest even; subnormals are kept. Unlike in `fma`, a sum that
    is exactly zero is always +0. Inf and NaN follow IEEE 754: Inf - Inf and 0 * Inf are NaN, and a NaN sum stays.

    Parameters
    ----------
    parameters : MACParameters
    a, b : array of int, shape (n,)
        Codes of the operands' format.
    slot : array of int, shape (n,)
        Which accumulator each transfer adds to.
    first, last : array of bool, shape (n,)
        Start from +0; emit the sum after this addition (the accumulator keeps it).

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the accumulator format, in order.
    invalid : bool
        Whether an operand was, or a sum became, NaN.
    overflow : bool
        Whether a finite sum plus a finite product became infinite.
    """
    a, b = np.asarray(a), np.asarray(b)
    require_lengths(a=a, b=b, slot=slot, first=first, last=last)
    count, levels = runs(slot, first)
    totals, sums = np.zeros(count, np.uint32), np.zeros(len(a), np.uint32)
    invalid = overflow = False
    for where, rows in levels:
        totals[where], bad, over = _fma(a[rows], b[rows], totals[where], parameters.format, parameters.accumulator,
                                        NEAREST, None, False, signed_zeros=False)
        invalid |= bool(bad.any())
        overflow |= bool(over.any())
        sums[rows] = totals[where]
    return sums[np.asarray(last, bool)], invalid, overflow


def matmul(a, b, accumulator=PRESETS["fp16"], chunk=None):
    """Return the matrix product, float64 values of `accumulator`: each element is `dot` of a row and a column.

    Parameters
    ----------
    a : array of float, shape (M, K)
        Numbers of at most 12 significant bits, such as those of fp16, or Inf or NaN.
    b : array of float, shape (K, N)
    accumulator : Float
        With specials 'ieee', overflow 'infinity', and at most 50 bits from the first of its largest number to the
        last of its smallest: fp16 and narrower.
    chunk : int, optional
        As in `dot` with the order ``chunked``; None is the order ``sequential``.
    """
    fmt = accumulator
    require(isinstance(fmt, Float) and fmt.specials == "ieee" and fmt.overflow == "infinity" and
            fmt.emax - fmt.emin + fmt.mantissa < 50, "accumulator", fmt,
            "a Float with specials 'ieee', overflow 'infinity' and a range of at most 50 bits, such as fp16")
    require(chunk is None or type(chunk) is int and chunk >= 1, "chunk", chunk, "None, or an integer, 1 or more")
    a, b = as_real("a", a, np.float64), as_real("b", b, np.float64)
    require(a.ndim == b.ndim == 2 and a.shape[1] == len(b), "shapes", (a.shape, b.shape), "(M, K) and (K, N)")
    if len(a) > b.shape[1]:  # the longer side comes last, where NumPy's loops are
        return matmul(b.T, a.T, fmt, chunk).T
    (rows, depth), columns = a.shape, b.shape[1]
    result = np.zeros((rows, columns))
    if not (depth and result.size):
        return result
    size = min(chunk or depth, depth)
    whole = depth - depth % size
    # Chunks side by side, (size, chunks, ...): they are independent of each other. The short last one follows.
    parts = [(a[:, :whole].reshape(rows, -1, size).transpose(2, 1, 0), b[:whole].reshape(-1, size, columns)
              .transpose(1, 0, 2)), (a[:, whole:].T[:, np.newaxis], b[whole:, np.newaxis])]
    parts = [tuple(np.ascontiguousarray(x) for x in pair) for pair in parts[:1 + (whole < depth)]]
    with np.errstate(invalid="ignore", over="ignore"):
        # No sum on the way is above that of the magnitudes, and each of its roundings adds at most half a unit.
        steps = min(size + whole // size + 1, 1 << 20)  # with more, the bound is above any limit
        bound = product(np.abs(a), np.abs(b)) + steps * 2.0 ** (fmt.emin - fmt.mantissa - 1)
        bound *= (1 + 2.0 ** -(fmt.mantissa + 1)) ** steps
        limit, height = fmt.max / 2, max(1, SLAB // columns)
        for row in range(0, rows, height):
            total = result[row:row + height]
            inside = bool((bound[row:row + height] < limit).all())
            several = max(1, SLAB // total.size)
            for left, right in parts:
                for first in range(0, left.shape[1], several):
                    x = left[:, first:first + several, row:row + height, np.newaxis]
                    y = right[:, first:first + several, np.newaxis]
                    sums = np.zeros((x.shape[1], *total.shape))
                    _accumulate(sums, x, y, fmt, inside)
                    if chunk is None:
                        total[:] = sums[0]
                    else:
                        _accumulate(total, sums, np.ones(len(sums)), fmt, inside)
    return result


def _accumulate(total, x, y, fmt, inside):
    """Add the products of x and y, along their first axis, to the total in place: each rounded once, to nearest even.

    The products have at most 24 bits. The float64 sum, rounded again, is the sum rounded once. A product of
    2**(emax + 2) or more overflows both ways. Below that, every bit of the total is within 52 of the sum's first one,
    so the float64 sum is exact unless bits of the product are lost. That is then less than a quarter of the total's
    last place, and the float64 sum is no farther from the total: both round to the total.

    `inside` tells that no sum is near overflow, Inf or NaN.
    """
    value, power = np.empty_like(total), np.empty_like(total)
    value_bits, power_bits, total_bits = (array.view(np.int64) for array in (value, power, total))
    # As arrays: turning Python's integers into them takes longer than adding a few sums.
    exponent, sign, lowest, highest, shift = (np.array(bits, np.int64) for bits in (
        0x7FF << 52, -1 << 63, (fmt.emin + 1023) << 52, (fmt.emax + 1023) << 52,
        ((52 - fmt.mantissa) << 52) + (1 << 51)))
    up, down = 2.0 ** (1023 - fmt.emax), 2.0 ** (fmt.emax - 1023)
    for a, b in zip(x, y):
        np.multiply(a, b, out=value)
        np.add(value, total, out=value)
        # Adding and subtracting 1.5 * 2**(52 - mantissa) times the sum's power of two rounds at `fmt`'s last place.
        np.bitwise_and(value_bits, exponent, out=power_bits)
        np.maximum(power_bits, lowest, out=power_bits)
        if not inside:
            np.minimum(power_bits, highest, out=power_bits)
        np.add(power_bits, shift, out=power_bits)
        np.add(value, power, out=total)
        np.subtract(total, power, out=total)
        # A sum rounded to zero has lost its sign.
        np.bitwise_and(value_bits, sign, out=value_bits)
        np.bitwise_or(total_bits, value_bits, out=total_bits)
        if not inside:  # from 2**(emax + 1) on, and only there, the first product is Inf
            np.multiply(total, up, out=total)
            np.multiply(total, down, out=total)
