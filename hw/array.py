# amaranth: UnusedElaboratable=no
"""The array in hardware: a grid of dot-product cells of any number system, fed from one memory."""

from types import SimpleNamespace

from amaranth import *
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..golden.array import QUEUE, SIZE, ArrayParameters, cycles
from . import meanings, verilog
from .circuits import circuits_of
from .pipeline import signals, stage

__all__ = ["CellArray", "Path", "Walker"]

# Of memories: no word is read, and used, while it is written, so that no circuit has to look out for it.
UNCHECKED = {"no_rw_check": 1}
CELL = verilog.PREFIX + "cell"  # of the name of the cell's module


def size_of(count):
    """Return the bits of an index below `count`, one at the least."""
    return max((count - 1).bit_length(), 1)


class Walker(wiring.Component):
    """Walks through an operand: which vector is read next, and where in the buffers it goes.

    Vectors follow each other row by row of the operand, in a row along the reduction axis. Row r goes to lane
    ``r mod lanes``; the rows of one index ``r div lanes`` lie at the same place of all lanes' buffers, one vector
    behind the other. The buffers are rings: before such a row of lanes begins, it waits for room.

    Parameters
    ----------
    parameters : ArrayParameters
    side : int
        0: rows of the array; 1: columns.

    Members
    -------
    start : In(1)
        Begin with the operand that is at ``rows``, ``groups`` (vectors a row), ``tail`` (elements of the last one, 0
        for all), ``block``, ``down`` (blocks from one to the next along the operand's rows), ``along`` (along the
        reduction axis), ``transposed`` and ``mode``.
    idle : Out(1)
        All vectors were read; the next operand may begin.
    begun : Out(1)
        A whole tile's rows were read.
    wants, go : Out(1), In(1)
        There is a vector to read; it is being read.
    vector : Out
        That vector; see `request_layout`.
    freed : In
        Where the oldest vectors in the buffers begin that are still needed; one bit more than an address.
    exceeded : Out(1)
        Waits for more room than there is.
    """

    def __init__(self, parameters: ArrayParameters, side):
        self.parameters, self.side = parameters, side
        system = parameters.system
        self.lanes = (parameters.rows, parameters.columns)[side]
        low, block = system.group.bit_length() - 1, size_of(parameters.blocks)
        super().__init__({
            "start": In(1), "rows": In(SIZE), "groups": In(SIZE - low + 1), "tail": In(max(low, 1)),
            "block": In(block), "down": In(block), "along": In(block), "transposed": In(1),
            "mode": In(mode_layout(system)), "idle": Out(1), "begun": Out(1), "wants": Out(1), "go": In(1),
            "vector": Out(request_layout(parameters)), "freed": In(size_of(parameters.words) + 1), "exceeded": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        parameters, group, words = self.parameters, self.parameters.system.group, len(self.freed)
        down = parameters.tile[self.side]

        # What is read next: vector `at` of a row, of row `index` of the block that begins at `row_block`, for a lane,
        # which is row `slot` of a tile there.
        busy, transposed = signals("busy transposed")
        left = Signal(SIZE)
        groups, final, at = (Signal.like(self.groups, name=name) for name in ("groups", "final", "at"))
        tail = Signal.like(self.tail)
        mode = Signal.like(self.mode)
        block, row_block, down_by, along = (Signal.like(self.block, name=name) for name in
                                            ("block", "row_block", "down_by", "along"))
        index = Signal.like(self.vector.index)
        lane = Signal(self.lanes, init=1)
        slot = Signal(size_of(down))
        # Of the row of lanes: its place in the buffers, what is there before it, and of that what has to stay.
        place, held, own = signals("place held own", words)

        # Room for a whole row of lanes, or none of it begins. As comparing takes a cycle, it is done twice: for the
        # place there is now, and for the one behind it, should this row of lanes end now.
        begins = lane[0] & (at == 0)
        on = Signal()
        room, room_on, gone_on = signals("room room_on gone_on")
        needs = Mux(busy, groups, self.groups)
        m.d.comb += held.eq(place - self.freed)
        m.d.sync += [
            room.eq(held + needs <= parameters.words), room_on.eq(held + (needs << 1) <= parameters.words),
            gone_on.eq(on),
        ]
        m.d.comb += [
            self.wants.eq(busy & (Mux(gone_on, room_on, room) | ~begins)),
            self.exceeded.eq(busy & begins & (own + groups > parameters.words)),
            self.idle.eq(~busy),
        ]
        row_end, last_row = at == final, left == 1
        lanes_end, tile_end = lane[-1] | last_row, (slot == down - 1) | last_row
        m.d.comb += on.eq(self.go & row_end & lanes_end)
        with m.If(self.go):
            m.d.sync += [at.eq(at + 1), block.eq(block + along)]
            with m.If(row_end):
                next_block = row_block + down_by
                if group > 1:
                    next_block = Mux(index == group - 1, next_block, row_block)
                    m.d.sync += index.eq(index + 1)
                m.d.sync += [
                    at.eq(0), left.eq(left - 1), busy.eq(~last_row), lane.eq(Cat(lane[-1], lane[:-1])),
                    block.eq(next_block), row_block.eq(next_block),
                ]
                with m.If(lanes_end):
                    m.d.sync += [lane.eq(1), place.eq(place + groups), slot.eq(Mux(tile_end, 0, slot + 1))]
                    # Together in the buffer are the rows of one tile, but all columns.
                    m.d.sync += own.eq(Mux(last_row | (tile_end if self.side == 0 else 0), 0, own + groups))
                    with m.If(tile_end):
                        m.d.sync += self.begun.eq(1)
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1), left.eq(self.rows), groups.eq(self.groups), final.eq(self.groups - 1), tail.eq(self.tail),
                block.eq(self.block), row_block.eq(self.block), down_by.eq(self.down), along.eq(self.along),
                transposed.eq(self.transposed), mode.eq(self.mode), index.eq(0), at.eq(0), self.begun.eq(0),
            ]
        # The last row goes to all lanes that are left, too: their cells repeat its results, and nothing else.
        to = Mux(last_row, Cat(lane[:k + 1].any() for k in range(self.lanes)), lane)
        m.d.comb += [
            self.vector.block.eq(block), self.vector.index.eq(index), self.vector.transposed.eq(transposed),
            self.vector.tail.eq(Mux(row_end, tail, 0)), self.vector.mode.eq(mode), self.vector.lanes.eq(to),
            self.vector.place.eq(place + at), self.vector.arrived.eq(row_end & lanes_end & tile_end),
        ]
        return m


