"""The driver of training runs on a board."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..base.checks import require
from ..golden import core
from ..golden.core import CoreResult
from ..golden.datasets import Dataset
from ..golden.network import Epoch, checkpoint, train
from ..golden.network import check as check_run
from ..golden.recipes import Recipe
from .device import Device
from .session import Session

__all__ = ["Driver"]

RUN = ("seed", "epochs", "batch", "lr", "momentum", "decay", "lr_drops")
USUAL: dict[str, Any] = {"model": "mlp", "hidden": None, "batch_norm": False, "seed": 1, "epochs": 20, "batch": 32,
                         "momentum": 0.9, "decay": 0.0, "lr_drops": ()}


class Driver:
    """Trains networks in a device: `load` a run, then `train` it.

    Parameters
    ----------
    device : Device

    Attributes
    ----------
    run : core.Run, optional
        What was loaded.
    result : CoreResult, optional
        What the latest training ended with.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.run: core.Run | None = None
        self.result: CoreResult | None = None
        self._session: Session | None = None

    def load(self, recipe: Recipe, data: Dataset, *, parts: int = 1, blocks: int = 1, start: str | os.PathLike | None
             = None, resume: str | os.PathLike | None = None, **settings: Any) -> None:
        """Reset the device, and give it a program and examples.

        Parameters
        ----------
        recipe : Recipe
        data : Dataset
        parts, blocks : int
            As for `core.compiled`.
        start, resume : path, optional
            Saved runs, as for `network.train`.
        **settings
            Others of `network.train`.

        Raises
        ------
        ValueError
            The run does not fit the device's core; one line.
        HostError
            The device does not answer.
        """
        known = {*USUAL, "lr"}
        for name in settings:
            require(name in known, "setting", name, ", ".join(sorted(known)))
        self._recipe, self._data = recipe.with_head(data.classes), data
        self._settings = USUAL | {"lr": data.lr} | settings
        self._parts = {"parts": parts, "blocks": blocks}
        self._begun: dict[str, Any] = {"start": start, "resume": resume}
        layers = check_run(data, **self._settings)
        begun = checkpoint(recipe, data, **self._begun, **self._settings)
        self.run = core.Run(self._recipe, layers, len(data.train_x), len(data.test_x), checkpoint=begun,
                            **{name: self._settings[name] for name in RUN})
        self.result = None
        self._session = Session(self.device, self.run, data, **self._parts)

    def train(self, progress: Callable[[int, int, Epoch], object] | None = None) -> CoreResult:
        """Train to the end of what was loaded.

        Parameters
        ----------
        progress : callable, optional
            Called after each epoch with (epoch, epochs, Epoch).

        Returns
        -------
        CoreResult
            Its digests are those of `network.train` with the same settings.
        """
        session = self._loaded()
        session.host.progress = progress
        self.result = session.finish().result
        return self.result

    def evaluate(self) -> dict[str, float]:
        """Return the accuracies of the parameters that the training ended with, or was loaded with: train and test.

        The device does the forward passes; nothing is trained.
        """
        session, run = self._loaded(), self.run
        assert run is not None
        begun = run.begin if self.result is None else replace(run.begin, codes=_tuples(session.host.codes()))
        measured = Session(self.device, core.measuring(run, begun), self._data, **self._parts)
        found = measured.finish().result.history[-1]
        return {"train": found.train_accuracy, "test": found.test_accuracy}

    def parameters(self) -> list[list[np.ndarray]]:
        """Return the codes of the trained parameters: of each layer its weights and its biases."""
        self._trained()
        return [[parameter[0] for parameter in layer] for layer in self._loaded().host.codes()]

    def counters(self) -> dict[str, int]:
        """Return what the core has counted since its program began, by the names of `golden.core.COUNTED`."""
        return self.device.counters()

    def save(self, path: str | os.PathLike) -> None:
        """Write a saved run, with which `network.train` goes on, or begins: see docs/saved.md.

        Golden trains beside, for what a saved run has besides parameters, such as the order of examples. The parameters
        and moments are the device's.
        """
        self._trained()
        session, run = self._loaded(), self.run
        assert run is not None
        train(self._recipe, self._data, save=path, source=lambda step: session.host.codes() if step == run.steps
              else None, **self._begun, **self._settings)

    def close(self) -> None:
        """End the connection."""
        self.device.close()

    def _loaded(self) -> Session:
        require(self._session is not None, "run", None, "one that was loaded")
        assert self._session is not None
        return self._session

    def _trained(self) -> CoreResult:
        require(self.result is not None, "result", None, "one of a run that was trained")
        assert self.result is not None
        return self.result


def _tuples(codes: list[list[list[np.ndarray]]]) -> tuple[tuple[tuple[np.ndarray, ...], ...], ...]:
    return tuple(tuple(tuple(parameter) for parameter in layer) for layer in codes)
