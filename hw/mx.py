"""OCP microscaling in hardware: the converter to MX blocks and the dot product of two of them."""

from amaranth import *
from amaranth.lib import data

from ..golden.formats import Fixed
from ..golden.mx import SCALE_BIAS, SCALE_NAN, ConverterParameters, DotParameters
from . import meanings
from .accumulator import SummingUnit
from .lfsr import LeapLFSR
from .multiplier import chunk_product, rows
from .pipeline import bits_of, stage
from .rounding import normalise, round_and_pack, shift_right_sticky, unpack, window_of
from .trees import largest, packed_sums, sum_products, sum_with_carry
from .unit import StreamUnit

__all__ = ["MXCircuits", "MXConverter", "MXDot", "block_layout"]


def block_layout(fmt):
    """Return the layout of one MX block: ``elements`` (codes, element 0 lowest) and ``scale`` (E8M0 code)."""
    width = fmt.element.bits if isinstance(fmt.element, Fixed) else fmt.element.width
    return data.StructLayout({"elements": data.ArrayLayout(width, fmt.block), "scale": 8})


class MXConverter(StreamUnit):
    """Converter from floating point to an MX format: one block per cycle.

    Finds the scale by its rule, rounds the elements divided by it, and saturates what is beyond the largest element.
    A block that holds an Inf or a NaN gets the NaN scale, and zeros as elements. Subnormal numbers count in full; the
    scale of an all-zero block has code 0. With stochastic rounding each transfer draws one random word per lane.
    Source: numerics contract, sections 2 and 5; OCP MX 1.0.

    Parameters
    ----------
    parameters : ConverterParameters

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

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its block.
    interval : int
        Cycles between transfers.
    """

    def __init__(self, parameters: ConverterParameters):
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.work.width, parameters.block)
        super().__init__({"elements": elements}, block_layout(parameters.format))

    @property
    def latency(self):
        return self.parameters.latency

    @property
    def meanings(self):
        p = self.parameters
        return {
            "i.elements": meanings.numbers(p.work), "o.elements": f"{meanings.numbers(p.element)}, to be scaled",
            "invalid": "sticky: a NaN came in, and its block is NaN",
            "overflow": "sticky: an Inf or a NaN came in, or a block was too large for the largest scale",
        } | meanings.scale(nan=True)

    def elaborate(self, platform):
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

        # The largest number, or rather the exponent that the rule gives it: a rule rounds up beyond a threshold, the
        # same in every power of two, so that of two numbers of one exponent either stands for the other.
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
            now = stage(m, advance, name, now, drop=("distances",), values=values, sticky=sticky,
                        **({"distances": rest} if len(rest[0]) else {}))

        # Round.
        noise = [None] * lanes
        if mode.kind == "stochastic":
            m.submodules.lfsr = random = LeapLFSR(seed=parameters.seed, lanes=lanes, bits=mode.bits)
            m.d.comb += random.draw.eq(advance & now.valid)
            words = [random.word(k) for k in range(lanes)]
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

    def _up(self, value, below):
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


class MXDot(SummingUnit):
    """Dot product of two MX blocks, added to a float sum.

    A transfer adds the exact dot product of its two blocks to one of the accumulators, with one rounding to nearest
    even; see `AccumulatorBank`. In each of block / lanes cycles, as many products as there are lanes are made as
    integers and added. A transfer is accepted with its last cycle, and the blocks must stay at the port until then, as
    a stream holds them. A NaN scale, or an element that is Inf or NaN, makes the sum NaN. Source: numerics contract,
    section 5; OCP MX 1.0.

    Parameters
    ----------
    parameters : DotParameters

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

    def __init__(self, parameters: DotParameters):
        super().__init__(parameters, {"a": block_layout(parameters.format), "b": block_layout(parameters.format_b)})

    @property
    def latency(self):
        return self.parameters.latency

    @property
    def interval(self):
        return self.parameters.block // self.parameters.lanes

    @property
    def meanings(self):
        p = self.parameters
        return meanings.scale(nan=True) | meanings.of_sums(p.accumulator) | {
            "a.elements": f"{meanings.numbers(p.format.element)}, to be scaled",
            "b.elements": f"{meanings.numbers(p.format_b.element)}, to be scaled",
            "invalid": "sticky: a sum was or became NaN",
        }

    def elaborate(self, platform):
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
        now = stage(m, advance, "product", now, drop=("a", "b"), products=products, signs=signs, nan=nan,
                    **({"places": places} if self.parameters.places else {}))

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

    def _element(self, m, name, element, code):
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

    def _shift(self, m, advance, now, shifts):
        """Shift the products up by the lowest bits of their places, in a stage of its own."""
        products = []
        for value, place in zip(now.products, now.places):
            for index, width in enumerate(shifts):
                value = Mux(place[index], Cat(C(0, width), value), Cat(value, C(0, width)))
            products.append(value)
        return stage(m, advance, "shifted", now, products=products,
                     places=[place[len(shifts):] for place in now.places])


def _worst(fmt):
    """Return the largest magnitude of an element of an MX format, in units of ``2**fmt.unit``."""
    if isinstance(fmt.element, Fixed):
        return 1 << (fmt.element.bits - 1)  # of the most negative number
    return int(fmt.magnitude.max / 2.0**fmt.unit)


def _product(m, a, b):
    """Return the product of two significands, in the bits of both together."""
    if len(a) == len(b) == 2:
        return chunk_product(a, b)
    # A row for each bit of the shorter significand.
    if len(a) < len(b):
        a, b = b, a
    return rows(m, a, b)[:len(a) + len(b)]


class MXCircuits:
    """Microscaling formats in the array: see `circuits`."""

    converter, cell = MXConverter, MXDot
    held = ()

    @staticmethod
    def convert(payload, elements, mode):
        return [payload.elements.as_value().eq(elements)]
