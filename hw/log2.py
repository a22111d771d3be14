"""Logarithms of floating-point numbers to base 2, rounded exactly, from a table and one addition."""

from amaranth import *

from ..golden.formats import Float
from ..golden.logarithmic import thresholds
from .rounding import normalise

__all__ = ["Level"]


class Level:
    """How to find round(gamma * log2 |x|) of the numbers of a format, in two steps with a register between them.

    A level is an unsigned number: ``gamma * (E - base) + r``, E = floor(log2 |x|) and r = round(gamma * log2 of the
    significand), 0 to gamma. It is 0 for a zero, for a number below 2**lowest, and where the logarithm is rounded to
    `lowest` itself. An Inf or a NaN has r = 0 and the exponent above the largest.

    The significands at which r changes are known, and further apart than the first bits of a significand tell: those
    choose the one that the other bits are compared with. The carry of that comparison goes on through r and E.

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

    def __init__(self, fmt: Float, gamma: int, lowest: int) -> None:
        self.fmt, self.gamma = fmt, gamma
        self.left = max(min(fmt.emin - lowest, fmt.mantissa), 0)
        # A number of the exponent `lowest` may share a level with zero; one of the format's own least may not.
        self.places = max(self.left - (fmt.emin - self.left <= lowest), 0)
        self.base = -fmt.bias - self.places
        self.low = gamma.bit_length() - 1
        self.width = ((1 << fmt.exponent) + self.places).bit_length() + self.low
        bits = fmt.mantissa
        # The least fractions whose r is 1, 2, ... gamma; some may be beyond the largest.
        steps = [each + 1 - (1 << bits) for each in thresholds(gamma, bits)]
        self.index = next(n for n in range(bits + 1) if n == bits or
                          len({each >> (bits - n) for each in steps}) == len(steps))
        self._rest = rest = bits - self.index
        # For each segment: r at its start, but gamma - 1 at most; and whether r then is one more for all of it, for
        # none of it, or from the step on that lies in it. The steps are looked up by the r below them.
        self.table = []
        for segment in range(1 << self.index):
            below = sum(each <= segment << rest for each in steps)
            inside = any(segment << rest < each < (segment + 1) << rest for each in steps)
            self.table.append((min(below, gamma - 1), below == gamma, inside))
        # A fraction has reached a step if the sum of its rest and this overflows.
        self.steps = [-each & ((1 << rest) - 1) for each in steps]

    def find(self, m: Module, name: str, significand: Value, field: Value, special: Value) -> Value:
        """Return what `round` takes (combinational), from what `unpack` returns and whether it is Inf or NaN."""
        shifts = [1 << k for k in reversed(range(self.left.bit_length()))]
        normal = significand[-1]
        value, taken, _, _ = normalise(m, f"{name}_left", significand, shifts)
        moved = Cat(reversed(taken))
        place = Signal(self.width - self.low, name=f"{name}_place")
        m.d.comb += place.eq(Mux(normal, field + self.places, 1 + self.places - moved) if shifts else
                             field + self.places)
        fraction = value[:-1]
        below, always, inside = (
            Array(C(each[k], size) for each in self.table)[fraction[self._rest:]] if self.index and size else
            C(self.table[0][k], size) for k, size in enumerate((self.low, 1, 1)))
        # What had to move further is below the lowest.
        some = value[-1]
        if (1 << len(moved)) - 1 > self.left < self.fmt.mantissa:
            some = some & (moved <= self.left)
        usual = ~special & some
        # Written so that registers with a reset can do it.
        return Cat(fraction[:self._rest], Mux(usual, Cat(always, always | inside, below), 0), Mux(some, place, 0))

    def round(self, m: Module, name: str, found: Value, offset: int | None = None) -> Value:
        """Return the level, or with an offset its sum with that constant, which is signed (combinational)."""
        rest, low = self._rest, self.low
        always, may, below = found[rest], found[rest + 1], found[rest + 2:rest + 2 + low]
        # One chain: above the comparison a place that carries always, never, or what the comparison does.
        size = self.width if offset is None else max(self.width, offset.bit_length()) + 2
        step = Array(C(each, rest) for each in self.steps)[below] if low and rest else C(self.steps[0], rest)
        total = Signal(rest + 1 + size, name=f"{name}_total")
        m.d.comb += total.eq(Cat(found[:rest], may, found[rest + 2:]) + Cat(step, always, C(offset or 0, signed(size))))
        level = Signal(size if offset is None else signed(size), name=f"{name}_rounded")
        m.d.comb += level.eq(total[rest + 1:])
        return level
