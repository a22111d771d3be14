# amaranth: UnusedElaboratable=no
"""Halves, doubles and quotients by powers of two against NumPy, for numbers of every exponent of fp16."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator
from narrowgauge.golden.formats import PRESETS
from narrowgauge.hw.powers import DIVIDER, PowerDivider, halved, twice

FP16 = PRESETS["fp16"]
# All subnormal numbers of few bits, both ends of each exponent, Inf, and a canonical NaN.
CODES = np.unique(np.concatenate([np.arange(70), *(field * 1024 + np.array([-3, -2, -1, 0, 1, 2, 511, 512, 513])
                                                   for field in range(1, 31)), [0x7BFF, 0x7C00, 0x7E00]]))
CODES = np.concatenate([CODES, CODES[CODES < 0x7C01] | 0x8000]).astype(np.uint32)


def expected(factor):
    with np.errstate(all="ignore"):
        return FP16.encode(FP16.decode(CODES).astype(np.float16) * np.float16(factor))


@pytest.mark.parametrize("power", [0, 1, 5, 10, 14, 15, 23, 24])
def test_quotients(power):
    divider, found = PowerDivider(FP16), []

    async def bench(ctx):
        ctx.set(divider.enable, 1)
        ctx.set(divider.power, power)
        for code in [*CODES.tolist(), *[0] * DIVIDER]:
            ctx.set(divider.a, code)
            found.append(ctx.get(divider.o))
            await ctx.tick()

    simulator = Simulator(divider)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    np.testing.assert_array_equal(found[DIVIDER:], expected(2.0**-power))


class Both(Elaboratable):
    def __init__(self):
        self.code, self.half, self.double = (Signal(16, name=name) for name in ("code", "half", "double"))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.half.eq(halved(m, "halved", FP16, self.code)),
                     self.double.eq(twice(m, "doubled", FP16, self.code))]
        return m


def test_halves_and_doubles():
    both, found = Both(), []

    async def bench(ctx):
        for code in CODES.tolist():
            ctx.set(both.code, code)
            await ctx.delay(1e-9)
            found.append((ctx.get(both.half), ctx.get(both.double)))

    simulator = Simulator(both)
    simulator.add_testbench(bench)
    simulator.run()
    np.testing.assert_array_equal(found, np.stack([expected(0.5), expected(2)], axis=1))
