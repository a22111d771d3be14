"""Runs with a softmax head."""

import dataclasses

import numpy as np
import pytest
from narrowgauge.golden import network, softmax, words
from narrowgauge.golden.datasets import load
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.recipes import make
from narrowgauge.golden.softmax import SoftmaxParameters
from networks import f32, needs_digits, small_data


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
