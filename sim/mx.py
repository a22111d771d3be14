"""Vectors for the MX units: random with directed places, and recorded."""

import numpy as np

from ..golden import mx
from . import recorded
from .operands import codes_of, gemms_of
from .vectors import Vectors, pack, unpack

__all__ = [
    "converter_random", "converter_recorded", "converter_vectors", "dot_operands", "dot_random", "dot_recorded",
    "dot_vectors",
]


def _show_block(fmt, scale, elements):
    digits = 2 + (fmt.element.width + 3) // 4
    return f"scale {int(scale)}, elements " + " ".join(f"{int(code):#0{digits}x}" for code in elements)


def converter_random(parameters, count, seed):
    """Return random transfers for ``mx-converter``, many at directed places: arguments of `converter_vectors`."""
    rng = np.random.default_rng(seed)
    p, work, fmt = parameters, parameters.work, parameters.format.magnitude
    shape = (count, p.block)
    top = (1 << work.exponent) - 2
    # Spread exponents below a place of the block's own: elements are normal, subnormal and zero. One block in four is
    # near the lowest scale, one in ten near the highest.
    place = rng.integers(1, top + 1, (count, 1))
    kind = rng.random((count, 1))
    place = np.where(kind < 0.25, rng.integers(0, 2 * max(fmt.bias, 2) + fmt.emax + 4, (count, 1)), place)
    place = np.where(kind > 0.9, rng.integers(top - 3, top + 1, (count, 1)), place)
    spread = rng.choice([0, 1, fmt.emax - fmt.emin + fmt.mantissa + 2, 40], (count, 1))
    field = np.clip(place - rng.integers(0, spread + 1, shape), 0, top)
    fraction = rng.integers(0, 1 << work.mantissa, shape)
    # Ties and exact values have short fractions, thresholds of the scale rules too; and their neighbours.
    short = np.maximum(work.mantissa - rng.integers(0, fmt.mantissa + 4, shape), 0)
    kind = rng.random(shape)
    fraction = np.where(kind < 0.5, fraction >> short << short, fraction)
    fraction = np.where(kind > 0.85, (1 << work.mantissa) - 1 >> short << short, fraction)
    fraction = np.where(rng.random(shape) < 0.2, fraction + rng.integers(-1, 2, shape), fraction)
    fraction &= (1 << work.mantissa) - 1
    # Subnormal numbers of every length.
    fraction = np.where(field == 0, fraction >> rng.integers(0, work.mantissa + 1, shape), fraction)
    codes = field << work.mantissa | fraction
    codes = np.where(rng.random(shape) < 0.04, 0, codes)
    codes = np.where(rng.random((count, 1)) < 0.02, 0, codes)
    # The greatest one in any lane, or several.
    few = (rng.random((count, 1)) < 0.3) & (rng.random(shape) < 0.7)
    codes = np.where(few, 0, codes)
    # Few Infs and NaNs: a block with one is spent.
    special = rng.choice([work.inf_code, work.nan_code, work.inf_code + 1], shape)
    codes = np.where((rng.random((count, 1)) < 0.03) & (rng.random(shape) < 2 / p.block), special, codes)
    codes |= rng.integers(0, 2, shape) << (work.width - 1)
    return (codes,)


def converter_vectors(parameters, codes):
    """Return the Vectors of transfers (as for `mx.convert`), with what the golden model makes of them."""
    p, fmt = parameters, parameters.format
    scales, elements, invalid, overflow = mx.convert(p, codes)
    width = fmt.element.width
    inputs = pack((codes, p.work.width))
    outputs = pack((elements, width), (scales, 8))

    def describe(k):
        return "codes " + " ".join(f"{code:#0{2 + (p.work.width + 3) // 4}x}" for code in map(int, codes[k]))

    def show(payload):
        *codes, scale = unpack(payload, *[width] * p.block, 8)
        return _show_block(fmt, scale, codes)

    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    return Vectors(inputs, outputs, range(len(inputs)), status, describe, show)


