"""Writes the tables of units/core.md: the parameters, the instructions, a program, and the cycles of golden's model.

``python docs/core.py`` takes a minute. No figure is of a circuit: block RAMs are counted from the sizes of the
memories, and LUTs are sums of the units' in data/unit-costs.csv and data/array-cost.csv.
"""

import contextlib
import csv
import dataclasses
import json
import re
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest import mock

from experiments import HERE, fill
from narrowgauge.golden import core, datasets, network, recipes
from narrowgauge.golden.core.instructions import FIELDS, OPERATIONS
from narrowgauge.golden.core.timing import latencies, operands, products, results, state, timeline, units

PAGE = HERE / "units" / "core.md"
FASHION = SimpleNamespace(image=(28, 28), classes=10, features=784, channels=1)


def mlp(*sizes):
    """Return the layers of a perceptron."""
    return tuple(network.Linear(inputs, outputs) for inputs, outputs in zip(sizes, sizes[1:]))


NETWORKS = {
    "digits 64-32-10, batch 32": (mlp(64, 32, 10), 32),
    "Fashion-MNIST 784-32-10, 50": (mlp(784, 32, 10), 50),
    "784-32-10, 64": (mlp(784, 32, 10), 64),
    "784-128-10, 64": (mlp(784, 128, 10), 64),
    "digits CNN, 32": (network.convolutional(datasets.load("digits"), (8, 16)), 32),
    "Fashion-MNIST CNN, 32": (network.convolutional(FASHION, (8, 16)), 32),
}


@dataclass(frozen=True)
class Choice:
    """An architecture: parameters of a core, and how its programs are cut."""

    name: str
    core: dict = field(default_factory=dict)
    program: dict = field(default_factory=dict)


def choices():
    """Return the choices, each with one thing more than the one before; the last ones go back."""
    found, made, cut = [], {}, {}
    for name, settings, program in (
            ("one instruction at a time", {}, {"serial": True}), ("units side by side", {}, {"serial": False}),
            ("4 lanes", {"lanes": 4}, {}), ("8 lanes", {"lanes": 8}, {}), ("4 logits a cycle", {"head": 4}, {}),
            ("2 vectors a cycle", {"vectors": 2}, {}), ("8 adders", {"adders": 8}, {}),
            ("16 adders", {"adders": 16}, {}), ("2 parts of a batch", {}, {"parts": 2}),
            ("tiles fitted", {}, {"fitted": True}), ("2 blocks of outputs", {}, {"blocks": 2}),
            ("16 lanes", {"lanes": 16}, {}), ("buffers of 16,384", {"buffer": 16384}, {})):
        made, cut = made | settings, cut | program
        found.append(Choice(name, made, cut))
    small = {"lanes": 2, "head": 1, "adders": 2, "merged": True, "converters": 1}
    return [*found, Choice("small: memories merged, one converter, 2 lanes and adders", small,
                           {"parts": 2, "fitted": True})]


def run_of(name, bits):
    """Return the run of a network in block floating point."""
    layers, batch = NETWORKS[name]
    recipe = recipes.work_in(recipes.make("bfp", mantissa=bits), "bf16").with_head(10)
    return core.Run(recipe, layers, 20 * batch, batch=batch)


def cycles_table(bits):
    """Return the Markdown table of the share of the peak over whole steps."""
    lines = ["| | " + " | ".join(NETWORKS) + " |", "| --- |" + " ---: |" * len(NETWORKS)]
    ceilings = dict.fromkeys(NETWORKS, 0)
    for choice in choices():
        cells = []
        for name in NETWORKS:
            run = run_of(name, bits)
            found = core.step_cycles(core.trainer_of(run, program=4096, **choice.core), run, **choice.program)
            cells.append(f"{100 * found.utilisation:.1f}")
            ceilings[name] = max(ceilings[name], found.ceiling)
        lines.append(f"| {choice.name} | " + " | ".join(cells) + " |")
    lines.append("| *cells that never wait* | " + " | ".join(
        f"{100 * ceilings[name]:.1f}" for name in NETWORKS) + " |")
    return "\n".join(lines)


# What would be quicker, for digits at 2 bits: what it changes of the core or batch, and of the model's latencies.
NO_LATENCY = {"SOFTMAX": 4, "READ": 1, "FETCHED": 1, "LOOKED": 1, "CHECKED": 1}
QUICKER = {
    "16 lanes, 16 adders, 4 logits": ({}, {}),
    "sums of 8 cycles a row": ({}, {"ADDITION": 8}),
    "2 vectors a cycle": ({"vectors": 2}, {}),
    "softmax units of 4 cycles, not 28": ({}, {"SOFTMAX": 4}),
    "memories that answer in a cycle": ({}, {"READ": 1}),
    "a sequencer of 3 cycles an instruction": ({}, {"FETCHED": 1, "LOOKED": 1, "CHECKED": 1}),
    "all of it": ({"vectors": 2}, NO_LATENCY),
    "batches of 64": ({"batch": 64}, {}),
}


