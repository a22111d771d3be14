"""``narrowgauge train``."""

import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from ..base.checks import require
from ..base.files import same, special
from ..golden import datasets, network, recipes, systems
from ..golden.errors import MissingExtra
from . import output
from .runs import run_of

__all__ = ["prepare", "train"]

ALONE = {"core": [], "parts": 1, "blocks": 1, "program": None, "check": None, "waves": None, "window": None}

WITH_HOST = ("parts", "blocks", "program")
HOST = ("board", "timeout")


def prepare(options: Namespace) -> Callable[[], int | None]:
    """Check the options and return the work."""
    output.check(("--json", options.json), ("--save", options.save), ("--program", options.program),
                 ("--waves", options.waves), ("--plot", options.plot))
    if options.plot is not None:
        require(special(options.plot) or options.plot.lower().endswith(".svg"), "--plot", options.plot,
                "a name that ends in .svg")
        try:
            import matplotlib  # noqa: F401  # say so before the training
        except ImportError:
            raise MissingExtra("train --plot needs matplotlib: pip install 'narrowgauge[demo]'") from None
    for option, path in (("--resume", options.resume), ("--start", options.start)):
        require(path is None or options.json in (None, "-") or not same(options.json, path), "--json", options.json,
                f"another file than that of {option}")
    for option, given in ALONE.items():
        there = options.rtl or options.host and option in WITH_HOST
        require(there or not getattr(options, option) or getattr(options, option) == given, f"--{option}",
                getattr(options, option), "with --rtl")
    for option in HOST:
        require(options.host or not getattr(options, option), f"--{option}", getattr(options, option), "with --host")
    require(not (options.host and options.rtl), "--host", options.host, "without --rtl")
    recipe, data, usual = run_of(options)
    if options.host:
        from .board import OnBoard  # it needs packages for serial ports
        return OnBoard(options, recipe, data, usual).train
    if options.rtl:
        from .rtl import Rtl  # it needs packages for simulation
        return Rtl(options, recipe, data, usual).train

    def work() -> None:
        train(options, recipe, data, usual)

    return work


def train(options: Namespace, recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any],
          beside: Callable[[Any], str] = lambda row: "",
          more: Callable[[network.Result], tuple[dict, list[str]]] = lambda result: ({}, []),
          source: Callable | None = None) -> network.Result:
    """Train in golden, and tell the result.

    Parameters
    ----------
    options, recipe, data, usual
        As `run_of` takes and returns them.
    beside : callable, optional
        Called after each epoch with golden's Epoch; returns what its line tells besides.
    more : callable, optional
        Called with the result; returns what its JSON has besides, and lines of text before the digest.
    source : callable, optional
        As `network.train` takes it.
    """
    def progress(epoch: int, epochs: int, row: Any) -> None:
        line = (f"epoch {epoch}/{epochs}: loss {row.loss:.4f}, train {row.train_accuracy:.4f}, "
                f"test {row.test_accuracy:.4f}{beside(row)}")
        (output.tell if options.verbose else output.progress)(line)

    result = network.train(recipe, data, progress=progress, save=options.save, resume=options.resume,
                           start=options.start, source=source, **usual)
    recipe = result.recipe
    others, lines = more(result)
    output.done()
    accuracy, loss = result.accuracy, result.history[-1].loss
    output.write_json(options.json, {
        "recipe": recipe.name, "data": data.name, "examples": {"train": len(data.train_x), "test": len(data.test_x)},
        **usual, **_model(usual), "update": options.update,
        "accuracy": accuracy, "loss": loss,
        "system": {"name": systems.name_of(recipe.system), **recipe.system.to_json()}, "formats": recipe.formats(),
        "chunk": recipe.chunk, "loss_scale": result.loss_scale,
        "skipped_steps": result.skipped, "diverged": result.diverged, "invalid": result.invalid,
        "overflow": result.overflow, "digest": result.digest, "state_digest": result.state_digest,
        **({"start": result.start} if result.start else {}),
        "history": [{"epoch": row.epoch, "loss": row.loss, "train": row.train_accuracy, "test": row.test_accuracy,
                     **({} if row.head_loss is None else {"head_loss": row.head_loss})} for row in result.history],
        **({"precision": result.precision} if result.precision else {}),
        **others, "tools": output.versions(),
    })
    if options.plot is not None:
        from ..report import plots  # it is slow to import
        title = f"{recipe.name} on {data.name}, seed {options.seed}"
        output.write(options.plot, plots.standing_alone(plots.course(title, result.history)))
    output.say(options, f"{recipe.name} on {data.name}, {options.epochs} epochs, seed {options.seed}: "
                        f"train accuracy {accuracy['train']:.4f}, test accuracy {accuracy['test']:.4f}")
    if recipe.scale:
        output.say(options, f"loss scale {result.loss_scale}, {result.skipped} steps skipped")
    if result.precision:
        operations, passes = result.precision["bit_operations"], result.precision["passes"]
        cycles = result.precision["cycles"]
        output.say(options, f"bit operations {operations['used'] / operations['fp32']:.2%} of fp32's and "
                            f"{operations['used'] / operations['static']:.2%} of the greatest precision's, "
                            f"passes {passes['used'] / passes['static']:.2%} of its {passes['static']}")
        if cycles["used"]:
            output.say(options, f"cycles of a 4 x 4 array {cycles['used']}, {cycles['used'] / cycles['static']:.2%} of "
                                f"the greatest precision's")
    for raised, text in ((result.invalid, "a NaN was met"), (result.overflow, "sums or weights saturated")):
        if raised:
            output.say(options, text)
    for line in lines:
        output.say(options, line)
    output.say(options, f"digest {result.digest}")
    # The accuracy alone would not show it.
    guess = math.log(data.classes)
    if result.diverged:
        output.tell(f"narrowgauge train: warning: the run diverged in epoch {result.diverged['epoch']}, step "
                    f"{result.diverged['step']}: a loss or a parameter is not finite")
    elif loss > 2 * guess:
        output.tell(f"narrowgauge train: warning: the run did not learn: its loss is {loss:.4g}, that of guessing "
                    f"{guess:.4g}")
    return result


def _model(usual: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON tells of the model: a file has layers, a built-in one has hidden sizes."""
    model, hidden = usual["model"], usual["hidden"]
    if isinstance(model, network.Model):
        return {"model": model.name, "layers": list(model.entries), "hidden": None, "batch_norm": None}
    return {"hidden": list(hidden or network.MODELS[model][1])}
