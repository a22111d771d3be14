"""Powers of two whose exponents are fractions, to the digits that tables in hardware need."""

from decimal import Decimal, localcontext
from functools import lru_cache

__all__ = ["DIGITS", "constants", "powers", "thresholds", "weights"]

DIGITS = 60  # of the logarithms and powers behind the tables


def _power(exponent: int, gamma: int) -> Decimal:
    """Return 2**(exponent / gamma) as a Decimal of `DIGITS` digits."""
    with localcontext() as context:
        context.prec = DIGITS
        return Decimal(2) ** (Decimal(exponent) / gamma)


def _scaled(value: Decimal, bits: int) -> int:
    """Return floor(value * 2**bits) of an irrational Decimal, which must not be near an integer then."""
    with localcontext() as context:
        context.prec = DIGITS
        scaled = value * 2**bits
        whole = int(scaled)
        assert 0 < whole - scaled + 1 < 1, "more digits are needed"
    return whole


@lru_cache(64)
def thresholds(gamma: int, bits: int = 52) -> tuple[int, ...]:
    """Return floor(2**((r + 1/2) / gamma) * 2**bits) for r in 0..gamma-1, as a tuple of ints.

    A significand m in [1, 2) of `bits` fraction bits or fewer has round(gamma * log2(m)) = the number of thresholds
    that are less than m * 2**bits: the powers are irrational, so none is ever met.
    """
    return tuple(_scaled(_power(2 * r + 1, 2 * gamma), bits) for r in range(gamma))


@lru_cache(64)
def powers(gamma: int, bits: int) -> tuple[int, ...]:
    """Return floor(2**(r / gamma) * 2**bits) for r in 0..gamma-1, as a tuple of ints. Exact for r = 0 alone."""
    return tuple(1 << bits if r == 0 else _scaled(_power(r, gamma), bits) for r in range(gamma))


@lru_cache(64)
def weights(count: int, fraction: int) -> tuple[int, ...]:
    """Return 2**(k / count) for k in 0..count-1, each rounded to `fraction` bits and scaled to an integer."""
    return tuple(1 << fraction if k == 0 else (_scaled(_power(k, count), fraction + 1) + 1) >> 1 for k in range(count))


@lru_cache(64)
def constants(gamma: int, count: int, fraction: int = 8) -> tuple[tuple[int, ...], int]:
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
