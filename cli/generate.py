# amaranth: UnusedElaboratable=no
"""``narrowgauge generate``."""

from argparse import Namespace
from collections.abc import Callable

from .. import catalog
from ..base.checks import require
from ..golden.core import TrainerParameters
from ..golden.host import Configuration
from ..hw import ports
from ..hw.host.text import axi_text
from . import output
from .settings import settings_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    output.check(("--output", options.output))
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    output.warn(options, parameters)
    if options.ports == "device":
        require(unit.name == "trainer" and options.template is None and not options.slice, "--ports", "device",
                "for the unit trainer alone, without --slice and --template")
        assert isinstance(parameters, TrainerParameters)
        configuration = Configuration(parameters)
        name = f"trainer_device_{configuration.hash:08x}"
        return lambda: output.write(options.output, axi_text(configuration, name))
    require(options.ports in ports.STYLES, "--ports", options.ports, ", ".join(ports.STYLES))
    if options.template is not None:
        text = unit.template(parameters, options.template, options.ports, options.slice)
        return lambda: output.write(options.output, text)
    return lambda: output.write(options.output, unit.wrapped(parameters, options.ports, options.slice))
