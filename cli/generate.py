# amaranth: UnusedElaboratable=no
"""``narrowgauge generate``."""

from argparse import Namespace
from collections.abc import Callable

from .. import catalog
from . import output
from .settings import settings_of

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    output.check(("--output", options.output))
    unit = catalog.find(options.unit)
    parameters = unit.configure(settings_of(options))
    output.warn(options, parameters)
    return lambda: output.write(options.output, unit.verilog(parameters))
