"""Training of networks: its products, steps, digests, records, and what it refuses."""

import dataclasses
import decimal
import itertools
import math

import numpy as np
import pytest
from narrowgauge.golden import floating, network
from narrowgauge.golden.datasets import Dataset, load
from narrowgauge.golden.network import Convolution, Linear
from narrowgauge.golden.recipes import make
from networks import f32, image_data, needs_digits, small_data


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


@needs_digits
def test_a_parameter_that_is_not_finite_is_a_divergence():
    # The first step is infinite in FP16, whatever the logits before it were.
    result = network.train(make("fp16"), load("digits").first(64, 32), epochs=1, lr=1e6)
    assert result.diverged == {"epoch": 1, "step": 0} and result.invalid
