# amaranth: UnusedElaboratable=no
"""The INT8 circuits by themselves: scales that change with every transfer, every code, sums that wrap, stalls."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from narrowgauge.golden import integer
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.integer import SUM, TOP
from narrowgauge.hw import verilog
from narrowgauge.hw.integer import INT8Circuits, IntConverter, IntDot
from narrowgauge.sim.vectors import Vectors, pack
from units import run_component

STALLS = [{"idle": 0, "busy": 0}, {"idle": 0.3, "busy": 0.6, "seed": 5}]


def run(component, name, vectors):
    """Run the bench, in full flow and under stalls; demand no mismatch, and the latency."""
    text = verilog.emit(component, name)
    for stalls in STALLS:
        outcome = run_component(component, name, vectors, text, **stalls)
        assert outcome.vectors == len(vectors.inputs)
        if not stalls["idle"]:
            assert outcome.latency == component.latency


@pytest.mark.parametrize("work, lanes", [("bf16", 4), pytest.param("fp32", 5, marks=pytest.mark.sweep),
                                         pytest.param("fp16", 16, marks=pytest.mark.sweep)])
def test_converter_with_codes_of_all_kinds_and_any_scale(work, lanes):
    """All codes of a format of 16 bits; of fp32 all fields and signs, with fractions at their ends and others."""
    parameters, rng = integer.INT8ConverterParameters(PRESETS[work], lanes), np.random.default_rng(3)
    if work == "fp32":
        upper = np.arange(1 << 9) << 23
        codes = (upper[:, np.newaxis] + np.concatenate([[0, 1, (1 << 23) - 1], rng.integers(0, 1 << 23, 29)])).ravel()
    else:
        codes = np.arange(1 << 16)
    codes = rng.permutation(codes)[:len(codes) // lanes * lanes].reshape(-1, lanes)
    # Near the largest element's, so that what is rounded matters, and any.
    with np.errstate(invalid="ignore"):
        values = np.nan_to_num(np.abs(PRESETS[work].decode(codes)), nan=1.0, posinf=1.0)
    near = np.frexp(values.max(axis=1))[1] - rng.integers(0, 12, len(codes)) + integer.SCALE_BIAS
    scale = np.where(rng.random(len(codes)) < 0.1, rng.integers(0, 256, len(codes)), np.clip(near, 0, 255))
    for quiet in (False, True):
        if quiet:  # no NaN and nothing that saturates, so that the status stays clear
            _, invalid, overflow = integer.convert(parameters, codes, scale)
            codes, scale = (each[~(invalid | overflow)] for each in (codes, scale))
        out, invalid, overflow = integer.convert(parameters, codes, scale)
        assert invalid.any() == overflow.any() == (not quiet)
        run(IntConverter(parameters), "converter", Vectors(
            pack((codes, PRESETS[work].width), (scale, 8)), pack((out, 8), (scale, 8)), range(len(codes)),
            {"invalid": int(invalid.any()), "overflow": int(overflow.any())}))


@pytest.mark.parametrize("result, lanes", [("fp16", 4), pytest.param("fp32", 7, marks=pytest.mark.sweep),
                                           pytest.param("bf16", 16, marks=pytest.mark.sweep)])
def test_dot_with_scales_of_all_kinds(result, lanes):
    """Integers at their ends, sums of one transfer and of many, results from zero to Inf."""
    parameters, rng, count = integer.INT8DotParameters(lanes, PRESETS[result]), np.random.default_rng(7), 6000
    operands = []
    for _ in range(2):
        codes = rng.integers(-TOP, TOP + 1, (count, lanes))
        kind = rng.random(count)[:, np.newaxis]
        codes = np.where(kind < 0.1, 0, np.where(kind < 0.3, rng.choice([-TOP, -1, 1, TOP], (count, lanes)), codes))
        scale = np.where(rng.random(count) < 0.2, rng.integers(0, 256, count), 127 - 6 + rng.integers(-9, 10, count))
        operands.append((codes, scale))
    # One sum in three begins with every transfer; the sums are emitted along the way.
    first, last = rng.random(count) < 0.3, rng.random(count) < 0.5
    first[0] = last[-1] = True
    emitted, overflow = integer.dots(parameters, *operands, first, last)
    assert overflow
    inputs = pack(*(each for codes, scale in operands for each in ((codes, 8), (scale, 8))), (first, 1), (last, 1))
    run(IntDot(parameters), "dot", Vectors(
        inputs, pack((emitted.astype(np.int64), PRESETS[result].width)), np.flatnonzero(last),
        {"overflow": int(overflow)}))


def test_a_sum_beyond_32_bits_wraps_round():
    """As numerics.md says; and one below that does not. The expected sums are Python's integers."""
    parameters, most = integer.INT8DotParameters(4, PRESETS["fp32"]), ((1 << SUM - 1) - 1) // (4 * TOP**2)
    count = most + 2
    codes, scale = np.full((count, 4), TOP), np.full(count, integer.SCALE_BIAS)
    first, last = np.arange(count) == 0, np.arange(count) >= most - 1
    totals = [(each * 4 * TOP**2 + (1 << SUM - 1)) % (1 << SUM) - (1 << SUM - 1) for each in (most, most + 1, most + 2)]
    assert totals[0] > 0 > totals[1]
    outputs = [int(np.float32(each).view(np.uint32)) for each in totals]
    inputs = pack((codes, 8), (scale, 8), (codes, 8), (scale, 8), (first, 1), (last, 1))
    run(IntDot(parameters), "wrap", Vectors(inputs, outputs, np.flatnonzero(last), {"overflow": 0}))


@pytest.mark.parametrize("work", [PRESETS["bf16"], PRESETS["fp16"], Float(5, 3), Float(6, 9), Float(8, 12)], ids=str)
def test_scale_of_a_greatest_magnitude(work):
    """With every exponent and with fractions of all kinds; of subnormal numbers, every one or many."""
    m, magnitude, scale = Module(), Signal(work.width - 1), Signal(8)
    m.d.comb += scale.eq(INT8Circuits.scale(m, "scale", integer.INT8System(work=work), magnitude))
    rng, ones = np.random.default_rng(1), (1 << work.mantissa) - 1
    some = [0, 1, ones, *(ones ^ 1 << bit for bit in range(work.mantissa)), *rng.integers(0, ones, 5).tolist()]
    codes = [field << work.mantissa | fraction for field in range((1 << work.exponent) - 1) for fraction in some]
    codes += range(min(ones, 1024))
    found = []

    async def bench(context):
        for code in codes:
            context.set(magnitude, code)
            found.append(context.get(scale))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [integer.scale_of([value]) + integer.SCALE_BIAS for value in work.decode(codes)]
