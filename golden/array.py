"""The array: a grid of dot-product cells that makes the three matrix products of training from one memory.

Source: numerics contract, section 12 (the mapping and its order are ours) and the section of the number system.
"""

import dataclasses
import json
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from ..base.checks import require, require_int
from ..base.parameters import Parameters
from . import systems
from .number_system import NumberSystem

__all__ = ["SIZE", "ArrayModel", "ArrayParameters", "Operand", "Product", "cycles", "peak", "schedule", "split"]

SIZE = 16  # bits of a product's dimensions
SIZES = (1 << SIZE) - 1
FETCH = 3  # registers on an operand's way from the memory to its converter
QUEUE = 4  # transfers that wait to be read from the buffers
RESULT = 2  # cycles from a result of the cells to its transfer, if nothing waits


@dataclass(frozen=True)
class ArrayParameters(Parameters):
    """Parameters of the unit ``array``.

    Parameters
    ----------
    system : NumberSystem
        A name of `systems.SYSTEMS` means its defaults. In JSON, and among the settings of the command line, the
        system's own settings stand beside the array's:
        ``{"system": "bfp", "rows": 4, "mantissa": 2, "accumulator": "bf16"}``.
    rows, columns : int
        Cells, 1 to 16 each.
    sums : int
        Results that a cell works on side by side: 2, 4, 8 or 16.
    converters : int
        2: one for rows and one for columns. 1: one converts both, and the memory has one read port: smaller; it takes
        the rows of the first tile, then all columns, then the other rows.
    memory : int
        Elements of the operand memory: a power of two, a block (group * group) or more, up to 2**20.
    buffer : int
        Elements that each row and each column of cells can hold of converted operands: a power of two, a group or more,
        up to 2**16. It limits products: see `Product.fits`.
    """

    system: NumberSystem = "bfp"
    rows: int = 4
    columns: int = 4
    sums: int = 16
    converters: int = 2
    memory: int = 8192
    buffer: int = 8192

    def __post_init__(self):
        if not isinstance(self.system, NumberSystem):
            object.__setattr__(self, "system", systems.find(self.system)())
        named = systems.name_of(self.system)
        require(self.system.circuits is not None, "system", named, "one that has an array: " + self.system.refusal)
        require_int("rows", self.rows, 1, 16)
        require_int("columns", self.columns, 1, 16)
        require(type(self.sums) is int and self.sums in (2, 4, 8, 16), "sums", self.sums, "2, 4, 8, 16")
        require_int("converters", self.converters, 1, 2)
        group = self.system.group
        require(group & (group - 1) == 0 and group <= 64, "group", group, "a power of two up to 64, in an array")
        for name, least, most in (("memory", group * group, 1 << 20), ("buffer", group, 1 << 16)):
            value = getattr(self, name)
            # A memory of one word would have an address of no bits.
            least = max(least, 2 * group)
            require(type(value) is int and least <= value <= most and value & (value - 1) == 0, name, value,
                    f"a power of two from {least} to {most}")
        self.system.cell(self.sums), self.system.converter(0), self.system.converter(1)

    @property
    def name(self):
        """The name of the number system."""
        return systems.name_of(self.system)

    def to_json(self):
        """Return the parameters as a dict of plain JSON values, the system's among them."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return own | {"system": self.name} | self.system.to_json()

    @classmethod
    def from_json(cls, data):
        """Make the object from `to_json`'s dict, or from that dict as JSON text."""
        data = json.loads(data) if isinstance(data, str) else data
        require(isinstance(data, dict), "parameters", data, "a JSON object")
        own = [field.name for field in dataclasses.fields(cls)]
        kind = systems.find(data.get("system", "bfp"))
        names = own + [field.name for field in dataclasses.fields(kind)]
        for name in data:
            require(name in names, "parameter", name, ", ".join(names))
        rest = {name: value for name, value in data.items() if name in own and name != "system"}
        return cls(kind.from_json({name: value for name, value in data.items() if name not in own}), **rest)

    @property
    def words(self):
        """Vectors that each row, and each column, can hold."""
        return self.buffer // self.system.group

    @property
    def blocks(self):
        """Blocks of group * group elements in the memory."""
        return self.memory // self.system.group**2

    @property
    def tile(self):
        """Results of a cell (down, across) in a tile: their product is `sums`."""
        across = 1 << (self.sums.bit_length() - 1) // 2
        return self.sums // across, across

    @property
    def labels(self):
        """Bits of the labels (row, column) of a result, which count rows and columns of cells."""
        return tuple((-(-(1 << SIZE) // cells) - 1).bit_length() for cells in (self.rows, self.columns))

    @property
    def interleaved(self):
        """Whether sums take turns, as they must where an addition takes longer than a cycle."""
        return self.system.recurrence > 1

    @property
    def open_tile(self):
        """Results of a cell (down, across) that it can keep from product to product."""
        return self.tile if self.interleaved else (1, 1)

    def complete(self, mode=None):
        """Return an operand's modes, the number system's defaults where they are not given."""
        mode = mode or {}
        for name in mode:
            require(name in self.system.modes, "mode", name, ", ".join(self.system.modes) or "none")
        return {name: mode.get(name, self.system.default(name)) for name in self.system.modes}

    def interval(self, a=None, b=None):
        """Return the cycles that a transfer takes in a cell, for operands of these modes."""
        return self.system.interval(self.complete(a), self.complete(b))

    @property
    def waiting(self):
        """Results under way, at the most, that the unit keeps account of: a power of two."""
        return 1 << (self.system.cell(self.sums).latency + QUEUE + 1 + RESULT).bit_length()


@dataclass(frozen=True)
class Operand:
    """A matrix in the memory, as an operand of a product: vectors along the reduction axis.

    Parameters
    ----------
    block : int
        The first of its blocks. Blocks follow each other along the stored rows, `stride` blocks from one row of blocks
        to the next, and wrap at the end of the memory.
    stride : int
    transposed : bool
        The operand's rows (the vectors along the reduction axis) are the columns of what is stored.
    mode : dict
        A value for each of the number system's `modes`; its default where there is none.
    """

    block: int = 0
    stride: int = 1
    transposed: bool = False
    mode: dict = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Product:
    """A product (m, k) times (k, n), of operands a (m vectors) and b (n vectors), or a part of one along k.

    Parameters
    ----------
    m, n, k : int
        1 to 65,535.
    a, b : Operand
    first : bool
        Sums start from +0. Else they go on from the product before, which had the same m and n.
    last : bool
        There are results. Else the sums are kept: a cell keeps those of one tile, see `ArrayParameters.open_tile`.
    """

    m: int
    n: int
    k: int
    a: Operand = Operand()
    b: Operand = Operand()
    first: bool = True
    last: bool = True

    def fits(self, parameters):
        """Raise ValueError where the buffers cannot hold what a tile of the product needs, or the cells the sums.

        A row of cells holds its vectors of one tile, a column of cells all of its vectors.
        """
        for name in "mnk":
            require_int(name, getattr(self, name), 1, SIZES)
        if not (self.first and self.last):
            limits = zip("mn", (parameters.rows, parameters.columns), parameters.open_tile)
            for name, cells, sums in limits:
                require(getattr(self, name) <= cells * sums, name, getattr(self, name),
                        f"at most {cells * sums} in a part of a product, because the cells keep the sums of one tile")
        groups, words = -(-self.k // parameters.system.group), parameters.words
        down = min(parameters.tile[0], -(-self.m // parameters.rows))
        require(down * groups <= words, "k", self.k, f"at most {words // down * parameters.system.group}, because a "
                f"row of cells holds {words} vectors, for {down} results down")
        require(-(-self.n // parameters.columns) * groups <= words, "n", self.n,
                f"at most {words // groups * parameters.columns} with k = {self.k}, because a column of cells holds "
                f"{words} vectors")


def split(parameters, m, n, k):
    """Return the products that together make one of any size, as ((m, n, k), first, last), operands left out.

    Where a tile's vectors fit the buffers, these are parts of the columns; else parts along k of every tile.
    """
    p, group = parameters, parameters.system.group
    for name, size in zip("mnk", (m, n, k)):
        require_int(name, size, 1, 1 << 30)
    groups, down = -(-k // group), min(p.tile[0], -(-m // p.rows))
    columns = p.words // groups * p.columns
    if down * groups <= p.words and columns:
        return [((min(SIZES, m - top), min(columns, SIZES, n - left), k), True, True)
                for left in range(0, n, min(columns, SIZES)) for top in range(0, m, SIZES)]
    down, across = p.open_tile
    part = min(p.words // max(down, across) * group, SIZES // group * group)
    return [((min(p.rows * down, m - top), min(p.columns * across, n - left), min(part, k - start)),
             start == 0, start + part >= k)
            for top in range(0, m, p.rows * down) for left in range(0, n, p.columns * across)
            for start in range(0, k, part)]


def transfers(parameters, m, n):
    """Return the results in the order in which they leave: arrays (row, column), in units of rows and of columns.

    Each transfer has a result of every cell: cell (r, c) that of row ``row * rows + r`` and column ``column * columns +
    c``. Tiles follow each other along the columns, within a tile results across.
    """
    down, across = parameters.tile
    rows, columns = -(-m // parameters.rows), -(-n // parameters.columns)
    order = [(row, column) for top in range(0, rows, down) for left in range(0, columns, across)
             for row in range(top, min(top + down, rows)) for column in range(left, min(left + across, columns))]
    return tuple(np.array(order, np.int64).T)


class ArrayModel:
    """Golden model of the unit: its memory, its random words, its products.

    Parameters
    ----------
    parameters : ArrayParameters

    Attributes
    ----------
    memory : ndarray of uint32, shape (blocks, group, group)
        Codes of the work format, zero at first.
    steps : list of int
        Random draws made by each converter.
    invalid, overflow : bool
        Sticky: a NaN came in or was made; an operand or a result was beyond its range.
    """

    def __init__(self, parameters):
        self.parameters = parameters
        group = parameters.system.group
        self.memory = np.zeros((parameters.blocks, group, group), np.uint32)
        self.steps = [0] * parameters.converters
        self.invalid = self.overflow = False
        self._parts = []  # operands of a product whose results are still to come

    def write(self, block, index, transposed, elements):
        """Write a vector of codes: a row of a block, or a column."""
        require(np.shape(elements) == self.memory.shape[1:2], "shape of elements", np.shape(elements),
                str(self.memory.shape[1:2]))
        if transposed:
            self.memory[block, :, index] = elements
        else:
            self.memory[block, index] = elements

    def store(self, block, stride, values):
        """Write a matrix (rows, columns) of values, rounded to the work format; what is left of its blocks is zero."""
        group = self.parameters.system.group
        codes = self.parameters.system.work.encode(values)
        require(codes.ndim == 2, "shape of values", codes.shape, "(rows, columns)")
        for top in range(0, len(codes), group):
            for left in range(0, codes.shape[1], group):
                part = codes[top:top + group, left:left + group]
                where = (block + top // group * stride + left // group) % self.parameters.blocks
                self.memory[where] = 0
                self.memory[where, :part.shape[0], :part.shape[1]] = part

    def vectors(self, operand, rows, k):
        """Return an operand's codes, shape (rows, groups, group), what is beyond k zero."""
        group, blocks = self.parameters.system.group, self.parameters.blocks
        groups = -(-k // group)
        row, part = np.arange(rows)[:, np.newaxis], np.arange(groups)
        down, along = (1, operand.stride) if operand.transposed else (operand.stride, 1)
        block = (operand.block + row // group * down + part * along) % blocks
        # Axes of a block: (down, along), so that the operand's rows come first.
        stored = np.swapaxes(self.memory, 1, 2) if operand.transposed else self.memory
        found = stored[block, row % group]
        return np.where((part[:, np.newaxis] * group + np.arange(group)) < k, found, 0)

    def multiply(self, product):
        """Return the codes (m, n) of a product, in the accumulator's format; None of a part that is not the last."""
        system, p = self.parameters.system, product
        p.fits(self.parameters)
        # The order of the conversions, which is that of the random words: parts of the operands' vectors, by side.
        parts = [(0, slice(None)), (1, slice(None))]
        if self.parameters.converters == 1:
            first = self.parameters.rows * self.parameters.tile[0]
            parts = [(0, slice(first)), (1, slice(None)), (0, slice(first, None))]
        modes = [self.parameters.complete(operand.mode) for operand in (p.a, p.b)]
        for mode in modes:
            for name, bits in system.modes.items():
                require_int(name, mode[name], 0, (1 << bits) - 1)
        codes = [self.vectors(operand, rows, p.k) for operand, rows in ((p.a, p.m), (p.b, p.n))]
        found = [[], []]
        for side, part in parts:
            rows, converter = codes[side][part], side % self.parameters.converters
            arrays, draws, invalid, overflow = system.convert(converter, rows.reshape(-1, system.group), modes[side],
                                                              self.steps[converter])
            self.steps[converter] += draws
            self.invalid |= invalid
            self.overflow |= overflow
            found[side].append([each.reshape(*rows.shape[:2], *each.shape[1:]) for each in arrays])
        sides = [[np.concatenate(each) for each in zip(*parts, strict=True)] for parts in found]
        if not p.first:
            require(self._parts and self._parts[0] == (p.m, p.n), "m and n", (p.m, p.n),
                    f"{self._parts[0]}, of the product before" if self._parts else
                    "a product that is first, as the one before was the last")
            sides = [[np.concatenate(each, axis=1) for each in zip(*pair, strict=True)]
                     for pair in zip(self._parts[1], sides, strict=True)]
        self._parts = [] if p.last else [(p.m, p.n), sides]
        groups = sides[0][0].shape[1]
        a, b = np.divmod(np.repeat(np.arange(p.m * p.n), groups), p.n)
        along = np.tile(np.arange(groups), p.m * p.n)
        codes, invalid, overflow = system.dot(*(tuple(each[rows, along] for each in arrays)
                                                for arrays, rows in zip(sides, (a, b), strict=True)),
                                              along == 0, (along == groups - 1) & p.last)
        self.invalid |= invalid
        self.overflow |= overflow
        return codes.reshape(p.m, p.n) if p.last else None


# Time.


def peak(parameters, a=None, b=None):
    """Return the multiply-accumulates a cycle of all cells, for operands of these modes."""
    p = parameters
    return p.rows * p.columns * p.system.group / p.interval(a, b)


def cycles(parameters, m, n, k, a=None, b=None):
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
def _cycles(parameters, products):
    return schedule(parameters, products)[-1]


class _Loader:
    """The account of one side's converter and buffers: vectors asked for, under way, there, and no longer needed."""

    def __init__(self, parameters, side):
        converter = parameters.system.converter(side)
        self.lanes, self.down = (parameters.rows, parameters.columns)[side], parameters.tile[side]
        self.delay, self.words = FETCH + (converter.latency if converter else 0) + 1, parameters.words
        self.left = self.held = self.there = 0  # rows to ask for; vectors in each lane's buffer; tiles that are there
        self.arriving = deque()

    def start(self, rows, groups):
        self.left, self.groups, self.at, self.lane, self.slot, self.begun = rows, groups, 0, 0, 0, False

    def arrive(self, now):
        """Count what can be read from this cycle on."""
        while self.arriving and self.arriving[0] <= now:
            self.arriving.popleft()
            self.there += 1

    def ask(self, now):
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


def _walk(parameters, m, n, groups, emits):
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

    def __init__(self, parameters):
        system = parameters.system
        self.recurrence, self.behind = system.recurrence, system.cell(parameters.sums).latency - system.depth
        self.passes = 0  # made of the transfer that waits
        # Stages up to the sums, and two more before the sum is read, in which a transfer waits for its sum.
        self.stages, self.gate, self.free = deque([None] * system.depth), [None, None], {}
        self.leaving = None  # (cycle, what ends with it) of the latest result

    def step(self, now, offered):
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

    def __init__(self, parameters):
        self.latency, self.leaving = parameters.system.cell(parameters.sums).latency, None

    def step(self, now, offered):
        if offered and offered[1]:
            self.leaving = now + self.latency, offered[2]
        return offered is not None


def schedule(parameters, products):
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
    coming, queued, current, now = deque(enumerate(products)), None, None, 0
    queue, fed, ends, emitting, before = deque(), None, {}, deque(), (0, 0)
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
            index, (m, n, k, interval, *last) = coming.popleft()
            groups, last = -(-k // group), all(last)
            if last:
                emitting.append(index)
            a.start(m, groups), b.start(n, groups)
            order = _walk(p, m, n, groups, last)
            queued = SimpleNamespace(index=index, order=order, following=next(order), interval=interval, last=last,
                                     groups=groups, tile=0, rows=-(-m // p.rows), columns=-(-n // p.columns))
        now += 1
    return [ends[index] for index in range(len(products))]
