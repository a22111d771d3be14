# amaranth: UnusedElaboratable=no
"""The frame of a stream unit, and stages with lists, in Amaranth's own simulator."""

from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.hdl import C, Cat, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In
from amaranth.sim import Simulator
from narrowgauge.hw.pipeline import stage
from narrowgauge.hw.unit import StreamUnit

LANES, WIDTH = 3, 4


class Reverser(StreamUnit):
    """Gives the lanes back in the other order, each with its bits inverted, and reports what came in."""

    def __init__(self, **members):
        self.parameters = SimpleNamespace(latency=3)
        lanes = data.ArrayLayout(WIDTH, LANES)
        super().__init__({"lanes": lanes, "tag": 2}, {"lanes": lanes, "tag": 2}, **members)

    def elaborate(self, platform):
        m = Module()
        advance = self.handshake(m)
        now = stage(m, advance, "taken", valid=self.i.valid, lanes=list(self.i.payload.lanes), tag=self.i.payload.tag)
        now = stage(m, advance, "inverted", now, lanes=[~lane for lane in reversed(now.lanes)])
        self.emit(m, advance, now.valid, lanes=Cat(now.lanes), tag=now.tag)
        done = advance & now.valid
        self.report(m, invalid=done & (now.tag == 1), overflow=done & (now.tag == 2))
        return m


def simulate(unit, testbench):
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("idle, busy", [(0, 0), (0, 0.7), (0.7, 0), (0.5, 0.5)])
def test_every_transfer_comes_out_once_and_in_order(idle, busy):
    rng = np.random.default_rng(3)
    lanes, tags = rng.integers(0, 1 << WIDTH, (60, LANES)).tolist(), rng.integers(0, 4, 60).tolist()
    unit, found = Reverser(), []

    async def testbench(ctx):
        given = 0
        for _ in range(2000):
            offered = given < len(tags) and (bool(ctx.get(unit.i.valid)) or rng.random() >= idle)
            ctx.set(unit.i.valid, offered)
            if offered:
                ctx.set(unit.i.payload, {"lanes": lanes[given], "tag": tags[given]})
            ctx.set(unit.o.ready, bool(rng.random() >= busy))
            accepted = offered and ctx.get(unit.i.ready)
            if ctx.get(unit.o.valid) and ctx.get(unit.o.ready):
                found.append(([ctx.get(unit.o.payload.lanes[k]) for k in range(LANES)], ctx.get(unit.o.payload.tag)))
            await ctx.tick()
            given += accepted
            if accepted:
                ctx.set(unit.i.valid, 0)

    simulate(unit, testbench)
    assert found == [([~lane & 15 for lane in reversed(row)], tag) for row, tag in zip(lanes, tags)]
    assert unit.latency == 3 and unit.interval == 1


def test_a_flag_stays_until_it_is_cleared_and_a_condition_wins():
    unit, seen = Reverser(), []

    async def testbench(ctx):
        ctx.set(unit.o.ready, 1)
        # Cycle: the tag that is taken, and whether the flags are cleared. A transfer counts two cycles later.
        for tag, clear in ((1, 0), (0, 0), (1, 0), (0, 1), (2, 1), (0, 0), (0, 1), (0, 0)):
            ctx.set(unit.i.valid, tag != 0)
            ctx.set(unit.i.payload.tag, tag)
            ctx.set(unit.status_clear, clear)
            await ctx.tick()
            seen.append((ctx.get(unit.invalid), ctx.get(unit.overflow)))

    simulate(unit, testbench)
    assert seen == [(0, 0), (0, 0), (1, 0), (0, 0), (1, 0), (1, 0), (0, 1), (0, 1)]


def test_ports():
    assert set(Reverser().signature.members) == {"i", "o", "invalid", "overflow", "status_clear"}
    assert set(Reverser(status=()).signature.members) == {"i", "o"}
    assert set(Reverser(status=("overflow",), enable=In(1)).signature.members) == {
        "i", "o", "overflow", "status_clear", "enable"}


def test_a_list_of_values_of_unequal_widths_is_refused():
    with pytest.raises(AssertionError):
        stage(Module(), C(1, 1), "name", values=[Signal(3), Signal(2)])


def test_a_list_is_one_register_and_handed_on():
    m, values = Module(), [Signal(3), Signal(3)]
    first = stage(m, C(1, 1), "first", values=values, valid=Signal(2))
    second = stage(m, C(1, 1), "second", first)
    assert [len(value) for value in second.values] == [3, 3] and len(second.valid) == 2
    assert second.values[0].value is second.values[1].value and second.values[0].value.name == "second_values"
