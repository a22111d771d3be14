"""What lies between logits and errors in hardware: distances, exponentials, their sum, its reciprocal and logarithm.

All run without stalls: whoever reads a logit has a place for what becomes of it.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import memory

from ...golden.softmax import SoftmaxParameters, tables
from ..multiplier import Multiplier
from ..pipeline import stage
from ..rounding import normalise, unpack
from ..trees import sum_with_carry

__all__ = ["ALWAYS", "distances", "exponentials", "looked_up", "multipliers", "normalised", "phases"]

ALWAYS = C(1, 1)


def multipliers(parameters: SoftmaxParameters) -> dict[str, dict[str, Any]]:
    """Return what `Multiplier` and `block` take, for each kind of product."""
    p, table = parameters, tables(parameters)
    slope = max(slope for points in (table.powers, table.reciprocals, table.logarithms) for _, slope in _points(points))
    widths = {"turns": p.fraction, "rises": max(p.phase - p.index, slope.bit_length()), "products": p.kept + 1}
    return {name: {"width": width, "before": True, "behind": True, "kind": "dsp"} for name, width in widths.items()}


def _points(values: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the points of a table, each with its distance from the next point; the last point has none."""
    return [(start, start - end) for start, end in zip(values, values[1:])]


def distances(m: Module, parameters: SoftmaxParameters, now: SimpleNamespace) -> tuple[SimpleNamespace, Value]:
    """Find the distances of a row's logits from the greatest, which goes before them.

    Returns their stage, and their fractions, a cycle earlier.
    """
    p, fmt = parameters, parameters.format
    greatest = Signal.like(now.order, name="greatest_scanned")
    with m.If(now.start):
        m.d.sync += greatest.eq(now.order)

    # Fixed point: the first bit of the largest numbers is at the top, one bit for rounding below the last place.
    negative = ~now.order[-1]
    parts = unpack(m, "scanned", fmt, Cat(now.order[:-1] ^ negative.replicate(len(now.order) - 1), negative))
    whole = p.field_top - fmt.bias + 1
    width = max(whole, 1) + p.fraction + 1
    below = max(1 - whole, 0)  # how far the largest numbers are from a first bit worth 1
    room = Signal(signed(max(fmt.exponent, abs(p.field_top).bit_length()) + 2))
    amount = Signal(range((1 << fmt.exponent) + below + (1 << width.bit_length())))
    m.d.comb += [room.eq(p.field_top - parts.field), amount.eq(room + below)]
    large, bits = room[-1], width.bit_length()
    now = stage(m, ALWAYS, "place", now, drop=("order",), negative=negative ^ now.start, large=large,
                equal=now.order == greatest, significand=parts.significand, amount=amount[:bits],
                far=amount[bits:].any() | large)
    spare = width - len(now.significand)
    placed = Cat(C(0, spare), now.significand) if spare >= 0 else now.significand[-spare:]
    half = bits // 2
    now = stage(m, ALWAYS, "coarse", now, drop=("significand",),
                value=_right(Mux(now.far, 0, placed), now.amount, range(half, bits)))
    now = stage(m, ALWAYS, "fine", now, drop=("amount", "far"), value=_right(now.value, now.amount, range(half)))

    # The bit below the last place is rounded up by the carry.
    greatest_fixed = Signal(signed(width + 1))
    beside = Signal()
    rounded, value = now.value[0], now.value[1:]
    difference = Signal(signed(width + 2))
    m.d.comb += difference.eq(sum_with_carry(
        Mux(now.start, 0, greatest_fixed), Cat(value ^ (~now.negative).replicate(width - 1), ~now.negative)
        .as_signed(), rounded ^ ~now.negative))
    with m.If(now.start):
        m.d.sync += [greatest_fixed.eq(difference), beside.eq(now.large)]
    now = stage(m, ALWAYS, "apart", now, drop=("negative", "large", "value"), difference=difference,
                beyond=now.large | beside)
    size = p.loss.bits - 1
    distance = Signal(size)
    above = now.beyond
    if width + 2 > size:
        above = above | now.difference[size:].any()
    m.d.comb += distance.eq(Mux(now.equal, 0, Cat(now.difference[:size]) | above.replicate(size)))
    now = stage(m, ALWAYS, "distance", now, drop=("difference", "beyond", "equal"), distance=distance)
    return now, distance[:p.fraction]


def phases(m: Module, parameters: SoftmaxParameters, now: SimpleNamespace, rest: Value) -> SimpleNamespace:
    """Multiply distances by log2(e): return a stage with the integer part ``n`` and the fraction ``f``.

    The fraction of a distance comes as `rest`, for the register inside the multiplier, beside that of the distance.
    """
    p, constants = parameters, tables(parameters)
    m.submodules.turns = turns = Multiplier(**multipliers(p)["turns"])
    m.d.comb += [turns.a.eq(rest), turns.b.eq(constants.factor), turns.enable.eq(1)]
    bits = constants.wholes[-1].bit_length() + 1
    whole = Array(C(each, bits) for each in constants.wholes)[now.distance[p.fraction:]]
    up = p.phase - p.fraction
    now = stage(m, ALWAYS, "whole", valid=now.valid, target=now.target, last=now.last,
                value=(whole + Cat(C(0, up), now.distance[:p.fraction]))[:bits])
    turned = (now.value + turns.p[2 * p.fraction + 1 - p.phase:2 * p.fraction])[:bits]
    return stage(m, ALWAYS, "turned", now, drop=("value",), f=turned[:p.phase], n=turned[p.phase:])


