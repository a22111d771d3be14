import dataclasses
import decimal
import hashlib
import importlib.util
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import blockfloat, floating, logarithmic, madam, mx, network, softmax, update, words
from narrowgauge.golden.datasets import Dataset, load
from narrowgauge.golden.formats import PRESETS, BlockFloat, Fixed, Log
from narrowgauge.golden.logarithmic import Logs
from narrowgauge.golden.network import Convolution, Linear
from narrowgauge.golden.recipes import keep, make
from narrowgauge.golden.rounding import stochastic
from narrowgauge.golden.softmax import SoftmaxParameters

needs_digits = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
f16, f32 = np.float16, np.float32


def small_data(count=11, features=7, classes=3):
    rng = np.random.default_rng(4)
    x, y = rng.random((count, features)).astype(f32), rng.integers(0, classes, count)
    return Dataset("small", x, y, x[:5], y[:5], classes)


def test_exp_is_within_1e_15_of_decimal():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-700, 700, 300), rng.uniform(-1, 1, 300), -np.exp2(rng.uniform(-60, 0, 100))])
    with decimal.localcontext(decimal.Context(prec=40)):
        for value, result in zip(x.tolist(), network.passes._exp(x).tolist()):
            exact = decimal.Decimal(value).exp()
            assert abs(decimal.Decimal(result) - exact) <= exact * decimal.Decimal(1e-15), value


def test_exp_at_its_ends():
    x = np.array([0.0, -0.0, -745.0, -745.2, -1e300, -np.inf, 709.7, 710.0, np.inf, np.nan])
    expected = [1.0, 1.0, 5e-324, 0.0, 0.0, 0.0, math.exp(709.7), np.inf, np.inf, np.nan]
    np.testing.assert_allclose(network.passes._exp(x), expected, rtol=1e-15, atol=0)


def test_fp32_product_adds_in_rising_order():
    rng = np.random.default_rng(1)
    a = (rng.standard_normal((5, 40)) * np.exp2(rng.integers(-20, 20, (5, 40)))).astype(f32)
    b = rng.standard_normal((40, 6)).astype(f32)
    product = floating.matmul_fp32(a, b)
    for i, j in np.ndindex(5, 6):
        total = f32(0)
        for k in range(40):
            total = f32(total + f32(a[i, k] * b[k, j]))
        assert product[i, j] == total and product.dtype == f32
    # 1 is lost beside 2**25 unless it comes last.
    assert floating.matmul_fp32(f32([[2**25, 1, -2**25]]), np.ones((3, 1), f32)) == 0
    assert floating.matmul_fp32(f32([[2**25, -2**25, 1]]), np.ones((3, 1), f32)) == 1


def test_fp32_product_does_not_depend_on_slabs(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = rng.random((33, 9)).astype(f32), rng.random((9, 5)).astype(f32)
    whole = floating.matmul_fp32(a, b)
    monkeypatch.setattr(floating.products, "SLAB", 20)
    assert np.array_equal(floating.matmul_fp32(a, b), whole)


def test_relu_keeps_nan_and_drops_the_sign_of_zero():
    result = network.relu(f32([-1, -0.0, 0, 2, np.nan, -np.inf]))
    assert result[:4].tolist() == [0, 0, 0, 2] and not np.signbit(result[:4]).any()
    assert np.isnan(result[4]) and result[5] == 0 and result.dtype == f32


def reference_loss(layers, x, y):
    """Mean cross-entropy in float64, by NumPy."""
    for i, (weights, bias) in enumerate(layers):
        x = (np.maximum(x, 0) if i else x) @ weights.T + bias
    return np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(y)), y])


def test_gradients_equal_central_differences():
    data, rng = small_data(), np.random.default_rng(3)
    layers = network.perceptron(data, (6, 5))
    parameters = [(w, rng.standard_normal(len(b)).astype(f32)) for w, b in network.initialise(layers, rng)]
    found, _ = network.gradients(network.Gemms(make("fp32"), 1), layers, parameters, data.train_x, data.train_y, 0)
    wide = [[p.astype(np.float64) for p in layer] for layer in parameters]
    for layer, slopes in zip(wide, found):
        for parameter, slope in zip(layer, slopes):
            assert slope.shape == parameter.shape and slope.dtype == f32
            for index in np.ndindex(parameter.shape):
                start, losses = parameter[index], []
                for moved in (start + 1e-6, start - 1e-6):
                    parameter[index] = moved
                    losses.append(reference_loss(wide, data.train_x, data.train_y))
                parameter[index] = start
                assert slope[index] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-7)


def naive_convolution(layer, weights, x):
    """A convolution by its definition, in float64."""
    height, width = layer.shape
    images = x.reshape(len(x), layer.height, layer.width, layer.channels)
    kernels = weights.reshape(layer.outputs, layer.kernel, layer.kernel, layer.channels)
    z = np.zeros((len(x), height, width, layer.outputs))
    for n, i, j, o in np.ndindex(z.shape):
        for y, k, c in np.ndindex(layer.kernel, layer.kernel, layer.channels):
            z[n, i, j, o] += images[n, i * layer.stride + y, j * layer.stride + k, c] * kernels[o, y, k, c]
    return z.reshape(len(x), -1)


LAYERS = [Convolution(5, 6, 2, 3), Convolution(6, 7, 3, 2, stride=2), Convolution(7, 5, 1, 2, kernel=2, stride=3),
          Convolution(3, 3, 2, 4)]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_convolution_by_patches_equals_its_definition(layer):
    rng = np.random.default_rng(10)
    # Small integers: sums are exact in any order.
    x = rng.integers(-4, 5, (2, layer.height * layer.width * layer.channels)).astype(f32)
    weights = rng.integers(-4, 5, (layer.outputs, layer.patch)).astype(f32)
    product = network.Gemms(make("fp32"), 1).product("forward", 0, layer.unroll(x), weights, 0)
    assert np.array_equal(product.reshape(2, -1), naive_convolution(layer, weights, x))
    assert product.size == 2 * layer.positions * layer.outputs


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_input_gradient_is_the_transpose_of_the_convolution(layer):
    rng = np.random.default_rng(11)
    x = rng.integers(-9, 10, (3, layer.inputs)).astype(f32)
    weights = rng.integers(-9, 10, (layer.outputs, layer.patch)).astype(f32)
    delta = rng.integers(-9, 10, (3 * layer.positions, layer.outputs)).astype(f32)
    found = network.Gemms(make("fp32"), 1).input_gradient(layer, 1, delta, weights, 0)
    assert found.shape == x.shape
    assert np.sum(found * x) == np.sum(naive_convolution(layer, weights, x).reshape(delta.shape) * delta)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("name", ["fp16", "fp32"])
def test_a_pixels_gradient_is_one_sum_over_the_kernels_places_and_the_channels(layer, name):
    """Each product of the work format added in the order of (ky, kx, output channel), in chunks where it has such."""
    rng, (height, width) = np.random.default_rng(12), layer.shape
    recipe = make(name, **({"chunk": None} if name == "fp16" else {}))
    dtype = recipe.dtype.type
    weights = rng.standard_normal((layer.outputs, layer.patch)).astype(dtype)
    delta = rng.standard_normal((2 * layer.positions, layer.outputs)).astype(dtype)
    found = network.Gemms(recipe, 1).input_gradient(layer, 1, delta, weights, 0)
    kernels = weights.reshape(layer.outputs, layer.kernel, layer.kernel, layer.channels)
    images = delta.reshape(2, height, width, layer.outputs)
    for n, i, j, c in np.ndindex(2, layer.height, layer.width, layer.channels):
        terms = []
        for y, x in np.ndindex(layer.kernel, layer.kernel):
            (row, down), (column, across) = divmod(i - y, layer.stride), divmod(j - x, layer.stride)
            if down == across == 0 and 0 <= row < height and 0 <= column < width:
                terms += [(images[n, row, column, o], kernels[o, y, x, c]) for o in range(layer.outputs)]
        total = sum_of(terms, name)
        assert found.reshape(2, layer.height, layer.width, -1)[n, i, j, c] == total, (n, i, j, c)


