"""Logarithmic numbers in hardware: converter, decoder, and the dot product that multiplies by adding."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data

from ..golden.logarithmic import (
    SCALE_BIAS,
    SCALE_MAX,
    SCALE_MIN,
    ConverterParameters,
    DecoderParameters,
    DotParameters,
    powers,
    product_table,
    weights,
)
from ..golden.rounding import NEAREST
from . import meanings
from .log2 import Level
from .pipeline import bits_of, stage
from .rounding import round_and_pack, round_sum, shift_right_sticky, unpack
from .trees import largest, packed_sums, sum_products, sum_with_carry
from .unit import StreamUnit

__all__ = ["LNSCircuits", "LNSConverter", "LNSDecoder", "LNSDot", "vector_layout"]

SCALE = 8  # bits of a scale's code


def vector_layout(fmt, lanes):
    """Return the layout of numbers under one scale: ``codes`` (element 0 lowest) and ``scale`` (exponent + 127)."""
    return data.StructLayout({"codes": data.ArrayLayout(fmt.bits, lanes), "scale": SCALE})


class LNSConverter(StreamUnit):
    """Converter from floating point to logarithmic numbers: one vector per cycle.

    Each logarithm is rounded to nearest, exactly. The scale is the least under which the vector's largest magnitude
    fits, or the one given with the transfer, for a scale of more than a vector. What is too large saturates, what
    rounds to the logarithm 0 or below is zero, without a sign. Inf and NaN become the largest number with their sign;
    for the scale they count as numbers of the exponent above the largest. Source: numerics contract, section 6.

    Parameters
    ----------
    parameters : ConverterParameters

    Members
    -------
    i : In(stream)
        ``elements`` (codes of the work format, element 0 lowest), ``scale`` (exponent + 127), ``given`` (use it).
    o : Out(stream)
        ``codes``, ``scale``; see `vector_layout`.
    invalid, overflow : Out(1)
        Sticky: a NaN came in; an Inf or a NaN came in, or a number was too large for its scale.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    def __init__(self, parameters: ConverterParameters):
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.work.width, parameters.lanes)
        super().__init__({"elements": elements, "scale": SCALE, "given": 1},
                         vector_layout(parameters.format, parameters.lanes))

    @property
    def meanings(self):
        p = self.parameters
        return {
            "elements": meanings.numbers(p.work), "given": "1: take the scale that came in, 0: find the vector's own",
            "invalid": "sticky: a NaN came in",
            "overflow": "sticky: an Inf or a NaN came in, or a number was too large for its scale",
        } | meanings.scale("i.scale") | meanings.vector(p.format, "o.")

    def elaborate(self, platform):
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, work, lanes = parameters.format, parameters.work, parameters.lanes
        low = fmt.gamma.bit_length() - 1
        advance = self.handshake(m)

        # Logarithms of the elements, counted from the exponent below the least that matters: numbers below the lowest
        # scale are zeros.
        level = Level(work, fmt.gamma, SCALE_MIN)
        parts = [unpack(m, f"element{k}", work, code) for k, code in enumerate(payload.elements)]
        now = stage(m, advance, "split", valid=self.i.valid, given=payload.given, scale=payload.scale,
                    significands=[each.significand for each in parts], fields=[each.field for each in parts],
                    negative=[each.negative for each in parts],
                    special=[each.infinite | each.nan for each in parts], nan=Cat(each.nan for each in parts).any())
        found = [level.find(m, f"level{k}", now.significands[k], now.fields[k], now.special[k]) for k in range(lanes)]
        now = stage(m, advance, "found", now, drop=("significands", "fields"), found=found)
        now = stage(m, advance, "level", now, drop=("found",),
                    best=[level.round(m, f"level{k}", each) for k, each in enumerate(now.found)])
        now = SimpleNamespace(**vars(now), levels=now.best)
        now, best = largest(m, advance, now, levels=1)

        # The least scale, and what to take off the levels for the one that is used.
        octaves = (fmt.top + 1) >> low
        least = 1 - octaves + level.base + SCALE_BIAS
        size = max(level.width + 3, bits_of(least, least + (1 << level.width - low) - 1))
        wanted = Signal(signed(size))
        m.d.comb += wanted.eq(best[low:] + least)
        top = SCALE_MAX + SCALE_BIAS
        own = Mux(wanted < 0, 0, Mux(wanted > top, top, wanted))[:SCALE]
        if least > 0:  # the least number of the format wants more than the lowest scale, which is that of zeros
            own = Mux(best.any(), own, 0)
        now = stage(m, advance, "scale", now, drop=("best", "given"), scale=Mux(now.given, now.scale, own))
        high = level.width - low
        bits = max(high, SCALE, (abs(level.base) + SCALE_BIAS).bit_length(), fmt.bits - 1 - low) + 2
        offset = Signal(signed(bits))
        m.d.comb += offset.eq(SCALE_BIAS + level.base - now.scale)
        now = stage(m, advance, "offset", now, offset=offset)
        sums = packed_sums(m, "octave", [
            (now.offset.as_unsigned(), Cat(each[low:], C(0, bits - high)), None) for each in now.levels])
        rest = {"remainders": [each[:low] for each in now.levels]} if low else {}
        now = stage(m, advance, "octave", now, drop=("levels", "offset"), octaves=[each[:bits] for each in sums],
                    some=[each.any() for each in now.levels], **rest)

        # Clip.
        codes, above = [], []
        for k in range(lanes):
            octave = now.octaves[k]
            t = Cat(now.remainders[k] if low else (), octave)[:fmt.bits - 1]
            beyond = (octave[fmt.bits - 1 - low:-1].any() & ~octave[-1]) & now.some[k] | now.special[k]
            zero = (octave[-1] | ~now.some[k]) & ~now.special[k]
            code = Signal(fmt.bits - 1, name=f"code{k}")
            m.d.comb += code.eq((t | beyond.replicate(fmt.bits - 1)) & ~zero.replicate(fmt.bits - 1))
            codes.append(Cat(code, now.negative[k] & code.any()))
            above.append(beyond)
        self.emit(m, advance, now.valid, codes=Cat(codes), scale=now.scale)
        self.report(m, invalid=advance & now.valid & now.nan, overflow=advance & now.valid & Cat(above).any())
        return m


