# amaranth: UnusedElaboratable=no
"""``narrowgauge package``."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from .. import catalog
from ..base.checks import require
from ..base.files import writable_folder, write_whole
from ..hw import packaging
from ..hw.ports import STYLES
from . import output
from .settings import settings_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    output.warn(options, parameters)
    require(options.ports in STYLES, "--ports", options.ports, ", ".join(STYLES))
    module = packaging.Packaged.of(unit.component(parameters), unit.module_name(parameters), unit.summary,
                                   options.ports, options.slice)
    texts = {
        f"{module.name}.core": packaging.core(module),
        **{f"{module.name}.{standard}.xml": packaging.component(module, standard)
           for standard in packaging.STANDARDS},
        f"{module.name}.tcl": packaging.script(module),
    }
    writable_folder("--output", options.output, [module.file, *texts])

    def work() -> None:
        texts[module.file] = unit.wrapped(parameters, options.ports, options.slice)
        for file, text in texts.items():
            write_whole(Path(options.output, file), text)
        output.put(f"{module.name}: {', '.join(sorted(texts))} in {options.output}\n")

    return work
