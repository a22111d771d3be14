"""Whether a run fits a core, and how fast it is there: told without training."""

from dataclasses import dataclass

from .compiler import compiled
from .layout import Layout, Run, require_runs
from .parameters import TrainerParameters
from .program import Program
from .timing import Cycles, step_cycles

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """What `plan` tells.

    Parameters
    ----------
    misfit : str, optional
        What does not fit, in one line; None where all does.
    memories : dict of str to (int, int, int)
        Of each memory: elements that the run uses, elements that there are, and block RAMs of 18 kbit. The array's
        buffers, the program and statistics have block RAMs alone.
    step : Cycles, optional
        Of a step on a full batch; None where the run does not fit.
    steps : int
        Of an epoch.
    """

    misfit: str | None
    memories: dict[str, tuple[int, int, int]]
    step: Cycles | None
    steps: int

    def seconds(self, mhz: float) -> float | None:
        """Return the time of an epoch of training at a clock; accuracy is measured apart."""
        return self.steps * self.step.cycles / mhz / 1e6 if self.step else None


def plan(parameters: TrainerParameters, run: Run, parts: int = 1, blocks: int = 1, program: Program | None = None
         ) -> Plan:
    """Return whether a run fits a core, and what a step takes there.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    parts, blocks : int
        As for `compiled`.
    program : Program, optional
        What `compiled` returned for them.

    Raises
    ------
    ValueError
        A core cannot run the recipe at all, whatever its size.
    """
    require_runs(parameters, run)
    block = parameters.side**2
    needed = Layout(run, parameters.side, parameters.examples > 0).needed
    rams, sizes = parameters.block_rams, parameters.blocks
    memories = {name: (used * block, sizes[name] * block, rams[name]) for name, used in needed.items()
                if sizes[name]}
    used, size, _ = memories["W"]
    memories["M"] = (used * parameters.kept_planes, size * parameters.kept_planes, rams["M"])
    memories["L"] = (run.batch, parameters.labels, rams["L"])
    memories |= {name: (0, 0, rams[name]) for name in ("array", "program", "statistics") if name in rams}
    misfit, step = None, None
    try:
        if program is None:
            compiled(parameters, run, parts, blocks)
        step = step_cycles(parameters, run, parts, blocks)
    except ValueError as error:
        misfit = str(error)
    return Plan(misfit, memories, step, -(-run.train // run.batch))
