# amaranth: UnusedElaboratable=no
"""The training core: its sequencer, its memories, and the units between them."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib.wiring import In, Out

from ...base.checks import require
from ...golden.core import TrainerParameters
from ...golden.core.instructions import UNITS
from ...golden.core.report import COUNTED, report_of
from ...golden.core.transfers import LOSS, TENSOR, TOLD, Transfers
from .. import verilog
from ..circuits import circuits_of
from ..pipeline import signals
from ..unit import StreamUnit
from .counters import BITS, Counters
from .epilogue import Epilogue
from .fill import Fill
from .handing import hand_others, hand_products, hand_sums, move
from .head import Head
from .issue import error_of
from .layouts import Geometry, size_of
from .mover import Mover
from .multiplied import MadamMover
from .products import Products
from .sequencer import CLEARED, Sequencer
from .settling import Settling
from .statistics import CHOICE
from .streams import Input, Output
from .sums import Sums
from .tasks import Tasks
from .tokens import Semaphores
from .traffic import connect

__all__ = ["Trainer"]

STRAY = error_of("an instruction in")
EXCEEDED = error_of("a product that")
# What the circuit does not do yet, by parameter, and what it asks for.
ASKED: dict[str, Any] = {"vectors": 1, "examples": 0}


class Trainer(StreamUnit):
    """A training core: it executes programs, beside memories of activations, errors and parameters.

    See docs/units/core.md for instructions and streams. What it computes, and in which order, is the numerics contract,
    section 15. No result depends on time.

    Parameters
    ----------
    parameters : TrainerParameters

    Members
    -------
    i : In(stream)
        ``kind`` 0: ``bits`` are elements for an instruction ``in``, the first one lowest; each row of a tensor begins
        with a transfer. 1: an instruction of the next program, which begins when its ``halt`` has come.
    o : Out(stream)
        ``kind`` 0: elements of an instruction ``out``; 1: the sum of the losses of an instruction ``head``; 2: the
        report, a word for each name of `golden.core.report_of`. ``last``: of the tensor, or of the report.
    invalid, overflow : Out(1)
        Sticky: a NaN was met; a number was beyond its range.
    status_clear : In(1)
    stopped : Out(1)
        An error stopped the program; see `golden.core.ERRORS`. It goes on after a reset.
    number : Out
        The instruction that the sequencer is at, or was stopped at.
    synced : Out(1)
        An instruction ``sync`` was executed.
    counter, count : In, Out(48)
        A place in `golden.core.COUNTED`, and in the next cycle what was counted; up to 16 cycles may not be in it yet.

    Attributes
    ----------
    latency : int
        Cycles from an instruction ``halt`` that is a whole program to the last number of its report.
    interval : int
        Cycles between transfers of elements, where nothing else waits.
    """

    latency = (1 << CLEARED) + 9

    def __init__(self, parameters: TrainerParameters) -> None:
        self.parameters = p = parameters
        for name, value in ASKED.items():
            shown = getattr(p, name)
            require(shown == value, name, shown, f"{value}, in a circuit")
        scaled = "scale" in p.system.modes
        require(not scaled or hasattr(circuits_of(p.system), "scale"), "system", p.name,
                "one whose circuits find the scale of a tensor, in a circuit")
        require(p.system.accumulator == p.work, "accumulator", p.system.accumulator, f"{p.work}, the work format")
        require(p.stored == p.work, "parameters", p.stored, f"{p.work}, the work format, in a circuit")
        if p.madam:
            wide = max(p.madam.weight.bits, p.madam.second_bits)
            require(wide <= p.work.width, "bits of weights and second moments", wide,
                    f"at most {p.work.width}, those of the work format, in a circuit")
            given = p.madam.gradient
            require(given.mantissa >= p.work.mantissa and given.emax >= p.work.emax and given.emin <= p.work.emin,
                    "gradient", given, f"{p.work}, the work format, or one that has all its numbers, in a circuit")
        self.geometry = g = Geometry(p)
        self.products, self.head = Products(g), Head(g)
        self.mover = MadamMover(g) if g.madam else Mover(g)
        transfers = Transfers(p)
        super().__init__(
            {"bits": transfers.input_bits, "kind": 1}, {"bits": transfers.output_bits, "kind": 2, "last": 1},
            stopped=Out(1), number=Out(size_of(p.program)), synced=Out(1), counter=In(range(len(COUNTED))),
            count=Out(BITS))

    @property
    def text(self) -> str:
        """Verilog of the modules that it instantiates."""
        return verilog.joined((self.products, self.head, self.mover))

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return {
            "i.bits": f"{p.stream} elements of {p.element_bits} bits, the first one lowest, or an instruction",
            "i.kind": "0: elements, 1: an instruction",
            "o.bits": f"{p.stream} elements of {p.element_bits} bits, a sum of losses, or a word of the report",
            "o.kind": "0: elements, 1: a sum of losses, 2: the report", "last": "of the tensor, or of the report",
            "invalid": "sticky: a NaN was met", "overflow": "sticky: a number was beyond its range",
            "stopped": "an error stopped the program, until reset", "number": "of the instruction at hand",
            "synced": "an instruction sync was executed",
            "counter": "; ".join(f"{number} {name}" for number, name in enumerate(COUNTED)),
            "count": "cycles that the counter has counted since the program began, a cycle later",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g = self.geometry
        m.submodules.sequencer = sequencer = Sequencer(g)
        m.submodules.semaphores = semaphores = Semaphores()
        m.submodules.products = products = self.products
        m.submodules.epilogue = epilogue = Epilogue(g, products.parameters)
        m.submodules.tasks = tasks = Tasks(g)
        m.submodules.mover = mover = self.mover
        m.submodules.sums = sums = Sums(g)
        m.submodules.head = head = self.head
        m.submodules.input = input_ = Input(g)
        m.submodules.output = output = Output(g)
        issue = sequencer.issue
        bit = {name: number for number, name in enumerate(UNITS[1:])}
        takes = {name: Signal(name=f"takes_{name}") for name in bit}
        busy, done, free = ({name: Signal(name=f"{kind}_{name}") for name in bit} for kind in ("busy", "done", "free"))
        m.d.comb += [
            semaphores.token.eq(sequencer.token), semaphores.valid.eq(sequencer.token_valid),
            sequencer.token_ready.eq(semaphores.ready), semaphores.handed.eq(Cat(takes.values())),
            semaphores.done.eq(Cat(done.values())), semaphores.clear.eq(sequencer.clear),
            semaphores.index.eq(sequencer.index), self.synced.eq(sequencer.synced), self.number.eq(sequencer.number),
            self.stopped.eq(sequencer.error.any()),
            *(takes[name].eq(sequencer.valid[number] & sequencer.ready[number]) for name, number in bit.items()),
        ]

        # The sequencer hears of it a cycle later. It needs some cycles from one instruction to the next.
        m.d.sync += [sequencer.idle.eq(semaphores.idle), sequencer.ready.eq(Cat(free.values()))]

        if g.adaptive:
            m.d.comb += [
                products.choose.eq(sequencer.choose), products.choice.eq(sequencer.choice),
                products.clear.eq(sequencer.clear),
                *(getattr(sequencer, name).eq(getattr(products, name)) for name in CHOICE),
            ]
        # The step of training that a unit works for. Converters may be a step ahead of the cells.
        working = ("array", "cells", "head", *(["mover"] if g.madam else []))
        steps = {name: Signal.like(issue.step, name=f"step_{name}") for name in working}
        numbers = {name: Signal.like(issue.number, name=f"number_{name}") for name in ("array", "in")}
        u = SimpleNamespace(steps=steps, numbers=numbers, issue=issue, takes=takes, busy=busy, done=done, free=free,
                            opens={name: semaphores.open[number] for name, number in bit.items()},
                            products=products, epilogue=epilogue, tasks=tasks, mover=mover, sums=sums, head=head,
                            input=input_, output=output)
        if g.windows:
            m.submodules.fill = u.fill = Fill(g)
        if g.loss:
            m.submodules.settling = u.settling = Settling(g)
            self._settle(m, sequencer, u.settling)
        hand_products(m, g, u)
        hand_sums(m, g, u)
        hand_others(m, u)
        move(m, u)
        connect(m, g, u)

        # Faults of units.
        stray = input_.waits & self.i.valid & self.i.payload.kind
        m.d.comb += [
            sequencer.fault.eq(stray | products.exceeded), sequencer.fault_code.eq(Mux(stray, STRAY, EXCEEDED)),
            sequencer.fault_number.eq(Mux(stray, numbers["in"], numbers["array"])),
        ]

        # What the host sends.
        m.d.comb += [
            sequencer.load.eq(self.i.payload.bits), sequencer.load_valid.eq(self.i.valid & self.i.payload.kind),
            sequencer.stray.eq(self.i.valid & ~self.i.payload.kind),
            input_.elements.as_value().eq(self.i.payload.bits), input_.given.eq(self.i.valid & ~self.i.payload.kind),
            self.i.ready.eq(Mux(self.i.payload.kind, sequencer.load_ready, input_.taken)),
        ]

        # The first steps in which something was wrong; they count from 1.
        conditions = {
            "invalid": [(products.invalid, "array"), (head.invalid, "head"), (products.cells_invalid, "cells")],
            "overflow": [(products.overflow, "array"), (products.cells_overflow, "cells")]}
        if g.madam:
            m.d.comb += [steps["mover"].eq(tasks.task.step), mover.status_clear.eq(self.status_clear)]
            for name, met in conditions.items():
                met.append((getattr(mover, name), "mover"))
        records = {}
        # The last condition that holds is told: that of the earliest step.
        for name, met in conditions.items():
            records[name] = record = Signal(33, name=f"{name}_step")
            m.d.comb += getattr(self, name).eq(record.any())
            with m.If(self.status_clear):
                m.d.sync += record.eq(0)
            with m.Elif(~record.any()):
                for condition, unit in met:
                    with m.If(condition):
                        m.d.sync += record.eq(steps[unit] + 1)
        m.d.comb += [products.status_clear.eq(self.status_clear), head.status_clear.eq(self.status_clear)]

        events = Cat(C(1, 1), *busy.values(), products.starved, products.blocked)
        count = len(events)
        m.submodules.counters = counters = Counters(2 * count)
        assert counters.count == len(COUNTED)
        m.d.comb += [
            counters.events.eq(Mux(sequencer.measured, Cat(C(0, count), events), events)
                               & sequencer.running.replicate(2 * count)),
            counters.clear.eq(sequencer.clear), counters.index.eq(sequencer.index),
            counters.ask.eq(self.counter), self.count.eq(counters.answer),
        ]
        told = [sequencer.error, sequencer.number, *records.values()]
        if g.loss:
            told += [sequencer.losses.loss, sequencer.losses.accepted, u.settling.skipped]
        self._answer(m, sequencer, output, head, told)
        return m

    def _settle(self, m: Module, sequencer: Sequencer, settling: Settling) -> None:
        """Let steps end as their velocities turn out."""
        mover = self.mover
        m.d.comb += [
            settling.clear.eq(sequencer.clear), settling.start.eq(sequencer.settle),
            settling.registers.eq(sequencer.losses), sequencer.settled.eq(settling.done),
            sequencer.next_loss.eq(settling.loss), sequencer.next_accepted.eq(settling.accepted),
            mover.loss.eq(sequencer.losses.loss), settling.old.eq(mover.old), settling.piece.eq(mover.piece_old),
            settling.write.eq(mover.write), settling.moved.eq(mover.moved_state), settling.found.eq(mover.state),
        ]

    def _answer(self, m: Module, sequencer: Sequencer, output: Output, head: Head, report: list[Value]) -> None:
        """Send what the host is to have: elements, losses, and in the end the report."""
        p, o = self.parameters, self.o.payload
        count = len(report_of(p))
        assert len(report) == count
        at = Signal(range(count))
        last = at == count - 1
        ready, sends = signals("o_free sends")
        m.d.comb += [
            ready.eq(~self.o.valid | self.o.ready), output.ready.eq(ready), head.loss_ready.eq(ready & ~output.valid),
            sends.eq(sequencer.ended & ready & ~output.valid & ~head.loss_valid), sequencer.reported.eq(sends & last),
        ]
        with m.If(sends):
            m.d.sync += at.eq(at + 1 if count & (count - 1) == 0 else Mux(last, 0, at + 1))
        elements = Cat(Cat(output.elements[k], C(0, p.element_bits - self.geometry.bits)) for k in range(p.stream))
        with m.If(ready):
            m.d.sync += [self.o.valid.eq(output.valid | head.loss_valid | sends), o.kind.eq(TOLD),
                         o.last.eq(last), o.bits.eq(Array(report)[at])]
            with m.If(output.valid):
                m.d.sync += [o.kind.eq(TENSOR), o.last.eq(output.last), o.bits.eq(elements)]
            with m.Elif(head.loss_valid):
                m.d.sync += [o.kind.eq(LOSS), o.last.eq(1), o.bits.eq(head.loss)]
