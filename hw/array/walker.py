"""The array's walkers: which vector of an operand is read next, and where it goes."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...golden.array import SIZE, ArrayParameters
from ...golden.words import USE, VECTOR, blocks_of
from ..pipeline import signals
from .layouts import mode_layout, request_layout, size_of

__all__ = ["Walker"]


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
    span : int, optional
        Rows and columns of a block, where an operand may begin at another one than the first: as many as a vector has
        elements, or more. Without it a block has as many, and operands begin with one.
    bands : bool
        With `span`: operands may be read in bands of `band` rows or fewer. The rows of a band take turns: the first
        vectors of all rows come first, then all second vectors, and so on.

    Members
    -------
    start : In(1)
        Begin with the operand that the following inputs describe.
    rows : In
    final : In
        Where a row's last vector is in the row. In a row longer than the buffers: any number from their words on.
    tail : In
        Elements of that vector, 0 for all.
    block, stride, transposed : In
        The first block. Blocks from one row of blocks to the next. Whether the operand's rows are stored as columns.
    first, along : In
        With `span`: the first row's index in its block. Where a block's row has several vectors: the first one's.
    mode : In
        See `mode_layout`.
    use, number, pitch : In
        If vectors may need random words: the use; the first vector's number; numbers from row to row.
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
    banded, column, turned : In, Out, Out
        With `bands`: the operand is read in bands. The vector's row in its band, and whether that is the band's last.
    """

    def __init__(self, parameters: ArrayParameters, side: int, *, span: int | None = None, bands: bool = False
                 ) -> None:
        system = parameters.system
        self.parameters, self.side, self.offset = parameters, side, span is not None
        self.span = span or system.group
        self.inside = self.span // system.group
        self.lanes = (parameters.rows, parameters.columns)[side]
        self.bands = bands
        low, block, words = system.group.bit_length() - 1, size_of(parameters.blocks), size_of(parameters.words)
        super().__init__({
            "start": In(1), "rows": In(SIZE), "final": In(words + 1), "tail": In(max(low, 1)),
            "block": In(block), "stride": In(block), "transposed": In(1),
            "mode": In(mode_layout(system)), "idle": Out(1), "begun": Out(1), "wants": Out(1), "go": In(1),
            "vector": Out(request_layout(parameters, span)), "freed": In(words + 1), "exceeded": Out(1),
            **({"first": In(size_of(self.span))} if self.offset else {}),
            **({"along": In(size_of(self.inside))} if self.inside > 1 else {}),
            **({"banded": In(1), "column": Out(size_of(self.span)), "turned": Out(1)} if bands else {}),
            **({"use": In(USE), "number": In(VECTOR), "pitch": In(VECTOR)} if system.random else {}),
        })

    @property
    def band_lines(self) -> int:
        """Rows of lanes in a band: a power of two, so that a tile's rows are whole bands."""
        return 1 << min(self.parameters.tile[self.side], self.span // self.lanes).bit_length() - 1

    @property
    def band(self) -> int:
        """Rows in a band: at most as many as a block has."""
        return self.band_lines * self.lanes

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, words = self.parameters, self.parameters.words
        down = parameters.tile[self.side]

        # What is read next: vector `at` of a row, for a lane. The row is row `index` of the block that begins at
        # `row_block`. In the lane it is row `slot` of a tile. What an operand brings is not reset.
        busy = Signal()
        left = Signal(SIZE, reset_less=True)
        final, tail, mode, stride, transposed, block = (
            Signal.like(getattr(self, name), name=name, reset_less=True)
            for name in ("final", "tail", "mode", "stride", "transposed", "block"))
        row_block = Signal.like(block)
        at, index = Signal.like(self.vector.at, name="at"), Signal.like(self.vector.index, name="index")
        lane = Signal(self.lanes, init=1)
        slot = Signal(size_of(down))
        # Of the row of lanes: its place in the buffers, what is there before it, and of that what has to stay.
        place, held, own = signals("place held own", len(self.freed))

        # Room for a whole row of lanes, or none of it begins. As comparing takes a cycle, it is done twice: for the
        # place there is now, and for the one behind it, should this row of lanes end now.
        begins = lane[0] & (at == 0)
        on = Signal()
        room, room_on, gone_on = signals("room room_on gone_on")
        needs = Mux(busy, final, self.final)  # and one vector more
        m.d.comb += held.eq(place - self.freed)
        m.d.sync += [
            room.eq(held + needs < words), room_on.eq(held + Cat(C(1, 1), needs) < words), gone_on.eq(on),
        ]
        m.d.comb += [
            self.wants.eq(busy & (Mux(gone_on, room_on, room) | ~begins)),
            self.exceeded.eq(busy & begins & (own + final >= words)),
            self.idle.eq(~busy),
        ]
        row_end, last_row = at == final[:len(at)], left == 1
        lanes_end, tile_end = lane[-1] | last_row, (slot == down - 1) | last_row
        turns: Any = row_end  # the next vector is one of another row
        if self.bands:
            banded = Signal(name="banded", reset_less=True)
            turns = row_end | banded
        m.d.comb += on.eq(self.go & turns & lanes_end)

        def beyond(value: Value) -> Value:
            return (Cat(C(1, 1), value) + Cat(C(1, 1), final))[1:]  # a carry adds one more

        if self.inside > 1:
            inside, along = (Signal.like(self.along, name=name, reset_less=True) for name in ("inside", "along"))
            m.d.comb += self.vector.inside.eq(inside)
        with m.If(self.go):
            m.d.sync += [at.eq((at + 1) & ~row_end.replicate(len(at))), block.eq(block + Mux(transposed, stride, 1))]
            if self.inside > 1:
                m.d.sync += inside.eq(Mux(row_end, along, inside + 1))
                with m.If(~inside.all()):
                    m.d.sync += block.eq(block)
            with m.If(turns):
                next_block = row_block + Mux(transposed, 1, stride)
                if self.span > 1:
                    next_block = Mux(index == self.span - 1, next_block, row_block)
                    m.d.sync += index.eq(index + 1)
                m.d.sync += [
                    left.eq(left - 1), busy.eq(~(last_row & row_end if self.bands else last_row)),
                    lane.eq(Cat(lane[-1], lane[:-1])),
                    block.eq(next_block), row_block.eq(next_block),
                ]
                with m.If(lanes_end):
                    m.d.sync += [lane.eq(1), place.eq(beyond(place)), slot.eq(Mux(tile_end, 0, slot + 1))]
                    # Together in the buffer are the rows of one tile, but all columns.
                    m.d.sync += own.eq(Mux(last_row | (tile_end if self.side == 0 else 0), 0, beyond(own)))
                    with m.If(tile_end & row_end if self.bands else tile_end):
                        m.d.sync += self.begun.eq(1)
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1), left.eq(self.rows), final.eq(self.final), tail.eq(self.tail), block.eq(self.block),
                row_block.eq(self.block), stride.eq(self.stride), transposed.eq(self.transposed), mode.eq(self.mode),
                index.eq(self.first if self.offset else 0), self.begun.eq(0),
            ]
            if self.inside > 1:
                m.d.sync += [inside.eq(self.along), along.eq(self.along)]
        if parameters.system.random:
            number, pitch = signals("number pitch", VECTOR, reset_less=True)
            use = Signal(USE, reset_less=True)
            with m.If(self.go & turns):
                m.d.sync += number.eq(number + pitch)
            with m.If(self.start):
                m.d.sync += [number.eq(self.number), pitch.eq(self.pitch), use.eq(self.use)]
            below = blocks_of(*parameters.system.random).bit_length() - 1
            m.d.comb += self.vector.random.eq(Cat(C(0, below), number[:VECTOR - below], use))
        if self.bands:
            kept = {"left": left, "place": place, "own": own} | ({"number": number} if parameters.system.random else {})
            with m.If(self.start):
                m.d.sync += [banded.eq(self.banded), self.column.eq(0)]
            self._take_turns(m, banded, kept, at, slot, lanes_end, last_row, row_end)
        # The last row goes to all lanes that are left, too: their cells repeat its results, and nothing else.
        to = Mux(last_row, Cat(lane[:k + 1].any() for k in range(self.lanes)), lane)
        m.d.comb += [
            self.vector.block.eq(block), self.vector.index.eq(index), self.vector.transposed.eq(transposed),
            self.vector.tail.eq(Mux(row_end, tail, 0)), self.vector.mode.eq(mode), self.vector.lanes.eq(to),
            self.vector.at.eq(at), self.vector.place.eq(place), self.vector.arrived.eq(row_end & lanes_end & tile_end),
        ]
        return m

    def _take_turns(self, m: Module, banded: Signal, kept: dict[str, Signal], at: Signal, slot: Signal,
                    lanes_end: Value, last_row: Value, row_end: Value) -> None:
        """Let the rows of a band take turns: behind the last one the first one's next vector follows."""
        low = self.band_lines - 1
        begins = (at == 0) & (self.column == 0)
        again = self.go & banded & self.turned & ~row_end
        m.d.comb += self.turned.eq(lanes_end & (last_row | ((slot & low) == low)))
        with m.If(self.go):
            m.d.sync += self.column.eq(Mux(self.turned, 0, self.column + 1))
        with m.If(self.go & banded & ~self.turned):
            m.d.sync += at.eq(at)
        for name, value in kept.items():
            first = Signal.like(value, name=f"band_{name}", reset_less=True)
            with m.If(self.go & begins):
                m.d.sync += first.eq(value)
            with m.If(again):
                m.d.sync += value.eq(Mux(begins, value, first))
        with m.If(again):
            m.d.sync += slot.eq(slot & ~low)
