"""How well each recipe trains: trains; writes data/recipes.csv and the tables of recipes.md and of README.md.

``python docs/recipes.py`` runs it whole, in a quarter of an hour of a core. ``--tables`` trains nothing.
"""

import sys

import experiments
from experiments import HERE, SEEDS, accuracy

RESULTS, PAGE, README = HERE / "data" / "recipes.csv", HERE / "recipes.md", HERE.parent / "README.md"

# The settings are the usual ones of `narrowgauge train`.
CASES = {"digits": ("digits", (None, None), {"model": "mlp", "hidden": (32,), "batch": 32, "lr": 0.1, "epochs": 20})}
# By the options of `train`: the recipe, its settings, and what its operands are.
VARIANTS = {
    "fp32": ("fp32", {}, "fp32: the baseline"),
    "system --set system=bf16": ("system", {"system": "bf16"}, "bf16"),
    "fp16": ("fp16", {}, "FP16, and nothing is wider"),
    "bfp": ("bfp", {}, "block floating point of 4 bits"),
    "bfp --set mantissa=2": ("bfp", {"mantissa": 2}, "block floating point of 2 bits"),
    "fast": ("fast", {}, "block floating point of 2 or 4 bits, as each tensor needs"),
    "cpt": ("cpt", {}, "block floating point of 3 to 8 bits, in cycles"),
    "mx": ("mx", {}, "MXFP8: E4M3, and E5M2 for gradients"),
    "mx --set element=fp4-e2m1": ("mx", {"element": "fp4-e2m1"}, "MXFP4, and MXFP8 for gradients"),
    "system --set system=fp8": ("system", {"system": "fp8"}, "FP8 without scales: E5M2"),
    "system --set system=int8": ("system", {"system": "int8"}, "INT8 under a scale for each tensor"),
    "lns-madam": ("lns-madam", {}, "8-bit logarithmic numbers, moved by Madam"),
}
JOBS = [("digits", variant, seed) for variant in VARIANTS for seed in SEEDS]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "digest")


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    result = experiments.train(CASES[case], VARIANTS[variant], seed)
    last = result.history[-1]
    return dict(zip(FIELDS, (case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}",
                             f"{last.loss:.4g}", result.digest), strict=True))


def table(rows):
    """Return the Markdown table of accuracies."""
    lines = ["| `--recipe` | operands of the products | test accuracy, % | points from FP32 |",
             "| --- | --- | ---: | ---: |"]
    for variant, (*_, operands) in VARIANTS.items():
        lines.append(f"| `{variant}` | {operands} | {' | '.join(accuracy(rows, 'digits', variant))} |")
    return "\n".join(lines)


def tables():
    """Return the tables of the page and of README, by name."""
    return {"recipes": table(experiments.read(RESULTS))}


def main():
    """Make the runs that are asked for, then the tables."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS)
    for page in (PAGE, README):
        experiments.fill(page, tables())


if __name__ == "__main__":
    sys.exit(main())
