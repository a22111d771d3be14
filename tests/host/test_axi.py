# amaranth: UnusedElaboratable=no
"""A device's AXI buses round an echo, by cocotbext-axi: registers, holes, orders, stalls, resets, long traffic."""

import pytest
from echo import CONFIGURATION, DEPTH, Echo
from narrowgauge.hw.host.text import axi_text
from narrowgauge.sim import runner


def run(tmp_path, cycles, seed):
    pytest.importorskip("cocotbext.axi")
    from cocotb_tools.check_results import get_results
    name = "echo_axi"
    text = axi_text(CONFIGURATION, name, Echo())
    head = text[text.index(f"module {name}("):text.index(");", text.index(f"module {name}("))]
    ports = [(line.split()[-1].rstrip(","), "", 1) for line in head.splitlines() if "put wire" in line]
    folder = runner.build(text, name, ports, level=runner.QUICK)
    variables = {"NARROWGAUGE_CYCLES": str(cycles), "NARROWGAUGE_DEPTH": str(DEPTH),
                 "NARROWGAUGE_HASH": str(CONFIGURATION.hash)}
    log = runner.bench(folder, name, "bench_axi", tmp_path, variables, seed=seed)
    tests, failed = get_results(tmp_path / "results.xml")
    assert (tests, failed) == (7, 0), log.read_text()[-6000:]


def test_axi(tmp_path):
    run(tmp_path, 10_000, 1)


@pytest.mark.sweep
def test_axi_for_a_million_cycles(tmp_path):
    run(tmp_path, 1_000_000, 2)
