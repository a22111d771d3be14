"""The softmax head: from logits to the errors p - y and the loss, in fixed point, by tables and interpolation.

The precision that a number of classes needs is after arXiv 1810.05486. Source: numerics contract, section 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import require, require_int
from ..base.parameters import Parameters
from . import lfsr
from .formats import PRESETS, Fixed, Float
from .rounding import KINDS, Rounding, require_random, round_shift, rounding_of

__all__ = ["Bound", "SoftmaxParameters", "Tables", "bound", "errors", "exponentials", "gradient", "guideline",
           "logarithms", "phases", "probabilities", "reciprocals", "tables"]

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
        require(isinstance(self.format, Float), "format", self.format, "a Float, such as bf16, fp16, fp32")
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


def _interpolated(parameters: SoftmaxParameters, table: ArrayLike, x: np.ndarray) -> np.ndarray:
    """Return a table's value at x, a fraction of `phase` bits: on the chord between two of its points, rounded up."""
    low = parameters.phase - parameters.index
    table = np.array(table)
    point, rest = x >> low, x & ((1 << low) - 1)
    return table[point] - ((table[point] - table[point + 1]) * rest >> low)


def phases(parameters: SoftmaxParameters, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, f): d * log2(e), truncated, as an integer and a fraction of `phase` bits."""
    p, constants = parameters, tables(parameters)
    whole, rest = distances >> p.fraction, distances & ((1 << p.fraction) - 1)
    product = rest * constants.factor >> (2 * p.fraction + 1 - p.phase)
    turned = np.array(constants.wholes)[whole] + (rest << (p.phase - p.fraction)) + product
    return turned >> p.phase, turned & ((1 << p.phase) - 1)


def exponentials(parameters: SoftmaxParameters, distances: ArrayLike) -> np.ndarray:
    """Return e**-d, truncated to `guard` fraction bits, for distances d with `fraction` fraction bits."""
    p = parameters
    n, f = phases(p, np.asarray(distances).astype(np.int64))
    powers = _interpolated(p, tables(p).powers, f)
    return (powers << p.guard) >> np.minimum(p.value + n, 62)


def _normalised(parameters: SoftmaxParameters, sums: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (k, f): sums of exponentials as 2**k * (1 + f), f truncated to `phase` fraction bits."""
    p = parameters
    sums = np.asarray(sums).astype(np.int64)
    k = np.frexp(sums.astype(np.float64))[1].astype(np.int64) - 1 - p.guard
    return k, ((sums << p.phase) >> (k + p.guard)) - (1 << p.phase)


def reciprocals(parameters: SoftmaxParameters, sums: ArrayLike) -> np.ndarray:
    """Return 1 / S, truncated to `kept` fraction bits, for sums S from 1 with `guard` fraction bits."""
    p = parameters
    k, f = _normalised(p, sums)
    return _interpolated(p, tables(p).reciprocals, f) >> (p.value - p.kept + k)


def logarithms(parameters: SoftmaxParameters, sums: ArrayLike) -> np.ndarray:
    """Return ln S with `value` fraction bits, for sums S from 1 with `guard` fraction bits."""
    p = parameters
    k, f = _normalised(p, sums)
    return np.array(tables(p).octaves)[k] - _interpolated(p, tables(p).logarithms, f)


