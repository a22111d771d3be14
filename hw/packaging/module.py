"""What packages say of a module."""

from dataclasses import dataclass
from typing import Any

from ... import __version__
from ..ports import Port, wrapper_name
from ..ports.wrappers import outside

__all__ = ["LIBRARY", "VENDOR", "VERSION", "Packaged"]

VENDOR, LIBRARY, VERSION = "narrowgauge", "units", __version__


@dataclass(frozen=True)
class Packaged:
    """A generated module, as packages describe it.

    Attributes
    ----------
    name : str
        Of the module.
    summary : str
    ports : list of Port
        Clock and reset first.
    file : str
        The Verilog file, beside the package.
    style : str
        Of the ports: a key of `hw.ports.STYLES`.
    """

    name: str
    summary: str
    ports: list[Port]
    file: str
    style: str

    @classmethod
    def of(cls, component: Any, unit: str, summary: str, style: str, sliced: bool) -> "Packaged":
        """Describe what `hw.ports.wrap` makes of a unit's module."""
        name = wrapper_name(unit, style, sliced)
        return cls(name, summary, outside(component, style).ports, f"{name}.v", style)
