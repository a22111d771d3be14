# amaranth: UnusedElaboratable=no
"""SGD's update: its Verilog against golden, under stalls, its timing, random words and statuses.

That the pipelined unit is the sequence of rounded operations is proved in test_update_proofs.py.
"""

import itertools
import re

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.sim import Simulator
from narrowgauge import catalog
from narrowgauge.golden import update
from narrowgauge.golden.update import METHODS
from narrowgauge.hw import verilog
from narrowgauge.hw.unit import StreamUnit
from narrowgauge.hw.update import ADDER, SCALER, SGDUpdate
from narrowgauge.sim import update as bench
from narrowgauge.sim.vectors import Vectors, pack
from units import cases, outcome_of, run

UNIT = catalog.find("sgd-update")


def ieee(exponent, mantissa):
    return {"type": "Float", "exponent": exponent, "mantissa": mantissa}


# Every parameter at its ends and between them; formats of few exponents and of many, of short significands and long.
COVER = [
    {},
    {"format": "fp8-e5m2", "schedule": "shared", "grow": True, "random_bits": 3, "seed": 7},
    {"format": ieee(4, 2), "grow": True, "rates": "powers", "random_bits": 3},
    {"format": "bf16", "schedule": "shared", "random_bits": 16},
    {"format": "bf16", "grow": True, "multiplier": "lut", "seed": 2**31 - 1},
    {"format": "fp16", "random_bits": 12},
    {"format": "fp16", "schedule": "shared", "grow": True, "rates": "powers"},
    {"format": "fp32", "grow": True},
    {"format": "fp32", "schedule": "shared", "multiplier": "lut", "random_bits": 16, "seed": 0},
    {"format": ieee(6, 9), "rates": "powers", "random_bits": 1},
    {"format": ieee(6, 9), "schedule": "shared", "grow": True, "random_bits": 2},
    {"format": ieee(2, 2), "schedule": "shared", "rates": "powers", "random_bits": 16},
    {"format": ieee(2, 12), "grow": True, "random_bits": 7},
    {"format": ieee(11, 3), "schedule": "shared", "grow": True, "multiplier": "lut"},
    {"format": "fp8-e5m2", "random_bits": 16},
    {"format": "fp8-e5m2", "random_bits": 3, "compensated": False},
    {"format": ieee(4, 2), "schedule": "shared", "seed": 9, "compensated": False},
    {"format": "fp16", "rates": "powers", "compensated": False, "decays": False},
    {"format": "bf16", "schedule": "shared", "rates": "powers", "multiplier": "lut", "compensated": False},
    {"format": "fp32", "compensated": False},
    {"format": "bf16", "schedule": "shared", "grow": True, "decays": False},
    {"format": "bf16", "decays": False},
    {"format": ieee(2, 2), "random_bits": 1, "compensated": False},
]
SHARED, PIPELINED = COVER[1], COVER[2]
BARE, BARE_SHARED = COVER[15], COVER[16]


def cycles_of(parameters, method):
    """Cycles that a shared unit takes for a transfer: those of each operation, and one to choose its operands in."""
    index = method if parameters.grow or method < 3 else 2
    sums = {"plain": 3, "stochastic": 3, "kahan": 6, "grow": 9}[METHODS[index]]
    return 3 * (SCALER + 1) + sums * (ADDER + 1) + 1


def check(parameters, count=3000, seed=11):
    """Random and directed transfers: in full flow, whose timing is known, and under random stalls."""
    component = UNIT.component(parameters)
    if parameters.schedule == "shared":
        count //= 6
    vectors = UNIT.vectors(parameters, count, seed=seed, record=False)
    assert run(UNIT, parameters, vectors, seed=12).vectors == count
    outcome = run(UNIT, parameters, vectors, idle=0, busy=0)
    # Besides the transfers' own, only the way through, the bench's watch and its start.
    assert outcome.latency == component.latency and outcome.cycles <= (
        count * component.interval + outcome.latency + 55)


@cases(UNIT, COVER, quick=[2, 15, 16])
def test_every_code_and_status_is_golden(parameters):
    check(parameters)


