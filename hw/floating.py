"""Floating-point units of any format: adder, multiplier, fused multiply-add, cast, accumulating multiply-add."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from ..golden.floating import AdderParameters, CastParameters, FMAParameters, MACParameters, MultiplierParameters
from . import meanings
from .accumulator import SummingUnit
from .lfsr import LeapLFSR
from .multiplier import Multiplier, block
from .pipeline import signals, stage
from .rounding import normalise, round_and_pack, round_sum, shift_right_sticky, unpack, window_of
from .unit import StreamUnit

__all__ = [
    "FloatAdder", "FloatCast", "FloatCircuits", "FloatFMA", "FloatMAC", "FloatMultiplier", "round_sum", "unpack",
]


def _text(multiplier):
    instance = block(**multiplier)
    return instance[1] if instance else ""


class _FloatUnit(StreamUnit):
    """What the pipelined units share: ports, cuts, and the way from an exact value to the result.

    Parameters
    ----------
    embedded : bool
        Whether the unit is a part of a pipeline, which moves it by a port ``enable`` in place of the handshake and has
        no use for its status. With stochastic rounding the operands have a flag ``nearest`` then, for those that are
        rounded to nearest even and draw no random word.

    Attributes
    ----------
    CUTS : tuple of str
        Places for registers, the most useful first: a unit of latency n has the first n.
    """

    def __init__(self, parameters, operands, result, *, embedded=False):
        self.parameters, self.result = parameters, result
        self.flush, self._window = parameters.subnormals == "flush", window_of(parameters.mode)
        self._embedded, self._choice = embedded, embedded and parameters.rounding == "stochastic"
        operands = operands | ({"nearest": 1} if self._choice else {})
        if embedded:
            super().__init__(operands, {"value": result.width}, status=(), enable=In(1))
        else:
            super().__init__(operands, {"value": result.width})

    @property
    def meanings(self):
        p = self.parameters
        return {
            "a": meanings.numbers(p.format), "b": meanings.numbers(p.format), "c": meanings.numbers(self.result),
            "subtract": "1: a - b, 0: a + b", "value": f"the result: {meanings.numbers(self.result)}",
            "invalid": "sticky: a result was NaN",
            "overflow": "sticky: a result of finite operands was beyond the largest finite value",
        }

    def elaborate(self, platform):
        m = Module()
        advance = self.handshake(m, self.enable if self._embedded else None)

        def cut(name, before=None, *, drop=(), **values):
            return stage(m, advance, name, before, drop=drop, registered=name in self.CUTS[:self.latency], **values)

        self._finish(m, advance, cut, *self._exact(m, advance, cut))
        return m

    def _multiplier(self):
        """Return what `Multiplier` and `block` take."""
        cuts = self.CUTS[:self.latency]
        return {"width": self.parameters.format.mantissa + 1, "before": "inputs" in cuts, "behind": "product" in cuts,
                "kind": self.parameters.multiplier}

    @property
    def text(self):
        """Verilog of the module that the unit instantiates."""
        return _text(self._multiplier()) if hasattr(self.parameters, "multiplier") else ""

    def _product(self, m, advance, a, b):
        """Return the product of two significands, behind the cuts ``inputs`` and ``product``."""
        m.submodules.multiplier = multiplier = Multiplier(**self._multiplier())
        m.d.comb += [multiplier.a.eq(a), multiplier.b.eq(b), multiplier.enable.eq(advance)]
        return multiplier.p

    def _finish(self, m, advance, cut, now, depth, limited):
        """Normalise, round, encode: what `_exact` of each unit returns.

        `now` has ``valid``; ``value``, ``top``, ``sticky`` and ``flip`` as for `round_and_pack`, but with the leading
        one anywhere; ``negative``; ``cancels``: a zero is +0; ``infinite`` and ``nan``. `depth` is the greatest number
        of leading zeros, `limited` tells whether subnormal results are to be expected.
        """
        fmt, mode = self.result, self.parameters.mode
        shifts = [1 << k for k in reversed(range(depth.bit_length()))]
        half = (len(shifts) + 1) // 2
        limit, free, before, need = None, C(0, 1), [], fmt.mantissa + 1 + self._window
        if limited:
            n = len(shifts)
            limit = now.top[:n] | now.top[n:].any().replicate(n) if len(now.top) > n else Cat(now.top, C(0, n))[:n]
        for name, part, later in (("coarse", shifts[:half], sum(shifts[half:])), ("fine", shifts[half:], 0)):
            value, taken, free, below = normalise(m, name, now.value, part, fill=now.flip, limit=limit, free=free,
                                                  need=need + later)
            values = {"limit": limit, "free": free} if limited else {}
            before = [*reversed(taken), *before]
            now = cut(name, now, value=value, sticky=now.sticky | below, taken=Cat(before) if before else C(0, 1),
                      **values)
            before = [now.taken] if before else []
            if limited:
                limit, free = now.limit, now.free

        noise = None
        if mode.kind == "stochastic":
            m.submodules.lfsr = random = LeapLFSR(seed=self.parameters.seed, lanes=1, bits=mode.bits)
            m.d.comb += random.draw.eq(advance & now.valid & ~now.nearest if self._choice else advance & now.valid)
            noise = Cat(C(1, 1), random.words) if mode.corrected else random.words
        # With flush, the shift may be greater than any field of a format of few exponents.
        size = max(len(now.top), len(now.taken)) + 1 if self.flush else len(now.top)
        top = Signal(signed(size) if self.flush else size)
        m.d.comb += top.eq(now.top - now.taken)
        packed = round_and_pack(m, fmt, mode, now.value, top, flush=self.flush, sticky=now.sticky, flip=now.flip,
                                noise=noise, nearest=now.nearest if self._choice else None)
        over = fmt.max_code if mode.kind == "truncate" else fmt.overflow_code
        infinity = fmt.overflow_code if fmt.inf_code is None else fmt.inf_code
        nan = fmt.max_code if fmt.nan_code is None else fmt.nan_code
        magnitude = Signal(fmt.width - 1)
        m.d.comb += magnitude.eq(Mux(now.nan, nan, Mux(now.infinite, infinity,
                                                       Mux(packed.over, over, packed.magnitude))))
        negative = now.negative & ~now.nan & ~(now.cancels & ~packed.nonzero & ~now.infinite)
        lost = packed.over & ~now.infinite if fmt.inf_code is not None else packed.over | now.infinite
        self.emit(m, advance, now.valid, value=Cat(magnitude, negative))
        if self._embedded:
            return
        # The status is told a cycle later, off the critical path.
        was_nan, was_lost = signals("was_nan was_lost")
        m.d.sync += [was_nan.eq(advance & now.valid & now.nan), was_lost.eq(advance & now.valid & lost & ~now.nan)]
        self.report(m, invalid=was_nan, overflow=was_lost)


class FloatAdder(_FloatUnit):
    """Sum or difference of two floating-point numbers, rounded once.

    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : AdderParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes) and ``subtract`` (a - b).
    o : Out(stream)
        ``value`` (code).
    invalid, overflow : Out(1)
        Sticky: a result was NaN; a result of finite operands was beyond the largest finite value.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    CUTS = ("out", "sum", "ordered", "fine", "aligned", "coarse")

    def __init__(self, parameters: AdderParameters, *, embedded=False):
        width = parameters.format.width
        super().__init__(parameters, {"a": width, "b": width, "subtract": 1}, parameters.format, embedded=embedded)

    def _exact(self, m, advance, cut):
        fmt, payload = self.parameters.format, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name], self.flush) for name in "ab")
        # The larger magnitude first: then no difference is negative.
        swap, apart = signals("swap apart")
        m.d.comb += [
            swap.eq(payload.a[:-1] < payload.b[:-1]),
            apart.eq(a.negative ^ b.negative ^ payload.subtract),
        ]
        distance = (Mux(swap, b.field, a.field) - Mux(swap, a.field, b.field))[:fmt.exponent]
        choice = {"nearest": payload.nearest} if self._choice else {}
        now = cut(
            "ordered", valid=self.i.valid, **choice, larger=Mux(swap, b.significand, a.significand),
            smaller=Mux(swap, a.significand, b.significand), top=Mux(swap, b.field, a.field), distance=distance,
            apart=apart, negative=Mux(swap, b.negative ^ payload.subtract, a.negative),
            infinite=a.infinite | b.infinite, nan=a.nan | b.nan | (a.infinite & b.infinite & apart))

        # Of two far apart, the difference has one leading zero at the most, so that one bit more than rounding
        # looks at is enough; of two nearer than that, nothing falls off.
        extra = self._window + 1
        width = fmt.mantissa + 1 + extra
        levels = min(width.bit_length(), fmt.exponent)
        far = now.distance[levels:].any()
        # The widest shift last: its mostly empty result is worked into the logic of the sum.
        value, sticky = shift_right_sticky(
            m, "smaller", Cat(C(0, extra), now.smaller), now.distance, [1 << k for k in range(levels)],
            fill=C(0, 1), sticky=C(0, 1))
        sticky = Mux(far, now.smaller.any(), sticky)
        now = cut("aligned", now, drop=("distance",), smaller=value & ~far.replicate(width), sticky=sticky)

        # What is lost of a subtrahend leaves the difference a little below: floor, and sticky.
        carry, total = now.apart & ~now.sticky, Signal(width + 1, name="total")
        m.d.comb += total.eq((Cat(carry, C(0, extra), now.larger, C(0, 1))
                              + Cat(carry, now.smaller ^ now.apart.replicate(width), now.apart))[1:])
        now = cut("sum", now, drop=("larger", "smaller", "apart"), value=total, cancels=now.apart, flip=C(0, 1))
        # The top bit is the carry. To the bottom of the number, a difference can only cancel without a sticky bit.
        return now, width, not self.flush


