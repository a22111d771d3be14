"""From a torch model to a network of `golden.network`, and so to the training core; and the loss that both share."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.checks import require
from ..base.files import whole
from ..golden.network import Convolution, State, cross_entropies
from ..golden.network import Linear as Dense
from ..golden.network.saved import describe, require_place, write
from ..golden.recipes import Recipe
from .layers import Flatten
from .numbers import Numbers

__all__ = ["Exported", "cross_entropy", "export"]

ALLOWED = "Conv2d, Linear, ReLU, Flatten"


@dataclass(frozen=True, eq=False)
class Exported:
    """A network of `golden.network`.

    Attributes
    ----------
    layers : tuple of Convolution or Linear
    parameters : tuple of (weights, bias)
        Of each layer, as golden has them: float32 of shapes (outputs, patch) and (outputs,).
    shape : tuple of int
        Of an example, as torch has it: (channels, height, width) or (features,).
    """

    layers: tuple[Any, ...]
    parameters: tuple[tuple[np.ndarray, np.ndarray], ...]
    shape: tuple[int, ...]

    def features(self, x: Tensor) -> np.ndarray:
        """Return examples (batch, *shape) as golden has them: float32, (batch, features), pixel by pixel."""
        x = x.movedim(1, -1) if len(self.shape) == 3 else x
        return np.ascontiguousarray(x.detach().cpu().float().reshape(len(x), -1).numpy())

    def write(self, model: str | os.PathLike, start: str | os.PathLike, recipe: Recipe) -> None:
        """Write files for ``narrowgauge train --model MODEL --start START``, with ``--rtl`` in the core too.

        Parameters
        ----------
        model : path
            Of the layers; its name ends in .json.
        start : path
            Of the parameters, in the formats of the recipe.
        recipe : Recipe
            Of the run that begins with them.
        """
        require(os.fspath(model).lower().endswith(".json"), "model", os.fspath(model), "a name that ends in .json")
        require_place("start", start)
        state = State(recipe, self.parameters)
        with whole(model) as file:
            file.write((json.dumps({"layer": [_entry(layer) for layer in self.layers]}, indent=1) + "\n").encode())
        write(start, {"configuration": describe({"layers": self.layers, "formats": state.formats()})},
              {name: field.array for name, field in state.fields().items()})


def _entry(layer: Any) -> dict[str, Any]:
    """Return a layer as a model file has it."""
    if isinstance(layer, Dense):
        return {"type": "linear", "outputs": layer.outputs}
    return {"type": "convolution", "outputs": layer.outputs, "kernel": layer.kernel, "stride": layer.stride,
            "padding": layer.padding}


def _modules(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of nested Sequentials in order, with their names."""
    for key, module in model.named_children():
        if type(module) is nn.Sequential:
            yield from _modules(module, f"{name}{key}.")
        else:
            yield name + key, module


def export(model: nn.Module, shape: Sequence[int]) -> Exported:
    """Return a Sequential as a network of `golden.network`, with its weights.

    Parameters
    ----------
    model : Sequential
        Of Conv2d, Linear, ReLU and Flatten, converted or not. A ReLU follows each layer but the last, which is linear.
        Flatten is this package's, or torch's. Behind torch's own the columns of the weights are exported in another
        order, so that golden computes the same, but for the last bits.
    shape : sequence of int
        Of an example: (channels, height, width), or (features,).

    Raises
    ------
    ValueError
        One line, with the name of the module that has no counterpart, and what is allowed.
    """
    require(type(model) is nn.Sequential, "model", type(model).__name__, "a Sequential")
    shape = at = tuple(shape)
    require(len(at) in (1, 3) and all(type(each) is int and each > 0 for each in at), "shape", at,
            "(channels, height, width) or (features,)")
    layers: list[Any] = []
    parameters: list[tuple[np.ndarray, np.ndarray]] = []
    channels_first: tuple[int, ...] | None = None  # of images that were flattened, for the linear layer behind
    awaited, name = False, ""  # whether a ReLU has to follow
    for name, module in _modules(model):
        where = f"module {name}"
        require(not awaited or isinstance(module, nn.ReLU), where, type(module).__name__,
                "ReLU, which follows each layer but the last")
        if isinstance(module, nn.ReLU):
            require(awaited, where, "ReLU", "a layer, because ReLU follows a layer")
            awaited = False
        elif isinstance(module, (nn.Flatten, Flatten)):
            require(len(at) == 3 and (isinstance(module, Flatten) or (module.start_dim, module.end_dim) == (1, -1)),
                    where, str(module), "Flatten() of images")
            channels_first = at if isinstance(module, nn.Flatten) else None
            at = (math.prod(at),)
        else:
            layer, found = _layer(where, module, at, channels_first)
            layers.append(layer)
            parameters.append(found)
            at, channels_first, awaited = ((layer.outputs, *layer.shape) if isinstance(layer, Convolution) else
                                           (layer.outputs,)), None, True
    require(bool(layers) and awaited and isinstance(layers[-1], Dense), f"module {name}",
            "the last", "a Linear without a ReLU behind it")
    return Exported(tuple(layers), tuple(parameters), shape)


