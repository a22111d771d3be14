"""``narrowgauge train --rtl``: training in a core's Verilog, beside golden."""

import subprocess
import sys

import pytest
from test_cli import run

DIGITS = ("train", "--work", "bf16", "--examples", "70,45", "--epochs", "1")


@pytest.mark.parametrize("arguments, error", [
    (("--core", "rows=2"), "--core is ['rows=2']; allowed: with --rtl"),
    (("--parts", "2"), "--parts is 2; allowed: with --rtl"), (("--blocks", "2"), "--blocks is 2; allowed: with --rtl"),
    (("--check", "step"), "--check is 'step'; allowed: with --rtl"),
    (("--program", "p.txt"), "--program is 'p.txt'; allowed: with --rtl"),
    (("--waves", "w.vcd"), "--waves is 'w.vcd'; allowed: with --rtl"),
    (("--window", "1,2"), "--window is '1,2'; allowed: with --rtl"),
    (("--rtl", "--check", "epoch"), "--check is 'epoch'; allowed: step, instruction"),
    (("--rtl", "--resume", "run.npz"), "--resume is 'run.npz'; allowed: none with --rtl"),
    (("--rtl", "--start", "run.npz"), "--start is 'run.npz'; allowed: none with --rtl"),
    (("--rtl", "--waves", "w.fst"), "--waves is 'w.fst'; allowed: a name that ends in .vcd"),
    (("--rtl", "--window", "1,2"), "--window is '1,2'; allowed: with --waves"),
    (("--rtl", "--waves", "w.vcd", "--window", "3,2"), "--window is '3,2'; allowed: two cycles"),
    (("--rtl", "--waves", "w.vcd", "--window", "3,x"), "--window is '3,x'; allowed: two cycles"),
    (("--rtl", "--program", "/no/where.txt"), "--program is '/no/where.txt'; allowed: a file that can be written"),
    (("--rtl", "--core", "lames=3"), "parameter is 'lames'; allowed: system, rows,"),
    (("--rtl", "--core", "weights=256"), "weights is 256; allowed: 3072 elements or more, which memory W needs"),
    (("--rtl", "--parts", "9"), "parts is 9; allowed: an integer from 1 to 8"),
    (("--rtl", "--work", "fp32"), "softmax is None; allowed: a head: give --softmax-bits"),
])
def test_what_cannot_be_trained_is_one_line(capsys, monkeypatch, tmp_path, arguments, error):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *DIGITS, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"narrowgauge train: {error}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_it_nothing_of_circuits_or_simulators_is_imported():
    script = ("import sys; from narrowgauge.cli import main; main(sys.argv[1:]); "
              "print(sorted({name.split('.')[1] for name in sys.modules if name.startswith('narrowgauge.')}))")
    found = subprocess.run([sys.executable, "-c", script, *DIGITS], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "['base', 'cli', 'golden']"
