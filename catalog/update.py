"""The unit of SGD's update."""

from ..golden import update as golden
from ..hw import update as hw
from ..sim import update as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

ENTRIES = (
    Unit(
        "sgd-update", "SGD's weight update with momentum: plain, stochastic, with Kahan compensation, or grown",
        golden.SGDParameters, hw.SGDUpdate, golden.updates,
        Bench(sim.update_random, sim.update_recorded, sim.update_vectors),
        small={"format": "fp8-e5m2", "schedule": "shared"},
        corners=({"format": {"type": "Float", "exponent": 2, "mantissa": 2}, "grow": True, "random_bits": 1},
                 {"format": "fp8-e5m2", "schedule": "shared", "grow": True, "rates": "powers"},
                 {"format": "fp8-e5m2", "random_bits": 3, "compensated": False},
                 {"format": "fp8-e5m2", "schedule": "shared", "rates": "powers", "compensated": False},
                 {"format": "fp8-e5m2", "grow": True, "decays": False},
                 {"format": "fp8-e5m2", "schedule": "shared", "compensated": False, "decays": False}),
        shown=({}, {"schedule": "shared"}),
    ),
)
