# amaranth: UnusedElaboratable=no
"""Walks through windows and taps, alone in Amaranth's simulator.

Each vector is read where golden says, in as many segments as golden's cycle model counts.
"""

import numpy as np
import pytest
from amaranth import Module, Signal, Value
from amaranth.sim import Simulator
from cores import recipe_of
from narrowgauge.golden.core import Instruction, Taps, TrainerParameters, View, Window
from narrowgauge.golden.core.instructions import encode
from narrowgauge.golden.core.timing.operands import segments
from narrowgauge.golden.core.views import places
from narrowgauge.hw.core.layouts import Geometry
from narrowgauge.hw.core.patches import Patches, located
from narrowgauge.hw.core.shapes import Shapes

SIDE = 16
GEOMETRY = Geometry(TrainerParameters(recipe_of("bfp").system, windows=True))
BAND = 12  # rows that are read together


def drawn(rng):
    """Return a tensor, its window or taps, and a part of that."""
    top, left = (int(each) for each in rng.integers(0, SIDE, 2))
    step = int(rng.integers(1, 4))
    if rng.random() < 0.3:
        kernel, channels = (int(each) for each in rng.integers(1, (5, 20)))
        shifts = [int(each) for each in rng.integers(0, min(step, kernel), 2)]
        taps = [len(range(shift, kernel, step)) for shift in shifts]
        shape, memory, numbers = Taps(kernel, channels, *taps, step, *shifts), "W", kernel**2 * channels
    else:
        height, width, channels, down, across, taps_y, taps_x = (
            int(each) for each in rng.integers(1, (9, 9, 20, 9, 9, 5, 5)))
        shape = Window(height, width, channels, down, across, taps_y, taps_x, step, int(rng.integers(2)),
                       *map(int, rng.integers(0, 3, 3)))
        memory, numbers = "X", height * width * channels
    tensor = View(memory, 3, 3, -(-(left + numbers) // SIDE) + int(rng.integers(3)), top, left,
                  int(rng.integers(1, 30)), numbers)
    whole = tensor.shaped(shape)
    row, column = int(rng.integers(whole.rows)), int(rng.integers(whole.columns))
    rows, columns = int(rng.integers(1, whole.rows - row + 1)), int(rng.integers(1, whole.columns - column + 1))
    return tensor, shape, whole.part(row, column, rows, columns, SIDE)


@pytest.mark.parametrize("seed", range(3))
def test_vectors_are_read_where_golden_says(seed):
    m, rng = Module(), np.random.default_rng(seed)
    m.submodules.shapes, m.submodules.patches = shapes, patches = Shapes(GEOMETRY), Patches(GEOMETRY, BAND)
    values = located(m, "read", GEOMETRY, patches.segment)
    found = {name: Signal.like(Value.cast(value), name=name) for name, value in values.items()}
    m.d.comb += [found[name].eq(value) for name, value in values.items()]

    async def read(ctx, vector, count, turn=0):
        """Read a vector in so many segments; its lanes are turned."""
        last = False
        while not last:
            count -= 1
            now = {name: ctx.get(signal) for name, signal in found.items()}
            assert now["turn"] == turn
            assert now["first"] == (vector == -1).all() or not now["first"]
            for lane in range(SIDE):
                if now["live"] >> (lane + turn) % SIDE & 1:
                    assert vector[lane] == -1
                    down, right = (now["row"] + lane, now["column"]) if now["down"] else (
                        now["row"], now["column"] + lane)
                    block = now["block"] + right // SIDE
                    vector[lane] = (block * SIDE + down % SIDE) * SIDE + right % SIDE
            last = now["last"]
            await ctx.tick()
        assert count == 0
        return now

    async def rows(ctx, expected, counts):
        for row in expected[:12]:
            for first in range(0, min(len(row), 4 * SIDE), SIDE):
                vector = np.full(SIDE, -1)
                await read(ctx, vector, counts[first // SIDE])
                wanted = np.pad(row[first:first + SIDE], (0, SIDE))[:SIDE]
                count = min(SIDE, len(row) - first)
                np.testing.assert_array_equal(vector[:count], wanted[:count])
            for _ in range(0, max(len(row) - 4 * SIDE, 0), SIDE):  # to the row's end
                while not ctx.get(found["last"]):
                    await ctx.tick()
                await ctx.tick()

    async def banded(ctx, expected, counts):
        """Rows are read band by band, and in a band place by place."""
        count, places_ = expected.shape
        for first in range(0, min(count, 3 * BAND), BAND):
            band = expected[first:first + BAND]
            for place in range(places_):
                assert ctx.get(patches.reads)
                vector = np.full(SIDE, -1)
                now = await read(ctx, vector, counts[first // BAND], place % SIDE)
                np.testing.assert_array_equal(vector[:len(band)], band[:, place])
                assert now["closes"] == (place % SIDE == SIDE - 1 or place == places_ - 1)
        assert ctx.get(patches.begun) and ctx.get(patches.reads) == (count > 3 * BAND)

    async def bench(ctx):
        async def shaped(name, **fields):
            ctx.set(shapes.word, encode(Instruction(name, **fields)))
            ctx.set(shapes.start, 1)
            await ctx.tick()
            ctx.set(shapes.start, 0)
            while not ctx.get(shapes.done):
                await ctx.tick()
            await ctx.tick()

        for _ in range(12):
            tensor, shape, view = drawn(rng)
            for signal, value in ((shapes.block, tensor.block), (shapes.stride, tensor.stride),
                                  (shapes.top, tensor.top), (shapes.tall, tensor.rows), (shapes.wide, tensor.columns)):
                ctx.set(signal, value)
            await shaped("window" if isinstance(shape, Window) else "taps", **vars(shape))
            assert not ctx.get(shapes.wrong)
            assert (ctx.get(shapes.rows), ctx.get(shapes.columns)) == shape.size(tensor.rows, tensor.columns)
            ctx.set(Value.cast(shapes.before), ctx.get(Value.cast(shapes.shape)))
            ctx.set(Value.cast(shapes.known), ctx.get(Value.cast(shapes.kept)))
            ctx.set(shapes.known.row, view.row)
            ctx.set(shapes.known.column, view.column)
            await shaped("view")
            across = int(rng.integers(2))
            expected = places(view, SIDE).T if across else places(view, SIDE)
            for signal, value in ((patches.tensor.block, tensor.block), (patches.tensor.stride, tensor.stride),
                                  (Value.cast(patches.tensor.window), ctx.get(Value.cast(shapes.shape))),
                                  (patches.tensor.top, tensor.top), (patches.tensor.left, tensor.left),
                                  (patches.across, across), (patches.length, expected.shape[1]),
                                  (patches.rows, expected.shape[0]), (patches.start, 1)):
                ctx.set(signal, value)
            await ctx.tick()
            ctx.set(patches.start, 0)
            ctx.set(patches.go, 1)
            if across and isinstance(shape, Window):
                await banded(ctx, expected, segments(view, False, BAND, SIDE))
            else:
                await rows(ctx, expected, segments(view, bool(across), SIDE, SIDE))
            ctx.set(patches.go, 0)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
