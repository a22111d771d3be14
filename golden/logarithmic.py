"""Logarithmic numbers: conversion, dot products with a shift in place of the multiplication, matrix products.

After LNS-Madam (arXiv 2106.13914). Source: numerics contract, section 6.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from ..base.checks import require, require_int, require_lengths
from ..base.parameters import Parameters
from .accumulator import runs
from .arrays import as_rows
from .formats import PRESETS, Float, Log
from .products import product
from .system import ScaledSystem

__all__ = [
    "SCALE_BIAS", "SCALE_MAX", "SCALE_MIN", "ConverterParameters", "DecoderParameters", "DotParameters", "Logs",
    "System",
    "constants", "convert", "decode", "dot", "dots", "levels", "matmul", "powers", "product_table", "quantise",
    "scale_of", "thresholds", "weights",
]

SCALE_BIAS = 127  # of the scale's code in the units
SCALE_MIN, SCALE_MAX = -127, 127  # exponents of a scale
DIGITS = 60  # of the logarithms and powers behind the tables
SLAB = 1 << 20  # products worked on at a time, so that they stay in the cache


def _power(exponent, gamma):
    """Return 2**(exponent / gamma) as a Decimal of `DIGITS` digits."""
    with localcontext() as context:
        context.prec = DIGITS
        return Decimal(2) ** (Decimal(exponent) / gamma)


def _scaled(value, bits):
    """Return floor(value * 2**bits) of an irrational Decimal, which must not be near an integer then."""
    with localcontext() as context:
        context.prec = DIGITS
        scaled = value * 2**bits
        whole = int(scaled)
        assert 0 < whole - scaled + 1 < 1, "more digits are needed"
    return whole


@lru_cache(64)
def thresholds(gamma, bits=52):
    """Return floor(2**((r + 1/2) / gamma) * 2**bits) for r in 0..gamma-1, as a tuple of ints.

    A significand m in [1, 2) of `bits` fraction bits or fewer has round(gamma * log2(m)) = the number of thresholds
    that are less than m * 2**bits: the powers are irrational, so none is ever met.
    """
    return tuple(_scaled(_power(2 * r + 1, 2 * gamma), bits) for r in range(gamma))


@lru_cache(64)
def powers(gamma, bits):
    """Return floor(2**(r / gamma) * 2**bits) for r in 0..gamma-1, as a tuple of ints. Exact for r = 0 alone."""
    return tuple(1 << bits if r == 0 else _scaled(_power(r, gamma), bits) for r in range(gamma))


@lru_cache(64)
def weights(count, fraction):
    """Return 2**(k / count) for k in 0..count-1, each rounded to `fraction` bits and scaled to an integer."""
    return tuple(1 << fraction if k == 0 else (_scaled(_power(k, count), fraction + 1) + 1) >> 1 for k in range(count))


@lru_cache(64)
def constants(gamma, count, fraction=8):
    """Return (integers, bits): ``integers[r] * 2**-bits`` is what 2**(r / gamma) counts as in a dot product.

    Of the remainder r, the high part chooses one of `count` constants, 2**(high / count) rounded to `fraction` bits;
    the low part is taken linearly, as 1 + low / gamma, which is exact where `count` is gamma. The product of both is
    exact.

    Parameters
    ----------
    gamma, count : int
        Powers of two, `count` at most `gamma`.
    fraction : int
    """
    low = gamma // count
    table = [each * (gamma + rest) if low > 1 else each for each in weights(count, fraction) for rest in range(low)]
    bits = fraction + (gamma.bit_length() - 1 if low > 1 else 0)
    # Bits that no entry has would only widen the sums.
    spare = min(min((each & -each).bit_length() - 1 for each in table), bits)
    return tuple(each >> spare for each in table), bits - spare


def levels(values, gamma):
    """Return round(gamma * log2 |x|) of finite values that are not zero, as int64. Exact; 0 where x is zero."""
    mantissa, exponent = np.frexp(np.abs(np.asarray(values, np.float64)))
    table = np.array(thresholds(gamma), np.float64) * 2.0**-52  # exact
    rounded = np.searchsorted(table, 2 * mantissa, side="left")
    return np.where(mantissa > 0, (exponent.astype(np.int64) - 1) * gamma + rounded, 0)


def scale_of(level, fmt):
    """Return the exponent of the least scale under which a number of this level is not above the top code.

    Parameters
    ----------
    level : int or array of int
        Of the largest magnitude: see `levels`.
    fmt : Log

    Returns
    -------
    int64
        ``ceil((level - top) / gamma)``, held within `SCALE_MIN` and `SCALE_MAX`.
    """
    level = np.asarray(level, np.int64)
    return np.clip(-((fmt.top - level) // fmt.gamma), SCALE_MIN, SCALE_MAX)


def _codes(level, some, special, negative, fmt, scale):
    """Return codes of numbers: their levels, whether they are not zero, Inf or NaN, and negative."""
    t = np.clip(level - fmt.gamma * np.asarray(scale, np.int64), 0, fmt.top)
    t = np.where(special, fmt.top, np.where(some, t, 0))
    return (t | (negative & (t > 0)).astype(np.int64) << (fmt.bits - 1)).astype(np.uint32)


def _largest(level, some, axis=None):
    """Return the largest level of what is not zero along an axis; where all is, one that no number has."""
    floor = -(1 << 40)
    return np.where(some, level, floor).max(axis=axis, initial=floor)


@dataclass(frozen=True)
class Logs:
    """An array of logarithmic numbers under one scale.

    Attributes
    ----------
    format : Log
    codes : ndarray of uint32
        Sign in the top bit, t below it.
    scale : int
        Exponent: a number is ``(-1)**s * 2**(scale + t/gamma)``, or zero where t = 0.
    invalid : bool
        The array had a NaN, which counts as the largest number.
    """

    format: Log
    codes: np.ndarray
    scale: int
    invalid: bool = False

    def values(self):
        """Return float64 values, correct to float64's rounding."""
        return self.format.decode(self.codes, 2.0**self.scale)

    @property
    def T(self):
        """The transposed array."""
        return Logs(self.format, self.codes.T, self.scale, self.invalid)


