"""Layers of a network, each a GEMM and what follows it: linear ones, and convolutions over patches."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .pooling import Pool

__all__ = ["Convolution", "Layer", "Linear", "Phase"]


@dataclass(frozen=True)
class Linear:
    """A layer that takes every feature of an example to each of its outputs.

    Parameters
    ----------
    inputs, outputs : int
    normalised : bool
        Whether the layer has batch statistics in place of its bias.
    """

    inputs: int
    outputs: int
    normalised: bool = False
    pool: ClassVar[None] = None

    @property
    def patch(self) -> int:
        """Products in a sum of the forward GEMM: columns of the weights."""
        return self.inputs

    @property
    def positions(self) -> int:
        """Rows of the forward GEMM for each example."""
        return 1

    def unroll(self, x: np.ndarray) -> np.ndarray:
        """Return the forward GEMM's first operand for features of shape (batch, inputs)."""
        return x

    def phases(self) -> Iterator["Phase"]:
        """Yield the one part of the input gradient: a product of the gradient as it is and the weights as they are."""
        yield Phase(lambda gradient: gradient, lambda weights: weights, lambda total, found: found)


@dataclass(frozen=True)
class Convolution:
    """A convolution with square kernels, as a GEMM over unrolled patches.

    An example's features lie row by row, in a row pixel by pixel, in a pixel channel by channel;
    the columns of the weights (outputs, patch) lie in the same order.

    Parameters
    ----------
    height, width, channels : int
        Of the input.
    outputs : int
        Channels of the output.
    kernel, stride : int
        The same in both directions.
    padding : int
        Rows or columns of zeros on each side of the image, fewer than the kernel has.
    normalised : bool
        Whether the layer has batch statistics in place of its bias.
    pool : Pool, optional
        Of the layer's output, behind its ReLU.
    """

    height: int
    width: int
    channels: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    normalised: bool = False
    pool: Pool | None = None

    @property
    def inputs(self) -> int:
        """Features of an example."""
        return self.height * self.width * self.channels

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the output, before its pooling."""
        height, width = ((side + 2 * self.padding - self.kernel) // self.stride + 1
                         for side in (self.height, self.width))
        return height, width

    @property
    def patch(self) -> int:
        """Products in a sum of the forward GEMM: columns of the weights."""
        return self.kernel * self.kernel * self.channels

    @property
    def positions(self) -> int:
        """Rows of the forward GEMM for each example: (batch, positions * outputs) are the output's features."""
        return math.prod(self.shape)

    def unroll(self, x: np.ndarray) -> np.ndarray:
        """Return the patches (batch * positions, patch) of features (batch, height * width * channels)."""
        images, edge = x.reshape(len(x), self.height, self.width, self.channels), (self.padding, self.padding)
        if self.padding:
            images = np.pad(images, ((0, 0), edge, edge, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(images, (self.kernel, self.kernel), axis=(1, 2))
        windows = windows[:, ::self.stride, ::self.stride].transpose(0, 1, 2, 4, 5, 3)
        return windows.reshape(len(x) * self.positions, self.patch)

    def phases(self) -> Iterator["Phase"]:
        """Yield the parts of the input gradient: one for each (y mod stride, x mod stride) of the input's pixels.

        A pixel of phase (py, px) has the kernel's places ky = (py + padding) mod stride, and every stride-th from there
        on; kx likewise. Its gradient is one sum over (ky, kx, output channel) in rising order. Where no output is, the
        gradient counts as zero.
        """
        for py, px in np.ndindex(min(self.stride, self.height), min(self.stride, self.width)):
            if all((start + self.padding) % self.stride < self.kernel for start in (py, px)):
                yield self._phase(py, px)

    def _phase(self, py: int, px: int) -> "Phase":
        step, shape = self.stride, self.shape
        ky, kx = ((start + self.padding) % step for start in (py, px))
        down, across = (len(range(start, self.kernel, step)) for start in (ky, kx))  # places of the kernel
        rows, columns = len(range(py, self.height, step)), len(range(px, self.width, step))
        outputs_y, halo_y = _overlap((py + self.padding) // step - down + 1, rows + down - 1, shape[0])
        outputs_x, halo_x = _overlap((px + self.padding) // step - across + 1, columns + across - 1, shape[1])

        def gradients(gradient: np.ndarray) -> np.ndarray:
            images = gradient.reshape(-1, *shape, self.outputs)
            halo = np.zeros((len(images), rows + down - 1, columns + across - 1, self.outputs), gradient.dtype)
            halo[:, halo_y, halo_x] = images[:, outputs_y, outputs_x]
            windows = np.lib.stride_tricks.sliding_window_view(halo, (down, across), axis=(1, 2))[..., ::-1, ::-1]
            return windows.transpose(0, 1, 2, 4, 5, 3).reshape(len(images) * rows * columns, -1)

        def weights(stored: Any) -> Any:
            kernels = stored.reshape(self.outputs, self.kernel, self.kernel, self.channels)[:, ky::step, kx::step]
            return kernels.transpose(1, 2, 0, 3).reshape(-1, self.channels)

        def place(total: np.ndarray, found: np.ndarray) -> np.ndarray:
            images = total.reshape(-1, self.height, self.width, self.channels)
            images[:, py::step, px::step] = found.reshape(len(images), rows, columns, self.channels)
            return total

        return Phase(gradients, weights, place)


def _overlap(first: int, count: int, size: int) -> tuple[slice, slice]:
    """Return which of numbers 0 .. size - 1 are among `count` from `first` on, and their places among these."""
    start, stop = max(first, 0), max(min(first + count, size), first, 0)
    return slice(start, stop), slice(start - first, stop - first)


@dataclass(frozen=True)
class Phase:
    """A part of a layer's input gradient that is one product.

    Parameters
    ----------
    gradients, weights : callable
        Given those of the layer, (positions, outputs) and (outputs, patch), return the product's operands (M, K) and
        (K, N). Weights may be arrays or `logarithmic.Logs`.
    place : callable
        Given the gradient of the input so far and the product, return the former with the latter in it.
    """

    gradients: Callable[[np.ndarray], np.ndarray]
    weights: Callable[[Any], Any]
    place: Callable[[np.ndarray, np.ndarray], np.ndarray]


Layer = Linear | Convolution
