"""A training run: linear layers, ReLU, softmax cross-entropy, SGD with momentum.

Every bit that reaches a weight comes from single IEEE operations on float32 or float64 in an
order fixed here, so a run ends with the same digest on every machine. That is why there is no
float matrix product, sum, exp or log of NumPy on that path: their last bit is the machine's.

Tensors are kept in the work format, fp32: weights (outputs, inputs), activations (batch,
features), gradients (batch, features). A GEMM's operands are quantised for that GEMM alone,
each along its reduction axis and from the work-format copy. Source: numerics contract,
sections 3 and 6; initialisation, shuffling and the seeds of streams are ours.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from . import blockfloat, lfsr
from .formats import PRESETS, require, require_int
from .recipes import Recipe

__all__ = ["GEMMS", "Epoch", "Gemms", "Result", "digest", "forward", "gradients", "initialise", "matmul_fp32",
           "relu", "sgd", "softmax_gradient", "stream_seed", "train"]

# The operands of each GEMM in order: kind of tensor, and its reduction axis as it is stored.
GEMMS = {
    "forward": (("activations", 1), ("weights", 1)),
    "input-gradient": (("gradients", 1), ("weights", 0)),
    "weight-gradient": (("gradients", 0), ("activations", 0)),
}
SLAB = 1 << 14  # sums worked on at a time, so that they stay in the cache
MAX_LAYERS = 32
MAX_SEED = (1 << 23) - 1


def stream_seed(seed, layer, gemm, operand, evaluation=False):
    """Return the seed of the random words for one operand of one GEMM of one layer.

    ``seed * 256 + layer * 8 + slot``: slots 0 .. 5 are the operands in the order of `GEMMS`,
    6 and 7 those of ``forward`` when accuracy is measured, which so leaves training's words
    alone. For run seeds below 2**23 it is a seed that the hardware's converters take.
    """
    slot = 6 + operand if evaluation else 2 * list(GEMMS).index(gemm) + operand
    return seed * 256 + layer * 8 + slot


class Gemms:
    """The matrix products of one run: quantise, multiply, return to the work format.

    Parameters
    ----------
    recipe : Recipe
    seed : int
        The run's; each operand that is rounded stochastically gets an `lfsr.Stream` of
        `stream_seed`, which takes one draw per group in the order of `blockfloat.quantise`.
    record : callable, optional
        Called before each GEMM of training, once per operand, with (step, layer, gemm, kind,
        array, axis): see `train`.

    Attributes
    ----------
    invalid : bool
        Sticky: a quantiser met a NaN.
    """

    def __init__(self, recipe, seed, record=None):
        self.recipe, self.seed, self.record = recipe, seed, record
        self.invalid = False
        self._streams = {}

    def product(self, gemm, layer, x, y, step=None):
        """Return one GEMM of `GEMMS` as float32, from operands as they are stored.

        `step` counts training steps from 0; None means that accuracy is measured.
        """
        operands = []
        for operand, ((kind, axis), array) in enumerate(zip(GEMMS[gemm], (x, y))):
            if self.record and step is not None:
                self.record(step, layer, gemm, kind, array, axis)
            # A product is of (M, K) and (K, N): the first operand reduces along axis 1, the second along 0.
            if axis == operand:
                array, axis = array.T, 1 - axis
            operands.append(self._quantise(array, axis, kind, (layer, gemm, operand, step is None)))
        if self.recipe.weights.format is None:
            return matmul_fp32(*operands)
        return blockfloat.matmul(*operands, self.recipe.accumulator).astype(np.float32)

    def _quantise(self, array, axis, kind, use):
        quantiser = self.recipe.quantiser(kind)
        fmt, rounding, stream = quantiser.format, quantiser.rounding, None
        if fmt is None:
            return array
        if rounding.kind == "stochastic":
            if use not in self._streams:
                self._streams[use] = lfsr.Stream(stream_seed(self.seed, *use), fmt.group, bits=rounding.bits)
            stream = self._streams[use]
        blocks = blockfloat.quantise(array, fmt, axis=axis, rounding=rounding, random=stream)
        self.invalid |= blocks.invalid
        return blocks


def matmul_fp32(a, b):
    """Return the product of float32 matrices (M, K) and (K, N) as float32.

    Sums start at +0 and take the products in rising order along K; every product and every
    sum is rounded to nearest even.
    """
    columns, b = np.ascontiguousarray(a.T), np.ascontiguousarray(b)
    total = np.zeros((len(a), b.shape[1]), np.float32)
    rows = max(1, SLAB // b.shape[1])
    product = np.empty_like(total[:rows])
    for start in range(0, len(total), rows):
        part = total[start:start + rows]
        for column, row in zip(columns[:, start:start + rows, np.newaxis], b):
            part += np.multiply(column, row, out=product[:len(part)])
    return total


def relu(z):
    """Return z where it is not zero or below, else +0. A NaN stays."""
    return np.where(z <= 0, np.float32(0), z)


def _exp(x):
    """Return e**x of float64, within 1e-15 relative of it, from basic operations alone.

    x = n*ln(2) + r, |r| <= ln(2)/2; a polynomial in r, then a shift by n.
    """
    # Beyond these ends the result is 0 or Inf anyway.
    x = np.clip(x, -1000.0, 1000.0)
    n = np.rint(x * 1.4426950408889634)
    # ln(2) in two parts, the first of so few bits that its product with n is exact.
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    series = np.full_like(r, 1 / math.factorial(13))
    for k in range(12, -1, -1):
        series = series * r + 1 / math.factorial(k)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.ldexp(series, np.where(np.isnan(n), 0, n).astype(np.int32))


def _shifted(logits):
    """Return (z - max z, the sum of its exponentials, the exponentials): float64, one row per example."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    powers = _exp(z)
    total = np.zeros(len(z))
    for column in powers.T:
        total += column
    return z, total, powers