def _interpolated(m: Module, parameters: SoftmaxParameters, name: str, points: list[tuple[int, int]], address: Value,
                  rest: Value, now: SimpleNamespace) -> SimpleNamespace:
    """Interpolate between points of a table: return a stage with ``value``, four cycles behind the `address`."""
    p = parameters
    low, unit, slope = p.phase - p.index, p.value + 1, max(slope for _, slope in points).bit_length()
    table = memory.Memory(shape=unit + slope, depth=len(points),
                          init=[start | slope << unit for start, slope in points])
    rises = Multiplier(**multipliers(p)["rises"])
    m.submodules[f"{name}_table"], m.submodules[f"{name}_rises"] = table, rises
    port = table.read_port()
    m.d.comb += [port.addr.eq(address), port.en.eq(1)]
    now = stage(m, ALWAYS, f"{name}_address", now, drop=("f",), rest=rest)
    m.d.comb += [rises.a.eq(now.rest), rises.b.eq(port.data[unit:]), rises.enable.eq(1)]
    now = stage(m, ALWAYS, f"{name}_slope", now, drop=("rest",), base=port.data[:unit])
    now = stage(m, ALWAYS, f"{name}_rise", now)
    return stage(m, ALWAYS, f"{name}_value", now, drop=("base",),
                 value=(now.base - rises.p[low:low + slope])[:unit])


def exponentials(m: Module, parameters: SoftmaxParameters, now: SimpleNamespace) -> SimpleNamespace:
    """Return a stage with ``power``: two to the power of minus ``n`` and the fraction ``f``."""
    p = parameters
    low = p.phase - p.index
    now = _interpolated(m, p, "power", _points(tables(p).powers), now.f[low:], now.f[:low], now)
    spare = p.guard - p.value
    aligned = Cat(C(0, spare), now.value) if spare > 0 else now.value
    half = len(now.n) // 2
    now = stage(m, ALWAYS, "shift", now, drop=("value",), power=_right(aligned, now.n, range(half, len(now.n))))
    power = _right(now.power, now.n, range(half))
    return stage(m, ALWAYS, "power", now, drop=("n",), power=power[-spare:] if spare < 0 else power)


def normalised(m: Module, parameters: SoftmaxParameters, now: SimpleNamespace) -> tuple[Value, Value, Value]:
    """Add exponentials and normalise their sum, 2**k * (1 + f), at the end of each row.

    Returns ``f`` and ``k``, which stay for two cycles, and when they have come. The rows' ends are two cycles
    apart, because the greatest logit goes before each row.
    """
    p = parameters
    whole = p.classes.bit_length()
    sums = Signal(whole + p.guard)
    ended = Signal(name="sum_ends")
    m.d.sync += ended.eq(now.valid & now.last)
    with m.If(ended):
        m.d.sync += sums.eq(0)
    with m.Elif(now.valid):
        m.d.sync += sums.eq(sums + now.power)
    # With 2**bits whole bits, the shift's complement is k.
    bits = (whole - 1).bit_length()
    shifts = [1 << place for place in reversed(range(bits))]
    half = (bits + 1) // 2
    value, first, _, _ = normalise(m, "sum_coarse", Cat(sums, C(0, (1 << bits) - whole)), shifts[:half],
                                   need=p.phase + 1 + sum(shifts[half:]))
    coarse = stage(m, ALWAYS, "sum_moved", valid=ended, value=value, taken=Cat(reversed(first)))
    value, second, _, _ = normalise(m, "sum_fine", coarse.value, shifts[half:])
    fine = stage(m, coarse.valid, "sum", f=value[-1 - p.phase:-1], k=~Cat(*reversed(second), coarse.taken))
    come = Signal(name="sum_come")
    m.d.sync += come.eq(coarse.valid)
    return fine.f, fine.k, come


def looked_up(m: Module, parameters: SoftmaxParameters, f: Value, k: Value, come: Value) -> SimpleNamespace:
    """Look up the reciprocal of a normalised sum, and then its logarithm.

    Returns a namespace: ``row``, which is ``valid``, of the reciprocal, the logarithm without its octaves, and k.
    """
    p = parameters
    low = p.phase - p.index
    logarithm = Signal()
    m.d.sync += logarithm.eq(come)
    points = _points(tables(p).reciprocals) + _points(tables(p).logarithms)
    now = _interpolated(m, p, "sum", points, Cat(f[low:], logarithm), f[:low],
                        SimpleNamespace(valid=logarithm, k=k))
    before = stage(m, ALWAYS, "reciprocal", value=_right(now.value[p.value - p.kept:], now.k, range(len(k))))
    return SimpleNamespace(row=Cat(before.value, now.value, now.k), valid=now.valid)


def _right(value: Value, amount: Value, places: range) -> Value:
    """Return `value` shifted right by some bits of `amount`."""
    for place in reversed(places):
        moved = value[1 << place:]
        value = Mux(amount[place], moved if len(moved) else 0, value)[:len(value)]
    return value
