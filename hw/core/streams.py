"""The core's streams: tensors that come from the host, and go there."""

from typing import Any

from amaranth import *
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from ..pipeline import elastic, signals, stage
from .cursor import cursor
from .layouts import SIZE, Geometry, piece_layout, place_layout, read_layout, size_of
from .memories import READ, bank_of

__all__ = ["Input", "Output"]

WAITING = 8  # pieces that are on their way to the host, at the most


class Input(wiring.Component):
    """Writes a tensor from the host's elements, each row from a new transfer on.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, busy, waits : In, Out, Out
        An instruction, with what follows; it is executed; it waits for elements.
    to : In
        The tensor's place.
    plane : In
        The plane of M that the tensor lies in, or 0.
    labels : In(1)
        The tensor has labels. `to`, `plane` and `labels` stay while the instruction is executed.
    elements, given, taken : In, In, Out
        From the host.
    valid, ready, piece : Out, In, Out
        For a memory of blocks.
    state_valid, state_ready, state : Out, In, Out
        For M, one by one.
    label_valid, label, number : Out
        For the labels: an address and what is written there.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        p = g.parameters
        super().__init__({
            "start": In(1), "busy": Out(1), "waits": Out(1), "to": In(place_layout(g)),
            "plane": In(range(g.planes + 1)), "labels": In(1),
            "elements": In(data.ArrayLayout(p.element_bits, p.stream)), "given": In(1), "taken": Out(1),
            "valid": Out(1), "ready": In(1), "piece": Out(piece_layout(g, p.stream)),
            "state_valid": Out(1), "state_ready": In(1), "state": Out(piece_layout(g, g.banks)),
            "label_valid": Out(1), "label": Out(SIZE), "number": Out(SIZE),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, to, count = self.geometry, self.to, self.geometry.parameters.stream
        waits = Signal(name="waits")
        at = Signal(range(count + 1))  # where elements are written one by one: the next one of the transfer
        single = self.plane.any() | self.labels
        there, written, ends = signals("there written ends")
        walk = cursor(m, "walk", g, to, start=self.start, moves=written & (~single | ends), step=count,
                      ahead=Mux(single, at, 0))
        element = Signal(self.geometry.parameters.element_bits)
        piece = Signal.like(self.piece, name="piece")
        m.d.comb += [
            there.eq(waits & self.given), element.eq(Array(self.elements)[at]),
            self.state_valid.eq(there & self.plane.any()),
            self.label_valid.eq(there & self.labels),
            self.label.eq((to.block << 8) + to.left + walk.at + at), self.number.eq(element),
            piece.live.eq(Cat(walk.rest > k for k in range(count))),
            *(piece.elements[k].eq(self.elements[k]) for k in range(count)),
            self.state.live.eq(1 << bank_of(g, walk.column, self.plane)),
            *(self.state.elements[bank].eq(element) for bank in range(g.banks)),
        ]
        for each in (piece, self.state):
            m.d.comb += [each[name].eq(getattr(walk, name)) for name in ("block", "row", "column")]
        # A piece for a memory of blocks waits here for its turn.
        held, takes = elastic(m, "held", self.ready, valid=there & ~single, piece=piece)
        m.d.comb += [
            self.valid.eq(held.valid), self.piece.as_value().eq(held.piece),
            written.eq(there & Mux(self.labels, 1, Mux(self.plane.any(), self.state_ready, takes))),
            ends.eq((at == count - 1) | (walk.rest == at + 1)), self.waits.eq(waits),
            self.busy.eq(waits | held.valid),
            self.taken.eq(written & (~single | ends)),
        ]
        with m.If(written):
            m.d.sync += at.eq(Mux(single & ~ends, at + 1, 0))
            with m.If(walk.end & (~single | ends)):
                m.d.sync += waits.eq(0)
        with m.If(self.start):
            m.d.sync += waits.eq(1)
        return m


class Output(wiring.Component):
    """Reads a tensor for the host, each row from a new transfer on.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, busy : In, Out
        An instruction, with what follows; it is executed.
    a : In
        The tensor's place.
    plane : In
        The plane of M that the tensor lies in, or 0. `a` and `plane` stay while the instruction is executed.
    wanted, request, granted, found : Out, Out, In, In
        Of the memory of blocks that has it.
    state_wanted, state_granted, state_found : Out, In, In
        Of M, by the same request.
    valid, ready, elements, last : Out, In, Out, Out
        For the host.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        p = g.parameters
        super().__init__({
            "start": In(1), "busy": Out(1), "a": In(place_layout(g)), "plane": In(range(g.planes + 1)),
            "wanted": Out(1), "request": Out(read_layout(g)), "granted": In(1),
            "found": In(data.ArrayLayout(g.bits, g.side)),
            "state_wanted": Out(1), "state_granted": In(1), "state_found": In(data.ArrayLayout(g.bits, g.banks)),
            "valid": Out(1), "ready": In(1), "elements": Out(data.ArrayLayout(g.bits, p.stream)), "last": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, a, count, bits = self.geometry, self.a, self.geometry.parameters.stream, self.geometry.bits
        asks, busy, goes = signals("asks busy goes")
        under = Signal(range(WAITING + 1))
        step = Signal(range(count + 1))
        walk = cursor(m, "walk", g, a, start=self.start, moves=goes, step=step)
        single = self.plane.any()
        at = Signal(size_of(count))  # of a number of M in its transfer
        may = asks & (under < WAITING - 1)  # what asked in the cycle before is not in it yet
        whole = walk.last | ~single | (at == count - 1)
        # A request waits here for its turn at a memory.
        held, takes = elastic(
            m, "held", self.granted | self.state_granted, valid=may, block=walk.block, row=walk.row, column=walk.column,
            bank=bank_of(g, walk.column, self.plane), at=at, whole=whole, last=walk.end,
            live=Cat(walk.rest > k for k in range(count)))
        m.d.comb += [
            *(self.request[name].eq(getattr(held, name)) for name in ("block", "row", "column")),
            self.wanted.eq(held.valid & ~single), self.state_wanted.eq(held.valid & single),
            goes.eq(may & takes), step.eq(Mux(single, 1, count)),
        ]
        with m.If(goes):
            m.d.sync += at.eq(Mux(whole, 0, at + 1))
            with m.If(walk.end):
                m.d.sync += asks.eq(0)
        now = stage(m, 1, "asked", held, drop=("block", "row", "column"), valid=self.granted | self.state_granted)
        for number in range(1, READ):
            now = stage(m, 1, f"read{number}", now)
        # Numbers of M gather in a transfer.
        gathered = Signal(data.ArrayLayout(bits, count))
        chosen = Array(self.state_found)[now.bank]
        filled = [Mux(now.at == k, chosen, Mux(now.at > k, gathered[k], 0)) for k in range(count)]
        with m.If(now.valid):
            m.d.sync += gathered.as_value().eq(Cat(filled))
        elements = Cat(Mux(single, filled[k], self.found[k] & now.live[k].replicate(bits)) for k in range(count))
        m.submodules.waiting = waiting = fifo.SyncFIFO(width=count * bits + 1, depth=WAITING)
        m.d.comb += [
            waiting.w_data.eq(Cat(elements, now.last)), waiting.w_en.eq(now.valid & now.whole),
            self.valid.eq(waiting.r_rdy), waiting.r_en.eq(self.ready),
            Cat(self.elements.as_value(), self.last).eq(waiting.r_data), self.busy.eq(busy),
        ]
        # A transfer that gathers takes its room with its first number.
        counts = Signal(name="counts")
        m.d.sync += [counts.eq(goes & (~single | (at == 0))), under.eq(under + counts - (self.valid & self.ready))]
        with m.If(self.valid & self.ready & self.last):
            m.d.sync += busy.eq(0)
        with m.If(self.start):
            m.d.sync += [busy.eq(1), asks.eq(1), at.eq(0)]
        return m
