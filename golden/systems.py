"""The number systems by name."""

import dataclasses

from ..base.checks import require
from ..base.classes import imported
from .blockfloat import BFPSystem
from .floating import BF16System, FloatSystem, FP8System, PlainSystem
from .integer import INT8System
from .logarithmic import LNSSystem
from .mx import MXSystem
from .number_system import NumberSystem

__all__ = ["SYSTEMS", "find", "name_of", "register"]

SYSTEMS: dict[str, type[NumberSystem]] = {
    "bfp": BFPSystem, "mx": MXSystem, "lns": LNSSystem, "float": FloatSystem, "bf16": BF16System, "fp8": FP8System,
    "int8": INT8System, "plain": PlainSystem,
}


def find(name: str) -> type[NumberSystem]:
    """Return the class of the number system of that name."""
    require(isinstance(name, str) and name in SYSTEMS, "system", name, ", ".join(SYSTEMS))
    return SYSTEMS[name]


def name_of(system: NumberSystem) -> str:
    """Return the name under which a number system is registered."""
    names = [name for name, kind in SYSTEMS.items() if kind is type(system)]
    require(len(names) > 0, "system", system, ", ".join(SYSTEMS))
    return names[0]


def register(path: str) -> str:
    """Import a number system from outside and register it; return its name.

    Parameters
    ----------
    path : str
        "module:Class". The class's attribute ``name``, or its own name in lower case, is the system's name.
    """
    kind = imported("system", path)
    require(isinstance(kind, type) and issubclass(kind, NumberSystem) and dataclasses.is_dataclass(kind), "system",
            path, "a dataclass made from NumberSystem")
    missing = [method for method in ("cell", "converter", "convert", "dot")
               if getattr(kind, method) is getattr(NumberSystem, method)]
    require(kind.circuits is None or not missing, "system", path,
            f"a class with methods of its own for the array: {', '.join(missing)}")
    own = getattr(kind, "name", path.partition(":")[2].lower())
    require(SYSTEMS.get(own, kind) is kind, "system", own, f"another name than those of {', '.join(SYSTEMS)}")
    SYSTEMS[own] = kind
    return own
