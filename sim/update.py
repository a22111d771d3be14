"""Vectors for the unit of SGD's weight update: random with directed places, and recorded."""

import numpy as np

from ..golden import floating, update
from . import recorded
from .floating import field_of, near_of, random_codes
from .vectors import Vectors, pack, unpack

__all__ = ["update_random", "update_recorded", "update_vectors"]


def update_random(parameters, count, seed):
    """Return random transfers for ``sgd-update``, many at directed places: arguments of `update_vectors`."""
    rng, p, fmt = np.random.default_rng(seed), parameters, parameters.format
    reach, sign, shift = fmt.mantissa + 4, 1 << (fmt.width - 1), p.rate_shift

    def chosen(part, first, second):
        return np.where(rng.random(count) < part, first, second)

    # Rates of every size, most of them near 1, and none.
    lr, momentum, decay = rng.integers(0, 1 << p.rate_bits, (3, count))
    high = p.rate_bits - (fmt.exponent - 1)  # bits below the exponent
    for rates in (lr, momentum, decay):
        near = np.clip(fmt.bias - rng.geometric(0.3, count) + 1, 0, fmt.bias) << high | rates & ((1 << high) - 1)
        rates[:] = chosen(0.7, near, rates)
        rates[:] = chosen(0.1, rates & ((1 << high) - 1), chosen(0.1, rates >> high << high, rates))
    decay = chosen(0.3, 0, decay)
    weights = random_codes(rng, fmt, count)
    velocities = random_codes(rng, fmt, count)
    # The gradient, with the decay taken in, is near what momentum leaves, or cancels it.
    kept = floating.multiply(velocities, momentum << shift, fmt).astype(np.int64)
    gradients = random_codes(rng, fmt, count, field_of(fmt, kept) + rng.integers(-reach, reach + 1, count))
    gradients = chosen(0.15, near_of(rng, fmt, kept) ^ sign, gradients)
    # Weights, and compensations, around the change: as far as either reaches below the other, or cancelling it.
    moves, _ = update.change(fmt, weights, velocities, gradients, lr << shift, momentum << shift, decay << shift)
    moves = moves.astype(np.int64)
    spread = rng.integers(-reach, reach + 1, count)
    unbound = decay == 0  # else the weight has a part in the change
    weights = np.where(unbound, chosen(0.8, random_codes(rng, fmt, count, field_of(fmt, moves) + spread), weights),
                       weights)
    weights = np.where(unbound & (rng.random(count) < 0.1), near_of(rng, fmt, moves) ^ sign, weights)
    spread = rng.integers(-2 * reach, 4, count)
    compensations = chosen(0.8, random_codes(rng, fmt, count, field_of(fmt, weights) + spread),
                           random_codes(rng, fmt, count))
    compensations = chosen(0.15, near_of(rng, fmt, moves) ^ rng.integers(0, 2, count) * sign, compensations)
    compensations = chosen(0.1, 0, compensations)
    method = rng.integers(0, 1 << p.method_bits, count)
    return weights, velocities, compensations, gradients, method, lr, momentum, decay


def update_recorded(parameters, count, seed):
    """Return transfers for ``sgd-update`` with the gradients of weights in recorded training.

    The gradients of a weight follow each other as in the training. Each transfer takes the weight, velocity and
    compensation that the golden model makes of the transfer before (with random words of its own).
    """
    rng, p, fmt = np.random.default_rng(seed), parameters, parameters.format
    tensors, pieces, total = recorded.weight_gradients(), [], 0
    while total < count:
        tensor = tensors[rng.integers(len(tensors))]
        steps, method = len(tensor), int(rng.integers(0, len(p.methods)))
        gradients = fmt.encode(tensor[:, rng.integers(0, tensor.shape[1])]).astype(np.int64)
        codes = np.zeros((3, steps), np.int64)
        codes[0, 0] = fmt.encode(rng.uniform(-0.3, 0.3))
        exponents = [int(rng.integers(1, low)) for low in (7, 2, 12)]
        rates = [p.rate(2.0 ** -each if p.rates == "powers" else float(rng.uniform(0.5, 1)) * 2.0 ** -each)
                 for each in exponents]
        scaled = [each << p.rate_shift for each in rates]
        words = rng.integers(0, 1 << p.random_bits, steps)
        for step in range(steps - 1):
            found = update.step(fmt, update.METHODS[method], *(row[step:step + 1] for row in (*codes, gradients)),
                                *scaled, words[step:step + 1], update.stochastic(p.random_bits))
            codes[:, step + 1] = np.concatenate(found)
        pieces.append((*codes, gradients, *(np.full(steps, each) for each in (method, *rates))))
        total += steps
    return tuple(np.concatenate(each)[:count] for each in zip(*pieces, strict=True))


def update_vectors(parameters, weights, velocities, compensations, gradients, method, lr, momentum, decay):
    """Return the Vectors of transfers (as for `update.updates`), with what the golden model makes of them."""
    p, width = parameters, parameters.format.width
    *found, invalid, overflow = update.updates(p, weights, velocities, compensations, gradients, method, lr, momentum,
                                               decay)
    results = ("weight", "velocity", "compensation")[:3 if p.compensated else 2]
    codes = dict(zip(results, (weights, velocities, compensations))) | {"gradient": gradients}
    rates = {"lr": lr, "momentum": momentum} | ({"decay": decay} if p.decays else {})
    inputs = pack(*((each, width) for each in codes.values()), (method, p.method_bits),
                  *((each, p.rate_bits) for each in rates.values()))

    def show(payload):
        named = zip(results, unpack(payload, *[width] * len(results)))
        return ", ".join(f"{name} {code:#0{2 + (width + 3) // 4}x}" for name, code in named)

    def describe(k):
        words = [f"{name} {int(each[k]):#0{2 + (width + 3) // 4}x}" for name, each in (codes | rates).items()]
        return f"{update.METHODS[int(method[k])]}: " + ", ".join(words)

    status = {"invalid": int(invalid.any()), "overflow": int(overflow.any())}
    outputs = pack(*((each, width) for each in found[:len(results)]))
    return Vectors(inputs, outputs, range(len(inputs)), status, describe, show)