class FloatMultiplier(_FloatUnit):
    """Product of two floating-point numbers, rounded once.

    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : MultiplierParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes).
    o : Out(stream)
        ``value`` (code of the result format).
    invalid, overflow, status_clear
        As in `FloatAdder`.

    Attributes
    ----------
    latency, interval : int
        As in `FloatAdder`.
    """

    CUTS = ("out", "product", "fine", "coarse", "inputs")

    def __init__(self, parameters: MultiplierParameters):
        width = parameters.format.width
        super().__init__(parameters, {"a": width, "b": width}, parameters.result)

    def _exact(self, m, advance, cut):
        fmt, result, payload = self.parameters.format, self.result, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name], self.flush) for name in "ab")
        p = fmt.mantissa + 1
        # The product's top bit belongs to field a + b + offset of the result format. Where that may be below 1, zeros
        # on top make the shift to the right of a subnormal one to the left; what is then still below is nothing
        # but less than a half, or than the random window.
        offset = 1 - 2 * fmt.bias + result.bias
        above = min(max(1 - (2 + offset), 0), result.mantissa + 1 + self._window)
        limited = 2 + offset - (2 * p - 1) < 1
        if self.flush:
            above, limited = 0, False
        now = cut(
            "inputs", valid=self.i.valid, field=(a.field + b.field)[:fmt.exponent + 1],
            negative=a.negative ^ b.negative, infinite=a.infinite | b.infinite,
            nan=a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite))
        product = self._product(m, advance, a.significand, b.significand)
        low, high = 2 + offset + above - 1, 2 * ((1 << fmt.exponent) - 1) + offset + above - 1
        top = _top(m, now.field, offset + above - 1, low, high, self.flush)
        now = cut("product", now, drop=("field",), top=top, sticky=C(0, 1), flip=C(0, 1), cancels=C(0, 1))
        now.value = Cat(product, C(0, above))
        return now, 1 if self.flush else 2 * p - 1 + above, limited


