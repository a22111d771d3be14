"""What precision that changes during training costs and does: trains; writes data/precision*.csv, plots, page tables.

`make experiments` runs it whole. ``python docs/precision.py CASE ...`` runs these cases again and keeps the other rows.
``--variants fast,fast-lag-0`` runs these variants alone, of the cases named or of all.
``python docs/precision.py --tables`` trains nothing. Tables and plots are made from the CSV files alone.
"""

import csv
import statistics
import sys
from collections import Counter

import experiments
import matplotlib
import numpy as np
from experiments import BLUE, HERE, ORANGE, SEEDS, save, spread, values
from matplotlib.figure import Figure
from narrowgauge.golden import array, blockfloat
from narrowgauge.golden.precision import Cyclic, array_of, cost

RESULTS, WIDTHS = HERE / "data" / "precision.csv", HERE / "data" / "precision-widths.csv"
PAGE, PLOT, COURSE = HERE / "precision.md", HERE / "precision.svg", HERE / "precision-widths.svg"

# Data, its first examples (training, test), and the settings of `network.train`. The steps of each run are a multiple
# of 32: a run ends with the end of a cycle.
DROPS = (0.5, 0.75, 0.9)
CASES = {
    "digits-mlp": ("digits", (None, None),
                   {"model": "mlp", "hidden": (64,), "batch": 32, "lr": 0.1, "epochs": 32, "lr_drops": DROPS}),
    "digits-cnn": ("digits", (None, None),
                   {"model": "cnn", "hidden": (8, 16), "batch": 64, "lr": 0.05, "epochs": 32, "lr_drops": DROPS}),
    "fashion-mlp": ("fashion-mnist", (3200, 4000),
                    {"model": "mlp", "hidden": (32,), "batch": 50, "lr": 0.03, "epochs": 10, "lr_drops": DROPS}),
    "fashion-cnn": ("fashion-mnist", (2048, 4000),
                    {"model": "cnn", "hidden": (4, 8), "batch": 32, "lr": 0.03, "epochs": 8, "lr_drops": DROPS}),
}
# So many points below the static widths at the most, and so many % of the array cycles fewer at the least.
LOSS, SAVED = 0.5, 30
NEAREST = {"weights_rounding": "nearest", "activations_rounding": "nearest"}


# The recipes and their settings.
VARIANTS = {
    "fp32": ("fp32", {}),
    **{f"static-{bits}": ("bfp", {"mantissa": bits}) for bits in (2, 3, 4, 8)},
    "static-4-truncated": ("bfp", {"weights_rounding": "truncate", "activations_rounding": "truncate"}),
    "fast": ("fast", {}),
    "fast-reversed": ("fast", {"reverse": True}),
    "fast-nearest": ("fast", NEAREST),
    **{f"cpt-{cycles}": ("cpt", {"cycles": cycles}) for cycles in (8, 16, 32)},
    "cpt-32-low2": ("cpt", {"low": 2}),
    "cpt-32-g6": ("cpt", {"gradients": 6}),
    "cpt-32-g4": ("cpt", {"gradients": 4}),
}
# Other thresholds of FAST, (alpha, beta), with weights and activations rounded to nearest; three seeds.
THRESHOLDS = ((0.6, 0.45), (0.8, 0.6), (0.8, 0.8), (1.0, 0.8))
TRIED = {f"fast-{alpha}-{beta}": ("fast", {"alpha": alpha, "beta": beta} | NEAREST) for alpha, beta in THRESHOLDS}
# FAST's defaults, but for gradients, which always have 4 bits.
TRIED["fast-wide-gradients"] = ("bfp", {f"{kind}_precision": {"policy": "adaptive"}
                                        for kind in ("weights", "activations")})
FEW = SEEDS[:3]
# FAST with widths from the step itself, in one case; the default takes them from the step before.
LAGGED = "digits-mlp"
LAGS = {"fast-lag-0": ("fast", {"lag": 0}), "fast-nearest-lag-0": ("fast", {"lag": 0} | NEAREST)}
ALL = VARIANTS | TRIED | LAGS
JOBS = [(case, variant, seed) for case in CASES for variant in ALL for seed in SEEDS
        if variant in VARIANTS or variant in TRIED and seed in FEW or variant in LAGS and case == LAGGED]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "operations", "passes", "digest", "products")