class LNSDecoder(StreamUnit):
    """Decoder from logarithmic numbers to floating point: one vector per cycle.

    Each number is rounded once, to nearest; its power of two is irrational, or exact. Subnormal results are made, what
    is too large becomes Inf, zeros are +0. Source: numerics contract, section 6.

    Parameters
    ----------
    parameters : DecoderParameters

    Members
    -------
    i : In(stream)
        ``codes``, ``scale``; see `vector_layout`.
    o : Out(stream)
        ``elements`` (codes of the result format, element 0 lowest).
    overflow : Out(1)
        Sticky: a number was beyond the largest finite value.
    status_clear : In(1)
        Clears it.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    latency = 4

    def __init__(self, parameters: DecoderParameters):
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.result.width, parameters.lanes)
        super().__init__(vector_layout(parameters.format, parameters.lanes), {"elements": elements}, ("overflow",))

    @property
    def meanings(self):
        return {
            "elements": meanings.numbers(self.parameters.result),
            "overflow": "sticky: a number was beyond the largest finite value",
        } | meanings.vector(self.parameters.format)

    def elaborate(self, platform):
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, result, lanes = parameters.format, parameters.result, parameters.lanes
        advance = self.handshake(m)

        # The quotient of the logarithm and the scale make the exponent field, less one. The remainder chooses the
        # significand, cut off behind the first bit that the result has no place for.
        p, low = result.mantissa + 1, fmt.gamma.bit_length() - 1
        offset = result.bias - SCALE_BIAS - 1
        ends = (offset, offset + (1 << SCALE) - 1 + (fmt.top >> low))
        width = bits_of(*ends)
        base = Signal(signed(width))
        m.d.comb += base.eq(payload.scale + offset)
        now = stage(m, advance, "base", valid=self.i.valid, base=base, codes=list(payload.codes))
        table = powers(fmt.gamma, p)
        tops, values, inexact, live, negative = [], [], [], [], []
        for k, code in enumerate(now.codes):
            t = code[:-1]
            top = Signal(signed(width), name=f"top{k}")
            m.d.comb += top.eq(now.base + t[low:])
            tops.append(top)
            values.append(Array(C(each, p + 1) for each in table)[t[:low]] if low else C(table[0], p + 1))
            inexact.append(t[:low].any() if low else C(0, 1))
            live.append(t.any())
            negative.append(code[-1])
        now = stage(m, advance, "power", now, drop=("base", "codes"), tops=tops, values=values, inexact=inexact,
                    live=live, negative=negative)

        # Below the smallest normal number, the significand moves down.
        values, tops, sticky = [], [], []
        far = min(-ends[0], p + 1)
        for k, (top, value, rest) in enumerate(zip(now.tops, now.values, now.inexact)):
            if far > 0:
                steps = far.bit_length()
                apart = Signal(width, name=f"apart{k}")
                m.d.comb += apart.eq(-top.as_signed())
                distance = (apart[:steps] | apart[steps:].any().replicate(steps)) & top[-1].replicate(steps)
                shifts = [1 << each for each in reversed(range(steps))]
                value, rest = shift_right_sticky(m, f"down{k}", value, distance, shifts, fill=C(0, 1), sticky=rest)
            values.append(value)
            sticky.append(rest)
            tops.append(top[:-1] & ~top[-1].replicate(width - 1))
        now = stage(m, advance, "down", now, drop=("inexact",), values=values, tops=tops, sticky=sticky)
        elements, over = [], []
        for k in range(lanes):
            packed = round_and_pack(m, result, NEAREST, now.values[k], now.tops[k], sticky=now.sticky[k])
            magnitude = Signal(result.width - 1, name=f"magnitude{k}")
            m.d.comb += magnitude.eq(Mux(packed.over, result.inf_code, packed.magnitude)
                                     & now.live[k].replicate(result.width - 1))
            elements.append(Cat(magnitude, now.negative[k] & magnitude.any()))
            over.append(packed.over & now.live[k])
        self.emit(m, advance, now.valid, elements=Cat(elements))
        # The status is told a cycle later, off the critical path.
        lost = Signal()
        m.d.sync += lost.eq(advance & now.valid & Cat(over).any())
        self.report(m, overflow=lost)
        return m


def _shifted_left(value, shift, places):
    """Return value * 2**places if `shift` is set, else value, in as many bits as that takes."""
    return Mux(shift, Cat(C(0, places), value), Cat(value, C(0, places)))


class LNSDot(StreamUnit):
    """Dot product of vectors of logarithmic numbers, summed over transfers and rounded to a float.

    A transfer adds the products of its lanes to the sum. A product is the sum of two logarithms; its remainder by gamma
    chooses a constant, which its quotient shifts. ``direct``: the shifted constants of all lanes are added. ``bins``:
    for each constant the shifted ones are added, and an emitted sum is made of the bins times their constants. There is
    no multiplier. What is beyond the accumulators saturates, transfer by transfer. With ``last`` the sum is scaled by
    both scales, which should be the same in all transfers of a sum, and rounded once, to nearest even; a zero is +0.

    Source: numerics contract, section 6; LNS-Madam (arXiv 2106.13914).

    Parameters
    ----------
    parameters : DotParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (see `vector_layout`), ``first`` (start from 0), ``last`` (emit the new sum, which is kept).
    o : Out(stream)
        ``value`` (code of the result format).
    overflow : Out(1)
        Sticky: a sum, or a bin, saturated, or a finite sum was beyond the largest finite value.
    status_clear : In(1)
        Clears it.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers, also to the same sum: 1.
    """

    def __init__(self, parameters: DotParameters):
        self.parameters = parameters
        vector = vector_layout(parameters.format, parameters.lanes)
        super().__init__({"a": vector, "b": vector, "first": 1, "last": 1}, {"value": parameters.result.width},
                         ("overflow",))

    @property
    def meanings(self):
        return {
            "first": "start the sum from 0", "last": "emit the sum after this addition",
            "value": f"the sum, rounded: {meanings.numbers(self.parameters.result)}",
            "overflow": "sticky: a sum saturated, or was rounded beyond the largest finite value",
        } | meanings.of_operands(meanings.vector(self.parameters.format))

    def elaborate(self, platform):
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, lanes, result = parameters.format, parameters.lanes, parameters.result
        advance = self.handshake(m)

        # Multiply: add the logarithms.
        t = fmt.bits - 1
        a, b = payload.a.codes, payload.b.codes
        sums = packed_sums(m, "logarithm", [(a[k][:t], b[k][:t], None) for k in range(lanes)])
        # The logarithm 0 stands for zero. Taken for one, its products are so small that they may be dropped anyway.
        small = fmt.top // fmt.gamma < parameters.lsb
        live = [C(1, 1) if small else a[k][:t].any() & b[k][:t].any() for k in range(lanes)]
        now = stage(m, advance, "added", valid=self.i.valid, logarithms=sums, live=live,
                    signs=[(a[k][-1] ^ b[k][-1]) & live[k] for k in range(lanes)], first=payload.first,
                    last=payload.last, a_exponent=payload.a.scale, b_exponent=payload.b.scale)

        # Back to integers, and add those. The exponent of an emitted sum comes along: the field, less one, that belongs
        # to the top bit of a magnitude of as many bits as the sum has.
        direct = parameters.accumulation == "direct"
        now, products = (self._shifted if direct else self._binned)(m, advance, now)
        drop = ("values", "ways") if direct else ("ones", "bins", "rest")
        bits = parameters.accumulator + parameters.below
        size = bits if direct else self._merged_bits
        unit = parameters.lsb - (parameters.table[1] if direct else parameters.fraction + parameters.below)
        offset = size - 2 + unit - 2 * SCALE_BIAS + result.bias - 1
        ends = (offset, offset + 2 * ((1 << SCALE) - 1))
        field = bits_of(*ends)
        now, sums, carry = sum_products(m, advance, now, products, now.signs, field, scale=C(offset, field),
                                        complemented=direct, drop=drop)

        # Accumulate. A sum is kept with the bits that tell whether it is beyond the accumulator; it is held there when
        # it is used.
        held, over = [], []
        for index, each in enumerate(sums):
            kept = Signal(signed(max(bits, len(each)) + 1), name=f"sum{index}")
            beyond, limited = Signal(name=f"beyond{index}"), Signal(signed(bits), name=f"limited{index}")
            sign = kept[-1]
            m.d.comb += [
                beyond.eq((kept[bits - 1:-1] ^ sign.replicate(len(kept) - bits)).any()),
                limited.eq(Mux(beyond, Cat((~sign).replicate(bits - 1), sign), kept[:bits])),
            ]
            with m.If(advance & now.valid):
                m.d.sync += kept.eq(sum_with_carry(Mux(now.first, 0, limited).as_signed(), each, carry))
            held.append(limited)
            over.append(beyond)
        now = stage(m, advance, "sum", valid=now.valid, last=now.last, field=now.field)
        saturated = now.valid & Cat(over).any()

        # Merge the bins.
        if not direct:
            now, held = self._merge(m, advance, now, held)
        now, code, over = round_sum(m, advance, now, held[0], offset, result)
        self.emit(m, advance, now.valid, value=code)
        # The status is told a cycle later, off the critical path.
        lost = Signal()
        m.d.sync += lost.eq(advance & ((now.valid & over) | saturated))
        self.report(m, overflow=lost)
        return m

    def _shifted(self, m, advance, now):
        """Shift the constants; return the stage and the lanes' products, in units of 2**(lsb - fraction bits).

        A negative product is complemented: what is added for it is one too small.
        """
        parameters = self.parameters
        fmt, lanes, lsb = parameters.format, parameters.lanes, parameters.lsb
        low, width, table = fmt.gamma.bit_length() - 1, fmt.bits, parameters.table[0]
        size = max(table).bit_length()
        # The low bits of the quotient, `near` of them, shift at once, the first one together with the choice of the
        # constant: where gamma is 8, each bit of that is a function of four. The other bits choose a window of the sum,
        # as wide as a constant without its top bit: so a constant that begins in it ends in the next one.
        near = max((size - 2).bit_length(), 2)
        span, coarse = 1 << near, range(1, near - 1)
        values, quotients, used = [], [], []
        for k, logarithm in enumerate(now.logarithms):
            remainder, quotient = logarithm[:low], Cat(logarithm[low:], C(0, near))[:max(width - low, near, 3)]
            value = Array(C(each << odd, size + 1) for odd in range(2) for each in table)[Cat(remainder, quotient[0])]
            values.append(_shifted_left(value, quotient[1], 2))
            quotients.append(quotient[2:])
            dropped = Cat(quotient == each for each in range(lsb)).any() if lsb else C(0, 1)
            used.append(now.live[k] & ~dropped)
        now = stage(m, advance, "fine", now, drop=("logarithms", "live"), values=values, quotients=quotients, used=used)

        # A bit of the product comes from one of two bits, or it is the sign; two bits for each window tell which.
        bits = int(product_table(parameters).max()).bit_length()
        windows = range(lsb >> near, (lsb + bits - 1 >> near) + 1)
        values, ways, length = [], [], size + span - 1
        for value, sign, quotient, used in zip(now.values, now.signs, now.quotients, now.used):
            for bit in coarse:
                value = _shifted_left(value, quotient[bit - 1], 2 << bit)
            values.append(value ^ sign.replicate(length))
            for window in windows:
                here, before = (used & (quotient[near - 2:] == each if each >= 0 else C(0, 1))
                                for each in (window, window - 1))
                rest = sign & ~here & ~before
                ways += [here | rest, before | rest]
        now = stage(m, advance, "window", now, drop=("values", "quotients", "used"), values=values, ways=ways)
        products = []
        for k in range(lanes):
            value = Cat(now.values[k], now.signs[k].replicate(2 * span))
            product = Signal(bits, name=f"product{k}")
            for bit in range(bits):
                window, place = divmod(bit + lsb, span)
                at = 2 * (len(windows) * k + window - windows[0])
                here, before = now.ways[at], now.ways[at + 1]
                m.d.comb += product[bit].eq(Mux(here, Mux(before, 1, value[place]), before & value[place + span]))
            products.append(product)
        return now, [products]

    def _binned(self, m, advance, now):
        """Shift ones; return the stage and for each bin the lanes' magnitudes, in units of bins."""
        parameters = self.parameters
        gamma, lanes, lsb = parameters.format.gamma, parameters.lanes, parameters.lsb
        spread = gamma // parameters.constants
        fine, low = spread.bit_length() - 1, gamma.bit_length() - 1
        ones, bins = [], []
        quotients = range(lsb, parameters.quotient + 1)
        for logarithm, live in zip(now.logarithms, now.live):
            ones.append(Cat(live & (logarithm[low:] == quotient) for quotient in quotients))
            bins.append(Cat(logarithm[fine:low] == index for index in range(parameters.constants)))
        rest = {"rest": [each[:fine] for each in now.logarithms]} if fine else {}
        now = stage(m, advance, "decoded", now, drop=("logarithms", "live"), ones=ones, bins=bins, **rest)
        products = [[] for _ in range(parameters.constants)]
        for k in range(lanes):
            one = now.ones[k]
            if fine:
                # gamma + rest, shifted.
                rest = now.rest[k]
                shifted = Signal(len(one) + low, name=f"shifted{k}")
                m.d.comb += shifted.eq(Cat(
                    Cat(one[place - bit] & (rest[bit] if bit < fine else 1) for bit in (*range(fine), low)
                        if 0 <= place - bit < len(one)).any() for place in range(len(one) + low)))
                one = shifted
            for index in range(parameters.constants):
                products[index].append(one & now.bins[k][index].replicate(len(one)))
        return now, products

    @property
    def _merged_bits(self):
        """Bits of the sum of all bins times their constants."""
        parameters = self.parameters
        return (sum(weights(parameters.constants, parameters.fraction))
                << (parameters.accumulator + parameters.below - 1)).bit_length() + 1

    def _merge(self, m, advance, now, bins):
        """Multiply the bins by their constants, as sums of shifted ones, and add them, a level of the tree a stage."""
        size = self._merged_bits
        terms = [(bins[index] << shift).as_signed() for index, shift in self.parameters.rows]
        level = 0
        while len(terms) > 1:
            added = [sum_with_carry(x, y, C(0, 1)) for x, y in zip(terms[::2], terms[1::2])]
            terms = added + terms[2 * len(added):]
            widths = [min(len(term), size) for term in terms]
            now = stage(m, advance, f"merged{level}", now, drop=("terms",) if level else (),
                        terms=Cat(term[:width] for term, width in zip(terms, widths)))
            starts = [sum(widths[:k]) for k in range(len(widths))]
            terms = [now.terms[start:start + width].as_signed() for start, width in zip(starts, widths)]
            level += 1
        whole = Signal(signed(size))
        m.d.comb += whole.eq(terms[0])
        return now, [whole]


class LNSCircuits:
    """Logarithmic numbers in the array: see `circuits`."""

    converter, cell = LNSConverter, LNSDot
    held = ("scale",)

    @staticmethod
    def convert(payload, elements, mode):
        return [payload.elements.as_value().eq(elements), payload.scale.eq(mode.scale), payload.given.eq(1)]
