"""A training run: batches, epochs, measured accuracies, and the digest that it ends with."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...base.checks import require, require_int
from ..datasets import Dataset
from ..precision import Control, Policies, Rising, range_test
from ..recipes import Recipe
from .course import Course, Epoch, configuration
from .layers import Layer
from .models import Model, layers_of
from .passes import MEASURED, Gemms, cross_entropies, forward, gradients
from .state import State, digest
from .weights import initialise

__all__ = ["MAX_SEED", "TESTED", "Epoch", "Result", "begin", "check", "precision_range", "train"]

MAX_SEED = (1 << 31) - 1
# Accuracy is measured on the training part in steps from `MEASURED` on, and on the test part so many steps later.
TESTED = 1 << 30
# Elements of a layer's patches, or of its output, that are measured at a time.
EVALUATED = 1 << 22


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
    state_digest : str
        See `digest`: of each parameter, its velocity and compensation, or its second moments; see `State.moments`.
    start : str, optional
        The digest of the parameters and statistics that the run was given to begin with.
    """

    recipe: Recipe
    seed: int
    history: tuple[Epoch, ...]
    layers: tuple[Layer, ...]
    parameters: tuple[tuple, ...]
    statistics: tuple
    digest: str
    invalid: bool
    skipped: int
    loss_scale: int
    overflow: bool = False
    precision: dict | None = None
    diverged: dict | None = None
    state_digest: str = ""
    start: str | None = None

    @property
    def accuracy(self) -> dict[str, float]:
        """Final accuracies as ``{"train", "test"}``."""
        return {"train": self.history[-1].train_accuracy, "test": self.history[-1].test_accuracy}


