# amaranth: UnusedElaboratable=no
"""The block-floating-point units: their Verilog against golden, its form, and their timing and status in pysim."""

import itertools
import os
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator
from narrowgauge import catalog
from narrowgauge.golden import blockfloat
from narrowgauge.golden.words import counted
from narrowgauge.hw import verilog
from narrowgauge.sim import blockfloat as bench
from units import run, text_of

CONVERTER, FMAC = "bfp-converter", "bfp-fmac"
VALUES = {
    CONVERTER: {
        "group": [4, 5, 16, 31, 64], "mantissa": [2, 3, 4, 5, 6, 7, 8], "exponent": [3, 5, 8],
        "work": ["fp32", "fp16", "bf16"], "random_bits": [1, 3, 8, 11, 16], "corrected": [False, True],
        "seed": [0, 1, 77, 2**31 - 1],
    },
    FMAC: {
        "group": [4, 5, 16, 31, 64], "mantissa": [2, 3, 4, 5, 6, 7, 8], "exponent": [3, 5, 8],
        "accumulator": ["fp32", "bf16", "fp16"], "chunks": ["serial", "parallel"], "accumulators": [2, 4, 8, 16],
    },
}
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


def settings_of(unit, row):
    return dict(zip(VALUES[unit], row))


def cases(rows_of, quick=None):
    """Parametrise over (unit, parameters) of both units, by module name; rows not in `quick` are for the sweep."""
    found = []
    for unit in (CONVERTER, FMAC):
        for index, row in enumerate(rows_of(unit)):
            settings = row if isinstance(row, dict) else settings_of(unit, row)
            parameters = catalog.find(unit).configure(settings)
            marks = [pytest.mark.sweep] if quick is not None and index not in quick else []
            found.append(pytest.param(unit, parameters, id=catalog.find(unit).module_name(parameters), marks=marks))
    return pytest.mark.parametrize("unit, parameters", found)


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


ALL_FP16, SOME_FP16 = range(1, 31), [1, 30]
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


# In pysim, cycle by cycle.


class Harness:
    """One component in pysim with a reset of its own; every transfer and status bit of every cycle is kept.

    A script may, for a cycle number, return a dict with any of ``valid``, ``ready``, ``reset`` and ``clear``; what
    it leaves out is 1, 1, 0, 0. Payloads are offered in order, and again from the first after a reset.
    """

    def __init__(self, unit, parameters):
        self.component = component = catalog.find(unit).component(parameters)
        self.statuses = [name for name in ("invalid", "overflow") if name in component.signature.members]
        m = Module()
        m.domains.sync = self.domain = ClockDomain()
        m.submodules.dut = component
        self.simulator = Simulator(m)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._testbench)
        self.fresh = True

    def drive(self, payloads, script=lambda cycle: {}, cycles=None):
        """Run from the start until all is through, or for that many cycles; return self, the record."""
        self.payloads, self.script, self.cycles = payloads, script, cycles
        self.accepted, self.emitted, self.trace = [], [], []
        if not self.fresh:
            self.simulator.reset()
        self.fresh = False
        self.simulator.run()
        return self

    async def _testbench(self, ctx):
        component, payloads = self.component, self.payloads
        watched = [getattr(component, name) for name in self.statuses]
        watched += [component.i.valid, component.i.ready, component.o.valid, component.o.ready,
                    component.o.payload.as_value()]
        sent = quiet = cycle = 0
        while cycle < self.cycles if self.cycles is not None else quiet < 80:
            now = {"valid": 1, "ready": 1, "reset": 0, "clear": 0} | self.script(cycle)
            if sent < len(payloads):
                ctx.set(component.i.payload.as_value(), payloads[sent])
            ctx.set(component.i.valid, now["valid"] and sent < len(payloads))
            ctx.set(component.o.ready, now["ready"])
            ctx.set(component.status_clear, now["clear"])
            ctx.set(self.domain.rst, now["reset"])
            _, _, *statuses, offered, taken, valid, ready, payload = await ctx.tick().sample(*watched)
            self.trace.append(dict(zip(self.statuses, statuses)))
            quiet += 1
            if now["reset"]:
                sent = 0
            else:
                if offered and taken:
                    self.accepted.append(cycle)
                    sent, quiet = sent + 1, 0
                if valid and ready:
                    self.emitted.append((cycle, payload))
                    quiet = 0
            cycle += 1