def quantise(x, fmt, scale=None):
    """Round an array to logarithmic numbers, to the nearest logarithm; what rounds to t = 0 or below becomes zero.

    Parameters
    ----------
    x : array_like of float16 or float32
    fmt : Log
        With gamma at most 16,384.
    scale : int, optional
        Exponent of the scale, -127 to 127; the least under which the largest magnitude fits when not given (see
        `scale_of`). Larger magnitudes saturate. Inf and NaN become the top code with their sign; they count as numbers
        of the exponent above the dtype's largest.
    """
    x = np.asarray(x)
    require(x.dtype in (np.float16, np.float32), "dtype of x", str(x.dtype), "float16, float32")
    # Each threshold is computed to 60 digits.
    require(isinstance(fmt, Log) and fmt.gamma <= 1 << 14, "format", fmt, "a Log with gamma at most 16384")
    require(scale is None or isinstance(scale, (int, np.integer)) and SCALE_MIN <= scale <= SCALE_MAX, "scale", scale,
            f"an integer from {SCALE_MIN} to {SCALE_MAX}")
    work = PRESETS["fp16" if x.dtype == np.float16 else "fp32"]
    special, some = ~np.isfinite(x), x != 0
    level = np.where(special, fmt.gamma * (work.emax + 1), levels(np.where(special, 0, x), fmt.gamma))
    if scale is None:
        scale = int(scale_of(_largest(level, some), fmt))
    return Logs(fmt, _codes(level, some, special, np.signbit(x), fmt, scale), scale, bool(np.isnan(x).any()))


