"""Parameters as they are kept from step to step, and how a step moves them: SGD, in a format of their own, Madam."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import logarithmic, madam
from .. import update as updates
from ..floating import arithmetic
from ..formats import PRESETS, Float, of_dtype
from ..logarithmic import Logs
from ..number_system import vectors_of
from ..recipes import LARGEST_SCALE, Kept, Recipe, Stored
from ..rounding import NEAREST, stochastic
from .layers import Layer
from .passes import UPDATE, draws_of

__all__ = ["LogWeights", "Narrow", "Plain", "State", "descent", "digest", "initialise", "sgd"]

RUNNING = 0.1  # the part of a batch's statistics in the running ones


def initialise(layers: Sequence[Layer], rng: np.random.Generator, work: Float = PRESETS["fp32"],
               batch_norm: bool = False) -> list[tuple[np.ndarray, ...]]:
    """Return the parameters of each layer: (weights, bias), or (weights, gain, shift) before batch statistics.

    Weights are He-uniform, on +-sqrt(6 / patch), from ``rng.random()`` in layer order, row by
    row; biases and shifts are zero, gains one. With `batch_norm`, all layers but the last have statistics.
    """
    parameters, numbers = [], arithmetic(work)
    for i, layer in enumerate(layers):
        bound = math.sqrt(6 / layer.patch)
        weights = (2.0 * rng.random((layer.outputs, layer.patch)) - 1.0) * bound
        rest = [np.zeros(layer.outputs, numbers.dtype)]
        if batch_norm and i < len(layers) - 1:
            rest.insert(0, np.ones(layer.outputs, numbers.dtype))
        parameters.append((numbers.number(weights), *rest))
    return parameters


def descent(parameter: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, lr: float, momentum: float,
            scale: int = 1, decay: float = 0, work: Float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (the change of the parameter, the next velocity): `sgd` but for its last sum."""
    to = arithmetic(work or of_dtype(parameter.dtype))
    if decay:
        gradient = to.add(gradient, to.multiply(to.number(decay * scale), parameter))
    velocity = to.add(to.multiply(to.number(momentum), velocity), gradient)
    return -to.multiply(to.multiply(to.number(lr), velocity), to.number(1 / scale)), velocity


