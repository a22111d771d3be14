"""What the experiments behind the pages of docs/ share: results in CSV files, tables, plots, and how runs are made."""

import argparse
import csv
import io
import multiprocessing
import os
import re
import resource
import statistics
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one run on each core

import matplotlib
from matplotlib.figure import Figure
from narrowgauge.base.files import write_whole
from narrowgauge.golden import datasets, network, recipes

HERE = Path(__file__).parent
SEEDS = (1, 2, 3, 4, 5)
BLUE, ORANGE = "#3f87d6", "#e0762d"


def train(case, recipe, seed, **others):
    """Train as a case says: its data, its first examples (training, test), and the settings of `network.train`."""
    data, examples, settings = case
    return told(network.train(recipes.make(recipe[0], **recipe[1]), datasets.load(data).first(*examples), seed=seed,
                              measure_every=settings["epochs"], **settings | others))


def told(result):
    """Return the result of a training run, after a line on standard error if the run diverged."""
    if result.diverged:
        print(f"{result.recipe.name}, seed {result.seed}: diverged in epoch {result.diverged['epoch']}, step "
              f"{result.diverged['step']}", file=sys.stderr, flush=True)
    return result


def save(path, header, rows):
    """Write a CSV file, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_whole(path, text.getvalue())


def save_figure(path, figure):
    """Write a figure as SVG, whole or not at all."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    write_whole(path, text.getvalue())


def read(path):
    """Return the rows of a CSV file of runs, by (case, variant, seed)."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(row["case"], row["variant"], int(row["seed"])): row for row in csv.DictReader(file)}


def write(path, fields, rows, jobs):
    """Write the rows of the jobs, in their order."""
    save(path, fields, [[rows[job][field] for field in fields] for job in jobs if job in rows])


def values(rows, case, variant, field):
    """Return a field of one variant's runs, by seed."""
    return {seed: float(rows[case, variant, seed][field]) for seed in SEEDS if (case, variant, seed) in rows}


def spread(numbers, form=".2f"):
    """Return the mean of numbers and their range."""
    return f"{statistics.mean(numbers):{form}} ({min(numbers):{form}} to {max(numbers):{form}})"


def accuracy(rows, case, variant):
    """Return a variant's test accuracy and its difference from FP32's runs of the same seeds, in words."""
    base, test = (values(rows, case, each, "test") for each in ("fp32", variant))
    gaps = [test[seed] - base[seed] for seed in test if seed in base]
    return spread(test.values()), "" if variant == "fp32" else spread(gaps, "+.2f")


def settings_table(cases, lr="lr"):
    """Return the Markdown table of the cases."""
    lines = [f"| case | data | examples | network | batch | {lr} | epochs |",
             "| --- | --- | --- | --- | ---: | ---: | ---: |"]
    for case, (name, examples, settings) in cases.items():
        if None in examples:
            data = datasets.load(name).first(*examples)
            examples = len(data.train_y), len(data.test_y)
        sizes = ", ".join(map(str, settings["hidden"]))
        kind = (f"MLP, {sizes} hidden" if settings["model"] == "mlp" else f"CNN, {sizes} channels")
        kind += ", batch statistics" if settings.get("batch_norm") else ""
        lines.append(f"| {case} | {name} | {examples[0]:,} / {examples[1]:,} | {kind} | "
                     f"{settings['batch']} | {settings['lr']} | {settings['epochs']} |")
    return "\n".join(lines)


def plot(path, rows, cases, labels, band, height=2.6):
    """Write the plot: each run's difference from the FP32 run of its seed."""
    matplotlib.rcParams.update({"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(9, height * ((len(cases) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(cases) + 1) // 2, 2, squeeze=False).ravel()
    for place in axes[len(cases):]:
        place.set_visible(False)
    for place, case in zip(axes, cases):
        base = values(rows, case, "fp32", "test")
        shown = [variant for variant in labels if variant != "fp32" and values(rows, case, variant, "test")]
        place.axhline(0, color=BLUE, linewidth=1)
        place.axhspan(-band, band, color=BLUE, alpha=0.15, linewidth=0)
        for at, variant in enumerate(shown):
            gaps = [test - base[seed] for seed, test in values(rows, case, variant, "test").items()]
            place.plot([at] * len(gaps), gaps, "o", color=ORANGE, markersize=4, alpha=0.5)
            place.plot([at - 0.2, at + 0.2], [statistics.mean(gaps)] * 2, color=ORANGE, linewidth=2)
        place.set_xticks(range(len(shown)), [labels[variant] for variant in shown], fontsize=8)
        place.set(title=case, ylabel="points from FP32")
    save_figure(path, figure)


def fill(page, tables):
    """Put each table between the marks of its name in the page."""
    text = page.read_text()
    for name, content in tables.items():
        found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
        text = text[:found.start(1)] + content + "\n" + text[found.end(1):]
    write_whole(page, text)


def arguments(summary, cases, variants=None):
    """Return what the command line asks for: `cases`, `variants`, `all`, `tables`, `processes`.

    With `variants` the script takes some of their names, to run no others.
    """
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(cases))
    parser.add_argument("--missing", action="store_false", dest="all", help="keep the rows that are there")
    parser.add_argument("--tables", action="store_true", help="train nothing")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at a time (default: the cores)")
    if variants:
        parser.add_argument("--variants", type=lambda text: text.split(","), default=[], metavar="VARIANT,...",
                            help="run these alone: " + ", ".join(variants))
    options = parser.parse_args()
    if not variants:
        options.variants = []
    for name, given, allowed in (("CASE", options.cases, cases), ("VARIANT", options.variants, variants or ())):
        for each in given:
            if each not in allowed:
                parser.error(f"{name} is {each!r}; allowed: {', '.join(allowed)}")
    return options


def work(options, run, path, fields, jobs, after=None):
    """Make the runs that the options ask for, write each at once, and tell the processor time.

    `run` takes a job, (case, variant, seed), and returns its row; `after` takes the pool, when all cases were run.
    """
    rows = read(path)
    # Seed by seed: a run that is cut short leaves comparable rows.
    wanted = [job for seed in SEEDS for job in jobs if job[2] == seed and job[0] in (options.cases or [job[0]])]
    wanted = [job for job in wanted if job[1] in (options.variants or [job[1]])]
    wanted = [job for job in wanted if options.all or job not in rows]
    with multiprocessing.Pool(options.processes) as pool:
        for done, row in enumerate(pool.imap_unordered(run, wanted), 1):
            rows[row["case"], row["variant"], int(row["seed"])] = row
            print(f"{done}/{len(wanted)} {row['case']} {row['variant']} seed {row['seed']}: test {row['test']} %, "
                  f"loss {row['loss']}", flush=True)
            write(path, fields, rows, jobs)
        if after and not options.cases:
            after(pool)
        pool.close()
        pool.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of processor time")
