# amaranth: UnusedElaboratable=no
"""``narrowgauge build``: a bitstream for a board, and what its host needs."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..base.checks import require
from ..base.files import writable_folder
from ..golden import core, datasets
from ..golden.errors import MissingExtra
from ..golden.host import Configuration
from ..host import BoardFile
from ..hw.host import description
from ..hw.host.serial import LEAST
from ..hw.host.text import serial_text
from ..synth.boards import BOARDS, Board
from ..synth.flow import PLACERS
from . import output
from .runs import core_of, run_of

__all__ = ["configuration_of", "find", "prepare"]

NAME, FILE = "narrowgauge_device", "board.json"
FORGET = 0.1  # seconds after which the bridge forgets half a request


def find(name: str) -> Board:
    """Return the board of that name."""
    require(name in BOARDS, "--board", name, ", ".join(BOARDS))
    return BOARDS[name]


def configuration_of(board: Board, parameters: core.TrainerParameters, data: datasets.Dataset) -> Configuration:
    """Return a device for a board, with a data memory if all examples have room in it, as bytes."""
    examples = [x.reshape(len(x), -1) for x in (data.train_x, data.test_x)]
    codes = len(np.unique(np.concatenate([parameters.work.encode(x) for x in examples])))
    words = sum(map(len, examples)) * -(-examples[0].shape[1] // 4)
    words = -(-words // 512) * 512
    return Configuration(parameters, words if codes <= 256 and words <= board.data else 0)


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options and return the work."""
    board = find(options.board)
    require(options.placer is None or options.placer in PLACERS, "placer", options.placer, ", ".join(PLACERS))
    folder = Path(options.output or f"build/{board.name}")
    recipe, data, usual = run_of(options)
    parameters, run, _ = core_of(options, recipe, data, usual, board.core)
    core.compiled(parameters, run, options.parts, options.blocks)  # what does not fit is told before any work
    configuration = configuration_of(board, parameters, data)
    output.check(("--json", options.json))
    writable_folder("--output", folder, [FILE])
    if not board.platform:
        clock = options.clock or board.mhz
    else:
        from ..synth.boards.flow import clock_of  # it needs packages for boards
        clock = clock_of(board, options.clock).mhz
    divisor = max(LEAST, round(clock * 1e6 / board.baud))
    return lambda: _build(options, board, configuration, clock, divisor, folder)


def _build(options: Namespace, board: Board, configuration: Configuration, clock: float, divisor: int, folder: Path
           ) -> int:
    output.progress("generating")
    text = serial_text(configuration, NAME, divisor, round(clock * 1e6 * FORGET))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device.v").write_text(text)
    _describe(folder)
    found: dict = {"fits": True, "clock_mhz": clock, "bitstream": None}
    if board.platform:
        from ..synth.boards.flow import built, clock_of
        found = built(board, NAME, text, clock_of(board, options.clock), folder, seeds=options.seeds,
                      placer=options.placer, say=output.progress)
        output.done()
    file = BoardFile(board.name, configuration, found["clock_mhz"] or clock, divisor)
    output.write_json(options.json, {
        "board": board.name, "device": board.platform, "parameters": configuration.to_json(), **found,
        "baud": file.baud, "registers": "registers.rdl", "tools": output.versions("amaranth") | found.get("tools", {})})
    if "lut" in found:
        output.say(options, ", ".join(f"{found[name]:,} of {found['capacity'][name]:,} {shown}" for name, shown in (
            ("lut", "LUT"), ("ff", "FF"), ("dsp", "DSP"), ("bram", "block RAM"))))
    if not found["fits"]:
        output.say(options, f"does not fit {board.name}: {found['misfit']}")
        return 1
    file.write(folder / FILE, bitstream=found["bitstream"])
    if found["bitstream"]:
        output.say(options, f"places and routes at {found['fmax_mhz']:.1f} MHz; the PLL makes {file.clock_mhz:g} MHz")
        output.say(options, f"load it: {board.load.format(bit=folder / found['bitstream'])}")
    output.say(options, f"{folder / FILE} is for the host: {file.baud:,} baud")
    return 0


def _describe(folder: Path) -> None:
    """Write the register map: by PeakRDL a C header and a page too, where it is installed."""
    (folder / "registers.rdl").write_text(description.systemrdl())
    try:
        (folder / "registers.h").write_text(description.header())
        (folder / "registers.md").write_text(description.markdown())
    except MissingExtra:
        pass
