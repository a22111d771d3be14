"""Writes the tables of units/core.md: the instructions, and a program as an example."""

import sys

from experiments import HERE, fill
from narrowgauge.golden import core, datasets, network, recipes
from narrowgauge.golden.core.instructions import FIELDS, OPERATIONS

PAGE = HERE / "units" / "core.md"


def example():
    """Return a program that trains digits, and its run."""
    recipe = recipes.work_in(recipes.make("bfp"), "bf16").with_head(10)
    run = core.Run(recipe, network.perceptron(datasets.load("digits"), (32,)), 1437, 360, epochs=20)
    return core.compiled(core.trainer_of(run), run), run


def instructions_table():
    """Return the Markdown table of the instructions, in the order of their codes."""
    lines = ["| code | instruction | unit | fields and their bits, the lowest first | |",
             "| ---: | --- | --- | --- | --- |"]
    for code, (name, operation) in enumerate(OPERATIONS.items()):
        fields = ", ".join(f"`{field}` {FIELDS[kind][0]}" for field, kind in operation.fields.items())
        lines.append(f"| {code} | `{name}` | {operation.unit or 'as told'} | {fields} | {operation.summary} |")
    return "\n".join(lines)


def step():
    """Return the loop over the full batches of the example, as text."""
    lines = example()[0].text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.split()[:2] == ["loop", "44"])
    last = next(number for number in range(first, len(lines)) if lines[number].strip() == "end")
    return "\n".join(["```", *(line[8:] for line in lines[first:last + 1]), "```"])


def main():
    """Write the tables."""
    fill(PAGE, {"instructions": instructions_table(), "step": step()})


if __name__ == "__main__":
    sys.exit(main())
