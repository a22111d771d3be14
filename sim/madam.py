"""Vectors for the unit of Madam's update: random with directed places, and recorded."""

import numpy as np

from ..golden import logarithmic, madam
from . import recorded
from .vectors import Vectors, pack, unpack

__all__ = ["update_random", "update_recorded", "update_vectors"]


def _gradients(parameters, squares, rng):
    """Return codes of gradients whose squares are about the given codes, on both sides of the rounding thresholds."""
    p, fmt = parameters, parameters.gradient
    gamma, shape = 2 * p.second_gamma, squares.shape
    exponent, rest = np.divmod(squares - p.second_gamma * p.second_bias, gamma)
    edges = np.array(logarithmic.thresholds(gamma, 52), np.float64) * 2.0**-52
    # Significands: the least and the greatest of the square, powers of two, and any between. Codes next to them follow
    # below.
    below = np.where(rest == 0, edges[-1] / 2, edges[rest - 1])
    place = rng.random(shape)
    significand = np.where(place < 0.7, edges[rest], below + (edges[rest] - below) * place)
    significand = np.where(place < 0.35, below, significand)
    significand = np.where((rest == 0) & (place > 0.85), 1.0, significand)
    with np.errstate(over="ignore"):  # clipped then
        values = np.clip(np.ldexp(significand, exponent.astype(np.int32)), -fmt.max, fmt.max)
    codes = fmt.encode(values).astype(np.int64)
    codes = np.clip(codes + rng.integers(-1, 2, shape), 0, fmt.max_code)
    anywhere = rng.integers(0, fmt.max_code + 1, shape)
    anywhere = np.where(rng.random(shape) < 0.3, anywhere & ((1 << fmt.mantissa) - 1), anywhere)  # subnormal
    codes = np.where(rng.random(shape) < 0.1, anywhere >> rng.integers(0, fmt.mantissa + 1, shape), codes)
    codes = np.where(rng.random(shape) < 0.04, 0, codes)
    special = rng.choice([fmt.inf_code, fmt.nan_code, fmt.inf_code + 1, fmt.max_code], shape)
    codes = np.where(rng.random(shape) < 0.05, special, codes)
    return codes | rng.integers(0, 2, shape) << (fmt.width - 1)


def update_random(parameters, count, seed):
    """Return random transfers for ``madam-update``, many at directed places: arguments of `update_vectors`."""
    rng = np.random.default_rng(seed)
    p, shape = parameters, (count, parameters.lanes)
    top, thresholds = p.second_top, np.array(p.thresholds)
    low, table, _ = madam.growth(p.second_gamma, p.memory, p.random_bits)
    # Second moments: anywhere, and at both ends.
    seconds = rng.integers(0, top + 1, shape)
    kind = rng.random(shape)
    seconds = np.where(kind < 0.1, rng.integers(0, min(40, top), shape), seconds)
    seconds = np.where(kind > 0.9, top - rng.integers(0, min(40, top), shape), seconds)
    seconds = np.where(kind < 0.03, 0, np.where(kind > 0.97, top, seconds))
    # Corrections: none, usual ones, and down to the lowest.
    usual = madam.correction(p, 1)
    correction = -rng.integers(0, 1 - usual, count)
    kind = rng.random(count)
    correction = np.where(kind < 0.3, 0, correction)
    correction = np.where(kind > 0.9, -(1 << rng.integers(0, 16, count)) - rng.integers(-2, 3, count), correction)
    correction = np.clip(np.where(kind > 0.98, -32768, correction), -32768, 0)
    # Squares: about the second moment, at the ends of the table of its growth, and where the steps change.
    spread = rng.choice([4, 16, 64, 400], shape)
    distance = rng.integers(-spread, spread + 1)
    ends = np.where(rng.random(shape) < 0.5, low, low + len(table)) + rng.integers(-3, 4, shape)
    kind = rng.random(shape)
    distance = np.where(kind < 0.15, ends, distance)
    squares = seconds + distance
    near = np.searchsorted(_growths(p), rng.choice(thresholds, shape) - correction[:, np.newaxis])
    near += seconds - (1 << p.second_bits)
    squares = np.where((kind > 0.4) & (near <= top), near + rng.integers(-2, 3, shape), squares)
    gradients = _gradients(p, np.clip(squares, -2, top + 2), rng)
    # Bounds: mostly the largest, some anywhere, some of the least.
    size = p.weight.bits - 1
    bound = np.where(rng.random(count) < 0.5, p.weight.top, rng.integers(1, p.weight.top + 1, count))
    bound = np.where(rng.random(count) < 0.2, 1 + (bound >> rng.integers(0, size, count)), bound)
    bound = np.clip(bound, 1, p.weight.top)
    rate = rng.integers(0, 8, count)
    # Weights: anywhere, zero and the least, the greatest, about the bound, and where the narrow code carries over.
    reach = p.clip << rate[:, np.newaxis]
    t = rng.integers(0, np.broadcast_to(bound[:, np.newaxis] + 1, shape))
    kind = rng.random(shape)
    t = np.where(kind < 0.2, rng.integers(0, np.maximum(reach, 2), shape), t)
    t = np.where(kind < 0.06, rng.integers(0, 3, shape), t)
    t = np.where(kind > 0.8, p.weight.top - rng.integers(0, np.maximum(reach, 2), shape), t)
    t = np.where(kind > 0.95, p.weight.top, t)
    about = bound[:, np.newaxis] + rng.integers(-reach - 2, reach + 3)
    t = np.where((kind > 0.3) & (kind < 0.5), about, t)
    carry = (rng.integers(0, p.narrow.top + 1, shape) << p.shift) + (1 << p.shift >> 1) + rng.integers(-1, 2, shape)
    moves = rng.integers(-p.clip, p.clip + 1, shape) << rate[:, np.newaxis]
    t = np.where((kind > 0.5) & (kind < 0.65), carry + np.where(rng.random(shape) < 0.5, moves, 0), t)
    weights = np.clip(t, 0, p.weight.top) | rng.integers(0, 2, shape) << size
    return weights, gradients, seconds, correction, rate, bound


