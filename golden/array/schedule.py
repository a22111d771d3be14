"""When the array's results leave: a model of its control, exact to the cycle."""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from ..number_system import Mode
from .parameters import FETCH, QUEUE, RESULT, ArrayParameters, split

__all__ = ["cycles", "peak", "schedule"]


def peak(parameters: ArrayParameters, a: Mode | None = None, b: Mode | None = None) -> float:
    """Return the multiply-accumulates a cycle of all cells, for operands of these modes."""
    p = parameters
    return p.rows * p.columns * p.system.group / p.interval(a, b)


def cycles(parameters: ArrayParameters, m: int, n: int, k: int, a: Mode | None = None, b: Mode | None = None) -> int:
    """Return the cycles that a product takes: from the instruction's transfer to that of the last result.

    Exact, for an array that has nothing else to do, and whose results are taken as they come. A product that does not
    fit is made in parts, which follow each other: see `split`.

    Parameters
    ----------
    parameters : ArrayParameters
    m, n, k : int
    a, b : dict, optional
        Modes of the operands; see `Operand`.
    """
    interval = parameters.interval(a, b)
    return _cycles(parameters, tuple((*sizes, interval, last) for sizes, _, last in split(parameters, m, n, k)))


@lru_cache(4096)
def _cycles(parameters: ArrayParameters, products: tuple) -> int:
    return schedule(parameters, products)[-1]


class _Loader:
    """The account of one side's converter and buffers: vectors asked for, under way, there, and no longer needed."""

    def __init__(self, parameters: ArrayParameters, side: int) -> None:
        converter = parameters.system.converter(side)
        self.lanes, self.down = (parameters.rows, parameters.columns)[side], parameters.tile[side]
        self.delay, self.words = FETCH + (converter.latency if converter else 0) + 1, parameters.words
        self.left = self.held = self.there = 0  # rows to ask for; vectors in each lane's buffer; tiles that are there
        self.arriving: deque[int] = deque()

    def start(self, rows: int, groups: int) -> None:
        self.left, self.groups, self.at, self.lane, self.slot, self.begun = rows, groups, 0, 0, 0, False

    def arrive(self, now: int) -> None:
        """Count what can be read from this cycle on."""
        while self.arriving and self.arriving[0] <= now:
            self.arriving.popleft()
            self.there += 1

    def ask(self, now: int) -> None:
        """Ask for a vector, if one is wanted and there is room for its row of lanes."""
        if not self.left or self.lane == self.at == 0 and self.held + self.groups > self.words:
            return
        self.held += self.groups if self.lane == self.at == 0 else 0
        self.at += 1
        if self.at < self.groups:
            return
        self.at, self.left, self.lane = 0, self.left - 1, self.lane + 1
        if self.lane == self.lanes or not self.left:
            self.lane, self.slot = 0, self.slot + 1
            if self.slot == self.down or not self.left:
                self.slot, self.begun = 0, True
                self.arriving.append(now + self.delay)


