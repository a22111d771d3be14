"""Vectors of a window or of taps, which are read in segments and put together."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..array.path import rotate
from ..pipeline import signals, stage
from .layouts import NUMBER, SIZE, Geometry, shape_layout, size_of
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
    A ``banded`` segment is written to row ``line_of`` of a square. It may be the last segment there, which ``closes``
    the square: see `Squares`.
    """
    lanes = geometry.side.bit_length()
    return data.StructLayout({
        "plain": 1, "down": 1, "banded": 1, "first": 1, "last": 1, "closes": 1, "at": lanes, "length": lanes,
        "inside": 1, "line": SIZE, "q": signed(28), "number": NUMBER, "block": geometry.block, "index": geometry.low,
        "line_of": size_of(geometry.parameters.system.group),
    })


class Patches(wiring.Component):
    """Walks through an operand that is a window or taps, beside its `Walker`, from segment to segment.

    A segment ends with its vector. Before, it ends where the next number does not lie beside the last one in a row of
    the memory. Outputs of a kernel lie in a column instead.

    The operand's rows may be columns of a window. Then some of them, a band, are read place by place: each place has a
    number of every row. `Squares` makes vectors of these numbers.

    Parameters
    ----------
    geometry : Geometry
    band : int
        The operand's rows in a band, at the most.
    bands : int
        Bands of a tile.

    Members
    -------
    start, tensor, across, length, rows : In
        Begin with an operand, whose vectors are rows of the matrix, or with `across` columns. A row has `length`
        numbers. See `tensor_layout`.
    go : In(1)
        The segment is taken.
    segment, ends : Out
        See `segment_layout`. This segment ends its vector, as a plain one always does.
    banded, reads, begun : Out(1)
        The operand that begins is read in bands; there is a segment of a band; the bands of a whole tile were read.
    """

    def __init__(self, geometry: Geometry, band: int, bands: int = 1) -> None:
        self.geometry, self.band, self.bands = geometry, band, bands
        super().__init__({"start": In(1), "tensor": In(tensor_layout(geometry)), "across": In(1), "length": In(SIZE),
                          "rows": In(SIZE), "go": In(1), "segment": Out(segment_layout(geometry)), "ends": Out(1),
                          "banded": Out(1), "reads": Out(1), "begun": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, group = self.geometry, self.geometry.parameters.system.group
        side, lanes = g.side, g.side.bit_length()
        tensor = Signal.like(self.tensor, name="tensor", reset_less=True)
        shape = tensor.window
        across, banded = signals("down in_bands", reset_less=True)
        whole, rest = signals("whole rest", SIZE, reset_less=True)  # numbers of a row, and from the current one on
        at = Signal(range(side), name="at")
        place = {name: Signal.like(shape[name], name=f"place_{name}", reset_less=True)
                 for name in ("image", "block", "x", "y", "q", "py", "b")}
        tap = {name: Signal.like(shape[name], name=f"tap_{name}", reset_less=True)
               for name in ("e", "tx", "qt", "pyt", "bt")}
        index = Signal(g.low, name="index", reset_less=True)

        # How far this segment goes.
        ahead, length = Signal(SIZE, name="ahead"), Signal(lanes, name="length_now")
        full, over = signals("full over")
        room = (group if group == side else Mux(banded, side, group)) - at
        outputs = Signal(SIZE)
        m.d.comb += [
            outputs.eq(shape.count - place["image"]),
            ahead.eq(Mux(across, Mux(outputs < side - index, outputs, side - index), shape.run - tap["e"])),
            length.eq(room), full.eq((ahead >= room) & (rest >= room)), over.eq((rest <= room) & (rest <= ahead)),
        ]
        with m.If(rest < room):
            m.d.comb += length.eq(rest)
        with m.If((ahead < room) & (ahead < rest)):
            m.d.comb += length.eq(ahead)

        go = self.go & shape.windowed
        band_end = Signal(name="band_end")
        # Taps of a row begin where those of the band do.
        first = {name: Signal.like(value, name=f"band_{name}", reset_less=True) for name, value in tap.items()}
        opens = Signal(name="opens")
        with m.If(go):
            m.d.sync += [at.eq(Mux(self.ends, 0, at + length)), rest.eq(Mux(over, whole, rest - length)), opens.eq(0)]
            with m.If(across | over):
                self._next_place(m, tensor, place, index, Mux(across, length, 1))
            with m.If(across & over | band_end):
                m.d.sync += [*(each.eq(shape[name]) for name, each in place.items()),
                             index.eq(tensor.top + shape.image)]
            with m.If(~across | over):
                self._next_tap(m, shape, tap, Mux(across, 1, length))
            with m.If(opens):
                m.d.sync += [first[name].eq(each) for name, each in tap.items()]
            with m.If(~across & over & ~band_end):
                m.d.sync += [each.eq(Mux(opens, each, first[name])) for name, each in tap.items()]
            with m.If(band_end):
                m.d.sync += opens.eq(1)
        with m.If(self.start):
            given = self.tensor.window
            m.d.sync += [
                tensor.eq(self.tensor), across.eq(self.across & ~self.banded), banded.eq(self.banded), at.eq(0),
                opens.eq(1), *(each.eq(given[name]) for name, each in (place | tap).items()),
                index.eq(self.tensor.top + given.image), whole.eq(self.length), rest.eq(self.length),
            ]
        self._bands(m, banded & go & over, band_end, whole, rest)

        segment, line = self.segment, Signal(signed(15))
        m.d.comb += [
            self.ends.eq(full | over | ~shape.windowed), line.eq(place["py"] + tap["pyt"]),
            segment.plain.eq(~shape.windowed), segment.down.eq(shape.taps & across), segment.banded.eq(banded),
            segment.first.eq(at == 0),
            segment.last.eq(self.ends), segment.at.eq(at), segment.length.eq(length), segment.line.eq(shape.line),
            segment.inside.eq((line >= 0) & (line < shape.height)),
            segment.q.eq(place["q"] + tap["qt"] + tap["e"] - Mux(segment.down, 0, at)),
            segment.number.eq(place["b"] + tap["bt"] + tensor.left), segment.block.eq(place["block"]),
            segment.index.eq(index),
        ]
        return m

    def _bands(self, m: Module, over: Value, band_end: Signal, whole: Signal, rest: Signal) -> None:
        """Count the places of a band, and the operand's rows from the band on: with each place that is `over`."""
        left, places, tall = signals("left_rows left_places tall", SIZE, reset_less=True)
        line, band = Signal(self.segment.line_of.shape(), name="line_of"), Signal(size_of(self.bands), name="band")
        last_place, last_line = signals("last_place last_line")
        following = Mux(self.start, self.rows, left - self.band)
        columns = Mux(following < self.band, following, self.band)
        shape = self.tensor.window
        m.d.comb += [
            self.banded.eq(shape.windowed & ~shape.taps & self.across), last_place.eq(places == 1),
            last_line.eq(last_place | (line == self.geometry.parameters.system.group - 1)),
            band_end.eq(over & last_place), self.segment.line_of.eq(line),
            self.segment.closes.eq(last_line & self.ends),
        ]
        with m.If(over):
            m.d.sync += [places.eq(places - 1), line.eq(Mux(last_line, 0, line + 1))]
        with m.If(band_end):
            m.d.sync += [band.eq(band + 1), self.reads.eq(left > self.band)]
            with m.If((band == self.bands - 1) | (left <= self.band)):
                m.d.sync += [band.eq(0), self.begun.eq(1)]
        with m.If(self.start):
            m.d.sync += [tall.eq(self.length), line.eq(0), band.eq(0), self.reads.eq(self.banded), self.begun.eq(0)]
        with m.If(band_end | self.start & self.banded):
            m.d.sync += [places.eq(Mux(self.start, self.length, tall)), left.eq(following), whole.eq(columns),
                         rest.eq(columns)]

    def _next_place(self, m: Module, tensor: Any, place: dict[str, Signal], index: Signal, by: Value) -> None:
        """Go on by a place, or by so many outputs of a kernel."""
        shape, side = tensor.window, self.geometry.side
        turned, moves, row_end, image_end = signals("turned moves row_end image_end")
        m.d.comb += [
            turned.eq(shape.taps & (place["image"] + by == shape.count)), moves.eq(~shape.taps | turned),
            row_end.eq(place["x"] + 1 == shape.across), image_end.eq(place["y"] + 1 == shape.down),
        ]
        with m.If(moves):
            m.d.sync += [
                place["x"].eq(place["x"] + 1), place["q"].eq(place["q"] + shape.step_x),
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
    side, low = geometry.side, geometry.low
    lanes = range(side + 1)
    number = Signal(signed(NUMBER), name=f"{name}_number")
    low_end, high_end, begin, end = (Signal(lanes, name=f"{name}_{each}") for each in ("low", "high", "begin", "end"))
    left, after = segment.line - segment.q, segment.at + segment.length
    m.d.comb += [
        number.eq(segment.number + segment.q), low_end.eq(Mux(segment.q >= 0, 0, Mux(segment.q < -side, side,
                                                                                   -segment.q))),
        high_end.eq(Mux(left < 0, 0, Mux(left > side, side, left))),
        begin.eq(segment.at), end.eq(Mux(segment.inside, after, 0)),
    ]
    with m.If(~segment.down & (low_end > segment.at)):
        m.d.comb += begin.eq(low_end)
    with m.If(~segment.down & segment.inside & (high_end < after)):
        m.d.comb += end.eq(high_end)
    live = Cat((lane >= begin) & (lane < end) | segment.plain for lane in range(side))
    # The numbers of a place are turned: then a column of the square has one number in each bank.
    turn = Signal(low, name=f"{name}_turn")
    m.d.comb += turn.eq(Mux(segment.banded, segment.line_of, 0))
    live = rotate(m, f"{name}_live", live, 1, (-turn)[:low])
    row = Mux(segment.down, segment.index - segment.at, segment.index)[:low]
    return {"block": (segment.block + (number >> low))[:geometry.block], "row": row,
            "column": number.as_unsigned()[:low], "down": segment.down, "live": live, "turn": turn,
            "plain": segment.plain, "banded": segment.banded, "closes": segment.closes, "line_of": segment.line_of,
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
