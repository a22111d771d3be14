"""Block floating point in hardware: the converter and the variable-precision dot product (fMAC)."""

from amaranth import *
from amaranth.lib import data

from ..golden.blockfloat import ConverterParameters, FMACParameters
from . import meanings
from .accumulator import SummingUnit
from .formats import group_layout
from .lfsr import LeapLFSR
from .multiplier import chunk_product
from .pipeline import bits_of, signals, stage
from .rounding import shift_right_sticky
from .trees import CHAIN, largest, packed_sums, sum_products, sum_with_carry
from .unit import StreamUnit

__all__ = ["BFPCircuits", "BFPConverter", "BFPFMAC"]


class BFPConverter(StreamUnit):
    """Converter from floating point to block floating point: one group per cycle.

    Finds the shared exponent, aligns the significands to it and rounds them to the precision of
    the transfer. Carry-outs saturate. A group above the exponent field, or one that holds an Inf
    or a NaN, gets the top exponent code and saturates every non-zero element; below the field it
    is aligned to the lowest exponent. A zero has no sign. Stochastic transfers, and only those,
    draw one random word per lane. Source: numerics contract, sections 2 and 3 (FAST).

    Parameters
    ----------
    parameters : ConverterParameters

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

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its group.
    interval : int
        Cycles between transfers.
    """

    def __init__(self, parameters: ConverterParameters):
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.work.width, parameters.group)
        super().__init__({"elements": elements, "precision": parameters.mantissa.bit_length(), "rounding": 2},
                         group_layout(parameters.format))

    @property
    def meanings(self):
        p = self.parameters
        return {
            "i.elements": meanings.numbers(p.work), "i.precision": meanings.PRECISION.format(p.mantissa),
            "rounding": meanings.ROUNDING,
            "invalid": "sticky: a NaN came in",
            "overflow": "sticky: a group was above the exponent field, or held an Inf or a NaN",
        } | meanings.group(p.format, "o.")

    def elaborate(self, platform):
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

        # Noise: the random word below the magnitude, or the one that nearest adds to it.
        m.submodules.lfsr = random = LeapLFSR(seed=parameters.seed, lanes=lanes, bits=parameters.random_bits)
        m.d.comb += random.draw.eq(advance & s4.valid & s4.stochastic)
        ups, noise = [], []
        for k in range(lanes):
            value = s4.values[k]
            q, guard, rest_bits = value[fraction:], value[fraction - 1], value[:fraction - 1]
            ups.append(s4.nearest & guard & (q[0] | rest_bits.any() | s4.sticky[k]))
            word = random.word(k)
            noise.append(Cat(C(1, 1), word) if parameters.corrected else word)
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


class BFPFMAC(SummingUnit):
    """Dot product of two BFP groups, of a precision chosen per transfer, added to a float sum.

    A transfer adds the exact dot product of its two groups to one of the accumulators, with one
    rounding to nearest even; see `AccumulatorBank`. ``serial``: the magnitudes are multiplied one
    pair of 2-bit chunks a cycle, in ceil(pa/2) * ceil(pb/2) cycles; the transfer is accepted with
    its last pass, and the groups must stay at the port until then, as a stream holds them.
    ``parallel``: one transfer a cycle, whatever the precisions. Source: numerics contract,
    section 3 (FAST).

    Parameters
    ----------
    parameters : FMACParameters

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

    def __init__(self, parameters: FMACParameters):
        group = group_layout(parameters.format)
        super().__init__(parameters, {"a": group, "b": group}, ("overflow",))

    @property
    def interval(self):
        return self.parameters.format.chunks**2 if self.parameters.serial else 1

    @property
    def meanings(self):
        p = self.parameters
        return meanings.of_operands(meanings.group(p.format)) | meanings.of_sums(p.accumulator)

    def elaborate(self, platform):
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

    def _one_chunk_pair(self, m, advance, common):
        """Sequence the passes of a transfer; return the stage and the products of its chunk pair.

        Pairs (c, d) come in falling order of c + d, so that the merged sum moves up by one chunk
        (times 4) from one c + d to the next.
        """
        payload, fmt = self.i.payload, self.parameters.format

        def top_chunk(name, precision):
            index = Signal(range(fmt.chunks), name=name)
            for chunk in range(1, fmt.chunks):
                with m.If(precision > 2 * chunk):
                    m.d.comb += index.eq(chunk)
            return index

        def chunk_of(group, index):
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

    def _all_chunk_pairs(self, m, advance, common):
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


class BFPCircuits:
    """Block floating point in the array: see `circuits`."""

    converter, cell = BFPConverter, BFPFMAC
    held = ("precision",)

    @staticmethod
    def convert(payload, elements, mode):
        return [payload.elements.as_value().eq(elements), payload.precision.eq(mode.precision),
                payload.rounding.eq(mode.rounding)]
