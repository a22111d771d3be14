# amaranth: UnusedElaboratable=no
"""What a unit of the catalogue costs in standard cells: area, longest path, and energy on several kinds of operands."""

from collections.abc import Callable
from typing import Any

from ..base.parameters import Parameters
from ..catalog import Unit
from ..synth import energy
from ..synth.activity import STREAMS, Stimulus

__all__ = ["energy_of"]

MODELS = {"zero_delay": False, "with_glitches": True}


def energy_of(unit: Unit, parameters: Parameters, library: str, target: str = "osu018",
              progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Return the cost of a unit in a library's cells before layout, as a dict of plain JSON values.

    Parameters
    ----------
    unit, parameters
    library : str
        Text in Liberty.
    target : str
        The target whose command Yosys runs.
    progress : callable, optional
        Called with a line of text now and then.

    Returns
    -------
    dict
        ``unit``, ``parameters``, ``target``, ``library``, ``layout`` (``pre-layout``), ``area_um2`` (the library's unit
        of area), ``delay_ns``, ``path`` (cells along it), ``cells``, ``ff``, ``macs_per_cycle``, ``seed`` (of the
        streams), ``cycles`` (counted of each stream), ``tools``. ``energy``: by kind of operands (see `Unit.stimuli`)
        and by model of delay what `energy.measure` returns. ``energy_pj`` and ``activity``: those of the first kind,
        without glitches.

    Raises
    ------
    RuntimeError
        The netlist differs from the golden model.
    """
    component, name = unit.component(parameters), unit.module_name(parameters)
    progress(f"{target}: mapping {name}")
    mapped = energy.map_unit(unit.verilog(parameters), name, library, target=target)
    latency = component.latency + component.interval
    macs = unit.macs(parameters) * component.interval if unit.macs else None
    progress("making operands")
    streams = [unit.stimuli(parameters, latency + energy.CYCLES, seed) for seed in range(1, STREAMS + 1)]
    found: dict[str, dict[str, dict]] = {}
    for kind in streams[0]:
        stimuli = [Stimulus(each[kind].inputs, each[kind].outputs, each[kind].origin) for each in streams]
        progress(f"simulating {name}: {kind}")
        found[kind] = {model: energy.measure(mapped, stimuli, latency=latency, macs=macs, glitches=glitches)
                       for model, glitches in MODELS.items()}
    first = next(iter(found.values()))["zero_delay"]
    return {
        "unit": unit.name, "parameters": parameters.to_json(), "target": target, "library": mapped.library.name,
        "layout": "pre-layout", "area_um2": mapped.netlist.area, "delay_ns": mapped.timing.delay,
        "path": mapped.timing.path, "cells": len(mapped.netlist.gates) + len(mapped.netlist.flipflops),
        "ff": len(mapped.netlist.flipflops), "macs_per_cycle": unit.macs(parameters) if unit.macs else None,
        "energy_pj": {key: first[key] for key in ("per_cycle", "per_mac", "combinational", "registers", "clock")},
        "activity": first["activity"], "energy": found, "seed": list(range(1, STREAMS + 1)), "cycles": energy.CYCLES,
        "tools": mapped.tools,
    }
