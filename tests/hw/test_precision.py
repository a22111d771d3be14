# amaranth: UnusedElaboratable=no
"""Precision control: its Verilog against golden, over whole schedules and training runs, under stalls."""

import itertools
import re

import numpy as np
import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator
from narrowgauge import catalog
from narrowgauge.golden import blockfloat, network, precision
from narrowgauge.golden.datasets import Dataset
from narrowgauge.golden.recipes import make
from narrowgauge.golden.rounding import TRUNCATE
from narrowgauge.sim import precision as bench
from units import cases, run, text_of

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


def spans(exponents, elements, last):
    """For each tensor that ends, by its last group: how many codes its largest exponent is above its smallest."""
    found, start = {}, 0
    used = (elements & 15).any(axis=1)
    for stop in (np.flatnonzero(last) + 1).tolist():
        codes = exponents[start:stop][used[start:stop]].tolist()
        found[stop - 1] = max(codes) - min(codes) if codes else 0
        start = stop
    return found


def timed(parameters, exponents, elements, last):
    """For each tensor that ends, in full flow: (cycle of its last group, cycle of its answer), from a common start."""
    latency, depth = ADAPTIVE.component(parameters).latency, 1 + ((parameters.group - 1).bit_length() + 1) // 2
    span, found = spans(exponents, elements, last), {}
    # When each group enters the sums: a cycle after the one before, when no walk is under way and, with a last group,
    # when the tensor before is answered.
    enters, free, answered = [], 0, 0
    for k in range(len(last)):
        at = max(enters[-1] + 1 if k else 0, free, answered if last[k] else 0)
        enters.append(at)
        if last[k]:
            free, answered = at + span[k] + 2, at + span[k] + parameters.fraction + 6
            # All stages before the sums move as one.
            found[k] = (enters[k - depth] if k >= depth else None, at - depth + latency + span[k])
    return found


def check(parameters, count=2000):
    """Random and directed transfers, in full flow and under random stalls; each answer in its exact cycle."""
    exponents, elements, threshold, last = bench.adaptive_random(parameters, count, 21)
    vectors = bench.adaptive_vectors(parameters, exponents, elements, threshold, last)
    assert {2, 4} == set(vectors.outputs)
    run(ADAPTIVE, parameters, vectors, seed=22)
    outcome = run(ADAPTIVE, parameters, vectors, idle=0, busy=0)
    expected = timed(parameters, exponents, elements, last)
    start = outcome.spans[vectors.origin[0]][1] - expected[vectors.origin[0]][1]
    assert start <= (1 << parameters.exponent) + 3  # of these the memory is cleared after the reset
    assert outcome.spans == {k: [given + start if given is not None else outcome.spans[k][0], answered + start]
                             for k, (given, answered) in expected.items()}


@cases(ADAPTIVE, CHOICES, quick=[0, 1])
def test_every_choice_is_golden(parameters):
    check(parameters)


def test_ten_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them():
    parameters = ADAPTIVE.configure({})
    assert ADAPTIVE.component(parameters).latency == 1 + 2 + 4 + 9 + 1
    run(ADAPTIVE, parameters, ADAPTIVE.vectors(parameters, 10_000, seed=31), seed=32)


@pytest.mark.sweep
def test_a_hundred_thousand_transfers_of_the_default_are_golden():
    parameters = ADAPTIVE.configure({})
    run(ADAPTIVE, parameters, ADAPTIVE.vectors(parameters, 100_000, seed=33), seed=34)


