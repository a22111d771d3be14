"""``narrowgauge build``: the files for a host. Bitstreams are in synth/test_boards.py."""

import json

import pytest
from narrowgauge import cli
from narrowgauge.cli import build
from narrowgauge.golden.host import Configuration
from narrowgauge.host import BoardFile
from narrowgauge.synth import boards
from test_cli import run

RUN = ("--recipe", "bfp", "--work", "bf16", "--update", "stochastic")


@pytest.fixture
def quick(monkeypatch):
    """Verilog that takes no time."""
    monkeypatch.setattr(build, "serial_text", lambda configuration, name, divisor, timeout: f"module {name};\n")


def test_a_board_that_is_simulated_has_files_alone(capsys, tmp_path, quick):
    folder = tmp_path / "board"
    status, out, err = run(capsys, "build", "--board", "simulated", *RUN, "-o", str(folder), "--json", "-")
    told = json.loads(out)
    assert (status, err, told["fits"], told["bitstream"]) == (0, "", True, None)
    file = BoardFile.read(folder / "board.json")
    assert file.configuration == Configuration.from_json(told["parameters"])
    assert (file.board, file.clock_mhz, file.divisor, file.baud) == ("simulated", 50, 50, 1_000_000)
    assert file.configuration.data * 4 >= 1797 * 64  # all digits, as bytes
    assert file.configuration.trainer.rows == 2
    assert "addrmap narrowgauge" in (folder / "registers.rdl").read_text()


def test_a_board_that_is_too_small_has_status_1_and_no_file(capsys, tmp_path, quick, monkeypatch):
    pytest.importorskip("amaranth_boards")
    from narrowgauge.synth.boards import flow
    misfit = "17 DP16KD too few: it needs 73, and the device has 56"
    counts = dict.fromkeys(("lut", "ff", "dsp", "bram"), 1)
    monkeypatch.setattr(flow, "built", lambda *given, **settings: {
        **counts, "capacity": counts, "fits": False, "misfit": misfit, "clock_mhz": None, "bitstream": None})
    status, out, _ = run(capsys, "build", "--board", "ulx3s-25f", *RUN, "-o", str(tmp_path / "board"))
    assert status == 1 and f"does not fit ulx3s-25f: {misfit}" in out
    assert not (tmp_path / "board" / "board.json").exists()


@pytest.mark.parametrize("text, error", [
    ("{", "is no JSON"), ("[]", "is 'without board, configuration, hash"), ("{\"board\": 1}", "without configuration")])
def test_a_file_that_is_none_is_refused(tmp_path, text, error):
    path = tmp_path / "board.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=error):
        cli.prepare(["board", str(path)])


def test_every_board_is_one_that_a_run_can_be_planned_for(capsys):
    for name in boards.BOARDS:
        assert run(capsys, "plan", "--board", name, *RUN)[0] == 0
