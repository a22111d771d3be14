"""The units of logarithmic numbers."""

from ..golden import logarithmic as golden
from ..hw import logarithmic as hw
from ..sim import logarithmic as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

SHORT = {"type": "Log", "bits": 4, "gamma": 1}

ENTRIES = (
    Unit(
        "lns-converter", "floating point to logarithmic numbers under one scale, one vector per cycle",
        golden.LNSConverterParameters, hw.LNSConverter, golden.convert,
        Bench(sim.converter_random, sim.converter_recorded, sim.converter_vectors),
        small={"lanes": 4},
        corners=({"lanes": 1, "format": SHORT, "work": "fp16"},),
    ),
    Unit(
        "lns-decoder", "logarithmic numbers to floating point, rounded once, one vector per cycle",
        golden.LNSDecoderParameters, hw.LNSDecoder, golden.decode,
        Bench(sim.decoder_random, sim.decoder_recorded, sim.decoder_vectors),
        small={"lanes": 4},
        corners=({"lanes": 1, "format": SHORT, "result": "fp16"},),
    ),
    Unit(
        "lns-dot", "dot product of two vectors of logarithmic numbers, summed and rounded to floating point",
        golden.LNSDotParameters, hw.LNSDot, golden.dots,
        Bench(sim.dot_random, sim.dot_recorded, sim.dot_vectors, sim.dot_operands),
        small={"lanes": 4, "accumulator": 24, "lsb": 16, "constants": 1},
        corners=({"lanes": 4}, {"lanes": 4, "accumulation": "bins", "accumulator": 24, "lsb": 9, "constants": 2},
                 {"lanes": 5, "format": SHORT, "result": "bf16"}),
        shown=({"accumulator": 24, "lsb": 16},),
        macs=lambda p: p.lanes,
    ),
)
