"""The accumulating multiply-add of floating-point numbers."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring

from ...golden.floating import MACParameters
from .. import meanings
from ..accumulator import SummingUnit
from ..multiplier import Multiplier, text_of
from ..pipeline import stage
from ..rounding import unpack

__all__ = ["FloatMAC"]


class FloatMAC(SummingUnit):
    """Accumulating multiply-add: the exact product of two numbers, added to a floating-point sum.

    One rounding per addition, to nearest even; a sum that is exactly zero is +0. See `AccumulatorBank` for the sums.
    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : MACParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes of the operand format), ``slot`` (which accumulator), ``first`` (start it from +0),
        ``last`` (emit its new sum; the accumulator keeps it).
    o : Out(stream)
        ``value`` (code of the accumulator format) and ``slot``.
    invalid : Out(1)
        Sticky: a sum was or became NaN.
    overflow : Out(1)
        Sticky: a finite sum, to which a finite product was added, became infinite.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers to different accumulators: 1.
    recurrence : int
        Cycles between transfers to the same accumulator, at the least.
    """

    def __init__(self, parameters: MACParameters) -> None:
        fmt = parameters.format
        self._multiplier: dict[str, Any] = {
            "width": fmt.mantissa + 1, "before": True, "behind": True, "kind": parameters.multiplier}
        super().__init__(parameters, {"a": fmt.width, "b": fmt.width})

    @property
    def text(self) -> str:
        """Verilog of the module that the unit instantiates."""
        return text_of(**self._multiplier)

    @property
    def meanings(self) -> dict[str, str]:
        operand = meanings.numbers(self.parameters.format)
        return {"a": operand, "b": operand, "invalid": "sticky: a sum was or became NaN",
                } | meanings.of_sums(self.parameters.accumulator)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fmt, sums, payload = self.parameters.format, self.parameters.accumulator, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name]) for name in "ab")
        width = 2 * fmt.mantissa + 2
        # Field of the product's top bit; see `FloatMultiplier`.
        offset = 1 - 2 * fmt.bias + sums.bias
        ends = (2 + offset, 2 * ((1 << fmt.exponent) - 1) + offset)
        bits = 1 + max(end.bit_length() for end in ends)
        bank = self.bank(m, integer=width + 1, field=bits)
        wiring.connect(m, wiring.flipped(self.o), bank.o)
        m.d.comb += [self.overflow.eq(bank.overflow), self.invalid.eq(bank.invalid),
                     bank.status_clear.eq(self.status_clear)]

        advance = Signal()
        field = Signal(signed(bits))
        m.d.comb += [self.i.ready.eq(advance), field.eq(a.field + b.field + offset)]
        now = stage(
            m, advance, "inputs", valid=self.i.valid, field=field, negative=a.negative ^ b.negative,
            infinite=a.infinite | b.infinite, nan=a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite),
            slot=payload.slot, first=payload.first, last=payload.last)
        m.submodules.multiplier = multiplier = Multiplier(**self._multiplier)
        m.d.comb += [multiplier.a.eq(a.significand), multiplier.b.eq(b.significand), multiplier.enable.eq(advance)]
        now = stage(m, advance, "product", now)
        # An Inf has a significand, so that its product with anything but a zero has a sign.
        integer = Signal(signed(width + 1))
        m.d.comb += integer.eq(Mux(now.negative, -multiplier.p, multiplier.p))
        now = stage(m, advance, "signed", now, drop=("negative",), integer=integer)
        m.d.comb += advance.eq(~now.valid | bank.i.ready)
        self.add(m, bank, now)
        return m