def test_phases_have_random_words_of_their_own_and_share_the_scale_of_their_tensors(monkeypatch):
    """Each operand begins where the one of the phase before ended; modes are those of the whole tensors."""
    layer, calls = Convolution(6, 7, 3, 20, stride=2), []
    recipe = make("bfp", group=4, weights_rounding="stochastic")
    operand = type(recipe.system).operand

    def kept(self, array, axis, mode, side, draws):
        calls.append((side, draws, array.shape if axis == 1 else array.shape[::-1]))
        return operand(self, array, axis, mode, side, draws)

    monkeypatch.setattr(type(recipe.system), "operand", kept)
    rng = np.random.default_rng(4)
    delta = rng.standard_normal((2 * layer.positions, layer.outputs)).astype(f32)
    weights = rng.standard_normal((layer.outputs, layer.patch)).astype(f32)
    network.Gemms(recipe, 5).input_gradient(layer, 3, delta, weights, 9)
    ends = [0, 0]
    for side, draws, (rows, length) in calls:
        assert draws == dataclasses.replace(network.draws_of(5, 3, 2 + side, 9), vector=ends[side])
        ends[side] += rows * -(-length // 4)
    assert len(calls) == 2 * 4
    seen = []
    int8 = make("system", system="int8")
    monkeypatch.setattr(type(int8.system), "mode", lambda self, kind, array: seen.append(np.abs(array).max()) or {
        "scale": 120})
    network.Gemms(int8, 5).input_gradient(layer, 3, delta, weights, 9)
    assert seen == [np.abs(delta).max(), np.abs(weights).max()] * 4


def sum_of(terms, name):
    """Return the sum from +0: of fp32 each product and each sum rounded; of fp16 each exact product added, rounded."""
    total = f32(0) if name == "fp32" else Fraction(0)
    for a, b in terms:
        if name == "fp32":
            total = total + a * b
        else:
            exact = total + Fraction(float(a)) * Fraction(float(b))
            unit = max(Fraction(2) ** (math.frexp(float(exact))[1] - 11), Fraction(2) ** -24)
            total = round(exact / unit) * unit
    return float(total)


def image_data(count=6):
    rng = np.random.default_rng(13)
    x, y = rng.random((count, 7 * 8)).astype(f32), rng.integers(0, 3, count)
    return Dataset("images", x, y, x[:4], y[:4], 3, (7, 8))


def reference_cnn_loss(layers, parameters, x, y):
    """Mean cross-entropy of a CNN in float64, with NumPy's mean and variance where a layer has a gain."""
    for i, (layer, (weights, *rest)) in enumerate(zip(layers, parameters)):
        x = np.maximum(x, 0) if i else x
        z = naive_convolution(layer, weights, x) if isinstance(layer, Convolution) else x @ weights.T
        z = z.reshape(-1, layer.outputs)
        if len(rest) == 2:
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 2**-10) * rest[0]
        x = (z + rest[-1]).reshape(len(x), -1)
    return np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(y)), y])


@pytest.mark.parametrize(("model", "hidden", "batch_norm"), [("cnn", (2, 3), False), ("cnn", (2, 3), True),
                                                             ("mlp", (4, 3), True)])
def test_gradients_of_other_models_equal_central_differences(model, hidden, batch_norm):
    data, rng = image_data(), np.random.default_rng(14)
    layers = network.models.layers_of(model, data, hidden, batch_norm)
    parameters = [(weights, *((rng.standard_normal((len(rest), len(weights))) + 1).astype(f32)))
                  for weights, *rest in network.initialise(layers, rng)]
    found, statistics = network.gradients(network.Gemms(make("fp32"), 1), layers, parameters, data.train_x,
                                          data.train_y, 0)
    assert [each is not None for each in statistics] == [batch_norm] * (len(layers) - 1) + [False]
    wide = [[p.astype(np.float64) for p in layer] for layer in parameters]
    for layer, slopes in zip(wide, found):
        assert [slope.shape for slope in slopes] == [parameter.shape for parameter in layer]
        for parameter, slope in zip(layer, slopes):
            for index in rng.permutation(list(np.ndindex(parameter.shape)))[:12].tolist():
                index = tuple(index)
                start, losses = parameter[index], []
                for moved in (start + 1e-5, start - 1e-5):
                    parameter[index] = moved
                    losses.append(reference_cnn_loss(layers, wide, data.train_x, data.train_y))
                parameter[index] = start
                assert slope[index] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-3, abs=1e-6)


def test_the_learning_rate_halves_after_its_parts_of_the_run(monkeypatch):
    rates, step = [], network.sgd
    monkeypatch.setattr(network.weights, "sgd", lambda *arguments: rates.append(arguments[3]) or step(*arguments))
    network.train(make("fp32"), small_data(), epochs=4, lr=0.3, batch=6, hidden=(), lr_drops=(0.25, 0.6))
    assert rates[::2] == [0.3, 0.3, 0.15, 0.15, 0.15, 0.075, 0.075, 0.075]


def test_sgd_step_equals_scalar_arithmetic():
    rng = np.random.default_rng(5)
    w, v, g = (rng.standard_normal(200) * np.exp2(rng.integers(-40, 5, 200)) for _ in range(3))
    v[:20] *= 1e-33  # subnormal velocities
    g[:20] = 0
    w, v, g = w.astype(f32), v.astype(f32), g.astype(f32)
    next_w, next_v = network.sgd(w, v, g, 0.1, 0.9)
    assert next_w.dtype == next_v.dtype == f32
    for i in range(200):
        velocity = f32(f32(f32(0.9) * v[i]) + g[i])
        step = -f32(f32(0.1) * velocity)
        assert next_v[i] == velocity and next_w[i] == f32(w[i] + step)


def scalar_run(data, seed, epochs, lr, batch, momentum):
    """The fp32 recipe with no hidden layer, one scalar operation at a time."""
    rng = np.random.default_rng(seed)
    x, y, classes, features = data.train_x, data.train_y, data.classes, data.features
    bound = math.sqrt(6 / features)
    # Column `features` is the bias.
    w = [[*[f32((2.0 * rng.random() - 1.0) * bound) for _ in range(features)], f32(0)] for _ in range(classes)]
    v = [[f32(0)] * (features + 1) for _ in range(classes)]
    for _ in range(epochs):
        numbers = rng.random(len(x)).tolist()
        order = sorted(range(len(x)), key=numbers.__getitem__)
        for start in range(0, len(x), batch):
            chosen = order[start:start + batch]
            slopes = [[f32(0)] * (features + 1) for _ in range(classes)]
            for n in chosen:
                z = []
                for c in range(classes):
                    total = f32(0)
                    for k in range(features):
                        total = f32(total + f32(x[n, k] * w[c][k]))
                    z.append(float(f32(total + w[c][features])))
                powers = [float(network.passes._exp(np.float64(value - max(z)))) for value in z]
                total = 0.0
                for power in powers:
                    total += power
                for c in range(classes):
                    delta = f32((powers[c] / total - (c == y[n])) / len(chosen))
                    for k in range(features + 1):
                        factor = x[n, k] if k < features else f32(1)
                        slopes[c][k] = f32(slopes[c][k] + f32(delta * factor))
            for c, k in itertools.product(range(classes), range(features + 1)):
                v[c][k] = f32(f32(f32(momentum) * v[c][k]) + slopes[c][k])
                w[c][k] = f32(w[c][k] - f32(f32(lr) * v[c][k]))
    return np.array(w, f32)


def test_run_equals_scalar_arithmetic():
    data = small_data()
    result = network.train(make("fp32"), data, seed=9, epochs=2, lr=0.3, batch=4, hidden=(), momentum=0.8)
    expected = scalar_run(data, 9, 2, 0.3, 4, 0.8)
    (weights, bias), = result.parameters
    assert np.array_equal(expected[:, :-1], weights) and np.array_equal(bias, expected[:, -1])


def to_float32(value):
    """Round a Fraction to a normal float32 number, ties to even."""
    if value == 0:
        return Fraction(0)
    unit = Fraction(2) ** (math.frexp(float(value))[1] - 24)
    return round(value / unit) * unit


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


def log2(value):
    return decimal.Decimal(value).ln() / decimal.Decimal(2).ln()


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


