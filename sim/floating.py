"""Vectors for the floating-point units: random with directed places, and recorded."""

import numpy as np

from ..golden import floating
from . import recorded
from .operands import codes_of, gemms_of
from .vectors import Vectors, pack, unpack

__all__ = [
    "adder_random", "adder_recorded", "adder_vectors", "cast_random", "cast_recorded", "cast_vectors", "fma_random",
    "fma_recorded", "fma_vectors", "mac_operands", "mac_random", "mac_recorded", "mac_vectors", "multiplier_random",
    "multiplier_recorded", "multiplier_vectors",
]


def random_codes(rng, fmt, count, field=None):
    """Random codes of every class; `field` (signed, any) is where finite ones of them shall lie."""
    fields = (1 << fmt.exponent) - 1
    anywhere = rng.integers(0, fields + 1, count)
    field = anywhere if field is None else np.where(rng.random(count) < 0.1, anywhere, np.clip(field, 0, fields))
    fraction = rng.integers(0, 1 << fmt.mantissa, count)
    # Short fractions are where ties and exact values are; all-ones fractions carry out.
    short, kind = rng.integers(0, fmt.mantissa + 1, count), rng.random(count)
    fraction = np.where(kind < 0.35, fraction >> short << short, fraction)
    fraction = np.where(kind > 0.85, (1 << fmt.mantissa) - 1 >> short << short, fraction)
    codes = field << fmt.mantissa | fraction
    # Few Infs and NaNs: there is little to see in their results.
    codes = np.where((codes > fmt.max_code) & (rng.random(count) < 0.9), codes - (1 << fmt.mantissa), codes)
    codes |= rng.integers(0, 2, count) << (fmt.width - 1)
    return np.where(rng.random(count) < 0.06, _ends(rng, fmt, count), codes)


def _ends(rng, fmt, count):
    """Zero, the ends of subnormal and of normal numbers, Inf and NaN, of both signs."""
    ends = np.array([0, 1, (1 << fmt.mantissa) - 1, 1 << fmt.mantissa, fmt.max_code,
                     fmt.inf_code or fmt.max_code, fmt.nan_code or 0])
    return ends[rng.integers(0, len(ends), count)] | rng.integers(0, 2, count) << (fmt.width - 1)


def _meet(rng, count, *operands):
    """Let ends meet each other in some transfers; `operands` are pairs of codes and their format."""
    rows = rng.random(count) < 0.04
    return tuple(np.where(rows, _ends(rng, fmt, count), codes) for codes, fmt in operands)


def field_of(fmt, codes):
    return np.maximum(codes >> fmt.mantissa & ((1 << fmt.exponent) - 1), 1)


def near_of(rng, fmt, codes):
    """Some of the codes a few units away: differences that cancel."""
    moved = np.clip((codes & fmt.max_code) + rng.integers(-3, 4, len(codes)), 0, fmt.max_code)
    return moved | codes & (1 << (fmt.width - 1))


def adder_random(parameters, count, seed):
    """Return random transfers for ``float-adder``: arguments of `adder_vectors`."""
    rng, fmt = np.random.default_rng(seed), parameters.format
    a = random_codes(rng, fmt, count)
    reach = fmt.mantissa + 4
    b = random_codes(rng, fmt, count, field_of(fmt, a) + rng.integers(-reach, reach + 1, count))
    b = np.where(rng.random(count) < 0.1, near_of(rng, fmt, a), b)
    return *_meet(rng, count, (a, fmt), (b, fmt)), rng.integers(0, 2, count)


def adder_vectors(parameters, a, b, subtract):
    """Return the Vectors of transfers, with what the golden model makes of them."""
    width = parameters.format.width
    return _vectors(parameters.format, floating.adder(parameters, a, b, subtract),
                    {"a": (a, width), "b": (b, width), "subtract": (subtract, 1)})


def multiplier_random(parameters, count, seed):
    """Return random transfers for ``float-multiplier``: arguments of `multiplier_vectors`."""
    return _factors(np.random.default_rng(seed), parameters.format, parameters.result, count)


