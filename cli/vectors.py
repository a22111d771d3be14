# amaranth: UnusedElaboratable=no
"""``narrowgauge vectors``."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import catalog
from ..base.files import json_text, writable_folder, write_whole
from ..golden.errors import MissingExtra
from ..hw.ports import ports
from ..sim import plain
from . import output
from .settings import settings_of

__all__ = ["prepare"]

EXPLAINED = "vectors.json"


def prepare(options: Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    output.warn(options, parameters)
    name = unit.module_name(parameters)
    files = [plain.INPUTS, plain.OUTPUTS, EXPLAINED, f"{name}.v", f"{name}_tb.v"]
    writable_folder("--output", options.output, files)
    return lambda: _write(options, unit, parameters, name)


def _write(options: Namespace, unit: catalog.Unit, parameters: Any, name: str) -> None:
    output.progress("computing vectors")
    recorded = True
    try:
        vectors = unit.vectors(parameters, options.vectors, options.seed)
    except MissingExtra as error:
        output.done()
        output.tell(f"narrowgauge vectors: no recorded vectors: {error}")
        recorded = False
        vectors = unit.vectors(parameters, options.vectors, options.seed, record=False)
    output.progress("writing Verilog")
    component = unit.component(parameters)
    widths = {port.name: port.width for port in ports(component)}
    texts = {
        plain.INPUTS: plain.hexadecimal(vectors.inputs, widths["i_payload"]),
        plain.OUTPUTS: plain.hexadecimal(vectors.outputs, widths["o_payload"]),
        f"{name}.v": unit.verilog(parameters),
        f"{name}_tb.v": plain.bench(component, name, vectors, options.seed),
        EXPLAINED: json_text({
            "unit": unit.name, "parameters": parameters.to_json(), "module": name, "bench": f"{name}_tb",
            "seed": options.seed, "recorded": recorded, **plain.explained(component, vectors),
            "tools": output.versions("amaranth")}),
    }
    for file, text in texts.items():
        write_whole(Path(options.output, file), text)
    output.done()
    output.put(f"{unit.name}: {len(vectors.inputs)} inputs and {len(vectors.outputs)} outputs in {options.output}, "
               f"with the bench {name}_tb.v\n")
