"""Tensors of a core: matrices in a memory, windows over images, and where their numbers lie."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ...base.checks import require

__all__ = ["Taps", "View", "Window", "blocks_of", "places"]


@dataclass(frozen=True)
class Window:
    """A matrix with a row for each place of a window on each image, and a column for each number in the window.

    An image is a row of the tensor: its numbers lie pixel by pixel, in a pixel channel by channel. Place (y, x) and tap
    (ty, tx) meet pixel ``step * y + ty + shift_y - pad``, and likewise across; with `reverse` the tap is subtracted.
    Outside the image is +0.

    Parameters
    ----------
    height, width, channels : int
        Of the image.
    down, across : int
        Places.
    taps_y, taps_x : int
    step, shift_y, shift_x, pad : int
    reverse : int
    """

    height: int
    width: int
    channels: int
    down: int
    across: int
    taps_y: int
    taps_x: int
    step: int
    reverse: int
    shift_y: int
    shift_x: int
    pad: int

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the matrix's rows and columns, for a tensor of so many."""
        require(self.height * self.width * self.channels == columns, "numbers of an image",
                self.height * self.width * self.channels, f"{columns}, the columns of the tensor")
        return rows * self.down * self.across, self.taps_y * self.taps_x * self.channels

    def at(self, row: np.ndarray, column: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (row, column) of the tensor for elements of the matrix, and whether they are in the image."""
        image, place = np.divmod(row, self.down * self.across)
        tap, channel = np.divmod(column, self.channels)
        sign = -1 if self.reverse else 1
        y = place // self.across * self.step + sign * (tap // self.taps_x) + self.shift_y - self.pad
        x = place % self.across * self.step + sign * (tap % self.taps_x) + self.shift_x - self.pad
        inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        return image + 0 * column, (y * self.width + x) * self.channels + channel, inside


@dataclass(frozen=True)
class Taps:
    """The weights of every `step`-th tap of a kernel: a row for each (tap, output), a column for each channel.

    Parameters
    ----------
    kernel, channels : int
        The tensor's columns are (ky, kx, channel), its rows outputs.
    taps_y, taps_x : int
    step, shift_y, shift_x : int
        Tap (ty, tx) is place ``step * ty + shift_y`` of the kernel, and likewise across.
    """

    kernel: int
    channels: int
    taps_y: int
    taps_x: int
    step: int
    shift_y: int
    shift_x: int

    def size(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the matrix's rows and columns, for a tensor of so many."""
        require(self.kernel**2 * self.channels == columns, "weights of a kernel", self.kernel**2 * self.channels,
                f"{columns}, the columns of the tensor")
        return self.taps_y * self.taps_x * rows, self.channels

    def at(self, row: np.ndarray, column: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (row, column) of the tensor for elements of the matrix, and that all are there."""
        tap, output = np.divmod(row, rows)
        ky = tap // self.taps_x * self.step + self.shift_y
        kx = tap % self.taps_x * self.step + self.shift_x
        return output + 0 * column, (ky * self.kernel + kx) * self.channels + column, np.full(
            np.broadcast_shapes(row.shape, column.shape), True)


@dataclass(frozen=True)
class View:
    """A matrix in a memory, or a part of one.

    Parameters
    ----------
    memory : str
    block, other : int
        The first of its blocks of side * side elements, and that of its other half: see ``flip``.
    stride : int
        Blocks from one row of blocks to the next.
    top, left : int
        Its first element in the first block. Labels follow each other from `left` on.
    rows, columns : int
        Of the matrix that it stands for.
    shape : Window or Taps, optional
        The matrix is made of the tensor by this; then
    whole : (int, int)
        are the tensor's rows and columns, and
    row, column : int
        are the first ones of the matrix.
    """

    memory: str
    block: int
    other: int
    stride: int
    top: int
    left: int
    rows: int
    columns: int
    shape: Window | Taps | None = None
    whole: tuple[int, int] = (0, 0)
    row: int = 0
    column: int = 0

    def part(self, row: int, column: int, rows: int, columns: int, side: int) -> "View":
        """Return a part of the matrix."""
        require(rows > 0 and columns > 0 and row + rows <= self.rows and column + columns <= self.columns,
                "end of a view", (row + rows, column + columns), f"at most {(self.rows, self.columns)}")
        if self.shape:
            return replace(self, rows=rows, columns=columns, row=self.row + row, column=self.column + column)
        down, right = self.top + row, self.left + column
        if self.memory == "L":
            return replace(self, left=right, rows=rows, columns=columns)
        offset = down // side * self.stride + right // side
        return replace(self, block=self.block + offset, other=self.other + offset, top=down % side,
                       left=right % side, rows=rows, columns=columns)

    def shaped(self, shape: Window | Taps) -> "View":
        """Return the matrix that a window or taps make of this one."""
        require(self.shape is None, "tensor", self.shape, "one that is a matrix itself")
        rows, columns = shape.size(self.rows, self.columns)
        return replace(self, shape=shape, whole=(self.rows, self.columns), rows=rows, columns=columns)

    @property
    def tensor(self) -> "View":
        """The tensor that a window or taps are of."""
        return replace(self, shape=None, rows=self.whole[0], columns=self.whole[1], row=0, column=0) if (
            self.shape) else self


@lru_cache(256)
def places(view: View, side: int) -> np.ndarray:
    """Return the places of a view's elements in its memory, shape (rows, columns); -1 for what is outside an image."""
    if view.memory == "L":
        return view.block * 256 + view.left + np.arange(view.rows * view.columns).reshape(view.rows, view.columns)
    row = np.arange(view.row, view.row + view.rows)[:, np.newaxis]
    column = np.arange(view.column, view.column + view.columns)
    inside = np.array(True)
    if view.shape:
        row, column, inside = view.shape.at(row, column, view.whole[0])
    row, column = row + view.top, column + view.left
    found = ((view.block + row // side * view.stride + column // side) * side + row % side) * side + column % side
    return np.where(inside, found, -1)


@lru_cache(4096)
def blocks_of(view: View, side: int) -> frozenset[int]:
    """Return the blocks that a view touches; of labels those of 256; of a window all of its tensor."""
    if view.memory == "L":
        return frozenset(range(view.block + view.left // 256, view.block + (view.left + view.columns - 1) // 256 + 1))
    view = view.tensor
    down, right = (view.top + view.rows - 1) // side + 1, (view.left + view.columns - 1) // side + 1
    return frozenset(view.block + row * view.stride + column for row in range(down) for column in range(right))