@dataclass(frozen=True)
class ConverterParameters(Parameters):
    """Parameters of the unit ``lns-converter``.

    Parameters
    ----------
    format : Log
        Of the results: 4 to 16 bits, gamma 1 to 32 and at most 2**(bits-2).
    work : Float
        Of the operands: specials ``ieee``, 2 mantissa bits or more, within the exponents of fp32.
    lanes : int
        Elements of a transfer, which share a scale: 1 to 64.
    """

    format: Log = PRESETS["lns8"]
    work: Float = PRESETS["fp32"]
    lanes: int = 16

    def __post_init__(self):
        _require_format(self.format, 16)
        work = self.work
        require(isinstance(work, Float) and work.specials == "ieee" and work.mantissa >= 2 and work.emin >= -126 and
                work.emax <= 127, "work", work,
                "a Float with specials 'ieee', 2 mantissa bits or more and exponents within fp32's, such as fp32, "
                "bf16, fp16")
        require_int("lanes", self.lanes, 1, 64)

    @property
    def latency(self):
        """Cycles from an accepted transfer to its result."""
        return 7 + (self.lanes - 1).bit_length()


@dataclass(frozen=True)
class DecoderParameters(Parameters):
    """Parameters of the unit ``lns-decoder``.

    Parameters
    ----------
    format : Log
        Of the operands: as in `ConverterParameters`.
    result : Float
        With Inf (specials ``ieee``, overflow ``infinity``) and 1 mantissa bit or more.
    lanes : int
        Elements of a transfer, which share a scale: 1 to 64.
    """

    format: Log = PRESETS["lns8"]
    result: Float = PRESETS["fp32"]
    lanes: int = 16

    def __post_init__(self):
        _require_format(self.format, 16)
        _require_result(self.result)
        require_int("lanes", self.lanes, 1, 64)


@dataclass(frozen=True)
class DotParameters(Parameters):
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
        What an emitted sum is rounded to: as in `DecoderParameters`.
    """

    format: Log = PRESETS["lns8"]
    lanes: int = 16
    accumulation: str = "direct"
    accumulator: int = None
    lsb: int = 0
    constants: int = None
    fraction: int = 8
    result: Float = PRESETS["fp32"]

    def __post_init__(self):
        _require_format(self.format, 9, 16)
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
        _require_result(self.result)

    @property
    def quotient(self):
        """Largest quotient of a product."""
        return 2 * self.format.top // self.format.gamma

    @property
    def table(self):
        """What `constants` returns: the integers for each remainder, and their fraction bits."""
        return constants(self.format.gamma, self.constants, self.fraction)

    @property
    def rows(self):
        """For ``bins``: the powers of two, as (bin, shift), that the bins are multiplied by and added."""
        return [(index, shift) for index, weight in enumerate(weights(self.constants, self.fraction))
                for shift in range(weight.bit_length()) if weight >> shift & 1]

    @property
    def latency(self):
        """Cycles from an accepted transfer to its emitted sum."""
        direct = self.accumulation == "direct"
        return 11 + direct + (self.lanes - 1).bit_length() + (0 if direct else (len(self.rows) - 1).bit_length())

    @property
    def most(self):
        """Greatest direct sum, in units of 2**(lsb - fraction bits), or bin, in its own; the least is -most - 1."""
        return (1 << (self.accumulator - 1 + self.below)) - 1

    @property
    def below(self):
        """Bits of the sum, or of a bin, that weigh less than 2**lsb."""
        if self.accumulation == "direct":
            return self.table[1]
        return self.format.gamma.bit_length() - 1 if self.constants < self.format.gamma else 0


def _require_format(fmt, bits, gamma=32):
    require(isinstance(fmt, Log) and 4 <= fmt.bits <= bits and fmt.gamma <= min(gamma, 1 << (fmt.bits - 2)), "format",
            fmt, f"a Log of 4 to {bits} bits, gamma 1 to {gamma} and at most 2**(bits-2), such as lns8")


def _require_result(fmt):
    require(isinstance(fmt, Float) and fmt.specials == "ieee" and fmt.overflow == "infinity" and fmt.mantissa >= 1,
            "result", fmt, "a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16")


@dataclass(frozen=True)
class System(ScaledSystem):
    """Logarithmic numbers as a number system of the array: see `array`.

    Parameters
    ----------
    format, lanes, accumulation, lsb, constants, fraction
        As in `DotParameters`.
    sum_bits : int, optional
        Its ``accumulator``.
    work : Float
        As in `ConverterParameters`.
    accumulator : Float
        What sums are rounded to: the ``result`` of `DotParameters`.
    """

    format: Log = PRESETS["lns8"]
    lanes: int = 16
    accumulation: str = "direct"
    sum_bits: int = None
    lsb: int = 0
    constants: int = None
    fraction: int = 8
    work: Float = PRESETS["fp32"]
    accumulator: Float = PRESETS["fp32"]

    def default(self, name):
        """Return the value of a mode that is not given: a scale whose largest number is between 16 and 32."""
        return SCALE_BIAS + 4 - self.format.top // self.format.gamma

    def cell(self, sums):
        """Return the cell's parameters."""
        return DotParameters(self.format, self.lanes, self.accumulation, self.sum_bits, self.lsb, self.constants,
                             self.fraction, self.accumulator)

    def converter(self, side):
        """Return the parameters of a side's converter."""
        return ConverterParameters(self.format, self.work, self.lanes)

    def convert(self, side, codes, mode, step):
        """Return the arrays (codes, scales) of vectors, no draws, and the sticky status."""
        count = len(codes)
        found, scale, invalid, overflow = convert(self.converter(side), codes, np.full(count, mode["scale"]),
                                                  np.ones(count, bool))
        return (found, scale), 0, bool(invalid.any()), bool(overflow.any())

    def dot(self, a, b, first, last):
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = dots(self.cell(2), a, b, first, last)
        return codes, False, overflow


