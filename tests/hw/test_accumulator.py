# amaranth: UnusedElaboratable=no
"""The accumulator bank against sums in exact fractions, exhaustively for small formats."""

import random
from fractions import Fraction
from functools import lru_cache

import pytest
from amaranth.sim import Simulator
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.hw import verilog
from narrowgauge.hw.accumulator import AccumulatorBank
from narrowgauge.sim.vectors import Vectors, pack
from units import run_component


def two_to(exponent):
    return Fraction(1 << max(exponent, 0), 1 << max(-exponent, 0))


def value_of(fmt, code):
    """Of a finite code."""
    field, fraction = (code >> fmt.mantissa) & ((1 << fmt.exponent) - 1), code & ((1 << fmt.mantissa) - 1)
    significand = fraction + (1 << fmt.mantissa) if field else fraction
    sign = -1 if code >> (fmt.width - 1) else 1
    return sign * significand * two_to(max(field, 1) - fmt.bias - fmt.mantissa)


def is_infinite(fmt, code):
    return (code >> fmt.mantissa) & ((1 << fmt.exponent) - 1) == (1 << fmt.exponent) - 1


@lru_cache(1 << 16)
def rounded(fmt, total):
    """The code of an exact sum: to nearest even, gradual underflow, Inf beyond the finite; an exact zero is +0."""
    sign = (total < 0) << (fmt.width - 1)
    total = abs(total)
    smallest = fmt.emin - fmt.mantissa
    exponent = total.numerator.bit_length() - total.denominator.bit_length() - 1 if total else 0
    if total and two_to(exponent + 1) <= total:
        exponent += 1
    unit = max(exponent - fmt.mantissa, smallest)
    q = round(total / two_to(unit))  # Python rounds a Fraction to nearest even
    if q == 2 << fmt.mantissa:
        q, unit = q >> 1, unit + 1
    code = q if q < 1 << fmt.mantissa else (unit - smallest + 1 << fmt.mantissa) + q - (1 << fmt.mantissa)
    return min(code, fmt.inf_code) | sign


def added(bank, code, integer, field):
    """What a sum becomes, by the text of the contract."""
    if is_infinite(bank.fmt, code):
        return code
    addend = integer * two_to(field - bank.fmt.bias - (bank.integer - 2))
    return rounded(bank.fmt, value_of(bank.fmt, code) + addend)


def payloads(bank, transfers):
    """Of (integer, field, slot, first, last)."""
    columns = zip(*transfers)
    return pack(*zip(columns, (bank.integer, bank.field, (bank.sums - 1).bit_length(), 1, 1)))


def expectation(bank, transfers, oracle=added):
    """The Vectors of transfers, every emitted sum by the oracle."""
    sums, outputs, origin, overflow = [0] * bank.sums, [], [], False
    for index, (integer, field, slot, first, last) in enumerate(transfers):
        before = 0 if first else sums[slot]
        sums[slot] = oracle(bank, before, integer, field)
        overflow |= is_infinite(bank.fmt, sums[slot]) and not is_infinite(bank.fmt, before)
        if last:
            outputs.append(sums[slot] | slot << bank.fmt.width)
            origin.append(index)
    return Vectors(payloads(bank, transfers), outputs, origin, {"overflow": int(overflow)},
                   lambda index: f"(integer, field, slot, first, last) = {transfers[index]}")


def lows_and_highs(bank):
    limit = 1 << (bank.integer - 1)
    return range(1 - limit, limit), range(-(1 << (bank.field - 1)), 1 << (bank.field - 1))


def loads(bank, code):
    """The additions, none of which rounds by accident, that make a sum `code` out of +0."""
    integers, fields = lows_and_highs(bank)
    sign = -1 if code >> (bank.fmt.width - 1) else 1
    if is_infinite(bank.fmt, code):
        return [(sign * integers[-1], fields[-1])]
    total = abs(value_of(bank.fmt, code))
    if not total:  # -0 is what a negative sum becomes that is too small
        return [(sign * (code != 0), fields[0])]
    bits, steps = bank.integer - 1, []
    significand, unit = total.numerator, 1 - total.denominator.bit_length()
    while significand:
        drop = max(significand.bit_length() - bits, 0)
        steps.append((sign * (significand >> drop), unit + drop + bank.fmt.bias + bank.integer - 2))
        significand &= (1 << drop) - 1
    return steps


