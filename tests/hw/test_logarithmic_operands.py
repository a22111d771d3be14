"""Operands of a training core: scales of whole tensors, and codes that pass the converter."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from narrowgauge.golden.formats import PRESETS, Float, Log
from narrowgauge.golden.logarithmic import SCALE_BIAS, LNSSystem, narrowed
from narrowgauge.hw import core
from narrowgauge.hw.logarithmic import LNSCircuits

SYSTEMS = [LNSSystem(work=PRESETS["bf16"]), LNSSystem(work=PRESETS["fp16"]), LNSSystem(work=Float(6, 9)),
           LNSSystem(Log(5, 2), work=PRESETS["bf16"])]


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda each: f"{each.format.bits} of {each.work.sizes}")
def test_scale_of_a_greatest_magnitude(system):
    """With every exponent, Inf and NaN, and with fractions of all kinds; two cycles later."""
    work, m, magnitude, scale = system.work, Module(), Signal(system.work.width - 1), Signal(8)
    m.d.comb += scale.eq(LNSCircuits.scale(m, "scale", system, magnitude))
    rng, ones = np.random.default_rng(1), (1 << work.mantissa) - 1
    some = [0, 1, ones, *rng.integers(0, ones, 8).tolist()]
    codes = [field << work.mantissa | fraction for field in range(1 << work.exponent) for fraction in some]
    found = []

    async def bench(context):
        for code in [*codes, 0, 0]:
            context.set(magnitude, code)
            found.append(context.get(scale))
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    numbers = work.decode(codes).astype(np.float32)
    expected = [system.mode("activations", numbers[k:k + 1])["scale"] for k in range(len(codes))]
    assert found[2:] == expected
    # An Inf counts as a number of the exponent above the work format's largest.
    level = system.format.gamma * (work.emax + 1)
    assert expected[-len(some)] == -((system.format.top - level) // system.format.gamma) + SCALE_BIAS


@pytest.mark.parametrize("weight, narrow", [(Log(16, 2048), Log(8, 8)), (Log(12, 128), Log(8, 8)),
                                            (Log(10, 32), Log(5, 1))], ids=str)
def test_every_code_of_a_weight_as_an_operand(weight, narrow):
    m, code, operand = Module(), Signal(weight.bits), Signal(narrow.bits)
    m.d.comb += operand.eq(core.codes.narrowed(m, "narrow", code, weight, narrow))
    codes = np.arange(0, 1 << weight.bits, 7 if weight.bits == 16 else 1)
    found = []

    async def bench(context):
        for each in codes.tolist():
            context.set(code, each)
            found.append(context.get(operand))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    np.testing.assert_array_equal(found, narrowed(codes, weight, narrow))


def test_operands_tell_what_is_beyond_their_scale():
    """As the converter does: Inf, NaN, and numbers above the top code."""
    system = LNSSystem(work=PRESETS["bf16"])
    for number, scale, expected in ((1.0, -15, False), (1.0, -16, True), (0.0, -127, False), (np.inf, 120, True),
                                    (np.nan, 120, True)):
        array = np.array([[number, 0]], np.float32)
        _, invalid, overflow = system.operand(array, 1, {"scale": scale + SCALE_BIAS}, 0, None)
        arrays = system.convert(0, system.work.encode(np.pad(array, ((0, 0), (0, 14)))), {"scale": scale + SCALE_BIAS},
                                None)
        assert (invalid, overflow) == arrays[1:] == (bool(np.isnan(number)), expected), number
