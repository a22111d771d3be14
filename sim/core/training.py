"""Training in a simulated trainer."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.checks import require
from ...golden import core
from ...golden.core import ERRORS, CoreResult, Run, RunHost, Sequencer, TrainerParameters
from ...golden.core.instructions import COUNTERS
from ...golden.core.model import OPERANDS
from ...golden.core.transfers import LOSS, TENSOR
from ...golden.datasets import Dataset
from ...golden.network import Epoch
from .comparison import Comparison, observed
from .model import CoreModel, Stuck

__all__ = ["Differs", "Simulated", "Simulation"]

PATIENCE = 4  # times the cycles that golden's model gives a step


class Differs(RuntimeError):
    """Memories differ from golden's. The message tells where."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """What a simulated run ends with.

    Parameters
    ----------
    result : CoreResult
    report : dict of str to int
        By the names of `golden.core.REPORT` and `golden.core.COUNTED`.
    macs : int
        Multiply-accumulates of the network in training.
    peak : float
        The cycles that they would take at the array's peak: NaN where tensors choose their precisions.
    seconds : float
        Of the simulation, without the build.
    """

    result: CoreResult
    report: dict[str, int]
    macs: int
    peak: float
    seconds: float

    @property
    def utilisation(self) -> float:
        """The part of the cycles of training that the array would need at its peak."""
        return self.peak / self.report["training_cycles"]


class Simulation:
    """A training run in a simulated trainer, which goes on from one measured epoch to the next.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    data : Dataset
    name, text : str
        The trainer's module, and its Verilog.
    parts, blocks : int
        As for `compiled`.
    program : Program, optional
        What `compiled` returned for them.
    check : str, optional
        One of `CHECKS`: memories are compared with golden's after each step, or after each instruction of a unit.
    **settings
        Of `CoreModel`: stalls and waveforms.

    Attributes
    ----------
    program : Program
        With a ``sync`` wherever memories are compared.
    host : RunHost
        Its history has the measured epochs so far.
    interrupted : bool
        Set it, from a signal handler for one: `advance` soon raises KeyboardInterrupt, between two messages.
    macs, peak : int, float
        As in `Simulated`, so far.

    Raises
    ------
    ValueError
        The run does not fit the core; one line.
    """

    def __init__(self, parameters: TrainerParameters, run: Run, data: Dataset, name: str, text: str, *,
                 parts: int = 1, blocks: int = 1, program: core.Program | None = None, check: str | None = None,
                 **settings: Any) -> None:
        self.parameters = parameters
        self.program = program or core.compiled(parameters, run, parts, blocks)
        if check is not None:
            self.program = observed(self.program, check)
            count = len(self.program.instructions)
            require(count <= parameters.program, "program", parameters.program,
                    f"{1 << (count - 1).bit_length()} or more, for {count} instructions with those of the check")
        self.run, self.host = run, RunHost(parameters, run, data, parts)
        self.comparison = None if check is None else Comparison(
            parameters, self.program, RunHost(parameters, run, data, parts))
        self.macs, self.peak, self.seconds = 0, 0.0, 0.0
        self.report: dict[str, int] | None = None
        self.interrupted, self._step = False, -1  # the step of the codes that the core sent last
        # In golden's model of cycles a vector of a window is read at once.
        slow = parameters.system.group if parameters.windows else 1
        patience = 10_000 + round(PATIENCE * slow * core.step_cycles(parameters, run, parts, blocks).cycles)
        self.model = self._core(name, text, patience, settings)
        self.model.send(self.program, self.host.tensors())
        self._shapes = self._out_shapes()
        self._training = self._numbers_of_training()

    def _core(self, name: str, text: str, patience: int, settings: dict[str, Any]) -> Any:
        """Return the core that trains; nothing may stand still in it for `patience` cycles."""
        model = CoreModel(self.parameters, name, text, **settings)
        model.state.patience = patience
        return model

    def _out_shapes(self) -> Iterator[tuple[int, int]]:
        """Yield the shape of each tensor that comes, and count the products of training on the way."""
        for issue in Sequencer(self.parameters.side, self.program).issues():
            if issue.instruction.name == "gemm" and not issue.registers["measured"]:
                macs, peak = core.work_of(self.parameters, issue)
                chosen = any((kind, issue.instruction.use >> 3) in issue.thresholds
                             for kind in OPERANDS[issue.instruction.use & 7])
                self.macs, self.peak = self.macs + macs, self.peak + (math.nan if chosen else peak)
            if issue.instruction.name == "out":
                yield issue.views["a"].rows, issue.views["a"].columns

    def _numbers_of_training(self) -> list[int]:
        """Return the numbers of the instructions that are not for measuring accuracy."""
        counter, found = 0, list[int]()
        for number, each in enumerate(self.program.instructions):
            counter = each.counter if each.name == "step" else counter
            found += [number] * (COUNTERS[counter] == "training")
        return found[1:-1]  # the core is at the first one while the program comes, and at the last one ever after

    @property
    def cycles(self) -> int:
        """Cycles of training so far, without those in which accuracy is measured."""
        return int(self.model.spent[self._training].sum())

    def advance(self) -> Epoch:
        """Run to the end of the next measured epoch, and return it as `network.train` tells it.

        If the run is `saved`, the core has sent its parameters as well.

        Raises
        ------
        Stuck
            The program was stopped by an error, or nothing moves any more.
        Differs
            Memories differ from golden's.
        """
        count = len(self.host.history)
        while len(self.host.history) == count or self.run.saved and self.host.latest is None:
            if self.interrupted:
                raise KeyboardInterrupt
            self._go_on()
        self._step = self.host.history[-1].epoch * self.run.per_epoch
        if self.interrupted:
            raise KeyboardInterrupt
        return self.host.history[-1]

    def stop(self) -> int:
        """Stop the core after a step, read its parameters and moments, and return the number of steps so far.

        The host sends no further examples. The core does the steps whose examples it has, and waits. A reset ends
        the program, and another program reads the memories.
        """
        self.model.drain()
        self.model.reset()
        program = core.reading(self.parameters, self.run)
        self.model.send(program, ())
        self.host.latest = [
            self.model.transfers.codes(self._message(), issue.views["a"].rows, issue.views["a"].columns)
            for issue in Sequencer(self.parameters.side, program).issues()]
        self._step = self.host.step
        return self._step

    def _message(self) -> np.ndarray:
        message = self.model.next()
        assert message is not None and self.model.transfers.kind(message) == TENSOR, "the core cannot be read"
        return message

    def codes(self, step: int) -> list[list[list[np.ndarray]]] | None:
        """Return parameters and moments before a step, as `State.codes` does, if these are what the core sent last."""
        if step == self.run.begin.step == self.run.steps and self.report is None:  # there is nothing to train
            self.finish()
            self._step = step
        return self.host.codes() if step == self._step else None

    def finish(self) -> Simulated:
        """Run to the end of the program, and return a Simulated. It raises as `advance` does."""
        while self.report is None:
            self._go_on()
        invalid, overflow = (self.report[name] - 1 if self.report[name] else None for name in ("invalid", "overflow"))
        result = self.host.result(self.program, invalid, overflow)
        return Simulated(result, self.report, self.macs, self.peak, self.seconds)

    def close(self) -> None:
        """Write the waveform, if there is one."""
        self.model.close()

    def _go_on(self) -> None:
        """Run to the next message, or to the next place where memories are compared."""
        begin = time.perf_counter()
        try:
            message = self.model.next(synced=self.comparison is not None)
        except Stuck as error:
            raise Stuck(f"{error}: {self._line(self.model.number)}") from None
        self.seconds += time.perf_counter() - begin
        transfers = self.model.transfers
        if message is None:
            assert self.comparison is not None
            self.comparison.advance()
            difference = self.comparison.difference(self.model)
            if difference:
                raise Differs(f"cycle {self.model.cycles}, {difference}")
        elif (kind := transfers.kind(message)) == TENSOR:
            self.host.write(transfers.codes(message, *next(self._shapes)))
        elif kind == LOSS:
            self.host.loss(transfers.number(message[0]))
        else:
            self.report = transfers.report(message) | self.model.counters()
            if self.report["error"]:
                raise Stuck(f"the program was stopped: {ERRORS[self.report['error']]}, at instruction "
                            f"{self.report['number']}: {self._line(self.report['number'])}")

    def _line(self, number: int) -> str:
        return self.program.line(number) if number < len(self.program.instructions) else "beyond the program"
