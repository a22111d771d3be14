# amaranth: UnusedElaboratable=no
"""What the units cost on an ECP5-25F: writes data/unit-costs.csv, and tables of costs.md, README and the units' pages.

``python docs/unit_costs.py [UNIT ...]`` synthesises, places and routes all units, or those named: some 90 minutes of a
core for all. Results are kept in build/synth. ``--tables`` writes the tables from the CSV file and runs nothing.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import experiments
from experiments import HERE
from narrowgauge import catalog
from narrowgauge.hw import verilog
from narrowgauge.synth import flow

RESULTS, PAGE, README = HERE / "data" / "unit-costs.csv", HERE / "costs.md", HERE.parent / "README.md"
COUNTS, SPEEDS = ("lut", "ff", "dsp", "bram"), ("min", "median", "max")
FIELDS = ("unit", "settings", *COUNTS, *SPEEDS, "latency")
SEEDS = 3

HEAD = {"lut": "LUT", "ff": "FF", "dsp": "DSP", "bram": "block RAM", "fmax": "Fmax, MHz", "latency": "latency, cycles",
        "rate": "million MACs/s per 1,000 LUTs"}
# Page: its columns, the name of one more column, and rows of unit, settings, the first column's text, the last one's.
# The number in front of the last one is what `rate` counts.
CHUNKS, FOUR = "16 of 2 bits, 4 of 4 bits", "16 of 4 bits"
FP8 = {"format": "fp8-e4m3"}
PAGES = {
    PAGE: (("lut", "ff", "dsp", "bram", "fmax", "latency", "rate"), "MACs per cycle", [
        ("bfp-converter", {}, "(fp32 in)", ""),
        ("bfp-fmac", {}, "(fp32 sums, serial)", CHUNKS),
        ("bfp-fmac", {"accumulator": "bf16"}, None, CHUNKS),
        ("bfp-fmac", {"accumulator": "fp16"}, None, CHUNKS),
        ("bfp-fmac", {"chunks": "parallel"}, None, FOUR),
        ("bfp-fmac", {"chunks": "parallel", "accumulator": "bf16"}, None, FOUR),
        ("float-adder", {}, None, ""),
        ("float-adder", {"format": "fp32"}, None, ""),
        ("float-multiplier", {}, None, ""),
        ("float-fma", {}, None, "1"),
        ("float-cast", {}, "(fp32 to fp16)", ""),
        ("float-mac", {}, None, "1"),
        ("mx-converter", {}, "(fp32 in, E4M3 out)", ""),
        ("mx-dot", {}, "(E4M3, 8 lanes, fp32 sums)", "8"),
        ("mx-dot", {"element_b": "fp8-e5m2"}, "(E4M3 by E5M2)", "8"),
        ("lns-converter", {}, "(fp32 in, 16 lanes)", ""),
        ("lns-dot", {}, "(16 lanes, exact sums)", "16"),
        ("lns-dot", {"accumulator": 24, "lsb": 16}, None, "16"),
        ("lns-decoder", {}, "(fp32 out, 16 lanes)", ""),
        ("madam-update", {}, "(fp32 gradients)", ""),
        ("sgd-update", {}, "(bf16)", ""),
        ("sgd-update", {"schedule": "shared"}, "(37 or 58 cycles a weight)", ""),
        ("softmax-grad", {}, "(10 classes, bf16 logits)", ""),
        ("softmax-grad", {"classes": 1024}, None, ""),
        ("precision-cyclic", {}, "(64,000 iterations, 32 cycles)", ""),
        ("precision-adaptive", {}, None, ""),
    ]),
    README: (("lut", "ff", "dsp", "fmax", "latency", "rate"), "MACs per cycle", [
        ("bfp-converter", {}, "(fp32 in)", ""),
        ("bfp-fmac", {"accumulator": "bf16"}, None, CHUNKS),
        ("float-fma", {}, "(fp16)", "1"),
        ("mx-dot", {}, "(E4M3, 8 lanes)", "8"),
        ("lns-dot", {"accumulator": 24, "lsb": 16}, None, "16"),
        ("madam-update", {}, None, ""),
        ("sgd-update", {}, "(bf16, Kahan)", ""),
        ("softmax-grad", {}, "(10 classes)", ""),
    ]),
    HERE / "floating.md": (("lut", "ff", "dsp", "fmax", "latency"), None, [
        ("float-adder", {}, "(fp16)"), ("float-adder", {"latency": 5}), ("float-adder", {"latency": 4}),
        ("float-adder", {"subnormals": "flush"}), ("float-adder", {"format": "bf16"}),
        ("float-adder", {"format": "bf16", "rounding": "stochastic"}), ("float-adder", {"format": "fp32"}),
        ("float-multiplier", {}, "(fp16)"), ("float-multiplier", {"latency": 4}),
        ("float-multiplier", {"multiplier": "lut"}), ("float-multiplier", {"format": "bf16"}),
        ("float-multiplier", {**FP8, "result": "fp16"}),
        ("float-fma", {}, "(fp16)"), ("float-fma", {"latency": 6}), ("float-fma", {"latency": 5}),
        ("float-fma", {"multiplier": "lut"}), ("float-fma", {"subnormals": "flush"}), ("float-fma", {"format": "bf16"}),
        ("float-fma", {**FP8, "accumulator": "fp16"}), ("float-fma", {"accumulator": "fp32"}),
        ("float-fma", {"format": "fp32"}),
        ("float-cast", {}, "(fp32 to fp16)"), ("float-cast", {"result": "bf16", "rounding": "stochastic"}),
        ("float-mac", {}, "(fp16)"),
    ]),
    HERE / "mx.md": (("lut", "ff", "dsp", "fmax", "latency"), None, [
        ("mx-dot", {}, "(E4M3 by E4M3)"), ("mx-dot", {"element_b": "fp8-e5m2"}, "(E4M3 by E5M2)"), ("mx-converter", {}),
    ]),
    HERE / "precision.md": (("lut", "ff", "fmax", "latency"), None, [
        ("precision-cyclic", {}), ("precision-adaptive", {}),
    ]),
    HERE / "softmax.md": (("lut", "ff", "dsp", "bram", "fmax"), None, [
        ("softmax-grad", {}, "(10 classes, bf16, B = 5)"), ("softmax-grad", {"classes": 1024}, "(B = 11)"),
    ]),
    HERE / "update.md": (("lut", "ff", "dsp", "fmax", "latency"), "cycles for a weight", [
        ("sgd-update", {}, "(bf16, pipelined)", "1"), ("sgd-update", {"grow": True}, None, "1"),
        ("sgd-update", {"rates": "powers"}, None, "1"), ("sgd-update", {"format": "fp16"}, None, "1"),
        ("sgd-update", {"compensated": False}, None, "1"),
        ("sgd-update", {"schedule": "shared"}, None, "37 or 58"),
        ("sgd-update", {"schedule": "shared", "grow": True}, None, "37, 58 or 79"),
        ("sgd-update", {"schedule": "shared", "rates": "powers"}, None, "37 or 58"),
        ("sgd-update", {"schedule": "shared", "format": "fp32"}, None, "37 or 58"),
    ]),
    HERE / "logarithmic.md": (("lut", "ff", "dsp", "bram", "fmax", "latency"), None, [
        ("lns-converter", {}, "(fp32 in, 16 lanes)"), ("lns-decoder", {}, "(fp32 out, 16 lanes)"), ("madam-update", {}),
    ]),
}


def key(unit: str, settings: dict) -> tuple[str, str]:
    """Return what a row of the CSV file is found by."""
    return unit, json.dumps(settings, sort_keys=True)


def others() -> list[tuple]:
    """Return rows for units without a row of their own in costs.md: their entries say what to show."""
    # docs/array_cost.py measures the array, docs/core_rtl.py the core.
    named = {row[0] for row in PAGES[PAGE][2]} | {"array", "trainer"}
    return [(unit.name, settings, None, f"{unit.macs(unit.configure(settings)):g}" if unit.macs else "")
            for unit in catalog.UNITS.values() if unit.name not in named for settings in unit.shown]


def jobs() -> list[tuple[str, str]]:
    """Return what is measured."""
    return list(dict.fromkeys(key(*row[:2]) for rows in (*(page[2] for page in PAGES.values()), others())
                              for row in rows))


def cost(job: tuple[str, str]) -> dict:
    """Return the row of a unit that is synthesised, placed and routed."""
    unit, settings = catalog.find(job[0]), json.loads(job[1])
    parameters = unit.configure(settings)
    component = unit.component(parameters)
    found = flow.synthesise(unit.verilog(parameters), unit.module_name(parameters), verilog.ports_of(component), "ecp5",
                            seeds=SEEDS)
    return {"unit": job[0], "settings": job[1], **{name: found[name] for name in COUNTS},
            **{name: f"{found['fmax_mhz'][name]:.1f}" for name in SPEEDS}, "latency": component.latency}


def read() -> dict[tuple[str, str], dict]:
    """Return the rows of the CSV file, by unit and settings."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {(row["unit"], row["settings"]): row for row in csv.DictReader(file)}


