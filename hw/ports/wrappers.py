"""Modules round a unit: other styles of ports, and a register slice. The unit's own text stays as it is.

A wrapper is written by hand, as an engineer would write it. Inside it, signals have the names of the unit's ports.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...base.checks import require
from ..origin import LICENCE, ORIGIN
from .description import CLOCK, RESET, Field, Port, lines_of, ports

__all__ = ["SLICE", "STYLES", "Style", "declared", "instance", "joined", "outside", "span", "wrap", "wrapper_name"]

SLICE = 1  # cycles that a register slice adds
LINE = 80  # characters of a concatenation on one line
# A wrapper's file may be called as the user likes.
WAIVED = "/* verilator lint_off DECLFILENAME */ // the file may have any name, and holds the unit, too\n"


@dataclass(frozen=True)
class Style:
    """A wrapper's ports, and how they lead to the unit's.

    Attributes
    ----------
    ports : list of Port
        Clock and reset first.
    lines : list of str
        Verilog: declarations of the unit's ports that the wrapper has not.
    attributes : dict of str to list of str
        What stands before a port, by its name.
    """

    ports: list[Port]
    lines: list[str] = field(default_factory=list)
    attributes: dict[str, list[str]] = field(default_factory=dict)


def span(width: int, signed: bool = False) -> str:
    """Return the range of a declaration, with a space behind it; a single bit has none."""
    return "signed " * signed + (f"[{width - 1}:0] " if width > 1 else "")


def declared(kind: str, port: Port) -> str:
    """Return a declaration without its end, such as ``wire [7:0] i_a``."""
    return f"{kind} {span(port.width, port.signed)}{port.name}"


def joined(parts: Sequence[str]) -> str:
    """Return a concatenation, from its parts with the lowest first; of many parts on many lines."""
    names = [*reversed(parts)]
    if len(names) == 1:
        return names[0]
    line = f"{{{', '.join(names)}}}"
    return line if len(line) <= LINE else "{\n  " + ",\n  ".join(names) + "\n}"


def _packed(inner: Sequence[Port]) -> Style:
    return Style([CLOCK, RESET, *inner])


def _by_field(inner: Sequence[Port]) -> Style:
    outer, lines = [CLOCK, RESET], []
    for port in inner:
        if not port.fields:
            outer.append(port)
            continue
        parts = [Port(f"{port.name.removesuffix('payload')}{each.name}", port.direction, each.width, each.meaning,
                      signed=each.signed) for each in port.fields]
        outer += parts
        names = joined([part.name for part in parts])
        if port.direction == "in":
            lines.append(f"{declared('wire', port)} = {names};")
        else:
            lines += [f"{declared('wire', port)};", f"assign {names} = {port.name};"]
    return Style(outer, lines)


AXIS = {"i": "s_axis", "o": "m_axis"}
VENDOR = "xilinx.com"


def _info(kind: str, name: str) -> str:
    return f'(* X_INTERFACE_INFO = "{VENDOR}:{kind}:1.0 {name}" *)'


def _parameter(text: str) -> str:
    return f'(* X_INTERFACE_PARAMETER = "{text}" *)'


def _axi(inner: Sequence[Port]) -> Style:
    """Return AXI4-Stream ports. A payload's own field ``last`` is TLAST; the others move down to bit 0."""
    clock = Port("aclk", "in", 1, "clock, rising edge")
    reset = Port("aresetn", "in", 1, "synchronous reset, active low")
    outer, lines = [clock, reset], ["wire clk = aclk;", "wire rst = !aresetn;"]
    attributes = {
        "aclk": [_info("signal:clock", "aclk CLK"),
                 _parameter(f"ASSOCIATED_BUSIF {':'.join(AXIS.values())}, ASSOCIATED_RESET aresetn")],
        "aresetn": [_info("signal:reset", "aresetn RST"), _parameter("POLARITY ACTIVE_LOW")],
    }
    for port in inner:
        stream, _, role = port.name.partition("_")
        if stream not in AXIS or role not in ("payload", "valid", "ready"):
            outer.append(port)
            continue
        bus = AXIS[stream]
        if port.fields:
            data, last, extra = _tdata(port, bus)
            outer += [data, *([last] if last else [])]
            lines += extra
        else:
            other = replace(port, name=f"{bus}_t{role}", meaning=_axi_meaning(port.meaning))
            outer.append(other)
            if port.direction == "in":
                lines.append(f"{declared('wire', port)} = {other.name};")
            else:
                lines += [f"{declared('wire', port)};", f"assign {other.name} = {port.name};"]
    for port in outer:
        bus, _, role = port.name.rpartition("_")
        if bus in AXIS.values():
            attributes[port.name] = [_info("interface:axis", f"{bus} {role.upper()}")]
    return Style(outer, lines, attributes)


def _axi_meaning(text: str) -> str:
    """Return a meaning with the names of AXI4-Stream for those of the unit's streams."""
    for stream, bus in AXIS.items():
        for role in ("valid", "ready"):
            text = text.replace(f"{stream}_{role}", f"{bus}_t{role}")
    return text


