"""The accumulating multiply-add of floating-point numbers."""

from typing import Any

from amaranth import *
from amaranth.lib import memory, wiring

from ...golden.floating import MACParameters
from .. import meanings
from ..accumulator import AccumulatorBank, SummingUnit
from ..multiplier import Multiplier, text_of
from ..pipeline import signals, stage
from ..rounding import unpack

__all__ = ["FloatMAC"]


class FloatMAC(SummingUnit):
    """Accumulating multiply-add: the exact product of two numbers, added to a floating-point sum.

    One rounding per addition, to nearest even; a sum that is exactly zero is +0. See `AccumulatorBank` for the sums.
    With `MACParameters.chunk` a second bank has totals, to which the sums of chunks are added.
    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : MACParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes of the operand format), ``slot`` (which accumulator), ``first`` (start it from +0),
        ``last`` (emit its new sum; the accumulator keeps it). With chunks this is the total.
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
        chunked = self.parameters.chunk is not None
        bank = self.bank(m, integer=width + 1, field=bits, tag=2 if chunked else 0)
        if not chunked:
            wiring.connect(m, wiring.flipped(self.o), bank.o)
            m.d.comb += [self.overflow.eq(bank.overflow), self.invalid.eq(bank.invalid),
                         bank.status_clear.eq(self.status_clear)]

        advance = Signal()
        field = Signal(signed(bits))
        m.d.comb += [self.i.ready.eq(advance), field.eq(a.field + b.field + offset)]
        flags = {"first": payload.first, "last": payload.last}
        if chunked:
            flags = self._chunk(m, advance)
            self._total(m, bank)
        now = stage(
            m, advance, "inputs", valid=self.i.valid, field=field, negative=a.negative ^ b.negative,
            infinite=a.infinite | b.infinite, nan=a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite),
            slot=payload.slot, **flags)
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

    def _chunk(self, m: Module, advance: Value) -> dict[str, Value]:
        """Return what the bank of sums is to know of a transfer: whether its chunk begins and ends with it.

        For each slot a small memory counts the products of the chunk so far, and knows the first chunk. ``tag`` goes
        along to the total. A total starts with the first chunk, and is emitted behind the last one.
        """
        p, payload = self.parameters, self.i.payload
        bits = (p.chunk - 1).bit_length()
        m.submodules.counts = counts = memory.Memory(shape=bits + 1, depth=p.accumulators, init=[])
        read, write = counts.read_port(domain="comb"), counts.write_port()
        begins, fresh, ends = signals("begins fresh ends")
        count = Signal(bits + 1, name="count")
        m.d.comb += [
            read.addr.eq(payload.slot), count.eq(Mux(payload.first, 0, read.data[:bits])),
            begins.eq(count == 0), fresh.eq(payload.first | read.data[bits]),
            ends.eq(payload.last | (count == p.chunk - 1)),
            write.addr.eq(payload.slot), write.data.eq(Cat(Mux(ends, 0, count + 1)[:bits], fresh & ~ends)),
            write.en.eq(self.i.valid & advance),
        ]
        return {"first": begins, "last": ends, "tag": Cat(fresh, payload.last)}

    def _total(self, m: Module, bank: AccumulatorBank) -> None:
        """Add the sums of chunks to totals, of which the last ones are the unit's."""
        fmt = self.parameters.accumulator
        totals = self.bank(m, "totals", integer=fmt.mantissa + 2, field=fmt.exponent + 1)
        given, free = bank.o.payload, Signal(name="free")
        part = unpack(m, "part", fmt, given.value)
        magnitude = Cat(part.significand, C(0, 1)).as_signed()
        integer = Signal(signed(fmt.mantissa + 2), name="part_integer")
        m.d.comb += integer.eq(Mux(part.negative, -magnitude, magnitude))
        now = stage(m, free, "part", valid=bank.o.valid, integer=integer, field=Cat(part.field, C(0, 1)).as_signed(),
                    slot=given.slot, first=given.tag[0], last=given.tag[1], infinite=part.infinite, nan=part.nan)
        m.d.comb += [free.eq(~now.valid | totals.i.ready), bank.o.ready.eq(free)]
        self.add(m, totals, now)
        wiring.connect(m, wiring.flipped(self.o), totals.o)
        m.d.comb += [
            self.overflow.eq(bank.overflow | totals.overflow), self.invalid.eq(bank.invalid | totals.invalid),
            bank.status_clear.eq(self.status_clear), totals.status_clear.eq(self.status_clear),
        ]