def test_ten_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them():
    parameters = UNIT.configure({})
    vectors = UNIT.vectors(parameters, 10_000, seed=31)
    assert run(UNIT, parameters, vectors, seed=32).vectors == 10_000
    outcome = run(UNIT, parameters, UNIT.vectors(parameters, 2000, seed=35), idle=0, busy=0)
    assert outcome.latency == UNIT.component(parameters).latency == 45 and outcome.cycles <= 2000 + 45 + 55


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(16))
def test_settings_drawn_at_random_are_golden(seed):
    rng = np.random.default_rng(seed)
    exponent, methods = int(rng.integers(2, 10)), int(rng.integers(3))
    check(UNIT.configure({
        "format": ieee(exponent, int(rng.integers(2, min(24, 31 - exponent) + 1))),
        "schedule": ["pipelined", "shared"][seed % 2], "grow": methods == 2, "compensated": methods > 0, "seed": seed,
        "rates": ["float", "powers"][int(rng.integers(2))], "random_bits": int(rng.integers(1, 17)),
        "multiplier": ["dsp", "lut"][int(rng.integers(2))]}), count=6000)


@pytest.mark.sweep
@pytest.mark.parametrize("settings", [{}, {"grow": True}, {"format": "fp16", "grow": True}], ids=str)
def test_a_hundred_thousand_transfers_are_golden(settings):
    parameters = UNIT.configure(settings)
    run(UNIT, parameters, UNIT.vectors(parameters, 100_000, seed=33), seed=34)


