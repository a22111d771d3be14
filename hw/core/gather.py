"""Results that lie side by side, gathered into wider ones."""

from typing import Any

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.array import ArrayParameters

__all__ = ["Gather", "result_layout"]


def result_layout(parameters: ArrayParameters, count: int = 1) -> data.StructLayout:
    """Return the layout of results: see `CellArray`. There are `count` tiles side by side, of which the first has the
    label; ``values`` has the rows of all of them.
    """
    columns = count * parameters.columns
    return data.StructLayout({
        "values": data.ArrayLayout(parameters.system.accumulator.width, parameters.rows * columns),
        **dict(zip(("row", "column"), parameters.labels)),
        "rows_live": parameters.rows, "columns_live": columns, "last": 1,
    })


class Gather(wiring.Component):
    """Gathers tiles that lie side by side. It waits for the next tile of a row, if there is to be one.

    Parameters
    ----------
    parameters : ArrayParameters
    count : int
        Tiles at the most, 2 or more.

    Members
    -------
    i : In(stream)
        See `result_layout`.
    o : Out(stream)
        Likewise, with `count` tiles. Columns of tiles that are not there are not live.
    """

    def __init__(self, parameters: ArrayParameters, count: int) -> None:
        self.parameters, self.count = parameters, count
        super().__init__({"i": In(stream.Signature(result_layout(parameters))),
                          "o": Out(stream.Signature(result_layout(parameters, count)))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, given, held = self.parameters, self.i.payload, self.o.payload
        have = Signal(range(self.count + 1), name="have")
        taken, beside = Signal(name="taken"), Signal(name="beside")
        more = Signal(name="more")  # the latest tile ends neither its row nor the product, as far as it tells
        new = ~have.any() | taken
        m.d.comb += [
            self.o.valid.eq(have.any() & ((have == self.count) | ~more | self.i.valid & ~beside)),
            taken.eq(self.o.valid & self.o.ready),
            beside.eq((have != self.count) & (given.row == held.row) & (given.column == held.column + have)),
            self.i.ready.eq(new | beside),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [have.eq(Mux(new, 1, have + 1)), held.last.eq(given.last),
                         more.eq(given.columns_live.all() & ~given.last)]
            with m.If(new):
                m.d.sync += [held.row.eq(given.row), held.column.eq(given.column), held.rows_live.eq(given.rows_live),
                             held.columns_live.eq(given.columns_live)]
            for place in range(self.count):
                with m.If(Mux(new, 0, have) == place):
                    for row in range(p.rows):
                        first = (row * self.count + place) * p.columns
                        m.d.sync += [held.values[first + column].eq(given.values[row * p.columns + column])
                                     for column in range(p.columns)]
                    if place:
                        live = held.columns_live[place * p.columns:(place + 1) * p.columns]
                        m.d.sync += live.eq(given.columns_live)
        with m.Elif(taken):
            m.d.sync += have.eq(0)
        return m
