"""The core's sequencer: it executes a program's own instructions, and hands out those of the units."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import COUNTERS, FIELDS, OPCODE, REGISTERS, SEMAPHORES, SIDES, UNITS, WORD
from ...golden.core.report import ERRORS
from ...golden.core.sequencer import CODE, LARGEST_LOSS
from ...golden.logarithmic import SCALE_MAX, SCALE_MIN
from ...golden.update import METHODS
from ..pipeline import UNCHECKED
from ..powers import LOSS
from .issue import CODES, error_of, issue_layout, taken_by, unit_of
from .layouts import Geometry, fields_of, madam_layout, size_of
from .loops import loops
from .operands import Operands
from .precisions import POLICY, Precisions
from .settling import LOSSES
from .statistics import CHOICE, choice_layout
from .tensors import Tensors
from .tokens import COUNT, TOKEN

__all__ = ["CLEARED", "Sequencer"]

# The kinds of instructions.
HALT, SYNC, SETTLE = ("halt",), ("sync",), ("settle",)
WRITES, LOOPING, TOKENS = ("set", "step", "mode", "part"), ("loop", "end"), ("signal", "wait")
CLEARED = 7  # bits of an index that clears what a program begins with
MADAM = ("shift", "correction")
VALUE = FIELDS["value"][0]
OPERATION, TOKENLESS, LONG, RATE, STRAY, BEYOND = map(error_of, (
    "an operation", "a wait", "a program longer", "a rate", "elements in", "a scale or"))


class Sequencer(wiring.Component):
    """Loads a program, executes it, and hands out instructions in its order; see `golden.core.Sequencer`.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    load : In(WORD), load_valid : In(1), load_ready : Out(1)
        Instructions of the next program. ``halt`` starts it.
    stray : In(1)
        There are elements for a program.
    issue, valid, ready : Out, Out, In
        An instruction of a unit, and a bit for each unit. It is taken in a cycle in which its unit is ready.
    token, token_valid, token_ready : Out, Out, In
        See `Semaphores`.
    idle : In
        A bit for each unit.
    fault, fault_code, fault_number : In
        A unit cannot go on with an instruction.
    error, number : Out
        Code of what stopped the program; the instruction that the sequencer is at, or was stopped at.
    clear, index : Out
        Before a program: what lies at `index` begins anew.
    running : Out(1)
        A program is executed.
    measured : Out(1)
        The counter in use.
    ended, reported : Out(1), In(1)
        The program has ended or was stopped; the report has gone.
    synced : Out(1)
        A ``sync`` was executed.
    choose, choice, choosable, decided, decided_wide, undecided
        If tensors may choose their precisions: see `Counting`.
    settle, losses, settled, next_loss, next_accepted
        With a loss scale: see `Settling`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry, self.parameters = geometry, geometry.parameters
        units, number = len(UNITS) - 1, size_of(self.parameters.program)
        super().__init__({
            "load": In(WORD), "load_valid": In(1), "load_ready": Out(1), "stray": In(1),
            "issue": Out(issue_layout(geometry)), "valid": Out(units), "ready": In(units),
            "token": Out(TOKEN), "token_valid": Out(units), "token_ready": In(units), "idle": In(units),
            "fault": In(1), "fault_code": In(range(len(ERRORS))), "fault_number": In(number),
            "error": Out(range(len(ERRORS))), "number": Out(number), "clear": Out(1), "index": Out(CLEARED),
            "running": Out(1), "measured": Out(1), "ended": Out(1), "reported": In(1), "synced": Out(1),
            **({"choose": Out(1), "choice": Out(choice_layout(geometry)), **dict.fromkeys(CHOICE, In(1))}
               if geometry.adaptive else {}),
            **({"settle": Out(1), "losses": Out(data.StructLayout(LOSSES)), "settled": In(1), "next_loss": In(LOSS),
                "next_accepted": In(VALUE)} if geometry.loss else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, p, issue = self.geometry, self.parameters, self.issue
        m.submodules.program = program = memory.Memory(shape=WORD, depth=p.program, init=[], attrs=UNCHECKED)
        m.submodules.tensors = tensors = Tensors(g)
        m.submodules.operands = operands = Operands(g)
        store, fetch = program.write_port(), program.read_port()
        word = Signal(WORD, name="word")
        count = Signal(range(p.program + 1), name="count")
        at = Signal(size_of(p.program), name="at")
        code = word[:OPCODE]
        failed = Signal(range(len(ERRORS)))  # the instruction at hand cannot be executed
        precisions: Any = None
        waits: Value = C(0, 1)
        # What kind of instruction it is is known beside its word.
        chosen = tuple(name for policy in p.policies for name in POLICY.get(policy, ()))
        defines = ("tensor", "view", "flip", *(("window", "taps") if g.windows else ()))
        takes = tuple(taken_by(g))
        writes = (*WRITES, *(("logs",) if g.madam else ()))
        kinds = {names: Signal(name=f"is_{names[0]}") for names in
                 (HALT, defines, takes, SYNC, writes, LOOPING, TOKENS, *([chosen] if g.chooses else []),
                  *([SETTLE] if g.loss else []))}

        def is_of(names: tuple[str, ...], word: Value) -> Value:
            return Cat(word[:OPCODE] == CODES[name] for name in names).any()

        if g.chooses:
            m.submodules.precisions = precisions = Precisions(g)
            # What falls with a step has not fallen yet when the next one comes.
            waits = precisions.busy & (code == CODES["step"]) & fields_of(word, "step")["next"]
        s = SimpleNamespace(m=m, word=word, at=at, failed=failed)
        s.operands, s.precisions, s.counter = operands, precisions, Signal(name="counter")
        s.registers = {name: Signal(shape, name=name) for name, shape in (
            *((name, VALUE) for name in ("seed", *COUNTERS)), *g.rates.items(),
            ("scale", g.bits), ("method", range(len(METHODS))), *(LOSSES.items() if g.loss else ()),
            *((name, bits) for name, bits in madam_layout(g).items() if name in REGISTERS))}
        # Tokens that are there in the program's order.
        m.submodules.counts = counts = memory.Memory(shape=COUNT, depth=SEMAPHORES, init=[])
        s.count, s.counted = counts.write_port(), counts.read_port(domain="comb")
        unit, semaphore = (fields_of(word, "signal")[name] for name in ("unit", "semaphore"))
        # Looked at a cycle before it is used. A queue that has room keeps it.
        s.there, s.room, s.known = (Signal(name=f"token_{name}") for name in ("there", "room", "known"))
        m.d.sync += [s.there.eq(s.counted.data.any()), s.room.eq((self.token_ready >> (unit - 1)[:3])[0]),
                     s.known.eq((unit != 0) & (unit < len(UNITS)))]
        m.d.comb += [
            self.token.wait.eq(code == CODES["wait"]), self.token.semaphore.eq(semaphore),
            s.counted.addr.eq(semaphore), s.count.addr.eq(Mux(self.clear, self.index, semaphore)),
            s.count.data.eq(Mux(self.clear, 0, Mux(code == CODES["wait"], s.counted.data - 1, s.counted.data + 1))),
        ]
        # A register is set in the cycle behind, in which the word is still there.
        s.sets, sets = Signal(name="sets"), Signal(name="sets_now")
        fields = fields_of(word, "set")
        m.d.sync += sets.eq(s.sets)
        for name, register in s.registers.items():
            given = fields["value"] >> g.sgd.rate_shift if name in g.rates else fields["value"]
            with m.If(sets & (fields["register"] == REGISTERS.index(name)) & (
                    s.registers["training"] >= fields["since"])):
                m.d.sync += register.eq(given)
        with m.If(self.clear):
            m.d.comb += s.count.en.eq(1)
            m.d.sync += [s.counter.eq(0), *(register.eq(0) for register in s.registers.values())]
        m.d.comb += [
            fetch.addr.eq(at), store.addr.eq(count), store.data.eq(self.load), self.measured.eq(s.counter),
            tensors.word.eq(word), tensors.clear.eq(self.clear), tensors.index.eq(self.index),
            operands.word.eq(word), operands.seed.eq(s.registers["seed"]),
            operands.step.eq(Mux(s.counter, s.registers["measuring"], s.registers["training"])),
            operands.method.eq(s.registers["method"]), operands.clear.eq(self.clear), operands.index.eq(self.index),
            tensors.look.eq(operands.look), operands.looked.as_value().eq(tensors.looked.as_value()),
            *(issue[name].eq(operands.issue[name]) for name, _ in issue.shape()
              if name not in (*g.rates, *MADAM, "method", "scale", "step", "number")),
            issue.method.eq(s.registers["method"]), issue.step.eq(s.registers["training"]), issue.number.eq(at),
            *(issue[name].eq(s.registers[name]) for name in (*g.rates, "scale", *MADAM) if name in s.registers),
        ]
        if g.loss:
            m.d.comb += [*(self.losses[name].eq(s.registers[name]) for name in LOSSES), issue.scale.eq(self._scaled(s))]

        if precisions:
            m.d.comb += [
                precisions.word.eq(word), precisions.step.eq(s.registers["training"]),
                precisions.measured.eq(s.counter), precisions.clear.eq(self.clear),
                precisions.index.eq(self.index), precisions.use.eq(operands.issue.use),
                *(getattr(precisions, name).eq(getattr(operands, name)) for name in ("asks", "kind")),
                *(getattr(operands, name).eq(getattr(precisions, name))
                  for name in ("answered", "chosen", "width", "adaptive")),
            ]
        if g.adaptive:
            m.d.comb += [self.choose.eq(precisions.choose), self.choice.eq(precisions.choice),
                         *(getattr(precisions, name).eq(getattr(self, name)) for name in CHOICE)]

        kept = Signal.like(at)
        # An error is known late in a cycle, and stops the program in the next one. No instruction begins in between.
        told, where = Signal.like(failed, name="told"), Signal.like(at, name="where")
        m.d.sync += [told.eq(failed), where.eq(at)]
        bad = told.any() | self.fault
        m.d.comb += self.number.eq(Mux(self.error.any(), kept, at))
        with m.If(bad & ~self.error.any()):
            m.d.sync += [self.error.eq(Mux(told.any(), told, self.fault_code)),
                         kept.eq(Mux(told.any(), where, self.fault_number))]

        def onward() -> None:
            m.d.sync += at.eq(at + 1)
            m.next = "FETCH"

        def stops() -> None:
            with m.If(bad | self.error.any()):
                m.d.sync += self.valid.eq(0)
                m.next = "STOPPED"

        s.onward = onward
        with m.FSM(name="state") as states:
            with m.State("LOAD"):
                m.d.comb += self.load_ready.eq(1)
                with m.If(self.load_valid):
                    m.d.comb += store.en.eq(count != p.program)
                    m.d.sync += count.eq(count + 1)
                    with m.If(count == p.program):
                        m.d.comb += failed.eq(LONG)
                    with m.Elif(self.load[:OPCODE] == CODES["halt"]):
                        m.next = "CLEAR"
                with m.Elif(self.stray):
                    m.d.comb += failed.eq(STRAY)
                stops()
            with m.State("CLEAR"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += [self.index.eq(self.index + 1), at.eq(0)]
                with m.If(self.index.all()):
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "FETCHED"
                stops()
            with m.State("FETCHED"):
                m.d.sync += [word.eq(fetch.data), *(each.eq(is_of(names, fetch.data)) for names, each in kinds.items())]
                m.next = "DECODE"
            with m.State("DECODE"):
                with m.If(~Cat(kinds.values()).any()):
                    m.d.comb += failed.eq(OPERATION)
                with m.If(kinds[HALT]):
                    m.next = "DRAIN"
                with m.If(kinds[defines]):
                    m.d.comb += tensors.start.eq(1)
                    m.next = "DEFINE"
                with m.If(kinds[takes]):
                    m.d.comb += operands.start.eq(1)
                    m.next = "LOOK"
                with m.If(kinds[SYNC] & self.idle.all()):
                    m.d.comb += self.synced.eq(1)
                    onward()
                with m.If(kinds[writes] & ~waits):
                    self._write(s, code)
                with m.If(kinds[LOOPING]):
                    loops(s, code, self.clear)
                with m.If(kinds[TOKENS]):
                    m.next = "TOKEN"
                if g.loss:
                    with m.If(kinds[SETTLE] & (self.idle | 1 << unit_of("in")).all()):
                        m.next = "SETTLE"
                if precisions:
                    with m.If(kinds[chosen] & ~precisions.busy):
                        m.d.comb += [failed.eq(precisions.error), precisions.execute.eq(~precisions.error.any())]
                        onward()
                stops()
            with m.State("DEFINE"):
                m.d.comb += failed.eq(tensors.error)
                with m.If(tensors.done):
                    onward()
                stops()
            with m.State("TOKEN"):
                self._token(s)
                stops()
            with m.State("LOOK"):
                m.d.comb += failed.eq(operands.error)
                with m.If(operands.done):
                    m.d.sync += self.valid.eq(Cat(
                        Cat(code == CODES[name] for name in takes if unit_of(name) == unit).any()
                        for unit in range(len(UNITS) - 1)))
                    m.next = "ISSUE"
                stops()
            with m.State("ISSUE"):
                with m.If((self.valid & self.ready).any()):
                    m.d.comb += operands.taken.eq(1)
                    m.d.sync += self.valid.eq(0)
                    onward()
                stops()
            if g.loss:
                with m.State("SETTLE"):
                    m.d.comb += self.settle.eq(1)
                    with m.If(self.settled):
                        m.d.sync += [s.registers["loss"].eq(self.next_loss),
                                     s.registers["accepted"].eq(self.next_accepted)]
                        onward()
            with m.State("DRAIN"):
                with m.If(self.idle.all()):
                    m.next = "END"
                stops()
            with m.State("END"), m.If(self.reported):
                m.d.sync += count.eq(0)
                m.next = "LOAD"
            with m.State("STOPPED"), m.If(self.reported):
                m.next = "OVER"
            with m.State("OVER"):
                pass
        over = Signal()
        m.d.comb += [
            over.eq(states.ongoing("OVER")),
            self.ended.eq(states.ongoing("END") | states.ongoing("STOPPED")),
            self.running.eq(~self.ended & ~over & ~states.ongoing("LOAD") & ~states.ongoing("CLEAR")),
        ]
        return m

    def _scaled(self, s: SimpleNamespace) -> Signal:
        """Return what errors are multiplied by: the register ``scale`` times the loss scale, if that is normal."""
        m, fmt, code = s.m, self.parameters.work, s.registers["scale"]
        field, scaled = Signal(max(fmt.exponent, LOSS) + 1, name="scaled_field"), Signal.like(code, name="scaled")
        m.d.comb += field.eq(code[fmt.mantissa:-1] + s.registers["loss"])
        infinite = field >= (1 << fmt.exponent) - 1
        magnitude = Mux(infinite, fmt.inf_code, Cat(code[:fmt.mantissa], field[:fmt.exponent]))
        m.d.sync += scaled.eq(Mux(code[fmt.mantissa:-1].any(), Cat(magnitude[:fmt.width - 1], code[-1]), code))
        return scaled

    def _write(self, s: SimpleNamespace, code: Value) -> None:
        """Execute what writes a register: ``set``, ``step``, ``mode``, ``part``, ``logs``."""
        m, registers = s.m, s.registers
        s.onward()
        with m.Switch(code):
            with m.Case(CODES["set"]):
                m.d.comb += s.sets.eq(1)
                fields = fields_of(s.word, "set")
                value = fields["value"]
                with m.Switch(fields["register"]):
                    for number, name in enumerate(REGISTERS):
                        with m.Case(number):
                            if name not in registers:
                                m.d.comb += s.failed.eq(OPERATION)
                                continue
                            if name in ("seed", *COUNTERS):
                                m.d.comb += s.operands.renew.eq(2 if name == "seed" else 1)
                            if name == "training" and s.precisions:
                                m.d.comb += s.precisions.anew.eq(1)
                            if name == "loss":
                                with m.If(value > LARGEST_LOSS):
                                    m.d.comb += s.failed.eq(OPERATION)
                            if name in self.geometry.rates:
                                mantissa, below = self.parameters.stored.mantissa, self.geometry.sgd.rate_shift
                                normal = value[mantissa:below + len(registers[name])].any()
                                fine = value[:mantissa].any()
                                bad = fine if below else fine & ~normal
                                with m.If(value[below + len(registers[name]):].any() | bad):
                                    m.d.comb += s.failed.eq(RATE)
                            if name in MADAM:
                                high = value[len(registers[name]) - (name == "correction"):]
                                with m.If(high.any() & ~(high.all() if name == "correction" else C(0, 1))):
                                    m.d.comb += s.failed.eq(BEYOND)
                    with m.Default():
                        m.d.comb += s.failed.eq(OPERATION)
            with m.Case(CODES["step"]):
                fields = fields_of(s.word, "step")
                m.d.sync += s.counter.eq(fields["counter"])
                m.d.comb += s.operands.renew.eq(1)
                for number, name in enumerate(COUNTERS):
                    with m.If(fields["next"] & (fields["counter"] == number)):
                        m.d.sync += registers[name].eq(registers[name] + 1)
                        if name == "training" and s.precisions:
                            m.d.comb += s.precisions.next.eq(1)
            with m.Case(CODES["mode"]):
                m.d.comb += s.operands.mode.eq(1)
            with m.Case(CODES["part"]):
                m.d.comb += s.operands.part.eq(1)
                with m.If(fields_of(s.word, "part")["side"] >= len(SIDES)):
                    m.d.comb += s.failed.eq(OPERATION)
            if self.geometry.madam:
                with m.Case(CODES["logs"]):
                    fields, bits = fields_of(s.word, "logs"), len(s.operands.issue.bound)
                    scale, bound = fields["scale"], fields["bound"]
                    m.d.comb += s.operands.logs.eq(1)
                    with m.If((scale < CODE + SCALE_MIN) | (scale > CODE + SCALE_MAX) | ~bound.any()
                              | bound[bits:].any()):
                        m.d.comb += s.failed.eq(BEYOND)

    def _token(self, s: SimpleNamespace) -> None:
        """Hand a token to its unit; in the program's order none is waited for before it is signalled."""
        m, unit = s.m, fields_of(s.word, "signal")["unit"]
        with m.If(~s.known):
            m.d.comb += s.failed.eq(OPERATION)
        with m.Elif(self.token.wait & ~s.there):
            m.d.comb += s.failed.eq(TOKENLESS)
        with m.Elif(s.room):
            m.d.comb += [self.token_valid.eq(1 << (unit - 1)[:3]), s.count.en.eq(1)]
            s.onward()
