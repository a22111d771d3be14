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
    groups, final, at = (Signal.like(queued.groups, name=name) for name in ("groups", "final", "at"))
    first, last, a_mode, b_mode = (Signal.like(vars(queued)[name], name=name)
                                   for name in ("first", "last", "a_mode", "b_mode"))
    # For each side: `left` counts the rows from the current one on, `tile_left` those from the tile's first one on.
    # `place` is where the current row of lanes begins in the buffer, `tile_place` where the tile's first row begins.
    # `base` is where the product begins, and `freed` where the oldest row begins that is still needed. `label` and
    # `tile_label` are the labels of the current row of lanes and of the tile's first row.
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
    operands = (a.there != 0) & (b.there > tile)
    m.d.comb += issue.eq(running & operands & room & queue.w_rdy)

    def forward(side: SimpleNamespace) -> list:
        return [side.slot.eq(side.slot + 1), side.left.eq(side.left - side.lanes),
                side.place.eq(side.place + groups), side.label.eq(side.label + 1)]

    def back(side: SimpleNamespace) -> list:
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

    def begin(side: SimpleNamespace, left: Value, place: Value, label: Any) -> list:
        return [side.left.eq(left), side.tile_left.eq(left), side.place.eq(place), side.tile_place.eq(place),
                side.label.eq(label), side.tile_label.eq(label)]

    def beyond(side: SimpleNamespace) -> tuple:
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
    # Tiles' worth of rows in the buffers. The rows of a go with their row of tiles, the rows of b with the product.
    # The latter go a cycle late, which cuts a long path: nothing is issued in that cycle.
    gone = Signal(words)
    m.d.sync += [
        gone.eq(Mux(done & b.over & a.over, tile + 1, 0)),
        a.there.eq(a.there + arrived[0] - (done & b.over)), b.there.eq(b.there + arrived[1] - gone),
    ]
    m.d.comb += [walker.freed.eq(side.freed) for walker, side in zip(walkers, sides)]

    # A side that waits for more room than there is does so for ever.
    with m.If(Cat(walker.exceeded for walker in walkers).any()):
        m.d.sync += array.exceeded.eq(1)

    return SimpleNamespace(there=queue.r_rdy, next=popped, pop=pop, room=room, labelled=issue & ends["k"] & last,
                           starved=running & ~operands, blocked=running & operands & ~room,
                           labels=Cat(a.label, b.label, *live, end))