@contextlib.contextmanager
def quicker(**changed):
    """Give the cycle model other latencies meanwhile."""
    with contextlib.ExitStack() as stack:
        for module in (latencies, operands, products, results, state, timeline, units):
            for name in changed:
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, changed[name]))
        yield


def quicker_table():
    """Return the Markdown table of what would make digits quicker at 2 bits."""
    recipe = recipes.work_in(recipes.make("bfp", mantissa=2), "bf16").with_head(10)
    lines = ["| digits, 2 bits, 2 parts of a batch | cycles of a step | share of the peak | cells starved |",
             "| --- | ---: | ---: | ---: |"]
    for label, (settings, changed) in QUICKER.items():
        run = core.Run(recipe, mlp(64, 32, 10), 640, batch=settings.get("batch", 32))
        wide = {"lanes": 16, "adders": 16, "head": 4, "stream": 8, "vectors": settings.get("vectors", 1)}
        with quicker(**changed):
            found = core.step_cycles(core.trainer_of(run, **wide), run, parts=2)
        lines.append(f"| {label} | {found.cycles:,.0f} | {100 * found.utilisation:.1f} % | "
                     f"{100 * found.starved:.0f} % |")
    return "\n".join(lines)


def costs(settings):
    """Return the estimated LUTs of a core: measured units, added up."""
    with (HERE / "data" / "unit-costs.csv").open(newline="") as file:
        units = {(row["unit"], row["settings"]): int(row["lut"]) for row in csv.DictReader(file)}
    with (HERE / "data" / "array-cost.csv").open(newline="") as file:
        array = next(int(row["lut"]) for row in csv.DictReader(file) if row["label"] == "BFP 4 x 4, one converter")
    adder = units["float-adder", json.dumps({"format": "bf16"})]
    lane = units["sgd-update", json.dumps({"compensated": False})]
    return (array + (settings.get("converters", 2) * settings.get("vectors", 1) - 1) * units["bfp-converter", "{}"]
            + settings.get("lanes", 1) * lane + 2 * settings.get("adders", 4) * adder
            + settings.get("head", 1) * units["softmax-grad", "{}"])


def costs_table():
    """Return the Markdown table of block RAMs and LUTs."""
    names = ["digits 64-32-10, batch 32", "784-32-10, 64", "Fashion-MNIST CNN, 32"]
    lines = ["| | LUTs, about | block RAMs: " + " | ".join(names) + " |", "| --- |" + " ---: |" * (1 + len(names))]
    seen = []
    for choice in choices():
        if choice.core in seen:
            continue
        seen.append(choice.core)
        rams = [sum(core.trainer_of(run_of(name, 4), program=512, **choice.core).block_rams.values())
                for name in names]
        lines.append(f"| {choice.name} | {costs(choice.core):,} | " + " | ".join(map(str, rams)) + " |")
    return "\n".join(lines)


def example():
    """Return a program that trains digits."""
    recipe = recipes.work_in(recipes.make("bfp"), "bf16").with_head(10)
    run = core.Run(recipe, mlp(64, 32, 10), 1437, 360, epochs=20)
    return core.compiled(core.trainer_of(run), run)


def instructions_table():
    """Return the Markdown table of the instructions, in the order of their codes."""
    lines = ["| code | instruction | unit | fields and their bits, the lowest first | |",
             "| ---: | --- | --- | --- | --- |"]
    for code, (name, operation) in enumerate(OPERATIONS.items()):
        fields = ", ".join(f"`{field}` {FIELDS[kind][0]}" for field, kind in operation.fields.items())
        lines.append(f"| {code} | `{name}` | {operation.unit or 'as told'} | {fields} | {operation.summary} |")
    return "\n".join(lines)


def parameters_table():
    """Return the Markdown table of the parameters, their defaults, and what their docstring says."""
    text = re.sub(r"\s+", " ", core.TrainerParameters.__doc__.partition("----------")[2])
    names = [each.name for each in dataclasses.fields(core.TrainerParameters)]
    lines = ["| parameter | default | |", "| --- | --- | --- |"]
    for found in re.finditer(r"((?:\w+, )*\w+) : (?:[^.]*?) (?=[A-Z])(.*?)(?= (?:\w+, )*\w+ : |$)", text):
        shown = found.group(1).split(", ")
        assert set(shown) <= set(names), shown
        defaults = core.TrainerParameters().to_json()
        values = ", ".join(json.dumps(defaults[name]).replace('"', "") for name in shown)
        lines.append(f"| {', '.join(f'`{name}`' for name in shown)} | {values} | {found.group(2).strip()} |")
    return "\n".join(lines)


def step():
    """Return the loop over the full batches of the example, as text."""
    lines = example().text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.split()[:2] == ["loop", "44"])
    last = next(number for number in range(first, len(lines)) if lines[number].strip() == "end")
    return "\n".join(["```", *(line[8:] for line in lines[first:last + 1]), "```"])


def main():
    """Write the tables."""
    fill(PAGE, {"parameters": parameters_table(), "instructions": instructions_table(), "step": step(),
                "cycles-2": cycles_table(2), "cycles-4": cycles_table(4), "quicker": quicker_table(),
                "costs": costs_table()})


if __name__ == "__main__":
    sys.exit(main())
