"""The host of a training run: it feeds a core, and measures by the logits that come back."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...base.checks import require
from ..datasets import Dataset
from ..network import Epoch, cross_entropies, digest, initialise
from .layout import Run
from .parameters import COMPENSATED, TrainerParameters
from .program import Program

__all__ = ["CoreResult", "RunHost"]


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


class RunHost:
    """The host of a run, for golden's core and for any other one. It knows the program of `compiled`.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    data : Dataset
        Of the run's numbers of examples.
    progress : callable, optional
        Called after each measured epoch with (epoch, epochs, Epoch).

    Attributes
    ----------
    table : array of uint32, optional
        Codes of the work format for the 8-bit codes of memory E.
    history : list of Epoch
        The measured epochs so far.
    written : list of ndarray
        Tensors that came since the latest measured epoch: after the last one, the parameters.
    """

    def __init__(self, parameters: TrainerParameters, run: Run, data: Dataset,
                 progress: Callable[[int, int, Epoch], object] | None = None) -> None:
        require((run.train, run.test) == (len(data.train_x), len(data.test_x)), "examples", (run.train, run.test),
                f"{len(data.train_x)}, {len(data.test_x)}, those of the data set")
        self.parameters, self.run, self.data, self.progress = parameters, run, data, progress
        self.table: np.ndarray | None = None
        if parameters.examples:
            found = np.unique(np.concatenate([parameters.work.encode(x).ravel() for x in (data.train_x, data.test_x)]))
            require(len(found) <= 256, "numbers in the examples", len(found),
                    "at most 256, because memory E has codes of 8 bits: examples=0")
            self.table = found.astype(np.uint32)
        self.history: list[Epoch] = []
        self.written: list[np.ndarray] = []
        self._losses: list[int] = []
        self._epochs = [epoch for epoch in range(1, run.epochs + 1) if self._measured(epoch)]
        self._batches = [math.ceil(len(x) / run.batch) for x in (data.train_x, data.test_x)]
        self._feed = self.tensors()

    def _measured(self, epoch: int) -> bool:
        return epoch % self.run.measure_every == 0 or epoch == self.run.epochs

    def tensors(self) -> Iterator[np.ndarray]:
        """Yield what the core reads, in its order: codes of shape (rows, columns). Labels are one row."""
        p, run, data = self.parameters, self.run, self.data
        rng = np.random.default_rng(run.seed)
        starts = run.starts
        for layer, logs in zip(initialise(run.layers, rng, p.work), starts):
            for number, start in enumerate(layer):
                codes = logs.start.codes if logs and number == 0 else p.stored.encode(start)
                codes = np.atleast_2d(codes)
                yield from [codes] + [np.zeros(codes.shape, np.uint32)] * p.planes
        train_x, test_x = (p.work.encode(x.reshape(len(x), -1)) for x in (data.train_x, data.test_x))
        if self.table is not None:
            train_x, test_x = (np.searchsorted(self.table, x).astype(np.uint32) for x in (train_x, test_x))
        for epoch in range(1, run.epochs + 1):
            order = np.argsort(rng.random(len(train_x)), kind="stable")
            for first in range(0, len(order), run.batch):
                chosen = order[first:first + run.batch]
                yield train_x[chosen]
                yield data.train_y[np.newaxis, chosen].astype(np.uint32)
            if not self._measured(epoch):
                continue
            for x in (train_x, test_x):
                for first in range(0, len(x), run.batch):
                    yield x[first:first + run.batch]

    def read(self, rows: int, columns: int) -> np.ndarray:
        """Return the next tensor's codes, shape (rows, columns)."""
        codes = next(self._feed)
        require(codes.size == rows * columns, "codes that the core reads", rows * columns, f"{codes.size}")
        return codes.reshape(rows, columns)

    def loss(self, total: int) -> None:
        """Take the sum of losses of a batch, or of a part of one, as codes of the head."""
        self._losses.append(total)

    def write(self, codes: np.ndarray) -> None:
        """Take a tensor, shape (rows, columns). With the last logits of an epoch the epoch is measured."""
        self.written.append(codes)
        if len(self.history) < len(self._epochs) and len(self.written) == sum(self._batches):
            self._measure()

    def _measure(self) -> None:
        p, first = self.parameters, self._batches[0]
        (loss, train_accuracy), (_, test_accuracy) = (
            _scores(p.work.decode(np.concatenate(logits)), y)
            for logits, y in ((self.written[:first], self.data.train_y), (self.written[first:], self.data.test_y)))
        epoch = self._epochs[len(self.history)]
        # The head's loss is that of the latest epoch: every epoch has as many sums.
        since = epoch - (self.history[-1].epoch if self.history else 0)
        latest = self._losses[-len(self._losses) // since:]
        head_loss = sum(latest) / self.run.train / (1 << p.softmax.fraction)
        self.written.clear()
        self._losses.clear()
        self.history.append(Epoch(epoch, loss, train_accuracy, test_accuracy, head_loss))
        if self.progress:
            self.progress(epoch, self.run.epochs, self.history[-1])

    def result(self, program: Program, invalid: int | None, overflow: int | None) -> CoreResult:
        """Return what the run ends with, once all parameters have come."""
        p, run = self.parameters, self.run
        planes = p.planes + 1
        tensors = [self.written[start:start + planes] for start in range(0, len(self.written), planes)]
        formats: list[tuple[Any, ...]] = [(p.stored,) * planes] * len(tensors)
        if p.madam:  # weights and biases take turns
            seconds = SimpleNamespace(width=p.madam.second_bits)
            formats[::2] = [(p.madam.weight, seconds)] * len(run.layers)
        tensors_of = [tuple(SimpleNamespace(format=fmt, codes=codes) for fmt, codes in zip(row, each))
                      for row, each in zip(formats, tensors)]
        moments = 1 + (run.recipe.kept.update in COMPENSATED)  # the others leave the compensations as they are
        return CoreResult(digest(each[:1] for each in tensors_of), digest(each[1:1 + moments] for each in tensors_of),
                          tuple(self.history), invalid, overflow, program)


def _scores(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy), as `network.train` reports them."""
    with np.errstate(all="ignore"):  # of a run that diverges
        losses = cross_entropies(logits, y)
    return math.fsum(losses) / len(y), float(np.count_nonzero(logits.argmax(axis=1) == y) / len(y))