def differences(values):
    return [after - before for before, after in zip(values, values[1:])]


TIMED = {
    CONVERTER: [{"group": 4}, {"group": 5, "work": "fp16"}, {"group": 16, "work": "bf16", "mantissa": 8},
                {"group": 33, "work": "fp16", "mantissa": 2, "random_bits": 1}],
    FMAC: [{"group": 4}, {"group": 4, "mantissa": 2}, {"group": 5, "mantissa": 3, "exponent": 5},
           {"group": 4, "mantissa": 8, "accumulator": "bf16"}, {"group": 4, "chunks": "parallel"},
           {"group": 9, "mantissa": 7, "chunks": "parallel", "accumulator": "fp16"},
           {"group": 4, "mantissa": 2, "chunks": "parallel"}],
}


def fmac_transfers(parameters, count, precisions, slot):
    """Transfers that all emit; every slot starts afresh at first."""
    rng = np.random.default_rng(count)
    pa, pb = (np.full(count, precision) for precision in precisions)
    qa, qb = (rng.integers(0, 1 << precision, (count, parameters.group)) for precision in precisions)
    slot = np.asarray(slot)
    first = np.array([k not in slot[:index] for index, k in enumerate(slot)])
    exponent = np.full(count, parameters.format.bias)
    return bench.fmac_vectors(parameters, exponent, qa, pa, exponent, qb, pb, slot, first, np.ones(count, bool))


@cases(TIMED.get)
def test_without_stalls_interval_and_latency_are_as_advertised(unit, parameters):
    component = catalog.find(unit).component(parameters)
    if unit == CONVERTER:
        vectors = catalog.find(unit).vectors(parameters, 50, seed=1, record=False)
    else:
        rotating = np.arange(50) % parameters.accumulators
        vectors = fmac_transfers(parameters, 50, (parameters.mantissa, parameters.mantissa), rotating)
    record = Harness(unit, parameters).drive(vectors.inputs)
    assert [payload for _, payload in record.emitted] == vectors.outputs
    assert [cycle for cycle, _ in record.emitted] == [cycle + component.latency for cycle in record.accepted]
    assert set(differences(record.accepted)) == {component.interval}


@cases(lambda unit: [] if unit == CONVERTER else [{"group": 4, "mantissa": m} for m in (4, 5, 8)])
def test_a_serial_transfer_takes_one_cycle_per_pass(unit, parameters):
    codes = range(2, parameters.mantissa + 1)
    precisions = list(itertools.product(codes, repeat=2))
    random.Random(5).shuffle(precisions)
    payloads, expected = [], []
    for index, precision in enumerate(precisions):
        vectors = fmac_transfers(parameters, 1, precision, [index % parameters.accumulators])
        payloads += vectors.inputs
        expected += vectors.outputs
    record = Harness(unit, parameters).drive(payloads)
    assert [payload for _, payload in record.emitted] == expected
    assert differences(record.accepted) == [blockfloat.passes(*each) for each in precisions[1:]]


@cases(lambda unit: [] if unit == CONVERTER else TIMED[unit])
def test_transfers_to_one_sum_follow_each_other_at_the_recurrence(unit, parameters):
    component = catalog.find(unit).component(parameters)
    # At the least precision, so that nothing but the sum is waited for.
    vectors = fmac_transfers(parameters, 40, (2, 2), np.full(40, 1))
    record = Harness(unit, parameters).drive(vectors.inputs)
    assert [payload for _, payload in record.emitted] == vectors.outputs
    assert set(differences([cycle for cycle, _ in record.emitted])) == {component.recurrence}
    # The pipeline first fills up; then acceptance goes at the same pace.
    assert set(differences(record.accepted[-10:])) == {component.recurrence}


# NUMERICS, section 3: x = 1.8125, -0.40625, 0.0390625, -1.0. By noise: the words of the four elements, or what
# goes without; the magnitudes at 4 and at 2 bits. The seeds are such that four of the 32 lanes first draw those words.
X = np.array([1.8125, -0.40625, 0.0390625, -1.0])


