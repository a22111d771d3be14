"""The pages of docs/ that tell what experiments found: results, tables and page belong together."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("fp16", DOCS / "fp16.py")
fp16 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fp16)


def test_results_are_whole():
    assert set(fp16.read()) == {(case, variant, seed) for case in fp16.CASES for variant in fp16.VARIANTS
                                for seed in fp16.SEEDS}


def test_page_holds_the_tables_of_the_results():
    page = fp16.PAGE.read_text()
    for name, content in (("settings", fp16.settings_table()), ("results", fp16.table(fp16.read())),
                          ("moments", fp16.moment_table()), ("gradients", fp16.gradient_table())):
        assert f"<!-- {name} -->\n{content}\n<!-- end -->" in page


@pytest.mark.skipif(not fp16.datasets.FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_statistics_repeat_themselves(tmp_path, monkeypatch):
    table = fp16.moment_table()
    monkeypatch.setattr(fp16, "MOMENTS", tmp_path / "moments.csv")
    fp16.save(fp16.MOMENTS, ("chunk", "channel", "mean", "variance"), fp16.moments())
    assert fp16.moment_table() == table


@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_a_result_repeats_itself(variant):
    row = fp16.read()["digits-mlp", variant, 1]
    assert {name: str(value) for name, value in fp16.run(("digits-mlp", variant, 1)).items()} == row
