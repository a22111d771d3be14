"""The catalogue: every unit by name. Each topic's file has the entries of its units."""

import importlib
import pkgutil

from ..base.checks import require
from .unit import Bench, Unit

__all__ = ["UNITS", "Bench", "Unit", "find"]


def _entries() -> dict[str, Unit]:
    """Return the entries of all topics, by name."""
    topics = [importlib.import_module(f".{each.name}", __name__) for each in pkgutil.iter_modules(__path__)]
    units = sorted((unit for topic in topics for unit in getattr(topic, "ENTRIES", ())), key=lambda unit: unit.name)
    found = {unit.name: unit for unit in units}
    assert len(found) == len(units), "two units have one name"
    return found


UNITS = _entries()


def find(name: str) -> Unit:
    """Return the Unit of that name."""
    require(name in UNITS, "unit", name, ", ".join(UNITS))
    return UNITS[name]
