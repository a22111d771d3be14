"""Parameters in narrow formats: every way to keep them, by the update that moves them."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import network, update
from narrowgauge.golden.formats import PRESETS, Fixed
from narrowgauge.golden.logarithmic import Logs
from narrowgauge.golden.network import Linear
from narrowgauge.golden.recipes import keep, make
from networks import f16, f32, small_data, update_words


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
