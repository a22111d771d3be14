"""What the core counts of tensors for their precisions: sums of chunks, and the choice from them."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS, KINDS
from ...golden.precision import FRACTION, AdaptiveParameters
from ..chunks import accumulate, combine, counted_fields, multiply
from ..pipeline import signals
from .layouts import Geometry

__all__ = ["CHOICE", "Counting", "Statistics", "choice_layout", "key_of"]

CHOICE = ("choosable", "decided", "decided_wide", "undecided")  # what a choice answers


def choice_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of what a choice is asked for: a tensor, and its threshold as a code."""
    return data.StructLayout({"kind": FIELDS["kind"][0], "layer": geometry.layer, "threshold": FRACTION + 1})


def group_layout(geometry: Geometry, side: int) -> data.StructLayout:
    """Return the layout of a converter's group: whether it counts, for which tensor, the sums of its chunks."""
    p = geometry.parameters.statistics
    return data.StructLayout(counted_fields(p.group, p.exponent, geometry.key_bits(side)))


class Statistics(wiring.Component):
    """Counts groups of several tensors, and chooses the precision of one of them: as `PrecisionAdaptive` does.

    A memory has a pair of sums for each tensor and exponent code. A choice clears what it was made from. No
    group may come while it is made.

    Parameters
    ----------
    parameters : AdaptiveParameters
    tensors : int
    keys : int
        Bits of a tensor's number.

    Members
    -------
    counted, key_counted, low, high, code : In
        Of a group: it counts, for which tensor, the sums of its chunks, and its exponent.
    start, key, threshold : In
        Choose for a tensor; while `ready`.
    ready : Out(1)
    done, wide, none : Out(1)
        The choice is made: 4 bits. The tensor had no groups, so there was none to make.
    clear : In(1)
        Nothing has been counted. Not `ready` for a while.
    """

    def __init__(self, parameters: AdaptiveParameters, tensors: int, keys: int) -> None:
        self.parameters, self.tensors = parameters, tensors
        fields = counted_fields(parameters.group, parameters.exponent, keys)
        super().__init__({
            **{name: In(bits) for name, bits in fields.items()},
            "start": In(1), "key": In(keys), "threshold": In(FRACTION + 1),
            "ready": Out(1), "done": Out(1), "wide": Out(1), "none": Out(1), "clear": In(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, depth = self.parameters, self.tensors << self.parameters.exponent
        # Of each tensor the span of its exponents, groups of zeros aside, and whether there is one.
        span = data.StructLayout({"counted": 1, "some": 1, "bottom": p.exponent, "top": p.exponent})
        m.submodules.spans = spans = memory.Memory(shape=span, depth=self.tensors, init=[],
                                                   attrs={"ram_style": "distributed"})
        write, read = spans.write_port(), spans.read_port(domain="comb")
        now, some = read.data, (self.low | self.high).any()
        address = (depth - 1).bit_length()
        walking, silent, busy, ends = signals("walking silent busy ends")
        at, last = signals("at last", address)
        begins = self.start & now.counted & now.some
        m.d.comb += [
            self.ready.eq(~walking & ~busy), ends.eq(walking & (at == last)),
            read.addr.eq(Mux(self.start, self.key, self.key_counted)),
            write.addr.eq(Mux(silent, at[p.exponent:], read.addr)), write.en.eq(self.counted | self.start | silent),
        ]
        with m.If(self.counted):
            m.d.comb += [
                write.data.counted.eq(1), write.data.some.eq(now.some | some),
                write.data.bottom.eq(Mux(some & (~now.some | (self.code < now.bottom)), self.code, now.bottom)),
                write.data.top.eq(Mux(some & (~now.some | (self.code > now.top)), self.code, now.top)),
            ]
        with m.If(self.clear):
            m.d.sync += [at.eq(0), last.eq(depth - 1), walking.eq(1), silent.eq(1)]
        with m.Elif(begins):
            m.d.sync += [at.eq(Cat(now.bottom, self.key)), last.eq(Cat(now.top, self.key)), walking.eq(1)]
        with m.Elif(walking):
            m.d.sync += at.eq(at + 1)
            with m.If(ends):
                m.d.sync += [walking.eq(0), silent.eq(0)]

        place = Cat(self.code, self.key_counted)[:address]
        sums = accumulate(m, p, depth, Mux(walking, at, place), self.low, self.high, adds=self.counted, walks=walking,
                          counts=walking & ~silent, ends=ends & ~silent)
        totals = combine(m, p, sums, begins)
        multiplies, left, enough = multiply(m, p, totals, self.threshold, begins=begins, ends=sums.held.ends, busy=busy)
        finished = multiplies & (left == 0)
        with m.If(finished):
            m.d.sync += [busy.eq(0), multiplies.eq(0)]
        # Without an exponent there is nothing to compare: zeros are as wide as can be.
        m.d.sync += [self.done.eq(finished | self.start & ~begins), self.wide.eq(self.start | enough),
                     self.none.eq(self.start & ~now.counted)]
        return m


def key_of(geometry: Geometry, side: int, kind: Value, layer: Value) -> Value:
    """Return the number of a tensor among those that a converter's groups count for (combinational)."""
    kinds = geometry.counted[side]
    bits = (len(kinds) - 1).bit_length()
    places = Array(C(kinds.index(each) if each in kinds else 0, bits) for each in KINDS)
    return Cat(layer, places[kind]) if bits else layer


class Counting(wiring.Component):
    """The statistics of the core's converters, and when a choice can be made of them: when all groups have arrived.

    Parameters
    ----------
    geometry : Geometry
    delay : int
        Cycles from a request for a vector to the sums of its group's chunks.

    Members
    -------
    group0, group1 : In
        Of each converter: a group; see `Statistics`.
    going, quiet : In(1)
        A vector is requested; no product is about to request any.
    choose, choice : In
        Choose, while it is `choosable`; see `choice_layout`.
    choosable, decided, decided_wide, undecided : Out(1)
        See `Thresholds`.
    clear : In(1)
        Before a program: nothing has been counted.
    """

    def __init__(self, geometry: Geometry, delay: int) -> None:
        self.geometry, self.delay = geometry, delay
        p = geometry.parameters.statistics
        self.statistics = [Statistics(p, len(kinds) << geometry.layer, geometry.key_bits(side))
                           for side, kinds in enumerate(geometry.counted)]
        super().__init__({
            **{f"group{side}": In(group_layout(geometry, side)) for side in range(len(self.statistics))},
            "going": In(1), "quiet": In(1), "choose": In(1), "choice": In(choice_layout(geometry)), "clear": In(1),
            **dict.fromkeys(CHOICE, Out(1)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        choice, ready = self.choice, C(1, 1)
        answers = dict.fromkeys(("done", "wide", "none"), C(0, 1))
        under_way = Signal(range(self.delay + 1), name="under_way")
        with m.If(self.going):
            m.d.sync += under_way.eq(self.delay)
        with m.Elif(under_way.any()):
            m.d.sync += under_way.eq(under_way - 1)
        for side, (each, kinds) in enumerate(zip(self.statistics, self.geometry.counted)):
            m.submodules[f"statistics{side}"] = each
            group = getattr(self, f"group{side}")
            asked = Cat(choice.kind == KINDS.index(kind) for kind in kinds).any()
            m.d.comb += [
                *(getattr(each, name).eq(group[name]) for name, _ in group.shape()),
                each.start.eq(self.choose & asked),
                each.key.eq(key_of(self.geometry, side, choice.kind, choice.layer)),
                each.threshold.eq(choice.threshold), each.clear.eq(self.clear),
            ]
            ready = ready & each.ready
            answers = {name: value | each.done & getattr(each, name) for name, value in answers.items()}
        m.d.comb += [self.choosable.eq(ready & self.quiet & ~self.going & ~under_way.any()),
                     *(getattr(self, name).eq(value) for name, value in zip(CHOICE[1:], answers.values()))]
        return m
