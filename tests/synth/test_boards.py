# amaranth: UnusedElaboratable=no
"""Boards: their clocks, their pins, and bitstreams of a device round an echo."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest
from echo import CONFIGURATION, Echo
from narrowgauge.hw.host.text import serial_text
from narrowgauge.synth.boards import BOARDS
from narrowgauge.synth.boards.pll import PHASE, VCO, pll

REAL = [board for board in BOARDS.values() if board.platform]


@pytest.mark.parametrize("given", [25.0, 48.0])
@pytest.mark.parametrize("most", [14.0, 33.3, 50.0, 62.5, 80.0, 123.4, 400.0])
def test_a_pll_makes_the_fastest_clock_that_is_allowed(given, most):
    found = pll(given, most)
    exact = Fraction(given) * found.feedback / found.reference
    assert abs(exact - Fraction(found.mhz)) < Fraction(1, 10**9) and exact <= most
    assert VCO[0] <= exact * found.output <= VCO[1]
    assert PHASE[0] <= given / found.reference <= PHASE[1]
    for reference in range(1, int(given / PHASE[0]) + 1):  # no faster one, by all fractions
        for feedback in range(1, 129):
            clock = Fraction(given) * feedback / reference
            if exact < clock <= most:
                assert not any(VCO[0] <= clock * output <= VCO[1] for output in range(1, 129))


def test_a_clock_below_all_is_refused():
    with pytest.raises(ValueError, match="^clock is 1; allowed: a clock that a PLL makes of 25 MHz$"):
        pll(25, 1)


@pytest.mark.parametrize("board", REAL, ids=lambda board: board.name)
def test_a_board_has_a_clock_a_serial_line_and_a_pll(board):
    pytest.importorskip("amaranth_boards")
    from narrowgauge.synth.boards.flow import clock_of
    from narrowgauge.synth.boards.top import Top, platform_of
    clock = clock_of(board)
    assert clock.mhz == board.mhz
    plan = platform_of(board).prepare(Top("device", clock), "top")
    pins = plan.files["top.lpf"].decode() if isinstance(plan.files["top.lpf"], bytes) else plan.files["top.lpf"]
    sites = dict(re.findall(r'LOCATE COMP "(\w+)" SITE "(\w+)"', pins))
    assert {"uart_0__rx__io", "uart_0__tx__io"} < sites.keys() and len(set(sites.values())) == len(sites)


@pytest.fixture(scope="module")
def text():
    return serial_text(CONFIGURATION, "device", 62, 1 << 20, Echo())


@pytest.mark.parametrize("name, most", [
    ("ulx3s-25f", 62.5), pytest.param("orangecrab-25f", 400.0, marks=pytest.mark.sweep)])
def test_a_bitstream_is_made_and_its_clock_is_reached(text, name, most):
    pytest.importorskip("amaranth_boards")
    from narrowgauge.base.files import cache_folder
    from narrowgauge.synth.boards.flow import built, clock_of
    board, said = BOARDS[name], []
    work = cache_folder("boards") / f"test-{name}"
    work.mkdir(exist_ok=True)
    found = built(board, "device", text, clock_of(board, most), work, seeds=1, say=said.append)
    assert found["fits"] and found["misfit"] is None
    assert found["clock_mhz"] <= min(found["fmax_mhz"], most)
    # What no device reaches is placed again, for a clock that it reached.
    assert (found["clock_mhz"] == most) == (len([line for line in said if line.startswith("placing")]) == 1)
    settings = (work / f"seed{found['seed']}.config").read_text()
    clock = clock_of(board, found["clock_mhz"])
    assert clock.mhz == found["clock_mhz"]
    for key, value in (("CLKI_DIV", clock.reference), ("CLKFB_DIV", clock.feedback), ("CLKOP_DIV", clock.output)):
        bits = re.search(rf"word: {key} (\d+)", settings)[1]
        assert int(bits, 2) == value - 1
    assert (work / "top.bit").stat().st_size > 100_000
    assert 0 < found["lut"] < found["capacity"]["lut"]


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    """In a log as nextpnr writes it: of one kind all are used, and of another one more than there are."""
    from narrowgauge.synth.boards import flow
    log = "".join(f"Info:         {bel:>20}: {used:>6}/{there:>6} {100 * used // there:>5}%\n" for bel, used, there in (
        ("DP16KD", 57, 56), ("MULT18X18D", 28, 28), ("TRELLIS_COMB", 100, 24288), ("TRELLIS_FF", 30, 24288)))
    monkeypatch.setattr(flow.tools, "run", lambda *_, **__: log)
    found = flow.counted(tmp_path, [])
    assert found["misfit"] == "1 DP16KD too few: it needs 57, and the device has 56" and not found["fits"]
    assert (found["bram"], found["capacity"]["bram"], found["dsp"], found["lut"]) == (57, 56, 28, 100)


@pytest.mark.sweep
def test_a_board_that_is_too_small_says_by_how_much():
    pytest.importorskip("amaranth_boards")
    from narrowgauge.base.files import cache_folder
    from narrowgauge.synth.boards.flow import built, clock_of
    large = replace(CONFIGURATION, data=32768)
    board = BOARDS["ulx3s-25f"]
    work = cache_folder("boards") / "test-large"
    work.mkdir(exist_ok=True)
    found = built(board, "device", serial_text(large, "device", 62, 1 << 20, Echo()), clock_of(board), work)
    assert not found["fits"] and found["bitstream"] is None
    missing, used = re.match(r"(\d+) DP16KD too few: it needs (\d+), and the device has 56$", found["misfit"]).groups()
    assert int(missing) == int(used) - 56 == found["bram"] - 56 and int(used) >= 64
