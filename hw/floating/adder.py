"""The adder of floating-point numbers."""

from collections.abc import Callable
from types import SimpleNamespace

from amaranth import *

from ...golden.floating import AdderParameters
from ..pipeline import signals
from ..rounding import shift_right_sticky, unpack
from .frame import FloatUnit

__all__ = ["FloatAdder"]


class FloatAdder(FloatUnit):
    """Sum or difference of two floating-point numbers, rounded once.

    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : AdderParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes) and ``subtract`` (a - b).
    o : Out(stream)
        ``value`` (code).
    invalid, overflow : Out(1)
        Sticky: a result was NaN; a result of finite operands was beyond the largest finite value.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    CUTS = ("out", "sum", "ordered", "fine", "aligned", "coarse")
    JOINED = True

    def __init__(self, parameters: AdderParameters, *, embedded: bool = False, addressed: bool = False) -> None:
        width = parameters.format.width
        super().__init__(parameters, {"a": width, "b": width, "subtract": 1}, parameters.format, embedded=embedded,
                         addressed=addressed)

    def _exact(self, m: Module, advance: Value, cut: Callable) -> tuple[SimpleNamespace, int, bool]:
        fmt, payload = self.parameters.format, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name], self.flush) for name in "ab")
        # The larger magnitude first: then no difference is negative.
        swap, apart = signals("swap apart")
        m.d.comb += [
            swap.eq(payload.a[:-1] < payload.b[:-1]),
            apart.eq(a.negative ^ b.negative ^ payload.subtract),
        ]
        distance = (Mux(swap, b.field, a.field) - Mux(swap, a.field, b.field))[:fmt.exponent]
        choice = {"nearest": payload.nearest} if self._choice else {}
        now = cut(
            "ordered", valid=self.i.valid, **choice, larger=Mux(swap, b.significand, a.significand),
            smaller=Mux(swap, a.significand, b.significand), top=Mux(swap, b.field, a.field), distance=distance,
            apart=apart, negative=Mux(swap, b.negative ^ payload.subtract, a.negative))

        # No number is larger than a NaN, and none but a NaN larger than Inf: so the larger one tells what the sum is.
        # Beside Inf, one with the same exponent is Inf too.
        whole = now.top.all() & now.larger[-1]
        some = now.larger[:-1].any()
        infinite, nan = {
            "ieee": (whole & ~some, whole & (some | (now.apart & ~now.distance.any()))),
            "fn": (C(0, 1), whole & now.larger[:-1].all()),
            "none": (C(0, 1), C(0, 1)),
        }[fmt.specials]
        # The difference of numbers far apart has one leading zero at most: one bit more than rounding looks at is
        # enough. Numbers near each other lose no bits.
        extra = self._window + 1
        width = fmt.mantissa + 1 + extra
        levels = min(width.bit_length(), fmt.exponent)
        far = now.distance[levels:].any()
        # The logic of the first shift takes in what is far, and that of the last one the complement. The widest shift
        # is the last, because most of its bits have only one place to come from.
        near = now.smaller & ~far.replicate(len(now.smaller))
        value, sticky = shift_right_sticky(
            m, "smaller", Cat(C(0, extra), near), now.distance, [1 << k for k in range(levels)],
            fill=C(0, 1), sticky=far & now.smaller.any())
        now = cut("aligned", now, drop=("distance",), smaller=value ^ now.apart.replicate(width), sticky=sticky,
                  infinite=infinite, nan=nan)

        # What is lost of a subtrahend leaves the difference a little below: floor, and sticky.
        carry, total = now.apart & ~now.sticky, Signal(width + 1, name="total")
        m.d.comb += total.eq((Cat(carry, C(0, extra), now.larger, C(0, 1))
                              + Cat(carry, now.smaller, now.apart))[1:])
        now = cut("sum", now, drop=("larger", "smaller", "apart"), value=total, cancels=now.apart, flip=C(0, 1))
        # The top bit is the carry. Only numbers at most one place apart leave more than two zeros on top: then there
        # is one bit at most below the last place, and nothing further down.
        self._empty = extra - 1
        return now, fmt.mantissa + 2, not self.flush
