"""The fused multiply-add of floating-point numbers."""

from collections.abc import Callable
from types import SimpleNamespace

from amaranth import *

from ...golden.floating import FMAParameters
from ..pipeline import signals
from ..rounding import shift_right_sticky, unpack
from .frame import FloatUnit

__all__ = ["FloatFMA"]


class FloatFMA(FloatUnit):
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

    def __init__(self, parameters: FMAParameters) -> None:
        width, accumulator = parameters.format.width, parameters.accumulator
        super().__init__(parameters, {"a": width, "b": width, "c": accumulator.width}, accumulator)

    def _exact(self, m: Module, advance: Value, cut: Callable) -> tuple[SimpleNamespace, int, bool]:
        fmt, result, payload = self.parameters.format, self.result, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name], self.flush) for name in "ab")
        c = unpack(m, "c", result, payload.c, self.flush)
        p, q = fmt.mantissa + 1, result.mantissa + 1
        offset = 1 - 2 * fmt.bias + result.bias

        # The sum is made in a window of three parts. In the `above` bits the addend may stand clear of the product,
        # with room for the bits of rounding and for one leading zero. The product stands in the middle. The `below`
        # bits hold the end of a result that begins in the product's lowest leading place.
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

        # product + addend, or product - addend: floor and sticky where the addend has lost bits. A negative difference
        # has lost no bits and is complemented. The rounding adds the 1 that is missing then.
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
