"""The host of a training core: it sends parameters and examples, and reads logits and parameters back."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...base.checks import require
from ..datasets import Dataset
from ..network import Epoch, cross_entropies, digest, initialise
from .compiler import compiled
from .layout import Run
from .model import Core
from .parameters import COMPENSATED, TrainerParameters
from .program import Program
from .sequencer import Issue

__all__ = ["CoreResult", "train"]


@dataclass(frozen=True, eq=False)
class CoreResult:
    """What a run in a core ends with.

    Parameters
    ----------
    digest, state_digest : str
        Of parameters, and of velocities and compensations: those of `network.train`.
    history : tuple of Epoch
        As `network.train` tells it.
    invalid, overflow : int, optional
        The step of training in which a NaN was met, or a number was beyond its range.
    program : Program
    """

    digest: str
    state_digest: str
    history: tuple[Epoch, ...]
    invalid: int | None
    overflow: int | None
    program: Program


class _Host:
    """Sends what the program of `compiled` reads, in its order, and keeps what it writes."""

    def __init__(self, parameters: TrainerParameters, run: Run, data: Dataset) -> None:
        self.parameters, self.run, self.data = parameters, run, data
        self.table: np.ndarray | None = None
        if parameters.examples:
            found = np.unique(np.concatenate([parameters.work.encode(x).ravel() for x in (data.train_x, data.test_x)]))
            require(len(found) <= 256, "numbers in the examples", len(found),
                    "at most 256, because memory E has codes of 8 bits: examples=0")
            self.table = found.astype(np.uint32)
        self.written: list[np.ndarray] = []
        self._feed = self._codes()

    def read(self, count: int) -> np.ndarray:
        """Return the next codes."""
        found = next(self._feed)
        require(found.size == count, "codes that the core reads", count, f"{found.size}")
        return found.ravel()

    def write(self, codes: np.ndarray) -> None:
        """Keep codes."""
        self.written.append(codes)

    def _codes(self) -> Iterator[np.ndarray]:
        p, run, data = self.parameters, self.run, self.data
        rng = np.random.default_rng(run.seed)
        starts = run.starts
        for layer, logs in zip(initialise(run.layers, rng, p.work), starts):
            for number, start in enumerate(layer):
                yield logs.start.codes if logs and number == 0 else p.stored.encode(start)
                yield from [np.zeros(start.shape, np.uint32)] * p.planes
        train_x, test_x = (p.work.encode(x) for x in (data.train_x, data.test_x))
        if self.table is not None:
            train_x, test_x = (np.searchsorted(self.table, x).astype(np.uint32) for x in (train_x, test_x))
        for epoch in range(1, run.epochs + 1):
            order = np.argsort(rng.random(len(train_x)), kind="stable")
            for first in range(0, len(order), run.batch):
                chosen = order[first:first + run.batch]
                yield train_x[chosen]
                yield data.train_y[chosen]
            if epoch % run.measure_every and epoch < run.epochs:
                continue
            for x in (train_x, test_x):
                for first in range(0, len(x), run.batch):
                    yield x[first:first + run.batch]


def train(parameters: TrainerParameters, run: Run, data: Dataset, parts: int = 1, blocks: int = 1,
          progress: Callable | None = None, watch: Callable[[Issue, Core], None] | None = None) -> CoreResult:
    """Train in the model of a core; its digest is that of `network.train` with the same settings.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    data : Dataset
        Of the run's numbers of examples.
    parts, blocks : int
        As for `compiled`.
    progress : callable, optional
        Called after each measured epoch with (epoch, epochs, Epoch).
    watch : callable, optional
        Called after every instruction of a unit, with it and the core.
    """
    require((run.train, run.test) == (len(data.train_x), len(data.test_x)), "examples", (run.train, run.test),
            f"{len(data.train_x)}, {len(data.test_x)}, those of the data set")
    program, host = compiled(parameters, run, parts, blocks), _Host(parameters, run, data)
    core = Core(parameters, host.table)
    history: list[Epoch] = []
    batches = [math.ceil(len(x) / run.batch) for x in (data.train_x, data.test_x)]
    epochs = [epoch for epoch in range(1, run.epochs + 1) if not epoch % run.measure_every or epoch == run.epochs]

    def after(issue: Issue) -> None:
        if watch:
            watch(issue, core)
        if issue.instruction.name != "out" or len(history) == len(epochs) or len(host.written) < sum(batches):
            return
        logits = [np.concatenate(host.written[:batches[0]]), np.concatenate(host.written[batches[0]:])]
        host.written.clear()
        (loss, train_accuracy), (_, test_accuracy) = (
            _measured(parameters.work.decode(each), y) for each, y in zip(logits, (data.train_y, data.test_y)))
        # The head's loss is that of the latest epoch.
        first = core.losses[-1][0] - batches[0]
        total, count = map(sum, zip(*((total, count) for step, total, count in core.losses if step > first)))
        core.losses.clear()
        history.append(Epoch(epochs[len(history)], loss, train_accuracy, test_accuracy,
                             total / count / (1 << parameters.softmax.fraction)))
        if progress:
            progress(history[-1].epoch, run.epochs, history[-1])

    core.run(program, host, after)
    planes = parameters.planes + 1
    tensors = [host.written[start:start + planes] for start in range(0, len(host.written), planes)]
    formats: list[tuple[Any, ...]] = [(parameters.stored,) * planes] * len(tensors)
    if parameters.madam:  # weights and biases take turns
        seconds = SimpleNamespace(width=parameters.madam.second_bits)
        formats[::2] = [(parameters.madam.weight, seconds)] * len(run.layers)
    kept = [tuple(SimpleNamespace(format=fmt, codes=codes) for fmt, codes in zip(row, each))
            for row, each in zip(formats, tensors)]
    moments = 1 + (run.recipe.kept.update in COMPENSATED)  # the others leave the compensations as they are
    return CoreResult(digest(each[:1] for each in kept), digest(each[1:1 + moments] for each in kept), tuple(history),
                      core.invalid, core.overflow, program)


def _measured(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy), as `network.train` reports them."""
    return math.fsum(cross_entropies(logits, y)) / len(y), float(np.count_nonzero(logits.argmax(axis=1) == y) / len(y))
