# amaranth: UnusedElaboratable=no
"""Trains in simulated cores, and places a core: the tables of units/core.md that are of the circuit.

``python docs/core_rtl.py --train [LABEL ...]`` trains in golden and in Verilog, minutes for each row: digits for 20
epochs, Fashion-MNIST for one. It ends with an error where the digests differ. ``--cost [LABEL ...]`` synthesises,
places and routes, which takes hours. ``--parts`` counts the LUTs of a core's parts. They write data/core-rtl.csv,
data/core-cost.csv or data/core-parts.csv, and then the tables.
"""

import argparse
import csv
import io
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from experiments import HERE, fill, save
from narrowgauge import catalog, cli
from narrowgauge.base.files import cache_folder
from narrowgauge.catalog.core import DIGITS, NARROW
from narrowgauge.cli.parser import parser
from narrowgauge.cli.runs import core_of, run_of
from narrowgauge.golden import core
from narrowgauge.hw import verilog
from narrowgauge.synth import flow, tools
from narrowgauge.synth.targets import TARGETS

PAGE, RUNS, COSTS = HERE / "units" / "core.md", HERE / "data" / "core-rtl.csv", HERE / "data" / "core-cost.csv"
PARTS = HERE / "data" / "core-parts.csv"
USUAL = ["--recipe", "bfp", "--work", "bf16", "--rtl", "--json", "-"]
# Cores of 4 x 4 cells of 4 bits: with the small lanes, and with those that compensate and grow.
WIDE = ["--core", "mantissa=4", "--core", "lanes=8", "--core", "adders=8", "--core", "stream=8",
        "--core", "program=1024", "--parts", "2", "--blocks", "2"]
BARE, KEPT = ([*WIDE, "--core", f"updates={json.dumps(updates)}"]
              for updates in (["plain", "stochastic"], ["kahan", "grow"]))
TWO_BITS, STOCHASTIC = ["--set", "mantissa=2"], ["--update", "stochastic"]
FASHION = [*BARE, "--data", "fashion-mnist", "--examples", "4000,1000", "--epochs", "1"]
# Cores whose precisions may change: with cells of 4 bits for FAST, of 8 bits for CPT.
FAST = [*BARE, "--core", 'policies=["constant", "adaptive"]', "--core", "layers=2"]
CPT = [*(each.replace("mantissa=4", "mantissa=8") for each in BARE), "--core", 'policies=["constant", "cyclic"]']
# A core with room for both convolutional networks. An epoch of Fashion-MNIST has 20 steps.
CNN = [*BARE, "--blocks", "1", "--model", "cnn", "--core", "activations=114688", "--core", "errors=65536",
       "--core", "weights=11008"]
FASHION_CNN = [*CNN, "--data", "fashion-mnist", "--examples", "640,100"]
# Cores of logarithmic numbers: a large one, and small ones in which neither the array nor the lanes multiply.
LOGS = ["--recipe", "lns-madam", "--core", "lanes=4", "--core", "stream=8"]
BARE_LOGS = ["--recipe", "lns-madam", "--set", "lanes=4", "--set", "constants=1", "--set", "accumulator=24", "--set",
             "lsb=13", "--lr", "0.0625", "--momentum", "0.5", *(word for setting in (
                 "converters=1", "merged=true", "sums=2", "buffer=1024", "rates=powers", "adders=1", "stream=1")
                 for word in ("--core", setting))]
