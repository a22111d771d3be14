"""Checkpoints, from which a training core goes on with a run. Parameters are codes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..datasets import Dataset
from ..recipes import Recipe
from .course import Epoch
from .run import begin
from .state import State
from .weights import LogWeights

__all__ = ["Checkpoint", "checkpoint"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A run before a step.

    Parameters
    ----------
    step : int
        From 0.
    codes : tuple of tuple of tuple of ndarray
        By layer and parameter, codes of the parameter and of its moments: see `State.codes`.
    logs : tuple of None or (int, int)
        Of each layer with logarithmic weights, their scale and their bound.
    history : tuple of Epoch
        The measured epochs so far.
    losses : tuple of int
        Of the head, in each step of the latest epoch so far: the sum, as codes.
    scale, accepted : int
        The loss scale, and the steps in a row that were not skipped.
    sums : mapping of (kind, layer) to (int, int)
        Of tensors whose precision is chosen by their numbers: the sums of the step before.
    """

    step: int
    codes: tuple[tuple[tuple[np.ndarray, ...], ...], ...]
    logs: tuple[tuple[int, int] | None, ...]
    history: tuple[Epoch, ...] = ()
    losses: tuple[int, ...] = ()
    scale: int = 1
    accepted: int = 0
    sums: Mapping[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, state: State, **others: Any) -> "Checkpoint":
        """Return the checkpoint of a State, with other fields."""
        firsts: Sequence[Any] = [layer[0] for layer in state.held]
        logs = tuple((each.values.scale, each.bound) if isinstance(each, LogWeights) else None for each in firsts)
        return cls(state.steps, state.codes(), logs, scale=state.scale, accepted=state.accepted, **others)


def checkpoint(recipe: Recipe, dataset: Dataset, *, resume: str | os.PathLike | None = None,
               start: str | os.PathLike | None = None, **settings: Any) -> Checkpoint:
    """Return the checkpoint at which `train` would begin with these arguments. It raises as `train` does."""
    _, course = begin(recipe, dataset, resume=resume, start=start, **settings)
    gemms = course.gemms
    return Checkpoint.of(course.state, history=tuple(course.history),
                         losses=tuple(total for total, _ in gemms.losses),
                         sums=gemms.control.sums if gemms.control else {})
