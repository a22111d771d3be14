# amaranth: UnusedElaboratable=no
"""The core's precision control against golden's sequencer, at random times."""

import random
from collections import Counter

import numpy as np
import pytest
from amaranth.sim import Simulator
from narrowgauge.golden.blockfloat import BFPConverterParameters, convert
from narrowgauge.golden.core import Instruction, Sequencer, TrainerParameters
from narrowgauge.golden.core.instructions import KINDS, REGISTERS, encode
from narrowgauge.golden.core.sequencer import rounded
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.precision import NARROW, WIDE, AdaptiveParameters, decide, sum_chunks
from narrowgauge.hw.blockfloat import BFPConverter
from narrowgauge.hw.core.cycles import Cycles
from narrowgauge.hw.core.layouts import Geometry
from narrowgauge.hw.core.statistics import Statistics
from narrowgauge.hw.core.thresholds import Thresholds

TRAINING = REGISTERS.index("training")
LAST = (1 << 32) - 1


def geometry_of(**settings):
    return Geometry(TrainerParameters.from_json({"work": "bf16", "accumulator": "bf16"} | settings))


def simulate(component, testbench):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def drawn(rng):
    """Draw an instruction that precisions of cycles depend on."""
    name = rng.choice(["cyclic", "edge", "edge", "step", "step", "step", "step", "set"])
    if name == "cyclic":
        period = rng.choice([0, 1, 2, 3, 5, 7, LAST, rng.randrange(1 << 32)])
        return Instruction(name, kind=rng.randrange(3), low=rng.randrange(16), period=period)
    if name == "edge":
        return Instruction(name, kind=rng.randrange(3), value=rng.choice([0, 1, 2, 4, rng.randrange(1 << 32)]))
    if name == "step":
        return Instruction(name, next=1)
    return Instruction(name, register=TRAINING, value=rng.choice([5, LAST, LAST, LAST - 1, rng.randrange(1 << 32)]))


def accepted(state, instruction):
    """Let golden's sequencer execute an instruction; return whether it can."""
    try:
        state.issue(0, instruction)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("mantissa, seed", [(8, 1), (4, 2), (2, 3)])
def test_cycles_are_golden(mantissa, seed):
    """An instruction may come at any time, also while the one before is still counted with; some are refused."""
    rng, cycles, state, compared = random.Random(seed), Cycles(geometry_of(
        mantissa=mantissa, policies=["constant", "cyclic"])), Sequencer(16), 0

    async def run(ctx):
        nonlocal compared
        for _ in range(400):
            each = drawn(rng)
            fits = accepted(state, each)
            ctx.set(cycles.word, encode(each))
            await ctx.delay(1e-8)
            if each.name in ("cyclic", "edge"):
                assert ctx.get(cycles.wrong) == (not fits)
            port = {"step": cycles.next, "set": cycles.anew}.get(each.name, cycles.execute)
            ctx.set(port, fits)
            await ctx.tick()
            ctx.set(port, 0)
            ctx.set(cycles.step, state.registers["training"])
            await ctx.tick().repeat(rng.choice([1, 1, 2, 20, 130]))
            if rng.random() < 0.5:
                await ctx.tick().until(cycles.settled)
                widths = {kind: ctx.get(cycles.widths[number]) for number, kind in enumerate(KINDS)
                          if ctx.get(cycles.given) >> number & 1}
                assert widths == {kind: min(width, mantissa) for kind, width in state._widths().items()}
                compared += 1
        ctx.set(cycles.clear, 1)
        await ctx.tick()
        assert ctx.get(cycles.given) == 0

    simulate(cycles, run)
    assert compared > 50


