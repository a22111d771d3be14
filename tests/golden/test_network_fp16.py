"""Runs in FP16, by scalar arithmetic, and their loss scale."""

import decimal
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import network
from narrowgauge.golden.recipes import make
from networks import f16, image_data, small_data


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
