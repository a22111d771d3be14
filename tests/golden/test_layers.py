"""Padded convolutions and pooling against their definitions: in exact fractions, in scalar arithmetic, in float64."""

import dataclasses
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from narrowgauge.golden import network
from narrowgauge.golden.floating import arithmetic
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.network import Convolution, Linear, Pool
from narrowgauge.golden.recipes import make

f32 = np.float32
WORK = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
PADDED = [(kernel, stride, padding, size) for kernel in (1, 2, 3, 5) for stride in (1, 2, 3, 4)
          for padding in range(min(kernel, 3)) for size in ((5, 7), (4, 3), (3, 6))
          if kernel <= min(size) + 2 * padding]


def taps(layer):
    """Yield (pixel, output position, column of the weights' kernel) of every product that is not with padding."""
    (down, across), inside = layer.shape, (range(layer.height), range(layer.width))
    for i, j, ky, kx in np.ndindex(down, across, layer.kernel, layer.kernel):
        y, x = i * layer.stride + ky - layer.padding, j * layer.stride + kx - layer.padding
        if y in inside[0] and x in inside[1]:
            yield y * layer.width + x, i * across + j, ky * layer.kernel + kx


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_a_padded_convolution_and_its_transpose_in_exact_fractions(kernel):
    """Eighths are exact in every order of addition."""
    rng, gemms = np.random.default_rng(1), network.Gemms(make("fp32"), 1)
    for _, stride, padding, size in (case for case in PADDED if case[0] == kernel):
        layer = Convolution(*size, 2, 3, kernel, stride, padding)
        x, weights, delta = (rng.integers(-9, 10, shape) for shape in (
            (size[0] * size[1], 2), (3, kernel * kernel, 2), (layer.positions, 3)))
        z, back = np.zeros(delta.shape, int), np.zeros(x.shape, int)
        for pixel, position, place in taps(layer):
            z[position] += weights[:, place] @ x[pixel]
            back[pixel] += delta[position] @ weights[:, place]
        eighths = [(each / 8).astype(f32) for each in (x.reshape(1, -1), weights.reshape(3, -1), delta)]
        out = gemms.product("forward", 0, layer.unroll(eighths[0]), eighths[1], 0)
        found = gemms.input_gradient(layer, 1, eighths[2], eighths[1], 0)
        for values, expected in ((out, z), (found, back)):
            assert [Fraction(float(each)) for each in values.ravel()] == [
                Fraction(int(each), 64) for each in expected.ravel()], (layer, values, expected)


def test_a_padded_pixels_gradient_is_one_sum_in_the_order_of_places_and_channels():
    rng = np.random.default_rng(12)
    for kernel, stride, padding, size in ((3, 1, 1, (4, 5)), (3, 2, 1, (5, 6)), (5, 2, 2, (5, 4)), (2, 3, 1, (7, 5))):
        layer = Convolution(*size, 2, 3, kernel, stride, padding)
        weights = rng.standard_normal((3, kernel * kernel, 2)).astype(f32)
        delta = rng.standard_normal((layer.positions, 3)).astype(f32)
        found = network.Gemms(make("fp32"), 1).input_gradient(layer, 1, delta, weights.reshape(3, -1), 0)
        expected = np.zeros((size[0] * size[1], 2), f32)
        for pixel, position, place in sorted(taps(layer), key=lambda tap: tap[2]):
            for channel, output in np.ndindex(2, 3):
                expected[pixel, channel] += delta[position, output] * weights[output, place, channel]
        assert np.array_equal(found.reshape(expected.shape), expected), layer


def test_a_patch_at_the_edge_has_plus_zeros_in_its_row():
    layer, x = Convolution(3, 3, 1, 2, padding=1), np.random.default_rng(2).standard_normal((2, 9)).astype(f32)
    patches = layer.unroll(x)
    assert patches.shape == (18, 9) and patches[0].tolist() == [0, 0, 0, 0, x[0, 0], x[0, 1], 0, x[0, 3], x[0, 4]]
    assert not np.signbit(patches[0][[0, 1, 2, 3, 6]]).any()


# Pooling.

def windows(pool):
    """Yield the pixels of each window, in row-major order, as numbers of the image's pixels."""
    down, across = pool.shape
    for i, j in np.ndindex(down, across):
        yield [(i * pool.stride + y) * pool.width + j * pool.stride + x for y, x in np.ndindex(pool.window)]


POOLS = [Pool("max", 4, 6, 2, (2, 2), 2), Pool("max", 7, 5, 1, (2, 2), 3), Pool("max", 5, 7, 3, (3, 3), 3),
         Pool("max", 3, 5, 2, (3, 5), 5), Pool("max", 3, 3, 1, (1, 1), 2)]
