# amaranth: UnusedElaboratable=no
"""The block-floating-point units: their Verilog against golden, its form, and their timing and status in pysim."""

import itertools
import time

import numpy as np
import pytest
from bfp_units import CONVERTER, FMAC, VALUES, cases
from narrowgauge import catalog
from narrowgauge.sim import blockfloat as bench
from units import run

# Every value of every setting, and two thirds of all pairs of values; the slowest to build are left to the sweep.
COVER = {
    CONVERTER: [
        (4, 4, 8, "bf16", 8, True, 1),
        (4, 5, 3, "fp16", 16, False, 1),
        (5, 3, 8, "bf16", 3, False, 77),
        (5, 5, 8, "fp16", 8, True, 0),
        (5, 7, 5, "fp32", 16, False, 2**31 - 1),
        (16, 4, 5, "fp32", 1, False, 1),
        (16, 6, 8, "fp16", 11, True, 2**31 - 1),
        (31, 2, 3, "fp16", 3, True, 77),
        (31, 8, 5, "fp32", 8, True, 2**31 - 1),
        (64, 2, 5, "fp32", 11, False, 0),
        (64, 6, 3, "fp32", 8, False, 77),
        (64, 7, 3, "bf16", 1, True, 0),
        # Formats that are no presets: a work format narrower than the window, and one with a large bias.
        (4, 8, 4, {"type": "Float", "exponent": 4, "mantissa": 2}, 8, False, 1),
        (4, 4, 8, {"type": "Float", "exponent": 8, "mantissa": 10, "bias": 150}, 4, False, 1),
    ],
    FMAC: [
        (4, 7, 5, "bf16", "parallel", 4),
        (4, 8, 8, "bf16", "serial", 2),
        (5, 4, 8, "fp32", "serial", 4),
        (5, 5, 3, "fp16", "parallel", 4),
        (5, 8, 5, "fp16", "parallel", 16),
        (16, 4, 5, "fp16", "parallel", 2),
        (16, 6, 3, "bf16", "serial", 16),
        (31, 2, 8, "fp32", "parallel", 16),
        (31, 3, 3, "fp32", "parallel", 2),
        (31, 7, 8, "fp16", "serial", 8),
        (64, 2, 3, "bf16", "parallel", 8),
        (64, 3, 5, "fp32", "serial", 8),
        # Accumulators that are no presets: a small one, and one whose exponents are not centred.
        (4, 4, 4, {"type": "Float", "exponent": 3, "mantissa": 2}, "serial", 4),
        (4, 4, 5, {"type": "Float", "exponent": 6, "mantissa": 12, "bias": 40}, "parallel", 8),
    ],
}


# Every setting, under random stalls.


@cases(COVER.get, quick=[1, 7, 13])
def test_every_code_and_status_is_golden(unit, parameters):
    vectors = catalog.find(unit).vectors(parameters, 3000, seed=11, record=False)
    outcome = run(unit, parameters, vectors, seed=12)
    assert outcome.vectors == 3000
    assert outcome.latency >= catalog.find(unit).component(parameters).latency


@pytest.mark.parametrize("unit", [CONVERTER, FMAC])
def test_the_covered_settings_hold_every_advertised_value(unit):
    for index, (name, values) in enumerate(VALUES[unit].items()):
        missing = [value for value in values if value not in [row[index] for row in COVER[unit]]]
        assert not missing, f"{name}: {missing}"


def sizes(unit):
    """A third of all groups, mantissas and exponents, each two values of two of them; other settings take turns."""
    names = list(VALUES[unit])
    turns = [itertools.cycle(VALUES[unit][name]) for name in names[3:]]
    for index, size in enumerate(itertools.product(*(VALUES[unit][name] for name in names[:3]))):
        if index % 7 == 0:  # or settings of equal count would keep step with each other
            next(turns[index // 7 % len(turns)])
        row = (*size, *map(next, turns))
        if sum(VALUES[unit][name].index(value) for name, value in zip(names, size)) % 3 == 0:
            yield row


def test_the_sizes_meet_in_every_pair():
    for unit in (CONVERTER, FMAC):
        rows = list(sizes(unit))
        for one, other in itertools.combinations(range(3), 2):
            values = [VALUES[unit][list(VALUES[unit])[place]] for place in (one, other)]
            assert {(row[one], row[other]) for row in rows} == set(itertools.product(*values))


@pytest.mark.sweep
@cases(sizes)
def test_sizes_are_golden(unit, parameters):
    run(unit, parameters, catalog.find(unit).vectors(parameters, 4000, seed=21, record=False), seed=22)


@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.sweep)])
@pytest.mark.parametrize("unit", [CONVERTER, FMAC])
def test_many_transfers_of_the_default_are_golden(unit, count):
    parameters = catalog.find(unit).configure({})
    started = time.perf_counter()
    outcome = run(unit, parameters, catalog.find(unit).vectors(parameters, count, seed=31), seed=32)
    print(f"{unit}: {outcome.vectors} transfers, {outcome.cycles} cycles, {time.perf_counter() - started:.1f} s")
    assert outcome.vectors == count


STALLS = [0, 0.3, 0.9]


@pytest.mark.parametrize("unit", [CONVERTER, FMAC])
@pytest.mark.parametrize("idle", STALLS, ids=lambda idle: f"idle{idle}")
@pytest.mark.parametrize("busy", STALLS, ids=lambda busy: f"busy{busy}")
def test_no_pattern_of_stalls_loses_or_repeats_anything(unit, idle, busy):
    parameters = catalog.find(unit).configure({})
    vectors = catalog.find(unit).vectors(parameters, 600, seed=41, record=False)
    outcome = run(unit, parameters, vectors, idle=idle, busy=busy, seed=42)
    if unit == CONVERTER and idle == busy == 0:
        # One group a cycle: besides them, only the way through, the bench's watch and its start.
        assert outcome.cycles <= 600 + outcome.latency + 55