def _top(m, field, offset, low, high, flush):
    """Return field + offset, which is from `low` to `high`: signed with `flush`, else not below 0."""
    shape = signed(max(low.bit_length(), high.bit_length(), 1) + 1)
    top = Signal(shape, name="sum_top")
    m.d.comb += top.eq(field + offset)
    if flush:
        return top
    return (top & ~top[-1].replicate(len(top)))[:-1] if low < 0 else top.as_unsigned()[:-1]


class FloatFMA(_FloatUnit):
    """Fused multiply-add: a * b + c with one rounding.

    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : FMAParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes of the operand format) and ``c`` (code of the accumulator format).
    o : Out(stream)
        ``value`` (code of the accumulator format).
    invalid, overflow, status_clear
        As in `FloatAdder`.

    Attributes
    ----------
    latency, interval : int
        As in `FloatAdder`.
    """

    CUTS = ("out", "sum", "product", "fine", "coarse", "aligned", "inputs")

    def __init__(self, parameters: FMAParameters):
        width, accumulator = parameters.format.width, parameters.accumulator
        super().__init__(parameters, {"a": width, "b": width, "c": accumulator.width}, accumulator)

    def _exact(self, m, advance, cut):
        fmt, result, payload = self.parameters.format, self.result, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name], self.flush) for name in "ab")
        c = unpack(m, "c", result, payload.c, self.flush)
        p, q = fmt.mantissa + 1, result.mantissa + 1
        offset = 1 - 2 * fmt.bias + result.bias

        # The window in which the sum is made: `above` bits in which the addend may stand clear of the product, with
        # room for what rounding looks at and for one leading zero; the product; and as many bits below it as a result
        # may reach that begins in the product's lowest leading place.
        above = q + self._window + 1
        lowest = 2 + offset - (2 * p - 1)  # field of the product's lowest bit, when both operands are subnormal
        both = lowest - (max(lowest - (q - 1), 1 - result.mantissa) - self._window - 1)
        below = max(q - p + self._window + 1, both, 0)
        if self.flush:
            below = max(q - (2 * p - 1) + self._window + 1, 0)
        width = above + 2 * p + below

        product_infinite = (a.infinite & ~b.zero) | (b.infinite & ~a.zero)
        product_negative, apart, nan = signals("product_negative apart nan")
        m.d.comb += [
            product_negative.eq(a.negative ^ b.negative),
            apart.eq(product_negative ^ c.negative),
            nan.eq(a.nan | b.nan | c.nan | (a.infinite & b.zero) | (a.zero & b.infinite)
                   | (product_infinite & c.infinite & apart)),
        ]
        # `top`: the field of the window's top bit, less one, if the product stands where it should. The addend's
        # distance from there is negative when it is so large that the product is nothing but a sticky bit.
        n = max(fmt.exponent + 1, result.exponent, abs(offset + above - 1).bit_length()) + 2
        top = Signal(signed(n))
        m.d.comb += top.eq(a.field + b.field + (offset + above - 1))
        now = cut(
            "inputs", valid=self.i.valid, top=top, addend=c.significand, field=c.field, none=a.zero | b.zero,
            product_negative=product_negative, apart=apart, nan=nan, infinite=product_infinite | c.infinite,
            infinite_negative=Mux(product_infinite, product_negative, c.negative))
        product = self._product(m, advance, a.significand, b.significand)

        distance = Signal(signed(n + 1))
        m.d.comb += distance.eq(now.top + 1 - now.field)
        alone = distance[-1] | now.none
        levels = min(width.bit_length(), n)
        far = distance[levels:-1].any() & ~alone
        shifts = [1 << k for k in range(levels)]  # the widest last: until then, the addend is short
        now = cut(
            "product", now, drop=("none", "field"), top=Mux(alone, now.field - 1, now.top)[:n - 1],
            addend=now.addend & ~far.replicate(q), gone=far & now.addend.any(),
            distance=distance[:levels] & ~alone.replicate(levels))
        value, sticky = shift_right_sticky(
            m, "addend", Cat(C(0, width - q), now.addend), now.distance, shifts, fill=C(0, 1), sticky=now.gone)
        now = cut("aligned", now, drop=("distance", "gone"), addend=value, sticky=sticky)
        if "aligned" in self.CUTS[:self.latency]:
            held = Signal.like(product, name="product_held", reset_less=True)
            with m.If(advance):
                m.d.sync += held.eq(product)
            product = held

        # product + addend, or product - addend: floor, where the addend has lost bits, and sticky. A negative
        # difference, which has lost none, is complemented; the one that it lacks is left to the rounding.
        borrow = now.apart & ~now.sticky
        total = Signal(width + 1)
        m.d.comb += total.eq((Cat(borrow, C(0, below), product, C(0, above + 1))
                              + Cat(borrow, now.addend ^ now.apart.replicate(width), now.apart))[1:])
        flip = total[-1]
        now = cut(
            "sum", now, drop=("addend", "apart", "product_negative", "infinite_negative"),
            value=total[:-1] ^ flip.replicate(width), flip=flip, cancels=now.apart,
            negative=Mux(now.infinite, now.infinite_negative, now.product_negative ^ flip))
        # With flush, the difference may be -1: all bits of its complement are 0. Else there are bits below it.
        return now, width if self.flush else width - 1, not self.flush


