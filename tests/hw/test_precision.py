# amaranth: UnusedElaboratable=no
"""Precision control: its Verilog against golden, over whole schedules and training runs, under stalls."""

import itertools

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import blockfloat, network, precision
from narrowgauge.golden.datasets import Dataset
from narrowgauge.golden.recipes import make
from narrowgauge.golden.rounding import TRUNCATE
from narrowgauge.sim import precision as bench
from units import cases, run

CYCLIC, ADAPTIVE = catalog.find("precision-cyclic"), catalog.find("precision-adaptive")

# Cycles of one, three (with two ties) and more iterations, of one width and of all, and the longest.
CYCLES = [
    {"iterations": 605, "cycles": 3, "gradients": 7},
    {"iterations": 24, "cycles": 8, "low": 2, "high": 4},
    {},
    {"iterations": 40, "cycles": 4, "low": 2, "gradients": 6},
    {"iterations": 5},
    {"iterations": 300, "low": 8},
    {"iterations": 2**31 - 1, "cycles": 1, "gradients": 2},
]
# Every parameter at its ends and between them.
CHOICES = [
    {"group": 4, "exponent": 3, "guard": 0, "count": 1, "fraction": 1},
    {"group": 5, "mantissa": 6, "exponent": 5, "guard": 3, "count": 4, "fraction": 16},
    {},
    {"group": 64, "mantissa": 8, "guard": 16, "count": 24, "fraction": 12},
    {"group": 17, "mantissa": 5, "exponent": 4, "guard": 1, "count": 2, "fraction": 5},
    {"group": 33, "mantissa": 7, "exponent": 6, "guard": 9, "count": 3, "fraction": 10},
]


# Cycles.


@cases(CYCLIC, CYCLES, quick=[0])
def test_cycles_are_golden_with_restarts(parameters):
    vectors = CYCLIC.vectors(parameters, 3000, seed=11, record=False)
    run(CYCLIC, parameters, vectors, seed=12)
    outcome = run(CYCLIC, parameters, vectors, idle=0, busy=0)
    assert outcome.latency == CYCLIC.component(parameters).latency == 1 and outcome.cycles <= 3000 + 56


def test_a_whole_schedule_and_what_follows_is_the_policys():
    parameters = CYCLIC.configure(CYCLES[0])
    count = 1300  # the schedule, of three cycles and two iterations of a fourth, and as much again
    vectors = bench.cyclic_vectors(parameters, np.arange(count) == 0)
    policy = precision.Cyclic(3, 8, 3)
    assert vectors.outputs == [policy.width(0, 1, step, 605) | 7 << 4 for step in range(count)]
    run(CYCLIC, parameters, vectors, idle=0.1, busy=0.1, seed=3)


# The choice by tensor.


def check(parameters, count=2000):
    """Random and directed transfers, in full flow and under random stalls."""
    exponents, elements, threshold, last = bench.adaptive_random(parameters, count, 21)
    vectors = bench.adaptive_vectors(parameters, exponents, elements, threshold, last)
    assert {2, 4} == set(vectors.outputs)
    run(ADAPTIVE, parameters, vectors, seed=22)
    outcome = run(ADAPTIVE, parameters, vectors, idle=0, busy=0)
    # A transfer a cycle, but for what may lie between the ends of tensors, and for exponents that rise.
    waits, top = int(np.maximum(parameters.fraction + 3 - np.diff(np.flatnonzero(last)), 0).sum()), None
    for exponent, ends in zip(exponents.tolist(), last):
        rise = max(exponent - top, 0) if top is not None else 0
        waits += rise // 8 + rise % 8
        top = None if ends else exponent if top is None else max(top, exponent)
    assert outcome.latency == ADAPTIVE.component(parameters).latency
    assert outcome.cycles <= count + waits + parameters.fraction + 3 + outcome.latency + 55


@cases(ADAPTIVE, CHOICES, quick=[0, 1])
def test_every_choice_is_golden(parameters):
    check(parameters)


