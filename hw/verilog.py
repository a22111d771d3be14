"""Verilog-2005 output: tidy ports, no source attributes, the same bytes every time."""

import os

from amaranth.back import verilog
from amaranth.hdl import Const, Value
from amaranth.lib.wiring import Out

__all__ = ["emit", "ports_of"]


def _flat(component):
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):
            yield "_".join(map(str, path)), member.flow, value


def ports_of(component):
    """Return the ports as a list of (name, "in" or "out", width), clock and reset first."""
    ports = [("clk", "in", 1), ("rst", "in", 1)]
    return ports + [(name, "out" if flow == Out else "in", len(value)) for name, flow, value in _flat(component)]


def emit(component, name, header=""):
    """Return `component` as the text of Verilog module `name`, after comment lines from `header`."""
    # The text depends on the Yosys that writes it: take the pinned one, never one from PATH.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    ports = {port: (value, None) for port, _, value in _flat(component)}
    text = verilog.convert(component, name=name, ports=ports, emit_src=False, strip_internal_attrs=True)
    return "".join(f"// {line}".rstrip() + "\n" for line in header.splitlines()) + text
