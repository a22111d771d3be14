"""Training in golden's core."""

from collections.abc import Callable

from ..datasets import Dataset
from ..network import Epoch
from .compiler import compiled
from .host import CoreResult, RunHost
from .layout import Run
from .model import Core
from .parameters import TrainerParameters
from .sequencer import Issue

__all__ = ["train"]


def train(parameters: TrainerParameters, run: Run, data: Dataset, parts: int = 1, blocks: int = 1,
          progress: Callable[[int, int, Epoch], object] | None = None,
          watch: Callable[[Issue, Core], None] | None = None) -> CoreResult:
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
    program, host = compiled(parameters, run, parts, blocks), RunHost(parameters, run, data, parts, progress)
    core = Core(parameters, host.table)
    core.run(program, host, (lambda issue: watch(issue, core)) if watch else None)
    return host.result(program, core.invalid, core.overflow)
