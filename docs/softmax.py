"""What narrow errors of the softmax head do to training: trains; writes data/softmax.csv, softmax.svg and page tables.

`make experiments` runs it whole. ``python docs/softmax.py CASE ...`` runs these cases again and keeps the other rows;
``python docs/softmax.py --tables`` trains nothing. Tables and plot are made from the CSV file alone.
"""

import statistics
import sys
from dataclasses import replace

import experiments
import matplotlib
from experiments import BLUE, HERE, ORANGE, values
from matplotlib.figure import Figure
from narrowgauge.golden import datasets, network, recipes
from narrowgauge.golden.rounding import KINDS
from narrowgauge.golden.softmax import SoftmaxParameters, guideline

RESULTS, PAGE, PLOT = HERE / "data" / "softmax.csv", HERE / "softmax.md", HERE / "softmax.svg"
SEEDS = experiments.SEEDS[:3]

# Data, its first examples (training, test), and the settings of `network.train`.
CASES = {
    "digits": ("digits", (None, None), {"model": "mlp", "hidden": (32,), "batch": 32, "lr": 0.1, "epochs": 12}),
    "letter": ("letter", (4000, 2000), {"model": "mlp", "hidden": (48,), "batch": 32, "lr": 0.1, "epochs": 10}),
    "clusters-128": ("clusters-128", (4096, 2048),
                     {"model": "mlp", "hidden": (48,), "batch": 32, "lr": 0.1, "epochs": 6}),
}
CLASSES = {"digits": 10, "letter": 26, "clusters-128": 128}
MOST = {"digits": 8, "letter": 10, "clusters-128": 10}
COLOURS = dict(zip(KINDS, (BLUE, ORANGE, "#5a9e4b"), strict=True))


def variants(case):
    """Return the names of a case's variants: FP32, 16 bits, and bits by rounding."""
    return ["fp32", "nearest-16", *(f"{kind}-{bits}" for kind in KINDS for bits in range(2, MOST[case] + 1))]


JOBS = [(case, variant, seed) for case in CASES for variant in variants(case) for seed in SEEDS]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "digest")


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    name, examples, settings = CASES[case]
    data, recipe = datasets.load(name).first(*examples), recipes.make("fp32")
    if variant != "fp32":
        kind, bits = variant.split("-")
        recipe = replace(recipe, softmax=SoftmaxParameters(classes=data.classes, bits=int(bits), rounding=kind))
    result = experiments.told(network.train(recipe, data, seed=seed, measure_every=settings["epochs"], **settings))
    last = result.history[-1]
    return dict(zip(FIELDS, (case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}",
                             f"{last.loss:.4g}", result.digest), strict=True))


def table(rows, case):
    """Return the Markdown table of a case: mean test accuracy and its range, by bits and rounding."""
    lines = [f"| bits | {' | '.join(KINDS)} |", "| ---: |" + " ---: |" * len(KINDS)]
    for bits in range(2, MOST[case] + 1):
        cells = []
        for kind in KINDS:
            cell = experiments.spread(values(rows, case, f"{kind}-{bits}", "test").values())
            cells.append(f"**{cell}**" if bits == guideline(CLASSES[case], kind) else cell)
        lines.append(f"| {bits} | {' | '.join(cells)} |")
    wide, base = (experiments.spread(values(rows, case, each, "test").values()) for each in ("nearest-16", "fp32"))
    return "\n".join([*lines, f"| 16 | {wide} | | |", f"| FP32 | {base} | | |"])


def tables():
    """Return the page's tables, by the names of their marks."""
    rows = experiments.read(RESULTS)
    return {"settings": experiments.settings_table(CASES), **{case: table(rows, case) for case in CASES}}


def plot():
    """Write the plot: accuracy by bits for each rounding, with the guidelines drawn in."""
    rows = experiments.read(RESULTS)
    matplotlib.rcParams.update({"svg.hashsalt": PLOT.stem, "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for place, case in zip(figure.subplots(1, len(CASES)), CASES):
        place.axhline(statistics.mean(values(rows, case, "fp32", "test").values()), color="#888888", linewidth=1)
        for kind in KINDS:
            bits = range(2, MOST[case] + 1)
            found = [list(values(rows, case, f"{kind}-{each}", "test").values()) for each in bits]
            place.plot(bits, [statistics.mean(each) for each in found], "o-", color=COLOURS[kind], markersize=3,
                       linewidth=1.2, label=kind)
            place.fill_between(bits, [min(each) for each in found], [max(each) for each in found], color=COLOURS[kind],
                               alpha=0.2, linewidth=0)
            place.axvline(guideline(CLASSES[case], kind), color=COLOURS[kind], linestyle=":", linewidth=1.2)
        place.set(title=f"{case}, {CLASSES[case]} classes", xlabel="bits of an error", ylim=(0, 100),
                  xticks=range(2, MOST[case] + 1))
    figure.axes[0].set_ylabel("test accuracy, %")
    figure.axes[0].legend(loc="lower right", fontsize=8)
    experiments.save_figure(PLOT, figure)


def main():
    """Run what the command line asks for."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS)
    plot()
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
