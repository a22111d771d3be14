"""Operands that a dot product's energy is measured with: of a training run, dense ones, and random codes.

``training``: the operands of a run on digits, a third of them each from the forward products and from the gradients of
inputs and of weights. ``normal``: numbers of the normal distribution, none of them zero, in products of the same sizes.
``codes``: all codes of finite numbers are equally likely, the scales are those of ``normal``.
"""

from functools import lru_cache

import numpy as np

from . import recorded

__all__ = ["KINDS", "codes_of", "gemms_of"]

KINDS = ("training", "normal", "codes")


@lru_cache(len(KINDS))
def gemms_of(kind):
    """Return ((array, array), ...): the operands of products, as many of each of training's three products."""
    parts = {}
    for kinds, pair in zip(recorded.kinds(), recorded.products(), strict=True):
        parts.setdefault(kinds, []).append(pair)
    most = max(map(len, parts.values()))
    chosen = [pair for pairs in parts.values() for pair in pairs * (most // len(pairs))]
    if kind == "training":
        return tuple(chosen)
    rng = np.random.default_rng(1)
    return tuple(tuple(rng.standard_normal(each.shape, dtype=np.float32) for each in pair) for pair in chosen)


def codes_of(fmt, rng, shape):
    """Return codes of a format's finite numbers, all equally likely."""
    codes = np.arange(1 << fmt.width)
    return rng.choice(codes[np.isfinite(fmt.decode(codes))], shape)
