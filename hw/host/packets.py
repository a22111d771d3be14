"""Between words and the core's transfers."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.transfers import ELEMENTS, INSTRUCTION, NUMBER, TENSOR, Transfers
from ...golden.host import Configuration
from ...golden.host.packets import KIND, KINDS
from ..pipeline import UNCHECKED, signals

__all__ = ["FRAMED", "Pack", "Unpack"]

UNKNOWN, FRAMING, MISSING = 3, 4, 5  # codes of `ERRORS`
WORDS = 3  # of an instruction
WORD = data.StructLayout({"word": 32, "framed": 1, "last": 1})
FRAMED = data.StructLayout({"word": 32, "last": 1})


class Unpack(wiring.Component):
    """Makes the core's transfers of packets: see `golden.host.Packets`.

    An error is told for a cycle. After a packet of a kind that there is none of, all words are dropped until a reset.

    Parameters
    ----------
    configuration : Configuration

    Members
    -------
    i : In(stream)
        Words: ``word``; ``framed``, whether ``last`` means something; ``last``: of the packet.
    o : Out(stream)
        What the core takes: ``bits``, ``kind``.
    idle : Out(1)
        The next word is the first one of a packet.
    fault : Out
        A code of `golden.host.ERRORS`, or 0.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.transfers = Transfers(configuration.trainer)
        super().__init__({
            "i": In(stream.Signature(WORD)), "idle": Out(1), "fault": Out(3),
            "o": Out(stream.Signature(data.StructLayout({"bits": self.transfers.input_bits, "kind": 1}))),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lanes, width = self.transfers.stream, self.transfers.element
        size = self.configuration.data
        word = self.i.payload.word
        kind, count = Signal(range(len(KINDS)), name="kind"), Signal(KIND, name="count")
        bits, at = Signal(WORDS * 32, name="bits"), Signal(2, name="at")  # what has come of a transfer
        taken, full, leaves, done = signals("taken full leaves done")
        m.d.comb += [
            taken.eq(self.i.valid & self.i.ready), self.o.valid.eq(full), self.o.payload.bits.eq(bits),
            leaves.eq(full & self.o.ready),
            self.o.payload.kind.eq(Mux(kind == KINDS.index("instructions"), INSTRUCTION, ELEMENTS)),
        ]
        with m.If(leaves):
            m.d.sync += [full.eq(0), at.eq(0)]

        # Bytes are looked up one by one. `asked` of the transfer's have been, and `at` have been answered.
        m.submodules.table = table = memory.Memory(shape=width, depth=256, init=[], attrs=UNCHECKED)
        table_write, table_read = table.write_port(), table.read_port()
        buffer, left, asked = Signal(32, name="buffer"), Signal(range(5), name="left"), Signal(3, name="asked")
        asks, answered, whole, hungry = signals("asks answered whole hungry")
        m.d.comb += [
            hungry.eq(~left.any() & (asked != lanes)), asks.eq(left.any() & (asked != lanes)),
            table_read.addr.eq(buffer[:8]), whole.eq(answered & (at == lanes - 1)),
        ]
        m.d.sync += answered.eq(asks)
        with m.If(asks):
            m.d.sync += [buffer.eq(buffer[8:]), left.eq(left - 1), asked.eq(asked + 1)]
        with m.If(answered):
            m.d.sync += [at.eq(at + 1), full.eq(whole)]
            for lane in range(lanes):
                with m.If(at == lane):
                    m.d.sync += bits[lane * width:(lane + 1) * width].eq(table_read.data)
        with m.If(leaves):
            m.d.sync += asked.eq(0)

        place = Signal(max((size - 1).bit_length(), 8), name="place")  # in the table, or in the data memory
        m.d.comb += [table_write.addr.eq(place), table_write.data.eq(word)]
        with m.FSM(name="state"):
            with m.State("HEAD"):
                m.d.comb += [self.idle.eq(1), self.i.ready.eq(~full)]
                m.d.sync += [kind.eq(word[KIND:]), count.eq(word[:KIND]), place.eq(0)]
                with m.If(taken):
                    self._begin(m, word, done)
                    with m.If(done):
                        m.next = "HEAD"
            with m.State("DROP"):
                m.d.comb += self.i.ready.eq(1)
            with m.State("WHOLE"):  # words are parts of transfers as they are
                words = Mux(kind == KINDS.index("instructions"), WORDS, lanes * width // 32)
                m.d.comb += self.i.ready.eq(~full)
                with m.If(taken):
                    m.d.sync += at.eq(at + 1)
                    for part in range(WORDS):
                        with m.If(at == part):
                            m.d.sync += bits.word_select(part, 32).eq(word)
                    with m.If(at == words - 1):
                        m.d.sync += [full.eq(1), count.eq(count - 1)]
                        m.d.comb += done.eq(count == 1)
                with m.If(done):
                    m.next = "HEAD"
            with m.State("BYTES"):
                m.d.comb += self.i.ready.eq(hungry)
                with m.If(taken):
                    m.d.sync += [buffer.eq(word), left.eq(4)]
                with m.If(whole):
                    m.d.sync += count.eq(count - 1)
                    m.d.comb += done.eq(count == 1)
                with m.If(done):
                    m.next = "HEAD"
            with m.State("TABLE"):
                self._keep(m, table_write, taken, done, count, place)
            if size:
                self._data(m, taken, done, whole, hungry, kind, count, buffer, left, place)
        with m.If(done):
            m.d.sync += left.eq(0)
        self._frame(m, taken, done)
        return m

    def _begin(self, m: Module, word: Value, done: Signal) -> None:
        """Begin a packet with its first word."""
        m.d.comb += done.eq(~word[:KIND].any())
        states = {"elements": "WHOLE", "instructions": "WHOLE", "bytes": "BYTES", "table": "TABLE"}
        if self.configuration.data:
            states |= {"store": "FIRST", "rows": "FIRST"}
        with m.If(word[KIND:] >= len(KINDS)):
            m.d.comb += [self.fault.eq(UNKNOWN), done.eq(0)]
            m.next = "DROP"
        with m.Else(), m.Switch(word[KIND:]):
            for number, name in enumerate(KINDS):
                with m.Case(number):
                    m.next = states.get(name, "DROP")
                    if name not in states:
                        m.d.comb += [self.fault.eq(MISSING), done.eq(0)]

    def _keep(self, m: Module, write: Any, taken: Signal, done: Signal, count: Signal, place: Signal) -> None:
        """Write the packet's words into a memory, one behind the other."""
        m.d.comb += [self.i.ready.eq(1), write.en.eq(taken)]
        with m.If(taken):
            m.d.sync += [place.eq(place + 1), count.eq(count - 1)]
            m.d.comb += done.eq(count == 1)
        with m.If(done):
            m.next = "HEAD"

    def _data(self, m: Module, taken: Signal, done: Signal, whole: Signal, hungry: Signal, kind: Signal,
              count: Signal, buffer: Signal, left: Signal, place: Signal) -> None:
        """Store words, and fetch rows: the states after the first word of such a packet."""
        word = self.i.payload.word
        m.submodules.data = kept = memory.Memory(shape=32, depth=self.configuration.data, init=[], attrs=UNCHECKED)
        write, read = kept.write_port(), kept.read_port()
        per_row, row = Signal(16, name="per_row"), Signal(16, name="row")  # transfers of a row, and those to come
        m.d.comb += [write.addr.eq(place), write.data.eq(word), read.addr.eq(place)]
        with m.State("FIRST"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [per_row.eq(word), place.eq(word)]
            with m.If(taken):
                m.next = "STORE"
                with m.If(kind == KINDS.index("rows")):
                    m.next = "ROW"
        with m.State("STORE"):
            self._keep(m, write, taken, done, count, place)
        with m.State("ROW"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [place.eq(word), row.eq(per_row)]
            with m.If(taken):
                m.next = "FETCH"
        with m.State("FETCH"):
            with m.If(hungry):
                m.next = "LOAD"
            with m.If(whole):
                m.d.sync += row.eq(row - 1)
                with m.If(row == 1):
                    m.d.sync += [count.eq(count - 1), left.eq(0)]
                    m.d.comb += done.eq(count == 1)
                    m.next = "ROW"
            with m.If(done):
                m.next = "HEAD"
        with m.State("LOAD"):
            m.d.sync += [buffer.eq(read.data), left.eq(4), place.eq(place + 1)]
            m.next = "FETCH"

    def _frame(self, m: Module, taken: Signal, done: Signal) -> None:
        """Tell where a frame's last word is not that of its packet."""
        held, ended, last, framed = signals("held ended last framed")
        m.d.comb += [last.eq(taken & self.i.payload.last), framed.eq(Mux(self.idle, self.i.payload.framed, held))]
        m.d.sync += [held.eq(framed), ended.eq(~done & (last | ended & ~self.idle))]
        early, late = taken & ~self.idle & ended, done & ~last & ~(ended & ~self.idle)
        with m.If(framed & (early | late)):
            m.d.comb += self.fault.eq(FRAMING)


class Pack(wiring.Component):
    """Makes words of the core's messages: a first word with the kind, and then the transfers, lowest words first.

    Parameters
    ----------
    configuration : Configuration

    Members
    -------
    i : In(stream)
        What the core gives: ``bits``, ``kind``, ``last``.
    o : Out(stream)
        ``word``, and ``last``: of the message.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.transfers = transfers = Transfers(configuration.trainer)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"bits": transfers.output_bits, "kind": 2, "last": 1}))),
            "o": Out(stream.Signature(FRAMED)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        given, o = self.i.payload, self.o.payload
        begun, last = signals("begun last")
        part = Signal(1, name="part")
        words = Mux(given.kind == TENSOR, self.transfers.stream * self.transfers.element // 32, NUMBER // 32)
        m.d.comb += [
            last.eq(begun & (part == words - 1)), self.o.valid.eq(self.i.valid),
            o.word.eq(Mux(begun, given.bits.word_select(part, 32), given.kind << KIND)),
            o.last.eq(last & given.last), self.i.ready.eq(last & self.o.ready),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [begun.eq(~o.last), part.eq(Mux(begun & ~last, part + 1, 0))]
        return m
