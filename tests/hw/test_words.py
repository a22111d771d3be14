# amaranth: UnusedElaboratable=no
"""Random words in hardware against the golden ones."""

import random

import numpy as np
import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator
from narrowgauge.golden import words
from narrowgauge.golden.words import STAGES, Stream, blocks, blocks_of, key
from narrowgauge.hw.words import AddressedWords, CountedWords


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


def split(value, lanes, bits):
    return [value >> (bits * lane) & ((1 << bits) - 1) for lane in range(lanes)]


SIZES = [(3, bits) for bits in range(1, 17)] + [(1, 8), (16, 8), (17, 8), (64, 8), (64, 11), (48, 5)]


@pytest.mark.parametrize("lanes, bits", SIZES)
def test_every_draw_gives_the_golden_words_and_no_draw_moves_nothing(lanes, bits):
    seed = [0, 1, 2**31 - 1, 3462][bits % 4]
    component = CountedWords(seed=seed, lanes=lanes, bits=bits)
    expected = Stream(seed, lanes, bits=bits).draw(60).tolist()
    dice = random.Random(seed * 16 + bits)

    async def testbench(ctx, reset):
        vector = 0
        while vector < len(expected):
            assert split(ctx.get(component.words), lanes, bits) == expected[vector], f"seed {seed}, vector {vector}"
            draw = dice.random() < 0.7
            ctx.set(component.draw, draw)
            await ctx.tick()
            vector += draw

    simulate(component, testbench)


@pytest.mark.parametrize("bits", [1, 8, 11, 16])
def test_reset_starts_again_from_the_first_words(bits):
    component = CountedWords(seed=5, lanes=3, bits=bits)
    expected = Stream(5, 3, bits=bits).draw(20).tolist()

    async def testbench(ctx, reset):
        ctx.set(component.draw, 1)
        for stop in (7, 1, 19):
            for row in expected[:stop]:
                assert split(ctx.get(component.words), 3, bits) == row
                await ctx.tick()
            ctx.set(reset, 1)  # wins over a draw
            await ctx.tick()
            ctx.set(reset, 0)
        assert split(ctx.get(component.words), 3, bits) == expected[0]

    simulate(component, testbench)


@pytest.mark.parametrize("lanes, bits", [(16, 8), (1, 3), (32, 8), (16, 16)])
def test_words_of_any_address_come_behind_their_index(lanes, bits):
    """Indices in any order, of any use; then the key of another step by the same registers."""
    component = AddressedWords(lanes=lanes, bits=bits)
    rng, count, (seed, step) = np.random.default_rng(bits), blocks_of(lanes, bits), (77, 1234567)
    uses, vectors = rng.integers(0, 1024, 50), rng.integers(0, (1 << 22) // count, 50)

    async def testbench(ctx, reset):
        ctx.set(component.key, key(seed, step))
        for cycle in range(len(uses) + STAGES):
            if cycle < len(uses):
                ctx.set(component.index, int(uses[cycle]) << 22 | int(vectors[cycle]) * count)
            if cycle >= STAGES:
                use, vector = int(uses[cycle - STAGES]), vectors[cycle - STAGES]
                row = words.words(key(seed, step), lanes, np.array([vector]), bits, use)[0].tolist()
                assert split(ctx.get(component.words), lanes, bits) == row
            await ctx.tick()
        first = int.from_bytes(blocks(words.START, np.array([seed], np.uint32))[0, :8].tobytes(), "little")
        ctx.set(component.key, first)
        ctx.set(component.index, step)
        for _ in range(STAGES):
            await ctx.tick()
        assert ctx.get(component.begin) == key(seed, step)

    simulate(component, testbench)
