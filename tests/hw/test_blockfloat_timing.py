# amaranth: UnusedElaboratable=no
"""The block-floating-point units in pysim: timing, status, resets."""

import itertools
import random

import numpy as np
import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator
from bfp_units import CONVERTER, FMAC, cases
from narrowgauge import catalog
from narrowgauge.golden import blockfloat
from narrowgauge.golden.words import counted
from narrowgauge.sim import blockfloat as bench

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
