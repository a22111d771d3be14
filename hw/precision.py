"""Precision control in hardware: cycles from a counter, and a choice from the sums of a tensor's chunks."""

from typing import Any

from amaranth import *

from ..golden.precision import NARROW, WIDE, AdaptiveParameters, CyclicParameters, breakpoints
from . import meanings
from .chunks import accumulate, combine, levels, multiply, total
from .formats import group_layout
from .pipeline import signals, stage
from .unit import StreamUnit

__all__ = ["PrecisionAdaptive", "PrecisionCyclic"]

WIDTH = 4  # bits of a width, 2 to 8
WALK = 4  # cycles for a walk of one code: to begin, to read, to add, to combine


class PrecisionCyclic(StreamUnit):
    """CPT's schedule: each transfer is one iteration, and is answered with the widths that it trains in.

    A counter of the position in the cycle is compared with the positions from which on there is one bit more, which are
    computed exactly when the unit is generated: no cosine. Iterations beyond the last whole cycle begin another.
    Source: numerics contract, section 3 (CPT).

    Parameters
    ----------
    parameters : CyclicParameters

    Members
    -------
    i : In(stream)
        ``restart``: this iteration is the first one of a run, as that after a reset is.
    o : Out(stream)
        ``forward`` (magnitude bits of weights and activations), ``backward`` (of gradients).

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its answer.
    interval : int
        Cycles between transfers.
    """

    latency = 1

    def __init__(self, parameters: CyclicParameters) -> None:
        self.parameters = parameters
        super().__init__({"restart": 1}, {"forward": WIDTH, "backward": WIDTH}, status=())

    @property
    def meanings(self) -> dict[str, str]:
        return {"restart": "1: the iteration is the first one of a run, as that after a reset is",
                "forward": "magnitude bits of weights and activations", "backward": "magnitude bits of gradients"}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, period = self.parameters, self.parameters.period
        advance = self.handshake(m)

        bits = max((period - 1).bit_length(), 1)  # no signal has zero width
        position, now = signals("position now", bits)
        forward = Signal(WIDTH)
        m.d.comb += [now.eq(position & (~self.i.payload.restart).replicate(bits)), forward.eq(p.low)]
        for index, edge in enumerate(breakpoints(p.low, p.high, period)):
            if edge < period:
                with m.If(now >= edge):
                    m.d.comb += forward.eq(p.low + index + 1)
        with m.If(advance):
            m.d.sync += self.o.valid.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += [
                    self.o.payload.forward.eq(forward),
                    self.o.payload.backward.eq(p.gradients),
                    position.eq(Mux(now == period - 1, 0, now + 1)),
                ]
        return m


