"""Models: the layers of a network, by the names of built-in ones or from a file in TOML or JSON."""

import json
import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...base.checks import require
from ..datasets import Dataset
from .layers import Convolution, Layer, Linear
from .pooling import Pool

__all__ = ["KINDS", "MAX_LAYERS", "MODELS", "Model", "convolutional", "find_model", "layers_of", "perceptron",
           "read_model"]

MAX_LAYERS = 32  # those with weights
MAX_BYTES = 1 << 16  # of a file
MAX_WEIGHTS = 1 << 26  # of all layers of a file
MAX_NUMBERS = 1 << 22  # of an example's patches, and of its output, in a layer of a file
MAX_SIDE = 64  # of kernels, windows and strides of a file
MAX_OUTPUTS = {"linear": 65536, "convolution": 4096}

# The layers of a file by type: the keys beside ``type``, and the values where none are given. With None, an entry is
# checked for what it needs.
KINDS: dict[str, dict[str, Any]] = {
    "convolution": {"outputs": None, "kernel": 3, "stride": 1, "padding": 0, "batch_norm": False},
    "linear": {"outputs": None, "batch_norm": False},
    "max-pool": {"size": None, "stride": None},
    "mean-pool": {"size": None, "stride": None},
    "flatten": {},
}
FILES = "a file whose name ends in .toml or .json"


def perceptron(dataset: Dataset, hidden: Sequence[int]) -> tuple[Layer, ...]:
    """Return the layers of a multilayer perceptron with these sizes of hidden layers."""
    most = MAX_OUTPUTS["linear"]
    require(isinstance(hidden, (tuple, list)) and len(hidden) < MAX_LAYERS and
            all(type(size) is int and 1 <= size <= most for size in hidden), "hidden", hidden,
            f"at most {MAX_LAYERS - 1} integers from 1 to {most}")
    sizes = (dataset.features, *hidden, dataset.classes)
    return tuple(Linear(inputs, outputs) for inputs, outputs in zip(sizes, sizes[1:]))


def convolutional(dataset: Dataset, hidden: Sequence[int]) -> tuple[Layer, ...]:
    """Return the layers of a network of two 3x3 convolutions, with these channels, and a linear layer.

    The second one has stride 2; so has the first, for images of more than 16 pixels in height or width.
    """
    require(dataset.image is not None and min(dataset.image) >= 5, "image", dataset.image,
            "a data set of images of 5x5 pixels or more, because the model is cnn")
    assert dataset.image is not None  # for mypy
    most = MAX_OUTPUTS["convolution"]
    require(isinstance(hidden, (tuple, list)) and len(hidden) == 2 and
            all(type(size) is int and 1 <= size <= most for size in hidden), "hidden", hidden,
            f"two integers from 1 to {most}, the channels of the convolutions, because the model is cnn")
    height, width = dataset.image
    first = Convolution(height, width, dataset.channels, hidden[0], stride=2 if max(height, width) > 16 else 1)
    require(min(first.shape) >= 3, "image", dataset.image, "one that leaves 3x3 pixels to the second convolution")
    second = Convolution(*first.shape, hidden[0], hidden[1], stride=2)
    return first, second, Linear(second.positions * second.outputs, dataset.classes)


# By name: what makes the layers, and the default of `hidden`.
MODELS: dict[str, tuple[Callable[[Dataset, Sequence[int]], tuple[Layer, ...]], tuple[int, ...]]] = {
    "mlp": (perceptron, (32,)), "cnn": (convolutional, (8, 16)),
}


