"""``narrowgauge plan``: what fits a core, and how fast it is there."""

import json

import pytest
from test_cli import run

DIGITS = ("plan", "--work", "bf16", "--batch", "32")


def test_a_run_that_fits(capsys):
    status, out, err = run(capsys, *DIGITS, "--json", "-", "--core", "lanes=8", "--core", "vectors=2", "--parts", "2",
                           "--clock", "50")
    told = json.loads(out)
    assert (status, err, told["fits"], told["misfit"]) == (0, "", True, None)
    # 64-32-10: X has two batches of examples, and results in blocks of 16 x 16.
    blocks = {"X": 2 * (4 + 2 + 1), "D": 2 * (2 + 1), "W": 2 * 4 + 1 * 2 + 2, "M": 2 * 4 + 1 * 2 + 2}
    assert {name: told["memories"][name]["used"] for name in blocks} == {name: 256 * n for name, n in blocks.items()}
    assert all(told["memories"][name]["size"] >= 256 * n for name, n in blocks.items())
    assert told["memories"]["M"]["block_rams"] == 8  # one for each lane
    assert told["macs_per_step"] == 32 * (2 * 64 * 32 + 3 * 32 * 10)
    assert told["utilisation"] == pytest.approx(told["macs_per_step"] / 64 / told["cycles_per_step"])
    assert told["steps_per_epoch"] == 45
    assert told["seconds_per_epoch"] == pytest.approx(45 * told["cycles_per_step"] / 50e6)
    assert (told["core"]["lanes"], told["core"]["mantissa"], told["seed"]) == (8, 4, 1)
    status, out, _ = run(capsys, *DIGITS)
    assert status == 0 and "an epoch of 45 steps takes" in out


def test_a_run_that_does_not_fit(capsys):
    status, out, err = run(capsys, *DIGITS, "--core", "weights=256")
    assert (status, err) == (1, "")
    assert "does not fit: weights is 256; allowed: 3072 elements or more, which memory W needs" in out
    status, out, _ = run(capsys, *DIGITS, "--core", "program=64", "--json", "-")
    told = json.loads(out)
    assert (status, told["fits"], told["cycles_per_step"], told["seconds_per_epoch"]) == (1, False, None, None)
    assert told["misfit"].startswith("program is 64; allowed: 256 or more")


def test_a_long_program_makes_a_core_with_room_for_it(capsys):
    """Nine layers need more instructions than a core has room for by default."""
    hidden = ("--hidden", ",".join(["8"] * 9))
    assert json.loads(run(capsys, *DIGITS, *hidden, "--json", "-")[1])["core"]["program"] == 1024
    status, out, _ = run(capsys, *DIGITS, *hidden, "--core", "program=512")
    assert status == 1 and "does not fit: program is 512; allowed: 1024 or more, for " in out


@pytest.mark.parametrize("arguments, error", [
    (("--core", "lames=3"), "parameter is 'lames'; allowed: system, rows,"),
    (("--core", "lanes=3"), "lanes is 3; allowed: 1, 2, 4, 8, 16"),
    (("--core", "lanes"), "--core is 'lanes'; allowed: NAME=VALUE"),
    (("--clock", "0"), "clock is 0.0; allowed"), (("--clock", "nan"), "clock is nan; allowed"),
    (("--parts", "9"), "parts is 9; allowed: an integer from 1 to 8"),
    (("--work", "fp32"), "softmax is None; allowed: a head: give --softmax-bits"),
    (("--recipe", "lns-madam", "--set", "second=fp32"), "weights is Log("),
    (("--recipe", "fp16", "--work", "fp16"), "softmax is None; allowed: a head: give --softmax-bits"),
    (("--batch-norm",), "batch statistics of layer 1 is True"), (("--batch", "0"), "argument --batch"),
])
def test_what_has_no_plan_is_one_line(capsys, arguments, error):
    status, out, err = run(capsys, *DIGITS, *arguments)
    assert (status, out) == (2, "")
    assert error in err
    assert err.count("\n") == 1 or "usage:" in err


def test_a_board_has_its_core_its_clock_and_its_line(capsys):
    run_of = (*DIGITS, "--recipe", "bfp", "--update", "stochastic")
    told = json.loads(run(capsys, *run_of, "--board", "ulx3s-85f", "--json", "-")[1])
    facts = told["board"]
    assert (told["core"]["rows"], told["core"]["merged"], told["clock_mhz"]) == (2, True, 62.5)
    assert (facts["available"], facts["data"] * 4 >= 1797 * 64) == (208, True)
    # 1,797 rows of 64 bytes, and parameters in 16 bits. Velocities are zeros, which the table has: they are bytes. An
    # epoch has places of rows, labels and logits.
    once = 1797 * 64 + (2 + 1) * (64 * 32 + 32 + 32 * 10 + 10)
    epoch = 4 * (2 * 1437 + 360) + 2 * 1437 + 2 * 10 * 1797
    for name, least in (("once", once), ("epoch", epoch)):
        assert least * 10 / 1e6 < facts["line_seconds"][name] < 1.1 * least * 10 / 1e6, name
    status, out, _ = run(capsys, *run_of, "--board", "ulx3s-25f")
    assert status == 0 and "examples are sent again for each epoch" in out
    status, out, _ = run(capsys, *run_of, "--board", "ulx3s-25f", "--hidden", "512")
    assert status == 1 and "does not fit ulx3s-25f: " in out
