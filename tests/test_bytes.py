# amaranth: UnusedElaboratable=no
"""tests/bytes.txt has a line for each example and each training, and no other; the trainings are as they were.

The texts are compared in tests/hw/test_lint.py, where each is at hand.
"""

import hashes
from narrowgauge import catalog
from units import examples


def test_trainings_end_with_the_same_digests():
    found = hashes.differences(hashes.trainings())
    assert not found, found


def test_every_line_of_the_file_is_made():
    names = [catalog.find(unit).module_name(parameters) for unit in catalog.UNITS for parameters in examples(unit)]
    assert list(hashes.kept()) == names + [f"train {options}" for options in hashes.TRAININGS]


def test_a_difference_is_told():
    name, digest = next(iter(hashes.kept().items()))
    assert hashes.differences([f"{name} {digest}"]) == ""
    assert hashes.differences([f"{name} 0123", "train --recipe none 4567"]).splitlines() == [
        f"{name}: {digest} became 0123", "train --recipe none: not there became 4567",
        "if that is meant: python tests/hashes.py --write, and say why in the commit"]


def test_a_text_that_changes_has_another_line(monkeypatch):
    parameters = catalog.find("precision-cyclic").parameters()
    line = hashes.line("precision-cyclic", parameters)
    text = catalog.find("precision-cyclic").verilog(parameters)
    monkeypatch.setattr(hashes, "text_of", lambda *_: text.replace("<=", "=", 1))
    assert hashes.line("precision-cyclic", parameters) != line
