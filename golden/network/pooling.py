"""Pooling of a convolution's output: the maximum or the mean of windows. Source: numerics contract, section 14."""

import math
from dataclasses import dataclass

import numpy as np

from ..floating import Arithmetic

__all__ = ["Pool"]


@dataclass(frozen=True)
class Pool:
    """Takes one pixel for each window of an image, channel by channel. Windows do not overlap.

    Parameters
    ----------
    kind : str
        ``max`` or ``mean``.
    height, width, channels : int
        Of the input: features of an example lie as a `Convolution` has them.
    window : (int, int)
        Rows and columns of a window.
    stride : int
        Pixels from a window to the next, down and across: at least as many as a window has.
    """

    kind: str
    height: int
    width: int
    channels: int
    window: tuple[int, int]
    stride: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = ((side - size) // self.stride + 1
                         for side, size in zip((self.height, self.width), self.window))
        return height, width

    def part(self, work: Arithmetic) -> np.generic:
        """Return the constant of a mean: 1 / (pixels of a window), rounded to the work format."""
        return work.number(1 / math.prod(self.window))

    def forward(self, x: np.ndarray, work: Arithmetic) -> np.ndarray:
        """Return the pooled features of examples (batch, height * width * channels).

        A maximum is the first of its window's greatest pixels, where a NaN is above every number. A mean is the sum of
        the pixels in row-major order from +0, each addition rounded, times `part`, rounded.
        """
        windows = self._windows(x)
        if self.kind == "max":
            pooled = np.take_along_axis(windows, windows.argmax(axis=0)[np.newaxis], axis=0)
        else:
            total = np.zeros_like(windows[0])
            for pixels in windows:
                total = work.add(total, pixels)
            pooled = work.multiply(total, self.part(work))
        return pooled.reshape(len(x), -1)

    def gradient(self, delta: np.ndarray, x: np.ndarray, work: Arithmetic) -> np.ndarray:
        """Return the gradient of `x`, from that of its pooled features.

        The pixel that is a maximum has the gradient of the result. The pixels of a mean each have that times `part`,
        rounded. All others have +0.
        """
        delta = delta.reshape(len(x), *self.shape, self.channels)
        spread: np.ndarray = np.zeros((math.prod(self.window), *delta.shape), delta.dtype)
        if self.kind == "max":
            np.put_along_axis(spread, self._windows(x).argmax(axis=0)[np.newaxis], delta[np.newaxis], axis=0)
        else:
            spread[:] = work.multiply(delta, self.part(work))
        total = np.zeros((len(x), self.height, self.width, self.channels), delta.dtype)
        for place, pixels in zip(np.ndindex(self.window), spread):
            total[self._pixels(*place)] = pixels
        return total.reshape(x.shape)

    def _windows(self, x: np.ndarray) -> np.ndarray:
        """Return the pixels of windows in row-major order: (pixels, batch, height, width, channels)."""
        images = x.reshape(len(x), self.height, self.width, self.channels)
        return np.stack([images[self._pixels(*place)] for place in np.ndindex(self.window)])

    def _pixels(self, y: int, x: int) -> tuple[slice, slice, slice]:
        """Return where the pixels are that have the place (y, x) in their windows."""
        rows, columns = (slice(start, start + (count - 1) * self.stride + 1, self.stride)
                         for start, count in zip((y, x), self.shape))
        return slice(None), rows, columns
