# amaranth: UnusedElaboratable=no
"""``narrowgauge generate``."""

from argparse import Namespace
from collections.abc import Callable

from .. import catalog
from ..base.checks import require
from ..hw import ports
from . import output
from .settings import settings_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    output.check(("--output", options.output))
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    output.warn(options, parameters)
    require(options.ports in ports.STYLES, "--ports", options.ports, ", ".join(ports.STYLES))
    if options.template is not None:
        text = unit.template(parameters, options.template, options.ports, options.slice)
        return lambda: output.write(options.output, text)
    return lambda: output.write(options.output, unit.wrapped(parameters, options.ports, options.slice))