def _parts(parameters: SoftmaxParameters, logits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return (order, fixed, large, nan, infinite) of codes.

    order: integers that ascend as the numbers do, 0 for zeros of both signs. fixed: the numbers in fixed point with
    `fraction` fraction bits, rounded to nearest, halves away from zero. large: whether a number is too large for fixed
    point.
    """
    p, fmt = parameters, parameters.format
    magnitude = logits & ((1 << (fmt.width - 1)) - 1)
    sign = 1 - 2 * (logits >> (fmt.width - 1) & 1)
    field = magnitude >> fmt.mantissa
    significand = (magnitude & ((1 << fmt.mantissa) - 1)) + np.where(field > 0, 1 << fmt.mantissa, 0)
    large = np.maximum(field, 1) > p.field_top
    shift = np.maximum(field, 1) - fmt.bias - fmt.mantissa + p.fraction
    # The additional bit decides the rounding.
    doubled = np.where(shift >= -1, significand << np.clip(shift + 1, 0, 40),
                       significand >> np.clip(-shift - 1, 0, 62))
    fixed = np.where(large, 0, sign * ((doubled + 1) >> 1))
    values = fmt.decode(logits)
    return sign * magnitude, fixed, large, np.isnan(values), np.isinf(values)


def _distances(parameters: SoftmaxParameters, parts: Sequence[np.ndarray], starts: np.ndarray, row: np.ndarray
               ) -> np.ndarray:
    """Return how far each logit is below the greatest of its row: `fraction` fraction bits, held at the largest."""
    order, fixed, large, _, _ = parts
    greatest = np.maximum.reduceat(order, starts)[row]
    # Of equal codes any is the greatest.
    chosen = order == greatest
    top = np.maximum.reduceat(np.where(chosen, fixed, np.iinfo(np.int64).min), starts)[row]
    beside = large | np.logical_or.reduceat(chosen & large, starts)[row]
    return np.where(chosen, 0, np.where(beside, parameters.loss_top, np.minimum(top - fixed, parameters.loss_top)))


def _rows(lasts: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where rows start and which each transfer belongs to; the last row may be unfinished."""
    index = np.arange(len(lasts))
    first = np.concatenate([[True], lasts[:-1]]) if len(lasts) else np.zeros(0, bool)
    place = index - np.maximum.accumulate(np.where(first, index, 0))
    first = place % classes == 0
    return np.flatnonzero(first), np.cumsum(first) - 1


def probabilities(parameters: SoftmaxParameters, logits: ArrayLike) -> np.ndarray:
    """Return the probabilities of rows of logits: ndarray of int64 with ``2 * kept`` fraction bits, and exact.

    Parameters
    ----------
    parameters : SoftmaxParameters
    logits : array of int, shape (rows, up to `classes`)
        Codes, none of them NaN.
    """
    logits = np.asarray(logits).astype(np.int64)
    require(logits.ndim == 2, "shape of logits", logits.shape, "(rows, classes)")
    if not logits.size:
        return np.zeros(logits.shape, np.int64)
    starts, row = np.arange(len(logits)) * logits.shape[1], np.repeat(np.arange(len(logits)), logits.shape[1])
    found = _probabilities(parameters, _parts(parameters, logits.ravel()), starts, row)[0]
    return found.reshape(logits.shape)


def _probabilities(parameters: SoftmaxParameters, parts: Sequence[np.ndarray], starts: np.ndarray, row: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p = parameters
    distances = _distances(p, parts, starts, row)
    powers = exponentials(p, distances)
    sums = np.add.reduceat(powers, starts)
    return (powers >> (p.guard - p.kept)) * reciprocals(p, sums)[row], distances, sums


def errors(parameters: SoftmaxParameters, logits: np.ndarray, targets: np.ndarray, lasts: np.ndarray, step: int = 0,
           random: lfsr.Stream | None = None) -> tuple[np.ndarray, ...]:
    """Golden function of ``softmax-grad``: transfers in order, each the logit of one class.

    Parameters
    ----------
    parameters : SoftmaxParameters
    logits : array of int, shape (n,)
        Codes.
    targets : array of int, shape (n,)
        1 where the class is the example's; each class marked so has y = 1.
    lasts : array of int, shape (n,)
        1 ends the row; so does the `classes`-th logit of a row, in any case.
    step : int
        Errors before the first of these. Every error draws one random word, exact or not.
    random : Stream, optional
        Of one lane: the words are drawn from it instead.

    Returns
    -------
    errors : ndarray of uint32, shape (m,)
        p - y of each class of the rows that were ended, in order, in the format `parameters.error`. The magnitude is
        rounded once; 1 becomes the largest number. 0 for each class of a row with a NaN.
    ends : ndarray of uint32, shape (m,)
        1 with a row's last error.
    losses : ndarray of uint32, shape (m,)
        The row's loss, with each of its errors: ln(sum of e**z) - z of the last marked class, in nats. It has
        `fraction` fraction bits. `loss_top` stands for all larger losses, and for a row with a NaN. 0 if no class was
        marked.
    invalid, overflow : ndarray of bool, shape (n,)
        The logit is NaN; it is Inf, which counts as the number next to the largest.
    """
    p = parameters
    logits, targets, lasts = (np.asarray(each).astype(np.int64).ravel() for each in (logits, targets, lasts))
    targets, lasts = targets == 1, lasts == 1
    starts, row = _rows(lasts, p.classes)
    parts = _parts(p, logits)
    *_, nan, infinite = parts
    # Drop a last row that was not ended.
    sizes = np.diff(np.append(starts, len(logits)))
    if len(sizes) and not lasts[-1] and sizes[-1] < p.classes:
        starts, sizes = starts[:-1], sizes[:-1]
    count = int(sizes.sum())
    if not count:
        return (*np.zeros((3, 0), np.uint32), nan, infinite)
    row, targets = row[:count], targets[:count]
    parts = tuple(each[:count] for each in parts)
    exact, distances, sums = _probabilities(p, parts, starts, row)

    words = None
    if p.rounding == "stochastic":
        words = (random.draw(count) if random else lfsr.words(p.seed, 1, step, count, p.random_bits))[:, 0]
    magnitude = np.where(targets, (1 << 2 * p.kept) - exact, exact)
    rounded = round_shift(magnitude, 2 * p.kept - (p.bits - 1), p.mode, words)
    found = np.where(targets, -rounded, np.minimum(rounded, (1 << (p.bits - 1)) - 1))

    place = np.maximum.reduceat(np.where(targets, np.arange(count), -1), starts)
    low = p.value - p.fraction
    losses = logarithms(p, sums) + (distances[place] << low)
    losses = np.minimum((losses + (1 << low >> 1)) >> low, p.loss_top)
    void = np.logical_or.reduceat(nan[:count], starts)
    losses = np.where(void, p.loss_top, np.where(place < 0, 0, losses))
    found = np.where(void[row], 0, found) & ((1 << p.bits) - 1)
    ends = np.zeros(count, np.uint32)
    ends[starts + sizes - 1] = 1
    return found.astype(np.uint32), ends, losses[row].astype(np.uint32), nan, infinite


def gradient(parameters: SoftmaxParameters, logits: ArrayLike, y: np.ndarray, step: int = 0,
             random: lfsr.Stream | None = None) -> tuple[np.ndarray, ...]:
    """Return the errors of a batch of rows, as the unit gives them.

    Parameters
    ----------
    parameters : SoftmaxParameters
    logits : array of int, shape (rows, classes)
        Codes; at most `parameters.classes` in a row.
    y : array of int, shape (rows,)
        The class of each row.
    step : int
    random : Stream, optional
        As in `errors`.

    Returns
    -------
    errors : ndarray of uint32, shape (rows, classes)
    losses : ndarray of uint32, shape (rows,)
    invalid, overflow : ndarray of bool, shape (rows, classes)
    """
    logits, y = np.asarray(logits), np.asarray(y)
    require(logits.ndim == 2 and 1 <= logits.shape[1] <= parameters.classes, "logits", logits.shape,
            f"rows of 1 to {parameters.classes} classes")
    require(y.shape == logits.shape[:1] and bool(((y >= 0) & (y < logits.shape[1])).all()), "y", y.shape,
            f"a class from 0 to {logits.shape[1] - 1} for each of {len(logits)} rows")
    targets = np.arange(logits.shape[1]) == y[:, np.newaxis]
    lasts = np.broadcast_to(np.arange(logits.shape[1]) == logits.shape[1] - 1, logits.shape)
    found, _, losses, invalid, overflow = errors(parameters, logits, targets, lasts, step, random)
    return (found.reshape(logits.shape), losses.reshape(logits.shape)[:, -1], invalid.reshape(logits.shape),
            overflow.reshape(logits.shape))


@dataclass(frozen=True)
class Bound:
    """How far probabilities and losses can be from the exact ones: see `bound`.

    Attributes
    ----------
    logits, powers, sums, multiplied : float
        Parts of the error of a probability. They come from the rounding of logits, the table of exponentials,
        truncation before the sum, and truncation before the multiplication.
    above, below : float
        How far reciprocals are above and below the exact ones.
    loss : float
        Of losses below the largest.
    """

    logits: float
    powers: float
    sums: float
    multiplied: float
    above: float
    below: float
    loss: float

    @property
    def probability(self) -> float:
        """Of every probability, of every row."""
        return self.logits + self.powers + max(self.sums + self.above, self.multiplied + self.below)


@lru_cache(256)
def bound(parameters: SoftmaxParameters) -> Bound:
    """Return the Bound of these parameters: exponentials and reciprocals are measured over all their inputs.

    Let the errors of distances, and the relative errors of exponentials, move the logarithm of each exponential by -r
    to +r'. Then the logarithm of p / (1 - p) moves by r + r' at most, and p by a quarter of r + r'. Truncation makes
    each exponential e smaller by less than 2**-guard, and their sum S by less than (classes - 1) * 2**-guard. Then e /
    S grows by less than the loss of S, because S >= 1 and e <= S. Truncation before the multiplication takes less than
    2**-kept. An error of 1 / S counts in full, because e <= 1.
    """
    p = parameters
    distances = np.arange(p.loss_top + 1)
    n, f = phases(p, distances)
    ratio = np.log(np.ldexp(_interpolated(p, tables(p).powers, f).astype(np.float64), -p.value))
    ratio += np.ldexp(distances.astype(np.float64), -p.fraction) - n * np.log(2.0)
    # Leave out distances whose exponential is truncated to 0: they are within the bound of truncation.
    ratio = ratio[n <= p.guard]
    unit = 2.0**-p.fraction
    sums = (p.classes - 1) * 2.0**-p.guard
    f = np.arange(1 << p.phase)
    least, most = (1 + np.ldexp(f.astype(np.float64) + end, -p.phase) for end in (0, 1))
    above = below = logarithm = 0.0
    for k in range(p.classes.bit_length()):
        codes = ((1 << p.phase) + f) << (p.guard + k - p.phase)
        found = np.ldexp(reciprocals(p, codes).astype(np.float64), -p.kept)
        above = max(above, (found - 1 / np.ldexp(most, k)).max())
        below = max(below, (1 / np.ldexp(least, k) - found).max())
        found = np.ldexp(logarithms(p, codes).astype(np.float64), -p.value) - k * np.log(2.0)
        logarithm = max(logarithm, np.abs(found - np.log(least)).max(), np.abs(found - np.log(most)).max())
    # Half a unit by which the loss is rounded, and one for two distances.
    loss = 1.5 * unit + np.abs(ratio).max() + sums + logarithm
    return Bound(unit / 4, float(ratio.max() - ratio.min()) / 4, sums, 2.0**-p.kept, float(above),
                 float(below), float(loss))
