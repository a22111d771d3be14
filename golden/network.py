"""A training run: linear and convolutional layers, batch statistics, ReLU, softmax cross-entropy, SGD or Madam.

Every bit that reaches a weight comes from single IEEE operations on float16, float32 or float64
in an order fixed here, so a run ends with the same digest on every machine. That is why there is
no float matrix product, sum, exp or log of NumPy on that path: their last bit is the machine's.

Tensors are kept in the work format, fp32 or fp16: weights (outputs, inputs), activations (batch,
features), gradients (batch, features). A GEMM's operands are quantised for that GEMM alone,
each along its reduction axis and from the work-format copy. Parameters may have a format of their
own between the steps (see `Narrow`). Weights that a recipe keeps as logarithmic codes have no
work-format copy (see `LogWeights`). A convolution is a GEMM over patches:
its rows are the positions of every example. Source: numerics contract, sections 3 to 10;
initialisation, shuffling, the seeds of streams and the order in which overlapping patches are
added are ours.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from ..base.checks import require, require_int
from . import lfsr, logarithmic, madam, softmax
from . import update as updates
from .floating import PlainSystem
from .formats import PRESETS, Fixed, Float
from .logarithmic import Logs
from .number_system import Draws
from .precision import Control, Policies, Rising, range_test
from .recipes import LARGEST_SCALE, Kept, Recipe
from .rounding import NEAREST, stochastic

__all__ = ["Convolution", "Epoch", "GEMMS", "Gemms", "Linear", "LogWeights", "MODELS", "Result", "check",
           "convolutional", "digest", "forward", "gradients", "initialise", "normalise", "normalise_gradient",
           "perceptron", "precision_range", "relu", "sgd", "softmax_gradient", "stream_seed",
           "train"]

# The operands of each GEMM in order: kind of tensor, and its reduction axis as it is stored.
GEMMS = {
    "forward": (("activations", 1), ("weights", 1)),
    "input-gradient": (("gradients", 1), ("weights", 0)),
    "weight-gradient": (("gradients", 0), ("activations", 0)),
}
MAX_LAYERS = 32
MAX_SEED = (1 << 23) - 1
EVALUATED = 1 << 22  # elements of a layer's patches at a time, when accuracy is measured
VARIANCE_FLOOR = 2.0**-10  # added to a variance; a power of two, so that fp16 has it too
RUNNING = 0.1  # the part of a batch's statistics in the running ones


def stream_seed(seed, layer, gemm, operand, evaluation=False):
    """Return the seed of the random words for one operand of one GEMM of one layer.

    ``seed * 256 + layer * 8 + slot``: slots 0 .. 5 are the operands in the order of `GEMMS`,
    6 and 7 those of ``forward`` when accuracy is measured, which so leaves training's words
    alone. For run seeds below 2**23 it is a seed that the hardware's converters take. Logarithmic
    operands need no words: Madam's update of a layer has those of its weight gradient's first
    operand. SGD's stochastic update has those of slot 7. The first layer has no input gradient: the
    softmax head has the words of that one's first operand.
    """
    slot = 6 + operand if evaluation else 2 * list(GEMMS).index(gemm) + operand
    return seed * 256 + layer * 8 + slot


@dataclass(frozen=True)
class Linear:
    """A layer that takes every feature of an example to each of its outputs."""

    inputs: int
    outputs: int

    @property
    def patch(self):
        """Products in a sum of the forward GEMM: columns of the weights."""
        return self.inputs

    @property
    def positions(self):
        """Rows of the forward GEMM for each example."""
        return 1

    def unroll(self, x):
        """Return the forward GEMM's first operand for features of shape (batch, inputs)."""
        return x

    def fold(self, patches):
        """Return the gradient of the features for that of what `unroll` made of them."""
        return patches


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
    def shape(self):
        """Height and width of the output."""
        return tuple((side - self.kernel) // self.stride + 1 for side in (self.height, self.width))

    @property
    def patch(self):
        """Products in a sum of the forward GEMM: columns of the weights."""
        return self.kernel * self.kernel * self.channels

    @property
    def positions(self):
        """Rows of the forward GEMM for each example: (batch, positions * outputs) are the output's features."""
        return math.prod(self.shape)

    def unroll(self, x):
        """Return the patches (batch * positions, patch) of features (batch, height * width * channels)."""
        images = x.reshape(len(x), self.height, self.width, self.channels)
        windows = np.lib.stride_tricks.sliding_window_view(images, (self.kernel, self.kernel), axis=(1, 2))
        windows = windows[:, ::self.stride, ::self.stride].transpose(0, 1, 2, 4, 5, 3)
        return windows.reshape(len(x) * self.positions, self.patch)

    def fold(self, patches):
        """Return the gradient of the features for that of their patches.

        A pixel's is the sum over the patches that it is in, from +0 in rising order of its place in the patch, each
        addition rounded to the dtype.
        """
        height, width = self.shape
        patches = patches.reshape(-1, height, width, self.kernel, self.kernel, self.channels)
        total = np.zeros((len(patches), self.height, self.width, self.channels), patches.dtype)
        for y, x in np.ndindex(self.kernel, self.kernel):
            rows, columns = (slice(at, at + self.stride * (count - 1) + 1, self.stride)
                             for at, count in ((y, height), (x, width)))
            total[:, rows, columns] += patches[:, :, :, y, x]
        return total.reshape(len(total), -1)


def perceptron(dataset, hidden):
    """Return the layers of a multilayer perceptron with these sizes of hidden layers."""
    require(isinstance(hidden, (tuple, list)) and len(hidden) < MAX_LAYERS and
            all(type(size) is int and 1 <= size <= 65536 for size in hidden), "hidden", hidden,
            f"at most {MAX_LAYERS - 1} integers from 1 to 65536")
    sizes = (dataset.features, *hidden, dataset.classes)
    return tuple(Linear(inputs, outputs) for inputs, outputs in zip(sizes, sizes[1:]))


def convolutional(dataset, hidden):
    """Return the layers of a network of two 3x3 convolutions, with these channels, and a linear layer.

    The second one has stride 2; so has the first, for images of more than 16 pixels in height or width.
    """
    require(dataset.image is not None and min(dataset.image) >= 5, "image", dataset.image,
            "a data set of images of 5x5 pixels or more, because the model is cnn")
    require(isinstance(hidden, (tuple, list)) and len(hidden) == 2 and
            all(type(size) is int and 1 <= size <= 4096 for size in hidden), "hidden", hidden,
            "two integers from 1 to 4096, the channels of the convolutions, because the model is cnn")
    first = Convolution(*dataset.image, 1, hidden[0], stride=2 if max(dataset.image) > 16 else 1)
    require(min(first.shape) >= 3, "image", dataset.image, "one that leaves 3x3 pixels to the second convolution")
    second = Convolution(*first.shape, hidden[0], hidden[1], stride=2)
    return first, second, Linear(second.positions * second.outputs, dataset.classes)


# By name: what makes the layers, and the default of `hidden`.
MODELS = {"mlp": (perceptron, (32,)), "cnn": (convolutional, (8, 16))}


class Gemms:
    """The matrix products and sums of one run: quantise, multiply, return to the work format.

    Parameters
    ----------
    recipe : Recipe
    seed : int
        The run's; each operand that is rounded stochastically gets an `lfsr.Stream` of
        `stream_seed`, which takes one draw per group or block in the order of `blockfloat.quantise`. A recipe whose
        ``words`` are of a ``side`` has those of its number system's seed instead.
    record : callable, optional
        Called before each GEMM of training, once per operand, with (step, layer, gemm, kind,
        array, axis): see `train`.
    control : precision.Control, optional
        Of a recipe of block floating point.

    Attributes
    ----------
    invalid, overflow : bool
        Sticky: a quantiser or the softmax head met a NaN, or logits made one; a sum of logarithmic products saturated,
        or became infinite.
    finite : bool
        Whether all logits were finite so far.
    """

    def __init__(self, recipe, seed, record=None, control=None):
        self.recipe, self.seed, self.record, self.control = recipe, seed, record, control
        self.invalid = self.overflow = False
        self.finite = True
        self._sums = PlainSystem(recipe.work, getattr(recipe.system, "chunk", None))
        self._draws = {}

    def product(self, gemm, layer, x, y, step=None):
        """Return one GEMM of `GEMMS` in the work format, from operands as they are stored.

        `step` counts training steps from 0; None means that accuracy is measured. Weights may be logarithmic codes,
        which `logarithmic.narrowed` brings to the operands' bits, under the same scale.
        """
        operands = []
        for side, ((kind, axis), array) in enumerate(zip(GEMMS[gemm], (x, y))):
            if self.record and step is not None:
                self.record(step, layer, gemm, kind, array, axis)
            # A product is of (M, K) and (K, N): the first operand reduces along axis 1, the second along 0.
            if axis == side:
                array, axis = array.T, 1 - axis
            mode = self.recipe.mode(kind, array)
            if self.control:
                mode["precision"] = self.control.width(kind, layer, step, array, axis)
            operand, invalid, overflow = self.recipe.system.operand(
                array, axis, mode, side, self._words((layer, gemm, side, step is None)))
            self.invalid |= invalid
            self.overflow |= overflow
            operands.append(operand)
        if self.control and step is not None:
            self.control.count(gemm, [kind for kind, _ in GEMMS[gemm]], *operands)
        found, invalid, overflow = self.recipe.system.product(*operands)
        self.invalid |= invalid
        self.overflow |= overflow
        return found.astype(self.recipe.dtype)

    def _words(self, use):
        """Return the random words of one operand of one GEMM: (layer, gemm, side, whether accuracy is measured)."""
        if self.recipe.words == "side":
            _, _, side, measured = use
            key, seed = (side, measured), getattr(self.recipe.system, "seed", 0) + side
        else:
            key, seed = use, stream_seed(self.seed, *use)
        return self._draws.setdefault(key, Draws(seed))

    def watch(self, logits):
        """Set `finite` and `invalid` from logits. The loss is finite where the logits are."""
        if not np.isfinite(logits).all():
            self.finite = False
            # The softmax subtracts the maximum of a row from it. An infinite maximum gives a NaN.
            self.invalid |= not np.isfinite(logits.max(axis=1)).all()

    def totals(self, x, *factors):
        """Return the sums over rows of factor * x, for each factor: GEMMs of the work format, in its order."""
        rows = np.repeat(np.array(factors, self.recipe.dtype)[:, np.newaxis], len(x), axis=1)
        return self._sums.product(rows, x)[0].astype(self.recipe.dtype)

    def errors(self, logits, y, scale):
        """Return (p - y) * scale / batch from the recipe's softmax head.

        The logits are rounded to its format, to nearest even; its errors are exact in the work format, and each is
        multiplied by scale / batch there, a constant that is rounded to it.
        """
        parameters, number = self.recipe.softmax, self.recipe.dtype.type
        use = (0, "input-gradient", 0)
        words = self._draws.setdefault(use, Draws(stream_seed(self.seed, *use)))
        found, _, invalid, _ = softmax.gradient(parameters, parameters.format.encode(logits), y,
                                                random=words.stream(1, parameters.random_bits))
        self.invalid |= bool(invalid.any())
        return parameters.error.decode(found).astype(self.recipe.dtype) * number(scale / len(y))


def relu(z):
    """Return z where it is not zero or below, else +0. A NaN stays."""
    return np.where(z <= 0, z.dtype.type(0), z)


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


def softmax_gradient(logits, y, scale=1):
    """Return the gradient of the mean cross-entropy times `scale`, (p - y) * scale / batch.

    Parameters
    ----------
    logits : ndarray of float32 or float16, shape (batch, classes)
    y : ndarray of int, shape (batch,)
    scale : int

    Returns
    -------
    ndarray, shape and dtype of the logits
        float32: computed in float64, classes summed in rising order, rounded once at the end.
        float16: each of these rounded once: z - max z, its exponential, the sum of those in rising order from +0,
        p, p - y, the constant scale / batch, and the product with it.
    """
    if logits.dtype == np.float32:
        _, total, p = _shifted(logits)
        p /= total[:, np.newaxis]
        p[np.arange(len(y)), y] -= 1.0
        return (p * scale / len(y)).astype(np.float32)
    powers = _exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64)).astype(np.float16)
    total = np.zeros(len(powers), np.float16)
    for column in powers.T:
        total += column
    p = powers / total[:, np.newaxis]
    p[np.arange(len(y)), y] -= np.float16(1)
    return p * np.float16(scale / len(y))


