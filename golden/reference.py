"""Scalar floating point in Python integers: the plainest reading of the contract, for any `Float`.

Slow and short. `floating` is the same, vectorised; the tests hold the two against each other. Source: numerics
contract, sections 1, 2 and 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..base.checks import require
from .formats import Float
from .rounding import NEAREST, Rounding

__all__ = ["Number", "add", "cast", "compare", "decode", "dot", "fma", "maximum", "multiply", "round_exact", "subtract"]


@dataclass(frozen=True)
class Number:
    """A decoded code or an exact result: (-1)**sign * integer * 2**exponent when `kind` is ``finite``.

    `kind` is ``finite``, ``inf`` or ``nan``; the integer is not negative, and of any size.
    """

    kind: str
    sign: int = 0
    integer: int = 0
    exponent: int = 0

    @property
    def is_zero(self) -> bool:
        """Whether it is a zero of either sign."""
        return self.kind == "finite" and self.integer == 0


NAN = Number("nan")


def decode(code: int, fmt: Float, flush: bool = False) -> Number:
    """Return the Number of a code; with `flush`, a subnormal number is a zero of its sign."""
    sign = code >> (fmt.width - 1) & 1
    magnitude = code & (1 << (fmt.width - 1)) - 1
    if magnitude > fmt.max_code:
        return Number("inf", sign) if magnitude == fmt.inf_code else NAN
    field, fraction = magnitude >> fmt.mantissa, magnitude & (1 << fmt.mantissa) - 1
    if field == 0:
        return Number("finite", sign, 0 if flush else fraction, fmt.emin - fmt.mantissa)
    return Number("finite", sign, fraction + (1 << fmt.mantissa), field - fmt.bias - fmt.mantissa)


def product(x: Number, y: Number) -> Number:
    """Return the exact product of two Numbers."""
    if x.kind == "nan" or y.kind == "nan":
        return NAN
    sign = x.sign ^ y.sign
    if x.kind == "inf" or y.kind == "inf":
        return NAN if x.is_zero or y.is_zero else Number("inf", sign)
    return Number("finite", sign, x.integer * y.integer, x.exponent + y.exponent)


def total(x: Number, y: Number) -> Number:
    """Return the exact sum of two Numbers: a zero is -0 only when both are -0."""
    if x.kind == "nan" or y.kind == "nan":
        return NAN
    if x.kind == "inf" and y.kind == "inf":
        return x if x.sign == y.sign else NAN
    if x.kind == "inf" or y.kind == "inf":
        return x if x.kind == "inf" else y
    exponent = min(x.exponent, y.exponent)
    value = sum((-1) ** n.sign * n.integer << (n.exponent - exponent) for n in (x, y))
    sign = x.sign & y.sign if value == 0 else int(value < 0)
    return Number("finite", sign, abs(value), exponent)


def shift_rounded(integer: int, shift: int, rounding: Rounding, word: int) -> int:
    """Return ``integer / 2**shift`` (any sign of shift) rounded to an integer."""
    if shift <= 0:
        return integer << -shift
    quotient, rest, one = integer >> shift, integer & (1 << shift) - 1, 1 << shift
    if rounding.kind == "truncate":
        up = False
    elif rounding.kind == "nearest":
        up = 2 * rest > one or 2 * rest == one and quotient & 1 == 1
    elif rounding.corrected:
        k = rounding.bits
        up = (rest << (k + 1) >> shift) + 2 * word + 1 >= 1 << (k + 1)
    else:
        k = rounding.bits
        up = (rest << k >> shift) + word >= 1 << k
    return quotient + bool(up)


def round_exact(number: Number, fmt: Float, rounding: Rounding = NEAREST, word: int = 0,
                flush: bool = False) -> tuple[int, bool, bool]:
    """Round a Number to a code; return ``(code, invalid, overflow)``.

    Parameters
    ----------
    number : Number
    fmt : Float
    rounding : Rounding
    word : int
        The random word, for a stochastic rounding.
    flush : bool
        Round as if exponents had no lower end; what is then below the smallest normal number becomes zero.
    """
    negative = number.sign << (fmt.width - 1)
    if number.kind == "nan":
        return (fmt.max_code if fmt.nan_code is None else fmt.nan_code), True, False
    if number.kind == "inf":
        if fmt.inf_code is None:
            return fmt.overflow_code | negative, False, True
        return fmt.inf_code | negative, False, False
    if number.integer == 0:
        return negative, False, False
    exponent = number.exponent + number.integer.bit_length() - 1  # floor of log2
    if not flush:
        exponent = max(exponent, fmt.emin)
    ulp = exponent - fmt.mantissa
    q = shift_rounded(number.integer, ulp - number.exponent, rounding, word)
    if q == 2 << fmt.mantissa:  # carried into the next binade
        q, exponent = 1 << fmt.mantissa, exponent + 1
    if flush and exponent < fmt.emin:
        return negative, False, False
    hidden = 1 << fmt.mantissa
    code = q if q < hidden else (exponent + fmt.bias << fmt.mantissa) + q - hidden
    if code > fmt.max_code:
        return (fmt.max_code if rounding.kind == "truncate" else fmt.overflow_code) | negative, False, True
    return code | negative, False, False


def add(a: int, b: int, fmt: Float, rounding: Rounding = NEAREST, word: int = 0,
        flush: bool = False) -> tuple[int, bool, bool]:
    """Return ``a + b`` as `round_exact` does."""
    return round_exact(total(decode(a, fmt, flush), decode(b, fmt, flush)), fmt, rounding, word, flush)


def subtract(a: int, b: int, fmt: Float, rounding: Rounding = NEAREST, word: int = 0,
             flush: bool = False) -> tuple[int, bool, bool]:
    """Return ``a - b`` as `round_exact` does."""
    return add(a, b ^ 1 << (fmt.width - 1), fmt, rounding, word, flush)


def multiply(a: int, b: int, fmt: Float, rounding: Rounding = NEAREST, word: int = 0, flush: bool = False,
             result: Float | None = None) -> tuple[int, bool, bool]:
    """Return ``a * b``, in the format `result`, as `round_exact` does."""
    return round_exact(product(decode(a, fmt, flush), decode(b, fmt, flush)), result or fmt, rounding, word, flush)


def fma(a: int, b: int, c: int, fmt: Float, rounding: Rounding = NEAREST, word: int = 0, flush: bool = False,
        accumulator: Float | None = None) -> tuple[int, bool, bool]:
    """Return ``a * b + c``, c and the result in the format `accumulator`, as `round_exact` does."""
    accumulator = accumulator or fmt
    exact = total(product(decode(a, fmt, flush), decode(b, fmt, flush)), decode(c, accumulator, flush))
    return round_exact(exact, accumulator, rounding, word, flush)


def cast(a: int, fmt: Float, result: Float, rounding: Rounding = NEAREST, word: int = 0,
         flush: bool = False) -> tuple[int, bool, bool]:
    """Return the code `a` in the format `result`, as `round_exact` does."""
    return round_exact(decode(a, fmt, flush), result, rounding, word, flush)


def compare(a: int, b: int, fmt: Float, flush: bool = False) -> int:
    """Return -1, 0 or 1 for a below, equal to or above b, 2 when either is NaN; -0 equals +0."""
    x, y = decode(a, fmt, flush), decode(b, fmt, flush)
    if x.kind == "nan" or y.kind == "nan":
        return 2
    if x.kind == y.kind == "inf" and x.sign == y.sign:
        return 0
    difference = total(x, Number(y.kind, 1 - y.sign, y.integer, y.exponent))
    return 0 if difference.is_zero else 1 - 2 * difference.sign


def maximum(a: int, b: int, fmt: Float, flush: bool = False) -> int:
    """Return the code of the greater one: the canonical NaN when either is NaN; +0 is above -0."""
    order = compare(a, b, fmt, flush)
    if order == 2:
        return round_exact(NAN, fmt)[0]
    x, y = decode(a, fmt, flush), decode(b, fmt, flush)
    if order == 0:
        return round_exact(x if x.sign <= y.sign else y, fmt)[0]
    return round_exact(x if order == 1 else y, fmt)[0]


def dot(a: Sequence[int], b: Sequence[int], fmt: Float, rounding: Rounding = NEAREST,
        words: Sequence[int] | None = None, flush: bool = False, accumulator: Float | None = None,
        order: str = "sequential", chunk: int = 16) -> int:
    """Return the code of the dot product of two lists of codes; words and orders as in `floating.dot`."""
    require(order in ("sequential", "chunked", "exact"), "order", order, "sequential, chunked, exact")
    accumulator = accumulator or fmt
    left = iter(words or [0] * (2 * len(a) + 1))
    pairs = list(zip(a, b))
    if order == "exact":
        exact = Number("finite")
        for x, y in pairs:
            exact = total(exact, product(decode(x, fmt, flush), decode(y, fmt, flush)))
        return round_exact(exact, accumulator, rounding, next(left), flush)[0]
    length = chunk if order == "chunked" else max(len(pairs), 1)
    sums = []
    for begin in range(0, len(pairs), length):
        partial = 0
        for x, y in pairs[begin:begin + length]:
            partial = fma(x, y, partial, fmt, rounding, next(left), flush, accumulator)[0]
        sums.append(partial)
    if order == "sequential":
        return sums[0] if sums else 0
    result = 0
    for partial in sums:
        result = add(result, partial, accumulator, rounding, next(left), flush)[0]
    return result
