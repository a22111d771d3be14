"""The softmax head's functions, by table and interpolation: powers of two, reciprocals, logarithms."""

import numpy as np
from numpy.typing import ArrayLike

from .parameters import SoftmaxParameters, tables

__all__ = ["exponentials", "interpolated", "logarithms", "phases", "reciprocals"]


def interpolated(parameters: SoftmaxParameters, table: ArrayLike, x: np.ndarray) -> np.ndarray:
    """Return a table's value at x, a fraction of `phase` bits: on the chord between two of its points, rounded up."""
    low = parameters.phase - parameters.index
    table = np.array(table)
    point, rest = x >> low, x & ((1 << low) - 1)
    return table[point] - ((table[point] - table[point + 1]) * rest >> low)


def phases(parameters: SoftmaxParameters, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, f): d * log2(e), truncated, as an integer and a fraction of `phase` bits."""
    p, constants = parameters, tables(parameters)
    whole, rest = distances >> p.fraction, distances & ((1 << p.fraction) - 1)
    product = rest * constants.factor >> (2 * p.fraction + 1 - p.phase)
    turned = np.array(constants.wholes)[whole] + (rest << (p.phase - p.fraction)) + product
    return turned >> p.phase, turned & ((1 << p.phase) - 1)


def exponentials(parameters: SoftmaxParameters, distances: ArrayLike) -> np.ndarray:
    """Return e**-d, truncated to `guard` fraction bits, for distances d with `fraction` fraction bits."""
    p = parameters
    n, f = phases(p, np.asarray(distances).astype(np.int64))
    powers = interpolated(p, tables(p).powers, f)
    return (powers << p.guard) >> np.minimum(p.value + n, 62)


def _normalised(parameters: SoftmaxParameters, sums: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (k, f): sums of exponentials as 2**k * (1 + f), f truncated to `phase` fraction bits."""
    p = parameters
    sums = np.asarray(sums).astype(np.int64)
    k = np.frexp(sums.astype(np.float64))[1].astype(np.int64) - 1 - p.guard
    return k, ((sums << p.phase) >> (k + p.guard)) - (1 << p.phase)


def reciprocals(parameters: SoftmaxParameters, sums: ArrayLike) -> np.ndarray:
    """Return 1 / S, truncated to `kept` fraction bits, for sums S from 1 with `guard` fraction bits."""
    p = parameters
    k, f = _normalised(p, sums)
    return interpolated(p, tables(p).reciprocals, f) >> (p.value - p.kept + k)


def logarithms(parameters: SoftmaxParameters, sums: ArrayLike) -> np.ndarray:
    """Return ln S with `value` fraction bits, for sums S from 1 with `guard` fraction bits."""
    p = parameters
    k, f = _normalised(p, sums)
    return np.array(tables(p).octaves)[k] - interpolated(p, tables(p).logarithms, f)
