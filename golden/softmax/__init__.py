"""The softmax head: from logits to the errors p - y and the loss, in fixed point, by tables and interpolation.

The precision that a number of classes needs is after arXiv 1810.05486. Source: numerics contract, section 9.
"""

from .bounds import Bound, bound, lost
from .functions import exponentials, logarithms, phases, reciprocals
from .head import errors, gradient, probabilities
from .parameters import SoftmaxParameters, Tables, guideline, tables

__all__ = [
    "Bound", "SoftmaxParameters", "Tables", "bound", "errors", "exponentials", "gradient", "guideline", "logarithms",
    "lost", "phases", "probabilities", "reciprocals", "tables",
]