def _walk(parameters: ArrayParameters, m: int, n: int, groups: int, emits: bool) -> Iterator[tuple[int, bool, int]]:
    """Yield the transfers into the cells: which sum, whether it is emitted, and what ends with the transfer.

    That is 0: nothing, 1: a tile, 2: a row of tiles, 3: the product.
    """
    down, across = parameters.tile
    rows, columns = -(-m // parameters.rows), -(-n // parameters.columns)
    for top in range(0, rows, down):
        for left in range(0, columns, across):
            sums = [i * across + j for i in range(min(down, rows - top)) for j in range(min(across, columns - left))]
            if parameters.interleaved:
                order = [(each, emits and part == groups - 1) for part in range(groups) for each in sums]
            else:
                order = [(each, emits and part == groups - 1) for each in sums for part in range(groups)]
            yield from ((*each, 0) for each in order[:-1])
            yield *order[-1], 1 if left + across < columns else 2 if top + down < rows else 3


class _Cells:
    """The control of a cell: what it works on, and when its results leave."""

    def __init__(self, parameters: ArrayParameters) -> None:
        system = parameters.system
        self.recurrence, self.behind = system.recurrence, system.cell(parameters.sums).latency - system.depth
        self.passes = 0  # made of the transfer that waits
        # Stages up to the sums, and two more before the sum is read, in which a transfer waits for its sum.
        self.stages: deque = deque([None] * system.depth)
        self.gate: list = [None, None]
        self.free: dict[int, int] = {}
        self.leaving: tuple[int, int] | None = None  # (cycle, what ends with it) of the latest result

    def step(self, now: int, offered: tuple[int, bool, int, int] | None) -> bool:
        """Go on by a cycle; return whether the transfer (sum, last, end, interval) that is offered is taken."""
        held = self.gate[1] is not None and now < self.free.get(self.gate[1][0], 0)
        moves = self.stages[-1] is None or not held
        if not held:
            if self.gate[1] is not None:
                which, last, end, _ = self.gate[1]
                self.free[which] = now + self.recurrence
                if last:
                    # Two of the cycles behind the stages are those of the gate.
                    self.leaving = now + self.behind - 2, end
            self.gate = [self.stages[-1], self.gate[0]]
        if not moves:
            return False
        self.stages.pop()
        done = offered is not None and self.passes + 1 >= offered[3]
        self.stages.appendleft(offered if done else None)
        self.passes = self.passes + 1 if offered and not done else 0
        return done


class _Stream:
    """A cell whose sums take an addition in every cycle: nothing in it ever waits."""

    def __init__(self, parameters: ArrayParameters) -> None:
        self.latency = parameters.system.cell(parameters.sums).latency
        self.leaving: tuple[int, int] | None = None

    def step(self, now: int, offered: tuple[int, bool, int, int] | None) -> bool:
        if offered and offered[1]:
            self.leaving = now + self.latency, offered[2]
        return offered is not None


def schedule(parameters: ArrayParameters, products: Sequence[tuple]) -> list[int]:
    """Return the cycle of the last result of each of several products, whose instructions wait one behind the other.

    Of a part that is not the last, that in which the last of it is told to the cells' queue.

    A model of the unit's control, cycle by cycle: exact, for an array that has nothing to do at first, and whose
    results are taken as they come. Cycle 0 is that in which the first instruction is taken.

    Parameters
    ----------
    parameters : ArrayParameters
    products : sequence of tuple (m, n, k, interval) or (m, n, k, interval, last)
    """
    p, group = parameters, parameters.system.group
    loaders = a, b = [_Loader(p, side) for side in (0, 1)]
    cells = (_Cells if p.interleaved else _Stream)(p)
    coming, now = deque(enumerate(products)), 0
    queued: Any = None
    current: Any = None
    queue: deque = deque()
    ends: dict[int, int] = {}
    emitting: deque[int] = deque()
    fed, before = None, (0, 0)
    while len(ends) < len(products):
        for loader in loaders:
            loader.arrive(now)
        idle = not a.left and not b.left
        advance = cells.step(now, fed) or fed is None
        if cells.leaving:
            if cells.leaving[1] == 3:
                ends[emitting.popleft()] = cells.leaving[0] + RESULT
            cells.leaving = None
        issued, freed = None, (0, 0)
        if current and a.there and b.there > current.tile and len(queue) < QUEUE:
            issued = current.following
        if advance:
            fed, freed = queue.popleft() if queue else (None, freed)
        # An instruction that is taken is seen in the next cycle, and what is freed in the one after it.
        turn = a.left and (not a.begun or not b.left)
        for loader, may in ((a, turn), (b, not turn)):
            if may or p.converters == 2:
                loader.ask(now)
        running, waits = current, queued
        a.held, b.held, before = a.held - before[0], b.held - before[1], freed
        if issued:
            current.following = next(current.order, None)
            rows = min(p.tile[0], current.rows) if issued[2] >= 2 else 0
            columns = current.columns if issued[2] == 3 else 0
            queue.append(((*issued, current.interval), (rows * current.groups, columns * current.groups)))
            if issued[2]:
                current.tile += 1
            if issued[2] >= 2:
                current.rows -= rows
                a.there -= 1
            if issued[2] == 3:
                b.there -= current.tile
                if not current.last:
                    ends[current.index] = now
                current = None
            elif issued[2] == 2:
                current.tile = 0
        if running is None and waits:
            current, queued = waits, None
        if coming and idle and waits is None:
            index, (m, n, k, interval, *emits) = coming.popleft()
            groups, last = -(-k // group), all(emits)
            if last:
                emitting.append(index)
            a.start(m, groups)
            b.start(n, groups)
            order = _walk(p, m, n, groups, last)
            queued = SimpleNamespace(index=index, order=order, following=next(order), interval=interval, last=last,
                                     groups=groups, tile=0, rows=-(-m // p.rows), columns=-(-n // p.columns))
        now += 1
    return [ends[index] for index in range(len(products))]
