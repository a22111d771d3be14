# amaranth: UnusedElaboratable=no
"""A device's AXI buses round an echo, by cocotbext-axi: registers, holes, orders, stalls, resets, long traffic."""

import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from narrowgauge.golden.core import TrainerParameters
from narrowgauge.golden.core.transfers import Transfers
from narrowgauge.golden.host import Configuration
from narrowgauge.hw.host.text import axi_text
from narrowgauge.sim import runner

DEPTH = 64
CONFIGURATION = Configuration(
    TrainerParameters.from_json({"work": "bf16", "accumulator": "bf16", "stream": 2}), 0, DEPTH)


class Echo(wiring.Component):
    """What stands in a core's place: it gives back the elements that it takes. Bit 31 ends a message."""

    def __init__(self):
        transfers = Transfers(CONFIGURATION.trainer)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"bits": transfers.input_bits, "kind": 1}))),
            "o": Out(stream.Signature(data.StructLayout({"bits": transfers.output_bits, "kind": 2, "last": 1}))),
            "stopped": Out(1), "invalid": Out(1), "overflow": Out(1), "status_clear": In(1), "number": Out(9),
            "counter": In(4), "count": Out(48)})

    def elaborate(self, platform):
        m = Module()
        held = Signal(32)
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), self.o.payload.bits.eq(held),
                     self.o.payload.last.eq(held[31]), self.count.eq(Cat(self.counter, self.counter))]
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid & ~self.i.payload.kind), held.eq(self.i.payload.bits)]
        return m


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
