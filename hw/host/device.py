# amaranth: UnusedElaboratable=no
"""The training core with registers and queues: a device without a bus of its own choice."""

from typing import Any

from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from ...golden.core.transfers import LOSS, TOLD
from ...golden.host import Configuration
from ..core import Trainer
from ..pipeline import signals
from .bus import BusSignature
from .packets import FRAMED, Pack, Unpack
from .registers import Registers

__all__ = ["Device"]

RESET = 4  # cycles of a reset by the register


class Device(wiring.Component):
    """A training core behind registers, with two queues of words.

    Packets come by the input window or by the stream `words`: whichever has the first word of a packet gives the
    whole packet. What the core tells goes to the output window, or to the stream `told` where there is one.

    Parameters
    ----------
    configuration : Configuration
    streamed : bool
        The core's messages leave by `told`, and the output window is empty.
    core : component, optional
        With the ports of the trainer, in its place: for tests of what stands round it.

    Members
    -------
    bus : In(BusSignature)
    words : In(stream)
        ``word``, ``last``: of the packet.
    told : Out(stream)
        ``word``, ``last``: of the message.
    irq : Out(1)
    """

    def __init__(self, configuration: Configuration, streamed: bool = False, core: Any = None) -> None:
        self.configuration, self.streamed = configuration, streamed
        self.trainer: Any = Trainer(configuration.trainer) if core is None else core
        super().__init__({
            "bus": In(BusSignature()), "irq": Out(1),
            **({"words": In(stream.Signature(FRAMED)), "told": Out(stream.Signature(FRAMED))} if streamed else {}),
        })

    @property
    def text(self) -> str:
        """Verilog of the modules that the core instantiates."""
        return getattr(self.trainer, "text", "")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        c = self.configuration
        registers, trainer = Registers(c), self.trainer
        restart, left = Signal(name="restart"), Signal(range(RESET + 1), name="restart_left")
        again = ResetInserter(restart)
        m.submodules.registers = registers
        m.submodules.trainer = again(trainer)
        m.submodules.input = input_ = again(fifo.SyncFIFOBuffered(width=32, depth=c.depth))
        m.submodules.output = output = again(fifo.SyncFIFOBuffered(width=33, depth=c.depth))
        unpack, pack = Unpack(c), Pack(c)
        m.submodules.unpack, m.submodules.pack = again(unpack), again(pack)
        connect(m, wiring.flipped(self.bus), registers.bus)
        connect(m, unpack.o, trainer.i)
        connect(m, trainer.o, pack.i)
        with m.If(registers.reset):
            m.d.sync += left.eq(RESET)
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)
        m.d.comb += restart.eq(left.any())

        # Into the core: by packets, from the window or from the stream.
        payload = unpack.i.payload
        m.d.comb += [input_.w_en.eq(registers.push), input_.w_data.eq(registers.pushed),
                     registers.room.eq(c.depth - input_.w_level)]
        streams = Signal(name="streams")
        if self.streamed:
            held = Signal(name="held")
            m.d.sync += held.eq(streams & ~restart)
            m.d.comb += [streams.eq(Mux(unpack.idle, ~input_.r_rdy, held)),
                         self.words.ready.eq(streams & unpack.i.ready & ~restart)]
        with m.If(streams):
            if self.streamed:
                m.d.comb += [payload.word.eq(self.words.payload.word), payload.last.eq(self.words.payload.last),
                             payload.framed.eq(1), unpack.i.valid.eq(self.words.valid & ~restart)]
        with m.Else():
            m.d.comb += [payload.word.eq(input_.r_data), unpack.i.valid.eq(input_.r_rdy),
                         input_.r_en.eq(unpack.i.ready)]

        # Out of the core.
        m.d.comb += [
            output.w_en.eq(pack.o.valid), output.w_data.eq(Cat(pack.o.payload.word, pack.o.payload.last)),
            pack.o.ready.eq(output.w_rdy), registers.popped.eq(output.r_data[:32]),
        ]
        if self.streamed:
            # The register keeps its word through a reset by the register: a stream must not take it back.
            told = self.told
            free = Signal(name="free")
            m.d.comb += [free.eq(~told.valid | told.ready), output.r_en.eq(free)]
            with m.If(free):
                m.d.sync += [told.valid.eq(output.r_rdy & ~restart),
                             Cat(told.payload.word, told.payload.last).eq(output.r_data)]
        else:
            m.d.comb += [output.r_en.eq(registers.pop), registers.waiting.eq(output.r_level)]

        # What the registers tell.
        came, whole, stopped, before = signals("came whole stopped before")
        o = trainer.o
        m.d.comb += [came.eq(o.valid & o.ready), whole.eq(pack.o.valid & pack.o.ready & pack.o.payload.last),
                     stopped.eq(trainer.stopped & ~before)]
        m.d.sync += before.eq(trainer.stopped)
        with m.If(came & (o.payload.kind == LOSS)):
            m.d.sync += [Cat(registers.loss, registers.loss_high).eq(o.payload.bits[:64]),
                         registers.losses.eq(registers.losses + 1)]
        with m.If(restart):
            m.d.sync += registers.losses.eq(0)
        m.d.comb += [
            registers.status.eq(Cat(trainer.stopped, trainer.invalid, trainer.overflow)),
            registers.instruction.eq(trainer.number), registers.fault.eq(unpack.fault),
            registers.events.eq(Cat(whole & (o.payload.kind == TOLD), whole, stopped)),
            trainer.counter.eq(registers.counter), registers.count.eq(trainer.count),
            trainer.status_clear.eq(registers.clear), self.irq.eq(registers.irq),
        ]
        return m
