# amaranth: UnusedElaboratable=no
"""``narrowgauge train --host`` and ``narrowgauge board``: a core on a board, and a board that is simulated."""

import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from ..base.checks import require
from ..base.files import cache_folder
from ..golden import core, datasets, network, recipes
from ..host import BoardFile, Device, connect
from ..host.session import Session
from ..hw.host.text import serial_text
from ..sim.host import DeviceModel, serve
from . import output
from .rtl import Rtl
from .runs import run_in_core

__all__ = ["DIVISOR", "NAME", "TIMEOUT", "OnBoard", "opened", "prepare"]

NAME = "board"                 # of the module that is simulated
DIVISOR, TIMEOUT = 4, 1 << 20  # cycles of a bit and of half a request, in a simulation
WAIT, LONG = 5.0, 60.0         # seconds to wait for a board, and for one that is simulated, which may be slow
TERMINALS = "/dev/pts/"        # of pseudo terminals


def opened(options: Namespace, file: BoardFile) -> Device:
    """Return the device at ``--host``."""
    usual = LONG if options.host.startswith(TERMINALS) else WAIT
    transport = connect(options.host, file.baud, options.timeout or usual)

    def watch(words: int) -> None:
        output.progress(f"{4 * words:,} bytes by {transport.name}")

    return Device(transport, file.configuration, watch=watch)


class OnBoard(Rtl):
    """A run in golden and on a board, checked when it is made: `train` does the work.

    Parameters
    ----------
    options, recipe, data, usual
        As `run_of` takes and returns them.
    """

    KEY = "host"

    def __init__(self, options: Namespace, recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any]
                 ) -> None:
        require(options.board is not None, "--board", None, "the file board.json that `narrowgauge build` wrote")
        self.file = BoardFile.read(options.board)
        self.options, self.recipe, self.data, self.usual = options, recipe, data, usual
        begin = network.checkpoint(recipe, data, resume=options.resume, start=options.start, **usual)
        self.run = run_in_core(recipe, data, usual, checkpoint=begin, saved=options.save is not None)
        self.parameters = self.file.configuration.trainer
        core.require_runs(self.parameters, self.run)
        self.settings = {"parts": options.parts, "blocks": options.blocks}
        core.compiled(self.parameters, self.run, **self.settings)  # what does not fit is told before any work
        self.alike, self.written = True, False
        self.told: dict[str, Any] = {"port": options.host, "board": self.file.board, "clock_mhz": self.file.clock_mhz}

    def _started(self) -> Session:
        output.progress(f"looking for the board at {self.options.host}")
        self.began = time.perf_counter()
        self.device = opened(self.options, self.file)
        return Session(self.device, self.run, self.data, **self.settings)

    def _cost(self) -> str:
        seconds = time.perf_counter() - self.began
        return f"{4 * self.device.words:,} bytes went over {self.options.host} in {seconds:.3g} s"


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options of ``narrowgauge board`` and return the work."""
    file = BoardFile.read(options.file)
    require(4 <= options.divisor <= 1 << 16, "--divisor", options.divisor, "an integer from 4 to 65536")
    output.check(("--port-file", options.port_file))
    cache_folder("sim")

    def told(path: str) -> None:
        output.done()
        output.put(f"{path}\n")
        if options.port_file:
            output.write(options.port_file, f"{path}\n")

    def work() -> int:
        output.progress("building the simulator, which takes some minutes")
        text = serial_text(file.configuration, NAME, options.divisor, TIMEOUT)
        serve(DeviceModel(NAME, text, options.divisor), told)
        return 0

    return work
