"""The core's filling of tensors with one number."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .cursor import cursor
from .layouts import Geometry, piece_layout, place_layout

__all__ = ["Fill"]


class Fill(wiring.Component):
    """Writes a number to all places of a tensor of X or D, piece by piece along its rows.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, busy : In, Out
        An instruction, with what follows; it is executed.
    to, value : In
        The tensor's place, and the number. They stay while it is executed.
    valid, ready, piece : Out, In, Out
        For a memory of blocks.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        super().__init__({
            "start": In(1), "busy": Out(1), "to": In(place_layout(g)), "value": In(g.bits), "valid": Out(1),
            "ready": In(1), "piece": Out(piece_layout(g, g.width)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        width = self.geometry.width
        walk = cursor(m, "walk", self.geometry, self.to, start=self.start, moves=self.valid & self.ready, step=width)
        m.d.comb += [
            self.valid.eq(self.busy), self.piece.block.eq(walk.block), self.piece.row.eq(walk.row),
            self.piece.column.eq(walk.column), self.piece.live.eq(Cat(walk.rest > k for k in range(width))),
            *(self.piece.elements[k].eq(self.value) for k in range(width)),
        ]
        with m.If(self.valid & self.ready & walk.end):
            m.d.sync += self.busy.eq(0)
        with m.If(self.start):
            m.d.sync += self.busy.eq(1)
        return m
