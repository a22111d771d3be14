"""posit<8,1> as a number system from outside the package: the converter and the cell."""

import itertools

from amaranth import *
from amaranth.lib import data
from narrowgauge.hw.pipeline import stage
from narrowgauge.hw.rounding import round_sum, shift_right_sticky, unpack
from narrowgauge.hw.trees import sum_with_carry
from narrowgauge.hw.unit import DotUnit, StreamUnit
from posit8 import BIAS, SUM, PositConverterParameters, PositDotParameters

__all__ = ["Posit8Circuits", "PositConverter", "PositDot", "vector_layout"]

WIDTH = 8
PRODUCT = 4 * BIAS + 2  # signed, in units of minpos squared


def vector_layout(lanes):
    """Return the layout of a vector: ``codes``, element 0 lowest."""
    return data.StructLayout({"codes": data.ArrayLayout(WIDTH, lanes)})


class PositConverter(StreamUnit):
    """Converter from floating point to posit<8,1>, to the nearest, a tie to the even code: one vector per cycle.

    Beyond maxpos a number saturates, and so does Inf. A number that is not zero does not become zero. NaN becomes 0.

    Parameters
    ----------
    parameters : PositConverterParameters

    Members
    -------
    i : In(stream)
        ``elements``: codes of the work format, element 0 lowest.
    o : Out(stream)
        ``codes``; see `vector_layout`.
    invalid, overflow : Out(1)
        Sticky: a NaN came in; an Inf came in, or a number beyond maxpos.
    status_clear : In(1)
        Clears both.
    """

    def __init__(self, parameters: PositConverterParameters):
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.work.width, parameters.lanes)
        super().__init__({"elements": elements}, vector_layout(parameters.lanes))

    def elaborate(self, platform):
        m = Module()
        advance = self.handshake(m)
        lanes = [self.element(m, advance, str(k), code) for k, code in enumerate(self.i.payload.elements)]
        now = stage(m, advance, "split", valid=self.i.valid)
        now = stage(m, advance, "shifted", now)
        codes, nan, beyond = (Cat(column) for column in zip(*lanes))
        self.emit(m, advance, now.valid, codes=codes)
        self.report(m, invalid=advance & now.valid & nan.any(), overflow=advance & now.valid & beyond.any())
        return m

    def element(self, m, advance, name, code):
        """Return the posit of one element, and whether it was NaN and beyond maxpos: two stages later."""
        work = self.parameters.work
        number = unpack(m, f"element{name}", work, code)
        fraction = Cat(C(0, max(5 - work.mantissa, 0)), number.significand[:-1])
        # Numbers from minpos to below maxpos are shifted: their exponents have 5 bits.
        exponent, above, below = (Signal(shape, name=f"{word}{name}") for word, shape in
                                  (("exponent", 5), ("above", 1), ("below", 1)))
        m.d.comb += [
            exponent.eq(number.field - work.bias), below.eq(number.field < work.bias - BIAS),
            above.eq((number.field >= work.bias + BIAS) | number.infinite | number.nan),
        ]
        beyond = (number.field > work.bias + BIAS) | fraction.any() | number.infinite
        now = stage(m, advance, f"split{name}", exponent=exponent, fraction=fraction[-5:], sticky=fraction[:-5].any(),
                    negative=number.negative, nan=number.nan, beyond=above & beyond & ~number.nan,
                    usual=~(above | below), maxpos=above & ~number.nan, minpos=below & ~number.zero)

        # A regime of one bit, its end, the exponent bit, the fraction: a longer regime moves the string down.
        small = now.exponent[-1]
        string = Cat(now.fraction, now.exponent[0], small, ~small)
        shifted, sticky = shift_right_sticky(m, f"string{name}", string, now.exponent[1:4] ^ small.replicate(3),
                                             (4, 2, 1), fill=~small, sticky=now.sticky)
        now = stage(m, advance, f"shifted{name}", now, drop=("exponent", "fraction"), string=shifted, sticky=sticky)

        # Round and negate in one addition: -(kept + up) is ~kept + 1 - up.
        kept = (now.string[1:] & now.usual.replicate(WIDTH - 1)) | Cat(now.minpos | now.maxpos,
                                                                       now.maxpos.replicate(WIDTH - 2))
        up = now.string[0] & (now.string[1] | now.sticky) & now.usual
        posit = Signal(WIDTH, name=f"posit{name}")
        m.d.comb += posit.eq(sum_with_carry(Cat(kept, C(0, 1)) ^ now.negative.replicate(WIDTH), C(0, WIDTH),
                                            up ^ now.negative))
        return posit, now.nan, now.beyond


