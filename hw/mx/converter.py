"""The converter from floating point to MX blocks."""

from typing import Any

from amaranth import *
from amaranth.lib import data
from amaranth.lib.wiring import In

from ...golden.formats import Fixed
from ...golden.mx import SCALE_NAN, MXConverterParameters
from .. import meanings
from ..pipeline import stage
from ..rounding import normalise, round_and_pack, shift_right_sticky, unpack, window_of
from ..trees import largest, packed_sums, sum_with_carry
from ..unit import StreamUnit
from ..words import lane_words
from .layout import block_layout

__all__ = ["MXConverter"]


class MXConverter(StreamUnit):
    """Converter from floating point to an MX format: one block per cycle.

    Finds the scale by its rule, rounds the elements divided by it, and saturates what is beyond the largest element.
    A block that holds an Inf or a NaN gets the NaN scale, and zeros as elements. Subnormal numbers count in full; the
    scale of an all-zero block has code 0. With stochastic rounding each transfer draws one random word per lane.
    Source: numerics contract, sections 2 and 5; OCP MX 1.0.

    Parameters
    ----------
    parameters : MXConverterParameters
    addressed : bool
        Whether the random words come from outside.

    Members
    -------
    i : In(stream)
        ``elements`` (codes of the work format, element 0 lowest).
    o : Out(stream)
        One block; see `block_layout`.
    invalid, overflow : Out(1)
        Sticky: a NaN came in; an Inf or a NaN came in, or a scale above the largest was wanted.
    status_clear : In(1)
        Clears both.
    words : In(block * random_bits)
        If `addressed`: of the transfer that comes out `words_before` cycles later, lane 0 lowest.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its block.
    interval : int
        Cycles between transfers.
    """

    words_before = 2

    def __init__(self, parameters: MXConverterParameters, addressed: bool = False) -> None:
        self.parameters, self.addressed = parameters, addressed
        elements = data.ArrayLayout(parameters.work.width, parameters.block)
        words: dict[str, Any] = {"words": In(parameters.block * parameters.random_bits)} if addressed else {}
        super().__init__({"elements": elements}, block_layout(parameters.format), **words)

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return {
            "i.elements": meanings.numbers(p.work), "o.elements": f"{meanings.numbers(p.element)}, to be scaled",
            "invalid": "sticky: a NaN came in, and its block is NaN",
            "overflow": "sticky: an Inf or a NaN came in, or a block was too large for the largest scale",
        } | meanings.scale(nan=True)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters = self.parameters
        fmt, work, lanes, mode = parameters.format.magnitude, parameters.work, parameters.block, parameters.mode
        size = fmt.mantissa + 1 + window_of(mode)  # bits that rounding looks at one by one
        advance = self.handshake(m)

        # Subnormal numbers are normalised as far as it matters: to where elements under the lowest scale become
        # subnormal themselves, and to where a largest number would have a scale above the lowest.
        left = min(max(fmt.bias, 1), work.mantissa)
        reach = (1 << left.bit_length()) - 1
        shifts = [1 << k for k in reversed(range(left.bit_length()))]
        kept = max(size, fmt.mantissa + 2)

        # Take the elements apart. Of a significand, only bits that may be kept then go further.
        width, length = work.exponent, min(work.mantissa + 1, kept + reach)
        parts = [unpack(m, f"element{k}", work, code) for k, code in enumerate(self.i.payload.elements)]
        now = stage(m, advance, "split", valid=self.i.valid,
                    significands=[each.significand[-length:] for each in parts],
                    below=[each.significand[:-length].any() for each in parts],
                    fields=[each.field for each in parts], negative=[each.negative for each in parts],
                    infinite=Cat(each.infinite for each in parts).any(), nan=Cat(each.nan for each in parts).any())

        # A place is the exponent field of the leading bit, in two's complement with the sign inverted, which leaves
        # the order as it is and makes a zero the least: of a subnormal number, 1 less the places it was moved.
        values, sticky, places, keys = [], [], [], []
        for k in range(lanes):
            significand = now.significands[k]
            normal = significand[-1]
            value, taken, _, below = normalise(m, f"left{k}", significand, shifts, need=kept)
            below = below | value[:-kept].any() | now.below[k]
            value = Cat(C(0, max(kept - len(value), 0)), value[-kept:])
            moved = Cat(reversed(taken))
            below_zero = Signal(name=f"below_zero{k}")
            m.d.comb += below_zero.eq(moved[1:].any())
            small = Cat(~moved[0], (moved[bit] ^ moved[1:bit].any() for bit in range(1, len(moved))))
            place = Cat(Mux(normal, now.fields[k], Cat(small, below_zero.replicate(width - len(small)))),
                        normal | ~below_zero)
            up = self._up(value, below)
            places.append(place)
            keys.append(place if up is None else Cat(up, place))
            values.append(value[-size:])
            sticky.append(below | value[:-size].any())
        now = stage(m, advance, "left", now, drop=("significands", "below", "fields"), values=values, sticky=sticky,
                    places=places, best=keys)

        # Find the exponent that the rule gives the largest number. A rule rounds up beyond a threshold, which is the
        # same in every power of two. So two numbers of one exponent that round alike need not be told apart.
        now, best = largest(m, advance, now, levels=1)
        up, best = (C(0, 1), best) if parameters.scale_rule == "floor" else (best[0], best[1:])
        offset = -1 << width  # of places; the biases of the work format and of the scale are the same
        lowest = C(offset - fmt.emax, signed(width + 2))
        wanted = Signal(signed(width + 3))
        m.d.comb += wanted.eq(sum_with_carry(Cat(best, C(0, 1)).as_signed(), lowest, up))
        over, special = wanted >= SCALE_NAN, now.nan | now.infinite
        now = stage(m, advance, "scale", now, drop=("best", "infinite"), special=special, above=over | special,
                    scale=Mux(wanted < 0, 0, Mux(over, SCALE_NAN - 1, wanted))[:8])

        # What a place is above the exponent field of the element, less one: negative, it is how far the element is
        # below the smallest normal number.
        bits = width + 2
        now = stage(m, advance, "base", now, scale=now.scale | now.special.replicate(8),
                    base=(C(offset + fmt.bias - 1, signed(bits)) - now.scale)[:bits])
        tops = packed_sums(m, "top", [(now.base, Cat(place, C(0, 1)), None) for place in now.places])
        now = stage(m, advance, "top", now, drop=("places", "base"), tops=[top[:bits] for top in tops])
        steps = size.bit_length()
        fields = max(fmt.bias + fmt.emax - 1, 1).bit_length()
        distances, tops = [], []
        for top in now.tops:
            low, high, negative = top[:steps], top[steps:-1], top[-1]
            apart = ~high.all() | ~low.any()
            distances.append(Mux(apart, ~C(0, steps), -low)[:steps] & negative.replicate(steps))
            tops.append(top[:fields] & ~negative.replicate(fields))
        now = stage(m, advance, "distance", now, distances=distances, tops=tops)

        # Align the subnormal ones.
        shifts = [1 << k for k in reversed(range(steps))]
        half = (steps + 1) // 2
        for name, part in (("coarse", shifts[:half]), ("fine", shifts[half:])):
            values, sticky = [], []
            for k in range(lanes):
                value, lost = shift_right_sticky(m, f"{name}{k}", now.values[k], now.distances[k], part, fill=C(0, 1),
                                                 sticky=now.sticky[k])
                values.append(value)
                sticky.append(lost)
            rest = [each[:-len(part)] for each in now.distances]
            later: dict[str, Any] = {"distances": rest} if len(rest[0]) else {}
            now = stage(m, advance, name, now, drop=("distances",), values=values, sticky=sticky, **later)

        # Round.
        noise = [None] * lanes
        if mode.kind == "stochastic":
            words = lane_words(self, m, advance & now.valid, seed=parameters.seed, lanes=lanes, bits=mode.bits)
            noise = [Cat(C(1, 1), word) if mode.corrected else word for word in words]
        packed = [round_and_pack(m, fmt, mode, now.values[k], now.tops[k], sticky=now.sticky[k], noise=noise[k])
                  for k in range(lanes)]
        now = stage(m, advance, "rounded", now, drop=("values", "sticky", "tops"),
                    magnitudes=[each.magnitude for each in packed], over=[each.over for each in packed])

        # Saturate.
        magnitude = fmt.width - 1
        elements = []
        for k in range(lanes):
            code = Signal(magnitude, name=f"saturated{k}")
            m.d.comb += code.eq(Mux(now.over[k], fmt.max_code, now.magnitudes[k]))
            sign = now.negative[k]
            if isinstance(parameters.element, Fixed):
                element = ((Cat(code, C(0, 1)) ^ sign.replicate(magnitude + 1)) + sign)[:magnitude + 1]
            else:
                element = Cat(code, sign)
            elements.append(element & ~now.special.replicate(magnitude + 1))
        self.emit(m, advance, now.valid, elements=Cat(elements), scale=now.scale)
        self.report(m, invalid=advance & now.valid & now.nan, overflow=advance & now.valid & now.above)
        return m

    def _up(self, value: Value, below: Value) -> Value | None:
        """Return whether the scale rule rounds this normalised significand up; None where it never does."""
        rule, fmt = self.parameters.scale_rule, self.parameters.format.magnitude
        if rule == "floor":
            return None
        if rule == "ceil":
            above = value[:-1].any() | below
        elif rule == "even":
            above = value[-fmt.mantissa - 2:-1].all()
        else:
            fraction, rest = value[-fmt.mantissa - 1:-1], value[:-fmt.mantissa - 1].any() | below
            limit = fmt.max_code & ((1 << fmt.mantissa) - 1)
            above = (fraction > limit) | ((fraction == limit) & rest)
        return above & value[-1]