def every_case(bank):
    """Transfers that add every integer at every field to every sum; the cases side by side in all slots."""
    integers, fields = lows_and_highs(bank)
    codes = [code for code in range(1 << bank.fmt.width)
             if code & ~(1 << (bank.fmt.width - 1)) <= bank.fmt.inf_code]
    cases = [(code, integer, field) for code in codes for integer in integers for field in fields]
    transfers = []
    for start in range(0, len(cases), bank.sums):
        part = [[*loads(bank, code), (integer, field)] for code, integer, field in cases[start:start + bank.sums]]
        for step in range(max(map(len, part))):
            transfers += [(*steps[step], slot, step == 0, step == len(steps) - 1)
                          for slot, steps in enumerate(part) if step < len(steps)]
    return transfers


def small(fmt, integer, field, *, sweep=False):
    name = f"e{fmt.exponent}m{fmt.mantissa}b{fmt.bias}_i{integer}_f{field}"
    return pytest.param(fmt, integer, field, id=name, marks=[pytest.mark.sweep] if sweep else [])


@pytest.mark.parametrize("fmt, integer, field", [
    small(Float(3, 2), 4, 5, sweep=True),  # integer and significand of equal width
    small(Float(2, 2), 6, 5, sweep=True),  # the integer wider: bits below the last place of the sum
    small(Float(3, 3), 3, 5),  # the significand wider
    small(Float(3, 2, bias=-2), 4, 5, sweep=True),  # the fields' zero elsewhere
    small(Float(3, 2), 6, 6, sweep=True),
    small(Float(3, 4), 4, 5, sweep=True),
    small(Float(4, 3), 5, 6, sweep=True),
])
def test_every_integer_added_at_every_field_to_every_sum(fmt, integer, field, request):
    name = request.node.callspec.id.replace("-", "n")
    bank = AccumulatorBank(fmt, integer=integer, field=field, sums=16)
    transfers = every_case(bank)
    run_component(bank, f"bank_{name}", expectation(bank, transfers), idle=0, busy=0)
    print(f"{name}: {len(transfers)} transfers")


@pytest.mark.parametrize("fmt, sums", [
    pytest.param(PRESETS["bf16"], 2, id="bf16-2", marks=pytest.mark.sweep),
    pytest.param(Float(4, 3), 16, id="e4m3-16")])
def test_sums_under_way_are_waited_for_whatever_the_stalls(fmt, sums):
    bank = AccumulatorBank(fmt, integer=9, field=fmt.exponent + 2, sums=sums)
    dice = random.Random(sums)
    transfers, middle = [], fmt.bias
    for index in range(1500):
        slot = dice.randrange(sums) if dice.random() < 0.5 else dice.randrange(2)
        middle = dice.choice([1, fmt.bias, 2 * fmt.bias]) if index % 50 == 0 else middle
        transfers.append((dice.randint(-255, 255), middle + dice.randint(-6, 6), slot,
                          index < sums or dice.random() < 0.1, dice.random() < 0.6))
        if index < sums:
            transfers[-1] = (*transfers[-1][:2], index, True, True)
    vectors = expectation(bank, transfers)
    name = f"bank_{fmt.exponent}_{fmt.mantissa}_{sums}"
    text = verilog.emit(bank, name)
    for idle, busy in ((0, 0), (0.3, 0.3), (0.7, 0.1), (0.1, 0.8)):
        run_component(bank, name, vectors, text, idle=idle, busy=busy)


def drive(bank, transfers):
    """Without stalls, in pysim: when each transfer was accepted, and ``(cycle, code, overflow)`` of each output."""
    waiting, accepted, emitted = payloads(bank, transfers), [], []

    async def testbench(ctx):
        ctx.set(bank.o.ready, 1)
        cycle = 0
        while cycle < 200 + 20 * len(transfers) and cycle - (accepted or [cycle])[-1] < 60:
            if len(accepted) < len(waiting):
                ctx.set(bank.i.payload.as_value(), waiting[len(accepted)])
            ctx.set(bank.i.valid, len(accepted) < len(waiting))
            _, _, ready, sent, valid, code, overflow = await ctx.tick().sample(
                bank.i.ready, bank.i.valid, bank.o.valid, bank.o.payload.value, bank.overflow)
            if sent and ready:
                accepted.append(cycle)
            if valid:
                emitted.append((cycle, code, overflow))
            cycle += 1

    simulator = Simulator(bank)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert len(accepted) == len(waiting)
    return accepted, emitted