MARKS = {"static-2": ("black", "v"), "static-3": ("black", "^"), "static-4": ("black", "s"), "static-8": ("black", "D"),
         "static-4-truncated": ("#888888", "s"), "fast": (ORANGE, "o"), "fast-reversed": (ORANGE, "x"),
         "fast-nearest": ("#a03c0a", "o"), "cpt-8": (BLUE, "^"), "cpt-16": (BLUE, "s"), "cpt-32": (BLUE, "o"),
         "cpt-32-low2": ("#5a9e4b", "v"), "cpt-32-g6": ("#5a9e4b", "o"), "cpt-32-g4": ("#5a9e4b", "s")}
SCHEDULES = ((3, 8, 8), (4, 8, 8), (2, 8, 8), (3, 8, 6), (3, 8, 4), (4, 4, 4))
# Where the widths over time are shown.
SHOWN, SHOWN_VARIANTS = "digits-cnn", ("fast", "fast-reversed", "cpt-8")


def packed(products):
    """Return `precision.Control.report`'s products as text: ``gemm m n k:widths count,...`` for each shape."""
    found = {}
    for each in products:
        shape = " ".join(str(each[name]) for name in ("gemm", "m", "n", "k"))
        found.setdefault(shape, []).append(f"{each['a']}{each['b']} {each['count']}")
    return ";".join(f"{shape}:{','.join(counts)}" for shape, counts in found.items())


def unpacked(text):
    """Return the tuples (m, n, k, a, b, count) of `packed`; of no text, none."""
    found = []
    for part in text.split(";") if text else ():
        shape, _, counts = part.partition(":")
        for (a, b), count in (each.split() for each in counts.split(",")):
            found.append((*map(int, shape.split()[1:]), int(a), int(b), int(count)))
    return found


def deciding(text):
    """Return the cycles that an extra pass for FAST's decisions takes: a cycle for each group of every tensor."""
    found = 0
    for part in text.split(";") if text else ():
        (gemm, m, n, k), counts = part.partition(":")[0].split(), part.partition(":")[2].split(",")
        # Weights and activations are decided on along the forward product, gradients along the weight gradient.
        rows = {"forward": int(m) + int(n), "weight-gradient": int(m)}.get(gemm, 0)
        found += rows * -(-int(k) // 16) * sum(int(each.split()[1]) for each in counts)
    return found


def read():
    """Return the rows of the results, with the cycles that the array spends on their products."""
    rows = experiments.read(RESULTS)
    for row in rows.values():
        row["cycles"] = sum(count * array.cycles(array_of(16), m, n, k, {"precision": a}, {"precision": b})
                            for m, n, k, a, b, count in unpacked(row["products"])) or ""
        row["deciding"] = deciding(row["products"]) if "lag-0" in row["variant"] else 0
    return rows


def run(job):
    """Return the row of one training run. `operations` are in % of FP32's."""
    case, variant, seed = job
    result = experiments.train(CASES[case], ALL[variant], seed)
    last, told = result.history[-1], result.precision
    operations = 100 * told["bit_operations"]["used"] / told["bit_operations"]["fp32"] if told else 100
    return dict(zip(FIELDS, (
        case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}", f"{last.loss:.4g}",
        f"{operations:.4f}", told["passes"]["used"] if told else "", result.digest,
        packed(told["products"]) if told else ""), strict=True))


def course(variant):
    """Return rows of (variant, tensor, layer, mean width of each epoch), for the first seed."""
    result = experiments.train(CASES[SHOWN], VARIANTS[variant], SEEDS[0])
    epochs = CASES[SHOWN][2]["epochs"]
    rows = []
    for kind, layers in result.precision["widths"].items():
        for layer, (changes, steps) in enumerate(zip(layers, result.precision["steps"][kind]), 1):
            starts, widths = zip(*changes)
            each = np.repeat(widths, np.diff([*starts, sum(steps.values())]))
            means = each.reshape(epochs, -1).mean(axis=1)
            rows.append((variant, kind, layer, " ".join(f"{mean:.2f}" for mean in means)))
    return rows