def _layer(where: str, module: Any, at: tuple[int, ...], channels_first: tuple[int, ...] | None
           ) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    """Return a layer and its parameters, for examples of a shape."""
    require(isinstance(module, (nn.Linear, nn.Conv2d)), where, type(module).__name__, ALLOWED)
    require(module.bias is not None, where, "bias=False", "a bias")
    weight = module.weight.detach().cpu().float()
    if isinstance(module, nn.Linear):
        require(at == (module.in_features,), where, f"inputs of shape {at}", f"({module.in_features},)")
        if channels_first:
            weight = weight.reshape(-1, *channels_first).movedim(1, -1)
        layer: Any = Dense(module.in_features, module.out_features)
    else:
        settings = (module.kernel_size, module.stride, module.padding)
        require(all(isinstance(each, tuple) and len(set(each)) == 1 for each in settings) and module.groups == 1 and
                module.dilation == (1, 1) and module.padding_mode == "zeros" and
                settings[2][0] < settings[0][0], where, str(module),  # type: ignore[index]  # a tuple by now
                "a square kernel, one stride, one padding of zeros below the kernel, dilation 1 and groups 1")
        require(len(at) == 3 and at[0] == module.in_channels, where, f"inputs of shape {at}",
                f"({module.in_channels}, height, width)")
        layer = Convolution(at[1], at[2], at[0], module.out_channels, *(each[0] for each in settings))
        weight = weight.movedim(1, -1)
    bias = module.bias.detach().cpu().float()
    # Copies: training goes on in the model's own memory.
    return layer, (np.array(weight.reshape(layer.outputs, -1).numpy(), order="C"), np.array(bias.numpy()))


class _CrossEntropy(torch.autograd.Function):
    """Golden's mean cross-entropy, and the errors p - y that golden trains with."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, numbers: Numbers) -> Tensor:
        ctx.save_for_backward(numbers.errors(logits, labels))
        found = cross_entropies(logits.detach().cpu().numpy(), labels.cpu().numpy())
        return logits.new_tensor(float(found.mean()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        errors, = ctx.saved_tensors
        return gradient * errors, None, None


def cross_entropy(logits: Tensor, labels: Tensor, numbers: Numbers) -> Tensor:
    """Return the mean cross-entropy of logits (batch, classes), whose gradient has golden's bits.

    `torch.nn.functional.cross_entropy` differs in last bits. A recipe with a softmax head has the head's errors; where
    its work format is neither fp32 nor fp16 it needs one: see `Recipe.with_head`.

    Parameters
    ----------
    logits : Tensor
        Numbers of the recipe's work format.
    labels : Tensor of int, shape (batch,)
    numbers : Numbers
        Of the conversion.
    """
    require(logits.dim() == 2 and labels.shape == logits.shape[:1] and not labels.is_floating_point(), "shapes",
            (tuple(logits.shape), tuple(labels.shape)), "(batch, classes) and (batch,) of integers")
    return torch.compiler.disable(_CrossEntropy.apply)(logits.float(), labels, numbers)
