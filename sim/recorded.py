"""Recorded tensors: the operands of the GEMMs in a real training run on the digits."""

from functools import lru_cache

import numpy as np

from ..golden import datasets, network, recipes

__all__ = ["kinds", "products", "tensors", "weight_gradients"]

EPOCHS = 3
EVERY = 9  # of 135 steps: early ones with large gradients as well as late ones with small


@lru_cache(2)
def _record(recipe):
    kept = []

    def keep(step, layer, gemm, kind, array, axis):
        if step % EVERY == 0:
            kept.append(((step, layer, gemm), kind, np.moveaxis(array, axis, -1)))

    network.train(recipes.make(recipe), datasets.load("digits"), seed=1, epochs=EPOCHS, record=keep)
    return tuple(kept)


def tensors(recipe: str = "bfp"):
    """Return ((kind, array), ...) of a recipe's run: float32, not quantised, the reduction axis last."""
    return tuple((kind, array) for _, kind, array in _record(recipe))


def products(recipe: str = "bfp"):
    """Return ((array, array), ...): the two operands of each recorded GEMM of a recipe's run, as in `tensors`."""
    kept = _record(recipe)
    assert all(a[0] == b[0] for a, b in zip(kept[::2], kept[1::2], strict=True))
    return tuple((a[2], b[2]) for a, b in zip(kept[::2], kept[1::2], strict=True))


def kinds(recipe: str = "bfp"):
    """Return the kind of each GEMM in `products`: ``forward``, ``input-gradient`` or ``weight-gradient``."""
    return tuple(key[2] for key, _, _ in _record(recipe)[::2])


@lru_cache(1)
def weight_gradients():
    """Return the gradients of weights in the run of `bfp`: for each tensor an array (steps, weights) of float64."""
    kinds = [kind for kind, _ in tensors()]
    found = {}
    for left, right, (x, y) in zip(kinds[::2], kinds[1::2], products(), strict=True):
        if (left, right) == ("gradients", "activations"):
            found.setdefault((len(x), len(y)), []).append((x.astype(np.float64) @ y.astype(np.float64).T).ravel())
    return tuple(np.stack(each) for each in found.values())
