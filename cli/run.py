# amaranth: UnusedElaboratable=no
"""``narrowgauge run``: inference with saved weights, in golden's core, in Verilog, or on a board."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from .. import catalog
from ..base.checks import require
from ..golden import core, datasets, network, recipes
from . import output
from .runs import core_of, run_in_core, run_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], int | None]:
    """Check the options and return the work."""
    output.check(("--json", options.json))
    require(not (options.host and options.rtl), "--host", options.host, "without --rtl")
    for option in ("board", "timeout"):
        require(options.host or not getattr(options, option), f"--{option}", getattr(options, option), "with --host")
    require(not (options.host and options.core), "--core", options.core, "without --host: the board has its core")
    options.epochs = 1
    recipe, data, usual = run_of(options)
    begin = network.checkpoint(recipe, data, start=options.start, **usual)
    measured = _measured_on_board if options.host else _measured
    return measured(options, recipe, data, usual, begin)


def _measured(options: Namespace, recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any],
              begin: network.Checkpoint) -> Callable[[], None]:
    parameters, run, _ = core_of(options, recipe, data, usual, checkpoint=begin)
    run = core.measuring(run)
    core.compiled(parameters, run, options.parts, options.blocks)

    def work() -> None:
        if not options.rtl:
            found = core.train(parameters, run, data, options.parts, options.blocks)
            return _tell(options, found, "golden's core")
        from ..sim.core import Simulation
        unit = catalog.find("trainer")
        output.progress("building the simulator")
        simulation = Simulation(parameters, run, data, unit.module_name(parameters), unit.verilog(parameters),
                                parts=options.parts, blocks=options.blocks)
        found = simulation.finish().result
        return _tell(options, found, "a core of simulated Verilog")

    return work


def _measured_on_board(options: Namespace, recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any],
                       begin: network.Checkpoint) -> Callable[[], None]:
    from ..host import BoardFile
    from ..host.session import Session
    from .board import opened
    require(options.board is not None, "--board", None, "the file board.json that `narrowgauge build` wrote")
    file = BoardFile.read(options.board)
    run = core.measuring(run_in_core(recipe, data, usual, checkpoint=begin))
    core.compiled(file.configuration.trainer, run, options.parts, options.blocks)

    def work() -> None:
        with opened(options, file) as device:
            found = Session(device, run, data, parts=options.parts, blocks=options.blocks).finish().result
        _tell(options, found, f"{file.board} at {options.host}")

    return work


def _tell(options: Namespace, found: core.CoreResult, where: str) -> None:
    output.done()
    last = found.history[-1]
    accuracy = {"train": last.train_accuracy, "test": last.test_accuracy}
    output.write_json(options.json, {"start": options.start, "data": options.data, "where": where,
                                     "accuracy": accuracy, "loss": last.loss, "digest": found.digest,
                                     "tools": output.versions()})
    output.say(options, f"{where}: loss {last.loss:.4f}, train accuracy {last.train_accuracy:.4f}, test accuracy "
                        f"{last.test_accuracy:.4f}")
    output.say(options, f"digest {found.digest}")
