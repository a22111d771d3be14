"""Logarithms of floating-point numbers to base 2, rounded exactly, from a table and one comparison."""

from amaranth import *

from ..golden.logarithmic import thresholds
from .pipeline import normalise

__all__ = ["Level"]


class Level:
    """How to find round(gamma * log2 |x|) of the numbers of a format, in two steps with a register between them.

    A level is an unsigned number: ``gamma * (E - base) + r``, E = floor(log2 |x|) and r = round(gamma * log2 of the
    significand), 0 to gamma. It is 0 for a zero, for a number below 2**lowest, and where the logarithm is rounded to
    `lowest` itself. An Inf or a NaN has r = 0 and the exponent above the largest.

    The significands at which r changes are known, and further apart than the first bits of a significand tell: those
    choose the one that the other bits are compared with.

    Parameters
    ----------
    fmt : Float
        Specials ``ieee``.
    gamma : int
        A power of two.
    lowest : int
        Exponent. Subnormal numbers are normalised down to it.

    Attributes
    ----------
    base : int
    width : int
        Bits of a level.
    """

    def __init__(self, fmt, gamma, lowest):
        self.fmt, self.gamma = fmt, gamma
        self.left = max(min(fmt.emin - lowest, fmt.mantissa), 0)
        # A number of the exponent `lowest` may share a level with zero; one of the format's own least may not.
        self.places = max(self.left - (fmt.emin - self.left <= lowest), 0)
        self.base = -fmt.bias - self.places
        self.low = gamma.bit_length() - 1
        self.width = ((1 << fmt.exponent) + self.places).bit_length() + self.low
        bits = fmt.mantissa
        fractions = [each - (1 << bits) for each in thresholds(gamma, bits)]
        self.index = next(n for n in range(bits + 1) if n == bits or
                          len({each >> (bits - n) for each in fractions}) == len(fractions))
        rest = bits - self.index
        # For each segment: how many thresholds are below it, and the rest of the one within it. A significand is above
        # a threshold if its bits are above the threshold's first ones.
        self.table = []
        for segment in range(1 << self.index):
            below = sum(each >> rest < segment for each in fractions)
            inside = [each & ((1 << rest) - 1) for each in fractions if each >> rest == segment]
            self.table.append((below, inside[0] if inside and rest else (1 << rest) - 1))
        self._rest = rest

    def find(self, m, name, significand, field, special):
        """Return what `round` takes (combinational), from what `unpack` returns and whether it is Inf or NaN."""
        shifts = [1 << k for k in reversed(range(self.left.bit_length()))]
        normal = significand[-1]
        value, taken, _, _ = normalise(m, f"{name}_left", significand, shifts)
        moved = Cat(reversed(taken))
        place = Signal(self.width - self.low, name=f"{name}_place")
        m.d.comb += place.eq(Mux(normal, field + self.places, 1 + self.places - moved if shifts else 0))
        fraction = value[:-1]
        below, inside = (Array(C(each[k], size) for each in self.table)[fraction[self._rest:]] if self.index else
                         C(self.table[0][k], size) for k, size in enumerate((self.low + 1, self._rest)))
        # What had to move further is below the lowest.
        some = value[-1]
        if (1 << len(moved)) - 1 > self.left < self.fmt.mantissa:
            some = some & (moved <= self.left)
        usual = ~special & some
        return Cat(place & some.replicate(len(place)), below & usual.replicate(len(below)), usual,
                   *([inside, fraction[:self._rest]] if self._rest else []))

    def round(self, m, name, found):
        """Return the level (combinational)."""
        sizes = (self.width - self.low, self.low + 1, 1, self._rest, self._rest)
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        place, below, usual, inside, rest = (found[start:start + size] for start, size in zip(starts, sizes))
        up = usual & (rest > inside) if self._rest else C(0, 1)
        level = Signal(self.width, name=f"{name}_rounded")
        m.d.comb += level.eq(Cat(C(0, self.low), place) + below + up)
        return level