def sgd(parameter: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, lr: float, momentum: float, scale: int = 1,
        decay: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the next (parameter, velocity), every operation rounded to nearest even in their dtype.

    `update.step` with the method ``plain``: g <- g + decay*w, unless decay is 0; v <- momentum*v + g; u <- -(lr*v);
    w <- w + u. Where gradients and velocities carry a loss scale, a power of two, u is divided by it before it is
    added, and decay is multiplied by it.
    """
    change, velocity = descent(parameter, velocity, gradient, lr, momentum, scale, decay)
    return parameter + change, velocity


Words = Callable[[tuple[int, ...], int], np.ndarray]


class _Words:
    """The random words of a layer's update in one step: a call gives those of a parameter, for a shape and bits.

    Parameters follow each other in the layer's order; see `Draws.rows`.
    """

    def __init__(self, seed: int, layer: int, step: int) -> None:
        self._draws = draws_of(seed, layer, UPDATE, step)

    def __call__(self, shape: tuple[int, ...], bits: int) -> np.ndarray:
        found = self._draws.rows(shape, bits)
        self._draws = replace(self._draws, vector=self._draws.vector + math.prod(shape[:-1]) * vectors_of(shape[-1]))
        return found


class Plain:
    """One parameter in the work format, and its velocity, which SGD moves.

    Attributes
    ----------
    values, velocity : ndarray of float32 or float16
    """

    def __init__(self, start: np.ndarray) -> None:
        self.values, self.velocity = start, np.zeros_like(start)

    def next(self, gradient: np.ndarray, lr: float, momentum: float, decay: float, scale: int
             ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the values and the velocity become: see `sgd`."""
        return sgd(self.values, self.velocity, gradient, lr, momentum, scale, decay)

    def move(self, gradient: np.ndarray, lr: float, momentum: float, decay: float, words: Words | None = None
             ) -> None:
        """Take the gradient of one step."""
        self.values, self.velocity = self.next(gradient, lr, momentum, decay, 1)

    @property
    def kept(self) -> np.ndarray:
        """What the digest is of."""
        return self.values


class Narrow:
    """One parameter that is kept in a format of its own, or moved by another method than ``plain``.

    Parameters
    ----------
    kept : recipes.Kept
    start : ndarray of float32 or float16
    work : Float

    Attributes
    ----------
    codes : ndarray of uint32
        Of the format.
    """

    def __init__(self, kept: Kept, start: np.ndarray, work: Float) -> None:
        self._kept, self._work = kept, work
        self.format: Any = kept.format or work
        self.codes = self.format.encode(start)
        # The carry words of fixed point, or compensations; and velocities, which fixed point has in the work format.
        self._compensations = np.zeros_like(self.codes)
        self._velocities = np.zeros_like(start if kept.fixed else self.codes)

    @property
    def values(self) -> np.ndarray:
        """The numbers in the work format; beyond its largest they are infinite."""
        return arithmetic(self._work).number(self.format.decode(self.codes))

    @property
    def kept(self) -> "Narrow":
        """What the digest is of: codes and their format."""
        return self

    def move(self, gradient: np.ndarray, lr: float, momentum: float, decay: float, words: Words | None = None
             ) -> None:
        """Take the gradient of one step, in the work format."""
        kept, fmt, random, rounding = self._kept, self.format, None, NEAREST
        if kept.update == "stochastic":
            assert words, "they are drawn"
            random, rounding = words(gradient.shape, kept.random_bits), stochastic(kept.random_bits)
        if kept.fixed:
            changes, self._velocities = descent(self.values, self._velocities, gradient, lr, momentum, decay=decay,
                                                work=self._work)
            self.codes, self._compensations = updates.extended(
                fmt, kept.carry if kept.update == "kahan" else 0, self.codes, self._compensations, changes, rounding,
                random)
            return
        rates = [updates.rate_code(fmt, each, name) for each, name in (
            (lr, "lr"), (momentum, "momentum"), (decay, "decay"))]
        self.codes, self._velocities, self._compensations = updates.step(
            fmt, kept.update, self.codes, self._velocities, self._compensations, fmt.encode(gradient), rates[0],
            rates[1], rates[2], random, rounding)


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
    steps : int
        Of the run.

    Attributes
    ----------
    start, values : Logs
        The initial weights, and those after the steps so far.
    bound : int
    invalid, overflow : bool
        Sticky: a gradient was NaN; see `madam.update`. SGD: a weight became NaN; it or a gradient became infinite.
    """

    def __init__(self, stored: Stored, weights: np.ndarray, steps: int) -> None:
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
            self._kept = 1.0  # the part that the start has in fp32's second moment
        self.values, self._state = self.start, self.first()

    @property
    def kept(self) -> Logs:
        """What the digest is of."""
        return self.values

    def move(self, gradient: np.ndarray, lr: float, momentum: float, decay: float, words: Words | None = None
             ) -> None:
        """Take the gradient of one step. Nothing decays."""
        self.values, self._state = self.moved(self.values, self._state, gradient, lr, momentum, words)

    def first(self) -> np.ndarray:
        """Return the momentum (float32) or second moments (V, or float32) before the first step: zeros."""
        return np.zeros(self.start.codes.shape, np.int64 if self.stored.madam and self.stored.second == "log" else
                        np.float32)

    def moved(self, weights: Logs, state: np.ndarray, gradient: np.ndarray, lr: float, momentum: float,
              words: Words | None = None) -> tuple[Logs, np.ndarray]:
        """Return the next weights, and momentum or second moments, for a gradient in float32.

        SGD alone has an lr; second moments in `Log` take random words.
        """
        stored, p = self.stored, self.stored.madam
        rate = stored.rate_at(self.step, self.steps)
        self.step += 1
        if p is None:
            number, state = sgd(weights.values().astype(np.float32), state, gradient, lr, momentum)
            logs = logarithmic.quantise(number, stored.format, weights.scale)
            self.invalid |= logs.invalid
            self.overflow |= not np.isfinite(state).all()
            return replace(logs, invalid=False), state
        if stored.second == "log":
            assert words, "they are drawn"
            random = words(gradient.shape, p.random_bits)
            codes, _, state, invalid, overflow = madam.update(
                p, weights.codes, p.gradient.encode(gradient), state, madam.correction(p, self.step), rate, self.bound,
                random)
            self.invalid |= bool(invalid.any())
            self.overflow |= bool(overflow.any())
            return replace(weights, codes=codes), state
        count, state = self._single(gradient, state)
        sign = np.where(weights.codes >> (stored.format.bits - 1) == 1, -1, 1)
        t = (weights.codes & stored.format.top).astype(np.int64) - sign * (count << rate)
        codes = np.clip(t, 1, self.bound).astype(np.uint32) | weights.codes & ~np.uint32(stored.format.top)
        return replace(weights, codes=codes), state

    def _single(self, gradient: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (signed steps of 2**rate, second moments) where those are float32: `madam.twin`, rounded so."""
        p, number = self.stored.madam, np.float32
        assert p is not None, "SGD has no second moments"
        second = number((p.memory - 1) / p.memory) * second + number(1 / p.memory) * (gradient * gradient)
        self._kept *= (p.memory - 1) / p.memory
        normalised = gradient / np.sqrt(second / number(1 - self._kept))
        self.invalid |= bool(np.isnan(gradient).any())
        self.overflow |= bool(np.isinf(second).any())
        return np.rint(np.nan_to_num(np.clip(normalised, -p.clip, p.clip))).astype(np.int64), second


Holder = Plain | Narrow | LogWeights


def digest(layers: Iterable[tuple], work: Float | None = None) -> str:
    """Return the SHA-256 over all codes, little-endian, parameter by parameter in order.

    They are the codes of the work format (by default the dtype's), rather than the machine's bytes: a NaN has one code.
    The codes of other formats take one, two or four bytes.
    """
    state = hashlib.sha256()
    for layer in layers:
        for parameter in layer:
            fmt = getattr(parameter, "format", None)  # of codes; an array has none
            if fmt is None:
                fmt = work or of_dtype(parameter.dtype)
                codes = fmt.encode(parameter)
            else:
                codes = parameter.codes
            width = next(each for each in (8, 16, 32) if fmt.width <= each)
            state.update(codes.astype(f"<u{width // 8}").tobytes())
    return state.hexdigest()


class State:
    """What steps change: parameters, running statistics, loss scale.

    Parameters
    ----------
    recipe : Recipe
    parameters : list of tuple of ndarray
        The initial ones of each layer.
    seed, steps : int
        The run's seed, and how many steps it has.

    Attributes
    ----------
    held : list of list
        Of each layer, the holders of its parameters (`Plain`, `Narrow` or `LogWeights`): their ``values`` are what the
        passes take, ``move`` takes the gradient of a step, and ``kept`` is what the digest is of.
    statistics : list of None or (mean, variance)
    steps, scale, skipped : int
    """

    def __init__(self, recipe: Recipe, parameters: Sequence[tuple], seed: int = 0, steps: int = 0) -> None:
        self.limits, self.arithmetic = recipe.scale, arithmetic(recipe.work)
        self.seed, self.steps = seed, 0
        self.held: list[list[Any]] = [self._holders(recipe, layer, steps) for layer in parameters]
        self.statistics: list = [(np.zeros_like(layer[1]), np.ones_like(layer[1])) if len(layer) == 3 else None
                                 for layer in parameters]
        self.scale = recipe.scale.start if recipe.scale else 1
        self.skipped = self.accepted = 0

    @staticmethod
    def _holders(recipe: Recipe, layer: Sequence[np.ndarray], steps: int) -> list[Holder]:
        """Return what holds the parameters of a layer."""
        native = arithmetic(recipe.work).native
        held: list[Holder] = [Plain(start) if recipe.kept == Kept() and native else
                              Narrow(recipe.kept, start, recipe.work) for start in layer]
        if recipe.stored:
            held[0] = LogWeights(recipe.stored, layer[0], steps)
        return held

    @property
    def parameters(self) -> list[tuple]:
        """Of each layer a tuple: what the passes take."""
        return [tuple(each.values for each in layer) for layer in self.held]

    @property
    def flags(self) -> list:
        """The holders that have a status of their own: ``invalid`` and ``overflow``."""
        return [each for layer in self.held for each in layer if hasattr(each, "invalid")]

    def step(self, slopes: Sequence[tuple], statistics: Sequence, lr: float, momentum: float, decay: float = 0) -> None:
        """Take the gradients of one batch, which carry the scale, and its statistics. Weights alone decay."""
        words = [_Words(self.seed, i, self.steps) for i in range(len(self.held))]
        self.steps += 1
        moves = [(held, slope, 0 if k else decay, words[i]) for i, (layer, found) in enumerate(zip(self.held, slopes))
                 for k, (held, slope) in enumerate(zip(layer, found))]
        if self.limits:
            found = [held.next(slope, lr, momentum, part, self.scale) for held, slope, part, _ in moves]
            # An Inf or NaN in a gradient is one in its velocity.
            if not _finite(velocity for _, velocity in found):
                self.skipped += 1
                self.accepted = 0
                if self.scale > 1:
                    self._rescale(0.5)
                return
            for (held, *_), (values, velocity) in zip(moves, found):
                held.values, held.velocity = values, velocity
        else:
            for held, slope, part, random in moves:
                held.move(slope, lr, momentum, part, random)
        for i, batch in enumerate(statistics):
            if batch:
                to = self.arithmetic
                self.statistics[i] = tuple(
                    to.add(old, to.multiply(to.number(RUNNING), to.subtract(new, old)))
                    for old, new in zip(self.statistics[i], batch))
        self.accepted += 1
        if self.limits and self.accepted == self.limits.interval:
            self.accepted = 0
            if self.scale < LARGEST_SCALE:
                self._rescale(2)

    def whole(self) -> list[tuple]:
        """Return what the digest is of: of each layer, its parameters as they are kept, and then its statistics."""
        return [(*(each.kept for each in layer), *(running or ()))
                for layer, running in zip(self.held, self.statistics)]

    def finite(self) -> bool:
        """Return whether all parameters and statistics are finite. Logarithmic ones always are."""
        arrays = [each.values for layer in self.held for each in layer if not hasattr(each.values, "codes")]
        return _finite(arrays) and _finite(each for running in self.statistics if running for each in running)

    def _rescale(self, factor: float) -> None:
        """Multiply the scale and the velocities, unless one of those would become Inf."""
        held = [each for layer in self.held for each in layer]
        velocities = [each.velocity * each.velocity.dtype.type(factor) for each in held]
        if _finite(velocities):
            self.scale = int(self.scale * factor)
            for each, velocity in zip(held, velocities):
                each.velocity = velocity


def _finite(arrays: Iterable[np.ndarray]) -> bool:
    return all(np.isfinite(array).all() for array in arrays)
