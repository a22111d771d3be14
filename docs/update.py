"""What narrow weights do to training under each update: trains; writes data/update.csv, update.svg and tables.

`make experiments` runs it whole. ``python docs/update.py CASE ...`` runs these cases again and keeps the other rows;
``python docs/update.py --tables`` trains nothing. Tables and plot are made from the CSV file alone.
"""

import statistics
import sys

import experiments
import matplotlib
from experiments import HERE, SEEDS, values
from matplotlib.figure import Figure
from narrowgauge.golden import recipes
from narrowgauge.golden.formats import Float

RESULTS, PAGE, PLOT = HERE / "data" / "update.csv", HERE / "update.md", HERE / "update.svg"

# Data, its first examples (training, test), and the settings of `network.train`, for each of the learning rates.
RUNS = {
    "digits": ("digits", (None, None), {"model": "mlp", "hidden": (64,), "batch": 32, "epochs": 20}),
    "fashion": ("fashion-mnist", (3000, 2000), {"model": "mlp", "hidden": (32,), "batch": 50, "epochs": 5}),
}
RATES = (0.1, 0.03, 0.01, 0.003, 0.001)
CASES = {f"{name}-{lr}": (data, examples, settings | {"lr": lr})
         for name, (data, examples, settings) in RUNS.items() for lr in RATES}
ABLATED, FEW = "digits-0.01", SEEDS[:3]

METHODS = ("plain", "stochastic", "kahan", "grow")
MANTISSAS = (5, 4, 3, 2)  # beside those of bf16


def _narrow(method, mantissa=7, **settings):
    return {"parameters": Float(8, mantissa), "update": method} | settings


# How parameters are kept, in the recipe `fp32`: everywhere, and in the ablated case.
EVERYWHERE = {"fp32": {}} | {method: _narrow(method) for method in METHODS}
ELSEWHERE = {f"{method}-m{mantissa}": _narrow(method, mantissa) for mantissa in MANTISSAS for method in METHODS}
ELSEWHERE |= {f"stochastic16-m{mantissa}": _narrow("stochastic", mantissa, random_bits=16)
              for mantissa in (7, *MANTISSAS)}
VARIANTS = EVERYWHERE | ELSEWHERE
JOBS = [(case, variant, seed) for case in CASES for variant in VARIANTS for seed in SEEDS
        if variant in EVERYWHERE or seed in FEW and case == ABLATED]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "digest")
COLOURS = dict(zip(METHODS, ("#888888", "#e0762d", "#3f87d6", "#3a9a5b"), strict=True))


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    data, examples, settings = CASES[case]
    recipe = recipes.keep(recipes.make("fp32"), **VARIANTS[variant])
    result = experiments.told(experiments.network.train(
        recipe, experiments.datasets.load(data).first(*examples), seed=seed, measure_every=settings["epochs"],
        **settings))
    last = result.history[-1]
    return dict(zip(FIELDS, (case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}",
                             f"{last.loss:.4g}", result.digest), strict=True))


def table(rows, name):
    """Return the Markdown table of one data set: a row for each learning rate, accuracies and differences."""
    lines = ["| learning rate | FP32, % | " + " | ".join(METHODS) + " |", "| --- " + "| ---: " * 5 + "|"]
    for lr in RATES:
        case = f"{name}-{lr}"
        cells = [experiments.spread(values(rows, case, "fp32", "test").values())]
        cells += [experiments.accuracy(rows, case, method)[1] for method in METHODS]
        lines.append(f"| {lr} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def formats_table(rows):
    """Return the Markdown table of the ablated case: a row for each mantissa, differences from FP32."""
    rows = {job: row for job, row in rows.items() if job[2] in FEW}
    shown = ("plain", "stochastic", "stochastic16", "kahan", "grow")
    lines = ["| mantissa | bits of a number | plain | stochastic, 8 random bits | stochastic, 16 | kahan | grow |",
             "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for mantissa in (7, *MANTISSAS):
        cells = [experiments.accuracy(rows, ABLATED, method if mantissa == 7 and method in METHODS else
                                      f"{method}-m{mantissa}")[1] for method in shown]
        lines.append(f"| {mantissa} | {9 + mantissa} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by the names of their marks."""
    rows = experiments.read(RESULTS)
    return {"digits": table(rows, "digits"), "fashion": table(rows, "fashion"), "formats": formats_table(rows)}


def plot(rows):
    """Write the plot: for each data set the differences from FP32 against the learning rate."""
    matplotlib.rcParams.update({"svg.hashsalt": PLOT.stem, "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(9, 3), layout="constrained")
    for place, name in zip(figure.subplots(1, len(RUNS)), RUNS):
        place.axhline(0, color="black", linewidth=0.8)
        for method, colour in COLOURS.items():
            gaps = [[test - values(rows, f"{name}-{lr}", "fp32", "test")[seed] for seed, test in
                     values(rows, f"{name}-{lr}", method, "test").items()] for lr in RATES]
            place.plot(RATES, [statistics.mean(each) for each in gaps], color=colour, label=method)
            for lr, each in zip(RATES, gaps):
                place.plot([lr] * len(each), each, "o", color=colour, markersize=3, alpha=0.5)
        place.set(title=name, xscale="log", xlabel="learning rate", ylabel="points from FP32")
        place.set_xticks(RATES, [str(lr) for lr in RATES])
        place.minorticks_off()
        place.legend()
    experiments.save_figure(PLOT, figure)


def main():
    """Run what the command line asks for."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS)
    plot(experiments.read(RESULTS))
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