def _tdata(port: Port, bus: str) -> tuple[Port, Port | None, list[str]]:
    """Return TDATA, TLAST or None, and the lines that lead to a payload or away from it."""
    last = next((each for each in port.fields if each.path == ("last",)), None)
    fields: list[Field] = []
    for each in port.fields:
        if each is not last:
            fields.append(replace(each, low=each.low - (last is not None and each.low > last.low)))
    used = port.width - (last is not None)
    width = max(8, 1 << (used - 1).bit_length()) if used else 8
    name = f"{bus}_tdata"
    meaning = "fields, lowest bit first" + (f"; bits above them are {'unused' if port.direction == 'in' else '0'}:"
                                            if used < width else ":")
    data = Port(name, port.direction, width, meaning, tuple(fields))
    tlast = None if last is None else Port(f"{bus}_tlast", port.direction, 1, f"last: {last.meaning}")
    # The payload's parts, the lowest first: below and above `last`.
    parts = []
    for low, high in [(0, used)] if last is None else [(0, last.low), (last.low, used)]:
        if parts and tlast or (last is not None and last.low == 0 and not parts):
            parts.append(f"{bus}_tlast")
        if high > low:
            parts.append(f"{name}[{high - 1}:{low}]" if high - low > 1 else f"{name}[{low}]")
    wire = declared("wire", port)
    if port.direction == "in":
        lines = [f"{wire} = {joined(parts)};"]
        if used < width:
            lines.append(f"wire unused = &{{1'b0, {name}[{width - 1}:{used}]}};")
        return data, tlast, lines
    lines = [f"{wire};", f"assign {joined(parts)} = {port.name};"]
    if used < width:
        lines.append(f"assign {name}[{width - 1}:{used}] = {width - used}'d0;")
    return data, tlast, lines


STYLES: dict[str, Callable[[Sequence[Port]], Style]] = {"packed": _packed, "fields": _by_field, "axi": _axi}


def outside(component: Any, style: str) -> Style:
    """Return the Style of a unit's wrapper; ValueError where two ports would have one name."""
    require(style in STYLES, "--ports", style, ", ".join(STYLES))
    inner = ports(component)
    found = STYLES[style](inner)
    own = [CLOCK, RESET, *inner]
    names = [port.name for port in (*own, *(port for port in found.ports if port not in own))]
    twice = dict.fromkeys(name for name in names if names.count(name) > 1)
    require(not twice, "--ports", style, f"packed, for this unit: two ports would be {', '.join(twice)}")
    return found


def wrapper_name(unit: str, style: str, sliced: bool) -> str:
    """Return the name of the module that has a style of ports: the unit's own, or a wrapper's."""
    return f"{unit}{'' if style == 'packed' else f'_{style}'}{'_slice' if sliced else ''}"


def _slice(payload: Port) -> list[str]:
    """Return a register slice of two places. The unit is given ``slice_payload`` and ``slice_valid``."""
    bits = span(payload.width)
    return [
        "// Register slice: two places, so that i_ready is a register, and a transfer may come in every cycle.",
        f"reg {bits}slice_payload, spare_payload;",
        "reg slice_valid, spare_valid;",
        "wire slice_ready;",
        "assign i_ready = !spare_valid;",
        "initial begin",
        "  slice_valid = 1'b0;",
        "  spare_valid = 1'b0;",
        "end",
        "always @(posedge clk) begin",
        "  if (slice_ready || !slice_valid) begin",
        "    slice_payload <= spare_valid ? spare_payload : i_payload;",
        "    slice_valid <= spare_valid || i_valid;",
        "    spare_valid <= 1'b0;",
        "  end else if (i_valid && i_ready) begin",
        "    spare_payload <= i_payload;",
        "    spare_valid <= 1'b1;",
        "  end",
        "  if (rst) begin",
        "    slice_valid <= 1'b0;",
        "    spare_valid <= 1'b0;",
        "  end",
        "end",
    ]


def _unsliced_ready(port: Port, style: str) -> Port:
    """Return a port of the input's ready as it is behind a register slice."""
    ready = "s_axis_tready" if style == "axi" else "i_ready"
    return replace(port, meaning="a register, for the register slice") if port.name == ready else port


def instance(module: str, name: str, links: Iterable[tuple[str, str]]) -> list[str]:
    """Return an instance with a line for each (port, signal)."""
    return [f"{module} {name} (", ",\n".join(f"  .{port}({signal})" for port, signal in links), ");"]


def wrap(component: Any, unit: str, text: str, style: str, sliced: bool, timing: str) -> str:
    """Return the Verilog of a wrapper, and behind it that of its unit.

    Parameters
    ----------
    component : wiring.Component
    unit : str
        Name of the unit's module.
    text : str
        The unit's Verilog.
    style : str
        A key of `STYLES`.
    sliced : bool
        Whether a register slice stands before the unit.
    timing : str
        The header's line of the latency.
    """
    made = outside(component, style)
    outer = [_unsliced_ready(port, style) for port in made.ports] if sliced else made.ports
    name = wrapper_name(unit, style, sliced)
    what = {"packed": "the unit", "fields": "a port for each field of the payloads of the unit",
            "axi": "AXI4-Stream round the unit"}[style]
    header = [f"{name}: {what} {unit}{', behind a register slice' if sliced else ''}; the unit's text follows",
              timing, *LICENCE, f"{ORIGIN}; ports:"]
    header += [f"  {line}" for port in outer for line in lines_of(port)]
    body = list(made.lines)
    inner = [CLOCK, RESET, *ports(component)]
    if sliced:
        body += _slice(next(port for port in inner if port.name == "i_payload"))
    given = {"i_payload": "slice_payload", "i_valid": "slice_valid", "i_ready": "slice_ready"} if sliced else {}
    body += instance(unit, "unit", [(port.name, given.get(port.name, port.name)) for port in inner])
    declarations = ",\n".join("".join(f"  {line}\n" for line in made.attributes.get(port.name, ()))
                              + f"  {declared(f'{port.direction}put wire', port)}" for port in outer)
    return "".join([
        *(f"// {line}".rstrip() + "\n" for line in header),
        f"/* verilator lint_save */\n{WAIVED}module {name}(\n{declarations}\n);\n",
        *(f"  {line}\n" for block in body for line in block.splitlines()),
        "endmodule\n/* verilator lint_restore */\n\n", text])
