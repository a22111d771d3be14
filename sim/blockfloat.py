"""Vectors for the block-floating-point units: random with directed places, and recorded."""

from dataclasses import replace

import numpy as np

from ..golden import blockfloat
from . import recorded
from .operands import gemms_of
from .vectors import Vectors, pack, unpack

__all__ = [
    "converter_random", "converter_recorded", "converter_vectors", "fmac_operands", "fmac_random",
    "fmac_recorded", "fmac_vectors",
]


def _precisions(rng, parameters, count):
    """Precisions 2 .. mantissa, with a few outside, which the units clamp."""
    width = parameters.mantissa.bit_length()
    legal = rng.integers(2, parameters.mantissa + 1, count)
    return np.where(rng.random(count) < 0.03, rng.integers(0, 1 << width, count), legal)


def fmac_random(parameters, count, seed):
    """Return random transfers for ``bfp-fmac``, many of them at directed places: arguments of `fmac_vectors`."""
    rng = np.random.default_rng(seed)
    fmt, p = parameters.format, parameters
    top = (1 << fmt.exponent) - 1
    precision = [_precisions(rng, p, count) for _ in range(2)]
    mantissas = []
    for each in precision:
        limit = (1 << np.clip(each, 2, p.mantissa)) - 1
        q = rng.integers(0, limit[:, np.newaxis] + 1, (count, p.group))
        kind = rng.random(count)[:, np.newaxis]
        q = np.where(kind < 0.1, limit[:, np.newaxis], q)  # largest sums: every carry
        q = np.where((kind > 0.9) & (rng.random((count, p.group)) < 0.9), 0, q)  # small sums: long normalising shifts
        q = np.where(kind > 0.97, 0, q)  # zero groups
        sign = np.where(rng.random(q.shape) < 0.5, -1, 1)
        sign = np.where(rng.random(count)[:, np.newaxis] < 0.15, 1, sign)
        mantissas.append(q * sign)
    # The exponent of the product decides where the addition happens: in the middle of the
    # accumulator's range, among its subnormals, at its top, or anywhere.
    acc = p.accumulator
    middle = 2 * fmt.bias + 2 * (p.mantissa - 1)
    places = np.array([middle, middle + acc.emin - acc.mantissa, middle + acc.emin, middle + acc.emax])
    place = places[rng.choice(4, count, p=[0.55, 0.15, 0.15, 0.15])]
    place = np.where(rng.random(count) < 0.1, rng.integers(0, 2 * top + 1, count), place)
    # Neighbours of one sum mostly share the place, or they would hardly ever meet.
    run = rng.integers(0, p.accumulators, count)
    for k in range(p.accumulators):
        rows = np.flatnonzero(run == k)
        place[rows] = place[rows[(np.arange(len(rows)) // 24) * 24]] if len(rows) else 0
    total = np.clip(place + rng.integers(-8, 9, count), 0, 2 * top)
    low = np.maximum(total - top, 0)
    ea = low + rng.integers(0, np.minimum(total, top) - low + 1)
    eb = total - ea
    first = rng.random(count) < 0.08
    last = rng.random(count) < 0.5
    # Repeat some transfer of the same sum with one operand negated: cancellation, to zero or nearly.
    for k in range(p.accumulators):
        rows = np.flatnonzero(run == k)
        again = np.flatnonzero(rng.random(max(len(rows) - 1, 0)) < 0.1)
        source, target = rows[again], rows[again + 1]
        mantissas[0][target], mantissas[1][target] = -mantissas[0][source], mantissas[1][source]
        precision[0][target], precision[1][target] = precision[0][source], precision[1][source]
        ea[target], eb[target] = ea[source], eb[source]
        first[source], first[target] = rng.random(len(again)) < 0.7, False
        last[target] = True
        if len(rows):
            first[rows[0]] = True
    return ea, mantissas[0], precision[0], eb, mantissas[1], precision[1], run, first, last


def fmac_vectors(parameters, ea, qa, pa, eb, qb, pb, slot, first, last):
    """Return the Vectors of transfers, with what the golden model makes of them.

    The groups' exponent codes, signed magnitudes and precisions, and the rest as for
    `blockfloat.fmac`.
    """
    p, fmt = parameters, parameters.format
    a, b = (ea, qa, pa), (eb, qb, pb)
    codes, overflow = blockfloat.fmac(parameters, a, b, slot, first, last)
    slot_bits = (p.accumulators - 1).bit_length()
    origin = np.flatnonzero(last)
    inputs = pack(*_group_fields(fmt, *a), *_group_fields(fmt, *b), (slot, slot_bits), (first, 1), (last, 1))
    outputs = pack((codes, p.accumulator.width), (np.asarray(slot)[origin], slot_bits))

    def describe(k):
        operands = "; ".join(
            f"{name}: precision {group[2][k]}, exponent {group[0][k]}, mantissas {list(map(int, group[1][k]))}"
            for name, group in (("a", a), ("b", b)))
        return f"slot {slot[k]}, first {int(first[k])}, last {int(last[k])}; {operands}"

    def show(payload):
        code, index = unpack(payload, p.accumulator.width, slot_bits)
        digits = 2 + (p.accumulator.width + 3) // 4
        return f"slot {index}, code {code:#0{digits}x} = {float(p.accumulator.decode(code))!r}"

    return Vectors(inputs, outputs, origin, {"overflow": int(overflow)}, describe, show)


def _group_fields(fmt, exponents, mantissas, precision):
    """Return the fields of groups as `hw.formats.group_layout` lays them out."""
    q = np.asarray(mantissas).astype(np.int64)
    elements = np.abs(q) | (q < 0).astype(np.int64) << fmt.mantissa
    return [(elements, fmt.mantissa + 1), (exponents, fmt.exponent), (precision, fmt.mantissa.bit_length())]


def converter_random(parameters, count, seed):
    """Return random transfers for ``bfp-converter``, many at directed places: arguments of `converter_vectors`."""
    rng = np.random.default_rng(seed)
    p, work = parameters, parameters.work
    shape = (count, p.group)
    fields = (1 << work.exponent) - 1
    # Exponents: around a place of the group's own, so that distances cover the shifter; or anywhere.
    place = rng.integers(0, fields + 1, (count, 1))
    place = np.where(rng.random((count, 1)) < 0.15, rng.integers(0, 3, (count, 1)), place)
    spread = rng.choice([1, 4, 12, 30], (count, 1))
    field = np.clip(place + rng.integers(-spread, 1, shape), 0, fields)
    field = np.where(rng.random(shape) < 0.03, rng.integers(0, fields + 1, shape), field)
    fraction = rng.integers(0, 1 << work.mantissa, shape)
    # Short fractions are where ties and exact values are; all-ones fractions carry out.
    short = rng.integers(0, work.mantissa + 1, shape)
    kind = rng.random(shape)
    fraction = np.where(kind < 0.35, fraction >> short << short, fraction)
    fraction = np.where(kind > 0.9, (1 << work.mantissa) - 1 >> short << short, fraction)
    # Few Infs and NaNs: a group with one is spent.
    special = (field == fields) & (rng.random(shape) < 0.8)
    field = np.where(special, fields - 1, field)
    codes = field << work.mantissa | fraction
    codes = np.where(rng.random(shape) < 0.05, 0, codes)
    codes = np.where(rng.random((count, 1)) < 0.02, 0, codes)
    codes |= rng.integers(0, 2, shape) << (work.width - 1)
    rounding = rng.integers(0, 3, count)
    rounding = np.where(rng.random(count) < 0.01, 3, rounding)
    return codes, _precisions(rng, p, count), rounding


def converter_vectors(parameters, codes, precision, rounding):
    """Return the Vectors of transfers (as for `blockfloat.convert`), with what the golden model makes of them."""
    p, fmt = parameters, parameters.format
    exponents, mantissas, invalid, overflow = blockfloat.convert(p, codes, precision, rounding)
    precision_bits = p.mantissa.bit_length()
    inputs = pack((codes, p.work.width), (precision, precision_bits), (rounding, 2))
    used = np.clip(precision, 2, p.mantissa)
    outputs = pack(*_group_fields(fmt, exponents, mantissas, used))

    def describe(k):
        return (f"precision {precision[k]}, rounding {rounding[k]} (0 nearest, 1 truncate, 2 stochastic), codes "
                + " ".join(f"{code:#0{2 + (p.work.width + 3) // 4}x}" for code in map(int, codes[k])))

    def show(payload):
        elements, exponent, digits = unpack(payload, (p.mantissa + 1) * p.group, fmt.exponent, precision_bits)
        width = p.mantissa + 1
        words = [elements >> (width * k) & ((1 << width) - 1) for k in range(p.group)]
        signed = ", ".join(("-" if word >> p.mantissa else "") + str(word & ~(1 << p.mantissa)) for word in words)
        return f"precision {digits}, exponent {exponent}, mantissas [{signed}]"

    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    return Vectors(inputs, outputs, range(len(inputs)), status, describe, show)


def converter_recorded(parameters, count, seed):
    """Return transfers for ``bfp-converter`` from recorded tensors: gradients stochastic, the rest not."""
    rng = np.random.default_rng(seed)
    p = parameters
    groups, gradients = [], []
    for kind, array in recorded.tensors():
        padded = np.zeros((array.shape[0], -(-array.shape[1] // p.group) * p.group), np.float32)
        padded[:, :array.shape[1]] = array
        groups.append(padded.reshape(-1, p.group))
        gradients.append(np.full(len(groups[-1]), kind == "gradients"))
    groups, gradients = np.concatenate(groups), np.concatenate(gradients)
    chosen = rng.integers(0, len(groups), count)
    rounding = np.where(gradients[chosen], 2, rng.integers(0, 2, count))
    return p.work.encode(groups[chosen]), _precisions(rng, p, count), rounding


def fmac_operands(parameters, count, seed, kind):
    """Return transfers for ``bfp-fmac`` whose energy is measured: of a kind of `sim.operands`, at full precision."""
    p = parameters
    ea, qa, pa, eb, qb, *rest = fmac_recorded(p, count, seed, gemms_of(kind), p.mantissa)
    if kind == "codes":
        most = (1 << p.mantissa) - 1
        qa, qb = np.random.default_rng(seed).integers(-most, most + 1, (2, *qa.shape))
    return ea, qa, pa, eb, qb, *rest


def fmac_recorded(parameters, count, seed, gemms=None, precision=None):
    """Return transfers for ``bfp-fmac`` from recorded GEMMs, or those given: rows times columns, a pair a sum.

    Each GEMM has its own precisions, unless one is given for all.
    """
    rng = np.random.default_rng(seed)
    p, pieces, total = parameters, [], 0
    gemms = gemms or recorded.products()
    while total < count:
        x, y = gemms[rng.integers(len(gemms))]
        pa, pb = (precision, precision) if precision else rng.integers(2, p.mantissa + 1, 2)
        rows, columns = rng.integers(0, len(x), p.accumulators), rng.integers(0, len(y), p.accumulators)
        a = blockfloat.quantise(x[rows], replace(p.format, mantissa=int(pa)))
        b = blockfloat.quantise(y[columns], replace(p.format, mantissa=int(pb)))
        steps = a.exponents.shape[1]
        # All sums take their first group, then all their second: no sum waits for itself.
        flat = [np.moveaxis(each, 1, 0).reshape(steps * p.accumulators, *each.shape[2:])
                for each in (a.exponents, a.mantissas, b.exponents, b.mantissas)]
        n = len(flat[0])
        step = np.arange(n) // p.accumulators
        pieces.append((*flat, np.full(n, pa), np.full(n, pb), np.arange(n) % p.accumulators, step == 0,
                       step == steps - 1))
        total += n
    ea, qa, eb, qb, pa, pb, slot, first, last = (np.concatenate(each)[:count] for each in zip(*pieces, strict=True))
    return ea, qa, pa, eb, qb, pb, slot, first, last
