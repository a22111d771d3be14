# amaranth: UnusedElaboratable=no
"""What the logarithmic units cost beside others: writes data/logarithmic-cost.csv and two tables of logarithmic.md.

``python docs/logarithmic_cost.py`` synthesises, places and routes everything, some 20 minutes of two cores; results are
kept in build/synth. ``--tables`` does nothing but write the tables from the CSV file.
"""

import argparse
import csv
import sys
from pathlib import Path

import experiments
from narrowgauge import catalog
from narrowgauge.hw import verilog
from narrowgauge.synth import flow

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "data" / "logarithmic-cost.csv", HERE / "logarithmic.md"
COUNTS, SPEEDS = ("lut", "ff", "dsp", "bram"), ("min", "median", "max")
FIELDS = ("label", "macs", *COUNTS, *SPEEDS, "area")
SEEDS = 3

# Label, unit, settings. Products of sixteen pairs, or of one. No multiplier blocks: LUTs compare.
NARROW = {"accumulator": 24, "lsb": 16}
MACS = [
    ("LNS 8 bits, exact sum", "lns-dot", {}),
    ("LNS 8 bits, 24-bit sum", "lns-dot", NARROW),
    ("LNS 8 bits, 24-bit sum, bf16 result", "lns-dot", {**NARROW, "result": "bf16"}),
    ("LNS 8 bits, 24-bit sum, 1 constant", "lns-dot", {**NARROW, "constants": 1}),
    ("LNS 8 bits, 24-bit bins", "lns-dot", {**NARROW, "accumulation": "bins"}),
    ("INT8 (MXINT8 blocks of 16)", "mx-dot", {"element": "int8", "block": 16, "lanes": 16}),
    ("FP8 E4M3 (MXFP8 blocks of 16)", "mx-dot", {"element": "fp8-e4m3", "block": 16, "lanes": 16}),
    ("BFP, 8-bit magnitudes", "bfp-fmac", {"mantissa": 8, "chunks": "parallel"}),
    ("BFP, 4-bit magnitudes", "bfp-fmac", {"chunks": "parallel"}),
    ("FP8 E4M3, one by one", "float-mac", {"format": "fp8-e4m3", "accumulator": "fp32", "multiplier": "lut"}),
    ("FP16, one by one", "float-mac", {"format": "fp16", "accumulator": "fp32", "multiplier": "lut"}),
    ("FP32, one by one", "float-mac", {"format": "fp32", "accumulator": "fp32", "multiplier": "lut"}),
]
# The units that make the system on an iCE40 UP5K, and their settings.
UP5K = [("lns-dot", {**NARROW, "result": "bf16"}), ("madam-update", {"gradient": "bf16"})]


def configured(unit, settings):
    """Return what the catalogue makes of a unit: its entry, parameters and component."""
    entry = catalog.find(unit)
    parameters = entry.configure(settings)
    return entry, parameters, entry.component(parameters)


def cost(label, unit, settings):
    """Return a row: one unit on an ECP5-25F, and in gates."""
    entry, parameters, component = configured(unit, settings)
    text, name, ports = entry.verilog(parameters), entry.module_name(parameters), verilog.ports_of(component)
    placed = flow.synthesise(text, name, ports, "ecp5", seeds=SEEDS)
    return row(label, entry.macs(parameters), placed) | {"area": flow.synthesise(text, name, ports, "asic")["area"]}


def row(label, macs, placed):
    """Return what is kept of a result of `flow.synthesise`."""
    speeds = {key: f"{placed['fmax_mhz'][key]:.1f}" for key in SPEEDS}
    return {"label": label, "macs": macs, **{key: placed[key] for key in COUNTS}, **speeds, "area": ""}


def pair(units):
    """Return Verilog, name and ports of a module that holds units side by side, with the ports of each."""
    texts, lines, ports = [], [], [("clk", "in", 1), ("rst", "in", 1)]
    for index, (unit, settings) in enumerate(units):
        entry, parameters, component = configured(unit, settings)
        texts.append(entry.verilog(parameters))
        own = [port for port in verilog.ports_of(component) if port[0] not in ("clk", "rst")]
        ports += [(f"u{index}_{name}", way, width) for name, way, width in own]
        links = ", ".join([".clk(clk)", ".rst(rst)", *(f".{name}(u{index}_{name})" for name, _, _ in own)])
        lines.append(f"  {entry.module_name(parameters)} u{index}({links});")
    declared = [f"  {way}put [{width - 1}:0] {name};" for name, way, width in ports]
    top = "\n".join([f"module pair({', '.join(name for name, _, _ in ports)});", *declared, *lines, "endmodule", ""])
    return "\n".join([*texts, top]), "pair", ports


def up5k():
    """Return the row of both units together on an iCE40 UP5K."""
    placed = flow.synthesise(*pair(UP5K), "ice40", device="up5k", seeds=SEEDS)
    if not placed["fits"]:
        raise RuntimeError(placed["note"])
    return row("up5k", catalog.find("lns-dot").macs(configured(*UP5K[0])[1]), placed)


def read():
    """Return the rows of the CSV file, by label."""
    with RESULTS.open(newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def table(rows):
    """Return the Markdown table of what a multiply-accumulate costs."""
    lines = ["| | LUT | LUT per MAC | Fmax, MHz | M MAC/s per 1,000 LUT | gates per MAC |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for label, _, _ in MACS:
        each = rows[label]
        macs, lut, median = float(each["macs"]), int(each["lut"]), float(each["median"])
        lines.append(f"| {label} | {lut:,} | {lut / macs:,.0f} | {median:.1f} ({each['min']} to {each['max']}) | "
                     f"{macs * median * 1000 / lut:,.0f} | {float(each['area']) / macs:,.0f} |")
    return "\n".join(lines)


def up5k_table(rows):
    """Return the Markdown table of the system on an iCE40 UP5K."""
    each = rows["up5k"]
    return "\n".join(["| logic cells with LUT | flip-flops | block RAMs | multiplier blocks | Fmax, MHz |",
                      "| ---: | ---: | ---: | ---: | ---: |",
                      f"| {int(each['lut']):,} of 5,280 | {int(each['ff']):,} | {each['bram']} | {each['dsp']} | "
                      f"{each['median']} ({each['min']} to {each['max']}) |"])


def tables():
    """Return the page's tables, by the names of their marks."""
    return {"cost": table(read()), "up5k": up5k_table(read())}


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="synthesise nothing")
    options = parser.parse_args()
    if not options.tables:
        rows = []
        for job in [*MACS, None]:
            rows.append(cost(*job) if job else up5k())
            print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
        experiments.save(RESULTS, FIELDS, [[each[field] for field in FIELDS] for each in rows])
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
