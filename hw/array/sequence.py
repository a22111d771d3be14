"""The array's walk through the tiles of a product: what the cells are given next."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data

from ...golden.array import SIZE
from ..pipeline import elastic, signals
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
    at, k_end = Signal(len(final), name="at"), Signal(name="k_end")
    # A row of lanes: where it begins in the buffer, the side's rows from there on, and whether it is the last one.
    row = data.StructLayout({"place": words, "left": SIZE, "over": 1})
    first_b: Any = Signal(row, name="first_b")  # the product's first row of b
    # For each side: the row at hand, the tile's first one, and the one that follows. `freed` is where the oldest row is
    # that is still needed. `tile` counts the tiles before this one: of rows in the product, of columns in the row of
    # tiles. `there` counts those in the buffer, and `enough` tells whether the one at hand is among them.
    sides = []
    for name, count, walker, label in zip("ab", parameters.tile, walkers, parameters.labels):
        low, lanes = count.bit_length() - 1, walker.lanes
        slot = Signal(size_of(count), name=f"{name}_slot")
        tile = Signal(max(label - low, words), name=f"{name}_tile", reset_less=True)
        now, top, following = (Signal(row, name=f"{name}_{each}") for each in ("now", "top", "following"))
        freed, there = (Signal(words, name=f"{name}_{each}") for each in ("freed", "there"))
        end, enough = signals(f"{name}_end {name}_enough")
        m.d.comb += [
            following.place.eq((Cat(C(1, 1), now.place) + Cat(C(1, 1), final))[1:]),  # a carry adds one more
            following.left.eq(now.left - lanes), following.over.eq(now.left <= 2 * lanes),
            end.eq((slot == count - 1) | now.over),
        ]
        sides.append(SimpleNamespace(
            lanes=lanes, slot=slot, tile=tile, label=Cat(slot[:low], tile)[:label], now=now, top=top,
            following=following, freed=freed, there=there, enough=enough, end=end,
            live=Cat(~now.over | (now.left[:size_of(lanes + 1)] > lane) for lane in range(lanes))))
    a, b = sides

    tile_end, row_end, end = signals("tile_end row_end end")
    m.d.comb += [tile_end.eq(a.end & b.end & k_end), row_end.eq(tile_end & b.now.over), end.eq(row_end & a.now.over)]
    # What the cells are given waits for them here. So nothing else here asks whether they take it.
    # A row is freed when its last transfer leaves, as it is read then.
    entry = data.StructLayout({
        "a": words, "b": words, "slot": size_of(parameters.sums), "first": 1, "last": 1, "row_end": 1, "end": 1,
        "a_mode": mode_layout(parameters.system), "b_mode": mode_layout(parameters.system),
    })
    given, pop = Signal(entry, name="given"), Signal(name="pop")
    m.d.comb += [
        given.a.eq(a.now.place + at), given.b.eq(b.now.place + at), given.slot.eq(a.slot * across + b.slot),
        given.first.eq(first & (at == 0)), given.last.eq(last & k_end), given.row_end.eq(row_end), given.end.eq(end),
        given.a_mode.eq(a_mode), given.b_mode.eq(b_mode),
    ]
    waits, takes = elastic(m, "given", pop, valid=issue, whole=given)
    popped = data.View(entry, waits.whole)
    with m.If(pop & waits.valid & popped.row_end):
        m.d.sync += a.freed.eq(popped.a + 1)
    with m.If(pop & waits.valid & popped.end):
        m.d.sync += b.freed.eq(popped.b + 1)
    operands = a.enough & b.enough
    m.d.comb += issue.eq(operands & room & takes)

    # At its last row in the tile a side goes back to the tile's first row, unless the tile is done. For the next row of
    # tiles, columns go back to the first one of all.
    again = row_end & ~a.now.over
    turns = [Mux(a.end & ~row_end, a.top, a.following),
             Mux(again, first_b, Mux(b.end & ~tile_end, b.top, b.following))]
    carry = issue
    for digit in ("b", "a", "k") if parameters.interleaved else ("k", "b", "a"):
        side, turn = {"a": (a, turns[0]), "b": (b, turns[1]), "k": (None, None)}[digit]
        with m.If(carry):
            if side is None:
                m.d.sync += [at.eq((at + 1) & ~k_end.replicate(len(at))),
                             k_end.eq(Mux(k_end, final == 0, at + 1 == final))]
            else:
                m.d.sync += [side.slot.eq(Mux(side.end, 0, side.slot + 1)), side.now.eq(turn)]
        carry = carry & (k_end if side is None else side.end)

    done, over, ends = issue & tile_end, issue & row_end, issue & end  # with a tile, with a row of tiles, with all
    with m.If(done):
        m.d.sync += [b.tile.eq(Mux(again, 0, b.tile + 1)), b.top.eq(turns[1])]
    with m.If(over):
        m.d.sync += [a.tile.eq(a.tile + 1), a.top.eq(a.following)]
    with m.If(ends):
        m.d.sync += [running.eq(0), first_b.place.eq(b.following.place)]
    m.d.comb += taken.eq(~running & waiting)
    with m.If(taken):
        m.d.sync += [
            running.eq(1), final.eq(queued.final), first.eq(queued.first), last.eq(queued.last),
            a_mode.eq(queued.a_mode), b_mode.eq(queued.b_mode), k_end.eq(queued.final == 0), a.tile.eq(0), b.tile.eq(0),
        ]
        for side, count, begins in ((a, queued.m, (a.now, a.top)), (b, queued.n, (b.now, b.top, first_b))):
            m.d.sync += [each.left.eq(count) for each in begins]
            m.d.sync += [each.over.eq(count <= side.lanes) for each in begins]

    # Tiles' worth of rows in the buffers. The rows of a go with their row of tiles, the rows of b with the product.
    # The latter go a cycle late, which cuts a long path: nothing is issued in that cycle, and `tile` counts them all.
    # For the same reason `enough` is found in the cycle before, for the tile at hand and for the next one.
    ended = Signal()
    m.d.sync += ended.eq(ends)
    # What arrives comes late in the cycle: it chooses between numbers that are compared without it.
    first_there = [side.there.any() | arrives for side, arrives in zip(sides, arrived)]
    m.d.sync += [
        a.there.eq(a.there + arrived[0] - over),
        a.enough.eq(Mux(over, Mux(arrived[0], a.there.any(), a.there > 1), first_there[0])),
        b.there.eq(b.there + arrived[1] - Mux(ended, b.tile, 0)),
        b.enough.eq(Mux(arrived[1], b.there >= b.tile, b.there > b.tile)),
    ]
    with m.If(ends | ~running & ~taken):
        m.d.sync += b.enough.eq(0)  # without a product nothing is
    with m.Elif(over | taken & ~ended):
        m.d.sync += b.enough.eq(first_there[1])
    with m.Elif(done):
        m.d.sync += b.enough.eq(Mux(arrived[1], b.there > b.tile, b.there > b.tile + 1))
    m.d.comb += [walker.freed.eq(side.freed) for walker, side in zip(walkers, sides)]

    # A side that waits for more room than there is does so for ever.
    with m.If(Cat(walker.exceeded for walker in walkers).any()):
        m.d.sync += array.exceeded.eq(1)

    return SimpleNamespace(there=waits.valid, next=popped, pop=pop, room=room, labelled=issue & k_end & last,
                           starved=running & ~operands, blocked=operands & ~room,
                           labels=Cat(a.label, b.label, a.live, b.live, end))
