"""What the array computes: its memory, its products, and the order of the results."""

import numpy as np

from ...base.checks import require, require_int
from .parameters import ArrayParameters, Operand, Product

__all__ = ["ArrayModel", "transfers"]


def transfers(parameters: ArrayParameters, m: int, n: int) -> tuple[np.ndarray, ...]:
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
    """Golden model of the unit: its memory and its products.

    Parameters
    ----------
    parameters : ArrayParameters

    Attributes
    ----------
    memory : ndarray of uint32, shape (blocks, group, group)
        Codes of the work format, zero at first.
    invalid, overflow : bool
        Sticky: a NaN came in or was made; an operand or a result was beyond its range.
    """

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        group = parameters.system.group
        self.memory = np.zeros((parameters.blocks, group, group), np.uint32)
        self.invalid = self.overflow = False
        self._parts: list = []  # operands of a product whose results are still to come

    def write(self, block: int, index: int, transposed: bool, elements: np.ndarray) -> None:
        """Write a vector of codes: a row of a block, or a column."""
        require(np.shape(elements) == self.memory.shape[1:2], "shape of elements", np.shape(elements),
                str(self.memory.shape[1:2]))
        if transposed:
            self.memory[block, :, index] = elements
        else:
            self.memory[block, index] = elements

    def store(self, block: int, stride: int, values: np.ndarray) -> None:
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

    def vectors(self, operand: Operand, rows: int, k: int) -> np.ndarray:
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

    def multiply(self, product: Product) -> np.ndarray | None:
        """Return the codes (m, n) of a product, in the accumulator's format; None of a part that is not the last."""
        system, p = self.parameters.system, product
        p.fits(self.parameters)
        modes = [self.parameters.complete(operand.mode) for operand in (p.a, p.b)]
        for mode in modes:
            for name, bits in system.modes.items():
                require_int(name, mode[name], 0, (1 << bits) - 1)
        sides: list = []
        for side, (operand, rows) in enumerate(((p.a, p.m), (p.b, p.n))):
            codes = self.vectors(operand, rows, p.k)
            arrays, invalid, overflow = system.convert(side % self.parameters.converters,
                                                       codes.reshape(-1, system.group), modes[side],
                                                       p.draws(self.parameters, side))
            self.invalid |= invalid
            self.overflow |= overflow
            sides.append([each.reshape(*codes.shape[:2], *each.shape[1:]) for each in arrays])
        if not p.first:
            require(bool(self._parts) and self._parts[0] == (p.m, p.n), "m and n", (p.m, p.n),
                    f"{self._parts[0]}, of the product before" if self._parts else
                    "a product that is first, as the one before was the last")
            sides = [[np.concatenate(each, axis=1) for each in zip(*pair, strict=True)]
                     for pair in zip(self._parts[1], sides, strict=True)]
        self._parts = [] if p.last else [(p.m, p.n), sides]
        groups = sides[0][0].shape[1]
        a, b = np.divmod(np.repeat(np.arange(p.m * p.n), groups), p.n)
        along = np.tile(np.arange(groups), p.m * p.n)
        results, invalid, overflow = system.dot(tuple(each[a, along] for each in sides[0]),
                                                tuple(each[b, along] for each in sides[1]),
                                                along == 0, (along == groups - 1) & p.last)
        self.invalid |= invalid
        self.overflow |= overflow
        return results.reshape(p.m, p.n) if p.last else None
