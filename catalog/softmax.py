"""The unit of the softmax head."""

from ..golden import softmax as golden
from ..hw import softmax as hw
from ..sim import softmax as sim
from .unit import Bench, Unit

__all__ = ["ENTRIES"]

ENTRIES = (
    Unit(
        "softmax-grad", "errors p - y and loss of a row of logits, one class per cycle and pass",
        golden.SoftmaxParameters, hw.SoftmaxGrad, golden.errors,
        Bench(sim.grad_random, sim.grad_recorded, sim.grad_vectors),
        small={"format": "fp8-e5m2"},
        corners=({"classes": 2, "bits": 2, "format": "fp4-e2m1", "rounding": "stochastic", "corrected": True},
                 {"classes": 1024, "bits": 16, "format": "fp32", "rounding": "truncate"}),
    ),
)