@pytest.mark.parametrize("seed, guard", [(1, 8), (2, 8), (3, 0)])
def test_statistics_are_golden(seed, guard):
    """Of three tensors at random times: some have no groups, some zeros alone, some sums that saturate."""
    rng = np.random.default_rng(seed)
    parameters = AdaptiveParameters(exponent=4, guard=guard, count=1)
    unit, seen = Statistics(parameters, 3, 2), set()

    async def run(ctx):
        ctx.set(unit.clear, 1)
        await ctx.tick().repeat(3)
        ctx.set(unit.clear, 0)
        await ctx.tick().until(unit.ready)
        counted = {key: [] for key in range(3)}
        for _ in range(60):
            for _ in range(rng.integers(0, 40)):
                key, code = int(rng.integers(3)), int(np.clip(rng.normal(8, rng.choice([1, 6])), 0, 15))
                low, high = (0, 0) if rng.random() < 0.2 else rng.integers(0, 49, 2).tolist()
                for port, value in ((unit.key_counted, key), (unit.code, code), (unit.low, low), (unit.high, high),
                                    (unit.counted, 1)):
                    ctx.set(port, value)
                counted[key].append((code, low, high))
                await ctx.tick()
                ctx.set(unit.counted, 0)
                for _ in range(rng.choice([0, 0, 0, 1, 2, 3])):
                    await ctx.tick()
            key, threshold = int(rng.integers(3)), int(rng.choice([0, 256, 511, rng.integers(0, 512)]))
            ctx.set(unit.key, key)
            ctx.set(unit.threshold, threshold)
            ctx.set(unit.start, 1)
            await ctx.tick()
            ctx.set(unit.start, 0)
            while not ctx.get(unit.done):
                await ctx.tick()
            expected = None
            if counted[key]:
                numerator, quarter, saturated = sum_chunks(*(np.array(each) for each in zip(*counted[key])),
                                                           guard=guard, limit=parameters.limit)
                expected = decide(numerator, quarter, threshold)
                seen.update({expected, saturated})
            assert ctx.get(unit.none) == (not counted[key])
            assert ctx.get(unit.none) or ctx.get(unit.wide) == (expected == WIDE)
            counted[key] = []
            await ctx.tick()
            assert ctx.get(unit.ready)

    simulate(unit, run)
    assert seen == {NARROW, WIDE, False, True}


def asked(rng):
    """Draw an instruction that thresholds depend on."""
    name = rng.choice(["adaptive", "adaptive", "slope", "divisor", "step", "step", "step", "step"])
    wide = rng.choice([0, 1, 3, 1000, rng.randrange(1 << 48), (1 << 48) - 1])
    kind, code = rng.randrange(3), 2048 + rng.choice([0, 1, 7, 100, 511, 512, 2047, -1, -3, -2048, rng.randrange(512)])
    if name == "adaptive":
        return Instruction(name, kind=kind, layer=rng.choice([0, 1, 2, 3, 4, 31]), code=code, rest=wide,
                           wide=rng.randrange(2))
    if name == "slope":
        return Instruction(name, kind=kind, code=code, rest=wide)
    return Instruction(name, kind=kind, rest=wide) if name == "divisor" else Instruction(name, next=1)


