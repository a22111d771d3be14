"""The array's walk through the tiles of a product: what the cells are given next."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, fifo

from ...golden.array import QUEUE, SIZE
from ..pipeline import signals
from .layouts import mode_layout, size_of

__all__ = ["sequence"]


def sequence(array: Any, m: Module, walkers: Sequence, arrived: Sequence[Value], queued: SimpleNamespace,
             waiting: Value, taken: Value) -> SimpleNamespace:
    """Walk through the tiles of a product; return what the cells are given next, and the labels of its result.

    ``starved`` and ``blocked`` tell that the product waits for operands, or for room.

    The caller drives ``pop``, when the next transfer is read for the cells, and ``room``, for one more result.
    Sums of a tile take turns, group by group, or follow each other; see `ArrayParameters.interleaved`.
    """
    parameters = array.parameters
    across = parameters.tile[1]
    words = len(walkers[0].freed)
    running, issue, room = signals("running issue room")
    final, first, last, a_mode, b_mode = (Signal.like(vars(queued)[name], name=name)  # not reset, as these are not
                                          for name in ("final", "first", "last", "a_mode", "b_mode"))
    at = Signal(len(final))
    # For each side: `left` counts the rows from the current one on. Three places are in the buffer. At `place` begins
    # the current row of lanes, at `tile_place` the tile's first row, at `freed` the oldest row that is still needed.
    # `tile` counts the tiles before this one: of rows in the product, of columns in the row of tiles.
    sides = []
    for name, count, walker, label in zip("ab", parameters.tile, walkers, parameters.labels):
        low = count.bit_length() - 1
        slot = Signal(size_of(count), name=f"{name}_slot")
        tile = Signal(max(label - low, words), name=f"{name}_tile", reset_less=True)
        place, tile_place, freed, there = (Signal(words, name=f"{name}_{each}")
                                           for each in ("place", "tile_place", "freed", "there"))
        sides.append(SimpleNamespace(
            count=count, lanes=walker.lanes, slot=slot, tile=tile, label=Cat(slot[:low], tile)[:label],
            left=Signal(SIZE, name=f"{name}_left", reset_less=True), place=place, tile_place=tile_place, freed=freed,
            there=there, beyond=(Cat(C(1, 1), place) + Cat(C(1, 1), final))[1:words + 1]))  # a carry adds one more
    a, b = sides
    base = Signal(words)  # where the product's first column begins

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
        "a": words, "b": words, "slot": size_of(parameters.sums), "first": 1, "last": 1, "row_end": 1, "end": 1,
        "a_mode": mode_layout(parameters.system), "b_mode": mode_layout(parameters.system),
    })
    m.submodules.queue = queue = fifo.SyncFIFO(width=entry.size, depth=QUEUE)
    given, popped = Signal(entry, name="given"), data.View(entry, queue.r_data)
    pop = Signal()
    m.d.comb += [
        given.a.eq(a.place + at), given.b.eq(b.place + at), given.slot.eq(a.slot * across + b.slot),
        given.first.eq(first & (at == 0)), given.last.eq(last & ends["k"]), given.row_end.eq(row_end),
        given.end.eq(end), given.a_mode.eq(a_mode), given.b_mode.eq(b_mode),
        queue.w_data.eq(given), queue.w_en.eq(issue), queue.r_en.eq(pop),
    ]
    with m.If(pop & queue.r_rdy & popped.row_end):
        m.d.sync += a.freed.eq(popped.a + 1)
    with m.If(pop & queue.r_rdy & popped.end):
        m.d.sync += b.freed.eq(popped.b + 1)
    operands = (a.there != 0) & (b.there > b.tile)
    m.d.comb += issue.eq(running & operands & room & queue.w_rdy)

    # Of each side, at its last row in the tile: whether it goes on to the next tile, and if not, how many rows of lanes
    # it goes back. That is to the tile's first row. For the next row of tiles, columns go back to the first one of all.
    turns = {"a": (row_end, a.slot), "b": (tile_end & ~b.over, Mux(row_end, b.label, b.slot))}
    carry = issue
    for digit in ("b", "a", "k") if parameters.interleaved else ("k", "b", "a"):
        with m.If(carry):
            if digit == "k":
                m.d.sync += at.eq((at + 1) & ~ends["k"].replicate(len(at)))
            else:
                side, back, (onward, again) = {"a": a, "b": b}[digit], ends[digit], turns[digit]
                m.d.sync += [
                    side.slot.eq(Mux(back, 0, side.slot + 1)),
                    side.left.eq(side.left + Mux(back & ~onward, again * side.lanes, -side.lanes)),
                    side.place.eq(Mux(back, side.tile_place, side.beyond)),
                ]
        carry = carry & ends[digit]

    def next_tile(side: SimpleNamespace) -> list:
        return [side.tile.eq(side.tile + 1), side.place.eq(side.beyond), side.tile_place.eq(side.beyond)]

    done = carry
    ended = Signal()
    m.d.sync += ended.eq(done & b.over & a.over)
    m.d.comb += taken.eq(~running & waiting)
    with m.If(done):
        m.d.sync += next_tile(b)
        with m.If(b.over):
            m.d.sync += next_tile(a)
            with m.If(a.over):
                m.d.sync += [running.eq(0), base.eq(b.beyond)]
            with m.Else():
                m.d.sync += [b.tile.eq(0), b.place.eq(base), b.tile_place.eq(base)]
    with m.If(taken):
        m.d.sync += [
            running.eq(1), final.eq(queued.final), first.eq(queued.first), last.eq(queued.last),
            a_mode.eq(queued.a_mode), b_mode.eq(queued.b_mode),
            a.left.eq(queued.m), b.left.eq(queued.n), a.tile.eq(0), b.tile.eq(0),
        ]
    # Tiles' worth of rows in the buffers. The rows of a go with their row of tiles, the rows of b with the product.
    # The latter go a cycle late, which cuts a long path. Nothing is issued in that cycle, and `tile` counts them all.
    m.d.sync += [
        a.there.eq(a.there + arrived[0] - (done & b.over)),
        b.there.eq(b.there + arrived[1] - Mux(ended, b.tile, 0)),
    ]
    m.d.comb += [walker.freed.eq(side.freed) for walker, side in zip(walkers, sides)]

    # A side that waits for more room than there is does so for ever.
    with m.If(Cat(walker.exceeded for walker in walkers).any()):
        m.d.sync += array.exceeded.eq(1)

    return SimpleNamespace(there=queue.r_rdy, next=popped, pop=pop, room=room, labelled=issue & ends["k"] & last,
                           starved=running & ~operands, blocked=running & operands & ~room,
                           labels=Cat(a.label, b.label, *live, end))
