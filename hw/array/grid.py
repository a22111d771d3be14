# amaranth: UnusedElaboratable=no
"""The array in hardware: a grid of dot-product cells of any number system, fed from one memory."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.array import SIZE, ArrayParameters, cycles
from ...golden.words import USE, VECTOR
from .. import meanings, verilog
from ..circuits import circuits_of
from ..pipeline import signals
from .cells import CELL, begin, multiply, rows_first
from .layouts import UNCHECKED, size_of
from .path import Path, random_key, rotate
from .walker import Walker

__all__ = ["CellArray", "FreeCell"]


class FreeCell(wiring.Component):
    """A cell whose results are taken as they come, so that synthesis leaves out all that would hold them back.

    Parameters
    ----------
    cell : wiring.Component
        Input stream ``i``, output stream ``o``, sticky status.
    """

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        members = dict(cell.signature.members)
        super().__init__(members | {"o": Out(stream.Signature(cell.o.payload.shape(), always_ready=True))})

    @property
    def text(self) -> str:
        """Verilog that the cell's own needs."""
        return getattr(self.cell, "text", "")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.cell = cell = self.cell
        wiring.connect(m, wiring.flipped(self.i), cell.i)
        m.d.comb += [
            cell.o.ready.eq(1), self.o.valid.eq(cell.o.valid), self.o.payload.eq(cell.o.payload),
            cell.status_clear.eq(self.status_clear),
            *(getattr(self, name).eq(getattr(cell, name)) for name in ("invalid", "overflow") if hasattr(self, name)),
        ]
        return m


