"""What steps change, and the digests of it: parameters with their velocities, running statistics, the loss scale."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..floating import arithmetic
from ..formats import Float, is_float, of_dtype
from ..recipes import LARGEST_SCALE, Kept, Recipe
from .saved import Field
from .weights import Codes, Holder, LayerWords, LogWeights, Narrow, Plain

__all__ = ["State", "digest"]

RUNNING = 0.1  # the part of a batch's statistics in the running ones
CODED = ("parameter", "velocity", "compensation", "second")  # the parts of a parameter that have codes
NAMES = {2: ("weights", "bias"), 3: ("weights", "gain", "shift")}  # of a layer's parameters
RUNNING_NAMES = ("mean", "variance")


def digest(layers: Iterable[tuple], work: Float | None = None) -> str:
    """Return the SHA-256 over all codes, little-endian, parameter by parameter in order.

    They are the codes of the work format (by default the dtype's), rather than the machine's bytes: a NaN has one code.
    The codes of other formats take one, two or four bytes.
    """
    state = hashlib.sha256()
    for layer in layers:
        for parameter in layer:
            codes, bits = _codes(parameter, work)
            width = next(each for each in (8, 16, 32) if bits <= each)
            state.update(codes.astype(f"<u{width // 8}").tobytes())
    return state.hexdigest()


def _codes(parameter: Any, work: Float | None) -> tuple[np.ndarray, int]:
    """Return the codes of a parameter, or of its moments, and the bits of one."""
    if isinstance(parameter, np.ndarray):
        fmt = work or of_dtype(parameter.dtype)
        return fmt.encode(parameter), fmt.width
    return parameter.codes, parameter.width if isinstance(parameter, Codes) else parameter.format.width


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
        words = [LayerWords(self.seed, i, self.steps) for i in range(len(self.held))]
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

    def moments(self) -> list[tuple]:
        """Return what the state digest is of: of each parameter its velocity and compensation, or second moments."""
        return [tuple(moment for each in layer for moment in each.moments) for layer in self.held]

    def formats(self) -> list[dict[str, Any]]:
        """Return the formats of each layer's parameters and statistics by name."""
        return [{name: each.format for name, each in zip(NAMES[len(layer)], layer)} |
                (dict.fromkeys(RUNNING_NAMES, self.arithmetic.work) if running else {})
                for layer, running in zip(self.held, self.statistics)]

    def fields(self) -> dict[str, Field]:
        """Return what is saved, under names such as ``0.weights.velocity`` and ``0.mean``."""
        saved: dict[str, Field] = {}
        for i, (layer, running) in enumerate(zip(self.held, self.statistics)):
            for name, held in zip(NAMES[len(layer)], layer):
                saved |= {f"{i}.{name}.{part}": field for part, field in held.fields().items()}
            if running:
                saved |= {f"{i}.{name}": Field(each, self.arithmetic.work)
                          for name, each in zip(RUNNING_NAMES, running)}
        return saved

    def codes(self) -> tuple[tuple[tuple[np.ndarray, ...], ...], ...]:
        """Return of each layer, and each of its parameters: the codes of the parameter, and of its `moments`."""
        return tuple(tuple(tuple(_codes(part, self.arithmetic.work)[0] for part in (each.kept, *each.moments))
                           for each in layer) for layer in self.held)

    def coded(self, codes: Iterable[Iterable[Iterable[np.ndarray]]]) -> dict[str, np.ndarray]:
        """Return some arrays of `fields`, made of `codes`. Codes beyond a parameter's moments are left out."""
        found = {}
        for i, (layer, of_layer) in enumerate(zip(self.held, codes)):
            for name, held, of_parameter in zip(NAMES[len(layer)], layer, of_layer):
                fields = {part: field for part, field in held.fields().items() if part in CODED}
                for (part, field), each in zip(fields.items(), of_parameter):
                    like = field.array
                    if like.dtype.kind == "f":
                        fmt = field.allowed if is_float(field.allowed) else of_dtype(like.dtype)
                        each = fmt.decode(each)
                    found[f"{i}.{name}.{part}"] = np.asarray(each).astype(like.dtype).reshape(like.shape)
        return found

    def restore(self, found: Mapping[str, np.ndarray], step: int = 0) -> None:
        """Take arrays of `fields`, all or some, as they were before a step."""
        self.steps = step
        for i, layer in enumerate(self.held):
            for name, held in zip(NAMES[len(layer)], layer):
                start = f"{i}.{name}."
                held.restore({key.removeprefix(start): array for key, array in found.items() if key.startswith(start)},
                             step)
            if self.statistics[i]:
                self.statistics[i] = tuple(found[f"{i}.{name}"] for name in RUNNING_NAMES)

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
