# amaranth: UnusedElaboratable=no
"""The end of a step with a loss scale: what moved stays or is undone, and the scale may change."""

from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS
from ...golden.core.sequencer import LARGEST_LOSS
from ..pipeline import delayed, signals
from ..powers import LOSS, halved, twice
from .layouts import Geometry, piece_layout, read_layout
from .memories import READ, StateBanks
from .tasks import SETTLE

__all__ = ["LOSSES", "Settling"]

VALUE = FIELDS["value"][0]
LOSSES = {"loss": LOSS, "accepted": VALUE, "interval": VALUE}  # registers, and their bits


class Settling(wiring.Component):
    """Keeps parameters and velocities as they were before they moved, and puts them back if a step is skipped.

    Where a velocity became Inf or NaN, all numbers of W and of the velocities are replaced by the old ones, and the
    scale halves. Where it doubles, velocities do too. Both take a cycle for each word of M's banks.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    clear : In(1)
        Before a program.
    start, done : In, Out
        A step ends; it has ended. `start` stays until then.
    registers : In
        See `LOSSES`.
    loss, accepted : Out
        What becomes of these registers. They mean something with `done`.
    skipped : Out
        Steps of the program.
    old, piece : In
        A piece of parameters, and of their velocities, is about to move.
    write, moved : In
        What the lanes write into M.
    walks, request, found : Out, Out, In
        Of M, which nobody else uses then.
    undoes, weights, changes, state : Out
        What is written into W, and into M.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        super().__init__({
            "clear": In(1), "start": In(1), "done": Out(1), "registers": In(data.StructLayout(LOSSES)),
            "loss": Out(LOSS), "accepted": Out(VALUE), "skipped": Out(VALUE),
            "old": In(1), "piece": In(piece_layout(g, 2 * g.lanes)),
            "write": In(1), "moved": In(piece_layout(g, g.banks)),
            "walks": Out(1), "request": Out(read_layout(g)), "found": In(data.ArrayLayout(g.bits, g.banks)),
            "undoes": Out(1), "weights": Out(piece_layout(g, g.lanes)),
            "changes": Out(1), "state": Out(piece_layout(g, g.banks)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, lanes, fmt, given = self.geometry, self.geometry.lanes, self.geometry.parameters.stored, self.registers
        below = lanes.bit_length() - 1
        depth = g.parameters.blocks["W"]
        m.submodules.memory_old = old = StateBanks(g, depth, 2 * lanes)
        m.d.comb += [old.valid.eq(self.old), old.piece.eq(self.piece), old.request.eq(self.request)]

        # What became of the velocities that moved.
        some, broken, large = signals("some broken large")
        fields = [code[fmt.mantissa:-1] for code in (self.moved.elements[k] for k in range(lanes))]
        with m.If(self.write):
            m.d.sync += [
                some.eq(1),
                broken.eq(broken | Cat(self.moved.live[k] & field.all() for k, field in enumerate(fields)).any()),
                large.eq(large | Cat(self.moved.live[k] & field[1:].all() for k, field in enumerate(fields)).any()),
            ]
        with m.If(self.clear | self.done):
            m.d.sync += [some.eq(0), broken.eq(0), large.eq(0)]

        # A walk through all words.
        length = depth * g.side * (g.side // lanes)
        at = Signal(range(length), name="at")
        words = g.low - below  # bits of a word's number in a row
        m.d.comb += [
            self.request.block.eq(at[words + g.low:] + g.memories["W"][1]),
            self.request.row.eq(at[words:words + g.low]), self.request.column.eq(Cat(C(0, below), at[:words])),
        ]
        undoes, halves = signals("undoing halves")
        place = Cat(self.request.block, self.request.row, self.request.column)
        came = delayed(m, "place", Cat(self.walks, place), READ)
        for piece in (self.weights, self.state):
            m.d.comb += [Cat(piece.block, piece.row, piece.column).eq(came[1:]), piece.live.eq(-1)]
        for k in range(lanes):
            before = old.found[lanes + k]
            half = halved(m, f"half{k}", fmt, before)
            m.d.comb += [
                self.weights.elements[k].eq(old.found[k]),
                self.state.elements[k].eq(Mux(undoes, Mux(halves, half, before),
                                              twice(m, f"twice{k}", fmt, self.found[k]))),
            ]
        m.d.comb += [self.changes.eq(came[0]), self.undoes.eq(came[0] & undoes)]

        left = Signal(range(READ + SETTLE + 1), name="left")
        count = Signal(VALUE, name="count")
        m.d.comb += count.eq(given.accepted + 1)
        with m.If(self.clear):
            m.d.sync += self.skipped.eq(0)
        with m.FSM(name="state_of"):
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [self.loss.eq(given.loss), self.accepted.eq(given.accepted), at.eq(0),
                             left.eq(READ + SETTLE)]
                m.next = "DECIDE"
            with m.State("DECIDE"):
                m.next = "DONE"
                with m.If(some & broken):
                    m.d.sync += [self.skipped.eq(self.skipped + 1), self.accepted.eq(0), undoes.eq(1),
                                 halves.eq(given.loss.any()), self.loss.eq(given.loss - given.loss.any())]
                    m.next = "WALK"
                with m.Elif(some):
                    m.d.sync += [self.accepted.eq(count), undoes.eq(0)]
                    with m.If(count == given.interval):
                        m.d.sync += self.accepted.eq(0)
                        with m.If((given.loss != LARGEST_LOSS) & ~large):
                            m.d.sync += self.loss.eq(given.loss + 1)
                            m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += self.walks.eq(1)
                m.d.sync += at.eq(at + 1)
                with m.If(at == length - 1):
                    m.next = "LEAVE"
            with m.State("LEAVE"):
                m.d.sync += left.eq(left - 1)
                with m.If(~left.any()):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
