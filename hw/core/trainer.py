# amaranth: UnusedElaboratable=no
"""The training core: its sequencer, its memories, and the units between them."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib.wiring import In, Out

from ...base.checks import require
from ...golden.core import TrainerParameters
from ...golden.core.instructions import MEMORIES, UNITS
from ...golden.core.report import COUNTED, REPORT
from ...golden.core.transfers import LOSS, TENSOR, TOLD, Transfers
from ...golden.network import UPDATE
from ...golden.number_system import LANES
from ...golden.words import USE
from .. import verilog
from ..pipeline import signals
from ..unit import StreamUnit
from .counters import BITS, Counters
from .epilogue import Epilogue
from .head import Head
from .issue import error_of
from .layouts import Geometry, size_of
from .mover import Mover, rates_layout
from .products import Products
from .sequencer import CLEARED, Sequencer
from .streams import Input, Output
from .sums import Sums
from .tasks import SETTLE, Tasks
from .tokens import Semaphores
from .traffic import connect

__all__ = ["Trainer"]

STRAY = error_of("an instruction in")
EXCEEDED = error_of("a product that")
# What the circuit does not do yet, by parameter, and what it asks for.
ASKED: dict[str, Any] = {"vectors": 1, "examples": 0, "head": 1, "madam": None, "policies": ("constant",)}


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
        report, a word for each name of `golden.core.REPORT`. ``last``: of the tensor, or of the report.
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
        require(p.name == "bfp", "system", p.name, "bfp, in a circuit")
        require(p.system.group == p.side, "group", p.system.group, "16 or more, in a circuit")
        require(p.system.accumulator == p.work, "accumulator", p.system.accumulator, f"{p.work}, the work format")
        require(p.stored == p.work, "parameters", p.stored, f"{p.work}, the work format, in a circuit")
        self.geometry = g = Geometry(p)
        self.products, self.head = Products(g), Head(g)
        self.mover = Mover(g)
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

        # The step of training of what a unit executes; of the array that of its converters, and that of its cells.
        steps = {name: Signal.like(issue.step, name=f"step_{name}") for name in ("array", "cells", "head")}
        numbers = {name: Signal.like(issue.number, name=f"number_{name}") for name in ("array", "in")}
        u = SimpleNamespace(steps=steps, numbers=numbers, issue=issue, takes=takes, busy=busy, done=done, free=free,
                            opens={name: semaphores.open[number] for name, number in bit.items()},
                            waitless=semaphores.waitless[bit["array"]],
                            products=products, epilogue=epilogue, tasks=tasks, mover=mover, sums=sums, head=head,
                            input=input_, output=output)
        self._array(m, u)
        self._vector(m, u)
        self._others(m, u)
        self._move(m, u)
        connect(m, g, u)
        with m.If(takes["array"]):
            m.d.sync += [steps["array"].eq(issue.step), numbers["array"].eq(issue.number)]
        with m.If(products.taken):
            m.d.sync += steps["cells"].eq(steps["array"])

        # Faults of units.
        stray = input_.busy & self.i.valid & self.i.payload.kind
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
        records = {}
        # Several may be found in one cycle: the last one that is listed here is of the earliest step.
        for name, conditions in (
                ("invalid", ((products.invalid, "array"), (head.invalid, "head"), (products.cells_invalid, "cells"))),
                ("overflow", ((products.overflow, "array"), (products.cells_overflow, "cells")))):
            records[name] = record = Signal(33, name=f"{name}_step")
            m.d.comb += getattr(self, name).eq(record.any())
            with m.If(self.status_clear):
                m.d.sync += record.eq(0)
            with m.Elif(~record.any()):
                for condition, unit in conditions:
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
        self._answer(m, sequencer, output, head, [sequencer.error, sequencer.number, *records.values()])
        return m

    def _array(self, m: Module, u: SimpleNamespace) -> None:
        """Give the array a product, and the epilogue what is to be done to its results."""
        issue, products, epilogue, tasks, takes = u.issue, u.products, u.epilogue, u.tasks, u.takes["array"]
        product, low = products.i.payload, self.geometry.low
        a, b = issue.a, issue.b
        m.d.comb += [
            products.i.valid.eq(takes), product.m.eq(issue.to.rows), product.n.eq(issue.to.columns),
            product.k.eq(Mux(issue.across_a, a.rows, a.columns)), product.first.eq(~issue.continued),
            product.last.eq(~issue.open), product.use.eq(issue.use), product.key.eq(issue.key),
            product.pitch.eq(Mux(issue.a_part.pitch.any(), issue.a_part.pitch, issue.b_part.pitch)),
            product.a.source.eq(a.memory == MEMORIES.index("D")), product.b.source.eq(b.memory == MEMORIES.index("X")),
        ]
        for target, place, across, part, mode in ((product.a, a, issue.across_a, issue.a_part, issue.a_mode),
                                                  (product.b, b, issue.across_b, issue.b_part, issue.b_mode)):
            m.d.comb += [
                target.block.eq(place.block), target.stride.eq(place.stride), target.transposed.eq(across),
                target.first.eq(Mux(across, place.left[:low], place.top)), target.vector.eq(part.vector),
                *(target[name].eq(mode[name]) for name in self.parameters.system.modes),
            ]
        # A product begins when its tokens are there, and all before it is done. An early one begins beside the one
        # before, unless sums go on from one to the other.
        given = tasks.given
        together = issue.early & ~issue.open & ~issue.continued
        m.d.comb += [
            u.free["array"].eq(products.i.ready & u.waitless & (tasks.none | together & tasks.one)),
            given.to.eq(issue.to), given.other.eq(issue.other), given.part.vector.eq(issue.to_part.vector),
            given.part.lane.eq(issue.to_part.lane),
            given.part.pitch.eq(Mux(issue.to_part.pitch.any(), issue.to_part.pitch,
                                    (issue.to.columns + (LANES - 1)) >> (LANES.bit_length() - 1))),
            *(given[name].eq(issue[name]) for name in ("biased", "masked", "relu", "update", "open")),
            *(given.rates[name].eq(issue[name]) for name, _ in given.rates.shape()),
            given.use.eq(Cat(C(UPDATE, 3), issue.use[3:])), tasks.valid.eq(takes),
        ]
        m.d.comb += [
            *(epilogue.task[name].eq(tasks.task[name]) for name, _ in epilogue.task.shape()),
            epilogue.active.eq(tasks.active & ~tasks.task.open),
            tasks.gone.eq(Mux(tasks.task.open, ~products.reading, epilogue.done)),
            tasks.moved.eq(~epilogue.o.valid & u.mover.quiet[0]),
            u.busy["array"].eq(~tasks.none), u.done["array"].eq(tasks.done), epilogue.i.valid.eq(products.o.valid),
            epilogue.i.payload.eq(products.o.payload), products.o.ready.eq(epilogue.i.ready),
        ]

    def _vector(self, m: Module, u: SimpleNamespace) -> None:
        """Give the sums their instruction; it is done when the parameters have been written."""
        issue, sums = u.issue, u.sums
        u.kept = Signal(rates_layout(self.geometry), name="rates_vector")
        u.kept_use = Signal(USE, name="use_vector")
        self._follow(m, u, "vector", sums, sums.busy | ~u.mover.quiet[1], [
            (sums.a, issue.a), (sums.to, issue.to), (sums.first, issue.to_part.vector), (sums.lane, issue.to_part.lane),
            (u.kept_use, Cat(C(UPDATE, 3), issue.use[3:])),
            *((u.kept[name], issue[name]) for name, _ in u.kept.shape())])

    def _others(self, m: Module, u: SimpleNamespace) -> None:
        """Give head, input and output their instructions."""
        issue, head, input_, output = u.issue, u.head, u.input, u.output
        self._follow(m, u, "head", head, head.busy, [
            (head.a, issue.a), (head.labels, issue.b), (head.to, issue.to), (head.scale, issue.scale),
            (head.key, issue.key), (head.use, issue.use), (head.vector, issue.a_part.vector),
            (u.steps["head"], issue.step)])
        self._follow(m, u, "in", input_, input_.busy, [
            (input_.to, issue.to), (input_.plane, issue.plane),
            (input_.labels, issue.to.memory == MEMORIES.index("L")), (u.numbers["in"], issue.number)])
        self._follow(m, u, "out", output, output.busy, [(output.a, issue.a), (output.plane, issue.plane)])

    @staticmethod
    def _follow(m: Module, u: SimpleNamespace, name: str, unit: Any, runs: Value,
                given: Sequence[tuple[Any, Any]]) -> None:
        """Start a unit when it has done the instruction before, and the tokens are there that this one waits for.

        What it is `given` are registers, and their values when the instruction is handed out. An instruction is done
        when what it wrote can be read.
        """
        loaded, begins, works = signals(f"{name}_loaded {name}_begins {name}_works")
        left = Signal(range(SETTLE + 1), name=f"{name}_settle")
        m.d.comb += [
            begins.eq(loaded & ~works & u.opens[name]), u.free[name].eq(~loaded), u.busy[name].eq(works),
            u.done[name].eq(works & ~left.any()),
        ]
        m.d.sync += unit.start.eq(begins)
        for number, (register, value) in enumerate(given):
            target, value = Value.cast(register), Value.cast(value)
            waits = Signal(len(target), name=f"{name}_waits{number}", reset_less=True)
            with m.If(u.takes[name]):
                m.d.sync += waits.eq(value)
            with m.If(begins):
                m.d.sync += target.eq(waits)
        with m.If(u.takes[name]):
            m.d.sync += loaded.eq(1)
        with m.If(begins):
            m.d.sync += [loaded.eq(0), works.eq(1)]
        with m.Elif(u.done[name]):
            m.d.sync += works.eq(0)
        with m.If(begins | unit.start | runs):
            m.d.sync += left.eq(SETTLE)
        with m.Elif(left.any()):
            m.d.sync += left.eq(left - 1)

    @staticmethod
    def _move(m: Module, u: SimpleNamespace) -> None:
        """Let products and sums move parameters, in turn where both go by the same rates, and else one after the other.

        Sums come first: there are few of them.
        """
        epilogue, sums, mover, tasks = u.epilogue, u.sums, u.mover, u.tasks
        rates = Signal.like(mover.rates, name="rates")
        wants = {"vector": sums.valid, "array": epilogue.o.valid & epilogue.task.update}
        kept = {"vector": u.kept, "array": tasks.task.rates}
        loads = Signal(name="loads")
        may = {}
        # What is compared here stays while its numbers are there.
        for name, each in kept.items():
            alike = Signal(name=f"alike_{name}")
            m.d.sync += alike.eq((each.as_value() == rates.as_value()) & ~loads)
            may[name] = wants[name] & alike
        other, loaded = signals("other_rates loaded_rates")
        m.d.sync += loaded.eq(loads)
        m.d.comb += [
            other.eq(wants["vector"] & ~may["vector"] | wants["array"] & ~may["array"] & ~wants["vector"]),
            loads.eq(other & mover.quiet.all() & ~Cat(may.values()).any() & ~loaded),
        ]
        with m.If(loads):
            m.d.sync += rates.eq(Mux(wants["vector"], kept["vector"], kept["array"]))
        turn = may["vector"]
        blocked = wants["vector"] & ~may["vector"]
        m.d.comb += [
            mover.rates.eq(rates), mover.bias.eq(turn), mover.valid.eq(turn | may["array"] & ~blocked),
            mover.piece.eq(Mux(turn, sums.piece, epilogue.o.payload)),
            mover.vector.eq(Mux(turn, sums.vector, epilogue.vector)),
            mover.lane.eq(Mux(turn, sums.word, epilogue.lane)), mover.use.eq(Mux(turn, u.kept_use, tasks.task.use)),
            sums.ready.eq(turn & mover.ready),
            epilogue.o.ready.eq(~epilogue.task.update | may["array"] & ~wants["vector"] & mover.ready),
        ]

    def _answer(self, m: Module, sequencer: Sequencer, output: Output, head: Head, report: list[Value]) -> None:
        """Send what the host is to have: elements, losses, and in the end the report."""
        p, o = self.parameters, self.o.payload
        assert len(report) == len(REPORT)
        at = Signal(range(len(REPORT)))
        last = at == len(REPORT) - 1
        ready, sends = signals("o_free sends")
        m.d.comb += [
            ready.eq(~self.o.valid | self.o.ready), output.ready.eq(ready), head.loss_ready.eq(ready & ~output.valid),
            sends.eq(sequencer.ended & ready & ~output.valid & ~head.loss_valid), sequencer.reported.eq(sends & last),
        ]
        with m.If(sends):
            m.d.sync += at.eq(at + 1)
        elements = Cat(Cat(output.elements[k], C(0, p.element_bits - self.geometry.bits)) for k in range(p.stream))
        with m.If(ready):
            m.d.sync += [self.o.valid.eq(output.valid | head.loss_valid | sends), o.kind.eq(TOLD),
                         o.last.eq(last), o.bits.eq(Array(report)[at])]
            with m.If(output.valid):
                m.d.sync += [o.kind.eq(TENSOR), o.last.eq(output.last), o.bits.eq(elements)]
            with m.Elif(head.loss_valid):
                m.d.sync += [o.kind.eq(LOSS), o.last.eq(1), o.bits.eq(head.loss)]