# Options of each row.
ROWS = {
    "digits, 4 bits, plain": BARE,
    "digits, 4 bits, stochastic": [*BARE, *STOCHASTIC],
    "digits, 4 bits, Kahan": [*KEPT, "--update", "kahan"],
    "digits, 4 bits, grow": [*KEPT, "--update", "grow"],
    "digits, 2 bits, plain": [*BARE, *TWO_BITS],
    "digits, 2 bits, stochastic": [*BARE, *TWO_BITS, *STOCHASTIC],
    "digits, 2 bits, plain, 16 lanes and adders, 4 logits": [
        *(each.replace("lanes=8", "lanes=16").replace("adders=8", "adders=16") for each in BARE), *TWO_BITS,
        "--core", "head=4"],
    "Fashion-MNIST, 4 bits, plain": FASHION,
    "Fashion-MNIST, 2 bits, stochastic": [*FASHION, *TWO_BITS, *STOCHASTIC],
    "digits, 4 bits, in a core for FAST": FAST,
    "digits, FAST": [*FAST, "--recipe", "fast"],
    "digits, 8 bits, in a core for CPT": [*CPT, "--set", "mantissa=8"],
    "digits, CPT": [*CPT, "--recipe", "cpt"],
    "digits, convolutional, 4 bits, plain": [*CNN, "--epochs", "1"],
    "digits, convolutional, 2 bits, plain": [*CNN, *TWO_BITS, "--epochs", "1"],
    "Fashion-MNIST, convolutional, 4 bits, plain": [*FASHION_CNN, "--epochs", "1"],
    "Fashion-MNIST, convolutional, 2 bits, plain": [*FASHION_CNN, *TWO_BITS, "--epochs", "1"],
    "digits, logarithmic, 4 lanes": LOGS,
    "digits, logarithmic, no multipliers, 2 x 2, 2 lanes": [
        *BARE_LOGS, "--core", "rows=2", "--core", "columns=2", "--core", "lanes=2"],
    "digits, logarithmic, no multipliers, 1 x 1, 64-16-10 in batches of 16": [
        *BARE_LOGS, "--core", "rows=1", "--core", "columns=1", "--hidden", "16", "--batch", "16"],
}
# For 64-16-10 in batches of 16. Neither the array nor the lanes multiply.
LEAST = {"system": "lns", "system_lanes": 4, "sum_bits": 24, "lsb": 13, "constants": 1, "work": "bf16",
         "accumulator": "bf16", "madam": {}, "rates": "powers", "updates": ["plain"], "rows": 1, "columns": 1,
         "sums": 2, "converters": 1, "merged": True, "buffer": 1024, "adders": 1, "stream": 1,
         "activations": 2560, "errors": 512, "weights": 1536, "labels": 512}
# Settings, device.
CORES = {
    "2 x 2, one converter, one memory, for 64-32-10": (NARROW, "25k"),
    "4 x 4, two converters, 4 stochastic lanes, for 784-32-10": (
        DIGITS | {"lanes": 4, "updates": ["stochastic"], "decays": False, "activations": 65536, "weights": 32768},
        "85k"),
    "1 x 1, logarithmic, no multipliers, one memory, for 64-16-10 in batches of 16": (LEAST, "25k"),
}
TOLD = ("label", "epochs", "test", "steps", "cycles", "model", "utilisation", "evaluation", "digest",
        "identical")
COUNTS, SPEEDS = ("lut", "ff", "dsp", "bram"), ("min", "median", "max")


def run(options):
    """Return the JSON of a training run."""
    told = io.StringIO()
    with redirect_stdout(told):
        status = cli.main(["train", *USUAL, *options])
    if status:
        raise SystemExit(f"train {' '.join(options)} ended with {status}")
    return json.loads(told.getvalue())


def modelled(options):
    """Return the cycles that golden's model gives the training of a run; none where tensors choose their precisions."""
    options = parser().parse_args(["train", *USUAL, *options])
    parameters, run, _ = core_of(options, *run_of(options))
    policies = vars(run.recipe.policies).values() if run.recipe.policies else ()
    if any(policy.describe()["policy"] == "adaptive" for policy in policies):
        return ""
    return core.training_cycles(parameters, run, options.parts, options.blocks)["training"]


