"""SGD's update against NumPy and ml_dtypes operation by operation, against exact fractions, and in fixed point."""

import json
import math
import operator
from fractions import Fraction
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import reference
from narrowgauge.golden.formats import PRESETS, Fixed, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.update import METHODS, SGDParameters, extended, rate_code, step, updates
from narrowgauge.golden.words import counted

FP32, FP16, BF16, E5M2 = (PRESETS[name] for name in ("fp32", "fp16", "bf16", "fp8-e5m2"))
PEERS = {"fp32": (FP32, np.float32, np.uint32), "fp16": (FP16, np.float16, np.uint16),
         "bf16": (BF16, ml_dtypes.bfloat16, np.uint16), "fp8-e5m2": (E5M2, ml_dtypes.float8_e5m2, np.uint8)}
NEAREST_METHODS = ("plain", "kahan", "grow")


def sequence(method, w, v, c, g, lr, momentum, decay, add, subtract, multiply, negate, zero, is_zero):
    """The update in the operations of any arithmetic, written from the numerics contract, section 6."""
    if not is_zero(decay):
        g = add(g, multiply(decay, w))
    v = add(multiply(momentum, v), g)
    u = negate(multiply(lr, v))
    if method == "plain":
        return add(w, u), v, zero
    if method == "kahan":
        y = subtract(u, c)
        t = add(w, y)
        return t, v, subtract(subtract(t, w), y)
    t = add(w, u)
    y = add(subtract(u, subtract(t, w)), c)
    new = add(t, y)
    return new, v, subtract(y, subtract(new, t))


def operands(fmt, count, rng):
    """Codes of weights, velocities, compensations and gradients: any, near each other, and ends of both signs."""
    ends = np.array([0, 1, (1 << fmt.mantissa) - 1, 1 << fmt.mantissa, fmt.max_code, fmt.inf_code, fmt.nan_code])
    found = rng.integers(0, 1 << fmt.width, (4, count))
    near = fmt.encode(rng.normal(size=(4, count)) * np.exp2(rng.integers(-12, 3, (4, count)))).astype(np.int64)
    near[2] = fmt.encode(fmt.decode(near[0]) * rng.normal(size=count) * 2.0**-fmt.mantissa)
    found = np.where(rng.random((4, count)) < 0.7, near, found)
    chosen = ends[rng.integers(0, len(ends), (4, count))] | rng.integers(0, 2, (4, count)) << (fmt.width - 1)
    return np.where(rng.random((4, count)) < 0.1, chosen, found)


# (lr, momentum, decay): usual ones, a coarse one, none of each, and one by which a change is often subnormal.
RATES = [(0.01, 0.9, 0.0), (0.1, 0.9, 0.01), (1.5, 0.0, 0.5), (0.0, 0.99, 0.1), (0.0005, 0.5, 0.0), (1.0, 1.0, 1.0)]


@pytest.mark.parametrize("method", NEAREST_METHODS)
@pytest.mark.parametrize("name", PEERS)
def test_every_operation_is_the_peers(name, method):
    """ml_dtypes rounds a float32 operation again, which is as good as once: see test_floating.py."""
    fmt, dtype, word = PEERS[name]
    rng = np.random.default_rng(1)
    codes = operands(fmt, 4000, rng)
    for rates in RATES:
        rates = [rate_code(fmt, float(each)) for each in rates]
        peers = [each.astype(word).view(dtype) for each in codes]
        scalars = [np.full(codes.shape[1], each, word).view(dtype) for each in rates]
        with np.errstate(all="ignore"):
            want = sequence(
                method, *peers, *scalars, np.add, np.subtract, np.multiply, np.negative,
                np.zeros(codes.shape[1], dtype), lambda decay: not decay.any())
            assert all(each.dtype == dtype for each in want)  # no operation was done in a wider type
        found = step(fmt, method, *codes, *rates)
        for ours, theirs in zip(found, want):
            with np.errstate(all="ignore"):
                nan = np.isnan(theirs.astype(np.float32))
            assert ours.dtype == np.uint32 and 0.001 < nan.mean() < 0.7 or not theirs.any()
            np.testing.assert_array_equal(ours, np.where(nan, fmt.nan_code, theirs.view(word)))


def by_reference(fmt, method, w, v, c, g, lr, momentum, decay, rounding=NEAREST, word=0):
    """The update of one weight, by exact integers."""
    sign = 1 << (fmt.width - 1)
    lr, momentum, decay = (each if each >> fmt.mantissa else 0 for each in (lr, momentum, decay))

    def done(operation):
        return lambda a, b: operation(a, b, fmt)[0]

    add, subtract, multiply = (done(each) for each in (reference.add, reference.subtract, reference.multiply))
    if method == "stochastic":
        def add_at_random(a, b):
            return reference.add(a, b, fmt, rounding, word)[0]

        new, v, c = by_reference(fmt, "plain", w, v, c, g, lr, momentum, decay)
        return add_at_random(w, multiply(lr, v) ^ sign), v, c
    return sequence(method, w, v, c, g, lr, momentum, decay, add, subtract, multiply, lambda a: a ^ sign, 0,
                    lambda code: code == 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["fp8-e5m2", "fp8-e4m3", "fp4-e2m1", "fp6-e3m2"])
