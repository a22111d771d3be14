"""Policies: how many magnitude bits a tensor gets in a layer and step.

Source: numerics contract, section 3.
"""

from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from ...base.checks import require, require_int
from .chunks import NARROW, WIDE, decide, threshold_code
from .cycles import breakpoints

__all__ = ["POLICIES", "Adaptive", "Constant", "Cyclic", "Policies", "Policy", "Rising", "parse"]


@dataclass(frozen=True)
class Constant:
    """The same width always, 2 to 8."""

    bits: int = 4

    def __post_init__(self) -> None:
        require_int("bits", self.bits, 2, 8)

    @property
    def top(self) -> int:
        """The greatest width."""
        return self.bits

    def width(self, layer: int, layers: int, step: int, steps: int, sums: tuple[int, int] | None = None
              ) -> int:
        """Return the width of a tensor of that layer (of `layers`, from 0) in that step (of `steps`, from 0)."""
        return self.bits

    def measured(self, latest: int | None) -> int:
        """Return the width when accuracy is measured, given that of the latest step (None before the first)."""
        return self.top

    @property
    def timed(self) -> bool:
        """Whether a width depends on the number of the run's steps."""
        return False

    def describe(self) -> dict:
        """Return the policy and its parameters: JSON-ready."""
        return {"policy": "constant", "bits": self.bits}