def softmax_gradient(logits, y):
    """Return the gradient of the mean cross-entropy, (p - y) / batch.

    Parameters
    ----------
    logits : ndarray of float32, shape (batch, classes)
    y : ndarray of int, shape (batch,)

    Returns
    -------
    ndarray of float32, shape (batch, classes)
        Computed in float64, classes summed in rising order, rounded once at the end.
    """
    _, total, p = _shifted(logits)
    p /= total[:, np.newaxis]
    p[np.arange(len(y)), y] -= 1.0
    return (p / len(y)).astype(np.float32)


def initialise(sizes, rng):
    """Return [(weights, bias)] of float32 for layers of these sizes, inputs first.

    Weights are He-uniform, on +-sqrt(6 / inputs), from ``rng.random()`` in layer order, row
    by row; biases are zero.
    """
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        bound = math.sqrt(6 / inputs)
        weights = (2.0 * rng.random((outputs, inputs)) - 1.0) * bound
        layers.append((weights.astype(np.float32), np.zeros(outputs, np.float32)))
    return layers


def forward(gemms, layers, x, step=None):
    """Return (inputs of each layer, logits) for float32 examples of shape (batch, features)."""
    inputs = [x]
    for i, (weights, bias) in enumerate(layers):
        z = gemms.product("forward", i, inputs[-1], weights, step) + bias
        inputs.append(relu(z))
    return inputs[:-1], z


def gradients(gemms, layers, x, y, step):
    """Return [(weights' gradient, bias' gradient)] of the mean cross-entropy, float32, in layer order.

    A bias' gradient is summed in fp32 over the batch in rising order, from +0. From the last
    layer to the first: the weight gradient, then the input gradient, which the first has not.
    """
    inputs, logits = forward(gemms, layers, x, step)
    delta = softmax_gradient(logits, y)
    found = []
    for i in reversed(range(len(layers))):
        by_weights = gemms.product("weight-gradient", i, delta, inputs[i], step)
        by_bias = matmul_fp32(np.ones((1, len(delta)), np.float32), delta)[0]
        found.append((by_weights, by_bias))
        if i > 0:
            delta = gemms.product("input-gradient", i, delta, layers[i][0], step)
            # relu's output is zero or below exactly where its input is.
            delta = np.where(inputs[i] <= 0, np.float32(0), delta)
    return found[::-1]


def sgd(parameter, velocity, gradient, lr, momentum):
    """Return the next (parameter, velocity), float32, every operation rounded to nearest even.

    v <- momentum*v + g; u <- -(lr*v); w <- w + u: numerics contract, section 6, ``plain``.
    """
    velocity = np.float32(momentum) * velocity + gradient
    return parameter + -(np.float32(lr) * velocity), velocity


def digest(layers):
    """Return the SHA-256 over the fp32 codes, little-endian: weights, then bias, layer by layer.

    Codes rather than the machine's bytes: a NaN has one code.
    """
    state = hashlib.sha256()
    for layer in layers:
        for parameter in layer:
            state.update(PRESETS["fp32"].encode(parameter).astype("<u4").tobytes())
    return state.hexdigest()


