"""Division by a power of two, for updates whose gradients carry a loss scale."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..golden.formats import Float
from .pipeline import signals, stage
from .rounding import shift_right_sticky, unpack

__all__ = ["DIVIDER", "LOSS", "PowerDivider", "halved", "twice"]

DIVIDER = 2  # cycles of a division
LOSS = 5  # bits of the exponent of a loss scale


class PowerDivider(wiring.Component):
    """A number over a power of two, rounded to nearest even.

    Parameters
    ----------
    fmt : Float
        With specials ``ieee``.

    Members
    -------
    a : In(width)
        Code. A NaN is canonical.
    power : In(LOSS)
        Its exponent.
    o : Out(width)
    enable : In(1)

    Attributes
    ----------
    latency : int
    """

    latency = DIVIDER

    def __init__(self, fmt: Float) -> None:
        self.fmt = fmt
        super().__init__({"a": In(fmt.width), "power": In(LOSS), "o": Out(fmt.width), "enable": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fmt = self.fmt
        a = unpack(m, "a", fmt, self.a)
        # The exponent that is left, minus one. If that is negative, the significand moves to the right instead.
        left = Signal(signed(max(fmt.exponent, LOSS) + 2), name="left")
        m.d.comb += left.eq(a.field - self.power - 1)
        amount = Signal(LOSS, name="amount")
        m.d.comb += amount.eq(Mux(left[-1], -left, 0))
        value, sticky = shift_right_sticky(m, "value", Cat(C(0, 1), a.significand), amount,
                                           [1 << k for k in range(LOSS)], fill=C(0, 1), sticky=C(0, 1))
        special = a.infinite | a.nan
        field = Mux(left[-1] | ~a.significand[-1], 0, (left + 1)[:fmt.exponent])
        now = stage(m, self.enable, "aligned", value=Mux(special, Cat(C(0, 1), a.significand), value),
                    low=sticky & ~special, field=Mux(special, a.field, field), negative=a.negative)
        kept, guard = now.value[1:], now.value[0]
        up = Signal(name="up")
        m.d.comb += up.eq(guard & (now.low | kept[0]))
        with m.If(self.enable):
            m.d.sync += self.o.eq(Cat((Cat(kept[:fmt.mantissa], now.field) + up)[:fmt.width - 1], now.negative))
        return m


def halved(m: Module, name: str, fmt: Float, code: Value) -> Value:
    """Return a number's half, rounded to nearest even (combinational). Inf and NaN stay."""
    field, magnitude = code[fmt.mantissa:-1], code[:-1]
    rounded, lower = signals(f"{name}_rounded {name}_lower", fmt.width - 1)
    m.d.comb += [
        rounded.eq((magnitude >> 1) + (magnitude[0] & magnitude[1])), lower.eq(magnitude - (1 << fmt.mantissa)),
    ]
    return Cat(Mux(field.all(), magnitude, Mux(field <= 1, rounded, lower)), code[-1])


def twice(m: Module, name: str, fmt: Float, code: Value) -> Value:
    """Return a number times two (combinational). Inf and NaN stay."""
    field, magnitude = code[fmt.mantissa:-1], code[:-1]
    higher, shifted = signals(f"{name}_higher {name}_shifted", fmt.width - 1)
    m.d.comb += [higher.eq(magnitude + (1 << fmt.mantissa)), shifted.eq(magnitude << 1)]
    top = field == (1 << fmt.exponent) - 2
    infinite = C((1 << fmt.exponent) - 1 << fmt.mantissa, fmt.width - 1)
    finite = Mux(top, infinite, Mux(field.any(), higher, shifted))
    return Cat(Mux(field.all(), magnitude, finite), code[-1])
