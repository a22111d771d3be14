"""Precision control: schedules, FAST's statistic, costs."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import blockfloat, precision
from narrowgauge.golden.formats import BlockFloat
from narrowgauge.golden.precision import Adaptive, Cyclic, Rising
from narrowgauge.golden.rounding import TRUNCATE
from precisions import scalar_sums

FMT = BlockFloat(16, 4, 8)


# The cyclic schedule.


def test_thresholds_of_3_to_8_are_the_contracts():
    assert precision.breakpoints(3, 8, 10_000) == (2049, 3691, 5000, 6310, 7952)


@pytest.mark.parametrize(("low", "high", "period"), [
    (3, 8, 1955), (3, 8, 2000), (2, 8, 1200), (4, 6, 300), (3, 6, 97), (2, 3, 10), (8, 8, 7), (3, 8, 1), (2, 8, 2)])
def test_every_width_of_a_cycle_is_the_rounded_cosine(low, high, period):
    for step in range(period):
        exact = low + 0.5 * (high - low) * (1 - math.cos(math.pi * step / period))
        width = Cyclic(low, high, 1).width(0, 1, step, period)
        # The machine's cosine is near enough but for ties, where the even one is right.
        if abs(exact % 1 - 0.5) < 1e-9:
            assert width % 2 == 0 and abs(width - exact) < 0.51
        else:
            assert width == round(exact)


@pytest.mark.parametrize(("low", "high", "period", "expected"), [
    (3, 8, 4, (1, 2, 2, 3, 4)),  # 5.5 in the middle is rounded up, to 6
    (4, 5, 4, (3,)),  # 4.5 in the middle is rounded down
    (2, 4, 3, (2, 2)),  # 2.5 after a third is rounded down, 3.5 after two up
    (3, 5, 3, (1, 3)),  # 3.5 is rounded up, 4.5 down
    (2, 8, 3, (1, 1, 2, 2, 3, 3)),  # 3.5 after a third is 4, 6.5 after two is 6
])
def test_ties_are_rounded_to_even(low, high, period, expected):
    assert precision.breakpoints(low, high, period) == expected


def test_a_breakpoint_is_exact_where_the_machine_cannot_tell():
    # The largest denominators below 1e9 of arccos(4/5) / pi: the edge is within 1e-9 of a position, on either side.
    edge, best = precision.cycles.edge_of(Fraction(4, 5)), {}
    a, b = (0, 1), (1, 1)
    while a[1] + b[1] < 10**9:
        middle = (a[0] + b[0], a[1] + b[1])
        side = Fraction(*middle) > edge
        a, b = (a, middle) if side else (middle, b)
        best[side] = middle
    for side, (position, period) in best.items():
        assert abs(edge * period - position) < 1e-7
        assert precision.breakpoints(3, 8, period)[0] == position + (not side)


def test_a_run_is_cycles_and_what_is_left_begins_another():
    policy = Cyclic(3, 8, 3)
    widths = [policy.width(1, 2, step, 14) for step in range(20)]
    # A cycle is of 4 steps: 3, 3.73, 5.5 and 7.27 are rounded.
    assert widths == [3, 4, 6, 7] * 5


def test_a_run_of_fewer_steps_than_cycles_stays_low():
    assert [Cyclic(3, 8, 32).width(0, 1, step, 31) for step in range(40)] == [3] * 40


def test_the_rising_policy_gives_each_width_its_part():
    assert [Rising(2, 4).width(0, 1, step, 9) for step in range(9)] == [2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert (Rising().measured(None), Rising().measured(5), Rising().top) == (2, 5, 8)


# CPT's costs.


def test_cost_is_that_of_three_products():
    assert precision.cost(8, 8) == Fraction(64, 1024)
    assert precision.cost(3, 8) == Fraction(3 * 3 + 3 * 8 + 3 * 8, 3 * 32 * 32)


@pytest.mark.parametrize(("low", "high", "published"), [(3, 8, 36.67), (3, 6, 30.05), (4, 6, 20.69)])
@pytest.mark.parametrize("steps", [64_000, 62_400])
def test_savings_are_the_published_ones(low, high, published, steps):
    assert round(100 * float(precision.saving(low, high, high, steps=steps)), 2) == published


def test_a_run_without_end_saves_what_the_thresholds_tell():
    edges = [0, 0.2048, 0.3690, 0.5, 0.6310, 0.7952, 1]
    mean = sum((b - a) * float(precision.cost(3 + k, 8)) for k, (a, b) in enumerate(zip(edges, edges[1:])))
    assert precision.saving(3, 8, 8) == pytest.approx(1 - mean * 1024 / 64, abs=1e-4)
    assert precision.saving(3, 8, 8) == pytest.approx(float(precision.saving(3, 8, 8, steps=10**5, cycles=1)), abs=1e-5)


def test_range_test_takes_the_first_width_that_gains():
    asked = []

    def accuracy(width):
        asked.append(width)
        return {2: 0.12, 3: 0.15, 4: 0.5, 5: 0.9}[width]

    width, gains = precision.range_test(accuracy, 0.1)
    assert (width, asked) == (4, [2, 3, 4])
    assert gains == pytest.approx({2: 0.02, 3: 0.03, 4: 0.35})
    assert precision.range_test(lambda width: 0.1, 0.1, high=4) == (None, {2: 0, 3: 0, 4: 0})


@pytest.mark.parametrize("guard", [0, 3, 8])
@pytest.mark.parametrize("spread", [0, 3, 20, 60])
def test_sums_are_those_of_the_definition_rounded_down_once(guard, spread):
    rng = np.random.default_rng(spread)
    x = rng.standard_normal(16 * 60) * np.exp2(rng.integers(-spread, spread + 1, 60)).repeat(16)
    x[:40] = x[96:112] = 0
    blocks = blockfloat.quantise(x, FMT, rounding=TRUNCATE)
    magnitudes = np.abs(blocks.mantissas).reshape(-1, blocks.format.group)
    found = precision.sum_chunks(blocks.exponents, *precision.chunk_sums(magnitudes), guard=guard)
    assert found == (*scalar_sums(x, 16, guard), False)


@pytest.mark.parametrize("limit", [None, 200])
def test_no_order_of_groups_changes_the_sums(limit):
    rng = np.random.default_rng(9)
    exponents = rng.integers(90, 110, 200)
    low, high = rng.integers(0, 49, (2, 200)) * (rng.random(200) < 0.9)
    found = {precision.sum_chunks(exponents[order], low[order], high[order], guard=2, limit=limit)
             for order in (rng.permutation(200) for _ in range(20))}
    assert len(found) == 1 and found.pop()[2] == (limit is not None)


def test_groups_of_zeros_have_no_exponent():
    assert precision.sum_chunks([9, 4], [0, 5], [0, 2], guard=1) == (10, 4, False)
    assert precision.sum_chunks([9, 4], [0, 0], [0, 0]) == precision.sum_chunks([], [], []) == (0, 0, False)
    # A single lower chunk is enough.
    assert precision.sum_chunks([9, 4], [1, 64], [0, 32], guard=0) == (3, 1, False)


def test_without_truncation_r_is_the_quotient_of_both_quantisations():
    x = np.random.default_rng(5).standard_normal((40, 50)).astype(np.float32)
    wide, narrow = (blockfloat.quantise(x, dataclasses.replace(FMT, mantissa=m), rounding=TRUNCATE).values()
                    for m in (4, 2))
    exact = np.abs(wide - narrow).sum() / np.abs(narrow).sum()
    assert precision.ratio(x, FMT) == exact  # groups within 2**8 of each other: nothing is dropped


def test_the_sums_of_an_exponent_saturate_and_say_so():
    exponents, low, high = [5, 5, 6, 5], [40, 40, 40, 2], [9, 9, 9, 9]
    assert precision.sum_chunks(exponents, low, high, guard=0) == (81, 22, False)
    # 82 becomes 63 before it is halved.
    assert precision.sum_chunks(exponents, low, high, guard=0, limit=63) == (71, 22, True)
    assert precision.sum_limit(16, 20) == 2 ** (6 + 20) - 1 >= 48 * 2**20
    assert precision.AdaptiveParameters(group=64, count=24, guard=16).total == 8 + 24 + 1 + 16


def expected_ratio(below, group=16):
    """The quotient of both sums' expectations, for groups of independent magnitudes; `below` is P(|x| < value)."""
    totals = [0.0, 0.0]
    for exponent in range(-40, 12):
        unit = 2.0 ** (exponent - 3)
        # The largest of the group is in this octave: it is below its end, but not below its start.
        for end, sign in ((16, 1), (8, -1)):
            others = below(end * unit) ** (group - 1)
            for q in range(1, end):
                part = sign * group * others * (below((q + 1) * unit) - below(q * unit)) * unit
                totals[0] += part * (q % 4)
                totals[1] += part * (q // 4)
    return totals[0] / (4 * totals[1])


def test_r_of_gaussian_laplace_and_rectified_data():
    rng = np.random.default_rng(2)
    normal, laplace = rng.standard_normal((4000, 160)), rng.laplace(size=(4000, 160))
    cases = {
        "gaussian": (normal, lambda t: math.erf(t / math.sqrt(2))),
        "laplace": (laplace, lambda t: 1 - math.exp(-t)),
        "rectified": (np.maximum(normal, 0), lambda t: 0.5 + 0.5 * math.erf(t / math.sqrt(2))),
    }
    for data, below in cases.values():  # 40,000 groups, whose quotient of sums is within a part in 200 of that
        assert precision.ratio(data.astype(np.float32), FMT) == pytest.approx(expected_ratio(below), rel=0.005)


def test_r_of_what_two_bits_hold_is_zero_and_of_zeros_none():
    assert precision.ratio(np.array([1.5, 1, 0.5, -1, 0]), FMT) == 0
    assert math.isnan(precision.ratio(np.zeros(20), FMT))


def test_threshold_falls_with_steps_and_layers():
    policy = Adaptive()
    assert policy.threshold(0, 4, 0, 100) == Fraction(6, 10)
    assert policy.threshold(2, 4, 50, 100) == Fraction(3, 10)
    assert policy.threshold(3, 4, 99, 100) == Fraction(6, 10) - Fraction(297, 1000) - Fraction(225, 1000)
    assert Adaptive(0.1, 0.9).threshold(1, 2, 1, 2) == Fraction(-8, 10)


def test_accurate_first_has_the_same_thresholds_in_reverse_order():
    falling, rising = (Adaptive(reverse=reverse) for reverse in (False, True))
    for layer in range(3):
        thresholds = [rising.threshold(layer, 3, step, 7) for step in range(7)]
        assert thresholds[::-1] == [falling.threshold(layer, 3, step, 7) for step in range(7)]
        assert thresholds == sorted(set(thresholds))
    assert rising.threshold(1, 2, 0, 10) == Fraction(6, 10) - Fraction(3, 10) * Fraction(9, 10) - Fraction(3, 20)
    assert [rising.width(0, 1, step, 10, (53, 25)) for step in range(10)] == [4] * 7 + [2] * 3


@pytest.mark.parametrize(("threshold", "fraction", "code"), [
    (Fraction(6, 10), 8, 154), (Fraction(3, 512), 8, 2), (Fraction(5, 512), 8, 2), (Fraction(-1, 2), 8, 0), (7, 8, 511),
    (1, 4, 16)])
def test_threshold_code_is_rounded_and_held(threshold, fraction, code):
    assert precision.threshold_code(threshold, fraction) == code


def test_the_decision_needs_no_quotient():
    # r = 154 / (4 * 64) is the threshold 154 / 256: as large is large enough.
    assert precision.decide(154, 64, 154) == 4
    assert precision.decide(153, 64, 154) == 2
    assert precision.decide(154, 64, 155) == 2
    assert precision.decide(0, 0, 500) == 4


def test_adaptive_width_follows_the_tensor_the_layer_and_the_step():
    policy = Adaptive()
    widths = [[policy.width(layer, 3, step, 10, (53, 25)) for step in range(10)] for layer in range(3)]
    # 0.6 - 0.03 * step - 0.1 * layer falls below 53 / (4 * 25) at step 3 of the first layer.
    assert widths == [[2, 2, 2, 4, 4, 4, 4, 4, 4, 4], [4] * 10, [4] * 10]
    assert [policy.width(layer, 3, 0, 10) for layer in range(3)] == [2] * 3  # there are no sums yet


# The units' golden functions.


def test_cyclic_unit_replays_the_policy_and_restarts():
    p = precision.CyclicParameters(iterations=40, cycles=4, low=2, high=6, gradients=7)
    restart = np.zeros(60, bool)
    restart[[0, 33]] = True
    forward, backward = precision.cyclic(p, restart)
    assert set(backward) == {7}
    assert list(forward) == [p.policy.width(0, 1, step, 40) for step in (*range(33), *range(27))]


def test_adaptive_unit_answers_once_a_tensor():
    p = precision.AdaptiveParameters(group=4)
    magnitudes = np.array([[15, 0, 0, 0], [15 + 16, 4, 0, 0], [8, 0, 0, 0], [8, 3, 3, 3]])
    exponents = np.array([100, 100, 90, 90])
    # 3 + 3 of 4 * (3 + 4): 6 / 28 = 54.9 / 256; then 9 of 4 * 4, 144 / 256, of which the last group has not ended.
    for threshold, end, expected in (([0, 54, 1, 1], [0, 1, 0, 0], [4]), ([0, 55, 0, 144], [0, 1, 0, 1], [2, 4]),
                                     ([0, 55, 0, 145], [0, 1, 0, 1], [2, 2])):
        found, overflow = precision.adaptive(p, exponents, magnitudes, np.array(threshold), np.array(end, bool))
        assert list(found) == expected and not overflow


def test_adaptive_unit_decides_as_the_policy_does():
    rng, p = np.random.default_rng(8), precision.AdaptiveParameters()
    found, expected, arrays = [], [], []
    for step in range(30):
        x = rng.standard_normal((3, 40)) ** 3 * 2.0 ** rng.integers(-3, 3)
        blocks = blockfloat.quantise(x, FMT, rounding=TRUNCATE)
        expected.append(Adaptive(0.9).width(1, 4, step, 30, precision.chunks.sums_of(x, FMT, -1)))
        code = precision.threshold_code(Adaptive(0.9).threshold(1, 4, step, 30))
        arrays.append((blocks.exponents.reshape(-1), np.abs(blocks.mantissas).reshape(-1, 16), np.full(9, code),
                       np.arange(9) == 8))
    found, overflow = precision.adaptive(p, *(np.concatenate(each) for each in zip(*arrays)))
    assert list(found) == expected and set(expected) == {2, 4} and not overflow
