"""SGD's update over many steps: what a weight and its compensation keep of small changes."""

import math
import operator
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from narrowgauge.golden import reference
from narrowgauge.golden.formats import PRESETS, Fixed
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.update import METHODS, SGDParameters, extended, rate_code, step, updates
from narrowgauge.golden.words import counted
from updates import BF16, E5M2, FP16, PEERS, by_reference, exact, operands, sequence


def half_unit(value, fmt):
    """Half a unit in the last place of a Fraction that was not rounded: what rounding may change it by."""
    exponent = math.frexp(float(abs(value)))[1]  # one too high at the most, where the conversion rounds up
    return Fraction(2)**(max(exponent - 1, fmt.emin) - fmt.mantissa - 1)


def chain(name, method, gradients, words=None):
    """A weight's run from 1.0, with a learning rate of 1: codes of w and c, Fractions of them and of each change u.

    It goes on in scalars of NumPy or ml_dtypes, whose sums take less time than golden's; golden makes all steps at
    once, each from the state before it, and must come to the states after it.
    """
    fmt, dtype, word = PEERS[name]
    zero, one = dtype(0), dtype(1)
    gradients = np.asarray(gradients).astype(dtype)
    states, changes = [(one, zero, zero)], []
    for k, g in enumerate(gradients):
        w, v, c = states[-1]
        new, v, c = sequence("plain" if method == "stochastic" else method, w, v, c, g, one, zero, zero, operator.add,
                             operator.sub, operator.mul, operator.neg, zero, lambda decay: decay == 0)
        changes.append(-v)
        if method == "stochastic":
            code = reference.add(int(w.view(word)), int((-v).view(word)), fmt, stochastic(16), int(words[k]))[0]
            new = np.array(code, word).view(dtype)[()]
        states.append((new, v, c))
    codes = np.array(states, dtype).view(word).T
    rates = rate_code(fmt, 1.0), 0, 0
    found = step(fmt, method, *codes[:, :-1], gradients.view(word), *rates, words, stochastic(16))
    np.testing.assert_array_equal(found, codes[:, 1:])
    w, _, c = codes[:, 1:]
    return SimpleNamespace(w=w, c=c, w_exact=exact(fmt, w), c_exact=exact(fmt, c),
                           u=exact(fmt, np.array(changes, dtype).view(word)))


@pytest.mark.parametrize("method", ["kahan", "grow"])
@pytest.mark.parametrize("name, scale", [("bf16", 2.0**-10), ("bf16", 2.0**-14), ("fp16", 2.0**-12)])
def test_weight_and_compensation_follow_the_exact_sum(name, scale, method):
    """Where |u| and |c| are below |w|, so that the error of w + y is a number of the format.

    Kahan: with y = R(u - c), t = R(w + y), t - w and then (t - w) - y are exact (Fast2Sum), and t - c' = w + y, so that
    a step adds nothing but the rounding of y: half a unit of u - c. Grow: t = R(w + u) leaves exactly l = u - (t - w);
    y = R(l + c) is rounded, and w' + c' = t + y exactly: half a unit of l + c. Both are bounded step by step, and so is
    the sum of them.
    """
    fmt, rng = PRESETS[name], np.random.default_rng(7)
    gradients = scale * (rng.normal(size=2000) - 0.2)
    run = chain(name, method, gradients)
    sign = -1 if method == "kahan" else 1
    both = [Fraction(1)] + [w + sign * c for w, c in zip(run.w_exact, run.c_exact)]
    weights, compensations = [Fraction(1), *run.w_exact], [Fraction(0), *run.c_exact]
    bound, errors = Fraction(0), 0
    for k, u in enumerate(run.u):
        if method == "kahan":
            rounded = u - compensations[k]
        else:
            first = exact(fmt, fmt.encode(float(weights[k] + u)))[0]
            rounded = u - (first - weights[k]) + compensations[k]
        error, limit = both[k + 1] - both[k] - u, half_unit(rounded, fmt)
        assert abs(error) <= limit, k
        errors += error != 0
        bound += limit
        assert abs(both[k + 1] - 1 - sum(run.u[:k + 1])) <= bound if k % 100 == 0 else True
    assert abs(both[-1] - 1 - sum(run.u)) <= bound < 40 * half_unit(both[-1], fmt)  # a fiftieth of it a step
    assert errors > 100  # not because there was nothing to round
    # And the weight is that sum, rounded: its compensation is no more than half a unit.
    assert all(abs(c) <= half_unit(w, fmt) * (1 + (method == "grow")) for w, c in zip(run.w_exact, run.c_exact))


