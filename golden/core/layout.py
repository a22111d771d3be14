"""What runs in a core, and where its tensors lie."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...base.checks import require, require_int
from ..array import LARGEST, split
from ..network import Checkpoint, Convolution, Linear, State, initialise
from ..network.layers import Layer
from ..recipes import Recipe
from ..update import rate_code
from .instructions import FIELDS
from .parameters import BANK, TrainerParameters, side_of

__all__ = ["SIZES", "Layout", "Run", "measuring", "parts_of", "require_runs", "trainer_of"]

SIZES = {"examples": "E", "activations": "X", "errors": "D", "weights": "W"}  # parameters, and the memories they size


@dataclass(frozen=True)
class Run:
    """What a program is made for: everything of a training run that is not the core's own.

    Parameters
    ----------
    recipe : Recipe
    layers : tuple of Linear or Convolution
    train, test : int
        Examples.
    seed, epochs, batch, lr, momentum, decay, lr_drops, measure_every
        As in `network.train`.
    checkpoint : Checkpoint, optional
        Where the run goes on; by default it begins with the seed's parameters.
    saved : bool
        Parameters and their moments are sent after each measured epoch, not in the end alone.
    """

    recipe: Recipe
    layers: tuple[Any, ...]
    train: int
    test: int = 0
    seed: int = 1
    epochs: int = 1
    batch: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    decay: float = 0
    lr_drops: tuple[float, ...] = ()
    measure_every: int = 1
    checkpoint: Checkpoint | None = None
    saved: bool = False

    @cached_property
    def begin(self) -> Checkpoint:
        """The checkpoint that the run begins at."""
        if self.checkpoint is not None:
            return self.checkpoint
        start = initialise(self.layers, np.random.default_rng(self.seed), self.recipe.work)
        return Checkpoint.of(State(self.recipe, start, self.seed, self.steps))

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-self.train // self.batch)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.per_epoch

    @property
    def measured(self) -> list[int]:
        """The epochs after which accuracy is measured, from 1; those of the checkpoint's history are the first."""
        return [epoch for epoch in range(1, self.epochs + 1)
                if epoch % self.measure_every == 0 or epoch == self.epochs]