def _factors(rng, fmt, result, count):
    """Two arrays of codes; half of the products are near one of the ends of the result format, or beyond."""
    a = random_codes(rng, fmt, count)
    ends = np.array([result.emin - result.mantissa, result.emin, result.emax])
    target = ends[rng.integers(0, 3, count)] + rng.integers(-3, 4, count) + 2 * fmt.bias - field_of(fmt, a)
    b = np.where(rng.random(count) < 0.5, random_codes(rng, fmt, count, target), random_codes(rng, fmt, count))
    return _meet(rng, count, (a, fmt), (b, fmt))


def multiplier_vectors(parameters, a, b):
    """Return the Vectors of transfers, with what the golden model makes of them."""
    width = parameters.format.width
    return _vectors(parameters.result, floating.multiplier(parameters, a, b), {"a": (a, width), "b": (b, width)})


def fma_random(parameters, count, seed):
    """Return random transfers for ``float-fma``: arguments of `fma_vectors`."""
    rng, fmt, sums = np.random.default_rng(seed), parameters.format, parameters.accumulator
    a, b = _factors(rng, fmt, sums, count)
    # The addend: around the product, as far as either reaches below the other; or minus the product, nearly.
    reach = 2 * fmt.mantissa + sums.mantissa + 6
    product = field_of(fmt, a) + field_of(fmt, b) - 2 * fmt.bias + sums.bias
    c = random_codes(rng, sums, count, product + rng.integers(-reach, reach + 1, count))
    rounded = floating.multiply(a, b, fmt, result=sums).astype(np.int64)
    opposite = near_of(rng, sums, rounded ^ 1 << (sums.width - 1))
    c = np.where(rng.random(count) < 0.15, opposite, c)
    return _meet(rng, count, (a, fmt), (b, fmt), (c, sums))


def fma_vectors(parameters, a, b, c):
    """Return the Vectors of transfers, with what the golden model makes of them."""
    width, sums = parameters.format.width, parameters.accumulator
    return _vectors(sums, floating.fused(parameters, a, b, c), {"a": (a, width), "b": (b, width), "c": (c, sums.width)})


def cast_random(parameters, count, seed):
    """Return random transfers for ``float-cast``: arguments of `cast_vectors`."""
    rng, fmt, result = np.random.default_rng(seed), parameters.format, parameters.result
    ends = np.array([result.emin - result.mantissa, result.emin, result.emax])
    field = ends[rng.integers(0, 3, count)] + rng.integers(-3, 4, count) + fmt.bias
    return (np.where(rng.random(count) < 0.5, random_codes(rng, fmt, count, field), random_codes(rng, fmt, count)),)


def cast_vectors(parameters, a):
    """Return the Vectors of transfers, with what the golden model makes of them."""
    return _vectors(parameters.result, floating.caster(parameters, a), {"a": (a, parameters.format.width)})


def mac_random(parameters, count, seed):
    """Return random transfers for ``float-mac``: arguments of `mac_vectors`."""
    rng, fmt, sums = np.random.default_rng(seed), parameters.format, parameters.accumulator
    a, b = _factors(rng, fmt, sums, count)
    slot = rng.integers(0, parameters.accumulators, count)
    first, last = rng.random(count) < 0.15, rng.random(count) < 0.5
    # Neighbours in a sum: many have one size, some cancel, and few are special and end the sum.
    for k in range(parameters.accumulators):
        rows = np.flatnonzero(slot == k)
        first[rows[:1]] = True
        source = rows[np.maximum(np.arange(len(rows)) - 1, 0)]
        kind = rng.random(len(rows))
        near, opposite = kind < 0.6, kind < 0.15
        span = rng.integers(-2, 3, len(rows)) << fmt.mantissa
        top = (1 << fmt.width - 1) - 1
        for index in np.flatnonzero(near):
            moved = np.clip((a[source[index]] & top) + (0 if opposite[index] else span[index]), 0, fmt.max_code)
            sign = a[source[index]] & ~top ^ (top + 1 if opposite[index] else 0)
            a[rows[index]], b[rows[index]] = moved | sign, b[source[index]]
            first[rows[index]] &= not opposite[index]
    specials = ((a & (1 << fmt.width - 1) - 1) > fmt.max_code) | ((b & (1 << fmt.width - 1) - 1) > fmt.max_code)
    follows = np.roll(specials, parameters.accumulators)
    return a, b, slot, first | follows, last | specials