class PrecisionAdaptive(StreamUnit):
    """FAST's choice between 2 and 4 bits for a tensor, from its groups of 4 bits, truncated: a group per cycle.

    A memory has two sums for each exponent code: of the lower chunks, and of the higher chunks, of all elements in
    groups of that exponent. At the tensor's end a walk from its smallest exponent to its largest combines and clears
    them. The answer is 4 where the sum of the lower chunks is at least threshold * 4 * that of the higher chunks, else
    2. This is r(X) against the threshold without a divider, and without a multiplier: by an addition for each bit of
    the threshold. The order of the groups does not matter. See `golden.precision.sum_chunks`. Source: numerics
    contract, section 3 (FAST).

    Parameters
    ----------
    parameters : AdaptiveParameters

    Members
    -------
    i : In(stream)
        ``group`` (see `group_layout`; the converter's output at precision 4, truncated: other bits of magnitudes, the
        signs and its precision are not looked at), ``threshold`` (0 to below 2, with `fraction` bits below the binary
        point; the last group's counts), ``last`` (this is the last group of a tensor).
    o : Out(stream)
        ``precision``, 2 or 4: one transfer for each tensor.
    overflow : Out(1)
        Sticky: a sum saturated.
    status_clear : In(1)
        Clears it.

    Attributes
    ----------
    latency : int
        Cycles from an accepted last group to its answer, where all groups have one exponent. A tensor whose exponents
        span n + 1 codes, groups of zeros aside, is answered n cycles later.
    interval : int
        Cycles between transfers: 1. After a tensor of n + 1 codes the first group of the next tensor waits n + 1
        cycles, for the walk. The next tensor's last group follows that tensor's last after n + `fraction` + 6 cycles
        or more. After a reset the walk goes over all codes, to clear them.
    """

    def __init__(self, parameters: AdaptiveParameters) -> None:
        self.parameters = parameters
        super().__init__({"group": group_layout(parameters.format), "threshold": parameters.fraction + 1, "last": 1},
                         {"precision": 3}, ("overflow",))

    @property
    def latency(self) -> int:
        # A stage for the chunks and one for two levels of their sums; the walk; the product; a comparison.
        return 1 + levels(self.parameters.group) + WALK + (self.parameters.fraction + 1) + 1

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return meanings.group(p.format, "group.") | {
            "group.precision": "not looked at: the groups have 4 bits, truncated",
            "threshold": f"what r(X) must reach for 4 bits: 0 to below 2, {p.fraction} bits behind the binary point",
            "last": "the tensor's last group: answer", "o.precision": "2 or 4, for the tensor",
            "overflow": "sticky: a sum saturated",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, payload = self.parameters, self.i.payload
        advance = Signal()
        m.d.comb += self.i.ready.eq(advance)

        magnitudes = [element.magnitude for element in payload.group.elements]
        now = stage(m, advance, "chunks", valid=self.i.valid, low=[each[:2] for each in magnitudes],
                    high=[each[2:4] for each in magnitudes], code=payload.group.exponent, last=payload.last,
                    threshold=payload.threshold)

        now = total(m, advance, now)
        low, high = now.low[0], now.high[0]

        # The span of the tensor's exponents, groups of zeros aside. A walk moves its bottom up to its top. A reset
        # leaves the memory as it is: a walk over all codes, without an answer, clears it.
        walking, silent = signals("walking silent", init=1)
        bottom = Signal(p.exponent)
        top = Signal(p.exponent, init=(1 << p.exponent) - 1)
        busy, ends, enters = signals("busy ends enters")
        empty = Signal(init=1)
        m.d.comb += [
            ends.eq(walking & (bottom == top)), enters.eq(now.valid & ~walking & ~(now.last & busy)),
            advance.eq(~now.valid | enters),
        ]
        with m.If(walking):
            m.d.sync += bottom.eq(bottom + 1)
            with m.If(ends):
                m.d.sync += [bottom.eq(0), top.eq(0), empty.eq(1), walking.eq(0), silent.eq(0)]
        with m.Elif(enters):
            m.d.sync += walking.eq(now.last)
            with m.If((low | high).any()):
                m.d.sync += empty.eq(0)
                with m.If(empty | (now.code < bottom)):
                    m.d.sync += bottom.eq(now.code)
                with m.If(empty | (now.code > top)):
                    m.d.sync += top.eq(now.code)

        # Add to the sums of the group's code, or clear those of the walk's.
        sums = accumulate(m, p, 1 << p.exponent, Mux(walking, bottom, now.code), low, high, adds=enters, walks=walking,
                          counts=walking & ~silent, ends=ends & ~silent)
        self.report(m, overflow=sums.saturates)
        totals = combine(m, p, sums, enters & now.last)

        # Groups go on coming in meanwhile.
        multiplies, left, enough = multiply(m, p, totals, now.threshold, begins=enters & now.last, ends=sums.held.ends,
                                            busy=busy)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(multiplies & (left == 0) & (~self.o.valid | self.o.ready)):
            m.d.sync += [self.o.valid.eq(1), self.o.payload.precision.eq(Mux(enough, WIDE, NARROW)), busy.eq(0),
                         multiplies.eq(0)]
        return m
