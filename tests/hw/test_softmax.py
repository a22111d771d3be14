# amaranth: UnusedElaboratable=no
"""The softmax head: its Verilog against golden, under stalls, its timing and its statuses."""

import itertools

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import softmax
from narrowgauge.sim import softmax as bench
from units import cases, run

UNIT = catalog.find("softmax-grad")


def ieee(exponent, mantissa, **more):
    return {"type": "Float", "exponent": exponent, "mantissa": mantissa} | more


# Every parameter at its ends and between them; formats of which all, some and no numbers fit into fixed point, narrower
# and wider than that; guard bits on either side of the table's; powers of two of classes and others.
COVER = [
    {},
    {"classes": 2, "bits": 2, "format": "fp4-e2m1", "rounding": "truncate"},
    {"classes": 33, "bits": 9, "format": "fp8-e4m3", "rounding": "stochastic", "random_bits": 16, "corrected": True},
    {"classes": 1024, "bits": 16, "format": "fp32", "rounding": "stochastic", "random_bits": 11, "seed": 7},
    {"classes": 1024}, {"classes": 1023, "format": "fp16", "bits": 12}, {"classes": 2, "bits": 16, "format": "fp16"},
    {"classes": 3, "bits": 13, "format": ieee(2, 23)}, {"classes": 4, "bits": 8, "format": "fp8-e5m2"},
    {"classes": 7, "bits": 4, "format": ieee(5, 2, bias=-40), "rounding": "stochastic", "random_bits": 1},
    {"classes": 7, "bits": 12, "format": ieee(4, 3, bias=200)}, {"classes": 7, "format": ieee(4, 3, bias=-900)},
    {"classes": 5, "bits": 3, "format": ieee(11, 20), "rounding": "stochastic", "seed": 2**31 - 1},
    {"classes": 8, "bits": 16, "format": {"type": "Float", "exponent": 1, "mantissa": 1, "specials": "fn"}},
    {"classes": 16, "bits": 10, "format": ieee(8, 0), "rounding": "truncate"},
    {"classes": 26, "bits": 7, "format": {"type": "Float", "exponent": 6, "mantissa": 25, "specials": "none",
                                          "overflow": "saturate"}},
    {"classes": 100, "bits": 11, "rounding": "stochastic", "random_bits": 16},
    {"classes": 128, "rounding": "stochastic", "corrected": True}, {"classes": 512, "bits": 15},
    {"classes": 10, "bits": 14, "format": "fp16", "rounding": "truncate"},
]


def full_rows(parameters, count, seed=1):
    rng, size = np.random.default_rng(seed), parameters.classes
    logits = parameters.format.encode(rng.standard_normal((count, size)))
    targets = np.arange(size) == rng.integers(0, size, (count, 1))
    return bench.grad_vectors(parameters, logits.ravel(), targets.ravel(), np.zeros(count * size))


def check(parameters, count=3000, seed=11):
    """Random and directed transfers, under random stalls and without; full rows, whose timing is known."""
    component = UNIT.component(parameters)
    vectors = UNIT.vectors(parameters, count, seed=seed, record=False)
    assert run(UNIT, parameters, vectors, seed=12).vectors == count
    run(UNIT, parameters, vectors, idle=0, busy=0)
    rows = 3 if parameters.classes > 100 else 20
    outcome = run(UNIT, parameters, full_rows(parameters, rows), idle=0, busy=0)
    assert outcome.latency == component.latency
    # The rows one after the other; the last one goes in, and what its last transfer completes comes out at its end.
    last = 2 * (parameters.classes - 1) + component.latency
    assert outcome.cycles == (rows - 1) * component.interval + last


@cases(UNIT, COVER, quick=[2])
def test_every_error_loss_and_status_is_golden(parameters):
    check(parameters)


def test_ten_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them():
    parameters = UNIT.configure({})
    vectors = UNIT.vectors(parameters, 10_000, seed=31)
    assert run(UNIT, parameters, vectors, seed=32).vectors == 10_000
    assert UNIT.component(parameters).latency == 43 and UNIT.component(parameters).interval == 58
    rows = run(UNIT, parameters, full_rows(parameters, 100), idle=0, busy=0)
    assert rows.latency == 43 and 0 <= rows.cycles - 100 * 58 <= 60


@pytest.mark.sweep
def test_a_hundred_thousand_transfers_of_the_default_are_golden():
    parameters = UNIT.configure({})
    run(UNIT, parameters, UNIT.vectors(parameters, 100_000, seed=33), seed=34)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(24))
