"""Plain INT8: symmetric integers under one scale per tensor, their exact dot products, matrix products.

Source: numerics contract, section 13. docs/adding-a-number-system.md takes this file as its example.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import require, require_int, require_lengths
from ..base.parameters import Parameters
from .accumulator import runs
from .arrays import as_real, as_rows
from .formats import PRESETS, Float, is_ieee
from .number_system import Draws, Mode, ScaledSystem
from .products import product

__all__ = [
    "SCALE_BIAS", "SCALE_MAX", "SCALE_MIN", "TOP", "INT8ConverterParameters", "INT8DotParameters", "INT8System",
    "Integers", "convert", "dots", "matmul", "quantise", "scale_of",
]

TOP = 127  # of the integers; -TOP is the least
SUM = 32  # bits of a sum
SCALE_BIAS = 127  # of the scale's code in the units
SCALE_MIN, SCALE_MAX = -127, 128  # exponents of a scale


def scale_of(values: ArrayLike) -> int:
    """Return the exponent of the least scale under which no finite value of an array saturates.

    That is the least s with ``|x| * 2**-s < TOP + 1/2``, held within `SCALE_MIN` and `SCALE_MAX`; `SCALE_MIN` where
    all are zero. Inf and NaN do not count: one of them would leave nothing of the others.
    """
    values = np.abs(np.asarray(values, np.float64))
    fraction, exponent = np.frexp(values.max(initial=0.0, where=np.isfinite(values)))
    if fraction == 0:
        return SCALE_MIN
    # The fraction is from 1/2 to below 1: as many bits as TOP has, unless it would be rounded up to one more.
    bits = TOP.bit_length()
    return int(np.clip(exponent - bits + (np.ldexp(fraction, bits) >= TOP + 0.5), SCALE_MIN, SCALE_MAX))


def _integers(x: np.ndarray, scale: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return integers (int8) of float64 values, and where they were beyond the ends."""
    # Exact but far below 1/2 and far above TOP, where it does not matter.
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(np.ldexp(x, -np.asarray(scale, np.int32)))
    beyond = np.abs(rounded) > TOP
    return np.nan_to_num(np.clip(rounded, -TOP, TOP), nan=0.0).astype(np.int8), beyond


@dataclass(frozen=True)
class Integers:
    """An array of integers under one scale.

    Attributes
    ----------
    codes : ndarray of int8
    scale : int
        Exponent: a number is ``code * 2**scale``.
    invalid, overflow : bool
        The array had a NaN, which is 0; it had an Inf, or what was beyond the largest integer.
    """

    codes: np.ndarray
    scale: int
    invalid: bool = False
    overflow: bool = False

    def values(self) -> np.ndarray:
        """Return the numbers as float64. Exact."""
        return np.ldexp(self.codes.astype(np.float64), self.scale)

    @property
    def T(self) -> "Integers":
        """The transposed array."""
        return Integers(self.codes.T, self.scale, self.invalid, self.overflow)


def quantise(x: ArrayLike, scale: int | None = None) -> Integers:
    """Round an array to integers, to nearest even, once.

    Parameters
    ----------
    x : array_like of float
        Taken as float64. NaN becomes 0; Inf, and what is beyond the largest integer, saturates.
    scale : int, optional
        Exponent of the scale, -127 to 128; `scale_of` the array when not given.
    """
    x = as_real("x", x, np.float64)
    require(scale is None or isinstance(scale, (int, np.integer)) and SCALE_MIN <= scale <= SCALE_MAX, "scale", scale,
            f"an integer from {SCALE_MIN} to {SCALE_MAX}")
    scale = scale_of(x) if scale is None else int(scale)
    codes, beyond = _integers(x, scale)
    return Integers(codes, scale, bool(np.isnan(x).any()), bool(beyond.any()))


