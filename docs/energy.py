# amaranth: UnusedElaboratable=no
"""What dot products take in standard cells: writes data/energy.csv and the tables of energy.md.

``python docs/energy.py`` maps and simulates all units, for about half an hour. It needs Debian's qflow-tech-osu018.
Rows that are in the CSV file stay; ``--again`` measures them, too. ``--tables`` measures nothing.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import experiments
import numpy as np
from narrowgauge import catalog
from narrowgauge.golden import integer
from narrowgauge.hw import verilog
from narrowgauge.hw.integer import IntDot
from narrowgauge.report.energy import energy_of
from narrowgauge.sim.operands import KINDS, gemms_of
from narrowgauge.sim.vectors import Vectors, pack
from narrowgauge.synth import energy

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "data" / "energy.csv", HERE / "energy.md"
MODELS = ("zero_delay", "with_glitches")
PARTS = ("combinational", "registers", "clock", "ports")
FIELDS = ("label", "unit", "settings", "macs", "area_um2", "delay_ns", "ff",
          *(f"{kind}_{model}" for kind in KINDS for model in MODELS), *PARTS)
NARROW = {"accumulator": 24, "lsb": 16}
MX = {"block": 16, "lanes": 16}


def int_operands(parameters, count, seed, kind):
    """Return transfers for the INT8 cell, as `sim.logarithmic.dot_operands` does for logarithmic numbers."""
    rng, pieces, total, gemms = np.random.default_rng(seed), [], 0, gemms_of(kind)
    while total < count:
        x, y = gemms[rng.integers(len(gemms))]
        steps = -(-x.shape[1] // parameters.lanes)
        sides = []
        for matrix in (x, y):
            codes, scale = quantised(matrix[rng.integers(0, len(matrix), 8)], np.abs(matrix).max())
            padded = np.zeros((8, steps * parameters.lanes), np.int64)
            padded[:, :x.shape[1]] = codes
            sides += [padded.reshape(8 * steps, parameters.lanes), np.full(8 * steps, scale)]
        step = np.arange(8 * steps) % steps
        pieces.append((*sides, step == 0, step == steps - 1))
        total += len(step)
    a, a_scale, b, *rest = (np.concatenate(each)[:count] for each in zip(*pieces, strict=True))
    if kind == "codes":
        a, b = np.random.default_rng(seed).integers(-integer.TOP, integer.TOP + 1, (2, *a.shape))
    return a, a_scale, b, *rest


def quantised(x, largest):
    """Return integers under the least scale whose largest number is above `largest`, and the scale's code."""
    scale = int(np.ceil(np.log2(largest / integer.TOP)))
    return np.clip(np.rint(np.ldexp(x.astype(np.float64), -scale)), -integer.TOP, integer.TOP), scale + 127


def int_vectors(parameters, a, a_scale, b, b_scale, first, last):
    """Return the Vectors of the INT8 cell's transfers."""
    codes, _ = integer.dots(parameters, (a, a_scale), (b, b_scale), first, last)
    return Vectors(pack((a, 8), (a_scale, 8), (b, 8), (b_scale, 8), (first, 1), (last, 1)),
                   pack((codes, parameters.result.width)), np.flatnonzero(last))


class IntCell(catalog.Unit):
    """The array's INT8 cell as a unit of its own."""

    def verilog(self, parameters):
        """Return its Verilog text."""
        return verilog.emit(self.component(parameters), self.module_name(parameters))


INT8 = IntCell("int8-cell", "dot product of integers", integer.INT8DotParameters, IntDot, integer.dots,
               catalog.Bench(int_operands, int_operands, int_vectors, int_operands), {}, (), macs=lambda p: p.lanes)