def convert(parameters, codes, scale, given):
    """Golden function of ``lns-converter``: transfers of `lanes` elements each, in order.

    Parameters
    ----------
    parameters : ConverterParameters
    codes : array of int, shape (n, lanes)
        Elements as codes of the work format.
    scale : array of int, shape (n,)
        Scale codes, exponent + 127, 0 to 254: used where
    given : array of bool, shape (n,)
        is set; elsewhere the scale is that of the transfer's largest magnitude, see `scale_of`.

    Returns
    -------
    codes : ndarray of uint32, shape (n, lanes)
    scale : ndarray of int64, shape (n,)
        Codes of the scales used.
    invalid, overflow : ndarray of bool, shape (n,)
        Whether the transfer raised the sticky status: a NaN; an Inf or a NaN, or a number beyond the top code.
    """
    p = parameters
    fmt, gamma = p.format, p.format.gamma
    codes = as_rows("codes", codes, p.lanes).astype(np.int64)
    require_lengths(codes=codes, scale=scale, given=given)
    x = p.work.decode(codes)
    special, some = ~np.isfinite(x), x != 0
    level = np.where(special, gamma * (p.work.emax + 1), levels(np.where(special, 0, x), gamma))
    found = scale_of(_largest(level, some, 1), fmt)
    used = np.where(given, np.asarray(scale, np.int64) - SCALE_BIAS, found)[:, np.newaxis]
    out = _codes(level, some, special, codes >> (p.work.width - 1) == 1, fmt, used)
    above = some & (level - gamma * used > fmt.top)
    return out, used[:, 0] + SCALE_BIAS, np.isnan(x).any(axis=1), (special | above).any(axis=1)


def decode(parameters, codes, scale):
    """Golden function of ``lns-decoder``: numbers as codes of the result format, rounded once, to nearest.

    Parameters
    ----------
    parameters : DecoderParameters
    codes : array of int, shape (n, lanes)
    scale : array of int, shape (n,)
        Scale codes, 0 to 254.

    Returns
    -------
    codes : ndarray of uint32, shape (n, lanes)
        Zeros are +0, also what a negative number rounds to.
    overflow : ndarray of bool, shape (n,)
        Whether a number was beyond the largest finite value, and became Inf.
    """
    p = parameters
    fmt = p.format
    codes = as_rows("codes", codes, p.lanes).astype(np.int64)
    require_lengths(codes=codes, scale=scale)
    t, negative = codes & fmt.top, codes >> (fmt.bits - 1) & 1
    exponent = t // fmt.gamma + np.asarray(scale, np.int64)[:, np.newaxis] - SCALE_BIAS
    # Powers cut off at 40 bits, and a bit more that tells that something follows: enough for any rounding, as the rest
    # of an irrational number is neither nothing nor a half.
    table = np.array([2 * power + (r > 0) for r, power in enumerate(powers(fmt.gamma, 40))], np.float64)
    with np.errstate(over="ignore"):  # beyond float64, and so beyond any result
        values = np.ldexp(table[t % fmt.gamma], (exponent - 41).astype(np.int32))
    out = p.result.encode(np.where(t == 0, 0.0, np.where(negative == 1, -values, values)))
    out = np.where(out == 1 << (p.result.width - 1), np.uint32(0), out)
    return out, np.isinf(p.result.decode(out)).any(axis=1)


