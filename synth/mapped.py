"""A unit as a netlist of a library's gates and flip-flops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.checks import require
from .liberty import Cell, Library

__all__ = ["ONE", "ZERO", "Instance", "Netlist", "netlist_of", "verilog_of"]

ZERO, ONE = 0, 1  # the nets of the constants


@dataclass(frozen=True)
class Instance:
    """A cell of the netlist: nets of its inputs and outputs, in the order of the cell's own; -1 is not connected."""

    cell: Cell
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Netlist:
    """A unit's cells and nets.

    Attributes
    ----------
    gates : list of Instance
        In topological order.
    flipflops : list of Instance
    nets : int
        How many there are; 0 and 1 are the constants.
    ports : dict of str to (str, list of int)
        Direction, and nets from bit 0 up.
    voltage : float
    """

    gates: list[Instance]
    flipflops: list[Instance]
    nets: int
    ports: dict[str, tuple[str, list[int]]]
    voltage: float

    @property
    def area(self) -> float:
        """The cells' area, in the library's unit."""
        return sum(each.cell.area for each in (*self.gates, *self.flipflops))

    def inputs(self, clock: str = "clk") -> list[int]:
        """Return the nets of the input ports, in order of the ports, without the clock."""
        return [net for name, (way, nets) in self.ports.items() if way == "input" and name != clock for net in nets]

    def loads(self) -> list[float]:
        """Return the capacitance of the input pins on each net, in pF."""
        loads = [0.0] * self.nets
        for each in (*self.gates, *self.flipflops):
            for pin, net in zip(each.cell.inputs, each.inputs):
                loads[net] += each.cell.capacitance[pin]
        return loads


def netlist_of(design: Mapping[str, Any], top: str, library: Library, clock: str = "clk") -> Netlist:
    """Return the netlist of a module that Yosys wrote as JSON after it was mapped to the library's cells.

    Raises
    ------
    RuntimeError
        A cell is not in the library; gates form a loop; a flip-flop has another clock, or a reset that is used.
    """
    module = design["modules"][top]
    nets = _Nets()
    ports = {name: (port["direction"], [nets.of(bit) for bit in port["bits"]])
             for name, port in module["ports"].items()}
    (clock_net,) = ports[clock][1]
    gates, flipflops = [], []
    for name, found in module["cells"].items():
        cell = library.cells.get(found["type"])
        if cell is None:
            raise RuntimeError(f"{top}: cell {found['type']} is not one of the library's gates and flip-flops")
        pins = found["connections"]
        inputs, outputs = ([nets.of(pins[pin][0]) if pins.get(pin) else -1 for pin in names]
                           for names in (cell.inputs, cell.outputs))
        each = Instance(cell, tuple(inputs), tuple(outputs))
        if cell.flipflop is None:
            gates.append(each)
            continue
        at = dict(zip(cell.inputs, inputs))
        idle = all(at[pin] == value for pin, value in cell.flipflop.idle.items())
        if at[cell.flipflop.clock] != clock_net or not idle:
            raise RuntimeError(f"{top}: flip-flop {name} has another clock than {clock}, or a reset of its own")
        flipflops.append(each)
    driven = {ZERO, ONE, clock_net, *(net for way, bits in ports.values() if way == "input" for net in bits),
              *(net for each in flipflops for net in each.outputs)}
    return Netlist(_sorted(gates, driven, top), flipflops, len(nets.numbers) + 2, ports, library.voltage)


class _Nets:
    """Numbers for Yosys' bits."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def of(self, bit: int | str) -> int:
        if isinstance(bit, str):
            return ONE if bit == "1" else ZERO  # what may be anything is 0
        return self.numbers.setdefault(bit, len(self.numbers) + 2)


def _sorted(gates: Sequence[Instance], driven: set[int], top: str) -> list[Instance]:
    """Return gates in topological order, from the nets that are `driven` already."""
    users: dict[int, list[int]] = {}
    missing = []
    for index, gate in enumerate(gates):
        waits = {net for net in gate.inputs if net not in driven}
        missing.append(len(waits))
        for net in waits:
            users.setdefault(net, []).append(index)
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    for index in ready:  # grows while it is read
        order.append(gates[index])
        for net in gates[index].outputs:
            for user in users.pop(net, []):
                missing[user] -= 1
                if not missing[user]:
                    ready.append(user)
    require(len(order) == len(gates), "netlist", top, "gates without a loop, whose inputs are all driven")
    return order


def verilog_of(netlist: Netlist, top: str) -> str:
    """Return a netlist as Verilog of module `top`, for other tools that know the library's cells."""
    lines = [f"module {top}({', '.join(netlist.ports)});"]
    for name, (way, nets) in netlist.ports.items():
        lines.append(f"  {way} [{len(nets) - 1}:0] {name};")
    lines.append("  wire " + ", ".join(f"n{net}" for net in range(2, netlist.nets)) + ";")
    wires = {ZERO: "1'b0", ONE: "1'b1"} | {net: f"n{net}" for net in range(2, netlist.nets)}
    for name, (way, nets) in netlist.ports.items():
        for bit, net in enumerate(nets):
            ends = (wires[net], f"{name}[{bit}]") if way == "input" else (f"{name}[{bit}]", wires[net])
            lines.append(f"  assign {ends[0]} = {ends[1]};")
    for index, each in enumerate((*netlist.gates, *netlist.flipflops)):
        pins = [*zip(each.cell.inputs, each.inputs), *zip(each.cell.outputs, each.outputs)]
        links = ", ".join(f".{pin}({wires[net]})" for pin, net in pins if net >= 0)
        lines.append(f"  {each.cell.name} u{index}({links});")
    return "\n".join([*lines, "endmodule", ""])
