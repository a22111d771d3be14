"""Precision control: how many magnitude bits each tensor of a training run gets, and what that costs.

Source: numerics contract, section 3: constant, cyclic after CPT (arXiv 2101.09868) and adaptive after FAST
(arXiv 2110.15456). A width is that of magnitudes in block floating point, whose sign is apart; that CPT's bits are
these is ours.
"""

import math
from collections import Counter
from dataclasses import dataclass, fields, replace
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

import numpy as np

from ..base.checks import require, require_int
from ..base.parameters import Parameters
from . import blockfloat
from .array import ArrayParameters, cycles
from .formats import BlockFloat
from .rounding import TRUNCATE

__all__ = [
    "Adaptive", "AdaptiveParameters", "Constant", "Control", "Cyclic", "CyclicParameters", "POLICIES", "Policies",
    "Rising", "adaptive", "breakpoints", "chunk_sums", "cost", "cyclic", "decide", "parse", "range_test", "ratio",
    "saving", "sum_chunks", "sum_limit", "threshold_code",
]

NARROW, WIDE = 2, 4  # the widths that FAST chooses from
GUARD, COUNT, FRACTION = 8, 20, 8  # the defaults of `AdaptiveParameters`
DIGITS = 60  # of the cosine's inverse; see `_edge`


