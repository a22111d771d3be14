"""Parameters of the array, its products and their operands, and what fits."""

import dataclasses
from dataclasses import dataclass

from ...base.checks import require, require_int
from ..number_system import Draws, Mode, NumberSystem
from ..systems import SystemParameters
from ..words import USE, VECTOR

__all__ = ["FETCH", "LARGEST", "QUEUE", "RESULT", "SIZE", "ArrayParameters", "Operand", "Product", "split"]

SIZE = 16  # bits of a product's dimensions
SIZES = (1 << SIZE) - 1
FETCH = 3  # registers on an operand's way from the memory to its converter
LARGEST = 1 << 16  # elements that the buffers of a row or of a column hold at the most
QUEUE = 2  # transfers that wait to be read from the buffers: as many as `elastic` in hw/pipeline.py keeps
RESULT = 2  # cycles from a result of the cells to its transfer, if nothing waits


@dataclass(frozen=True)
class ArrayParameters(SystemParameters):
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

    system: NumberSystem = "bfp"  # type: ignore[assignment]  # a NumberSystem, once made
    rows: int = 4
    columns: int = 4
    sums: int = 16
    converters: int = 2
    memory: int = 8192
    buffer: int = 8192

    def __post_init__(self) -> None:
        self.resolve()
        require_int("rows", self.rows, 1, 16)
        require_int("columns", self.columns, 1, 16)
        require(type(self.sums) is int and self.sums in (2, 4, 8, 16), "sums", self.sums, "2, 4, 8, 16")
        require_int("converters", self.converters, 1, 2)
        group = self.system.group
        require(group & (group - 1) == 0 and group <= 64, "group", group, "a power of two up to 64, in an array")
        for name, least, most in (("memory", group * group, 1 << 20), ("buffer", group, LARGEST)):
            value = getattr(self, name)
            # A memory of one word would have an address of no bits.
            least = max(least, 2 * group)
            require(type(value) is int and least <= value <= most and value & (value - 1) == 0, name, value,
                    f"a power of two from {least} to {most}")
        self.system.cell(self.sums), self.system.converter(0), self.system.converter(1)

    @property
    def words(self) -> int:
        """Vectors that each row, and each column, can hold."""
        return self.buffer // self.system.group

    @property
    def blocks(self) -> int:
        """Blocks of group * group elements in the memory."""
        return self.memory // self.system.group**2

    @property
    def tile(self) -> tuple[int, int]:
        """Results of a cell (down, across) in a tile: their product is `sums`."""
        across = 1 << (self.sums.bit_length() - 1) // 2
        return self.sums // across, across

    @property
    def labels(self) -> tuple[int, ...]:
        """Bits of the labels (row, column) of a result, which count rows and columns of cells."""
        return tuple((-(-(1 << SIZE) // cells) - 1).bit_length() for cells in (self.rows, self.columns))

    @property
    def interleaved(self) -> bool:
        """Whether sums take turns, as they must where an addition takes longer than a cycle."""
        return self.system.recurrence > 1

    @property
    def open_tile(self) -> tuple[int, int]:
        """Results of a cell (down, across) that it can keep from product to product."""
        return self.tile if self.interleaved else (1, 1)

    def complete(self, mode: Mode | None = None) -> Mode:
        """Return an operand's modes, the number system's defaults where they are not given."""
        mode = mode or {}
        for name in mode:
            require(name in self.system.modes, "mode", name, ", ".join(self.system.modes) or "none")
        return {name: mode.get(name, self.system.default(name)) for name in self.system.modes}

    def interval(self, a: Mode | None = None, b: Mode | None = None) -> int:
        """Return the cycles that a transfer takes in a cell, for operands of these modes."""
        return self.system.interval(self.complete(a), self.complete(b))

    @property
    def waiting(self) -> int:
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
    vector : int
        Of a part of an operand: the number of its first vector in the whole one, to which its random words belong.
    """

    block: int = 0
    stride: int = 1
    transposed: bool = False
    mode: dict = dataclasses.field(default_factory=dict)
    vector: int = 0


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
    use, step : int
        Of the random words of operand a; those of operand b have the use with the other lowest bit.
    pitch : int
        Vectors of a row of the whole operands, of which these are parts; 0: as many as here.
    """

    m: int
    n: int
    k: int
    a: Operand = Operand()
    b: Operand = Operand()
    first: bool = True
    last: bool = True
    use: int = 0
    step: int = 0
    pitch: int = 0

    def draws(self, parameters: ArrayParameters, side: int) -> Draws:
        """Return the address of the random words of a side's vectors, rows in order."""
        length = -(-self.k // parameters.system.group)
        operand = self.b if side else self.a
        return Draws(parameters.system.seed, self.step, self.use ^ side, operand.vector,
                     (length, self.pitch or length))

    def fits(self, parameters: ArrayParameters) -> None:
        """Raise ValueError where the buffers cannot hold what a tile of the product needs, or the cells the sums.

        A row of cells holds its vectors of one tile, a column of cells all of its vectors.
        """
        for name in "mnk":
            require_int(name, getattr(self, name), 1, SIZES)
        require_int("use", self.use, 0, (1 << USE) - 1)
        require_int("step", self.step, 0, (1 << 32) - 1)
        for name, number in (("pitch", self.pitch), ("vector", self.a.vector), ("vector", self.b.vector)):
            require_int(name, number, 0, (1 << VECTOR) - 1)
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


def split(parameters: ArrayParameters, m: int, n: int, k: int) -> list[tuple[tuple[int, int, int], bool, bool]]:
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
    down, across = (min(each, p.words) for each in p.open_tile)
    part = min(p.words // max(down, across) * group, SIZES // group * group)
    return [((min(p.rows * down, m - top), min(p.columns * across, n - left), min(part, k - start)),
             start == 0, start + part >= k)
            for top in range(0, m, p.rows * down) for left in range(0, n, p.columns * across)
            for start in range(0, k, part)]