@dataclass(frozen=True)
class Model:
    """A network of one's own, for a data set that its layers fit.

    Parameters
    ----------
    name : str
        Of the file.
    entries : tuple of dict
        Its layers as they stand in the file, with the usual values of `KINDS` where none were given. They are checked
        as far as no data set is needed. The last one may have no ``outputs``: as many as the data set has classes.
    """

    name: str
    entries: tuple[dict[str, Any], ...]

    def layers(self, dataset: Dataset) -> tuple[Layer, ...]:
        """Return the layers with weights, for examples of a data set. Pooling belongs to the convolution before it.

        Raises
        ------
        ValueError
            One line that names the file and the layer, counted from 1, where sizes do not fit.
        """
        found: list[Layer] = []
        shape: tuple[int, ...] = (dataset.features,)
        if dataset.image:
            shape = (*dataset.image, dataset.channels)
        for number, entry in enumerate(self.entries, 1):
            where = f"{self.name}: layer {number}"
            if entry["type"] in ("convolution", "flatten"):
                require(len(shape) == 3, f"{where}: type", entry["type"], f"linear, because its input is {shape[0]} "
                        "numbers and no image")
            if entry["type"] == "flatten":
                shape = (math.prod(shape),)
            elif entry["type"] == "convolution":
                shape = _convolution(where, entry, shape, found)
            elif entry["type"] == "linear":
                last = number == len(self.entries)
                outputs = entry.get("outputs", dataset.classes)
                require(not last or outputs == dataset.classes, f"{where}: outputs", outputs,
                        f"{dataset.classes}, the classes of {dataset.name}, because the layer is the last")
                found.append(Linear(math.prod(shape), outputs, entry["batch_norm"]))
                shape = (outputs,)
            else:
                shape = _pool(where, entry, shape, found)
            if found:
                layer = found[-1]
                numbers = layer.positions * max(layer.patch, layer.outputs)
                require(numbers <= MAX_NUMBERS, f"{where}: numbers of an example", numbers, f"at most {MAX_NUMBERS}")
                weights = sum(each.outputs * each.patch for each in found)
                require(weights <= MAX_WEIGHTS, f"{where}: weights up to here", weights, f"at most {MAX_WEIGHTS}")
        return tuple(found)


def _convolution(where: str, entry: dict[str, Any], shape: tuple[int, ...], found: list[Layer]) -> tuple[int, ...]:
    """Put a convolution behind the layers; return the shape of its output."""
    height, width, channels = shape
    side = min(height, width) + 2 * entry["padding"]
    require(entry["kernel"] <= side, f"{where}: kernel", entry["kernel"], f"an integer from 1 to {side}, because the "
            f"image is {height} x {width} pixels with a padding of {entry['padding']}")
    layer = Convolution(height, width, channels, entry["outputs"], entry["kernel"], entry["stride"], entry["padding"],
                        entry["batch_norm"])
    found.append(layer)
    return *layer.shape, layer.outputs


def _pool(where: str, entry: dict[str, Any], shape: tuple[int, ...], found: list[Layer]) -> tuple[int, ...]:
    """Give the last layer, a convolution, its pooling; return the shape of the output."""
    height, width, channels = shape
    if entry["size"] == "global":
        window, stride = (height, width), max(height, width)
    else:
        side = min(height, width)
        require(entry["size"] <= side, f"{where}: size", entry["size"], f"an integer from 1 to {side}, or 'global', "
                f"because the image is {height} x {width} pixels")
        window, stride = (entry["size"], entry["size"]), entry["stride"]
    pool = Pool(entry["type"].removesuffix("-pool"), height, width, channels, window, stride)
    convolution = found[-1]
    assert isinstance(convolution, Convolution), "an entry of its own is refused when the file is read"
    found[-1] = replace(convolution, pool=pool)
    return *pool.shape, channels


def find_model(name: str) -> str | Model:
    """Return the name of a built-in model as it is, or else the model of a file: see `read_model`."""
    if isinstance(name, str) and name in MODELS:
        return name
    require(isinstance(name, str) and name.lower().endswith((".toml", ".json")), "model", name,
            f"{', '.join(MODELS)}, or {FILES}")
    return read_model(name)


def layers_of(model: str | Model, dataset: Dataset, hidden: Sequence[int] | None, batch_norm: bool
              ) -> tuple[Layer, ...]:
    """Return the layers of a model for a data set; the arguments are those of `train`."""
    if isinstance(model, Model):
        require(hidden is None, "hidden", hidden, "none, because the model is a file, which has its own")
        require(not batch_norm, "batch_norm", batch_norm, "false, because the model is a file, which says it by layer")
        return model.layers(dataset)
    require(isinstance(model, str) and model in MODELS, "model", model, f"{', '.join(MODELS)}, or a Model, which "
            "read_model gives")
    make, usual = MODELS[model]
    *others, last = make(dataset, usual if hidden is None else hidden)
    return *(replace(layer, normalised=batch_norm) for layer in others), last


