"""The device's registers as a circuit, from the one map."""

from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.report import COUNTED
from ...golden.host import FIELDS, IDENTITY, INPUT, OUTPUT, REGISTERS, VERSION, WINDOW, Configuration
from ..core.counters import BITS
from ..core.layouts import size_of
from ..pipeline import signals
from .bus import ADDRESS, BusSignature

__all__ = ["Registers"]

FULL, EMPTY = 1, 2  # codes of `ERRORS`
EVENTS = tuple(FIELDS["irq_status"])
TOLD = ("status", "instruction", "room", "waiting", "losses", "loss", "loss_high")  # by ports of these names


class Registers(wiring.Component):
    """Answers the bus: registers, and the windows of both queues.

    Parameters
    ----------
    configuration : Configuration

    Members
    -------
    bus : In(BusSignature)
    status, instruction, room, waiting, losses, loss, loss_high : In
        What the registers of these names tell.
    fault : In
        The code of an error that is met in this cycle, or 0.
    events : In
        Of `EVENTS` but the last one, which follows from the error.
    counter, count : Out, In
        Of the core.
    push, pushed : Out
        A word for the input queue.
    pop, popped : Out, In
        A word of the output queue, which is taken with `pop`.
    reset, clear : Out(1)
        The commands of the register ``control``, for a cycle.
    irq : Out(1)
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        number = size_of(configuration.trainer.program)
        super().__init__({
            "bus": In(BusSignature()), "status": In(3), "instruction": In(number), "room": In(16), "waiting": In(16),
            "losses": In(32), "loss": In(32), "loss_high": In(32), "fault": In(3), "events": In(len(EVENTS) - 1),
            "counter": Out(range(len(COUNTED))), "count": In(BITS),
            "push": Out(1), "pushed": Out(32), "pop": Out(1), "popped": In(32),
            "reset": Out(1), "clear": Out(1), "irq": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bus, c = self.bus, self.configuration
        written, read = Signal(name="written"), Signal(name="read")
        m.d.comb += [written.eq(bus.select & bus.write), read.eq(bus.select & ~bus.write)]

        def at(name: str) -> Value:
            return bus.address == REGISTERS[name].address // 4

        def within(window: int) -> Value:
            return bus.address[WINDOW.bit_length() - 3:] == window // WINDOW

        # Registers that keep what is written, byte by byte.
        enable, status = signals("irq_enable irq_status", len(EVENTS))
        error = Signal(3, name="error")
        for name, target in (("irq_enable", enable), ("counter", self.counter)):
            with m.If(written & at(name) & bus.strobe[0]):
                m.d.sync += target.eq(bus.data)
        control = data.View(data.StructLayout(dict.fromkeys(FIELDS["control"], 1)), bus.data[:2])
        commands = Signal(name="commands")
        m.d.comb += [commands.eq(written & at("control") & bus.strobe[0]),
                     self.reset.eq(commands & control.reset), self.clear.eq(commands & control.clear)]

        # The windows. A word is whole, or it is none.
        into, out_of = Signal(name="into"), Signal(name="out_of")
        m.d.comb += [
            into.eq(written & within(INPUT) & bus.strobe.all()), self.push.eq(into & self.room.any()),
            self.pushed.eq(bus.data), out_of.eq(read & within(OUTPUT)), self.pop.eq(out_of & self.waiting.any()),
        ]
        totals = {}
        for name, moves, word in (("received", self.push, bus.data), ("given", self.pop, self.popped)):
            count, check = Signal(32, name=name), Signal(32, name=f"{name}_check")
            totals |= {name: count, f"{name}_check": check}
            with m.If(moves):
                m.d.sync += [count.eq(count + 1), check.eq(check.rotate_left(1) ^ word)]
            with m.If(self.reset):
                m.d.sync += [count.eq(0), check.eq(0)]

        # The first error stays, and is an event.
        found = Signal(3, name="found")
        m.d.comb += found.eq(Mux(into & ~self.push, FULL, Mux(out_of & ~self.pop, EMPTY, self.fault)))
        new = Signal(name="new_error")
        m.d.comb += new.eq(found.any() & ~error.any())
        with m.If(new):
            m.d.sync += error.eq(found)
        cleared = Signal(len(EVENTS), name="cleared")
        with m.If(written & at("irq_status") & bus.strobe[0]):
            m.d.comb += cleared.eq(bus.data)
        m.d.sync += [status.eq(status & ~cleared | Cat(self.events, new)), self.irq.eq((status & enable).any())]
        with m.If(self.reset):
            m.d.sync += [error.eq(0), status.eq(0)]

        # Answers.
        high = Signal(BITS - 32, name="count_high")
        with m.If(read & at("count")):
            m.d.sync += high.eq(self.count[32:])
        capability = c.trainer.stream | c.trainer.element_bits << 8 | c.depth << 16
        values: dict[str, Any] = {
            "identity": IDENTITY, "version": VERSION, "configuration": c.hash, "capability": capability,
            "data": c.data, "control": 0, "irq_enable": enable, "irq_status": status, "error": error,
            "counter": self.counter, "count": self.count[:32], "count_high": high, **totals,
            **{name: getattr(self, name) for name in TOLD},
        }
        assert set(values) == set(REGISTERS)
        known, writable = Signal(name="known"), Signal(name="writable")
        m.d.sync += [bus.answer.eq(0), bus.fault.eq(1)]
        with m.Switch(bus.address):
            for name, register in REGISTERS.items():
                with m.Case(register.address // 4):
                    m.d.comb += [known.eq(1), writable.eq(register.access != "r")]
                    with m.If(read):
                        m.d.sync += bus.answer.eq(values[name])
        with m.If(known & (read | writable)):
            m.d.sync += bus.fault.eq(0)
        with m.If(out_of):
            m.d.sync += bus.answer.eq(Mux(self.pop, self.popped, 0))
        with m.If(self.push | self.pop):
            m.d.sync += bus.fault.eq(0)
        assert len(bus.address) == ADDRESS
        return m
