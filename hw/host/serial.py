"""A serial line, and the bridge from its bytes to the device's bus."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...base.checks import require_int
from ..pipeline import signals
from .bus import ADDRESS, BusSignature

__all__ = ["LEAST", "Receiver", "Transmitter", "Uartbone"]

LEAST = 4  # cycles of a bit, at the least
WRITES, READS = (1, 3), (2, 4)  # commands: to or from addresses that follow each other, and one address alone


class Receiver(wiring.Component):
    """Receives bytes: 8 bits, no parity, one stop bit.

    Parameters
    ----------
    divisor : int
        Cycles of a bit.

    Members
    -------
    rx : In(1)
    valid, byte : Out
        A byte, for a cycle.
    """

    def __init__(self, divisor: int) -> None:
        require_int("divisor", divisor, LEAST, 1 << 16)
        self.divisor = divisor
        super().__init__({"rx": In(1), "valid": Out(1), "byte": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        settled = Signal(2, init=3, name="settled")  # the pin, two cycles later
        m.d.sync += settled.eq(Cat(self.rx, settled[0]))
        bits, left = Signal(range(10), name="bits"), Signal(range(self.divisor), name="left")
        line = settled[1]
        m.d.sync += self.valid.eq(0)
        with m.If(~bits.any()):
            m.d.sync += left.eq(self.divisor // 2 - 1)  # to the middle of the start bit
            with m.If(~line):
                m.d.sync += bits.eq(9)
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += [left.eq(self.divisor - 1), bits.eq(bits - 1)]
            with m.If((bits == 9) & line):
                m.d.sync += bits.eq(0)  # no start bit: a glitch
            with m.If(bits != 9):
                m.d.sync += [self.byte.eq(Cat(self.byte[1:], line)), self.valid.eq(bits == 1)]
        return m


class Transmitter(wiring.Component):
    """Sends bytes: 8 bits, no parity, one stop bit.

    Parameters
    ----------
    divisor : int
        Cycles of a bit.

    Members
    -------
    tx : Out(1)
    valid, ready, byte : In, Out, In
    """

    def __init__(self, divisor: int) -> None:
        require_int("divisor", divisor, LEAST, 1 << 16)
        self.divisor = divisor
        super().__init__({"tx": Out(1), "valid": In(1), "ready": Out(1), "byte": In(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits, left = Signal(range(11), name="bits"), Signal(range(self.divisor), name="left")
        shift = Signal(9, init=0x1FF, name="shift")
        m.d.comb += [self.ready.eq(~bits.any()), self.tx.eq(shift[0])]
        with m.If(self.ready):
            m.d.sync += left.eq(self.divisor - 1)
            with m.If(self.valid):
                m.d.sync += [shift.eq(Cat(C(0, 1), self.byte)), bits.eq(10)]
        with m.Else():
            m.d.sync += left.eq(Mux(left.any(), left - 1, self.divisor - 1))
            with m.If(~left.any()):
                m.d.sync += [shift.eq(Cat(shift[1:], C(1, 1))), bits.eq(bits - 1)]
        return m


class Uartbone(wiring.Component):
    """Does what the bytes of LiteX's uartbone ask for on the device's bus.

    A request has a command, a number of words, a word address of 32 bits, and for a write the words. Numbers of several
    bytes begin with their highest one. A read is answered by its words. Other bytes in place of a command mean nothing.
    A request whose next byte does not come for `timeout` cycles is forgotten.

    Parameters
    ----------
    timeout : int
        Cycles.

    Members
    -------
    came, byte : In
        A byte from the host, for a cycle.
    valid, ready, answer : Out, In, Out
        A byte for the host.
    bus : Out(BusSignature)
    """

    def __init__(self, timeout: int) -> None:
        require_int("timeout", timeout, 256, 1 << 30)
        self.timeout = timeout
        super().__init__({"came": In(1), "byte": In(8), "valid": Out(1), "ready": In(1), "answer": Out(8),
                          "bus": Out(BusSignature())})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus = self.bus
        writes, fixed, forgotten = signals("writes fixed forgotten")
        left, at = Signal(8, name="left"), Signal(2, name="at")
        address, word = Signal(32, name="address"), Signal(32, name="word")
        quiet = Signal(range(self.timeout + 1), name="quiet")
        beyond = address[ADDRESS:].any()  # of the aperture: its addresses come again
        m.d.comb += [bus.address.eq(address), bus.data.eq(word), bus.strobe.eq(15), bus.write.eq(writes),
                     self.answer.eq(word[24:]), forgotten.eq(quiet == self.timeout)]
        m.d.sync += quiet.eq(quiet + 1)
        with m.FSM(name="state"):
            with m.State("COMMAND"):
                m.d.sync += [writes.eq((self.byte == WRITES[0]) | (self.byte == WRITES[1])),
                             fixed.eq((self.byte == WRITES[1]) | (self.byte == READS[1])), at.eq(0), quiet.eq(0)]
                with m.If(self.came & (self.byte >= min(WRITES)) & (self.byte <= max(READS))):
                    m.next = "LENGTH"
            with m.State("LENGTH"):
                m.d.sync += left.eq(self.byte)
                with m.If(forgotten):
                    m.next = "COMMAND"
                with m.If(self.came):
                    m.d.sync += quiet.eq(0)
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                with m.If(forgotten):
                    m.next = "COMMAND"
                with m.If(self.came):
                    m.d.sync += [address.eq(Cat(self.byte, address)), at.eq(at + 1), quiet.eq(0)]
                    with m.If(at == 3):
                        m.next = "COMMAND"
                        with m.If(left.any()):
                            m.next = "READ"
                            with m.If(writes):
                                m.next = "WORD"
            with m.State("WORD"):
                with m.If(forgotten):
                    m.next = "COMMAND"
                with m.If(self.came):
                    m.d.sync += [word.eq(Cat(self.byte, word)), at.eq(at + 1), quiet.eq(0)]
                    with m.If(at == 3):
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += bus.select.eq(~beyond)
                self._next(m, left, address, fixed, "WORD")
            with m.State("READ"):
                m.d.comb += bus.select.eq(~beyond)
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.sync += word.eq(Mux(beyond, 0, bus.answer))
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.valid.eq(1)
                m.d.sync += quiet.eq(0)
                with m.If(self.ready):
                    m.d.sync += [word.eq(word << 8), at.eq(at + 1)]
                    with m.If(at == 3):
                        self._next(m, left, address, fixed, "READ")
        return m

    @staticmethod
    def _next(m: Module, left: Signal, address: Signal, fixed: Signal, state: str) -> None:
        """Go on with the request's next word, or end the request."""
        m.d.sync += [left.eq(left - 1), address.eq(address + ~fixed)]
        m.next = state
        with m.If(left == 1):
            m.next = "COMMAND"
