"""The three products of a layer, quantised as a recipe says, each along its own reduction axis.

Source: numerics contract, sections 3 to 6 and 14; ``exact=False`` is ours.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..base.checks import require
from ..golden.network import GEMMS, Convolution
from .numbers import SLOTS, Numbers
from .words import count_of

__all__ = ["add_bias", "conv2d", "embedding", "linear", "matmul"]

# Of the operands of each product, as they are stored: the reduction axis counted from the end.
AXES = {gemm: tuple(axis - 2 for _, axis in operands) for gemm, operands in GEMMS.items()}
KINDS = {gemm: tuple(kind for kind, _ in operands) for gemm, operands in GEMMS.items()}


def _eager(function: Callable) -> Callable:
    """Keep a function out of torch.compile, whose graph breaks there, and out of autocast: products are in fp32."""
    @functools.wraps(function)
    def called(x: Tensor, *arguments: Any, **settings: Any) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *arguments, **settings)
    return torch.compiler.disable(called)


def _matrix(x: Tensor) -> Tensor:
    """Return a tensor as one matrix."""
    return x.reshape(-1, x.shape[-1])


def _channels_last(x: Tensor) -> Tensor:
    """Return images (batch, channels, height, width) as the matrix (pixels, channels)."""
    return _matrix(x.permute(0, 2, 3, 1))


class _Product(torch.autograd.Function):
    """x @ y.T of matrices as they are stored, (..., M, K) and (..., N, K), and its two gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, numbers: Numbers, layer: int, training: bool) -> Tensor:
        ctx.numbers, ctx.layer, ctx.step = numbers, layer, numbers.address(layer, training)
        ctx.save_for_backward(x, y)
        return _multiply(ctx, "forward", x, y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        x, y = ctx.saved_tensors
        by_y = _multiply(ctx, "weight-gradient", gradient, x) if ctx.needs_input_grad[1] else None
        by_x = _multiply(ctx, "input-gradient", gradient, y) if ctx.needs_input_grad[0] else None
        return by_x, by_y, None, None, None


def _multiply(ctx: Any, gemm: str, x: Tensor, y: Tensor) -> Tensor:
    """Return one of the `GEMMS` for batched matrices, as they are stored."""
    numbers: Numbers = ctx.numbers
    if numbers.exact:
        return _exact(ctx, gemm, x, y)
    a, b = _operands(ctx, gemm, (x, y), AXES[gemm], (_matrix(x), _matrix(y)))
    m, k, n = x.shape[-3 - AXES[gemm][0]], x.shape[AXES[gemm][0]], y.shape[-3 - AXES[gemm][1]]
    numbers.count(gemm, KINDS[gemm], (m, n, k), ctx.modes, ctx.step, math.prod(x.shape[:-2]))
    return numbers.work((a if AXES[gemm][0] == -1 else a.mT) @ (b.mT if AXES[gemm][1] == -1 else b))


def _operands(ctx: Any, gemm: str, operands: tuple[Tensor, Tensor], axes: tuple[int, ...],
              stored: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Return both operands of a product rounded along their axes, and keep their modes."""
    numbers, layer, step = ctx.numbers, ctx.layer, ctx.step
    ctx.modes = tuple(numbers.mode(kind, layer, step, each) for kind, each in zip(KINDS[gemm], stored))
    return tuple(numbers.operand(each, axis, mode, layer, SLOTS[gemm] + side, step)
                 for side, (each, axis, mode) in enumerate(zip(operands, axes, ctx.modes)))


def _exact(ctx: Any, gemm: str, x: Tensor, y: Tensor, whole: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return golden's products of batched matrices, one after the other; `whole` are the tensors they are made of."""
    numbers, layer, step = ctx.numbers, ctx.layer, ctx.step
    counted, found = (_matrix(x), _matrix(y)), []
    for pair in zip(x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:])):
        counts = [count_of(each, axis, numbers.recipe.system.group) for each, axis in zip(pair, AXES[gemm])]
        before = [numbers.vectors(layer, SLOTS[gemm] + side, step, count) for side, count in enumerate(counts)]
        found.append(numbers.exact_product(gemm, layer, pair, step, whole or counted, (before[0], before[1]), counted))
    return torch.stack(found).reshape(*x.shape[:-2], *found[0].shape)


