"""The tables of docs/ about the core: those of the results, and what golden's model of cycles tells now."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parents[1] / "docs")
    core, core_rtl, core_systems, host = map(importlib.import_module, ("core", "core_rtl", "core_systems", "host"))

TABLES = [
    (core.PAGE, "parameters", core.parameters_table), (core.PAGE, "instructions", core.instructions_table),
    (core_rtl.PAGE, "runs", core_rtl.runs_table), (core_rtl.PAGE, "placed", core_rtl.costs_table),
    (core_rtl.PAGE, "parts", core_rtl.parts_table), (core_systems.PAGE, "systems", core_systems.systems_table),
    (core_systems.PAGE, "loss", core_systems.losses_table),
    (core_systems.PAGE, "searches", core_systems.searches_table), (host.PAGE, "registers", host.registers_table),
]


@pytest.mark.parametrize("page, name, table", TABLES, ids=lambda each: each if isinstance(each, str) else "")
def test_a_page_holds_the_table(page, name, table):
    assert f"<!-- {name} -->\n{table()}\n<!-- end -->" in page.read_text()


@pytest.mark.parametrize("label", [label if label in ("BFP, 2 bits", "INT8") else
                                   pytest.param(label, marks=pytest.mark.sweep) for label in core_systems.ROWS])
def test_a_number_system_has_the_cycles_of_the_model(label):
    row = core_systems.kept(core_systems.RUNS)[label]
    assert {name: str(value) for name, value in core_systems.model(label, row).items()} == row


@pytest.mark.sweep
@pytest.mark.parametrize("label", core_rtl.ROWS)
def test_a_run_has_the_cycles_of_the_model(label):
    row = core_rtl.kept(core_rtl.RUNS)[label]
    assert str(core_rtl.modelled(["--epochs", row["epochs"], *core_rtl.ROWS[label]])) == row["model"]
