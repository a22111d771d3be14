"""The units of OCP microscaling (MX)."""

from ..golden import mx as golden
from ..hw import mx as hw
from ..sim import mx as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

ENTRIES = (
    Unit(
        "mx-converter", "floating point to an OCP microscaling (MX) format, one block per cycle",
        golden.MXConverterParameters, hw.MXConverter, golden.convert,
        Bench(sim.converter_random, sim.converter_recorded, sim.converter_vectors),
        small={"block": 8},
        corners=({"block": 9, "element": "int8", "rounding": "stochastic"},),
    ),
    Unit(
        "mx-dot", "dot product of two microscaling (MX) blocks, added to a floating-point sum",
        golden.MXDotParameters, hw.MXDot, golden.dots,
        Bench(sim.dot_random, sim.dot_recorded, sim.dot_vectors, sim.dot_operands),
        small={"block": 8, "lanes": 4, "element": "fp4-e2m1"},
        corners=({"block": 8, "lanes": 4}, {"block": 8, "lanes": 8, "element": "fp4-e2m1"},
                 {"block": 8, "lanes": 8, "element": "int8", "element_b": "fp8-e5m2"}),
        shown=({}, {"element_b": "fp8-e5m2"}),
        macs=lambda p: p.lanes,
    ),
)