def test_every_weight_of_a_small_format_by_exact_integers(name, method):
    """Formats without Inf, and without NaN, among them, which the golden model takes and the unit does not."""
    fmt, rng = PRESETS[name], np.random.default_rng(2)
    weights = np.tile(np.arange(1 << fmt.width), 4)
    count, rounding = len(weights), stochastic(3)
    v, c, g = rng.integers(0, 1 << fmt.width, (3, count))
    rates = rng.integers(0, 1 << (fmt.width - 1), (3, count))
    rates[2, ::3] = 0
    # Neither rates that are Inf or NaN, nor ones above 2, which are no rates.
    rates = np.minimum(rates, fmt.encode(1.75))
    words = rng.integers(0, 8, count)
    found = step(fmt, method, weights, v, c, g, *rates, words, rounding)
    want = [by_reference(fmt, method, *(int(each) for each in (*row, *rate)), rounding, int(word))
            for row, rate, word in zip(zip(weights, v, c, g), rates.T, words)]
    np.testing.assert_array_equal(np.transpose(found), want)
    assert len(np.unique(found[0])) > (1 << fmt.width) // 2


@pytest.mark.parametrize("weight, change", [
    (1.0, 2.0**-10), (1.0, -(2.0**-10)), (-1.0, 2.0**-9 * 1.25), (1.5, 2.0**-8 * 1.375), (0.75, 2.0**-20),
    (1.0, 2.0**-7), (2.0**-126, 2.0**-134), (-1.9921875, -(2.0**-8))], ids=str)
def test_of_all_random_words_as_many_round_up_as_the_change_is_units(weight, change):
    """Up with floor(d * 2**k) + r >= 2**k: as many of the 2**k words as floor(d * 2**k)."""
    fmt, words = BF16, np.arange(256)
    w, u = (int(fmt.encode(each)) for each in (weight, change))
    # lr = 1, and no momentum: the change is minus the gradient.
    one = int(fmt.encode(1.0))
    new, *_ = step(fmt, "stochastic", *(np.full(256, each) for each in (w, 0, 0, u ^ 0x8000)), one, 0, 0, words)
    exact = Fraction(weight) + Fraction(float(fmt.decode(u)))
    exponent = max(math.frexp(float(abs(exact)))[1] - 1, fmt.emin)
    units = abs(exact) / Fraction(2)**(exponent - fmt.mantissa)
    low, part = units.numerator // units.denominator, units % 1
    values = np.abs(fmt.decode(new))
    ups = [Fraction(value) / Fraction(2)**(exponent - fmt.mantissa) - low for value in values.tolist()]
    assert set(ups) <= {0, 1} and sum(ups) == part * 256 // 1
    # And those are the greatest words.
    assert ups == sorted(ups)


def test_without_decay_a_gradient_is_as_it_is():
    fmt, one = BF16, int(BF16.encode(1.0))
    for weight in (0, 0x8000, one, fmt.inf_code, fmt.inf_code | 0x8000, fmt.nan_code):
        # -0 stays -0 where nothing is added, and momentum leaves -0 as well; subnormal decays are none.
        for decay in (0, 1, 0x7F):
            _, velocity, _ = step(fmt, "plain", [weight], [0x8000], [0], [0x8000], one, one, decay)
            assert velocity[0] == 0x8000
        _, velocity, _ = step(fmt, "plain", [weight], [0], [0], [one], one, one, rate_code(fmt, 0.5))
        assert (velocity[0] == one) == (weight in (0, 0x8000))


def test_a_subnormal_rate_is_zero():
    fmt = E5M2
    arrays = [np.arange(256), np.arange(256)[::-1].copy(), np.roll(np.arange(256), 9), np.roll(np.arange(256), 77)]
    for place in range(3):
        for method in NEAREST_METHODS:
            results = []
            for code in range(5):
                rates = [0x38, 0x38, 0x38]
                rates[place] = code
                results.append(np.array(step(fmt, method, *arrays, *rates)))
            assert all((each == results[0]).all() for each in results[1:4])
            assert place == 2 or (results[4] != results[0]).any()  # the smallest normal one is none of them


@pytest.mark.parametrize("method, weights, compensations", [
    ("plain", (0.99609375, 0.9921875, 0.9921875), (0, 0, 0)),
    ("stochastic", (1, 0.99609375, 0.99609375), (0, 0, 0)),
    ("kahan", (0.99609375, 0.9921875, 0.9921875), (-0.0009765625, -0.00048828125, 0.000732421875)),
    ("grow", (0.99609375, 0.9921875, 0.9921875), (0.0009765625, 0.00048828125, -0.000732421875)),
])
def test_the_worked_example_of_the_numerics(method, weights, compensations):
    w, v, c = BF16.encode([1]), BF16.encode([0]), BF16.encode([0])
    for gradient, weight, compensation in zip((3, 3, -1), weights, compensations):
        w, v, c = step(BF16, method, w, v, c, BF16.encode([gradient]), rate_code(BF16, 2.0**-10), rate_code(BF16, 0.5),
                       0, [0xC0])
        assert (BF16.decode(w), BF16.decode(c)) == (weight, compensation)


