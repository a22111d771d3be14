"""Tokens between units: what waits in each unit, and the semaphores."""

from typing import Any

from amaranth import *
from amaranth.lib import data, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import SEMAPHORES, UNITS
from .layouts import size_of

__all__ = ["COUNT", "QUEUE", "TOKEN", "Semaphores"]

TOKEN = data.StructLayout({"wait": 1, "semaphore": range(SEMAPHORES)})
QUEUE = 4  # waits, and signals, that a unit may have before it
COUNT = 8  # bits of a semaphore
ORDER = 3  # bits of the numbers of a unit's instructions


class Semaphores(wiring.Component):
    """Gives and takes the tokens of units. A unit has its turn every few cycles.

    A unit's waits hold back the instruction that is handed to it next. Its signals wait until the unit has done all
    instructions before them. Both stand in queues of their own. So waits need not stand behind signals.

    Members
    -------
    token, valid, ready : In, In, Out
        A token, and a bit for each unit that executes instructions.
    handed, done : In
        Units that are given an instruction. Units that have done their oldest one.
    open : Out
        Units that have all tokens that their latest instruction waits for.
    idle : Out
        Units that have done all their instructions, and wait for no tokens either.
    clear, index : In
        Semaphore `index` has no tokens any more.
    """

    def __init__(self) -> None:
        units = len(UNITS) - 1
        super().__init__({"token": In(TOKEN), "clear": In(1), "index": In(range(SEMAPHORES)),
                          **dict.fromkeys(("valid", "handed", "done"), In(units)),
                          **dict.fromkeys(("ready", "open", "idle"), Out(units))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        units = len(UNITS) - 1
        # A token waits a cycle. The next instruction comes later than that.
        token, valid = Signal.like(self.token, name="given_token"), Signal.like(self.valid, name="given_valid")
        m.d.sync += [token.eq(self.token), valid.eq(self.valid)]
        # Beside its count, a semaphore tells whether it has a token: nothing has to look at a whole count.
        layout = data.StructLayout({"count": COUNT, "some": 1})
        m.submodules.counts = counts = memory.Memory(shape=layout, depth=SEMAPHORES, init=[])
        write, read = counts.write_port(), counts.read_port(domain="comb")
        turn = Signal(range(units))
        m.d.sync += turn.eq(Mux(turn == units - 1, 0, turn + 1))
        head = Signal(TOKEN, name="head")
        there = Signal(name="there")
        take = Signal(name="take")
        for unit, name in enumerate(UNITS[1:]):
            m.submodules[f"waits_{name}"] = waits = fifo.SyncFIFO(width=size_of(SEMAPHORES), depth=QUEUE)
            m.submodules[f"signals_{name}"] = signals = fifo.SyncFIFO(width=ORDER + size_of(SEMAPHORES), depth=QUEUE)
            given, done = (Signal(ORDER, name=f"{each}_{name}") for each in ("given", "done"))
            m.d.sync += [given.eq(given + self.handed[unit]), done.eq(done + self.done[unit])]
            # Waits in the queue that come before the unit's latest instruction.
            before = Signal(range(QUEUE + 1), name=f"before_{name}")
            with m.If(self.handed[unit]):
                m.d.sync += before.eq(waits.level - waits.r_en)
            with m.Elif(waits.r_en & before.any()):
                m.d.sync += before.eq(before - 1)
            order, semaphore = signals.r_data[:ORDER], signals.r_data[ORDER:]
            # No more than a few instructions can be done before a signal has its turn.
            passed = Signal(ORDER, name=f"passed_{name}")
            due = Signal(name=f"due_{name}")
            m.d.comb += [
                passed.eq(done - order), due.eq(signals.r_rdy & ~passed[-1]),
                waits.w_data.eq(token.semaphore), waits.w_en.eq(valid[unit] & token.wait),
                signals.w_data.eq(Cat(given, token.semaphore)), signals.w_en.eq(valid[unit] & ~token.wait),
                self.ready[unit].eq(Mux(self.token.wait, waits.w_rdy, signals.w_rdy)),
                self.open[unit].eq(~before.any()),
                self.idle[unit].eq(~waits.r_rdy & ~signals.r_rdy & (given == done)),
            ]
            # The queues answer in one cycle; in the next one the token is looked for.
            with m.If(turn == unit):
                m.d.sync += [head.wait.eq(~due), head.semaphore.eq(Mux(due, semaphore, waits.r_data)),
                             there.eq(due | waits.r_rdy)]
            with m.If(turn == (unit + 1) % units):
                m.d.comb += [waits.r_en.eq(take & head.wait), signals.r_en.eq(take & ~head.wait)]
        m.d.comb += [
            read.addr.eq(head.semaphore), take.eq(there & (~head.wait | read.data.some)),
            write.addr.eq(Mux(self.clear, self.index, head.semaphore)), write.en.eq(self.clear | take),
            write.data.count.eq(Mux(self.clear, 0, Mux(head.wait, read.data.count - 1, read.data.count + 1))),
            write.data.some.eq(~self.clear & ~(head.wait & (read.data.count == 1))),
        ]
        return m