def base(variant):
    """Return the variant of constant widths that a variant is held against, or None."""
    if variant.startswith(("fast", "static-4-")):
        return "static-4"
    return "static-8" if variant.startswith("cpt") else None


def gaps(rows, case, variant, other):
    """Return the differences in test accuracy between runs of the same seeds, in points."""
    mine, others = (values(rows, case, each, "test") for each in (variant, other))
    return [mine[seed] - others[seed] for seed in mine if seed in others]


def share(rows, case, variant, other, field="passes"):
    """Return a variant's mean share of what another one spends, by seed, in %."""
    mine, others = (values(rows, case, each, field) for each in (variant, other))
    return statistics.mean(100 * mine[seed] / others[seed] for seed in mine if seed in others)


def results_table(rows, case):
    """Return the Markdown table of one case."""
    lines = ["| variant | test accuracy, % | points from FP32 | points from its static | bit operations, % of FP32's "
             "| passes, % of its static's | array cycles, % of its static's | array cycles, % of static-4's |",
             "| --- |" + " ---: |" * 7]
    for variant in VARIANTS:
        test, from_fp32 = experiments.accuracy(rows, case, variant)
        operations = statistics.mean(values(rows, case, variant, "operations").values())
        cells = [test, from_fp32, "", f"{operations:.2f}", "", "", ""]
        if variant != "fp32":
            cells[6] = f"{share(rows, case, variant, 'static-4', 'cycles'):.1f}"
        if base(variant):
            cells[2] = spread(gaps(rows, case, variant, base(variant)), "+.2f")
            cells[4:6] = [f"{share(rows, case, variant, base(variant), field):.1f}" for field in ("passes", "cycles")]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def aim_table(rows, variants):
    """Return the Markdown table of some variants' differences and savings against the aim."""
    lines = ["| variant | against | " + " | ".join(CASES) + " |", "| --- | --- |" + " ---: |" * len(CASES)]
    for variant in variants:
        cells = []
        for case in CASES:
            gap = statistics.mean(gaps(rows, case, variant, base(variant)))
            saved = 100 - share(rows, case, variant, base(variant), "cycles")
            passes = 100 - share(rows, case, variant, base(variant))
            cell = f"{gap:+.2f} points, {saved:.1f} % ({passes:.1f} %)"
            cells.append(f"**{cell}**" if gap >= -LOSS and saved >= SAVED else cell)
        lines.append(f"| {variant} | {base(variant)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def lag_table(rows):
    """Return the Markdown table of what a lag of one step does."""
    lines = ["| variant | lag | test accuracy, % | points from static-4 | array cycles saved, % "
             "| cycles spent to decide, % | saved in all, % |", "| --- |" + " ---: |" * 6]
    for variant in ("fast-lag-0", "fast", "fast-nearest-lag-0", "fast-nearest"):
        test, _ = experiments.accuracy(rows, LAGGED, variant)
        saved = 100 - share(rows, LAGGED, variant, "static-4", "cycles")
        decided, full = (values(rows, LAGGED, *each) for each in ((variant, "deciding"), ("static-4", "cycles")))
        spent = statistics.mean(100 * decided[seed] / full[seed] for seed in decided)
        lines.append(f"| {variant.removesuffix('-lag-0')} | {1 - variant.endswith('-0')} | {test} "
                     f"| {spread(gaps(rows, LAGGED, variant, 'static-4'), '+.2f')} | {saved:.1f} | {spent:.1f} "
                     f"| {saved - spent:.1f} |")
    return "\n".join(lines)


def schedules_table():
    """Return the Markdown table of what CPT's schedules save of 8 bits, in layers that have all three products."""
    steps, full = 64_000, (cost(8, 8), 3 * blockfloat.passes(8, 8))
    lines = ["| weights and activations | gradients | bit operations saved, % | passes saved, % |",
             "| --- | --- | ---: | ---: |"]
    for low, high, bits in SCHEDULES:
        widths = Counter(Cyclic(low, high).width(0, 1, step, steps) for step in range(steps))
        spent = (sum(count * cost(width, bits) for width, count in widths.items()),
                 sum(count * (blockfloat.passes(width, width) + 2 * blockfloat.passes(width, bits))
                     for width, count in widths.items()))
        saved = [f"{100 - 100 * float(each / steps / whole):.1f}" for each, whole in zip(spent, full)]
        lines.append(f"| {low} to {high} | {bits} | " + " | ".join(saved) + " |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by the names of their marks."""
    rows = read()
    few = {job: row for job, row in rows.items() if job[2] in FEW}
    return {"settings": experiments.settings_table(CASES),
            "aim": aim_table(rows, [variant for variant in VARIANTS if variant.startswith(("fast", "cpt"))]),
            "thresholds": aim_table(few, ["fast-nearest", *TRIED]),
            "lag": lag_table(rows), "schedules": schedules_table(),
            **{case: results_table(rows, case) for case in CASES}}


def plot(rows):
    """Write the plot: accuracy against bit operations and against array cycles."""
    matplotlib.rcParams.update({"svg.hashsalt": PLOT.stem, "svg.fonttype": "none", "font.size": 8})
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots(2, len(CASES))
    for line, (field, label) in zip(axes, (("operations", "bit operations, % of FP32's"),
                                           ("cycles", "array cycles, % of static-4's"))):
        for place, case in zip(line, CASES):
            wide = values(rows, case, "fp32", "test").values()
            place.axhline(statistics.mean(wide), color="#888888", linewidth=1, label="fp32")
            place.axhspan(min(wide), max(wide), color="#888888", alpha=0.15, linewidth=0)
            for variant, (colour, marker) in MARKS.items():
                test = values(rows, case, variant, "test").values()
                at = (share(rows, case, variant, "static-4", field) if field == "cycles" else
                      statistics.mean(values(rows, case, variant, field).values()))
                place.plot([at, at], [min(test), max(test)], color=colour, linewidth=0.8, alpha=0.6)
                place.plot(at, statistics.mean(test), marker, color=colour, markersize=5, linestyle="none",
                           label=variant)
            place.set(xscale="log", xlabel=label)
            ticks = (25, 50, 100, 200, 400) if field == "cycles" else (0.5, 1, 2, 4)
            place.set_xticks(ticks, [str(tick) for tick in ticks])
            place.minorticks_off()
    for place, case in zip(axes[0], CASES):
        place.set_title(case)
    for line in axes:
        line[0].set_ylabel("test accuracy, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    experiments.save_figure(PLOT, figure)


def plot_course():
    """Write the plot of widths over time: an epoch a column, a tensor of a layer a row."""
    with WIDTHS.open(newline="") as file:
        found = list(csv.DictReader(file))
    matplotlib.rcParams.update({"svg.hashsalt": COURSE.stem, "svg.fonttype": "none", "font.size": 8})
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    axes = figure.subplots(1, len(SHOWN_VARIANTS), sharey=True)
    for place, variant in zip(axes, SHOWN_VARIANTS):
        mine = [row for row in found if row["variant"] == variant]
        means = np.array([[float(mean) for mean in row["widths"].split()] for row in mine])
        drawn = place.pcolormesh(means, cmap="viridis", vmin=2, vmax=8)
        place.set(title=variant, xlabel="epoch")
        place.set_yticks(np.arange(len(mine)) + 0.5, [f"{row['tensor']}, layer {row['layer']}" for row in mine])
    axes[0].invert_yaxis()
    figure.colorbar(drawn, ax=axes, label="magnitude bits, mean of the epoch")
    experiments.save_figure(COURSE, figure)


def main():
    """Run what the command line asks for."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES, ALL)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS, after=lambda pool: save(
            WIDTHS, ("variant", "tensor", "layer", "widths"), [row for rows in pool.map(course, SHOWN_VARIANTS)
                                                               for row in rows]))
    plot(read())
    plot_course()
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
