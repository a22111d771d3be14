"""The core's counters: cycles in which something was so, for training and for measuring."""

from typing import Any

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BITS", "Counters"]

BITS = 48


class Counters(wiring.Component):
    """Counts cycles. Each event has a few bits of its own, which are added in turn to a word of a memory.

    Parameters
    ----------
    count : int

    Members
    -------
    events : In(count)
    clear, index : In
        Counter `index` begins anew.
    ask, answer : In, Out
        A counter, and its value a cycle later; up to `count` cycles may not be in it yet.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__({"events": In(count), "clear": In(1), "index": In(range(count)), "ask": In(range(count)),
                          "answer": Out(BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.totals = totals = memory.Memory(shape=BITS, depth=self.count, init=[])
        write, read, told = totals.write_port(), totals.read_port(domain="comb"), totals.read_port()
        turn = Signal(range(self.count))
        new = [Signal(range(self.count + 1), name=f"new{k}") for k in range(self.count)]
        m.d.sync += turn.eq(Mux(turn == self.count - 1, 0, turn + 1))
        for k, each in enumerate(new):
            with m.If(self.clear):
                m.d.sync += each.eq(0)
            with m.Else():
                m.d.sync += each.eq(Mux(turn == k, 0, each) + self.events[k])
        m.d.comb += [
            read.addr.eq(turn), write.addr.eq(Mux(self.clear, self.index, turn)), write.en.eq(1),
            write.data.eq(Mux(self.clear, 0, read.data + Array(new)[turn])), told.addr.eq(self.ask),
            self.answer.eq(told.data),
        ]
        return m


