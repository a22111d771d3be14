"""The units ``bfp-converter`` and ``bfp-fmac``: their parameters, and what they compute.

Source: numerics contract, section 3, after FAST (arXiv 2110.15456).
"""

from dataclasses import dataclass, replace

import numpy as np

from ...base.checks import require, require_int, require_lengths
from ...base.parameters import Parameters
from ..accumulator import BANK, require_sums, sums_of
from ..arrays import as_rows
from ..formats import PRESETS, BlockFloat, Float
from ..rounding import NEAREST, TRUNCATE, Rounding, require_random, stochastic
from ..words import Stream
from .numbers import quantise

__all__ = ["BFPConverterParameters", "BFPFMACParameters", "convert", "fmac"]


@dataclass(frozen=True)
class BFPConverterParameters(Parameters):
    """Parameters of the unit ``bfp-converter``.

    Parameters
    ----------
    group : int
        Elements per group and per transfer, 4 to 64.
    mantissa : int
        Greatest magnitude width, 2 to 8; the precision of a transfer is 2 .. mantissa.
    exponent : int
        Width of the shared exponent, 3 to 8; its bias is ``2**(exponent-1) - 1``.
    work : Float
        Format of the input elements, with Inf and NaN: fp32, fp16, bf16.
    random_bits : int
        Width of a random word, 1 to 16.
    corrected : bool
        Whether stochastic rounding is corrected (see `Rounding`).
    seed : int
        Seed of the lanes' random words, 0 to 2**31 - 1.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    work: Float = PRESETS["fp32"]
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        _require_unit_format(self)
        require(isinstance(self.work, Float) and self.work.specials == "ieee" and self.work.mantissa >= 1,
                "work", self.work, "a Float with specials 'ieee', such as fp32, fp16, bf16")
        require_random(self)

    @property
    def format(self) -> BlockFloat:
        """The BlockFloat at the greatest precision."""
        return BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def roundings(self) -> tuple[Rounding, ...]:
        """What the codes 0, 1, 2 of the rounding field choose."""
        return (NEAREST, TRUNCATE, stochastic(self.random_bits, self.corrected))

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its group."""
        return 8 + ((self.group - 1).bit_length() + 1) // 2


@dataclass(frozen=True)
class BFPFMACParameters(Parameters):
    """Parameters of the unit ``bfp-fmac``.

    Parameters
    ----------
    group : int
        Elements per group, 4 to 64.
    mantissa : int
        Greatest magnitude width of both operands, 2 to 8.
    exponent : int
        Width of the shared exponents, 3 to 8; the bias is ``2**(exponent-1) - 1``.
    accumulator : Float
        Format of the sums: fp32, bf16, fp16.
    chunks : str
        ``serial``: one pair of 2-bit chunks a cycle. ``parallel``: all pairs at once.
    accumulators : int
        Sums kept side by side: 2, 4, 8 or 16.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    accumulator: Float = PRESETS["fp32"]
    chunks: str = "serial"
    accumulators: int = 16

    def __post_init__(self) -> None:
        _require_unit_format(self)
        require_sums(self.accumulator, self.accumulators)
        require(self.chunks in ("serial", "parallel"), "chunks", self.chunks, "serial, parallel")

    @property
    def format(self) -> BlockFloat:
        """The BlockFloat at the greatest precision."""
        return BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def chunk_macs(self) -> int:
        """Multiply-accumulates of 2-bit chunks in a cycle."""
        return self.group * (self.format.chunks**2 if self.chunks == "parallel" else 1)

    @property
    def serial(self) -> bool:
        """Whether a transfer may take more than one cycle."""
        return self.chunks == "serial" and self.format.chunks > 1

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its emitted sum."""
        products = 2 if self.serial or self.format.chunks == 1 else 1 + self.format.chunks
        return products + (self.group - 1).bit_length() + 1 + BANK