def initialise(layers, rng, dtype=np.float32, batch_norm=False):
    """Return the parameters of each layer: (weights, bias), or (weights, gain, shift) before batch statistics.

    Weights are He-uniform, on +-sqrt(6 / patch), from ``rng.random()`` in layer order, row by
    row; biases and shifts are zero, gains one. With `batch_norm`, all layers but the last have statistics.
    """
    parameters = []
    for i, layer in enumerate(layers):
        bound = math.sqrt(6 / layer.patch)
        weights = (2.0 * rng.random((layer.outputs, layer.patch)) - 1.0) * bound
        rest = [np.zeros(layer.outputs, dtype)]
        if batch_norm and i < len(layers) - 1:
            rest.insert(0, np.ones(layer.outputs, dtype))
        parameters.append((weights.astype(dtype), *rest))
    return parameters


def normalise(gemms, z, gain, shift, running=None):
    """Return (gain * (z - mean) / deviation + shift, what `normalise_gradient` needs, (mean, variance)).

    Every operation is rounded to the dtype, in the order in which it is written here, sums as in `Gemms.totals`:
    mean = sum(part * z), d = z - mean, variance = sum(part * (d * d)), with part = 1 / rows rounded;
    inverse = 1 / sqrt(variance + `VARIANCE_FLOOR`), x = d * inverse, gain * x + shift.

    Parameters
    ----------
    z : ndarray, shape (rows, channels)
    gain, shift : ndarray, shape (channels,)
    running : (mean, variance), optional
        Taken in place of z's own.
    """
    number = z.dtype.type
    part = number(1 / len(z))
    mean = gemms.totals(z, part)[0] if running is None else running[0]
    d = z - mean
    variance = gemms.totals(d * d, part)[0] if running is None else running[1]
    inverse = number(1) / np.sqrt(variance + number(VARIANCE_FLOOR))
    x = d * inverse
    return gain * x + shift, (x, inverse), (mean, variance)


