"""How far the softmax head is from exact at the most."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .functions import interpolated, logarithms, phases, reciprocals
from .parameters import SoftmaxParameters, tables

__all__ = ["Bound", "bound", "lost"]


@dataclass(frozen=True)
class Bound:
    """How far probabilities and losses can be from the exact ones: see `bound`.

    Attributes
    ----------
    logits, powers, sums, multiplied : float
        Parts of the error of a probability. They come from the rounding of logits, the table of exponentials,
        truncation before the sum, and truncation before the multiplication.
    above, below : float
        How far reciprocals are above and below the exact ones.
    loss : float
        Of losses below the largest.
    """

    logits: float
    powers: float
    sums: float
    multiplied: float
    above: float
    below: float
    loss: float

    @property
    def probability(self) -> float:
        """Of every probability, of every row."""
        return self.logits + self.powers + max(self.sums + self.above, self.multiplied + self.below)


@lru_cache(256)
def bound(parameters: SoftmaxParameters) -> Bound:
    """Return the Bound of these parameters: exponentials and reciprocals are measured over all their inputs.

    Let the errors of distances, and the relative errors of exponentials, move the logarithm of each exponential by -r
    to +r'. Then the logarithm of p / (1 - p) moves by r + r' at most, and p by a quarter of r + r'. Truncation makes
    each exponential e smaller by less than 2**-guard, and their sum S by less than (classes - 1) * 2**-guard. Then e /
    S grows by less than the loss of S, because S >= 1 and e <= S. Truncation before the multiplication takes less than
    2**-kept. An error of 1 / S counts in full, because e <= 1.
    """
    p = parameters
    distances = np.arange(p.loss_top + 1)
    n, f = phases(p, distances)
    ratio = np.log(np.ldexp(interpolated(p, tables(p).powers, f).astype(np.float64), -p.value))
    ratio += np.ldexp(distances.astype(np.float64), -p.fraction) - n * np.log(2.0)
    # Leave out distances whose exponential is truncated to 0: they are within the bound of truncation.
    ratio = ratio[n <= p.guard]
    unit = 2.0**-p.fraction
    sums = (p.classes - 1) * 2.0**-p.guard
    f = np.arange(1 << p.phase)
    least, most = (1 + np.ldexp(f.astype(np.float64) + end, -p.phase) for end in (0, 1))
    above = below = logarithm = 0.0
    for k in range(p.classes.bit_length()):
        codes = ((1 << p.phase) + f) << (p.guard + k - p.phase)
        found = np.ldexp(reciprocals(p, codes).astype(np.float64), -p.kept)
        above = max(above, (found - 1 / np.ldexp(most, k)).max())
        below = max(below, (1 / np.ldexp(least, k) - found).max())
        found = np.ldexp(logarithms(p, codes).astype(np.float64), -p.value) - k * np.log(2.0)
        logarithm = max(logarithm, np.abs(found - np.log(least)).max(), np.abs(found - np.log(most)).max())
    # Half a unit by which the loss is rounded, and one for two distances.
    loss = 1.5 * unit + np.abs(ratio).max() + sums + logarithm
    return Bound(unit / 4, float(ratio.max() - ratio.min()) / 4, sums, 2.0**-p.kept, float(above),
                 float(below), float(loss))


def lost(parameters: SoftmaxParameters) -> float:
    """Return the most of a row's probability that always becomes zero errors; at most 1.

    An error is p for each class but the row's own. Below a threshold it is always rounded to zero. To nearest the
    threshold is half a unit, 2**-bits, and ties are lost, too. For truncation it is a unit. For stochastic rounding it
    is a unit of the random word's last place. So classes - 1 errors lose as many thresholds at the most. Each further
    bit halves the bound.
    """
    p = parameters
    unit = 2.0 ** (1 - p.bits)
    threshold = {"nearest": unit / 2, "truncate": unit, "stochastic": unit * 2.0**-p.mode.window}[p.rounding]
    return min((p.classes - 1) * threshold, 1.0)
