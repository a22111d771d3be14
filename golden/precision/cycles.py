"""CPT's cycles: where in a period the width changes, exactly.

Source: numerics contract, section 3, after CPT (arXiv 2101.09868).
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

__all__ = ["breakpoints", "edge_of"]

DIGITS = 60  # of the cosine's inverse; see `edge_of`


def _pi() -> Decimal:
    """Return pi, by Machin's formula, in the precision of the context."""
    def arctan(n: int) -> Decimal:
        term, total, k = Decimal(1) / n, Decimal(0), 1
        while abs(term) > Decimal(10) ** -(DIGITS + 8):
            total += term / k if k % 4 == 1 else -term / k
            term /= n * n
            k += 2
        return total
    return 4 * (4 * arctan(5) - arctan(239))


def _sine_cosine(x: Decimal) -> tuple[Decimal, Decimal]:
    """Return the sine and the cosine of a Decimal from 0 to 4."""
    total, term, k = [Decimal(0), Decimal(0)], Decimal(1), 0
    while abs(term) > Decimal(10) ** -(DIGITS + 8):
        total[k % 2] += -term if k % 4 >= 2 else term
        k += 1
        term = term * x / k
    return total[1], total[0]


@lru_cache(64)
def edge_of(cosine: Fraction) -> Fraction:
    """Return arccos(cosine) / pi for a Fraction within -1 and 1: a Fraction, exact or within 10**-60.

    By Niven's theorem the exact ones are those of 0 and +-1/2 (and +-1, which `breakpoints` has no use for).
    """
    exact = {Fraction(0): Fraction(1, 2), Fraction(1, 2): Fraction(1, 3), Fraction(-1, 2): Fraction(2, 3)}
    if cosine in exact:
        return exact[cosine]
    with localcontext() as context:
        context.prec = DIGITS + 10
        wanted = Decimal(cosine.numerator) / cosine.denominator
        x = Decimal(math.acos(cosine))
        for _ in range(4):  # Newton: twice the digits each time
            s, c = _sine_cosine(x)
            x += (c - wanted) / s
        return Fraction(x / _pi())


@lru_cache(256)
def breakpoints(low: int, high: int, period: int) -> tuple[int, ...]:
    """Return the positions within a cycle from which on the width is low + 1, low + 2, ..., high or more.

    Integers from 1 to `period` (which no position reaches), each exact: the first position whose
    ``low + 0.5 * (high - low) * (1 - cos(pi * position / period))`` is rounded, ties to even, to that width. The
    machine's cosine has no part in it. A tie needs a rational cosine of a rational part of pi: 0 or +-1/2.
    """
    span, found = high - low, []
    for k in range(1, span + 1):
        cosine = 1 - Fraction(2 * k - 1, span)
        edge = edge_of(cosine) * period
        at = math.ceil(edge)
        if 2 * cosine in (-1, 0, 1):
            # Where the edge is a position, that is a tie, between low + k - 1 and low + k.
            at += edge == at and (low + k) % 2
        else:
            # The edge is irrational, and known to many more digits than its distance from an integer has zeros.
            assert abs(edge - round(edge)) > Fraction(period, 10 ** (DIGITS - 5))
        found.append(at)
    return tuple(found)
