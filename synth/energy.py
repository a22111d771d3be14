"""Area, delay and energy of a unit in standard cells, before layout: no wires, and no tree that drives the clock.

A change of a net takes the internal energy of its driver, and C V^2 / 2 of the input pins on the net. Internal energies
are means over the cell's arcs, at the net's load and the transitions of static timing. Every flip-flop's clock pin
changes twice a cycle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.checks import require
from ..golden.errors import MissingExtra
from . import activity, liberty, scripts, timing, tools
from .activity import STREAMS, Stimulus
from .liberty import Cell, Library
from .mapped import Instance, Netlist, netlist_of
from .targets import TARGETS

__all__ = ["CYCLES", "SLEW", "Mapped", "library_text", "map_unit", "measure", "read", "summary"]

SLEW = 0.1  # ns: transition of the clock and of input ports
CYCLES = 256  # that are counted, of each stream


@dataclass(frozen=True)
class Mapped:
    """A unit in standard cells: its netlist, static timing, and the mean delay of a flip-flop in ps."""

    top: str
    library: Library
    netlist: Netlist
    timing: timing.Timing
    tools: dict[str, str]

    @property
    def port_delay(self) -> int:
        """When input ports change after the clock's edge: as the unit's own flip-flops do, in ps."""
        delays = [delay for each in self.netlist.flipflops for net in each.outputs if net >= 0
                  for delay in self.timing.delays[net]]
        return max(round(1000 * sum(delays) / max(len(delays), 1)), 1)


def library_text(target: str, path: str | None = None) -> str:
    """Return the Liberty file of a target, or of a path.

    Raises
    ------
    ValueError
        The file cannot be read.
    MissingExtra
        The target's package is not installed; the message tells how to get it.
    """
    family = TARGETS[target]
    require(path is None or target == "asic", "--liberty", path, "with --target asic")
    file = Path(path or family.liberty)
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        if path is not None:
            raise ValueError(f"--liberty is {path!r}; allowed: a file that can be read ({error.strerror})") from None
        raise MissingExtra(f"synth --target {target} needs {file}: apt-get install {family.package}") from None


def read(library: str) -> Library:
    """Return the library of a text in Liberty; ValueError tells in a line why there is none."""
    return liberty.read(library, SLEW)


def map_unit(text: str, top: str, library: str, *, target: str = "osu018", cache: str | None = None) -> Mapped:
    """Return a unit mapped to the cells of a library, with its timing; Yosys' netlist is kept.

    Parameters
    ----------
    text : str
        Verilog-2005.
    top : str
    library : str
        Text in Liberty.
    """
    family = TARGETS[target]
    packages = tools.versions(target, family)
    cells = read(library)
    script = scripts.CELLS.format(synth=family.synth, top=top)

    def compute(work: Path) -> dict:
        tools.write(work, {"unit.v": text, "cells.lib": library})
        tools.yosys(work, script)
        module = json.loads((work / "cells.netlist").read_text())["modules"][top]
        return {"ports": {name: {key: port[key] for key in ("direction", "bits")}
                          for name, port in module["ports"].items()},
                "cells": {str(index): {key: cell[key] for key in ("type", "connections")}
                          for index, cell in enumerate(module["cells"].values())}}

    module = tools.cached(cache, f"{top}-cells", ["cells", text, library, script, packages], compute)
    netlist = netlist_of({"modules": {top: module}}, top, cells)
    return Mapped(top, cells, netlist, timing.analyse(netlist, SLEW), packages)


def measure(mapped: Mapped, streams: Sequence[Stimulus], *, latency: int, macs: float | None, glitches: bool,
            cycles: int = CYCLES) -> dict:
    """Return the energy of a unit that works on streams, as a dict of plain JSON values.

    Parameters
    ----------
    mapped : Mapped
    streams : sequence of Stimulus
        `STREAMS` of them, of `latency` + `cycles` transfers or more.
    latency : int
        Cycles until the unit is full: not counted.
    macs : float, optional
        Multiply-accumulates of a transfer.
    glitches : bool
        Whether gates take their time; else a net changes once a cycle at the most.

    Returns
    -------
    dict
        In pJ: ``per_cycle``, ``per_transfer``, ``per_mac`` (or None), and of a cycle ``combinational`` (gates and the
        nets they drive), ``registers`` (flip-flops' data and outputs), ``clock`` (their clock pins), ``ports`` (nets
        that input ports drive). ``activity``: changes of a net of gates per cycle. ``compared``: outputs that were
        equal to the golden model's.

    Raises
    ------
    RuntimeError
        An output differs from the golden model's.
    """
    require(len(streams) == STREAMS, "streams", len(streams), str(STREAMS))
    found = activity.simulate(mapped.netlist, mapped.timing, streams, warm=latency, cycles=latency + cycles,
                              drain=4 * latency + 16, glitches=glitches, port_delay=mapped.port_delay)
    parts = _energies(mapped, found.toggles)
    total = sum(parts.values())
    gates = [net for each in mapped.netlist.gates for net in each.outputs if net >= 0]
    transfer = total / found.rate
    return {"per_cycle": total, "per_transfer": transfer, "per_mac": transfer / macs if macs else None, **parts,
            "activity": float(found.toggles[gates].mean()) if gates else 0.0, "compared": found.compared}


def _energies(mapped: Mapped, toggles: Any) -> dict[str, float]:
    """Return the energy of a cycle in pJ by part, from the changes of each net per cycle."""
    netlist, slews = mapped.netlist, mapped.timing.slews
    loads = netlist.loads()
    switched = [load * netlist.voltage**2 / 2 for load in loads]

    def mean(cell: Cell, pin: str, load: float, slew: float) -> float:
        """Return the internal energy of a change: of one edge, over all arcs."""
        tables = cell.energy[pin]
        return sum(table.at(load, slew) for pair in tables for table in pair) / (2 * len(tables)) if tables else 0.0

    def slew_of(net: int) -> float:
        return sum(slews[net]) / 2

    def pins(each: Instance) -> float:
        """Return the internal energy of an instance's inputs, but for a clock."""
        clock = each.cell.flipflop.clock if each.cell.flipflop else None
        return sum(toggles[net] * mean(each.cell, pin, 0.0, slew_of(net))
                   for pin, net in zip(each.cell.inputs, each.inputs) if pin != clock and net > 1)

    def driven(each: Instance, slew: float) -> float:
        return sum(toggles[net] * (mean(each.cell, pin, loads[net], slew) + switched[net])
                   for pin, net in zip(each.cell.outputs, each.outputs) if net >= 0)

    gates = registers = clocks = 0.0
    for each in netlist.gates:
        moving = [slew_of(net) for net in each.inputs if net > 1]
        gates += driven(each, sum(moving) / max(len(moving), 1)) + pins(each)
    for each in netlist.flipflops:
        assert each.cell.flipflop is not None
        clock = each.cell.flipflop.clock
        registers += driven(each, SLEW) + pins(each)
        clocks += 2 * mean(each.cell, clock, 0.0, SLEW) + each.cell.capacitance[clock] * netlist.voltage**2
    ports = sum(toggles[net] * switched[net] for net in set(netlist.inputs()))
    return {"combinational": float(gates), "registers": float(registers), "clock": float(clocks),
            "ports": float(ports)}


def summary(result: Mapping[str, Any]) -> str:
    """Return a result of ``synth`` with a library as lines for people; each says that there is no layout."""
    lines = [f"{result['unit']} in {result['library']}, pre-layout: {result['area_um2']:,.0f} um2, "
             f"{result['cells']:,} cells ({result['ff']:,} flip-flops), longest path {result['delay_ns']:.2f} ns"]
    for kind, rows in result["energy"].items():
        for name, row in rows.items():
            per_mac = f"{row['per_mac']:.1f} pJ per MAC, " if row["per_mac"] else ""
            lines.append(
                f"{kind}, {name.replace('_', ' ')}, pre-layout: {per_mac}{row['per_cycle']:.1f} pJ per cycle "
                f"(gates {row['combinational']:.1f}, flip-flops' data {row['registers']:.1f}, clock pins "
                f"{row['clock']:.1f}, input nets {row['ports']:.1f}); {row['compared']:,} outputs equal golden's")
    return "\n".join(lines)
