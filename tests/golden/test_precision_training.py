"""Precision control in training: schedules and FAST's choices over whole runs."""

import dataclasses
import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import blockfloat, network, precision, words
from narrowgauge.golden.array import ArrayParameters, schedule
from narrowgauge.golden.datasets import Dataset
from narrowgauge.golden.formats import BlockFloat
from narrowgauge.golden.precision import Adaptive, Constant, Cyclic, Policies, Rising
from narrowgauge.golden.recipes import make
from narrowgauge.golden.rounding import stochastic
from precisions import scalar_sums

# Training runs.


def small_data():
    rng = np.random.default_rng(4)
    x, y = rng.random((11, 7)).astype(np.float32), rng.integers(0, 3, 11)
    return Dataset("small", x, y, x[:5], y[:5], 3)


def small_run(recipe, **settings):
    """Twelve steps of a 7-5-3 perceptron, three an epoch: with batches of 4, 4 and 3 examples."""
    return network.train(recipe, small_data(), epochs=4, batch=4, hidden=(5,), **settings)


CYCLE = [2, 2, 3, 4, 4, 5]  # 2 + 1.5 * (1 - cos(pi * k / 6)): 2, 2.2, 2.75, 3.5, 4.25, 4.8
SMALL_CPT = {"low": 2, "high": 5, "cycles": 2, "gradients": 6, "group": 4}


