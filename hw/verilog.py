"""Verilog-2005 output: tidy ports, no source attributes, the same bytes every time."""

import gc
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil
from amaranth.hdl import Fragment

from . import naming
from .ports.description import describe_ports, flat_ports, ports_of

__all__ = ["PREFIX", "describe_ports", "emit", "joined", "ports_of"]

# Of the names of modules that a component's own text has. The unit's name takes its place, so that units can meet in a
# design.
PREFIX = "narrowgauge_"


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


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector away: of a core it takes a third of the time, and finds nothing before the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def emit(component: Any, name: str, header: str = "") -> str:
    """Return `component` as the text of Verilog module `name`, after comment lines from `header`."""
    # The text depends on the Yosys that writes it: take the pinned one, never one from PATH.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    # A port with its signal's name: with another name it would be declared twice.
    ports = {"__".join(path): (value, None) for path, _, value in flat_ports(component)}
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
