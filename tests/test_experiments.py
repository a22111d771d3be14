"""The pages of docs/ that tell what experiments found: results, tables and page belong together."""

import csv
import importlib
import re
from pathlib import Path

import pytest
from narrowgauge.golden import blockfloat

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

DOCS = Path(__file__).parents[1] / "docs"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(DOCS)
    experiments, *pages, array_cost, energy, unit_costs = map(importlib.import_module, (
        "experiments", "fp16", "logarithmic", "update", "precision", "softmax", "work", "recipes", "array_cost",
        "energy", "unit_costs"))
fp16, logarithmic, update, precision, softmax, work, recipes = pages

PAGES = pytest.mark.parametrize("page", pages, ids=lambda page: page.__name__)
needs_fashion = pytest.mark.skipif(not experiments.datasets.FASHION.is_dir(),
                                   reason="dataset-fashion-mnist is not installed")


@PAGES
def test_results_are_whole(page):
    assert list(experiments.read(page.RESULTS)) == page.JOBS


@pytest.mark.parametrize("page", [*pages, array_cost, energy], ids=lambda page: page.__name__)
def test_page_holds_the_tables_of_the_results(page):
    text = page.PAGE.read_text()
    for name, content in page.tables().items():
        assert f"<!-- {name} -->\n{content}\n<!-- end -->" in text


@pytest.mark.parametrize("page", unit_costs.PAGES, ids=lambda page: page.stem)
def test_page_holds_the_measured_costs(page):
    assert f"<!-- units -->\n{unit_costs.table(page)}\n<!-- end -->" in page.read_text()


def test_a_unit_without_rows_of_its_own_has_those_of_its_entry(monkeypatch):
    columns, more, rows = unit_costs.PAGES[unit_costs.PAGE]
    before = unit_costs.table(unit_costs.PAGE).splitlines()
    assert not unit_costs.others()
    monkeypatch.setitem(unit_costs.PAGES, unit_costs.PAGE, (columns, more, [
        row for row in rows if row[0] not in ("float-mac", "mx-dot")]))
    after = unit_costs.table(unit_costs.PAGE).splitlines()
    named = [re.sub(r"(` )\(.*?\) ", r"\1", line) for line in before]  # rows of their own say more of the unit
    assert sorted(after) != sorted(before)
    assert sorted(re.sub(r"(` )\(.*?\) ", r"\1", line) for line in after) == sorted(named)
    monkeypatch.setattr(unit_costs, "read", lambda: {})
    assert ("float-mac", "{}") in unit_costs.jobs()  # measured or not


def test_readme_holds_the_measured_accuracies():
    assert f"<!-- recipes -->\n{recipes.tables()['recipes']}\n<!-- end -->" in recipes.README.read_text()


@needs_fashion
def test_statistics_repeat_themselves(tmp_path, monkeypatch):
    table = fp16.moment_table()
    monkeypatch.setattr(fp16, "MOMENTS", tmp_path / "moments.csv")
    experiments.save(fp16.MOMENTS, ("chunk", "channel", "mean", "variance"), fp16.moments())
    assert fp16.moment_table() == table


@pytest.mark.parametrize(("page", "job"), [
    (fp16, ("digits-mlp", "fp32", 1)), (fp16, ("digits-mlp", "fp16", 1)),
    pytest.param(logarithmic, ("fashion-mlp", "lns-madam", 1), marks=[needs_fashion, pytest.mark.sweep]),
    pytest.param(logarithmic, ("digits-mlp", "sgd8", 1), marks=pytest.mark.sweep),
    pytest.param(update, ("digits-0.003", "kahan", 1), marks=pytest.mark.sweep),
    pytest.param(work, ("digits", "bf16", 1), marks=pytest.mark.sweep),
    pytest.param(work, ("Fashion-MNIST", "bfp in bf16, kahan", 1), marks=[needs_fashion, pytest.mark.sweep]),
    (softmax, ("digits", "stochastic-4", 1)),
    pytest.param(precision, ("digits-mlp", "cpt-32-low2", 1), marks=pytest.mark.sweep),
    (recipes, ("digits", "bfp", 1)),
    pytest.param(precision, ("digits-mlp", "fast-reversed", 1), marks=pytest.mark.sweep),
], ids=lambda each: "-".join(map(str, each)) if isinstance(each, tuple) else "")
def test_a_result_repeats_itself(page, job):
    assert {name: str(value) for name, value in page.run(job).items()} == experiments.read(page.RESULTS)[job]


def test_the_products_of_every_run_are_those_of_its_passes():
    rows = experiments.read(precision.RESULTS).values()
    for row in rows:
        passes = sum(m * n * -(-k // 16) * blockfloat.passes(a, b) * count
                     for m, n, k, a, b, count in precision.unpacked(row["products"]))
        assert str(passes or "") == row["passes"]
    assert {row["passes"] == "" for row in rows if row["variant"] == "fp32"} == {True}


@pytest.mark.sweep
def test_widths_over_time_repeat_themselves():
    with precision.WIDTHS.open(newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    assert [tuple(map(str, row)) for row in precision.course("fast")] == [row for row in rows if row[0] == "fast"]
