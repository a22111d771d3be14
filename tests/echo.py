# amaranth: UnusedElaboratable=no
"""What stands in a core's place where only its surroundings are tested."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from narrowgauge.golden.core import TrainerParameters
from narrowgauge.golden.core.transfers import Transfers
from narrowgauge.golden.host import Configuration

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
