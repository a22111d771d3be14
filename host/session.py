"""A training run in a device, message by message."""

from typing import Any

import numpy as np

from ..golden.core import Run
from ..golden.datasets import Dataset
from ..sim.core import Simulation
from .device import Device

__all__ = ["Session"]


class Session(Simulation):
    """A training run in a device: a `Simulation` whose core is behind a line.

    The device is given the examples first, as far as it has room for them.

    Parameters
    ----------
    device : Device
    run, data, parts, blocks
        As for `Simulation`.
    """

    def __init__(self, device: Device, run: Run, data: Dataset, *, parts: int = 1, blocks: int = 1) -> None:
        p = device.configuration.trainer
        super().__init__(p, run, data, "", "", parts=parts, blocks=blocks, device=device,
                         examples=np.concatenate([p.work.encode(x.reshape(len(x), -1))
                                                  for x in (data.train_x, data.test_x)]))

    def _core(self, name: str, text: str, patience: int, settings: dict[str, Any]) -> Device:
        device: Device = settings["device"]
        device.reset()
        device.keep(settings["examples"])
        return device

    @property
    def cycles(self) -> int:
        """Cycles of training so far, without those in which accuracy is measured."""
        return self.model.counters()["training_cycles"]

    def close(self) -> None:
        """End the connection."""
        self.model.close()