def table(page: Path) -> str:
    """Return the Markdown table of a page."""
    columns, more, rows = PAGES[page]
    found = read()
    if page == PAGE:
        rows = rows + [row for row in others() if key(*row[:2]) in found]
    heads = ["unit", *(HEAD[name] for name in columns), *([more] if more else [])]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * len(columns) + (" --- |" if more else "")]
    for unit, settings, *texts in rows:
        row = found[key(unit, settings)]
        row["fmax"] = f"{row['median']} ({row['min']} to {row['max']})"
        macs = texts[1].split()[0] if "rate" in columns and texts[1] else None
        row["rate"] = f"{int(macs) * float(row['median']) * 1000 / int(row['lut']):,.0f}" if macs else ""
        words = " ".join([unit, *(f"{name}={json.dumps(value).strip(chr(34))}" for name, value in settings.items())])
        cells = [f"`{words}`" + (f" {texts[0]}" if texts and texts[0] else "")]
        cells += [row[name] if name in ("fmax", "rate") else f"{int(row[name]):,}" for name in columns]
        lines.append(f"| {' | '.join(cells + texts[1:])} |")
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("units", nargs="*", metavar="UNIT", help="a unit of the catalogue (default: all)")
    parser.add_argument("--tables", action="store_true", help="synthesise nothing")
    options = parser.parse_args()
    for job in [] if options.tables else [job for job in jobs() if job[0] in (options.units or [job[0]])]:
        rows = read() | {job: cost(job)}
        print(*rows[job].values(), flush=True)
        experiments.save(RESULTS, FIELDS, [[rows[each][name] for name in FIELDS] for each in jobs() if each in rows])
    for page in PAGES:
        experiments.fill(page, {"units": table(page)})


if __name__ == "__main__":
    sys.exit(main())
