"""The ablation of the recipe `fp16`: trains; writes data/fp16*.csv, fp16.svg and the tables of fp16.md.

`make experiments` runs it whole. ``python docs/fp16.py CASE ...`` runs these cases again and keeps the other rows;
``python docs/fp16.py --tables`` trains nothing. Tables and plot are made from the CSV files alone.
"""

import argparse
import csv
import multiprocessing
import os
import re
import resource
import statistics
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one run on each core

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from narrowgauge.golden import datasets, network, recipes

HERE = Path(__file__).parent
RESULTS, PAGE, PLOT = HERE / "data" / "fp16.csv", HERE / "fp16.md", HERE / "fp16.svg"
GRADIENTS, MOMENTS = HERE / "data" / "fp16-gradients.csv", HERE / "data" / "fp16-moments.csv"
SEEDS = (1, 2, 3, 4, 5)

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
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "skipped", "loss_scale", "digest")
LABELS = {"fp32": "fp32", "naive": "naive", "fp16": "+ chunks = fp16", "scale": "+ chunks + loss scale"}


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    (data, examples, settings), (recipe, ingredients) = CASES[case], VARIANTS[variant]
    result = network.train(recipes.make(recipe, **ingredients), datasets.load(data).first(*examples), seed=seed,
                           measure_every=settings["epochs"], **settings)
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
    layer, *_ = layers = network.convolutional(data, settings["hidden"])
    (weights, gain, shift), *_ = network.initialise(layers, np.random.default_rng(1), np.float16, batch_norm=True)
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


def save(path, header, rows):
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def read():
    """Return the rows of the CSV file, by (case, variant, seed)."""
    if not RESULTS.exists():
        return {}
    with RESULTS.open(newline="") as file:
        return {(row["case"], row["variant"], int(row["seed"])): row for row in csv.DictReader(file)}


def write(rows):
    """Write the rows that belong to a case, in the order of `CASES`, `VARIANTS` and `SEEDS`."""
    jobs = [(case, variant, seed) for case in CASES for variant in VARIANTS for seed in SEEDS]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[job] for job in jobs if job in rows)


def values(rows, case, variant, field):
    """Return a field of one variant's runs, by seed."""
    return {seed: float(rows[case, variant, seed][field]) for seed in SEEDS if (case, variant, seed) in rows}


def table(rows):
    """Return the Markdown table: mean test accuracy and its range, mean difference from fp32, loss, scale."""
    lines = ["| case | variant | test accuracy, % | difference from FP32, points | loss | loss scale | skipped |",
             "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for case in CASES:
        base = values(rows, case, "fp32", "test")
        for variant in VARIANTS:
            test = values(rows, case, variant, "test")
            if not test:
                continue
            gaps = [test[seed] - base[seed] for seed in test if seed in base]
            loss, scales, skipped = (values(rows, case, variant, field).values() for field in
                                     ("loss", "loss_scale", "skipped"))
            gap = "" if variant == "fp32" else f"{statistics.mean(gaps):+.2f} ({min(gaps):+.2f} to {max(gaps):+.2f})"
            scale = f"{min(scales):,.0f} to {max(scales):,.0f}" if max(scales) > 1 else ""
            lines.append(f"| {case} | {LABELS[variant]} | {statistics.mean(test.values()):.2f} "
                         f"({min(test.values()):.2f} to {max(test.values()):.2f}) | {gap} | "
                         f"{statistics.mean(loss):.4f} | {scale} | {sum(skipped):.0f} |")
    return "\n".join(lines)


def settings_table():
    """Return the Markdown table of the cases."""
    lines = ["| case | data | examples | network | batch | lr | epochs |",
             "| --- | --- | --- | --- | ---: | ---: | ---: |"]
    for case, (name, examples, settings) in CASES.items():
        if None in examples:
            data = datasets.load(name).first(*examples)
            examples = len(data.train_y), len(data.test_y)
        sizes = ", ".join(map(str, settings["hidden"]))
        kind = (f"MLP, {sizes} hidden" if settings["model"] == "mlp" else f"CNN, {sizes} channels")
        kind += ", batch statistics" if settings.get("batch_norm") else ""
        lines.append(f"| {case} | {name} | {examples[0]:,} / {examples[1]:,} | {kind} | "
                     f"{settings['batch']} | {settings['lr']} | {settings['epochs']} |")
    return "\n".join(lines)


def plot(rows):
    """Write the plot: each run's difference from the FP32 run of its seed."""
    matplotlib.rcParams.update({"svg.hashsalt": "fp16", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(9, 2.6 * ((len(CASES) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(CASES) + 1) // 2, 2, squeeze=False).ravel()
    for place in axes[len(CASES):]:
        place.set_visible(False)
    for place, case in zip(axes, CASES):
        base = values(rows, case, "fp32", "test")
        shown = [variant for variant in VARIANTS if variant != "fp32" and values(rows, case, variant, "test")]
        place.axhline(0, color="#3f87d6", linewidth=1)
        place.axhspan(-0.3, 0.3, color="#3f87d6", alpha=0.15, linewidth=0)
        for at, variant in enumerate(shown):
            gaps = [test - base[seed] for seed, test in values(rows, case, variant, "test").items()]
            place.plot([at] * len(gaps), gaps, "o", color="#e0762d", markersize=4, alpha=0.5)
            place.plot([at - 0.2, at + 0.2], [statistics.mean(gaps)] * 2, color="#e0762d", linewidth=2)
        place.set_xticks(range(len(shown)), [LABELS[variant] for variant in shown], fontsize=8)
        place.set(title=case, ylabel="points from FP32")
    figure.savefig(PLOT, format="svg", metadata={"Date": None})


def fill(text, name, content):
    """Put content between the marks of that name in the page."""
    return re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda match: match[1] + content + "\n" + match[2], text,
                  flags=re.DOTALL)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--missing", action="store_false", dest="all", help="keep the rows that are there")
    parser.add_argument("--tables", action="store_true", help="train nothing")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time (default: the cores)")
    options = parser.parse_args()
    for case in options.cases:
        if case not in CASES:
            parser.error(f"CASE is {case!r}; allowed: {', '.join(CASES)}")
    rows = read()
    # Seed by seed, so that a run that is cut short leaves comparable rows.
    jobs = [(case, variant, seed) for seed in SEEDS for case in options.cases or CASES for variant in VARIANTS]
    jobs = [job for job in jobs if options.all or job not in rows]
    if not options.tables:
        with multiprocessing.Pool(options.processes) as pool:
            for done, row in enumerate(pool.imap_unordered(run, jobs), 1):
                rows[row["case"], row["variant"], int(row["seed"])] = row
                print(f"{done}/{len(jobs)} {row['case']} {row['variant']} seed {row['seed']}: test {row['test']} %, "
                      f"loss {row['loss']}", flush=True)
                write(rows)
            if not options.cases:
                save(MOMENTS, ("chunk", "channel", "mean", "variance"), moments())
                save(GRADIENTS, ("seed", "loss", "scale", "layer", "error"),
                     [row for rows_of_seed in pool.map(gradient_errors, SEEDS) for row in rows_of_seed])
            pool.close()
            pool.join()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{used.ru_utime + used.ru_stime:.0f} s of processor time")
    plot(rows)
    page = PAGE.read_text()
    for name, content in (("settings", settings_table()), ("results", table(rows)), ("moments", moment_table()),
                          ("gradients", gradient_table())):
        page = fill(page, name, content)
    PAGE.write_text(page)


if __name__ == "__main__":
    sys.exit(main())