@_eager
def matmul(a: Tensor, b: Tensor, numbers: Numbers, layer: int = 0, training: bool = True) -> Tensor:
    """Return ``a @ b`` of tensors (..., M, K) and (..., K, N); a is rounded as activations are, and b as weights.

    Parameters
    ----------
    a, b : Tensor
        Of shapes that broadcast. They count as fp32, and so does the result, which has a number of the work format.
    numbers : Numbers
    layer : int
        Whose random words are taken.
    training : bool
        Whether the pass is one of training, and gradients follow. Else it is one that measures.
    """
    require(a.dim() >= 2 and b.dim() >= 2 and a.shape[-1] == b.shape[-2], "shapes", (tuple(a.shape), tuple(b.shape)),
            "(..., M, K) and (..., K, N)")
    outer = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return _Product.apply(a.float().expand(*outer, *a.shape[-2:]),
                          b.float().mT.expand(*outer, b.shape[-1], b.shape[-2]), numbers, layer, training)


@_eager
def linear(x: Tensor, weight: Tensor, numbers: Numbers, layer: int = 0, training: bool = True) -> Tensor:
    """Return ``x @ weight.T`` of features (..., inputs) and weights (outputs, inputs). Parameters as in `matmul`."""
    found = _Product.apply(_matrix(x.float()), weight.float(), numbers, layer, training)
    return found.reshape(*x.shape[:-1], len(weight))


class _Bias(torch.autograd.Function):
    """Adds a bias to channels, which are axis 1, in the work format."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, numbers: Numbers) -> Tensor:
        ctx.numbers = numbers
        return numbers.add(x, bias.reshape(-1, *(1,) * (x.dim() - 2)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        return gradient, ctx.numbers.total(_matrix(gradient.movedim(1, -1))), None


@_eager
def add_bias(x: Tensor, bias: Tensor, numbers: Numbers) -> Tensor:
    """Return x plus a bias for each number of its axis 1; with ``exact`` the gradient is summed in golden's order."""
    return _Bias.apply(x, bias.float(), numbers)


class _Convolution(torch.autograd.Function):
    """A convolution of images with operands that are rounded before they are unrolled.

    Groups lie along the channels in the forward product and in the input gradient, and along the pixels of a channel
    in the weight gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, numbers: Numbers, layer: int, training: bool, settings: tuple
                ) -> Tensor:
        ctx.numbers, ctx.layer, ctx.step = numbers, layer, numbers.address(layer, training)
        ctx.settings = settings
        ctx.save_for_backward(x, weight)
        a, b = _images(ctx, "forward", x, weight, (1, 1))
        found = torch.nn.functional.conv2d(a, b, None, *settings)
        _count(ctx, "forward", found, weight)
        return numbers.work(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        by_weight = by_x = None
        if ctx.needs_input_grad[1]:
            a, b = _images(ctx, "weight-gradient", gradient, x, None)
            by_weight = ctx.numbers.work(torch.nn.grad.conv2d_weight(b, weight.shape, a, *ctx.settings))
            _count(ctx, "weight-gradient", gradient, weight)
        if ctx.needs_input_grad[0]:
            a, b = _images(ctx, "input-gradient", gradient, weight, (1, 0))
            by_x = ctx.numbers.work(torch.nn.grad.conv2d_input(x.shape, b, a, *ctx.settings))
            _count(ctx, "input-gradient", gradient, weight)
        return by_x, by_weight, None, None, None, None


def _images(ctx: Any, gemm: str, x: Tensor, y: Tensor, axes: tuple[int, int] | None) -> tuple[Tensor, ...]:
    """Return the rounded operands of a convolution's product; without axes along the pixels of each channel."""
    stored = (_channels_last(x), _channels_last(y)) if ctx.numbers.adaptive else (x, y)
    if axes is not None:
        return _operands(ctx, gemm, (x, y), axes, stored)
    if all(each[0, 0].numel() % ctx.numbers.recipe.system.group == 0 for each in (x, y)):
        # Groups that end with an image need no copy in which the images of a channel follow each other.
        found = _operands(ctx, gemm, (x.flatten(2), y.flatten(2)), (2, 2), stored)
        return tuple(each.reshape(image.shape) for each, image in zip(found, (x, y)))
    found = _operands(ctx, gemm, (x.transpose(0, 1).flatten(1), y.transpose(0, 1).flatten(1)), (1, 1), stored)
    return tuple(each.reshape(image.shape[1], len(image), *image.shape[2:]).transpose(0, 1)
                 for each, image in zip(found, (x, y)))


def _count(ctx: Any, gemm: str, result: Tensor, weight: Tensor) -> None:
    """Take a convolution's product into the account, as if it were one of unrolled patches."""
    pixels, outputs, patch = result.numel() // result.shape[1], len(weight), weight[0].numel()
    sizes = {"forward": (pixels, outputs, patch), "input-gradient": (pixels, patch, outputs),
             "weight-gradient": (outputs, patch, pixels)}[gemm]
    ctx.numbers.count(gemm, KINDS[gemm], sizes, ctx.modes, ctx.step)


