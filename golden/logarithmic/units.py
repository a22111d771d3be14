"""The units ``lns-converter`` and ``lns-decoder``: their parameters, and what they compute.

Source: numerics contract, section 6.
"""

from dataclasses import dataclass

import numpy as np

from ...base.checks import require, require_int, require_lengths
from ...base.parameters import Parameters
from ..arrays import as_rows
from ..formats import PRESETS, Float, Log
from .numbers import SCALE_BIAS, codes_of, largest, levels, require_format, require_result, scale_of
from .tables import powers

__all__ = ["LNSConverterParameters", "LNSDecoderParameters", "convert", "decode"]


@dataclass(frozen=True)
class LNSConverterParameters(Parameters):
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

    def __post_init__(self) -> None:
        require_format(self.format, 16)
        work = self.work
        require(isinstance(work, Float) and work.specials == "ieee" and work.mantissa >= 2 and work.emin >= -126 and
                work.emax <= 127, "work", work,
                "a Float with specials 'ieee', 2 mantissa bits or more and exponents within fp32's, such as fp32, "
                "bf16, fp16")
        require_int("lanes", self.lanes, 1, 64)

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its result."""
        return 7 + (self.lanes - 1).bit_length()


@dataclass(frozen=True)
class LNSDecoderParameters(Parameters):
    """Parameters of the unit ``lns-decoder``.

    Parameters
    ----------
    format : Log
        Of the operands: as in `LNSConverterParameters`.
    result : Float
        With Inf (specials ``ieee``, overflow ``infinity``) and 1 mantissa bit or more.
    lanes : int
        Elements of a transfer, which share a scale: 1 to 64.
    """

    format: Log = PRESETS["lns8"]
    result: Float = PRESETS["fp32"]
    lanes: int = 16

    def __post_init__(self) -> None:
        require_format(self.format, 16)
        require_result(self.result)
        require_int("lanes", self.lanes, 1, 64)


def convert(parameters: LNSConverterParameters, codes: np.ndarray, scale: np.ndarray, given: np.ndarray
            ) -> tuple[np.ndarray, ...]:
    """Golden function of ``lns-converter``: transfers of `lanes` elements each, in order.

    Parameters
    ----------
    parameters : LNSConverterParameters
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
    found = scale_of(largest(level, some, 1), fmt)
    used = np.where(given, np.asarray(scale, np.int64) - SCALE_BIAS, found)[:, np.newaxis]
    out = codes_of(level, some, special, codes >> (p.work.width - 1) == 1, fmt, used)
    above = some & (level - gamma * used > fmt.top)
    return out, used[:, 0] + SCALE_BIAS, np.isnan(x).any(axis=1), (special | above).any(axis=1)


def decode(parameters: LNSDecoderParameters, codes: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Golden function of ``lns-decoder``: numbers as codes of the result format, rounded once, to nearest.

    Parameters
    ----------
    parameters : LNSDecoderParameters
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