def read_model(path: str | Path) -> Model:
    """Return the model of a file.

    Parameters
    ----------
    path : str or Path
        Of a TOML or JSON file: an object with ``layer``, a list of objects. docs/models.md tells their keys.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        One line that names the file, the layer, counted from 1, and what is allowed.
    """
    name = str(path)
    content = _content(name)
    _require_keys(name, content, ("layer",))
    entries = content.get("layer")
    require(isinstance(entries, list) and len(entries) > 0, f"{name}: layer", entries, "a list of one layer or more")
    assert isinstance(entries, list)  # for mypy
    checked: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, 1):
        checked.append(_entry(f"{name}: layer {number}", entry, checked[-1]["type"] if checked else None,
                              number == len(entries)))
        count = sum(each["type"] in MAX_OUTPUTS for each in checked)
        require(count <= MAX_LAYERS, f"{name}: layer {number}: linear layers and convolutions up to here", count,
                f"at most {MAX_LAYERS}")
    return Model(name, tuple(checked))


def _content(name: str) -> Any:
    """Return what a file of TOML or JSON holds."""
    require(name.lower().endswith((".toml", ".json")), "model", name, FILES)
    try:
        with open(Path(name).expanduser(), "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}; expected a model file") from None
    require(len(content) <= MAX_BYTES, f"{name}: bytes", f"more than {MAX_BYTES}", f"at most {MAX_BYTES}")
    kind = "TOML" if name.lower().endswith(".toml") else "JSON"
    try:
        text = content.decode()
        return tomllib.loads(text) if kind == "TOML" else json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not {kind} ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, whose keys must differ, as those of TOML do."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _require_keys(where: str, content: Any, allowed: Sequence[str]) -> None:
    require(isinstance(content, dict), where, content, f"an object with {', '.join(allowed)}")
    for key in content:
        require(key in allowed, f"{where}: key", key, ", ".join(allowed))


def _entry(where: str, entry: Any, before: str | None, last: bool) -> dict[str, Any]:
    """Return a checked layer of a file, with its usual values; `before` is the type of the layer before it."""
    require(isinstance(entry, dict), where, entry, "an object with type")
    kind = entry.get("type")
    require(isinstance(kind, str) and kind in KINDS, f"{where}: type", kind, ", ".join(KINDS))
    keys = KINDS[kind]
    _require_keys(where, entry, ("type", *keys))
    require(before == "convolution" or not kind.endswith("-pool"), f"{where}: type", kind,
            "convolution, linear, flatten, because a pooling stands right behind a convolution")
    require(kind == "linear" or not last, f"{where}: type", kind, "linear, because the layer is the last")
    found = {"type": kind, **{key: value for key, value in keys.items() if value is not None}, **entry}
    if kind in MAX_OUTPUTS and ("outputs" in entry or not last):
        _require_value(where, found, "outputs", 1, MAX_OUTPUTS[kind])
    if kind == "convolution":
        _require_value(where, found, "kernel", 1, MAX_SIDE)
        _require_value(where, found, "stride", 1, MAX_SIDE)
        _require_value(where, found, "padding", 0, found["kernel"] - 1)
    if "batch_norm" in keys:
        require(type(found["batch_norm"]) is bool, f"{where}: batch_norm", found["batch_norm"], "true, false")
        require(not (last and found["batch_norm"]), f"{where}: batch_norm", True,
                "false, because the layer is the last")
    if found.get("size") == "global":
        require("stride" not in entry, f"{where}: stride", entry.get("stride"), "none, because the size is global")
    elif "size" in keys:
        _require_value(where, found, "size", 1, MAX_SIDE, ", or 'global'")
        found.setdefault("stride", found["size"])
        _require_value(where, found, "stride", found["size"], MAX_SIDE, ": size or more, so that no windows overlap")
    return found


def _require_value(where: str, entry: dict[str, Any], key: str, low: int, high: int, more: str = "") -> None:
    """Require an integer from `low` to `high`."""
    allowed = f"an integer from {low} to {high}{more}"
    if key not in entry:
        raise ValueError(f"{where}: {key} is missing; allowed: {allowed}")
    value = entry[key]
    require(type(value) is int and low <= value <= high, f"{where}: {key}", value, allowed)
