"""Vectors for the units of precision control: random with directed places, and recorded."""

import numpy as np

from ..golden import blockfloat, precision
from ..golden.rounding import TRUNCATE
from . import recorded
from .vectors import Vectors, pack, unpack

__all__ = [
    "adaptive_random", "adaptive_recorded", "adaptive_vectors", "cyclic_random", "cyclic_recorded", "cyclic_vectors",
]

# The schedule of cycles.


def cyclic_random(parameters, count, seed):
    """Return transfers for ``precision-cyclic`` with restarts, now and then in a row: arguments of `cyclic_vectors`."""
    rng = np.random.default_rng(seed)
    restart = rng.random(count) < 0.5 / parameters.period
    again = rng.integers(0, 4, count) == 0
    restart[1:] |= restart[:-1] & again[1:]
    # And where a cycle would have ended.
    for offset in (-1, 0, 1):
        at = parameters.period + offset
        if 0 <= at < count and rng.random() < 0.5:
            restart[at] = True
    return (restart,)


def cyclic_recorded(parameters, count, seed):
    """Return transfers for ``precision-cyclic`` of a run from its start: there is nothing random in them."""
    return (np.arange(count) == 0,)


def cyclic_vectors(parameters, restart):
    """Return the Vectors of transfers (as for `precision.cyclic`), with what the golden model makes of them."""
    forward, backward = precision.cyclic(parameters, restart)

    def show(payload):
        return "forward {}, backward {}".format(*unpack(payload, 4, 4))

    def describe(k):
        since = k - max((j for j in range(k + 1) if restart[j]), default=0)
        return f"iteration {since}, position {since % parameters.period} of {parameters.period}"

    return Vectors(pack((restart, 1)), pack((forward, 4), (backward, 4)), range(len(restart)), {}, describe, show)


# The choice by tensor.


def _near(parameters, rng, exponents, elements, last):
    """Return thresholds of which most are next to the ratio of their tensor, and some anywhere."""
    p, start = parameters, 0
    low, high = precision.chunk_sums(elements)
    thresholds = rng.integers(0, 2 << p.fraction, len(exponents))
    for stop in np.flatnonzero(last) + 1:
        part = slice(start, stop)
        numerator, quarter, _ = precision.sum_chunks(exponents[part], low[part], high[part], guard=p.guard,
                                                     limit=p.limit)
        if quarter and rng.random() < 0.8:
            edge = (numerator << p.fraction) // (4 * quarter)  # the greatest that the numerator reaches
            thresholds[stop - 1] = np.clip(edge + rng.integers(0, 2), 0, (2 << p.fraction) - 1)
        start = stop
    return thresholds


def adaptive_random(parameters, count, seed):
    """Return random transfers for ``precision-adaptive``, many at directed places: arguments of `adaptive_vectors`."""
    rng, p = np.random.default_rng(seed), parameters
    # Tensors have a single group, a few groups or many, with exponents near to each other or far apart.
    mean = np.repeat(rng.choice([1, 3, 12, 60], count), 30)[:count]
    last = rng.random(count) < 1 / mean
    tensor = np.cumsum(last) - last
    top = (1 << p.exponent) - 1
    place, spread = rng.integers(0, top + 1, count)[tensor], rng.choice([0, 2, 8, 30, 255], count)[tensor]
    exponents = np.clip(place + rng.integers(-spread, spread + 1), 0, top)
    # Magnitudes anywhere, or at their limits; some groups or tensors have low chunks, or high ones, alone.
    magnitudes = rng.integers(0, 1 << p.mantissa, (count, p.group))
    kind = rng.random(count)[:, np.newaxis]
    magnitudes = np.where(kind < 0.1, magnitudes & 3, np.where(kind < 0.2, magnitudes & ~3, magnitudes))
    magnitudes = np.where(kind > 0.85, (1 << p.mantissa) - 1, np.where(kind > 0.8, 0, magnitudes))
    common = rng.random(count)[tensor][:, np.newaxis]
    magnitudes = np.where(common < 0.1, (1 << p.mantissa) - 1, np.where(common < 0.15, 0, magnitudes))
    elements = magnitudes | rng.integers(0, 2, magnitudes.shape) << p.mantissa
    return exponents, elements, _near(p, rng, exponents, elements, last), last


def adaptive_recorded(parameters, count, seed):
    """Return transfers for ``precision-adaptive`` with some rows of recorded tensors."""
    rng, p, pieces, total = np.random.default_rng(seed), parameters, [], 0
    tensors = recorded.tensors()
    while total < count:
        array = tensors[rng.integers(len(tensors))][1]
        rows = array[rng.integers(0, len(array), rng.integers(1, 9))]
        blocks = blockfloat.quantise(rows, p.narrowed, rounding=TRUNCATE)
        exponents, q = blocks.exponents.reshape(-1).astype(np.int64), blocks.mantissas.reshape(-1, p.group)
        elements = np.abs(q).astype(np.int64) | (q < 0).astype(np.int64) << p.mantissa
        last = np.arange(len(exponents)) == len(exponents) - 1
        pieces.append((exponents, elements, _near(p, rng, exponents, elements, last), last))
        total += len(exponents)
    return tuple(np.concatenate(each)[:count] for each in zip(*pieces, strict=True))


def adaptive_vectors(parameters, exponents, elements, threshold, last):
    """Return the Vectors of transfers (as for `precision.adaptive`, elements with signs), with golden's answers."""
    p = parameters
    found, overflow = precision.adaptive(p, exponents, elements, threshold, last)
    inputs = pack((elements, p.mantissa + 1), (exponents, p.exponent), (np.full(len(last), 4), p.mantissa.bit_length()),
                  (threshold, p.fraction + 1), (last, 1))

    def describe(k):
        return (f"exponent {exponents[k]}, threshold {threshold[k]} / {1 << p.fraction}, last {int(last[k])}, "
                f"magnitudes {[int(each) & 15 for each in elements[k]]}")

    return Vectors(inputs, pack((found, 3)), np.flatnonzero(last), {"overflow": int(overflow)}, describe,
                   lambda payload: f"precision {payload}")
