"""The core's sums over rows: gradients of biases, added in the order of the rows."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.floating import AdderParameters
from ...golden.words import VECTOR
from ..floating import FloatAdder
from ..pipeline import UNCHECKED, signals, stage
from .layouts import NUMBER, SIZE, Geometry, piece_layout, place_layout, read_layout, shape_layout
from .memories import READ
from .places import pixels

__all__ = ["ADDITION", "Sums"]

ADDITION = 4  # cycles of an addition here: the next row waits for it


class Sums(wiring.Component):
    """Adds the rows of a tensor, a span of columns at a time, and hands on the sums in pieces.

    With `Geometry.chunk` so many rows are added from +0. Then their sums are folded into totals, in place of a row.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, busy : In, Out
        An instruction, with what follows; it is executed.
    a, to : In
        Places: of the tensor, and of its sums. They stay while it is executed.
    shape : In
        With windows: the one of `a`; see `shape_layout`.
    first, lane : In
        Of the first sum's random word.
    wanted, request, granted, found : Out, Out, In, In
        Of the memory that has the tensor.
    valid, ready, piece, vector, word : Out, In, Out, Out, Out
        Sums, for the `Mover`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        place = place_layout(g)
        super().__init__({
            **({"shape": In(shape_layout(g))} if g.windows else {}),
            "start": In(1), "busy": Out(1), "a": In(place), "to": In(place), "first": In(VECTOR), "lane": In(4),
            "wanted": Out(1), "request": Out(read_layout(g)), "granted": In(1),
            "found": In(data.ArrayLayout(g.bits, g.side)),
            "valid": Out(1), "ready": In(1), "piece": Out(piece_layout(g, g.width)), "vector": Out(VECTOR),
            "word": Out(4),
        })

    @property
    def width(self) -> int:
        """Numbers that are added in a cycle: a power of two."""
        return 1 << self.geometry.width.bit_length() - 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, side, low, bits, width = self.geometry, self.geometry.side, self.geometry.low, self.geometry.bits, self.width
        chunk = g.chunk or 0  # rows
        # A sum is added to again after so many cycles: meanwhile others are. Together they are a span of columns.
        period = max(side // width, ADDITION)
        span = period * width
        a, to = self.a, self.to
        column, left = signals("column left", SIZE)  # the first of a span of columns; how many there are from it on
        line, rows = signals("line rows", SIZE)
        turn = Signal(range(period))
        ends = Signal(name="ends")  # it is the last line
        asks, drains = signals("asks drains")  # the states ADD and DRAIN
        block = Signal(g.block)
        wait = Signal(range(READ + ADDITION + 3))
        out = Signal(range(period + 1))
        right = Signal(NUMBER if g.windows else range(side + span))
        there = Signal(init=1, name="there")
        # Of chunks: sums are folded; they are the first ones, or the last ones; rows of the chunk so far.
        folds, fresh, final = signals("folds fresh final")
        count = Signal(range(chunk or 1), name="count")

        down = Signal(SIZE + 1)
        m.d.comb += [
            self.wanted.eq(asks & there & ~folds if chunk else asks & there), down.eq(a.top + line),
            right.eq(a.left[:low] + turn * width),
            self.request.block.eq(block + (right >> low)), self.request.row.eq(down[:low]),
            self.request.column.eq(right[:low]),
        ]
        walk: Any = None
        if g.windows:
            next_line, next_span = signals("next_line next_span")
            walk = pixels(m, "pixel", self.shape, start=next_span, moves=next_line)
            with m.If(self.shape.windowed):
                m.d.comb += [
                    down.eq(a.top + walk.image), right.eq(a.left[:low] + walk.number + column + turn * width),
                ]
        # Compared all the time: a line takes some cycles.
        m.d.sync += ends.eq(line == a.rows - 1)
        goes = self.wanted & self.granted
        if chunk:
            goes = goes | asks & there & folds
            now = stage(m, 1, "asked", valid=goes, turn=turn, begins=Mux(folds, fresh, count == 0), folds=folds)
        else:
            now = stage(m, 1, "asked", valid=goes, turn=turn, begins=line == 0)
        for step in range(1, READ - 1):
            now = stage(m, 1, f"read{step}", now)
        now = stage(m, 1, "found", now)
        ended = now
        for step in range(ADDITION):
            ended = stage(m, 1, f"added{step}", ended, drop=("begins",))
        # The sums of a span wait in a memory for the next addition, and in the end for the mover. An addition may also
        # take the sum that is made in the same cycle.
        kind = UNCHECKED | {"ram_style": "distributed"}
        m.submodules.sums = sums = memory.Memory(shape=width * bits, depth=period, init=[], attrs=kind)
        leaving = sums
        write, waiting = sums.write_port(), sums.read_port(domain="comb")
        added, latest, before = signals("added latest before", width * bits)
        given = self.found.as_value()
        m.d.comb += [
            waiting.addr.eq(now.turn),
            latest.eq(Mux(ended.valid & (ended.turn == now.turn), added, waiting.data)),
            before.eq(Mux(now.begins, 0, latest)),
            write.addr.eq(ended.turn), write.data.eq(added), write.en.eq(ended.valid),
        ]
        if chunk:
            # Totals were added to a pass of rows ago. Those are what the mover is given.
            m.submodules.totals = leaving = memory.Memory(shape=width * bits, depth=period, init=[], attrs=kind)
            put, total = leaving.write_port(), leaving.read_port(domain="comb")
            given = Mux(now.folds, latest, given[:width * bits])
            m.d.comb += [
                total.addr.eq(now.turn), before.eq(Mux(now.begins, 0, Mux(now.folds, total.data, latest))),
                put.addr.eq(ended.turn), put.data.eq(added), put.en.eq(ended.valid & ended.folds),
                write.en.eq(ended.valid & ~ended.folds),
            ]
        read = leaving.read_port()
        m.d.comb += read.addr.eq((out + (drains & self.ready))[:len(read.addr)])
        for k in range(width):
            m.submodules[f"adder{k}"] = adder = FloatAdder(
                AdderParameters(g.parameters.work, latency=ADDITION), embedded=True)
            m.d.comb += [
                adder.i.payload.a.eq(before.word_select(k, bits)),
                adder.i.payload.b.eq(given.word_select(k, bits)),
                adder.i.payload.subtract.eq(0), adder.i.valid.eq(now.valid), adder.enable.eq(1),
                added.word_select(k, bits).eq(adder.o.payload.value),
            ]

        # Where the sums go.
        target = Signal(SIZE + 1)
        word = Signal(SIZE + 1)
        offset = Signal(SIZE)
        m.d.comb += [
            offset.eq(column + out * width), target.eq(to.left[:low] + offset), word.eq(self.lane + offset),
            self.valid.eq(drains), self.piece.block.eq(to.block + (target >> low)), self.piece.row.eq(to.top),
            self.piece.column.eq(target[:low]),
            self.piece.live.eq(Cat(out * width + k < left for k in range(width))),
            self.piece.elements.as_value().eq(read.data),
            self.vector.eq(self.first + (word >> 4)), self.word.eq(word[:4]),
        ]

        def next_row() -> None:
            m.d.sync += line.eq(line + 1)
            if walk:
                m.d.comb += next_line.eq(1)
            with m.If(down[:low].all() & (~self.shape.windowed | walk.last) if walk else down[:low].all()):
                m.d.sync += block.eq(block + a.stride)

        def leave() -> None:
            m.d.sync += [wait.eq(0), out.eq(0), asks.eq(0)]
            m.next = "WAIT"

        def next_pass() -> None:
            with m.If(folds):
                m.d.sync += [folds.eq(0), fresh.eq(0)]
                with m.If(final):
                    leave()
            with m.Else():
                next_row()
                m.d.sync += count.eq(count + 1)
                with m.If(ends | (count == (chunk or 1) - 1)):
                    m.d.sync += [folds.eq(1), final.eq(ends), count.eq(0)]

        with m.FSM(name="state") as states:
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [column.eq(0), left.eq(a.columns), line.eq(0), turn.eq(0), block.eq(a.block)]
                if chunk:
                    m.d.sync += fresh.eq(1)
                if walk:
                    m.d.comb += next_span.eq(1)
                    with m.If(self.shape.windowed):
                        m.d.sync += block.eq(self.shape.block)
                m.d.sync += asks.eq(1)
                m.next = "ADD"
            with m.State("ADD"), m.If(goes | ~there):
                m.d.sync += [turn.eq(turn + 1), there.eq((turn + 1) * width < left)]
                with m.If(turn == period - 1):
                    m.d.sync += [turn.eq(0), there.eq(1)]
                    if chunk:
                        next_pass()
                    else:
                        next_row()
                        with m.If(ends):
                            leave()
            with m.State("WAIT"):
                m.d.sync += wait.eq(wait + 1)
                with m.If(wait == READ + ADDITION + 1):
                    m.d.sync += drains.eq(1)
                    m.next = "DRAIN"
            with m.State("DRAIN"), m.If(self.ready):
                m.d.sync += out.eq(out + 1)
                with m.If((out == period - 1) | ((out + 1) * width >= left)):
                    m.d.sync += [column.eq(column + span), left.eq(left - span), line.eq(0), turn.eq(0),
                                 drains.eq(0)]
                    if chunk:
                        m.d.sync += fresh.eq(1)
                    m.next = "NEXT"
                    with m.If(left <= span):
                        m.next = "IDLE"
            with m.State("NEXT"):
                m.d.sync += [block.eq(a.block + (column >> low)), asks.eq(1)]
                if walk:
                    m.d.comb += next_span.eq(1)
                    with m.If(self.shape.windowed):
                        m.d.sync += block.eq(self.shape.block)
                m.next = "ADD"
        m.d.comb += self.busy.eq(~states.ongoing("IDLE"))
        return m
