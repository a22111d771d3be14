# amaranth: UnusedElaboratable=no
"""``narrowgauge train --rtl``: a core of simulated Verilog trains beside golden."""

import math
import signal
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import catalog
from ..base.checks import require
from ..base.files import cache_folder
from ..golden import core, datasets, network, recipes
from ..sim import runner
from ..sim.core import CHECKS, Differs, Simulation, Stuck
from . import output
from .runs import core_of
from .settings import numbers
from .train import train

__all__ = ["Rtl"]


class Rtl:
    """A run in golden and in Verilog, checked when it is made: `train` does the work.

    Parameters
    ----------
    options, recipe, data, usual
        As `run_of` takes and returns them.
    """

    KEY = "rtl"  # of the JSON's part

    def __init__(self, options: Namespace, recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any]
                 ) -> None:
        output.check_waves(options.waves)
        window = numbers("--window", options.window, int, "two cycles such as 1000,2000")
        require(window is None or len(window) == 2 and 0 <= window[0] <= window[1], "--window", options.window,
                "two cycles such as 1000,2000")
        require(window is None or options.waves is not None, "--window", options.window, "with --waves")
        require(options.check is None or options.check in CHECKS, "--check", options.check, ", ".join(CHECKS))
        self.options, self.recipe, self.data, self.usual = options, recipe, data, usual
        begin = network.checkpoint(recipe, data, resume=options.resume, start=options.start, **usual)
        self.parameters, self.run, program = core_of(options, recipe, data, usual, checkpoint=begin,
                                                     saved=options.save is not None)
        # What does not fit is told before any work.
        program = program or core.compiled(self.parameters, self.run, options.parts, options.blocks)
        self.settings = {"parts": options.parts, "blocks": options.blocks, "program": program, "check": options.check,
                         "waves": options.waves, "window": window}
        self.unit = catalog.find("trainer")
        self.unit.component(self.parameters)  # its own checks
        self.told: dict[str, Any] = {"simulator": runner.simulator()}
        cache_folder("sim")
        self.alike, self.written = True, False

    def train(self) -> int:
        """Train, tell both digests, and return the exit status."""
        self.simulation = self._started()
        try:
            if self.options.program is not None:
                output.write(self.options.program, self.simulation.program.text())
            train(self.options, self.recipe, self.data, self.usual, self._beside, self._more, self._codes)
        except (Stuck, Differs) as error:
            output.done()
            output.tell(f"narrowgauge train: the core and golden differ: {error}")
            return 1
        finally:
            self.simulation.close()
        output.say(self.options, f"digest {self.found.digest} of the core")
        output.say(self.options, "identical" if self.alike else "different: --check step tells where it begins")
        return 0 if self.alike else 1

    def _started(self) -> Simulation:
        """Return the run in a core, before its first step."""
        output.progress("building the simulator")
        return Simulation(self.parameters, self.run, self.data, self.unit.module_name(self.parameters),
                          self.unit.verilog(self.parameters), **self.settings)

    def _beside(self, row: network.Epoch) -> str:
        """Let the core train for an epoch, and return what its line tells."""
        simulation = self.simulation
        try:
            with self._noting():
                found = simulation.advance()
        except KeyboardInterrupt:
            if self.options.save is not None and simulation.interrupted:
                self._save(row.epoch * self.run.per_epoch)
            raise
        told = f", {simulation.cycles:,} cycles{_share(simulation.peak / simulation.cycles)}"
        if repr(found) != repr(row):  # a loss may be NaN, which equals nothing
            self.alike = False
            told += (f"; the core: loss {found.loss:.4f}, train {found.train_accuracy:.4f}, "
                     f"test {found.test_accuracy:.4f}")
        return told

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Note the first Ctrl-C where a file is saved, rather than raise it anywhere; the second one is raised."""
        def note(number: int, frame: Any) -> None:
            signal.signal(number, before)
            self.simulation.interrupted = True

        if self.options.save is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _save(self, golden: int) -> None:
        """Save the core's state before the step that golden is at: golden trains up to the core's step again."""
        output.progress("saving the core's state")
        options, last = self.options, self.simulation.stop()

        def record(step: int, *operand: Any) -> None:
            if step >= last:
                raise KeyboardInterrupt

        resume, start = (options.save, None) if self.written else (options.resume, options.start)
        if last < golden:
            network.train(self.recipe, self.data, record=record, save=options.save, resume=resume, start=start,
                          source=self._codes, **self.usual)

    def _codes(self, step: int) -> list | None:
        codes = self.simulation.codes(step)
        self.written |= codes is not None
        return codes

    def _more(self, result: network.Result) -> tuple[dict, list[str]]:
        """Let the core send its parameters; return what the JSON has of it, and lines that tell the same."""
        output.progress("reading the core's parameters")
        self.found = found = self.simulation.finish().result
        self.alike &= (found.digest, found.state_digest) == (result.digest, result.state_digest)
        simulated, report, p = self.simulation, self.simulation.report, self.parameters
        assert report is not None
        cycles, steps = report["training_cycles"], self.run.steps - self.run.begin.step
        busy, waiting = ({name: report[f"training_{name}"] / cycles for name in names}
                         for names in (core.UNITS[1:], ("starved", "blocked")))
        utilisation, last = simulated.peak / cycles, found.history[-1]
        lines = [
            f"{p.rows} x {p.columns} core: {steps} steps in {cycles:,} cycles{_share(utilisation)}, "
            f"and {report['measuring_cycles']:,} cycles to measure accuracy",
            "busy: " + ", ".join(f"{unit} {share:.0%}" for unit, share in busy.items()) + "; the array's cells are "
            + " and ".join(f"{name} {share:.0%}" for name, share in waiting.items()) + " of the time",
            self._cost(),
        ]
        return {self.KEY: {
            "core": p.to_json(), "parts": self.options.parts, "blocks": self.options.blocks,
            "check": self.options.check, "digest": found.digest, "state_digest": found.state_digest,
            "identical": self.alike, "steps": steps, "cycles": cycles, "macs": simulated.macs,
            "utilisation": None if math.isnan(utilisation) else utilisation, "busy": busy, **waiting,
            "evaluation": {"cycles": report["measuring_cycles"],
                           "accuracy": {"train": last.train_accuracy, "test": last.test_accuracy}},
            "invalid": found.invalid, "overflow": found.overflow, "seconds": simulated.seconds, **self.told,
        }}, lines

    def _cost(self) -> str:
        """Return a line on what the core's run took."""
        return f"simulated {self.simulation.model.cycles:,} cycles in {self.simulation.seconds:.3g} s"


def _share(utilisation: float) -> str:
    """Return what a line tells of the share of the peak, which is unknown where tensors choose their precisions."""
    return "" if math.isnan(utilisation) else f", {utilisation:.1%} of the peak"
