"""The multiplier of floating-point numbers."""

from collections.abc import Callable
from types import SimpleNamespace

from amaranth import *

from ...golden.floating import MultiplierParameters
from ..rounding import unpack
from .frame import FloatUnit, top_field

__all__ = ["FloatMultiplier"]


class FloatMultiplier(FloatUnit):
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

    def __init__(self, parameters: MultiplierParameters) -> None:
        width = parameters.format.width
        super().__init__(parameters, {"a": width, "b": width}, parameters.result)

    def _exact(self, m: Module, advance: Value, cut: Callable) -> tuple[SimpleNamespace, int, bool]:
        fmt, result, payload = self.parameters.format, self.result, self.i.payload
        a, b = (unpack(m, name, fmt, payload[name], self.flush) for name in "ab")
        p = fmt.mantissa + 1
        # The product's top bit belongs to field a + b + offset of the result format. Where the field may be below 1,
        # zeros on top turn the right shift of a subnormal result into a left shift. Smaller products are less than a
        # half, or than the random window.
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
        top = top_field(m, now.field, offset + above - 1, low, high, self.flush)
        now = cut("product", now, drop=("field",), top=top, sticky=C(0, 1), flip=C(0, 1), cancels=C(0, 1))
        now.value = Cat(product, C(0, above))
        return now, 1 if self.flush else 2 * p - 1 + above, limited
