"""What the ports of a unit are: names, widths, meanings, and the fields of payloads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, Shape, Value
from amaranth.lib import data
from amaranth.lib.wiring import Member, Out

__all__ = ["CLOCK", "RESET", "Field", "Port", "describe_ports", "flat_ports", "lines_of", "ports", "ports_of"]

# What the ports that every unit may have mean.
MEANINGS = {
    "payload": "fields, lowest bit first:",
    "valid": "a transfer happens on each clock edge with valid and ready",
    "i_ready": "may depend on i_valid and, without a register between them, on o_ready",
    "o_ready": "may depend on o_valid; a waiting payload does not change",
    "status_clear": "clears the sticky status",
}


@dataclass(frozen=True)
class Field:
    """One field of a payload.

    Attributes
    ----------
    path : tuple of str
        Names from the payload to the field, such as ``("a", "scale")``.
    low, width : int
        The field's lowest bit in the payload, and its number of bits.
    meaning : str
    signed : bool
    """

    path: tuple[str, ...]
    low: int
    width: int
    meaning: str
    signed: bool = False

    @property
    def name(self) -> str:
        """The field's name as a part of an identifier."""
        return "_".join(self.path)


@dataclass(frozen=True)
class Port:
    """One port.

    Attributes
    ----------
    name : str
    direction : str
        "in" or "out".
    width : int
        Bits.
    meaning : str
    fields : tuple of Field
        Of a payload, the lowest first.
    layout : data.StructLayout, optional
        Of a payload.
    signed : bool
    """

    name: str
    direction: str
    width: int
    meaning: str
    fields: tuple[Field, ...] = ()
    layout: data.StructLayout | None = None
    signed: bool = False


CLOCK = Port("clk", "in", 1, "clock, rising edge")
RESET = Port("rst", "in", 1, "synchronous reset, active high")


def flat_ports(component: Any) -> Iterator[tuple[list[str], Member, Value]]:
    """Yield path, member and value of each port that is not tied to a constant."""
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):
            yield [str(word) for word in path], member, value


def _direction(member: Member) -> str:
    return "out" if member.flow == Out else "in"


def ports_of(component: Any) -> list[tuple[str, str, int]]:
    """Return the ports as a list of (name, "in" or "out", width), clock and reset first."""
    ports = [("clk", "in", 1), ("rst", "in", 1)]
    return ports + [("_".join(path), _direction(member), len(value)) for path, member, value in flat_ports(component)]


def ports(component: Any) -> list[Port]:
    """Return the ports of a component but clock and reset.

    The component's ``meanings`` say what fields and status ports mean. A key is a field's path in the payload, such as
    ``a.scale``, or its last word; or, where input and output differ, the port before it: ``o.last``.
    """
    found = []
    for path, member, value in flat_ports(component):
        name = "_".join(path)
        meaning = MEANINGS.get(name) or MEANINGS.get(path[-1]) or component.meanings[path[-1]]
        layout = member.shape if isinstance(member.shape, data.StructLayout) else None
        fields = () if layout is None else tuple(_fields(layout, component.meanings, path[0]))
        found.append(Port(name, _direction(member), len(value), meaning, fields, layout))
    return found


def lines_of(port: Port) -> list[str]:
    """Return a header's lines for a port and its fields."""
    return [f"{port.name}  {port.direction} {port.width}  {port.meaning}"] + [
        f"  [{field.low + field.width - 1}:{field.low}]  {'.'.join(field.path)}: {field.meaning}"
        for field in port.fields]


def describe_ports(component: Any) -> list[str]:
    """Return a line for each port but clock and reset, and for each field of a payload its bits; see `ports`."""
    return [line for port in ports(component) for line in lines_of(port)]


def _fields(layout: Any, meanings: Mapping[str, str], port: str, prefix: tuple[str, ...] = (), base: int = 0
            ) -> Iterator[Field]:
    for key, field in layout:
        low, path = base + field.offset, (*prefix, str(key))
        if isinstance(field.shape, data.StructLayout):
            yield from _fields(field.shape, meanings, port, path, low)
            continue
        words = ""
        if isinstance(field.shape, data.ArrayLayout):
            element = field.shape.elem_shape
            words = f"{field.shape.length} x {Shape.cast(element).width} bits, element 0 lowest, each"
            if isinstance(element, data.StructLayout):
                words += "".join(f" {part} [{bits.offset + bits.width - 1}:{bits.offset}]" for part, bits in element)
            words += ": "
        name = ".".join(path)
        meaning = next(meanings[each] for each in (f"{port}.{name}", name, path[-1]) if each in meanings)
        yield Field(path, low, field.width, words + meaning, Shape.cast(field.shape).signed)
