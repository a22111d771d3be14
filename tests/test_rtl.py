"""``narrowgauge train --rtl``: training in a core's Verilog, beside golden."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cores import alone, core_of, recipe_of, with_head_of
from narrowgauge import catalog
from narrowgauge.golden import core, datasets, network, recipes
from narrowgauge.golden.core import transfers
from narrowgauge.sim.core import CoreModel
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
    (("--rtl", "--resume", "run.npz"), "run.npz: No such file or directory"),
    (("--rtl", "--start", "run.npz"), "run.npz: No such file or directory"),
    (("--rtl", "--waves", "w.fst"), "--waves is 'w.fst'; allowed: a name that ends in .vcd"),
    (("--rtl", "--window", "1,2"), "--window is '1,2'; allowed: with --waves"),
    (("--rtl", "--waves", "w.vcd", "--window", "3,2"), "--window is '3,2'; allowed: two cycles"),
    (("--rtl", "--waves", "w.vcd", "--window", "3,x"), "--window is '3,x'; allowed: two cycles"),
    (("--rtl", "--program", "/no/where.txt"), "--program is '/no/where.txt'; allowed: a file that can be written"),
    (("--rtl", "--core", "lames=3"), "parameter is 'lames'; allowed: system, rows,"),
    (("--rtl", "--core", "weights=256"), "weights is 256; allowed: 3072 elements or more, which memory W needs"),
    (("--rtl", "--parts", "9"), "parts is 9; allowed: an integer from 1 to 8"),
    (("--rtl", "--work", "fp32"), "softmax is None; allowed: a head: give --softmax-bits, such as 16"),
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


@pytest.fixture
def options_of(monkeypatch):
    """Returns options for a core that other tests build too. Recipes have its head."""
    def options(name):
        parameters, _, text = core_of(name)
        monkeypatch.setattr(recipes.Recipe, "with_head", lambda recipe, _: with_head_of(parameters, recipe))
        monkeypatch.setattr(catalog.Unit, "verilog", lambda unit, others: text if others == parameters else None)
        return (*DIGITS, "--rtl", *(word for name, value in parameters.to_json().items()
                                    for word in ("--core", f"{name}={json.dumps(value)}")))

    with alone():
        yield options


@pytest.fixture
def merged(options_of):
    return options_of("merged")


def test_it_ends_with_one_digest_twice(capsys, tmp_path, merged):
    program = tmp_path / "digits.txt"
    status, out, err = run(capsys, *merged, "--json", "-", "--program", str(program), "--check", "step", "--seed", "3")
    told = json.loads(out)
    found = told["rtl"]
    assert (status, err) == (0, "")
    assert (found["digest"], found["state_digest"], found["identical"]) == (told["digest"], told["state_digest"], True)
    assert found["evaluation"]["accuracy"] == told["accuracy"]
    assert (found["steps"], found["macs"], found["check"]) == (3, 70 * (2 * 64 * 32 + 3 * 32 * 10), "step")
    assert found["utilisation"] == found["macs"] / 16 / found["cycles"]  # 4 cells of 16, four passes of 2 bits by 2
    assert set(found["busy"]) == {"in", "array", "head", "vector", "out"}
    assert 0 < found["evaluation"]["cycles"] < found["cycles"] and found["seconds"] > 0
    assert (found["core"]["merged"], found["invalid"], found["overflow"]) == (True, None, None)
    assert {"starved", "blocked", "parts", "blocks", "simulator"} < set(found)
    instructions = [each.name for each in core.assemble(program.read_text()).instructions]
    assert instructions[-1] == "halt" and ["step", "sync"] in [instructions[k:k + 2] for k in range(len(instructions))]
    status, out, err = run(capsys, *merged, "--verbose", "--seed", "3")
    *_, busy, simulated, golden, mine, verdict = out.splitlines()
    assert (status, verdict, golden) == (0, "identical", f"digest {found['digest']}")
    assert mine == f"{golden} of the core" and busy.startswith("busy: in ") and simulated.startswith("simulated ")
    assert err.startswith("epoch 1/1: loss ") and err.endswith(" of the peak\n") and " cycles, " in err


def test_compensations_have_one_digest_twice_too(capsys, options_of):
    status, out, err = run(capsys, *options_of("lanes"), "--update", "kahan", "--decay", "0.01", "--momentum", "0.8",
                           "--epochs", "2", "--lr", "0.01", "--check", "step", "--json", "-")
    told = json.loads(out)
    found = told["rtl"]
    assert (status, err, told["update"]) == (0, "", "kahan")
    assert (found["digest"], found["state_digest"], found["identical"]) == (told["digest"], told["state_digest"], True)


def test_a_run_goes_on_in_the_core_and_in_golden(capsys, monkeypatch, tmp_path, merged):
    """Golden, then the core, then golden again: the digest of a run in one piece. A file has what the core sent."""
    path, other, right, wrong = (str(tmp_path / name) for name in ("run.npz", "whole.npz", "right.npz", "wrong.npz"))
    options = ("--seed", "3", "--update", "stochastic")
    own = (*options, "--save", path, "--resume", path)
    _, out, _ = run(capsys, *DIGITS, *options, "--epochs", "3", "--save", other, "--json", "-")
    whole = json.loads(out)
    assert run(capsys, *DIGITS, *options, "--save", path)[0] == 0
    status, out, err = run(capsys, *merged, *own, "--epochs", "2", "--verbose")
    assert (status, out.splitlines()[-1]) == (0, "identical") and err.count("\n") == 1
    assert "core: 3 steps in" in out  # those of the second epoch
    status, out, err = run(capsys, *DIGITS, *own, "--epochs", "3", "--json", "-")
    told = json.loads(out)
    assert (status, err) == (0, "") and all(told[name] == whole[name] for name in (
        "digest", "state_digest", "history", "precision"))
    assert Path(path).read_bytes() == Path(other).read_bytes()
    # Parameters of another run, and one bit of what the core sends, which its file has too.
    codes = transfers.Transfers.codes
    monkeypatch.setattr(transfers.Transfers, "codes", lambda self, message, *shape: codes(
        self, message, *shape) ^ (shape == (10, 32)))
    status, out, err = run(capsys, *merged, *options, "--start", path, "--save", wrong)
    assert status == 1 and out.endswith("different: --check step tells where it begins\n")
    run(capsys, *DIGITS, *options, "--start", path, "--save", right)
    with np.load(wrong) as found, np.load(right) as expected:
        assert all(np.array_equal(found[name], expected[name]) == (name[:10] != "1.weights.")
                   for name in expected.files)


@pytest.mark.parametrize("message, steps", [(1, (1, 3)), (9, (7, 7)), (30, (8, 12)), (45, (14, 14))])
def test_ctrl_c_saves_what_the_core_has(capsys, monkeypatch, tmp_path, merged, message, steps):
    """In steps of the first and the second of two epochs of seven, and where accuracy is measured after them."""
    options = ("--seed", "3", "--batch", "10", "--epochs", "2")
    path, other = tmp_path / "run.npz", tmp_path / "other.npz"
    following, count = CoreModel.next, iter(range(1000))

    def interrupted(self, synced=False):
        if next(count) == message:
            os.kill(os.getpid(), signal.SIGINT)
        return following(self, synced)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(CoreModel, "next", interrupted)
    status, out, err = run(capsys, *merged, *options, "--save", str(path))
    found = re.fullmatch(rf"narrowgauge train: interrupted after (\d+) of 14 steps; resume from {path}\n", err)
    assert (status, out) == (130, "") and found, err
    step = int(found[1])
    assert steps[0] <= step <= steps[1] and signal.getsignal(signal.SIGINT) == before
    # Golden's file of this step has the same content, and its run the same end.
    recipe = recipe_of("bfp")
    usual = {"seed": 3, "batch": 10, "epochs": 2, "lr": 0.1, "decay": 0.0}
    data = datasets.load("digits").first(70, 45)

    def record(number, *_):
        if number == step:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        network.train(recipe, data, save=other, record=record, **usual)
    if step < 14:
        assert path.read_bytes() == other.read_bytes()
    whole = network.train(recipe, data, **usual)
    assert network.train(recipe, data, resume=path, **usual).digest == whole.digest


def test_a_run_that_diverges_is_alike(capsys, tmp_path, merged):
    """A number beyond all others makes sums infinite, and losses NaN, in golden and in the core."""
    data = datasets.load("digits").first(70, 45)
    x = data.train_x.copy()
    x[7, 20] = 3e38
    np.savez(tmp_path / "odd.npz", train_x=x, train_y=data.train_y, test_x=data.test_x, test_y=data.test_y)
    status, out, err = run(capsys, *merged, "--data", f"npz:{tmp_path}/odd.npz", "--lr", "0.1", "--json", "-")
    told = json.loads(out)
    assert (status, told["rtl"]["identical"], told["loss"]) == (0, True, None)
    assert told["diverged"] and told["overflow"] and told["rtl"]["overflow"] is not None
    assert err.startswith("narrowgauge train: warning: the run diverged in epoch 1, ") and err.count("\n") == 1


def test_a_core_that_differs_is_told(capsys, monkeypatch, merged):
    """One bit of what the core sends: of logits, and of parameters. Then one of a memory."""
    codes, memory = transfers.Transfers.codes, CoreModel.memory
    for rows, text in ((6, "; the core: loss "), (10, "")):
        monkeypatch.setattr(transfers.Transfers, "codes", lambda self, message, *shape, rows=rows: codes(
            self, message, *shape) ^ (0x4000 if shape[0] == rows else 0))
        status, out, err = run(capsys, *merged, "--verbose")
        assert status == 1 and out.endswith(" of the core\ndifferent: --check step tells where it begins\n")
        assert text in err and err.count("\n") == 1
    monkeypatch.setattr(transfers.Transfers, "codes", codes)
    monkeypatch.setattr(CoreModel, "memory", lambda self, path: memory(self, path) ^ (path == "memory_m.bank0_words"))
    status, out, err = run(capsys, *merged, "--check", "instruction")
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert err.startswith("narrowgauge train: the core and golden differ: cycle ")
    assert "w1[0, 0] in M, plane 1 is 0x1 " in err and "after instruction " in err