def parts_of(rows: int, parts: int, side: int) -> list[tuple[int, int]]:
    """Return (first row, rows) of each part of a batch. At most `parts` of them; all but the last are whole blocks."""
    size = -(-rows // parts)
    size = -(-size // side) * side
    return [(start, min(size, rows - start)) for start in range(0, rows, size)]


def measuring(run: Run, begin: Checkpoint | None = None) -> Run:
    """Return a run that measures the accuracy of the parameters that a run begins with, and trains nothing.

    It stands where a run of one epoch has trained, and has not been measured yet. `begin` is another beginning.
    """
    begun = replace(begin or run.begin, step=run.per_epoch, history=(), losses=())
    return replace(run, epochs=1, measure_every=1, checkpoint=begun, saved=False)


def _require_head(recipe: Recipe) -> None:
    most = min(16, recipe.work.mantissa + 2)
    require(recipe.softmax is not None, "softmax", None,
            f"a head: give --softmax-bits, such as {most}, because a core has one")


def require_runs(parameters: TrainerParameters, run: Run) -> None:
    """Raise ValueError, in one line, where a recipe or a network cannot run in a core, or not in this one."""
    p, recipe = parameters, run.recipe
    system: Any = p.system
    alike = system.adaptive and type(system) is type(recipe.system)
    wide: dict[str, Any] = {"mantissa": system.mantissa} if alike else {}
    if "seed" in vars(system):
        wide["seed"] = system.seed  # a run has its own
    own = replace(recipe.system.arrayed, **wide)  # type: ignore[type-var]  # it is a dataclass
    require(own == system, "system", system, f"{own}, the recipe's")
    if alike:
        least = vars(recipe.system)["mantissa"]
        require(least <= system.mantissa, "mantissa", system.mantissa, f"{least} or more, which the recipe has")
    _require_head(recipe)
    head = recipe.softmax
    assert head is not None  # for mypy
    require(replace(p.softmax, classes=head.classes, seed=head.seed) == head and p.softmax.guard == head.guard
            and p.classes >= run.layers[-1].outputs, "head of the core", p.softmax,
            f"{head}, the recipe's, or one of as many bits for the sum")
    require(recipe.scale is None or p.loss_scale, "loss_scale", p.loss_scale, "true, because the recipe has one")
    if recipe.scale:
        require(run.decay == 0, "decay", run.decay, "0: a core does not multiply it by a loss scale")
        require(run.batch <= 2 ** -p.work.emin, "batch", run.batch, f"at most {2 ** -p.work.emin}, with a loss scale")
    stored = recipe.stored
    require(stored is None or stored.madam is not None and stored.second == "log", "weights", stored and stored.format,
            "in the parameters' format, or moved by Madam with second moments as codes")
    require(p.madam == (stored and stored.madam), "madam", p.madam, f"{stored and stored.madam}, the recipe's")
    require(not recipe.kept.fixed, "parameters", recipe.kept.format, "a Float: fixed-point parameters have no core")
    require((recipe.kept.format or recipe.work) == p.stored, "parameters", p.stored,
            f"{recipe.kept.format or recipe.work}, the recipe's")
    require(recipe.kept.update in p.updates, "updates", p.updates, f"{recipe.kept.update} among them")
    require(recipe.kept.update != "stochastic" or recipe.kept.random_bits == p.update_bits, "update_bits",
            p.update_bits, f"{recipe.kept.random_bits}, the recipe's")
    for name in ("lr", "momentum", "decay") if p.rates == "powers" else ():
        value = getattr(run, name)
        require(rate_code(p.stored, float(value), name) & ((1 << p.stored.mantissa) - 1) == 0, name, value,
                "0 or a power of two, because the core's rates are powers")
    require(p.decays or run.decay == 0, "decay", run.decay, "0, because the core's decays is false")
    for kind, policy in vars(recipe.policies).items() if recipe.policies else ():
        named = policy.describe()["policy"]
        require(named in p.policies, f"precision of {kind}", named,
                f"{', '.join(p.policies)}, the core's policies")
        require(named != "adaptive" or len(run.layers) <= p.layers, "layers", p.layers,
                f"{len(run.layers)} or more, whose tensors choose their precisions")
        require(getattr(policy, "lag", 1) == 1, f"lag of {kind}", 0, "1: a core takes a tensor's sums as it multiplies")
    for number, layer in enumerate(run.layers):
        require(isinstance(layer, (Linear, Convolution)), f"layer {number + 1}", type(layer).__name__,
                "Linear, Convolution")
        require(not layer.normalised, f"batch statistics of layer {number + 1}", layer.normalised,
                "false: a core has none yet")
        require(layer.pool is None, f"pooling of layer {number + 1}", layer.pool, "None: a core has none yet")
        if isinstance(layer, Convolution):
            require(p.windows, "windows", p.windows, f"true, for the convolution of layer {number + 1}")
            for name, most in (("height", 255), ("width", 255), ("kernel", 15), ("stride", 15)):
                require_int(f"{name} of layer {number + 1}", getattr(layer, name), 1, most)
        pixels = layer.height * layer.width if isinstance(layer, Convolution) and number else 1
        rows = run.batch * max(layer.positions, pixels)
        require_int(f"rows of a product in layer {number + 1}", rows, 1, 65535)
    require_int("layers", len(run.layers), 1, 1 << FIELDS["layer"][0])
    require_int("batch", run.batch, 1, 65535)


def trainer_of(run: Run, **settings: Any) -> TrainerParameters:
    """Return the parameters of a core that the run fits: the recipe's numbers, and memories just as large as needed.

    Buffers are as large as usual, or larger where products cannot be cut.

    Parameters
    ----------
    run : Run
    **settings
        Others of `TrainerParameters`, in place of these. With ``examples`` X has no room for examples.
    """
    recipe = run.recipe
    _require_head(recipe)
    assert recipe.softmax is not None
    head, side = recipe.softmax, side_of(recipe.system.arrayed)
    policies = [each.describe()["policy"] for each in vars(recipe.policies).values()] if recipe.policies else []
    usual: dict[str, Any] = {
        "system": recipe.system.arrayed, "classes": head.classes, "error_bits": head.bits,
        "error_rounding": head.rounding,
        "logits": None if head.format == recipe.work else head.format, "parameters": recipe.kept.format,
        "madam": recipe.stored and recipe.stored.madam,
        "policies": tuple(dict.fromkeys(["constant", *policies])),
        "updates": (recipe.kept.update,), "update_bits": recipe.kept.random_bits, "decays": run.decay != 0,
        "loss_scale": recipe.scale is not None,
        "windows": any(isinstance(layer, Convolution) for layer in run.layers),
    }
    if "adaptive" in policies:
        usual["layers"] = max(1 << (len(run.layers) - 1).bit_length(), 2)
    layout = Layout(run, side, bool(settings.get("examples")))
    needed = dict(layout.needed)
    needed[layout.source] += layout.examples  # the next batch comes in meanwhile
    for name, memory in SIZES.items():
        blocks = needed[memory]
        size, bank = blocks * side * side, BANK * side
        usual[name] = size if size <= bank else -(-size // bank) * bank
    usual["labels"] = 2 * -(-run.batch // 256) * 256
    parameters = TrainerParameters(**usual | settings)
    if "scale" not in parameters.system.modes or "buffer" in settings:
        return parameters
    # Operands with a scale of the whole tensor are not cut.
    sizes = [size for layer in run.layers for size in _products(layer, run.batch)]
    while parameters.buffer < LARGEST and any(len(split(parameters.array, *size)) > 1 for size in sizes):
        parameters = replace(parameters, buffer=2 * parameters.buffer)
    return parameters


def _products(layer: Layer, batch: int) -> list[tuple[int, int, int]]:
    """Return (m, n, k) of a layer's products; of an input gradient, at most what any of its phases has."""
    rows, pixels, channels, taps = batch * layer.positions, 1, layer.inputs, 1
    if isinstance(layer, Convolution):
        pixels, channels, taps = layer.height * layer.width, layer.channels, layer.kernel**2
    return [(rows, layer.outputs, layer.patch), (layer.outputs, layer.patch, rows),
            (batch * pixels, channels, taps * layer.outputs)]


class Layout:
    """Where tensors lie: of each memory, the blocks that are needed, and of each tensor the first block.

    Parameters
    ----------
    run : Run
    side : int
    coded : bool
        Whether examples are 8-bit codes in memory E.
    """

    def __init__(self, run: Run, side: int, coded: bool) -> None:
        def blocks(rows: int, columns: int) -> int:
            return -(-rows // side) * -(-columns // side)

        self.sizes = sizes = [run.layers[0].inputs, *(layer.positions * layer.outputs for layer in run.layers)]
        self.pitch = [-(-layer.patch // side) for layer in run.layers]  # blocks of a row of weights
        self.stride = [-(-size // side) for size in sizes]
        self.examples = blocks(run.batch, sizes[0])  # of a batch
        self.source = "E" if coded else "X"
        at = 0 if coded else self.examples
        self.x = [0]
        for size in sizes[1:]:
            self.x.append(at)
            at += blocks(run.batch, size)
        x_end = at
        self.d, at = [], 0
        for size in sizes[1:]:
            self.d.append(at)
            at += blocks(run.batch, size)
        d_end = at
        self.w, at = [], 0
        for layer in run.layers:
            self.w.append(at)
            at += blocks(layer.outputs, layer.patch)
        # Biases lie in rows of blocks that they share.
        widest = max(-(-layer.outputs // side) for layer in run.layers)
        self.b = [(at + number // side * widest, number % side) for number in range(len(run.layers))]
        self.needed = {"E": self.examples if coded else 0, "X": x_end, "D": d_end,
                       "W": at + -(-len(run.layers) // side) * widest}
