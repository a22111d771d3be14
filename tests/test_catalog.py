# amaranth: UnusedElaboratable=no
"""Every unit's entry in the catalogue has all its parts, and the unit is told of and tried wherever units are."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from narrowgauge import catalog
from narrowgauge.catalog import Bench
from narrowgauge.golden import array
from narrowgauge.hw import verilog
from units import examples

ROOT = Path(__file__).parents[1]
UNITS = pytest.mark.parametrize("unit", catalog.UNITS.values(), ids=lambda unit: unit.name)


def room(part):
    """Return the room and the topic in which a part is defined: ("hw", "floating")."""
    return part.__module__.split(".")[1:3]


def parts(unit):
    """Return the functions of a unit's bench; `operands` may be missing."""
    functions = [getattr(unit.bench, field.name) for field in dataclasses.fields(Bench)]
    assert all(functions[:3])
    return [function for function in functions if function is not None]


@UNITS
def test_every_part_comes_from_its_room(unit):
    kind, topic = room(unit.golden)
    assert kind == "golden"
    assert room(unit.parameters) == [kind, topic] and room(unit.component) == ["hw", topic]
    assert all(room(function) == ["sim", topic] for function in parts(unit))


@UNITS
def test_every_part_is_documented_as_that_of_the_unit(unit):
    assert f"``{unit.name}``" in unit.parameters.__doc__
    # The array's model holds what a function would be given.
    assert f"``{unit.name}``" in unit.golden.__doc__ or unit.golden is array.ArrayModel
    assert next(iter(inspect.signature(unit.golden).parameters)) == "parameters"
    for function in parts(unit):
        assert next(iter(inspect.signature(function).parameters)) == "parameters"


@UNITS
def test_examples_are_made_and_named_apart(unit):
    names = [unit.module_name(parameters) for parameters in unit.examples]
    assert len(names) == len(set(names)) and unit.module_name(unit.parameters()) in names
    assert unit.corners and set(unit.examples) >= {unit.configure(row) for row in (unit.small, *unit.corners)}
    assert unit.shown and all(unit.configure(row) for row in unit.shown)


@UNITS
def test_every_field_of_every_port_has_a_meaning(unit):
    for parameters in examples(unit):
        for line in verilog.describe_ports(unit.component(parameters)):
            assert re.fullmatch(r"\w+  (in|out) \d+  \S.*|  \[\d+:\d+\]  [\w.]+: \S.*", line), line


@UNITS
def test_macs_are_those_of_a_cycle(unit):
    multiplies = any(word in unit.summary for word in ("dot product", "multiply-add", "added to", "matrix products"))
    assert (unit.macs is not None) == multiplies
    for parameters in unit.examples:
        assert unit.macs is None or unit.macs(parameters) > 0


@UNITS
def test_a_page_and_the_changelog_tell_of_it(unit):
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    assert any(f"`{unit.name}`" in page.read_text() for page in pages if page.name != "numerics.md")
    assert f"`{unit.name}`" in (ROOT / "CHANGELOG.md").read_text()


def test_topics_have_entries():
    topics = {path.stem for path in (ROOT / "catalog").glob("*.py")} - {"__init__", "unit"}
    assert topics == {room(unit.component)[1] for unit in catalog.UNITS.values()}
