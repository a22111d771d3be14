"""``narrowgauge plan``."""

from argparse import Namespace
from collections.abc import Callable

from ..base.checks import require
from ..golden import core, systems
from . import output
from .runs import core_of, run_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options and return the work."""
    output.check(("--json", options.json))
    require(0 < options.clock <= 10000, "clock", options.clock, "a number of MHz above 0, at most 10000")
    recipe, data, usual = run_of(options)
    parameters, run, program = core_of(options, recipe, data, usual)
    return lambda: _plan(options, parameters, run, program)


def _plan(options: Namespace, parameters: core.TrainerParameters, run: core.Run, program: core.Program | None) -> int:
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
        "clock_mhz": options.clock, "seconds_per_epoch": seconds, "tools": output.versions(),
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
