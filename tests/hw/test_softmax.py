# amaranth: UnusedElaboratable=no
"""The softmax head: its Verilog against golden, under stalls, its timing and its statuses."""

import dataclasses
import itertools

import numpy as np
import pytest
from amaranth import Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from narrowgauge import catalog
from narrowgauge.golden import softmax
from narrowgauge.hw import verilog
from narrowgauge.hw.softmax import SoftmaxGrad
from narrowgauge.hw.words import CountedWords
from narrowgauge.sim import softmax as bench
from units import cases, run, run_component

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
    assert UNIT.component(parameters).latency == 39 and UNIT.component(parameters).interval == 11
    rows = run(UNIT, parameters, full_rows(parameters, 100), idle=0, busy=0)
    assert rows.latency == 39 and 0 <= rows.cycles - 100 * 11 <= 50


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


# Rows in a stream.


def rows_of(parameters, sizes, voids=(), seed=6):
    """Return Vectors of rows of some sizes, each with its ``last``; `voids` are rows with a NaN."""
    rng, ends = np.random.default_rng(seed), np.cumsum(sizes)
    logits = parameters.format.encode(rng.standard_normal(ends[-1]) * 3).astype(np.int64)
    targets, lasts = np.zeros((2, ends[-1]), np.int64)
    targets[ends - 1 - rng.integers(0, sizes)] = lasts[ends - 1] = 1
    for row in voids:
        logits[ends[row] - 1 - rng.integers(0, sizes[row])] = parameters.format.nan_code
    return bench.grad_vectors(parameters, logits, targets, lasts)


def gaps_of(outcome):
    """Return the cycles from each row's last logit to that of the next row."""
    return np.diff([start for start, _ in outcome.spans.values()]).tolist()


@pytest.mark.parametrize("settings, sizes", [({}, range(1, 11)), (COVER[2], (1, 2, 15, 32, 33))], ids=["10", "33"])
def test_a_row_takes_a_cycle_for_each_class_and_one_more(settings, sizes):
    parameters = UNIT.configure(settings)
    for size in sizes:
        gaps = gaps_of(run(UNIT, parameters, rows_of(parameters, [size] * 40), idle=0, busy=0))
        assert gaps == [size + 1] * 39 and (size > 10 or max(gaps) <= 16)


def test_rows_of_all_lengths_follow_each_other():
    parameters = UNIT.configure({})
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 11, 300)
    vectors = rows_of(parameters, sizes, voids=rng.choice(300, 60, replace=False))
    gaps = gaps_of(run(UNIT, parameters, vectors, idle=0, busy=0))
    # A row is scanned as soon as it is there and the row before is scanned; meanwhile, the next one comes in.
    wait, wanted = 0, []
    for before, size in zip(sizes, sizes[1:]):
        wanted.append(wait + 1 + size)
        wait = max(before - size, 0)
    assert gaps == wanted
    for idle, busy in ((0.3, 0.3), (0, 0.9), (0.9, 0)):
        run(UNIT, parameters, vectors, idle=idle, busy=busy, seed=8)


@pytest.mark.parametrize("settings", [{}, COVER[2]], ids=["10", "33"])
def test_as_many_rows_wait_for_a_busy_output_as_there_is_room_for(settings):
    parameters = UNIT.configure(settings)
    most = parameters.classes
    for sizes in ([1] * 200, [most] * 20, [most, *[1] * 40] * 4, [2, 1, most, most, 1] * 12):
        vectors = rows_of(parameters, np.array(sizes), voids=range(0, len(sizes), 7))
        run(UNIT, parameters, vectors, idle=0, busy=0.95)


