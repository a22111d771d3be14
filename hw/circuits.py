"""The circuits of a number system: what the array asks of its hardware."""

from typing import Any, ClassVar, Protocol

from amaranth.hdl import Value
from amaranth.lib import data, wiring

from ..base.classes import imported
from ..golden.number_system import NumberSystem

__all__ = ["Circuits", "circuits_of"]


class Circuits(Protocol):
    """A class with the components of a number system.

    Attributes
    ----------
    converter : type
        Component, or a function that returns one, made from what the number system's ``converter`` returns. It has an
        input stream ``i``, an output stream ``o``, ``status_clear``, and the sticky ``invalid`` and ``overflow``. It
        takes a vector a cycle. There is no converter where the number system has none. If the system has
        `NumberSystem.random`, the converter is made with ``addressed=True`` and has a port ``words``. It takes a
        vector's words ``words_before`` cycles before the vector comes out.
    cell : type
        Component made from what the number system's ``cell`` returns, with an input stream ``i`` of ``a``, ``b``,
        ``first``, ``last`` and, if sums take turns, ``slot``; an output stream ``o`` of ``value``; and
        ``status_clear``. It may have ``invalid`` and ``overflow``.
    held : tuple of str
        Fields of a converted vector that are modes: all vectors of a product have the same, so they are not stored.
    """

    converter: ClassVar[type[wiring.Component]]
    cell: ClassVar[type[wiring.Component]]
    held: ClassVar[tuple[str, ...]]

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        """Return the assignments that give a converter its operands.

        Parameters
        ----------
        payload : View
            Of the converter's input stream.
        elements : Value
            Codes of the work format side by side, element 0 lowest.
        mode : View
            A field for each of the number system's ``modes``.
        """

    # One more static method is for training cores, if `modes` has ``scale``: ``scale(m, name, system, magnitude)``. It
    # returns the code of a tensor's scale, at most two cycles later. The magnitude is the tensor's greatest finite one.
    # If the class has an attribute ``finite`` that is False, Inf and NaN count, too. The magnitude is a code of the
    # work format, without a sign. Names of signals begin with `name`.


def circuits_of(system: NumberSystem) -> type[Circuits]:
    """Return the circuits that a number system names."""
    found: Any = system.circuits
    return imported("circuits", found) if isinstance(found, str) else found
