"""What the tests of networks share: small data, and scalar arithmetic of a run."""

import importlib.util
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import mx, network, words
from narrowgauge.golden.datasets import Dataset

__all__ = [
    "RUN", "f16", "f32", "flip", "image_data", "needs_digits", "scalar_perceptron", "small_data", "sums_of_the_unit",
    "to_float32", "update_words",
]

needs_digits = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
f16, f32 = np.float16, np.float32


def small_data(count=11, features=7, classes=3):
    rng = np.random.default_rng(4)
    x, y = rng.random((count, features)).astype(f32), rng.integers(0, classes, count)
    return Dataset("small", x, y, x[:5], y[:5], classes)


def image_data(count=6):
    rng = np.random.default_rng(13)
    x, y = rng.random((count, 7 * 8)).astype(f32), rng.integers(0, 3, count)
    return Dataset("images", x, y, x[:4], y[:4], 3, (7, 8))


def to_float32(value):
    """Round a Fraction to a normal float32 number, ties to even."""
    if value == 0:
        return Fraction(0)
    unit = Fraction(2) ** (math.frexp(float(value))[1] - 24)
    return round(value / unit) * unit


def scalar_perceptron(data, system, *, seed, epochs, lr, batch, momentum, hidden):
    """A perceptron with one hidden layer, an operation at a time; `system` has the products and the weights' update.

    Returns the weights as `system` keeps them, and the biases.
    """
    rng = np.random.default_rng(seed)
    sizes, weights = (data.features, hidden, data.classes), []
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        bound = math.sqrt(6 / inputs)
        weights.append(system.start(i, [[f32((2.0 * rng.random() - 1.0) * bound) for _ in range(inputs)]
                                        for _ in range(outputs)]))
    biases, velocities = ([[f32(0)] * size for size in sizes[1:]] for _ in range(2))
    for _ in range(epochs):
        numbers = rng.random(len(data.train_x)).tolist()
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        for start in range(0, len(order), batch):
            chosen = order[start:start + batch]
            x = [list(data.train_x[n]) for n in chosen]
            first = [list(map(np.add, row, biases[0])) for row in system.product("forward", x, weights[0])]
            inner = [[max(each, f32(0)) for each in row] for row in first]
            deltas = []
            for n, row in zip(chosen, system.product("forward", inner, weights[1])):
                z = [float(f32(a + b)) for a, b in zip(row, biases[1])]
                powers = [float(network.passes._exp(np.float64(each - max(z)))) for each in z]
                total = 0.0
                for power in powers:
                    total += power
                deltas.append([f32((power / total - (c == data.train_y[n])) / len(chosen))
                               for c, power in enumerate(powers)])
            slopes = [None, system.product("weight-gradient", flip(deltas), flip(inner))]
            before = system.product("input-gradient", deltas, flip(weights[1]))
            before = [[f32(0) if each <= 0 else slope for each, slope in zip(*rows)] for rows in zip(inner, before)]
            slopes[0] = system.product("weight-gradient", flip(before), flip(x))
            for i, delta in ((0, before), (1, deltas)):
                weights[i] = system.move(i, weights[i], slopes[i])
                for c, column in enumerate(flip(delta)):
                    slope = f32(0)
                    for each in column:
                        slope = f32(slope + each)
                    velocities[i][c] = f32(f32(f32(momentum) * velocities[i][c]) + slope)
                    biases[i][c] = f32(biases[i][c] - f32(f32(lr) * velocities[i][c]))
    return weights, biases


def flip(rows):
    return list(map(list, zip(*rows)))


RUN = {"seed": 9, "epochs": 2, "lr": 0.3, "batch": 4, "momentum": 0.8}


def sums_of_the_unit(p, a, b, order=1):
    """Return the codes (M, N) of ``mx-dot`` for rows of `a` and columns of `b`, 16 sums side by side.

    The blocks of a sum come in ascending order along the reduction axis, or with `order` -1 in descending order.
    """
    blocks = a.scales.shape[1]
    transfers = []
    for start in range(0, len(a.scales) * len(b.scales), p.accumulators):
        sums = np.arange(start, min(start + p.accumulators, len(a.scales) * len(b.scales)))
        transfers += [(sums, np.full(len(sums), k)) for k in range(blocks)[::order]]
    sums, k = (np.concatenate(each) for each in zip(*transfers))
    i, j = np.divmod(sums, len(b.scales))
    first, last = (0, blocks - 1)[::order]
    codes, invalid, _ = mx.dots(p, (a.scales[i, k], a.elements[i, k]), (b.scales[j, k], b.elements[j, k]),
                                sums % p.accumulators, k == first, k == last)
    assert not invalid
    return codes.reshape(len(a.scales), len(b.scales))


def update_words(seed, layer, step, shapes):
    """Return the words of a layer's update: use 8 * layer + 6, a vector for 16 weights of a row, rows one by one."""
    found, vector = [], 0
    for shape in shapes:
        rows = []
        for _ in range(shape[0] if len(shape) == 2 else 1):
            count = -(-shape[-1] // 16)
            numbers = np.arange(vector, vector + count)
            rows.append(words.words(words.key(seed, step), 16, numbers, 8, 8 * layer + 6).ravel()[:shape[-1]])
            vector += count
        found.append(np.array(rows, int).reshape(shape))
    return found
