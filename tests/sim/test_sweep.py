# amaranth: UnusedElaboratable=no
"""Exhaustive sweeps of the floating-point units: compiled models of their Verilog against the golden model."""

import itertools
import re

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import floating
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.hw.accumulator import AccumulatorBank
from narrowgauge.sim.sweep import Model

NARROW = {name: fmt for name, fmt in PRESETS.items() if isinstance(fmt, Float) and fmt.width <= 8} | {
    "float8_e4m3": Float(4, 3), "float8_e3m4": Float(3, 4)}
MODES = [{"rounding": rounding, "subnormals": subnormals}
         for rounding in ("nearest", "truncate", "stochastic") for subnormals in ("keep", "flush")]
CHUNK = 1 << 20  # transfers at a time


def half(*values):
    """Return every other combination of values: each two values of two parameters meet in them."""
    places = itertools.product(*(range(len(each)) for each in values))
    return [combination for place, combination in zip(places, itertools.product(*values)) if sum(place) % 2 == 0]


def test_half_of_all_combinations_have_every_pair():
    values = NARROW, range(len(MODES)), range(2)
    for one, other in itertools.combinations(range(3), 2):
        assert {(each[one], each[other]) for each in half(*values)} == set(itertools.product(
            values[one], values[other]))


class Sweep:
    """A unit's model beside its golden function; both go on from one chunk to the next."""

    def __init__(self, unit, settings, fault=None):
        entry = catalog.find(unit)
        self.parameters, self.golden, self.step = entry.configure(settings), entry.golden, 0
        text = entry.verilog(self.parameters)
        if fault:
            text, count = re.subn(*fault, text)
            assert count == 1, fault
        component = entry.component(self.parameters)
        shape = component.i.payload.shape()
        self.places = [(name, field.offset) for name, field in shape]
        self.model = Model(component, entry.module_name(self.parameters), text)
        self.status, self.wrong = {"invalid": False, "overflow": False}, []

    def feed(self, *operands):
        """Run transfers, CHUNK of them at a time."""
        for start in range(0, len(operands[0]), CHUNK):
            part = [array[start:start + CHUNK] for array in operands]
            payloads = np.zeros(len(part[0]), np.uint64)
            for array, (_, offset) in zip(part, self.places, strict=True):
                payloads |= array.astype(np.uint64) << np.uint64(offset)
            got = self.model.run(payloads)
            want, invalid, overflow = self.golden(self.parameters, *part, step=self.step)
            self.status["invalid"] |= bool(invalid.any())
            self.status["overflow"] |= bool(overflow.any())
            assert len(got) == len(want)
            self.wrong += [(*(hex(array[k]) for array in part), hex(got[k]), hex(want[k]))
                           for k in np.flatnonzero(got != want)[:5]]
            self.step += len(part[0])

    def check(self):
        assert not self.wrong, f"(operands, got, expected): {self.wrong[:5]}"
        assert self.model.status() == self.status


def pairs(fmt):
    codes = np.arange(1 << fmt.width)
    return np.repeat(codes, len(codes)), np.tile(codes, len(codes))


def settings(fmt, mode, **more):
    return {name: value if isinstance(value, (str, int)) else {"type": "Float"} | value.to_json()
            for name, value in {"format": fmt, **mode, **more}.items()}


def sweep_adder(fmt, mode, fault=None):
    sweep = Sweep("float-adder", settings(fmt, mode), fault)
    a, b = pairs(fmt)
    # With random words: several of them for each pair.
    for subtract in (0, 1) * (4 if mode["rounding"] == "stochastic" else 1):
        sweep.feed(a, b, np.full(len(a), subtract))
    return sweep


def sweep_multiplier(fmt, mode, result):
    sweep = Sweep("float-multiplier", settings(fmt, mode, result=result))
    for _ in range(8 if mode["rounding"] == "stochastic" else 1):
        sweep.feed(*pairs(fmt))
    return sweep


NEAREST = MODES[0]
mode_of = pytest.mark.parametrize("mode", MODES, ids=str)
narrow = pytest.mark.parametrize("name", NARROW)


@pytest.mark.parametrize("name", ["fp4-e2m1", "fp6-e3m2"])
def test_every_pair_of_a_small_format_is_added_and_subtracted(name):
    sweep_adder(NARROW[name], NEAREST).check()


@pytest.mark.parametrize("name", ["fp4-e2m1", "fp6-e3m2"])
def test_every_pair_of_a_small_format_is_multiplied(name):
    sweep_multiplier(NARROW[name], NEAREST, NARROW[name]).check()


def test_a_million_pairs_of_fp16_are_added():
    sweep, rng = Sweep("float-adder", {}), np.random.default_rng(16)
    sweep.feed(*rng.integers(0, 1 << 16, (2, 1 << 20)), rng.integers(0, 2, 1 << 20))
    sweep.check()


