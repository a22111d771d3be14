# amaranth: UnusedElaboratable=no
"""``narrowgauge synth``."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from .. import catalog
from ..base.checks import require
from ..base.files import cache_folder
from ..hw import verilog
from ..report.energy import energy_of
from ..synth import energy, flow
from . import output
from .settings import settings_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options and return the work."""
    output.check(("--json", options.json))
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    target = flow.check(options.target, options.device, options.seeds, options.placer)[0]
    if target.liberty or options.liberty is not None:
        require(options.placer is None, "--placer", options.placer, "nothing, with a library of cells")
        library = energy.library_text(options.target, options.liberty)
        energy.read(library)
        output.warn(options, parameters)
        cache_folder("synth")
        return lambda: _measure(options, unit, parameters, library)
    output.warn(options, parameters)
    cache_folder("synth")
    return lambda: _synth(options, unit, parameters)


def _synth(options: Namespace, unit: catalog.Unit, parameters: Any) -> int:
    name = unit.module_name(parameters)
    result = flow.synthesise(unit.verilog(parameters), name, verilog.ports_of(unit.component(parameters)),
                             options.target, seeds=options.seeds, device=options.device, placer=options.placer,
                             progress=output.progress)
    output.done()
    result = {"unit": unit.name, "parameters": parameters.to_json(), **result,
              "macs_per_cycle": unit.macs(parameters) if unit.macs else None,
              "seed": list(range(1, options.seeds + 1)), "tools": output.versions("amaranth") | result["tools"]}
    output.write_json(options.json, result)
    output.say(options, flow.summary(name, result))
    return 0 if result["fits"] else 1


def _measure(options: Namespace, unit: catalog.Unit, parameters: Any, library: str) -> int:
    result = energy_of(unit, parameters, library, options.target, output.progress)
    output.done()
    result |= {"tools": output.versions("amaranth") | result["tools"]}
    output.write_json(options.json, result)
    output.say(options, energy.summary(result))
    return 0
