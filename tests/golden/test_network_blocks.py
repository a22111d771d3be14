"""Runs in numbers with scales, blocks and microscaling, by scalar arithmetic."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import mx, network
from narrowgauge.golden.recipes import make
from networks import RUN, f32, scalar_perceptron, small_data, sums_of_the_unit, to_float32


def block(values, group, mantissa):
    """Groups of exact values of one row in block floating point, nearest."""
    values = [Fraction(float(v)) for v in values]
    groups = []
    for start in range(0, len(values), group):
        part = values[start:start + group]
        top = max(map(abs, part))
        unit = Fraction(2) ** (math.frexp(float(top))[1] - mantissa) if top else 1
        most = 2**mantissa - 1
        groups.append([max(-most, min(most, round(v / unit))) * unit for v in part])
    return groups


def block_product(a, b, group, mantissa):
    """(M, K) times (N, K): quantised along K, one rounding to fp32 per group."""
    a, b = ([block(row, group, mantissa) for row in x] for x in (a, b))
    result = np.zeros((len(a), len(b)), f32)
    for i, j in np.ndindex(result.shape):
        total = Fraction(0)
        for x, y in zip(a[i], b[j]):
            total = to_float32(total + sum(p * q for p, q in zip(x, y)))
        result[i, j] = float(total)
    return result


@pytest.mark.parametrize(("gemm", "shapes"), [
    ("forward", ((5, 10), (7, 10))),
    ("input-gradient", ((5, 7), (7, 10))),
    ("weight-gradient", ((5, 7), (5, 10))),
])
def test_gemm_quantises_along_its_reduction_axis(gemm, shapes):
    rng = np.random.default_rng(6)
    # Rows and columns of very different size: a group along the wrong axis would lose most of it.
    x, y = ((rng.standard_normal(s) * np.exp2(rng.integers(-6, 6, s))).astype(f32) for s in shapes)
    x[1], y[:, 2] = 0, 0
    recipe = make("bfp", group=4, mantissa=3, gradients_rounding="nearest")
    (_, x_axis), (_, y_axis) = network.GEMMS[gemm]
    expected = block_product(x if x_axis else x.T, y if y_axis else y.T, 4, 3)
    found = network.Gemms(recipe, 1).product(gemm, 0, x, y, 0)
    assert np.array_equal(found, expected) and found.dtype == f32


class Microscaled:
    """Products of FP8 blocks in exact arithmetic; SGD with momentum on fp32 weights."""

    # Mantissa bits, exponents of the smallest and of the largest number, and that.
    E4M3, E5M2 = (3, -6, 8, 448), (2, -14, 15, 57344)

    def __init__(self, block, lr, momentum):
        self.block, self.lr, self.momentum, self.velocities = block, lr, momentum, {}

    def start(self, layer, rows):
        self.velocities[layer] = [[f32(0)] * len(rows[0]) for _ in rows]
        return rows

    def move(self, layer, weights, slopes):
        v = self.velocities[layer] = [[f32(f32(f32(self.momentum) * old) + new) for old, new in zip(*rows)]
                                      for rows in zip(self.velocities[layer], slopes)]
        return [[f32(w - f32(f32(self.lr) * each)) for w, each in zip(*rows)] for rows in zip(weights, v)]

    def blocks(self, row, element):
        mantissa, emin, emax, largest = element
        row, blocks = [Fraction(float(each)) for each in row], []
        for start in range(0, len(row), self.block):
            part = row[start:start + self.block]
            scale = Fraction(2) ** (math.frexp(float(max(map(abs, part))))[1] - 1 - emax)
            found = []
            for each in part:
                exponent = max(math.frexp(float(each / scale))[1] - 1, emin) if each else emin
                unit = scale * Fraction(2) ** (exponent - mantissa)
                found.append(max(-largest * scale, min(largest * scale, round(each / unit) * unit)))
            blocks.append(found)
        return blocks

    def product(self, gemm, a, b):
        a = [self.blocks(row, self.E4M3 if gemm == "forward" else self.E5M2) for row in a]
        b = [self.blocks(row, self.E4M3) for row in b]
        rows = []
        for x, y in itertools.product(a, b):
            total = Fraction(0)
            for p, q in zip(x, y):
                total = to_float32(total + sum(map(Fraction.__mul__, p, q)))
            rows.append(f32(float(total)))
        return [rows[start:start + len(b)] for start in range(0, len(rows), len(b))]


def test_mx_run_equals_scalar_arithmetic():
    data = small_data()
    result = network.train(make("mx", block=4), data, hidden=(5,), **RUN)
    weights, biases = scalar_perceptron(data, Microscaled(4, RUN["lr"], RUN["momentum"]), hidden=5, **RUN)
    for (found, bias), expected, other in zip(result.parameters, weights, biases):
        assert np.array_equal(found, f32(expected)) and np.array_equal(bias, f32(other))
    assert not result.invalid


@pytest.mark.parametrize("settings", [
    {}, {"block": 8, "gradients_rounding": "stochastic", "accumulator": "bf16", "element": "fp6-e2m3"},
], ids=["default", "others"])
def test_each_product_of_the_recipe_mx_is_that_of_the_unit(settings, monkeypatch):
    """Train, and give the blocks of each product to the golden function of ``mx-dot``: the same bits come out."""
    matmul, product, operands, products = mx.matmul, network.Gemms.product, [], []

    def keep_operands(a, b, accumulator):
        operands.append((a, b))
        return matmul(a, b, accumulator)

    def keep_product(self, gemm, *rest):
        result = product(self, gemm, *rest)
        products.append((gemm, *operands[-1], result))
        return result

    monkeypatch.setattr(mx.system, "matmul", keep_operands)
    monkeypatch.setattr(network.Gemms, "product", keep_product)
    recipe = make("mx", **settings)
    network.train(recipe, small_data(80, 70), hidden=(20, 70), epochs=3, batch=80)
    assert len(products) == len(operands) > 20
    elements, differ = {}, 0
    for gemm, a, b, result in products:
        p = mx.MXDotParameters(a.format.element, b.format.element, a.format.block, accumulator=recipe.accumulator)
        elements[gemm] = (a.format.element, b.format.element)
        expected = p.accumulator.encode(result)
        assert np.array_equal(sums_of_the_unit(p, a, b), expected)
        # The operands may change places.
        swapped = dataclasses.replace(p, element=b.format.element, element_b=a.format.element)
        assert np.array_equal(sums_of_the_unit(swapped, b, a).T, expected)
        # The blocks of a sum may not.
        differ += (sums_of_the_unit(p, a, b, -1) != expected).sum()
    weights, others, gradients = (recipe.system.format_of(recipe.mode(kind)).element for kind in
                                  ("weights", "activations", "gradients"))
    assert weights == others != gradients
    assert elements == {"forward": (others, others), "input-gradient": (gradients, others),
                        "weight-gradient": (gradients, others)}
    assert differ
