"""A model of a core's cycles: every unit's work, tile by tile, and how the units wait for each other.

The circuit is made to this model. What it leaves out are single cycles: where a transfer waits for another's turn.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from ..array import FETCH, RESULT, peak
from .compiler import compiled
from .instructions import UNITS, Instruction
from .layout import Run
from .model import OPERANDS, mode_of
from .parameters import TrainerParameters
from .sequencer import Issue, Sequencer

__all__ = ["Cycles", "Timeline", "step_cycles", "work_of"]

START = 4  # cycles from an instruction to its unit's first transfer
STORE = 8  # from a result to its place in a memory
MOVE = 30  # from a gradient to the parameter that it moves
SOFTMAX = 60  # from a row of logits to its last error
RESULTS = 2  # tiles of results that wait to be taken


@dataclass(frozen=True)
class Cycles:
    """What a step of training takes.

    Parameters
    ----------
    cycles : float
        From one step to the next.
    macs : int
        Multiply-accumulates of the network, padding not counted.
    utilisation : float
        The part of the cycles that the array would need at its peak.
    ceiling : float
        What `utilisation` would be if cells never waited: what tiles and groups that are not full leave.
    busy : dict of str to float
        Of each unit, the part of the cycles in which it works.
    starved, blocked : float
        The parts in which the array's cells wait for operands, and for room for their results.
    """

    cycles: float
    macs: int
    utilisation: float
    ceiling: float
    busy: dict[str, float]
    starved: float
    blocked: float


class _Ring:
    """A buffer of each lane of cells: vectors are kept until the cells are done with them."""

    def __init__(self, words: int) -> None:
        self.words, self.held = words, 0
        self.kept: deque[list[Any]] = deque()  # [words, when they go]

    def room(self, words: int) -> float:
        """Take room for so many vectors of each lane; return when there is."""
        when = 0.0
        while self.kept and self.held + words > self.words and self.kept[0][1] is not None:
            size, gone = self.kept.popleft()
            self.held -= size
            when = max(when, gone)
        self.held += words
        self.kept.append([words, None])
        return when

    def release(self, count: int, when: float) -> None:
        """The oldest so many allocations that are still needed are needed no longer from then on."""
        for each in [each for each in self.kept if each[1] is None][:count]:
            each[1] = when


def _modes(parameters: TrainerParameters, issue: Issue) -> list[Any]:
    """Return the modes of a GEMM's operands."""
    each = issue.instruction
    return [mode_of(parameters.system, issue, kind, each.use >> 3) for kind in OPERANDS[each.use & 7]]


def _sizes(issue: Issue) -> tuple[int, int, int]:
    """Return rows, columns and length of a GEMM."""
    each, a, b = issue.instruction, issue.views["a"], issue.views["b"]
    m, k = (a.columns, a.rows) if each.across_a else (a.rows, a.columns)
    return m, b.columns if each.across_b else b.rows, k


def work_of(parameters: TrainerParameters, issue: Issue) -> tuple[int, float]:
    """Return the multiply-accumulates of a GEMM, and the cycles that they take at the array's peak."""
    macs = math.prod(_sizes(issue))
    return macs, macs / peak(parameters.array, *_modes(parameters, issue))


