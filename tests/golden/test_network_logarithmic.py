"""Runs in logarithmic numbers, by scalar arithmetic, and what becomes of their weights."""

import decimal
import hashlib
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import logarithmic, madam, network
from narrowgauge.golden.formats import PRESETS, Log
from narrowgauge.golden.logarithmic import Logs
from narrowgauge.golden.recipes import make
from networks import RUN, f32, image_data, scalar_perceptron, small_data, to_float32, update_words


def log2(value):
    return decimal.Decimal(value).ln() / decimal.Decimal(2).ln()


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