@pytest.mark.parametrize("words, seed, four, two", [
    pytest.param(None, 1, [14, 3, 0, 8], [3, 0, 0, 2], id="no-noise"),
    pytest.param([0x80, 0x80, 0x80, 0x80], 65652, [15, 3, 0, 8], [3, 1, 0, 2], id="noise-80"),
    pytest.param([0xFF, 0x01, 0xC8, 0x40], 14139, [15, 3, 1, 8], [3, 0, 0, 2], id="noise-ff-01-c8-40"),
])
def test_the_contract_vector(words, seed, four, two):
    parameters = catalog.find(CONVERTER).configure({"group": 32, "seed": seed, "work": "fp16"})
    drawn = counted(seed, 32, 0, 1).tolist()[0]
    lanes = []
    for word in words or drawn[:4]:
        lanes.append(next(lane for lane in range(32) if drawn[lane] == word and lane not in lanes))
    codes = np.zeros(32, int)
    codes[lanes] = parameters.work.encode(X)
    harness = Harness(CONVERTER, parameters)
    for precision, magnitudes in ((4, four), (2, two)):
        vectors = bench.converter_vectors(
            parameters, codes[np.newaxis], np.array([precision]), np.array([1 if words is None else 2]))
        (_, payload), = harness.drive(vectors.inputs).emitted
        elements = [payload >> (5 * lane) & 31 for lane in lanes]
        signed = [(element & 15) * (-1 if element >> 4 else 1) for element in elements]
        assert signed == [int(q * np.sign(x)) for q, x in zip(magnitudes, X)]
        assert payload >> (5 * 32) & 255 == 127
        assert payload >> (5 * 32 + 8) == precision
        assert [payload] == vectors.outputs


# Sticky statuses. Converter: fp16 work under a 4-bit exponent field, whose top exponent is 8.


def converter_case(*values):
    """A group between two harmless ones."""
    parameters = catalog.find(CONVERTER).configure({"group": 4, "exponent": 4, "work": "fp16"})
    codes = parameters.work.encode(np.array([(1, 2, 3, 4), values, (1, 2, 3, 4)], float))
    return parameters, bench.converter_vectors(parameters, codes, np.full(3, 4), np.full(3, 0)).inputs


def fmac_case(*steps):
    """Steps (magnitude of one product of two equal elements, sum of the exponents, first) to one fp16 sum."""
    parameters = catalog.find(FMAC).configure({"group": 4, "mantissa": 2, "accumulator": "fp16"})
    count, bias = len(steps), parameters.format.bias
    q = np.array([[abs(step[0]), 0, 0, 0] for step in steps])
    sign = np.array([[1 if step[0] >= 0 else -1] for step in steps])
    exponent = np.array([step[1] for step in steps])
    two, yes = np.full(count, 2), np.ones(count, bool)
    vectors = bench.fmac_vectors(parameters, exponent + bias, q * sign, two, np.full(count, bias), q, two,
                                 np.zeros(count, int), np.array([step[2] for step in steps]), yes)
    return parameters, vectors.inputs


# The name of the case, the unit, its transfers, the statuses that it sets. Product of two 2-bit elements q: q**2 / 4.
EVENTS = {
    "ordinary": (CONVERTER, lambda: converter_case(1, -2, 0.5, 100), []),
    "zeros": (CONVERTER, lambda: converter_case(0, 0, -0.0, 0), []),
    "largest-inside": (CONVERTER, lambda: converter_case(511.75, 1, 1, 1), []),
    "magnitude-saturates": (CONVERTER, lambda: converter_case(1.99, 1, 1, 1), []),
    "subnormal": (CONVERTER, lambda: converter_case(2.0**-24, 0, 0, 0), []),
    "above-the-field": (CONVERTER, lambda: converter_case(1, 1, 512, 1), ["overflow"]),
    "negative-above": (CONVERTER, lambda: converter_case(1, 1, 1, -60000), ["overflow"]),
    "infinity": (CONVERTER, lambda: converter_case(1, np.inf, 1, 1), ["overflow"]),
    "nan": (CONVERTER, lambda: converter_case(1, np.nan, 1, 1), ["invalid", "overflow"]),
    "ordinary-sum": (FMAC, lambda: fmac_case((3, 0, 1), (-3, 0, 0), (2, 14, 0)), []),
    "underflow": (FMAC, lambda: fmac_case((1, -60, 1), (-1, -90, 0)), []),
    "sum-overflows": (FMAC, lambda: fmac_case((2, 15, 1), (2, 15, 0)), ["overflow"]),
    "first-overflows": (FMAC, lambda: fmac_case((2, 100, 1), (2, 0, 1)), ["overflow"]),
    "negative-overflows": (FMAC, lambda: fmac_case((-2, 15, 1), (-2, 15, 0)), ["overflow"]),
}


