"""The ablation of the recipe `fp16`: trains; writes data/fp16*.csv, fp16.svg and the tables of fp16.md.

`make experiments` runs it whole. ``python docs/fp16.py CASE ...`` runs these cases again and keeps the other rows;
``python docs/fp16.py --tables`` trains nothing. Tables and plot are made from the CSV files alone.
"""

import csv
import dataclasses
import statistics
import sys

import experiments
import numpy as np
from experiments import HERE, SEEDS, save, values
from narrowgauge.golden import datasets, network, recipes
from narrowgauge.golden.formats import PRESETS

RESULTS, PAGE, PLOT = HERE / "data" / "fp16.csv", HERE / "fp16.md", HERE / "fp16.svg"
GRADIENTS, MOMENTS = HERE / "data" / "fp16-gradients.csv", HERE / "data" / "fp16-moments.csv"

# Data, its first examples (training, test), and the settings of `network.train`.
CASES = {
    "digits-mlp": ("digits", (None, None),
                   {"model": "mlp", "hidden": (32,), "batch": 64, "lr": 0.1, "epochs": 15}),
    "digits-cnn": ("digits", (None, None),
                   {"model": "cnn", "hidden": (8, 16), "batch_norm": True, "batch": 128, "lr": 0.1, "epochs": 6}),
    "fashion-mlp": ("fashion-mnist", (3000, 2000),
                    {"model": "mlp", "hidden": (32,), "batch": 100, "lr": 0.02, "epochs": 4}),
    "fashion-cnn": ("fashion-mnist", (1024, 2000),
                    {"model": "cnn", "hidden": (8, 16), "batch_norm": True, "batch": 128, "lr": 0.05, "epochs": 4}),
}
# The recipes and their settings.
VARIANTS = {
    "fp32": ("fp32", {}),
    "naive": ("fp16", {"chunk": None}),
    "fp16": ("fp16", {}),
    "scale": ("fp16", {"loss_scale": 1024}),
}
# Where gradients are small: late in training with the whole of digits as one batch. Their errors at these loss scales.
LATE = {"hidden": (32, 32), "batch_norm": True, "batch": 1437, "lr": 0.5, "epochs": 100}
SCALES = (1, 32, 1024)
JOBS = [(case, variant, seed) for case in CASES for variant in VARIANTS for seed in SEEDS]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "skipped", "loss_scale", "digest")
LABELS = {"fp32": "fp32", "naive": "naive", "fp16": "+ chunks = fp16", "scale": "+ chunks + loss scale"}


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    result = experiments.train(CASES[case], VARIANTS[variant], seed)
    last = result.history[-1]
    return dict(zip(FIELDS, (case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}",
                             f"{last.loss:.4g}", result.skipped, result.loss_scale, result.digest), strict=True))


def gradient_errors(seed):
    """Return rows of (seed, loss, scale, layer, error): |FP16 gradient of the weights - FP32's| / |FP32's|.

    Of a network that FP32 trained, its weights and data rounded to FP16 for both.
    """
    data = datasets.load("digits")
    result = network.train(recipes.make("fp32"), data, seed=seed, measure_every=LATE["epochs"], **LATE)
    x = data.train_x.astype(np.float16)
    half = [tuple(each.astype(np.float16) for each in layer) for layer in result.parameters]
    single = [tuple(each.astype(np.float32) for each in layer) for layer in half]

    def gradients(recipe, parameters, x, scale=1):
        found, _ = network.gradients(network.Gemms(recipe, seed), result.layers, parameters, x, data.train_y, 0, scale)
        return [by_weights.astype(np.float64) / scale for by_weights, *_ in found]

    exact = gradients(recipes.make("fp32"), single, x.astype(np.float32))
    rows = []
    for scale in SCALES:
        for layer, (found, right) in enumerate(zip(gradients(recipes.make("fp16"), half, x, scale), exact), 1):
            error = np.linalg.norm(found - right) / np.linalg.norm(right)
            rows.append((seed, f"{result.history[-1].loss:.4g}", scale, layer, f"{error:.3f}"))
    return rows


