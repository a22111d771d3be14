"""examples/torch_digits.py trains, and its files start a run of golden."""

import json

import pytest

pytest.importorskip("torch", reason="torch is not installed: `make torch` installs it and runs these tests")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from narrowgauge import cli
from torch_digits import main


def test_the_example_trains_and_hands_over(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(epochs=2) > 0.85
    told = capsys.readouterr().out
    assert told.startswith("0 (Linear): converted, layer 0\n2 (Linear): converted, layer 1\nepoch 1: accuracy 0.")
    assert "\nbit operations: " in told and "\ncycles of a 4 x 4 array: " in told
    command = ("train --recipe bfp --work bf16 --update stochastic --model digits.json --start digits.npz --epochs 1 "
               "--lr 0.001 --json run.json")
    assert not cli.prepare(command.split())()
    # The run begins with the trained weights: one epoch of small steps does not spoil them.
    assert json.loads((tmp_path / "run.json").read_text())["accuracy"]["test"] > 0.85