@dataclass(frozen=True)
class Epoch:
    """How a run stood after an epoch.

    Parameters
    ----------
    epoch : int
        From 1.
    loss : float
        Mean cross-entropy over the training part. Only reported, so its last bits may be the machine's.
    train_accuracy, test_accuracy : float
        0 .. 1, from the recipe's own forward path.
    """

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float


@dataclass(frozen=True, eq=False)
class Result:
    """What a training run ends with.

    Parameters
    ----------
    recipe : Recipe
    seed : int
    history : tuple of Epoch
    parameters : tuple of (weights, bias)
        Per layer, float32 of shapes (outputs, inputs) and (outputs,).
    digest : str
        See `digest`.
    invalid : bool
        A quantiser met a NaN, and saturated it.
    """

    recipe: Recipe
    seed: int
    history: tuple
    parameters: tuple
    digest: str
    invalid: bool

    @property
    def accuracy(self):
        """Final accuracies as ``{"train", "test"}``."""
        return {"train": self.history[-1].train_accuracy, "test": self.history[-1].test_accuracy}


def _evaluate(gemms, layers, x, y):
    """Return (mean cross-entropy, accuracy); of equal logits the first counts."""
    logits = forward(gemms, layers, x)[1]
    z, total, _ = _shifted(logits)
    loss = math.fsum(np.log(total) - z[np.arange(len(y)), y]) / len(y)
    return loss, float(np.count_nonzero(logits.argmax(axis=1) == y) / len(y))


def train(recipe, dataset, *, seed=1, epochs=20, lr=0.1, batch=32, hidden=(32,), momentum=0.9, progress=None,
          record=None):
    """Train a multilayer perceptron.

    Parameters
    ----------
    recipe : Recipe
    dataset : Dataset
    seed : int
        0 .. 2**23 - 1. One generator, ``default_rng(seed)``, gives first the weights and then,
        at the start of each epoch, one number per example, whose order is the epoch's order.
    epochs, batch : int
        The last batch of an epoch may be smaller; its gradient is divided by its own size.
    lr, momentum : float
        Constant; rounded to fp32.
    hidden : tuple of int
        Sizes of the hidden layers.
    progress : callable, optional
        Called after each epoch with (epoch, epochs, Epoch).
    record : callable, optional
        Called before each GEMM of training, once per operand, with (step, layer, gemm, kind,
        array, axis): gemm a key of `GEMMS`; kind ``weights``, ``activations`` or ``gradients``;
        the array in the work format as it is stored, never changed later; its reduction axis.

    Returns
    -------
    Result
    """
    _require_run(dataset, seed, epochs, lr, batch, hidden, momentum)
    gemms, rng = Gemms(recipe, seed, record), np.random.default_rng(seed)
    layers = initialise((dataset.features, *hidden, dataset.classes), rng)
    velocities = [tuple(np.zeros_like(p) for p in layer) for layer in layers]
    history, step, count = [], 0, len(dataset.train_x)
    # A run that diverges shows it in its loss; NumPy's warnings would only repeat that.
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in range(1, epochs + 1):
            order = np.argsort(rng.random(count), kind="stable")
            for start in range(0, count, batch):
                chosen = order[start:start + batch]
                slopes = gradients(gemms, layers, dataset.train_x[chosen], dataset.train_y[chosen], step)
                for i, layer in enumerate(layers):
                    moved = [sgd(*each, lr, momentum) for each in zip(layer, velocities[i], slopes[i])]
                    layers[i], velocities[i] = zip(*moved)
                step += 1
            loss, train_accuracy = _evaluate(gemms, layers, dataset.train_x, dataset.train_y)
            _, test_accuracy = _evaluate(gemms, layers, dataset.test_x, dataset.test_y)
            history.append(Epoch(epoch, loss, train_accuracy, test_accuracy))
            if progress:
                progress(epoch, epochs, history[-1])
    return Result(recipe, seed, tuple(history), tuple(layers), digest(layers), gemms.invalid)


def _require_run(dataset, seed, epochs, lr, batch, hidden, momentum):
    require_int("seed", seed, 0, MAX_SEED)
    require_int("epochs", epochs, 1, 10**6)
    require(type(lr) in (int, float) and 0 < lr <= 1e6, "lr", lr, "a number above 0, at most 1e6")
    require_int("batch", batch, 1, len(dataset.train_x))
    require(isinstance(hidden, (tuple, list)) and len(hidden) < MAX_LAYERS and
            all(type(size) is int and 1 <= size <= 65536 for size in hidden), "hidden", hidden,
            f"at most {MAX_LAYERS - 1} integers from 1 to 65536")
    require(type(momentum) in (int, float) and 0 <= momentum < 1, "momentum", momentum, "a number from 0 to below 1")