class Path(wiring.Component):
    """Brings vectors from the memory into the buffers: reads, rotates, cuts off the tail, and converts, one a cycle.

    Parameters
    ----------
    parameters : ArrayParameters
    side : int
        Of the converter's random words.

    Members
    -------
    valid, vector : In
        What to read; see `request_layout`.
    address, index : Out
        Of the memory's read ports: of each bank; and how far the vector is rotated that comes from them.
    reading : Out(1)
        What was asked for two cycles before, as the answer is registered, is at
    elements : In
        rotated back.
    lanes, place, value : Out
        The write ports of the buffers: one bit for each lane that is written, the address, the data.
    arrived : Out(1)
        The vector that is being written completes what a tile needs.
    of : Out(1)
        The side that it is for, in a path that serves both.
    invalid, overflow : Out(1)
        Sticky status of the converter.
    status_clear : In(1)
    """

    def __init__(self, parameters: ArrayParameters, side):
        self.parameters, self.kind = parameters, circuits_of(parameters.system)
        system, request = parameters.system, request_layout(parameters)
        converter = system.converter(side)
        self.converter = self.kind.converter(converter) if converter else None
        self.delay = converter.latency if converter else 0
        self.fields = [name for name, _ in self.converter.o.payload.shape() if name not in self.kind.held] if (
            self.converter) else []
        width = sum(len(Value.cast(self.converter.o.payload[name])) for name in self.fields) or system.work.width
        super().__init__({
            "valid": In(1), "vector": In(request),
            "address": Out(data.ArrayLayout(size_of(parameters.memory // system.group), system.group)),
            "index": Out(request["index"].shape), "reading": Out(1),
            "elements": In(data.ArrayLayout(system.work.width, system.group)),
            "lanes": Out(request["lanes"].shape), "place": Out(request["place"].shape), "value": Out(width),
            "arrived": Out(1), "of": Out(1), "invalid": Out(1), "overflow": Out(1), "status_clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        system, vector = self.parameters.system, self.vector
        group, low = system.group, system.group.bit_length() - 1

        # Element (r, c) of a block is in bank r + c, at address r: a row is at one address of all banks, a column at
        # another one in each; both begin in the bank of their index.
        for bank in range(group):
            offset = (Mux(vector.transposed, bank - vector.index, vector.index)[:low],) if low else ()
            m.d.comb += self.address[bank].eq(Cat(*offset, vector.block))
        way = {name: vector[name] for name in ("lanes", "place", "arrived", "of")}
        now = stage(m, 1, "read", valid=self.valid, index=vector.index, tail=vector.tail, mode=vector.mode, **way)
        # The memory answers late in the cycle: its answer is registered before it is rotated.
        now = stage(m, 1, "answered", now)
        m.d.comb += [self.index.eq(now.index), self.reading.eq(now.valid)]
        # What is beyond the reduction axis counts as zero.
        kept = [Mux((now.tail == 0) | (now.tail > k), each, 0) if low else each for k, each in enumerate(self.elements)]
        now = stage(m, 1, "fetched", now, drop=("tail", "index"), elements=Cat(kept))
        if self.converter:
            m.submodules.converter = converter = self.converter
            mode = data.View(mode_layout(system), now.mode)
            m.d.comb += [
                converter.i.valid.eq(now.valid), converter.o.ready.eq(1),
                *self.kind.convert(converter.i.payload, now.elements, mode),
                self.value.eq(Cat(converter.o.payload[name] for name in self.fields)),
                converter.status_clear.eq(self.status_clear),
                self.invalid.eq(converter.invalid), self.overflow.eq(converter.overflow),
            ]
        else:
            m.d.comb += self.value.eq(now.elements)
        # It never stalls, so that where a vector goes comes out of a ring of as many words.
        layout = {name: len(getattr(now, name)) for name in way}
        now = SimpleNamespace(valid=now.valid, way=Cat(getattr(now, name) for name in way))
        if self.delay:
            depth = max(1 << (self.delay - 1).bit_length(), 2)
            m.submodules.ring = ring = memory.Memory(shape=len(now.way), depth=depth, init=[])
            write = ring.write_port()
            read = ring.read_port(domain="comb")
            count = Signal(range(depth))
            m.d.sync += count.eq(count + 1)
            m.d.comb += [write.addr.eq(count), write.data.eq(now.way), write.en.eq(1),
                         read.addr.eq(count - self.delay)]
            for step in range(self.delay):
                now = stage(m, 1, f"way{step}", valid=now.valid)
            now.way = read.data
        now = SimpleNamespace(valid=now.valid, **{name: getattr(data.View(data.StructLayout(layout), now.way), name)
                                                  for name in way})
        m.d.comb += [self.lanes.eq(now.lanes & now.valid.replicate(len(now.lanes))), self.place.eq(now.place),
                     self.arrived.eq(now.valid & now.arrived), self.of.eq(now.of)]
        return m


def request_layout(parameters):
    """Return the layout of a vector that is to be read: where it is, how it is converted, and where it goes.

    ``of`` is the side it is for, ``arrived`` whether it completes what a tile needs.
    """
    system = parameters.system
    low = max(system.group.bit_length() - 1, 1)
    return data.StructLayout({
        "block": size_of(parameters.blocks), "index": low, "transposed": 1, "tail": low, "mode": mode_layout(system),
        "lanes": max(parameters.rows, parameters.columns), "place": size_of(parameters.words), "arrived": 1, "of": 1,
    })


def mode_layout(system):
    """Return the layout of an operand's modes; a bit that means nothing where there are none."""
    return data.StructLayout(system.modes or {"unused": 1})


def rotate(m, name, value, width, places):
    """Return a vector of elements of `width` bits, rotated down by so many places (combinational)."""
    turned = [Signal(len(value), name=f"{name}_turned{k}") for k in range(len(places) + 1)]
    m.d.comb += turned[0].eq(value)
    for level, bit in enumerate(places):
        now = turned[level]
        m.d.comb += turned[level + 1].eq(Mux(bit, Cat(now[width << level:], now[:width << level]), now))
    return turned[-1]


class FreeCell(wiring.Component):
    """A cell whose results are taken as they come, so that synthesis leaves out all that would hold them back.

    Parameters
    ----------
    cell : wiring.Component
        Input stream ``i``, output stream ``o``, sticky status.
    """

    def __init__(self, cell):
        self.cell = cell
        members = dict(cell.signature.members)
        super().__init__(members | {"o": Out(stream.Signature(cell.o.payload.shape(), always_ready=True))})

    @property
    def text(self):
        """Verilog that the cell's own needs."""
        return getattr(self.cell, "text", "")

    def elaborate(self, platform):
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

    def __init__(self, parameters: ArrayParameters):
        self.parameters = parameters
        system = parameters.system
        block = size_of(parameters.blocks)
        operand = data.StructLayout({"block": block, "stride": block, "transposed": 1, **system.modes})
        self.cell = FreeCell(circuits_of(system).cell(system.cell(parameters.sums)))
        across = {"rows": parameters.rows, "columns": parameters.columns}
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "multiply": 1, "elements": data.ArrayLayout(system.work.width, system.group),
                "index": size_of(system.group), "m": SIZE, "n": SIZE, "k": SIZE, "first": 1, "last": 1,
                "a": operand, "b": operand,
            }))),
            "o": Out(stream.Signature(data.StructLayout({
                "values": data.ArrayLayout(system.accumulator.width, parameters.rows * parameters.columns),
                **dict(zip(("row", "column"), parameters.labels)),
                **{f"{name}_live": count for name, count in across.items()}, "last": 1,
            }))),
            "invalid": Out(1), "overflow": Out(1), "exceeded": Out(1), "status_clear": In(1),
        })

    @property
    def latency(self):
        return cycles(self.parameters, 1, 1, 1)

    @property
    def text(self):
        """Verilog of the cell's module."""
        return "\n(* keep_hierarchy *)\n" + verilog.emit(self.cell, CELL)

    @property
    def meanings(self):
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

    def elaborate(self, platform):
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
            # First the rows of a tile, then all columns, for which all other rows wait: so the order, and with it that
            # of the random words, does not depend on time, and nothing waits for what waits for it.
            turn = ~rows.idle & (~rows.begun | columns.idle)
            m.d.comb += [
                rows.go.eq(rows.wants & turn), columns.go.eq(columns.wants & ~turn),
                paths[0].valid.eq(rows.go | columns.go),
                paths[0].vector.eq(Mux(turn, rows.vector, columns.vector)), paths[0].vector.of.eq(~turn),
            ]

        # Instructions. The operands of a product are read when it is taken; what the cells need to know of it waits for
        # them.
        waiting, taken = signals("waiting taken")
        shapes = {"m": SIZE, "n": SIZE, "groups": rows.groups.shape(), "first": 1, "last": 1,
                  "a_mode": mode_layout(system), "b_mode": mode_layout(system)}
        queued = SimpleNamespace(**{name: Signal(shape, name=f"queued_{name}") for name, shape in shapes.items()})
        groups = Signal.like(rows.groups)
        accept, empty = signals("accept empty")
        m.d.comb += [
            self.i.ready.eq(rows.idle & columns.idle & ~Mux(payload.multiply, waiting, paths[0].reading)),
            accept.eq(self.i.valid & self.i.ready),
            empty.eq((payload.m == 0) | (payload.n == 0) | (payload.k == 0)),
            groups.eq((payload.k + (group - 1))[low:]),
        ]
        begin = accept & payload.multiply & ~empty
        with m.If(taken):
            m.d.sync += waiting.eq(0)
        with m.If(begin):
            m.d.sync += [waiting.eq(1), queued.m.eq(payload.m), queued.n.eq(payload.n), queued.groups.eq(groups),
                         queued.first.eq(payload.first), queued.last.eq(payload.last),
                         *(queued.a_mode[name].eq(payload.a[name]) for name in system.modes),
                         *(queued.b_mode[name].eq(payload.b[name]) for name in system.modes)]
        for walker, operand, count in ((rows, payload.a, payload.m), (columns, payload.b, payload.n)):
            m.d.comb += [
                walker.start.eq(begin), walker.rows.eq(count), walker.groups.eq(groups),
                walker.tail.eq(payload.k[:low] if low else 0), walker.block.eq(operand.block),
                walker.down.eq(Mux(operand.transposed, 1, operand.stride)),
                walker.along.eq(Mux(operand.transposed, operand.stride, 1)),
                walker.transposed.eq(operand.transposed),
                *(walker.mode[name].eq(operand[name]) for name in system.modes),
            ]

        # The memory: a bank for each element of a vector, with a port for writes and one for each path's reads. What is
        # read is rotated down by its index. What is written goes up by it, which is down by what is missing to a whole
        # turn: through a path's rotation, for which there is nothing to do meanwhile.
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

        # The cells' product: where it is. Rows and columns that are left count from the current sums on.
        arrived = [path.arrived & (path.of == side) if len(paths) == 1 else path.arrived
                   for side, path in enumerate(paths * (3 - len(paths)))]
        now = self._sequence(m, (rows, columns), arrived, queued, waiting, taken)

        # Buffers: each row and each column of cells reads its own.
        advance = Signal()
        m.d.comb += now.pop.eq(advance)
        feeds = [[], []]
        for side, (walker, address) in enumerate(((rows, now.next.a), (columns, now.next.b))):
            path = paths[side % len(paths)]
            for lane in range(walker.lanes):
                buffer = memory.Memory(shape=len(path.value), depth=parameters.words, init=[], attrs=UNCHECKED)
                m.submodules[f"buffer{side}_{lane}"] = buffer
                port = buffer.write_port()
                m.d.comb += [port.addr.eq(path.place), port.data.eq(path.value),
                             port.en.eq(path.lanes[lane] & (path.of == side if len(paths) == 1 else 1))]
                port = buffer.read_port()
                m.d.comb += [port.addr.eq(address), port.en.eq(advance)]
                feeds[side].append(port.data)
        # A buffer answers late in the cycle: what the cells decide by, the modes among it, comes from registers.
        fed = stage(m, advance, "fed", valid=now.there, slot=now.next.slot, first=now.next.first, last=now.next.last,
                    a_mode=now.next.a_mode, b_mode=now.next.b_mode)

        def operand(target, found, mode):
            if not paths[0].converter or not isinstance(target, data.View):
                return [target.eq(found)]
            mode, given, low = data.View(mode_layout(system), mode), [], 0
            for name in paths[0].fields:
                size = len(Value.cast(target[name]))
                given.append(Value.cast(target[name]).eq(found[low:low + size]))
                low += size
            return given + [target[name].eq(mode[name]) for name in paths[0].kind.held]

        # The cells, all of one module and in step: what one of them says of its streams is true of all.
        values, ready, status = [], None, {"invalid": [], "overflow": []}
        ports = [name for name, _, _ in verilog.ports_of(self.cell)]
        for row in range(parameters.rows):
            for column in range(parameters.columns):
                name = f"{row}_{column}"
                operands = Signal(self.cell.i.payload.shape(), name=f"operands_{name}")
                m.d.comb += [*operand(operands.a, feeds[0][row], fed.a_mode),
                             *operand(operands.b, feeds[1][column], fed.b_mode),
                             operands.first.eq(fed.first), operands.last.eq(fed.last)]
                if parameters.interleaved:
                    m.d.comb += operands.slot.eq(fed.slot)
                result = Signal(self.cell.o.payload.shape(), name=f"result_{name}")
                valid, can = Signal(name=f"valid_{name}"), Signal(name=f"ready_{name}")
                flags = {port: Signal(name=f"{port}_{name}") for port in status if port in ports}
                m.submodules[f"cell_{name}"] = Instance(
                    CELL, i_clk=ClockSignal(), i_rst=ResetSignal(), i_i_payload=operands.as_value(),
                    i_i_valid=fed.valid, o_i_ready=can, o_o_payload=result.as_value(), o_o_valid=valid,
                    i_status_clear=self.status_clear,
                    **{f"o_{port}": flag for port, flag in flags.items()})
                values.append(result.value)
                for port, flag in flags.items():
                    status[port].append(flag)
                if ready is None:
                    ready, some = can, valid
        m.d.comb += advance.eq(~fed.valid | ready)
        self._results(m, now, some, Cat(values))
        for port, flags in status.items():
            m.d.comb += getattr(self, port).eq(Cat(*flags, *(getattr(path, port) for path in paths)).any())
        return m

    def _results(self, m, now, made, values):
        """Keep the results that the cells have made until they are taken, and what they are the results of.

        The cells cannot be stopped by whoever takes the results, which would be a path through all of them: what makes
        a result is given to them only if there is room for it here.
        """
        depth = self.parameters.waiting
        pointer = range(2 * depth)  # of a ring, and one bit more, which tells a full one from an empty one
        issued, there, taken = (Signal(pointer, name=name) for name in ("issued", "results", "taken"))
        valid, take = signals("valid take")
        m.d.comb += [
            now.room.eq((issued ^ taken) != depth), take.eq((there != taken) & (~valid | self.o.ready)),
            self.o.valid.eq(valid),
        ]
        m.d.sync += [issued.eq(issued + now.labelled), there.eq(there + made), taken.eq(taken + take)]
        with m.If(take):
            m.d.sync += valid.eq(1)
        with m.Elif(self.o.ready):
            m.d.sync += valid.eq(0)
        payload = self.o.payload
        labels = Cat(payload.row, payload.column, payload.rows_live, payload.columns_live, payload.last)
        # In LUTs the wide ring would need a flip-flop for each of its bits, too.
        for name, given, when, where, out, kind in (
                ("labels", now.labels, now.labelled, issued, labels, {}),
                ("values", values, made, there, payload.values.as_value(), {"ram_style": "block"})):
            m.submodules[name] = ring = memory.Memory(shape=len(out), depth=depth, init=[], attrs=UNCHECKED | kind)
            write = ring.write_port()
            read = ring.read_port()
            m.d.comb += [write.addr.eq(where), write.data.eq(given), write.en.eq(when),
                         read.addr.eq(taken), read.en.eq(take), out.eq(read.data)]

    def _sequence(self, m, walkers, arrived, queued, waiting, taken):
        """Walk through the tiles of a product; return what the cells are given next, and the labels of its result.

        The caller drives ``pop``, when the next transfer is read for the cells, and ``room``, for one more result.
        Sums of a tile take turns, group by group, or follow each other; see `ArrayParameters.interleaved`.
        """
        parameters = self.parameters
        across = parameters.tile[1]
        words = len(walkers[0].freed)
        running, issue, room = signals("running issue room")
        groups, final, at = (Signal.like(queued.groups, name=name) for name in ("groups", "final", "at"))
        first, last, a_mode, b_mode = (Signal.like(vars(queued)[name], name=name)
                                       for name in ("first", "last", "a_mode", "b_mode"))
        # For each side: `left`, the rows from the current one on, and from the tile's first on, of all; the place in
        # the buffer of the current row of lanes, of the tile's first one, of the product's, and of the oldest that is
        # still needed; the labels of the current row of lanes and of the tile's first one.
        sides = []
        for name, count, walker, label in zip("ab", parameters.tile, walkers, parameters.labels):
            lanes = walker.lanes
            sides.append(SimpleNamespace(
                count=count, lanes=lanes, slot=Signal(size_of(count), name=f"{name}_slot"),
                left=Signal(SIZE, name=f"{name}_left"), tile_left=Signal(SIZE, name=f"{name}_tile_left"),
                place=Signal(words, name=f"{name}_place"), tile_place=Signal(words, name=f"{name}_tile_place"),
                base=Signal(words, name=f"{name}_base"), freed=Signal(words, name=f"{name}_freed"),
                label=Signal(label, name=f"{name}_label"), tile_label=Signal(label, name=f"{name}_tile_label"),
                there=Signal(words, name=f"{name}_there")))
        a, b = sides
        all_columns = Signal(SIZE)
        tile = Signal(words)  # tiles of the current row of tiles before this one

        ends = {}
        for name, side in (("a", a), ("b", b)):
            ends[name] = Signal(name=f"{name}_end")  # of the side's rows in the tile
            side.over = Signal(name=f"{name}_over")  # the side has no further rows
            m.d.comb += [side.over.eq(side.left <= side.lanes),
                         ends[name].eq((side.slot == side.count - 1) | side.over)]
        ends["k"] = Signal(name="k_end")
        m.d.comb += ends["k"].eq(at == final)

        live = [Cat(lane < side.left for lane in range(side.lanes)) for side in sides]
        tile_end, row_end, end = signals("tile_end row_end end")
        m.d.comb += [
            tile_end.eq(ends["a"] & ends["b"] & ends["k"]),
            row_end.eq(tile_end & b.over),
            end.eq(row_end & a.over),
        ]
        # What the cells are given waits in a short queue, so that whether they take it is not asked by all that follows
        # here. What is freed is freed when it leaves the queue, as it is read then.
        entry = data.StructLayout({
            "a": words - 1, "b": words - 1, "slot": size_of(parameters.sums), "first": 1, "last": 1,
            "row_end": 1, "end": 1, "a_freed": words, "b_freed": words,
            "a_mode": mode_layout(parameters.system), "b_mode": mode_layout(parameters.system),
        })
        m.submodules.queue = queue = fifo.SyncFIFO(width=entry.size, depth=QUEUE)
        given, popped = Signal(entry, name="given"), data.View(entry, queue.r_data)
        pop = Signal()
        m.d.comb += [
            given.a.eq(a.place + at), given.b.eq(b.place + at), given.slot.eq(a.slot * across + b.slot),
            given.first.eq(first & (at == 0)), given.last.eq(last & ends["k"]), given.row_end.eq(row_end),
            given.end.eq(end), given.a_freed.eq(a.place + groups), given.b_freed.eq(b.place + groups),
            given.a_mode.eq(a_mode), given.b_mode.eq(b_mode),
            queue.w_data.eq(given), queue.w_en.eq(issue), queue.r_en.eq(pop),
        ]
        with m.If(pop & queue.r_rdy & popped.row_end):
            m.d.sync += a.freed.eq(popped.a_freed)
        with m.If(pop & queue.r_rdy & popped.end):
            m.d.sync += b.freed.eq(popped.b_freed)
        m.d.comb += issue.eq(running & (a.there != 0) & (b.there > tile) & room & queue.w_rdy)

        def forward(side):
            return [side.slot.eq(side.slot + 1), side.left.eq(side.left - side.lanes),
                    side.place.eq(side.place + groups), side.label.eq(side.label + 1)]

        def back(side):
            return [side.slot.eq(0), side.left.eq(side.tile_left), side.place.eq(side.tile_place),
                    side.label.eq(side.tile_label)]

        steps = {"k": ([at.eq(at + 1)], [at.eq(0)]), "a": (forward(a), back(a)), "b": (forward(b), back(b))}
        carry = issue
        for digit in ("b", "a", "k") if parameters.interleaved else ("k", "b", "a"):
            onward, again = steps[digit]
            with m.If(carry & ~ends[digit]):
                m.d.sync += onward
            with m.If(carry & ends[digit]):
                m.d.sync += again
            carry = carry & ends[digit]

        def begin(side, left, place, label):
            return [side.left.eq(left), side.tile_left.eq(left), side.place.eq(place), side.tile_place.eq(place),
                    side.label.eq(label), side.tile_label.eq(label)]

        def beyond(side):
            return side.left - side.lanes, (side.place + groups)[:words], side.label + 1

        done = carry
        m.d.comb += taken.eq(~running & waiting)
        with m.If(done):
            m.d.sync += tile.eq(Mux(b.over, 0, tile + 1))
            with m.If(~b.over):
                m.d.sync += begin(b, *beyond(b))
            with m.Else():
                m.d.sync += [*begin(b, all_columns, b.base, 0), *begin(a, *beyond(a))]
                with m.If(a.over):
                    m.d.sync += [running.eq(0), a.base.eq((a.place + groups)[:words]),
                                 b.base.eq((b.place + groups)[:words])]
        with m.If(taken):
            m.d.sync += [
                running.eq(1), groups.eq(queued.groups), final.eq(queued.groups - 1), first.eq(queued.first),
                last.eq(queued.last), a_mode.eq(queued.a_mode), b_mode.eq(queued.b_mode), at.eq(0), tile.eq(0),
                all_columns.eq(queued.n),
                *begin(a, queued.m, a.base, 0), *begin(b, queued.n, b.base, 0),
            ]
        # Tiles' worth of rows in the buffers. Those of a go with their row of tiles, those of b with the product, but
        # in the cycle after it, in which nothing is issued yet: so the long path to here is cut.
        gone = Signal(words)
        m.d.sync += [
            gone.eq(Mux(done & b.over & a.over, tile + 1, 0)),
            a.there.eq(a.there + arrived[0] - (done & b.over)), b.there.eq(b.there + arrived[1] - gone),
        ]
        m.d.comb += [walker.freed.eq(side.freed) for walker, side in zip(walkers, sides)]

        # A side that waits for more room than there is does so for ever.
        with m.If(Cat(walker.exceeded for walker in walkers).any()):
            m.d.sync += self.exceeded.eq(1)

        return SimpleNamespace(there=queue.r_rdy, next=popped, pop=pop, room=room, labelled=issue & ends["k"] & last,
                               labels=Cat(a.label, b.label, *live, end))
