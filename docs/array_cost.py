# amaranth: UnusedElaboratable=no
"""What the array spends and costs: the tables of array.md.

``python docs/array_cost.py`` computes the cycles, in seconds. With ``--cost [LABEL ...]`` it synthesises, places and
routes all arrays of the table of costs, or the labelled ones. It writes data/array-cost.csv; all arrays take hours.
"""

import argparse
import csv
import sys
import time
from types import SimpleNamespace

import experiments
import numpy as np
from experiments import HERE
from narrowgauge import catalog
from narrowgauge.catalog.array import FP16, LNS, NARROW
from narrowgauge.golden import array, blockfloat, network
from narrowgauge.golden.array import ArrayParameters
from narrowgauge.hw import verilog
from narrowgauge.synth import flow

RESULTS, PAGE = HERE / "data" / "array-cost.csv", HERE / "array.md"
COUNTS, SPEEDS = ("lut", "ff", "dsp", "bram"), ("min", "median", "max")
FIELDS = ("label", "device", "macs", *COUNTS, *SPEEDS, "seeds")

# Label: settings, device, seeds, placer.
CASES = {
    "BFP 4 x 4, one converter": (NARROW, "25k", 3, None),
    "BFP 8 x 8, two converters": (NARROW | {"rows": 8, "columns": 8, "converters": 2}, "85k", 1, "static"),
    "LNS 4 x 4, one converter": (LNS, "85k", 3, None),
    "FP16 4 x 4": (FP16, "25k", 3, None),
}
NETWORKS = (("digits, 64-32-10", (8, 8), 64, "mlp", (32,), 32),
            ("digits, convolutional", (8, 8), 64, "cnn", (8, 16), 32),
            ("Fashion-MNIST, 784-32-10", (28, 28), 784, "mlp", (32,), 50),
            ("Fashion-MNIST, convolutional", (28, 28), 784, "cnn", (8, 16), 50))
SHOWN = {"forward": "forward", "input-gradient": "input gradient", "weight-gradient": "weight gradient"}


def products(image, features, model, hidden, batch):
    """Return {gemm: [(m, n, k), ...]} of a training step, by layer; the first layer has no input gradient."""
    data = SimpleNamespace(image=image, channels=1, features=features, classes=10)
    found = {name: [] for name in network.GEMMS}
    for index, layer in enumerate(network.MODELS[model][0](data, hidden)):
        rows = batch * layer.positions
        found["forward"].append((rows, layer.outputs, layer.patch))
        if index:
            gradient, weights = np.zeros((rows, layer.outputs)), np.zeros((layer.outputs, layer.patch))
            for phase in layer.phases():
                (m, k), n = phase.gradients(gradient).shape, phase.weights(weights).shape[1]
                found["input-gradient"].append((m, n, k))
        found["weight-gradient"].append((layer.outputs, layer.patch, rows))
    return found