def normalise_gradient(gemms, delta, gain, x, inverse):
    """Return the gradients of z, of the gain and of the shift, for that of `normalise`'s result.

    With part = 1 / rows rounded: the shift's is sum(delta), the gain's sum(delta * x), and z's is
    (gain * inverse) * ((delta - part * shift's) - x * (part * gain's)).
    """
    part = delta.dtype.type(1 / len(delta))
    by_shift, by_gain = gemms.totals(np.concatenate([delta, delta * x], axis=1), 1).reshape(2, -1)
    return gain * inverse * ((delta - part * by_shift) - x * (part * by_gain)), by_gain, by_shift


def forward(gemms, layers, parameters, x, step=None, running=None):
    """Return (what `gradients` needs of each layer, logits) for examples (batch, features) in the work format.

    `step` as in `Gemms.product`. `running` are the statistics of each layer, (mean, variance) or None, to be taken in
    place of the batch's own. Of each layer are kept its input, the patches of that, and its normalisation.
    """
    kept = []
    for i, (layer, (weights, *rest)) in enumerate(zip(layers, parameters)):
        patches = layer.unroll(x)
        z = gemms.product("forward", i, patches, weights, step)
        normalised = None
        if len(rest) == 1:
            z = z + rest[0]
        else:
            z, *normalised = normalise(gemms, z, *rest, running and running[i])
        kept.append((x, patches, normalised))
        x = relu(z).reshape(len(x), -1)
    gemms.watch(z)
    return kept, z


