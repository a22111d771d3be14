"""What tests of SGD's update share."""

from fractions import Fraction

import ml_dtypes
import numpy as np
from narrowgauge.golden import reference
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.rounding import NEAREST

__all__ = ["BF16", "E5M2", "FP16", "FP32", "PEERS", "by_reference", "exact", "operands", "sequence"]

FP32, FP16, BF16, E5M2 = (PRESETS[name] for name in ("fp32", "fp16", "bf16", "fp8-e5m2"))
PEERS = {"fp32": (FP32, np.float32, np.uint32), "fp16": (FP16, np.float16, np.uint16),
         "bf16": (BF16, ml_dtypes.bfloat16, np.uint16), "fp8-e5m2": (E5M2, ml_dtypes.float8_e5m2, np.uint8)}


def sequence(method, w, v, c, g, lr, momentum, decay, add, subtract, multiply, negate, zero, is_zero):
    """The update in the operations of any arithmetic, written from the numerics contract, section 6."""
    if not is_zero(decay):
        g = add(g, multiply(decay, w))
    v = add(multiply(momentum, v), g)
    u = negate(multiply(lr, v))
    if method == "plain":
        return add(w, u), v, zero
    if method == "kahan":
        y = subtract(u, c)
        t = add(w, y)
        return t, v, subtract(subtract(t, w), y)
    t = add(w, u)
    y = add(subtract(u, subtract(t, w)), c)
    new = add(t, y)
    return new, v, subtract(y, subtract(new, t))


def operands(fmt, count, rng):
    """Codes of weights, velocities, compensations and gradients: any, near each other, and ends of both signs."""
    ends = np.array([0, 1, (1 << fmt.mantissa) - 1, 1 << fmt.mantissa, fmt.max_code, fmt.inf_code, fmt.nan_code])
    found = rng.integers(0, 1 << fmt.width, (4, count))
    near = fmt.encode(rng.normal(size=(4, count)) * np.exp2(rng.integers(-12, 3, (4, count)))).astype(np.int64)
    near[2] = fmt.encode(fmt.decode(near[0]) * rng.normal(size=count) * 2.0**-fmt.mantissa)
    found = np.where(rng.random((4, count)) < 0.7, near, found)
    chosen = ends[rng.integers(0, len(ends), (4, count))] | rng.integers(0, 2, (4, count)) << (fmt.width - 1)
    return np.where(rng.random((4, count)) < 0.1, chosen, found)


def by_reference(fmt, method, w, v, c, g, lr, momentum, decay, rounding=NEAREST, word=0):
    """The update of one weight, by exact integers."""
    sign = 1 << (fmt.width - 1)
    lr, momentum, decay = (each if each >> fmt.mantissa else 0 for each in (lr, momentum, decay))

    def done(operation):
        return lambda a, b: operation(a, b, fmt)[0]

    add, subtract, multiply = (done(each) for each in (reference.add, reference.subtract, reference.multiply))
    if method == "stochastic":
        def add_at_random(a, b):
            return reference.add(a, b, fmt, rounding, word)[0]

        new, v, c = by_reference(fmt, "plain", w, v, c, g, lr, momentum, decay)
        return add_at_random(w, multiply(lr, v) ^ sign), v, c
    return sequence(method, w, v, c, g, lr, momentum, decay, add, subtract, multiply, lambda a: a ^ sign, 0,
                    lambda code: code == 0)


def exact(fmt, codes):
    return [Fraction(value) for value in fmt.decode(codes).ravel().tolist()]
