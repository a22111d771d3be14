"""The converter from floating point to block floating point."""

from typing import Any

from amaranth import *
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from ...base.checks import require_int
from ...golden.blockfloat import BFPConverterParameters
from ...golden.precision import NARROW, WIDE
from .. import meanings
from ..formats import group_layout
from ..pipeline import signals, stage
from ..rounding import shift_right_sticky
from ..trees import CHAIN, largest, packed_sums
from ..unit import StreamUnit
from ..words import lane_words

__all__ = ["BFPConverter"]


class BFPConverter(StreamUnit):
    """Converter from floating point to block floating point: one group per cycle.

    Finds the shared exponent, aligns the significands to it and rounds them to the precision of
    the transfer. Carry-outs saturate. A group above the exponent field, or one that holds an Inf
    or a NaN, gets the top exponent code and saturates every non-zero element; below the field it
    is aligned to the lowest exponent. A zero has no sign. Stochastic transfers, and only those,
    draw one random word per lane. Source: numerics contract, sections 2 and 3 (FAST).

    Parameters
    ----------
    parameters : BFPConverterParameters
    addressed : bool
        Whether the random words come from outside.
    counted : bool
        Whether it tells each group's magnitudes of 4 bits, truncated, for precision control. Then it has 4 bits or
        more, and 2 or more random ones.

    Members
    -------
    i : In(stream)
        ``elements`` (codes of the work format, element 0 lowest), ``precision`` (magnitude bits,
        clamped to 2 .. mantissa) and ``rounding`` (0 nearest even, 1 truncate, 2 stochastic).
    o : Out(stream)
        One group; see `group_layout`.
    invalid, overflow : Out(1)
        Sticky: a NaN came in; a group was above the exponent field.
    status_clear : In(1)
        Clears both.
    words : In(group * random_bits)
        If `addressed`: of the transfer that comes out `words_before` cycles later, lane 0 lowest.
    truncated : Out(4 * group)
        If `counted`: of the transfer that comes out `words_before` cycles later, if its precision is 2 or 4.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its group.
    interval : int
        Cycles between transfers.
    """

    words_before = 3

    def __init__(self, parameters: BFPConverterParameters, addressed: bool = False, counted: bool = False) -> None:
        self.parameters, self.addressed, self.counted = parameters, addressed, counted
        elements = data.ArrayLayout(parameters.work.width, parameters.group)
        words: dict[str, Any] = {"words": In(parameters.group * parameters.random_bits)} if addressed else {}
        if counted:
            require_int("mantissa", parameters.mantissa, WIDE, 8)
            require_int("random_bits", parameters.random_bits, NARROW, 16)
            words["truncated"] = Out(WIDE * parameters.group)
        super().__init__({"elements": elements, "precision": parameters.mantissa.bit_length(), "rounding": 2},
                         group_layout(parameters.format), **words)

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return {
            "i.elements": meanings.numbers(p.work), "i.precision": meanings.PRECISION.format(p.mantissa),
            "rounding": meanings.ROUNDING,
            "invalid": "sticky: a NaN came in",
            "overflow": "sticky: a group was above the exponent field, or held an Inf or a NaN",
        } | meanings.group(p.format, "o.")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, work, lanes = parameters.format, parameters.work, parameters.group
        stochastic = parameters.roundings[2]
        mantissa, fraction = fmt.mantissa, stochastic.window
        window = mantissa + fraction

        advance = self.handshake(m)

        # Exponents are fields of the work format. All-subnormal groups may have exponents below
        # that of the smallest normal number: `left` places, so far as the group format reaches.
        lowest = max(1 - work.mantissa, fmt.emin + work.bias)
        left = max(1 - lowest, 0)

        # Take the elements apart. Of a significand, only the bits that a distance of zero puts
        # into the window are kept; whether there is anything below them is one more bit.
        keep = min(work.mantissa + 1, window + left)
        fields, significands, below, nonzero, negative, nan = [], [], [], [], [], []
        for k in range(lanes):
            code = payload.elements[k]
            field, rest = code[work.mantissa:-1], code[:work.mantissa]
            low, high = rest[:work.mantissa + 1 - keep], rest[work.mantissa + 1 - keep:]
            tail = Signal(name=f"tail{k}")
            any_fraction = Signal(name=f"fraction{k}")
            m.d.comb += [tail.eq(low.any() if len(low) else 0), any_fraction.eq(tail | high.any())]
            fields.append(field)
            significands.append(Cat(high, field.any()))
            below.append(tail)
            nonzero.append(field.any() | any_fraction)
            negative.append(code[-1])
            nan.append(field.all() & any_fraction)
        # An all-subnormal group may have an exponent below all fields: the leading one of all
        # fractions together tells how far below field 1.
        depth = Signal(range(max(left, 1) + 1))  # no signal has zero width
        fractions = [code[:work.mantissa] for code in payload.elements]
        m.d.comb += depth.eq(left)
        for place in reversed(range(1, left)):
            with m.If(Cat(each[-place] for each in fractions).any()):
                m.d.comb += depth.eq(place)
        precision = Signal.like(payload.precision)
        m.d.comb += precision.eq(Mux(payload.precision < 2, 2, Mux(payload.precision > mantissa, mantissa,
                                                                   payload.precision)))
        nearest = ~(payload.rounding[0] ^ payload.rounding[1])
        now = stage(m, advance, "split", valid=self.i.valid, fields=fields, significands=significands, below=below,
                    nonzero=nonzero, negative=negative, nan=Cat(nan).any(), depth=depth, precision=precision,
                    nearest=nearest, stochastic=payload.rounding == 2, best=fields, empty=~Cat(nonzero).any())
        width = work.exponent

        # Largest exponent.
        now, best = largest(m, advance, now)

        # The group's exponent: `reach` as a field of the work format, for the distances, which
        # counts `left` places more; `exponent` as a code of the group format.
        top = Signal(signed(max(width, left.bit_length()) + 1))
        m.d.comb += top.eq(Mux(best.any(), best, 1 - now.depth))
        floor, ceiling = fmt.emin + work.bias, fmt.emax + work.bias
        under, above = signals("under above")
        below = top < floor
        if floor >= 1 << width:  # so are all numbers, but an Inf or a NaN is above
            below = below & ~best.all()
        m.d.comb += [
            under.eq(now.empty | below),
            above.eq((top > ceiling) | best.all()),
        ]
        # A distance has all the bits that the shifters look at.
        steps = (window + left).bit_length()
        bits = max(max((1 << width) - 1 + left + mantissa, floor + left + mantissa).bit_length(), steps)
        reach = Signal(bits)
        m.d.comb += reach.eq(Mux(under, floor, top) + (left + mantissa) - now.precision)
        exponent = Signal(fmt.exponent)
        m.d.comb += exponent.eq(Mux(under, 0, Mux(above, ~C(0, fmt.exponent), top - floor)))
        s1 = stage(m, advance, "reach", now, drop=("best", "depth", "empty"), reach=reach, exponent=exponent,
                   above=above)

        # Distances: reach - max(field, 1). None is negative, but in groups that saturate anyway, so
        # the subtractions of all lanes can share carry chains with nothing between them.
        distances, apart = [], []
        together = max(CHAIN // bits, 1)
        for start in range(0, lanes, together):
            fields = [Cat(each[0] | ~each.any(), each[1:], C(0, bits - width))
                      for each in s1.fields[start:start + together]]
            difference = Signal(bits * len(fields), name=f"distance{start}")
            m.d.comb += difference.eq(s1.reach.replicate(len(fields)) - Cat(fields))
            for k in range(len(fields)):
                distances.append(difference[bits * k:][:steps])
                apart.append(difference[bits * k:][steps:bits].any())
        s2 = stage(m, advance, "distance", s1, drop=("fields", "reach"), distances=distances, apart=apart)

        # Align. What falls off matters to the nearest rounding alone.
        shifts = [1 << k for k in reversed(range(steps))]
        half = (len(shifts) + 1) // 2
        coarse, sticky = [], []
        for k in range(lanes):
            value = Cat(C(0, window + left - keep), s2.significands[k])
            value, lost = shift_right_sticky(m, f"coarse{k}", value, s2.distances[k], shifts[:half], fill=C(0, 1),
                                             sticky=s2.below[k])
            coarse.append(value & ~s2.apart[k].replicate(window + left))
            sticky.append(lost | (s2.apart[k] & s2.nonzero[k]))
        rest = steps - half
        s3 = stage(m, advance, "coarse", s2, drop=("significands", "below", "apart"), values=coarse, sticky=sticky,
                   distances=[each[:rest] for each in s2.distances])
        fine, sticky = [], []
        for k in range(lanes):
            value, lost = shift_right_sticky(m, f"fine{k}", s3.values[k], s3.distances[k], shifts[half:], fill=C(0, 1),
                                             sticky=s3.sticky[k])
            fine.append(value[:window])
            sticky.append(lost)
        s4 = stage(m, advance, "fine", s3, drop=("distances",), values=fine, sticky=sticky)

        if self.counted:
            # What a narrow magnitude lacks is among the bits below it.
            m.d.comb += self.truncated.eq(Cat(
                Mux(s4.precision[2], value[fraction:], value[fraction - (WIDE - NARROW):])[:WIDE]
                | (s4.above & nonzero).replicate(WIDE) for value, nonzero in zip(s4.values, s4.nonzero)))

        # Noise: the random word below the magnitude, or the one that nearest adds to it.
        words = lane_words(self, m, advance & s4.valid & s4.stochastic, seed=parameters.seed, lanes=lanes,
                           bits=parameters.random_bits)
        ups, noise = [], []
        for k in range(lanes):
            value = s4.values[k]
            q, guard, rest_bits = value[fraction:], value[fraction - 1], value[:fraction - 1]
            ups.append(s4.nearest & guard & (q[0] | rest_bits.any() | s4.sticky[k]))
            noise.append(Cat(C(1, 1), words[k]) if parameters.corrected else words[k])
        s5 = stage(m, advance, "noise", s4, drop=("sticky", "nearest", "stochastic"), ups=ups, noise=Cat(noise))
        with m.If(advance & ~s4.stochastic):
            m.d.sync += s5.noise.eq(0)
        sums = packed_sums(m, "rounded", [
            (s5.values[k], Cat(s5.noise[fraction * k:fraction * (k + 1)], s5.ups[k], C(0, mantissa - 1)), None)
            for k in range(lanes)])
        s6 = stage(m, advance, "rounded", s5, drop=("values", "ups", "noise"),
                   sums=[each[fraction:] for each in sums])

        # Saturate. A carry-out is the one bit above the precision, with nothing but zeros below.
        mask = Signal(mantissa)
        m.d.comb += mask.eq(Cat(C(3, 2), (s6.precision > bit for bit in range(2, mantissa))))
        elements = []
        for k in range(lanes):
            q = s6.sums[k]
            full = Signal(name=f"full{k}")
            magnitude = Signal(mantissa, name=f"magnitude{k}")
            m.d.comb += [
                full.eq((q & ~Cat(mask, C(0, 1))).any() | (s6.above & s6.nonzero[k])),
                magnitude.eq((q[:mantissa] | full.replicate(mantissa)) & mask),
            ]
            elements.append(Cat(magnitude, s6.negative[k] & magnitude.any()))
        self.emit(m, advance, s6.valid, elements=Cat(elements), exponent=s6.exponent, precision=s6.precision)
        self.report(m, invalid=advance & s6.valid & s6.nan, overflow=advance & s6.valid & s6.above)
        return m
