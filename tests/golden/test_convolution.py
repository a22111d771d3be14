"""Convolutions: their definition, their gradients, each a sum."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import network
from narrowgauge.golden.network import Convolution
from narrowgauge.golden.recipes import make
from networks import f32, image_data


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


def test_a_scale_is_that_of_the_images_not_of_their_patches():
    """INT8 has 127 steps: beside a pixel of 1,000 every other one is 0, even if no patch has that pixel."""
    layer = Convolution(5, 5, 1, 1, kernel=2, stride=3)
    gemms = network.Gemms(make("system", system="int8"), 1)
    x, weights, bias = np.ones((1, 25), f32), np.ones((1, 4), f32), np.zeros(1, f32)
    unseen = 2  # the first line's third pixel
    found = {}
    for value in (1, 1000):
        x[0, unseen] = value
        assert layer.unroll(x).max() == 1  # no patch has it
        found[value] = network.passes.forward(gemms, [layer], [(weights, bias)], x, 0)[1]
    assert found[1].tolist() == [[4]] * 4 and found[1000].tolist() == [[0]] * 4


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
