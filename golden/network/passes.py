"""The forward and the backward pass: products, statistics, ReLU, pooling, softmax, in the order that makes every bit.

Tensors are kept in the work format: weights (outputs, inputs), activations (batch, features), gradients
(batch, features). The number system converts a GEMM's operands for that GEMM alone, each along its reduction axis and
from the work-format copy. Source: numerics contract, sections 3 to 10; the seeds of streams are ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...base.checks import require
from .. import softmax
from ..floating import arithmetic
from ..number_system import Draws
from ..precision import Control
from ..recipes import Recipe
from .layers import Layer

__all__ = ["GEMMS", "HEAD", "MEASURED", "UPDATE", "Gemms", "cross_entropies", "draws_of", "forward", "gradients",
           "normalise", "normalise_gradient", "relu", "shifted", "softmax_gradient"]

# The operands of each GEMM in order: kind of tensor, and its reduction axis as it is stored.
GEMMS = {
    "forward": (("activations", 1), ("weights", 1)),
    "input-gradient": (("gradients", 1), ("weights", 0)),
    "weight-gradient": (("gradients", 0), ("activations", 0)),
}
# Slots of random words: 0 to 5 are those of operands.
UPDATE, HEAD = 6, 7
# The first of the steps in which accuracy is measured.
MEASURED = 1 << 31
VARIANCE_FLOOR = 2.0**-10  # added to a variance; a power of two, so that fp16 has it too


def draws_of(seed: int, layer: int, slot: int, step: int) -> Draws:
    """Return the address of random words of a run: those of use ``8 * layer + slot`` in a step.

    Parameters
    ----------
    seed : int
        The run's.
    layer, slot : int
        Slots 0 to 5 are the operands in the order of `GEMMS`, `UPDATE` the update's, `HEAD` the softmax head's.
    step : int
        Of training, from 0; from `MEASURED` on those of measuring accuracy, which so leaves training's words alone.
    """
    return Draws(seed, step, 8 * layer + slot)


class Gemms:
    """The matrix products and sums of one run: quantise, multiply, return to the work format.

    Parameters
    ----------
    recipe : Recipe
    seed : int
        The run's; the random words of an operand have the address `draws_of`, its groups or blocks being the vectors,
        in the order of `blockfloat.quantise`.
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
    losses : list of (int, int)
        Of each batch, the sum of the head's losses, as codes, and the number of them. The caller empties it.
    """

    def __init__(self, recipe: Recipe, seed: int, record: Callable | None = None, control: Control | None = None
                 ) -> None:
        self.recipe, self.seed, self.record, self.control = recipe, seed, record, control
        self.invalid = self.overflow = False
        self.finite = True
        self.losses: list[tuple[int, int]] = []
        self.arithmetic = arithmetic(recipe.work)
        self._sums = recipe.plain

    def product(self, gemm: str, layer: int, x: Any, y: Any, step: int, whole: tuple[Any, Any] | None = None,
                before: tuple[int, int] = (0, 0), counted: tuple[Any, Any] | None = None) -> np.ndarray:
        """Return one GEMM of `GEMMS` in the work format, from operands as they are stored.

        `step` is that of `draws_of`. Weights may be logarithmic codes, which `logarithmic.narrowed` brings to the
        operands' bits, under the same scale. `whole` are the tensors that operands are made of, such as images: they
        decide the modes. The groups of `counted` decide a precision. Both are the operands unless they are given. A
        GEMM may be made in several products: then `before` are the vectors of the products before this one.
        """
        operands, training = [], step < MEASURED
        for side, ((kind, axis), array) in enumerate(zip(GEMMS[gemm], (x, y))):
            if self.record and training:
                self.record(step, layer, gemm, kind, array, axis)
            # A product is of (M, K) and (K, N): the first operand reduces along axis 1, the second along 0.
            if axis == side:
                array, axis = array.T, 1 - axis
            mode = self.recipe.mode(kind, (whole or (x, y))[side])
            if self.control:
                mode["precision"] = self.control.width(
                    kind, layer, step if training else None, (counted or (x, y))[side])
            draws = draws_of(self.seed, layer, 2 * list(GEMMS).index(gemm) + side, step)
            operand, invalid, overflow = self.recipe.system.operand(
                array, axis, mode, side, replace(draws, vector=before[side]))
            self.invalid |= invalid
            self.overflow |= overflow
            operands.append(operand)
        if self.control and training:
            self.control.count(gemm, [kind for kind, _ in GEMMS[gemm]], *operands)
        found, invalid, overflow = self.recipe.system.product(*operands)
        self.invalid |= invalid
        self.overflow |= overflow
        return self.arithmetic.number(found)

    def input_gradient(self, layer: Layer, number: int, delta: np.ndarray, weights: Any, step: int) -> np.ndarray:
        """Return the gradient (batch, inputs) of a layer's input, from that of its result: see `Convolution.phases`."""
        total = np.zeros((len(delta) // layer.positions, layer.inputs), delta.dtype)
        before = (0, 0)
        for phase in layer.phases():
            x = phase.gradients(delta)
            found = self.product("input-gradient", number, x, phase.weights(weights), step, (delta, weights), before,
                                 (delta, weights))
            groups = -(-x.shape[1] // self.recipe.system.group)
            before = (before[0] + len(x) * groups, before[1] + found.shape[1] * groups)
            total = phase.place(total, found)
        return total

    def watch(self, logits: np.ndarray) -> None:
        """Set `finite` and `invalid` from logits. The loss is finite where the logits are."""
        if not np.isfinite(logits).all():
            self.finite = False
            # The softmax subtracts the maximum of a row from it. An infinite maximum gives a NaN.
            self.invalid |= not np.isfinite(logits.max(axis=1)).all()

    def totals(self, x: np.ndarray, *factors: float) -> np.ndarray:
        """Return the sums over rows of factor * x, for each factor: GEMMs of the work format, in its order."""
        rows = np.repeat(self.arithmetic.number(factors)[:, np.newaxis], len(x), axis=1)
        return self.arithmetic.number(self._sums.product(rows, x)[0])

    def head_loss(self) -> float | None:
        """Return the mean of the head's `losses`, or None without a head."""
        if self.recipe.softmax is None:
            return None
        total, count = map(sum, zip(*self.losses))
        return total / count / (1 << self.recipe.softmax.fraction)

    def errors(self, logits: np.ndarray, y: np.ndarray, scale: int, layer: int, step: int) -> np.ndarray:
        """Return (p - y) * scale / batch from the recipe's softmax head.

        The logits are rounded to the head's format, to nearest even. Its errors are exact in the work format. Each is
        multiplied there by the constant scale / batch, which is rounded to the work format. The random words are those
        of the last layer; see `Draws.rows`.
        """
        parameters, work = self.recipe.softmax, self.arithmetic
        assert parameters is not None, "the recipe has no softmax head"
        words = (draws_of(self.seed, layer, HEAD, step).rows(logits.shape, parameters.random_bits)
                 if parameters.rounding == "stochastic" else None)
        found, losses, invalid, _ = softmax.gradient(parameters, parameters.format.encode(logits), y, random=words)
        self.invalid |= bool(invalid.any())
        self.losses.append((int(losses.sum()), len(losses)))
        return work.multiply(work.number(parameters.error.decode(found)), work.number(scale / len(y)))


def relu(z: np.ndarray) -> np.ndarray:
    """Return z where it is not zero or below, else +0. A NaN stays."""
    return np.where(z <= 0, z.dtype.type(0), z)


def _exp(x: np.ndarray) -> np.ndarray:
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


def shifted(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (z - max z, the sum of its exponentials, the exponentials): float64, one row per example."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    powers = _exp(z)
    total = np.zeros(len(z))
    for column in powers.T:
        total += column
    return z, total, powers


def cross_entropies(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the loss of each row of logits, in float64."""
    z, total, _ = shifted(logits)
    return np.log(total) - z[np.arange(len(y)), y]


def softmax_gradient(logits: np.ndarray, y: np.ndarray, scale: int = 1) -> np.ndarray:
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
        _, total, p = shifted(logits)
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


def normalise(gemms: Gemms, z: np.ndarray, gain: np.ndarray, shift: np.ndarray,
              running: tuple[np.ndarray, np.ndarray] | None = None) -> tuple[np.ndarray, tuple, tuple]:
    """Return (gain * (z - mean) / deviation + shift, what `normalise_gradient` needs, (mean, variance)).

    Every operation is rounded to the work format. Sums are those of `Gemms.totals`, and part is 1 / rows, rounded. The
    operations are, in this order: mean = sum(part * z); d = z - mean; variance = sum(part * (d * d)); inverse = 1 /
    sqrt(variance + `VARIANCE_FLOOR`); x = d * inverse; gain * x + shift.

    Parameters
    ----------
    z : ndarray, shape (rows, channels)
    gain, shift : ndarray, shape (channels,)
    running : (mean, variance), optional
        Taken in place of z's own.
    """
    work = gemms.arithmetic
    part = work.number(1 / len(z))
    mean = gemms.totals(z, part)[0] if running is None else running[0]
    d = work.subtract(z, mean)
    variance = gemms.totals(work.multiply(d, d), part)[0] if running is None else running[1]
    inverse = work.divide(work.number(1), work.root(work.add(variance, work.number(VARIANCE_FLOOR))))
    x = work.multiply(d, inverse)
    return work.add(work.multiply(gain, x), shift), (x, inverse), (mean, variance)


def normalise_gradient(gemms: Gemms, delta: np.ndarray, gain: np.ndarray, x: np.ndarray, inverse: np.ndarray
                       ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of z, of the gain and of the shift, for that of `normalise`'s result.

    With part = 1 / rows rounded: the shift's is sum(delta), the gain's sum(delta * x), and z's is
    (gain * inverse) * ((delta - part * shift's) - x * (part * gain's)).
    """
    work = gemms.arithmetic
    part = work.number(1 / len(delta))
    both = np.concatenate([delta, work.multiply(delta, x)], axis=1)
    by_shift, by_gain = gemms.totals(both, 1).reshape(2, -1)
    centred = work.subtract(delta, work.multiply(part, by_shift))
    inner = work.subtract(centred, work.multiply(x, work.multiply(part, by_gain)))
    return work.multiply(work.multiply(gain, inverse), inner), by_gain, by_shift


def forward(gemms: Gemms, layers: Sequence[Layer], parameters: Sequence[tuple], x: np.ndarray, step: int,
            running: Sequence | None = None) -> tuple[list[tuple], np.ndarray]:
    """Return (what `gradients` needs of each layer, logits) for examples (batch, features) in the work format.

    `step` as in `draws_of`. `running` are the statistics of each layer, (mean, variance) or None, to be taken in
    place of the batch's own. Of each layer are kept its input, the patches, its normalisation, and what its ReLU gives.
    """
    kept = []
    for i, (layer, (weights, *rest)) in enumerate(zip(layers, parameters)):
        patches = layer.unroll(x)
        z = gemms.product("forward", i, patches, weights, step, (x, weights))
        given, normalised = x, None
        if len(rest) == 1:
            z = gemms.arithmetic.add(z, rest[0])
        else:
            gain, shift = rest
            z, *normalised = normalise(gemms, z, gain, shift, running[i] if running else None)
        x = relu(z).reshape(len(x), -1)
        kept.append((given, patches, normalised, x))
        if layer.pool:
            x = layer.pool.forward(x, gemms.arithmetic)
    gemms.watch(z)
    return kept, z


def gradients(gemms: Gemms, layers: Sequence[Layer], parameters: Sequence[tuple], x: np.ndarray, y: np.ndarray,
              step: int, scale: int = 1) -> tuple[list[tuple], list]:
    """Return the gradients of the mean cross-entropy times `scale`, as `parameters`, and each layer's statistics.

    A bias' gradient is summed in the work format over the rows in rising order, from +0. From the last
    layer to the first: the gradients of pooling and ReLU, the normalisation's, the weight gradient, then the input
    gradient, which the first has not. Statistics are (mean, variance), or None for a layer that has none.
    """
    require(gemms.recipe.softmax is not None or gemms.arithmetic.native, "softmax", gemms.recipe.softmax,
            "a head, because work is neither fp32 nor fp16: see `Recipe.with_head`")
    kept, logits = forward(gemms, layers, parameters, x, step)
    delta = (gemms.errors(logits, y, scale, len(layers) - 1, step) if gemms.recipe.softmax else
             softmax_gradient(logits, y, scale))
    found, statistics = [], []
    for i in reversed(range(len(layers))):
        given, patches, normalised, active = kept[i]
        if i < len(layers) - 1:
            pool = layers[i].pool
            delta = pool.gradient(delta, active, gemms.arithmetic) if pool else delta
            # relu's output is zero or below exactly where its input is.
            delta = np.where(active <= 0, delta.dtype.type(0), delta)
        delta = delta.reshape(len(patches), layers[i].outputs)
        if normalised:
            delta, *rest = normalise_gradient(gemms, delta, parameters[i][1], *normalised[0])
        else:
            rest = [gemms.totals(delta, 1)[0]]
        statistics.append(normalised and normalised[1])
        found.append((gemms.product("weight-gradient", i, delta, patches, step, (delta, given)), *rest))
        if i > 0:
            delta = gemms.input_gradient(layers[i], i, delta, parameters[i][0], step)
    return found[::-1], statistics[::-1]