def mac_vectors(parameters, a, b, slot, first, last):
    """Return the Vectors of transfers, with what the golden model makes of them."""
    fmt, sums = parameters.format, parameters.accumulator
    codes, invalid, overflow = floating.mac(parameters, a, b, slot, first, last)
    bits = (parameters.accumulators - 1).bit_length()
    origin = np.flatnonzero(last)
    inputs = {"a": (a, fmt.width), "b": (b, fmt.width), "slot": (slot, bits), "first": (first, 1), "last": (last, 1)}

    def show(payload):
        code, index = unpack(payload, sums.width, bits)
        return f"slot {index}, {_show(sums, code)}"

    return Vectors(pack(*inputs.values()), pack((codes, sums.width), (slot[origin], bits)), origin,
                   {"invalid": int(invalid), "overflow": int(overflow)}, _describe(inputs), show)


def mac_operands(parameters, count, seed, kind):
    """Return transfers for ``float-mac`` whose energy is measured: of a kind of `sim.operands`."""
    a, b, *rest = mac_recorded(parameters, count, seed, gemms_of(kind))
    if kind == "codes":
        a, b = codes_of(parameters.format, np.random.default_rng(seed), (2, *a.shape))
    return a, b, *rest


def mac_recorded(parameters, count, seed, gemms=None):
    """Return transfers for ``float-mac`` from recorded GEMMs, or those given: rows times columns, a pair a sum."""
    rng, gemms, pieces, total = np.random.default_rng(seed), gemms or recorded.products(), [], 0
    n = parameters.accumulators
    while total < count:
        x, y = gemms[rng.integers(len(gemms))]
        rows, columns = rng.integers(0, len(x), n), rng.integers(0, len(y), n)
        steps = np.repeat(np.arange(x.shape[1]), n)
        codes = [parameters.format.encode(each.T.reshape(-1)).astype(np.int64) for each in (x[rows], y[columns])]
        pieces.append((*codes, np.tile(np.arange(n), x.shape[1]), steps == 0, steps == x.shape[1] - 1))
        total += len(steps)
    return tuple(np.concatenate(each)[:count] for each in zip(*pieces, strict=True))


def _vectors(fmt, golden, operands):
    codes, invalid, overflow = golden
    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    return Vectors(pack(*operands.values()), pack((codes, fmt.width)), range(len(codes)), status,
                   _describe(operands), lambda payload: _show(fmt, payload))


def _describe(operands):
    def describe(k):
        return ", ".join(f"{name} {int(array[k]):#0{2 + (width + 3) // 4}x}"
                         for name, (array, width) in operands.items())

    return describe


def _show(fmt, code):
    return f"code {code:#0{2 + (fmt.width + 3) // 4}x} = {float(fmt.decode(code))!r}"


def _operands(parameters, count, seed):
    """Pairs that training multiplies: codes of the operand format."""
    rng, gemms = np.random.default_rng(seed), recorded.products()
    left, right, total = [], [], 0
    while total < count:
        x, y = gemms[rng.integers(len(gemms))]
        left.append(x[rng.integers(len(x))])
        right.append(y[rng.integers(len(y))])
        total += len(left[-1])
    return tuple(parameters.format.encode(np.concatenate(each)[:count]).astype(np.int64) for each in (left, right))


def adder_recorded(parameters, count, seed):
    """Return transfers for ``float-adder`` from recorded GEMMs: neighbouring products, as a sum would take them."""
    fmt = parameters.format
    products = floating.multiply(*_operands(parameters, count + 1, seed), fmt).astype(np.int64)
    return products[:-1], products[1:], np.zeros(count, np.int64)


def multiplier_recorded(parameters, count, seed):
    """Return transfers for ``float-multiplier``: the operands of recorded GEMMs."""
    return _operands(parameters, count, seed)


def fma_recorded(parameters, count, seed):
    """Return transfers for ``float-fma``: the operands of recorded GEMMs, and the product before as the addend."""
    a, b = _operands(parameters, count, seed)
    products = floating.multiply(a, b, parameters.format, result=parameters.accumulator).astype(np.int64)
    return a, b, np.roll(products, 1)


def cast_recorded(parameters, count, seed):
    """Return transfers for ``float-cast``: the operands of recorded GEMMs."""
    return _operands(parameters, count, seed)[:1]
