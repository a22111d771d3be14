"""Rows of an exploration, from the outcomes of a point's commands; Pareto fronts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .. import catalog
from ..golden import systems
from ..golden.floating import PlainSystem
from ..golden.number_system import NumberSystem
from .commands import shown

__all__ = ["COSTS", "array_of", "bits_of", "case_of", "mark_fronts", "row_of", "unit_of"]

# Costs that accuracy is plotted against, and their names.
COSTS = {"lut_per_mac": "LUTs per MAC", "gates_per_mac": "gates per MAC", "um2_per_mac": "um2 per MAC, pre-layout",
         "energy_pj_per_mac": "pJ per MAC, pre-layout", "energy_uj_per_step": "uJ per training step, pre-layout",
         "cycles_per_step": "cycles per training step", "bits_per_operand": "bits per operand"}
SUMS = 16  # that a cell works on side by side


def _system(described: Mapping[str, Any]) -> NumberSystem:
    """Return the number system that ``train --json`` tells of."""
    settings = dict(described)
    name = settings.pop("name")
    return (PlainSystem if name == "plain" else systems.find(name)).from_json(settings)


def unit_of(described: Mapping[str, Any]) -> tuple[str, dict] | None:
    """Return the unit of the catalogue that makes a number system's dot products, and its settings.

    A recipe in plain floats has `float-mac`. None: the catalogue has no such unit.
    """
    system = _system(described)
    if isinstance(system, PlainSystem):
        return "float-mac", {"format": described["work"], "accumulator": described["work"]}
    cell = system.cell(SUMS)
    for unit in catalog.UNITS.values():
        if type(cell) is unit.parameters:
            return unit.name, {name: value for name, value in cell.to_json().items() if value is not None}
    return None


def array_of(described: Mapping[str, Any], settings: Mapping[str, Any]) -> dict | None:
    """Return the settings of an array of a number system; None where it has none."""
    if not _system(described).circuits:
        return None
    own = {name: value for name, value in described.items() if name != "name" and value is not None}
    return {"system": described["name"], **own, **settings}


def bits_of(described: Mapping[str, Any]) -> float:
    """Return the bits of an operand of a GEMM, with its part of what the group shares."""
    system = _system(described)
    if isinstance(system, PlainSystem):
        return float(system.work.width)
    return system.vector_bits / system.group


def case_of(settings: Mapping[str, Any]) -> str:
    """Return what two rows must have in common to be compared: data and network."""
    words = [str(settings.get("data", "digits")), str(settings.get("model", "mlp"))]
    for name in ("hidden", "examples", "epochs"):
        words += [f"{name} {settings[name]}"] if name in settings else []
    return ", ".join(words)


def row_of(settings: dict, trainings: Mapping[int, dict], plan: dict | None, costs: Mapping[str, dict],
           commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return a row, as a dict of plain JSON values.

    Parameters
    ----------
    settings : dict
        The point.
    trainings, plan, costs
        Outcomes as `commands.run` returns them: by seed, or None, and by target.
    commands : list of list of str
        Arguments of all its commands.
    """
    results = {seed: each["result"] for seed, each in trainings.items() if each["result"]}
    outcomes = [*trainings.values(), *costs.values(), *([plan] if plan else [])]
    row: dict[str, Any] = {
        "settings": settings, "case": case_of(settings), "seeds": list(results), "accuracy": None, "digest": None,
        **dict.fromkeys(("lut_per_mac", "mmacs_per_s_per_klut", "gates_per_mac", "um2_per_mac", "energy_pj_per_mac",
                         "cycles_per_step", "utilisation", "energy_uj_per_step", "bits_per_operand")),
        "targets": {}, "pareto": [],
        "failures": list(dict.fromkeys(each["reason"] for each in outcomes if each["reason"])),
        "command": shown(list(commands[0])), "commands": [shown(list(words)) for words in commands],
    }
    if results:
        first = next(iter(results.values()))
        found = [each["accuracy"]["test"] for each in results.values()]
        row |= {"accuracy": {"min": min(found), "median": statistics.median(found), "max": max(found)},
                "digest": first["digest"], "bits_per_operand": bits_of(first["system"])}
        row["failures"] += [f"seed {seed}: the run diverged" for seed, each in results.items() if each["diverged"]]
    if plan and plan["result"]:
        told = plan["result"]
        row |= {"cycles_per_step": told["cycles_per_step"], "utilisation": told["utilisation"]}
        if not told["fits"]:
            row["failures"].append(told["misfit"])
    for target, outcome in costs.items():
        if outcome["result"]:
            row["targets"][target] = outcome["result"]
            if outcome["result"].get("macs_per_cycle"):
                row |= _cost(outcome["result"])
    if plan and plan["result"] and row["energy_pj_per_mac"] is not None and plan["result"]["macs_per_step"]:
        row["energy_uj_per_step"] = row["energy_pj_per_mac"] * plan["result"]["macs_per_step"] / 1e6
    return row


def _cost(told: Mapping[str, Any]) -> dict[str, float]:
    """Return the costs per multiply-accumulate that ``synth --json`` tells of."""
    macs = told["macs_per_cycle"]
    if "energy_pj" in told:
        return {"um2_per_mac": told["area_um2"] / macs, "energy_pj_per_mac": told["energy_pj"]["per_mac"]}
    if "gates" in told:
        return {"gates_per_mac": told["area"] / macs}
    found = {"lut_per_mac": told["lut"] / macs}
    if told["fmax_mhz"]:
        found["mmacs_per_s_per_klut"] = macs * told["fmax_mhz"]["median"] * 1000 / told["lut"]
    return found


def mark_fronts(rows: Sequence[dict]) -> None:
    """Set ``pareto`` of each row to the costs on whose front the row is, among the rows of its case.

    A row is on a front when no other is as accurate at no more cost, and better in one of the two.
    """
    for row in rows:
        row["pareto"] = [cost for cost in COSTS if _stands(row, rows, cost)]


def _stands(row: dict, rows: Sequence[dict], cost: str) -> bool:
    if row[cost] is None or row["accuracy"] is None:
        return False
    mine, price = row["accuracy"]["median"], row[cost]
    for other in rows:
        if other["case"] == row["case"] and other[cost] is not None and other["accuracy"] is not None:
            theirs, paid = other["accuracy"]["median"], other[cost]
            if theirs >= mine and paid <= price and (theirs > mine or paid < price):
                return False
    return True