E4M3 = Float(4, 3)


def chain(*additions, fmt=E4M3):
    """Emit the sum after each (integer, field), all to one slot; check it, and return codes and overflow bits."""
    bank = AccumulatorBank(fmt, integer=5, field=6, sums=2)
    transfers = [(*addition, 1, index == 0, True) for index, addition in enumerate(additions)]
    codes = [code for _, code, _ in drive(bank, transfers)[1]]
    oracle = expectation(bank, transfers)
    assert codes == [each & ((1 << fmt.width) - 1) for each in oracle.outputs]
    return codes


# A field of 7 (the bias) gives an integer of 8 the value 1.

def test_a_sum_that_cancels_is_plus_zero():
    assert chain((-9, 7), (9, 7)) == [0x80 | 0x39, 0]
    assert chain((9, 7), (-9, 7)) == [0x39, 0]


def test_adding_zero_turns_minus_zero_into_plus_zero():
    assert chain((-1, -20), (0, 7)) == [0x80, 0]


def test_zero_at_any_field_changes_nothing():
    assert chain((11, 5), (0, 31), (0, -32), (0, 5)) == [chain((11, 5))[0]] * 4


def test_a_negative_sum_below_half_the_smallest_subnormal_is_minus_zero():
    # The smallest subnormal is 2**-9: an integer of 8 at field -2, so half of it at field -3.
    assert chain((-8, -3)) == [0x80]
    assert chain((-9, -3)) == [0x81]
    assert chain((8, -3)) == [0]
    assert chain((9, -3)) == [1]


def test_subnormal_sums_are_exact_and_become_normal():
    assert chain((8, -2), (8, -1), (8, 0), (8, -2)) == [1, 3, 7, 8]


@pytest.mark.parametrize("sign", [1, -1], ids=["plus", "minus"])
def test_an_infinite_sum_stays_until_a_first(sign):
    inf = 0x78 | (0x80 if sign < 0 else 0)
    assert chain((sign * 15, 14), (sign * 8, 10), (-sign * 15, 31), (-sign * 15, 14), (0, 0)) == [inf - 1] + [inf] * 4
    bank = AccumulatorBank(E4M3, integer=5, field=6, sums=2)
    transfers = [(sign * 15, 20, 0, True, True), (8, 7, 0, True, True)]
    assert [code for _, code, _ in drive(bank, transfers)[1]] == [inf, 0x38]


def test_half_a_unit_above_the_largest_finite_sum_is_infinite():
    # The largest is 15 * 2**4, its unit 2**4, half of it an integer of 8 at field 7 + 3.
    assert chain((15, 14), (7, 10)) == [0x77, 0x77]
    assert chain((15, 14), (8, 10)) == [0x77, 0x78]


@pytest.mark.parametrize("fmt", [E4M3, PRESETS["fp32"]], ids=["e4m3", "fp32"])
def test_latency_interval_and_recurrence_are_as_advertised(fmt):
    bank = AccumulatorBank(fmt, integer=9, field=fmt.exponent + 2, sums=16)
    rotating = [(index % 200 + 1, fmt.bias, index % 16, index < 16, True) for index in range(64)]
    accepted, emitted = drive(bank, rotating)
    assert accepted == [accepted[0] + bank.interval * index for index in range(64)]
    assert [cycle for cycle, _, _ in emitted] == [cycle + bank.latency for cycle in accepted]
    same = [(index + 1, fmt.bias, 5, index == 0, True) for index in range(20)]
    accepted, emitted = drive(bank, same)
    assert emitted[0][0] == accepted[0] + bank.latency
    gaps = [after - before for (before, _, _), (after, _, _) in zip(emitted, emitted[1:])]
    assert gaps == [bank.recurrence] * 19
    # And that is how often they are accepted, once those that may wait inside do.
    assert {after - before for before, after in zip(accepted[5:], accepted[6:])} == {bank.recurrence}
