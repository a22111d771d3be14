"""The product of a number and a rate, for the update of weights."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..golden.rounding import NEAREST
from ..golden.update import SGDParameters
from .multiplier import Multiplier
from .pipeline import signals, stage
from .rounding import round_and_pack, shift_right_sticky, unpack

__all__ = ["SCALER", "RateMultiplier"]

SCALER = 4  # cycles of a product with a rate


class RateMultiplier(wiring.Component):
    """Product of a number and a rate, from 0 to below 2, rounded to nearest even.

    A rate that is not subnormal, and below 2, never makes a subnormal number so much larger that it would have to be
    normalised: the product is only shifted to the right.

    Parameters
    ----------
    parameters : SGDParameters

    Members
    -------
    a : In(format.width)
        Code.
    rate : In(rate_bits)
        The rate's code without the sign and the top bit of the exponent; or, of powers of two, its exponent alone.
    neutral : In(1)
        The product with zero is -0, whatever `a`: what leaves every number as it is when it is added.
    o : Out(format.width)
    enable : In(1)

    Attributes
    ----------
    latency : int
    """

    latency = SCALER

    def __init__(self, parameters: SGDParameters) -> None:
        self.parameters = parameters
        width = parameters.format.width
        super().__init__({"a": In(width), "rate": In(parameters.rate_bits), "neutral": In(1), "o": Out(width),
                          "enable": In(1)})

    @staticmethod
    def multiplier(parameters: SGDParameters) -> Any:
        """Return what `Multiplier` and `block` take, or None for powers of two."""
        if parameters.rates == "powers":
            return None
        return {"width": parameters.format.mantissa + 1, "before": True, "behind": True, "kind": parameters.multiplier}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fmt, p = self.parameters.format, self.parameters.format.mantissa + 1
        split = self.parameters.rate_bits - (fmt.exponent - 1)
        a, field = unpack(m, "a", fmt, self.a), self.rate[split:]
        zero, neutral = signals("zero neutral")
        m.d.comb += [zero.eq(~field.any()), neutral.eq(zero & self.neutral)]
        total = Signal(fmt.exponent + 1, name="sum")
        m.d.comb += total.eq(a.field + field)
        now = stage(m, self.enable, "inputs", total=total, none=zero, significand=a.significand,
                    negative=a.negative | neutral, infinite=a.infinite & ~zero,
                    nan=(a.nan | (a.infinite & zero)) & ~neutral)
        # The significands' product, as a number below 4, has the exponent field total - bias, of which one less is
        # wanted: total - 2**(exponent - 1). If that is negative, the product moves to the right by as much, but only
        # by one less where its first place is the one that weighs 2: that is ~total.
        high = fmt.exponent - 1
        tiny = ~now.total[high:].any()
        levels = (p + 2).bit_length()
        amount = ~now.total[:high]
        if high > levels:
            amount = amount[:levels] | amount[levels:].any().replicate(levels)
        amount = amount & tiny.replicate(len(amount))
        above = Mux(tiny, 0, Cat(now.total[:high], now.total[-1]))
        # What rounds is at most p + 2 bits from the product's first place.
        if split:
            m.submodules.multiplier = multiplier = Multiplier(**self.multiplier(self.parameters))
            m.d.comb += [multiplier.a.eq(a.significand),
                         multiplier.b.eq(Cat(self.rate[:split], C(1, 1))),
                         multiplier.enable.eq(self.enable)]
        now = stage(m, self.enable, "product", now, drop=("total",), tiny=tiny, amount=amount, above=above)
        if split:
            value, low = multiplier.p[-p - 2:], multiplier.p[:-p - 2].any()
        else:
            value, low = Cat(C(0, 1), now.significand, C(0, 1)), C(0, 1)
        value, sticky = shift_right_sticky(m, "value", value, now.amount, [1 << k for k in range(len(amount))],
                                           fill=C(0, 1), sticky=low)
        now = stage(m, self.enable, "aligned", now, drop=("amount", "significand"), value=value, sticky=sticky)
        two = now.value[-1]
        # A product that is subnormal, or of such a number, has nothing above. That of no rate may have anything.
        packed = round_and_pack(m, fmt, NEAREST, Mux(two | now.tiny, now.value, Cat(C(0, 1), now.value[:-1])),
                                now.above, sticky=now.sticky, more=two & ~now.tiny, settled=True)
        over = packed.over & ~now.none
        finite = packed.magnitude & (~now.none).replicate(fmt.width - 1)
        magnitude = Mux(now.nan, fmt.nan_code, Mux(now.infinite | over, fmt.inf_code, finite))
        with m.If(self.enable):
            m.d.sync += self.o.eq(Cat(magnitude[:fmt.width - 1], now.negative & ~now.nan))
        return m