def gradients(gemms, layers, parameters, x, y, step, scale=1):
    """Return the gradients of the mean cross-entropy times `scale`, as `parameters`, and each layer's statistics.

    A bias' gradient is summed in the work format over the rows in rising order, from +0. From the last
    layer to the first: the normalisation's gradients, the weight gradient, then the input gradient, which the
    first has not. Statistics are (mean, variance), or None for a layer that has none.
    """
    kept, logits = forward(gemms, layers, parameters, x, step)
    delta = gemms.errors(logits, y, scale) if gemms.recipe.softmax else softmax_gradient(logits, y, scale)
    found, statistics = [], []
    for i in reversed(range(len(layers))):
        inputs, patches, normalised = kept[i]
        delta = delta.reshape(len(patches), layers[i].outputs)
        if normalised:
            delta, *rest = normalise_gradient(gemms, delta, parameters[i][1], *normalised[0])
        else:
            rest = [gemms.totals(delta, 1)[0]]
        statistics.append(normalised and normalised[1])
        found.append((gemms.product("weight-gradient", i, delta, patches, step), *rest))
        if i > 0:
            delta = layers[i].fold(gemms.product("input-gradient", i, delta, parameters[i][0], step))
            # relu's output is zero or below exactly where its input is.
            delta = np.where(inputs <= 0, delta.dtype.type(0), delta)
    return found[::-1], statistics[::-1]


def descent(parameter, velocity, gradient, lr, momentum, scale=1, decay=0):
    """Return (the change of the parameter, the next velocity): `sgd` but for its last sum."""
    number = parameter.dtype.type
    if decay:
        gradient = gradient + number(decay * scale) * parameter
    velocity = number(momentum) * velocity + gradient
    return -(number(lr) * velocity * number(1 / scale)), velocity


def sgd(parameter, velocity, gradient, lr, momentum, scale=1, decay=0):
    """Return the next (parameter, velocity), every operation rounded to nearest even in their dtype.

    `update.step` with the method ``plain``: g <- g + decay*w, unless decay is 0; v <- momentum*v + g; u <- -(lr*v);
    w <- w + u. Where gradients and velocities carry a loss scale, a power of two, u is divided by it before it is
    added, and decay is multiplied by it.
    """
    change, velocity = descent(parameter, velocity, gradient, lr, momentum, scale, decay)
    return parameter + change, velocity


