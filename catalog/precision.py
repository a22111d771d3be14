"""The units of precision control."""

from ..golden import precision as golden
from ..hw import precision as hw
from ..sim import precision as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

ENTRIES = (
    Unit(
        "precision-cyclic", "CPT's cycles: the precision of each training iteration, from a counter",
        golden.CyclicParameters, hw.PrecisionCyclic, golden.cyclic,
        Bench(sim.cyclic_random, sim.cyclic_recorded, sim.cyclic_vectors),
        small={},
        corners=({"iterations": 5},),
    ),
    Unit(
        "precision-adaptive", "FAST's choice of 2 or 4 bits for a tensor, from its block-floating-point groups",
        golden.AdaptiveParameters, hw.PrecisionAdaptive, golden.adaptive,
        Bench(sim.adaptive_random, sim.adaptive_recorded, sim.adaptive_vectors),
        small={"group": 4},
        corners=({"group": 5, "mantissa": 6, "exponent": 3, "guard": 0, "count": 1, "fraction": 1},),
    ),
)
