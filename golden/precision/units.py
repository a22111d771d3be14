"""The units ``precision-cyclic`` and ``precision-adaptive``: their parameters, and what they compute."""

from dataclasses import dataclass

import numpy as np

from ...base.checks import require_int
from ...base.parameters import Parameters
from ..formats import BlockFloat
from .chunks import COUNT, FRACTION, GUARD, WIDE, chunk_sums, decide, sum_chunks, sum_limit
from .cycles import breakpoints
from .policies import Cyclic

__all__ = ["AdaptiveParameters", "CyclicParameters", "adaptive", "cyclic"]


@dataclass(frozen=True)
class CyclicParameters(Parameters):
    """Parameters of the unit ``precision-cyclic``.

    Parameters
    ----------
    iterations : int
        Of the run, 1 to 2**31 - 1.
    cycles, low, high : int
        As in `Cyclic`.
    gradients : int
        Constant width of gradients, 2 to 8.
    """

    iterations: int = 64000
    cycles: int = 32
    low: int = 3
    high: int = 8
    gradients: int = 8

    def __post_init__(self) -> None:
        require_int("iterations", self.iterations, 1, 2**31 - 1)
        Cyclic(self.low, self.high, self.cycles)
        require_int("gradients", self.gradients, 2, 8)

    @property
    def policy(self) -> Cyclic:
        """The Cyclic of weights and activations."""
        return Cyclic(self.low, self.high, self.cycles)

    @property
    def period(self) -> int:
        """Iterations of a cycle."""
        return self.policy.period(self.iterations)


@dataclass(frozen=True)
class AdaptiveParameters(Parameters):
    """Parameters of the unit ``precision-adaptive``.

    Parameters
    ----------
    group : int
        Elements per group, 4 to 64.
    mantissa : int
        Of the layout of a group, 4 to 8: the magnitudes themselves have 4 bits.
    exponent : int
        Width of the shared exponent, 3 to 8.
    guard : int
        Bits of the sums below the unit of the largest exponent, 0 to 16; see `sum_chunks`.
    count : int
        A tensor of up to 2**count groups of one exponent cannot saturate a sum; 1 to 24.
    fraction : int
        Bits of the threshold below the binary point, 1 to 16.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    guard: int = GUARD
    count: int = COUNT
    fraction: int = FRACTION

    def __post_init__(self) -> None:
        require_int("group", self.group, 4, 64)
        require_int("mantissa", self.mantissa, 4, 8)
        require_int("exponent", self.exponent, 3, 8)
        require_int("guard", self.guard, 0, 16)
        require_int("count", self.count, 1, 24)
        require_int("fraction", self.fraction, 1, 16)

    @property
    def format(self) -> BlockFloat:
        """The BlockFloat that the layout is that of."""
        return BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def narrowed(self) -> BlockFloat:
        """The BlockFloat of the groups themselves."""
        return BlockFloat(self.group, WIDE, self.exponent)

    @property
    def limit(self) -> int:
        """Where the sums of one exponent saturate."""
        return sum_limit(self.group, self.count)

    @property
    def bits(self) -> int:
        """Bits of the sums of one exponent."""
        return self.limit.bit_length()

    @property
    def total(self) -> int:
        """Bits of a tensor's sums. All smaller exponents together add less than the largest one can: one bit more."""
        return self.bits + 1 + self.guard


def cyclic(parameters: CyclicParameters, restart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Golden function of ``precision-cyclic``: transfers in order, each one iteration.

    Parameters
    ----------
    parameters : CyclicParameters
    restart : array of bool, shape (n,)
        The iteration is the first one of a run. So is the first transfer of all.

    Returns
    -------
    forward, backward : ndarray of int, shape (n,)
        Widths of weights and activations, and of gradients.
    """
    index = np.arange(len(restart))
    position = (index - np.maximum.accumulate(np.where(restart, index, 0))) % parameters.period
    edges = breakpoints(parameters.low, parameters.high, parameters.period)
    forward = parameters.low + sum((position >= each).astype(np.int64) for each in edges)
    return np.broadcast_to(forward, position.shape), np.full(len(index), parameters.gradients)


def adaptive(parameters: AdaptiveParameters, exponents: np.ndarray, magnitudes: np.ndarray, threshold: np.ndarray,
             last: np.ndarray) -> tuple[np.ndarray, bool]:
    """Golden function of ``precision-adaptive``: transfers of one group each, in order.

    Parameters
    ----------
    parameters : AdaptiveParameters
    exponents : array of int, shape (n,)
        Codes.
    magnitudes : array of int, shape (n, group)
        Of 4 bits; bits above are not looked at.
    threshold : array of int, shape (n,)
        Codes as `threshold_code` makes them; that of the last group of a tensor counts.
    last : array of bool, shape (n,)
        The last group of a tensor: its width is answered, and the next group starts another.

    Returns
    -------
    precision : ndarray of int
        2 or 4, for each tensor that has ended.
    overflow : bool
        A sum saturated, also one of a tensor that has not ended.
    """
    p = parameters
    low, high = chunk_sums(magnitudes)
    ends = np.flatnonzero(last) + 1
    found, overflow, start = [], False, 0
    for stop in [*ends, *([len(low)] if len(low) and not last[-1] else [])]:
        part = slice(start, stop)
        numerator, quarter, saturated = sum_chunks(exponents[part], low[part], high[part], guard=p.guard,
                                                   limit=p.limit)
        overflow |= saturated
        if last[stop - 1]:
            found.append(decide(numerator, quarter, int(threshold[stop - 1]), p.fraction))
        start = stop
    return np.array(found, np.int64), overflow