class Narrow:
    """One parameter that is kept in a format of its own, or moved by another method than ``plain``.

    Parameters
    ----------
    kept : recipes.Kept
    start : ndarray of float32 or float16
    stream : lfsr.Stream
        Of one lane: gives a word for each number and step, row by row, if the update is stochastic.

    Attributes
    ----------
    codes : ndarray of uint32
        Of the format.
    """

    def __init__(self, kept, start, stream):
        work = PRESETS["fp32" if start.dtype == np.float32 else "fp16"]
        self._kept, self._stream, self._dtype, self.format = kept, stream, start.dtype, kept.format or work
        self.codes = self.format.encode(start)
        # The carry words of fixed point, or compensations; and velocities, which fixed point has in the work format.
        self._compensations = np.zeros_like(self.codes)
        self._velocities = np.zeros_like(start if isinstance(self.format, Fixed) else self.codes)

    @property
    def values(self):
        """The numbers in the work format; beyond its largest they are infinite."""
        return self.format.decode(self.codes).astype(self._dtype)

    def move(self, gradient, lr, momentum, decay):
        """Take the gradient of one step, in the work format."""
        kept, fmt, words, rounding = self._kept, self.format, None, NEAREST
        if kept.update == "stochastic":
            words = self._stream.draw(gradient.size)[:, 0].reshape(gradient.shape)
            rounding = stochastic(kept.random_bits)
        if isinstance(fmt, Fixed):
            changes, self._velocities = descent(self.values, self._velocities, gradient, lr, momentum, decay=decay)
            self.codes, self._compensations = updates.extended(
                fmt, kept.carry if kept.update == "kahan" else 0, self.codes, self._compensations, changes, rounding,
                words)
            return
        rates = [updates.rate_code(fmt, each, name) for each, name in (
            (lr, "lr"), (momentum, "momentum"), (decay, "decay"))]
        self.codes, self._velocities, self._compensations = updates.step(
            fmt, kept.update, self.codes, self._velocities, self._compensations, fmt.encode(gradient), *rates, words,
            rounding)


class LogWeights:
    """The weights of one layer as logarithmic codes: their start, and how steps move them.

    Weights are held within three times the root mean square of the initial ones. The scale, which stays, is the least
    under which that fits; as a code, to the nearest logarithm, it is `bound`. The initial weights are rounded to the
    nearest logarithm; what would be zero gets the smallest code with its sign, as a zero would never move.

    Parameters
    ----------
    stored : recipes.Stored
    weights : ndarray of float32
        The initial ones.
    seed, layer, steps : int
        The run's seed, the layer, and the steps of the run. Each step of Madam takes one word per weight, row by row,
        from the one lane of ``stream_seed(seed, layer, "weight-gradient", 0)``: a unit ``madam-update`` of one lane
        and that seed draws the same.

    Attributes
    ----------
    start : Logs
    bound : int
    invalid, overflow : bool
        Sticky: a gradient was NaN; see `madam.update`. SGD: a weight became NaN; it or a gradient became infinite.
    """

    def __init__(self, stored, weights, seed, layer, steps):
        self.stored, self.steps, self.step = stored, steps, 0
        self.invalid = self.overflow = False
        fmt, wide = stored.format, weights.astype(np.float64)
        # Squares of fp32 numbers are exact; the sum is rounded once, whatever the order.
        clamp = 3 * math.sqrt(math.fsum((wide * wide).ravel()) / wide.size)
        level = int(logarithmic.levels(clamp, fmt.gamma))
        scale = int(logarithmic.scale_of(level, fmt))
        self.bound = min(max(level - fmt.gamma * scale, 1), fmt.top)
        t = logarithmic.quantise(weights, fmt, scale).codes & fmt.top
        sign = np.signbit(weights).astype(np.uint32) << (fmt.bits - 1)
        self.start = Logs(fmt, np.clip(t, 1, self.bound).astype(np.uint32) | sign, scale)
        if stored.madam:
            self._stream = lfsr.Stream(stream_seed(seed, layer, "weight-gradient", 0), 1, bits=stored.madam.random_bits)
            self._kept = 1.0  # the part that the start has in fp32's second moment

    def first(self):
        """Return the momentum (float32) or second moments (V, or float32) before the first step: zeros."""
        return np.zeros(self.start.codes.shape, np.int64 if self.stored.madam and self.stored.second == "log" else
                        np.float32)

    def moved(self, weights, state, gradient, lr, momentum):
        """Return the next weights, and momentum or second moments, for a gradient in float32. SGD alone has an lr."""
        stored, p = self.stored, self.stored.madam
        rate = stored.rate_at(self.step, self.steps)
        self.step += 1
        if p is None:
            number, state = sgd(weights.values().astype(np.float32), state, gradient, lr, momentum)
            logs = logarithmic.quantise(number, stored.format, weights.scale)
            self.invalid |= logs.invalid
            self.overflow |= not np.isfinite(state).all()
            return replace(logs, invalid=False), state
        words = self._stream.draw(gradient.size)[:, 0].reshape(gradient.shape)
        if stored.second == "log":
            codes, _, state, invalid, overflow = madam.update(
                p, weights.codes, p.gradient.encode(gradient), state, madam.correction(p, self.step), rate, self.bound,
                words)
            self.invalid |= bool(invalid.any())
            self.overflow |= bool(overflow.any())
            return replace(weights, codes=codes), state
        count, state = self._single(gradient, state)
        sign = np.where(weights.codes >> (stored.format.bits - 1) == 1, -1, 1)
        t = (weights.codes & stored.format.top).astype(np.int64) - sign * (count << rate)
        codes = np.clip(t, 1, self.bound).astype(np.uint32) | weights.codes & ~np.uint32(stored.format.top)
        return replace(weights, codes=codes), state

    def _single(self, gradient, second):
        """Return (signed steps of 2**rate, second moments) where those are float32: `madam.twin`, rounded so."""
        p, number = self.stored.madam, np.float32
        second = number((p.memory - 1) / p.memory) * second + number(1 / p.memory) * (gradient * gradient)
        self._kept *= (p.memory - 1) / p.memory
        normalised = gradient / np.sqrt(second / number(1 - self._kept))
        self.invalid |= bool(np.isnan(gradient).any())
        self.overflow |= bool(np.isinf(second).any())
        return np.rint(np.nan_to_num(np.clip(normalised, -p.clip, p.clip))).astype(np.int64), second