@pytest.mark.parametrize("idle, busy", [(0, 0.9), (0.9, 0), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(idle, busy):
    parameters = ADAPTIVE.configure({})
    run(ADAPTIVE, parameters, ADAPTIVE.vectors(parameters, 400, seed=41, record=False), idle=idle, busy=busy, seed=42)


@pytest.mark.parametrize("distance", [1, 2, 3, 4])
def test_a_sum_that_is_read_again_at_once_is_the_new_one(distance):
    parameters = ADAPTIVE.configure({"group": 4})
    exponents = np.tile(100 + np.arange(distance), 40)
    count = len(exponents)
    rng = np.random.default_rng(distance)
    elements = rng.integers(0, 16, (count, 4))
    low, high = precision.chunk_sums(elements)
    numerator, quarter, _ = precision.sum_chunks(exponents, low, high, limit=parameters.limit)
    edge = (numerator << 8) // (4 * quarter)  # the greatest threshold that is reached
    last = np.arange(count) == count - 1
    for threshold, expected in ((edge, 4), (edge + 1, 2)):
        vectors = bench.adaptive_vectors(parameters, exponents, elements, np.full(count, threshold), last)
        assert vectors.outputs == [expected]
        run(ADAPTIVE, parameters, vectors, idle=0, busy=0)


def test_what_is_read_while_it_is_written_does_not_matter():
    parameters = ADAPTIVE.configure({"group": 4})
    text, last = text_of(ADAPTIVE, parameters), parameters.exponent
    read = re.search(r"<= memory_words\[(\w+)\];", text)
    wrong = f"<= written[{last}] && written[{last - 1}:0] == {read[1]} ? ~newest : memory_words[{read[1]}];"
    vectors = ADAPTIVE.vectors(parameters, 2000, seed=61, record=False)
    run(ADAPTIVE, parameters, vectors, text=text.replace(read[0], wrong), idle=0, busy=0)


def test_no_order_of_groups_changes_an_answer():
    parameters, rng = ADAPTIVE.configure({}), np.random.default_rng(51)
    exponents, elements = 100 + rng.integers(-12, 13, 60), rng.integers(0, 16, (60, 16))
    low, high = precision.chunk_sums(elements)
    numerator, quarter, _ = precision.sum_chunks(exponents, low, high, limit=parameters.limit)
    edge = (numerator << 8) // (4 * quarter)
    orders = [rng.permutation(60) for _ in range(16)]
    vectors = bench.adaptive_vectors(
        parameters, np.concatenate([exponents[each] for each in orders]),
        np.concatenate([elements[each] for each in orders]),
        np.repeat([edge + k % 2 for k in range(16)], 60), np.arange(60 * 16) % 60 == 59)
    assert vectors.outputs == [4, 2] * 8
    run(ADAPTIVE, parameters, vectors, seed=52)


@pytest.mark.parametrize("moment", [3, 9, 13, 16, 20, 24, 30, 40])
def test_a_reset_forgets_what_was_summed(moment):
    parameters = ADAPTIVE.configure({"group": 4, "exponent": 4})
    component, m = ADAPTIVE.component(parameters), Module()
    m.domains.sync = domain = ClockDomain()
    m.submodules.dut = component
    # Two tensors, of which the first one ends before some of the moments; then one that a left sum would change.
    count, found = 20, []
    before = bench.adaptive_vectors(parameters, np.arange(count) % 16, np.full((count, 4), 3), np.zeros(count, int),
                                    np.arange(count) == 9)
    after = bench.adaptive_vectors(parameters, np.array([3, 7, 5]), np.array([[12, 4, 8, 0]] * 3), np.ones(3, int),
                                   np.arange(3) == 2)
    assert after.outputs == [2]

    async def testbench(ctx):
        async def offer(payloads, cycles):
            sent = waited = longest = 0
            for _ in range(cycles):
                ctx.set(component.i.valid, sent < len(payloads))
                ctx.set(component.i.payload.as_value(), payloads[min(sent, len(payloads) - 1)])
                _, _, valid, ready, o_valid, o_payload = await ctx.tick().sample(
                    component.i.valid, component.i.ready, component.o.valid, component.o.payload.as_value())
                waited = waited + 1 if valid and not ready else 0
                longest, sent = max(longest, waited), sent + (valid and ready)
                found.extend([o_payload] if o_valid else [])
            return longest

        ctx.set(component.o.ready, 1)
        await offer(before.inputs, 17 + moment)  # 17: the walk after the reset of the start
        ctx.set(domain.rst, 1)
        ctx.set(component.i.valid, 0)
        await ctx.tick()
        ctx.set(domain.rst, 0)
        found.clear()
        longest = await offer(after.inputs, 80)
        assert 10 < longest <= 1 << parameters.exponent

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert found == [2]


def test_a_training_runs_decisions_are_the_units():
    calls, rng = [], np.random.default_rng(4)
    x, y = rng.random((11, 7)).astype(np.float32), rng.integers(0, 3, 11)
    recipe = make("fast", alpha=0.3, beta=0.1)
    report = network.train(recipe, Dataset("small", x, y, x[:5], y[:5], 3), epochs=4, batch=4, hidden=(5,),
                           record=lambda *call: calls.append(call)).precision
    parameters, arrays, expected = ADAPTIVE.configure({}), [], []
    for step, layer, gemm, kind, array, axis in calls:
        if step == 11 or gemm != {"gradients": "weight-gradient"}.get(kind, "forward"):
            continue
        # Of the groups in this step, with the threshold of the next step, for the width in that step.
        blocks = blockfloat.quantise(array, parameters.narrowed, axis=axis, rounding=TRUNCATE)
        exponents, elements = blocks.exponents.reshape(-1), np.abs(blocks.mantissas.reshape(-1, 16))
        code = precision.threshold_code(recipe.precision.weights.threshold(layer, 2, step + 1, 12))
        count = len(exponents)
        arrays.append((exponents, elements, np.full(count, code), np.arange(count) == count - 1))
        expected.append([bits for start, bits in report["widths"][kind][layer] if start <= step + 1][-1])
    assert set(expected) == {2, 4} and len(expected) == 11 * 2 * 3
    vectors = bench.adaptive_vectors(parameters, *(np.concatenate(each) for each in zip(*arrays)))
    vectors.outputs = expected
    run(ADAPTIVE, parameters, vectors, seed=5)


@pytest.mark.parametrize("count, apart, status", [(2, 0, 0), (3, 0, 1), (4, 1, 0), (6, 1, 1)])
def test_the_status_tells_that_a_sum_saturated(count, apart, status):
    parameters = ADAPTIVE.configure(CHOICES[0])
    # Sums of 4 + 1 bits end at 31; of 4 lower chunks of 3 there go two into them, for each exponent.
    vectors = bench.adaptive_vectors(parameters, 5 - apart * (np.arange(count) % 2), np.full((count, 4), 3),
                                     np.zeros(count, int), np.arange(count) == count - 1)
    assert vectors.status == {"overflow": status}
    run(ADAPTIVE, parameters, vectors)


# Names and texts.


@pytest.mark.parametrize("unit, values", [
    (CYCLIC, {"iterations": [100, 64000], "cycles": [8, 32], "low": [2, 3], "high": [6, 8], "gradients": [6, 8]}),
    (ADAPTIVE, {"group": [8, 16], "mantissa": [4, 8], "exponent": [4, 8], "guard": [8, 9], "count": [8, 20],
                "fraction": [8, 9]}),
])
def test_different_parameters_have_different_module_names(unit, values):
    names = {unit.module_name(unit.configure(dict(zip(values, each)))) for each in itertools.product(*values.values())}
    assert len(names) == 2 ** len(values) and all(name.isidentifier() for name in names)
