"""The training core."""

from ..golden.core import TrainerParameters
from ..golden.core.device import Device
from ..hw.core import Trainer
from ..sim.core import vectors as sim
from .unit import Bench, Unit

__all__ = ["DIGITS", "ENTRIES"]

BF16 = {"work": "bf16", "accumulator": "bf16"}
# Large enough for digits, 64-32-10, in batches of 32; and the smaller core of those, for an ECP5-25F.
DIGITS = BF16 | {"activations": 5632, "errors": 1536, "weights": 3072, "labels": 512}
NARROW = DIGITS | {"rows": 2, "columns": 2, "converters": 1, "merged": True, "adders": 2, "stream": 2,
                   "decays": False}

ENTRIES = (
    Unit(
        "trainer", "a training core: programs of matrix products, softmax and weight updates, beside memories",
        TrainerParameters, Trainer, Device,
        Bench(sim.trainer_random, sim.trainer_recorded, sim.trainer_vectors),
        small=BF16 | {"rows": 1, "columns": 2, "sums": 2, "converters": 1, "buffer": 64, "activations": 512,
                      "errors": 512, "weights": 512, "labels": 256, "program": 64, "adders": 1, "classes": 4},
        corners=(NARROW, DIGITS | {"rows": 2, "columns": 3, "lanes": 4, "stream": 1, "head": 4, "windows": True,
                          "updates": ["plain", "grow"]}),
        shown=(NARROW,),
        macs=lambda p: p.rows * p.columns * p.system.group,
    ),
)
