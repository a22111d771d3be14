"""``narrowgauge explore``."""

from argparse import Namespace
from collections.abc import Callable

from .. import explore
from ..base.checks import require
from ..explore.page import label_of, varying_of
from . import output

__all__ = ["prepare"]


def prepare(options: Namespace) -> Callable[[], int]:
    """Check the options and return the work."""
    output.check(("--json", options.json))
    require(options.workers is None or options.scheduler is None, "--workers", options.workers,
            "nothing beside --scheduler, whose cluster has its own")
    folder = options.output or f"build/explore/{explore.find(options.space).name}"
    space = explore.check(options.space, folder)
    return lambda: _explore(options, space, folder)


def _explore(options: Namespace, space: explore.Space, folder: str) -> int:
    said = [""]

    def progress(text: str) -> None:
        output.progress(text)
        if options.verbose and text != said[0]:
            output.tell(text)
        said[0] = text

    try:
        result = explore.explore(space, folder, workers=options.workers, scheduler=options.scheduler, progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted at {said[0] or 'the start'}; the same command goes on") from None
    output.done()
    output.write_json(options.json, result | {"seed": list(space.seeds), "tools": output.versions()})
    rows, varying = result["rows"], varying_of(result["rows"])
    for row in sorted(rows, key=lambda row: -(row["accuracy"] or {"median": -1})["median"]):
        accuracy = f"{row['accuracy']['median']:7.2%}" if row["accuracy"] else "   none"
        words = [label_of(row, varying), *(f"on the front of {name}" for name in row["pareto"]), *row["failures"]]
        output.say(options, f"{accuracy}  " + "; ".join(words))
    output.say(options, f"{len(rows)} points, {sum(bool(row['failures']) for row in rows)} with failures; "
                        f"{folder}/report.html")
    if not result["complete"]:
        output.say(options, "the time was up before all was run; the same command goes on")
    return 0
