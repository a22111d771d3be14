"""A program's modes: how operands are read, and the thresholds of those that choose their precision."""

import math
from fractions import Fraction

from ...base.checks import require
from ..precision import FRACTION, WIDE, Adaptive, Cyclic, breakpoints
from .builder import Builder
from .instructions import FIELDS, KINDS
from .sequencer import CODE

__all__ = ["emit_modes"]


def emit_modes(builder: Builder) -> None:
    """Emit the modes of every operand, but those that depend on the tensor's numbers."""
    system, recipe = builder.p.system, builder.run.recipe
    if builder.scaled:
        return
    for kind in KINDS:
        packed, place = 0, 0
        for name, value in recipe.mode(kind).items():
            packed |= value << place
            place += system.modes[name]
        for layer in range(len(builder.run.layers) if system.modes else 0):
            builder.emit("mode", kind=KINDS.index(kind), layer=layer, value=packed)
    for kind, policy in vars(recipe.policies).items() if recipe.policies else ():
        if isinstance(policy, Cyclic):
            period = policy.period(builder.run.steps)
            builder.emit("cyclic", kind=KINDS.index(kind), low=policy.low, period=period)
            for edge in breakpoints(policy.low, policy.high, period):
                builder.emit("edge", kind=KINDS.index(kind), value=edge)
        if isinstance(policy, Adaptive):
            _emit_thresholds(builder, KINDS.index(kind), policy)


def _emit_thresholds(builder: Builder, kind: int, policy: Adaptive) -> None:
    """Emit a policy's thresholds as whole codes and rests, which fall by a slope from step to step.

    A code is ``floor(threshold * 2**FRACTION + 1/2)``, and its rest counts parts of a code. All is exact.
    """
    layers, steps, begin = len(builder.run.layers), builder.run.steps, builder.run.begin
    thresholds = [policy.threshold(layer, layers, begin.step, steps) for layer in range(layers)]
    starts = [each * (1 << FRACTION) + Fraction(1, 2) for each in thresholds]
    wide = [policy.width(layer, layers, begin.step, steps, begin.sums.get((KINDS[kind], layer))) == WIDE
            for layer in range(layers)]
    slope = (policy.threshold(0, layers, 0, steps) - policy.threshold(0, layers, 1, steps)) * (1 << FRACTION)
    divisor = math.lcm(slope.denominator, *(each.denominator for each in starts))
    require(divisor < 1 << FIELDS["wide"][0], "steps", steps, "fewer, because thresholds are too fine for a core")
    builder.emit("divisor", kind=kind, rest=divisor)
    for name, each, fields in [*(("adaptive", start, {"layer": layer, "wide": int(wide[layer])})
                                 for layer, start in enumerate(starts)), ("slope", slope, {})]:
        code, rest = divmod(int(each * divisor), divisor)
        builder.emit(name, kind=kind, code=code + CODE, rest=rest, **fields)
