"""The units of block floating point."""

from ..golden import blockfloat as golden
from ..hw import blockfloat as hw
from ..sim import blockfloat as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

ENTRIES = (
    Unit(
        "bfp-converter", "floating point to block floating point, one group per cycle",
        golden.BFPConverterParameters, hw.BFPConverter, golden.convert,
        Bench(sim.converter_random, sim.converter_recorded, sim.converter_vectors),
        small={"group": 4},
        corners=({"group": 4, "mantissa": 2, "exponent": 3}, {"group": 5, "mantissa": 7, "exponent": 3}),
    ),
    Unit(
        "bfp-fmac", "dot product of two block-floating-point groups, added to a floating-point sum",
        golden.BFPFMACParameters, hw.BFPFMAC, golden.fmac,
        Bench(sim.fmac_random, sim.fmac_recorded, sim.fmac_vectors, sim.fmac_operands),
        small={"group": 4, "accumulator": "bf16"},
        corners=({"group": 4, "mantissa": 2, "exponent": 3}, {"group": 4, "mantissa": 8, "exponent": 8},
                 {"group": 5, "mantissa": 7, "exponent": 3}, {"group": 4, "mantissa": 3, "chunks": "parallel"}),
        shown=({}, {"accumulator": "bf16"}, {"chunks": "parallel"}),
        macs=lambda p: p.group / (1 if p.chunks == "parallel" else p.format.chunks**2),
        chunk_macs=lambda p: p.chunk_macs,
    ),
)
