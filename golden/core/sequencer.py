"""The sequencer of a training core: what each unit is given, in the order of the program."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...base.checks import require
from ..logarithmic import SCALE_MAX, SCALE_MIN
from ..precision import FRACTION, NARROW, WIDE
from ..recipes import LARGEST_SCALE
from .instructions import COUNTERS, FIELDS, KINDS, MEMORIES, OPERATIONS, REGISTERS, SIDES, UNITS, Instruction
from .program import UNUSED, Program
from .views import Taps, View, Window

__all__ = ["CODE", "EDGES", "LARGEST_LOSS", "Issue", "Part", "Sequencer"]

CODE = 1 << 11  # fields of codes and scales have so much more than they mean
EDGES = 6  # of a cycle: widths go from 2 to 8
LARGEST_LOSS = LARGEST_SCALE.bit_length() - 1


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
        With ``step``, that of the counter in use, and ``measuring``, whether accuracy is measured. Those of a
        ``settle`` are the sequencer's own, which the core changes.
    modes : dict of (kind, layer) to int
    parts : dict of str to Part
        Of a GEMM, by side.
    widths : dict of str to int
        By kind, precisions that follow cycles.
    thresholds : dict of (kind, layer) to int
        Of precisions that are chosen by the tensor: see `precision.decide`. When accuracy is measured, there are
        neither widths nor thresholds.
    firsts : dict of (kind, layer) to int
        The precisions of these tensors in the program's first step.
    logs : dict of int to (int, int)
        By layer, scale and bound of logarithmic weights.
    """

    number: int
    instruction: Instruction
    views: Mapping[str, View] = field(default_factory=dict)
    registers: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[tuple[str, int], int] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    thresholds: Mapping[tuple[str, int], int] = field(default_factory=dict)
    firsts: Mapping[tuple[str, int], int] = field(default_factory=dict)
    logs: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What executes it."""
        return self.instruction.unit


def rounded(code: int, rest: int) -> int:
    """Return a threshold code from a sum that a half was added to: a tie goes to the even code. 0 to below 2."""
    return min(max(code - (rest == 0 and code % 2), 0), (2 << FRACTION) - 1)


class Sequencer:
    """Executes a program's own instructions, and hands out those of the units.

    Parameters
    ----------
    side : int
        Elements of a row of a block.
    program : Program, optional
        For `issues`.
    layers : int
        Layers whose tensors may choose their precisions.

    Attributes
    ----------
    registers : dict of str to int
    tokens : Counter
        Of each semaphore, in the program's order.
    """

    def __init__(self, side: int, program: Program | None = None, layers: int = 1 << FIELDS["layer"][0]) -> None:
        self.side, self.program, self.layers = side, program, layers
        self.registers = dict.fromkeys(REGISTERS, 0)
        self.tensors: dict[int, View] = {}
        self.modes: dict[tuple[str, int], int] = {}
        self.tokens: Counter[int] = Counter()
        self.logs: dict[int, tuple[int, int]] = {}
        self.thresholds: dict[tuple[str, int], tuple[int, int]] = {}
        self.firsts: dict[tuple[str, int], int] = {}
        self._cycles: dict[str, tuple[int, int, tuple[int, ...]]] = {}
        self._slopes: dict[str, tuple[int, int]] = {}
        self._divisors: dict[str, int] = {}
        self._counter = COUNTERS[0]
        self._parts: dict[str, Part] = {}

    def issues(self) -> Iterator[Issue]:
        """Yield what the units are given, with ``sync``, up to ``halt``.

        An instruction that means nothing is a ValueError that names it.
        """
        return (issue for _, _, issue in self.executed() if issue)

    def executed(self) -> Iterator[tuple[int, Instruction, Issue | None]]:
        """Yield all instructions that are executed, with their numbers, and with what a unit is given, if anything.

        The last one is ``halt``.
        """
        assert self.program is not None, "there is nothing to execute"
        at, loops, instructions = 0, list[list[int]](), self.program.instructions
        while True:
            number, each, issue = at, instructions[at], None
            if each.name == "halt":
                yield at, each, None
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
            yield number, each, issue
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
            measured = self._counter == COUNTERS[1]
            codes = {key: rounded(*found) for key, found in self.thresholds.items()}
            return Issue(number, each, views, self.registers | {"step": step, "measured": int(measured)},
                         self.modes, parts, {} if measured else self._widths(), {} if measured else codes, self.firsts,
                         self.logs)
        return getattr(self, f"_{each.name}")(number, each)

    def view(self, tensor: int) -> View:
        """Return a tensor's region."""
        require(tensor in self.tensors, "tensor", tensor, "one that was defined before")
        return self.tensors[tensor]

    def _sync(self, number: int, each: Instruction) -> Issue:
        return Issue(number, each)

    def _settle(self, number: int, each: Instruction) -> Issue:
        return Issue(number, each, registers=self.registers)

    def _tensor(self, number: int, each: Instruction) -> None:
        require(each.rows > 0 and each.columns > 0, "rows and columns", (each.rows, each.columns), "1 or more")
        self.tensors[each.number] = View(MEMORIES[each.memory], each.block, each.other, each.stride, each.top,
                                         each.left, each.rows, each.columns)

    def _view(self, number: int, each: Instruction) -> None:
        self.tensors[each.number] = self.view(each.of).part(each.row, each.column, each.rows, each.columns, self.side)

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
        name = REGISTERS[each.register]
        require(name != "loss" or each.value <= LARGEST_LOSS, "loss", each.value, f"0 to {LARGEST_LOSS}")
        if self.registers["training"] >= each.since:
            self.registers[name] = each.value

    def _step(self, number: int, each: Instruction) -> None:
        self._counter = COUNTERS[each.counter]
        self.registers[self._counter] = (self.registers[self._counter] + each.next) % (1 << FIELDS["value"][0])
        if each.next and self._counter == COUNTERS[0]:
            for (kind, layer), (code, rest) in self.thresholds.items():
                down, part = self._slopes.get(kind, (0, 0))
                borrow = rest < part
                rest = (rest - part + borrow * self._divisors.get(kind, 0)) % (1 << FIELDS["wide"][0])
                self.thresholds[kind, layer] = code - down - borrow, rest

    def _widths(self) -> dict[str, int]:
        """Return the precisions of this step of training that follow cycles."""
        return {kind: low + sum(self.registers[COUNTERS[0]] % period >= each for each in edges)
                for kind, (low, period, edges) in self._cycles.items()}

    def _logs(self, number: int, each: Instruction) -> None:
        scale = each.scale - CODE
        require(SCALE_MIN <= scale <= SCALE_MAX, "scale", scale, f"{SCALE_MIN} to {SCALE_MAX}")
        require(each.bound > 0, "bound", each.bound, "1 or more")
        self.logs = self.logs | {each.layer: (scale, each.bound)}

    def _cyclic(self, number: int, each: Instruction) -> None:
        require(each.period > 0, "period", each.period, "1 or more")
        self._cycles[KINDS[each.kind]] = each.low, each.period, ()

    def _edge(self, number: int, each: Instruction) -> None:
        kind = KINDS[each.kind]
        require(kind in self._cycles, f"an edge of {kind}", "without a cycle", "one behind its `cyclic`")
        low, period, edges = self._cycles[kind]
        require(len(edges) < EDGES, f"edges of {kind}", len(edges) + 1, f"at most {EDGES}")
        self._cycles[kind] = low, period, (*edges, each.value)

    def _adaptive(self, number: int, each: Instruction) -> None:
        require(each.layer < self.layers, "layer", each.layer, f"below {self.layers}")
        self.thresholds[KINDS[each.kind], each.layer] = each.code - CODE, each.rest
        self.firsts[KINDS[each.kind], each.layer] = WIDE if each.wide else NARROW

    def _slope(self, number: int, each: Instruction) -> None:
        self._slopes[KINDS[each.kind]] = each.code - CODE, each.rest

    def _divisor(self, number: int, each: Instruction) -> None:
        self._divisors[KINDS[each.kind]] = each.rest

    def _mode(self, number: int, each: Instruction) -> None:
        self.modes = self.modes | {(KINDS[each.kind], each.layer): each.value}

    def _part(self, number: int, each: Instruction) -> None:
        self._parts = self._parts | {SIDES[each.side]: Part(each.vector, each.lane, each.pitch)}