def finals(record):
    return [name for name in record.statuses if record.trace[-1][name]]


@pytest.mark.parametrize("event", EVENTS)
def test_the_right_event_and_no_other_sets_a_status_which_is_held(event):
    unit, make, expected = EVENTS[event]
    parameters, payloads = make()
    record = Harness(unit, parameters).drive(payloads)
    assert finals(record) == expected
    for name in record.statuses:
        history = [each[name] for each in record.trace]
        assert history == sorted(history)  # once set, held
        assert history[0] == 0


@pytest.mark.parametrize("event", ["nan", "above-the-field", "first-overflows"])
def test_what_is_not_offered_sets_nothing(event):
    unit, make, _ = EVENTS[event]
    parameters, payloads = make()
    # The event's payload lies at the port for 60 cycles, without valid.
    payloads = payloads[1:] if unit == CONVERTER else payloads
    record = Harness(unit, parameters).drive(payloads, lambda cycle: {"valid": 0}, cycles=60)
    assert finals(record) == []
    assert record.emitted == []


@pytest.mark.parametrize("event", ["nan", "above-the-field", "sum-overflows"])
def test_a_clear_clears_what_was_set_before_it_and_loses_to_what_is_set_with_it(event):
    unit, make, expected = EVENTS[event]
    parameters, payloads = make()
    harness = Harness(unit, parameters)
    history = [each[expected[0]] for each in harness.drive(payloads).trace]
    risen = history.index(1)
    for cycle in range(risen - 2, risen + 3):
        record = harness.drive(payloads, lambda now, cycle=cycle: {"clear": now == cycle})
        # The edge after cycle `risen - 1` sets the status: a clear at that very edge loses.
        assert finals(record) == (expected if cycle < risen else []), f"clear in cycle {cycle}, event in {risen - 1}"


@pytest.mark.parametrize("stalled", [0, 60], ids=["flowing", "stalled"])
@pytest.mark.parametrize("event", ["nan", "above-the-field", "sum-overflows", "first-overflows"])
def test_an_event_sets_its_status_once_whatever_the_stalls(event, stalled):
    unit, make, expected = EVENTS[event]
    parameters, payloads = make()
    record = Harness(unit, parameters).drive(payloads, lambda cycle: {"clear": 1, "ready": cycle >= stalled})
    assert len(record.emitted) == len(payloads)
    for name in expected:
        assert sum(each[name] for each in record.trace) == 1


def test_a_sum_that_stays_infinite_sets_nothing_again():
    parameters, payloads = fmac_case((2, 100, 1), (2, 100, 0), (-2, 100, 0), (1, 0, 0))
    harness = Harness(FMAC, parameters)
    risen = [each["overflow"] for each in harness.drive(payloads).trace].index(1)
    record = harness.drive(payloads, lambda cycle: {"clear": cycle == risen})
    assert len(record.emitted) == 4
    assert finals(record) == []


# Reset.


@cases(lambda unit: [{"group": 4}, {"group": 5, "work": "fp16", "corrected": True, "random_bits": 11}]
       if unit == CONVERTER else [{"group": 4}, {"group": 5, "mantissa": 8}, {"group": 4, "chunks": "parallel"}])
def test_a_reset_at_any_moment_restores_the_start(unit, parameters):
    if unit == CONVERTER:
        vectors = bench.converter_vectors(parameters, *bench.converter_random(parameters, 40, seed=3))
    else:  # every sum comes out, so that none is made good by a later one
        *transfers, _ = bench.fmac_random(parameters, 40, seed=3)
        vectors = bench.fmac_vectors(parameters, *transfers, np.ones(40, bool))
    harness = Harness(unit, parameters)
    whole = [payload for _, payload in harness.drive(vectors.inputs).emitted]
    assert whole == vectors.outputs
    dice = random.Random(7)
    for stop in (1, 2, 7, 8, 13, 24, 37, 58):
        ready = [dice.random() < 0.7 for _ in range(stop + 1)]
        record = harness.drive(vectors.inputs, lambda cycle, stop=stop, ready=ready: {
            "ready": cycle > stop or ready[cycle], "reset": cycle == stop})
        after = [payload for cycle, payload in record.emitted if cycle > stop]
        assert after == vectors.outputs, f"reset in cycle {stop}"
        accepted = [cycle for cycle in record.accepted if cycle > stop]
        assert min(cycle for cycle, _ in record.emitted if cycle > stop) >= (
            accepted[int(vectors.origin[0])] + harness.component.latency)


