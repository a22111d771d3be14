"""How a core reads the operands of a product: vector by vector, in segments, or in bands."""

from collections.abc import Generator

import numpy as np

from ..parameters import TrainerParameters
from ..sequencer import Issue
from ..views import View, Window
from .events import Port
from .latencies import FILLED, OPENED
from .work import sizes_of

__all__ = ["Operand", "Squares", "segments"]


def segments(view: View, across: bool, size: int, side: int) -> np.ndarray:
    """Return the segments that each `size` numbers of a row are read in: the same for all rows, shape (vectors,).

    A segment ends where the next number does not lie beside the last one in a row of the memory. Outputs of a kernel
    lie in a column instead.

    Parameters
    ----------
    view : View
    across : bool
        A row goes along the columns of the matrix: along the outputs of a kernel, tap by tap.
    size : int
        Numbers of a vector; or those of a place that belong to a band.
    side : int
        Of the memory's blocks.
    """
    shape, count = view.shape, view.rows if across else view.columns
    ends = np.zeros(count, bool)
    if shape and across:
        output = (view.row + np.arange(count)) % view.whole[0]
        ends = (output == 0) | ((view.top + output) % side == 0)
    elif shape:
        line = shape.taps_x if isinstance(shape, Window) and not shape.reverse else 1
        ends = (view.column + np.arange(count)) % (line * shape.channels) == 0
    ends[::size] = True
    return np.add.reduceat(ends.astype(int), np.arange(0, count, size))


class Operand:
    """An operand of a GEMM: how many requests bring its vectors.

    Parameters
    ----------
    parameters : TrainerParameters
    issue : Issue
    number : int
        0: operand a; 1: operand b.

    Attributes
    ----------
    view : View
    banded : bool
        It is read in bands: its rows are the columns of a window.
    lines : int
        Rows of lanes that are read together: of a band, or one.
    parts : ndarray of int
        Segments of each vector of a row; in bands, those of a place for each band.
    length : int
        Numbers of a row.
    """

    def __init__(self, parameters: TrainerParameters, issue: Issue, number: int) -> None:
        p, across = parameters, bool(issue.instruction.fields[f"across_{'ab'[number]}"])
        self.view, self.group = issue.views["ab"[number]], p.system.group
        self.rows, self.length = sizes_of(issue)[number], sizes_of(issue)[2]
        self.lanes, self.lines = (p.rows, p.columns)[number], 1
        self.banded = across and isinstance(self.view.shape, Window)
        if self.banded:
            # As many rows of lanes as a tile has, or an equal part of these, and no more rows than a block has.
            self.lines = 1 << min(p.array.tile[number], p.side // self.lanes).bit_length() - 1
            self.parts = segments(self.view, False, self.lines * self.lanes, p.side)
        else:
            self.parts = segments(self.view, across, self.group, p.side)

    def vectors(self, line: int) -> int:
        """Return the rows that are read together from a row of lanes on."""
        return min(self.lines * self.lanes, self.rows - line * self.lanes)

    def requests(self, line: int) -> int:
        """Return the requests for a row of lanes that is not in a band."""
        return self.vectors(line) * int(self.parts.sum())


class Squares:
    """Bands that a converter reads: two squares of places, of which one is read while the other's vectors leave.

    Parameters
    ----------
    begin : int
        The cycle from which on places may be read.
    """

    def __init__(self, begin: int) -> None:
        self.read, self.left = begin, [begin - OPENED, begin - OPENED]

    def band(self, port: Port, operand: Operand, line: int, since: int) -> Generator[int, None, int]:
        """Read a band, whose vectors may leave from a cycle on; return the cycle behind the last of them."""
        for first in range(0, operand.length, operand.group):
            self.read = max(self.read, self.left[-2] + OPENED)
            yield self.read
            places = min(operand.group, operand.length - first)
            self.read = port.passes(self.read, places * int(operand.parts[line // operand.lines]))
            self.left = [self.left[-1], max(self.read + FILLED, self.left[-1], since) + operand.vectors(line)]
        return self.left[-1]