@lru_cache(64)
def product_table(parameters):
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
        factors = [gamma + r % low if low > 1 else 1 for r in range(gamma)]
    shift = np.maximum(quotient - p.lsb, 0)
    magnitude = np.where(quotient >= p.lsb, np.array(factors, np.int64)[remainder] << shift, 0)
    table = np.zeros(2 * _ZERO * _sign(fmt) + 1, np.int64)
    for signs, factor in ((0, 1), (1, -1), (2, 1)):
        table[signs * _sign(fmt):][:len(level)] = factor * magnitude
    table.flags.writeable = False
    return table


def _sign(fmt):
    """Return what a sign adds to an index: more than two levels do."""
    return 1 << fmt.bits


_ZERO = 3  # signs' worth of what a zero adds: more than two numbers do that are not


def _indices(codes, fmt):
    """Return for each code what it adds to the index of a product."""
    t = codes & fmt.top
    return np.where(t == 0, _ZERO * _sign(fmt), t + (codes >> (fmt.bits - 1)) * _sign(fmt))


def dot(a, b, parameters):
    """Return what one transfer of ``lns-dot`` adds, before anything saturates.

    Parameters
    ----------
    a, b : array of int, shape (..., lanes)
        Codes.
    parameters : DotParameters

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


def _total(sums, parameters):
    """Return the sum in units of 2**(lsb - fraction bits), from what is accumulated."""
    p = parameters
    if p.accumulation == "direct":
        return sums
    # What the low part of a remainder is worth is in the bins already.
    total = (sums * np.array(weights(p.constants, p.fraction), np.int64)).sum(axis=-1)
    return total >> (p.fraction + p.below - p.table[1])


def _rounded(total, exponent, result):
    """Return values (float64) of the result format for total * 2**exponent, rounded once; a zero is +0."""
    # float64 has 53 bits: of more, the low ones become one that is set if any of them was.
    wide, low = np.abs(total) >> 53 != 0, (total & 1023) != 0
    total = np.where(wide, (total >> 10 | low) << 10, total)
    return result.round(np.ldexp(total.astype(np.float64), np.asarray(exponent, np.int32))) + 0.0


def _saturate(sums, parameters):
    """Return what the accumulators hold of sums, and whether any was beyond them."""
    held = np.clip(sums, -parameters.most - 1, parameters.most)
    return held, bool((held != sums).any())


def dots(parameters, a, b, first, last):
    """Golden function of ``lns-dot``: transfers in order.

    Parameters
    ----------
    parameters : DotParameters
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
    (a, a_scale), (b, b_scale) = ((as_rows("codes", codes, p.lanes).astype(np.int64),
                                   np.asarray(scale).astype(np.int64)) for codes, scale in (a, b))
    require_lengths(a=a, b=b, a_scale=a_scale, b_scale=b_scale, first=first, last=last)
    terms = dot(a, b, p)
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


def matmul(a, b, parameters):
    """Return the matrix product of two arrays of logarithmic numbers: float64 values of the result format.

    Parameters
    ----------
    a, b : Logs, shapes (M, K) and (K, N)
    parameters : DotParameters
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


def _exact_product(x, y, parameters):
    """Return the sums of all products, of x (M, K) and y (N, K), where nothing is dropped and nothing saturates.

    2**((8*qa + ra + 8*qb + rb) / 8) is 2**qa times what depends on ra and on b: so the products of numbers a with one
    ra are a product of matrices, and those of all ra one with an axis of K * gamma. Its sums are exact in float64.
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


def _ordered_product(x, y, parameters):
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