def _evaluate(gemms: Gemms, layers: Sequence[Layer], state: State, x: np.ndarray, y: np.ndarray, batch: int, first: int
              ) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy); of equal logits the first counts.

    Examples are taken in batches as in training, each with the random words of a step of its own, from `first` on.
    Where no word and no scale tells batches apart, more are taken at once.
    """
    losses, right = [], 0
    count = batch
    if gemms.recipe.batches_alike:
        largest = max(layer.positions * max(layer.patch, layer.outputs) for layer in layers)
        count *= max(1, EVALUATED // largest // batch)
    for step, start in enumerate(range(0, len(x), count), first):
        part = y[start:start + count]
        logits = forward(gemms, layers, state.parameters, x[start:start + count], step, state.statistics)[1]
        losses.append(cross_entropies(logits, part))
        right += int(np.count_nonzero(logits.argmax(axis=1) == part))
    return math.fsum(np.concatenate(losses)) / len(y), float(right / len(y))


def train(recipe: Recipe, dataset: Dataset, *, seed: int = 1, epochs: int = 20, lr: float | None = None,
          batch: int = 32, model: str | Model = "mlp", hidden: Sequence[int] | None = None, batch_norm: bool = False,
          momentum: float = 0.9, decay: float = 0, lr_drops: tuple[float, ...] = (), measure_every: int = 1,
          progress: Callable | None = None, record: Callable | None = None, save: str | os.PathLike | None = None,
          resume: str | os.PathLike | None = None, start: str | os.PathLike | None = None,
          source: Callable | None = None) -> Result:
    """Train a multilayer perceptron, a small convolutional network, or a network of a file.

    Parameters
    ----------
    recipe : Recipe
    dataset : Dataset
    seed : int
        0 .. 2**31 - 1. One generator, ``default_rng(seed)``, gives the weights first. At the start of each epoch it
        gives one number per example. Examples are taken in the order of their numbers.
    epochs, batch : int
        The last batch of an epoch may be smaller; its gradient is divided by its own size.
    lr, momentum, decay : float
        Rounded to the format of the parameters, in which a narrow one needs them below 2. Decay is of weights alone,
        and of those that SGD moves. The lr is the data set's usual one when not given. Madam has its own rate: see
        `recipes.Stored`.
    lr_drops : tuple of float
        Parts of the run after which the lr halves, above 0 and below 1.
    model : str or Model
        ``mlp``: see `perceptron`. ``cnn``: see `convolutional`. A `Model` is what `read_model` gives.
    hidden : tuple of int, optional
        Sizes of the hidden layers, or channels of the two convolutions: (32,) and (8, 16) when not given. A `Model` has
        none.
    batch_norm : bool
        Whether every layer but the last has batch statistics (see `normalise`) in place of its bias. Accuracy is
        measured with running ones, from mean 0 and variance 1: r <- r + 0.1 * (batch's - r), three operations. A
        `Model` says it layer by layer.
    measure_every : int
        Epochs from one entry of the history to the next; the last epoch always has one.
    progress : callable, optional
        Called after each measured epoch with (epoch, epochs, Epoch).
    record : callable, optional
        Called before each GEMM of training, once per operand, with (step, layer, gemm, kind, array, axis). The gemm is
        a key of `GEMMS`, the kind one of `TENSORS`, the axis the reduction axis. The array is in the work format, as
        it is stored, and never changed later. A convolution's activations are patches, and stored codes are `Logs`.
    save : path, optional
        Of a file that gets the run's state after each epoch, whole or not at all. A KeyboardInterrupt saves the state
        after the last whole step, and is raised again with a message.
    resume : path, optional
        Of a saved run to go on with, in the same settings. `epochs` is the total; it may be another one where nothing
        depends on the number of steps. The result is that of a run that never stopped.
    start : path, optional
        Of a saved run whose parameters and running statistics the run begins with. Layers and formats are the same. The
        generator gives its weights all the same, so orders do not change.
    source : callable, optional
        Of codes for the saved file, in place of golden's own: those of a core that trains beside golden. It is called
        with a step, and returns codes as `State.codes` does. Where it returns None, no file is written.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        An argument, or a saved run, is not allowed; one line.
    OSError
        A file cannot be read or written.
    """
    layers, course = begin(recipe, dataset, seed=seed, epochs=epochs, lr=lr, batch=batch, model=model, hidden=hidden,
                           batch_norm=batch_norm, momentum=momentum, decay=decay, lr_drops=lr_drops,
                           measure_every=measure_every, record=record, save=save, resume=resume, start=start,
                           source=source)
    gemms, state, recipe, lr = course.gemms, course.state, course.gemms.recipe, course.configured["lr"]
    control, count, steps = gemms.control, len(dataset.train_x), epochs * course.per_epoch
    # The result tells of divergence; NumPy's warnings would repeat it.
    with np.errstate(all="ignore"), course.saving():
        train_x, test_x = (gemms.arithmetic.number(x) for x in (dataset.train_x, dataset.test_x))
        for epoch in range(max(1, -(-state.steps // course.per_epoch)), epochs + 1):
            for chosen in course.batches(count, batch, epoch):
                step = state.steps
                found = gradients(gemms, layers, state.parameters, train_x[chosen], dataset.train_y[chosen], step,
                                  state.scale)
                state.step(*found, lr * 0.5 ** sum(step >= part * steps for part in lr_drops), momentum,
                           decay)
                if not (course.diverged or gemms.finite and state.finite()):
                    course.diverged = {"epoch": epoch, "step": step}
                course.note()
            if course.unmeasured(epoch):
                loss, train_accuracy = _evaluate(gemms, layers, state, train_x, dataset.train_y, batch, MEASURED)
                _, test_accuracy = _evaluate(gemms, layers, state, test_x, dataset.test_y, batch, MEASURED + TESTED)
                if not (course.diverged or gemms.finite):
                    course.diverged = {"epoch": epoch, "step": state.steps - 1}
                course.history.append(Epoch(epoch, loss, train_accuracy, test_accuracy, gemms.head_loss()))
                course.note()
                if progress:
                    progress(epoch, epochs, course.history[-1])
            course.write()
    flags = [gemms, *state.flags]
    return Result(recipe, seed, tuple(course.history), layers, tuple(state.parameters), tuple(state.statistics),
                  digest(state.whole(), recipe.work), any(each.invalid for each in flags), state.skipped, state.scale,
                  any(each.overflow for each in flags), control.report() if control else None, course.diverged,
                  digest(state.moments(), recipe.work), course.given)


def begin(recipe: Recipe, dataset: Dataset, *, seed: int = 1, epochs: int = 20, lr: float | None = None,
          batch: int = 32, model: str | Model = "mlp", hidden: Sequence[int] | None = None, batch_norm: bool = False,
          momentum: float = 0.9, decay: float = 0, lr_drops: tuple[float, ...] = (), measure_every: int = 1,
          record: Callable | None = None, save: str | os.PathLike | None = None,
          resume: str | os.PathLike | None = None, start: str | os.PathLike | None = None,
          source: Callable | None = None) -> tuple[tuple[Layer, ...], Course]:
    """Return the layers and the course of a run before its next step. Arguments are those of `train`, and checked."""
    settings: dict[str, Any] = {"seed": seed, "batch": batch, "lr": dataset.lr if lr is None else lr, "epochs": epochs,
                                "lr_drops": lr_drops, "momentum": momentum, "decay": decay}
    layers = check(dataset, model=model, hidden=hidden, batch_norm=batch_norm, **settings)
    require_int("measure_every", measure_every, 1, 10**6)
    require(resume is None or start is None, "start", start, "None, because the run is resumed")
    recipe, steps = recipe.with_head(dataset.classes), epochs * -(-len(dataset.train_x) // batch)
    control = Control(recipe, len(layers), steps) if recipe.policies else None
    gemms, rng = Gemms(recipe, seed, record, control), np.random.default_rng(seed)
    state = State(recipe, initialise(layers, rng, recipe.work), seed, steps)
    course = Course(gemms, state, rng, configuration(
        recipe, dataset, layers, state, contents=(save or resume) is not None, measure_every=measure_every, **settings),
        save, source)
    if resume is not None:
        course.resume(resume)
    if start is not None:
        course.start(start)
    return layers, course


def precision_range(recipe: Recipe, dataset: Dataset, *, threshold: float = 0.1, low: int = 2, high: int = 8,
                    **settings: Any) -> tuple[int | None, dict[int, float]]:
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
    system: Any = recipe.system
    policies: Any = recipe.policies
    recipe = replace(recipe, system=replace(system, mantissa=max(high, system.mantissa)), modes=recipe.modes | wide,
                     precision=Policies(rising, rising, policies.gradients))
    history = train(recipe, dataset, epochs=high - low + 1, **settings).history
    return range_test(lambda width: history[width - low].train_accuracy, 1 / dataset.classes, low=low, high=high,
                      threshold=threshold)


def check(dataset: Dataset, *, seed: int, epochs: int, lr: float, batch: int, model: str | Model,
          hidden: Sequence[int] | None, batch_norm: bool, momentum: float, decay: float, lr_drops: tuple[float, ...]
          ) -> tuple[Layer, ...]:
    """Check arguments of `train`, and return the layers of the run."""
    require_int("seed", seed, 0, MAX_SEED)
    require_int("epochs", epochs, 1, 10**6)
    require(type(lr) in (int, float) and 0 < lr <= 1e6, "lr", lr, "a number above 0, at most 1e6")
    require_int("batch", batch, 1, len(dataset.train_x))
    most = MEASURED // -(-len(dataset.train_x) // batch)
    require(epochs <= most, "epochs", epochs, f"at most {most}, of 2**31 steps in all")
    require(type(batch_norm) is bool, "batch_norm", batch_norm, "true, false")
    require(type(momentum) in (int, float) and 0 <= momentum < 1, "momentum", momentum, "a number from 0 to below 1")
    require(type(decay) in (int, float) and 0 <= decay < 1, "decay", decay, "a number from 0 to below 1")
    require(isinstance(lr_drops, tuple) and all(type(each) is float and 0 < each < 1 for each in lr_drops), "lr_drops",
            lr_drops, "numbers above 0 and below 1")
    return layers_of(model, dataset, hidden, batch_norm)
