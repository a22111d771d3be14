"""The core's tensors: the place of each one in a memory."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS, MEMORIES, TENSORS, WORD
from ...golden.core.report import ERRORS
from ..pipeline import UNCHECKED
from .issue import CODES, error_of
from .layouts import SIZE, Geometry, fields_of, kept_layout, place_layout, shape_layout
from .shapes import Shapes

__all__ = ["LOOKED", "Tensors", "entry_layout"]

LOOKED = 2  # cycles from a tensor's number to its place

UNDEFINED, BEYOND, UNREACHED, OUTSIDE, STRANGE = map(error_of, (
    "a tensor that", "a part beyond", "a memory", "a tensor beyond", "a window that"))
LABELS = MEMORIES.index("L")
STRIDE = FIELDS["stride"][0]


def entry_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a tensor's place, that of its other half, and whether it is defined."""
    return data.StructLayout({
        **{name: field.shape for name, field in place_layout(geometry)}, "other": geometry.block, "known": 1,
        **({"window": shape_layout(geometry), "kept": kept_layout(geometry)} if geometry.windows else {}),
    })


class Tensors(wiring.Component):
    """Keeps the places of tensors, and executes the instructions that define them. Source: `golden.core.View`.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    word : In(WORD)
        The instruction at hand.
    start : In(1)
        It is one that defines a tensor.
    done, error : Out
        It is executed; or cannot be, and why.
    clear, index : In
        Tensor `index` is not defined any more.
    look, looked : In, Out
        A tensor's number; `LOOKED` cycles later its place, with ``known``.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__({
            "word": In(WORD), "start": In(1), "done": Out(1), "error": Out(range(len(ERRORS))), "clear": In(1),
            "index": In(range(TENSORS)), "look": In(range(TENSORS)), "looked": Out(entry_layout(geometry)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, low = self.geometry, self.geometry.low
        entry = entry_layout(g)
        m.submodules.table = table = memory.Memory(shape=entry, depth=TENSORS, init=[],
                                                   attrs=UNCHECKED | {"ram_style": "block"})
        write, read = table.write_port(), table.read_port()
        code = self.word[:5]
        tensor, view, flip = (fields_of(self.word, name) for name in ("tensor", "view", "flip"))
        views = code == CODES["view"]
        shaped = Cat(code == CODES[name] for name in ("window", "taps")).any()
        of_another = views | shaped if g.windows else views
        # The table answers late in a cycle.
        found: Any = Signal(entry, name="found", reset_less=True)
        m.d.sync += found.eq(read.data)
        made: Any = Signal(entry)
        m.d.comb += [
            self.looked.eq(found),
            read.addr.eq(Mux(self.start, Mux(of_another, view["of"], flip["number"]), self.look)),
            write.addr.eq(Mux(self.clear, self.index, flip["number"])),
            write.data.eq(Mux(self.clear, 0, made)), write.en.eq(self.clear | self.done),
        ]

        # The first block of a part is `down` rows of blocks below, and some to the right: added one bit at a time.
        # Of a tensor, the distance of its last block is found so.
        down = Signal(SIZE + 1 - low, name="down")
        rest = Signal(2 * SIZE, name="rest")
        away = Signal(2 * SIZE, name="away")
        block, other = (Signal(FIELDS["block"][0] + 1, name=name) for name in ("block", "other"))
        limit = Signal.like(block)
        bases = {name: g.memories[name][1] for name in "XDW"}
        memory_ = tensor["memory"]
        labels = Mux(code == CODES["tensor"], memory_ == LABELS, found.memory == LABELS)

        def ends(first: Value, count: Value) -> Value:
            return first + count - 1

        shapes: Any = None
        if g.windows:
            m.submodules.shapes = shapes = Shapes(g)
            m.d.comb += [
                shapes.word.eq(self.word), shapes.block.eq(made.block), shapes.stride.eq(made.stride),
                shapes.top.eq(made.top), shapes.tall.eq(made.rows), shapes.wide.eq(made.columns),
                shapes.before.eq(made.window), shapes.known.eq(made.kept),
            ]

        # What is wrong is told in the end: nothing of the tensor is kept then.
        wrong = Signal.like(self.error, name="wrong")
        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(self.start):
                m.next = "READ"
            with m.State("READ"):
                m.d.sync += wrong.eq(0)
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.next = "ADD"
                with m.If(code == CODES["tensor"]):
                    m.d.sync += [
                        *(made[name].eq(tensor[name])
                          for name in ("memory", "stride", "top", "left", "rows", "columns")),
                        *([made.window.windowed.eq(0)] if g.windows else []),
                        made.known.eq(1), block.eq(tensor["block"]), other.eq(tensor["other"]),
                        rest.eq(tensor["stride"]),
                        down.eq(Mux(labels, 0, ends(tensor["top"], tensor["rows"]) >> low)),
                        away.eq(ends(tensor["left"], tensor["columns"]) >> Mux(labels, 8, low)),
                    ]
                    with m.If(~tensor["rows"].any() | ~tensor["columns"].any()):
                        m.d.sync += wrong.eq(UNDEFINED)
                    with m.If((tensor["top"] | Mux(labels, 0, tensor["left"]))[low:].any()):
                        m.d.sync += wrong.eq(OUTSIDE)
                    with m.Switch(memory_):
                        for number, name in enumerate(MEMORIES):
                            with m.Case(number):
                                m.d.sync += limit.eq(g.parameters.blocks[name])
                                if not g.parameters.blocks[name]:
                                    m.d.sync += wrong.eq(UNREACHED)
                        with m.Default():
                            m.d.sync += wrong.eq(UNREACHED)
                with m.Elif(views):
                    top, left = found.top + view["row"], found.left + view["column"]
                    m.d.sync += [
                        made.eq(found), made.rows.eq(view["rows"]), made.columns.eq(view["columns"]),
                        made.top.eq(top), made.left.eq(Mux(labels, left, left[:low])), block.eq(found.block),
                        other.eq(found.other), rest.eq(found.stride), down.eq(Mux(labels, 0, top >> low)),
                        away.eq(Mux(labels, 0, left >> low)),
                    ]
                    with m.If((view["row"] + view["rows"] > found.rows) |
                              (view["column"] + view["columns"] > found.columns)):
                        m.d.sync += wrong.eq(BEYOND)
                    with m.If(~found.known | ~view["rows"].any() | ~view["columns"].any()):
                        m.d.sync += wrong.eq(UNDEFINED)
                    if g.windows:
                        with m.If(found.window.windowed):
                            m.d.sync += [
                                made.top.eq(found.top), made.left.eq(found.left),
                                made.kept.row.eq(found.kept.row + view["row"]),
                                made.kept.column.eq(found.kept.column + view["column"]),
                            ]
                            m.next = "SHAPE"
                if g.windows:
                    with m.Elif(shaped):
                        m.d.sync += made.eq(found)
                        m.next = "SHAPE"
                        with m.If(found.window.windowed | labels):
                            m.d.sync += wrong.eq(STRANGE)
                        with m.If(~found.known):
                            m.d.sync += wrong.eq(UNDEFINED)
                with m.Else():
                    m.d.sync += [made.eq(found), made.block.eq(found.other), made.other.eq(found.block)]
                    if g.windows:
                        m.d.sync += made.window.block.eq(found.window.block - found.block + found.other)
                    m.next = "DONE"
                    with m.If(~found.known):
                        m.d.sync += wrong.eq(UNDEFINED)
            if g.windows:
                with m.State("SHAPE"):
                    m.d.comb += shapes.start.eq(1)
                    m.next = "SHAPED"
                with m.State("SHAPED"), m.If(shapes.done):
                    m.d.sync += [made.window.eq(shapes.shape), made.kept.eq(shapes.kept)]
                    with m.If(shaped):
                        m.d.sync += [made.rows.eq(shapes.rows), made.columns.eq(shapes.columns)]
                        with m.If(~wrong.any()):
                            m.d.sync += wrong.eq(Mux(shapes.empty, UNDEFINED, Mux(shapes.wrong, STRANGE, 0)))
                    m.next = "DONE"
            with m.State("ADD"):
                m.d.sync += [away.eq(away + Mux(down[0], rest, 0)), rest.eq(rest << 1), down.eq(down >> 1)]
                with m.If(~down[1:].any()):
                    m.next = "PLACE"
            with m.State("PLACE"):
                m.next = "DONE"
                with m.If(views):
                    m.d.sync += [made.block.eq(block + away), made.other.eq(other + away)]
                with m.Else():
                    base = Signal.like(block)
                    with m.Switch(memory_):
                        for name, first in bases.items():
                            with m.Case(MEMORIES.index(name)):
                                m.d.comb += base.eq(first)
                    m.d.sync += [made.block.eq(block + base), made.other.eq(other + base)]
                    with m.If(~wrong.any() & ((block + away >= limit) | (other + away >= limit))):
                        m.d.sync += wrong.eq(OUTSIDE)
            with m.State("DONE"):
                m.d.comb += [self.error.eq(wrong), self.done.eq(~wrong.any())]
                m.next = "IDLE"
        return m
