"""Precision control in hardware: cycles from a counter, and a choice from the sums of a tensor's chunks."""

from typing import Any

from amaranth import *

from ..golden.precision import NARROW, WIDE, AdaptiveParameters, CyclicParameters, breakpoints
from . import meanings
from .formats import group_layout
from .pipeline import signals, stage
from .unit import StreamUnit

__all__ = ["PrecisionAdaptive", "PrecisionCyclic"]

WIDTH = 4  # bits of a width, 2 to 8


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

    Sums the lower chunks and the higher chunks of all elements, scaled by their groups' exponents, and answers 4 where
    the lower ones' sum is the threshold times 4 times the higher ones' or more, else 2: r(X) against the threshold
    without a divider, and without a multiplier, by an addition for each bit of the threshold. See
    `golden.precision.sum_chunks` for what is dropped of groups with small exponents. Source: numerics contract,
    section 3 (FAST).

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
        Cycles from an accepted last group to its answer.
    interval : int
        Cycles between transfers: 1; but no less than `fraction` + 3 from one tensor's end to the next one's, and
        n // 8 + n % 8 more for a group whose exponent is n above the tensor's largest so far.
    """

    def __init__(self, parameters: AdaptiveParameters) -> None:
        self.parameters = parameters
        super().__init__({"group": group_layout(parameters.format), "threshold": parameters.fraction + 1, "last": 1},
                         {"precision": 3}, ("overflow",))

    @property
    def latency(self) -> int:
        # A stage for the chunks, one for two levels of their sums, alignment, sum; then the product, and a comparison.
        return 3 + ((self.parameters.group - 1).bit_length() + 1) // 2 + 1 + (self.parameters.fraction + 1) + 1

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

        # The largest exponent of the tensor so far: by how much it rises, and how far this group is below it.
        top = Signal(p.exponent)
        fresh = Signal(init=1)
        exponent = payload.group.exponent
        above, below = signals("above below", p.exponent + 1)
        m.d.comb += [above.eq(exponent - top), below.eq(top - exponent)]
        larger = fresh | below[-1]
        with m.If(advance & self.i.valid):
            m.d.sync += fresh.eq(payload.last)
            with m.If(larger):
                m.d.sync += top.eq(exponent)
        magnitudes = [element.magnitude for element in payload.group.elements]
        now = stage(m, advance, "chunks", valid=self.i.valid, low=[each[:2] for each in magnitudes],
                    high=[each[2:4] for each in magnitudes], rise=above[:-1] & below[-1].replicate(p.exponent),
                    gap=below[:-1] & (~larger).replicate(p.exponent), first=fresh, last=payload.last,
                    threshold=payload.threshold)

        # Sums of the group's chunks.
        bits, level = 2, 0
        while len(now.low) > 1:
            bits, level = bits + min(2, (len(now.low) - 1).bit_length()), level + 1
            added: dict[str, Any] = {}
            for name in ("low", "high"):
                terms = getattr(now, name)
                for _ in range(2):
                    terms = [a + b for a, b in zip(terms[::2], terms[1::2])] + terms[len(terms) & ~1:]
                added[name] = [Cat(each, C(0, bits))[:bits] for each in terms]
            now = stage(m, advance, f"level{level}", now, **added)

        # Aligned to the largest exponent, with guard bits below.
        size = bits + p.guard
        aligned: dict[str, Any] = {
            name: shifted(Cat(C(0, p.guard), *getattr(now, name)), now.gap) for name in ("low", "high")}
        now = stage(m, advance, "aligned", now, drop=("gap",), rising=(now.rise != 0) & ~now.first, **aligned)
        assert all(len(getattr(now, name)) == size for name in aligned)

        # The tensor's sums. Where the largest exponent rises they are shifted first, 8 places a cycle and then one.
        rising, far = signals("rising far")
        less = Signal(p.exponent)
        m.d.comb += [
            rising.eq(now.valid & now.rising), far.eq(now.rise[3:].any()), less.eq(now.rise - Mux(far, 8, 1)),
        ]
        with m.If(rising):
            m.d.sync += [now.rise.eq(less), now.rising.eq(less != 0)]
        sums, overs = [], []
        for name in ("low", "high"):
            total, held = Signal(p.bits + 1, name=f"{name}_total"), Signal(p.bits, name=f"{name}_sum", reset_less=True)
            before = held & (~now.first).replicate(p.bits)
            m.d.comb += total.eq(before + getattr(now, name))
            with m.If(rising):
                m.d.sync += held.eq(Mux(far, held >> 8, held >> 1))
            with m.Elif(advance & now.valid):
                m.d.sync += held.eq(total[:-1] | total[-1].replicate(p.bits))
            sums.append(held)
            overs.append(total[-1])
        self.report(m, overflow=advance & now.valid & Cat(overs).any())
        ended = stage(m, advance, "ended", valid=now.valid & now.last, threshold=now.threshold)

        # The threshold times the higher chunks' sum, from the threshold's top bit down, while groups go on coming in.
        busy = Signal()
        left = Signal(range(p.fraction + 2))
        numerator, quarter = signals("numerator quarter", p.bits, reset_less=True)
        threshold = Signal(p.fraction + 1, reset_less=True)
        product = Signal(p.bits + p.fraction + 1, reset_less=True)
        # The group after an ended tensor is another one's first, which shifts nothing.
        m.d.comb += advance.eq(~(ended.valid & busy) & ~rising)
        with m.If(~busy):
            m.d.sync += [
                numerator.eq(sums[0]), quarter.eq(sums[1]), threshold.eq(ended.threshold), product.eq(0),
                left.eq(p.fraction + 1), busy.eq(ended.valid),
            ]
        with m.Elif(left != 0):
            m.d.sync += [
                product.eq((product << 1) + (quarter & threshold[-1].replicate(p.bits))),
                threshold.eq(threshold << 1), left.eq(left - 1),
            ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(busy & (left == 0) & (~self.o.valid | self.o.ready)):
            enough = Cat(C(0, p.fraction), numerator) >= Cat(C(0, 2), product)
            m.d.sync += [self.o.valid.eq(1), self.o.payload.precision.eq(Mux(enough, WIDE, NARROW)), busy.eq(0)]
        return m


def shifted(value: Value, amount: Value) -> Value:
    """Return `value` shifted right; any bit of `amount` beyond what the shift can use makes it zero."""
    bits = min(len(value).bit_length(), len(amount))
    return (value >> amount[:bits]) & (~amount[bits:].any()).replicate(len(value))
