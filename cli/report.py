"""``narrowgauge report``."""

from argparse import Namespace
from collections.abc import Callable

from .. import report
from . import output

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    report.check(options.output)
    return lambda: report.write(options.output, seeds=options.seeds, say=lambda text: output.put(f"{text}\n"),
                                quick=options.quick)