@dataclass(frozen=True)
class INT8ConverterParameters(Parameters):
    """Parameters of the component `hw.integer.IntConverter`.

    Parameters
    ----------
    work : Float
        Of the operands: 2 exponent bits and 1 mantissa bit or more.
    lanes : int
        Elements of a transfer, which share a scale: 1 to 64.
    """

    work: Float = PRESETS["fp32"]
    lanes: int = 16

    latency = 6  # cycles from an accepted transfer to its result

    def __post_init__(self) -> None:
        require(isinstance(self.work, Float) and self.work.exponent >= 2 and self.work.mantissa >= 1, "work",
                self.work, "a Float of 2 exponent bits and 1 mantissa bit or more, such as fp32, bf16, fp16")
        require_int("lanes", self.lanes, 1, 64)


@dataclass(frozen=True)
class INT8DotParameters(Parameters):
    """Parameters of the component `hw.integer.IntDot` and of `matmul`.

    Parameters
    ----------
    lanes : int
        Products added per transfer: 4 to 64.
    result : Float
        What an emitted sum is rounded to: with Inf (specials ``ieee``, overflow ``infinity``) and 1 mantissa bit or
        more.
    """

    lanes: int = 16
    result: Float = PRESETS["fp32"]

    def __post_init__(self) -> None:
        require_int("lanes", self.lanes, 4, 64)
        require(is_ieee(self.result), "result", self.result,
                "a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16")

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its emitted sum."""
        return 12 + (self.lanes - 1).bit_length()


@dataclass(frozen=True)
class INT8System(ScaledSystem):
    """Plain INT8 as a number system: symmetric integers under one scale per tensor.

    Parameters
    ----------
    lanes : int
        As in `INT8DotParameters`.
    work : Float
        As in `INT8ConverterParameters`.
    accumulator : Float
        What sums are rounded to: the ``result`` of `INT8DotParameters`.
    """

    lanes: int = 16
    work: Float = PRESETS["fp32"]
    accumulator: Float = PRESETS["fp32"]

    circuits = "narrowgauge.hw.integer:INT8Circuits"

    def __post_init__(self) -> None:
        self.cell(2), self.converter(0)

    def default(self, name: str) -> int:
        """Return the value of a mode that is not given: a scale whose largest number is between 16 and 32."""
        return SCALE_BIAS - 2

    def cell(self, sums: int) -> INT8DotParameters:
        """Return the cell's parameters."""
        return INT8DotParameters(self.lanes, self.accumulator)

    @property
    def vector_bits(self) -> int:
        """Bits of a converted vector: its integers."""
        return self.lanes * 8

    def converter(self, side: int) -> INT8ConverterParameters:
        """Return the parameters of a side's converter."""
        return INT8ConverterParameters(self.work, self.lanes)

    def convert(self, side: int, codes: np.ndarray, mode: Mode, draws: Draws
                ) -> tuple[tuple[np.ndarray, ...], bool, bool]:
        """Return the arrays (codes, scales) of vectors, and the sticky status."""
        scales = np.full(len(codes), mode["scale"])
        found, invalid, overflow = convert(self.converter(side), codes, scales)
        return (found, scales), bool(invalid.any()), bool(overflow.any())

    def dot(self, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, bool, bool]:
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = dots(self.cell(2), a, b, first, last)
        return codes, False, overflow

    def mode(self, kind: str, array: Any) -> Mode:
        """Return the scale of a tensor: see `scale_of`."""
        return {"scale": scale_of(array) + SCALE_BIAS}

    def operand(self, array: Any, axis: int, mode: Mode, side: int, draws: Draws) -> tuple[Any, bool, bool]:
        """Return Integers."""
        integers = quantise(array, mode["scale"] - SCALE_BIAS)
        return integers, integers.invalid, integers.overflow

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the product of Integers."""
        values, overflow = matmul(a, b, self.cell(2))
        return values, False, overflow


def convert(parameters: INT8ConverterParameters, codes: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, ...]:
    """Golden function of the converter: transfers of `lanes` elements each, in order.

    Parameters
    ----------
    parameters : INT8ConverterParameters
    codes : array of int, shape (n, lanes)
        Elements as codes of the work format.
    scale : array of int, shape (n,)
        Codes of scales, exponent + 127, 0 to 255.

    Returns
    -------
    codes : ndarray of int8, shape (n, lanes)
    invalid, overflow : ndarray of bool, shape (n,)
        Whether the transfer raised the sticky status: a NaN; an Inf, or a number beyond the largest integer.
    """
    p = parameters
    x = as_rows("codes", p.work.decode(codes), p.lanes)
    require_lengths(codes=x, scale=scale)
    out, beyond = _integers(x, np.asarray(scale)[:, np.newaxis] - SCALE_BIAS)
    return out, np.any(np.isnan(x), axis=1), np.any(beyond, axis=1)


def _held(sums: np.ndarray) -> np.ndarray:
    """Return what sums are in as many bits as the hardware has: beyond them they wrap round."""
    return (sums + (1 << SUM - 1) & (1 << SUM) - 1) - (1 << SUM - 1)


def _rounded(sums: np.ndarray, exponent: ArrayLike, result: Float) -> np.ndarray:
    """Return values (float64) of the result format for sums * 2**exponent, rounded once; a zero is +0."""
    return result.round(np.ldexp(sums.astype(np.float64), np.asarray(exponent, np.int32))) + 0.0


def dots(parameters: INT8DotParameters, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray,
         last: np.ndarray) -> tuple[np.ndarray, bool]:
    """Golden function of the dot product: transfers in order.

    Parameters
    ----------
    parameters : INT8DotParameters
    a, b : tuple (codes, scale)
        Integer arrays of shapes (n, lanes) and (n,): integers, and codes of scales, 0 to 255. Of the transfers of a
        sum, the scales of the last one count.
    first, last : array of bool, shape (n,)
        Start from 0; emit the sum after this addition (it is kept).

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the result format, in order.
    overflow : bool
        Whether a sum was beyond the largest finite value, and became Inf.
    """
    p = parameters
    (x, a_scale), (y, b_scale) = ((as_rows("codes", codes, p.lanes).astype(np.int64),
                                   np.asarray(scale).astype(np.int64)) for codes, scale in (a, b))
    require_lengths(a=x, b=y, a_scale=a_scale, b_scale=b_scale, first=first, last=last)
    terms = (x * y).sum(axis=1)
    totals = np.zeros(len(terms), np.int64)
    count, levels = runs(np.zeros(len(terms), np.int64), first)
    sums = np.zeros(count, np.int64)
    for where, rows in levels:
        sums[where] = totals[rows] = _held(sums[where] + terms[rows])
    last = np.asarray(last, bool)
    values = _rounded(totals[last], (a_scale + b_scale - 2 * SCALE_BIAS)[last], p.result)
    return p.result.encode(values), bool(np.isinf(values).any())


def matmul(a: Integers, b: Integers, parameters: INT8DotParameters = INT8DotParameters()) -> tuple[np.ndarray, bool]:
    """Return the matrix product of two arrays of integers: float64 values of the result format.

    Parameters
    ----------
    a, b : Integers, shapes (M, K) and (K, N)
    parameters : INT8DotParameters

    Returns
    -------
    values : ndarray of float64, shape (M, N)
    overflow : bool
        Whether a result became infinite.
    """
    require(a.codes.ndim == b.codes.ndim == 2 and a.codes.shape[1] == b.codes.shape[0], "shapes",
            (a.codes.shape, b.codes.shape), "(M, K) and (K, N)")
    # float64 holds every such sum, in whatever order it is made.
    total = product(a.codes.astype(np.float64), b.codes.astype(np.float64)).astype(np.int64)
    values = _rounded(_held(total), a.scale + b.scale, parameters.result)
    return values, bool(np.isinf(values).any())
