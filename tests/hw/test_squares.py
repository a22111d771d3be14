# amaranth: UnusedElaboratable=no
"""Squares of a band, alone in Amaranth's simulator: what was written place by place is read number by number."""

from collections import deque

import numpy as np
import pytest
from amaranth.sim import Simulator
from cores import recipe_of
from narrowgauge.golden.core import TrainerParameters
from narrowgauge.hw.core.layouts import Geometry
from narrowgauge.hw.core.memories import READ
from narrowgauge.hw.core.squares import Squares

SIDE = 16


@pytest.mark.parametrize("group, recipe, settings", [
    (16, "bfp", {}), (4, "bfp", {"group": 4}), (1, "system", {"system": "bf16"})])
def test_columns_are_what_places_were_written(group, recipe, settings):
    geometry = Geometry(TrainerParameters(recipe_of(recipe, **settings).system, windows=True))
    unit, rng = Squares(geometry), np.random.default_rng(group)
    assert geometry.parameters.system.group == group
    # Each square has some places, and a number of each row of its band. Where there is none, it has zero.
    squares = [rng.integers(1, 1 << 16, (rng.integers(1, group + 1), rng.integers(1, SIDE + 1)))
               * (rng.random() < 0.8) for _ in range(40)]
    filled = deque[np.ndarray]()

    async def writes(ctx):
        """Ask for the segments of each square, and answer each `READ` cycles later."""
        answers = deque([0] * READ, maxlen=READ)

        async def tick(answer):
            ctx.set(unit.found.as_value(), answers[0])
            answers.append(answer)
            await ctx.tick()

        for square in squares:
            for place, row in enumerate(square):
                cut = int(rng.integers(1, len(row) + 1))
                for first, last in ((0, cut), (cut, len(row))):
                    if first == last:
                        continue
                    begins = place == first == 0
                    while rng.random() < 0.3 or begins and not ctx.get(unit.room):
                        ctx.set(unit.asked, 0)
                        ctx.set(unit.opens, 0)
                        await tick(int(rng.integers(1 << 60)))
                    live = [first <= lane < last and row[lane] != 0 for lane in range(SIDE)]
                    words = [int(row[lane]) if lane < len(row) and row[lane] else 0xBAD for lane in range(SIDE)]
                    for port, value in ((unit.opens, begins), (unit.asked, 1), (unit.line, place),
                                        (unit.first, first == 0),
                                        (unit.closes, place == len(square) - 1 and last == len(row)),
                                        (unit.live, sum(live[(k - place) % SIDE] << k for k in range(SIDE)))):
                        ctx.set(port, int(value))
                    await tick(sum(words[(k - place) % SIDE] << 16 * k for k in range(SIDE)))
            filled.append(square)
        ctx.set(unit.asked, 0)
        ctx.set(unit.opens, 0)
        for _ in range(READ):
            await tick(0)

    async def reads(ctx):
        expected = deque([None] * READ, maxlen=READ)
        for square in squares:
            for column in range(square.shape[1]):
                while rng.random() < 0.3 or not ctx.get(unit.filled):
                    ctx.set(unit.reads, 0)
                    ctx.set(unit.releases, 0)
                    await check(ctx, expected, None)
                ends = column == square.shape[1] - 1
                for port, value in ((unit.reads, 1), (unit.column, column), (unit.ends, ends), (unit.releases, ends)):
                    ctx.set(port, int(value))
                await check(ctx, expected, square[:, column])
        ctx.set(unit.reads, 0)
        ctx.set(unit.releases, 0)
        for _ in range(READ):
            await check(ctx, expected, None)

    async def check(ctx, expected, column):
        if expected[0] is not None:
            found = [ctx.get(unit.elements[place]) for place in range(len(expected[0]))]
            assert found == expected[0].tolist()
        expected.append(column)
        await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(writes)
    simulator.add_testbench(reads)
    simulator.run()
    assert len(filled) == len(squares)