@pytest.mark.parametrize("seed", [1, 2])
def test_thresholds_are_golden(seed):
    """Whatever slopes and rests are; a choice is asked for once a step, and has the threshold of the step."""
    rng = random.Random(seed)
    unit = Thresholds(geometry_of(policies=["constant", "adaptive"]))
    state, decided, seen = Sequencer(16, layers=4), {}, Counter()

    async def ask(ctx, kind, layer, measured):
        key, step = (KINDS[kind], layer), state.registers["training"]
        threshold = None if measured else {key: rounded(*found) for key, found in state.thresholds.items()}.get(key)
        for port, value in ((unit.kind, kind), (unit.use, 8 * layer), (unit.measured, measured), (unit.asks, 1)):
            ctx.set(port, value)
        answer, wide, waits, none = -1, rng.randrange(2), rng.choice([0, 5]), rng.random() < 0.2
        while not ctx.get(unit.answered):
            waits -= 1
            ctx.set(unit.choosable, waits <= 0)
            await ctx.delay(1e-8)
            if ctx.get(unit.choose):
                assert waits <= 0 and ctx.get(unit.choice.threshold) == threshold and answer < 0
                assert (ctx.get(unit.choice.kind), ctx.get(unit.choice.layer)) == (kind, layer)
                answer = 9
            ctx.set(unit.decided, answer == 1)
            ctx.set(unit.decided_wide, wide)
            ctx.set(unit.undecided, none)
            answer -= answer > 0
            await ctx.tick()
        assert ctx.get(unit.chosen) == (threshold is not None)
        if threshold is not None:
            fresh = decided.get(key, (None, 0))[0] != step
            assert fresh == (answer == 0)
            if fresh:
                decided[key] = step, state.firsts[key] == WIDE if none else wide
            assert ctx.get(unit.wide) == decided[key][1]
            seen[fresh, 0 < threshold < 511] += 1
        ctx.set(unit.asks, 0)
        await ctx.tick()

    async def run(ctx):
        for index in range(128):
            ctx.set(unit.clear, 1)
            ctx.set(unit.index, index)
            await ctx.tick()
        ctx.set(unit.clear, 0)
        for _ in range(400):
            each = asked(rng)
            fits = accepted(state, each)
            ctx.set(unit.word, encode(each))
            await ctx.delay(1e-8)
            if each.name == "adaptive":
                assert ctx.get(unit.beyond) == (not fits)
            assert not ctx.get(unit.wrong)
            while ctx.get(unit.busy):
                await ctx.tick()
            ctx.set(unit.next if each.name == "step" else unit.execute, fits)
            await ctx.tick()
            ctx.set(unit.next, 0)
            ctx.set(unit.execute, 0)
            ctx.set(unit.step, state.registers["training"])
            if rng.random() < 0.5:
                for _ in range(rng.randrange(1, 4)):
                    await ask(ctx, rng.randrange(3), rng.choice([0, 1, 2, 3, 3, 5]), int(rng.random() < 0.1))

    simulate(unit, run)
    assert set(seen) == {(fresh, inside) for fresh in (False, True) for inside in (False, True)}


@pytest.mark.parametrize("work, settings", [
    ("bf16", {}), ("fp16", {"exponent": 4, "mantissa": 6}), ("fp32", {"exponent": 5, "random_bits": 2}),
    ("fp16", {"exponent": 8, "group": 32, "corrected": True}), ("bf16", {"exponent": 3, "mantissa": 8})])
def test_truncated_magnitudes_are_golden(work, settings):
    """Of any numbers, under either precision and any rounding: they are what the converter makes of them in 4 bits."""
    rng, work = np.random.default_rng(1), PRESETS[work]
    parameters = BFPConverterParameters(work=work, **settings)
    converter, count = BFPConverter(parameters, addressed=True, counted=True), 120
    values = rng.normal(size=(count, parameters.group)) * 2.0 ** rng.integers(-12, 12, (count, 1))
    values[rng.random(values.shape) < 0.3] *= 2.0**-9
    codes = work.encode(values).astype(np.int64)
    wild = rng.random((count, 1)) < 0.2
    codes = np.where(wild, rng.integers(0, 1 << work.width, codes.shape), codes)
    codes[rng.random(codes.shape) < 0.05] = 0
    codes[::9] &= (1 << work.mantissa) - 1  # subnormal
    precisions, roundings = rng.choice([2, 4], count), rng.integers(0, 3, count)
    with np.errstate(all="ignore"):
        exponents, mantissas, _, _ = convert(parameters, codes, np.full(count, WIDE), np.full(count, 1))
    found = []

    async def run(ctx):
        ctx.set(converter.o.ready, 1)
        for row, precision, rounding in zip(codes.tolist(), precisions.tolist(), roundings.tolist()):
            ctx.set(converter.i.payload, {"elements": row, "precision": precision, "rounding": rounding})
            ctx.set(converter.i.valid, 1)
            await ctx.tick()
            found.append(ctx.get(converter.truncated))
        for _ in range(parameters.latency):
            await ctx.tick()
            found.append(ctx.get(converter.truncated))

    simulate(converter, run)
    first = parameters.latency - converter.words_before - 1
    got = [[each >> WIDE * lane & 15 for lane in range(parameters.group)] for each in found[first:first + count]]
    np.testing.assert_array_equal(got, np.abs(mantissas))
    assert len(set(np.abs(mantissas).ravel().tolist())) == 16 and len(set(exponents.tolist())) > 4
