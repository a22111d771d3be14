# amaranth: UnusedElaboratable=no
"""docs/adding-a-number-system.md: its excerpts are the files' own, its code runs, its commands configure.

tests/examples/test_posit8.py runs the commands about the posits.
"""

import re
import shlex
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import units
from narrowgauge import catalog
from narrowgauge.cli.parser import parser
from narrowgauge.cli.settings import settings_of
from narrowgauge.golden import array, integer, recipes, systems
from narrowgauge.golden.formats import PRESETS
from narrowgauge.hw import array as hardware
from narrowgauge.hw.circuits import circuits_of
from narrowgauge.sim import array as bench

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-number-system.md").read_text()
BLOCK = r"((?:    .*\n|\n(?=    ))+)"


def test_excerpts_are_the_files_own():
    """Every indented block but the commands, and the code that another test runs, belongs to the file named before."""
    checked = 0
    for before, block in re.findall(r"((?:^[^ \n].*\n)+)\n" + BLOCK, PAGE, re.M):
        names = re.findall(r"`((?:golden|hw|examples)/\w+\.py)`", before.splitlines()[-1])
        own = "import" in block or block.startswith("    narrowgauge ")
        assert bool(names) != own, before
        for name in names:
            assert "\n".join(line[4:] for line in block.splitlines()).rstrip() in (ROOT / name).read_text(), block
        checked += len(names)
    assert checked == 11


def test_a_system_from_outside(monkeypatch):
    # Taken away again afterwards.
    monkeypatch.setattr(systems, "SYSTEMS", dict(systems.SYSTEMS))
    block = re.search(r"(?<=\n\n)(    from dataclasses import dataclass\n(?:    .*\n|\n(?=    ))+)", PAGE)[1]
    space = {"__name__": "outside"}
    exec(textwrap.dedent(block), space)
    parameters = space["parameters"]
    assert parameters.name == "mine" and array.ArrayParameters.from_json(parameters.to_json()) == parameters
    assert f"module {catalog.find('array').module_name(parameters)}(" in space["text"]
    assert '"system": "mine"' in space["text"]

    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1.9, 1.9, (2, 3, 9)).astype(np.float32)
    model = array.ArrayModel(array.ArrayParameters(space["Mine"](lanes=4), memory=1024, buffer=256))
    model.store(0, 3, x)
    model.store(9, 3, y)
    codes = model.multiply(array.Product(3, 3, 9, array.Operand(0, 3), array.Operand(9, 3)))
    expected, _ = integer.matmul(integer.quantise(x, -6), integer.quantise(y.T, -6))
    assert np.array_equal(PRESETS["fp32"].decode(codes), expected)

    # The bench of the array knows it, too.
    vectors = catalog.find("array").vectors(parameters, 300, 1)
    assert units.run("array", parameters, vectors, text=space["text"]).vectors == 300


@pytest.mark.parametrize("part, latency", [
    (None, None), ("cell", 1), ("converter", 1),
    *(pytest.param("cell", latency, marks=pytest.mark.sweep) for latency in (9, 16))])
def test_a_wrong_latency_of_a_system_is_found(part, latency, monkeypatch):
    """By the bench where results go to the wrong place, or else by their time."""
    kinds = {"cell": integer.INT8DotParameters, "converter": integer.INT8ConverterParameters}
    wrong = {name: type(name, (kind,), {"latency": latency}) for name, kind in kinds.items()}

    class Wrong(integer.INT8System):
        def cell(self, sums):
            return wrong["cell"](self.lanes, self.accumulator) if part == "cell" else super().cell(sums)

        def converter(self, side):
            return wrong["converter"](self.work, self.lanes) if part == "converter" else super().converter(side)

    monkeypatch.setattr(systems, "SYSTEMS", systems.SYSTEMS | {"wrong": Wrong})
    parameters = array.ArrayParameters(Wrong(lanes=4), rows=1, columns=1, memory=64, buffer=64)
    if part == "converter":
        vectors = catalog.find("array").vectors(parameters, 300, 1, record=False)
        assert units.outcome_of(hardware.CellArray(parameters), "array_wrong", vectors).mismatches
    else:
        measured, expected = bench.timing(parameters)
        assert (measured == expected) == (part is None)


def test_it_is_not_there_unless_registered():
    with pytest.raises(ValueError, match="^system is 'mine'; allowed: bfp, mx, lns, float, bf16, fp8, int8, plain$"):
        array.ArrayParameters("mine")


def test_commands_configure(monkeypatch):
    monkeypatch.setattr(systems, "SYSTEMS", dict(systems.SYSTEMS))
    commands = re.findall(r"^    narrowgauge (.*)$", re.sub(r"\\\n *", "", PAGE), re.M)
    assert [each.split()[0] for each in commands] == ["generate", "simulate", "synth", "train", "simulate", "synth",
                                                      "train"]
    names = []
    for command in commands:
        options = parser().parse_args(shlex.split(command))
        found = settings_of(options)
        if "unit" in options:
            names.append(catalog.find(options.unit).configure(found).name)
        else:
            names.append(systems.name_of(recipes.make("system", **found).system))
    assert names == ["int8"] * 3 + ["posit8"] * 4


def test_a_system_of_the_users_folder_leaves_the_path_alone(monkeypatch):
    monkeypatch.setattr(systems, "SYSTEMS", dict(systems.SYSTEMS))
    before = [*sys.path]
    assert settings_of(parser().parse_args(["train", "--system", "posit8:Posit8System"])) == {"system": "posit8"}
    assert sys.path == before


def test_circuits_that_are_not_there_are_refused_in_one_line(monkeypatch):
    for path in ("no_such_module:Circuits", "posit8_circuits:Nothing", "posit8_circuits", ":"):
        monkeypatch.setattr(integer.INT8System, "circuits", path)
        with pytest.raises(ValueError, match=f"^circuits is '{path}'; allowed: module:Class of a module that Python "):
            circuits_of(integer.INT8System())
