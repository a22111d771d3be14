"""Copies of the package with faults seeded into their sources, which proofs and benches must find.

A fault is a text of the sources and what it becomes. The file is found by the text, so that code may move.
"""

import importlib
import itertools
import shutil
import sys
from pathlib import Path

__all__ = ["catalogue", "copy_sources", "seed"]

ROOT = Path(__file__).parents[1]
NUMBERS = itertools.count()


def copy_sources(folder, name="narrowgauge"):
    """Copy the package into a folder, by default under its own name, and return the copy's path."""
    package = folder / name
    package.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, package)
    for room in ("base", "golden", "hw", "sim", "catalog", "cli"):
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def seed(package, old, new):
    """Replace a text that stands in the sources of a copy exactly once."""
    texts = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    found = [path for path, text in texts.items() for _ in range(text.count(old))]
    assert len(found) == 1, (f"the fault {old!r} fits {len(found)} places; allowed: one: "
                             + ", ".join(str(path.relative_to(package)) for path in found))
    found[0].write_text(texts[found[0]].replace(old, new))


def catalogue(folder, *faults, files=()):
    """Return the catalogue of a copy with faults; its modules stand beside the package's own.

    Parameters
    ----------
    folder : Path
    *faults : (str, str)
        Texts and what they become.
    files : iterable of (str, str)
        Files that the copy has beside the package's, and their texts.
    """
    name = f"faulty_{next(NUMBERS)}"
    package = copy_sources(folder, name)
    for path, text in files:
        (package / path).write_text(text)
    for old, new in faults:
        seed(package, old, new)
    # Of the copies before, some hundred in the sweep, nothing is needed any more.
    for old in [module for module in sys.modules if module.startswith("faulty_")]:
        del sys.modules[old]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{name}.catalog")
    finally:
        sys.path.remove(str(folder))
