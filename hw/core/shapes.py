"""What the core knows of a window or of taps: sizes, steps, and where the first element lies."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import WORD
from ..pipeline import signals
from .issue import CODES
from .layouts import SIZE, Geometry, fields_of, kept_layout, shape_layout

__all__ = ["Shapes"]

PRODUCT = 34  # bits of a product of two signed numbers of 17


class Shapes(wiring.Component):
    """Finds the shape of a window or of taps, or of a part of one, step by step, with one multiplier and divider.

    See `golden.core.Window` and `golden.core.Taps`.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    word : In(WORD)
        The instruction at hand: ``window``, ``taps``, or ``view``.
    start, done : In(1), Out(1)
    block, stride, top, tall, wide : In
        Of the tensor: its place, rows and columns.
    before, known : In
        For a ``view``: the whole window's shape, and what is `kept` of the part.
    shape, kept, rows, columns : Out
        See `shape_layout` and `kept_layout`; rows and columns of a new window.
    wrong, empty : Out(1)
        The tensor does not have such a window. There is nothing in it.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        super().__init__({
            "word": In(WORD), "start": In(1), "done": Out(1), "block": In(g.block), "stride": In(g.block),
            "top": In(g.low), "tall": In(SIZE), "wide": In(SIZE), "before": In(shape_layout(g)),
            "known": In(kept_layout(g)), "shape": Out(shape_layout(g)), "kept": Out(kept_layout(g)),
            "rows": Out(SIZE), "columns": Out(SIZE), "wrong": Out(1), "empty": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        shape, kept = self.shape, self.kept
        code = self.word[:5]
        window, taps = fields_of(self.word, "window"), fields_of(self.word, "taps")
        is_taps, is_view = code == CODES["taps"], code == CODES["view"]

        def one(name: str, other: Any) -> Value:
            return Mux(is_taps, other, window[name])

        # A kernel is the image of its taps, and outputs take turns before places do.
        given = {name: Signal(bits, name=f"given_{name}") for name, bits in (
            ("height", 8), ("width", 8), ("channels", 14), ("across", 8), ("down", 8), ("taps_y", 4), ("taps_x", 4),
            ("step", 4), ("reverse", 1))}
        m.d.comb += [
            *(given[name].eq(one(name, taps["kernel"])) for name in ("height", "width")),
            *(given[name].eq(one(name, taps[name])) for name in ("channels", "step")),
            given["across"].eq(one("across", taps["taps_x"])), given["down"].eq(one("down", taps["taps_y"])),
            *(given[name].eq(one(name, 1)) for name in ("taps_y", "taps_x")),
            given["reverse"].eq(window["reverse"] & ~is_taps),
            self.empty.eq(~is_view & ~Cat(given[name].any() for name in (
                "height", "width", "channels", "across", "down", "taps_y", "taps_x")).all()),
        ]
        begins = {name: Signal(signed(6), name=f"begins_{name}") for name in "yx"}
        m.d.comb += [begins[axis].eq(one(f"shift_{axis}", taps[f"shift_{axis}"]) - Mux(is_taps, 0, window["pad"]))
                     for axis in "yx"]

        # Steps. Each has its numbers, and what is done with the product, or with quotient and rest.
        product = Signal(signed(PRODUCT))
        quotient, rest = signals("quotient rest", SIZE)
        places = Signal(SIZE)  # a quotient, or a rest, that the next step divides
        line, tile = Signal(SIZE, name="walked_line"), Signal(12, name="walked")
        bad = self.wrong

        def signed_by(value: Value) -> Value:
            return Mux(shape.reverse, -value, value)

        def inside(axis: str, size: Value) -> Value:
            return (begins[axis] >= 0) & (begins[axis] + product < size)

        define = [
            ("*", given["width"], given["channels"], [shape.line.eq(product), bad.eq(bad | product[SIZE:].any())]),
            ("*", given["height"], shape.line, [bad.eq(bad | (product != self.wide))]),
            ("*", given["down"], given["across"], [kept.places.eq(Mux(is_taps, self.tall, product)),
                                                   places.eq(product)]),
            ("*", places, self.tall, [self.rows.eq(product), bad.eq(bad | product[SIZE:].any())]),
            ("*", given["taps_y"], given["taps_x"], [places.eq(product)]),
            ("*", places, given["channels"], [self.columns.eq(product), bad.eq(bad | product[SIZE:].any())]),
            ("*", given["taps_x"], given["channels"],
             [shape.run.eq(Mux(given["reverse"] | is_taps, given["channels"], product))]),
            ("*", given["step"], given["channels"], [shape.step_x.eq(product)]),
            ("*", given["step"], shape.line, [shape.step_y.eq(product)]),
            ("*", begins["x"], given["channels"], [shape.x0.eq(product), shape.q.eq(product)]),
            ("*", begins["y"], shape.line, [shape.b0.eq(product), shape.b.eq(product)]),
            ("*", given["across"] - 1, given["step"], [shape.safe.eq(inside("x", given["width"]))]),
            ("*", given["down"] - 1, given["step"], [shape.safe.eq(
                shape.safe & inside("y", given["height"]) & ~is_taps & (given["taps_y"] == 1) &
                (given["taps_x"] == 1))]),
        ]
        line_ = Mux(shape.taps, rest, quotient)
        part: list[tuple] = [
            ("/", kept.row, kept.places, [shape.image.eq(line_), places.eq(Mux(shape.taps, quotient, rest))]),
            ("/", places, shape.across, [shape.y.eq(quotient), shape.x.eq(rest)]),
            ("/", kept.column, shape.run, [places.eq(quotient), shape.e.eq(rest)]),
            ("/", places, shape.turns, [line.eq(quotient), shape.tx.eq(rest)]),
            ("*", shape.y, shape.step, [shape.py.eq(shape.y0 + product), tile.eq(product)]),
            ("*", tile, shape.line, [shape.b.eq(shape.b0 + product)]),
            ("*", shape.x, shape.step, [tile.eq(product)]),
            ("*", tile, kept.channels, [shape.q.eq(shape.x0 + product)]),
            ("*", line, shape.line, [shape.bt.eq(signed_by(product)), shape.pyt.eq(signed_by(line))]),
            ("*", shape.tx, kept.channels, [shape.qt.eq(signed_by(product))]),
            ("*", (self.top + shape.image) >> self.geometry.low, self.stride, [shape.block.eq(self.block + product)]),
        ]
        steps = [*define, *part]
        at = Signal(range(len(steps)))
        a, b = signals("factor other_factor", signed(SIZE + 1))
        left = Signal(range(SIZE))
        divides = Signal()
        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [bad.eq(0), at.eq(Mux(is_view, len(define), 0))]
                with m.If(is_view):
                    m.d.sync += [shape.eq(self.before), kept.eq(self.known)]
                with m.Else():
                    m.d.sync += [
                        shape.eq(0), kept.eq(0), shape.windowed.eq(1), shape.taps.eq(is_taps),
                        shape.reverse.eq(given["reverse"]), shape.height.eq(given["height"]),
                        shape.across.eq(given["across"]), shape.down.eq(given["down"]),
                        shape.turns.eq(Mux(given["reverse"], given["taps_x"], 1)), shape.count.eq(self.tall),
                        shape.step.eq(given["step"]), shape.y0.eq(begins["y"]), shape.py.eq(begins["y"]),
                        shape.block.eq(self.block), kept.channels.eq(given["channels"]),
                        *([shape.tall.eq(self.tall), shape.wide.eq(self.wide)] if self.geometry.scaled else []),
                    ]
                m.next = "LOAD"
            with m.State("LOAD"):
                m.next = "MULTIPLY"
                with m.Switch(at):
                    for number, (kind, first, second, _) in enumerate(steps):
                        with m.Case(number):
                            m.d.sync += [a.eq(first), b.eq(second)]
                            if kind == "/":
                                m.d.sync += [quotient.eq(first), rest.eq(0), left.eq(SIZE - 1)]
                                m.next = "DIVIDE"
            with m.State("MULTIPLY"):
                m.d.sync += product.eq(a * b)
                m.next = "KEEP"
            with m.State("DIVIDE"):
                partial = Cat(quotient[-1], rest)
                m.d.comb += divides.eq(partial >= b[:SIZE])
                m.d.sync += [rest.eq(Mux(divides, partial - b[:SIZE], partial)),
                             quotient.eq(Cat(divides, quotient[:-1])), left.eq(left - 1)]
                with m.If(left == 0):
                    m.next = "KEEP"
            with m.State("KEEP"):
                m.d.sync += at.eq(at + 1)
                with m.Switch(at):
                    for number, (_, _, _, actions) in enumerate(steps):
                        with m.Case(number):
                            m.d.sync += actions
                m.next = "LOAD"
                with m.If((at == len(define) - 1) | (at == len(steps) - 1)):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