def _growths(parameters):
    """Return how far a square is above the new second moment, for the distances from the old one, from the least up."""
    p = parameters
    low, table, end = madam.growth(p.second_gamma, p.memory, p.random_bits)
    d = np.arange(-(1 << p.second_bits), 1 << p.second_bits)
    grown = np.where(d < low + len(table), np.array(table)[np.clip(d - low, 0, len(table) - 1)],
                     (d << p.random_bits) + end)
    return d - (grown >> p.random_bits)


def update_vectors(parameters, weights, gradients, seconds, correction, rate, bound):
    """Return the Vectors of transfers (as for `madam.updates`), with what the golden model makes of them."""
    p = parameters
    new, narrow, moved, invalid, overflow = madam.updates(p, weights, gradients, seconds, correction, rate, bound)
    inputs = pack((weights, p.weight.bits), (gradients, p.gradient.width), (seconds, p.second_bits), (correction, 16),
                  (rate, 3), (bound, p.weight.bits - 1))
    outputs = pack((new, p.weight.bits), (narrow, p.narrow.bits), (moved, p.second_bits))

    def lane(codes, fmt):
        return " ".join(f"{'-' if code > fmt.top else ''}{code & fmt.top}" for code in map(int, codes))

    def describe(k):
        digits = 2 + (p.gradient.width + 3) // 4
        return (f"weights {lane(weights[k], p.weight)}, gradients " +
                " ".join(f"{int(code):#0{digits}x}" for code in gradients[k]) +
                f", seconds {' '.join(map(str, seconds[k]))}, correction {correction[k]}, rate {rate[k]}, "
                f"bound {bound[k]}")

    def show(payload):
        lanes = p.lanes
        codes = unpack(payload, *[p.weight.bits] * lanes, *[p.narrow.bits] * lanes, *[p.second_bits] * lanes)
        return (f"weights {lane(codes[:lanes], p.weight)}, narrow {lane(codes[lanes:2 * lanes], p.narrow)}, "
                f"seconds {' '.join(map(str, codes[2 * lanes:]))}")

    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    return Vectors(inputs, outputs, range(len(inputs)), status, describe, show)


def update_recorded(parameters, count, seed):
    """Return transfers for ``madam-update`` with the gradients of weights in recorded training.

    The gradients of a few weights follow each other as in the training. Each transfer takes the weights and second
    moments that the golden model makes of the transfer before (with random words of its own).
    """
    rng = np.random.default_rng(seed)
    p, tensors = parameters, recorded.weight_gradients()
    pieces, total = [], 0
    while total < count:
        tensor = tensors[rng.integers(len(tensors))]
        steps = len(tensor)
        gradients = p.gradient.encode(tensor[:, rng.integers(0, tensor.shape[1], p.lanes)]).astype(np.int64)
        correction = np.array([madam.correction(p, step + 1) for step in range(steps)])
        rate, bound = int(rng.integers(0, 6)), int(rng.integers(p.weight.top // 2, p.weight.top + 1))
        weights, seconds = np.empty((2, steps, p.lanes), np.int64)
        weights[0] = rng.integers(1, bound + 1, p.lanes) | rng.integers(0, 2, p.lanes) << (p.weight.bits - 1)
        seconds[0] = 0
        words = rng.integers(0, 1 << p.random_bits, (steps, p.lanes))
        for step in range(steps - 1):
            weights[step + 1], _, seconds[step + 1], _, _ = madam.update(
                p, weights[step], gradients[step], seconds[step], correction[step], rate, bound, words[step])
        pieces.append((weights, gradients, seconds, correction, np.full(steps, rate), np.full(steps, bound)))
        total += steps
    return tuple(np.concatenate(each)[:count] for each in zip(*pieces, strict=True))
