"""Tasks of the core: what to do with the results of a product."""

from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS
from ...golden.words import USE
from .epilogue import result_task
from .layouts import Geometry
from .mover import rates_layout

__all__ = ["Tasks", "task_layout"]

SETTLE = 3  # cycles until what was written can be read


def task_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a task. ``open``: there are no results, as the next product goes on with the sums."""
    step = {"step": FIELDS["value"][0]} if geometry.madam else {}
    return data.StructLayout({**{name: field.shape for name, field in result_task(geometry)}, "open": 1,
                              "rates": rates_layout(geometry), "use": USE, **step})


class Tasks(wiring.Component):
    """Keeps two tasks: of the product whose results come, and of the next product.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    given, valid : In
        A task. It may come when none waits.
    task, active : Out
        The first task; it stays until it is done.
    gone : In(1)
        All results of the first task have left the epilogue. Or it has none, and its operands have been read.
    moved : In(1)
        The parameters that they move have been written.
    done : Out(1)
        The first task is done: all that it has written can be read.
    none, one : Out
        There is no task. There is one, and an early product may bring another.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        layout = task_layout(geometry)
        super().__init__({"given": In(layout), "valid": In(1), "task": Out(layout), "active": Out(1), "gone": In(1),
                          "moved": In(1), "done": Out(1), "none": Out(1), "one": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        behind = Signal.like(self.given, name="behind", reset_less=True)
        waits = Signal(name="waits")
        ends = Signal(name="ends")
        left = Signal(range(SETTLE + 1), name="left", init=SETTLE)
        m.d.comb += [
            self.done.eq(self.active & ends & (left == 0)), self.none.eq(~self.active & ~waits),
            self.one.eq(self.active & ~waits & ~self.task.open),
        ]
        with m.If(self.valid):
            m.d.sync += [behind.eq(self.given), waits.eq(1)]
        with m.Elif(~self.active):
            m.d.sync += [self.task.eq(behind), self.active.eq(waits), waits.eq(0), ends.eq(0), left.eq(SETTLE)]
        with m.If(self.active):
            with m.If(self.gone):
                m.d.sync += ends.eq(1)
            with m.If(ends & (~self.task.update | self.moved)):
                m.d.sync += left.eq(left - 1)
            with m.If(self.done):
                m.d.sync += self.active.eq(0)
        return m