def test_settings_drawn_at_random_are_golden(seed):
    rng = np.random.default_rng(seed)
    exponent = int(rng.integers(2, 9))
    fmt = ieee(exponent, int(rng.integers(0, 12)), bias=int(rng.integers(-20, 40) + 2 ** (exponent - 1)))
    check(UNIT.configure({
        "format": ["bf16", "fp16", "fp32", fmt, fmt][seed % 5], "classes": int(2 ** rng.uniform(1, 10)),
        "bits": int(rng.integers(2, 17)), "rounding": ["nearest", "truncate", "stochastic"][seed % 3],
        "random_bits": int(rng.integers(1, 17)), "corrected": bool(seed & 1), "seed": seed}))


@pytest.mark.parametrize("idle, busy", [(0, 0.9), (0.9, 0), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(idle, busy):
    parameters = UNIT.configure(COVER[2])
    run(UNIT, parameters, UNIT.vectors(parameters, 500, seed=41, record=False), idle=idle, busy=busy, seed=42)


def test_every_place_of_a_target_in_every_length_of_a_row():
    parameters = UNIT.configure(COVER[2])
    logits, targets, lasts, rng = [], [], [], np.random.default_rng(5)
    for size in range(1, 14):
        for target in range(size):
            logits.append(parameters.format.encode(rng.standard_normal(size)))
            targets.append(np.arange(size) == target)
            lasts.append(np.arange(size) == size - 1)
    vectors = bench.grad_vectors(parameters, *(np.concatenate(each) for each in (logits, targets, lasts)))
    run(UNIT, parameters, vectors, idle=0.1, busy=0.5)


def test_different_parameters_have_different_module_names():
    values = {"format": ["bf16", "fp32", ieee(5, 3), ieee(5, 3, bias=3)], "classes": [10, 11, 1024],
              "bits": [5, 6, 16], "rounding": ["nearest", "truncate", "stochastic"], "random_bits": [8, 5],
              "corrected": [False, True], "seed": [1, 2]}
    names = {UNIT.module_name(UNIT.configure(dict(zip(values, each)))) for each in itertools.product(*values.values())}
    assert len(names) == np.prod([len(each) for each in values.values()])
    assert all(name.isidentifier() for name in names)


def test_the_header_tells_what_fields_of_a_row_mean():
    text = UNIT.verilog(UNIT.configure({}))
    for line in ("latency 43 cycles, interval 58", "last: the row's last class", "overflow  out 1  sticky: a logit was "
                 "Inf", "target: 1: the example's class"):
        assert line in text


# Statuses.


def test_the_statuses_tell_nan_from_inf():
    parameters = UNIT.configure({})
    fmt = parameters.format
    rows = np.zeros((6, 10), int)
    for code, status in ((0, (0, 0)), (fmt.inf_code, (0, 1)), (fmt.nan_code, (1, 0)), (fmt.max_code, (0, 0)),
                         (fmt.inf_code + 1, (1, 0)), (fmt.inf_code | 1 << 15, (0, 1))):
        rows[3, 4] = code
        vectors = bench.grad_vectors(parameters, rows.ravel(), (np.arange(60) % 10 == 2), (np.arange(60) % 10 == 9))
        assert vectors.status == dict(zip(("invalid", "overflow"), status))
        run(UNIT, parameters, vectors)


def test_a_status_is_raised_by_a_row_that_does_not_end():
    parameters = UNIT.configure(COVER[2])
    vectors = bench.grad_vectors(parameters, [1, 2, parameters.format.nan_code], [0, 1, 0], [0, 1, 0])
    assert len(vectors.outputs) == 2 and vectors.status == {"invalid": 1, "overflow": 0}
    run(UNIT, parameters, vectors)


def test_vectors_reach_every_place():
    parameters = UNIT.configure({"rounding": "stochastic"})
    logits, targets, lasts = bench.grad_random(parameters, 20000, 1)
    errors, ends, losses, invalid, overflow = softmax.errors(parameters, logits, targets, lasts)
    assert len(set(errors.tolist())) == 2**parameters.bits
    assert invalid.any() and overflow.any() and set(np.diff(np.flatnonzero(ends))) == set(range(1, 11))
    assert (losses == 0).any() and (losses == parameters.loss_top).any() and len(set(losses.tolist())) > 300
