"""``narrowgauge plan``."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..base.checks import require
from ..golden import core, datasets, systems
from ..golden.host import Configuration, Packets
from ..synth.boards import Board
from . import output
from .build import configuration_of, find
from .runs import core_of, run_of

__all__ = ["prepare"]

CLOCK = 80.0  # MHz
BITS = 10     # of a byte on a serial line


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options and return the work."""
    output.check(("--json", options.json))
    require(options.clock is None or 0 < options.clock <= 10000, "clock", options.clock,
            "a number of MHz above 0, at most 10000")
    recipe, data, usual = run_of(options)
    board = None if options.board is None else find(options.board)
    parameters, run, program = core_of(options, recipe, data, usual, board.core if board else None)
    options.clock = options.clock or (board.mhz if board else CLOCK)
    if board is None:
        return lambda: _plan(options, parameters, run, program)
    facts = _facts(board, configuration_of(board, parameters, data), run, data)
    return lambda: max(_plan(options, parameters, run, program, facts), _tell_board(options, facts))


def _facts(board: Board, device: Configuration, run: core.Run, data: datasets.Dataset) -> dict[str, Any]:
    """Return what is a board's own: its block RAMs, and the seconds on its serial line."""
    packets, encode = Packets(device), device.trainer.work.encode
    once = sum(map(len, packets.keep(np.concatenate([
        encode(x.reshape(len(x), -1)) for x in (data.train_x, data.test_x)]))))
    sent = [len(packets.tensor(each)) for each in core.RunHost(device.trainer, replace(run, epochs=1), data).tensors()]
    parameters = 2 * len(run.layers) * (device.trainer.planes + 1)  # tensors that come before the examples
    logits = (run.train + run.test) * packets.transfers.count(1, run.layers[-1].outputs)
    came = logits * packets.transfers.stream * packets.transfers.element // 32
    words = {"once": once + sum(sent[:parameters]), "epoch": sum(sent[parameters:]) + came}
    return {"name": board.name, "block_rams": sum(device.block_rams.values()), "available": board.block_rams or None,
            "data": device.data, "line_seconds": {name: 4 * BITS * count / board.baud for name, count in words.items()}}


def _tell_board(options: Namespace, facts: dict[str, Any]) -> int:
    """Tell what `_facts` returned, and return the exit status."""
    kept = "once, as bytes in the data memory" if facts["data"] else "again for each epoch"
    once, epoch = facts["line_seconds"].values()
    output.say(options, f"the serial line takes {once:.3g} s before the training and {epoch:.3g} s for an epoch, "
                        f"accuracy included: examples are sent {kept}")
    needed, available = facts["block_rams"], facts["available"]
    output.say(options, f"{facts['name']}: {needed} block RAMs" + (f" of {available}" if available else "")
               + "; `narrowgauge build` tells whether all else fits")
    if available and needed > available:
        output.say(options, f"does not fit {facts['name']}: {needed - available} block RAMs too few")
        return 1
    return 0


def _plan(options: Namespace, parameters: core.TrainerParameters, run: core.Run, program: core.Program | None,
          facts: dict[str, Any] | None = None) -> int:
    found = core.plan(parameters, run, options.parts, options.blocks, program)
    step, seconds = found.step, found.seconds(options.clock)
    output.write_json(options.json, {
        "recipe": run.recipe.name, "data": options.data, "seed": run.seed, "batch": run.batch,
        "core": parameters.to_json(), "parts": options.parts, "blocks": options.blocks,
        "fits": found.misfit is None, "misfit": found.misfit,
        "memories": {name: {"used": used, "size": size, "block_rams": rams}
                     for name, (used, size, rams) in found.memories.items()},
        "cycles_per_step": step and step.cycles, "steps_per_epoch": found.steps, "macs_per_step": step and step.macs,
        "utilisation": step and step.utilisation, "ceiling": step and step.ceiling, "busy": step and step.busy,
        "starved": step and step.starved, "blocked": step and step.blocked,
        "clock_mhz": options.clock, "seconds_per_epoch": seconds, **({"board": facts} if facts else {}),
        "tools": output.versions(),
    })
    shape = " - ".join(str(layer.positions * layer.outputs) for layer in run.layers)
    output.say(options, f"{run.recipe.name} in a {parameters.rows} x {parameters.columns} core of system "
                        f"{systems.name_of(parameters.system)}: {run.layers[0].inputs} - {shape}, batch {run.batch}")
    for name, (used, size, rams) in found.memories.items():
        filled = f"{used:>9,} of {size:>9,} elements" if size else " " * 31
        output.say(options, f"  {name:<8} {filled}  {rams:>4} block RAMs")
    if step is None or seconds is None:
        output.say(options, f"does not fit: {found.misfit}")
        return 1
    output.say(options, f"a step takes {step.cycles:,.0f} cycles, {step.utilisation:.1%} of the peak "
                        f"({step.ceiling:.1%} if cells never waited)")
    output.say(options, "busy: " + ", ".join(f"{unit} {part:.0%}" for unit, part in step.busy.items() if part)
               + f"; the array's cells are starved {step.starved:.0%} of the time, and blocked {step.blocked:.0%}")
    output.say(options, f"an epoch of {found.steps} steps takes {seconds:.3g} s at {options.clock:g} MHz")
    return 0