def test_ten_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them():
    parameters = ADAPTIVE.configure({})
    assert ADAPTIVE.component(parameters).latency == 3 + 2 + 1 + 9 + 1
    run(ADAPTIVE, parameters, ADAPTIVE.vectors(parameters, 10_000, seed=31), seed=32)


@pytest.mark.sweep
def test_a_hundred_thousand_transfers_of_the_default_are_golden():
    parameters = ADAPTIVE.configure({})
    run(ADAPTIVE, parameters, ADAPTIVE.vectors(parameters, 100_000, seed=33), seed=34)


@pytest.mark.parametrize("idle, busy", [(0, 0.9), (0.9, 0), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(idle, busy):
    parameters = ADAPTIVE.configure({})
    run(ADAPTIVE, parameters, ADAPTIVE.vectors(parameters, 400, seed=41, record=False), idle=idle, busy=busy, seed=42)


def test_a_training_runs_decisions_are_the_units():
    calls, rng = [], np.random.default_rng(4)
    x, y = rng.random((11, 7)).astype(np.float32), rng.integers(0, 3, 11)
    recipe = make("fast", alpha=0.3, beta=0.1)
    report = network.train(recipe, Dataset("small", x, y, x[:5], y[:5], 3), epochs=4, batch=4, hidden=(5,),
                           record=lambda *call: calls.append(call)).precision
    first = {}
    for step, layer, _, kind, array, axis in calls:
        first.setdefault((kind, layer, step), (array, axis))
    parameters, arrays, expected = ADAPTIVE.configure({}), [], []
    for (kind, layer, step), (array, axis) in first.items():
        blocks = blockfloat.quantise(array, parameters.narrowed, axis=axis, rounding=TRUNCATE)
        exponents, elements = blocks.exponents.reshape(-1), np.abs(blocks.mantissas.reshape(-1, 16))
        code = precision.threshold_code(recipe.precision.weights.threshold(layer, 2, step, 12))
        count = len(exponents)
        arrays.append((exponents, elements, np.full(count, code), np.arange(count) == count - 1))
        expected.append([bits for start, bits in report["widths"][kind][layer] if start <= step][-1])
    assert set(expected) == {2, 4} and len(expected) == 12 * 2 * 3
    vectors = bench.adaptive_vectors(parameters, *(np.concatenate(each) for each in zip(*arrays)))
    vectors.outputs = expected
    run(ADAPTIVE, parameters, vectors, seed=5)


def test_the_status_tells_that_a_sum_saturated():
    parameters = ADAPTIVE.configure(CHOICES[0])
    # Sums of 4 + 1 bits end at 31; of 4 lower chunks of 3 there go two into them.
    for count, status in ((2, 0), (3, 1)):
        vectors = bench.adaptive_vectors(parameters, np.full(count, 5), np.full((count, 4), 3), np.zeros(count, int),
                                         np.arange(count) == count - 1)
        assert vectors.status == {"overflow": status}
        run(ADAPTIVE, parameters, vectors)


# Names and texts.


@pytest.mark.parametrize("unit, row", [(CYCLIC, row) for row in CYCLES] + [(ADAPTIVE, row) for row in CHOICES])
def test_every_covered_setting_elaborates(unit, row):
    text = unit.verilog(unit.configure(row))
    assert f"\nmodule {unit.module_name(unit.configure(row))}(" in text
    assert "[-1:0]" not in text  # no signal of zero width


@pytest.mark.parametrize("unit, values", [
    (CYCLIC, {"iterations": [100, 64000], "cycles": [8, 32], "low": [2, 3], "high": [6, 8], "gradients": [6, 8]}),
    (ADAPTIVE, {"group": [8, 16], "mantissa": [4, 8], "exponent": [4, 8], "guard": [8, 9], "count": [8, 20],
                "fraction": [8, 9]}),
])
def test_different_parameters_have_different_module_names(unit, values):
    names = {unit.module_name(unit.configure(dict(zip(values, each)))) for each in itertools.product(*values.values())}
    assert len(names) == 2 ** len(values) and all(name.isidentifier() for name in names)
