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
from .layout import Run, parts_of
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
    parts : int
        As for `compiled`.
    progress : callable, optional
        Called after each measured epoch with (epoch, epochs, Epoch).

    Attributes
    ----------
    table : array of uint32, optional
        Codes of the work format for the 8-bit codes of memory E.
    history : list of Epoch
        The measured epochs so far.
    latest : list of ndarray, optional
        Parameters and their moments, as they came last; None while those of the latest epoch have not come.
    step : int
        The step of training whose examples and labels are not yet asked for.
    """

    def __init__(self, parameters: TrainerParameters, run: Run, data: Dataset, parts: int = 1,
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
        self.history: list[Epoch] = list(run.begin.history)
        self.latest: list[np.ndarray] | None = None
        self._written: list[np.ndarray] = []
        self._measured = run.measured
        self._batches = [math.ceil(len(x) / run.batch) for x in (data.train_x, data.test_x)]
        self._sending = len(self.history) == len(self._measured)  # what comes is parameters, not logits
        # Sums of losses in each step of an epoch. The run may begin within an epoch.
        self._sums = [len(parts_of(min(run.batch, run.train - start), parts, parameters.side))
                      for start in range(0, run.train, run.batch)]
        self._losses, within = list(run.begin.losses), run.begin.step % run.per_epoch
        self._left = sum(self._sums[within:]) if within else 0
        self.step = run.begin.step
        self._feed = self.tensors()

    def tensors(self) -> Iterator[np.ndarray]:
        """Yield what the core reads, in its order: codes of shape (rows, columns). Labels are one row."""
        p, run, data = self.parameters, self.run, self.data
        rng = np.random.default_rng(run.seed)
        initialise(run.layers, rng, p.work)  # orders come after these numbers
        for layer in run.begin.codes:
            for planes in layer:
                found = [np.atleast_2d(each).astype(np.uint32) for each in planes]
                yield from found + [np.zeros_like(found[0])] * (p.planes + 1 - len(found))
        train_x, test_x = (p.work.encode(x.reshape(len(x), -1)) for x in (data.train_x, data.test_x))
        if self.table is not None:
            train_x, test_x = (np.searchsorted(self.table, x).astype(np.uint32) for x in (train_x, test_x))
        begin, to_measure = run.begin.step, self._measured[len(run.begin.history):]
        for epoch in range(1, run.epochs + 1):
            order = np.argsort(rng.random(len(train_x)), kind="stable")
            done = max(begin - (epoch - 1) * run.per_epoch, 0)
            for first in range(done * run.batch, len(order), run.batch):
                chosen = order[first:first + run.batch]
                yield train_x[chosen]
                self.step = (epoch - 1) * run.per_epoch + first // run.batch + 1
                yield data.train_y[np.newaxis, chosen].astype(np.uint32)
            if epoch not in to_measure:
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
        if not self._left:
            self._losses, self._left = [], sum(self._sums)
        self._losses.append(total)
        self._left -= 1

    def write(self, codes: np.ndarray) -> None:
        """Take a tensor, shape (rows, columns). With the last logits of an epoch the epoch is measured."""
        self._written.append(codes)
        if self._sending:
            if len(self._written) == 2 * len(self.run.layers) * (self.parameters.planes + 1):
                self.latest, self._written = self._written, []
                self._sending = len(self.history) == len(self._measured)
        elif len(self._written) == sum(self._batches):
            self._measure()
            self.latest, self._written = None, []
            self._sending = self.run.saved or len(self.history) == len(self._measured)

    def _measure(self) -> None:
        p, first = self.parameters, self._batches[0]
        (loss, train_accuracy), (_, test_accuracy) = (
            _scores(p.work.decode(np.concatenate(logits)), y)
            for logits, y in ((self._written[:first], self.data.train_y), (self._written[first:], self.data.test_y)))
        epoch = self._measured[len(self.history)]
        head_loss = sum(self._losses) / self.run.train / (1 << p.softmax.fraction)
        self.history.append(Epoch(epoch, loss, train_accuracy, test_accuracy, head_loss))
        if self.progress:
            self.progress(epoch, self.run.epochs, self.history[-1])

    def result(self, program: Program, invalid: int | None, overflow: int | None) -> CoreResult:
        """Return what the run ends with, once all parameters have come."""
        p = self.parameters
        tensors: list[list[Any]] = []
        for number, each in enumerate(parameter for layer in self.codes() for parameter in layer):
            formats: list[Any] = [p.stored] * len(each)
            if p.madam and number % 2 == 0:  # weights and biases take turns
                formats = [p.madam.weight, SimpleNamespace(width=p.madam.second_bits)]
            tensors.append([SimpleNamespace(format=fmt, codes=codes) for fmt, codes in zip(formats, each)])
        return CoreResult(digest((each[0],) for each in tensors), digest(tuple(each[1:]) for each in tensors),
                          tuple(self.history), invalid, overflow, program)

    def codes(self) -> list[list[list[np.ndarray]]]:
        """Return the `latest` parameters and moments, as `State.codes` does."""
        assert self.latest is not None, "the core has not sent them"
        planes = self.parameters.planes + 1
        # Methods without compensations leave that plane as it is.
        moments = 1 + (self.run.recipe.kept.update in COMPENSATED)
        found = [self.latest[start:start + planes][:1 + moments] for start in range(0, len(self.latest), planes)]
        return [found[start:start + 2] for start in range(0, len(found), 2)]


def _scores(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy), as `network.train` reports them."""
    with np.errstate(all="ignore"):  # of a run that diverges
        losses = cross_entropies(logits, y)
    return math.fsum(losses) / len(y), float(np.count_nonzero(logits.argmax(axis=1) == y) / len(y))