class CellArray(wiring.Component):
    """Matrix products on a grid of cells, from a memory in which rows and columns read alike.

    Every cell makes dot products of two vectors of `group` elements of the number system and adds them, one behind the
    other along the reduction axis, to one of its sums. Cell (r, c) makes the results of rows ``r`` modulo `rows` and of
    columns ``c`` modulo `columns`; a tile of results stays in the cells until it is done. The operands are read
    from the memory in the work format along the reduction axis, down or across what is stored, quantised by a converter
    for the rows and one for the columns, once a product, and kept in buffers beside the cells. An instruction is either
    a write of one vector into the memory, or a product; the next one is taken when the operands of the one before have
    been read. Results do not depend on time. Source: numerics contract, section 12.

    The text has the cell's module once; its attribute ``keep_hierarchy`` lets synthesis work on it once, too.

    Parameters
    ----------
    parameters : ArrayParameters

    Members
    -------
    i : In(stream)
        ``multiply``: 1, a product, 0, a write. A write puts ``elements`` (codes of the work format) into row ``index``
        of block ``a.block``, or with ``a.transposed`` into that column. A product is of ``m`` vectors of operand ``a``
        and ``n`` of operand ``b``, each ``k`` long: see `golden.array.Operand`. If one of these is 0 nothing is done.
        ``first``: its sums start from +0, and do not go on from the product before; ``last``: there are results.
        ``step``, ``use``, ``pitch``, ``a.vector`` and ``b.vector``, if vectors may be rounded stochastically: the
        address of their random words; see `golden.array.Product`. A product of another step than the one before waits
        until a new key is made.
    o : Out(stream)
        ``values``: of each cell a code of the accumulator's format, row by row; cells without a result repeat one.
        ``row``, ``column``: the result of cell (r, c) is that of row ``row * rows + r`` and column
        ``column * columns + c``; ``rows_live``, ``columns_live``: a bit for each row and column of cells that has
        results; ``last``: of the product. See `golden.array.transfers` for the order.
    invalid, overflow : Out(1)
        Sticky: a NaN came in or was made; an operand or a result was beyond its range.
    exceeded : Out(1)
        A product does not fit the buffers, and the array waits until it is reset: see `golden.array.Product.fits`.
    status_clear : In(1)
        Clears the sticky status.

    Attributes
    ----------
    latency : int
        Cycles from a product of one vector and one vector to its result, at the greatest precision.
    interval : int
        Cycles between writes.
    """

    interval = 1

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        system = parameters.system
        block = size_of(parameters.blocks)
        random, vector = ({"use": USE, "step": 32, "pitch": VECTOR}, {"vector": VECTOR}) if system.random else ({}, {})
        operand = data.StructLayout({"block": block, "stride": block, "transposed": 1, **system.modes, **vector})
        self.cell = FreeCell(circuits_of(system).cell(system.cell(parameters.sums)))
        across = {"rows": parameters.rows, "columns": parameters.columns}
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "multiply": 1, "elements": data.ArrayLayout(system.work.width, system.group),
                "index": size_of(system.group), "m": SIZE, "n": SIZE, "k": SIZE, "first": 1, "last": 1,
                "a": operand, "b": operand, **random,
            }))),
            "o": Out(stream.Signature(data.StructLayout({
                "values": data.ArrayLayout(system.accumulator.width, parameters.rows * parameters.columns),
                **dict(zip(("row", "column"), parameters.labels)),
                **{f"{name}_live": count for name, count in across.items()}, "last": 1,
            }))),
            "invalid": Out(1), "overflow": Out(1), "exceeded": Out(1), "status_clear": In(1),
        })

    @property
    def latency(self) -> int:
        return cycles(self.parameters, 1, 1, 1)

    @property
    def text(self) -> str:
        """Verilog of the cell's module."""
        return "\n(* keep_hierarchy *)\n" + verilog.emit(self.cell, CELL)

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        # A mode of a number system from outside may have no text.
        modes = {name: f"the number system's mode {name}" for name in p.system.modes or ("unused",)}
        modes |= {"precision": "magnitude bits to use", "rounding": meanings.ROUNDING} | meanings.scale()
        return modes | {
            "multiply": "1: a product, 0: a write of elements",
            "elements": meanings.numbers(p.system.work),
            "index": "row (or with a.transposed column) of block a.block that is written",
            "m": "rows of the result: vectors of operand a", "n": "columns of the result: vectors of operand b",
            "k": "elements of each vector, along which products are added",
            "block": f"where the matrix begins in the memory; blocks are {p.system.group} x {p.system.group} elements",
            "stride": "blocks from one row of blocks to the next",
            "transposed": "1: the operand's vectors are the columns of what is stored",
            "use": "random words of operand a; b has those of the use with the other lowest bit",
            "step": "random words are those of this step; another one than before takes time for a new key",
            "pitch": "vectors of a row of the whole operand, of which this is a part; 0: as many as here",
            "vector": "number of the operand's first vector, to which its random words belong",
            "first": "1: start sums from +0; 0: from the product before",
            "i.last": "1: there are results; 0: the next product goes on with the sums",
            "values": f"{meanings.numbers(p.system.accumulator)}; cells row by row",
            "row": f"cell (r, c) has the result's row {p.rows} * row + r",
            "column": f"and its column {p.columns} * column + c",
            "rows_live": "a bit for each row of cells: it has results",
            "columns_live": "a bit for each column of cells: it has results",
            "o.last": "the product's last results",
            "invalid": "sticky: a NaN came in or was made",
            "overflow": "sticky: an operand or a result was beyond its range",
            "exceeded": "a product does not fit the buffers; the array waits for reset",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, system, payload = self.parameters, self.parameters.system, self.i.payload
        group, low, width = system.group, system.group.bit_length() - 1, system.work.width
        m.submodules.rows, m.submodules.columns = rows, columns = [Walker(parameters, side) for side in (0, 1)]

        paths = [Path(parameters, side) for side in range(parameters.converters)]
        for side, path in enumerate(paths):
            m.submodules[f"path{side}"] = path
            m.d.comb += path.status_clear.eq(self.status_clear)
        if parameters.converters == 2:
            for walker, path in zip((rows, columns), paths):
                m.d.comb += [walker.go.eq(walker.wants), path.valid.eq(walker.go), path.vector.eq(walker.vector)]
        else:
            turn = rows_first(rows, columns)
            m.d.comb += [
                rows.go.eq(rows.wants & turn), columns.go.eq(columns.wants & ~turn),
                paths[0].valid.eq(rows.go | columns.go),
                paths[0].vector.eq(Mux(turn, rows.vector, columns.vector)), paths[0].vector.of.eq(~turn),
            ]

        # Instructions. The operands of a product are read when it is taken; what the cells need to know of it waits for
        # them.
        waiting, taken = signals("waiting taken")
        accept, empty = signals("accept empty")
        blocked: Value = waiting
        if system.random:
            wanted = self.i.valid & payload.multiply & rows.idle & columns.idle
            blocked = waiting | ~random_key(m, parameters, payload, wanted, rows.go | columns.go, paths)
        m.d.comb += [
            self.i.ready.eq(rows.idle & columns.idle & ~Mux(payload.multiply, blocked, paths[0].reading)),
            accept.eq(self.i.valid & self.i.ready),
            empty.eq((payload.m == 0) | (payload.n == 0) | (payload.k == 0)),
        ]
        queued = begin(m, parameters, payload, accept & payload.multiply & ~empty, (rows, columns), waiting, taken)

        # The memory: a bank for each element of a vector, with a port for writes and one for each path's reads. A read
        # vector is rotated down by its index. A written vector is rotated up by its index, which is a rotation down by
        # the rest of a turn. A path's rotation does it: a path reads nothing meanwhile.
        index = payload.index[:low]
        read, writes = [[] for _ in paths], []
        for bank in range(group):
            each = memory.Memory(shape=width, depth=parameters.memory // group, init=[], attrs=UNCHECKED)
            m.submodules[f"bank{bank}"] = each
            writes.append(each.write_port())
            offset = (Mux(payload.a.transposed, bank - index, index)[:low],) if low else ()
            m.d.comb += [writes[-1].addr.eq(Cat(*offset, payload.a.block)),
                         writes[-1].en.eq(accept & ~payload.multiply)]
            for path, found in zip(paths, read):
                port = each.read_port()
                m.d.comb += port.addr.eq(path.address[bank])
                answer = Signal(width, name=f"answer{len(found)}", reset_less=True)
                m.d.sync += answer.eq(port.data)
                found.append(answer)
        for side, (path, found) in enumerate(zip(paths, read)):
            found, places = Cat(found), path.index
            if side == 0:
                found = Mux(path.reading, found, payload.elements.as_value())
                places = Mux(path.reading, places, -payload.index)
            m.d.comb += Value.cast(path.elements).eq(rotate(m, f"path{side}", found, width, places[:low]))
        m.d.comb += [port.data.eq(paths[0].elements[bank]) for bank, port in enumerate(writes)]

        multiply(self, m, self.cell, parameters, (rows, columns), paths, queued, waiting, taken)
        return m