@pytest.mark.parametrize("fault", [
    (r"aligned_sticky <= [^;]*;", "aligned_sticky <= 0;"),
    (r"invalid <= [^;]*;", "invalid <= 0;"),
], ids=["a sticky bit is dropped", "NaN is not reported"])
def test_control_a_fault_is_found(fault):
    sweep = sweep_adder(NARROW["float8_e3m4"], NEAREST, fault)
    assert sweep.wrong or sweep.model.status() != sweep.status


def test_a_payload_wider_than_a_word_is_refused():
    bank = AccumulatorBank(PRESETS["fp32"], integer=60, field=10, sums=16)
    with pytest.raises(ValueError, match=r"^width of i_payload is 76; allowed: at most 64 bits$"):
        Model(bank, "bank")


@pytest.mark.sweep
@narrow
@mode_of
def test_every_pair_is_added_and_subtracted(name, mode):
    sweep_adder(NARROW[name], mode).check()


# One result format that is wider, and one that is narrower in exponent or in mantissa.
@pytest.mark.sweep
@pytest.mark.parametrize("name, mode, result", half(NARROW, MODES, ["same", "fp16", "fp6-e3m2", "e4m1"]), ids=str)
def test_every_pair_is_multiplied(name, mode, result):
    results = {"same": NARROW[name], "e4m1": Float(4, 1, bias=5)} | PRESETS
    sweep_multiplier(NARROW[name], mode, results[result]).check()


@pytest.mark.sweep
@pytest.mark.parametrize("name, mode, accumulator", half(NARROW, MODES, ["same", "fp16"]), ids=str)
def test_every_product_of_a_pair_is_added_to_some_addends(name, mode, accumulator):
    sums = PRESETS.get(accumulator, NARROW[name])
    sweep, rng = Sweep("float-fma", settings(NARROW[name], mode, accumulator=sums)), np.random.default_rng(3)
    a, b = pairs(NARROW[name])
    sign = 1 << (sums.width - 1)
    ends = [0, sign, 1, sign | 1, sums.max_code, sign | sums.max_code, sums.inf_code or sums.max_code]
    for c in ends:
        sweep.feed(a, b, np.full(len(a), c))
    for _ in range(8):
        sweep.feed(a, b, rng.integers(0, 1 << sums.width, len(a)))
    # Sums that cancel, or nearly: the rounded product with its sign changed, and its neighbours.
    product = floating.multiply(a, b, NARROW[name], result=sums).astype(np.int64)
    for near in (-1, 0, 1):
        sweep.feed(a, b, (product ^ sign) + near & (2 * sign - 1))
    sweep.check()


@pytest.mark.sweep
@pytest.mark.parametrize("source, result, mode", [
    each for each in half(("fp16", "bf16"), ("fp32", "fp16", "bf16", *NARROW), MODES) if each[0] != each[1]], ids=str)
def test_every_code_of_16_bits_is_cast(source, result, mode):
    results = PRESETS | NARROW
    sweep = Sweep("float-cast", settings(PRESETS[source], mode, result=results[result]))
    for _ in range(8 if mode["rounding"] == "stochastic" else 1):
        sweep.feed(np.arange(1 << 16))
    sweep.check()


@pytest.mark.sweep
@pytest.mark.parametrize("result, mode", half(["fp16", "bf16", "fp8-e5m2", "fp8-e4m3"], MODES), ids=str)
def test_fp32_is_cast(result, mode):
    """Every combination of the upper 24 bits; the lower eight are nought (where ties are), or one of 1, 128 and 255.

    Formats of 10 bits of fraction and fewer round at higher bits.
    """
    sweep = Sweep("float-cast", settings(PRESETS["fp32"], mode, result=PRESETS[result]))
    low = np.array([0, 0, 0, 0, 0, 1, 128, 255])
    for start in range(0, 1 << 24, CHUNK):
        upper = np.arange(start, start + CHUNK)
        sweep.feed(upper << 8 | low[(upper * 0x9E3779B1 >> 20) % 8])
    sweep.check()


@pytest.mark.sweep
def test_a_64th_of_all_pairs_of_fp16_are_added():
    """2**26: every a with every upper 10 bits of b; the lower six run through all values as a and b go on."""
    sweep = Sweep("float-adder", {})
    upper = np.arange(1 << 10)
    for start in range(0, 1 << 16, CHUNK >> 10):
        a = np.repeat(np.arange(start, start + (CHUNK >> 10)), len(upper))
        high = np.tile(upper, CHUNK >> 10)
        sweep.feed(a, high << 6 | (a + high + (high >> 6)) % 64, np.zeros(CHUNK, np.int64))
    sweep.check()