def test_a_short_run_of_cycles_is_accounted_for_as_by_hand():
    report = small_run(make("cpt", **SMALL_CPT)).precision
    runs = [[0, 2], [2, 3], [3, 4], [5, 5], [6, 2], [8, 3], [9, 4], [11, 5]]
    assert report["widths"] == {"weights": [runs] * 2, "activations": [runs] * 2, "gradients": [[[0, 6]]] * 2}
    assert report["steps"]["weights"] == [{"2": 4, "3": 2, "4": 4, "5": 2}] * 2
    assert report["steps"]["gradients"] == [{"6": 12}] * 2
    operations, passes = {"used": 0, "fp32": 0, "static": 0}, {"used": 0, "static": 0}
    products = Counter()
    for step in range(12):
        n, a, g = (4, 4, 3)[step % 3], CYCLE[step % 6], 6
        forward, backward = n * (7 * 5 + 5 * 3), n * (7 * 5 + 2 * 5 * 3)
        operations["used"] += forward * a * a + backward * a * g
        operations["static"] += forward * 5 * 5 + backward * 5 * g
        operations["fp32"] += (forward + backward) * 32 * 32
        # Groups of 4 along 7 and 5 features are two; along 3 and along the batch one.
        forward, backward = n * 5 * 2 + n * 3 * 2, 3 * 5 + n * 5 + 5 * 7
        chunks = (a + 1) // 2
        passes["used"] += forward * chunks * chunks + backward * chunks * 3
        passes["static"] += forward * 3 * 3 + backward * 3 * 3
        products.update([("forward", n, 5, 7, a, a), ("forward", n, 3, 5, a, a), ("weight-gradient", 3, 5, n, g, a),
                         ("input-gradient", n, 5, 3, g, a), ("weight-gradient", 5, 7, n, g, a)])
    assert report["bit_operations"] == operations and report["passes"] == passes
    # On the array each product alone, of the sizes and widths that are told.
    cells = ArrayParameters(blockfloat.BFPSystem(group=4, mantissa=8))
    spent = [each["count"] * schedule(cells, [(
        each["m"], each["n"], each["k"], (each["a"] + 1) // 2 * ((each["b"] + 1) // 2))])[0]
        for each in report["products"]]
    assert report["cycles"]["used"] == sum(spent) > passes["used"] / 16
    assert report["cycles"]["static"] > report["cycles"]["used"]
    assert report["products"] == [
        {"gemm": gemm, "m": m, "n": n, "k": k, "a": a, "b": b, "count": count}
        for (gemm, m, n, k, a, b), count in sorted(products.items())]
    json.dumps(report)


def test_constant_policies_are_what_a_run_without_policies_has():
    recipe = make("bfp", group=4, gradients_mantissa=3)
    plain = small_run(recipe)
    controlled = small_run(dataclasses.replace(recipe, precision=Policies(gradients=Constant(3))))
    assert plain.digest == controlled.digest and plain.history == controlled.history
    assert plain.precision == controlled.precision
    assert plain.precision["widths"] == {"weights": [[[0, 4]]] * 2, "activations": [[[0, 4]]] * 2,
                                         "gradients": [[[0, 3]]] * 2}
    assert plain.precision["bit_operations"]["used"] == plain.precision["bit_operations"]["static"]
    assert small_run(make("fp32")).precision is None


def test_operands_have_the_widths_of_the_schedule(monkeypatch):
    seen, multiply = [], blockfloat.matmul

    def watched(a, b, accumulator):
        for each in (a, b):
            assert np.abs(each.mantissas).max() < 1 << each.format.mantissa
        seen.append((a.format.mantissa, b.format.mantissa))
        return multiply(a, b, accumulator)

    monkeypatch.setattr(blockfloat.system, "matmul", watched)
    small_run(make("cpt", **SMALL_CPT))
    expected = []
    for step in range(12):
        a = CYCLE[step % 6]
        expected += [(a, a)] * 2 + [(6, a)] * 3
        if step % 3 == 2:
            expected += [(5, 5)] * 4  # accuracy is measured with the greatest, for both parts of the data
    assert seen == expected


def test_random_words_do_not_depend_on_widths():
    class Widths:
        def width(self, kind, layer, step, array):
            return (2, 5)[step] if kind == "gradients" else 4

        def count(self, gemm, kinds, a, b):
            pass

    rng = np.random.default_rng(7)
    gradient, weights = rng.standard_normal((5, 7)), rng.standard_normal((7, 10))
    gemms = network.Gemms(make("bfp", group=4, mantissa=5), 3, control=Widths())
    for step, width in enumerate((2, 5)):
        noise = words.words(words.key(3, step), 4, np.arange(10), 8, 8 * 1 + 2)  # slot 2 of layer 1; ten groups
        left = blockfloat.quantise(gradient, BlockFloat(4, width), rounding=stochastic(8), random=noise)
        right = blockfloat.quantise(weights, BlockFloat(4, 4), axis=0)
        found = gemms.product("input-gradient", 1, gradient, weights, step)
        assert np.array_equal(found, blockfloat.matmul(left, right))


PINNED = {"weights": "forward", "activations": "forward", "gradients": "weight-gradient"}


@pytest.mark.parametrize("lag", [0, 1])
def test_fast_decides_from_a_step_and_an_axis_that_are_pinned(lag):
    calls = []
    recipe = make("fast", group=4, alpha=0.25, beta=0.1, lag=lag)
    report = small_run(recipe, record=lambda *call: calls.append(call)).precision
    tensors = {(kind, layer, step): (array.copy(), axis) for step, layer, gemm, kind, array, axis in calls
               if PINNED[kind] == gemm}
    assert len(tensors) == 12 * 2 * 3
    seen = set()
    for kind, layer, step in tensors:
        width, threshold = 2, Fraction("0.25") - Fraction("0.1") * (Fraction(step, 12) + Fraction(layer, 2))
        if step >= lag:
            array, axis = tensors[kind, layer, step - lag]
            rows = np.moveaxis(array, axis, 1)
            rows = np.concatenate([rows, np.zeros((len(rows), -rows.shape[1] % 4))], axis=1)
            numerator, quarter = scalar_sums(rows.ravel(), 4, 8)
            width = 4 if Fraction(numerator) >= Fraction(round(threshold * 256), 256) * 4 * quarter else 2
        runs = report["widths"][kind][layer]
        assert [bits for start, bits in runs if start <= step][-1] == width
        seen.add((kind, width))
    assert len(seen) >= 5  # of nearly every tensor both widths come up


class Swapped(network.Gemms):
    """Makes the input gradient of a layer before its weight gradient."""

    def product(self, gemm, layer, x, y, *others):
        if gemm == "weight-gradient" and layer:
            self.owed = layer, x, y, *others
            self.result = np.zeros((x.shape[1], y.shape[1]), x.dtype)
            return self.result
        return super().product(gemm, layer, x, y, *others)

    def input_gradient(self, *arguments):
        found = super().input_gradient(*arguments)
        self.result[:] = super().product("weight-gradient", *self.owed)
        return found


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_fast_is_the_same_with_the_products_of_the_backward_pass_swapped(model, lag, monkeypatch):
    recipe = make("fast", group=4, alpha=0.4, beta=0.1, lag=lag)
    rng, order = np.random.default_rng(6), []
    x, y = rng.random((11, 49)).astype(np.float32), rng.integers(0, 3, 11)
    data, settings = Dataset("small", x, y, x[:5], y[:5], 3, (7, 7)), {"epochs": 4, "batch": 4, "model": model}
    settings["hidden"] = (5,) if model == "mlp" else (3, 2)
    plain = network.train(recipe, data, **settings)
    monkeypatch.setattr(network.run, "Gemms", Swapped)
    swapped = network.train(recipe, data, **settings,
                            record=lambda step, layer, gemm, *_: order.append((step, layer, gemm)))
    assert order.index((0, 1, "input-gradient")) < order.index((0, 1, "weight-gradient"))
    assert swapped.digest == plain.digest and swapped.precision == plain.precision
    assert {"2", "4"} <= {width for each in plain.precision["steps"]["gradients"] for width in each}


def test_a_lag_of_one_is_the_default_and_is_told():
    assert make("fast") == make("fast", lag=1) != make("fast", lag=0)
    assert [make("fast", lag=lag).formats()["weights"]["precision"]["lag"] for lag in (0, 1)] == [0, 1]
    assert precision.parse({"policy": "adaptive"}).lag == 1


def test_range_test_trains_a_network():
    settings = {"batch": 4, "hidden": (5,), "low": 2, "high": 4}
    assert network.precision_range(make("bfp"), small_data(), threshold=-1, **settings)[0] == 2
    width, gains = network.precision_range(make("cpt"), small_data(), threshold=2, **settings)
    assert width is None and list(gains) == [2, 3, 4]
    policies = Policies(Rising(2, 4), Rising(2, 4), Constant(8))
    recipe = dataclasses.replace(make("bfp", mantissa=4, gradients_mantissa=8), precision=policies)
    final = network.train(recipe, small_data(), epochs=3, batch=4, hidden=(5,)).accuracy["train"]
    assert sum(gains.values()) == pytest.approx(final - 1 / 3)


# What is refused.


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Constant(1), "bits is 1; allowed: an integer from 2 to 8"),
    (lambda: Cyclic(3, 9), "high is 9; allowed: an integer from 3 to 8"),
    (lambda: Cyclic(5, 4), "high is 4; allowed: an integer from 5 to 8"),
    (lambda: Cyclic(cycles=0), "cycles is 0; allowed: an integer from 1 to 1000000"),
    (lambda: Rising(1, 4), "low is 1; allowed: an integer from 2 to 8"),
    (lambda: Adaptive(alpha=2), "alpha is 2; allowed: a number from 0 to below 2"),
    (lambda: Adaptive(beta=True), "beta is True; allowed: a number from 0 to below 2"),
    (lambda: Adaptive(reverse=1), "reverse is 1; allowed: true, false"),
    (lambda: Adaptive(lag=2), "lag is 2; allowed: an integer from 0 to 1"),
    (lambda: Policies(weights=4), "precision of weights is 4; allowed: a Constant, Cyclic, Rising or Adaptive"),
    (lambda: precision.CyclicParameters(iterations=0), "iterations is 0; allowed: an integer from 1 to 2147483647"),
    (lambda: precision.CyclicParameters(gradients=9), "gradients is 9; allowed: an integer from 2 to 8"),
    (lambda: precision.AdaptiveParameters(mantissa=3), "mantissa is 3; allowed: an integer from 4 to 8"),
    (lambda: precision.AdaptiveParameters(guard=17), "guard is 17; allowed: an integer from 0 to 16"),
])
def test_refusals_name_the_value_and_what_is_allowed(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