# Label, unit, settings. Sixteen products a cycle unless the label says otherwise; no multiplier blocks.
ROWS = [
    ("LNS 8 bits, 24-bit sum", "lns-dot", NARROW),
    ("LNS 8 bits, 24-bit sum, 1 constant", "lns-dot", {**NARROW, "constants": 1}),
    ("LNS 8 bits, exact sum", "lns-dot", {}),
    ("LNS 8 bits, 24-bit bins", "lns-dot", {**NARROW, "accumulation": "bins"}),
    ("INT8, 32-bit sum (the array's cell)", "int8-cell", {}),
    ("MXINT8, exact sum", "mx-dot", {"element": "int8", **MX}),
    ("MXFP8 E4M3, exact sum", "mx-dot", {"element": "fp8-e4m3", **MX}),
    ("MXFP4, exact sum", "mx-dot", {"element": "fp4-e2m1", **MX}),
    ("BFP 4 bits", "bfp-fmac", {"chunks": "parallel"}),
    ("BFP 4 bits, bf16 sums", "bfp-fmac", {"chunks": "parallel", "accumulator": "bf16"}),
    ("BFP 8 bits", "bfp-fmac", {"chunks": "parallel", "mantissa": 8}),
    ("BFP 2 bits, serial unit", "bfp-fmac", {"mantissa": 2}),
    ("BFP 4 bits, serial unit (4 a cycle)", "bfp-fmac", {}),
    ("FP8 E4M3, one a cycle", "float-mac", {"format": "fp8-e4m3", "accumulator": "fp32", "multiplier": "lut"}),
    ("bf16, one a cycle", "float-mac", {"format": "bf16", "accumulator": "fp32", "multiplier": "lut"}),
    ("FP16, one a cycle", "float-mac", {"format": "fp16", "accumulator": "fp32", "multiplier": "lut"}),
    ("FP32, one a cycle", "float-mac", {"format": "fp32", "accumulator": "fp32", "multiplier": "lut"}),
]
OURS = "LNS 8 bits, 24-bit sum"
NONE = "Not measured yet."
# What LNS-Madam's abstract says of its datapath's energy, and whom we hold beside ours.
CLAIMS = [("FP32, one a cycle", "over 90 %"), ("FP8 E4M3, one a cycle", ""), ("MXFP8 E4M3, exact sum", "55 %"),
          ("MXINT8, exact sum", ""), ("INT8, 32-bit sum (the array's cell)", ""), ("BFP 8 bits", ""),
          ("BFP 4 bits", "")]


def measured(label, unit, settings, library):
    """Return the row of a unit."""
    entry = INT8 if unit == INT8.name else catalog.find(unit)
    parameters = entry.configure(settings)
    found = energy_of(entry, parameters, library)
    row = {"label": label, "unit": unit, "settings": json.dumps(settings), "macs": f"{found['macs_per_cycle']:g}",
           "area_um2": f"{found['area_um2']:.0f}", "delay_ns": f"{found['delay_ns']:.3f}", "ff": found["ff"]}
    row |= {f"{kind}_{model}": f"{found['energy'][kind][model]['per_mac']:.3f}" for kind in KINDS for model in MODELS}
    first = found["energy"]["training"]["zero_delay"]
    return row | {part: f"{first[part] * first['per_mac'] / first['per_cycle']:.3f}" for part in PARTS}


def read():
    """Return the rows of the CSV file, by label."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def units_table(rows):
    """Return the Markdown table of all units."""
    if not rows:
        return NONE
    lines = ["| pre-layout, OSU 0.18 um, pJ per MAC | training | gates / flip-flops' data / clock pins / inputs | with "
             "glitches | dense normal, with glitches | random codes, with glitches | um2 per MAC | longest path, ns |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for label, *_ in ROWS:
        if label in rows:
            row = rows[label]
            parts = " / ".join(f"{float(row[part]):.1f}" for part in PARTS)
            kinds = " | ".join(f"{float(row[f'{kind}_with_glitches']):.1f}" for kind in KINDS)
            lines.append(f"| {label} | {float(row['training_zero_delay']):.1f} | {parts} | {kinds} | "
                         f"{float(row['area_um2']) / float(row['macs']):,.0f} | {float(row['delay_ns']):.2f} |")
    return "\n".join(lines)


def claims_table(rows):
    """Return the Markdown table of what `OURS` saves, beside the paper's claims."""
    if OURS not in rows:
        return NONE
    lines = ["| less energy than, pre-layout | the paper | training | training, with glitches | dense normal, with "
             "glitches | random codes, with glitches | less area |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]

    def per_mac(label, field):
        return float(rows[label][field]) / (float(rows[label]["macs"]) if field == "area_um2" else 1)

    def saved(other, field):
        return f"{1 - per_mac(OURS, field) / per_mac(other, field):.0%}".replace("%", " %")

    for other, claim in CLAIMS:
        if other in rows:
            fields = ("training_zero_delay", *(f"{kind}_with_glitches" for kind in KINDS), "area_um2")
            lines.append(f"| {other} | {claim} | " + " | ".join(saved(other, field) for field in fields) + " |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by the names of their marks."""
    rows = read()
    return {"units": units_table(rows), "claims": claims_table(rows)}


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="measure nothing")
    parser.add_argument("--again", action="store_true", help="measure what is in the CSV file, too")
    options = parser.parse_args()
    rows = read()
    library = None if options.tables else energy.library_text("osu018")
    # Those that the paper's claims are held against come first.
    held = [OURS, *(label for label, _ in CLAIMS)]
    for label, unit, settings in [] if options.tables else sorted(ROWS, key=lambda row: row[0] not in held):
        if options.again or label not in rows:
            rows[label] = measured(label, unit, settings, library)
            print(label, rows[label]["training_zero_delay"], "pJ per MAC, pre-layout", flush=True)
            experiments.save(RESULTS, FIELDS, [[rows[each][field] for field in FIELDS]
                                               for each, *_ in ROWS if each in rows])
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
