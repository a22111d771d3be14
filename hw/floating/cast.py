"""The conversion between floating-point formats."""

from collections.abc import Callable
from types import SimpleNamespace

from amaranth import *

from ...golden.floating import CastParameters
from ..rounding import unpack
from .frame import FloatUnit, top_field

__all__ = ["FloatCast"]


class FloatCast(FloatUnit):
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

    def __init__(self, parameters: CastParameters) -> None:
        super().__init__(parameters, {"a": parameters.format.width}, parameters.result)

    def _exact(self, m: Module, advance: Value, cut: Callable) -> tuple[SimpleNamespace, int, bool]:
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
            top=top_field(m, a.field, offset + above - 1, low, high, self.flush), sticky=C(0, 1), flip=C(0, 1),
            negative=a.negative, cancels=C(0, 1), infinite=a.infinite, nan=a.nan)
        return now, 0 if self.flush else p - 1 + above, limited
