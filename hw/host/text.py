"""Verilog of whole devices, with headers that explain them."""

import json
from typing import Any

from ...golden.host import INPUT, OUTPUT, REGISTERS, WINDOW, Configuration
from .. import verilog
from ..origin import LICENCE, ORIGIN
from ..ports.description import Port
from ..ports.wrappers import declared, instance
from .bus import ADDRESS
from .tops import AXIDevice, SerialDevice

__all__ = ["axi_text", "serial_text"]

VENDOR = "xilinx.com"
BUSES = {"s_axi": "aximm", "s_axis": "axis", "m_axis": "axis"}
# Of each bus: name, direction as the device sees it, width, and the inner port, or a slice of it.
LITE = (("awaddr", "in", ADDRESS + 2), ("awprot", "in", 3), ("awvalid", "in", 1), ("awready", "out", 1),
        ("wdata", "in", 32), ("wstrb", "in", 4), ("wvalid", "in", 1), ("wready", "out", 1),
        ("bresp", "out", 2), ("bvalid", "out", 1), ("bready", "in", 1),
        ("araddr", "in", ADDRESS + 2), ("arprot", "in", 3), ("arvalid", "in", 1), ("arready", "out", 1),
        ("rdata", "out", 32), ("rresp", "out", 2), ("rvalid", "out", 1), ("rready", "in", 1))
STREAM = (("tdata", 32), ("tlast", 1), ("tvalid", 1), ("tready", 1))


def _header(name: str, what: str, configuration: Configuration, ports: list[str]) -> str:
    """Return the comment that opens a device's Verilog."""
    lines = [f"{name}: {what}", f"configuration: {json.dumps(configuration.to_json())}",
             f"its hash: {configuration.hash:#010x}", *LICENCE, f"{ORIGIN}; ports:", *(f"  {line}" for line in ports),
             "registers, by their byte addresses:",
             *(f"  {each.address:#05x} {each.name} ({each.access}): {each.meaning}" for each in REGISTERS.values()),
             f"  {INPUT:#05x} to {INPUT + WINDOW - 1:#05x}: words of packets for the core",
             f"  {OUTPUT:#05x} to {OUTPUT + WINDOW - 1:#05x}: words of messages of the core"]
    return "\n".join(lines)


def serial_text(configuration: Configuration, name: str, divisor: int, timeout: int, core: Any = None) -> str:
    """Return the Verilog of a device behind a serial line; parameters as for `SerialDevice`."""
    ports = ["clk  in 1  clock, rising edge", "rst  in 1  synchronous reset, active high",
             f"rx   in 1  serial line, 8 data bits, no parity; {divisor} cycles a bit; requests of LiteX's uartbone",
             "tx  out 1  serial line, idle high", "irq out 1  an event of irq_status that irq_enable has"]
    return verilog.emit(SerialDevice(configuration, divisor, timeout, core), name, _header(
        name, "a training core behind a serial line", configuration, ports))


def axi_text(configuration: Configuration, name: str, core: Any = None) -> str:
    """Return the Verilog of a device with AXI4-Lite registers and AXI4-Stream; `core` as for `Device`.

    The module has the ports that Vivado and others infer buses from. The one inside has ``_inside`` behind its name.
    """
    ports, links = _ports()
    described = [f"{port.name} {port.direction} {port.width}  {port.meaning}" for port in ports]
    header = _header(name, "a training core with AXI4-Lite registers; packets and messages by AXI4-Stream",
                     configuration, described)
    inner = f"{name}_inside"
    declarations = ",\n".join(f"{_attributes(port.name)}  {declared(f'{port.direction}put wire', port)}"
                              for port in ports)
    lines = [f"// {line}".rstrip() for line in header.splitlines()]
    lines += ["/* verilator lint_save */", "/* verilator lint_off DECLFILENAME */ // the file holds the device, too",
              f"module {name}(", declarations, ");"]
    lines += [f"  {line}" for block in instance(inner, "device", links) for line in block.splitlines()]
    lines += ["endmodule", "/* verilator lint_restore */", "", ""]
    return "\n".join(lines) + verilog.emit(AXIDevice(configuration, core), inner)


def _ports() -> tuple[list[Port], list[tuple[str, str]]]:
    """Return the ports of a device with AXI buses, and what the inner device's ports are joined with."""
    ports = [Port("aclk", "in", 1, "clock, rising edge"), Port("aresetn", "in", 1, "synchronous reset, active low")]
    links = [("clk", "aclk"), ("rst", "!aresetn")]
    for name, direction, width in LITE:
        ports.append(Port(f"s_axi_{name}", direction, width, "AXI4-Lite" + " (not used)" * name.endswith("prot")))
        links.append((f"s_axi_{name}", f"s_axi_{name}"))
    for bus, forward in (("s_axis", "in"), ("m_axis", "out")):
        what = {"s_axis": "packets for the core", "m_axis": "messages of the core"}[bus]
        for name, width in STREAM:
            direction = forward if name != "tready" else {"in": "out", "out": "in"}[forward]
            ports.append(Port(f"{bus}_{name}", direction, width, f"AXI4-Stream: {what}"))
        links += [(f"{bus}_payload", f"{{{bus}_tlast, {bus}_tdata}}"), (f"{bus}_valid", f"{bus}_tvalid"),
                  (f"{bus}_ready", f"{bus}_tready")]
    ports.append(Port("irq", "out", 1, "an event of irq_status that irq_enable has"))
    return ports, [*links, ("irq", "irq")]


def _attributes(name: str) -> str:
    """Return the lines before a port by which Vivado and others know its bus."""
    bus, _, role = name.rpartition("_")
    if name == "aclk":
        return (f'  (* X_INTERFACE_INFO = "{VENDOR}:signal:clock:1.0 aclk CLK" *)\n  (* X_INTERFACE_PARAMETER = '
                f'"ASSOCIATED_BUSIF {":".join(BUSES)}, ASSOCIATED_RESET aresetn" *)\n')
    if name == "aresetn":
        return (f'  (* X_INTERFACE_INFO = "{VENDOR}:signal:reset:1.0 aresetn RST" *)\n'
                '  (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)\n')
    if name == "irq":
        return (f'  (* X_INTERFACE_INFO = "{VENDOR}:signal:interrupt:1.0 irq INTERRUPT" *)\n'
                '  (* X_INTERFACE_PARAMETER = "SENSITIVITY LEVEL_HIGH" *)\n')
    return f'  (* X_INTERFACE_INFO = "{VENDOR}:interface:{BUSES[bus]}:1.0 {bus} {role.upper()}" *)\n'
