"""Vectors for the units of logarithmic numbers: random with directed places, and recorded."""

import numpy as np

from ..golden import logarithmic
from . import recorded
from .vectors import Vectors, pack, unpack

__all__ = [
    "converter_random", "converter_recorded", "converter_vectors", "decoder_random", "decoder_recorded",
    "decoder_vectors", "dot_random", "dot_recorded", "dot_vectors",
]


def _show_codes(fmt, codes):
    digits = 2 + (fmt.bits + 3) // 4
    return " ".join(f"{int(code):#0{digits}x}" for code in codes)


def _show_float(fmt, code):
    return f"{code:#0{2 + (fmt.width + 3) // 4}x} = {float(fmt.decode(code))!r}"


def decoder_random(parameters, count, seed):
    """Return random transfers for ``lns-decoder``: arguments of `decoder_vectors`."""
    rng = np.random.default_rng(seed)
    p, fmt, shape = parameters, parameters.format, (count, parameters.lanes)
    t = rng.integers(0, fmt.top + 1, shape)
    t = np.where(rng.random(shape) < 0.1, rng.integers(0, min(fmt.gamma, fmt.top) + 1, shape), t)
    # Anywhere, at the ends of the result's normal and subnormal numbers, and at the ends of scales.
    places = np.array([p.result.emin - p.result.mantissa, p.result.emin, p.result.emax + 1])
    place = places[rng.integers(0, 3, count)] - rng.integers(-2, (fmt.top // fmt.gamma) + 3, count)
    scale = np.clip(place + logarithmic.SCALE_BIAS, 0, 254)
    kind = rng.random(count)
    scale = np.where(kind < 0.3, rng.integers(0, 255, count), scale)
    scale = np.where(kind > 0.9, rng.choice([0, 1, 253, 254], count), scale)
    return t | rng.integers(0, 2, shape) << (fmt.bits - 1), scale


def decoder_vectors(parameters, codes, scale):
    """Return the Vectors of transfers (as for `logarithmic.decode`), with what the golden model makes of them."""
    p = parameters
    values, overflow = logarithmic.decode(p, codes, scale)
    inputs, outputs = pack((codes, p.format.bits), (scale, 8)), pack((values, p.result.width))

    def describe(k):
        return f"scale {scale[k]}, codes {_show_codes(p.format, codes[k])}"

    def show(payload):
        return ", ".join(_show_float(p.result, code) for code in unpack(payload, *[p.result.width] * p.lanes))

    return Vectors(inputs, outputs, range(len(inputs)), {"overflow": int(overflow.any())}, describe, show)


def decoder_recorded(parameters, count, seed):
    """Return transfers for ``lns-decoder`` from recorded tensors."""
    rng = np.random.default_rng(seed)
    p, pieces, scales = parameters, [], []
    for _, array in recorded.tensors():
        numbers = logarithmic.quantise(array, p.format)
        flat = np.resize(numbers.codes.reshape(-1), (-(-numbers.codes.size // p.lanes), p.lanes))
        pieces.append(flat.astype(np.int64))
        scales.append(np.full(len(flat), numbers.scale + logarithmic.SCALE_BIAS))
    chosen = rng.integers(0, sum(map(len, pieces)), count)
    return np.concatenate(pieces)[chosen], np.concatenate(scales)[chosen]


def dot_random(parameters, count, seed):
    """Return random transfers for ``lns-dot``, many of them at directed places: arguments of `dot_vectors`."""
    rng = np.random.default_rng(seed)
    p, fmt, shape = parameters, parameters.format, (count, parameters.lanes)
    operands = []
    for _ in range(2):
        t = rng.integers(0, fmt.top + 1, shape)
        kind = rng.random((count, 1))
        t = np.where(kind < 0.1, fmt.top - rng.integers(0, 2, shape), t)  # largest sums: every carry, saturation
        t = np.where((kind > 0.8) & (rng.random(shape) < 0.8), 0, t)  # few products: long normalising shifts
        t = np.where((kind > 0.7) & (kind < 0.8), rng.integers(0, min(fmt.gamma, fmt.top) + 1, shape), t)
        t = np.where(kind > 0.98, 0, t)
        sign = rng.integers(0, 2, shape)
        sign = np.where((kind < 0.05), 0, sign)  # all of one sign
        operands.append(t | sign << (fmt.bits - 1))
    # Quotients about lsb, where products begin to be dropped.
    edge = np.clip(p.lsb * fmt.gamma + rng.integers(-2, 3, shape) - (operands[0] & fmt.top), 0, fmt.top)
    near = rng.random((count, 1)) < 0.15
    operands[1] = np.where(near, edge | (operands[1] & ~fmt.top), operands[1])
    # The scales decide where the result is: in the middle of its range, among subnormal numbers, at its top, anywhere.
    result = p.result
    middle = 2 * logarithmic.SCALE_BIAS - p.quotient
    places = np.array([middle, middle + result.emin - result.mantissa, middle + result.emin, middle + result.emax])
    total = places[rng.choice(4, count, p=[0.4, 0.2, 0.2, 0.2])] + rng.integers(-12, 13, count)
    total = np.where(rng.random(count) < 0.1, rng.integers(0, 509, count), np.clip(total, 0, 508))
    low = np.maximum(total - 254, 0)
    scales = [low + rng.integers(0, np.minimum(total, 254) - low + 1)]
    scales.append(total - scales[0])
    first, last = rng.random(count) < 0.25, rng.random(count) < 0.5
    first[:1] = True
    # Repeat some transfer with one operand negated: cancellation, to zero or nearly.
    again = 1 + np.flatnonzero(rng.random(max(count - 1, 0)) < 0.1)
    operands[0][again] = operands[0][again - 1] ^ (1 << (fmt.bits - 1))
    operands[1][again] = operands[1][again - 1]
    first[again], last[again] = False, True
    # Long runs of one sign in some places, so that sums grow until they saturate.
    for start in range(0, count, 500):
        part = slice(start, start + 60)
        sign = rng.integers(0, 2) << (fmt.bits - 1)
        operands[0][part] = np.maximum(operands[0][part] & fmt.top, fmt.top - 3) | sign
        operands[1][part] = np.maximum(operands[1][part] & fmt.top, fmt.top - 3)
        first[start + 1:start + 60] = False
    return operands[0], scales[0], operands[1], scales[1], first, last


def dot_vectors(parameters, a_codes, a_scale, b_codes, b_scale, first, last):
    """Return the Vectors of transfers (as for `logarithmic.dots`), with what the golden model makes of them."""
    p, bits = parameters, parameters.format.bits
    codes, overflow = logarithmic.dots(p, (a_codes, a_scale), (b_codes, b_scale), first, last)
    inputs = pack((a_codes, bits), (a_scale, 8), (b_codes, bits), (b_scale, 8), (first, 1), (last, 1))
    outputs = pack((codes, p.result.width))

    def describe(k):
        return (f"first {int(first[k])}, last {int(last[k])}; "
                f"a: scale {a_scale[k]}, codes {_show_codes(p.format, a_codes[k])}; "
                f"b: scale {b_scale[k]}, codes {_show_codes(p.format, b_codes[k])}")

    return Vectors(inputs, outputs, np.flatnonzero(last), {"overflow": int(overflow)}, describe,
                   lambda code: _show_float(p.result, code))


def dot_recorded(parameters, count, seed):
    """Return transfers for ``lns-dot`` from recorded GEMMs: rows times columns."""
    rng = np.random.default_rng(seed)
    p, pieces, total = parameters, [], 0
    gemms = recorded.products()
    while total < count:
        x, y = gemms[rng.integers(len(gemms))]
        rows, columns = rng.integers(0, len(x), 8), rng.integers(0, len(y), 8)
        a, b = logarithmic.quantise(x, p.format), logarithmic.quantise(y, p.format)
        steps = -(-x.shape[1] // p.lanes)
        padded = [np.zeros((8, steps * p.lanes), np.int64) for _ in range(2)]
        padded[0][:, :x.shape[1]], padded[1][:, :y.shape[1]] = a.codes[rows], b.codes[columns]
        n = 8 * steps
        step = np.arange(n) % steps
        pieces.append((padded[0].reshape(n, p.lanes), np.full(n, a.scale + logarithmic.SCALE_BIAS),
                       padded[1].reshape(n, p.lanes), np.full(n, b.scale + logarithmic.SCALE_BIAS),
                       step == 0, step == steps - 1))
        total += n
    return tuple(np.concatenate(each)[:count] for each in zip(*pieces, strict=True))