def digest(layers):
    """Return the SHA-256 over all codes, little-endian, parameter by parameter in order.

    They are the codes of the dtype's format, rather than the machine's bytes: a NaN has one code. The codes of other
    formats take one, two or four bytes.
    """
    state = hashlib.sha256()
    for layer in layers:
        for parameter in layer:
            if isinstance(parameter, (Logs, Narrow)):
                codes, fmt = parameter.codes, parameter.format
                bits = fmt.width if isinstance(fmt, Float) else fmt.bits
                width = next(each for each in (8, 16, 32) if bits <= each)
            else:
                fmt = PRESETS["fp16" if parameter.dtype == np.float16 else "fp32"]
                codes, width = fmt.encode(parameter), fmt.width
            state.update(codes.astype(f"<u{width // 8}").tobytes())
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
    layers : tuple of Linear or Convolution
    parameters : tuple of (weights, bias) or (weights, gain, shift)
        Per layer, in the work format, of shapes (outputs, patch) and (outputs,). Weights may be `logarithmic.Logs`.
    statistics : tuple of None or (mean, variance)
        Per layer: the running ones, in the work format.
    digest : str
        See `digest`: of each layer, its parameters and then its statistics.
    invalid : bool
        A NaN was met: by a quantiser, which saturated it (MX: made its block NaN), by the update of logarithmic
        weights, or by the softmax.
    skipped : int
        Steps that the loss scale made skip.
    loss_scale : int
        The final one; 1 without.
    overflow : bool
        A sum of logarithmic products saturated, or what `LogWeights` tells.
    precision : dict, optional
        With a recipe of block floating point, what `precision.Control.report` tells.
    diverged : dict, optional
        ``{"epoch", "step"}`` of the first step with a logit (and so a loss), a parameter or a running statistic that
        is not finite. Epochs count from 1, steps of the whole run from 0.
    """

    recipe: Recipe
    seed: int
    history: tuple
    layers: tuple
    parameters: tuple
    statistics: tuple
    digest: str
    invalid: bool
    skipped: int
    loss_scale: int
    overflow: bool = False
    precision: dict = None
    diverged: dict = None

    @property
    def accuracy(self):
        """Final accuracies as ``{"train", "test"}``."""
        return {"train": self.history[-1].train_accuracy, "test": self.history[-1].test_accuracy}


class _State:
    """What steps change: parameters, velocities, running statistics, loss scale."""

    def __init__(self, recipe, parameters, seed=0, steps=0):
        self.limits, self.parameters, self.narrow = recipe.scale, parameters, None
        if recipe.kept != Kept():
            streams = [lfsr.Stream(stream_seed(seed, i, "forward", 1, evaluation=True), 1, bits=recipe.kept.random_bits)
                       for i in range(len(parameters))]
            self.narrow = [[Narrow(recipe.kept, each, stream) for each in layer]
                           for layer, stream in zip(parameters, streams)]
            self.parameters = [tuple(each.values for each in layer) for layer in self.narrow]
        self.velocities = [tuple(np.zeros_like(each) for each in layer) for layer in parameters]
        self.logs = None
        if recipe.stored:
            self.logs = [LogWeights(recipe.stored, weights, seed, i, steps)
                         for i, (weights, *_) in enumerate(parameters)]
            self.parameters = [(logs.start, *rest) for logs, (_, *rest) in zip(self.logs, self.parameters)]
            self.velocities = [(logs.first(), *rest) for logs, (_, *rest) in zip(self.logs, self.velocities)]
        self.statistics = [(np.zeros_like(layer[1]), np.ones_like(layer[1])) if len(layer) == 3 else None
                           for layer in parameters]
        self.scale = recipe.scale.start if recipe.scale else 1
        self.skipped = self.accepted = 0

    def step(self, slopes, statistics, lr, momentum, decay=0):
        """Take the gradients of one batch, which carry the scale, and its statistics."""
        moved = [[self._moved(i, k, *each, lr, momentum, decay) for k, each in enumerate(zip(*layer))]
                 for i, layer in enumerate(zip(self.parameters, self.velocities, slopes))]
        velocities = [tuple(velocity for _, velocity in layer) for layer in moved]
        # An Inf or NaN in a gradient is one in its velocity.
        if self.limits and not _finite(velocities):
            self.skipped += 1
            self.accepted = 0
            if self.scale > 1:
                self._rescale(0.5, self.velocities)
            return
        self.parameters = [tuple(parameter for parameter, _ in layer) for layer in moved]
        self.velocities = velocities
        for i, batch in enumerate(statistics):
            if batch:
                self.statistics[i] = tuple(old + old.dtype.type(RUNNING) * (new - old)
                                           for old, new in zip(self.statistics[i], batch))
        self.accepted += 1
        if self.limits and self.accepted == self.limits.interval:
            self.accepted = 0
            if self.scale < LARGEST_SCALE:
                self._rescale(2, velocities)

    def _moved(self, i, k, parameter, velocity, slope, lr, momentum, decay):
        """Return the next (parameter, velocity) of layer i's parameter k. Weights alone decay."""
        if isinstance(parameter, Logs):
            return self.logs[i].moved(parameter, velocity, slope, lr, momentum)
        decay = 0 if k else decay
        if self.narrow:
            self.narrow[i][k].move(slope, lr, momentum, decay)
            return self.narrow[i][k].values, velocity
        return sgd(parameter, velocity, slope, lr, momentum, self.scale, decay)

    def whole(self):
        """Return what the digest is of: of each layer, its parameters as they are kept, and then its statistics."""
        layers = [[narrow if self.narrow and not isinstance(parameter, Logs) else parameter
                   for parameter, narrow in zip(layer, self.narrow[i] if self.narrow else layer)]
                  for i, layer in enumerate(self.parameters)]
        return [(*layer, *(kept or ())) for layer, kept in zip(layers, self.statistics)]

    def finite(self):
        """Return whether all parameters and statistics are finite. Logarithmic ones always are."""
        parameters = [[each for each in layer if not isinstance(each, Logs)] for layer in self.parameters]
        return _finite(parameters) and _finite([kept for kept in self.statistics if kept])

    def _rescale(self, factor, velocities):
        """Multiply the scale and the velocities, unless one of those would become Inf."""
        velocities = [tuple(velocity * velocity.dtype.type(factor) for velocity in layer) for layer in velocities]
        if _finite(velocities):
            self.velocities, self.scale = velocities, int(self.scale * factor)


