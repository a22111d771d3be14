"""Walks over a window whose rows are pixels of images."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.array import ArrayParameters
from ..pipeline import UNCHECKED, signals
from .layouts import NUMBER, SIZE, Geometry, shape_layout, size_of

__all__ = ["Places", "pixels", "pixel_layout"]


def pixel_layout() -> data.StructLayout:
    """Return the layout of a pixel's place: its image, and its first number in that."""
    return data.StructLayout({"image": SIZE, "number": NUMBER})


def pixels(m: Module, name: str, shape: Any, *, start: Value, moves: Value) -> SimpleNamespace:
    """Walk over the rows of a window whose rows are pixels of an image.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the registers' names.
    shape : View
        See `shape_layout`; it stays during the walk.
    start, moves : Value
        Go to the first row; go on by one.

    Returns
    -------
    namespace
        ``image`` and ``number``: see `pixel_layout`. ``last``: the pixel is the image's last one in the window.
    """
    place = {each: Signal.like(shape[each], name=f"{name}_{each}", reset_less=True)
             for each in ("image", "x", "y", "q", "b")}
    row_end, last = signals(f"{name}_row_end {name}_last")
    number = Signal(NUMBER, name=f"{name}_number")
    m.d.comb += [
        row_end.eq(place["x"] + 1 == shape.across), last.eq(row_end & (place["y"] + 1 == shape.down)),
        number.eq(place["b"] + place["q"] + shape.e),
    ]
    with m.If(moves):
        m.d.sync += [place["x"].eq(place["x"] + 1), place["q"].eq(place["q"] + shape.step_x)]
        with m.If(row_end):
            m.d.sync += [place["x"].eq(0), place["q"].eq(shape.x0), place["y"].eq(place["y"] + 1),
                         place["b"].eq(place["b"] + shape.step_y)]
        with m.If(last):
            m.d.sync += [place["y"].eq(0), place["b"].eq(shape.b0), place["image"].eq(place["image"] + 1)]
    with m.If(start):
        m.d.sync += [each.eq(shape[field]) for field, each in place.items()]
    return SimpleNamespace(image=place["image"], number=number, last=last)


class Places(wiring.Component):
    """Keeps where the rows of a result lie: those of the present row of tiles, and of the next one.

    Results come tile by tile. Within a tile their rows may come in any order.

    Parameters
    ----------
    geometry : Geometry
    array : ArrayParameters
        Of the results.

    Members
    -------
    shape, active : In
        Of the product's result, while it is `active`; see `shape_layout`.
    label, there : In
        There is a result, and its rows have this label.
    ready : Out(1)
        Its places are there.
    row, enable, pixel : In, In, Out
        A row of cells, and a cycle later its pixel. The register between them needs `enable`.
    """

    def __init__(self, geometry: Geometry, array: ArrayParameters) -> None:
        self.array = array
        super().__init__({
            "shape": In(shape_layout(geometry)), "active": In(1), "label": In(array.labels[0]), "there": In(1),
            "ready": Out(1), "row": In(size_of(array.rows)), "enable": In(1), "pixel": Out(pixel_layout()),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, labels = self.array, len(self.label)
        low = array.tile[0].bit_length() - 1  # a tile has so many bits of labels
        ring = low + 1  # two tiles
        m.submodules.table = table = memory.Memory(
            shape=pixel_layout(), depth=1 << (ring + size_of(array.rows)), init=[], attrs=UNCHECKED)
        write, read = table.write_port(), table.read_port()
        fresh = Signal(name="fresh")
        label, limit = signals("filled limit", labels + 2)
        row = Signal.like(self.row, name="filling")
        fills, row_end = signals("fills fills_row_end")
        walk = pixels(m, "pixel", self.shape, start=self.active & fresh, moves=fills)
        m.d.comb += [
            fills.eq(self.active & ~fresh & (label != limit)), row_end.eq(row == array.rows - 1),
            write.en.eq(fills), write.addr.eq(Cat(row, label[:ring])),
            write.data.image.eq(walk.image), write.data.number.eq(walk.number),
            read.addr.eq(Cat(self.row, self.label[:ring])), read.en.eq(self.enable), self.pixel.eq(read.data),
            self.ready.eq(~self.shape.windowed | ~fresh & (self.label < label)),
        ]
        with m.If(~self.active):
            m.d.sync += [fresh.eq(1), label.eq(0), row.eq(0), limit.eq(2 << low)]
        with m.Else():
            m.d.sync += fresh.eq(0)
            with m.If(self.there):
                m.d.sync += limit.eq(((self.label >> low) + 2) << low)
            with m.If(fills):
                m.d.sync += row.eq(Mux(row_end, 0, row + 1))
                with m.If(row_end):
                    m.d.sync += label.eq(label + 1)
        return m