class Logarithmic:
    """Products of logarithms and Madam's update, in integers and decimal logarithms; weights are pairs (sign, t)."""

    def __init__(self, seed, steps, *, lanes=16, accumulator=48, lsb=0, constants=8, weights_bits=16, rate=4, drops=(),
                 second_bits=10, second_gamma=8, second_bias=96, clip=10, memory=1000):
        self.seed, self.steps, self.step = seed, steps, [0, 0]
        self.lanes, self.accumulator, self.lsb, self.constants = lanes, accumulator, lsb, constants
        self.bits, self.gamma, self.rate, self.drops = weights_bits, 8 << (weights_bits - 8), rate, drops
        self.top, self.c, self.bias = (1 << second_bits) - 1, second_gamma, second_bias
        self.clip, self.memory = clip, memory
        self.scales, self.bounds, self.seconds, self.saturated = {}, {}, {}, False

    def start(self, layer, rows):
        flat = [Fraction(float(each)) for row in rows for each in row]
        square = sum(each * each for each in flat) * 9 / len(flat)
        level = round(self.gamma * log2(decimal.Decimal(square.numerator) / square.denominator) / 2)
        self.scales[layer] = scale = -((2 ** (self.bits - 1) - 1 - level) // self.gamma)
        self.bounds[layer] = level - self.gamma * scale
        self.seconds[layer] = [[0] * len(rows[0]) for _ in rows]
        return [[(bool(each < 0), max(1, round(self.gamma * log2(abs(float(each)))) - self.gamma * scale))
                 for each in row] for row in rows]

    def operand(self, rows):
        """Return pairs (sign, t) in 8 bits and the exponent of their scale."""
        if isinstance(rows[0][0], tuple):
            layer = 0 if (len(rows), len(rows[0])) == self.shape else 1
            shift = self.bits - 8
            return [[(s, min((t + (1 << shift >> 1)) >> shift, 127)) for s, t in row] for row in rows], \
                self.scales[layer]
        found = [[round(8 * log2(abs(float(each)))) if each else None for each in row] for row in rows]
        most = max(each for row in found for each in row if each is not None)
        scale = -((127 - most) // 8)
        return [[(bool(x < 0), 0 if level is None else max(level - 8 * scale, 0)) for x, level in zip(*pair)]
                for pair in zip(rows, found)], scale

    def constant(self, remainder):
        high, low = divmod(remainder, 8 // self.constants)
        whole = round(decimal.Decimal(2) ** (decimal.Decimal(high) / self.constants) * 256)
        return Fraction(whole, 256) * (1 + Fraction(low, 8))

    def product(self, gemm, a, b):
        (a, ka), (b, kb) = self.operand(a), self.operand(b)
        most = Fraction(2) ** (self.accumulator - 1 + self.lsb)
        rows = []
        for x, y in itertools.product(a, b):
            total = Fraction(0)
            for start in range(0, len(x), self.lanes):
                for (s, t), (r, u) in list(zip(x, y))[start:start + self.lanes]:
                    quotient, remainder = divmod(t + u, 8)
                    if t and u and quotient >= self.lsb:
                        total += (-1) ** (s + r) * self.constant(remainder) * 2**quotient
                # The greatest sum is one unit of the constants' fraction less than the power of two.
                held = max(-most, min(most - Fraction(2) ** (self.lsb - 8), total))
                self.saturated |= held != total
                total = held
            rows.append(f32(float(to_float32(total * Fraction(2) ** (ka + kb)))))
        return [rows[start:start + len(b)] for start in range(0, len(rows), len(b))]

    def move(self, layer, weights, slopes):
        rate = self.rate - sum(self.step[layer] >= part * self.steps for part in self.drops)
        self.step[layer] += 1
        kept = decimal.Decimal(self.memory - 1) / self.memory
        correction = round(self.c * log2(1 - kept ** self.step[layer]))
        shape = len(weights), len(weights[0])
        words = iter(update_words(self.seed, layer, self.step[layer] - 1, [shape])[0].ravel().tolist())
        moved = []
        for w, g, v in zip(weights, slopes, self.seconds[layer]):
            moved.append([])
            for k, (sign, t) in enumerate(w):
                square = round(2 * self.c * log2(abs(float(g[k])))) + self.c * self.bias if g[k] else 0
                d = decimal.Decimal(max(square, 0) - v[k]) / self.c
                growth = log2(kept + (2**d / self.memory if square > 0 else 0))
                v[k] = max(0, min(self.top, (256 * v[k] + round(256 * self.c * growth) + next(words)) >> 8))
                n = decimal.Decimal(2) ** (decimal.Decimal(square - v[k] + correction) / (2 * self.c))
                n = min(round(n), self.clip) if square > 0 else 0
                t += n * 2**rate if (g[k] < 0) != sign else -n * 2**rate
                moved[-1].append((sign, max(1, min(t, self.bounds[layer]))))
        return moved


@pytest.mark.parametrize("settings", [
    {},
    {"constants": 2, "weights_bits": 12, "rate": 3, "drops": (0.4,), "second_bits": 9, "second_gamma": 4},
    # No more than one of the largest products fits.
    {"lanes": 4, "accumulator": 16, "lsb": 17, "clip": 3, "memory": 100, "rate": 7},
], ids=["default", "narrow", "saturating"])
def test_lns_madam_run_equals_scalar_arithmetic(settings):
    saturating = "lsb" in settings
    data, run = small_data(features=100 if saturating else 7), RUN | {"epochs": 1 if saturating else 2}
    settings = {"rate": 4, "drops": (), **settings}
    with decimal.localcontext(decimal.Context(prec=50)):
        system = Logarithmic(9, 3 * run["epochs"], **settings)
        system.shape = (5, data.features)
        weights, biases = scalar_perceptron(data, system, hidden=5, **run)
    recipe = make("lns-madam", **{"rate_drops" if name == "drops" else name: value for name, value in settings.items()})
    result = network.train(recipe, data, hidden=(5,), **run)
    for i, (found, bias) in enumerate(result.parameters):
        fmt = found.format
        assert (fmt, found.scale) == (Log(system.bits, system.gamma), system.scales[i])
        pairs = [[(bool(code >> (fmt.bits - 1)), code & fmt.top) for code in row] for row in found.codes.tolist()]
        assert pairs == weights[i] and np.array_equal(bias, f32(biases[i]))
    assert result.overflow == system.saturated == saturating and not result.invalid


def log_run(update="madam", epochs=2, **settings):
    calls = []
    recipe = make("lns-madam", update=update, **settings)
    result = network.train(recipe, image_data(), seed=3, epochs=epochs, batch=3, model="cnn", hidden=(2, 3),
                           batch_norm=True, record=lambda *call: calls.append(call))
    return result, calls


@pytest.mark.parametrize("settings", [{}, {"weights_bits": 11, "rate": 2, "rate_drops": []}, {"second": "fp32"}],
                         ids=str)
def test_logarithmic_weights_keep_their_signs_and_bounds(settings):
    result, calls = log_run(**settings)
    first = {layer: weights for step, layer, gemm, kind, weights, _ in calls
             if kind == "weights" and step == 0 and gemm == "forward"}
    for i, (weights, *_) in enumerate(result.parameters):
        fmt = weights.format
        assert fmt.bits == settings.get("weights_bits", 16) and weights.scale == first[i].scale
        t, start = weights.codes & fmt.top, first[i].codes & fmt.top
        assert np.array_equal(weights.codes >> (fmt.bits - 1), first[i].codes >> (fmt.bits - 1))
        clamp = 3 * np.sqrt(np.mean(first[i].values() ** 2))
        assert t.min() >= 1 and (np.abs(weights.values()) <= clamp * 1.1).all() and (t != start).any()


def test_first_weights_that_vanish_get_the_smallest_code_and_their_sign():
    stored = make("lns-madam").stored
    weights = f32([[1, -1, 0.5, 1e-6, -1e-6, 0, -0.0, 3]])
    logs = network.LogWeights(stored, weights, 10).start
    t, signs = logs.codes & 32767, logs.codes >> 15
    assert signs.tolist() == [[0, 1, 0, 0, 1, 0, 1, 0]] and t[0, 3:7].tolist() == [1] * 4
    np.testing.assert_allclose(logs.values()[0, [0, 1, 2, 7]], weights[0, [0, 1, 2, 7]], rtol=2.0**-12)


def test_first_weights_are_held_within_three_root_mean_squares():
    weights = f32([[1] * 99 + [-90]])
    clamp = 3 * math.sqrt((99 + 8100) / 100)
    logs = network.LogWeights(make("lns-madam").stored, weights, 10)
    assert logs.start.values()[0, -1] == pytest.approx(-clamp, rel=2.0**-12)
    assert int(logs.start.codes[0, -1]) & 32767 == logs.bound <= 32767 < logs.bound + 2048


def test_all_products_take_narrow_codes_of_the_stored_weights(monkeypatch):
    products = []
    multiply = logarithmic.matmul

    def matmul(a, b, parameters):
        products.append((a, b))
        return multiply(a, b, parameters)

    monkeypatch.setattr(logarithmic.system, "matmul", matmul)
    _, calls = log_run(epochs=1)  # accuracy is measured after all of the training
    weights = [(gemm, array) for _, _, gemm, kind, array, _ in calls if kind == "weights"]
    # Forward three layers; the input gradient of a linear one, and of a convolution with stride 2 in four phases.
    assert len(weights) == 2 * (3 + 1 + 4) and {gemm for gemm, _ in weights} == {"forward", "input-gradient"}
    assert all(array.format == PRESETS["lns16-update"] for _, array in weights)
    assert all(a.format == b.format == PRESETS["lns8"] for a, b in products)
    # The second operand of a product is its weights, rounded half up; forward has them transposed.
    for (_, _, gemm, kind, array, _), (_, b) in zip(calls[1::2], products):
        if kind == "weights":
            t, sign = array.codes & 32767, array.codes >> 15
            narrow = np.minimum((t + 128) >> 8, 127)
            narrow |= (sign & (narrow > 0)) << 7
            assert b.scale == array.scale and np.array_equal(b.codes, narrow.T if gemm == "forward" else narrow)


def test_madam_takes_the_rate_of_its_part_of_the_run():
    stored = make("lns-madam", rate=5, rate_drops=(0.25, 0.5, 0.9)).stored
    assert [stored.rate_at(step, 8) for step in range(8)] == [5, 5, 4, 4, 3, 3, 3, 3]
    assert [stored.rate_at(step, 10) for step in (2, 3, 8, 9)] == [5, 4, 3, 2]


@pytest.mark.parametrize("bits", [8, 16])
def test_sgd_on_logarithmic_weights_rounds_them_again(bits):
    _, calls = log_run("sgd", weights_bits=bits)
    stored = make("lns-madam", update="sgd", weights_bits=bits).stored
    rng = np.random.default_rng(19)
    logs = network.LogWeights(stored, rng.standard_normal((4, 9)).astype(f32), 10)
    weights, velocity = logs.start, logs.first()
    number, v = weights.values().astype(f32), np.zeros((4, 9), f32)
    for _ in range(3):
        gradient = rng.standard_normal((4, 9)).astype(f32)
        number, v = network.sgd(number, v, gradient, 0.1, 0.9)
        weights, velocity = logs.moved(weights, velocity, gradient, 0.1, 0.9)
        # To the nearest of all numbers that there are, by logarithm.
        t = np.arange(1, weights.format.top + 1)
        levels = weights.scale + t / weights.format.gamma
        nearest = np.abs(np.log2(np.abs(number))[..., np.newaxis] - levels).argmin(axis=-1) + 1
        assert np.array_equal(weights.codes & weights.format.top, nearest)
        assert np.array_equal(weights.codes >> (bits - 1), number < 0) and np.array_equal(velocity, v)
        number = weights.values().astype(f32)
    kept = [array for _, _, _, kind, array, _ in calls if kind == "weights"]
    assert {array.format.bits for array in kept} == {bits}


def test_a_second_moment_in_fp32_moves_weights_as_the_twin_does():
    stored = make("lns-madam", second="fp32", rate=4, rate_drops=()).stored
    rng = np.random.default_rng(20)
    logs = network.LogWeights(stored, rng.standard_normal((8, 50)).astype(f32), 100)
    weights, second = logs.start, logs.first()
    wide, seconds = weights.values(), np.zeros((8, 50))
    bound = 2.0 ** (weights.scale + logs.bound / 2048)
    for step in range(1, 41):
        gradient = (rng.standard_normal((8, 50)) * np.exp2(rng.integers(-9, 3, (8, 50)))).astype(f32)
        weights, second = logs.moved(weights, second, gradient, 0.1, 0.9)
        wide, seconds = madam.twin(wide, gradient, seconds, step, bound=bound)
    # A normalised gradient within fp32's rounding of a half is rounded either way: none is here.
    np.testing.assert_allclose(weights.values(), wide, rtol=1e-9)
    np.testing.assert_allclose(second, seconds, rtol=1e-5)


@pytest.mark.parametrize(("name", "settings"), [("lns-madam", {}), ("lns-madam", {"update": "sgd", "weights_bits": 8}),
                                                ("mx", {"gradients_rounding": "stochastic"})], ids=str)
@pytest.mark.parametrize(("model", "hidden", "batch_norm"), [("mlp", (4,), False), ("mlp", (4,), True),
                                                             ("cnn", (2, 3), False), ("cnn", (2, 3), True)])
def test_logarithms_and_microscaling_train_every_model(name, settings, model, hidden, batch_norm):
    runs = [network.train(make(name, **settings), image_data(), seed=seed, epochs=2, batch=4, model=model,
                          hidden=hidden, batch_norm=batch_norm) for seed in (1, 1, 2)]
    assert runs[0].digest == runs[1].digest != runs[2].digest and runs[0].history == runs[1].history
    assert np.isfinite(runs[0].history[-1].loss) and not runs[0].invalid


def test_digest_takes_logarithmic_codes_as_they_are():
    wide, narrow = Log(16, 2048), Log(8, 8)
    one, other = (Logs(wide, np.array([[0x8001, code]], np.uint32), -3) for code in (0x0102, 0x0201))
    assert network.digest([(one,)]) == hashlib.sha256(b"\x01\x80\x02\x01").hexdigest() != network.digest([(other,)])
    short = Logs(narrow, np.array([[0x81, 0x7F]], np.uint32), -3)
    assert network.digest([(short, f32([1]))]) == hashlib.sha256(b"\x81\x7f\x00\x00\x80\x3f").hexdigest()


def test_rows_of_logarithmic_products_do_not_depend_on_pieces(monkeypatch):
    whole = log_run()[0]
    monkeypatch.setattr(logarithmic.system, "LOGS", 40)
    assert log_run()[0].digest == whole.digest


def test_bad_numbers_are_flagged_and_stop_no_logarithmic_run():
    for value in (np.nan, np.inf):
        data = small_data()
        data.train_x[0, 0] = value
        result = network.train(make("lns-madam"), data, epochs=1, batch=4)
        assert result.invalid == np.isnan(value)
    logs = network.LogWeights(make("lns-madam").stored, np.ones((1, 3), f32), 10)
    moved, seconds = logs.moved(logs.start, logs.first(), f32([[np.nan, np.inf, 1]]), 0.1, 0.9,
                                lambda shape, bits: np.zeros(shape, int))
    assert logs.invalid and logs.overflow and moved.codes[0, 0] == logs.start.codes[0, 0] and seconds[0, 0] == 0
    data = small_data()
    data.train_x[0, 0] = np.nan
    assert network.train(make("mx", block=4), data, epochs=1, batch=4).invalid


def test_saturated_sums_are_flagged():
    x, weights = np.ones((2, 40), f32), np.ones((3, 40), f32)
    for settings, overflow in (({}, False), ({"accumulator": 33}, True), ({"accumulator": 38}, False)):
        gemms = network.Gemms(make("lns-madam", **settings), 1)
        product = gemms.product("forward", 0, x, weights, 0)
        assert gemms.overflow == overflow and ((product < 35) if overflow else (product == 40)).all(), settings


def to_float16(value):
    """Round a Fraction to float16, ties to even, with subnormals; beyond the largest number to Inf."""
    if value == 0:
        return f16(0)
    unit = max(Fraction(2) ** (math.frexp(float(value))[1] - 11), Fraction(1, 2**24))
    rounded = round(value / unit) * unit
    return f16(math.copysign(math.inf, rounded) if abs(rounded) >= 65536 else float(rounded))


def half(operation, *operands):
    """One operation on float16 numbers, exact and then rounded; by NumPy where one is Inf or NaN."""
    if all(np.isfinite(operands)):
        return to_float16(operation(*(Fraction(float(each)) for each in operands)))
    return f16(operation(*(np.float64(each) for each in operands)))


def half_sum(x, y, chunk):
    """Sum of products by fused multiply-adds, chunk by chunk."""
    total = f16(0)
    for start in range(0, len(x), chunk or len(x)):
        part = f16(0)
        for a, b in list(zip(x, y))[start:start + (chunk or len(x))]:
            part = half(lambda a, b, c: a * b + c, a, b, part)
        total = half(lambda a, b: a + b, total, part) if chunk else part
    return total


def scalar_fp16_run(data, seed, epochs, lr, batch, momentum, chunk, scale, interval):
    """The fp16 recipe with no hidden layer, one exact operation and one rounding at a time."""
    rng = np.random.default_rng(seed)
    classes, features = data.classes, data.features
    x = [[*map(f16, row), f16(1)] for row in data.train_x]
    bound = math.sqrt(6 / features)
    w = [[*[f16((2.0 * rng.random() - 1.0) * bound) for _ in range(features)], f16(0)] for _ in range(classes)]
    v = [[f16(0)] * (features + 1) for _ in range(classes)]
    skipped = accepted = 0
    dynamic = scale is not None
    scale = scale or 1
    for _ in range(epochs):
        numbers = rng.random(len(x)).tolist()
        order = sorted(range(len(x)), key=numbers.__getitem__)
        for start in range(0, len(x), batch):
            chosen, deltas = order[start:start + batch], []
            for n in chosen:
                z = [half(lambda a, b: a + b, half_sum(x[n][:-1], w[c][:-1], chunk), w[c][-1]) for c in range(classes)]
                powers = [f16(network.passes._exp(np.float64(half(lambda a, b: a - b, each, max(z))))) for each in z]
                total = f16(0)
                for power in powers:
                    total = half(lambda a, b: a + b, total, power)
                p = [half(lambda a, b: a / b, power, total) for power in powers]
                p[data.train_y[n]] = half(lambda a: a - 1, p[data.train_y[n]])
                deltas.append([half(lambda a, b: a * b, each, f16(scale / len(chosen))) for each in p])
            new_v, new_w = [[0] * (features + 1) for _ in w], [[0] * (features + 1) for _ in w]
            for c, k in itertools.product(range(classes), range(features + 1)):
                slope = half_sum([x[n][k] for n in chosen], [delta[c] for delta in deltas], chunk)
                new_v[c][k] = half(lambda a, b: a + b, half(lambda a, b: a * b, f16(momentum), v[c][k]), slope)
                u = half(lambda a, b: a * b, f16(lr), new_v[c][k])
                new_w[c][k] = half(lambda a, b: a - b, w[c][k], half(lambda a, b: a / b, u, scale))
            if dynamic and not np.isfinite(new_v).all():
                skipped, accepted, scale = skipped + 1, 0, scale // 2
                v = [[half(lambda a: a / 2, each) for each in row] for row in v]
                continue
            v, w, accepted = new_v, new_w, accepted + 1
            if accepted == interval:
                accepted, doubled = 0, [[half(lambda a: a * 2, each) for each in row] for row in v]
                if np.isfinite(doubled).all():
                    v, scale = doubled, scale * 2
    return np.array(w, f16), skipped, scale


@pytest.mark.parametrize(("settings", "skips"), [
    ({"chunk": None, "loss_scale": None}, False),
    ({"chunk": 3, "loss_scale": None}, False),
    # 2**20 / 4 is no fp16 number: skipped, and halved until the gradients fit. Growth makes them overflow again.
    ({"chunk": 4, "loss_scale": 2**20, "growth_interval": 3}, True),
    ({"chunk": None, "loss_scale": 8, "growth_interval": 2}, False),
], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the scalar arithmetic
def test_fp16_run_equals_scalar_arithmetic(settings, skips):
    data = small_data()
    result = network.train(make("fp16", **settings), data, seed=9, epochs=4, lr=0.3, batch=4, hidden=(), momentum=0.8)
    weights, skipped, scale = scalar_fp16_run(data, 9, 4, 0.3, 4, 0.8, settings["chunk"], settings["loss_scale"],
                                              settings.get("growth_interval"))
    (found, bias), = result.parameters
    assert np.array_equal(np.column_stack([found, bias]), weights) and found.dtype == bias.dtype == f16
    assert (result.skipped, result.loss_scale) == (skipped, scale) and (skipped > 4) == skips


def test_half_precision_exponentials_are_correctly_rounded():
    # _exp is within 1e-15: only a middle between two fp16 numbers so near would make a difference.
    x = np.arange(0x8001, 0xFC00).astype(np.uint16).view(f16).astype(np.float64)
    powers = network.passes._exp(x)
    rounded = powers.astype(f16)
    for side in (-np.inf, np.inf):
        middle = (rounded.astype(np.float64) + np.nextafter(rounded, f16(side))) / 2
        assert (np.abs(powers - middle) > 4e-15 * powers).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fp16_softmax_gradient_of_large_logits_and_scales():
    logits, y = f16([[60000, -60000, 0], [1, 1, 1], [-5, 8, 7.9]]), np.array([0, 1, 2])
    found = network.softmax_gradient(logits, y, 3)
    third = f16(1) / f16(3)
    assert found.dtype == f16 and found[:2].tolist() == [[0, 0, 0], [third, third - 1, third]]
    # 2**18 / 3 is no fp16 number: no gradient is finite, so that the step is skipped.
    assert not np.isfinite(network.softmax_gradient(logits, y, 2**18)).any()
    assert np.isfinite(network.softmax_gradient(logits, y, 2**17)).all()


def test_fp16_statistics_equal_scalar_arithmetic():
    rng = np.random.default_rng(15)
    z, delta = (rng.standard_normal((11, 2)) * [3, 0.01]).astype(f16), rng.standard_normal((11, 2)).astype(f16)
    gain, shift = rng.standard_normal((2, 2)).astype(f16)
    gemms = network.Gemms(make("fp16", chunk=4), 1)
    y, (x, inverse), (mean, variance) = network.normalise(gemms, z, gain, shift)
    by_z, by_gain, by_shift = network.normalise_gradient(gemms, delta, gain, x, inverse)
    part = f16(1 / 11)
    for c in range(2):
        assert mean[c] == half_sum(z[:, c], [part] * 11, 4)
        d = [half(lambda a, b: a - b, each, mean[c]) for each in z[:, c]]
        squares = [half(lambda a: a * a, each) for each in d]
        assert variance[c] == half_sum(squares, [part] * 11, 4)
        root = decimal.Decimal(float(half(lambda a: a + Fraction(1, 1024), variance[c]))).sqrt()
        assert inverse[c] == half(lambda a: 1 / a, to_float16(Fraction(root)))
        assert by_shift[c] == half_sum(delta[:, c], [f16(1)] * 11, 4)
        products = [half(lambda a, b: a * b, *each) for each in zip(delta[:, c], x[:, c])]
        assert by_gain[c] == half_sum(products, [f16(1)] * 11, 4)
        means = [half(lambda a, b: a * b, part, each[c]) for each in (by_shift, by_gain)]
        for n in range(11):
            assert x[n, c] == half(lambda a, b: a * b, d[n], inverse[c])
            assert y[n, c] == half(lambda a, b: a + b, half(lambda a, b: a * b, gain[c], x[n, c]), shift[c])
            inner = half(lambda a, b: a - b, half(lambda a, b: a - b, delta[n, c], means[0]),
                         half(lambda a, b: a * b, x[n, c], means[1]))
            assert by_z[n, c] == half(lambda a, b: a * b, half(lambda a, b: a * b, gain[c], inverse[c]), inner)


def test_everything_of_an_fp16_run_is_fp16():
    calls = []
    result = network.train(make("fp16"), image_data(), epochs=1, batch=4, model="cnn", hidden=(2, 3), batch_norm=True,
                           record=lambda *call: calls.append(call))
    arrays = [array for call in calls for array in call if isinstance(array, np.ndarray)]
    arrays += [array for layer in (*result.parameters, *result.statistics[:-1]) for array in layer]
    # Of each of two steps, the operands of 3 + 3 products, and of 1 + 4 for the input gradient.
    assert len(arrays) == 2 * 2 * 11 + 8 + 4 and {array.dtype for array in arrays} == {np.dtype(f16)}


def test_running_statistics_follow_the_batches_and_serve_accuracy():
    data, made = image_data(), make("fp32")
    once, twice = (network.train(made, data, epochs=epochs, batch=6, lr=1e-6, batch_norm=True) for epochs in (1, 2))
    z = data.train_x.astype(np.float64) @ once.parameters[0][0].T
    for statistics, left in ((once.statistics, 0.9), (twice.statistics, 0.81)):
        np.testing.assert_allclose(statistics[0][0], (1 - left) * z.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(statistics[0][1], left + (1 - left) * z.var(axis=0), rtol=1e-4)
        assert statistics[1] is None
    weights, gain, shift = once.parameters[0]
    mean, variance = once.statistics[0]
    hidden = np.maximum((z - mean) / np.sqrt(variance + 2**-10) * gain + shift, 0)
    logits = hidden @ once.parameters[1][0].T + once.parameters[1][1]
    loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), data.train_y])
    assert once.history[0].loss == pytest.approx(loss, rel=1e-4)
    assert once.accuracy["train"] == (logits.argmax(axis=1) == data.train_y).mean()


def state_of(scale, interval, velocity):
    state = network.State(make("fp16", loss_scale=scale, growth_interval=interval), [(f16([[1]]), f16([0]))])
    state.held[0][0].velocity = f16([[velocity]])
    return state


def test_loss_scale_neither_passes_its_ends_nor_overflows_a_velocity():
    def after(scale, velocity, gradient):
        state = state_of(scale, 1, velocity)
        with np.errstate(over="ignore"):
            state.step([(f16([[gradient]]), f16([0]))], [None], 0.5, 0.5)
        return state.scale, float(state.held[0][0].velocity[0, 0]), state.skipped, float(state.parameters[0][0][0, 0])

    assert after(4, 2, 1) == (8, 4, 0, 1 - 0.25)
    assert after(4, 2, np.inf) == (2, 1, 1, 1)
    assert after(4, 2, np.nan) == (2, 1, 1, 1)
    assert after(1, 2, np.inf) == (1, 2, 1, 1)
    assert after(2**24, 0, 32768) == (2**24, 32768, 0, f16(1 - 2**-10))
    # A velocity of 40000 cannot double; nor can the scale then.
    assert after(4, 40000, 20000) == (4, 40000, 0, f16(1 - 5000))


def test_loss_scale_grows_after_steps_in_a_row():
    state = state_of(4, 3, 0)
    scales = []
    for gradient in (1, 1, np.inf, 1, 1, 1, 1):
        state.step([(f16([[gradient]]), f16([0]))], [None], 0.5, 0.5)
        scales.append(state.scale)
    assert scales == [4, 4, 2, 2, 2, 4, 4] and state.skipped == 1


def test_loss_scale_is_divided_out_last():
    # In units of the smallest number, 2**-24: 3 * 1.4375 is 4; divided first, 3 * 1 would be 3.
    parameter, velocity = network.sgd(f16([0]), f16([0]), f16([1.4375 * 2**-12]), 3, 0.9, 2**12)
    assert parameter[0] == -4 * 2**-24 and velocity[0] == 1.4375 * 2**-12


def test_loss_scale_without_interval_never_grows():
    state = state_of(4, None, 0)
    for _ in range(10):
        state.step([(f16([[1]]), f16([0]))], [None], 0.5, 0.5)
    assert (state.scale, state.skipped) == (4, 0)


def narrow_run(recipe, monkeypatch, **settings):
    """Train two layers for six steps; return the result, and of each step the slopes: layers of parameters."""
    slopes, gradients = [], network.gradients

    def spy(*arguments):
        found = gradients(*arguments)
        slopes.append(found[0])
        return found

    monkeypatch.setattr(network.run, "gradients", spy)
    return network.train(recipe, small_data(), seed=3, epochs=2, batch=4, hidden=(5,), lr=0.3, **settings), slopes


def start_of_narrow_run():
    return network.initialise((Linear(7, 5), Linear(5, 3)), np.random.default_rng(3))


@pytest.mark.parametrize("fmt", ["bf16", "fp16", "fp32", "fp8-e4m3"])
@pytest.mark.parametrize("method", update.METHODS)
@pytest.mark.parametrize("decay", [0, 0.01])
def test_narrow_parameters_move_as_the_update_says(fmt, method, decay, monkeypatch):
    recipe = keep(make("fp32"), fmt, method)
    result, slopes = narrow_run(recipe, monkeypatch, decay=decay)
    fmt, state = PRESETS[fmt], hashlib.sha256()
    lr, momentum, decay = (int(fmt.encode(each)) for each in (0.3, 0.9, decay))
    for i, layer in enumerate(start_of_narrow_run()):
        codes = [[fmt.encode(each), np.zeros(each.shape, int), np.zeros(each.shape, int)] for each in layer]
        for number, step in enumerate(slopes):
            words = update_words(3, i, number, [each.shape for each in layer])
            for k, (slope, drawn) in enumerate(zip(step[i], words)):
                codes[k] = update.step(fmt, method, *codes[k], fmt.encode(slope), lr, momentum, 0 if k else decay,
                                       drawn if method == "stochastic" else None)
        for (weights, *_), parameter in zip(codes, result.parameters[i]):
            assert np.array_equal(fmt.decode(weights), parameter) and parameter.dtype == f32
            state.update(weights.astype(f"u{fmt.width // 8}").tobytes())
    assert state.hexdigest() == result.digest


@pytest.mark.parametrize("method, carry", [("plain", 0), ("stochastic", 0), ("kahan", 6)])
def test_fixed_point_parameters_move_by_what_sgd_says(method, carry, monkeypatch):
    fmt = Fixed(9, 7)
    result, slopes = narrow_run(keep(make("fp32"), fmt, method, carry=6), monkeypatch, decay=0.125)
    for i, layer in enumerate(start_of_narrow_run()):
        whole = [np.rint(fmt.decode(fmt.encode(each)) * 2 ** (7 + carry)).astype(int) for each in layer]
        velocities = [np.zeros_like(each) for each in layer]
        for number, step in enumerate(slopes):
            words = update_words(3, i, number, [each.shape for each in layer])
            for k, slope in enumerate(step[i]):
                for index in np.ndindex(slope.shape):
                    weight = f32((whole[k][index] >> carry) / 128)
                    g = f32(slope[index] + f32(f32(0.125) * weight)) if k == 0 else slope[index]
                    velocities[k][index] = f32(f32(f32(0.9) * velocities[k][index]) + g)
                    change = Fraction(float(-f32(f32(0.3) * velocities[k][index]))) * 2 ** (7 + carry)
                    if method == "stochastic":
                        units = (math.floor(abs(change) * 256) + int(words[k][index])) >> 8
                        units = units if change > 0 else -units
                    else:
                        units = round(change)
                    whole[k][index] = min(max(whole[k][index] + units, -256 << carry), (256 << carry) - 1)
        for each, parameter in zip(whole, result.parameters[i]):
            assert np.array_equal((each >> carry) / 128, parameter)
    assert result.digest != narrow_run(keep(make("fp32"), fmt), monkeypatch)[0].digest


def test_parameters_in_the_work_format_moved_plainly_are_the_recipes_own():
    for name in ("fp32", "fp16"):
        run = network.train(keep(make(name), name, "plain"), small_data(), epochs=2, batch=4)
        assert run.digest == network.train(make(name), small_data(), epochs=2, batch=4).digest
        assert "parameters" not in run.recipe.formats()


def test_the_narrow_way_of_a_plain_update_is_that_of_sgd():
    rng = np.random.default_rng(6)
    for dtype in (f32, f16):
        w, v = rng.standard_normal((2, 40)).astype(dtype)
        narrow = network.Narrow(keep(make("fp32"), update="kahan").kept, w, PRESETS["fp32" if dtype == f32 else "fp16"])
        narrow._kept = keep(make("fp32")).kept
        v = np.zeros_like(w)
        for gradient in rng.standard_normal((5, 40)).astype(dtype):
            narrow.move(gradient, 0.1, 0.9, 0.01)
            w, v = network.sgd(w, v, gradient, 0.1, 0.9, decay=0.01)
            assert np.array_equal(narrow.values.view(np.uint8), w.view(np.uint8))


def test_weights_decay_and_nothing_else_does(monkeypatch):
    result, slopes = narrow_run(make("fp32"), monkeypatch, decay=0.25)
    for i, layer in enumerate(start_of_narrow_run()):
        for k, (parameter, after) in enumerate(zip(layer, result.parameters[i])):
            velocity = np.zeros_like(parameter)
            for step in slopes:
                g = step[i][k] + f32(0.25) * parameter if k == 0 else step[i][k]
                velocity = f32(0.9) * velocity + g
                parameter = parameter + -(f32(0.3) * velocity)
            assert np.array_equal(parameter, after)


def test_every_gemm_takes_the_narrow_weights():
    seen = []
    recipe = keep(make("bfp"), "fp8-e5m2", "stochastic")
    network.train(recipe, small_data(), epochs=1, batch=4,
                  record=lambda step, layer, gemm, kind, array, axis: seen.append((kind, array)))
    weights = [array for kind, array in seen if kind == "weights"]
    assert len(weights) == 3 * 3
    assert all(np.array_equal(PRESETS["fp8-e5m2"].round(array), array) for array in weights)


def test_logarithmic_weights_leave_the_rest_to_the_narrow_update():
    runs = [network.train(keep(make("lns-madam"), fmt, "kahan"), small_data(), epochs=1, batch=4)
            for fmt in ("fp32", "bf16")]
    for weights, bias in runs[1].parameters:
        assert isinstance(weights, Logs) and bias.any()
        assert np.array_equal(PRESETS["bf16"].round(bias), bias)
    assert runs[0].digest != runs[1].digest


@pytest.mark.parametrize("settings, message", [
    ({"update": "adam"}, "update is 'adam'; allowed: plain, stochastic, kahan, grow"),
    ({"parameters": "fp99"}, "parameters: format is 'fp99'; allowed: fp32, .*"),
    ({"parameters": "lns8"}, "parameters is Log.*; allowed: a Float or a Fixed format, such as bf16"),
    ({"parameters": Fixed(8, 4), "update": "grow"},
     "update is 'grow'; allowed: plain, stochastic, kahan, because parameters are in fixed point"),
    ({"parameters": Fixed(30, 4), "update": "kahan", "carry": 16}, "bits of parameters is 30; allowed: .* 2 to 24"),
    ({"parameters": "bf16", "random_bits": 0}, "random_bits is 0; allowed: an integer from 1 to 16"),
    ({"parameters": "bf16", "carry": 0}, "carry is 0; allowed: an integer from 1 to 24"),
])
def test_bad_ways_to_keep_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        keep(make("fp32"), **settings)


def test_a_loss_scale_goes_with_the_recipes_own_update():
    with pytest.raises(ValueError, match="^loss_scale is .*; allowed: None, because parameters have"):
        keep(make("fp16", loss_scale=8), "bf16")


def test_rates_of_narrow_parameters_are_below_2():
    with pytest.raises(ValueError, match="^lr is 2.5; allowed: a number from 0 to below 2$"):
        network.train(keep(make("fp32"), "bf16"), small_data(), epochs=1, batch=4, lr=2.5)


def test_few_sums_are_added_in_the_same_order(monkeypatch):
    rng = np.random.default_rng(16)
    a = (rng.standard_normal((2, 300)) * np.exp2(rng.integers(-20, 20, (2, 300)))).astype(f32)
    b = rng.standard_normal((300, 9)).astype(f32)
    few = floating.matmul_fp32(a, b)
    monkeypatch.setattr(floating.products, "FEW", 0)
    assert few.dtype == f32 and few.tobytes() == floating.matmul_fp32(a, b).tobytes()
    zeros = f32([[-0.0, -0.0]])
    assert not np.signbit(floating.matmul_fp32(zeros, np.ones((2, 1), f32)))
    monkeypatch.undo()
    assert not np.signbit(floating.matmul_fp32(zeros, np.ones((2, 1), f32)))


def test_accuracy_does_not_depend_on_pieces(monkeypatch):
    whole = network.train(make("fp16"), image_data(), epochs=1, batch=4, model="cnn", hidden=(2, 3))
    monkeypatch.setattr(network.run, "EVALUATED", 1)
    assert network.train(make("fp16"), image_data(), epochs=1, batch=4, model="cnn", hidden=(2, 3)).history \
        == whole.history


def recorded_run(recipe, **settings):
    calls = []
    result = network.train(recipe, small_data(), seed=2, epochs=1, batch=6, hidden=(5,),
                           record=lambda *call: calls.append((*call, call[4].copy())), **settings)
    return result, calls


def test_record_sees_every_operand_of_every_gemm():
    _, calls = recorded_run(make("bfp", group=4))
    order = [("forward", 0), ("forward", 1), ("weight-gradient", 1), ("input-gradient", 1), ("weight-gradient", 0)]
    expected = [(step, layer, gemm, kind, axis) for step in (0, 1) for gemm, layer in order
                for kind, axis in network.GEMMS[gemm]]
    assert [(step, layer, gemm, kind, axis) for step, layer, gemm, kind, _, axis, _ in calls] == expected
    shapes = {(layer, gemm, kind): array.shape for step, layer, gemm, kind, array, *_ in calls if step == 0}
    assert shapes[0, "forward", "weights"] == (5, 7) and shapes[0, "forward", "activations"] == (6, 7)
    assert shapes[1, "input-gradient", "weights"] == (3, 5)
    assert shapes[0, "weight-gradient", "gradients"] == (6, 5)


def test_recorded_arrays_are_the_work_format_and_stay_as_they_were():
    _, calls = recorded_run(make("bfp", group=4, mantissa=2))
    for _, _, _, _, array, _, copy in calls:
        assert array.dtype == f32 and np.array_equal(array, copy)
    # Each use of the weights gets the same unquantised copy.
    forward, back = (next(c[4] for c in calls if c[1:4] == (1, gemm, "weights")) for gemm in
                     ("forward", "input-gradient"))
    assert forward is back and len(np.unique(np.abs(forward))) == forward.size


def test_recording_changes_nothing():
    plain = network.train(make("bfp", group=4), small_data(), seed=2, epochs=1, batch=6, hidden=(5,))
    assert recorded_run(make("bfp", group=4))[0].digest == plain.digest


def test_stochastic_words_are_those_of_the_documented_address():
    rng = np.random.default_rng(7)
    gradient, weights = rng.standard_normal((5, 7)).astype(f32), rng.standard_normal((7, 10)).astype(f32)
    gemms = network.Gemms(make("bfp", group=4), 3)
    results = [gemms.product("input-gradient", 1, gradient, weights, step) for step in (0, 1)]
    fmt = BlockFloat(4, 4)
    right = blockfloat.quantise(weights, fmt, axis=0)
    for step, result in enumerate(results):
        # Slot 2 of layer 1; two groups in each of five rows.
        noise = words.words(words.key(3, step), 4, np.arange(10), 8, 8 * 1 + 2)
        left = blockfloat.quantise(gradient, fmt, rounding=stochastic(8), random=noise)
        assert np.array_equal(result, blockfloat.matmul(left, right))
    assert not np.array_equal(*results)


def test_addresses_are_distinct_and_have_room_for_every_layer():
    draws = [network.draws_of(seed, layer, slot, step) for seed in (0, 1, network.MAX_SEED)
             for layer in range(network.MAX_LAYERS) for slot in range(8) for step in (0, 1, network.MEASURED)]
    assert len(set(draws)) == len(draws)
    assert max(each.use for each in draws) < 1 << words.USE


def test_measuring_accuracy_draws_none_of_trainings_words():
    rng = np.random.default_rng(8)
    x, weights = rng.standard_normal((5, 8)).astype(f32), rng.standard_normal((3, 8)).astype(f32)
    recipe = make("bfp", group=4, weights_rounding="stochastic", activations_rounding="stochastic")
    undisturbed, disturbed = network.Gemms(recipe, 1), network.Gemms(recipe, 1)
    evaluation = disturbed.product("forward", 0, x, weights, network.MEASURED)
    training = disturbed.product("forward", 0, x, weights, 0)
    assert np.array_equal(training, undisturbed.product("forward", 0, x, weights, 0))
    assert not np.array_equal(training, evaluation)


@pytest.mark.parametrize("name, alike", [("bfp", True), ("fp32", True), ("fp16", True), ("mx", True),
                                         ("lns-madam", False)])
def test_accuracies_are_those_of_batches_one_by_one(name, alike, monkeypatch):
    """Where nothing tells batches apart, more are taken at once: with the same results."""
    settings = {"epochs": 2, "batch": 4, "batch_norm": name != "lns-madam"}
    recipe = make(name)
    assert recipe.batches_alike == alike
    monkeypatch.setattr(network.run, "EVALUATED", 50)  # of the layers' 6 and 32 elements: a few examples
    few = network.train(recipe, small_data(), **settings)
    monkeypatch.setattr(type(recipe), "batches_alike", False)
    assert network.train(recipe, small_data(), **settings).history == few.history


def test_a_step_needs_none_before_it():
    rng = np.random.default_rng(9)
    recipe, layer = make("bfp", group=4, weights_rounding="stochastic"), Convolution(5, 6, 2, 3)
    delta = rng.standard_normal((2 * layer.positions, layer.outputs)).astype(f32)
    weights = rng.standard_normal((layer.outputs, layer.patch)).astype(f32)
    late, gemms = network.Gemms(recipe, 3), network.Gemms(recipe, 3)
    found = [gemms.input_gradient(layer, 2, delta, weights, step) for step in range(6)]
    assert np.array_equal(late.input_gradient(layer, 2, delta, weights, 5), found[5])
    assert not np.array_equal(found[4], found[5])


def test_measuring_has_the_words_of_its_own_steps_batch_by_batch(monkeypatch):
    steps = []
    recipe = make("bfp", group=4, activations_rounding="stochastic")
    assert not recipe.batches_alike and not make("bfp", weights_rounding="stochastic").batches_alike
    operand = type(recipe.system).operand

    def kept(self, array, axis, mode, side, draws):
        steps.append(draws.step)
        return operand(self, array, axis, mode, side, draws)

    monkeypatch.setattr(type(recipe.system), "operand", kept)
    data = small_data()
    network.train(recipe, data, epochs=2, batch=4)
    train, test = (-(-len(x) // 4) for x in (data.train_x, data.test_x))
    measured = [*range(2**31, 2**31 + train), *range(2**31 + 2**30, 2**31 + 2**30 + test)]
    assert list(dict.fromkeys(steps)) == [*range(train), *measured, *range(train, 2 * train)]
    assert steps.count(2**31) == 2 * 4 and steps.count(0) == 2 * (2 + 2 + 1)


@pytest.mark.parametrize("settings", [{}, {"accumulator": "bf16"}, {"mantissa": 8, "accumulator": "fp16"}], ids=str)
def test_gemms_return_accumulator_values(settings):
    rng = np.random.default_rng(9)
    recipe = make("bfp", **settings)
    product = network.Gemms(recipe, 1).product("forward", 0, *rng.standard_normal((2, 6, 40)).astype(f32), 0)
    assert np.array_equal(product, recipe.accumulator.round(product)) and product.dtype == f32


@pytest.mark.parametrize("name", ["fp32", "bfp"])
def test_digest_repeats_and_follows_the_seed(name):
    runs = [network.train(make(name), small_data(), seed=seed, epochs=2, batch=4) for seed in (1, 1, 2)]
    assert runs[0].digest == runs[1].digest != runs[2].digest
    assert runs[0].history == runs[1].history
    assert runs[0].digest == network.digest(runs[0].parameters)


def test_digest_covers_every_bit_in_layer_order():
    layers = [(f32([[1, 2]]), f32([0])), (f32([[3]]), f32([-0.0]))]
    changed = [(f32([[1, 2]]), f32([0])), (f32([[3]]), f32([0.0]))]
    assert len({network.digest(layers), network.digest(changed), network.digest(layers[::-1])}) == 3
    nan, other = f32([[np.nan]]), (np.array([[0xFFC00001]], np.uint32)).view(f32)
    assert network.digest([(nan,)]) == network.digest([(other,)])


def test_initial_weights_are_he_uniform():
    layers = network.initialise((Linear(64, 200), Linear(200, 10)), np.random.default_rng(1))
    for (weights, bias), inputs in zip(layers, (64, 200)):
        assert weights.dtype == bias.dtype == f32 and not bias.any()
        assert np.abs(weights).max() <= f32(math.sqrt(6 / inputs))
        assert weights.var() == pytest.approx(2 / inputs, rel=0.05)


def test_progress_is_told_every_epoch():
    told = []
    result = network.train(make("fp32"), small_data(), epochs=3, batch=4, progress=lambda *call: told.append(call))
    assert told == [(n, 3, result.history[n - 1]) for n in (1, 2, 3)]
    assert result.accuracy == {"train": told[-1][2].train_accuracy, "test": told[-1][2].test_accuracy}


def test_measuring_more_seldom_changes_nothing_else():
    often, seldom = (network.train(make("bfp"), small_data(), epochs=5, batch=4, measure_every=every)
                     for every in (1, 2))
    assert seldom.digest == often.digest
    assert seldom.history == (often.history[1], often.history[3], often.history[4])


def test_history_is_that_of_the_final_network():
    data = small_data()
    result = network.train(make("fp32"), data, epochs=2, batch=4)
    wide = [[p.astype(np.float64) for p in layer] for layer in result.parameters]
    assert result.history[-1].loss == pytest.approx(reference_loss(wide, data.train_x, data.train_y), rel=1e-5)


@pytest.mark.filterwarnings("error")
def test_diverging_run_ends_quietly_and_says_so():
    data = small_data()
    data.train_x[0, 0] = 3e38  # overflows, then Inf - Inf
    diverged = network.train(make("fp32"), data, epochs=3, lr=10, batch=4, hidden=())
    assert math.isnan(diverged.history[-1].loss)
    data.train_x[0, 0] = np.nan
    assert network.train(make("bfp"), data, epochs=1, batch=4).invalid


@pytest.mark.parametrize(("settings", "message"), [
    ({"seed": -1}, "seed is -1; allowed: an integer from 0 to 2147483647"),
    ({"epochs": 0}, "epochs is 0; allowed: .*"),
    ({"lr": 0}, "lr is 0; allowed: .*"),
    ({"lr": float("nan")}, "lr is nan; allowed: .*"),
    ({"batch": 12}, "batch is 12; allowed: an integer from 1 to 11"),
    ({"hidden": (0,)}, r"hidden is \(0,\); allowed: .*"),
    ({"hidden": 32}, "hidden is 32; allowed: .*"),
    ({"measure_every": 0}, "measure_every is 0; allowed: .*"),
    ({"momentum": 1}, "momentum is 1; allowed: .*"),
    ({"decay": 1}, "decay is 1; allowed: a number from 0 to below 1"),
    ({"lr_drops": (1,)}, r"lr_drops is \(1,\); allowed: numbers above 0 and below 1"),
])
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        network.train(make("fp32"), small_data(), **{"batch": 4, **settings})


def test_a_run_has_a_step_for_every_key(monkeypatch):
    monkeypatch.setattr(network.run, "MEASURED", 10)
    data = small_data()
    steps = -(-len(data.train_x) // 4)
    with pytest.raises(ValueError, match=f"^epochs is {10 // steps + 1}; allowed: at most {10 // steps}, of 2"):
        network.train(make("fp32"), data, batch=4, epochs=10 // steps + 1)


@pytest.mark.parametrize(("settings", "message"), [
    ({"model": "rnn"}, "model is 'rnn'; allowed: mlp, cnn, or a Model, which read_model gives"),
    ({"hidden": (8,)}, r"hidden is \(8,\); allowed: two integers .* because the model is cnn"),
    ({"hidden": (8, 0)}, r"hidden is \(8, 0\); allowed: two integers .*"),
    ({"batch_norm": 1}, "batch_norm is 1; allowed: true, false"),
])
def test_bad_settings_of_a_cnn_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        network.train(make("fp32"), image_data(), **{"model": "cnn", "batch": 4, **settings})


@pytest.mark.parametrize("image", [None, (4, 14), (56, 1)])
def test_a_cnn_needs_images(image):
    with pytest.raises(ValueError, match="^image is .*; allowed: a data set of images of 5x5 pixels or more, .*$"):
        network.train(make("fp32"), dataclasses.replace(image_data(), image=image), batch=4, model="cnn")


def test_the_first_convolution_strides_over_large_images():
    x = np.zeros((1, 28 * 28), f32)
    large = Dataset("large", x, np.zeros(1, np.int64), x, np.zeros(1, np.int64), 10, (28, 28))
    assert network.convolutional(large, (8, 16)) == (
        Convolution(28, 28, 1, 8, stride=2), Convolution(13, 13, 8, 16, stride=2), Linear(6 * 6 * 16, 10))
    assert network.convolutional(image_data(), (2, 3)) == (
        Convolution(7, 8, 1, 2), Convolution(5, 6, 2, 3, stride=2), Linear(2 * 2 * 3, 3))


def test_blocks_train_a_cnn_too():
    runs = [network.train(make("bfp", group=4), image_data(), epochs=1, batch=4, model="cnn", hidden=(2, 3),
                          batch_norm=True) for _ in range(2)]
    assert runs[0].digest == runs[1].digest and np.isfinite(runs[0].history[-1].loss)


@needs_digits
def test_digits_are_learnt_and_bfp_follows_fp32():
    results = {name: network.train(make(name), load("digits")) for name in ("fp32", "bfp")}
    assert results["fp32"].accuracy["test"] >= 0.96
    assert results["bfp"].accuracy["test"] >= results["fp32"].accuracy["test"] - 0.01
    assert not results["bfp"].invalid


@needs_digits
@pytest.mark.parametrize("name", ["mx", "lns-madam"])
def test_few_epochs_teach_digits_to_narrower_numbers(name):
    result = network.train(make(name), load("digits"), epochs=6, measure_every=6)
    assert result.accuracy["test"] >= 0.9 and not result.invalid and not result.overflow


@pytest.mark.parametrize(("name", "expected"), [
    ("fp32", "d178057d27a2b8cd2e480da7ab7bdb8dad1295eda9e7af7e947023facb78c3a0"),
    ("fp16", "e3d7ec5ed6832105215a3c3ccd7a5ca2a100bb96db3d775da59b2c7d03920f24"),
    ("mx", "4909ef8cdaa8d1508a2edeabfa127ac12b734bb854c4ac956980aecbfa73c133"),
    ("lns-madam", "463cf8b541b2331d74efd206fbb292f121c1a2efef059270915292629cc4c11e"),
], ids=["fp32", "fp16", "mx", "lns-madam"])
def test_digest_of_a_cnn_is_the_same_on_every_machine(name, expected):
    # Recorded once, as those below. It covers the running statistics.
    result = network.train(make(name), image_data(40), epochs=2, batch=9, model="cnn", hidden=(3, 4), batch_norm=True)
    assert result.digest == expected
    assert result.digest != network.digest(result.parameters)


@needs_digits
@pytest.mark.parametrize(("name", "expected"), [
    ("fp32", "07f943349b030e48711d91a721671c7d18a7f8a71c59d9f69ba02ed23250ca99"),
    ("bfp", "453edd2aac86b20dd41acce74bcdc5d1a17fd741db111300eb775d8445836473"),
], ids=["fp32", "bfp"])
def test_digest_is_the_same_on_every_machine(name, expected):
    # Recorded once; a difference means that some operation's last bit is the machine's.
    assert network.train(make(name), load("digits"), epochs=1).digest == expected


# A softmax head.


def with_head(name="fp32", **settings):
    settings = {"classes": 3} | settings
    return dataclasses.replace(make(name), softmax=SoftmaxParameters(**settings))


def test_a_softmax_heads_errors_are_the_units_with_the_words_of_the_last_layer():
    recipe = with_head(classes=20, bits=4, rounding="stochastic", random_bits=5)
    gemms, rng, unit = network.Gemms(recipe, 6), np.random.default_rng(2), recipe.softmax
    for rows, step in ((5, 0), (4, 15)):
        logits, y = rng.standard_normal((rows, 20)).astype(f32), rng.integers(0, 20, rows)
        # Slot 7 of layer 1: two vectors a row, of which the second one has 4 words.
        drawn = words.words(words.key(6, step), 16, np.arange(2 * rows), 5, 8 * 1 + 7).reshape(rows, 32)[:, :20]
        found, *_ = softmax.gradient(unit, PRESETS["bf16"].encode(logits), y, random=drawn)
        delta = gemms.errors(logits, y, 1, 1, step)
        assert delta.dtype == f32 and (delta == unit.error.decode(found).astype(f32) * f32(1 / rows)).all()


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_softmax_head_of_many_bits_is_near_the_work_formats(name):
    recipe = with_head(name, classes=10, bits=12, format=PRESETS[name])
    rng = np.random.default_rng(3)
    logits, y = (4 * rng.standard_normal((8, 10))).astype(recipe.dtype), rng.integers(0, 10, 8)
    delta, exact = network.Gemms(recipe, 1).errors(logits, y, 16, 1, 0), network.softmax_gradient(logits, y, 16)
    assert delta.dtype == recipe.dtype
    # A unit in all, and what FP16 itself leaves of the other path, each twice: scale / batch is 2.
    assert np.abs(delta.astype(float) - exact.astype(float)).max() < 2 * (2.0**-11 + 2.0**-10 * (name == "fp16"))


def test_a_run_with_a_softmax_head_repeats_itself_and_depends_on_it():
    data, digests = small_data(), []
    for settings in ({"bits": 6}, {"bits": 6}, {"bits": 4}, {"bits": 4, "rounding": "truncate"},
                     {"bits": 4, "rounding": "stochastic"}):
        digests.append(network.train(with_head(**settings), data, epochs=2, batch=4).digest)
    assert digests[0] == digests[1] and len(set(digests)) == 4
    assert network.train(make("fp32"), data, epochs=2, batch=4).digest not in digests


def test_a_softmax_head_tells_of_nan_and_of_too_many_classes():
    gemms = network.Gemms(with_head(), 1)
    assert (gemms.errors(f32([[0, np.nan, 1], [0, 0, 0]]), np.array([0, 1]), 1, 1, 0)[0] == 0).all() and gemms.invalid
    with pytest.raises(ValueError, match=r"^logits is \(2, 4\); allowed: rows of 1 to 3 classes$"):
        gemms.errors(np.zeros((2, 4), f32), np.array([0, 1]), 1, 1, 0)


@needs_digits
def test_logits_that_overflow_are_a_divergence_though_every_parameter_is_finite():
    # A recipe with a loss scale skips a step whose gradients are not finite: its parameters stay what they were.
    data, operands = load("digits").first(128, 64), {}

    def record(step, layer, gemm, kind, array, axis):
        if gemm == "forward":
            operands.setdefault(step, {})[kind] = array.astype(np.float64)

    result = network.train(make("fp16", loss_scale=1), data, epochs=1, lr=3e4, hidden=(), record=record)
    largest = {step: np.abs(each["activations"] @ each["weights"].T).max() for step, each in operands.items()}
    step = result.diverged["step"]
    assert result.diverged["epoch"] == 1 and result.skipped > 0 and result.invalid
    assert all(np.isfinite(each).all() for pair in result.parameters for each in pair)
    assert max(largest[each] for each in range(step)) < 65504 < largest[step]


@needs_digits
def test_a_parameter_that_is_not_finite_is_a_divergence():
    # The first step is infinite in FP16, whatever the logits before it were.
    result = network.train(make("fp16"), load("digits").first(64, 32), epochs=1, lr=1e6)
    assert result.diverged == {"epoch": 1, "step": 0} and result.invalid