def _finite(layers):
    return all(np.isfinite(array).all() for layer in layers for array in layer)


def _evaluate(gemms, layers, state, x, y):
    """Return (mean cross-entropy, accuracy); of equal logits the first counts.

    A logarithmic tensor has one scale for all examples that are taken at once.
    """
    losses, right = [], 0
    count = max(1, EVALUATED // max(layer.positions * layer.patch for layer in layers))
    for start in range(0, len(x), count):
        part = y[start:start + count]
        logits = forward(gemms, layers, state.parameters, x[start:start + count], running=state.statistics)[1]
        z, total, _ = _shifted(logits)
        losses.append(np.log(total) - z[np.arange(len(part)), part])
        right += np.count_nonzero(logits.argmax(axis=1) == part)
    return math.fsum(np.concatenate(losses)) / len(y), float(right / len(y))


def train(recipe, dataset, *, seed=1, epochs=20, lr=None, batch=32, model="mlp", hidden=None, batch_norm=False,
          momentum=0.9, decay=0, lr_drops=(), measure_every=1, progress=None, record=None):
    """Train a multilayer perceptron or a small convolutional network.

    Parameters
    ----------
    recipe : Recipe
    dataset : Dataset
    seed : int
        0 .. 2**23 - 1. One generator, ``default_rng(seed)``, gives first the weights and then,
        at the start of each epoch, one number per example, whose order is the epoch's order.
    epochs, batch : int
        The last batch of an epoch may be smaller; its gradient is divided by its own size.
    lr, momentum, decay : float
        Rounded to the format of the parameters, in which a narrow one needs them below 2. Decay is of weights alone,
        and of those that SGD moves. The lr is the data set's usual one when not given. Madam has its own rate: see
        `recipes.Stored`.
    lr_drops : tuple of float
        Parts of the run after which the lr halves, above 0 and below 1.
    model : str
        ``mlp``: see `perceptron`. ``cnn``: see `convolutional`.
    hidden : tuple of int, optional
        Sizes of the hidden layers, or channels of the two convolutions: (32,) and (8, 16) when not given.
    batch_norm : bool
        Whether every layer but the last has batch statistics (see `normalise`) in place of its bias. Accuracy is
        measured with running ones, from mean 0 and variance 1: r <- r + 0.1 * (batch's - r), three operations.
    measure_every : int
        Epochs from one entry of the history to the next; the last epoch always has one.
    progress : callable, optional
        Called after each measured epoch with (epoch, epochs, Epoch).
    record : callable, optional
        Called before each GEMM of training, once per operand, with (step, layer, gemm, kind,
        array, axis): gemm a key of `GEMMS`; kind ``weights``, ``activations`` or ``gradients``;
        the array in the work format as it is stored (a convolution's activations as patches; weights
        that are stored as codes as `Logs`), never changed later; its reduction axis.

    Returns
    -------
    Result
    """
    lr = dataset.lr if lr is None else lr
    layers = check(dataset, seed=seed, epochs=epochs, lr=lr, batch=batch, model=model, hidden=hidden,
                   batch_norm=batch_norm, momentum=momentum, decay=decay, lr_drops=lr_drops)
    require_int("measure_every", measure_every, 1, 10**6)
    history, step, count, diverged = [], 0, len(dataset.train_x), None
    steps = epochs * -(-count // batch)
    control = Control(recipe, len(layers), steps) if recipe.policies else None
    gemms, rng = Gemms(recipe, seed, record, control), np.random.default_rng(seed)
    state = _State(recipe, initialise(layers, rng, recipe.dtype, batch_norm), seed, steps)
    # The result tells of divergence; NumPy's warnings would repeat it.
    with np.errstate(all="ignore"):
        train_x, test_x = (x.astype(recipe.dtype) for x in (dataset.train_x, dataset.test_x))
        for epoch in range(1, epochs + 1):
            order = np.argsort(rng.random(count), kind="stable")
            for start in range(0, count, batch):
                chosen = order[start:start + batch]
                found = gradients(gemms, layers, state.parameters, train_x[chosen], dataset.train_y[chosen], step,
                                  state.scale)
                state.step(*found, lr * 0.5 ** sum(step >= part * steps for part in lr_drops), momentum,
                           decay)
                if not (diverged or gemms.finite and state.finite()):
                    diverged = {"epoch": epoch, "step": step}
                step += 1
            if epoch % measure_every and epoch < epochs:
                continue
            loss, train_accuracy = _evaluate(gemms, layers, state, train_x, dataset.train_y)
            _, test_accuracy = _evaluate(gemms, layers, state, test_x, dataset.test_y)
            if not (diverged or gemms.finite):
                diverged = {"epoch": epoch, "step": step - 1}
            history.append(Epoch(epoch, loss, train_accuracy, test_accuracy))
            if progress:
                progress(epoch, epochs, history[-1])
    flags = [gemms, *(state.logs or ())]
    return Result(recipe, seed, tuple(history), layers, tuple(state.parameters), tuple(state.statistics),
                  digest(state.whole()), any(each.invalid for each in flags), state.skipped, state.scale,
                  any(each.overflow for each in flags), control and control.report(), diverged)


def precision_range(recipe, dataset, *, threshold=0.1, low=2, high=8, **settings):
    """Return what `precision.range_test` finds with one epoch of training per width, each going on from the last.

    Weights and activations have the width; the accuracy before training is taken for that of chance.

    Parameters
    ----------
    recipe : Recipe
        Of block floating point; its gradients stay as they are.
    threshold, low, high
        As in `range_test`.
    **settings
        Of `train`, without `epochs`.
    """
    rising = Rising(low, high)
    wide = {kind: recipe.mode(kind) | {"precision": high} for kind in ("weights", "activations")}
    numbers = replace(recipe.system, mantissa=max(high, recipe.system.mantissa))
    recipe = replace(recipe, system=numbers, modes=recipe.modes | wide,
                     precision=Policies(rising, rising, recipe.policies.gradients))
    history = train(recipe, dataset, epochs=high - low + 1, **settings).history
    return range_test(lambda width: history[width - low].train_accuracy, 1 / dataset.classes, low=low, high=high,
                      threshold=threshold)


def check(dataset, *, seed, epochs, lr, batch, model, hidden, batch_norm, momentum, decay, lr_drops):
    """Check arguments of `train`, and return the layers of the run."""
    require_int("seed", seed, 0, MAX_SEED)
    require_int("epochs", epochs, 1, 10**6)
    require(type(lr) in (int, float) and 0 < lr <= 1e6, "lr", lr, "a number above 0, at most 1e6")
    require_int("batch", batch, 1, len(dataset.train_x))
    require(model in MODELS, "model", model, ", ".join(MODELS))
    require(type(batch_norm) is bool, "batch_norm", batch_norm, "true, false")
    require(type(momentum) in (int, float) and 0 <= momentum < 1, "momentum", momentum, "a number from 0 to below 1")
    require(type(decay) in (int, float) and 0 <= decay < 1, "decay", decay, "a number from 0 to below 1")
    require(isinstance(lr_drops, tuple) and all(type(each) is float and 0 < each < 1 for each in lr_drops), "lr_drops",
            lr_drops, "numbers above 0 and below 1")
    make, usual = MODELS[model]
    return make(dataset, usual if hidden is None else hidden)
