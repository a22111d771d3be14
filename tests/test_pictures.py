"""The pictures of README and of docs/: each is there, is told in words, and is what its script draws."""

import importlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(PICTURES)
    drawing, rooms, training_core, tutorial = map(importlib.import_module, (
        "drawing", "rooms", "training_core", "tutorial"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_picture_of_a_page_is_there_and_is_told_in_words(page):
    for words, name in re.findall(r"!\[([^]]*)\]\(([^)]*)\)", page.read_text()):
        assert (page.parent / name).is_file() and len(words.split()) > 3, name


def test_each_picture_is_shown():
    shown = {name for page in PAGES for name in re.findall(r"pictures/(\w+\.svg)\)", page.read_text())}
    assert shown == {path.name for path in PICTURES.glob("*.svg")}


@pytest.mark.parametrize(("draw", "name"), [
    (rooms.draw, "rooms"), pytest.param(training_core.draw, "core", marks=pytest.mark.sweep), (tutorial.group, "group"),
    pytest.param(tutorial.learning, "learning", marks=pytest.mark.sweep)],
                         ids=lambda each: each if isinstance(each, str) else "")
def test_a_picture_is_what_its_script_draws(draw, name, monkeypatch, tmp_path):
    monkeypatch.setattr(drawing, "HERE", tmp_path)
    draw()
    text = (tmp_path / f"{name}.svg").read_text()
    assert text == (PICTURES / f"{name}.svg").read_text(), "see `make pictures`"
    assert ElementTree.fromstring(text).get("aria-label")


def test_rooms_import_one_way():
    used = rooms.imports()
    assert used["golden"] == {"base": used["golden"]["base"]} and not used["base"]
    with pytest.raises(ValueError, match="^base imports cli imports base; allowed: no circle$"):
        rooms.floors({"base": {"cli": 1}, "cli": {"base": 1}})
