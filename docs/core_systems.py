# amaranth: UnusedElaboratable=no
"""Compares the number systems in a core: the tables of units/core.md that have a row for each of them.

``python docs/core_systems.py`` asks golden's cycle model, in a minute. The model tells the cycles of a step,
of other ways to skip a step, and of the search for the scales of convolutions. ``--train [LABEL ...]`` also
trains in golden and in Verilog, minutes for each row, and ends with an error where the digests differ. ``--cost [LABEL
...]`` synthesises, likewise, and places nothing. They write data/core-systems.csv, data/core-loss.csv and
data/core-searches.csv, and then the tables. A system that the circuit refuses has no row.
"""

import argparse
import csv
import dataclasses
import sys
from unittest import mock

from core import NETWORKS
from core_rtl import kept
from core_rtl import run as trained
from experiments import HERE, fill, save
from narrowgauge import catalog
from narrowgauge.cli.parser import parser
from narrowgauge.cli.runs import core_of, run_of
from narrowgauge.golden import core
from narrowgauge.golden.core import compiler
from narrowgauge.golden.core.timing import products
from narrowgauge.golden.core.timing.work import modes_of
from narrowgauge.hw import verilog
from narrowgauge.synth import flow

PAGE, RUNS, LOSSES = HERE / "units" / "core.md", HERE / "data" / "core-systems.csv", HERE / "data" / "core-loss.csv"
SEARCHES = HERE / "data" / "core-searches.csv"
# A core of 2 x 2 cells with one converter and one memory, for 64-32-10 in batches of 32.
CORE = ["--core", "rows=2", "--core", "columns=2", "--core", "converters=1", "--core", "merged=true"]
SHORT = ["--examples", "300,100", "--epochs", "1", *CORE]
# Options of `train` by label.
ROWS = {
    "BFP, 2 bits": ["--recipe", "bfp", "--work", "bf16", "--set", "mantissa=2"],
    "BFP, 4 bits": ["--recipe", "bfp", "--work", "bf16"],
    "BFP, 8 bits": ["--recipe", "bfp", "--work", "bf16", "--set", "mantissa=8"],
    "MX, FP8": ["--recipe", "mx", "--work", "bf16"],
    "MX, FP4 and FP8": ["--recipe", "mx", "--work", "bf16", "--set", "element=fp4-e2m1"],
    "INT8": ["--recipe", "system", "--work", "bf16", "--set", "system=int8"],
    "LNS-Madam": ["--recipe", "lns-madam", "--work", "bf16"],
    "FP8": ["--recipe", "system", "--work", "bf16", "--set", "system=fp8"],
    "bf16": ["--recipe", "system", "--work", "bf16", "--set", "system=bf16"],
    "fp16": ["--recipe", "fp16", "--work", "fp16", "--softmax-bits", "9", "--set", "chunk=null"],
    "fp16, in chunks": ["--recipe", "fp16", "--work", "fp16", "--softmax-bits", "9"],
    "fp16, in chunks, with a loss scale": [
        "--recipe", "fp16", "--work", "fp16", "--softmax-bits", "9", "--set", "loss_scale=1024"],
}
FIELDS = ("label", "peak", "cycles", "model", "utilisation", "ceiling", "counted", "test", "digest", "lut",
          "ff", "dsp", "bram")
COUNTS = ("lut", "ff", "dsp", "bram")
# Of the loss scale's table: what may keep a step's moves back, and planes of M for it.
WAYS = {"old numbers kept in M": 2, "updates wait for the verdict": 1, "weight gradients twice": 0}


def configured(label):
    """Return the parameters of a row's core, and its run; None where a core cannot run it."""
    options = parser().parse_args(["train", "--rtl", *ROWS[label], *SHORT])
    try:
        parameters, run, _ = core_of(options, *run_of(options))
        catalog.find("trainer").component(parameters)
        core.compiled(parameters, run)
    except ValueError as error:
        print(f"{label}: {error}", file=sys.stderr)
        return None
    return parameters, run


def model(label, row):
    """Put what golden's model tells into a row: of a step, and of the run that `train` makes."""
    parameters, run = configured(label)
    step = core.step_cycles(parameters, run)
    return row | {"peak": round(step.macs / step.utilisation / step.cycles, 2), "cycles": round(step.cycles),
                  "utilisation": round(step.utilisation, 4), "ceiling": round(step.ceiling, 4),
                  "model": core.training_cycles(parameters, run)["training"]}


def train(label, row):
    """Train in golden and in Verilog."""
    found = trained([*ROWS[label], *SHORT])
    return row | {"counted": found["rtl"]["cycles"], "test": found["accuracy"]["test"],
                  "digest": found["digest"][:12]}


def cost(label, row):
    """Synthesise, and pack."""
    parameters, unit = configured(label)[0], catalog.find("trainer")
    found = flow.synthesise(unit.verilog(parameters), unit.module_name(parameters),
                            verilog.ports_of(unit.component(parameters)), "ecp5", seeds=0, device="85k")
    return row | {name: found[name] for name in COUNTS}


def update(labels, measure):
    """Measure rows, and write each when it is there."""
    for label in labels:
        if configured(label) is None:
            continue
        rows = kept(RUNS)
        rows[label] = measure(label, dict.fromkeys(FIELDS, "") | rows.get(label, {}) | {"label": label})
        save(RUNS, FIELDS, [[rows[each][name] for name in FIELDS] for each in ROWS if each in rows])
        print(rows[label], file=sys.stderr, flush=True)


