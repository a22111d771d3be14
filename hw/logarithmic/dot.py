"""The dot product of logarithmic numbers, which multiplies by adding."""

from types import SimpleNamespace
from typing import Any

from amaranth import *

from ...golden.logarithmic import SCALE_BIAS, LNSDotParameters, product_table, weights
from .. import meanings
from ..pipeline import bits_of, stage
from ..rounding import round_sum
from ..trees import packed_sums, sum_products, sum_with_carry
from ..unit import DotUnit
from .layout import SCALE, vector_layout

__all__ = ["LNSDot"]


def _shifted_left(value: Any, shift: Value, places: int) -> Value:
    """Return value * 2**places if `shift` is set, else value, in as many bits as that takes."""
    return Mux(shift, Cat(C(0, places), value), Cat(value, C(0, places)))


class LNSDot(DotUnit):
    """Dot product of vectors of logarithmic numbers, summed over transfers and rounded to a float.

    A transfer adds the products of its lanes to the sum. A product is the sum of two logarithms; its remainder by gamma
    chooses a constant, which its quotient shifts. ``direct``: the shifted constants of all lanes are added. ``bins``:
    for each constant the shifted ones are added, and an emitted sum is made of the bins times their constants. There is
    no multiplier. What is beyond the accumulators saturates, transfer by transfer. With ``last`` the sum is scaled by
    both scales, which should be the same in all transfers of a sum, and rounded once, to nearest even; a zero is +0.

    Source: numerics contract, section 6; LNS-Madam (arXiv 2106.13914).

    Parameters
    ----------
    parameters : LNSDotParameters

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

    def __init__(self, parameters: LNSDotParameters) -> None:
        super().__init__(parameters, vector_layout(parameters.format, parameters.lanes))

    @property
    def meanings(self) -> dict[str, str]:
        return {
            "first": "start the sum from 0", "last": "emit the sum after this addition",
            "value": f"the sum, rounded: {meanings.numbers(self.parameters.result)}",
            "overflow": "sticky: a sum saturated, or was rounded beyond the largest finite value",
        } | meanings.of_operands(meanings.vector(self.parameters.format))

    def elaborate(self, platform: Any) -> Module:
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

    def _shifted(self, m: Module, advance: Value, now: SimpleNamespace) -> tuple[SimpleNamespace, list]:
        """Shift the constants; return the stage and the lanes' products, in units of 2**(lsb - fraction bits).

        A negative product is complemented: what is added for it is one too small.
        """
        parameters = self.parameters
        fmt, lanes, lsb = parameters.format, parameters.lanes, parameters.lsb
        low, width, table = fmt.gamma.bit_length() - 1, fmt.bits, parameters.table[0]
        size = max(table).bit_length()
        # The lowest `near` bits of the quotient shift at once. The first of these bits also takes part in the choice of
        # the constant: where gamma is 8, each bit of the constant is a function of four. The other bits of the quotient
        # choose a window of the sum. A window is as wide as a constant without its top bit. So a constant that begins
        # in one window ends in the next one.
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

    def _binned(self, m: Module, advance: Value, now: SimpleNamespace) -> tuple[SimpleNamespace, list]:
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
        rest: Any = {"rest": [each[:fine] for each in now.logarithms]} if fine else {}
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
    def _merged_bits(self) -> int:
        """Bits of the sum of all bins times their constants."""
        parameters = self.parameters
        return (sum(weights(parameters.constants, parameters.fraction))
                << (parameters.accumulator + parameters.below - 1)).bit_length() + 1

    def _merge(self, m: Module, advance: Value, now: SimpleNamespace, bins: list) -> tuple[SimpleNamespace, Any]:
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
