"""Layers of a network, each a GEMM: linear ones, and convolutions over patches; the models made of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.checks import require
from ..datasets import Dataset

__all__ = ["MAX_LAYERS", "MODELS", "Convolution", "Layer", "Linear", "Phase", "convolutional", "perceptron"]

MAX_LAYERS = 32


@dataclass(frozen=True)
class Linear:
    """A layer that takes every feature of an example to each of its outputs."""

    inputs: int
    outputs: int

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
    """A convolution with square kernels and no padding, as a GEMM over unrolled patches.

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
    """

    height: int
    width: int
    channels: int
    outputs: int
    kernel: int = 3
    stride: int = 1

    @property
    def inputs(self) -> int:
        """Features of an example."""
        return self.height * self.width * self.channels

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = ((side - self.kernel) // self.stride + 1 for side in (self.height, self.width))
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
        images = x.reshape(len(x), self.height, self.width, self.channels)
        windows = np.lib.stride_tricks.sliding_window_view(images, (self.kernel, self.kernel), axis=(1, 2))
        windows = windows[:, ::self.stride, ::self.stride].transpose(0, 1, 2, 4, 5, 3)
        return windows.reshape(len(x) * self.positions, self.patch)

    def phases(self) -> Iterator["Phase"]:
        """Yield the parts of the input gradient: one for each (y mod stride, x mod stride) of the input's pixels.

        A pixel of phase (py, px) has the kernel's places ky = py, py + stride, .. and kx likewise. Its gradient is one
        sum over (ky, kx, output channel) in rising order. Where no output is, the gradient counts as zero.
        """
        for py, px in np.ndindex(self.stride, self.stride):
            if py < min(self.kernel, self.height) and px < min(self.kernel, self.width):
                yield self._phase(py, px)

    def _phase(self, py: int, px: int) -> "Phase":
        (height, width), step = self.shape, self.stride
        down, across = (len(range(start, self.kernel, step)) for start in (py, px))  # places of the kernel
        rows, columns = len(range(py, self.height, step)), len(range(px, self.width, step))

        def gradients(gradient: np.ndarray) -> np.ndarray:
            images = gradient.reshape(-1, height, width, self.outputs)
            halo = np.zeros((len(images), rows + down - 1, columns + across - 1, self.outputs), gradient.dtype)
            halo[:, down - 1:down - 1 + height, across - 1:across - 1 + width] = images
            windows = np.lib.stride_tricks.sliding_window_view(halo, (down, across), axis=(1, 2))[..., ::-1, ::-1]
            return windows.transpose(0, 1, 2, 4, 5, 3).reshape(len(images) * rows * columns, -1)

        def weights(stored: Any) -> Any:
            kernels = stored.reshape(self.outputs, self.kernel, self.kernel, self.channels)[:, py::step, px::step]
            return kernels.transpose(1, 2, 0, 3).reshape(-1, self.channels)

        def place(total: np.ndarray, found: np.ndarray) -> np.ndarray:
            images = total.reshape(-1, self.height, self.width, self.channels)
            images[:, py::step, px::step] = found.reshape(len(images), rows, columns, self.channels)
            return total

        return Phase(gradients, weights, place)


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


def perceptron(dataset: Dataset, hidden: Sequence[int]) -> tuple[Layer, ...]:
    """Return the layers of a multilayer perceptron with these sizes of hidden layers."""
    require(isinstance(hidden, (tuple, list)) and len(hidden) < MAX_LAYERS and
            all(type(size) is int and 1 <= size <= 65536 for size in hidden), "hidden", hidden,
            f"at most {MAX_LAYERS - 1} integers from 1 to 65536")
    sizes = (dataset.features, *hidden, dataset.classes)
    return tuple(Linear(inputs, outputs) for inputs, outputs in zip(sizes, sizes[1:]))


def convolutional(dataset: Dataset, hidden: Sequence[int]) -> tuple[Layer, ...]:
    """Return the layers of a network of two 3x3 convolutions, with these channels, and a linear layer.

    The second one has stride 2; so has the first, for images of more than 16 pixels in height or width.
    """
    require(dataset.image is not None and min(dataset.image) >= 5, "image", dataset.image,
            "a data set of images of 5x5 pixels or more, because the model is cnn")
    assert dataset.image is not None  # for mypy
    require(isinstance(hidden, (tuple, list)) and len(hidden) == 2 and
            all(type(size) is int and 1 <= size <= 4096 for size in hidden), "hidden", hidden,
            "two integers from 1 to 4096, the channels of the convolutions, because the model is cnn")
    height, width = dataset.image
    first = Convolution(height, width, 1, hidden[0], stride=2 if max(height, width) > 16 else 1)
    require(min(first.shape) >= 3, "image", dataset.image, "one that leaves 3x3 pixels to the second convolution")
    second = Convolution(*first.shape, hidden[0], hidden[1], stride=2)
    return first, second, Linear(second.positions * second.outputs, dataset.classes)


# By name: what makes the layers, and the default of `hidden`.
MODELS: dict[str, tuple[Callable[[Dataset, Sequence[int]], tuple[Layer, ...]], tuple[int, ...]]] = {
    "mlp": (perceptron, (32,)), "cnn": (convolutional, (8, 16)),
}
