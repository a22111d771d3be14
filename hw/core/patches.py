"""Vectors of a window or of taps, which are read in segments and put together."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..pipeline import signals, stage
from .layouts import NUMBER, SIZE, Geometry, shape_layout
from .memories import READ

__all__ = ["Patches", "gathered", "located", "segment_layout", "tensor_layout"]


def tensor_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of an operand's tensor, and its window or taps."""
    return data.StructLayout({"block": geometry.block, "stride": geometry.block, "top": geometry.low,
                              "left": geometry.low, "window": shape_layout(geometry)})


def segment_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a segment: a part of a vector that one request reads, `length` lanes from lane `at` on.

    ``q`` is the place in the image's line that lane 0 would have. ``number`` is where the line begins in the image.
    Lanes outside the line are zero, and all lanes are if the line is outside the image, not ``inside``. With ``down``
    the lanes lie along a column of the memory. A ``plain`` segment is a vector of an operand without a window.
    """
    lanes = geometry.parameters.system.group.bit_length()
    return data.StructLayout({
        "plain": 1, "down": 1, "first": 1, "last": 1, "at": lanes, "length": lanes, "inside": 1, "line": SIZE,
        "q": signed(28), "number": NUMBER, "block": geometry.block, "index": geometry.low,
    })


class Patches(wiring.Component):
    """Walks through an operand that is a window or taps, beside its `Walker`, from segment to segment.

    A segment ends with its vector. Before, it ends where the next number does not lie beside the last one in a row of
    the memory. Outputs of a kernel lie in a column instead.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, tensor, across, length : In
        Begin with an operand, whose vectors are rows of the matrix, or with `across` columns. A row has `length`
        numbers. See `tensor_layout`.
    go : In(1)
        The segment is taken.
    segment, ends : Out
        See `segment_layout`. This segment ends its vector, as a plain one always does.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__({"start": In(1), "tensor": In(tensor_layout(geometry)), "across": In(1), "length": In(SIZE),
                          "go": In(1), "segment": Out(segment_layout(geometry)), "ends": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, group = self.geometry, self.geometry.parameters.system.group
        side, lanes = g.side, group.bit_length()
        tensor = Signal.like(self.tensor, name="tensor", reset_less=True)
        shape = tensor.window
        across = Signal(name="across", reset_less=True)
        whole, rest = signals("whole rest", SIZE, reset_less=True)  # numbers of a row, and from the current one on
        at = Signal(range(group), name="at")
        place = {name: Signal.like(shape[name], name=f"place_{name}", reset_less=True)
                 for name in ("image", "block", "x", "y", "q", "py", "b")}
        tap = {name: Signal.like(shape[name], name=f"tap_{name}", reset_less=True)
               for name in ("e", "tx", "qt", "pyt", "bt")}
        index = Signal(g.low, name="index", reset_less=True)

        # How far this segment goes.
        ahead, length = Signal(SIZE, name="ahead"), Signal(lanes, name="length_now")
        full, over = signals("full over")
        room = group - at
        outputs = Signal(SIZE)
        m.d.comb += [
            outputs.eq(shape.count - place["image"]),
            ahead.eq(Mux(~across, shape.run - tap["e"],
                         Mux(shape.taps, Mux(outputs < side - index, outputs, side - index),
                             Mux(shape.step_x == 1, shape.across - place["x"], 1)))),
        ]
        m.d.comb += [
            length.eq(room), full.eq((ahead >= room) & (rest >= room)), over.eq((rest <= room) & (rest <= ahead)),
        ]
        with m.If(rest < room):
            m.d.comb += length.eq(rest)
        with m.If((ahead < room) & (ahead < rest)):
            m.d.comb += length.eq(ahead)

        go = self.go & shape.windowed
        along = Mux(across, length, 1)
        with m.If(go):
            m.d.sync += [at.eq(Mux(self.ends, 0, at + length)), rest.eq(Mux(over, whole, rest - length))]
            with m.If(across | over):
                self._next_place(m, tensor, place, index, along)
            with m.If(across & over):
                m.d.sync += [each.eq(shape[name]) for name, each in place.items()]
                m.d.sync += index.eq(tensor.top + shape.image)
            with m.If(~across | over):
                self._next_tap(m, shape, tap, Mux(across, 1, length))
            with m.If(~across & over):
                m.d.sync += [each.eq(shape[name]) for name, each in tap.items()]
        with m.If(self.start):
            given = self.tensor.window
            m.d.sync += [
                tensor.eq(self.tensor), across.eq(self.across), whole.eq(self.length), rest.eq(self.length), at.eq(0),
                *(each.eq(given[name]) for name, each in (place | tap).items()),
                index.eq(self.tensor.top + given.image),
            ]

        segment, line = self.segment, Signal(signed(15))
        m.d.comb += [
            self.ends.eq(full | over | ~shape.windowed), line.eq(place["py"] + tap["pyt"]),
            segment.plain.eq(~shape.windowed), segment.down.eq(shape.taps & across), segment.first.eq(at == 0),
            segment.last.eq(self.ends), segment.at.eq(at), segment.length.eq(length), segment.line.eq(shape.line),
            segment.inside.eq((line >= 0) & (line < shape.height)),
            segment.q.eq(place["q"] + tap["qt"] + tap["e"] - Mux(segment.down, 0, at)),
            segment.number.eq(place["b"] + tap["bt"] + tensor.left), segment.block.eq(place["block"]),
            segment.index.eq(index),
        ]
        return m

    def _next_place(self, m: Module, tensor: Any, place: dict[str, Signal], index: Signal, by: Value) -> None:
        """Go on by so many places: of outputs by so many, and then by a place."""
        shape, side = tensor.window, self.geometry.side
        turned, moves, row_end, image_end = signals("turned moves row_end image_end")
        m.d.comb += [
            turned.eq(shape.taps & (place["image"] + by == shape.count)), moves.eq(~shape.taps | turned),
            row_end.eq(place["x"] + Mux(shape.taps, 1, by) == shape.across), image_end.eq(place["y"] + 1 == shape.down),
        ]
        with m.If(moves):
            m.d.sync += [
                place["x"].eq(place["x"] + Mux(shape.taps, 1, by)),
                place["q"].eq(place["q"] + Mux(~shape.taps & (shape.step_x == 1), by, shape.step_x)),
            ]
            with m.If(row_end):
                m.d.sync += [place["x"].eq(0), place["q"].eq(shape.x0), place["y"].eq(place["y"] + 1),
                             place["py"].eq(place["py"] + shape.step), place["b"].eq(place["b"] + shape.step_y)]
                with m.If(image_end & ~shape.taps):
                    m.d.sync += [place["y"].eq(0), place["py"].eq(shape.y0), place["b"].eq(shape.b0)]
        rows = Signal(range(self.geometry.parameters.system.group + 1), name="rows")
        m.d.comb += rows.eq(Mux(shape.taps, by, row_end & image_end))
        m.d.sync += [place["image"].eq(place["image"] + rows), index.eq(index + rows)]
        with m.If(index + rows == side):
            m.d.sync += place["block"].eq(place["block"] + tensor.stride)
        with m.If(turned):
            m.d.sync += [place["image"].eq(0), index.eq(tensor.top), place["block"].eq(tensor.block)]

    @staticmethod
    def _next_tap(m: Module, shape: Any, tap: dict[str, Signal], by: Value) -> None:
        """Go on by so many numbers of the columns."""
        m.d.sync += tap["e"].eq(tap["e"] + by)
        with m.If(tap["e"] + by == shape.run):
            m.d.sync += [tap["e"].eq(0), tap["tx"].eq(tap["tx"] + 1), tap["qt"].eq(tap["qt"] - shape.run)]
            with m.If(tap["tx"] + 1 == shape.turns):
                m.d.sync += [
                    tap["tx"].eq(0), tap["qt"].eq(0), tap["pyt"].eq(tap["pyt"] + Mux(shape.reverse, -1, 1)),
                    tap["bt"].eq(Mux(shape.reverse, tap["bt"] - shape.line, tap["bt"] + shape.line)),
                ]


def located(m: Module, name: str, geometry: Geometry, segment: Any) -> dict[str, Value]:
    """Return where a segment is read, and which lanes are in the image (combinational): what `gathered` needs too."""
    group, low = geometry.parameters.system.group, geometry.low
    lanes = range(group + 1)
    number = Signal(signed(NUMBER), name=f"{name}_number")
    low_end, high_end, begin, end = (Signal(lanes, name=f"{name}_{each}") for each in ("low", "high", "begin", "end"))
    left, after = segment.line - segment.q, segment.at + segment.length
    m.d.comb += [
        number.eq(segment.number + segment.q), low_end.eq(Mux(segment.q >= 0, 0, Mux(segment.q < -group, group,
                                                                                   -segment.q))),
        high_end.eq(Mux(left < 0, 0, Mux(left > group, group, left))),
        begin.eq(segment.at), end.eq(Mux(segment.inside, after, 0)),
    ]
    with m.If(~segment.down & (low_end > segment.at)):
        m.d.comb += begin.eq(low_end)
    with m.If(~segment.down & segment.inside & (high_end < after)):
        m.d.comb += end.eq(high_end)
    live = Cat((lane >= begin) & (lane < end) | segment.plain for lane in range(group))
    row = Mux(segment.down, segment.index - segment.at, segment.index)[:low]
    return {"block": (segment.block + (number >> low))[:geometry.block], "row": row,
            "column": number.as_unsigned()[:low], "down": segment.down, "live": live, "plain": segment.plain,
            "first": segment.plain | segment.first, "last": segment.plain | segment.last}


def gathered(m: Module, name: str, geometry: Geometry, granted: Value, read: SimpleNamespace, found: Any) -> Value:
    """Return a vector's elements, `READ` cycles after its last segment was asked for.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the registers' names.
    geometry : Geometry
    granted : Value
        A segment is asked for,
    read : namespace
        of which this is known: see `located`.
    found : View
        What the memory answers.
    """
    group, bits = geometry.parameters.system.group, geometry.bits
    now = stage(m, 1, f"{name}_asked0", valid=granted, live=read.live, first=read.first)
    for step in range(1, READ):
        now = stage(m, 1, f"{name}_asked{step}", now)
    kept = Signal(group * bits, name=f"{name}_kept", reset_less=True)
    # Zeros where no segment has brought anything.
    lanes = [Mux(now.live[lane], found[lane], Mux(now.first, 0, kept.word_select(lane, bits)))
             for lane in range(group)]
    with m.If(now.valid):
        m.d.sync += kept.eq(Cat(lanes))
    return Cat(lanes)
