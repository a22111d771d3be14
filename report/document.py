"""The report's text, as a list of blocks, (kind, ...).

The kinds: heading TEXT; good TEXT; bad TEXT; text TEXT; list ITEMS; table HEAD ROWS; code LINES; plot NAME CAPTION.
"""

from .cases import DEVICE_NAME, FAILURES, RUNS, SETTINGS
from .words import described, number, verdict

__all__ = ["document"]


def document(results):
    """Return the report as a list of blocks, for `markdown.page` and `html.page`."""
    return [*_summary(results), *_training(results), *_simulation(results), *_synthesis(results), *_basis(results)]


def _summary(results):
    tests = [f"{entry['accuracy']['test']['median']:.4f} in {entry['recipe']}" for entry in results["training"]]
    costs = [f"{entry['cost']['luts_per_mac']:.1f} in `{entry['label']}` (places and routes at "
             f"{entry['fmax_mhz']['median']:.1f} MHz)" for entry in results["synthesis"]
             if entry["cost"] and entry["fmax_mhz"]]
    return [
        ("bad" if results["mismatches"] else "good", verdict(results) + "."),
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
           *(number((entry["fmax_mhz"] or {}).get(key), ".1f") for key in ("min", "median", "max")),
           number(entry["macs_per_cycle"], "g"),
           *(number((entry[kind] or {}).get("luts_per_mac"), ".1f") for kind in ("cost", "chunk_cost"))]
          for entry in entries]),
        *([("list", notes)] if notes else []),
        ("plot", "cost.svg", "Left: what a multiply-accumulate per cycle takes, less is better. Right: what 1,000 LUTs "
                             "do at the median frequency, more is better."),
        ("text", "To repeat this:"),
        ("code", [entry["command"] for entry in entries]),
    ]


def _basis(results):
    formats = [[f"`{entry['recipe']}`", tensor, described(each["format"]), described(
        {key: value for key, value in each.items() if key != "format"})]
               for entry in results["training"] for tensor, each in entry["formats"].items()]
    made = results["made"]
    return [
        ("heading", "Parameters and tools"),
        ("table", ["Unit", "Parameters"],
         [[f"`{entry['label']}`", described(entry["parameters"])] for entry in results["synthesis"]]),
        ("table", ["Recipe", "Tensor", "Format", "Rounding"], formats),
        ("table", ["Tool", "Version"], [[name, version] for name, version in results["tools"].items()]),
        ("text", f"Made on {made['date']} ({made['machine']}) in {sum(made['seconds'].values()):.0f} s by "
                 "`narrowgauge report`. All numbers, curves and parameters are in report.json."),
    ]