class Outer(wiring.Component):
    """The unit in another component, whose input has one field more."""

    def __init__(self, unit, **more):
        self.unit, self.text = unit, unit.text
        fields = {name: field.shape for name, field in unit.i.payload.shape()}
        super().__init__({
            "i": In(stream.Signature(type(unit.i.payload.shape())(fields | more))),
            "o": Out(stream.Signature(unit.o.payload.shape())),
            **dict.fromkeys(("invalid", "overflow"), Out(1)), "status_clear": In(1)})

    def connected(self, m, takes=1, gives=1):
        """Connect the unit, which `takes` what comes and `gives` what it has; in other cycles, both are lost."""
        unit = self.unit
        m.d.comb += [unit.status_clear.eq(self.status_clear), self.invalid.eq(unit.invalid),
                     self.overflow.eq(unit.overflow), unit.i.valid.eq(self.i.valid & takes),
                     self.i.ready.eq(unit.i.ready | ~takes), self.o.valid.eq(unit.o.valid & gives),
                     unit.o.ready.eq(self.o.ready), self.o.payload.eq(unit.o.payload),
                     *(unit.i.payload[name].eq(self.i.payload[name]) for name, _ in unit.i.payload.shape())]


class Restarted(Outer):
    """The unit, which a transfer with ``restart`` resets; what came out before is lost."""

    def __init__(self, unit):
        super().__init__(unit, restart=1)

    def elaborate(self, platform):
        m = Module()
        restart, restarted = Signal(), Signal()
        m.submodules.unit = ResetInserter(restart)(self.unit)
        m.d.comb += restart.eq(self.i.valid & self.i.payload.restart)
        m.d.sync += restarted.eq(restarted | restart)
        self.connected(m, takes=~self.i.payload.restart, gives=restarted)
        return m


@pytest.mark.parametrize("idle, busy", [(0, 0), (0.1, 0.9)])
def test_a_reset_in_mid_stream_leaves_nothing(idle, busy):
    parameters = UNIT.configure({"rounding": "stochastic"})
    component = Restarted(UNIT.component(parameters))
    text = verilog.emit(component, "restarted")
    restart = 1 << component.unit.i.payload.shape().size
    before = rows_of(parameters, np.array([10, 1, 4, 10, 10, 7]), voids=[1, 4]).inputs
    after = rows_of(parameters, np.array([3, 10, 1, 10]), seed=9)
    for count in range(1, len(before) + 1, 3):
        inputs = [*before[:count], restart, *after.inputs]
        vectors = dataclasses.replace(after, inputs=inputs, origin=after.origin + count + 1, describe=str)
        run_component(component, "restarted", vectors, text, idle=idle, busy=busy, seed=count)


# Random words from outside.


class Outside(Outer):
    """The unit with its random words from a counter beside it."""

    def elaborate(self, platform):
        m = Module()
        p = self.unit.parameters
        m.submodules.unit = self.unit
        m.submodules.random = random = CountedWords(seed=p.seed, lanes=1, bits=p.random_bits)
        m.d.comb += [self.unit.words.eq(random.words), random.draw.eq(self.unit.draw)]
        self.connected(m)
        return m


def test_words_from_outside_give_the_same_errors():
    parameters = UNIT.configure(COVER[2])
    component = Outside(SoftmaxGrad(parameters, addressed=True))
    text = verilog.emit(component, "outside")
    vectors = UNIT.vectors(parameters, 2000, seed=51, record=False)
    run_component(component, "outside", vectors, text, seed=52)
    run_component(component, "outside", vectors, text, idle=0, busy=0)


def test_only_stochastic_rounding_takes_words():
    for rounding, members in (("nearest", set()), ("truncate", set()), ("stochastic", {"words", "draw"})):
        parameters = UNIT.configure({"rounding": rounding})
        own, outside = (SoftmaxGrad(parameters, addressed=each).signature.members for each in (False, True))
        assert set(outside) - set(own) == members


def test_different_parameters_have_different_module_names():
    values = {"format": ["bf16", "fp32", ieee(5, 3), ieee(5, 3, bias=3)], "classes": [10, 11, 1024],
              "bits": [5, 6, 16], "rounding": ["nearest", "truncate", "stochastic"], "random_bits": [8, 5],
              "corrected": [False, True], "seed": [1, 2]}
    names = {UNIT.module_name(UNIT.configure(dict(zip(values, each)))) for each in itertools.product(*values.values())}
    assert len(names) == np.prod([len(each) for each in values.values()])
    assert all(name.isidentifier() for name in names)


def test_the_header_tells_what_fields_of_a_row_mean():
    text = UNIT.verilog(UNIT.configure({}))
    for line in ("latency 39 cycles, interval 11", "last: the row's last class", "overflow  out 1  sticky: a logit was "
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
