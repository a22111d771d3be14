"""The array's results: kept until they are taken."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import memory

from ..pipeline import signals
from .layouts import UNCHECKED

__all__ = ["keep_results"]


def keep_results(array: Any, m: Module, now: SimpleNamespace, made: Value, values: Value) -> None:
    """Keep the results that the cells have made until they are taken, and what they are the results of.

    A reader of the results cannot stop the cells: `ready` would be a path through all of them. So the cells get the
    operands of a result only when there is room for the result here.
    """
    depth = array.parameters.waiting
    pointer = range(2 * depth)  # of a ring, and one bit more, which tells a full one from an empty one
    issued, there, taken = (Signal(pointer, name=name) for name in ("issued", "results", "taken"))
    valid, take = signals("valid take")
    following, free = Signal.like(issued, name="following"), Signal(name="free", init=1)
    m.d.comb += [
        following.eq(issued + 1), now.room.eq(free), take.eq((there != taken) & (~valid | array.o.ready)),
        array.o.valid.eq(valid),
    ]
    m.d.sync += [there.eq(there + made), taken.eq(taken + take), free.eq((issued ^ taken) != depth)]
    with m.If(now.labelled):
        # The room that a result leaves is seen a cycle later.
        m.d.sync += [issued.eq(following), free.eq((following ^ taken) != depth)]
    with m.If(take):
        m.d.sync += valid.eq(1)
    with m.Elif(array.o.ready):
        m.d.sync += valid.eq(0)
    payload = array.o.payload
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
