"""posit<8,1> as a number system from outside the package: the golden model.

Source: the posit standard's format and rounding, with one exponent bit. docs/adding-a-number-system.md builds it.
"""

from dataclasses import dataclass

import numpy as np
from narrowgauge.base.checks import require, require_int
from narrowgauge.base.parameters import Parameters
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.number_system import NumberSystem
from narrowgauge.golden.products import product

__all__ = ["BIAS", "SUM", "Posit8System", "PositConverterParameters", "PositDotParameters", "decode", "encode", "parts"]

BIAS = 12  # minpos is 2**-BIAS, maxpos is 2**BIAS
SUM = 64  # bits of a sum, in units of minpos squared


def parts(code, bits):
    """Return the significand of a positive code of posit<bits,1>, and the exponent of its last place: integers."""
    text = f"{code:0{bits - 1}b}"
    run = len(text) - len(text.lstrip(text[0]))
    exponent, fraction = text[run + 1:run + 2], text[run + 2:]
    # A bit that the regime leaves no room for is 0.
    scale = 2 * (run - 1 if text[0] == "1" else -run) + (exponent == "1")
    return int("1" + fraction, 2), scale - len(fraction)


POSITIVE = [int(np.ldexp(*parts(code, 8)) * 2**BIAS) for code in range(1, 128)]
# The numbers of all codes, in units of minpos. NaR, which no conversion makes, counts as 0.
INTEGERS = np.array([0, *POSITIVE, 0, *(-number for number in reversed(POSITIVE))])
# The midpoints between codes are posits of 9 bits. A midpoint becomes the even code.
MIDPOINTS = np.array([np.ldexp(*parts(2 * code + 1, 9)) for code in range(127)])
# The least magnitude of each code from minpos.
STARTS = np.where(np.arange(127) % 2, MIDPOINTS, np.nextafter(MIDPOINTS, np.inf))
STARTS[0] = np.nextafter(0.0, 1.0)  # only zero becomes zero


def encode(values):
    """Return the codes (uint8) of the nearest posits of an array, and where it had NaN and was beyond maxpos.

    A tie becomes the even code. Magnitudes beyond maxpos, and Inf, become maxpos. A magnitude below minpos becomes
    minpos unless it is zero. As with plain INT8, NaN becomes 0, and not NaR: so one bad element does not spoil a whole
    tensor.
    """
    values = np.asarray(values, np.float64)
    magnitudes, invalid = np.abs(values), np.isnan(values)
    codes = np.searchsorted(STARTS, magnitudes, side="right")
    codes = np.where(invalid, 0, np.where(values < 0, -codes, codes))
    return (codes & 0xFF).astype(np.uint8), invalid, magnitudes > 2.0**BIAS


def decode(codes):
    """Return the values (float64) of codes; that of NaR, 128, is 0. Exact."""
    return np.ldexp(INTEGERS[codes].astype(np.float64), -BIAS)


@dataclass(frozen=True)
class PositConverterParameters(Parameters):
    """Parameters of the component `posit8_circuits.PositConverter`.

    Parameters
    ----------
    work : Float
        Of the operands. Its subnormal numbers are below minpos.
    lanes : int
        Elements of a transfer.
    """

    work: Float
    lanes: int

    latency = 3  # cycles from an accepted transfer to its result

    def __post_init__(self):
        require(isinstance(self.work, Float) and self.work.emin < -BIAS and self.work.mantissa >= 1, "work", self.work,
                f"a Float with a mantissa, and normal numbers below 2**-{BIAS}, such as fp32, bf16, fp16")


@dataclass(frozen=True)
class PositDotParameters(Parameters):
    """Parameters of the component `posit8_circuits.PositDot`.

    Parameters
    ----------
    lanes : int
        Products added per transfer.
    result : Float
        What an emitted sum is rounded to.
    """

    lanes: int
    result: Float

    def __post_init__(self):
        require(isinstance(self.result, Float) and self.result.specials == "ieee" and
                self.result.overflow == "infinity" and self.result.mantissa >= 1, "accumulator", self.result,
                "a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16")

    @property
    def latency(self):
        """Cycles from an accepted transfer to its emitted sum."""
        return 14 + (self.lanes - 1).bit_length()


@dataclass(frozen=True)
class Posit8System(NumberSystem):
    """posit<8,1> without a scale; sums are exact, and rounded once.

    A sum has 64 bits in units of minpos squared: a small quire. 32,767 products fit whatever they are. Beyond, a sum
    wraps round.

    Parameters
    ----------
    lanes : int
        Elements of a vector: 2, 4, 8, 16, 32 or 64.
    work : Float
        As in `PositConverterParameters`.
    accumulator : Float
        The ``result`` of `PositDotParameters`.
    """

    lanes: int = 4
    work: Float = PRESETS["fp32"]
    accumulator: Float = PRESETS["fp32"]

    name = "posit8"
    circuits = "posit8_circuits:Posit8Circuits"

    def __post_init__(self):
        require_int("lanes", self.lanes, 2, 64)
        require(self.lanes & (self.lanes - 1) == 0, "lanes", self.lanes, "a power of two")
        self.cell(2), self.converter(0)

    @property
    def group(self):
        """Elements of a vector."""
        return self.lanes

    def cell(self, sums):
        """Return the cell's parameters."""
        return PositDotParameters(self.lanes, self.accumulator)

    def converter(self, side):
        """Return the parameters of a side's converter."""
        return PositConverterParameters(self.work, self.lanes)

    def convert(self, side, codes, mode, draws):
        """Return the array of codes of vectors, and the sticky status."""
        found, invalid, beyond = encode(self.work.decode(codes))
        return (found,), bool(invalid.any()), bool(beyond.any())

    def dot(self, a, b, first, last):
        """Return the codes of sums of dot products, and the sticky status."""
        # Sums of 64 bits wrap round here as in the cell. A sum is the total of all transfers without the transfers
        # before its first.
        terms = (INTEGERS[a[0]] * INTEGERS[b[0]]).sum(axis=1)
        totals = np.cumsum(terms)
        start = np.maximum.accumulate(np.where(first, np.arange(len(terms)), 0))
        sums = (totals - (totals - terms)[start])[np.asarray(last, bool)]
        # float64 has 53 bits. A longer sum loses 11, and its last bit tells whether they were zeros. So the rounding to
        # the accumulator's format is the only rounding.
        short = np.where(np.abs(sums >> 11) < 1 << 41, sums, (sums >> 11 | ((sums & 0x7FF) != 0)) << 11)
        return self._rounded(short.astype(np.float64))

    def product(self, a, b):
        """Return the product of operands: in float64 where that is exact, else as `dot` makes it."""
        x, y = (INTEGERS[each.arrays[0]].reshape(len(each.arrays[0]), -1).astype(np.float64) for each in (a, b))
        if np.abs(x).max(initial=0) * np.abs(y).max(initial=0) * x.shape[1] > 2.0**53:
            return super().product(a, b)
        codes, invalid, overflow = self._rounded(product(x, y.T))
        return self.accumulator.decode(codes), invalid, overflow

    def _rounded(self, sums):
        """Return the codes of sums in units of minpos squared, and the sticky status; a zero is +0."""
        codes = self.accumulator.encode(np.ldexp(sums, -2 * BIAS) + 0.0)
        return codes, False, bool(np.isinf(self.accumulator.decode(codes)).any())
