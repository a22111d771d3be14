# amaranth: UnusedElaboratable=no
"""A converter's way of operands that are windows: in segments, or as bands that are read place by place."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data

from ..array.cells import rows_first
from ..array.path import Path
from ..array.walker import Walker
from ..pipeline import elastic, signals, stage
from .layouts import Geometry
from .memories import READ
from .patches import Patches, gathered, located, segment_layout
from .squares import Squares

__all__ = ["Bands", "either"]


def either(m: Module, turn: Value, walkers: Sequence[Walker], steps: Sequence[dict[str, Any]], of: str = "vector"
           ) -> dict[str, Any]:
    """Return the vector of the rows, if it is their `turn`, or of the columns; and what goes with it."""
    rows, columns = walkers
    vector = Signal.like(rows.vector, name=of)
    m.d.comb += [vector.eq(Mux(turn, rows.vector, columns.vector)), vector.of.eq(~turn)]
    return {"vector": vector.as_value(), **{name: Mux(turn, one, steps[1][name]) for name, one in steps[0].items()}}


class Bands:
    """What a converter is given where operands may be windows: vectors in segments, or those of squares.

    Parameters
    ----------
    m : Module
    geometry : Geometry
    number : int
        Of the converter.
    walkers : sequence of Walker
    patches : sequence of Patches
    counts : sequence of dict
        What goes with a vector of each side.

    Attributes
    ----------
    going : Value
        A segment waits, or a vector of a square.
    """

    def __init__(self, m: Module, geometry: Geometry, number: int, walkers: Sequence[Walker],
                 patches: Sequence[Patches], counts: Sequence[dict[str, Any]]) -> None:
        self.m, self.geometry, self.number = m, geometry, number
        self.walkers, self.patches, self.counts = walkers, patches, list(counts[0])
        self.sides = (0, 1) if geometry.parameters.converters == 1 else (number,)
        m.submodules[f"squares{number}"] = self.squares = Squares(geometry)
        segments = [each.segment for each in patches]
        self.plain = [walker.wants & ~segment.banded for walker, segment in zip(walkers, segments)]
        self.opens = [segment.first & ~segment.line_of.any() for segment in segments]
        self.goes = [Signal(name=f"vector_goes{side}") for side in self.sides]
        self.turn = self._kept_turn(rows_first(*walkers)) if len(self.sides) == 2 else C(0, 1)

        # A vector of a square has no way to the memory, and waits here for its way to the converter.
        self.leaves, wanted, self.emits = signals(f"leaves{number} wants_square{number} emits{number}")
        ends = self._of(self.turn, [each.turned for each in walkers])
        m.d.comb += wanted.eq(self._of(self.turn, [walker.wants & segment.banded & self.squares.filled
                                                   for walker, segment in zip(walkers, segments)]))
        self.column, takes = elastic(
            m, f"column{number}", self.leaves, valid=wanted, ends=ends,
            column=self._of(self.turn, [each.column for each in walkers]),
            **self._either(self.turn, "square_vector", counts))
        m.d.comb += [self.emits.eq(wanted & takes), self.squares.releases.eq(self.emits & ends)]

    def _of(self, turn: Value, pair: Sequence[Value]) -> Value:
        """Return what is the converter's own, or of the side whose turn it is."""
        return pair[self.number] if len(self.sides) == 1 else Mux(turn, *pair)

    def _either(self, turn: Value, name: str, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the vector that is the converter's own, or of the side whose turn it is."""
        if len(self.sides) == 1:
            return {"vector": self.walkers[self.number].vector.as_value(), **steps[self.number]}
        return either(self.m, turn, self.walkers, steps, name)

    def _kept_turn(self, turn: Value) -> Signal:
        """Return whether it is the rows' turn. The turn does not change within a vector."""
        rows, within, kept = signals("turn within kept_turn")
        self.m.d.comb += rows.eq(Mux(within, kept, turn))
        with self.m.If(Cat(self.goes).any()):
            self.m.d.sync += [within.eq(~Mux(rows, self.patches[0].ends, self.patches[1].ends)), kept.eq(rows)]
        return rows

    def segments(self, free: Value, steps: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return what waits for a memory, and is `free` to go there: segments of vectors, and of squares.

        Squares are read in the order in which their vectors follow each other: see `rows_first`.
        """
        m, number = self.m, self.number
        room, plain = signals(f"room{number} plain{number}")
        a, b = self.patches
        ahead = a.reads & (~a.begun | ~b.reads)
        reads = self._of(ahead, [each.reads & (self.squares.room | ~opens)
                                 for each, opens in zip(self.patches, self.opens)])
        m.d.comb += plain.eq(self._of(self.turn, self.plain))
        rows = Mux(plain, self.turn, ahead)
        for side, goes in zip(self.sides, self.goes):
            walker, patches = self.walkers[side], self.patches[side]
            own = C(1, 1) if len(self.sides) == 1 else rows != side
            turn = C(1, 1) if len(self.sides) == 1 else self.turn != side
            m.d.comb += [
                goes.eq(plain & room & own), patches.go.eq((plain | reads) & room & own),
                walker.go.eq(goes & patches.ends | self.emits & turn),
            ]
        m.d.comb += self.squares.opens.eq(~plain & reads & room & self._of(ahead, self.opens))
        steps = [{**step, "segment": each.segment.as_value()} for step, each in zip(steps, self.patches)]
        now = stage(m, room, f"placed{number}", valid=plain | reads, **self._either(rows, "vector", steps))
        m.d.comb += room.eq(~now.valid | free)
        self.going = now.valid | self.column.valid
        found = located(m, f"located{number}", self.geometry,
                        data.View(segment_layout(self.geometry), now.segment))
        return {name: value for name, value in vars(now).items() if name != "segment"} | found

    def vectors(self, granted: Value, now: SimpleNamespace, path: Path, found: Any) -> SimpleNamespace:
        """Give a path its vectors: of what the memory was asked for, and else of a square; return what goes with them.

        Parameters
        ----------
        granted : Value
            A segment is asked for.
        now : namespace
            What is known of the segment: see `located`.
        path : Path
        found : View
            What the memory answers.
        """
        m, squares, column = self.m, self.squares, self.column
        goes = Signal(name=f"goes{self.number}")
        whole = gathered(m, f"gathered{self.number}", self.geometry, granted & ~now.banded, now, found)
        m.d.comb += [
            goes.eq(granted & now.last & ~now.banded), self.leaves.eq(~goes), path.valid.eq(goes | column.valid),
            squares.asked.eq(granted & now.banded), squares.line.eq(now.line_of), squares.live.eq(now.live),
            squares.first.eq(now.first), squares.closes.eq(now.closes), squares.found.eq(found),
            squares.reads.eq(column.valid & ~goes), squares.column.eq(column.column), squares.ends.eq(column.ends),
        ]
        with m.If(~goes):
            m.d.comb += path.vector.eq(data.View(path.vector.shape(), column.vector))
        turned = stage(m, 1, f"turned{self.number}_0", square=squares.reads)
        for step in range(1, READ):
            turned = stage(m, 1, f"turned{self.number}_{step}", turned)
        m.d.comb += Value.cast(path.elements).eq(Mux(turned.square, squares.elements.as_value(), whole))
        return SimpleNamespace(**{name: Mux(goes, getattr(now, name), getattr(column, name)) for name in self.counts})