class _ExactConvolution(torch.autograd.Function):
    """Golden's convolution: products of unrolled patches, in the hardware's order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, numbers: Numbers, layer: int, training: bool,
                geometry: Convolution) -> Tensor:
        ctx.numbers, ctx.layer, ctx.step, ctx.geometry = numbers, layer, numbers.address(layer, training), geometry
        features = _channels_last(x).reshape(len(x), -1)
        patches = torch.tensor(geometry.unroll(features.cpu().numpy()), device=x.device)
        kernels = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        ctx.save_for_backward(features, patches, kernels)
        found = _exact(ctx, "forward", patches, kernels, (features, kernels))
        return found.reshape(len(x), *geometry.shape, geometry.outputs).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (features, patches, kernels), geometry, numbers = ctx.saved_tensors, ctx.geometry, ctx.numbers
        rows, by_x, by_weight = _channels_last(gradient), None, None
        if ctx.needs_input_grad[1]:
            found = _exact(ctx, "weight-gradient", rows, patches, (rows, features))
            by_weight = found.reshape(len(found), geometry.kernel, geometry.kernel, -1).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            found = numbers.exact_input_gradient(geometry, ctx.layer, rows, kernels, ctx.step)
            by_x = found.reshape(len(gradient), geometry.height, geometry.width, -1).permute(0, 3, 1, 2)
        return by_x, by_weight, None, None, None, None


@_eager
def conv2d(x: Tensor, weight: Tensor, numbers: Numbers, layer: int = 0, training: bool = True, *,
           stride: tuple[int, int] = (1, 1), padding: tuple[int, int] = (0, 0), dilation: tuple[int, int] = (1, 1),
           groups: int = 1) -> Tensor:
    """Return the convolution of images (batch, channels, height, width) with weights as `torch.nn.Conv2d` has them.

    Without ``exact`` operands are rounded before they are unrolled: see docs/torch.md. With it, the kernel is square,
    the settings are the same in both directions, and there are neither dilation nor groups, as golden has none.

    Parameters
    ----------
    stride, padding, dilation : (int, int)
    groups : int
    x, weight, numbers, layer, training
        As in `linear`.
    """
    x, weight = x.float(), weight.float()
    if not numbers.exact:
        return _Convolution.apply(x, weight, numbers, layer, training, (stride, padding, dilation, groups))
    kernel = tuple(weight.shape[2:])
    require(all(len(set(each)) == 1 for each in (kernel, stride, padding)) and dilation == (1, 1) and groups == 1 and
            padding[0] < kernel[0], "convolution", (kernel, stride, padding, dilation, groups),
            "with exact a square kernel, the same stride and padding both ways, dilation 1, groups 1")
    geometry = Convolution(x.shape[2], x.shape[3], x.shape[1], len(weight), kernel[0], stride[0], padding[0])
    return _ExactConvolution.apply(x, weight, numbers, layer, training, geometry)


class _Embedding(torch.autograd.Function):
    """Rows of a table, rounded as weights along their length; their gradients are rounded likewise, and summed."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor, numbers: Numbers, layer: int, training: bool,
                padding: int | None) -> Tensor:
        ctx.numbers, ctx.layer, ctx.step, ctx.padding = numbers, layer, numbers.address(layer, training), padding
        ctx.shape = weight.shape
        ctx.save_for_backward(index)
        return _rounded(ctx, "weights", SLOTS["forward"] + 1, weight[index])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        index, = ctx.saved_tensors
        rounded = _matrix(_rounded(ctx, "gradients", SLOTS["weight-gradient"], gradient))
        found = torch.zeros(ctx.shape, device=gradient.device).index_add_(0, index.reshape(-1), rounded)
        if ctx.padding is not None:
            found[ctx.padding] = 0
        return found, None, None, None, None, None


def _rounded(ctx: Any, kind: str, slot: int, x: Tensor) -> Tensor:
    mode = ctx.numbers.mode(kind, ctx.layer, ctx.step, _matrix(x))
    return ctx.numbers.operand(x, -1, mode, ctx.layer, slot, ctx.step)


@_eager
def embedding(weight: Tensor, index: Tensor, numbers: Numbers, layer: int = 0, training: bool = True,
              padding: int | None = None) -> Tensor:
    """Return the rows of a table (numbers, length) that an index names: no product, so nothing is summed forward.

    Rows are rounded along their length. The gradient of a row is the sum of the rounded gradients of its uses, in
    fp32; that of the row `padding` is zero.
    """
    return _Embedding.apply(weight.float(), index, numbers, layer, training, padding)
