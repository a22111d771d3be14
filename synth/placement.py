"""Packing, placement and routing by nextpnr: counts of cells, and frequencies over the seeds."""

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from . import tools
from .targets import Target

__all__ = ["count", "place", "timing"]

# As Yosys and nextpnr name the wrapper's cells.
WRAPPER = {"lut": r"(SB_)?LUT\d", "ff": r"TRELLIS_FF|SB_DFF\w*|FD\w+|DFF\w*"}


def count(cells: Mapping[str, int], pattern: str) -> int:
    """Return how many cells have a type that the pattern matches; `cells` are numbers by type."""
    return sum(number for kind, number in cells.items() if re.fullmatch(pattern, kind))


def _packed(path: Path) -> Counter[str]:
    """Return the packed design's cells by type, but for the drivers of constants, of which a chip has two.

    An iCE40 logic cell counts as LC_LUT, unless only its flip-flop is used, and as LC_FF if that is used.
    """
    cells: Counter[str] = Counter()
    for module in json.loads(path.read_text())["modules"].values():
        for name, cell in module["cells"].items():
            if name.startswith("$PACKER_"):
                continue
            cells[cell["type"]] += 1
            if cell["type"] == "ICESTORM_LC":
                cells["LC_LUT"] += not name.endswith("_DFFLC")
                cells["LC_FF"] += int(cell["parameters"]["DFF_ENABLE"], 2)
    return cells


def place(work: Path, family: Target, arguments: Sequence[str], seeds: int, say: Callable[[str], None]) -> dict:
    """Pack, place and route design.netlist; return what that says about the unit."""
    harness = json.loads((work / "wrapper.stat").read_text())["modules"]["\\wrapper"]["num_cells_by_type"]
    harness = {name: count(harness, pattern) for name, pattern in WRAPPER.items()}
    arguments = ["--json", "design.netlist", *arguments]
    log = tools.run(family.nextpnr, [*arguments, "--pack-only", "--write", "packed.netlist"], work, "pack.log")
    cells = _packed(work / "packed.netlist")
    bels = {name: (int(used), int(available))
            for name, used, available in re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%$", log, re.M)}
    result = {name: count(cells, getattr(family, name)) - harness[name] for name in harness}
    result["capacity"] = {name: bels[bel][1] if bel in bels else 0 for name, bel in family.bels.items()}
    result["wrapper"] = harness

    # A unit that does not fit, or fits only without the wrapper, is an answer and no failure.
    share = {family.bels[name]: number for name, number in harness.items()}
    over = {bel: (used, available) for bel, (used, available) in bels.items() if used > available}
    if over:
        fits = all(used - share.get(bel, 0) <= available for bel, (used, available) in over.items())
        what = "fits, but was not placed, as with its test wrapper it does not" if fits else "does not fit"
        needs = ", ".join(f"{used:,} {bel} ({share.get(bel, 0):,} of them the wrapper's), has {available:,}"
                          for bel, (used, available) in over.items())
        return result | {"fits": fits, "note": f"{what}: needs {needs}"}

    def report_of(seed: int) -> Any:
        names = ["--seed", str(seed), "--report", f"seed{seed}.json"]
        try:
            tools.run(family.nextpnr, [*arguments, *names], work, f"seed{seed}.log")
        except RuntimeError as error:
            return error
        return json.loads((work / f"seed{seed}.json").read_text())

    reports = {}
    say(f"placing and routing with {seeds} seeds")
    with ThreadPoolExecutor(min(max(seeds, 1), os.cpu_count() or 1)) as pool:
        jobs = {pool.submit(report_of, seed): seed for seed in range(1, seeds + 1)}
        try:
            for job in as_completed(jobs):
                report = job.result()
                reports[jobs[job]] = report
                text = report if isinstance(report, RuntimeError) else f"{_fmax(report):.1f} MHz"
                say(f"seed {jobs[job]} ({len(reports)} of {seeds}): {text}")
        except BaseException:
            # Interrupted: start no further seeds.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return result | timing(reports)


def _fmax(report: dict) -> float:
    return min(clock["achieved"] for clock in report["fmax"].values())


def timing(reports: dict) -> dict:
    """Return the part of the result that the seeds' reports (or errors) hold."""
    placed = {seed: report for seed, report in sorted(reports.items()) if not isinstance(report, RuntimeError)}
    failed = [report for report in reports.values() if isinstance(report, RuntimeError)]
    note = None
    if failed:
        reason = str(failed[0]).split(" (log: ")[0]
        # A nearly full device brings about these failures, or a seed that goes round for ever. Any other failure is a
        # fault to be looked into.
        full = re.search(r"plac|legal|rout|\bbels?\b", reason, re.I)
        if not full and not (placed and "did not finish" in reason):
            raise failed[0]
        note = f"{len(failed)} of {len(reports)} seeds did not place and route: {reason}"
        if not placed:
            return {"fits": False, "note": note}
    if not placed:
        return {}
    fmax = {seed: round(_fmax(report), 2) for seed, report in placed.items()}
    fastest = placed[max(fmax, key=lambda seed: fmax[seed])]
    if note is None and not any("unit." in stage["from"]["cell"] + stage["to"]["cell"]
                                for path in fastest["critical_paths"] if path["from"] == path["to"]
                                for stage in path["path"]):
        note = "at its fastest, the test wrapper's registers limit the frequency, not the unit"
    values = list(fmax.values())
    return {"note": note, "fmax_mhz": {"min": min(values), "median": round(statistics.median(values), 2),
                                       "max": max(values), "seeds": fmax}}