def converter_recorded(parameters, count, seed):
    """Return transfers for ``mx-converter`` from recorded tensors."""
    rng = np.random.default_rng(seed)
    p, blocks = parameters, []
    for _, array in recorded.tensors():
        padded = np.zeros((array.shape[0], -(-array.shape[1] // p.block) * p.block), np.float32)
        padded[:, :array.shape[1]] = array
        blocks.append(padded.reshape(-1, p.block))
    blocks = np.concatenate(blocks)
    return (p.work.encode(blocks[rng.integers(0, len(blocks), count)]).astype(np.int64),)


def dot_random(parameters, count, seed):
    """Return random transfers for ``mx-dot``, many of them at directed places: arguments of `dot_vectors`."""
    rng = np.random.default_rng(seed)
    p, formats = parameters, (parameters.format, parameters.format_b)
    values = [fmt.decode(np.arange(1 << fmt.element.width)) for fmt in formats]
    operands = []
    for each in values:
        codes = np.flatnonzero(np.isfinite(each))
        codes = codes[np.argsort(each[codes], kind="stable")]
        small = codes[np.argsort(np.abs(each[codes]), kind="stable")][:8]
        q = rng.choice(codes, (count, p.block))
        kind = rng.random((count, 1))
        ends = codes[[0, -1]][rng.integers(0, 2, (count, p.block))]
        ends = np.where(rng.random((count, 1)) < 0.5, codes[-1], ends)
        q = np.where(kind < 0.1, ends, q)  # largest sums: every carry
        q = np.where((kind > 0.85) & (rng.random(q.shape) < 0.9), 0, q)  # small sums: long normalising shifts
        q = np.where((kind > 0.75) & (kind < 0.85), rng.choice(small, q.shape), q)
        q = np.where(kind > 0.98, 0, q)  # zero blocks
        operands.append(q)
    # The scale of the product decides where the addition happens: in the middle of the accumulator's range, among its
    # subnormals, at its top, or anywhere.
    acc = p.accumulator
    middle = 2 * mx.SCALE_BIAS - sum(fmt.magnitude.emax for fmt in formats)
    places = np.array([middle, middle + acc.emin - acc.mantissa, middle + acc.emin, middle + acc.emax])
    place = places[rng.choice(4, count, p=[0.55, 0.15, 0.15, 0.15])]
    top = 2 * (mx.SCALE_NAN - 1)
    place = np.where(rng.random(count) < 0.1, rng.integers(0, top + 1, count), place)
    # Neighbours of one sum mostly share the place, or they would hardly ever meet.
    run = rng.integers(0, p.accumulators, count)
    for k in range(p.accumulators):
        rows = np.flatnonzero(run == k)
        place[rows] = place[rows[(np.arange(len(rows)) // 24) * 24]] if len(rows) else 0
    total = np.clip(place + rng.integers(-8, 9, count), 0, top)
    low = np.maximum(total - top // 2, 0)
    scales = [low + rng.integers(0, np.minimum(total, top // 2) - low + 1)]
    scales.append(total - scales[0])
    first = rng.random(count) < 0.08
    last = rng.random(count) < 0.5
    # Repeat some transfer of the same sum with operand a negated: cancellation, to zero or nearly.
    order = np.argsort(values[0], kind="stable")
    negated = np.zeros(len(order), int)
    finite = order[np.isfinite(values[0][order])]
    for code in finite:
        same = finite[values[0][finite] == -values[0][code]]
        negated[code] = same[0] if len(same) else code  # the most negative integer has no opposite
    for k in range(p.accumulators):
        rows = np.flatnonzero(run == k)
        again = np.flatnonzero(rng.random(max(len(rows) - 1, 0)) < 0.1)
        source, target = rows[again], rows[again + 1]
        for which in range(2):
            operands[which][target] = negated[operands[which][source]] if which == 0 else operands[which][source]
            scales[which][target] = scales[which][source]
        first[source], first[target] = rng.random(len(again)) < 0.7, False
        last[target] = True
        if len(rows):
            first[rows[0]] = True
    # A few NaN blocks and special elements; such a sum is spent until the next `first`.
    for which in range(2):
        scales[which][rng.random(count) < 0.004] = mx.SCALE_NAN
        special = np.flatnonzero(~np.isfinite(values[which]))
        if len(special):
            where = rng.random(count) < 0.004
            operands[which][where, rng.integers(0, p.block, where.sum())] = rng.choice(special, where.sum())
    return scales[0], operands[0], scales[1], operands[1], run, first, last


def dot_vectors(parameters, a_scales, a_elements, b_scales, b_elements, slot, first, last):
    """Return the Vectors of transfers, with what the golden model makes of them.

    The blocks' scale and element codes, and the rest as for `mx.dots`.
    """
    p, (a_format, b_format) = parameters, (parameters.format, parameters.format_b)
    a, b = (a_scales, a_elements), (b_scales, b_elements)
    codes, invalid, overflow = mx.dots(parameters, a, b, slot, first, last)
    slot_bits = (p.accumulators - 1).bit_length()
    origin = np.flatnonzero(last)
    inputs = pack((a_elements, a_format.element.width), (a_scales, 8), (b_elements, b_format.element.width),
                  (b_scales, 8), (slot, slot_bits), (first, 1), (last, 1))
    outputs = pack((codes, p.accumulator.width), (np.asarray(slot)[origin], slot_bits))

    def describe(k):
        operands = "; ".join(f"{name}: {_show_block(fmt, scales[k], elements[k])}"
                             for name, fmt, (scales, elements) in (("a", a_format, a), ("b", b_format, b)))
        return f"slot {slot[k]}, first {int(first[k])}, last {int(last[k])}; {operands}"

    def show(payload):
        code, index = unpack(payload, p.accumulator.width, slot_bits)
        digits = 2 + (p.accumulator.width + 3) // 4
        return f"slot {index}, code {code:#0{digits}x} = {float(p.accumulator.decode(code))!r}"

    return Vectors(inputs, outputs, origin, {"invalid": int(invalid), "overflow": int(overflow)}, describe, show)


def dot_operands(parameters, count, seed, kind):
    """Return transfers for ``mx-dot`` whose energy is measured: of a kind of `sim.operands`."""
    a_scale, a, b_scale, b, *rest = dot_recorded(parameters, count, seed, gemms_of(kind))
    if kind == "codes":
        rng = np.random.default_rng(seed)
        a, b = (codes_of(each.element, rng, a.shape) for each in (parameters.format, parameters.format_b))
    return a_scale, a, b_scale, b, *rest


def dot_recorded(parameters, count, seed, gemms=None):
    """Return transfers for ``mx-dot`` from recorded GEMMs of the recipe ``mx``, or those given.

    They are rows times columns, a pair a sum.
    """
    rng = np.random.default_rng(seed)
    p, pieces, total = parameters, [], 0
    given, gemms = gemms, gemms or recorded.products("mx")
    if p.element_b is not None and not given:
        # Of the recipe's GEMMs those with gradients, their first operand, have two formats. Gradients take the format
        # of the wider range.
        kinds = [kind for kind, _ in recorded.tensors("mx")]
        gemms = [pair for kind, pair in zip(kinds[::2], gemms, strict=True) if kind == "gradients"]
        a_range, b_range = (fmt.magnitude.emax - fmt.magnitude.emin for fmt in (p.format, p.format_b))
        if a_range < b_range:
            gemms = [(y, x) for x, y in gemms]
    while total < count:
        x, y = gemms[rng.integers(len(gemms))]
        rows, columns = rng.integers(0, len(x), p.accumulators), rng.integers(0, len(y), p.accumulators)
        a, b = mx.quantise(x[rows], p.format), mx.quantise(y[columns], p.format_b)
        steps = a.scales.shape[1]
        # All sums take their first block, then all their second: no sum waits for itself.
        flat = [np.moveaxis(each, 1, 0).reshape(steps * p.accumulators, *each.shape[2:]).astype(int)
                for each in (a.scales, a.elements, b.scales, b.elements)]
        n = len(flat[0])
        step = np.arange(n) // p.accumulators
        pieces.append((*flat, np.arange(n) % p.accumulators, step == 0, step == steps - 1))
        total += n
    return tuple(np.concatenate(each)[:count] for each in zip(*pieces, strict=True))
