"""The dot product of MX blocks."""

from types import SimpleNamespace
from typing import Any

from amaranth import *

from ...golden.formats import Fixed
from ...golden.mx import MX, SCALE_BIAS, SCALE_NAN, MXDotParameters
from .. import meanings
from ..accumulator import SummingUnit
from ..multiplier import chunk_product, rows
from ..pipeline import bits_of, stage
from ..rounding import unpack
from ..trees import sum_products, sum_with_carry
from .layout import block_layout

__all__ = ["MXDot"]


class MXDot(SummingUnit):
    """Dot product of two MX blocks, added to a float sum.

    A transfer adds the exact dot product of its two blocks to one of the accumulators, with one rounding to nearest
    even; see `AccumulatorBank`. In each of block / lanes cycles, as many products as there are lanes are made as
    integers and added. A transfer is accepted with its last cycle, and the blocks must stay at the port until then, as
    a stream holds them. A NaN scale, or an element that is Inf or NaN, makes the sum NaN. Source: numerics contract,
    section 5; OCP MX 1.0.

    Parameters
    ----------
    parameters : MXDotParameters

    Members
    -------
    i : In(stream)
        ``a`` and ``b`` (blocks of ``format`` and ``format_b``, see `block_layout`), ``slot`` (which accumulator),
        ``first`` (start it from +0), ``last`` (emit its new sum; the accumulator keeps it).
    o : Out(stream)
        ``value`` (code of the accumulator format) and ``slot``.
    invalid, overflow : Out(1)
        Sticky: a sum was or became NaN; a finite accumulator became infinite.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers to different accumulators.
    recurrence : int
        Cycles between transfers to the same accumulator, at the least.
    """

    def __init__(self, parameters: MXDotParameters) -> None:
        super().__init__(parameters, {"a": block_layout(parameters.format), "b": block_layout(parameters.format_b)})

    @property
    def interval(self) -> int:  # type: ignore[override]
        return self.parameters.block // self.parameters.lanes

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return meanings.scale(nan=True) | meanings.of_sums(p.accumulator) | {
            "a.elements": f"{meanings.numbers(p.format.element)}, to be scaled",
            "b.elements": f"{meanings.numbers(p.format_b.element)}, to be scaled",
            "invalid": "sticky: a sum was or became NaN",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        a_format, b_format, lanes, passes = parameters.format, parameters.format_b, parameters.lanes, self.interval
        advance = Signal()

        # The sum of a pair of blocks, and the exponent field that belongs to its top bit. In units of 2**unit of its
        # format, an element is an integer of magnitude `_worst` or less. In units of both, a sum is an integer of
        # magnitude block * worst_a * worst_b or less. A sign above the bits of this bound keeps the sum above its most
        # negative value.
        integer = (parameters.block * _worst(a_format) * _worst(b_format)).bit_length() + 1
        offset = parameters.accumulator.bias + integer - 2 + a_format.unit + b_format.unit - 2 * SCALE_BIAS
        ends = (offset - integer, offset + 2 * SCALE_NAN)
        field = bits_of(*ends)

        bank = self.bank(m, integer=integer, field=field)
        self.answer(m, bank)

        # Choose the elements of a pass.
        turn = Signal(range(max(passes, 2)))
        final = turn == passes - 1
        m.d.comb += self.i.ready.eq(advance & final)
        with m.If(advance & self.i.valid):
            m.d.sync += turn.eq(Mux(final, 0, turn + 1))
        parts = [[Cat(operand.elements[each * lanes + k] for k in range(lanes)) for each in range(passes)]
                 for operand in (payload.a, payload.b)]
        chosen = [Array(each)[turn] if passes > 1 else each[0] for each in parts]
        now = stage(m, advance, "chosen", valid=self.i.valid, a=chosen[0], b=chosen[1], a_exponent=payload.a.scale,
                    b_exponent=payload.b.scale, start=turn == 0, final=final, slot=payload.slot, first=payload.first,
                    last=payload.last)

        # Multiply significands; their exponents tell how far up the product belongs.
        products, places, signs = [], [], []
        nan = now.a_exponent.all() | now.b_exponent.all()
        for k in range(lanes):
            (a, a_place, a_negative, a_bad), (b, b_place, b_negative, b_bad) = (
                self._element(m, f"{name}{k}", fmt.element, codes.word_select(k, len(codes) // lanes))
                for name, fmt, codes in (("a", a_format, now.a), ("b", b_format, now.b)))
            products.append(_product(m, a, b))
            places.append((a_place + b_place)[:len(self.parameters.places)])
            signs.append(a_negative ^ b_negative)
            nan = nan | a_bad | b_bad
        moved: dict[str, Any] = {"places": places} if self.parameters.places else {}
        now = stage(m, advance, "product", now, drop=("a", "b"), products=products, signs=signs, nan=nan, **moved)

        # Up to there: the low bits of the place first, while the product is short.
        shifts = self.parameters.places
        if len(shifts) > 3:
            now = self._shift(m, advance, now, shifts[:-3])
            shifts = shifts[-3:]
        products = []
        for k, value in enumerate(now.products):
            for index, width in enumerate(shifts):
                value = Mux(now.places[k][index], Cat(C(0, width), value), value)
            products.append(value[:a_format.bits + b_format.bits])
        now, (dot,), carry = sum_products(m, advance, now, [products], now.signs, field, scale=C(offset, field),
                                          drop=("products", "places"))

        # Add the passes of a transfer.
        merged = Signal(signed(integer))
        bad = Signal()
        base = Mux(now.start, 0, merged).as_signed() if passes > 1 else C(0, signed(integer))
        with m.If(advance & now.valid):
            m.d.sync += [merged.eq(sum_with_carry(base, dot, carry)), bad.eq(now.nan | (bad & ~now.start))]
        out = stage(m, advance, "merged", valid=now.valid & now.final, field=now.field, slot=now.slot, first=now.first,
                    last=now.last)
        self.add(m, bank, out, integer=merged, infinite=0, nan=bad)
        m.d.comb += advance.eq(~out.valid | bank.i.ready)
        return m

    def _element(self, m: Module, name: str, element: Any, code: Value) -> tuple:
        """Return an element's significand, the place of its lowest bit, its sign and whether it is Inf or NaN."""
        if isinstance(element, Fixed):
            negative = code[-1]
            magnitude = Signal(len(code), name=f"{name}_magnitude")
            m.d.comb += magnitude.eq((code ^ negative.replicate(len(code))) + negative)
            return magnitude, C(0, 1), negative, C(0, 1)
        parts = unpack(m, name, element, code)
        place = Signal(element.exponent, name=f"{name}_place")
        m.d.comb += place.eq(parts.field - 1)
        return parts.significand, place, parts.negative, parts.infinite | parts.nan

    def _shift(self, m: Module, advance: Value, now: SimpleNamespace, shifts: list[int]) -> SimpleNamespace:
        """Shift the products up by the lowest bits of their places, in a stage of its own."""
        products = []
        for value, place in zip(now.products, now.places):
            for index, width in enumerate(shifts):
                value = Mux(place[index], Cat(C(0, width), value), Cat(value, C(0, width)))
            products.append(value)
        return stage(m, advance, "shifted", now, products=products,
                     places=[place[len(shifts):] for place in now.places])


def _worst(fmt: MX) -> int:
    """Return the largest magnitude of an element of an MX format, in units of ``2**fmt.unit``."""
    if isinstance(fmt.element, Fixed):
        return 1 << (fmt.element.bits - 1)  # of the most negative number
    return int(fmt.magnitude.max / 2.0**fmt.unit)


def _product(m: Module, a: Value, b: Value) -> Value:
    """Return the product of two significands, in the bits of both together."""
    if len(a) == len(b) == 2:
        return chunk_product(a, b)
    # A row for each bit of the shorter significand.
    if len(a) < len(b):
        a, b = b, a
    return rows(m, a, b)[:len(a) + len(b)]
