"""Verilog-2005 output: tidy ports, no source attributes, the same bytes every time."""

import os

from amaranth.back import verilog
from amaranth.hdl import Const, Shape, Value
from amaranth.lib import data
from amaranth.lib.wiring import Out

__all__ = ["PREFIX", "describe_ports", "emit", "ports_of"]

# Of the names of modules that a component's own text has. The unit's name takes its place, so that units can meet in a
# design.
PREFIX = "narrowgauge_"


def _flat(component):
    for path, member, value in component.signature.flatten(component):
        value = Value.cast(value)
        if not isinstance(value, Const):
            yield "_".join(map(str, path)), member.flow, value


def ports_of(component):
    """Return the ports as a list of (name, "in" or "out", width), clock and reset first."""
    ports = [("clk", "in", 1), ("rst", "in", 1)]
    return ports + [(name, "out" if flow == Out else "in", len(value)) for name, flow, value in _flat(component)]


def describe_ports(component):
    """Return a line for each port but clock and reset, and for each field of a payload its bits."""
    lines = []
    # A unit may say what else some of its ports and fields mean.
    meanings = _MEANINGS | getattr(component, "meanings", {})
    for path, member, value in component.signature.flatten(component):
        if isinstance(Value.cast(value), Const):
            continue
        name, direction = "_".join(map(str, path)), "out" if member.flow == Out else "in"
        meaning = meanings.get(path[-1], "")
        lines.append(f"{name}  {direction} {len(Value.cast(value))}  {meaning}".rstrip())
        if isinstance(member.shape, data.Layout):
            lines += [f"  [{high}:{low}]  {field}" for field, low, high in _fields(member.shape, meanings)]
    return lines


# What the ports that every unit may have mean.
_MEANINGS = {
    "payload": "fields, lowest bit first:",
    "valid": "a transfer happens on each clock edge with valid and ready",
    "ready": "may depend on valid; a waiting payload does not change",
    "overflow": "sticky: a result was beyond the largest finite value, or a group above its exponent field",
    "invalid": "sticky: a NaN came in or was made",
    "status_clear": "clears the sticky status",
    # And the fields of payloads.
    "exponent": "shared exponent, biased by 2**(width-1) - 1",
    "precision": "magnitude bits in use",
    "scale": "shared scale 2**(scale - 127); of a microscaling block, 255 is NaN",
    "rounding": "0 nearest even, 1 truncate, 2 stochastic",
    "slot": "which accumulator",
    "first": "start that accumulator from +0",
    "last": "emit the sum after this addition; or answer after this group, a tensor's last",
    "a": "code of the operand format",
    "b": "code of the operand format",
    "c": "code of the accumulator format",
    "subtract": "a - b, not a + b",
    "value": "code of the result, or of the sum",
    "correction": "what the second moment's start at 0 takes off it, in its codes",
    "rate": "log2 of what a normalised gradient of 1 moves a weight's logarithm by",
    "bound": "largest logarithm of a weight",
    "weight": "code of the format",
    "velocity": "code of the format",
    "compensation": "code of the format; subtracted under Kahan, added when grown",
    "gradient": "code of the format",
    "method": "0 plain, 1 stochastic, 2 Kahan, 3 grow (or, in a unit that cannot, Kahan)",
    "lr": "learning rate, 0 to below 2: see momentum",
    "momentum": "code of the format without its two top bits, or of that the exponent alone; exponent 0 is zero",
    "decay": "weight decay: see momentum",
    "logit": "code of the logits' format",
    "target": "1: the example's class",
    "error": "p - y, two's complement, all bits but one behind the binary point",
    "loss": "cross-entropy of the row in nats, without sign, limited to the largest number",
    "restart": "the iteration is the first one of a run",
    "forward": "magnitude bits of weights and activations",
    "backward": "magnitude bits of gradients",
    "threshold": "what r(X) must reach for 4 bits: 0 to below 2, its top bit is worth 1",
}


def _fields(layout, meanings, prefix="", base=0):
    for key, field in layout:
        low, name = base + field.offset, f"{prefix}{key}"
        if isinstance(field.shape, data.StructLayout):
            yield from _fields(field.shape, meanings, f"{name}.", low)
        elif isinstance(field.shape, data.ArrayLayout):
            element = field.shape.elem_shape
            words = f"{field.shape.length} x {Shape.cast(element).width} bits, element 0 lowest"
            if isinstance(element, data.StructLayout):
                words += ": " + ", ".join(f"{key} [{low}:{high}]" for key, high, low in _fields(element, meanings))
            yield f"{name}: {words}", low, low + field.width - 1
        else:
            meaning = meanings.get(key)
            yield f"{name}: {meaning}" if meaning else name, low, low + field.width - 1


def emit(component, name, header=""):
    """Return `component` as the text of Verilog module `name`, after comment lines from `header`."""
    # The text depends on the Yosys that writes it: take the pinned one, never one from PATH.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    ports = {port: (value, None) for port, _, value in _flat(component)}
    text = verilog.convert(component, name=name, ports=ports, emit_src=False, strip_internal_attrs=True)
    text += getattr(component, "text", "")
    # A module of another component's text keeps such names for that one to replace.
    text = text if name.startswith(PREFIX) else text.replace(PREFIX, f"{name}_")
    return "".join(f"// {line}".rstrip() + "\n" for line in header.splitlines()) + text
