"""Tokens between units: what waits in each unit, and the semaphores."""

from typing import Any

from amaranth import *
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import SEMAPHORES, UNITS

__all__ = ["COUNT", "QUEUE", "TOKEN", "Semaphores"]

TOKEN = data.StructLayout({"wait": 1, "semaphore": range(SEMAPHORES)})
QUEUE = 4  # tokens that a unit may have before it
COUNT = 8  # bits of a semaphore


class Semaphores(wiring.Component):
    """Gives and takes the tokens of units, when each has done what comes before. A unit has its turn every few cycles.

    Members
    -------
    token, valid, ready : In, In, Out
        A token, and a bit for each unit that executes instructions.
    busy : In
        Units that have something to do.
    idle : Out
        Units that have not, and no tokens either.
    clear, index : In
        Semaphore `index` has no tokens any more.
    """

    def __init__(self) -> None:
        units = len(UNITS) - 1
        super().__init__({"token": In(TOKEN), "valid": In(units), "ready": Out(units), "busy": In(units),
                          "idle": Out(units), "clear": In(1), "index": In(range(SEMAPHORES))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        units = len(UNITS) - 1
        m.submodules.counts = counts = memory.Memory(shape=COUNT, depth=SEMAPHORES, init=[])
        write, read = counts.write_port(), counts.read_port(domain="comb")
        turn = Signal(range(units))
        m.d.sync += turn.eq(Mux(turn == units - 1, 0, turn + 1))
        head = Signal(TOKEN, name="head")
        there = Signal(name="there")
        take = Signal(name="take")
        for unit, name in enumerate(UNITS[1:]):
            m.submodules[f"queue_{name}"] = queue = fifo.SyncFIFO(width=TOKEN.size, depth=QUEUE)
            m.d.comb += [
                queue.w_data.eq(self.token), queue.w_en.eq(self.valid[unit]), self.ready[unit].eq(queue.w_rdy),
                self.idle[unit].eq(~self.busy[unit] & ~queue.r_rdy),
            ]
            with m.If(turn == unit):
                m.d.comb += [head.eq(queue.r_data), there.eq(queue.r_rdy & ~self.busy[unit]), queue.r_en.eq(take)]
        m.d.comb += [
            read.addr.eq(head.semaphore), take.eq(there & (~head.wait | read.data.any())),
            write.addr.eq(Mux(self.clear, self.index, head.semaphore)), write.en.eq(self.clear | take),
            write.data.eq(Mux(self.clear, 0, Mux(head.wait, read.data - 1, read.data + 1))),
        ]
        return m
