"""What the core does to a product's results on their way to a memory: bias, ReLU, mask; or they move parameters."""

from typing import Any

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.floating import AdderParameters
from ...golden.words import VECTOR
from ..floating import FloatAdder
from ..pipeline import elastic, signals, stage
from ..rounding import unpack
from .gather import Gather, result_layout
from .layouts import SIZE, Geometry, piece_layout, place_layout, read_layout, shape_layout, size_of
from .memories import READ
from .places import Places

__all__ = ["ADDER", "BEHIND", "Epilogue", "result_task"]

ADDER = 6  # cycles of an addition
BEHIND = READ + ADDER + 1  # cycles from where a bias or a mask is asked for to the piece for a memory


def result_task(geometry: Geometry) -> data.StructLayout:
    """Return the layout of what is to be done to the results of a product."""
    place = place_layout(geometry)
    part = data.StructLayout({"vector": VECTOR, "pitch": VECTOR, "lane": 4})
    return data.StructLayout({"to": place, "other": place, "part": part,
                              **({"window": shape_layout(geometry)} if geometry.windows else {}),
                              **dict.fromkeys(("biased", "masked", "relu", "update"), 1)})


class Epilogue(wiring.Component):
    """Takes tiles of results, row by row of cells, and a piece of a row in each cycle.

    Where a piece is wider than a row, it is of tiles that lie side by side.

    Parameters
    ----------
    geometry : Geometry
    array : ArrayParameters
        Of the results.

    Members
    -------
    i : In(stream)
        Results: see `result_layout`.
    task, active : In
        See `result_task`. It stays until all results of its product have gone. Between two tasks none is active for a
        cycle.
    done : Out(1)
        The product's last result is on its way: it is in its memory three cycles later.
    bias, mask, request, found : Out, Out, Out, In
        A piece of the bias is wanted, or of the mask. The memory always answers.
    hold : In(1)
        Of merged memories alone: the mover writes in `BEHIND` cycles, so that no piece may be ready for a memory then.
    o : Out(stream)
        Pieces, for a memory or for the lanes. Those for a memory are not held back.
    vector, lane : Out
        Of the piece's first random word, if it moves parameters.
    """

    def __init__(self, geometry: Geometry, array: Any) -> None:
        self.geometry, self.array = geometry, array
        super().__init__({
            "i": In(stream.Signature(result_layout(array))), "task": In(result_task(geometry)), "active": In(1),
            "done": Out(1),
            "bias": Out(1), "mask": Out(1), "request": Out(read_layout(geometry)),
            **({"hold": In(1)} if geometry.parameters.merged else {}),
            "found": In(data.ArrayLayout(geometry.bits, geometry.side)),
            "o": Out(stream.Signature(piece_layout(geometry, geometry.width))), "vector": Out(VECTOR), "lane": Out(4),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, array, task = self.geometry, self.array, self.task
        width, low, bits, work = g.width, g.low, g.bits, g.parameters.work

        count = max(1, width // array.columns)
        columns = count * array.columns
        given: Any = self.i
        if count > 1:
            m.submodules.gather = gather = Gather(array, count)
            m.d.comb += [gather.i.valid.eq(self.i.valid), gather.i.payload.eq(self.i.payload),
                         self.i.ready.eq(gather.i.ready)]
            given = gather.o
        # A tile of results is kept, and leaves piece by piece: `row` and `at` tell which one is next.
        tile = Signal.like(given.payload, name="tile")
        full = Signal(name="full")
        row = Signal(size_of(array.rows), name="row")
        at = Signal(range(columns + width), name="at")
        values = Signal(data.ArrayLayout(bits, columns))
        live = Signal(columns)
        chosen = Array(tile.values.as_value().word_select(k, bits * columns) for k in range(array.rows))[row]
        left = columns - at
        advance, issued = signals("advance issued")
        last_piece, last_row = signals("last_piece last_row")
        m.d.comb += [
            values.as_value().eq(chosen >> (at * bits)), live.eq(tile.columns_live >> at),
            last_piece.eq((left <= width) | ~(live >> width).any()),
            last_row.eq((row == array.rows - 1) | ~(tile.rows_live >> (row + 1))[0]),
            given.ready.eq(~full | issued & last_piece & last_row),
        ]
        with m.If(issued):
            m.d.sync += at.eq(at + width)
            with m.If(last_piece):
                m.d.sync += [at.eq(0), row.eq(row + 1)]
                with m.If(last_row):
                    m.d.sync += [row.eq(0), full.eq(0)]
        with m.If(given.valid & given.ready):
            m.d.sync += [tile.eq(given.payload), full.eq(1)]

        # Where a piece lies: in the tensor, in its memory, and among the random words. `moves`: up to where the memory
        # is asked for a bias or a mask.
        moves = Signal()
        down, across = signals("down across", SIZE)
        there, sent = signals("there sent")
        here = full & self.active & ~sent
        places_: Any = None
        if g.windows:
            m.submodules.places = places_ = Places(g, array)
            m.d.comb += [places_.shape.eq(task.window), places_.active.eq(self.active), places_.label.eq(tile.row),
                         places_.row.eq(row), places_.there.eq(here), places_.enable.eq(moves)]
            here = here & places_.ready
        m.d.comb += [down.eq(tile.row * array.rows + row), across.eq(tile.column * array.columns + at),
                     there.eq(here), issued.eq(there & moves)]
        with m.If(~self.active):
            m.d.sync += sent.eq(0)
        with m.Elif(issued & last_piece & last_row & tile.last):
            m.d.sync += sent.eq(1)
        now = stage(m, moves, "taken", valid=there, end=last_piece & last_row & tile.last, down=down, across=across,
                    live=live[:width], elements=values.as_value()[:width * bits])
        places = [(task.to, now.down, now.across), (task.other, Mux(task.biased, 0, now.down), now.across)]
        if g.windows:
            pixel, windowed = places_.pixel, task.window.windowed
            line = Mux(windowed, pixel.image, now.down)
            number = Mux(windowed, pixel.number, 0) + now.across
            places = [(task.to, line, number),
                      (task.other, Mux(task.biased, 0, line), Mux(task.biased, now.across, number))]
        found = {}
        for name, (tensor, line, number) in zip(("to", "other"), places):
            below, right = tensor.top + line, tensor.left[:low] + number
            found |= {f"{name}_down": below >> low, f"{name}_row": below[:low], f"{name}_column": right[:low],
                      f"{name}_right": (right >> low)[:g.block]}
        lane = (task.part.lane + now.across)[:SIZE + 1]
        now = stage(m, moves, "placed", now, drop=("across",), lane=lane[:4],
                    vector=task.part.vector + (lane >> 4), **found)
        strides = {"to": task.to.stride, "other": task.other.stride}
        now = stage(m, moves, "rows", now, drop=("to_down", "other_down", "down"),
                    line=(now.down * task.part.pitch)[:VECTOR],
                    **{f"{name}_rows": (getattr(now, f"{name}_down") * stride)[:g.block]
                       for name, stride in strides.items()})
        # What moves parameters has neither a bias nor a mask. Nothing else is held back behind here.
        may = Signal(name="may")
        now, takes = elastic(
            m, "asked", may, valid=now.valid, end=now.end, elements=now.elements, live=now.live, lane=now.lane,
            vector=(now.vector + now.line)[:VECTOR],
            to_block=(task.to.block + now.to_rows + now.to_right)[:g.block], to_row=now.to_row, to_column=now.to_column,
            other_block=(task.other.block + now.other_rows + now.other_right)[:g.block], other_row=now.other_row,
            other_column=now.other_column)
        # The task was there some cycles before.
        biased, masked = signals("asks_bias asks_mask")
        m.d.sync += [biased.eq(task.biased), masked.eq(task.masked)]
        stores = ~self.hold if g.parameters.merged else C(1, 1)
        m.d.comb += [
            may.eq(Mux(task.update, advance, stores)), moves.eq(takes),
            self.bias.eq(now.valid & stores & biased), self.mask.eq(now.valid & stores & masked),
            self.request.block.eq(now.other_block),
            self.request.row.eq(now.other_row), self.request.column.eq(now.other_column),
        ]
        place = Cat(now.to_block, now.to_row, now.to_column, now.live)

        # The bias comes, or the mask; and is added. Without a bias -0 is, which changes nothing.
        now = stage(m, advance, "read0", valid=now.valid & may, end=now.end, place=place, elements=now.elements,
                    lane=now.lane, vector=now.vector)
        for step in range(1, READ):
            now = stage(m, advance, f"read{step}", now)
        minus = C(1 << bits - 1, bits)
        zero = []
        for each in list(self.found)[:width]:
            parts = unpack(m, f"mask{len(zero)}", work, each)
            zero.append((parts.negative | parts.zero) & ~parts.nan)
        summed = []
        for k in range(width):
            m.submodules[f"adder{k}"] = adder = FloatAdder(AdderParameters(work, latency=ADDER), embedded=True)
            m.d.comb += [
                adder.i.payload.a.eq(now.elements.word_select(k, bits)),
                adder.i.payload.b.eq(Mux(task.biased, self.found[k], minus)),
                adder.i.payload.subtract.eq(0), adder.i.valid.eq(now.valid), adder.enable.eq(advance),
            ]
            summed.append(adder.o.payload.value)
        now = stage(m, advance, "added0", now, drop=("elements",),
                    cut=Cat(zero) & task.masked.replicate(width))
        for step in range(1, ADDER):
            now = stage(m, advance, f"added{step}", now)
        made = []
        for k, value in enumerate(summed):
            parts = unpack(m, f"sum{k}", work, value)
            none = now.cut[k] | task.relu & (parts.negative | parts.zero) & ~parts.nan
            made.append(Mux(none, 0, value))
        # So no stage above waits for the lanes in the same cycle.
        out, takes = elastic(m, "out", self.o.ready, valid=now.valid,
                             whole=Cat(now.vector, now.lane, now.place, *made))
        m.d.sync += self.done.eq(advance & now.valid & now.end)
        m.d.comb += [advance.eq(takes), self.o.valid.eq(out.valid),
                     Cat(self.vector, self.lane, self.o.payload.as_value()).eq(out.whole)]
        return m
