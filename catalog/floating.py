"""The units of floating point."""

from ..golden import floating as golden
from ..hw import floating as hw
from ..sim import floating as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

UNCENTRED = {"type": "Float", "exponent": 4, "mantissa": 5, "bias": -3, "overflow": "saturate"}
ONE_BIT = {"type": "Float", "exponent": 1, "mantissa": 1, "specials": "fn"}

ENTRIES = (
    Unit(
        "float-adder", "sum or difference of two floating-point numbers, rounded once",
        golden.AdderParameters, hw.FloatAdder, golden.adder,
        Bench(sim.adder_random, sim.adder_recorded, sim.adder_vectors),
        small={},
        corners=({"format": "fp6-e2m3", "latency": 3, "rounding": "stochastic", "random_bits": 1},),
        shown=({}, {"format": "fp32"}),
    ),
    Unit(
        "float-multiplier", "product of two floating-point numbers, rounded once",
        golden.MultiplierParameters, hw.FloatMultiplier, golden.multiplier,
        Bench(sim.multiplier_random, sim.multiplier_recorded, sim.multiplier_vectors),
        small={},
        corners=({"result": "fp32", "multiplier": "lut"},),
    ),
    Unit(
        "float-fma", "fused multiply-add of floating-point numbers, rounded once",
        golden.FMAParameters, hw.FloatFMA, golden.fused,
        Bench(sim.fma_random, sim.fma_recorded, sim.fma_vectors),
        small={"format": "fp8-e5m2"},
        corners=({"format": UNCENTRED, "accumulator": "fp16", "latency": 2, "rounding": "stochastic"},),
        shown=({}, {"format": "bf16"}),
        macs=lambda p: 1,
    ),
    Unit(
        "float-cast", "conversion between two floating-point formats, rounded once",
        golden.CastParameters, hw.FloatCast, golden.caster,
        Bench(sim.cast_random, sim.cast_recorded, sim.cast_vectors),
        small={},
        corners=({"format": ONE_BIT, "result": {"type": "Float", "exponent": 2, "mantissa": 20}},),
    ),
    Unit(
        "float-mac", "product of two floating-point numbers, added to a floating-point sum",
        golden.MACParameters, hw.FloatMAC, golden.mac,
        Bench(sim.mac_random, sim.mac_recorded, sim.mac_vectors, sim.mac_operands),
        small={"format": "fp8-e4m3"},
        corners=({"format": "fp8-e4m3", "accumulators": 4, "multiplier": "lut"}, {"accumulators": 2, "chunk": 3}),
        macs=lambda p: 1,
    ),
)
