"""What a narrow work format does to training: trains; writes data/work.csv and the tables of work.md.

`make experiments` runs it whole. ``python docs/work.py CASE ...`` runs these cases again and keeps the other rows;
``python docs/work.py --tables`` trains nothing. Tables are made from the CSV file alone.
"""

import sys

import experiments
from experiments import HERE, SEEDS, accuracy
from narrowgauge.golden import recipes

RESULTS, PAGE = HERE / "data" / "work.csv", HERE / "work.md"

# Data, its first examples (training, test), and the settings of `network.train`.
MLP, CNN = {"model": "mlp", "hidden": (32,)}, {"model": "cnn", "hidden": (8, 16)}
CASES = {
    "digits": ("digits", (None, None), MLP | {"batch": 32, "lr": 0.1, "epochs": 20}),
    "digits, CNN": ("digits", (None, None), CNN | {"batch": 32, "lr": 0.1, "epochs": 5}),
    "Fashion-MNIST": ("fashion-mnist", (3000, 2000), MLP | {"batch": 50, "lr": 0.02, "epochs": 5}),
    "Fashion-MNIST, CNN": ("fashion-mnist", (1000, 1000), CNN | {"batch": 50, "lr": 0.02, "epochs": 4}),
}
# Recipe, work format, update.
VARIANTS = {
    "fp32": ("fp32", None, "plain"),
    "bf16": ("fp32", "bf16", "plain"),
    "bf16, stochastic": ("fp32", "bf16", "stochastic"),
    "bf16, kahan": ("fp32", "bf16", "kahan"),
    "bfp": ("bfp", None, "plain"),
    "bfp in bf16, kahan": ("bfp", "bf16", "kahan"),
}
JOBS = [(case, variant, seed) for case in CASES for variant in VARIANTS for seed in SEEDS]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "head_loss", "digest")


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    data, examples, settings = CASES[case]
    name, work, update = VARIANTS[variant]
    recipe = recipes.make(name)
    recipe = recipes.keep(recipe if work is None else recipes.work_in(recipe, work), update=update)
    result = experiments.told(experiments.network.train(
        recipe, experiments.datasets.load(data).first(*examples), seed=seed, measure_every=settings["epochs"],
        **settings))
    last = result.history[-1]
    head = "" if last.head_loss is None else f"{last.head_loss:.4g}"
    return dict(zip(FIELDS, (case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}",
                             f"{last.loss:.4g}", head, result.digest), strict=True))


def table(rows):
    """Return the Markdown table of accuracies: a row for each case, differences from FP32 runs of the same seeds."""
    shown = [variant for variant in VARIANTS if variant != "fp32"]
    lines = ["| case | FP32, % | " + " | ".join(shown) + " |", "| --- | ---: " + "| ---: " * len(shown) + "|"]
    for case in CASES:
        if (case, "fp32", SEEDS[0]) in rows:
            cells = [accuracy(rows, case, "fp32")[0], *(accuracy(rows, case, variant)[1] for variant in shown)]
            lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by name."""
    return {"settings": experiments.settings_table(CASES), "accuracy": table(experiments.read(RESULTS))}


def main():
    """Make the runs that are asked for, then the tables."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS)
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
