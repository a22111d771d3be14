"""The unit of Madam's update."""

from ..golden import madam as golden
from ..hw import madam as hw
from ..sim import madam as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

ENTRIES = (
    Unit(
        "madam-update", "Madam's update of logarithmic weights by additions to their codes",
        golden.MadamParameters, hw.MadamUpdate, golden.updates,
        Bench(sim.update_random, sim.update_recorded, sim.update_vectors),
        small={},
        corners=({"lanes": 2, "gradient": "bf16", "second_gamma": 1, "second_bits": 6, "clip": 1, "random_bits": 9},),
    ),
)
