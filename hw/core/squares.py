"""Squares of numbers that are written place by place, and read number by number of all places."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..array.path import rotate
from ..pipeline import UNCHECKED, signals, stage
from .layouts import Geometry, size_of
from .memories import READ

__all__ = ["Squares"]


class Squares(wiring.Component):
    """Transposes what a band of an operand is read as: see `Patches`.

    A square has a line for each place of a group, and in it a number for each row of the band. A vector is a column of
    the square. Number j of line p is in bank (p + j) mod side: neither a line nor a column has two numbers in a bank.
    There are two squares: one is written while the other is read.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    opens, room : In(1), Out(1)
        The first segment of a square is asked for; it may be, as there is a square for it.
    asked, line, live, first, closes : In
        A segment is asked for: of this line, with the numbers of these banks. It is its line's first one, and the last
        one of its square.
    found : In
        The memory's answer, `READ` cycles later, turned by the line.
    filled : Out(1)
        There is a square that may be read.
    releases : In(1)
        All of its vectors are on their way: `filled` tells of the next square.
    reads, column, ends, elements : In, In, In, Out
        A vector is read, the last of its square if it `ends` that. `READ` cycles later its elements are there.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        group = g.parameters.system.group
        super().__init__({
            "opens": In(1), "room": Out(1), "asked": In(1), "line": In(size_of(group)), "live": In(g.side),
            "first": In(1), "closes": In(1), "found": In(data.ArrayLayout(g.bits, g.side)), "filled": Out(1),
            "releases": In(1), "reads": In(1), "column": In(g.low), "ends": In(1),
            "elements": Out(data.ArrayLayout(g.bits, group)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        side, low, bits = self.geometry.side, self.geometry.low, self.geometry.bits
        group = self.geometry.parameters.system.group
        below = group.bit_length() - 1

        # The answers of a segment.
        now = stage(m, 1, "asked0", valid=self.asked, line=self.line, live=self.live, first=self.first,
                    closes=self.closes)
        for step in range(1, READ):
            now = stage(m, 1, f"asked{step}", now)
        writes, reads = signals("writes reads")  # of the two squares, which one
        with m.If(now.valid & now.closes):
            m.d.sync += writes.eq(~writes)
        with m.If(self.reads & self.ends):
            m.d.sync += reads.eq(~reads)

        # Squares that are opened and not read yet, and those that may be read.
        opened, full = signals("opened full", 2)
        m.d.sync += [opened.eq(opened + self.opens - (self.reads & self.ends)),
                     full.eq(full + (now.valid & now.closes) - self.releases)]
        m.d.comb += [self.room.eq(~opened[1]), self.filled.eq(full.any())]

        # A vector: an address for each bank, its answer, and the turn back.
        read = stage(m, 1, "read0", column=self.column, square=reads)
        answers = []
        for bank in range(side):
            m.submodules[f"bank{bank}"] = each = memory.Memory(
                shape=bits, depth=2 * group, init=[], attrs=UNCHECKED | {"ram_style": "distributed"})
            write, port = each.write_port(), each.read_port(domain="comb")
            live = now.live[bank]
            m.d.comb += [
                write.addr.eq(Cat(now.line[:below], writes)), write.en.eq(now.valid & (now.first | live)),
                write.data.eq(Mux(live, self.found[bank], 0)),
                port.addr.eq(Cat((C(bank, low) - read.column)[:below], read.square)),
            ]
            answers.append(port.data)
        read = stage(m, 1, "read1", read, elements=Cat(answers))
        turned = rotate(m, "turned", read.elements, bits, read.column)
        elements = stage(m, 1, "read2", elements=turned[:group * bits]).elements
        for step in range(3, READ):
            elements = stage(m, 1, f"read{step}", elements=elements).elements
        m.d.comb += self.elements.as_value().eq(elements)
        return m