@pytest.mark.parametrize("settings", [PIPELINED, SHARED], ids=["pipelined", "shared"])
@pytest.mark.parametrize("idle, busy", [(0, 0.9), pytest.param(0.9, 0, marks=pytest.mark.sweep), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(settings, idle, busy):
    parameters = UNIT.configure(settings)
    run(UNIT, parameters, UNIT.vectors(parameters, 300, seed=41, record=False), idle=idle, busy=busy, seed=42)


def numbers(parameters, method, count=200, seed=5):
    """Return transfers of one method, of usual numbers with a decay, so that each does all of its operations."""
    rng, fmt = np.random.default_rng(seed), parameters.format
    w, v, c, g = (fmt.encode(rng.normal(size=count) * scale).astype(np.int64) for scale in (1, 1, 0.01, 1))
    rates = [np.full(count, parameters.rate(value)) for value in (0.125, 0.5, 0.25)]
    return [w, v, c, g, np.full(count, method), *rates]


@pytest.mark.parametrize("method", [
    pytest.param(index, id=name, marks=[pytest.mark.sweep] if name == "stochastic" else [])
    for index, name in enumerate(METHODS)])
@pytest.mark.parametrize("grow", [True, pytest.param(False, marks=pytest.mark.sweep)])
def test_a_shared_unit_takes_the_cycles_of_its_operations(grow, method):
    parameters = UNIT.configure(SHARED | {"grow": grow})
    component = UNIT.component(parameters)
    outcomes = []
    for count in (100, 200):
        vectors = bench.update_vectors(parameters, *numbers(parameters, method, count))
        outcomes.append(run(UNIT, parameters, vectors, idle=0, busy=0))
    # What a hundred transfers more take; the result is handed over while the next one begins.
    each = cycles_of(parameters, method)
    assert (outcomes[1].cycles - outcomes[0].cycles) % 100 == 0
    assert (outcomes[1].cycles - outcomes[0].cycles) // 100 - each in (0, 1)
    assert each <= component.interval and outcomes[0].latency == component.latency == 1
    if method == 3:
        assert each == component.interval


@pytest.mark.parametrize("method", ["plain", pytest.param("stochastic", marks=pytest.mark.sweep)])
def test_a_shared_unit_without_compensation_always_takes_the_same_cycles(method):
    parameters = UNIT.configure(BARE_SHARED)
    component = UNIT.component(parameters)
    assert component.interval == 37 == cycles_of(parameters, METHODS.index(method)) and component.latency == 1
    arrays = [numbers(parameters, METHODS.index(method), count) for count in (100, 200)]
    cycles = [run(UNIT, parameters, bench.update_vectors(parameters, *each), idle=0, busy=0).cycles for each in arrays]
    assert (cycles[1] - cycles[0]) % 100 == 0 and (cycles[1] - cycles[0]) // 100 - 37 in (0, 1)


def test_a_unit_without_compensation_is_shorter_and_has_no_compensation():
    parameters = UNIT.configure(BARE)
    component = UNIT.component(parameters)
    assert (component.latency, component.interval) == (27, 1) == (2 * SCALER + 3 * ADDER + 1, 1)
    vectors = UNIT.vectors(parameters, 1000, seed=51, record=False)
    assert run(UNIT, parameters, vectors, idle=0, busy=0).latency == 27
    assert "compensation" not in UNIT.verilog(parameters).replace('"compensated": false', "").split("ports:")[1]
    assert [len(stream.payload.as_value()) for stream in (component.i, component.o)] == [8 * 3 + 1 + 3 * 6, 16]


def test_different_parameters_have_different_module_names():
    values = {"format": ["bf16", "fp16", ieee(6, 9), ieee(9, 6)], "schedule": ["pipelined", "shared"],
              "grow": [False, True], "rates": ["float", "powers"], "random_bits": [1, 8, 16], "seed": [0, 1, 16],
              "multiplier": ["dsp", "lut"], "compensated": [True, False]}
    rows = [dict(zip(values, each)) for each in itertools.product(*values.values())]
    rows = [row for row in rows if row["compensated"] or not row["grow"]]
    names = {UNIT.module_name(UNIT.configure(row)) for row in rows}
    assert len(names) == len(rows) == 4 * 2 * 3 * 2 * 3 * 3 * 2
    assert all(name.isidentifier() for name in names)


# Random words and statuses.


FIELDS = ("weight", "velocity", "compensation", "gradient", "method", "lr", "momentum", "decay")


class WithWords(StreamUnit):
    """The unit with a port for its random words, under a stream that has them beside the transfers.

    With `told`, {field: code}, the unit has these fields from there: they are held, whatever the stream has.
    """

    def __init__(self, parameters, late=0, told=None):
        self.unit, self.parameters = SGDUpdate(parameters, addressed=True, held=told is not None), parameters
        self.told = told or {}
        self.behind, self.text = self.unit.words_behind + late, self.unit.text
        payloads = [{name: len(Value.cast(payload[name])) for name in payload.shape().members}
                    for payload in (self.unit.i.payload, self.unit.o.payload)]
        super().__init__(payloads[0] | {"word": parameters.random_bits}, payloads[1])

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        word = self.i.payload.word
        for index in range(self.behind):
            before, word = word, Signal(self.parameters.random_bits, name=f"word{index}")
            with m.If(unit.i.ready):
                m.d.sync += word.eq(before)
        bits = len(unit.i.payload.as_value())
        m.d.comb += [
            unit.i.payload.as_value().eq(self.i.payload.as_value()[:bits]), unit.i.valid.eq(self.i.valid),
            self.i.ready.eq(unit.i.ready), unit.words.eq(word), self.o.payload.eq(unit.o.payload),
            self.o.valid.eq(unit.o.valid), unit.o.ready.eq(self.o.ready), unit.status_clear.eq(self.status_clear),
            Cat(self.invalid, self.overflow).eq(Cat(unit.invalid, unit.overflow)),
        ]
        m.d.comb += [unit.i.payload[name].eq(code) for name, code in self.told.items()]
        return m


def with_words(parameters, count, seed, told=()):
    """Return Vectors of `WithWords`: each transfer has a word of its own."""
    arrays = list(bench.update_random(parameters, count, seed))
    for name in told:
        arrays[FIELDS.index(name)][:] = told[name]
    words = np.random.default_rng(seed).integers(0, 1 << parameters.random_bits, count)
    vectors = bench.update_vectors(parameters, *arrays)
    bits = 4 if parameters.compensated else 3
    bits = bits * parameters.format.width + parameters.method_bits + (2 + parameters.decays) * parameters.rate_bits
    *found, invalid, overflow = update.updates(parameters, *arrays, random=words)
    outputs = pack(*((each, parameters.format.width) for each in found[:3 if parameters.compensated else 2]))
    assert told or outputs != vectors.outputs  # those of counted words
    return Vectors([each | int(word) << bits for each, word in zip(vectors.inputs, words)], outputs, range(count),
                   {"invalid": int(invalid.any()), "overflow": int(overflow.any())})


@pytest.mark.parametrize("settings, behind", [
    pytest.param(BARE, 2 * SCALER + 3 * ADDER - 1, id="bare"),
    pytest.param({"format": "bf16", "compensated": False}, 25, id="bf16", marks=pytest.mark.sweep),
    pytest.param({"format": ieee(4, 2)}, 31, id="kahan", marks=pytest.mark.sweep),
    pytest.param(PIPELINED, 49, id="grow", marks=pytest.mark.sweep)])
def test_words_from_a_port_are_taken_so_many_cycles_behind_their_transfers(settings, behind):
    parameters = UNIT.configure(settings)
    component, vectors = WithWords(parameters), with_words(parameters, 1500, 61)
    assert component.behind == behind
    for stalls in ({"idle": 0, "busy": 0}, {"idle": 0.3, "busy": 0.4, "seed": 62}):
        assert outcome_of(component, "with_words", vectors, **stalls).mismatches == 0
    # Control: the words are the neighbour's.
    assert outcome_of(WithWords(parameters, late=1), "with_words", vectors, idle=0, busy=0).mismatches > 20


@pytest.mark.parametrize("settings, method", [
    pytest.param(BARE, 1, id="bare"), pytest.param(BARE, 0, id="bare-plain", marks=pytest.mark.sweep),
    pytest.param(PIPELINED, 3, id="grow", marks=pytest.mark.sweep),
    pytest.param({"format": "bf16"}, 2, id="kahan", marks=pytest.mark.sweep)])
def test_a_unit_whose_method_and_rates_are_held_does_without_registers_for_them(settings, method):
    parameters = UNIT.configure(settings)
    told = {"method": method, "lr": parameters.rate(0.25), "momentum": parameters.rate(0.5),
            "decay": parameters.rate(0.125)}
    component, vectors = WithWords(parameters, told=told), with_words(parameters, 1500, 63, told)
    # The stream has other codes of them.
    shift = sum(parameters.format.width for name in FIELDS[:4] if name in component.unit.i.payload.shape().members)
    others = (1 << parameters.method_bits + (2 + parameters.decays) * parameters.rate_bits) - 1 << shift
    vectors.inputs = [each ^ others for each in vectors.inputs]
    for stalls in ({"idle": 0, "busy": 0}, {"idle": 0.3, "busy": 0.4, "seed": 64}):
        assert outcome_of(component, "with_words", vectors, **stalls).mismatches == 0
    texts = [verilog.emit(SGDUpdate(parameters, held=held), "unit") for held in (False, True)]
    assert "product0_lr" in texts[0] and not re.search(r"\w+\d_(lr|method)\b", texts[1])


def test_a_shared_unit_has_no_port_for_words():
    with pytest.raises(ValueError, match="^schedule is 'shared'; allowed: pipelined, for random words from a port$"):
        SGDUpdate(UNIT.configure(SHARED), addressed=True)
    SGDUpdate(UNIT.configure(SHARED), held=True)  # it takes each payload as it is, so nothing changes


@pytest.mark.parametrize("settings", [PIPELINED, SHARED, BARE], ids=["pipelined", "shared", "bare"])
def test_stochastic_transfers_draw_a_word_each_and_no_others_do(settings):
    parameters, count = UNIT.configure(settings), 400
    fmt = parameters.format
    arrays = numbers(parameters, 1, count)
    # 2**-mantissa / 8 off 1, a quarter of a unit: where it goes, depends on the word alone.
    one = int(fmt.encode(1.0))
    arrays[0][:], arrays[1][:], arrays[2][:] = one, 0, 0
    arrays[3][:] = fmt.encode(2.0**-fmt.mantissa)
    arrays[7][:] = 0
    # Others now and then, of which the units could also draw.
    arrays[4][::3], arrays[4][1::7] = 0, 3 if parameters.compensated else 0
    drawn = arrays[4] == 1
    new = update.updates(parameters, *arrays)[0]
    assert len(np.unique(new[drawn])) == 2 and len(np.unique(new[drawn][:30])) == 2
    vectors = bench.update_vectors(parameters, *arrays)
    run(UNIT, parameters, vectors, idle=0, busy=0)
    run(UNIT, parameters, vectors, idle=0.3, busy=0.8, seed=4)


@pytest.mark.parametrize("settings, quick", [
    pytest.param(PIPELINED, False, id="pipelined", marks=pytest.mark.sweep), pytest.param(SHARED, True, id="shared"),
    pytest.param(SHARED, False, id="shared-all", marks=pytest.mark.sweep)])
def test_the_statuses_tell_nan_from_inf_in_each_result(settings, quick):
    parameters = UNIT.configure(settings)
    fmt = parameters.format
    inf, nan, greatest = fmt.inf_code, fmt.nan_code, fmt.max_code
    minus = 1 << (fmt.width - 1)
    # What one transfer has in place of the usual (weight, velocity, compensation, gradient), its method, the statuses.
    rows = [
        ({0: inf}, 0, (0, 1)),
        # The compensation alone is NaN; without a method that has one, it is not looked at.
        ({2: nan}, 2, (1, 0)), ({2: nan}, 0, (0, 0)),
        # A velocity that overflows, of finite numbers.
        ({1: greatest, 3: greatest}, 0, (0, 1)),
        # Numbers as large, and as many Infs, that do no harm or more than that.
        ({0: greatest | minus, 1: 0, 3: 0}, 0, (0, 0)), ({}, 2, (0, 0)), ({0: nan}, 1, (1, 0)),
        ({1: inf | minus}, 0, (0, 1)), ({3: inf + 1}, 0, (1, 0)), ({1: inf, 3: inf | minus}, 0, (1, 0)),
        ({2: inf}, 1, (0, 0)), ({0: inf}, 2, (1, 0)),
    ]
    for changes, method, status in rows[:4] if quick else rows:
        arrays = numbers(parameters, 2, 20)
        arrays[7][:] = 0
        for place, code in changes.items():
            arrays[place][9] = code
        arrays[4][9] = method
        vectors = bench.update_vectors(parameters, *arrays)
        assert vectors.status == dict(zip(("invalid", "overflow"), status)), (changes, method)
        run(UNIT, parameters, vectors, idle=0.1, busy=0.1)


@pytest.mark.parametrize("settings", [PIPELINED, SHARED], ids=["pipelined", "shared"])
def test_a_status_stays_until_it_is_cleared(settings):
    parameters = UNIT.configure(settings | {"format": ieee(2, 2)})
    component, fmt = UNIT.component(parameters), parameters.format

    async def testbench(ctx):
        ctx.set(component.o.ready, 1)
        ctx.set(component.i.payload.lr, parameters.rate(1.0))  # nought times Inf were NaN
        # NaN, Inf, and then numbers, which set nothing.
        for gradient, status in ((fmt.nan_code, (1, 0)), (fmt.inf_code, (0, 1)), (fmt.encode(1.0), (0, 0))):
            ctx.set(component.i.payload.gradient, int(gradient))
            ctx.set(component.i.valid, 1)
            while not ctx.get(component.i.ready):
                await ctx.tick()
            await ctx.tick()
            ctx.set(component.i.valid, 0)
            for _ in range(component.latency + 3):
                await ctx.tick()
            for _ in range(3):
                assert (ctx.get(component.invalid), ctx.get(component.overflow)) == status
                await ctx.tick()
            ctx.set(component.status_clear, 1)
            await ctx.tick()
            ctx.set(component.status_clear, 0)
            assert (ctx.get(component.invalid), ctx.get(component.overflow)) == (0, 0)

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
