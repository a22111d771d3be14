"""The circuits of a number system: what the array asks of its hardware."""

import importlib
from typing import ClassVar, Protocol

from amaranth.hdl import Value
from amaranth.lib import data, wiring

from ..golden.number_system import NumberSystem

__all__ = ["Circuits", "circuits_of"]


class Circuits(Protocol):
    """A class with the components of a number system.

    Attributes
    ----------
    converter, cell : type
        Components made from the parameters that the number system's ``converter`` and ``cell`` give. Both have an input
        stream ``i``, an output stream ``o``, ``status_clear`` and sticky status. A converter takes a vector a cycle. A
        cell takes ``a``, ``b``, ``first``, ``last`` and, if its sums take turns, ``slot``; it answers with ``value``.
    held : tuple of str
        Fields of a converted vector that are modes: all vectors of a product have the same, so they are not stored.
    """

    converter: ClassVar[type[wiring.Component]]
    cell: ClassVar[type[wiring.Component]]
    held: ClassVar[tuple[str, ...]]

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        """Return the assignments that give a converter its operands: codes of the work format, and their modes."""


def circuits_of(system: NumberSystem) -> type[Circuits]:
    """Return the circuits that a number system names."""
    found = system.circuits
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = getattr(importlib.import_module(module), name)
    return found