class FloatCast(_FloatUnit):
    """Conversion from one floating-point format to another, rounded once.

    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : CastParameters

    Members
    -------
    i : In(stream)
        ``a`` (code of the operand format).
    o : Out(stream)
        ``value`` (code of the result format).
    invalid, overflow, status_clear
        As in `FloatAdder`.

    Attributes
    ----------
    latency, interval : int
        As in `FloatAdder`.
    """

    CUTS = ("out", "fine", "coarse")

    def __init__(self, parameters: CastParameters):
        super().__init__(parameters, {"a": parameters.format.width}, parameters.result)

    def _exact(self, m, advance, cut):
        fmt, result = self.parameters.format, self.result
        a = unpack(m, "a", fmt, self.i.payload.a, self.flush)
        p, offset = fmt.mantissa + 1, result.bias - fmt.bias
        # As in the multiplier.
        above = min(max(1 - (1 + offset), 0), result.mantissa + 1 + self._window)
        limited = 1 + offset - (p - 1) < 1
        if self.flush:
            above, limited = 0, False
        low, high = offset + above, (1 << fmt.exponent) - 1 + offset + above - 1
        now = SimpleNamespace(
            valid=self.i.valid, value=Cat(a.significand, C(0, above)),
            top=_top(m, a.field, offset + above - 1, low, high, self.flush), sticky=C(0, 1), flip=C(0, 1),
            negative=a.negative, cancels=C(0, 1), infinite=a.infinite, nan=a.nan)
        return now, 0 if self.flush else p - 1 + above, limited


