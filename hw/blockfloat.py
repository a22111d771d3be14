"""Block floating point in hardware: the converter and the variable-precision dot product (fMAC)."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..golden.blockfloat import ConverterParameters, FMACParameters
from .floating import AccumulatorBank
from .formats import group_layout
from .pipeline import packed_sums, stage

__all__ = ["BFPFMAC"]


def chunk_product(a, b):
    """Return the 4-bit product of two 2-bit chunks: four functions of four inputs, a LUT4 each."""
    low = a[0] & b[0]
    return Cat(low, (a[1] & b[0]) ^ (a[0] & b[1]), a[1] & b[1] & ~low, a[1] & b[1] & low)


class BFPFMAC(wiring.Component):
    def __init__(self, parameters: FMACParameters):
        self.parameters = parameters
        group = group_layout(parameters.format)
        slot = (parameters.accumulators - 1).bit_length()
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "a": group, "b": group, "slot": slot, "first": 1, "last": 1,
            }))),
            "o": Out(stream.Signature(data.StructLayout({"value": parameters.accumulator.width, "slot": slot}))),
            "overflow": Out(1),
            "status_clear": In(1),
        })

    @property
    def integer(self):
        """Width of the signed sum of one pair of groups."""
        return (self.parameters.group * (2**self.parameters.mantissa - 1) ** 2).bit_length() + 1

    def elaborate(self, platform):
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt = parameters.format
        field = self.field_width
        m.submodules.bank = bank = AccumulatorBank(
            parameters.accumulator, integer=self.integer, field=field, sums=parameters.accumulators)
        m.d.comb += [
            self.o.payload.eq(bank.o.payload), self.o.valid.eq(bank.o.valid), bank.o.ready.eq(self.o.ready),
            self.overflow.eq(bank.overflow), bank.status_clear.eq(self.status_clear),
        ]
        advance = Signal()

        # Passes: pairs of chunks (c, d) in falling order of c + d, so that the sum of products
        # is shifted by one chunk (times 4) between one c + d and the next.
        def top_chunk(precision):
            index = Signal(range(max(fmt.chunks, 2)))
            for chunk in range(1, fmt.chunks):
                with m.If(precision > 2 * chunk):
                    m.d.comb += index.eq(chunk)
            return index

        top_a, top_b = top_chunk(payload.a.precision), top_chunk(payload.b.precision)
        width = len(top_a)
        running, c_next, d_next, shift_next = Signal(), Signal(width), Signal(width), Signal()
        c, d = Mux(running, c_next, top_a)[:width], Mux(running, d_next, top_b)[:width]
        final, same = (c == 0) & (d == 0), (c != 0) & (d != top_b)
        below = (c + d - 1)[:width + 1]
        jump = below > top_a
        with m.If(advance & self.i.valid):
            m.d.sync += [
                running.eq(~final),
                shift_next.eq(~same),
                c_next.eq(Mux(same, c - 1, Mux(jump, top_a, below))),
                d_next.eq(Mux(same, d + 1, Mux(jump, below - top_a, 0))),
            ]
        m.d.comb += self.i.ready.eq(advance & final)

        def pick(group, index):
            return Cat(Array([Cat(e.magnitude[2 * k:2 * k + 2], C(0, 2))[:2] for k in range(fmt.chunks)])[index]
                       for e in group.elements)

        s0 = stage(m, advance, "s0", valid=self.i.valid, a=pick(payload.a, c), b=pick(payload.b, d),
                   a_sign=Cat(e.sign for e in payload.a.elements), b_sign=Cat(e.sign for e in payload.b.elements),
                   start=~running, shift=running & shift_next, final=final,
                   scale=self.scale(payload.a.precision, payload.b.precision),
                   a_exponent=payload.a.exponent, b_exponent=payload.b.exponent,
                   slot=payload.slot, first=payload.first, last=payload.last)

        # Products with their signs, as complements: -x is ~x + 1, and the ones are the carries of
        # the adder tree. The sign bit is inverted, which adds 16 and makes the numbers unsigned.
        terms, signs = [], s0.a_sign ^ s0.b_sign
        for k in range(parameters.group):
            product = chunk_product(s0.a[2 * k:2 * k + 2], s0.b[2 * k:2 * k + 2])
            terms.append(Cat(product ^ signs[k].replicate(4), ~signs[k]))
        (exponent,) = packed_sums(m, "exponent", [(s0.a_exponent, s0.b_exponent, None)])
        now = stage(m, advance, "s1", valid=s0.valid, terms=Cat(terms), signs=signs, exponent=exponent, scale=s0.scale,
                    start=s0.start, shift=s0.shift, final=s0.final, slot=s0.slot, first=s0.first, last=s0.last)
        carries = [now.signs[k] for k in range(parameters.group)]
        count, bits, level = parameters.group, 5, 0
        while count > 1:
            level += 1
            terms = [now.terms[bits * k:bits * (k + 1)] for k in range(count)]
            pairs = [(terms[k], terms[k + 1], carries.pop()) for k in range(0, count, 2)]
            extra = []
            if level == 1:
                w = max(len(now.exponent), field)
                e = Cat(now.exponent, C(0, w))[:w]; sc = Cat(now.scale, now.scale[-1].replicate(w))[:w]
                extra = [(e, sc, None)]
            sums = packed_sums(m, f"level{level}", pairs + extra)
            if level == 1:
                f = sums.pop()[:field].as_signed()
            else: f = now.field
            count, bits = count // 2, bits + 1
            now = stage(m, advance, f"t{level}", valid=now.valid, terms=Cat(sums), signs=Cat(carries) if carries else C(0, 1), field=f,
                        start=now.start, shift=now.shift, final=now.final, slot=now.slot, first=now.first,
                        last=now.last)
            carries = [now.signs[k] for k in range(len(carries))]
        dot = Cat(now.terms[:-1], ~now.terms[-1]).as_signed()
        merged = Signal(signed(self.integer))
        base = Mux(now.start, 0, Mux(now.shift, merged << 2, merged))[:self.integer].as_signed()
        from .pipeline import sum_with_carry
        with m.If(advance & now.valid):
            m.d.sync += merged.eq(sum_with_carry(base, dot, carries.pop()))
        out = stage(m, advance, "out", valid=now.valid & now.final, field=now.field, slot=now.slot, first=now.first,
                    last=now.last)
        m.d.comb += [
            bank.i.valid.eq(out.valid),
            bank.i.payload.integer.eq(merged),
            bank.i.payload.field.eq(out.field),
            bank.i.payload.slot.eq(out.slot),
            bank.i.payload.first.eq(out.first),
            bank.i.payload.last.eq(out.last),
            advance.eq(~out.valid | bank.i.ready),
        ]
        return m

    @property
    def offset(self):
        fmt, acc = self.parameters.format, self.parameters.accumulator
        return acc.bias + self.integer - 2 - 2 * fmt.bias

    @property
    def field_width(self):
        fmt = self.parameters.format
        low = self.offset - 2 * (fmt.mantissa - 1)
        high = 2 * (2**fmt.exponent - 1) + self.offset - 2
        # The bank takes the integer's leading zeros off.
        return max((-low + self.integer).bit_length(), high.bit_length()) + 1

    def scale(self, pa, pb):
        """Table: offset - (pa-1) - (pb-1)."""
        fmt = self.parameters.format
        def clamp(p):
            return min(max(p, 2), fmt.mantissa)
        w = len(pa)
        table = Array(C(self.offset - clamp(i % 2**w) - clamp(i >> w) + 2, signed(self.field_width)) for i in range(4**w))
        return table[Cat(pa, pb)]