def contract():
    """8,000 changes averaging -8e-5: no two of them alike, and none as much as half a unit of bf16 below 1."""
    rng = np.random.default_rng(6)
    return rng.uniform(0, 1.6e-4, 8000)


@pytest.fixture(scope="module")
def runs():
    found, words = {}, np.random.default_rng(8).integers(0, 1 << 16, 8000)
    for method in METHODS:
        found[method] = chain("bf16", method, contract(), words)
    return found


def test_eight_thousand_small_changes_are_lost_by_the_plain_update(runs):
    run = runs["plain"]
    assert set(run.w.tolist()) == {int(BF16.encode(1.0))} and not run.c.any()
    assert sum(run.u) == pytest.approx(-0.64, abs=0.01)


@pytest.mark.parametrize("method", ["kahan", "grow"])
def test_eight_thousand_small_changes_are_kept_by_a_compensation(runs, method):
    """Within half a unit of bf16 of the exact sum of the changes, which ends between 1/4 and 1/2."""
    run = runs[method]
    want = 1 + sum(run.u)
    assert Fraction(1, 4) < want < Fraction(1, 2)
    assert abs(run.w_exact[-1] - want) <= half_unit(want, BF16)


def test_eight_thousand_small_changes_are_kept_on_average_by_stochastic_rounding(runs):
    """A step's variance is below a quarter of a unit squared, and a unit 2**-8 at the most: three deviations."""
    run = runs["stochastic"]
    deviation = math.sqrt(sum(float(-u) * 2.0**-8 for u in run.u))  # d(1 - d) units**2 <= d unit * unit
    assert abs(float(run.w_exact[-1] - 1 - sum(run.u))) < 3 * deviation < 0.2
    assert len(set(run.w.tolist())) > 100


# Fixed point.