@dataclass(frozen=True)
class Cyclic:
    """CPT's cycles: from `low` bits up to `high` along half a cosine, then back to `low` at once.

    With P = max(steps // cycles, 1) and tau = (step mod P) / P the width is ``rint(low + 0.5 * (high - low) * (1 -
    cos(pi * tau)))``, ties to even [code], exactly: see `breakpoints`. Steps beyond the last whole cycle, and beyond
    `steps`, begin further cycles [code]. A run of fewer steps than cycles stays at `low`, as P is 1 [ours].

    Parameters
    ----------
    low, high : int
        2 to 8.
    cycles : int
        Of a run: N.
    """

    low: int = 3
    high: int = 8
    cycles: int = 32

    def __post_init__(self) -> None:
        require_int("low", self.low, 2, 8)
        require_int("high", self.high, self.low, 8)
        require_int("cycles", self.cycles, 1, 10**6)

    @property
    def top(self) -> int:
        """The greatest width."""
        return self.high

    def period(self, steps: int) -> int:
        """Return the steps of a cycle."""
        return max(steps // self.cycles, 1)

    def width(self, layer: int, layers: int, step: int, steps: int, sums: tuple[int, int] | None = None
              ) -> int:
        """Return the width, as `Constant.width`."""
        period = self.period(steps)
        return self.low + sum(step % period >= each for each in breakpoints(self.low, self.high, period))

    def measured(self, latest: int | None) -> int:
        """Return the width when accuracy is measured: the greatest [ours]."""
        return self.top

    @property
    def timed(self) -> bool:
        """Whether a width depends on the number of the run's steps."""
        return self.low < self.high

    def describe(self) -> dict:
        """Return the policy and its parameters: JSON-ready."""
        return {"policy": "cyclic", "low": self.low, "high": self.high, "cycles": self.cycles}


@dataclass(frozen=True)
class Rising:
    """What the range test trains with: `low` bits, and one more after each of high - low + 1 equal parts of the run.

    Accuracy is measured with the width of the latest step.
    """

    low: int = 2
    high: int = 8

    def __post_init__(self) -> None:
        require_int("low", self.low, 2, 8)
        require_int("high", self.high, self.low, 8)

    @property
    def top(self) -> int:
        """The greatest width."""
        return self.high

    def width(self, layer: int, layers: int, step: int, steps: int, sums: tuple[int, int] | None = None
              ) -> int:
        """Return the width, as `Constant.width`."""
        return min(self.low + step * (self.high - self.low + 1) // steps, self.high)

    def measured(self, latest: int | None) -> int:
        """Return the width when accuracy is measured."""
        return self.low if latest is None else latest

    @property
    def timed(self) -> bool:
        """Whether a width depends on the number of the run's steps."""
        return self.low < self.high

    def describe(self) -> dict:
        """Return the policy and its parameters: JSON-ready."""
        return {"policy": "rising", "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Adaptive:
    """FAST's choice between 2 and 4 bits: 4 where what the second chunk adds is a large part of the tensor.

    r(X) = sum |BFP(X, 4) - BFP(X, 2)| / sum |BFP(X, 2)| is compared with the threshold ``alpha - beta * step / steps -
    beta * layer / layers``; 4 bits if it is as large or larger [paper]. Layers and steps count from 0 [ours]. Both
    quantisations truncate, whatever the use's own rounding is, so that r is made of chunks: see `chunk_sums` [ours].

    Parameters
    ----------
    alpha, beta : float
        0 to below 2. They mean their decimal digits: 0.6 is 6/10. The defaults are ours.
    reverse : bool
        Accurate first: the steps' thresholds in reverse order, ``alpha - beta * (steps - 1 - step) / steps - beta *
        layer / layers``. The threshold rises over the run; the layers' part stays [ours].
    lag : int
        1: a step has the sums of the step before and its own threshold, and the first step has 2 bits. 0: a step has
        its own sums, for comparison [ours].
    """

    alpha: float = 0.6
    beta: float = 0.3
    reverse: bool = False
    lag: int = 1

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            require(type(value) in (int, float) and 0 <= value < 2, name, value, "a number from 0 to below 2")
        require(type(self.reverse) is bool, "reverse", self.reverse, "true, false")
        require_int("lag", self.lag, 0, 1)

    @property
    def top(self) -> int:
        """The greatest width."""
        return WIDE

    def threshold(self, layer: int, layers: int, step: int, steps: int) -> Fraction:
        """Return the threshold, a Fraction; late layers and steps may have one below 0."""
        alpha, beta = Fraction(str(self.alpha)), Fraction(str(self.beta))
        step = steps - 1 - step if self.reverse else step
        return alpha - beta * Fraction(step, steps) - beta * Fraction(layer, layers)

    def width(self, layer: int, layers: int, step: int, steps: int, sums: tuple[int, int] | None = None
              ) -> int:
        """Return the width, as `Constant.width`. `sums` are the tensor's `sum_chunks`: None before there are any."""
        if sums is None:
            return NARROW
        return decide(*sums, threshold_code(self.threshold(layer, layers, step, steps)))

    def measured(self, latest: int | None) -> int:
        """Return the width when accuracy is measured: the greatest [ours]."""
        return self.top

    @property
    def timed(self) -> bool:
        """Whether a width depends on the number of the run's steps."""
        return self.beta != 0

    def describe(self) -> dict:
        """Return the policy and its parameters: JSON-ready."""
        return {"policy": "adaptive", "alpha": self.alpha, "beta": self.beta, "reverse": self.reverse,
                "lag": self.lag}


Policy = Constant | Cyclic | Rising | Adaptive
POLICIES: dict[str, Any] = {"constant": Constant, "cyclic": Cyclic, "rising": Rising, "adaptive": Adaptive}


def parse(value: Any) -> Policy:
    """Return the policy that a dict means, as the policies' `describe` returns it; what it leaves out has its default.

    A policy is returned as it is.
    """
    if isinstance(value, Policy):
        return value
    require(isinstance(value, dict), "policy", value, 'an object such as {"policy": "constant", "bits": 4}')
    settings = dict(value)
    name = settings.pop("policy", None)
    require(name in POLICIES if isinstance(name, str) else False, "policy", name, ", ".join(POLICIES))
    allowed = [field.name for field in fields(POLICIES[name])]
    for setting in settings:
        require(setting in allowed, f"setting of policy {name}", setting, ", ".join(allowed))
    return POLICIES[name](**settings)


@dataclass(frozen=True)
class Policies:
    """What decides on the width of each kind of tensor."""

    weights: Policy = Constant()
    activations: Policy = Constant()
    gradients: Policy = Constant()

    def __post_init__(self) -> None:
        for kind, policy in vars(self).items():
            require(isinstance(policy, tuple(POLICIES.values())), f"precision of {kind}", policy,
                    "a Constant, Cyclic, Rising or Adaptive")