class PositDot(DotUnit):
    """Dot product of vectors of posit<8,1>, summed over transfers and rounded to a float.

    A transfer adds the products of its lanes to a sum of 64 bits, exactly. With ``last`` the sum is rounded once, to
    nearest even; a zero is +0.

    Parameters
    ----------
    parameters : PositDotParameters

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
    """

    def __init__(self, parameters: PositDotParameters):
        super().__init__(parameters, vector_layout(parameters.lanes))

    def elaborate(self, platform):
        m = Module()
        result, payload = self.parameters.result, self.i.payload
        advance = self.handshake(m)
        values = [self.multiply(m, advance, str(k), a, b)
                  for k, (a, b) in enumerate(zip(payload.a.codes, payload.b.codes))]
        now = stage(m, advance, "magnitude", valid=self.i.valid, first=payload.first, last=payload.last)
        for name in ("apart", "product", "coarse", "fine", "signed"):
            now = stage(m, advance, name, now)

        # Add the lanes, a level of the tree a stage.
        for level in range((len(values) - 1).bit_length()):
            sums = [x + y for x, y in zip(values[::2], values[1::2])]
            now = stage(m, advance, f"level{level}", now, values=sums)
            values = [each.as_signed() for each in now.values]

        held = Signal(signed(SUM))
        with m.If(advance & now.valid):
            m.d.sync += held.eq(sum_with_carry(Mux(now.first, 0, held).as_signed(), values[0], C(0, 1)))
        # The exponent field, less one, that belongs to the top bit of a sum's magnitude.
        field = SUM - 2 - 2 * BIAS + result.bias - 1
        now = stage(m, advance, "sum", valid=now.valid, last=now.last, field=C(field, signed(field.bit_length() + 1)))
        now, code, over = round_sum(m, advance, now, held, field, result)
        self.emit(m, advance, now.valid, value=code)
        self.report(m, overflow=advance & now.valid & over)
        return m

    def multiply(self, m, advance, name, a, b):
        """Return the product of one lane, six stages later."""
        a_magnitude, b_magnitude = (Mux(code[-1], -code[:-1], code[:-1])[:WIDTH - 1] for code in (a, b))
        now = stage(m, advance, f"magnitude{name}", a=a_magnitude, b=b_magnitude, negative=a[-1] ^ b[-1])
        a_significand, a_place = self.take_apart(m, f"a{name}", now.a)
        b_significand, b_place = self.take_apart(m, f"b{name}", now.b)
        now = stage(m, advance, f"apart{name}", a_significand=a_significand, a_place=a_place,
                    b_significand=b_significand, b_place=b_place, negative=now.negative)
        now = stage(m, advance, f"product{name}", magnitude=now.a_significand * now.b_significand,
                    place=now.a_place + now.b_place, negative=now.negative)
        # The places of two posits are 4 * BIAS together at the most.
        coarse = (now.magnitude << (now.place[3:] << 3))[:PRODUCT - 1]
        now = stage(m, advance, f"coarse{name}", magnitude=coarse, place=now.place[:3], negative=now.negative)
        fine = (now.magnitude << now.place)[:PRODUCT - 1]
        now = stage(m, advance, f"fine{name}", magnitude=fine, negative=now.negative)
        value = Mux(now.negative, -now.magnitude, now.magnitude)[:PRODUCT].as_signed()
        return stage(m, advance, f"signed{name}", value=value).value

    def take_apart(self, m, name, magnitude):
        """Return the significand of a magnitude, and its place (combinational).

        They are the results of `posit8.parts`, the place in units of minpos. Zero has the significand 0.
        """
        significand, place = Signal(5, name=f"{name}_significand"), Signal(5, name=f"{name}_place")
        with m.Switch(magnitude):
            for bit, run in itertools.product((0, 1), range(1, WIDTH)):
                behind = max(WIDTH - 2 - run, 0)
                fraction = magnitude[:max(behind - 1, 0)]
                least = 2 * (run - 1 if bit else -run) - len(fraction) + BIAS
                if bit or run < WIDTH - 1:
                    end = str(1 - bit) if run < WIDTH - 1 else ""
                    with m.Case(str(bit) * run + end + "-" * behind):
                        m.d.comb += [
                            significand.eq(Cat(fraction, C(1, 1))),
                            place.eq(Mux(magnitude[behind - 1], least + 1, least) if behind else least),
                        ]
        return significand, place


class Posit8Circuits:
    """posit<8,1> in the array."""

    converter, cell = PositConverter, PositDot
    held = ()

    @staticmethod
    def convert(payload, elements, mode):
        return [payload.elements.as_value().eq(elements)]
