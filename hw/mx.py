"""OCP microscaling in hardware: the converter to MX blocks and the dot product of two of them."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..golden.formats import Fixed
from ..golden.mx import SCALE_BIAS, SCALE_NAN, ConverterParameters, DotParameters
from .accumulator import AccumulatorBank
from .blockfloat import chunk_product, largest, sum_products
from .floating import round_and_pack, unpack
from .lfsr import LeapLFSR
from .multiplier import rows
from .pipeline import normalise, packed_sums, shift_right_sticky, stage, sticky_status, sum_with_carry

__all__ = ["MXConverter", "MXDot", "block_layout"]


def block_layout(fmt):
    """Return the layout of one MX block: ``elements`` (codes, element 0 lowest) and ``scale`` (E8M0 code)."""
    width = fmt.element.bits if isinstance(fmt.element, Fixed) else fmt.element.width
    return data.StructLayout({"elements": data.ArrayLayout(width, fmt.block), "scale": 8})


class MXConverter(wiring.Component):
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

    interval = 1

    def __init__(self, parameters: ConverterParameters):
        self.parameters = parameters
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "elements": data.ArrayLayout(parameters.work.width, parameters.block),
            }))),
            "o": Out(stream.Signature(block_layout(parameters.format))),
            "invalid": Out(1),
            "overflow": Out(1),
            "status_clear": In(1),
        })

    @property
    def latency(self):
        return 10 + ((self.parameters.block - 1).bit_length() + 1) // 2

    def elaborate(self, platform):
        m = Module()
        parameters = self.parameters
        fmt, work, lanes, mode = parameters.format.magnitude, parameters.work, parameters.block, parameters.mode
        window = {"nearest": 1, "truncate": 0, "stochastic": mode.window}[mode.kind]
        size = fmt.mantissa + 1 + window  # bits that rounding looks at one by one
        advance = Signal()
        m.d.comb += [advance.eq(~self.o.valid | self.o.ready), self.i.ready.eq(advance)]

        # Take the elements apart.
        parts = [unpack(m, f"element{k}", work, code) for k, code in enumerate(self.i.payload.elements)]
        now = stage(m, advance, "split", valid=self.i.valid, significands=Cat(each.significand for each in parts),
                    fields=Cat(each.field for each in parts), negative=Cat(each.negative for each in parts),
                    infinite=Cat(each.infinite for each in parts).any(), nan=Cat(each.nan for each in parts).any())

        # Subnormal numbers are normalised as far as it matters: to where elements under the lowest scale become
        # subnormal themselves, and to where a largest number would have a scale above the lowest. A place is the
        # exponent field of the leading bit, with a top bit; without that top bit it is `reach` less, plus one.
        left = min(max(fmt.bias, 1 - fmt.emax), work.mantissa)
        reach = (1 << left.bit_length()) - 1
        shifts = [1 << k for k in reversed(range(left.bit_length()))]
        kept = max(size, fmt.mantissa + 2)
        width, length = work.exponent, work.mantissa + 1
        values, sticky, places, keys = [], [], [], []
        for k in range(lanes):
            significand = now.significands[length * k:length * (k + 1)]
            normal = significand[-1]
            value, taken, _, below = normalise(m, f"left{k}", significand, shifts, need=kept)
            value, below = Cat(C(0, max(kept - len(value), 0)), value[-kept:]), below | value[:-kept].any()
            few = Cat(~take for take in reversed(taken))
            place = Cat(Mux(normal, now.fields[width * k:width * (k + 1)], few)[:width], normal)
            up = self._up(value, below)
            places.append(place)
            keys.append(place if up is None else Cat(up, place))
            values.append(value[-size:])
            sticky.append(below | value[:-size].any())
        now = stage(m, advance, "left", now, drop=("significands", "fields"), values=Cat(values), sticky=Cat(sticky),
                    places=Cat(places), best=Cat(keys))

        # The largest number, or rather the exponent that the rule gives it: a rule rounds up beyond a threshold, the
        # same in every power of two, so that of two numbers of one exponent either stands for the other.
        now, best = largest(m, advance, now, len(keys[0]))
        up, best = (C(0, 1), best) if parameters.scale_rule == "floor" else (best[0], best[1:])
        offset = SCALE_BIAS - work.bias - fmt.emax
        wanted = Signal(signed(width + 3))
        m.d.comb += wanted.eq(sum_with_carry(Cat(best[:-1], C(0, 1)).as_signed(),
                                             Mux(best[-1], C(offset, signed(width + 2)),
                                                 C(offset + 1 - reach, signed(width + 2))), up))
        over, special = wanted >= SCALE_NAN, now.nan | now.infinite
        now = stage(m, advance, "scale", now, drop=("best", "infinite"), special=special, above=over | special,
                    scale=Mux(wanted < 0, 0, Mux(over, SCALE_NAN - 1, wanted))[:8])

        # What a place is above the exponent field of the element, less one: negative, it is how far the element is
        # below the smallest normal number.
        bits = width + 2
        offset = SCALE_BIAS - work.bias + fmt.bias - 1
        now = stage(m, advance, "base", now, scale=now.scale | now.special.replicate(8),
                    normal_base=(C(offset, signed(bits)) - now.scale)[:bits],
                    small_base=(C(offset + 1 - reach, signed(bits)) - now.scale)[:bits])
        places = [now.places[(width + 1) * k:(width + 1) * (k + 1)] for k in range(lanes)]
        tops = packed_sums(m, "top", [
            (Mux(place[-1], now.normal_base, now.small_base), Cat(place[:-1], C(0, bits - width)), None)
            for place in places])
        now = stage(m, advance, "top", now, drop=("places", "normal_base", "small_base"),
                    tops=Cat(top[:bits] for top in tops))
        steps = size.bit_length()
        fields = max(fmt.bias + max(fmt.emax, 0) - 1, 1).bit_length()
        distances, tops = [], []
        for k in range(lanes):
            top = now.tops[bits * k:bits * (k + 1)]
            low, high, negative = top[:steps], top[steps:-1], top[-1]
            apart = ~high.all() | ~low.any()
            distances.append(Mux(apart, ~C(0, steps), -low)[:steps] & negative.replicate(steps))
            tops.append(top[:fields] & ~negative.replicate(fields))
        now = stage(m, advance, "distance", now, distances=Cat(distances), tops=Cat(tops))

        # Align the subnormal ones.
        shifts = [1 << k for k in reversed(range(steps))]
        half = (steps + 1) // 2
        for name, part in (("coarse", shifts[:half]), ("fine", shifts[half:])):
            values, sticky, places = [], [], len(now.distances) // lanes
            rest = places - len(part)
            for k in range(lanes):
                value, lost = shift_right_sticky(m, f"{name}{k}", now.values[size * k:size * (k + 1)],
                                                 now.distances[places * k:places * (k + 1)], part, fill=C(0, 1),
                                                 sticky=now.sticky[k])
                values.append(value)
                sticky.append(lost)
            left = {"distances": Cat(now.distances[places * k:places * k + rest] for k in range(lanes))} if rest else {}
            now = stage(m, advance, name, now, drop=("distances",), values=Cat(values), sticky=Cat(sticky), **left)

        # Round.
        noise = [None] * lanes
        if mode.kind == "stochastic":
            m.submodules.lfsr = random = LeapLFSR(seed=parameters.seed, lanes=lanes, bits=mode.bits)
            m.d.comb += random.draw.eq(advance & now.valid)
            words = [random.words[mode.bits * k:mode.bits * (k + 1)] for k in range(lanes)]
            noise = [Cat(C(1, 1), word) if mode.corrected else word for word in words]
        packed = [round_and_pack(m, fmt, mode, now.values[size * k:size * (k + 1)],
                                 now.tops[fields * k:fields * (k + 1)], sticky=now.sticky[k], noise=noise[k])
                  for k in range(lanes)]
        now = stage(m, advance, "rounded", now, drop=("values", "sticky", "tops"),
                    magnitudes=Cat(each.magnitude for each in packed), over=Cat(each.over for each in packed))

        # Saturate.
        magnitude = fmt.width - 1
        elements = []
        for k in range(lanes):
            code = Signal(magnitude, name=f"saturated{k}")
            m.d.comb += code.eq(Mux(now.over[k], fmt.max_code, now.magnitudes[magnitude * k:magnitude * (k + 1)]))
            sign = now.negative[k]
            if isinstance(parameters.element, Fixed):
                element = ((Cat(code, C(0, 1)) ^ sign.replicate(magnitude + 1)) + sign)[:magnitude + 1]
            else:
                element = Cat(code, sign)
            elements.append(element & ~now.special.replicate(magnitude + 1))
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(now.valid),
                self.o.payload.elements.as_value().eq(Cat(elements)),
                self.o.payload.scale.eq(now.scale),
            ]
        sticky_status(m, self.invalid, advance & now.valid & now.nan, self.status_clear)
        sticky_status(m, self.overflow, advance & now.valid & now.above, self.status_clear)
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
