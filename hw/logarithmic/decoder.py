"""The decoder from logarithmic numbers to floating point."""

from typing import Any

from amaranth import *
from amaranth.lib import data

from ...golden.logarithmic import SCALE_BIAS, LNSDecoderParameters, powers
from ...golden.rounding import NEAREST
from .. import meanings
from ..pipeline import bits_of, stage
from ..rounding import round_and_pack, shift_right_sticky
from ..unit import StreamUnit
from .layout import SCALE, vector_layout

__all__ = ["LNSDecoder"]


class LNSDecoder(StreamUnit):
    """Decoder from logarithmic numbers to floating point: one vector per cycle.

    Each number is rounded once, to nearest; its power of two is irrational, or exact. Subnormal results are made, what
    is too large becomes Inf, zeros are +0. Source: numerics contract, section 6.

    Parameters
    ----------
    parameters : LNSDecoderParameters

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

    def __init__(self, parameters: LNSDecoderParameters) -> None:
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.result.width, parameters.lanes)
        super().__init__(vector_layout(parameters.format, parameters.lanes), {"elements": elements}, ("overflow",))

    @property
    def meanings(self) -> dict[str, str]:
        return {
            "elements": meanings.numbers(self.parameters.result),
            "overflow": "sticky: a number was beyond the largest finite value",
        } | meanings.vector(self.parameters.format)

    def elaborate(self, platform: Any) -> Module:
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