# Rates and parameters.


def test_rates_are_rounded_to_codes():
    assert rate_code(BF16, 0.9) == 0x3F66 and rate_code(BF16, 1) == 0x3F80 and rate_code(FP16, 0) == 0
    assert rate_code(E5M2, 2.0**-14) == 4 and rate_code(E5M2, 2.0**-15) == 0  # subnormal
    assert rate_code(E5M2, 2.0**-14 * 0.875) == 4  # rounded to a normal number
    with pytest.raises(ValueError, match=r"^rate is 1\.99; allowed: a number that is below 2 in "):
        rate_code(E5M2, 1.99)
    for bad in (-0.1, 2, 2.0, math.nan, math.inf, "1", True, None):
        with pytest.raises(ValueError, match=r"^rate is .*; allowed: a number from 0 to below 2$"):
            rate_code(BF16, bad)


def test_the_units_rates_are_short():
    assert (SGDParameters().rate_bits, SGDParameters(rates="powers").rate_bits) == (14, 7)
    assert SGDParameters().rate(1.9921875) == (1 << 14) - 1
    powers = SGDParameters(rates="powers")
    assert (powers.rate(1), powers.rate(0.25), powers.rate(0), powers.rate(2.0**-126)) == (127, 125, 0, 1)
    with pytest.raises(ValueError, match=r"^rate is 0\.75; allowed: 0 or a power of two$"):
        powers.rate(0.75)


@pytest.mark.parametrize("changes, name", [
    ({"format": PRESETS["fp8-e4m3"]}, "format"), ({"format": PRESETS["fp4-e2m1"]}, "format"),
    ({"format": Float(4, 1)}, "format"), ({"format": Float(5, 2, bias=14)}, "format"),
    ({"format": Float(5, 2, overflow="saturate")}, "format"), ({"format": Fixed(8, 4)}, "format"),
    ({"schedule": "serial"}, "schedule"), ({"grow": 1}, "grow"), ({"rates": "integers"}, "rates"),
    ({"random_bits": 0}, "random_bits"), ({"random_bits": 17}, "random_bits"), ({"random_bits": True}, "random_bits"),
    ({"seed": -1}, "seed"), ({"seed": 2**31}, "seed"), ({"multiplier": "shifts"}, "multiplier"),
    ({"compensated": 0}, "compensated")], ids=str)
def test_parameters_that_make_no_sense_are_refused(changes, name):
    value, = changes.values()
    with pytest.raises(ValueError) as caught:
        SGDParameters(**changes)
    assert str(caught.value).startswith(f"{name} is {value!r}; allowed: ")


def test_a_unit_without_compensation_neither_grows_nor_knows_other_methods():
    with pytest.raises(ValueError, match="^grow is True; allowed: false, because compensated is false$"):
        SGDParameters(grow=True, compensated=False)
    bare = SGDParameters(compensated=False)
    assert bare.methods == ("plain", "stochastic") and bare.method_bits == 1
    assert [SGDParameters(grow=each).methods for each in (False, True)] == [METHODS[:3], METHODS]
    for method in (2, -1):
        with pytest.raises(ValueError, match=r"^method is array\(\[ ?0, *-?[12]\]\); allowed: codes from 0 to 1$"):
            updates(bare, *[[0, 0]] * 4, np.array([0, method]), *[[0, 0]] * 3)


def test_methods_and_random_words_are_required():
    with pytest.raises(ValueError, match=r"^update is 'adam'; allowed: plain, stochastic, kahan, grow$"):
        step(BF16, "adam", [0], [0], [0], [0], 0, 0)
    with pytest.raises(ValueError, match="^random is None"):
        step(BF16, "stochastic", [0], [0], [0], [0], 0, 0)


@pytest.mark.parametrize("p", [
    SGDParameters(), SGDParameters(Float(4, 2), "shared", True, "powers", 3, 9, "lut"),
    SGDParameters(compensated=False)], ids=["default", "other", "bare"])
def test_parameters_go_into_json_and_come_back(p):
    assert SGDParameters.from_json(json.dumps(p.to_json())) == p


def test_parameters_written_without_compensated_have_it():
    written = {"format": "bf16", "schedule": "shared", "grow": True, "rates": "float", "random_bits": 8, "seed": 1,
               "multiplier": "dsp"}
    assert SGDParameters.from_json(written) == SGDParameters(schedule="shared", grow=True, compensated=True)


def test_module_names_tell_what_is_not_usual():
    name = catalog.find("sgd-update").module_name
    assert name(SGDParameters()) == "sgd_update_bf16"
    assert name(SGDParameters(E5M2, "shared", True, "powers", 3, 9, "lut")) == (
        "sgd_update_fp8_e5m2_shared_grow_powers_k3_s9_lut")
    assert name(SGDParameters(schedule="shared", compensated=False)) == "sgd_update_bf16_shared_not_compensated"


# The exact sum.


def exact(fmt, codes):
    return [Fraction(value) for value in fmt.decode(codes).ravel().tolist()]


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