def test_a_reset_clears_the_statuses():
    for event in ("nan", "sum-overflows"):
        unit, make, expected = EVENTS[event]
        parameters, payloads = make()
        harness = Harness(unit, parameters)
        risen = [each[expected[0]] for each in harness.drive(payloads).trace].index(1)
        record = harness.drive(payloads, lambda cycle, risen=risen: {"reset": cycle == risen + 3}, cycles=risen + 8)
        assert record.trace[risen + 2][expected[0]] == 1
        assert not any(record.trace[risen + 4].values())


# The Verilog itself.


SAMPLES = {
    CONVERTER: [{}, {"group": 5, "mantissa": 3, "exponent": 5, "work": "fp16", "corrected": True},
                {"group": 4, "work": {"type": "Float", "exponent": 5, "mantissa": 2}, "seed": 12}],
    FMAC: [{}, {"group": 5, "mantissa": 3, "exponent": 5, "accumulator": "bf16", "chunks": "parallel"},
           {"group": 4, "mantissa": 2, "accumulator": {"type": "Float", "exponent": 5, "mantissa": 2, "bias": -4}}],
}


def words(text):
    return set(text.split())


VERILOG_2005 = words("""
    always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default defparam
    design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive endspecify endtable
    endtask event for force forever fork function generate genvar highz0 highz1 if ifnone incdir include initial inout
    input instance integer join large liblist library localparam macromodule medium module nand negedge nmos nor
    noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1 pulldown pullup
    pulsestyle_ondetect pulsestyle_onevent rcmos real realtime reg release repeat rnmos rpmos rtran rtranif0 rtranif1
    scalared showcancelled signed small specify specparam strong0 strong1 supply0 supply1 table task time tran tranif0
    tranif1 tri tri0 tri1 triand trior trireg unsigned use uwire vectored wait wand weak0 weak1 while wire wor xnor xor
""")
SYSTEMVERILOG = words("""
    accept_on alias always_comb always_ff always_latch assert assume before bind bins binsof bit break byte chandle
    checker class clocking const constraint context continue cover covergroup coverpoint cross dist do endchecker
    endclass endclocking endgroup endinterface endpackage endprogram endproperty endsequence enum eventually expect
    export extends extern final first_match foreach forkjoin global iff ignore_bins illegal_bins implements implies
    import inside int interconnect interface intersect join_any join_none let local logic longint matches modport
    nettype new nexttime null package packed priority program property protected pure rand randc randcase randsequence
    ref reject_on restrict return s_always s_eventually s_nexttime s_until s_until_with sequence shortint shortreal
    soft solve static string strong struct super sync_accept_on sync_reject_on tagged this throughout timeprecision
    timeunit type typedef union unique unique0 until until_with untyped var virtual void wait_order weak wildcard with
    within
""")


