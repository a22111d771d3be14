"""Text to begin with in a design of one's own: an instance with its wires, and types of the payloads."""

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data

from ...base.checks import require
from ..naming import KEYWORDS
from ..origin import commented
from .description import Field, Port, ports
from .wrappers import instance, joined, outside, span, wrapper_name

__all__ = ["TEMPLATES", "template"]


def _name(prefix: str, name: str) -> str:
    return name if name in ("clk", "rst", "aclk", "aresetn") else f"{prefix}_{name}"


def _wire(prefix: str, name: str, port: Port | Field, value: str = "") -> str:
    text = f"wire {span(port.width, port.signed)}{_name(prefix, name)}{value};"
    return f"{text} // {port.meaning}" if port.meaning else text


def verilog(component: Any, unit: str, prefix: str, style: str, sliced: bool) -> str:
    """Return Verilog-2005 to copy into a module: a wire for each port and each field, and the instance.

    Parameters
    ----------
    component : wiring.Component
    unit : str
        Name of the unit's module.
    prefix : str
        Before the names of the wires, and the instance's name.
    style : str
        The ports: a key of `STYLES`.
    sliced : bool
        Whether the instance has a register slice.
    """
    name = wrapper_name(unit, style, sliced)
    lines = [f"// An instance of {name}, to copy into a module. Drive the wires of its inputs.",
             commented("//")]
    outer = outside(component, style).ports
    for port in outer[2:]:
        if not port.fields:
            lines.append(_wire(prefix, port.name, port))
            continue
        whole = _name(prefix, port.name)
        parts = [(f"{port.name.removesuffix('payload').removesuffix('tdata').rstrip('_')}_{each.name}", each)
                 for each in port.fields]
        above = port.width - sum(each.width for each in port.fields)
        if port.direction == "in":
            lines += [_wire(prefix, part, each) for part, each in parts]
            values = [_name(prefix, part) for part, _ in parts] + [f"{above}'d0"] * bool(above)
            lines.append(f"wire {span(port.width)}{whole} = {joined(values)};")
        else:
            lines.append(f"wire {span(port.width)}{whole};")
            lines += [_wire(prefix, part, each, f" = {whole}{_bits(each, port.width)}") for part, each in parts]
    lines += instance(name, prefix, [(port.name, _name(prefix, port.name)) for port in outer])
    return "\n".join(lines) + "\n"


def _bits(field: Field, width: int) -> str:
    """Return the part-select of a field; a vector of one bit has none."""
    if width == 1:
        return ""
    return f"[{field.low}]" if field.width == 1 else f"[{field.low + field.width - 1}:{field.low}]"


def package(component: Any, unit: str, prefix: str, style: str, sliced: bool) -> str:
    """Return a SystemVerilog package: the payloads as packed structures, ``i_t`` and ``o_t``. See `verilog`."""
    require(style == "packed", "--ports", style, "packed, with --template package")
    name = wrapper_name(unit, style, sliced)
    lines = [f"// The payloads of {name}.", commented("//"), f"package {unit}_pkg;"]
    for port in ports(component):
        if port.layout is not None:
            meanings = {".".join(each.path): each.meaning for each in port.fields}
            lines += _structure(port.layout, port.name.removesuffix("_payload"), (), meanings)
    return "\n".join([*lines, "endpackage\n"])


def _structure(layout: Any, name: str, path: tuple[str, ...], meanings: dict[str, str]) -> list[str]:
    """Return the types of a layout, its own type ``<name>_t`` last."""
    before, members = [], []
    for key, field in layout:
        member, where = str(key), (*path, str(key))
        label = f"{member}_" if member in KEYWORDS else member
        kind = f"logic {span(field.width, Shape.cast(field.shape).signed)}"
        if isinstance(field.shape, data.StructLayout):
            before += _structure(field.shape, f"{name}_{member}", where, meanings)
            kind = f"{name}_{member}_t "
        elif isinstance(field.shape, data.ArrayLayout):
            element = field.shape.elem_shape
            if isinstance(element, data.StructLayout):
                before += _structure(element, f"{name}_{member}_element", where, meanings)
                kind = f"{name}_{member}_element_t [{field.shape.length - 1}:0] "
            else:
                kind = f"logic [{field.shape.length - 1}:0]{span(Shape.cast(element).width).strip() or '[0:0]'} "
        meaning = meanings.get(".".join(where))
        members.append(f"    {kind}{label};" + (f" // {meaning}" if meaning else ""))
    return [*before, "  typedef struct packed {", *reversed(members), f"  }} {name}_t;"]


TEMPLATES: dict[str, Callable[[Any, str, str, str, bool], str]] = {"verilog": verilog, "package": package}


def template(kind: str, component: Any, unit: str, prefix: str, style: str, sliced: bool) -> str:
    """Return a template of a kind of `TEMPLATES`; see `verilog` and `package`."""
    require(kind in TEMPLATES, "--template", kind, ", ".join(TEMPLATES))
    return TEMPLATES[kind](component, unit, prefix, style, sliced)