POOLS += [dataclasses.replace(pool, kind="mean") for pool in POOLS]


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pooling_and_its_gradient_equal_scalar_arithmetic(pool, work):
    rng, dtype, numbers = np.random.default_rng(3), WORK[work], arithmetic(PRESETS[work])
    shape = (2, pool.height * pool.width, pool.channels)
    x = np.maximum(rng.standard_normal(shape), 0).astype(dtype)  # windows have several zeros
    delta = rng.standard_normal((2, pool.shape[0] * pool.shape[1], pool.channels)).astype(dtype)
    expected, back = np.zeros(delta.shape, dtype), np.zeros(shape, dtype)
    for n, channel in np.ndindex(2, pool.channels):
        for k, pixels in enumerate(windows(pool)):
            values = [x[n, pixel, channel] for pixel in pixels]
            if pool.kind == "max":
                first = values.index(max(values))
                expected[n, k, channel] = values[first]
                back[n, pixels[first], channel] = delta[n, k, channel]
            else:
                part, total = dtype(1 / len(pixels)), dtype(0)
                for value in values:
                    total = dtype(total + value)
                expected[n, k, channel] = total * part
                back[n, pixels, channel] = delta[n, k, channel] * part
    held = [each.reshape(2, -1).astype(numbers.dtype) for each in (x, delta)]
    found = pool.forward(held[0], numbers)
    assert found.dtype == numbers.dtype and np.array_equal(found, expected.reshape(2, -1).astype(f32))
    assert np.array_equal(pool.gradient(held[1], held[0], numbers), back.reshape(2, -1).astype(f32))


def test_a_window_of_equal_pixels_gives_its_first_one_the_gradient():
    pool, work = Pool("max", 2, 4, 1, (2, 2), 2), arithmetic(PRESETS["fp32"])
    x = np.array([[1, 1, 0, -0.0, 1, 1, 0, 0]], f32)
    assert pool.gradient(np.array([[5, 7]], f32), x, work).tolist() == [[5, 0, 7, 0, 0, 0, 0, 0]]
    first = pool.forward(np.array([[-0.0, 0, 0, -0.0, 0, 0, -0.0, 0]], f32), work)
    assert np.signbit(first).tolist() == [[True, False]]


def test_the_first_nan_of_a_window_counts_as_its_maximum():
    pool, work = Pool("max", 2, 2, 1, (2, 2), 2), arithmetic(PRESETS["fp32"])
    x = np.array([[np.inf, np.nan, np.nan, 9]], f32)
    assert np.isnan(pool.forward(x, work)).all()
    assert pool.gradient(np.array([[5]], f32), x, work).tolist() == [[0, 5, 0, 0]]
    assert np.isnan(dataclasses.replace(pool, kind="mean").forward(x, work)).all()


def test_a_pixel_without_a_result_has_the_gradient_plus_zero():
    for kind in ("max", "mean"):
        pool = Pool(kind, 5, 5, 1, (2, 2), 2)
        found = pool.gradient(np.full((1, 4), -1, f32), np.ones((1, 25), f32), arithmetic(PRESETS["fp32"]))
        left = found.reshape(5, 5)[[4, 4, 0], [0, 4, 4]]
        assert not left.any() and not np.signbit(left).any() and np.count_nonzero(found) == (4 if kind == "max" else 16)


# A whole network.

def reference_loss(layers, parameters, x, y):
    """Return the mean cross-entropy in float64, of layers by their definitions."""
    for i, (layer, (weights, *rest)) in enumerate(zip(layers, parameters)):
        if isinstance(layer, Convolution):
            pixels = x.reshape(len(x), -1, layer.channels)
            kernels = weights.reshape(layer.outputs, -1, layer.channels)
            z = np.zeros((len(x), layer.positions, layer.outputs))
            for pixel, position, place in taps(layer):
                z[:, position] += pixels[:, pixel] @ kernels[:, place].T
            z = z.reshape(-1, layer.outputs)
        else:
            z = x @ weights.T
        if len(rest) == 2:
            z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 2**-10) * rest[0]
        z = z + rest[-1]
        if i < len(layers) - 1:
            z = np.maximum(z, 0)
        z = z.reshape(len(x), -1, layer.outputs)
        if layer.pool:
            z = np.stack([getattr(z[:, window], layer.pool.kind)(axis=1) for window in windows(layer.pool)], axis=1)
        x = z.reshape(len(x), -1)
    return np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(len(y)), y])


def test_gradients_of_a_network_of_every_layer_equal_central_differences():
    rng = np.random.default_rng(15)
    x, y = rng.standard_normal((8, 6 * 7 * 2)).astype(f32), rng.integers(0, 3, 8)
    layers = (Convolution(6, 7, 2, 4, 3, 1, 1, True, Pool("max", 6, 7, 4, (2, 2), 2)),
              Convolution(3, 3, 4, 3, 2, 2, 1, False, Pool("mean", 2, 2, 3, (2, 2), 2)), Linear(3, 5, True),
              Linear(5, 3))
    parameters = [(weights, *((rng.standard_normal((len(rest), len(weights))) / 2 + 1).astype(f32)))
                  for weights, *rest in network.initialise(layers, rng)]
    found, statistics = network.gradients(network.Gemms(make("fp32"), 1), layers, parameters, x, y, 0)
    assert [each is not None for each in statistics] == [True, False, True, False]
    wide = [[parameter.astype(np.float64) for parameter in layer] for layer in parameters]
    for layer, slopes in zip(wide, found):
        for parameter, slope in zip(layer, slopes):
            for index in map(tuple, rng.permutation(list(np.ndindex(parameter.shape)))[:10].tolist()):
                start, losses = parameter[index], []
                for moved in (start + 1e-6, start - 1e-6):
                    parameter[index] = moved
                    losses.append(reference_loss(layers, wide, x, y))
                parameter[index] = start
                assert slope[index] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-3, abs=1e-5)
