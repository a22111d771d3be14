# amaranth: UnusedElaboratable=no
"""docs/tutorial.md: its Python prints what the page says, and its accuracies are those of the trainings."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()


def test_its_python_prints_what_the_page_says():
    """The comments behind a line are no output. Each block goes on with the names of the one before."""
    names = {}
    blocks = re.findall(r"```python\n(.*?)```.*?```text\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 2 == PAGE.count("```python")
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue() == expected


def test_its_accuracies_are_those_of_the_trainings(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(ROOT / "docs" / "pictures")
    import tutorial
    found = {name: rows[-1].test_accuracy for name, rows in tutorial.courses().items()}
    (told,) = re.findall(r"accuracy is (0\.\d+) in fp32, (0\.\d+) with 4 bits and (0\.\d+) with 2 bits", PAGE)
    assert [f"{found[name]:.3f}" for name in ("fp32", "bfp, 4 bits", "bfp, 2 bits")] == list(told)


def test_its_signals_are_in_the_verilog():
    from narrowgauge import catalog
    entry = catalog.find("bfp-fmac")
    parameters = entry.configure({"accumulator": "bf16"})
    text = entry.verilog(parameters)
    assert entry.component(parameters).interval == 4
    for name in ("i_valid", "i_ready", "i_payload", "chunk_a", "chunk_b", "o_valid", "o_payload"):
        assert f"`{name}`" in PAGE and re.search(rf"\b(reg|wire|output|input)\b[^;]*\b{name}\b", text), name