def weights_stationary(parameters, m, n, k, interval):
    """Return the least cycles of an array with weights kept in the cells, for m vectors that stream past.

    A row of cells has a group of the reduction axis, a column of them an output; every further tile of weights takes
    all m vectors again. Nothing is counted for the start, the end, the weights, or sums that wait.
    """
    groups = -(-k // parameters.system.group)
    return -(-groups // parameters.rows) * -(-n // parameters.columns) * m * interval


def cycles_table(parameters):
    """Return the table of training steps: for each product the cycles of both arrangements."""
    lines = ["| network, batch | product | 2 bits: built | weights stationary, at least | 4 bits: built | "
             "weights stationary, at least |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for name, *rest in NETWORKS:
        totals = [0, 0, 0, 0]
        for gemm, sizes in products(*rest).items():
            cells = []
            for bits in (2, 4):
                mode, interval = {"precision": bits}, blockfloat.passes(bits, bits)
                built = sum(array.cycles(parameters, *each, mode, mode) for each in sizes)
                other = sum(weights_stationary(parameters, *each, interval) for each in sizes)
                if gemm == "weight-gradient":
                    other = built
                cells += [built, other]
            totals = [total + each for total, each in zip(totals, cells)]
            lines.append(f"| {name}, {rest[-1]} | {SHOWN[gemm]} | " + " | ".join(f"{each:,}" for each in cells) + " |")
        lines.append("| | all | " + " | ".join(f"**{each:,}**" for each in totals) + " |")
    return "\n".join(lines)


def peak_table():
    """Return the table of 64 x 64 x 64: cycles, and the part of the peak, of a product alone and of one in a row."""
    lines = ["| array | precisions | peak, MACs a cycle | cycles alone | of the peak | cycles in a row | of the peak |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for label, settings, modes in (
            ("BFP 4 x 4", {}, [(2, 2), (2, 4), (4, 4)]),
            ("BFP 4 x 4, one converter", {"converters": 1}, [(2, 2), (4, 4)]),
            ("BFP 8 x 8", {"rows": 8, "columns": 8}, [(2, 2), (4, 4)]), ("LNS 4 x 4", {"system": "lns"}, [None]),
            ("FP16 4 x 4", {"system": "float"}, [None])):
        parameters = ArrayParameters.from_json(settings)
        for mode in modes:
            a, b = ({"precision": each} for each in mode) if mode else ({}, {})
            interval = parameters.interval(a, b)
            ends = array.schedule(parameters, [(64, 64, 64, interval)] * 4)
            peak = array.peak(parameters, a, b)
            used = [64**3 / peak / each for each in (ends[0], (ends[3] - ends[0]) / 3)]
            lines.append(f"| {label} | {' and '.join(map(str, mode)) if mode else '8' if 'LNS' in label else '16'} | "
                         f"{peak:g} | {ends[0]:,} | {used[0]:.1%} | {(ends[3] - ends[0]) / 3:,.0f} | {used[1]:.1%} |")
    return "\n".join(lines)


def cost(label):
    """Return the row of an array that is synthesised, placed and routed."""
    settings, device, seeds, placer = CASES[label]
    unit = catalog.find("array")
    parameters = unit.configure(settings)
    start = time.monotonic()
    found = flow.synthesise(unit.verilog(parameters), unit.module_name(parameters),
                            verilog.ports_of(unit.component(parameters)), "ecp5", seeds=seeds, device=device,
                            placer=placer)
    print(f"{label}: {time.monotonic() - start:.0f} s", flush=True)
    macs = unit.chunk_macs(parameters) or unit.macs(parameters)
    speeds = found["fmax_mhz"] or dict.fromkeys(SPEEDS, 0)
    return {"label": label, "device": device, "macs": f"{macs:g}", "seeds": seeds,
            **{name: found[name] for name in COUNTS}, **{name: f"{speeds[name]:.1f}" for name in SPEEDS}}


def read():
    """Return the rows of the CSV file, by label."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def cost_table():
    """Return the table of costs."""
    lines = ["| array | ECP5 | LUT | FF | DSP | block RAM | Fmax, MHz (seeds) | MACs a cycle | "
             "million MACs/s per 1,000 LUTs |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for label, row in read().items():
        median = float(row["median"])
        speed = f"{row['median']} ({row['min']} to {row['max']}; {row['seeds']})" if int(row["seeds"]) > 1 else (
            f"{row['median']} (1)")
        rate = f"{float(row['macs']) * median * 1000 / int(row['lut']):,.0f}"
        if not median:
            speed = rate = "not placed"
        lines.append(f"| {label} | {row['device'][:-1]}F | {int(row['lut']):,} | {int(row['ff']):,} | {row['dsp']} | "
                     f"{row['bram']} | {speed} | {row['macs']} | {rate} |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by the names of their marks."""
    return {"peak": peak_table(), "steps": cycles_table(ArrayParameters()), "cost": cost_table()}


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cost", nargs="*", metavar="LABEL", help="synthesise these arrays, or all")
    options = parser.parse_args()
    if options.cost is not None:
        for label in options.cost or CASES:
            rows = read() | {label: cost(label)}
            kept = [rows[each] for each in CASES if each in rows]
            experiments.save(RESULTS, FIELDS, [[row[field] for field in FIELDS] for row in kept])
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
