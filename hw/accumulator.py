"""The accumulator bank: floating-point sums to which scaled integers are added with one rounding."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.hdl import ValueLike
from amaranth.lib import memory

from ..golden.accumulator import BANK, RECURRENCE
from ..golden.formats import Float
from .pipeline import signals, stage
from .rounding import normalise, shift_right_sticky
from .trees import sum_with_carry
from .unit import StreamUnit

__all__ = ["AccumulatorBank", "SummingUnit"]


class AccumulatorBank(StreamUnit):
    """Bank of floating-point sums to which scaled integers are added.

    Each transfer adds ``integer * 2**(field - fmt.bias - (integer width - 2))`` to one of the
    sums: `field` is the exponent field that belongs to the integer's top magnitude bit. The
    exact sum is rounded once, to nearest with ties to even. Gradual underflow is kept; a sum
    beyond the largest finite value becomes Inf and stays Inf; an exactly zero sum is +0.

    The adder is a pipeline around a small memory. Transfers to different sums follow each other
    every cycle; a transfer to a sum with an addition under way waits for it. Nothing is lost or
    repeated under back-pressure.

    Source: numerics contract, sections 2 and 3.

    Parameters
    ----------
    fmt : Float
        Format of the sums (specials ``ieee``).
    integer : int
        Width of the signed integer, which must stay above its most negative value.
    field : int
        Width of the signed field.
    sums : int
        Number of sums, a power of two.
    specials : bool
        Addends may be Inf and NaN. Inf + -Inf is NaN, and a NaN stays.
    tag : int
        Bits that a transfer hands on to its sum.

    Members
    -------
    i : In(stream)
        ``integer``, ``field``, ``slot`` (which sum), ``first`` (start from +0), ``last`` (emit
        the new sum, which is kept as well); with `specials`, ``infinite`` (of the integer's sign) and ``nan``;
        ``tag``, if there is one.
    o : Out(stream)
        ``value`` (code of `fmt`), ``slot`` and ``tag``.
    overflow : Out(1)
        Sticky: a finite sum, to which something finite was added, became infinite.
    invalid : Out(1)
        With `specials`. Sticky: a sum was or became NaN.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers, to different sums.
    recurrence : int
        Cycles between two transfers to the same sum.
    """

    recurrence = RECURRENCE
    latency = BANK

    def __init__(self, fmt: Float, *, integer: int, field: int, sums: int, specials: bool = False, tag: int = 0
                 ) -> None:
        self.fmt, self.integer, self.field, self.sums, self.specials = fmt, integer, field, sums, specials
        self.tags = {"tag": tag} if tag else {}
        slot = (sums - 1).bit_length()
        classes = {"infinite": 1, "nan": 1} if specials else {}
        super().__init__(
            {"integer": signed(integer), "field": signed(field), "slot": slot, "first": 1, "last": 1, **classes,
             **self.tags},
            {"value": fmt.width, "slot": slot, **self.tags}, ("invalid", "overflow") if specials else ("overflow",))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fmt, payload = self.fmt, self.i.payload
        p = fmt.mantissa + 1
        n = self.integer - 1

        # The adder moves as one; the stage before it also waits for a sum that is still under way.
        advance, accept, hazard = signals("advance accept hazard")
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            accept.eq(advance & ~hazard),
            self.i.ready.eq(accept),
        ]

        # Normalise the addend in two's complement: shift out copies of its sign, which are zeros
        # of the complement. A negative power of two goes one place further than its magnitude
        # would, to exactly -2; what enters stops it there. How far a zero goes does not matter.
        negative = payload.integer[-1]
        widths = [1 << k for k in reversed(range(n.bit_length()))]
        half = len(widths) // 2
        value, taken, _, _ = normalise(m, "coarse_addend", payload.integer[:n] ^ negative.replicate(n), widths[:half],
                                       fill=negative)
        classes = {"infinite": payload.infinite, "nan": payload.nan} if self.specials else {}
        classes |= {name: payload[name] for name in self.tags}
        s0 = stage(m, accept, "s0", valid=self.i.valid, value=value, negative=negative, taken=Cat(reversed(taken)),
                   field=payload.field, slot=payload.slot, first=payload.first, last=payload.last, **classes)
        value, taken, _, _ = normalise(m, "fine_addend", s0.value, widths[half:], fill=s0.negative)
        s1 = stage(m, accept, "s1", s0, drop=("value", "negative"), taken=Cat(reversed(taken), s0.taken),
                   addend=Cat(value ^ s0.negative.replicate(n), s0.negative))

        # L0: fetch the sum.
        bank: memory.Memory = memory.Memory(shape=fmt.width, depth=self.sums, init=[])
        m.submodules.bank = bank
        read = bank.read_port(domain="comb")
        write = bank.write_port()
        bits = max(self.field, fmt.exponent + 1) + 1
        m.d.comb += read.addr.eq(s1.slot)
        l0 = stage(m, advance, "l0", s1, drop=("taken", "first"), valid=s1.valid & ~hazard, held=read.data,
                   field=(s1.field - s1.taken)[:bits].as_signed(), zero=s1.addend[-2:] == 0)
        with m.If(advance & s1.first):
            m.d.sync += l0.held.eq(0)

        # L1: subtract the exponents. gap = field - held exponent - 1, so that its sign says which
        # operand is the larger, and either it or its complement is a distance.
        held_field = l0.held[fmt.mantissa:-1]
        normal = held_field.any()
        held_exponent = Cat(held_field[0] | ~normal, held_field[1:])
        gap = (l0.field + Cat(~held_exponent, C(1, 1)).as_signed())[:bits].as_signed()
        infinite, negative = held_field.all(), l0.held[-1]
        if self.specials:
            # Held and added Infs are told apart from here on by the sign alone.
            held_nan = infinite & l0.held[:fmt.mantissa].any()
            classes = {"nan": l0.nan | held_nan | (infinite & l0.infinite & (negative ^ l0.addend[-1]))}
            negative = Mux(l0.infinite, l0.addend[-1], negative)
            infinite = infinite | l0.infinite | l0.nan
        l1 = stage(m, advance, "l1", l0, held=Cat(l0.held[:fmt.mantissa], normal), held_exponent=held_exponent,
                   held_negative=negative, field=l0.field[:-1], gap=gap, swap=~gap[-1] & ~l0.zero,
                   **classes | {"infinite": infinite})

        # L2: order by exponent and begin to align. The sum is made in the frame of the held sign:
        # held + addend, or held - addend when held is negative. A window of `top` bits (the highest
        # weighs 1) and a sticky bit: one bit more than either operand keeps a shift by one exact,
        # two more than the result keep what rounding needs after one leading bit has cancelled.
        top = max(max(p, n) + 1, p + 2)
        held = l1.held << (top - p)
        addend = Cat(C(0, top - n), l1.addend)
        larger, smaller = signals("larger smaller", top + 1)
        fill = Signal()
        exponent = Signal(bits - 1)
        levels = (top + 1).bit_length()
        distance = Signal(levels)
        far = Mux(l1.gap[-1], ~l1.gap[levels:].all(), l1.gap[levels:].any())
        m.d.comb += [
            exponent.eq(Mux(l1.swap, l1.field, l1.held_exponent)),
            larger.eq(Mux(l1.swap, addend ^ l1.held_negative.replicate(top + 1), held)),
            # With the addend on top the distance is gap + 1: the one is wired in here.
            smaller.eq(Mux(l1.swap, held >> 1, addend)),
            fill.eq(~l1.swap & l1.addend[-1]),
            distance.eq((l1.gap[:levels] ^ l1.gap[-1].replicate(levels)) | far.replicate(levels)),
        ]
        shifts = [1 << k for k in reversed(range(levels))]
        half = len(shifts) // 2
        aligned, sticky = shift_right_sticky(m, "coarse", smaller, distance, shifts[:half], fill=fill)
        l2 = stage(m, advance, "l2", l1, drop=("held", "held_exponent", "addend", "zero", "field", "gap"),
                   larger=larger, smaller=aligned, sticky=sticky, fill=fill, distance=distance[:levels - half],
                   exponent=exponent)

        # L3: finish aligning. What is subtracted is complemented; the one that belongs to it enters
        # the sum at the bottom, unless a sticky bit of the same operand has absorbed it.
        aligned, sticky = shift_right_sticky(m, "fine", l2.smaller, l2.distance, shifts[half:], fill=l2.fill,
                                             sticky=l2.sticky)
        complement = l2.held_negative & ~l2.swap
        carry = l2.held_negative & (l2.swap | ~sticky)
        l3 = stage(m, advance, "l3", l2, drop=("fill", "distance", "swap"), larger_sign=l2.larger[-1] & l2.swap,
                   smaller=Cat(aligned, l2.fill) ^ complement.replicate(top + 2), carry=carry, sticky=sticky)

        # L4: add.
        total = Signal(top + 2)
        m.d.comb += total.eq(sum_with_carry(Cat(l3.larger, l3.larger_sign).as_signed(), l3.smaller.as_signed(),
                                            l3.carry))
        now = stage(m, advance, "l4", l3, drop=("larger", "larger_sign", "smaller", "carry", "sticky"),
                    value=Cat(l3.sticky, total))
        loop = [l0, l1, l2, l3, now]

        # L5, L6, L7: normalise, but not below the exponent of the smallest normal number: the highest
        # bit here weighs 2, so that a shift by `exponent` is what makes a subnormal. A negative
        # total is only complemented, and ones follow it in: the one that is missing at the bottom
        # is added by the rounding.
        flip = now.value[-1]
        value = now.value[:-1] ^ flip.replicate(top + 2)
        shifts = [1 << k for k in reversed(range((top + 1).bit_length()))]
        limit = now.exponent[:len(shifts)] | now.exponent[len(shifts):].any().replicate(len(shifts))
        drop, free = ("value",), C(0, 1)
        before: list[Value] = []
        # The widest shift looks at the most bits: it has a stage of its own. What cannot come up to the kept bits and
        # the guard any more is cut off; of that, only whether it differs from the fill counts.
        low = C(0, 1)
        for name, part, later in (("l5", shifts[:1], shifts[1:]), ("l6", shifts[1:3], shifts[3:]),
                                  ("l7", shifts[3:], [])):
            value, taken, free, below = normalise(m, name, value, part, fill=flip, limit=limit, free=free,
                                                  need=p + 1 + sum(later))
            now = stage(m, advance, name, now, drop=drop, value=value, flip=flip, free=free, low=low | below,
                        limit=limit, taken=Cat(reversed(taken), *before))
            flip, value, limit, free, low, before = now.flip, now.value, now.limit, now.free, now.low, [now.taken]
            loop.append(now)

        # L8: the exponent, plus one, which makes every one out of range reach 2**fmt.exponent.
        exponent = Signal(bits - 1)
        m.d.comb += exponent.eq(now.exponent + 2 - now.taken)
        kept, guard, rest = value[-p:], value[-p - 1], value[:-p - 1]
        tail = ((rest ^ flip.replicate(len(rest))).any() if len(rest) else C(0, 1)) | low
        out = stage(m, advance, "l8", now, drop=("value", "taken", "limit", "free", "low", "held_negative"), kept=kept,
                    guard=guard, tail=tail ^ flip, exponent=exponent[:fmt.exponent],
                    negative=now.held_negative ^ (flip & ~now.infinite))
        with m.If(advance & (now.infinite | exponent[fmt.exponent:].any())):
            m.d.sync += [out.kept.eq(1 << (p - 1)), out.exponent.eq(0), out.guard.eq(0), out.tail.eq(0),
                         out.flip.eq(0)]
        if self.specials:
            with m.If(advance & now.nan):
                m.d.sync += [out.kept.eq(3 << (p - 2)), out.negative.eq(0)]

        # L9: round to nearest even; a carry moves the exponent on, up to Inf. The one too much in
        # the exponent of a normal number is taken off by the same addition. After a complement the
        # discarded bits lack their one: they are above a half as soon as the guard is set.
        up = Mux(out.flip, out.guard | (out.tail & out.kept[0]), out.guard & (out.tail | out.kept[0]))
        nonzero = out.flip | out.kept.any() | out.guard | out.tail
        normal = out.kept[-1].replicate(fmt.exponent)
        code = Signal(fmt.width)
        m.d.comb += [
            code.eq(Cat((Cat(out.kept[:-1], out.exponent & normal) + Cat(up, C(0, p - 2), normal))[:fmt.width - 1],
                        out.negative & nonzero)),
            write.addr.eq(out.slot),
            write.data.eq(code),
            write.en.eq(out.valid & advance),
        ]
        # A sum that became infinite is told a cycle later, off the critical path.
        finite_before = Signal()
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(out.valid & out.last),
                self.o.payload.value.eq(code),
                self.o.payload.slot.eq(out.slot),
                *(self.o.payload[name].eq(getattr(out, name)) for name in self.tags),
                finite_before.eq(out.valid & ~out.infinite),
            ]
        now_infinite = self.o.payload.value[fmt.mantissa:-1].all()
        self.report(m, overflow=advance & finite_before & now_infinite)
        if self.specials:
            is_nan = Signal()
            with m.If(advance):
                m.d.sync += is_nan.eq(out.valid & out.nan)
            self.report(m, invalid=advance & is_nan)

        # Whether the transfer that is in s1 next will find its sum still under way.
        slot = Mux(hazard, s1.slot, s0.slot)
        under_way = [(s1.valid & ~hazard, s1.slot)] + [(each.valid, each.slot) for each in loop]
        with m.If(advance):
            m.d.sync += hazard.eq(Mux(hazard, s1.valid, s0.valid)
                                  & Cat(valid & (slot == other) for valid, other in under_way).any())
        return m


class SummingUnit(StreamUnit):
    """Unit that adds scaled integers, one for each transfer, to the sums of an `AccumulatorBank`.

    Parameters
    ----------
    parameters : dataclass
        With ``accumulator``, the sums' Float, and ``accumulators``, their number.
    operands : dict
        Fields of `i` in front of the bank's: ``slot``, ``first``, ``last``.
    status : tuple of str
        With ``invalid``, addends may be Inf and NaN.

    Attributes
    ----------
    recurrence : int
        Cycles between transfers to the same sum, at the least.
    """

    recurrence = RECURRENCE

    def __init__(self, parameters: Any, operands: dict, status: Iterable[str] = ("invalid", "overflow")) -> None:
        self.parameters = parameters
        slot = (parameters.accumulators - 1).bit_length()
        super().__init__({**operands, "slot": slot, "first": 1, "last": 1},
                         {"value": parameters.accumulator.width, "slot": slot}, status)

    def bank(self, m: Module, name: str = "bank", *, integer: int, field: int, tag: int = 0) -> AccumulatorBank:
        """Return a bank, a submodule; `integer`, `field` and `tag` as in `AccumulatorBank`."""
        m.submodules[name] = bank = AccumulatorBank(
            self.parameters.accumulator, integer=integer, field=field, sums=self.parameters.accumulators,
            specials=hasattr(self, "invalid"), tag=tag)
        return bank

    def answer(self, m: Module, bank: AccumulatorBank) -> None:
        """Let the bank's results and status be the unit's."""
        m.d.comb += [self.o.payload.eq(bank.o.payload), self.o.valid.eq(bank.o.valid), bank.o.ready.eq(self.o.ready)]
        m.d.comb += [getattr(self, name).eq(getattr(bank, name)) for name in ("invalid", "overflow")
                     if hasattr(self, name)]
        m.d.comb += bank.status_clear.eq(self.status_clear)

    @staticmethod
    def add(m: Module, bank: AccumulatorBank, now: SimpleNamespace, **values: ValueLike) -> None:
        """Give the bank an addend: a stage with ``valid``, and what the stage does not hold of the bank's payload."""
        m.d.comb += bank.i.valid.eq(now.valid)
        m.d.comb += [bank.i.payload[name].eq(values[name] if name in values else getattr(now, name))
                     for name, _ in bank.i.payload.shape()]