# Exhaustive inputs.


def partners(work, fields):
    """Codes that lead their group: of those exponent fields, of every depth of subnormal, zero, Inf."""
    codes = [field << work.mantissa for field in fields]
    return np.array([0, *(1 << place for place in range(work.mantissa)), *codes, work.inf_code])


def lanes_for_every_code(parameters, partner):
    """Groups that hold every code once, each led by the partner, which sits in another lane for another partner."""
    others = parameters.group - 1
    codes = np.arange(1 << parameters.work.width)
    codes = np.resize(codes, (-(-len(codes) // others), others))
    lane = int(partner) % parameters.group
    return np.insert(np.roll(codes, lane, axis=1), lane, partner, axis=1)


ALL_FP16, SOME_FP16 = range(1, 31), [30]
SOME_BF16 = [1, 2, 3, 14, 60, 111, 112, 113, 126, 127, 128, 143, 144, 200, 253, 254]


@pytest.mark.parametrize("work, mantissa, exponent, fields, precisions", [
    pytest.param("fp16", 4, 8, SOME_FP16, [4], id="some-fp16-m4-e8"),
    pytest.param("fp16", 4, 8, ALL_FP16, [4], id="fp16-m4-e8", marks=pytest.mark.sweep),
    pytest.param("bf16", 3, 5, SOME_BF16, [3], id="bf16-m3-e5", marks=pytest.mark.sweep),
    pytest.param("fp16", 8, 3, ALL_FP16, range(2, 9), id="fp16-m8-e3", marks=pytest.mark.sweep),
    pytest.param("fp16", 4, 5, ALL_FP16, range(2, 5), id="fp16-m4-e5", marks=pytest.mark.sweep),
    pytest.param("bf16", 4, 8, range(1, 255), range(2, 5), id="bf16-m4-e8", marks=pytest.mark.sweep),
    pytest.param("bf16", 6, 5, range(1, 255), [6], id="bf16-m6-e5", marks=pytest.mark.sweep),
])
def test_every_code_beside_every_leading_exponent_under_each_rounding(work, mantissa, exponent, fields, precisions):
    parameters = catalog.find(CONVERTER).configure(
        {"group": 64, "work": work, "mantissa": mantissa, "exponent": exponent, "seed": 9})
    leading = partners(parameters.work, fields)
    for precision, rounding in itertools.product(precisions, range(3)):
        for start in range(0, len(leading), 20):
            codes = np.concatenate([lanes_for_every_code(parameters, each) for each in leading[start:start + 20]])
            vectors = bench.converter_vectors(
                parameters, codes, np.full(len(codes), precision), np.full(len(codes), rounding))
            run(CONVERTER, parameters, vectors, idle=0, busy=0)


def signed_magnitudes(precision):
    """Every element of that precision: sign and magnitude, the negative zero left out."""
    return np.arange(1 - (1 << precision), 1 << precision)


@pytest.mark.parametrize("mantissa, chunks", [(4, "serial"), (4, "parallel"), (5, "parallel"), (3, "serial")],
                         ids=lambda value: f"m{value}" if isinstance(value, int) else value)
def test_every_pair_of_elements_in_every_lane_at_every_precision(mantissa, chunks):
    parameters = catalog.find(FMAC).configure({"group": 4, "mantissa": mantissa, "chunks": chunks})
    qa, qb, pa, pb = [], [], [], []
    for precision_a, precision_b in itertools.product(range(2, mantissa + 1), repeat=2):
        a, b = np.meshgrid(signed_magnitudes(precision_a), signed_magnitudes(precision_b))
        for lane in range(4):
            qa.append(a.reshape(-1, 1) * (np.arange(4) == lane))
            qb.append(b.reshape(-1, 1) * (np.arange(4) == lane))
            pa.append(np.full(a.size, precision_a))
            pb.append(np.full(b.size, precision_b))
    qa, qb, pa, pb = map(np.concatenate, (qa, qb, pa, pb))
    count = len(qa)
    exponent = np.full(count, parameters.format.bias)
    always = np.ones(count, bool)
    slot = np.arange(count) % parameters.accumulators
    vectors = bench.fmac_vectors(parameters, exponent, qa, pa, exponent, qb, pb, slot, always, always)
    expected = np.sum(qa * qb, axis=1) * np.exp2(2.0 - pa - pb)
    got = parameters.accumulator.decode([payload & 0xFFFFFFFF for payload in vectors.outputs])
    assert (got == expected).all()  # not by golden alone
    run(FMAC, parameters, vectors, idle=0, busy=0)


@pytest.mark.parametrize("chunks", ["serial", "parallel"])
def test_every_pair_of_two_bit_elements_in_every_two_lanes(chunks):
    parameters = catalog.find(FMAC).configure({"group": 4, "mantissa": 2, "chunks": chunks})
    elements = signed_magnitudes(2)
    four = np.array(list(itertools.product(elements, repeat=4)))
    qa, qb = [], []
    for lanes in itertools.combinations(range(4), 2):
        places = np.zeros((2, 4), int)
        places[[0, 1], lanes] = 1
        qa.append(four[:, :2] @ places)
        qb.append(four[:, 2:] @ places)
    qa, qb = np.concatenate(qa), np.concatenate(qb)
    count = len(qa)
    two, exponent, always = np.full(count, 2), np.full(count, parameters.format.bias), np.ones(count, bool)
    vectors = bench.fmac_vectors(parameters, exponent, qa, two, exponent, qb, two,
                                 np.arange(count) % parameters.accumulators, always, always)
    run(FMAC, parameters, vectors, idle=0, busy=0)
