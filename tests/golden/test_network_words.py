"""What a run records, and the addresses of its random words."""


import numpy as np
import pytest
from narrowgauge.golden import blockfloat, network, words
from narrowgauge.golden.formats import BlockFloat
from narrowgauge.golden.network import Convolution
from narrowgauge.golden.recipes import make
from narrowgauge.golden.rounding import stochastic
from networks import f32, small_data


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
