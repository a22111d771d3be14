"""What logarithmic numbers do to training: trains; writes data/logarithmic.csv, logarithmic.svg and tables of the page.

`make experiments` runs it whole. ``python docs/logarithmic.py CASE ...`` runs these cases again and keeps the other
rows; ``python docs/logarithmic.py --tables`` trains nothing. Tables and plot are made from the CSV file alone.
"""

import statistics
import sys

import experiments
from experiments import HERE, SEEDS, values

RESULTS, PAGE, PLOT = HERE / "data" / "logarithmic.csv", HERE / "logarithmic.md", HERE / "logarithmic.svg"

# Data, its first examples (training, test), and the settings of `network.train`. The lr is SGD's.
CASES = {
    "digits-mlp": ("digits", (None, None),
                   {"model": "mlp", "hidden": (64,), "batch": 32, "lr": 0.2, "epochs": 30}),
    "digits-cnn": ("digits", (None, None),
                   {"model": "cnn", "hidden": (8, 16), "batch_norm": True, "batch": 32, "lr": 0.1, "epochs": 12}),
    "fashion-mlp": ("fashion-mnist", (3000, 2000),
                    {"model": "mlp", "hidden": (32,), "batch": 50, "lr": 0.03, "epochs": 6}),
    "fashion-cnn": ("fashion-mnist", (1024, 2000),
                    {"model": "cnn", "hidden": (8, 16), "batch_norm": True, "batch": 64, "lr": 0.03, "epochs": 8}),
}
SGD_DROPS = (0.5, 0.75)  # parts of the run after which that lr halves
MADAM_LR = 0.05  # of biases, gains and shifts where Madam moves the weights
ABLATED, FEW = "fashion-mlp", SEEDS[:3]  # of most ablations: 2,000 test examples tell more than the 360 of digits


def _narrow(bits, lsb):
    return "lns-madam", {"accumulator": bits, "lsb": lsb}


def _second(bits, gamma):
    return "lns-madam", {"second_bits": bits, "second_gamma": gamma}


DIGITS = ("digits-mlp", "digits-cnn")  # the updates are ablated there too

# The recipes and their settings, first of every case, then of a single case.
EVERYWHERE = {
    "fp32": ("fp32", {}),
    "bfp8": ("bfp", {"mantissa": 8}),
    "mxfp8": ("mx", {}),
    "lns-madam": ("lns-madam", {}),
}
OF_PRODUCTS = {
    "constants4": ("lns-madam", {"constants": 4}),
    "constants2": ("lns-madam", {"constants": 2}),
    "constants1": ("lns-madam", {"constants": 1}),
    "sum24": _narrow(24, 9),
    "sum24-room": _narrow(24, 13),
    "sum16": _narrow(16, 17),
    "sum16-room": _narrow(16, 21),
}
OF_UPDATES = {
    "madam12": ("lns-madam", {"weights_bits": 12, "rate": 3, "rate_drops": (0.6, 0.7, 0.8)}),
    "sgd16": ("lns-madam", {"update": "sgd"}),
    "sgd8": ("lns-madam", {"update": "sgd", "weights_bits": 8}),
}
OF_SECONDS = {
    "second-fp32": ("lns-madam", {"second": "fp32"}),
    "second9-4": _second(9, 4),
    "second8-2": _second(8, 2),
    "second8-4": _second(8, 4),
    "second7-2": _second(7, 2),
}
VARIANTS = EVERYWHERE | OF_PRODUCTS | OF_UPDATES | OF_SECONDS
LABELS = {
    "fp32": "FP32", "bfp8": "BFP, mantissa 8", "mxfp8": "MXFP8", "lns-madam": "lns-madam",
    "constants4": "4 constants", "constants2": "2 constants", "constants1": "1 constant",
    "sum24": "24 bits, lsb 9", "sum24-room": "24 bits, lsb 13",
    "sum16": "16 bits, lsb 17", "sum16-room": "16 bits, lsb 21",
    "madam12": "Madam, 12 bits", "sgd16": "SGD, 16 bits", "sgd8": "SGD, 8 bits",
    "second-fp32": "FP32 instead", "second9-4": "9 bits, 4", "second8-2": "8 bits, 2",
    "second8-4": "8 bits, 4", "second7-2": "7 bits, 2",
}
JOBS = [(case, variant, seed) for case in CASES for variant in VARIANTS for seed in SEEDS
        if variant in EVERYWHERE or seed in FEW and (
            case == ABLATED or case in DIGITS and variant in OF_UPDATES)]
FIELDS = ("case", "variant", "seed", "test", "train", "loss", "overflow", "digest")


def run(job):
    """Return the row of one training run."""
    case, variant, seed = job
    recipe, settings = VARIANTS[variant]
    by_madam = recipe == "lns-madam" and settings.get("update") != "sgd"
    result = experiments.train(CASES[case], (recipe, settings), seed,
                               **{"lr": MADAM_LR} if by_madam else {"lr_drops": SGD_DROPS})
    last = result.history[-1]
    return dict(zip(FIELDS, (case, variant, seed, f"{100 * last.test_accuracy:.2f}", f"{100 * last.train_accuracy:.2f}",
                             f"{last.loss:.4g}", "yes" if result.overflow else "no", result.digest), strict=True))


def table(rows, variants, head="variant", cases=tuple(CASES)):
    """Return the Markdown table: mean test accuracy and its range, mean difference from FP32, loss, saturated runs."""
    lines = [f"| case | {head} | test accuracy, % | difference from FP32, points | loss | saturated |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]
    for case in cases:
        for variant in variants:
            if not values(rows, case, variant, "test"):
                continue
            test, gap = experiments.accuracy(rows, case, variant)
            loss = values(rows, case, variant, "loss").values()
            saturated = sum(rows[case, variant, seed]["overflow"] == "yes" for seed in SEEDS
                            if (case, variant, seed) in rows)
            label = "10 bits, 8 = lns-madam" if head != "variant" and variant == "lns-madam" else LABELS[variant]
            lines.append(f"| {case} | {label} | {test} | {gap} | {statistics.mean(loss):.4f} | {saturated or ''} |")
    return "\n".join(lines)


def tables():
    """Return the page's tables, by the names of their marks."""
    rows = experiments.read(RESULTS)
    few, base = {job: row for job, row in rows.items() if job[2] in FEW}, ["fp32", "lns-madam"]
    return {"settings": experiments.settings_table(CASES, "lr of SGD"), "results": table(rows, EVERYWHERE),
            "products": table(few, [*base, *OF_PRODUCTS], cases=[ABLATED]),
            "updates": table(few, [*base, *OF_UPDATES], cases=[*DIGITS, ABLATED]),
            "seconds": table(few, ["lns-madam", *OF_SECONDS], "second moment: bits, gamma", [ABLATED])}


def main():
    """Run what the command line asks for."""
    options = experiments.arguments(__doc__.splitlines()[0], CASES)
    if not options.tables:
        experiments.work(options, run, RESULTS, FIELDS, JOBS)
    shown = [variant for variant in VARIANTS if variant in EVERYWHERE or variant in OF_UPDATES]
    experiments.plot(PLOT, experiments.read(RESULTS), CASES, {variant: LABELS[variant] for variant in shown}, 0.5)
    experiments.fill(PAGE, tables())


if __name__ == "__main__":
    sys.exit(main())
