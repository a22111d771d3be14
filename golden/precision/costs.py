"""What widths cost in bit operations, and what cycles of them save."""

from fractions import Fraction
from typing import Any

import numpy as np

from .cycles import edge_of
from .policies import Cyclic

__all__ = ["cost", "saving"]


def cost(bits: int, gradients: int) -> Fraction:
    """Return CPT's cost of an iteration, relative to operands of 32 bits: (a*a + 2*a*g) / 3 / 1024 [code]. A Fraction.

    Of the three products of a layer one is of weights and activations, of a bits each, and two are of one of these and
    a gradient, of g bits.
    """
    return Fraction(bits * bits + 2 * bits * gradients, 3 * 1024)


def saving(low: int, high: int, gradients: int, *, steps: int | None = None, cycles: int = 32) -> Fraction | float:
    """Return what `Cyclic` saves of the `cost` of `high` bits throughout, 0 to 1.

    With gradients of `high` bits, 64,000 steps and 32 cycles, it is 36.67 % from 3 to 8 bits, 30.05 % from 3 to 6 and
    20.69 % from 4 to 6; so it is with 62,400 steps. A run without end saves 36.66, 30.03 and 20.68 %.

    Parameters
    ----------
    low, high, gradients : int
    steps : int, optional
        Of the run: a Fraction, exact. None: of a run without end, a float (or exact, if its edges are): every width
        counts with its part of the cycle.
    cycles : int
    """
    if steps is None:
        edges: list[Any] = [0, *(edge_of(1 - Fraction(2 * k - 1, high - low)) for k in range(1, high - low + 1)), 1]
        mean = sum((after - before) * cost(low + k, gradients)
                   for k, (before, after) in enumerate(zip(edges, edges[1:])))
        return float(1 - mean / cost(high, gradients))
    policy = Cyclic(low, high, cycles)
    widths = np.bincount([policy.width(0, 1, step, steps) for step in range(steps)])
    spent = sum(int(count) * cost(width, gradients) for width, count in enumerate(widths))
    return 1 - spent / (steps * cost(high, gradients))
