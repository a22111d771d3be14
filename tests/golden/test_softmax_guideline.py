"""How many bits the softmax head's errors need: what rows lose to zeros, and what stochastic rounding does to them."""

import math

import numpy as np
import pytest
from narrowgauge.golden import softmax
from narrowgauge.golden.softmax import SoftmaxParameters


def make(**settings):
    return SoftmaxParameters.from_json(settings)


def test_guideline():
    assert [softmax.guideline(classes) for classes in (2, 3, 4, 5, 10, 16, 17, 26, 128, 129, 1024)] == [
        2, 3, 3, 4, 5, 5, 6, 6, 8, 9, 11]
    assert [softmax.guideline(classes, "truncate") for classes in (2, 10, 26, 1024)] == [3, 6, 7, 12]
    assert [softmax.guideline(classes, "stochastic") for classes in (2, 3, 10, 1024)] == [2, 3, 4, 4]


@pytest.mark.parametrize("classes", [2, 3, 10, 26, 100, 1024])
def test_at_the_guideline_no_error_of_an_even_row_is_lost_and_below_it_all_are(classes):
    for rounding in ("nearest", "truncate"):
        for missing in (0, 1):
            bits = softmax.guideline(classes, rounding) - missing
            if bits < 2:
                continue
            p = make(classes=classes, bits=bits, rounding=rounding, format="fp32")
            # 1 / classes, or what is a little more than the least unit.
            found, *_ = softmax.gradient(p, [[0] * classes], [0])
            exact = 1 / classes * 2 ** (bits - 1)
            if rounding == "nearest" and exact == 0.5:
                continue  # a tie
            assert (found[0, 1:] > 0).all() == (math.floor(exact + 0.5 * (rounding == "nearest")) > 0)
    assert 2 ** (softmax.guideline(classes) - 1) / classes >= 1


ROUNDINGS = [{"rounding": "nearest"}, {"rounding": "truncate"}, {"rounding": "stochastic", "random_bits": 3},
             {"rounding": "stochastic", "random_bits": 4, "corrected": True}]


def zeroed(parameters, logits):
    """Return how much of each row's probability is in errors, but for class 0's, that are zero with any random word."""
    p = parameters
    words = np.full(logits.size, (1 << p.random_bits) - 1)
    found, *_ = softmax.gradient(p, logits, np.zeros(len(logits), int), random=words)
    exact = np.ldexp(softmax.probabilities(p, logits).astype(np.float64), -2 * p.kept)
    return (exact * (found == 0))[:, 1:].sum(axis=1)


@pytest.mark.parametrize("settings", ROUNDINGS, ids=lambda each: "-".join(map(str, each.values())))
@pytest.mark.parametrize(("bits", "classes"), [(4, 10), (6, 26), (7, 100), (9, 100)])
def test_no_row_loses_more_to_zeros_than_the_bound_and_some_lose_nearly_as_much(settings, bits, classes):
    p, rng = make(bits=bits, classes=classes, format="fp32", **settings), np.random.default_rng(bits)
    rows = rng.normal(size=(400, classes)) * rng.choice([0.01, 0.5, 2, 6], (400, 1))
    assert zeroed(p, p.format.encode(rows).astype(np.int64)).max() <= softmax.lost(p)
    # All classes but one just below the threshold, as far as the row has probability for them. That of stochastic
    # rounding is finer than the head's own probabilities.
    edge = softmax.lost(p) / (classes - 1)
    if p.rounding != "stochastic" and softmax.lost(p) < 0.9:
        shares = np.linspace(0.85, 1, 40)[:, np.newaxis] * edge
        rows = np.log(np.concatenate([1 - (classes - 1) * shares, np.repeat(shares, classes - 1, axis=1)], axis=1))
        worst = zeroed(p, p.format.encode(rows).astype(np.int64)).max()
        assert 0.8 * softmax.lost(p) < worst <= softmax.lost(p)


def test_what_is_lost_at_the_guideline_is_up_to_a_half_and_each_bit_halves_it():
    for classes in (2, 10, 26, 128, 1024):
        for rounding in ("nearest", "truncate"):
            least = softmax.guideline(classes, rounding)
            at = [softmax.lost(make(classes=classes, rounding=rounding, bits=least + more)) for more in range(4)]
            assert 0.25 <= at[0] < 0.5 and all(after == before / 2 for before, after in zip(at, at[1:]))


@pytest.mark.parametrize("classes", [2, 30, 300])
def test_stochastic_errors_are_right_on_average_and_their_noise_knows_no_number_of_classes(classes):
    """Over all random words: the mean is within a unit of the word's last place; the variances sum to a bound."""
    p = make(bits=4, classes=classes, rounding="stochastic", random_bits=6, format="fp32")
    rng, unit = np.random.default_rng(classes), 2.0 ** (1 - p.bits)
    logits = p.format.encode(rng.normal(size=(6, classes)) * np.arange(1, 7)[:, np.newaxis]).astype(np.int64)
    exact = np.ldexp(softmax.probabilities(p, logits).astype(np.float64), -2 * p.kept)
    exact[:, 0] = 1 - exact[:, 0]
    found = np.stack([np.abs(p.error.decode(softmax.gradient(p, logits, np.zeros(6, int), random=np.full(
        logits.size, word))[0])) for word in range(1 << p.random_bits)])
    below = exact - found.mean(axis=0)
    held = exact <= 1 - unit  # an error of 1 becomes the largest number
    assert (below[held] >= -1e-12).all() and (below[held] < unit * 2.0**-p.random_bits).all()
    assert (found.var(axis=0).sum(axis=1) <= unit * exact.sum(axis=1)).all()


def test_bits_follow_the_guideline_and_fewer_are_warned_of():
    assert (make().bits, make(classes=100).bits, make(classes=100, rounding="truncate").bits) == (5, 8, 9)
    assert make().warning is None and make(bits=16).warning is None
    assert make(bits=4).warning == (
        "bits is 4; 10 classes with rounding nearest need 5 or more, or small errors become zero")
    assert make(bits=3, rounding="stochastic").warning and make(bits=4, rounding="stochastic").warning is None
