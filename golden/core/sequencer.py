"""The sequencer of a training core: what each unit is given, in the order of the program."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...base.checks import require
from .instructions import COUNTERS, FIELDS, KINDS, MEMORIES, OPERATIONS, REGISTERS, SIDES, UNITS, Instruction
from .program import UNUSED, Program
from .views import Taps, View, Window

__all__ = ["Issue", "Part", "Sequencer"]


@dataclass(frozen=True)
class Part:
    """Where a part lies in its tensor: number of its first vector, of the first number of that, and a row's vectors."""

    vector: int = 0
    lane: int = 0
    pitch: int = 0


@dataclass(frozen=True)
class Issue:
    """An instruction as its unit gets it: nothing that the sequencer does later changes it.

    Parameters
    ----------
    number : int
        Of the instruction in the program.
    instruction : Instruction
    views : dict of str to View
        Its tensors, by field.
    registers : dict of str to int
        With ``step``, that of the counter in use, and ``measuring``, whether accuracy is measured.
    modes : dict of (kind, layer) to int
    parts : dict of str to Part
        Of a GEMM, by side.
    """

    number: int
    instruction: Instruction
    views: Mapping[str, View] = field(default_factory=dict)
    registers: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[tuple[str, int], int] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What executes it."""
        return self.instruction.unit


class Sequencer:
    """Executes a program's own instructions, and hands out those of the units.

    Parameters
    ----------
    group : int
        Elements of a row of a block.
    program : Program, optional
        For `issues`.

    Attributes
    ----------
    registers : dict of str to int
    tokens : Counter
        Of each semaphore, in the program's order.
    """

    def __init__(self, group: int, program: Program | None = None) -> None:
        self.group, self.program = group, program
        self.registers = dict.fromkeys(REGISTERS, 0)
        self.tensors: dict[int, View] = {}
        self.modes: dict[tuple[str, int], int] = {}
        self.tokens: Counter[int] = Counter()
        self._counter = COUNTERS[0]
        self._parts: dict[str, Part] = {}

    def issues(self) -> Iterator[Issue]:
        """Yield what the units are given, with ``sync``, up to ``halt``.

        An instruction that means nothing is a ValueError that names it.
        """
        assert self.program is not None, "there is nothing to execute"
        at, loops, instructions = 0, [], self.program.instructions
        while True:
            each = instructions[at]
            if each.name == "halt":
                return
            if each.name == "loop":
                loops.append([at, each.count])
                require(each.count > 0, f"count of loop {at}", each.count, "1 or more")
            elif each.name == "end":
                loops[-1][1] -= 1
                if loops[-1][1]:
                    at = loops[-1][0]
                else:
                    loops.pop()
            else:
                try:
                    issue = self.issue(at, each)
                except ValueError as error:
                    raise ValueError(f"instruction {at}, {each.name}: {error}") from None
                if issue:
                    yield issue
            at += 1

    def issue(self, number: int, each: Instruction) -> Issue | None:
        """Execute an instruction, number `number`, that is not of a loop; return what a unit is given, if anything."""
        if each.name in ("signal", "wait"):
            self.tokens[each.semaphore] += 1 if each.name == "signal" else -1
            require(self.tokens[each.semaphore] >= 0, f"semaphore {each.semaphore}", "without a token",
                    "one that was signalled before, or the units would wait for ever")
            return Issue(number, each)
        if each.unit != UNITS[0]:
            kinds = OPERATIONS[each.name].fields
            views = {name: self.view(getattr(each, name)) for name, kind in kinds.items()
                     if kind == "tensor" and (name not in UNUSED or getattr(each, UNUSED[name]))}
            parts = self._parts if each.name in ("gemm", "head", "sums") else {}
            if parts:
                self._parts = {}
            step = self.registers[self._counter]
            return Issue(number, each, views, self.registers | {"step": step, "measured": int(
                self._counter == COUNTERS[1])}, self.modes, parts)
        return getattr(self, f"_{each.name}")(number, each)

    def view(self, tensor: int) -> View:
        """Return a tensor's region."""
        require(tensor in self.tensors, "tensor", tensor, "one that was defined before")
        return self.tensors[tensor]

    def _sync(self, number: int, each: Instruction) -> Issue:
        return Issue(number, each)

    def _tensor(self, number: int, each: Instruction) -> None:
        require(each.rows > 0 and each.columns > 0, "rows and columns", (each.rows, each.columns), "1 or more")
        self.tensors[each.number] = View(MEMORIES[each.memory], each.block, each.other, each.stride, each.top,
                                         each.left, each.rows, each.columns)

    def _view(self, number: int, each: Instruction) -> None:
        self.tensors[each.number] = self.view(each.of).part(each.row, each.column, each.rows, each.columns, self.group)

    def _window(self, number: int, each: Instruction) -> None:
        self.tensors[each.number] = self.view(each.of).shaped(
            Window(*(getattr(each, name) for name in Window.__dataclass_fields__)))

    def _taps(self, number: int, each: Instruction) -> None:
        self.tensors[each.number] = self.view(each.of).shaped(
            Taps(*(getattr(each, name) for name in Taps.__dataclass_fields__)))

    def _halt(self, number: int, each: Instruction) -> None:
        pass

    def _flip(self, number: int, each: Instruction) -> None:
        view = self.view(each.number)
        self.tensors[each.number] = replace(view, block=view.other, other=view.block)

    def _set(self, number: int, each: Instruction) -> None:
        if self.registers["training"] >= each.since:
            self.registers[REGISTERS[each.register]] = each.value

    def _step(self, number: int, each: Instruction) -> None:
        self._counter = COUNTERS[each.counter]
        self.registers[self._counter] = (self.registers[self._counter] + each.next) % (1 << FIELDS["value"][0])

    def _mode(self, number: int, each: Instruction) -> None:
        self.modes = self.modes | {(KINDS[each.kind], each.layer): each.value}

    def _part(self, number: int, each: Instruction) -> None:
        self._parts = self._parts | {SIDES[each.side]: Part(each.vector, each.lane, each.pitch)}
