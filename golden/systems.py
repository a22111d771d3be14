"""The number systems by name."""

import dataclasses
import json
from collections.abc import Collection
from typing import Self

from ..base.checks import require
from ..base.classes import imported
from ..base.parameters import Parameters
from .blockfloat import BFPSystem
from .floating import BF16System, FloatSystem, FP8System, PlainSystem
from .integer import INT8System
from .logarithmic import LNSSystem
from .mx import MXSystem
from .number_system import NumberSystem

__all__ = ["SYSTEMS", "SystemParameters", "beside", "find", "name_of", "register"]

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


def beside(name: str, own: Collection[str]) -> str:
    """Return the name of a number system's setting beside a unit's own parameters."""
    return f"system_{name}" if name in own else name


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


class SystemParameters(Parameters):
    """Mixin for parameters of a unit that is made for a number system, the field ``system``.

    The name of one means its defaults. In JSON, and among the settings of the command line, the system's own settings
    stand beside the unit's: ``{"system": "bfp", "rows": 4, "mantissa": 2, "accumulator": "bf16"}``. A setting that the
    unit has, too, is told with ``system_`` before its name.
    """

    system: NumberSystem

    def resolve(self) -> None:
        """Put the number system in the place of its name; ValueError where it has no hardware."""
        if not isinstance(self.system, NumberSystem):
            object.__setattr__(self, "system", find(self.system)())
        require(self.system.circuits is not None, "system", self.name, "one that has an array: " + self.system.refusal)

    @property
    def name(self) -> str:
        """The name of the number system."""
        return name_of(self.system)

    def to_json(self) -> dict:
        """Return the parameters as a dict of plain JSON values, the system's among them."""
        own = super().to_json()
        settings = {beside(name, own): value for name, value in self.system.to_json().items()}
        return own | {"system": self.name} | settings

    @classmethod
    def from_json(cls, data: dict | str) -> Self:
        """Make the object from `to_json`'s dict, or from that dict as JSON text."""
        data = json.loads(data) if isinstance(data, str) else data
        require(isinstance(data, dict), "parameters", data, "a JSON object")
        own = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # a dataclass derives from it
        kind = find(data.get("system", "bfp"))
        settings = {beside(field.name, own): field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        names = [*own, *settings]
        for name in data:
            require(name in names, "parameter", name, ", ".join(names))
        rest = {name: value for name, value in data.items() if name in own and name != "system"}
        system = kind.from_json({settings[name]: value for name, value in data.items() if name in settings})
        return super().from_json({"system": system, **rest})