@dataclass(frozen=True)
class Constant:
    """The same width always, 2 to 8."""

    bits: int = 4

    def __post_init__(self):
        require_int("bits", self.bits, 2, 8)

    @property
    def top(self):
        """The greatest width."""
        return self.bits

    def width(self, layer, layers, step, steps, sums=None):
        """Return the width of a tensor of that layer (of `layers`, from 0) in that step (of `steps`, from 0)."""
        return self.bits

    def measured(self, latest):
        """Return the width when accuracy is measured, given that of the latest step (None before the first)."""
        return self.top

    def describe(self):
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

    def __post_init__(self):
        require_int("low", self.low, 2, 8)
        require_int("high", self.high, self.low, 8)
        require_int("cycles", self.cycles, 1, 10**6)

    @property
    def top(self):
        """The greatest width."""
        return self.high

    def period(self, steps):
        """Return the steps of a cycle."""
        return max(steps // self.cycles, 1)

    def width(self, layer, layers, step, steps, sums=None):
        """Return the width, as `Constant.width`."""
        period = self.period(steps)
        return self.low + sum(step % period >= each for each in breakpoints(self.low, self.high, period))

    def measured(self, latest):
        """Return the width when accuracy is measured: the greatest [ours]."""
        return self.top

    def describe(self):
        """Return the policy and its parameters: JSON-ready."""
        return {"policy": "cyclic", "low": self.low, "high": self.high, "cycles": self.cycles}


@dataclass(frozen=True)
class Rising:
    """What the range test trains with: `low` bits, and one more after each of high - low + 1 equal parts of the run.

    Accuracy is measured with the width of the latest step.
    """

    low: int = 2
    high: int = 8

    def __post_init__(self):
        require_int("low", self.low, 2, 8)
        require_int("high", self.high, self.low, 8)

    @property
    def top(self):
        """The greatest width."""
        return self.high

    def width(self, layer, layers, step, steps, sums=None):
        """Return the width, as `Constant.width`."""
        return min(self.low + step * (self.high - self.low + 1) // steps, self.high)

    def measured(self, latest):
        """Return the width when accuracy is measured."""
        return self.low if latest is None else latest

    def describe(self):
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
    """

    alpha: float = 0.6
    beta: float = 0.3
    reverse: bool = False

    def __post_init__(self):
        for name in ("alpha", "beta"):
            value = getattr(self, name)
            require(type(value) in (int, float) and 0 <= value < 2, name, value, "a number from 0 to below 2")
        require(type(self.reverse) is bool, "reverse", self.reverse, "true, false")

    @property
    def top(self):
        """The greatest width."""
        return WIDE

    def threshold(self, layer, layers, step, steps):
        """Return the threshold, a Fraction; late layers and steps may have one below 0."""
        alpha, beta = Fraction(str(self.alpha)), Fraction(str(self.beta))
        step = steps - 1 - step if self.reverse else step
        return alpha - beta * Fraction(step, steps) - beta * Fraction(layer, layers)

    def width(self, layer, layers, step, steps, sums=None):
        """Return the width, as `Constant.width`. `sums` is called for the tensor's `sum_chunks`."""
        return decide(*sums(), threshold_code(self.threshold(layer, layers, step, steps)))

    def measured(self, latest):
        """Return the width when accuracy is measured: the greatest [ours]."""
        return self.top

    def describe(self):
        """Return the policy and its parameters: JSON-ready."""
        return {"policy": "adaptive", "alpha": self.alpha, "beta": self.beta, "reverse": self.reverse}


POLICIES = {"constant": Constant, "cyclic": Cyclic, "rising": Rising, "adaptive": Adaptive}


def parse(value):
    """Return the policy that a dict means, as the policies' `describe` returns it; what it leaves out has its default.

    A policy is returned as it is.
    """
    if isinstance(value, tuple(POLICIES.values())):
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

    weights: object = Constant()
    activations: object = Constant()
    gradients: object = Constant()

    def __post_init__(self):
        for kind, policy in vars(self).items():
            require(isinstance(policy, tuple(POLICIES.values())), f"precision of {kind}", policy,
                    "a Constant, Cyclic, Rising or Adaptive")


# The cosine's schedule.


def _pi():
    """Return pi, by Machin's formula, in the precision of the context."""
    def arctan(n):
        term, total, k = Decimal(1) / n, Decimal(0), 1
        while abs(term) > Decimal(10) ** -(DIGITS + 8):
            total += term / k if k % 4 == 1 else -term / k
            term /= n * n
            k += 2
        return total
    return 4 * (4 * arctan(5) - arctan(239))


def _sine_cosine(x):
    """Return the sine and the cosine of a Decimal from 0 to 4."""
    total, term, k = [Decimal(0), Decimal(0)], Decimal(1), 0
    while abs(term) > Decimal(10) ** -(DIGITS + 8):
        total[k % 2] += -term if k % 4 >= 2 else term
        k += 1
        term = term * x / k
    return total[1], total[0]


@lru_cache(64)
def _edge(cosine):
    """Return arccos(cosine) / pi for a Fraction within -1 and 1: a Fraction, exact or within 10**-60.

    By Niven's theorem the exact ones are those of 0 and +-1/2 (and +-1, which `breakpoints` has no use for).
    """
    exact = {Fraction(0): Fraction(1, 2), Fraction(1, 2): Fraction(1, 3), Fraction(-1, 2): Fraction(2, 3)}
    if cosine in exact:
        return exact[cosine]
    with localcontext() as context:
        context.prec = DIGITS + 10
        wanted = Decimal(cosine.numerator) / cosine.denominator
        x = Decimal(math.acos(cosine))
        for _ in range(4):  # Newton: twice the digits each time
            s, c = _sine_cosine(x)
            x += (c - wanted) / s
        return Fraction(x / _pi())


@lru_cache(256)
def breakpoints(low, high, period):
    """Return the positions within a cycle from which on the width is low + 1, low + 2, ..., high or more.

    Integers from 1 to `period` (which no position reaches), each exact: the first position whose
    ``low + 0.5 * (high - low) * (1 - cos(pi * position / period))`` is rounded, ties to even, to that width. The
    machine's cosine has no part in it. A tie needs a rational cosine of a rational part of pi: 0 or +-1/2.
    """
    span, found = high - low, []
    for k in range(1, span + 1):
        cosine = 1 - Fraction(2 * k - 1, span)
        edge = _edge(cosine) * period
        at = math.ceil(edge)
        if 2 * cosine in (-1, 0, 1):
            # Where the edge is a position, that is a tie, between low + k - 1 and low + k.
            at += edge == at and (low + k) % 2
        else:
            # The edge is irrational, and known to many more digits than its distance from an integer has zeros.
            assert abs(edge - round(edge)) > Fraction(period, 10 ** (DIGITS - 5))
        found.append(at)
    return tuple(found)


# Costs.


def cost(bits, gradients):
    """Return CPT's cost of an iteration, relative to operands of 32 bits: (a*a + 2*a*g) / 3 / 1024 [code]. A Fraction.

    Of the three products of a layer one is of weights and activations, of a bits each, and two are of one of these and
    a gradient, of g bits.
    """
    return Fraction(bits * bits + 2 * bits * gradients, 3 * 1024)


def saving(low, high, gradients, *, steps=None, cycles=32):
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
        edges = [0, *(_edge(1 - Fraction(2 * k - 1, high - low)) for k in range(1, high - low + 1)), 1]
        mean = sum((after - before) * cost(low + k, gradients)
                   for k, (before, after) in enumerate(zip(edges, edges[1:])))
        return float(1 - mean / cost(high, gradients))
    policy = Cyclic(low, high, cycles)
    widths = np.bincount([policy.width(0, 1, step, steps) for step in range(steps)])
    spent = sum(int(count) * cost(width, gradients) for width, count in enumerate(widths))
    return 1 - spent / (steps * cost(high, gradients))


# FAST's relative improvement, in integers.


def chunk_sums(magnitudes):
    """Return the sums (low, high) of the lower and the higher 2-bit chunks of each group: int64, shape (n,).

    Of magnitudes of 4 bits, shape (n, group); bits above are not looked at. As 2 bits, truncated, are the higher chunk,
    a group adds ``low`` to the numerator of r and ``4 * high`` to its denominator, in units of 2**(exponent - 3).
    """
    magnitudes = np.asarray(magnitudes).astype(np.int64)
    return (magnitudes & 3).sum(axis=1), (magnitudes >> 2 & 3).sum(axis=1)


def sum_chunks(exponents, low, high, *, guard=GUARD, limit=None):
    """Return the sums (numerator, denominator / 4, saturated) of a tensor's groups, scaled by their exponents [ours].

    Both sums are integers under one exponent, the largest one of the groups so far, with `guard` bits below the unit of
    a group of that exponent. For each group in order: where its exponent is larger, both sums are shifted right by the
    difference, else the group's are, which have `guard` bits added first; what is shifted out is dropped. So a sum is
    low by less than one of its units, 2**-guard of that of the largest group, for each group and for each rise.

    Parameters
    ----------
    exponents, low, high : array of int, shape (n,)
        Of each group: its exponent code, and `chunk_sums`.
    guard : int
    limit : int, optional
        Where sums saturate; see `sum_limit`.
    """
    exponents = np.asarray(exponents, np.int64).reshape(-1)
    top = np.maximum.accumulate(exponents)
    shift = np.minimum(top - exponents, 62)
    addends = [(np.asarray(each, np.int64) << guard) >> shift for each in (low, high)]
    # While the exponent stays nothing is shifted, and numbers that are not negative saturate alike in any order.
    starts = np.flatnonzero(np.diff(top, prepend=-1))
    sums, saturated = [0, 0], False
    for start, end in zip(starts, [*starts[1:], len(top)]):
        rise = int(top[start] - top[start - 1]) if start else 0
        sums = [(each >> rise) + int(part[start:end].sum()) for each, part in zip(sums, addends)]
        if limit is not None:
            saturated |= max(sums) > limit
            sums = [min(each, limit) for each in sums]
    return *sums, saturated


def sum_limit(group, guard=GUARD, count=COUNT):
    """Return the greatest sum that the unit holds: no less than that of 2**count groups of one exponent."""
    return (1 << ((3 * group).bit_length() + guard + count)) - 1


def threshold_code(threshold, fraction=FRACTION):
    """Return a threshold in units of 2**-fraction: to nearest even, held within 0 and below 2 [ours]."""
    return min(max(round(Fraction(threshold) * (1 << fraction)), 0), (2 << fraction) - 1)


def decide(numerator, quarter, code, fraction=FRACTION):
    """Return 4 if numerator / (4 * quarter) is the threshold or above, else 2. An all-zero tensor gets 4 [ours]."""
    return WIDE if numerator << fraction >= 4 * code * quarter else NARROW


def _sums(array, fmt, axis):
    """Return (numerator, denominator / 4) of a tensor's r, from groups along that axis."""
    blocks = blockfloat.quantise(array, replace(fmt, mantissa=WIDE), axis=axis, rounding=TRUNCATE)
    low, high = chunk_sums(np.abs(blocks.mantissas).reshape(-1, fmt.group))
    return sum_chunks(blocks.exponents, low, high, limit=sum_limit(fmt.group))[:2]


def ratio(array, fmt, axis=-1):
    """Return r(X) of an array under a BlockFloat: a float. NaN for nothing but zeros."""
    numerator, quarter = _sums(array, fmt, axis)
    return numerator / (4 * quarter) if quarter else math.inf if numerator else math.nan


# The units.


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

    def __post_init__(self):
        require_int("iterations", self.iterations, 1, 2**31 - 1)
        Cyclic(self.low, self.high, self.cycles)
        require_int("gradients", self.gradients, 2, 8)

    @property
    def policy(self):
        """The Cyclic of weights and activations."""
        return Cyclic(self.low, self.high, self.cycles)

    @property
    def period(self):
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
        Bits of the sums below the unit of the largest group, 0 to 16; see `sum_chunks`.
    count : int
        A tensor of up to 2**count groups cannot saturate a sum; 1 to 24.
    fraction : int
        Bits of the threshold below the binary point, 1 to 16.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    guard: int = GUARD
    count: int = COUNT
    fraction: int = FRACTION

    def __post_init__(self):
        require_int("group", self.group, 4, 64)
        require_int("mantissa", self.mantissa, 4, 8)
        require_int("exponent", self.exponent, 3, 8)
        require_int("guard", self.guard, 0, 16)
        require_int("count", self.count, 1, 24)
        require_int("fraction", self.fraction, 1, 16)

    @property
    def format(self):
        """The BlockFloat that the layout is that of."""
        return BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def narrowed(self):
        """The BlockFloat of the groups themselves."""
        return BlockFloat(self.group, WIDE, self.exponent)

    @property
    def limit(self):
        """Where a tensor's sums saturate."""
        return sum_limit(self.group, self.guard, self.count)

    @property
    def bits(self):
        """Bits of a tensor's sums."""
        return self.limit.bit_length()


def cyclic(parameters, restart):
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


def adaptive(parameters, exponents, magnitudes, threshold, last):
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


# A training run's control and its account.


def array_of(group):
    """Return the parameters of a 4 x 4 array for up to 8 bits, or None for groups that an array cannot have."""
    if group & (group - 1) or not 4 <= group <= 64:
        return None
    return ArrayParameters(blockfloat.BFPSystem(group=group, mantissa=8))


class Control:
    """Decides on the width of every operand of a run, and keeps the account.

    A tensor is decided on once a step, at its first use in it, along the axis of that use: weights and activations in
    the forward GEMM, gradients in the weight gradient's. Later uses in the step have the same width [ours].

    Parameters
    ----------
    recipe : recipes.Recipe
        Of block floating point.
    layers, steps : int
    """

    def __init__(self, recipe, layers, steps):
        self._policies, self._system, self._layers, self._steps = recipe.policies, recipe.system, layers, steps
        self._widths = {(kind, layer): bytearray() for kind in vars(self._policies) for layer in range(layers)}
        self._decided = dict.fromkeys(self._widths)  # the step of the latest decision
        self._products, self._kinds = Counter(), {}

    def width(self, kind, layer, step, array, axis):
        """Return the magnitude bits of a use of a tensor; `step` is None when accuracy is measured."""
        policy = getattr(self._policies, kind)
        widths = self._widths[kind, layer]
        if step is None:
            return policy.measured(widths[-1] if widths else None)
        if self._decided[kind, layer] != step:
            fmt = self._system.format_of({"precision": policy.top})
            widths.append(policy.width(layer, self._layers, step, self._steps, lambda: _sums(array, fmt, axis)))
            self._decided[kind, layer] = step
        return widths[-1]

    def count(self, gemm, kinds, a, b):
        """Take a product of Blocks (M, K) and (K, N), of tensors of these kinds, into the account."""
        self._kinds[gemm] = kinds
        widths = (a.format.mantissa, b.format.mantissa)
        self._products[gemm, len(a.exponents), len(b.exponents), a.length, *widths] += 1

    def report(self):
        """Return the account: JSON-ready.

        ``widths``: per kind of tensor and layer, ``[first step, width]`` of each run of equal widths. ``steps``: per
        kind and layer, the steps of each width. ``bit_operations``: the sum over the products of training of
        multiply-accumulates times the bits of both operands (``used``), and the same for 32-bit operands (``fp32``) and
        for the greatest widths throughout (``static``). ``passes``: the cycles of one serial dot-product unit, which
        takes ceil(a/2) * ceil(b/2) passes for each pair of groups, M * N * ceil(K / group) pairs a product: ``used``
        and ``static``. ``cycles``: what the default 4 x 4 array of such units really spends, each product alone (see
        `array.cycles`; its memory is taken to hold everything): ``used`` and ``static``, both None where the group is
        none that an array can have. ``products``: how often there was each
        product (m, k) times (k, n) of operands of a and b bits, so that other costs can be computed without training
        again. Nothing here counts the measuring of accuracy.
        """
        widths, steps = {}, {}
        for (kind, _), found in self._widths.items():
            changes = [k for k in range(len(found)) if k == 0 or found[k] != found[k - 1]]
            widths.setdefault(kind, []).append([[k, found[k]] for k in changes])
            steps.setdefault(kind, []).append({str(each): found.count(each) for each in sorted(set(found))})
        operations, passes = {"used": 0, "fp32": 0, "static": 0}, {"used": 0, "static": 0}
        array = array_of(self._system.group)
        spent = dict.fromkeys(("used", "static"), 0 if array else None)
        for (gemm, m, n, k, *used), count in self._products.items():
            static = [getattr(self._policies, kind).top for kind in self._kinds[gemm]]
            pairs = count * m * n * -(-k // self._system.group)
            for name, bits in (("used", used), ("fp32", (32, 32)), ("static", static)):
                operations[name] += count * m * n * k * math.prod(bits)
            for name, bits in (("used", used), ("static", static)):
                passes[name] += pairs * blockfloat.passes(*bits)
                if array:
                    spent[name] += count * cycles(array, m, n, k, *({"precision": each} for each in bits))
        products = [dict(zip(("gemm", "m", "n", "k", "a", "b"), key)) | {"count": count}
                    for key, count in sorted(self._products.items())]
        return {"widths": widths, "steps": steps, "bit_operations": operations, "passes": passes, "cycles": spent,
                "products": products}


def range_test(accuracy, start, *, low=2, high=8, threshold=0.1):
    """Return (the least useful width, {width: gain}): a test, after CPT's idea, for the lower end of the cycles.

    Training begins with `low` bits and takes one more at a time; the first width under which the training accuracy
    rises by more than `threshold` is the one. None, if there is none up to `high`.

    Parameters
    ----------
    accuracy : callable
        Given a width, trains on with it and returns the training accuracy. Widths rise from call to call.
    start : float
        The accuracy before the training.
    threshold : float
        The default, like the rule, is ours.
    """
    gains, before = {}, start
    for width in range(low, high + 1):
        after = accuracy(width)
        gains[width], before = after - before, after
        if gains[width] > threshold:
            return width, gains
    return None, gains