def kept(path, key="label"):
    """Return the rows of a CSV file by label."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def train(labels, epochs):
    """Train, and write the rows."""
    for label in labels:
        found, model = (each(["--epochs", str(epochs), *ROWS[label]]) for each in (run, modelled))
        rtl, rows = found["rtl"], kept(RUNS)
        rows[label] = dict(zip(TOLD, (
            label, found["epochs"], found["accuracy"]["test"], rtl["steps"], rtl["cycles"], model,
            rtl["utilisation"], rtl["evaluation"]["cycles"], found["digest"][:12], rtl["identical"])))
        save(RUNS, TOLD, [[rows[each][name] for name in TOLD] for each in ROWS if each in rows])
        print(rows[label], file=sys.stderr, flush=True)


def place(labels, seeds):
    """Synthesise, place and route, and write the rows."""
    unit = catalog.find("trainer")
    for label in labels:
        settings, device = CORES[label]
        p = unit.configure(settings)
        found = flow.synthesise(unit.verilog(p), unit.module_name(p), verilog.ports_of(unit.component(p)), "ecp5",
                                seeds=seeds, device=device)
        rows = kept(COSTS)
        fields = ("label", "device", *COUNTS, *SPEEDS, "seeds")
        rows[label] = dict(zip(fields, (label, device, *(found[name] for name in COUNTS),
                                        *(found["fmax_mhz"][name] for name in SPEEDS), seeds)))
        save(COSTS, fields, [[rows[each][name] for name in fields] for each in CORES if each in rows])
        print(rows[label], file=sys.stderr, flush=True)


def measure_parts():
    """Synthesise the larger core part by part, without flattening, and write the LUTs of its parts."""
    label = "4 x 4, two converters, 4 stochastic lanes, for 784-32-10"
    settings, _ = CORES[label]
    unit = catalog.find("trainer")
    p = unit.configure(settings)
    top = unit.module_name(p)
    with tempfile.TemporaryDirectory(dir=cache_folder("synth")) as folder:
        work = Path(folder)
        tools.write(work, {"unit.v": unit.verilog(p)})
        tools.yosys(work, f"read_verilog -D NARROWGAUGE_ECP5 unit.v\n{TARGETS['ecp5'].synth} -noflatten -top {top}\n"
                          "tee -q -o unit.stat stat -json\n")
        modules = json.loads((work / "unit.stat").read_text())["modules"]
    # A carry cell has two LUTs, and a small memory's cell four.
    sizes = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}

    def luts(name, whole=True):
        cells = modules[name].get("num_cells_by_type", {})
        return sum(count * (sizes.get(kind, 0) or (luts("\\" + kind) if whole and "\\" + kind in modules else 0))
                   for kind, count in cells.items())

    own = modules["\\" + top]["num_cells_by_type"]
    found = {kind.removeprefix(f"{top}__"): luts("\\" + kind) for kind in own if "\\" + kind in modules}
    found["ways between them"] = luts("\\" + top, whole=False)
    rows = sorted(found.items(), key=lambda row: -row[1])
    save(PARTS, ("label", "part", "lut"), [[label, *row] for row in rows])


def parts_table():
    """Return the table of the parts of a core."""
    rows = kept(PARTS, "part").values()
    total = sum(int(row["lut"]) for row in rows)
    lines = ["| part | LUT | |", "| --- | ---: | ---: |"]
    return "\n".join([*lines, *(f"| {row['part'].replace('_', ' ')} | {int(row['lut']):,} | "
                                f"{100 * int(row['lut']) / total:.1f} % |" for row in rows),
                      f"| all | {total:,} | |"])


def runs_table():
    """Return the table of training runs."""
    lines = ["| run | epochs | test accuracy | cycles of a step | by the model | share of the peak | digest, twice |",
             "| --- | ---: | ---: | ---: | ---: | ---: | --- |"]
    for row in kept(RUNS).values():
        cycles, steps = int(row["cycles"]), int(row["steps"])
        model = f"{int(row['model']) / steps:,.0f} ({100 * (int(row['model']) / cycles - 1):+.2f} %)" if (
            row["model"]) else ""
        share = f"{100 * float(row['utilisation']):.1f} %" if row["utilisation"] else ""
        lines.append(f"| {row['label']} | {row['epochs']} | {float(row['test']):.4f} | {cycles / steps:,.0f} | "
                     f"{model} | {share} | `{row['digest']}` |")
    return "\n".join(lines)


def costs_table():
    """Return the table of placed cores."""
    lines = ["| core, batch 32 | ECP5 | LUT | FF | DSP | block RAM | Fmax, MHz (seeds) |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in kept(COSTS).values():
        speeds = f"{float(row['median']):.1f} ({float(row['min']):.1f} to {float(row['max']):.1f}; {row['seeds']})"
        lines.append(f"| {row['label']} | {row['device'].upper().replace('K', 'F')} | "
                     + " | ".join(f"{int(row[name]):,}" for name in COUNTS) + f" | {speeds} |")
    return "\n".join(lines)


def main():
    """Do what the options ask for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", nargs="*", choices=[*ROWS, []], metavar="LABEL")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--cost", nargs="*", choices=[*CORES, []], metavar="LABEL")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.train is not None:
        train(options.train or ROWS, options.epochs)
    if options.cost is not None:
        place(options.cost or CORES, options.seeds)
    if options.parts:
        measure_parts()
    fill(PAGE, {"runs": runs_table(), "placed": costs_table(), "parts": parts_table()})


if __name__ == "__main__":
    sys.exit(main())
