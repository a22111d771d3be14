"""Parameters as they are kept from step to step, and how a step moves them: SGD, in a format of their own, Madam."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ...base.checks import require
from .. import logarithmic, madam
from .. import update as updates
from ..floating import arithmetic
from ..formats import PRESETS, Float, Log, of_dtype
from ..logarithmic import SCALE_MAX, SCALE_MIN, Logs
from ..number_system import vectors_of
from ..recipes import Kept, Stored
from ..rounding import NEAREST, stochastic
from .layers import Layer
from .passes import UPDATE, draws_of
from .saved import Field

__all__ = ["Codes", "Holder", "LayerWords", "LogWeights", "Narrow", "Plain", "descent", "initialise", "sgd"]


def initialise(layers: Sequence[Layer], rng: np.random.Generator, work: Float = PRESETS["fp32"]
               ) -> list[tuple[np.ndarray, ...]]:
    """Return the parameters of each layer: (weights, bias), or (weights, gain, shift) before batch statistics.

    Weights are He-uniform, on +-sqrt(6 / patch), from ``rng.random()`` in layer order, row by
    row; biases and shifts are zero, gains one.
    """
    parameters, numbers = [], arithmetic(work)
    for layer in layers:
        bound = math.sqrt(6 / layer.patch)
        weights = (2.0 * rng.random((layer.outputs, layer.patch)) - 1.0) * bound
        rest = [np.zeros(layer.outputs, numbers.dtype)]
        if layer.normalised:
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


class LayerWords:
    """The random words of a layer's update in one step: a call gives those of a parameter, for a shape and bits.

    Parameters follow each other in the layer's order; see `Draws.rows`.
    """

    def __init__(self, seed: int, layer: int, step: int) -> None:
        self._draws = draws_of(seed, layer, UPDATE, step)

    def __call__(self, shape: tuple[int, ...], bits: int) -> np.ndarray:
        found = self._draws.rows(shape, bits)
        self._draws = replace(self._draws, vector=self._draws.vector + math.prod(shape[:-1]) * vectors_of(shape[-1]))
        return found


class Codes(NamedTuple):
    """Codes of so many bits."""

    codes: np.ndarray
    width: int


class Plain:
    """One parameter in the work format, and its velocity, which SGD moves.

    Attributes
    ----------
    values, velocity : ndarray of float32 or float16
    """

    def __init__(self, start: np.ndarray) -> None:
        self.values, self.velocity = start, np.zeros_like(start)
        self.format = of_dtype(start.dtype)

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

    @property
    def moments(self) -> tuple[np.ndarray]:
        """What the state digest is of: the velocity."""
        return (self.velocity,)

    def fields(self) -> dict[str, Field]:
        """Return what is saved. The machine's bits of a number are its code, and a NaN keeps its own."""
        codes = self.values.view(f"u{self.values.itemsize}").astype(np.uint32)
        return {"parameter": Field(codes, (0, (1 << self.format.width) - 1)), "velocity": Field(self.velocity)}

    def restore(self, found: Mapping[str, np.ndarray], step: int) -> None:
        """Take arrays of `fields`, all or some, as they were before a step."""
        if "parameter" in found:
            bits = found["parameter"].astype(f"u{self.values.itemsize}")
            self.values = bits.view(self.values.dtype)
        self.velocity = found.get("velocity", self.velocity)


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

    @property
    def moments(self) -> tuple:
        """What the state digest is of: the velocity, and the compensation or carry word of an update that has some."""
        width = self.format.width
        velocity = self._velocities if self._kept.fixed else Codes(self._velocities, width)
        if self._kept.update not in ("kahan", "grow"):
            return (velocity,)
        return velocity, Codes(self._compensations, self._kept.carry if self._kept.fixed else width)

    def fields(self) -> dict[str, Field]:
        """Return what is saved."""
        saved = {"parameter": Field(self.codes, (0, (1 << self.format.width) - 1))}
        for name, each in zip(("velocity", "compensation"), self.moments):
            saved[name] = (Field(each.codes, (0, (1 << each.width) - 1)) if isinstance(each, Codes) else
                           Field(each, self._work))
        return saved

    def restore(self, found: Mapping[str, np.ndarray], step: int) -> None:
        """Take arrays of `fields`, all or some, as they were before a step."""
        self.codes = found.get("parameter", self.codes)
        self._velocities = found.get("velocity", self._velocities)
        self._compensations = found.get("compensation", self._compensations)

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
    def format(self) -> Log:
        """Of the codes."""
        return self.stored.format

    @property
    def kept(self) -> Logs:
        """What the digest is of."""
        return self.values

    @property
    def moments(self) -> tuple[Codes]:
        """What the state digest is of: the velocity of SGD in fp32, or Madam's second moments."""
        if self._state.dtype == np.float32:
            return (Codes(PRESETS["fp32"].encode(self._state), 32),)
        assert self.stored.madam, "SGD has a velocity"
        return (Codes(self._state, self.stored.madam.second_bits),)

    def fields(self) -> dict[str, Field]:
        """Return what is saved."""
        p, fmt = self.stored.madam, self.stored.format
        flags = {name: Field(np.array(getattr(self, name))) for name in ("invalid", "overflow")}
        saved = {"parameter": Field(self.values.codes, (0, (1 << fmt.bits) - 1)),
                 "bound": Field(np.array(self.bound), (1, fmt.top)),
                 "scale": Field(np.array(self.values.scale), (SCALE_MIN, SCALE_MAX)), **flags}
        if p is None:
            return saved | {"velocity": Field(self._state)}
        if self.stored.second == "log":
            return saved | {"second": Field(self._state.astype(np.uint32), (0, p.second_top))}
        return saved | {"second": Field(self._state, (0, math.inf)), "start_part": Field(np.array(self._kept), (0, 1))}

    def restore(self, found: Mapping[str, np.ndarray], step: int) -> None:
        """Take arrays of `fields`, all or some, as they were before a step."""
        self.step = step
        codes, scale = found.get("parameter", self.values.codes), int(found.get("scale", self.values.scale))
        self.values, self.bound = Logs(self.stored.format, codes, scale), int(found.get("bound", self.bound))
        t = codes & self.stored.format.top
        require(self.stored.madam is None or bool(((t >= 1) & (t <= self.bound)).all()), "weights",
                (int(t.min()), int(t.max())), f"codes from 1 to {self.bound}")
        self._state = found.get("second", found.get("velocity", self._state))
        self.invalid = bool(found.get("invalid", self.invalid))
        self.overflow = bool(found.get("overflow", self.overflow))
        if "start_part" in found:
            self._kept = float(found["start_part"])

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
