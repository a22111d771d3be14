"""What a step of training takes in a core."""

from dataclasses import dataclass, replace

from ..compiler import compiled
from ..instructions import UNITS
from ..layout import Run
from ..parameters import TrainerParameters
from .timeline import Timeline

__all__ = ["Cycles", "step_cycles", "training_cycles"]


@dataclass(frozen=True)
class Cycles:
    """What a step of training takes.

    Parameters
    ----------
    cycles : float
        From one step to the next.
    macs : int
        Multiply-accumulates of the network, padding not counted.
    utilisation : float
        The part of the cycles that the array would need at its peak.
    ceiling : float
        What `utilisation` would be if cells never waited: what tiles and groups that are not full leave.
    busy : dict of str to float
        Of each unit, the part of the cycles in which it works.
    starved, blocked : float
        The parts in which the array's cells wait for operands, and for room for their results.
    """

    cycles: float
    macs: int
    utilisation: float
    ceiling: float
    busy: dict[str, float]
    starved: float
    blocked: float


def step_cycles(parameters: TrainerParameters, run: Run, parts: int = 1, blocks: int = 1, fitted: bool = False,
                serial: bool = False, iterations: int = 8) -> Cycles:
    """Return what a step on a full batch takes, once the units work side by side.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
        Its examples and epochs do not matter.
    parts, blocks : int
        As for `compiled`.
    fitted, serial : bool
        As for `Timeline`.
    iterations : int
        Steps, 6 or more. The first three fill the queues, and during the last two no batches come.
    """
    run = replace(run, train=run.batch * iterations, test=0, epochs=1, lr_drops=(), checkpoint=None)
    program = compiled(parameters, run, parts, blocks)
    last = max(number for number, each in enumerate(program.instructions) if each.name == "gemm" and each.update)
    marks = Timeline(parameters, program, fitted, serial, last).products.marks
    before, after = marks[2], marks[-3]
    count = len(marks) - 5
    cycles = (after.cycle - before.cycle) / count
    macs, ideal = (after.macs - before.macs) // count, (after.peak - before.peak) / count
    shares = {name: (after.busy[name] - before.busy[name]) / count / cycles for name in after.busy}
    return Cycles(cycles, macs, ideal / cycles, ideal / (shares["array"] * cycles),
                  {unit: shares[unit] for unit in UNITS[1:]}, shares["starved"], shares["blocked"])


def training_cycles(parameters: TrainerParameters, run: Run, parts: int = 1, blocks: int = 1) -> dict[str, int]:
    """Return the cycles of a whole run, of ``training`` and of ``measuring`` accuracy, as a core counts them.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    parts, blocks : int
        As for `compiled`.
    """
    return Timeline(parameters, compiled(parameters, run, parts, blocks)).cycles
