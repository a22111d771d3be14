"""Products in the array of a `Timeline`: how they begin, and how their operands are read."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...array import FETCH
from ..sequencer import Issue
from .events import Event, Part, Process
from .latencies import BEFORE, READ, SEARCHED, SEARCHES, WALKED
from .operands import Operand, Squares
from .state import Job, State
from .work import modes_of, sizes_of

__all__ = ["Mark", "Product", "Products", "begin", "load"]


@dataclass(eq=False)
class Product:
    """A product in the array.

    Attributes
    ----------
    job : Job
    m, n, groups, interval : int
        Rows, columns, and groups along the reduction axis. Cycles of a group in a cell.
    lines, tile : (int, int)
        Rows and columns of cells that have results. Of these, those of a tile.
    begin, walks : int
        The cycle in which it begins. The cycle in which the scales are found, and the reading of operands begins.
    read, taken : int, optional
        From when on its operands have been read; the cycle in which the cells begin with it.
    ready : (list of int, list of int)
        Of each side, from when on the operands of its tiles can be given to the cells.
    results : deque of (list of int, list of (int, int))
        Of each tile, when its results are there, and the rows and columns of cells that they are of.
    """

    job: Job
    m: int
    n: int
    groups: int
    interval: int
    lines: tuple[int, int]
    tile: tuple[int, int]
    begin: int = 0
    walks: int = 0
    taken: int | None = None
    ends: list[int] = field(default_factory=list)  # of the converters
    read: int | None = None
    ready: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    results: deque[tuple[list[int], list[tuple[int, int]]]] = field(default_factory=deque)

    @property
    def key(self) -> tuple[int, int]:
        """What its random words belong to."""
        registers = self.job.issue.registers
        return registers["seed"], registers["step"]


@dataclass(frozen=True)
class Mark:
    """How much was done at a cycle: see `State`."""

    cycle: int
    macs: int
    peak: float
    busy: dict[str, int]


class Ring:
    """A buffer of each lane of cells: rows of lanes are kept until the cells are done with them."""

    def __init__(self, words: int) -> None:
        self.left, self.gone = words, deque[tuple[int, int]]()  # words that are free; (from when on, words)


class Products:
    """The products of a `Timeline`, and the events between the processes that follow them.

    Parameters
    ----------
    state : State
    fitted : bool
        A product of few columns has tiles of more rows, and the other way round.

    Attributes
    ----------
    all : list of Product
        Those that have begun.
    marks : list of Mark
        See `multiply`.
    delay : int
        Cycles from a vector's request to where the cells can be given it.
    begun, loaded, freed, made, drained : Event
        A product begins. Operands are there, or all are read, or the cells take the product. Buffers are free. There
        are results. Results have left.
    rings : list of Ring
    left : deque of int
        When results left the ring in which they wait. Only the latest results are kept.
    gone : int
        Results that left before these.
    """

    def __init__(self, state: State, fitted: bool) -> None:
        self.state, self.fitted = state, fitted
        p = state.parameters
        self.all: list[Product] = []
        self.marks: list[Mark] = []
        self.begun, self.loaded, self.freed, self.made, self.drained = (Event(state.clock) for _ in range(5))
        self.rings = [Ring(p.array.words) for _ in range(2)]
        self.left, self.gone = deque[int](), 0
        converter = p.system.converter(0)
        self.walked = WALKED + p.windows
        self.delay = FETCH + READ - 2 + (converter.latency if converter else 0)

    def of(self, job: Job) -> Product:
        """Return the product of a job."""
        p = self.state.parameters
        m, n, k = sizes_of(job.issue)
        rows, columns = -(-m // p.rows), -(-n // p.columns)
        down, across = p.array.tile
        if self.fitted:
            across = min(columns, across)
            down = min(rows, p.sums // across)
            across = min(columns, p.sums // down)
        return Product(job, m, n, -(-k // p.system.group), p.array.interval(*modes_of(p, job.issue)), (rows, columns),
                       (down, across))

    def number(self, number: int) -> Iterator[Event]:
        """Wait until a product has begun."""
        while len(self.all) <= number:
            yield self.begun


def begin(products: Products) -> Process:
    """Let products begin: when their tokens are there, and those before have been read, or are done."""
    unit = products.state.units["array"]
    for number in range(1 << 62):
        while len(unit.jobs) <= number or len(unit.served) < unit.jobs[number].waits:
            yield unit.changed
        job = unit.jobs[number]
        product, each = products.of(job), job.issue.instruction
        at = max(job.handed + BEFORE, unit.served[job.waits - 1] + 1 if job.waits else 0)
        if number:
            before = products.all[-1]
            while before.read is None or before.taken is None:
                yield products.loaded
            at = max(at, before.read, before.taken + 1)
            if before.key != product.key:
                at = max(at, before.read + products.delay + 2 + products.walked)
            early = each.early and not (each.open or each.continued or before.job.issue.instruction.open)
            behind = number - 1 - early
            while len(unit.done) <= behind:
                yield unit.changed
            if behind >= 0:
                at = max(at, unit.done[behind] + 1 + early)
        product.begin = job.begin = at
        product.walks = yield from _search(products, job.issue, at)
        products.all.append(product)
        products.begun.fire()
        unit.changed.fire()


def _search(products: Products, issue: Issue, at: int) -> Part:
    """Read operands for the scale of their tensor, where they have one that is not given; return the cycle after.

    With one converter operand a is read first, then operand b. With two they are read at the same time.
    """
    state, p = products.state, products.state.parameters
    if "scale" not in p.system.modes:
        return at
    ends = [at + SEARCHES]
    for side, mode in zip("ab", modes_of(p, issue)):
        view = issue.views[side].tensor
        end = at + SEARCHES if p.converters > 1 else ends[-1]
        for _ in range(view.rows if mode is None else 0):
            yield end
            end = state.reads[view.memory].passes(end, -(-view.columns // p.side))
        ends.append(end + SEARCHED if mode is None else end + 1)
    return max(ends)


def load(products: Products, sides: tuple[int, ...]) -> Process:
    """Let a converter bring vectors: of one side; or of both, first the rows of a tile and then all columns."""
    state, p, at = products.state, products.state.parameters, 0
    for number in range(1 << 62):
        yield from products.number(number)
        product = products.all[number]
        issue = product.job.issue
        operands = [Operand(p, issue, side) for side in (0, 1)]
        order = [(side, line) for side in sides for line in range(0, product.lines[side], operands[side].lines)]
        if len(sides) == 2:
            order.sort(key=lambda each: (each[0] == 0 and each[1] >= product.tile[0], each[0]))
        at = max(at, product.walks + 1 + products.walked)
        squares = Squares(at)
        for side, line in order:
            operand, rows, tile = operands[side], product.lines[side], product.tile[side]
            lines = min(operand.lines, rows - line)
            for _ in range(lines):
                at = yield from _room(products, side, product.groups, at)
            yield at
            port = state.reads[operand.view.memory]
            if operand.banded:
                at = yield from squares.band(port, operand, line, at)
            else:
                at = port.passes(at, -(-operand.requests(line) // p.vectors))
            if (line + lines) % tile == 0 or line + lines == rows:
                product.ready[side].append(at + products.delay)
                products.loaded.fire()
        product.ends.append(at - products.walked)
        if len(product.ends) == p.converters:
            product.read = max(product.ends)
        products.loaded.fire()


def _room(products: Products, side: int, words: int, at: int) -> Part:
    """Wait until a row of lanes has so many words of a buffer; return since when."""
    ring = products.rings[side]
    while ring.left < words:
        while not ring.gone:
            yield products.freed
        when, freed = ring.gone.popleft()
        ring.left, at = ring.left + freed, max(at, when + products.walked)
    ring.left -= words
    return at
