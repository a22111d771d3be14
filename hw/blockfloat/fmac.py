"""The variable-precision dot product of groups in block floating point (fMAC)."""

from types import SimpleNamespace
from typing import Any

from amaranth import *

from ...golden.blockfloat import BFPFMACParameters
from .. import meanings
from ..accumulator import SummingUnit
from ..formats import group_layout
from ..multiplier import chunk_product
from ..pipeline import bits_of, signals, stage
from ..trees import packed_sums, sum_products, sum_with_carry

__all__ = ["BFPFMAC"]


class BFPFMAC(SummingUnit):
    """Dot product of two BFP groups, of a precision chosen per transfer, added to a float sum.

    A transfer adds the exact dot product of its two groups to one of the accumulators, with one rounding to nearest
    even; see `AccumulatorBank`. ``serial``: the magnitudes are multiplied one pair of 2-bit chunks a cycle, in
    ceil(pa/2) * ceil(pb/2) cycles. The transfer is accepted with its last pass. The groups must stay at the port until
    then, as a stream holds them. ``parallel``: one transfer a cycle, whatever the precisions. Source: numerics
    contract, section 3 (FAST).

    Parameters
    ----------
    parameters : BFPFMACParameters

    Members
    -------
    i : In(stream)
        ``a`` and ``b`` (groups, see `group_layout`; magnitudes below ``2**precision``, precision
        clamped to 2 .. mantissa), ``slot`` (which accumulator), ``first`` (start it from +0),
        ``last`` (emit its new sum; the accumulator keeps it).
    o : Out(stream)
        ``value`` (code of the accumulator format) and ``slot``.
    overflow : Out(1)
        Sticky: a finite accumulator became infinite.
    status_clear : In(1)
        Clears `overflow`.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers to different accumulators, at the greatest precision.
    recurrence : int
        Cycles between transfers to the same accumulator, at the least.
    """

    def __init__(self, parameters: BFPFMACParameters) -> None:
        group = group_layout(parameters.format)
        super().__init__(parameters, {"a": group, "b": group}, ("overflow",))

    @property
    def interval(self) -> int:  # type: ignore[override]
        return self.parameters.format.chunks**2 if self.parameters.serial else 1

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return meanings.of_operands(meanings.group(p.format)) | meanings.of_sums(p.accumulator)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, lanes = parameters.format, parameters.group
        advance = Signal()

        # The sum of a pair of groups, and the exponent field that belongs to its top bit.
        integer = (lanes * (2**fmt.mantissa - 1) ** 2).bit_length() + 1
        offset = parameters.accumulator.bias + integer - 2 - 2 * fmt.bias
        ends = (offset - 2 * (fmt.mantissa - 1) - integer, offset - 2 + 2 * (2**fmt.exponent - 1))
        field = bits_of(*ends)

        bank = self.bank(m, integer=integer, field=field)
        self.answer(m, bank)

        # What a precision takes off the exponent, for both operands: a table.
        width = len(payload.a.precision)
        clamped = [min(max(code, 2), fmt.mantissa) - 1 for code in range(1 << width)]
        scale = Array(C(offset - pa - pb, signed(field)) for pb in clamped for pa in clamped)[
            Cat(payload.a.precision, payload.b.precision)]
        common = {
            "signs": [a.sign ^ b.sign for a, b in zip(payload.a.elements, payload.b.elements)],
            "a_exponent": payload.a.exponent, "b_exponent": payload.b.exponent, "scale": scale,
            "slot": payload.slot, "first": payload.first, "last": payload.last,
        }
        if self.parameters.serial:
            now, products = self._one_chunk_pair(m, advance, common)
        else:
            m.d.comb += self.i.ready.eq(advance)
            now, products = self._all_chunk_pairs(m, advance, common)

        now, (dot,), carry = sum_products(m, advance, now, [products], now.signs, field,
                                          drop=("a", "b", "products"))

        # Merge. The chunk pairs come with falling weights, so what there is moves up as they go.
        merged = Signal(signed(integer))
        base = C(0, signed(integer))
        if self.parameters.serial:
            base = Mux(now.start, 0, Mux(now.shift, merged << 2, merged))[:integer].as_signed()
        with m.If(advance & now.valid):
            m.d.sync += merged.eq(sum_with_carry(base, dot, carry))
        complete = now.valid & now.final if self.parameters.serial else now.valid
        out = stage(m, advance, "merged", valid=complete, field=now.field, slot=now.slot, first=now.first,
                    last=now.last)
        self.add(m, bank, out, integer=merged)
        m.d.comb += advance.eq(~out.valid | bank.i.ready)
        return m

    def _one_chunk_pair(self, m: Module, advance: Value, common: dict[str, Any]) -> tuple[SimpleNamespace, list[Value]]:
        """Sequence the passes of a transfer; return the stage and the products of its chunk pair.

        Pairs (c, d) come in descending order of c + d. From one c + d to the next, the merged sum moves up by one
        chunk (times 4).
        """
        payload, fmt = self.i.payload, self.parameters.format

        def top_chunk(name: str, precision: Value) -> Value:
            index = Signal(range(fmt.chunks), name=name)
            for chunk in range(1, fmt.chunks):
                with m.If(precision > 2 * chunk):
                    m.d.comb += index.eq(chunk)
            return index

        def chunk_of(group: int, index: Value) -> list:
            padded = [Cat(each.magnitude, C(0, 1)) for each in group.elements]
            return [Array(each[2 * k:2 * k + 2] for k in range(fmt.chunks))[index] for each in padded]

        top_a, top_b = top_chunk("top_a", payload.a.precision), top_chunk("top_b", payload.b.precision)
        c, d, next_c, next_d = (Signal.like(top_a, name=name) for name in ("c", "d", "next_c", "next_d"))
        running, moved = signals("running moved")
        below = Signal(len(c) + 1)
        m.d.comb += [
            c.eq(Mux(running, next_c, top_a)),
            d.eq(Mux(running, next_d, top_b)),
            below.eq(c + d - 1),
        ]
        final = (c == 0) & (d == 0)
        level = (c != 0) & (d != top_b)
        with m.If(advance & self.i.valid):
            m.d.sync += [running.eq(~final), moved.eq(~level)]
            with m.If(level):
                m.d.sync += [next_c.eq(c - 1), next_d.eq(d + 1)]
            with m.Elif(below > top_a):
                m.d.sync += [next_c.eq(top_a), next_d.eq(below - top_a)]
            with m.Else():
                m.d.sync += [next_c.eq(below), next_d.eq(0)]
        m.d.comb += self.i.ready.eq(advance & final)
        now = stage(m, advance, "chunk", valid=self.i.valid, a=chunk_of(payload.a, c), b=chunk_of(payload.b, d),
                    start=~running, shift=moved, final=final, **common)
        return now, [chunk_product(a, b) for a, b in zip(now.a, now.b)]

    def _all_chunk_pairs(self, m: Module, advance: Value, common: dict[str, Any]
                         ) -> tuple[SimpleNamespace, list[Value]]:
        """Multiply whole magnitudes; return the stage and the products.

        Chunk products (c, d) of equal c - d do not overlap: side by side they are one number.
        The numbers of c - d = k and -k are added first, then those of falling k.
        """
        payload, chunks = self.i.payload, self.parameters.format.chunks
        now = stage(m, advance, "whole", valid=self.i.valid, a=[each.magnitude for each in payload.a.elements],
                    b=[each.magnitude for each in payload.b.elements], **common)
        diagonals = []
        for a, b in zip(now.a, now.b):
            a, b = Cat(a, C(0, 1)), Cat(b, C(0, 1))
            diagonals.append({
                k: Cat(chunk_product(a[2 * c:2 * c + 2], b[2 * (c - k):2 * (c - k) + 2])
                       for c in range(max(k, 0), chunks + min(k, 0)))
                for k in range(1 - chunks, chunks)})
        if chunks == 1:
            return now, [each[0] for each in diagonals]
        pairs = range(1, chunks)
        sums = packed_sums(m, "diagonal", [(each[k], each[-k], None) for each in diagonals for k in pairs])
        flat = [Cat(each[0], sums[lane * len(pairs):(lane + 1) * len(pairs)]) for lane, each in enumerate(diagonals)]
        widths = [4 * chunks] + [4 * (chunks - k) + 1 for k in pairs]
        now = stage(m, advance, "diagonal", now, drop=("a", "b"), products=flat)
        for k in reversed(pairs):
            # Below the lowest bit of diagonal k, two bits of diagonal k - 1 pass by.
            start, parts, additions = sum(widths[:k - 1]), [], []
            for word in now.products:
                lower, upper = word[start:start + widths[k - 1]], word[start + widths[k - 1]:]
                top = max(widths[k - 1] - 2, widths[k])
                additions.append((Cat(lower[2:], C(0, top))[:top], Cat(upper, C(0, top))[:top], None))
                parts.append((word[:start], lower[:2]))
            sums = packed_sums(m, f"product{k}", additions)
            widths[k - 1] = 2 + len(sums[0])
            flat = [Cat(*part, total) for part, total in zip(parts, sums, strict=True)]
            if k > 1:
                now = stage(m, advance, f"product{k}", now, products=flat)
        product = 2 * self.parameters.mantissa
        return now, [each[:product] for each in flat]
