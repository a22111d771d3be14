# amaranth: UnusedElaboratable=no
"""Madam's update: its Verilog against golden, under stalls, with exhaustive gradients, and its timing and statuses."""

import itertools

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import madam
from narrowgauge.golden.formats import PRESETS
from narrowgauge.sim import madam as bench
from units import cases, run

UNIT = catalog.find("madam-update")


def log(bits, gamma):
    return {"type": "Log", "bits": bits, "gamma": gamma}


def ieee(exponent, mantissa, **more):
    return {"type": "Float", "exponent": exponent, "mantissa": mantissa} | more


# Every parameter at its ends and between them, every gamma of the second moment, gradients with and without subnormal
# numbers that matter, and logarithms that a change can be longer than.
COVER = [
    {},
    {"weight": log(8, 8), "narrow": log(7, 4), "gradient": "bf16", "lanes": 2, "second_bits": 8, "second_gamma": 2,
     "second_bias": 100, "memory": 30, "random_bits": 5, "seed": 7},
    {"gradient": "fp16", "lanes": 2, "second_bias": 48, "second_gamma": 16, "clip": 15, "random_bits": 12},
    {"weight": log(12, 128), "narrow": log(6, 2), "gradient": "fp8-e5m2", "second_bits": 6, "second_gamma": 1,
     "second_bias": 35, "memory": 2, "clip": 1, "random_bits": 1},
    {"gradient": ieee(5, 10), "second_bits": 9, "second_gamma": 4, "second_bias": 96, "memory": 100},
    {"second_bits": 16, "second_gamma": 16, "second_bias": 300, "memory": 65536, "random_bits": 16, "clip": 15},
    {"second_bits": 6, "second_gamma": 16, "second_bias": 2, "memory": 65536, "random_bits": 16},
    {"gradient": ieee(8, 9), "second_bits": 12, "second_bias": 255, "second_gamma": 8, "random_bits": 9, "lanes": 2},
    {"gradient": "bf16", "second_bias": 320, "second_gamma": 1, "second_bits": 9, "clip": 7, "random_bits": 9},
    {"gradient": "fp16", "second_bias": -128, "second_bits": 7, "second_gamma": 2, "clip": 3},
    {"gradient": ieee(4, 3), "second_bias": 7, "second_gamma": 16, "second_bits": 9, "weight": log(9, 16),
     "narrow": log(8, 8), "memory": 3, "lanes": 6, "seed": 2**31 - 1},
    {"gradient": ieee(2, 2), "second_bias": 1, "second_gamma": 8, "second_bits": 6, "weight": log(16, 16384),
     "narrow": log(4, 4), "memory": 11, "clip": 2, "lanes": 5},
    {"gradient": ieee(7, 24), "second_bias": 63, "second_gamma": 16, "second_bits": 11, "weight": log(16, 2),
     "narrow": log(15, 1), "clip": 8},
    {"gradient": ieee(6, 3, bias=20), "second_bias": -9, "second_gamma": 4, "second_bits": 8, "lanes": 3},
    {"gradient": ieee(3, 28), "second_bias": 9, "second_gamma": 8, "second_bits": 7, "random_bits": 10},
]

TWO = {"gradient": "bf16", "lanes": 2}


def check(parameters, count=3000, seed=11):
    """Random and directed transfers: in full flow, whose timing is known, and under random stalls."""
    component = UNIT.component(parameters)
    vectors = UNIT.vectors(parameters, count, seed=seed, record=False)
    assert run(UNIT, parameters, vectors, seed=12).vectors == count
    outcome = run(UNIT, parameters, vectors, idle=0, busy=0)
    # A transfer a cycle: besides them, only the way through, the bench's watch and its start.
    assert outcome.latency == component.latency and outcome.cycles <= count + outcome.latency + 55


@cases(UNIT, COVER, quick=[1])
def test_every_code_and_status_is_golden(parameters):
    check(parameters)


