"""Parameters of the softmax head, its tables, and a guideline for its bits.

The precision that a number of classes needs is after arXiv 1810.05486. Source: numerics contract, section 9.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

from ...base.checks import require, require_int
from ...base.parameters import Parameters
from ..formats import PRESETS, Fixed, Float, is_float
from ..rounding import KINDS, Rounding, require_random, rounding_of

__all__ = ["SoftmaxParameters", "Tables", "guideline", "tables"]

DIGITS = 50  # of the numbers that tables are rounded from
STOCHASTIC = 4  # bits that errors rounded stochastically do with, however many classes there are


def guideline(classes: int, rounding: str = "nearest") -> int:
    """Return the bits that errors of so many classes should have at the least.

    While all p are about 1/classes, as at the start, they must not be rounded to zero: ceil(log2 classes) + 1 bits for
    ``nearest``, one more for ``truncate``. Errors rounded stochastically are right on average, and do with `STOCHASTIC`
    bits, or with what nearest needs if that is less [ours: docs/softmax.md].
    """
    require_int("classes", classes, 2, 1024)
    require(rounding in KINDS, "rounding", rounding, ", ".join(KINDS))
    nearest = (classes - 1).bit_length() + 1
    return {"nearest": nearest, "truncate": nearest + 1, "stochastic": min(nearest, STOCHASTIC)}[rounding]


@dataclass(frozen=True)
class SoftmaxParameters(Parameters):
    """Parameters of the unit ``softmax-grad``.

    Parameters
    ----------
    format : Float
        Of the logits.
    classes : int
        The most in a row, 2 to 1,024.
    bits : int, optional
        Of an error, 2 to 16, all but one of them behind the binary point. None: what `guideline` says.
    rounding : str
        Of an error's magnitude: ``nearest`` (ties to even), ``truncate`` or ``stochastic``.
    random_bits, corrected, seed : int, bool, int
        Of the stochastic rounding: see `Rounding`; the seed of the random words is 0 to 2**31 - 1.
    """

    format: Float = PRESETS["bf16"]
    classes: int = 10
    bits: int = None  # type: ignore[assignment]  # an integer, once made
    rounding: str = "nearest"
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        require(is_float(self.format), "format", self.format, "a Float, such as bf16, fp16, fp32")
        least = guideline(self.classes, self.rounding)
        if self.bits is None:
            object.__setattr__(self, "bits", least)
        require_int("bits", self.bits, 2, 16)
        require_random(self)

    @property
    def warning(self) -> str | None:
        """A line about parameters that are allowed but too narrow; None for others."""
        least = guideline(self.classes, self.rounding)
        if self.bits >= least:
            return None
        return (f"bits is {self.bits}; {self.classes} classes with rounding {self.rounding} need {least} or more, or "
                "small errors become zero")

    @property
    def mode(self) -> Rounding:
        """The Rounding of errors."""
        return rounding_of(self.rounding, self.random_bits, self.corrected)

    @property
    def error(self) -> Fixed:
        """Format of the errors."""
        return Fixed(self.bits, self.bits - 1)

    @property
    def precision(self) -> int:
        """A probability is within 2**-precision of the exact one before it is rounded: at least 8, for the loss."""
        return max(self.bits, 8)

    # Bits of the numbers between logits and errors. docs/softmax.md gives the error of each.

    @property
    def fraction(self) -> int:
        """Fraction bits of the logits' distances from the greatest, and of the loss."""
        return self.precision + 1

    @property
    def integer(self) -> int:
        """Integer bits of distances: beyond them, nothing is left of an exponential."""
        most = Decimal(2).ln() * (self.guard + 1)
        return next(bits for bits in range(1, 8) if 2**bits - Decimal(2) ** -self.fraction >= most)

    @property
    def index(self) -> int:
        """Index bits of each table."""
        return self.precision // 2 + 1

    @property
    def phase(self) -> int:
        """Fraction bits of the tables' arguments: a logarithm to base 2, and the normalised sum."""
        return self.precision + 3

    @property
    def value(self) -> int:
        """Fraction bits of the tables' values."""
        return self.precision + 4

    @property
    def guard(self) -> int:
        """Fraction bits of exponentials, as they are summed."""
        return self.precision + 2 + (self.classes - 1).bit_length()

    @property
    def kept(self) -> int:
        """Fraction bits of exponentials, and of the reciprocal of their sum, as they are multiplied."""
        return self.precision + 2

    @property
    def loss(self) -> Fixed:
        """Format of the loss, in nats; it has no sign bit."""
        return Fixed(self.integer + self.fraction + 1, self.fraction)

    @property
    def loss_top(self) -> int:
        """Code of the largest loss, which stands for all beyond it."""
        return (1 << (self.integer + self.fraction)) - 1

    @property
    def field_top(self) -> int:
        """Greatest exponent field of logits that are put into fixed point.

        A number above it is at least the largest distance away from all others: half of its last place is as much.
        """
        largest = ((1 << self.format.exponent) - 1) - (self.format.specials == "ieee")
        return min(largest, self.integer + self.format.mantissa + self.format.bias)


@dataclass(frozen=True)
class Tables:
    """Constants of the unit: integers rounded from `DIGITS` digits.

    Attributes
    ----------
    powers, reciprocals, logarithms : tuple of int
        2**-f, 1 / (1 + f) and ln(2 / (1 + f)) for f = 0, 2**-index, ... 1, with `value` fraction bits.
    wholes : tuple of int
        n * log2(e) with `phase` fraction bits, for n = 0 .. 2**integer - 1.
    factor : int
        log2(e) - 1 with ``fraction + 1`` fraction bits.
    octaves : tuple of int
        (k + 1) * ln(2) with `value` fraction bits, for k = 0 .. log2 of the most classes, rounded down.
    """

    powers: tuple
    reciprocals: tuple
    logarithms: tuple
    wholes: tuple
    factor: int
    octaves: tuple


@lru_cache(64)
def tables(parameters: SoftmaxParameters) -> Tables:
    """Return the Tables of these parameters."""
    p = parameters
    with localcontext() as context:
        context.prec = DIGITS
        unit, ln2 = Decimal(2) ** p.value, Decimal(2).ln()
        points = [Decimal(i) / 2**p.index for i in range(2**p.index + 1)]
        return Tables(
            powers=tuple(round(unit * Decimal(2) ** -f) for f in points),
            reciprocals=tuple(round(unit / (1 + f)) for f in points),
            logarithms=tuple(round(unit * (2 / (1 + f)).ln()) for f in points),
            wholes=tuple(round(n / ln2 * 2**p.phase) for n in range(1 << p.integer)),
            factor=round((1 / ln2 - 1) * 2 ** (p.fraction + 1)),
            octaves=tuple(round((k + 1) * ln2 * unit) for k in range(p.classes.bit_length())))