def losses():
    """Write what a step with a loss scale takes in each of the ways, and the bits of W and M."""
    def twice(self, *block):
        move(self, *block)
        move(self, *block)

    move, found = compiler._Compiler.move, []
    usual, run = configured("fp16, in chunks, with a loss scale")
    for cells, lanes in ((2, 1), (2, 8), (4, 1), (4, 8)):
        parameters = dataclasses.replace(usual, rows=cells, columns=cells, lanes=lanes)
        once = core.step_cycles(parameters, run).cycles
        with mock.patch.object(compiler._Compiler, "move", twice):
            again = core.step_cycles(parameters, run).cycles
        words, bits = parameters.weights, parameters.stored.width
        for way, planes in WAYS.items():
            cycles = {"old numbers kept in M": once, "updates wait for the verdict": once + -(-words // lanes),
                      "weight gradients twice": again}[way]
            found.append([f"{cells} x {cells}", lanes, way, round(cycles), (2 + planes) * words * bits])
    save(LOSSES, ("cells", "lanes", "way", "cycles", "bits"), found)


def searches():
    """Write what a step takes with convolutions, with a search for scales in whole tensors, without, and in patches.

    A search reads 16 elements in a cycle. Patches have more elements than their tensors.
    """
    def given(products, issue, at):
        yield from ()
        return at

    found = []
    for label in ("INT8", "LNS-Madam"):
        for name in ("digits CNN, 32", "Fashion-MNIST CNN, 32"):
            options = parser().parse_args(["train", "--rtl", *ROWS[label], "--batch", "32"])
            layers, batch = NETWORKS[name]
            run = core.Run(run_of(options)[0].with_head(10), layers, batch, batch=batch)
            parameters = core.trainer_of(run, rows=2, columns=2, converters=2, program=4096)
            views = [issue.views[side] for issue in core.Sequencer(16, core.compiled(parameters, run)).issues()
                     if issue.instruction.name == "gemm" and not issue.registers["measured"]
                     for side, mode in zip("ab", modes_of(parameters, issue)) if mode is None]
            more = sum(view.rows * -(-view.columns // 16) - view.tensor.rows * -(-view.tensor.columns // 16)
                       for view in views)
            cycles = core.step_cycles(parameters, run).cycles
            with mock.patch.object(products, "_search", given):
                least = core.step_cycles(parameters, run).cycles
            found.append([label, name, *map(round, (least, cycles, cycles + more))])
    save(SEARCHES, ("label", "network", "given", "tensors", "patches"), found)


def searches_table():
    """Return the table of searches for scales."""
    lines = ["| number system | network | cycles of a step, were the scales known | search of whole tensors "
             "| search of patches |", "| --- | --- | ---: | ---: | ---: |"]
    with SEARCHES.open(newline="") as file:
        for row in csv.DictReader(file):
            least = int(row["given"])
            lines.append(f"| {row['label']} | {row['network']} | {least:,} | " + " | ".join(
                f"{int(row[name]):,} (+{100 * (int(row[name]) / least - 1):.0f} %)" for name in ("tensors", "patches"))
                + " |")
    return "\n".join(lines)


def losses_table():
    """Return the table of ways to skip a step."""
    with LOSSES.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| cells | lanes | " + " | ".join(f"{way}: cycles of a step" for way in WAYS) + " |",
             "| --- | ---: |" + " ---: |" * len(WAYS)]
    for at in range(0, len(rows), len(WAYS)):
        part = rows[at:at + len(WAYS)]
        least = min(int(row["cycles"]) for row in part)
        lines.append(f"| {part[0]['cells']} | {part[0]['lanes']} | " + " | ".join(
            f"{int(row['cycles']):,} (+{100 * (int(row['cycles']) / least - 1):.1f} %)" for row in part) + " |")
    lines.append("| bits of W and M | | " + " | ".join(f"{int(row['bits']):,}" for row in rows[:len(WAYS)]) + " |")
    return "\n".join(lines)


def systems_table():
    """Return the table of the number systems. What was not measured of any has no column."""
    columns = [["number system"], ["products a cycle at the peak"], ["cycles of a step, by the model"],
               ["share of the peak"], ["cells that never wait"], ["counted cycles of the run, and the model's"],
               ["digest, twice"], ["LUT"], ["FF"], ["DSP"], ["block RAM"]]
    for row in kept(RUNS).values():
        counted = digest = ""
        if row["counted"]:
            off = 100 * (int(row["model"]) / int(row["counted"]) - 1)
            counted, digest = f"{int(row['counted']):,} ({off:+.2f} %)", f"`{row['digest']}`"
        shares = [f"{100 * float(row[name]):.1f} %" for name in ("utilisation", "ceiling")]
        counts = [f"{int(row[name]):,}" if row[name] else "" for name in COUNTS]
        for column, cell in zip(columns, (row["label"], f"{float(row['peak']):g}", f"{int(row['cycles']):,}", *shares,
                                          counted, digest, *counts)):
            column.append(cell)
    lines = ["| " + " | ".join(cells) + " |" for cells in zip(*(each for each in columns if any(each[1:])))]
    count = lines[0].count("|") - 1
    return "\n".join([lines[0], "| --- |" + " ---: |" * (count - 1), *lines[1:]])


def main():
    """Do what the options ask for, and write the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("--train", "--cost"):
        options.add_argument(name, nargs="*", choices=[*ROWS, []], metavar="LABEL")
    options = options.parse_args()
    for labels, measure in ((ROWS, model), (options.train, train), (options.cost, cost)):
        if labels is not None:
            update(labels or ROWS, measure)
    losses()
    searches()
    fill(PAGE, {"systems": systems_table(), "loss": losses_table(), "searches": searches_table()})


if __name__ == "__main__":
    sys.exit(main())