def test_ten_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them():
    parameters = UNIT.configure({})
    vectors = UNIT.vectors(parameters, 10_000, seed=31)
    assert run(UNIT, parameters, vectors, seed=32).vectors == 10_000
    outcome = run(UNIT, parameters, vectors, idle=0, busy=0)
    assert outcome.latency == UNIT.component(parameters).latency == 14 and outcome.cycles <= 10_000 + 14 + 55


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(24))
def test_settings_drawn_at_random_are_golden(seed):
    rng = np.random.default_rng(seed)
    weight = int(rng.integers(8, 17))
    low = int(rng.integers(max(4, weight - 10), weight))
    octaves = int(rng.integers(1, min(low - 2, 6) + 1))  # log2 of them, less the bits below
    gamma = 1 << (low - 1 - octaves)
    fmt = UNIT.configure({"gradient": ["fp32", "bf16", "fp16", "fp8-e5m2", ieee(6, 5)][seed % 5]}).gradient
    # Where a unit is of use: the second moments within the squares of gradients.
    c = int(rng.choice([1, 2, 4, 8, 16]))
    bits = int(rng.integers(6, 17))
    memory = int(2 ** rng.uniform(1, 16))
    bias = int(np.clip(-2 * rng.integers(fmt.emin - fmt.mantissa, fmt.emax + 1), -128, 320))
    check(UNIT.configure({
        "weight": log(weight, gamma << (weight - low)), "narrow": log(low, gamma), "gradient": [
            "fp32", "bf16", "fp16", "fp8-e5m2", ieee(6, 5)][seed % 5], "second_bits": bits, "second_gamma": c,
        "second_bias": bias, "memory": memory, "clip": int(rng.integers(1, 16)), "lanes": int(rng.integers(1, 5)),
        "random_bits": int(rng.integers(min(np.log2(memory) + 1, 16), 17)), "seed": seed}), count=4000)


@pytest.mark.sweep
def test_a_hundred_thousand_transfers_of_the_default_are_golden():
    parameters = UNIT.configure({})
    run(UNIT, parameters, UNIT.vectors(parameters, 100_000, seed=33), seed=34)