def gradient_table():
    """Return the Markdown table of the gradients' errors: mean of the seeds and range."""
    with GRADIENTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| layer | " + " | ".join(f"loss scale {scale}" for scale in SCALES) + " |",
             "| --- |" + " ---: |" * len(SCALES)]
    for layer in sorted({row["layer"] for row in rows}):
        cells = []
        for scale in SCALES:
            errors = [float(row["error"]) for row in rows if (row["layer"], row["scale"]) == (layer, str(scale))]
            cells.append(f"{statistics.mean(errors):.3f} ({min(errors):.3f} to {max(errors):.3f})")
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join(lines)


def moments():
    """Return rows of (chunk, channel, mean, variance): the first statistics of fashion-cnn, seed 1, over exact ones."""
    data, _, settings = CASES["fashion-cnn"]
    data = datasets.load(data).first(settings["batch"], 1)
    layer = dataclasses.replace(network.convolutional(data, settings["hidden"])[0], normalised=True)
    (weights, gain, shift), = network.initialise([layer], np.random.default_rng(1), PRESETS["fp16"])
    rows = []
    for chunk in (None, 64):
        gemms = network.Gemms(recipes.make("fp16", chunk=chunk), 1)
        z = gemms.product("forward", 0, layer.unroll(data.train_x.astype(np.float16)), weights, 0)
        _, _, found = network.normalise(gemms, z, gain, shift)
        exact = z.astype(np.float64)
        means, variances = found[0] / exact.mean(axis=0), found[1] / exact.var(axis=0)
        rows += [(chunk or "none", channel, f"{mean:.2f}", f"{variance:.2f}")
                 for channel, (mean, variance) in enumerate(zip(means, variances))]
    return rows


def moment_table():
    """Return the Markdown table of the statistics' ratios: range over channels."""
    with MOMENTS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = ["| chunk | mean / exact mean | variance / exact variance |", "| --- | ---: | ---: |"]
    for chunk in dict.fromkeys(row["chunk"] for row in rows):
        ratios = [[float(row[name]) for row in rows if row["chunk"] == chunk] for name in ("mean", "variance")]
        lines.append(f"| {chunk} | " + " | ".join(f"{min(each):.2f} to {max(each):.2f}" for each in ratios) + " |")
    return "\n".join(lines)


def table(rows):
    """Return the Markdown table: mean test accuracy and its range, mean difference from fp32, loss, scale."""
    lines = ["| case | variant | test accuracy, % | difference from FP32, points | loss | loss scale | skipped |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for case in CASES:
        for variant in VARIANTS:
            if not values(rows, case, variant, "test"):
                continue
            test, gap = experiments.accuracy(rows, case, variant)
            loss, scales, skipped = (values(rows, case, variant, field).values() for field in
                                     ("loss", "loss_scale", "skipped"))
            scale = f"{min(scales):,.0f} to {max(scales):,.0f}" if max(scales) > 1 else ""
            lines.append(f"| {case} | {LABELS[variant]} | {test} | {gap} | {statistics.mean(loss):.4f} | {scale} | "
                         f"{sum(skipped):.0f} |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by the names of their marks."""
    return {"settings": experiments.settings_table(CASES), "results": table(experiments.read(RESULTS)),
            "moments": moment_table(), "gradients": gradient_table()}


def measure(pool):
    """Write what is not a run's result: statistics and gradients."""
    save(MOMENTS, ("chunk", "channel", "mean", "variance"), moments())
    save(GRADIENTS, ("seed", "loss", "scale", "layer", "error"),
         [row for rows_of_seed in pool.map(gradient_errors, SEEDS) for row in rows_of_seed])


def main():
    """Run what the command line asks for."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS, measure)
    experiments.plot(PLOT, experiments.read(RESULTS), CASES, LABELS, 0.3)
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
