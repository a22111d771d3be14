"""Vectors for the softmax head: random rows with directed places, and recorded ones."""

from functools import lru_cache

import numpy as np

from ..golden import softmax
from . import recorded
from .vectors import Vectors, pack, unpack

__all__ = ["grad_random", "grad_recorded", "grad_vectors"]


def _row(parameters, size, rng):
    """Return the codes of a row of logits, of a kind drawn at random."""
    p, fmt = parameters, parameters.format
    sign = rng.integers(0, 2, size) << (fmt.width - 1)
    kind = rng.random()
    if kind < 0.1:  # any codes, NaN and Inf now and then among them
        return rng.integers(0, 1 << fmt.width, size)
    if kind < 0.15:  # any finite codes
        return rng.integers(0, fmt.max_code + 1, size) | sign
    if kind < 0.25:  # equal but for a few places, of any size: the ends of fixed point are among them
        code = int(rng.integers(0, fmt.max_code + 1))
        if rng.random() < 0.5:
            code = min((max(p.field_top, 0) << fmt.mantissa) + int(rng.integers(0, 1 << fmt.mantissa)), fmt.max_code)
        codes = np.clip(code + rng.integers(-1, 2, size) * rng.integers(0, 1 << rng.integers(1, 6)), 0, fmt.max_code)
        return codes | (0 if rng.random() < 0.5 else sign if rng.random() < 0.2 else 1 << (fmt.width - 1))
    if kind < 0.3:  # zeros of both signs, and the least numbers
        return rng.integers(0, 1 << rng.integers(0, fmt.mantissa + 2), size) | sign
    # Spreads as in training, logits of a single size, and spreads that shift exponentials far, and out.
    spread = rng.choice([0.02, 0.5, 2, 5, 12, 40])
    values = spread * rng.standard_normal(size) + rng.choice([0, 0, 3, -20, 100, 1000]) * rng.random()
    if kind < 0.5:  # many small ones beside a great one, or a few
        values = np.where(rng.random(size) < 2 / size, rng.random() * 12, 0) + 0.01 * rng.standard_normal(size)
    codes = fmt.encode(np.clip(values, -fmt.max, fmt.max)).astype(np.int64)
    if kind > 0.97:
        special = [fmt.inf_code, fmt.nan_code, fmt.inf_code and fmt.inf_code | 1 << (fmt.width - 1)]
        special = [code for code in special if code is not None]
        if special:
            codes = np.where(rng.random(size) < 1.5 / size, rng.choice(special), codes)
    return codes


def grad_random(parameters, count, seed):
    """Return transfers for ``softmax-grad``, many at directed places: arguments of `grad_vectors`."""
    rng, p = np.random.default_rng(seed), parameters
    logits, targets, lasts = [], [], []
    while sum(map(len, logits)) < count:
        size = int(rng.choice([1, 2, min(p.classes, 10), p.classes, rng.integers(1, p.classes + 1)],
                              p=[0.1, 0.1, 0.3, 0.3, 0.2]))
        target = np.zeros(size, np.int64)
        target[rng.integers(0, size, rng.choice([0, 1, 2], p=[0.05, 0.9, 0.05]))] = 1
        last = np.zeros(size, np.int64)
        # Without it too, where the row is full.
        last[-1] = size < p.classes or rng.random() < 0.5
        logits.append(_row(p, size, rng))
        targets.append(target)
        lasts.append(last)
    logits, targets, lasts = (np.concatenate(each)[:count] for each in (logits, targets, lasts))
    lasts[-1:] = 1
    return logits, targets, lasts


@lru_cache(1)
def _recorded_rows():
    """Return (logits without their biases, classes) of recorded training: (rows, 10) of float64, (rows,) of int."""
    kinds = [kind for kind, _ in recorded.tensors()]
    pairs = list(zip(kinds[::2], kinds[1::2], recorded.products(), strict=True))
    logits, classes = [], []
    for (*kind, (x, w)), (*_, (gradients, _)) in zip(pairs, pairs[1:]):
        # What follows the last layer's forward product is its weight gradient, of p - y.
        if kind == ["activations", "weights"] and len(w) == 10:
            logits.append(x.astype(np.float64) @ w.astype(np.float64).T)
            classes.append(gradients.argmin(axis=0))
    return np.concatenate(logits), np.concatenate(classes)


def grad_recorded(parameters, count, seed):
    """Return transfers for ``softmax-grad`` with rows of logits from recorded training, at most ten in a row."""
    rng = np.random.default_rng(seed)
    logits, classes = _recorded_rows()
    size = min(parameters.classes, logits.shape[1])
    chosen = rng.integers(0, len(logits), -(-count // size))
    codes = parameters.format.encode(logits[chosen, :size]).astype(np.int64)
    targets = np.arange(size) == classes[chosen, np.newaxis]
    lasts = np.broadcast_to(np.arange(size) == size - 1, targets.shape)
    logits, targets, lasts = (each.ravel()[:count].astype(np.int64) for each in (codes, targets, lasts))
    lasts[-1:] = 1
    return logits, targets, lasts


def grad_vectors(parameters, logits, targets, lasts):
    """Return the Vectors of transfers (as for `golden.softmax.errors`), with what the golden model makes of them."""
    p = parameters
    logits, targets, lasts = (np.asarray(each).astype(np.int64) for each in (logits, targets, lasts))
    found, ends, losses, invalid, overflow = softmax.errors(p, logits, targets, lasts)
    inputs = pack((logits, p.format.width), (targets, 1), (lasts, 1))
    outputs = pack((found, p.bits), (ends, 1), (losses, p.loss.bits - 1))
    # A row's last logit completes all of its errors.
    rows = np.cumsum(ends) - ends
    origin = np.flatnonzero(ends)[rows]

    def describe(k):
        return (f"logit {int(logits[k]):#0{2 + (p.format.width + 3) // 4}x}, target {targets[k]}, last {lasts[k]}, "
                f"at {k}")

    def show(payload):
        error, end, loss = unpack(payload, p.bits, 1, p.loss.bits - 1)
        return f"error {error - ((error >> (p.bits - 1)) << p.bits)}, last {end}, loss {loss}"

    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    return Vectors(inputs, outputs, origin, status, describe, show)
