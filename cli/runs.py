"""The training run that a command line describes, for every verb with these options."""

import dataclasses
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..base.checks import require, require_int
from ..golden import core, datasets, network, recipes
from ..golden.softmax import SoftmaxParameters
from . import output
from .settings import numbers, settings, settings_of, value

__all__ = ["core_of", "run_in_core", "run_of"]

MOST = 4096  # instructions that a core may have room for


def run_of(options: Namespace) -> tuple[recipes.Recipe, datasets.Dataset, dict[str, Any]]:
    """Return the recipe, the data set and the other arguments of `network.train`, all of them checked."""
    parameters = None if options.parameters is None else value(options.parameters)
    named = options.recipe or ("bfp" if options.system is None else "system")
    require(options.system is None or named == "system", "recipe", named, "system, because --system is given")
    own = settings_of(options)
    recipe = recipes.make(named, **own)
    if options.work is not None:
        # Of logarithmic numbers the accumulator has bits, and no format.
        recipe = recipes.work_in(recipe, value(options.work), not isinstance(own.get("accumulator", 0), int))
    recipe = recipes.keep(recipe, parameters, options.update)
    hidden = numbers("hidden", options.hidden, int, "sizes such as 32 or 64,32")
    examples = numbers("examples", options.examples, int, "numbers such as 8000 or 8000,2000") or ()
    require(len(examples) <= 2, "examples", options.examples, "numbers such as 8000 or 8000,2000")
    drops = numbers("lr-drops", options.lr_drops, float, "parts of the run such as 0.5 or 0.6,0.8") or ()
    data = datasets.load(options.data).first(*examples, *[None] * (2 - len(examples)))
    if options.softmax_bits is not None or options.softmax_rounding is not None:
        head = recipe.with_head(data.classes).softmax or SoftmaxParameters(classes=data.classes)
        head = dataclasses.replace(head, bits=options.softmax_bits, rounding=options.softmax_rounding or "nearest")
        output.warn(options, head)
        recipe = dataclasses.replace(recipe, softmax=head)
    usual = {"model": network.find_model(options.model), "hidden": hidden, "batch_norm": options.batch_norm,
             "seed": options.seed, "epochs": options.epochs, "lr": data.lr if options.lr is None else options.lr,
             "lr_drops": drops, "momentum": options.momentum, "decay": options.decay, "batch": options.batch}
    network.check(data, **usual)
    return recipe, data, usual


def run_in_core(recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any], **others: Any) -> core.Run:
    """Return the run of a core that `run_of` describes; `others` are fields of the Run."""
    settled = {name: usual[name] for name in ("seed", "epochs", "batch", "lr", "momentum", "decay", "lr_drops")}
    return core.Run(recipe.with_head(data.classes), network.check(data, **usual), len(data.train_x), len(data.test_x),
                    **settled, **others)


def core_of(options: Namespace, recipe: recipes.Recipe, data: datasets.Dataset, usual: dict[str, Any],
            usually: Mapping[str, Any] | None = None, **others: Any
            ) -> tuple[core.TrainerParameters, core.Run, core.Program | None]:
    """Return a core just large enough for a run, but for what ``--core`` says, and the run in it: both checked.

    `usually` are parameters of the core that ``--core`` may still change. `others` are fields of the Run. The program
    comes with them, where the core's room for it was found by it.
    """
    run = run_in_core(recipe, data, usual, **others)
    given = dict(usually or {}) | settings(options.core, "--core")
    own = core.trainer_of(run, **{name: given[name] for name in ("rows", "columns", "sums") if name in given})
    parameters = core.TrainerParameters.from_json(own.to_json() | given)
    core.require_runs(parameters, run)
    for name in ("parts", "blocks"):
        require_int(name, getattr(options, name), 1, 8)
    program = None
    if "program" not in given:
        with suppress(ValueError):  # what does not fit is told by who needs it
            program = core.compiled(dataclasses.replace(parameters, program=MOST), run, options.parts, options.blocks)
            size = max(parameters.program, 1 << (len(program.instructions) - 1).bit_length())
            parameters = dataclasses.replace(parameters, program=size)
    return parameters, run, program