def extended_by_integers(fmt, carry, weight, word, change, rounding=NEAREST, random=0):
    """One weight in Python integers: the carry word extends it below."""
    weight -= (weight >> (fmt.bits - 1)) << fmt.bits
    if math.isnan(change):
        change = 0.0
    if math.isinf(change):
        units = 1 << 100
    else:
        scaled = abs(Fraction(change)) * 2**(fmt.fraction + carry)
        low, part = scaled.numerator // scaled.denominator, scaled % 1
        up = {"nearest": part > Fraction(1, 2) or (part == Fraction(1, 2) and low % 2 == 1), "truncate": False,
              "stochastic": part * 2**rounding.bits // 1 + random >= 2**rounding.bits}[rounding.kind]
        units = low + bool(up)
    whole = weight * 2**carry + word + (-units if change < 0 else units)
    end = 1 << (fmt.bits + carry - 1)
    whole = min(max(whole, -end), end - 1)
    return (whole // 2**carry) % 2**fmt.bits, whole % 2**carry


@pytest.mark.parametrize("rounding", [NEAREST, TRUNCATE, stochastic(4)], ids=lambda r: r.kind)
@pytest.mark.parametrize("fmt, carry", [
    (Fixed(8, 6), 0), (Fixed(8, 6), 8), (Fixed(16, 14), 12), (Fixed(16, 12), 24), (Fixed(4, 1), 1)], ids=str)
def test_a_carry_word_extends_a_weight(fmt, carry, rounding):
    rng, count = np.random.default_rng(9), 2000
    weights, carries = rng.integers(0, 1 << fmt.bits, count), rng.integers(0, 1 << carry, count)
    changes = rng.normal(size=count) * np.exp2(rng.integers(-fmt.fraction - carry - 2, 3, count))
    # Ties of the units, and changes that are no number or beyond all weights.
    unit = 2.0**-(fmt.fraction + carry)
    changes[::5] = unit * (rng.integers(-9, 9, len(changes[::5])) + 0.5)
    changes[:8] = [np.inf, -np.inf, np.nan, 1e30, -1e30, 0.0, -0.0, 5e-324]
    words = rng.integers(0, 16, count)
    found = extended(fmt, carry, weights, carries, changes, rounding, words)
    want = [extended_by_integers(fmt, carry, *(each.item() for each in row[:3]), rounding, int(row[3]))
            for row in zip(weights, carries, changes, words)]
    np.testing.assert_array_equal(np.transpose(found), want)
    if rounding == NEAREST:
        ends = {1 << (fmt.bits - 1), (1 << (fmt.bits - 1)) - 1}
        assert ends <= set(found[0].tolist())


def test_without_a_carry_word_it_is_the_plain_update_and_with_one_nothing_is_lost():
    fmt, changes = Fixed(8, 6), np.full(100, -0.3 / 64)
    weights = {0: np.array([64]), 6: np.array([64])}
    for carry in weights:
        carries = np.array([0])
        for change in changes:
            weights[carry], carries = extended(fmt, carry, weights[carry], carries, np.array([change]))
    # 0.3 units are rounded off; in 64ths of a unit they are 19, of which there are 100.
    assert weights[0] == 64 and weights[6] == 64 - 30 and carries == -1900 % 64


@pytest.mark.parametrize("bits, carry, most", [(8, 25, 24), (16, 25, 24), (20, 21, 20), (8, -1, 24), (8, 1.0, 24)])
def test_a_carry_word_that_makes_no_sense_is_refused(bits, carry, most):
    with pytest.raises(ValueError, match=rf"^carry is {carry}; allowed: an integer from 0 to {most}$"):
        extended(Fixed(bits, 4), carry, [0], [0], [0.0])


# Transfers.


def transfers(p, count, seed):
    rng = np.random.default_rng(seed)
    return (*operands(p.format, count, rng), rng.integers(0, 1 << p.method_bits, count),
            *rng.integers(0, 1 << p.rate_bits, (3, count)))


@pytest.mark.parametrize("p", [
    SGDParameters(), SGDParameters(FP16, grow=True, random_bits=5, seed=3),
    SGDParameters(E5M2, grow=True, rates="powers", random_bits=12), SGDParameters(BF16, compensated=False)],
    ids=["bf16", "fp16-grow", "powers", "bare"])
def test_transfers_are_steps_with_words_for_the_stochastic_ones(p):
    arrays = transfers(p, 1200, 4)
    w, v, c, invalid, overflow = updates(p, *arrays)
    words = iter(counted(p.seed, 1, 0, 1200, p.random_bits)[:, 0].tolist())
    fmt, names, drawn = p.format, [*METHODS[:3], METHODS[3] if p.grow else "kahan"], 0
    for k, row in enumerate(zip(*(each.tolist() for each in arrays))):
        name, rates = names[row[4]], [each << (fmt.mantissa if p.rates == "powers" else 0) for each in row[5:]]
        word = next(words) if name == "stochastic" else 0
        drawn += name == "stochastic"
        want = by_reference(fmt, name, *row[:4], *rates, stochastic(p.random_bits), word)
        assert (w[k], v[k], c[k]) == want
        classes = [reference.decode(code, fmt).kind for code in want]
        assert (invalid[k], overflow[k]) == ("nan" in classes, "inf" in classes and "nan" not in classes)
    assert 200 < drawn < 400 * (1 if p.compensated else 2) and invalid.any() and overflow.any() and not invalid.all()
    # A run goes on with as many draws as there were.
    drawn = int((arrays[4][:500] == 1).sum())
    for whole, rest in zip((w, v, c, invalid, overflow), updates(p, *(each[500:] for each in arrays), draws=drawn)):
        np.testing.assert_array_equal(whole[500:], rest)
    # With words beside the transfers, each stochastic one takes its own.
    beside = np.random.default_rng(5).integers(0, 1 << p.random_bits, 1200)
    told = updates(p, *arrays, random=beside)
    beside[arrays[4] == 1] = counted(p.seed, 1, 0, drawn + (arrays[4][500:] == 1).sum(), p.random_bits)[:, 0]
    for counting, given in zip((w, v, c, invalid, overflow), updates(p, *arrays, random=beside)):
        np.testing.assert_array_equal(given, counting)
    assert (told[0] != w).any() and not (told[0] != w)[arrays[4] != 1].any()
