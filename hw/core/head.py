# amaranth: UnusedElaboratable=no
"""The core's softmax head: rows of logits are read and dealt to its units, and their errors are written."""

from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...base.checks import require
from ...golden.core.transfers import NUMBER
from ...golden.number_system import LANES
from ...golden.words import STAGES, USE, VECTOR, blocks_of
from .. import verilog
from ..pipeline import elastic, signals, stage
from ..words import AddressedWords
from .cursor import cursor
from .errors import Errors
from .layouts import SIZE, Geometry, piece_layout, place_layout, read_layout
from .memories import READ

__all__ = ["Head"]


class Head(wiring.Component):
    """Reads rows of logits, and writes as many errors: for each of its units, one logit in a cycle.

    Row r goes to unit r mod `head`. As many rows as there are units go side by side: pieces of them, and vectors of
    random words, are dealt to the units in turn. So all units are fed alike, however long a row is. Their errors are
    written in the same order.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, busy : In, Out
        An instruction, with what follows; it is executed.
    a, labels, to, scale, key, use, vector : In
        Places, and registers; they stay while it is executed.
    wanted, request, granted, found : Out, Out, In, In
        Of the memory that has the logits.
    label, labelled : Out, In
        An address of memory L, which answers a cycle later.
    valid, ready, piece : Out, In, Out
        Errors.
    loss, loss_valid, loss_ready : Out, Out, In
        The sum of the losses, when all errors are there.
    invalid, status_clear : Out(1), In(1)
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        p = g.parameters
        self.units = [Errors(g) for _ in range(p.head)]
        place = place_layout(g)
        require(p.work.bias >= p.softmax.bits, "error_bits", p.softmax.bits,
                f"at most {p.work.bias}, in a circuit, so that no error is a subnormal number")
        super().__init__({
            "start": In(1), "busy": Out(1), "a": In(place), "labels": In(place), "to": In(place), "scale": In(g.bits),
            "key": In(64), "use": In(USE), "vector": In(VECTOR),
            "wanted": Out(1), "request": Out(read_layout(g)), "granted": In(1),
            "found": In(data.ArrayLayout(g.bits, g.side)), "label": Out(SIZE), "labelled": In(SIZE),
            "valid": Out(1), "ready": In(1), "piece": Out(piece_layout(g, g.width)),
            "loss": Out(NUMBER), "loss_valid": Out(1), "loss_ready": In(1), "invalid": Out(1), "status_clear": In(1),
        })

    @property
    def text(self) -> str:
        """Verilog of the modules that it instantiates."""
        return verilog.joined(self.units)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        units, busy = self.units, Signal(name="busy")
        for number, unit in enumerate(units):
            m.submodules[f"unit{number}"] = unit
            m.d.comb += [unit.start.eq(self.start), unit.columns.eq(self.to.columns), unit.scale.eq(self.scale),
                         unit.status_clear.eq(self.status_clear)]
        m.d.comb += [self.invalid.eq(Cat(unit.invalid for unit in units).any())]
        self._read(m)
        if self.geometry.parameters.softmax.rounding == "stochastic":
            self._words(m)
        ends, waits = self._write(m)
        m.d.comb += self.busy.eq(busy | waits)

        # The losses are added long before the last errors are multiplied.
        losses = Signal(len(units[0].loss) + len(units).bit_length() - 1, name="losses")
        m.d.sync += [losses.eq(sum(unit.loss for unit in units)), self.loss.eq(self.loss + losses)]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), self.loss.eq(0)]
        with m.If(ends):
            m.d.sync += self.loss_valid.eq(1)
        with m.If(self.loss_valid & self.loss_ready):
            m.d.sync += [self.loss_valid.eq(0), busy.eq(0)]
        return m

    def _read(self, m: Module) -> None:
        """Ask for pieces of logits, each for its unit, while that has room. The row's label comes beside the piece."""
        g, a, units = self.geometry, self.a, self.units
        asks, goes = signals("asks goes")
        read = cursor(m, "read", g, a, start=self.start, moves=goes, step=g.width, beside=len(units))
        m.d.comb += [
            *(self.request[name].eq(getattr(read, name)) for name in ("block", "row", "column")),
            self.wanted.eq(asks & Cat(unit.room & turn for unit, turn in zip(units, read.turns)).any()),
            goes.eq(self.wanted & self.granted),
            self.label.eq(Cat(self.labels.left + read.line)[:SIZE] + (self.labels.block << 8)),
            *(unit.asked.eq(goes & turn) for unit, turn in zip(units, read.turns)),
        ]
        with m.If(goes & read.end):
            m.d.sync += asks.eq(0)
        with m.If(self.start):
            m.d.sync += asks.eq(1)
        now = stage(m, 1, "asked", valid=goes, last=read.last, at=read.at,
                    live=Cat(read.rest > k for k in range(g.width)), turns=Cat(read.turns))
        # The labels' memory answers late in a cycle.
        now = stage(m, 1, "labelled", now, label=self.labelled)
        offset = Signal(SIZE, name="offset")
        m.d.comb += offset.eq(now.label - now.at)
        now = stage(m, 1, "aimed", now, drop=("at", "label"), targets=Cat(offset == k for k in range(g.width)))
        for step in range(3, READ):
            now = stage(m, 1, f"read{step}", now)
        found = [self.found[k] for k in range(g.width)]
        for number, unit in enumerate(units):
            m.d.comb += [unit.given.eq(now.valid & now.turns[number]),
                         unit.piece.eq(Cat(*found, now.targets, now.live, now.last))]

    def _words(self, m: Module) -> None:
        """Ask for vectors of random words, each for its unit, while that has room."""
        a, units, bits = self.a, self.units, self.geometry.parameters.softmax.random_bits
        m.submodules.random = random = AddressedWords(lanes=LANES, bits=bits)
        asks, goes = signals("words_ask words_go")
        walk = cursor(m, "words", self.geometry, a, start=self.start, moves=goes, step=LANES, beside=len(units))
        # Of the vector at hand, and of the first one of the rows that go side by side.
        number, first = signals("number number_first", VECTOR)
        row = (a.columns + (LANES - 1)) >> (LANES.bit_length() - 1)
        below = blocks_of(LANES, bits).bit_length() - 1
        m.d.comb += [
            goes.eq(asks & Cat(unit.words_room & turn for unit, turn in zip(units, walk.turns)).any()),
            random.key.eq(self.key), random.index.eq(Cat(C(0, below), number[:VECTOR - below], self.use)),
            *(unit.words_asked.eq(goes & turn) for unit, turn in zip(units, walk.turns)),
        ]
        with m.If(goes):
            m.d.sync += number.eq(number + row)
            with m.If(walk.across):
                following = Mux(walk.last, number, first) + 1
                m.d.sync += [number.eq(following), first.eq(following)]
            with m.If(walk.end):
                m.d.sync += asks.eq(0)
        with m.If(self.start):
            m.d.sync += [asks.eq(1), number.eq(self.vector), first.eq(self.vector)]
        now = stage(m, 1, "word0", valid=goes, turns=Cat(walk.turns))
        for step in range(1, STAGES):
            now = stage(m, 1, f"word{step}", now)
        for each, unit in enumerate(units):
            m.d.comb += [unit.words_given.eq(now.valid & now.turns[each]), unit.words.eq(random.words)]

    def _write(self, m: Module) -> tuple[Value, Value]:
        """Write the units' errors, in the order in which logits are read.

        Return whether the last ones go on, and whether there are some that wait for the memory.
        """
        g, units = self.geometry, self.units
        goes = Signal(name="errors_go")
        write = cursor(m, "write", g, self.to, start=self.start, moves=goes, step=g.width, beside=len(units))
        elements = units[0].elements
        for unit, turn in zip(units[1:], write.turns[1:]):
            elements = Mux(turn, unit.elements, elements)
        there, piece = Signal(name="errors_there"), Signal.like(self.piece, name="errors_piece")
        held, takes = elastic(m, "held", self.ready, valid=there, piece=piece)
        m.d.comb += [
            there.eq(Cat(unit.valid & turn for unit, turn in zip(units, write.turns)).any()), goes.eq(there & takes),
            *(unit.ready.eq(takes & turn) for unit, turn in zip(units, write.turns)),
            *(piece[name].eq(getattr(write, name)) for name in ("block", "row", "column")),
            piece.live.eq(Cat(write.rest > k for k in range(g.width))), piece.elements.eq(elements),
            self.valid.eq(held.valid), self.piece.as_value().eq(held.piece),
        ]
        return goes & write.end, held.valid