def _require_unit_format(parameters: "BFPConverterParameters | BFPFMACParameters") -> None:
    require_int("group", parameters.group, 4, 64)
    require_int("mantissa", parameters.mantissa, 2, 8)
    require_int("exponent", parameters.exponent, 3, 8)


def convert(parameters: BFPConverterParameters, codes: np.ndarray, precision: np.ndarray, rounding: np.ndarray,
            step: int = 0, random: Stream | None = None) -> tuple[np.ndarray, ...]:
    """Golden function of ``bfp-converter``: transfers of one group each, in order.

    Parameters
    ----------
    parameters : BFPConverterParameters
    codes : array of int, shape (n, group)
        Elements as codes of the work format.
    precision : array of int, shape (n,)
        Magnitude bits of each transfer; below 2 counts as 2, above the maximum as the maximum.
    rounding : array of int, shape (n,)
        0 nearest, 1 truncate, 2 stochastic (3 counts as nearest).
    step : int
        Stochastic transfers before the first one here: only those draw random words.
    random : Stream, optional
        Of the group's lanes, in place of the unit's own words.

    Returns
    -------
    exponents : ndarray of int16, shape (n,)
    mantissas : ndarray of int16, shape (n, group)
        Signed magnitudes.
    invalid, overflow : ndarray of bool, shape (n,)
        Whether the transfer raised the sticky status: a NaN; a group above the exponent field.
    """
    x = as_rows("codes", parameters.work.decode(codes), parameters.group)
    require_lengths(codes=x, precision=precision, rounding=rounding)
    precision = np.clip(precision, 2, parameters.mantissa)
    rounding = np.where(np.asarray(rounding) == 3, 0, rounding)
    exponents = np.zeros(len(x), np.int16)
    mantissas = np.zeros(x.shape, np.int16)
    draws = np.cumsum(rounding == 2) - 1
    random = random or Stream(parameters.seed, parameters.group, bits=parameters.random_bits, vector=step)
    words = random.draw(int(draws[-1]) + 1 if len(x) else 0)
    for kind, m in {(int(r), int(p)) for r, p in zip(rounding, precision)}:
        rows = (rounding == kind) & (precision == m)
        blocks = quantise(x[rows], replace(parameters.format, mantissa=m), rounding=parameters.roundings[kind],
                          random=words[draws[rows]] if kind == 2 else None)
        exponents[rows], mantissas[rows] = blocks.exponents[:, 0], blocks.mantissas[:, 0]
    top = np.abs(x).max(axis=1)
    return exponents, mantissas, np.isnan(top), ~(top < np.ldexp(1.0, parameters.format.emax + 1))


def fmac(parameters: BFPFMACParameters, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], slot: np.ndarray,
         first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, bool]:
    """Golden function of ``bfp-fmac``: transfers of two groups each, in order.

    Parameters
    ----------
    parameters : BFPFMACParameters
    a, b : tuple (exponents, mantissas, precisions)
        Arrays of shapes (n,), (n, group) and (n,): exponent codes, signed magnitudes below
        ``2**precision``, and magnitude bits (clamped to 2 .. the maximum).
    slot : array of int, shape (n,)
        Which accumulator each transfer adds to.
    first, last : array of bool, shape (n,)
        Start from +0; emit the sum after this addition (the accumulator keeps it).

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the accumulator format, in order.
    overflow : bool
        Whether a finite accumulator became infinite.
    """
    (ea, qa, pa), (eb, qb, pb) = a, b
    require_lengths(a=qa, b=qb, slot=slot, first=first, last=last)
    integer = np.einsum("ij,ij->i", np.asarray(qa, np.int64), np.asarray(qb, np.int64))
    pa, pb = (np.clip(p, 2, parameters.mantissa) for p in (pa, pb))
    exponent = np.asarray(ea, np.int64) + eb - 2 * parameters.format.bias - (pa - 1) - (pb - 1)
    return sums_of(parameters.accumulator, integer, exponent, slot, first, last)