@pytest.mark.parametrize("idle, busy", [(0, 0.9), (0.9, 0), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(idle, busy):
    parameters = UNIT.configure({})
    run(UNIT, parameters, UNIT.vectors(parameters, 600, seed=41, record=False), idle=idle, busy=busy, seed=42)


def test_different_parameters_have_different_module_names():
    pairs = [(PRESETS["lns16-update"], "lns8"), (log(9, 16), "lns8"), (PRESETS["lns16-update"], log(9, 16)),
             (log(12, 128), "lns8")]
    values = {"gradient": ["fp32", "bf16"], "second_bits": [8, 10], "second_gamma": [4, 8], "second_bias": [-10, 8, 96],
              "memory": [10, 1000], "clip": [8, 10], "lanes": [1, 8], "random_bits": [7, 8], "seed": [1, 4]}
    names = {UNIT.module_name(UNIT.configure({"weight": pair[0], "narrow": pair[1]} | dict(zip(values, each))))
             for pair in pairs for each in itertools.product(*values.values())}
    assert len(names) == len(pairs) * np.prod([len(each) for each in values.values()])
    assert all(name.isidentifier() for name in names)


# Exhaustive operands.


def every_gradient(settings, seconds):
    """Every code of a gradient of 16 bits or fewer, beside given second moments, over many lanes."""
    parameters = UNIT.configure(settings)
    lanes = parameters.lanes
    codes = np.arange(1 << parameters.gradient.width).reshape(-1, lanes)
    count, middle = len(codes), parameters.weight.top // 2
    for second in seconds:
        vectors = bench.update_vectors(
            parameters, np.full((count, lanes), middle), codes, np.full((count, lanes), second), np.zeros(count, int),
            np.full(count, 2), np.full(count, parameters.weight.top))
        run(UNIT, parameters, vectors, idle=0, busy=0)


def test_every_bf16_gradient():
    every_gradient(TWO, [700])


@pytest.mark.sweep
@pytest.mark.parametrize("settings", [
    {"gradient": "bf16", "second_bias": 255, "second_bits": 12}, {"gradient": "fp16", "second_bias": 48},
    {"gradient": "bf16", "second_bias": 300, "second_bits": 14, "second_gamma": 16},
    {"gradient": "bf16", "second_bias": -20, "second_bits": 9, "second_gamma": 2},
    {"gradient": "fp16", "second_bias": 20, "second_gamma": 16, "second_bits": 9}], ids=str)
def test_every_gradient_of_16_bits(settings):
    every_gradient(settings | {"lanes": 8, "memory": 2}, [0, 1, 300])


def every_distance(parameters, correction):
    """Transfers with every pair of second moments and squares."""
    p, top = parameters, parameters.second_top
    seconds, squares = (each.reshape(-1) for each in np.meshgrid(np.arange(top + 1), np.arange(-2, top + 2)))
    # In the middle of what is rounded to that square.
    with np.errstate(over="ignore"):
        values = np.exp2((squares / p.second_gamma - p.second_bias) / 2)
    gradients = p.gradient.encode(values).astype(np.int64)
    count = len(seconds)
    return bench.update_vectors(p, np.full((count, 1), p.weight.top // 2), gradients[:, np.newaxis],
                                seconds[:, np.newaxis], np.full(count, correction), np.zeros(count, int),
                                np.full(count, p.weight.top))


@pytest.mark.parametrize("settings, corrections", [
    ({"second_bits": 7, "second_gamma": 2, "second_bias": 32, "memory": 300}, [0]),
    pytest.param({"second_bits": 7, "second_gamma": 2, "second_bias": 32, "memory": 300}, [-3, -19],
                 marks=pytest.mark.sweep),
    pytest.param({"second_bits": 8, "second_gamma": 8, "second_bias": 16, "memory": 7}, [0, -9],
                 marks=pytest.mark.sweep),
    pytest.param({}, [0], marks=pytest.mark.sweep),
], ids=str)
def test_every_second_moment_and_square(settings, corrections):
    parameters = UNIT.configure(settings)
    for correction in corrections:
        run(UNIT, parameters, every_distance(parameters, correction), idle=0, busy=0)


@pytest.mark.parametrize("rate, bound", [
    (0, 127), pytest.param(3, 90, marks=pytest.mark.sweep), pytest.param(7, 127, marks=pytest.mark.sweep),
    pytest.param(5, 1, marks=pytest.mark.sweep)])
def test_every_weight_and_count(rate, bound):
    parameters = UNIT.configure(COVER[1] | {"lanes": 1, "clip": 10, "random_bits": 3})
    p = parameters
    # The new second moment is about 2 * 2**rate away from none to the clip.
    squares = np.arange(40, 40 + 2 * p.second_gamma * 6)
    gradients = p.gradient.encode(np.exp2((squares / p.second_gamma - p.second_bias) / 2)).astype(np.int64)
    weights, gradients = (each.reshape(-1, 1) for each in np.meshgrid(np.arange(256), gradients))
    gradients = np.concatenate([gradients, gradients | 1 << 15])
    weights = np.concatenate([weights, weights])
    count = len(weights)
    vectors = bench.update_vectors(p, weights, gradients, np.full((count, 1), 48), np.zeros(count, int),
                                   np.full(count, rate), np.full(count, bound))
    new, *_ = madam.updates(p, weights, gradients, np.full((count, 1), 48), np.zeros(count), np.full(count, rate),
                            np.full(count, bound))
    if rate == 0:
        assert len(set(np.abs(new.astype(int) - weights).ravel())) > 5  # many counts
    run(UNIT, parameters, vectors, idle=0, busy=0)


# Random words and statuses.


def transfers(parameters, rows, gradient, second=500):
    shape = (rows, parameters.lanes)
    return (np.full(shape, 100), np.full(shape, gradient), np.full(shape, second), np.zeros(rows, int),
            np.full(rows, 1), np.full(rows, parameters.weight.top))


def test_each_lane_has_words_of_its_own_and_every_transfer_draws_them():
    parameters = UNIT.configure(TWO)
    arrays = transfers(parameters, 400, 0)
    arrays[1][::3] = parameters.gradient.nan_code  # those draw as well
    vectors = bench.update_vectors(parameters, *arrays)
    moved = madam.updates(parameters, *arrays)[2]
    # A zero gradient takes 3/256 off V: one step down now and then, in each lane at other times.
    assert set(np.unique(moved)) == {499, 500} and (moved[:, 0] != moved[:, 1]).any()
    run(UNIT, parameters, vectors, seed=3)


def test_the_statuses_tell_nan_from_inf():
    parameters = UNIT.configure(TWO)
    fmt = parameters.gradient
    for code, status in ((0x3F80, (0, 0)), (fmt.inf_code, (0, 1)), (fmt.nan_code, (1, 0)), (fmt.max_code, (0, 1)),
                         (fmt.inf_code + 1, (1, 0)), (fmt.inf_code | 1 << 15, (0, 1))):
        arrays = transfers(parameters, 40, 0x3F80)
        arrays[1][20, 1] = code
        vectors = bench.update_vectors(parameters, *arrays)
        assert vectors.status == dict(zip(("invalid", "overflow"), status))
        run(UNIT, parameters, vectors)