@dataclass
class Timeline:
    """When each instruction of a core is done: `add` takes them in the program's order.

    Parameters
    ----------
    parameters : TrainerParameters
    fitted : bool
        See `tile`.
    serial : bool
        Every instruction waits until all others are done, for comparison.

    Attributes
    ----------
    free : dict of str to float
        When each unit has done what it was given.
    busy : dict of str to float
        Cycles in which a unit worked: of the array, those in which its cells multiplied.
    starved, blocked : float
        Cycles in which the array's cells waited for operands, and for room for their results.
    macs, peak : int, float
        Multiply-accumulates, and the cycles they would take at the peak of their precisions.
    """

    parameters: TrainerParameters
    fitted: bool = False
    serial: bool = False
    free: dict[str, float] = field(default_factory=lambda: dict.fromkeys(UNITS, 0.0))
    busy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(UNITS, 0.0))
    starved: float = 0.0
    blocked: float = 0.0
    macs: int = 0
    peak: float = 0.0

    def __post_init__(self) -> None:
        p = self.parameters
        self._gate = dict.fromkeys(UNITS, 0.0)  # what comes next may not begin before
        self._signals: dict[int, deque[float]] = {}
        self._next = dict.fromkeys(UNITS, 0.0)  # when a unit may begin another instruction, while results are under way
        self._before = 0.0
        self._rings = [_Ring(p.array.words) for _ in range(2)]
        self._loaded, self._cells, self._drained = [0.0, 0.0], 0.0, deque([0.0] * RESULTS)
        converter = p.system.converter(0)
        self._delay = FETCH + (converter.latency if converter else 0) + 1
        self._latency = p.system.cell(p.sums).latency + RESULT

    def add(self, issue: Issue) -> float:
        """Take an instruction; return when it is done."""
        each, unit = issue.instruction, issue.unit
        if self.serial or each.name == "sync":
            self._gate = dict.fromkeys(UNITS, max(self.free.values()))
        if each.name == "sync":
            return self.free[unit]
        if each.name == "signal":
            self._signals.setdefault(each.semaphore, deque()).append(self.free[unit])
        elif each.name == "wait":
            self._gate[unit] = max(self._gate[unit], self._signals[each.semaphore].popleft())
        elif each.name == "gemm":
            self._gemm(issue)
        else:
            start = max(self._next[unit], self._gate[unit]) + START
            spent = getattr(self, f"_{each.name}")(issue)
            self.busy[unit] += spent
            self._next[unit] = start + spent
            self.free[unit] = start + spent + {"head": SOFTMAX, "vector": MOVE}.get(unit, 0)
        return self.free[unit]

    def _in(self, issue: Issue) -> float:
        view = issue.views["to"]
        return -(-view.rows * view.columns // self.parameters.stream)

    def _out(self, issue: Issue) -> float:
        view = issue.views["a"]
        return -(-view.rows * view.columns // self.parameters.stream)

    def _fill(self, issue: Issue) -> float:
        view = issue.views["to"]
        return view.rows * -(-view.columns // self.parameters.system.group)

    def _head(self, issue: Issue) -> float:
        view = issue.views["a"]
        return view.rows * -(-view.columns // self.parameters.head)

    def _sums(self, issue: Issue) -> float:
        view = issue.views["a"]
        return view.rows * -(-view.columns // self.parameters.adders) + -(-view.columns // self.parameters.lanes)

    def _gemm(self, issue: Issue) -> None:
        each, p = issue.instruction, self.parameters
        interval = p.array.interval(*_modes(p, issue))
        macs, ideal = work_of(p, issue)
        self.macs, self.peak = self.macs + macs, self.peak + ideal
        # An early one waits for all but the GEMM before it.
        start = max(self._gate["array"], self._before if each.early else self.free["array"]) + START
        self._before = self.free["array"]
        rate = p.lanes if each.update else p.adders if each.biased else p.rows * p.columns
        self._product(*_sizes(issue), interval, start, rate, each)

    def tile(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the sums of a cell, down and across, in the tiles of a product of so many rows and columns of cells.

        With `fitted` tiles a product of few columns has tiles of more rows, and the other way round.
        """
        down, across = self.parameters.array.tile
        if self.fitted:
            across = min(columns, across)
            down = min(rows, self.parameters.sums // across)
            across = min(columns, self.parameters.sums // down)
        return down, across

    def _product(self, m: int, n: int, k: int, interval: int, start: float, rate: int, gemm: Instruction) -> None:
        """Take a product: vectors are loaded, tiles are multiplied, `rate` results a cycle are drained, all at once."""
        p = self.parameters
        groups, lanes = -(-k // p.system.group), (p.rows, p.columns)
        rows, columns = -(-m // p.rows), -(-n // p.columns)
        down, across = self.tile(rows, columns)
        # A memory with one port is also read for masks, and for what moves.
        extra = -(-m * n // p.system.group) * (gemm.masked + gemm.update * (1 + p.planes)) if p.merged else 0
        loaded, shared = self._loaded, p.converters == 1
        if shared:
            loaded[0] = loaded[1] = max(loaded)

        def load(side: int, vectors: int, words: int) -> float:
            """Return when vectors of a side, of so many in each lane, are there."""
            begin = max(loaded[side], start, self._rings[side].room(words))
            loaded[side] = begin + -(-vectors * groups // p.vectors)
            if shared:
                loaded[0] = loaded[1] = loaded[side]
            return loaded[side] + self._delay

        there: list[float] = []  # of each tile of columns
        end = self.free["array"]
        for top in range(0, rows, down):
            high = min(down, rows - top)
            ready = load(0, min(high * lanes[0], m - top * lanes[0]), high * groups)
            for number, left in enumerate(range(0, columns, across)):
                wide = min(across, columns - left)
                if top == 0:
                    there.append(load(1, min(wide * lanes[1], n - left * lanes[1]), wide * groups))
                    if shared and number == 0:
                        ready = max(ready, there[-1])
                sums = high * wide
                spent = groups * max(sums * interval, p.system.recurrence)
                begin = max(self._cells, ready, there[number])
                live = min(high * lanes[0], m - top * lanes[0]) * min(wide * lanes[1], n - left * lanes[1])
                # Results wait in a ring; when it is full, the cells wait.
                starved, self._cells = begin - self._cells, max(begin + spent, self._drained[0])
                self.busy["array"] += spent
                self.starved += starved
                self.blocked += self._cells - begin - spent
                if gemm.open:
                    continue
                # The last sum gets its last group before the cells may add to the first one again.
                last = self._cells - spent // groups + sums * interval + self._latency
                done = max(max(last - (sums - 1) * interval, self._drained[-1]) + -(-live // rate), last)
                self._drained.append(done)
                self._drained.popleft()
                end = max(end, done)
            self._rings[0].release(1, self._cells)
        self._rings[1].release(len(there), self._cells)
        if extra:
            loaded[0] = loaded[1] = max(loaded) + extra
        self.free["array"] = (self._cells if gemm.open else end) + (MOVE if gemm.update else STORE)


def step_cycles(parameters: TrainerParameters, run: Run, parts: int = 1, blocks: int = 1, fitted: bool = False,
                serial: bool = False, iterations: int = 6) -> Cycles:
    """Return what a step on a full batch takes, once the units work side by side.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
        Its examples and epochs do not matter.
    parts, blocks : int
        As for `compiled`.
    fitted, serial : bool
        As for `Timeline`.
    iterations : int
        Steps that are looked at; the first half of them only fills the queues.
    """
    run = replace(run, train=run.batch * iterations, test=0, epochs=1, lr_drops=(), checkpoint=None)
    program = compiled(parameters, run, parts, blocks)
    timeline = Timeline(parameters, fitted, serial)
    last = max(number for number, each in enumerate(program.instructions) if each.name == "gemm" and each.update)
    marks: list[tuple[float, int, float, dict[str, float]]] = []  # of each step
    for issue in Sequencer(parameters.side, program).issues():
        end = timeline.add(issue)
        if issue.number == last:
            marks.append((end, timeline.macs, timeline.peak, timeline.busy | {
                "starved": timeline.starved, "blocked": timeline.blocked}))
    half = len(marks) // 2
    count = len(marks) - half
    (begin, macs, ideal, before), (end, all_macs, all_ideal, after) = marks[half - 1], marks[-1]
    cycles = (end - begin) / count
    macs, ideal = (all_macs - macs) // count, (all_ideal - ideal) / count
    shares = {name: (after[name] - before[name]) / count / cycles for name in after}
    return Cycles(cycles, macs, ideal / cycles, ideal / (shares["array"] * cycles),
                  {unit: shares[unit] for unit in UNITS[1:]}, shares["starved"], shares["blocked"])
