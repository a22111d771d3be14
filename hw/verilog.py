"""Verilog-2005 output: tidy ports, no source attributes, the same bytes every time."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.hdl import Const, Fragment, Shape, Value
from amaranth.lib import data
from amaranth.lib.wiring import Member, Out

from . import naming

__all__ = ["PREFIX", "describe_ports", "emit", "joined", "ports_of"]

# Of the names of modules that a component's own text has. The unit's name takes its place, so that units can meet in a
# design.
PREFIX = "narrowgauge_"


def _flat(component: Any) -> Iterator[tuple[list[str], Member, Value]]:
    """Yield path, member and value of each port, but of those that are tied to a constant."""
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):
            yield [str(word) for word in path], member, value


def _direction(member: Member) -> str:
    return "out" if member.flow == Out else "in"


def ports_of(component: Any) -> list[tuple[str, str, int]]:
    """Return the ports as a list of (name, "in" or "out", width), clock and reset first."""
    ports = [("clk", "in", 1), ("rst", "in", 1)]
    return ports + [("_".join(path), _direction(member), len(value)) for path, member, value in _flat(component)]


def describe_ports(component: Any) -> list[str]:
    """Return a line for each port but clock and reset, and for each field of a payload its bits.

    The component's ``meanings`` say what fields and status ports mean. A key is a field's path in the payload, such as
    ``a.scale``, or its last word; or, where input and output differ, the port before it: ``o.last``.
    """
    lines = []
    for path, member, value in _flat(component):
        name = "_".join(path)
        meaning = _PORTS.get(name) or _PORTS.get(path[-1]) or component.meanings[path[-1]]
        lines.append(f"{name}  {_direction(member)} {len(value)}  {meaning}")
        if isinstance(member.shape, data.Layout):
            lines += [f"  [{high}:{low}]  {field}"
                      for field, low, high in _fields(member.shape, component.meanings, path[0])]
    return lines


# What the ports that every unit may have mean.
_PORTS = {
    "payload": "fields, lowest bit first:",
    "valid": "a transfer happens on each clock edge with valid and ready",
    "i_ready": "may depend on i_valid and, without a register between them, on o_ready",
    "o_ready": "may depend on o_valid; a waiting payload does not change",
    "status_clear": "clears the sticky status",
}


def _fields(layout: Any, meanings: Mapping[str, str], port: str, prefix: str = "", base: int = 0
            ) -> Iterator[tuple[str, int, int]]:
    for key, field in layout:
        low, name = base + field.offset, f"{prefix}{key}"
        if isinstance(field.shape, data.StructLayout):
            yield from _fields(field.shape, meanings, port, f"{name}.", low)
            continue
        words = ""
        if isinstance(field.shape, data.ArrayLayout):
            element = field.shape.elem_shape
            words = f"{field.shape.length} x {Shape.cast(element).width} bits, element 0 lowest, each"
            if isinstance(element, data.StructLayout):
                words += "".join(f" {part} [{bits.offset + bits.width - 1}:{bits.offset}]" for part, bits in element)
            words += ": "
        meaning = next(meanings[each] for each in (f"{port}.{name}", name, key) if each in meanings)
        yield f"{name}: {words}{meaning}", low, low + field.width - 1


# Rules of Verilator's lint that text of Amaranth and Yosys breaks, and why no harm is done.
WAIVED = {
    "CASEINCOMPLETE": "a case begins with a value for all others",
    "CMPCONST": "a field may be compared with what its bits never reach",
    "DECLFILENAME": "the file holds the unit's submodules, too",
    "PROCASSINIT": "registers have an initial value beside the reset",
    "UNUSEDSIGNAL": "payload fields have names for a reader of waveforms; sums have bits that only round",
    "VARHIDDEN": "a submodule may have a signal that is called as an instance beside it",
    "WIDTHEXPAND": "operands are as wide as their values",
    "WIDTHTRUNC": "! of a vector is meant",
}


def joined(components: Iterable[Any]) -> str:
    """Return the Verilog of modules that components instantiate, each of them once; see `emit`."""
    texts = "".join(getattr(component, "text", "") for component in components)
    return "".join(dict.fromkeys(re.split(r"(?<=endmodule\n)", texts)))


def emit(component: Any, name: str, header: str = "") -> str:
    """Return `component` as the text of Verilog module `name`, after comment lines from `header`."""
    # The text depends on the Yosys that writes it: take the pinned one, never one from PATH.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    # A port with its signal's name: with another name it would be declared twice.
    ports = {"__".join(path): (value, None) for path, _, value in _flat(component)}
    netlist, _ = rtlil.convert_fragment(Fragment.get(component, None), ports, name)
    script = [f"read_rtlil <<rtlil\n{naming.tidy(netlist)}\nrtlil", "proc -nomux -norom", "memory_collect",
              "attrmap -remove generator -remove top -remove amaranth.hierarchy -remove amaranth.decoding",
              "attrmap -modattr -remove generator -remove top -remove amaranth.hierarchy",
              "write_verilog -norename"]
    text = find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], "\n".join(script), ignore_warnings=True)
    text = naming.plain_automatic(text)
    text += getattr(component, "text", "")
    # A module of another component's text keeps such names for that one to replace.
    text = text if name.startswith(PREFIX) else text.replace(PREFIX, f"{name}{naming.SEPARATOR}")
    if name.startswith(PREFIX):
        return text  # a part of another component's text
    waivers = "".join(f"/* verilator lint_off {rule} */ // {reason}\n" for rule, reason in WAIVED.items())
    comment = "".join(f"// {line}".rstrip() + "\n" for line in header.splitlines())
    return f"{comment}/* verilator lint_save */\n{waivers}{text}/* verilator lint_restore */\n"
