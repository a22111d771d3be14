"""Vectors for the units of logarithmic numbers: random with directed places, and recorded."""

import numpy as np

from ..golden import logarithmic
from . import recorded
from .operands import gemms_of
from .vectors import Vectors, pack, unpack

__all__ = [
    "converter_random", "converter_recorded", "converter_vectors", "decoder_random", "decoder_recorded",
    "decoder_vectors", "dot_operands", "dot_random", "dot_recorded", "dot_vectors",
]


def _show_codes(fmt, codes):
    digits = 2 + (fmt.bits + 3) // 4
    return " ".join(f"{int(code):#0{digits}x}" for code in codes)


def _show_float(fmt, code):
    return f"{code:#0{2 + (fmt.width + 3) // 4}x} = {float(fmt.decode(code))!r}"


def converter_random(parameters, count, seed):
    """Return random transfers for ``lns-converter``, many at directed places: arguments of `converter_vectors`."""
    rng = np.random.default_rng(seed)
    p, work, fmt = parameters, parameters.work, parameters.format
    shape, top = (count, p.lanes), (1 << work.exponent) - 2
    # Exponents: spread below the vector's own, as far as numbers are not zero and further; some vectors at the ends.
    place = rng.integers(1, top + 1, (count, 1))
    kind = rng.random((count, 1))
    place = np.where(kind < 0.15, rng.integers(0, min(20, top), (count, 1)), place)
    place = np.where(kind > 0.9, top - rng.integers(0, 2, (count, 1)), place)
    octaves = (fmt.top + 1) // fmt.gamma
    spread = rng.choice([0, 1, octaves + 1, 40], (count, 1))
    field = np.clip(place - rng.integers(0, spread + 1, shape), 0, top)
    # Fractions: anywhere, none, all ones, and on both sides of where the logarithm is rounded up.
    fraction = rng.integers(0, 1 << work.mantissa, shape)
    edges = np.array(logarithmic.thresholds(fmt.gamma, work.mantissa)) - (1 << work.mantissa)
    edge = edges[rng.integers(0, len(edges), shape)] + rng.integers(0, 2, shape)
    choice = rng.random(shape)
    fraction = np.where(choice < 0.5, edge, fraction)
    fraction = np.where(choice < 0.1, 0, fraction)
    fraction = np.where(choice > 0.9, (1 << work.mantissa) - 1, fraction) & ((1 << work.mantissa) - 1)
    # Subnormal numbers of every length.
    fraction = np.where(field == 0, fraction >> rng.integers(0, work.mantissa + 1, shape), fraction)
    codes = field << work.mantissa | fraction
    codes = np.where(rng.random(shape) < 0.05, 0, codes)
    codes = np.where(rng.random((count, 1)) < 0.02, 0, codes)
    special = rng.choice([work.inf_code, work.nan_code, work.inf_code + 1, (1 << (work.width - 1)) - 1], shape)
    codes = np.where((rng.random((count, 1)) < 0.06) & (rng.random(shape) < 2 / p.lanes), special, codes)
    codes |= rng.integers(0, 2, shape) << (work.width - 1)
    # Given scales: about the one that fits, and anywhere.
    exponent = np.maximum(field, 1).max(axis=1) - work.bias - octaves + 1
    scale = np.clip(exponent + rng.integers(-3, 4, count) + logarithmic.SCALE_BIAS, 0, 254)
    scale = np.where(rng.random(count) < 0.2, rng.integers(0, 255, count), scale)
    return codes, scale, rng.random(count) < 0.4


def converter_vectors(parameters, codes, scale, given):
    """Return the Vectors of transfers (as for `logarithmic.convert`), with what the golden model makes of them."""
    p = parameters
    out, used, invalid, overflow = logarithmic.convert(p, codes, scale, given)
    inputs = pack((codes, p.work.width), (scale, 8), (given, 1))
    outputs = pack((out, p.format.bits), (used, 8))

    def describe(k):
        own = f"scale {scale[k]} given" if given[k] else "own scale"
        return f"{own}, codes " + " ".join(f"{int(code):#0{2 + (p.work.width + 3) // 4}x}" for code in codes[k])

    def show(payload):
        *numbers, last = unpack(payload, *[p.format.bits] * p.lanes, 8)
        return f"scale {last}, codes {_show_codes(p.format, numbers)}"

    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    return Vectors(inputs, outputs, range(len(inputs)), status, describe, show)


def converter_recorded(parameters, count, seed):
    """Return transfers for ``lns-converter`` from recorded tensors, half of them under the scale of the tensor."""
    rng = np.random.default_rng(seed)
    p, pieces, scales = parameters, [], []
    for _, array in recorded.tensors():
        padded = np.zeros((array.shape[0], -(-array.shape[1] // p.lanes) * p.lanes), np.float32)
        padded[:, :array.shape[1]] = array
        pieces.append(padded.reshape(-1, p.lanes))
        whole = logarithmic.quantise(array, p.format).scale + logarithmic.SCALE_BIAS
        scales.append(np.full(len(pieces[-1]), whole))
    chosen = rng.integers(0, sum(map(len, pieces)), count)
    codes = p.work.encode(np.concatenate(pieces)[chosen]).astype(np.int64)
    return codes, np.concatenate(scales)[chosen], rng.random(count) < 0.5


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
    # In some places sums saturate: long runs have one sign.
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


def dot_operands(parameters, count, seed, kind):
    """Return transfers for ``lns-dot`` whose energy is measured: of a kind of `sim.operands`."""
    a, a_scale, b, *rest = dot_recorded(parameters, count, seed, gemms_of(kind))
    if kind == "codes":
        a, b = np.random.default_rng(seed).integers(0, 1 << parameters.format.bits, (2, *a.shape))
    return a, a_scale, b, *rest


def dot_recorded(parameters, count, seed, gemms=None):
    """Return transfers for ``lns-dot`` from recorded GEMMs, or those given: rows times columns."""
    rng = np.random.default_rng(seed)
    p, pieces, total = parameters, [], 0
    gemms = gemms or recorded.products()
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
