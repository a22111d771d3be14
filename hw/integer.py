"""Plain INT8 in hardware: the converter to integers under a given scale, and their dot product."""

from typing import Any

from amaranth import *
from amaranth.lib import data

from ..golden.integer import SCALE_BIAS, SCALE_MIN, SUM, TOP, INT8ConverterParameters, INT8DotParameters, INT8System
from .pipeline import bits_of, stage
from .rounding import normalise, round_sum, shift_right_sticky, unpack
from .trees import packed_sums, sum_with_carry
from .unit import DotUnit, StreamUnit

__all__ = ["INT8Circuits", "IntConverter", "IntDot", "vector_layout"]

MAGNITUDE = TOP.bit_length()
WIDTH = MAGNITUDE + 1
SCALE = 8  # bits of a scale's code


def vector_layout(lanes: int) -> data.StructLayout:
    """Return the layout of integers under one scale: ``codes`` (element 0 lowest) and ``scale`` (exponent + 127)."""
    return data.StructLayout({"codes": data.ArrayLayout(WIDTH, lanes), "scale": SCALE})


class IntConverter(StreamUnit):
    """Converter from floating point to integers: one vector per cycle.

    Each element is divided by the scale and rounded once, to nearest even. What is beyond -127 .. 127 saturates, and so
    does Inf; NaN becomes 0. Source: numerics contract, section 13.

    Parameters
    ----------
    parameters : INT8ConverterParameters

    Members
    -------
    i : In(stream)
        ``elements`` (codes of the work format, element 0 lowest) and ``scale`` (exponent + 127).
    o : Out(stream)
        ``codes`` (two's complement) and ``scale``; see `vector_layout`.
    invalid, overflow : Out(1)
        Sticky: a NaN came in; an Inf came in, or a number that was too large for its scale.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    def __init__(self, parameters: INT8ConverterParameters) -> None:
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.work.width, parameters.lanes)
        super().__init__({"elements": elements, "scale": SCALE}, vector_layout(parameters.lanes))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        work, lanes, payload = self.parameters.work, self.parameters.lanes, self.i.payload
        advance = self.handshake(m)

        # An element is aligned in a window: a bit for the half, those of a magnitude, one more, which tells that it is
        # too large, and `left` places for subnormal numbers, whose leading one is lower than their exponent says. With
        # its leading bit on top, what has to be moved down is the distance ``reach - field``.
        left = min(max(work.emin - SCALE_MIN - WIDTH + 1, 0), work.mantissa)
        window = 1 + WIDTH + left
        kept = min(work.mantissa + 1, window)
        offset = left + MAGNITUDE + work.bias - SCALE_BIAS
        bits = bits_of(offset - (1 << work.exponent), offset + (1 << SCALE))
        parts = [unpack(m, f"element{k}", work, code) for k, code in enumerate(payload.elements)]
        reach = Signal(signed(bits))
        # One more, because a field is taken off by adding its complement.
        m.d.comb += reach.eq(payload.scale + (offset + 1))
        now = stage(m, advance, "split", valid=self.i.valid, scale=payload.scale, reach=reach,
                    fields=[each.field for each in parts], values=[each.significand[-kept:] for each in parts],
                    below=[each.significand[:-kept].any() for each in parts],
                    negative=[each.negative for each in parts], infinite=[each.infinite for each in parts],
                    nan=[each.nan for each in parts])
        distances = packed_sums(m, "distance", [
            (now.reach.as_unsigned(), ~Cat(each, C(0, bits - work.exponent)), None) for each in now.fields])
        now = stage(m, advance, "distance", now, drop=("fields", "reach"),
                    distances=[each[:bits] for each in distances])

        # Align. What is moved out of the window altogether is less than a half.
        steps = (window - 1).bit_length()
        shifts = [1 << k for k in reversed(range(steps))]
        half = (steps + 1) // 2
        values, sticky, rest, beyond = [], [], [], []
        for k in range(lanes):
            value, distance = now.values[k], now.distances[k]
            some = value.any() | now.below[k]
            value, lost = shift_right_sticky(m, f"coarse{k}", Cat(C(0, window - kept), value), distance, shifts[:half],
                                             fill=C(0, 1), sticky=now.below[k])
            values.append(value & ~distance[steps:].any().replicate(window))
            sticky.append(lost)
            rest.append(distance[:steps - half])
            beyond.append((distance[-1] & some) | now.infinite[k])
        now = stage(m, advance, "coarse", now, drop=("distances", "below", "infinite"), values=values, sticky=sticky,
                    rest=rest, beyond=beyond)
        values, sticky = [], []
        for k in range(lanes):
            value, lost = shift_right_sticky(m, f"fine{k}", now.values[k], now.rest[k], shifts[half:], fill=C(0, 1),
                                             sticky=now.sticky[k])
            values.append(value)
            sticky.append(lost)
        now = stage(m, advance, "fine", now, drop=("rest",), values=values, sticky=sticky)

        # Round, saturate and negate in one addition: -(q + up) is ~q + 1 - up.
        magnitudes, ups, beyond = [], [], []
        for k in range(lanes):
            value, negative, number = now.values[k], now.negative[k], ~now.nan[k]
            q, above = value[1:1 + MAGNITUDE], value[1 + MAGNITUDE:].any() | now.beyond[k]
            up = value[0] & (q[0] | now.sticky[k])
            full = above | (q.all() & up)
            magnitudes.append(Cat((q | full.replicate(MAGNITUDE)) ^ negative.replicate(MAGNITUDE), negative)
                              & number.replicate(WIDTH))
            ups.append(((up & ~full) ^ negative) & number)
            beyond.append(full & number)
        now = stage(m, advance, "limit", now, drop=("values", "sticky", "negative"), magnitudes=magnitudes, ups=ups,
                    nan=Cat(now.nan).any(), beyond=Cat(beyond).any())
        codes = packed_sums(m, "code", [
            (magnitude, C(0, WIDTH), up) for magnitude, up in zip(now.magnitudes, now.ups)])
        self.emit(m, advance, now.valid, codes=Cat(each[:WIDTH] for each in codes), scale=now.scale)
        self.report(m, invalid=advance & now.valid & now.nan, overflow=advance & now.valid & now.beyond)
        return m


class IntDot(DotUnit):
    """Dot product of vectors of integers, summed over transfers and rounded to a float.

    A transfer adds the products of its lanes to a sum of 32 bits, exactly. With ``last`` the sum is scaled by both
    scales, which should be the same in all transfers of a sum, and rounded once, to nearest even; a zero is +0. Sums of
    up to 131,071 products fit, whatever they are; beyond, they wrap round. Source: numerics contract, section 13.

    Parameters
    ----------
    parameters : INT8DotParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (see `vector_layout`), ``first`` (start from 0), ``last`` (emit the new sum, which is kept).
    o : Out(stream)
        ``value`` (code of the result format).
    overflow : Out(1)
        Sticky: a sum was beyond the largest finite value.
    status_clear : In(1)
        Clears it.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers, also to the same sum: 1.
    """

    def __init__(self, parameters: INT8DotParameters) -> None:
        super().__init__(parameters, vector_layout(parameters.lanes))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        lanes, result = parameters.lanes, parameters.result
        advance = self.handshake(m)

        # Rows of bit products. The bits of a sign weigh less than nothing: with their products inverted, -x = ~x - 1,
        # all rows are unsigned, and the sum of a lane's rows is its product and a constant.
        excess = sum(2 << MAGNITUDE + k for k in range(MAGNITUDE))
        rows = []
        for a, b in zip(payload.a.codes, payload.b.codes):
            for k in range(WIDTH):
                flips = (1 << MAGNITUDE) - 1 if k == MAGNITUDE else 1 << MAGNITUDE
                row = Signal(WIDTH, name=f"row{len(rows)}")
                m.d.comb += row.eq((a & b[k].replicate(WIDTH)) ^ flips)
                rows.append(row)
        # The exponent of an emitted sum comes along: the field, less one, that belongs to its top bit.
        offset = SUM - 2 - 2 * SCALE_BIAS + result.bias - 1
        field = bits_of(offset, offset + 2 * ((1 << SCALE) - 1))
        scale = Signal(signed(field))
        m.d.comb += scale.eq(payload.a.scale + payload.b.scale + offset)
        now = None
        values = {"valid": self.i.valid, "first": payload.first, "last": payload.last, "field": scale}
        for level in range(3):
            apart = 1 << level
            # The bits of a row below the next one's lowest pass by.
            sums = packed_sums(m, f"rows{level}", [
                (Cat(low[apart:], C(0, apart)), high, None) for low, high in zip(rows[::2], rows[1::2])])
            rows = [Cat(low[:apart], each)[:WIDTH + 2 * apart] for low, each in zip(rows[::2], sums)]
            now = stage(m, advance, f"rows{level}", now, rows=rows, **values)
            rows, values = now.rows, {}

        # Add the lanes, a level of the tree a stage.
        for level in range((lanes - 1).bit_length()):
            sums = packed_sums(m, f"level{level}", [(x, y, None) for x, y in zip(rows[::2], rows[1::2])])
            sums += [Cat(each, C(0, 1)) for each in rows[2 * len(sums):]]
            now = stage(m, advance, f"level{level}", now, rows=sums)
            rows = now.rows
        total = Signal(signed(len(rows[0]) + 1))
        m.d.comb += total.eq(rows[0] - lanes * excess)
        now = stage(m, advance, "total", now, drop=("rows",), total=total)

        # Accumulate.
        held = Signal(signed(SUM))
        with m.If(advance & now.valid):
            m.d.sync += held.eq(sum_with_carry(Mux(now.first, 0, held).as_signed(), now.total, C(0, 1)))
        now = stage(m, advance, "sum", valid=now.valid, last=now.last, field=now.field)
        now, code, over = round_sum(m, advance, now, held, offset, result)
        self.emit(m, advance, now.valid, value=code)
        # The status is told a cycle later, off the critical path.
        lost = Signal()
        m.d.sync += lost.eq(advance & now.valid & over)
        self.report(m, overflow=lost)
        return m


class INT8Circuits:
    """Plain INT8 in the array: see `circuits`."""

    converter, cell = IntConverter, IntDot
    held = ("scale",)

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [payload.elements.as_value().eq(elements), payload.scale.eq(mode.scale)]

    @staticmethod
    def scale(m: Module, name: str, system: INT8System, magnitude: Value) -> Value:
        """Return the code of `golden.integer.scale_of`."""
        work = system.work
        parts = unpack(m, name, work, Cat(magnitude, C(0, 1)))
        shifts = [1 << k for k in reversed(range(work.mantissa.bit_length()))]
        value, taken, *_ = normalise(m, f"{name}_left", parts.significand, shifts)
        # Would it become one more than `TOP`?
        up = value[-1 - MAGNITUDE:-1].all() if work.mantissa >= MAGNITUDE else C(0, 1)
        offset = SCALE_BIAS + 1 - MAGNITUDE - work.bias
        wanted = Signal(signed(bits_of(offset - work.mantissa, offset + (1 << work.exponent))), name=f"{name}_wanted")
        code = Signal(SCALE, name=f"{name}_code")
        m.d.comb += [
            wanted.eq(parts.field + offset + up - Cat(reversed(taken))),
            code.eq(Mux(parts.zero | wanted[-1], 0, Mux(wanted > (1 << SCALE) - 1, (1 << SCALE) - 1, wanted))),
        ]
        return code
