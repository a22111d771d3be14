"""A simulated trainer's memories beside those of golden's core."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...base.checks import require
from ...golden.core import Core, Instruction, Issue, Program, RunHost, Sequencer, TrainerParameters, View
from ...golden.core.instructions import COUNTERS, UNITS
from ...golden.core.views import places
from .model import CoreModel
from .places import places_of

__all__ = ["CHECKS", "Comparison", "Difference", "observed"]

CHECKS = ("step", "instruction")  # what memories may be compared after


def observed(program: Program, check: str) -> Program:
    """Return a program in which a ``sync`` follows each step of training, or each instruction of a unit."""
    require(check in CHECKS, "check", check, ", ".join(CHECKS))
    found = []
    for each in program.instructions:
        found.append(each)
        if check == "step":
            stops = each.name == "step" and each.next and COUNTERS[each.counter] == "training"
        else:
            stops = each.unit != UNITS[0] and each.name not in ("signal", "wait")
        found += [Instruction("sync")] * stops
    return Program(tuple(found), program.names)


@dataclass(frozen=True)
class Difference:
    """The first element that differs, in the order in which golden wrote them since the last comparison.

    Parameters
    ----------
    step : int
        Of training.
    number, instruction : int, str
        What golden executed last: its number in the program, and its text.
    stray : bool
        Whether golden wrote the element before the last comparison, so that it should not have changed.
    layer : int, optional
        From 1.
    tensor, memory : str
    row, column : int
        Of the tensor.
    expected, got : int
        Codes.
    values : (float, float)
        What the codes mean.
    others : int
        Further elements that differ.
    """

    step: int
    number: int
    instruction: str
    stray: bool
    layer: int | None
    tensor: str
    memory: str
    row: int
    column: int
    expected: int
    got: int
    values: tuple[float, float]
    others: int

    def __str__(self) -> str:
        layer = f", layer {self.layer}" if self.layer else ""
        return (f"step {self.step}{layer}: {self.tensor}[{self.row}, {self.column}] in {self.memory} is "
                f"{self.got:#x} ({self.values[1]:g}), and golden's is {self.expected:#x} ({self.values[0]:g})"
                f"{', which was not to change' * self.stray}; after instruction {self.number}, {self.instruction}; "
                f"{self.others} other elements differ")


class Comparison:
    """Golden's core, which follows a simulated trainer from one ``sync`` of the program to the next.

    Elements are compared that golden has written: the others may hold anything.

    Parameters
    ----------
    parameters : TrainerParameters
    program : Program
    host : RunHost
        Golden's own one.
    """

    def __init__(self, parameters: TrainerParameters, program: Program, host: RunHost) -> None:
        self.parameters, self.program, self.host = parameters, program, host
        self.core = Core(parameters, host.table)
        self.issues = Sequencer(parameters.side, program).issues()
        self.places = places_of(parameters)
        # Of each memory and plane: for each element the number of its latest writer, or -1.
        self._written = {key: np.full(len(self._golden(*key)), -1) for key in self.places}
        self._writers: dict[tuple[int, View], int] = {}  # (instruction's number, view) of a writer: its number
        self._latest: list[tuple[int, Issue]] = []  # of each writer: (order, Issue)
        self._order, self._compared = 0, 0
        self._last: Issue | None = None

    def _golden(self, memory: str, plane: int) -> np.ndarray:
        """Return the codes of a plane in golden."""
        size = self.parameters.blocks[memory] * (256 if memory == "L" else self.parameters.side**2)
        return self.core.memories[memory][plane * size:(plane + 1) * size]

    def advance(self) -> None:
        """Execute golden's instructions up to the next ``sync``, or to the program's end."""
        with np.errstate(all="ignore"):
            for issue in self.issues:
                if issue.instruction.name == "sync":
                    return
                self.core.execute(issue, self.host)
                self._mark(issue)

    def _mark(self, issue: Issue) -> None:
        """Note what an instruction has written."""
        each = issue.instruction
        if each.name not in ("signal", "wait"):
            self._last = issue
        if "to" not in issue.views or each.name == "gemm" and each.open:
            return
        view = issue.views["to"]
        writer = self._writers.setdefault((issue.number, view), len(self._latest))
        self._latest[writer:writer + 1] = [(self._order, issue)]
        self._order += 1
        planes = range(1)
        if each.name in ("in", "fill"):
            planes = range(each.plane, each.plane + 1)
        elif each.name == "sums" or each.name == "gemm" and each.update:
            planes = range(self.parameters.planes + 1)
        for plane in planes:
            if (view.memory, plane) in self._written:
                self._written[view.memory, plane][places(view, self.parameters.side)] = writer

    def difference(self, model: CoreModel) -> Difference | None:
        """Return the first Difference of a CoreModel's memories, or None."""
        found, count, since = [], 0, self._compared
        self._compared = self._order
        for (memory, plane), arrays in self.places.items():
            written, expected = self._written[memory, plane], self._golden(memory, plane)
            got = np.zeros(len(expected), np.uint32)
            for path, elements, addresses in arrays:
                got[elements] = model.memory(path)[addresses]
            differ = np.flatnonzero((written >= 0) & (got != expected))
            count += len(differ)
            if len(differ):
                # What was written meanwhile comes first, and then what was not.
                orders = [((order := self._latest[written[at]][0]) < since, order) for at in differ]
                order, first = min(zip(orders, differ.tolist()))
                found.append((order, memory, plane, first, int(expected[first]), int(got[first])))
        return self._described(min(found), count - 1) if found else None

    def _described(self, first: tuple, others: int) -> Difference:
        (stray, _), memory, plane, at, expected, got = first
        _, issue = self._latest[self._written[memory, plane][at]]
        each, p = issue.instruction, self.parameters
        row, column = np.argwhere(places(issue.views["to"], p.side) == at)[0].tolist()
        values: Sequence[float] = (expected, got)
        if memory != "L":
            fmt = p.stored if memory == "W" else p.work
            values = fmt.decode(np.array([expected, got], np.uint32)).tolist()
        last = self._last
        assert last is not None
        return Difference(last.registers["training"], last.number, self.program.line(last.number), stray,
                          (each.use >> 3) + 1 if "use" in each.fields else None, self.program.name(each.to),
                          f"M, plane {plane}" if plane else memory, row, column, expected, got,
                          (values[0], values[1]), others)
