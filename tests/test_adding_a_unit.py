# amaranth: UnusedElaboratable=no
"""docs/adding-a-unit.md: its files make a unit of a copy of the package, which is golden; its fault is found."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import test_catalog
import units
from faults import catalogue

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