def code_of(text):
    """The text without comments, strings, attributes and escaped identifiers."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|\(\* .*? \*\)|"[^"\n]*"|\\\S+', " ", text, flags=re.S)


@cases(SAMPLES.get)
def test_the_text_keeps_to_the_keywords_of_verilog_2005_and_clear_of_those_of_systemverilog(unit, parameters):
    code = code_of(text_of(unit, parameters))
    code = re.sub(r"\d*'s?[bodh][0-9a-fxz_]+", " ", code)
    used = set(re.findall(r"(?<![\w$])[A-Za-z_][\w$]*", code))
    declared = set()
    for line in re.findall(r"\b(?:input|output|wire|reg|integer)\b([^;]*);", code):
        declared.update(re.findall(r"(?<![\w$])[A-Za-z_][\w$]*", line.split("=")[0]))
    modules = set(re.findall(r"\bmodule\s+([A-Za-z_]\w*)", code))
    instances = set(re.findall(r"^\s+(?:\w+ )?([A-Za-z_]\w*)\s*\($", code, flags=re.M))
    ports = set(re.findall(r"\.([A-Za-z_]\w*)\(", code))
    assert used - VERILOG_2005 <= declared | modules | instances | ports
    assert not used & SYSTEMVERILOG
    assert set(re.findall(r"\$[a-z]+\b(?=\()", code)) <= {"$signed", "$unsigned"}


@cases(SAMPLES.get)
def test_the_text_tells_nothing_of_the_source(unit, parameters):
    text = text_of(unit, parameters)
    # Attributes: of cases that list every value anyway, and of wires that a register with that value drives.
    assert set(re.findall(r"\(\*(?!\)) *(\w*)", text)) <= {"full_case", "init"}
    for word in (os.getcwd(), os.path.expanduser("~") + "/", sys.prefix, "site-packages", ".py"):
        assert word not in text
    assert not re.search(r"(?:/[\w.-]+){2,}", code_of(text))


@cases(SAMPLES.get)
def test_the_ports_are_those_of_the_contract(unit, parameters):
    text = text_of(unit, parameters)
    name = catalog.find(unit).module_name(parameters)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    head, body = re.search(rf"^module {name}\((.*?)\);(.*?)^endmodule", text, flags=re.S | re.M).groups()
    status = ["invalid", "overflow"] if unit == CONVERTER else ["overflow"]
    expected = ["clk", "rst", "i_payload", "i_valid", "i_ready", "o_payload", "o_valid", "o_ready", "status_clear"]
    assert sorted(head.split(", ")) == sorted(expected + status)
    found = {}
    for direction, high, port in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, flags=re.M):
        found[port] = (direction.removesuffix("put"), int(high or 0) + 1)
    p, outs = parameters, {"i_ready", "o_payload", "o_valid", *status}
    group = p.group * (p.mantissa + 1) + p.exponent + p.mantissa.bit_length()
    if unit == CONVERTER:
        widths = {"i_payload": p.group * p.work.width + p.mantissa.bit_length() + 2, "o_payload": group}
    else:
        slot = (p.accumulators - 1).bit_length()
        widths = {"i_payload": 2 * group + slot + 2, "o_payload": p.accumulator.width + slot}
    assert found == {port: ("out" if port in outs else "in", widths.get(port, 1)) for port in expected + status}
    listed = verilog.ports_of(catalog.find(unit).component(parameters))
    assert {port: (direction, width) for port, direction, width in listed} == found
    for port, (direction, width) in found.items():
        assert re.search(rf"^//   {port}  {direction} {width}\b", text, flags=re.M), f"{port} is not in the header"


@pytest.mark.parametrize("unit", [CONVERTER, FMAC])
def test_the_bytes_do_not_depend_on_the_hash_seed(unit, tmp_path):
    texts = []
    for seed in ("0", "4711"):
        command = [sys.executable, "-m", "narrowgauge", "generate", unit, "--set", "group=5", "--set", "mantissa=3"]
        found = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True,
                               check=True)
        texts.append(found.stdout)
    assert texts[0] == texts[1]
    parameters = catalog.find(unit).configure({"group": 5, "mantissa": 3})
    assert texts[0].decode() == text_of(unit, parameters)


def formats(*, least):
    """Presets and others, among them some that differ in one field only."""
    yield from ("fp32", "fp16", "bf16", "fp8-e5m2")
    for exponent, mantissa, bias, overflow in itertools.product((5, 6), (least, 10), (-3, 3, None),
                                                                ("infinity", "saturate")):
        data = {"type": "Float", "exponent": exponent, "mantissa": mantissa, "overflow": overflow}
        yield data if bias is None else data | {"bias": bias}


@pytest.mark.parametrize("unit", [CONVERTER, FMAC])
def test_different_parameters_have_different_module_names(unit):
    values = dict(VALUES[unit])
    if unit == CONVERTER:
        values |= {"work": list(formats(least=1)), "random_bits": [1, 8, 16], "seed": [0, 1, 2**31 - 1]}
    else:
        values["accumulator"] = [each for each in formats(least=2)
                                 if isinstance(each, str) or each["overflow"] == "infinity"]
    values |= {"group": [4, 16, 64], "mantissa": [2, 4, 8]}
    entry = catalog.find(unit)
    names = {}
    for row in itertools.product(*values.values()):
        parameters = entry.configure(dict(zip(values, row)))
        name = entry.module_name(parameters)
        assert names.setdefault(name, parameters) == parameters, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert len(names) > 1000