class FloatMAC(SummingUnit):
    """Accumulating multiply-add: the exact product of two numbers, added to a floating-point sum.

    One rounding per addition, to nearest even; a sum that is exactly zero is +0. See `AccumulatorBank` for the sums.
    Source: numerics contract, sections 1, 2 and 4.

    Parameters
    ----------
    parameters : MACParameters

    Members
    -------
    i : In(stream)
        ``a``, ``b`` (codes of the operand format), ``slot`` (which accumulator), ``first`` (start it from +0),
        ``last`` (emit its new sum; the accumulator keeps it).
    o : Out(stream)
        ``value`` (code of the accumulator format) and ``slot``.
    invalid : Out(1)
        Sticky: a sum was or became NaN.
    overflow : Out(1)
        Sticky: a finite sum, to which a finite product was added, became infinite.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its emitted sum.
    interval : int
        Cycles between transfers to different accumulators: 1.
    recurrence : int
        Cycles between transfers to the same accumulator, at the least.
    """

    def __init__(self, parameters: MACParameters):
        fmt = parameters.format
        self._multiplier = {"width": fmt.mantissa + 1, "before": True, "behind": True, "kind": parameters.multiplier}
        super().__init__(parameters, {"a": fmt.width, "b": fmt.width})

    @property
    def text(self):
        """Verilog of the module that the unit instantiates."""
        return _text(self._multiplier)

    @property
    def meanings(self):
        operand = meanings.numbers(self.parameters.format)
        return {"a": operand, "b": operand, "invalid": "sticky: a sum was or became NaN",
                } | meanings.of_sums(self.parameters.accumulator)

    def elaborate(self, platform):
        m = Module()
        fmt, sums, payload = self.parameters.format, self.parameters.accumulator, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name]) for name in "ab")
        width = 2 * fmt.mantissa + 2
        # Field of the product's top bit; see `FloatMultiplier`.
        offset = 1 - 2 * fmt.bias + sums.bias
        ends = (2 + offset, 2 * ((1 << fmt.exponent) - 1) + offset)
        bits = 1 + max(end.bit_length() for end in ends)
        bank = self.bank(m, integer=width + 1, field=bits)
        wiring.connect(m, wiring.flipped(self.o), bank.o)
        m.d.comb += [self.overflow.eq(bank.overflow), self.invalid.eq(bank.invalid),
                     bank.status_clear.eq(self.status_clear)]

        advance = Signal()
        field = Signal(signed(bits))
        m.d.comb += [self.i.ready.eq(advance), field.eq(a.field + b.field + offset)]
        now = stage(
            m, advance, "inputs", valid=self.i.valid, field=field, negative=a.negative ^ b.negative,
            infinite=a.infinite | b.infinite, nan=a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite),
            slot=payload.slot, first=payload.first, last=payload.last)
        m.submodules.multiplier = multiplier = Multiplier(**self._multiplier)
        m.d.comb += [multiplier.a.eq(a.significand), multiplier.b.eq(b.significand), multiplier.enable.eq(advance)]
        now = stage(m, advance, "product", now)
        # An Inf has a significand, so that its product with anything but a zero has a sign.
        integer = Signal(signed(width + 1))
        m.d.comb += integer.eq(Mux(now.negative, -multiplier.p, multiplier.p))
        now = stage(m, advance, "signed", now, drop=("negative",), integer=integer)
        m.d.comb += advance.eq(~now.valid | bank.i.ready)
        self.add(m, bank, now)
        return m


class FloatCircuits:
    """Floating point in the array: see `circuits`."""

    converter, cell = FloatCast, FloatMAC
    held = ()

    @staticmethod
    def convert(payload, elements, mode):
        return [payload.a.eq(elements)]
