# amaranth: UnusedElaboratable=no
"""The LFSR of every lane against the golden words."""

import random

import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator
from narrowgauge.golden import lfsr
from narrowgauge.hw.lfsr import LeapLFSR

LANES = 3


def simulate(component, testbench):
    """Run ``testbench(ctx, reset)`` with a clock and a reset of its own."""
    m = Module()
    m.domains.sync = domain = ClockDomain()
    m.submodules.dut = component

    async def run(ctx):
        await testbench(ctx, domain.rst)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


def split(value, bits):
    return [value >> (bits * lane) & ((1 << bits) - 1) for lane in range(LANES)]


@pytest.mark.parametrize("bits", range(1, 17), ids=lambda bits: f"k{bits}")
@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1], ids=lambda seed: f"seed{seed}")
def test_every_draw_gives_the_golden_words_and_no_draw_moves_nothing(bits, seed):
    component = LeapLFSR(seed=seed, lanes=LANES, bits=bits)
    expected = lfsr.words(seed, LANES, 0, 200, bits).tolist()
    dice = random.Random(seed * 16 + bits)

    async def testbench(ctx, reset):
        step = 0
        while step < len(expected):
            assert split(ctx.get(component.words), bits) == expected[step], f"seed {seed}, {bits} bits, draw {step}"
            draw = dice.random() < 0.7
            ctx.set(component.draw, draw)
            await ctx.tick()
            step += draw

    simulate(component, testbench)


@pytest.mark.parametrize("bits", [1, 8, 11, 16], ids=lambda bits: f"k{bits}")
def test_reset_starts_again_from_the_first_words(bits):
    component = LeapLFSR(seed=5, lanes=LANES, bits=bits)
    expected = lfsr.words(5, LANES, 0, 20, bits).tolist()

    async def testbench(ctx, reset):
        ctx.set(component.draw, 1)
        for stop in (7, 1, 19):
            for words in expected[:stop]:
                assert split(ctx.get(component.words), bits) == words
                await ctx.tick()
            ctx.set(reset, 1)  # wins over a draw
            await ctx.tick()
            ctx.set(reset, 0)
        assert split(ctx.get(component.words), bits) == expected[0]

    simulate(component, testbench)
