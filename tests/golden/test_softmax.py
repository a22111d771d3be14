"""The softmax head against SciPy's, against its definition in fractions, and its bounds over all inputs."""

import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import softmax
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.softmax import SoftmaxParameters
from narrowgauge.golden.words import counted
from scipy.special import log_softmax
from scipy.special import softmax as exact_softmax

P = SoftmaxParameters()
FORMATS = [PRESETS[name] for name in ("bf16", "fp16", "fp32", "fp8-e5m2", "fp8-e4m3", "fp4-e2m1")]
ENDS = [(bits, classes) for bits in range(2, 17) for classes in (2, 10, 1024)]


def make(**settings):
    return SoftmaxParameters.from_json(settings)


# The definition, one row at a time, in fractions: numerics contract, section 9.


def nearest(x):
    """Round a Fraction, a half to even."""
    low = math.floor(x)
    rest = x - low
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1))


def power_point(i, index, value):
    """round(2**(value - i / 2**index)), by powers of integers."""
    if i in (0, 1 << index):
        return 1 << (value - (i > 0))
    guess = round(2 ** (value - i / 2**index))
    exact = 1 << ((value << index) - i)
    for found in (guess - 1, guess, guess + 1):
        if (2 * found - 1) ** (1 << index) < exact << (1 << index) < (2 * found + 1) ** (1 << index):
            return found
    raise AssertionError


def ln(x):
    """ln of a Fraction of 1 to 2, within 2**-80: twice the series of artanh."""
    y = (x - 1) / (x + 1)
    return 2 * sum((y ** (2 * k + 1) / (2 * k + 1) for k in range(26)), Fraction(0))


LN2 = 2 * sum((Fraction(1, (2 * k + 1) * 3 ** (2 * k + 1)) for k in range(50)), Fraction(0))


def chord(start, end, rest, low):
    return start - ((start - end) * rest >> low)


def row_of(p, values, target, words):
    """Return (errors, loss) of a row of finite values; a word for each class if the rounding is stochastic."""
    b, n = max(p.bits, 8), (p.classes - 1).bit_length()
    fraction, index, phase, value, guard, kept = b + 1, b // 2 + 1, b + 3, b + 4, b + 2 + n, b + 2
    integer = next(i for i in range(1, 9) if 2**i - Fraction(1, 2**fraction) >= (guard + 1) * LN2)
    limit, low = 2 ** (integer + fraction) - 1, phase - index

    def fixed(x):
        return (1 if x >= 0 else -1) * math.floor(abs(x) * 2**fraction + Fraction(1, 2))

    def coarse(x):  # the last place is worth more than the largest distance
        if x == 0:
            return p.format.emin - p.format.mantissa > integer
        exponent = max(math.floor(math.log2(abs(x))), p.format.emin)
        return exponent - p.format.mantissa > integer

    greatest = max(values)
    sums, powers, distances = 0, [], []
    for x in values:
        if x == greatest:
            d = 0
        elif coarse(x) or coarse(greatest):
            d = limit
        else:
            d = min(fixed(greatest) - fixed(x), limit)
        whole, rest = d >> fraction, d & (2**fraction - 1)
        turns = nearest(whole / LN2 * 2**phase) + (rest << (phase - fraction))
        turns += rest * nearest((1 / LN2 - 1) * 2 ** (fraction + 1)) >> (2 * fraction + 1 - phase)
        i, rest = (turns & (2**phase - 1)) >> low, turns & (2**low - 1)
        power = chord(power_point(i, index, value), power_point(i + 1, index, value), rest, low)
        powers.append(math.floor(Fraction(power, 2 ** (value + (turns >> phase))) * 2**guard))
        distances.append(d)
        sums += powers[-1]
    k = sums.bit_length() - 1 - guard
    normalised = math.floor(Fraction(sums, 2 ** (guard + k)) * 2**phase) - 2**phase
    i, rest = normalised >> low, normalised & (2**low - 1)
    points = [1 + Fraction(i + more, 2**index) for more in (0, 1)]
    reciprocal = chord(*(nearest(2**value / x) for x in points), rest, low) >> (value - kept + k)
    errors = []
    for j, power in enumerate(powers):
        y = int(j == target)
        exact = abs(Fraction((power >> (guard - kept)) * reciprocal, 4**kept) - y) * 2 ** (p.bits - 1)
        size = math.floor(exact)
        if p.rounding == "nearest":
            size = nearest(exact)
        elif p.rounding == "stochastic":
            # As if noise had been added and what is below the last place cut off.
            window = p.random_bits + p.corrected
            noise = 2 * words[j] + 1 if p.corrected else words[j]
            size += math.floor((exact - size) * 2**window) + noise >= 2**window
        errors.append(-size if y else min(size, 2 ** (p.bits - 1) - 1))
    log = nearest((k + 1) * LN2 * 2**value) - chord(*(nearest(ln(2 / x) * 2**value) for x in points), rest, low)
    loss = Fraction(log, 2**value) + (Fraction(distances[target], 2**fraction) if target is not None else 0)
    return errors, min(math.floor(loss * 2**fraction + Fraction(1, 2)), limit) if target is not None else 0


def decoded(p, codes):
    return p.error.decode(codes) * 2 ** (p.bits - 1)


SECOND = [{}, {"classes": 2, "bits": 2, "rounding": "truncate"}, {"classes": 30, "bits": 9, "rounding": "stochastic"},
          {"classes": 4, "bits": 16, "rounding": "stochastic", "corrected": True, "format": "fp32", "seed": 5},
          {"classes": 5, "bits": 12, "rounding": "stochastic", "random_bits": 16, "format": "fp16"},
          {"classes": 3, "bits": 3, "format": "fp4-e2m1"}, {"classes": 300, "format": "fp8-e4m3"},
          {"classes": 6, "format": {"type": "Float", "exponent": 5, "mantissa": 2, "bias": -40}},
          {"classes": 6, "format": {"type": "Float", "exponent": 4, "mantissa": 3, "bias": 20}, "rounding": "truncate"}]


@pytest.mark.parametrize("settings", SECOND, ids=str)
def test_the_definition_gives_the_same_bits(settings):
    p = make(**settings)
    rng = np.random.default_rng(7)
    for kind in range(12):
        size = int(rng.choice([1, min(p.classes, 12), rng.integers(1, min(p.classes, 40) + 1)]))
        values = rng.standard_normal(size) * [0.1, 1, 4, 30, 1000, p.format.max][kind % 6]
        codes = p.format.encode(np.clip(values, -p.format.max, p.format.max)).astype(np.int64)
        if kind % 4 == 3:
            codes = rng.integers(0, p.format.max_code + 1, size) | rng.integers(0, 2, size) << (p.format.width - 1)
        if kind > 8:
            codes = np.minimum(int(codes[0]) + rng.integers(-2, 3, size).clip(0), p.format.max_code)
        target = int(rng.integers(0, size)) if kind % 5 else None
        marks = np.arange(size) == (-1 if target is None else target)
        found, ends, losses, *_ = softmax.errors(p, codes, marks, np.arange(size) == size - 1, step=100 * kind)
        words = counted(p.seed, 1, 100 * kind, size, p.random_bits)[:, 0].tolist()
        errors, loss = row_of(p, [Fraction(float(x)) for x in p.format.decode(codes)], target, words)
        assert decoded(p, found).tolist() == errors, (kind, codes)
        assert set(losses.tolist()) == {loss} and ends.tolist() == [0] * (size - 1) + [1]


# Bounds.


@pytest.mark.parametrize("bits, classes", [
    pytest.param(bits, classes, marks=[] if bits in (2, 5, 11, 16) else pytest.mark.sweep) for bits, classes in ENDS])
def test_probabilities_are_within_a_unit_of_errors_over_all_inputs(bits, classes):
    p = make(classes=classes, bits=bits)
    bound = softmax.bound(p)  # over every distance and every normalised sum
    assert bound.probability < 0.8 * 2.0**-p.precision <= 0.8 * 2.0**-bits
    assert bound.loss < 3.3 * 2.0**-p.fraction
    # What the bound takes for granted: nothing is left of what is as far as distances go, and the greatest is exact.
    n, _ = softmax.phases(p, np.array([p.loss_top]))
    assert n[0] > p.guard
    assert softmax.exponentials(p, [0, p.loss_top]).tolist() == [1 << p.guard, 0]
    assert softmax.reciprocals(p, [1 << p.guard]).tolist() == [1 << p.kept]


@pytest.mark.parametrize("bits, classes", [(2, 10), (8, 3), pytest.param(16, 1024, marks=pytest.mark.sweep)])
def test_exponentials_reciprocals_and_logarithms_over_all_inputs(bits, classes):
    p = make(classes=classes, bits=bits)
    b = 2.0**-p.precision
    d = np.arange(p.loss_top + 1)
    e = np.ldexp(softmax.exponentials(p, d).astype(float), -p.guard)
    exact = np.exp(-np.ldexp(d.astype(float), -p.fraction))
    assert (np.abs(e - exact) <= 0.45 * b * exact + 2.0**-p.guard).all()
    assert (np.diff(e) <= 0).all()
    sums = np.unique(np.concatenate([
        (np.arange(1 << p.phase, 2 << p.phase) << k + p.guard >> p.phase) + low
        for k in range(p.classes.bit_length()) for low in (0, (1 << k + p.guard >> p.phase) - 1)]))
    sums = sums[(sums >= 1 << p.guard) & (sums < p.classes + 1 << p.guard)]
    found = np.ldexp(softmax.reciprocals(p, sums).astype(float), -p.kept)
    assert (np.abs(found - 1 / np.ldexp(sums.astype(float), -p.guard)) < 0.35 * b).all()
    found = np.ldexp(softmax.logarithms(p, sums).astype(float), -p.value)
    assert (np.abs(found - np.log(np.ldexp(sums.astype(float), -p.guard))) < 0.3 * b).all()


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_rows_are_as_near_to_scipys_as_the_bound_says(fmt):
    rng = np.random.default_rng(3)
    for bits, classes in ((5, 10), (2, 2), (11, 1024), (16, 10)):
        p = SoftmaxParameters(format=fmt, classes=classes, bits=bits)
        bound = softmax.bound(p)
        for spread in (0.05, 1, 6, 300):
            rows = 400 if classes <= 10 else 12
            values = rng.standard_normal((rows, classes)) * spread + rng.choice([0, 5, -50])
            codes = fmt.encode(np.clip(values, -fmt.max, fmt.max))
            y = rng.integers(0, classes, rows)
            exact = exact_softmax(fmt.decode(codes), axis=1)
            found = np.ldexp(softmax.probabilities(p, codes).astype(float), -2 * p.kept)
            assert np.abs(found - exact).max() < bound.probability
            # Rounded, an error is half a unit more, and 1 is not a number of the format.
            errors, losses, _, _ = softmax.gradient(p, codes, y)
            exact -= np.arange(classes) == y[:, np.newaxis]
            unit = 2.0 ** (1 - bits)
            assert (np.abs(p.error.decode(errors) - np.minimum(exact, 1 - unit)) < bound.probability + unit / 2).all()
            loss = -log_softmax(fmt.decode(codes), axis=1)[np.arange(rows), y]
            near = np.abs(np.ldexp(losses.astype(float), -p.fraction) - loss) < bound.loss
            assert (near | ((losses == p.loss_top) & (loss > 2.0**p.integer - bound.loss - 0.01))).all()
    assert bound.loss < 1e-3


def test_the_worst_rows_stay_within_the_bound():
    # As many classes as possible, of which each loses most of a unit as it is summed.
    for bits, classes in ((8, 1024), (11, 1024), (5, 10)):
        p = make(classes=classes, bits=bits, format="fp32")
        for d in np.linspace((p.guard - 4) * math.log(2), (p.guard + 1) * math.log(2), 60):
            values = np.full((1, classes), -d)
            values[0, 3] = 0
            codes = p.format.encode(values)
            found = np.ldexp(softmax.probabilities(p, codes).astype(float), -2 * p.kept)
            assert np.abs(found - exact_softmax(p.format.decode(codes), axis=1)).max() < softmax.bound(p).probability


# Rounding and its randomness.


def test_errors_rounded_stochastically_are_right_on_average():
    p = make(bits=3, classes=10, rounding="stochastic", corrected=True, format="fp32")
    codes = np.repeat(p.format.encode([[0.3, -1, 2, 0, 0.5, 0.1, 0, 1, -3, 0.2]]), 20000, axis=0)
    errors, *_ = softmax.gradient(p, codes, np.full(len(codes), 4))
    exact = exact_softmax(p.format.decode(codes[0])) - (np.arange(10) == 4)
    spread = 0.25 / 2 / np.sqrt(len(codes))  # of a mean, at most
    assert (np.abs(p.error.decode(errors).mean(axis=0) - exact) < softmax.bound(p).probability + 4 * spread).all()


def test_a_run_resumes_from_any_error():
    p = make(rounding="stochastic", classes=4, bits=4, seed=9)
    rng = np.random.default_rng(1)
    logits = p.format.encode(rng.standard_normal((50, 4))).astype(np.int64)
    y = rng.integers(0, 4, 50)
    whole, *_ = softmax.gradient(p, logits, y)
    parts = [softmax.gradient(p, logits[:13], y[:13])[0], softmax.gradient(p, logits[13:], y[13:], step=52)[0]]
    assert (whole == np.concatenate(parts)).all()
    assert (whole != softmax.gradient(make(rounding="stochastic", classes=4, bits=4, seed=8), logits, y)[0]).any()


def test_truncated_errors_are_never_larger_than_those_to_nearest():
    rng = np.random.default_rng(2)
    logits, y = P.format.encode(rng.standard_normal((500, 10)) * 3), rng.integers(0, 10, 500)
    near, cut = (np.abs(P.error.decode(softmax.gradient(make(bits=5, rounding=kind), logits, y)[0]))
                 for kind in ("nearest", "truncate"))
    assert (cut <= near).all() and (cut < near).any()


# Rows.


def test_rows_end_at_their_mark_or_when_they_are_full():
    p = make(classes=3, bits=8)
    lasts = [0, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0]
    logits = p.format.encode(np.arange(11) / 4)
    found, ends, _, _, _ = softmax.errors(p, logits, np.zeros(11), lasts)
    assert ends.tolist() == [0, 1, 0, 0, 1, 1, 0, 0, 1]  # the last two are a row that has not ended
    alone = [softmax.errors(p, logits[a:b], np.zeros(b - a), np.arange(a, b) == b - 1)[0]
             for a, b in ((0, 2), (2, 5), (5, 6), (6, 9))]
    assert found.tolist() == np.concatenate(alone).tolist()
    assert all(len(each) == 0 for each in softmax.errors(p, logits[:2], [0, 1], [0, 0])[:3])
    assert all(len(each) == 0 for each in softmax.errors(p, [], [], []))


def test_targets_may_be_none_or_several():
    p = make(classes=4, bits=9, format="fp32")
    logits = p.format.encode([1.0, 0, 2, -1])
    exact = exact_softmax([1.0, 0, 2, -1])
    for marks in ([0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]):
        found, _, losses, _, _ = softmax.errors(p, logits, marks, [0, 0, 0, 1])
        assert np.abs(p.error.decode(found) - (exact - marks)).max() < 2.0**-8
        last = max([k for k in range(4) if marks[k]], default=None)
        wanted = 0 if last is None else -np.log(exact[last])
        assert np.abs(losses * 2.0**-p.fraction - wanted).max() < softmax.bound(p).loss


def test_one_is_the_largest_number_and_minus_one_is_exact():
    for rounding in ("nearest", "truncate", "stochastic"):
        p = make(bits=6, rounding=rounding)
        found, losses, _, _ = softmax.gradient(p, p.format.encode([[0, 100.0, -3]]), [0])
        assert p.error.decode(found).tolist() == [[-1, 1 - 2.0**-5, 0]]
        assert losses.tolist() == [p.loss_top]  # 100 nats are too many


def test_nan_and_inf():
    p = make(bits=6, classes=4)
    inf, nan = p.format.inf_code, p.format.nan_code
    rows = [[nan, 0, 0, 0], [inf, 0, 0, 0], [inf, 0, inf, p.format.max_code], [0, inf | 1 << 15, 0, 0],
            [inf | 1 << 15] * 4, [0, 0, 0, 0]]
    found, losses, invalid, overflow = softmax.gradient(p, rows, [0] * 6)
    wanted = [[0, 0, 0, 0], [0, 0, 0, 0], [-0.5, 0, 0.5, 0], [-0.65625, 0, 0.34375, 0.34375], [-0.75] + [0.25] * 3,
              [-0.75] + [0.25] * 3]
    assert p.error.decode(found).tolist() == wanted
    assert losses[0] == p.loss_top
    assert np.abs(losses[1:] * 2.0**-p.fraction - np.log([1, 2, 3, 4, 4])).max() < softmax.bound(p).loss
    assert np.argwhere(invalid).tolist() == [[0, 0]]
    assert np.argwhere(overflow).tolist() == [[1, 0], [2, 0], [2, 2], [3, 1], *([4, k] for k in range(4))]


def test_numbers_beyond_fixed_point():
    # bf16 numbers of 2**12 are 32 apart: those next to each other are as far as distances go.
    p = make(bits=8, classes=3)
    code = int(p.format.encode(2.0**14))
    found, *_ = softmax.gradient(p, [[code, code - 1, code], [code | 1 << 15, code - 1 | 1 << 15, 0]], [1, 1])
    assert p.error.decode(found).tolist() == [[0.5, -1, 0.5], [0, -1, 1 - 2.0**-7]]


# Parameters.


def test_json_gives_the_same_parameters_back():
    for p in (P, make(classes=1024, rounding="stochastic", corrected=True, format="fp8-e4m3", seed=3)):
        assert SoftmaxParameters.from_json(p.to_json()) == p


@pytest.mark.parametrize("settings, message", [
    ({"classes": 1}, "classes is 1; allowed: an integer from 2 to 1024"),
    ({"classes": 1025}, "classes is 1025; allowed: an integer from 2 to 1024"),
    ({"classes": True}, "classes is True; allowed: an integer from 2 to 1024"),
    ({"bits": 1}, "bits is 1; allowed: an integer from 2 to 16"),
    ({"bits": 17}, "bits is 17; allowed: an integer from 2 to 16"),
    ({"rounding": "up"}, "rounding is 'up'; allowed: nearest, truncate, stochastic"),
    ({"random_bits": 0}, "random_bits is 0; allowed: an integer from 1 to 16"),
    ({"corrected": 1}, "corrected is 1; allowed: true, false"),
    ({"seed": -1}, "seed is -1; allowed: an integer from 0 to 2147483647"),
    ({"format": "lns8"}, "format is Log(bits=8, gamma=8); allowed: a Float, such as bf16, fp16, fp32"),
    ({"width": 3}, "parameter is 'width'; allowed: format, classes, bits, rounding, random_bits, corrected, seed"),
])
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError) as error:
        make(**settings)
    assert str(error.value) == message


def test_bad_rows_are_named():
    with pytest.raises(ValueError, match=r"^logits is \(2, 11\); allowed: rows of 1 to 10 classes$"):
        softmax.gradient(P, np.zeros((2, 11), int), [0, 0])
    with pytest.raises(ValueError, match=r"^y is \(2,\); allowed: a class from 0 to 2 for each of 2 rows$"):
        softmax.gradient(P, np.zeros((2, 3), int), [0, 3])


def test_tables_are_rounded_from_exact_numbers():
    for p in (P, make(bits=16, classes=1024)):
        found = softmax.tables(p)
        points = range((1 << p.index) + 1)
        assert found.powers == tuple(power_point(i, p.index, p.value) for i in points)
        assert found.reciprocals == tuple(nearest(Fraction(1 << p.value + p.index, (1 << p.index) + i)) for i in points)
        assert found.logarithms[::37] == tuple(
            nearest(ln(Fraction(2 << p.index, (1 << p.index) + i)) * 2**p.value) for i in points[::37])
        assert found.octaves == tuple(nearest((k + 1) * LN2 * 2**p.value) for k in range(p.classes.bit_length()))
        assert found.wholes == tuple(nearest(n / LN2 * 2**p.phase) for n in range(1 << p.integer))


def test_formats_of_every_kind_are_taken():
    for exponent, mantissa, bias, specials in ((2, 0, None, "ieee"), (1, 1, None, "fn"), (11, 20, None, "ieee"),
                                               (8, 0, 300, "none"), (3, 28, None, "ieee")):
        fmt = Float(exponent, mantissa, bias, specials, "saturate")
        p = SoftmaxParameters(format=fmt, classes=6, bits=10)
        rng = np.random.default_rng(4)
        codes = rng.integers(0, fmt.max_code + 1, (300, 6)) | rng.integers(0, 2, (300, 6)) << (fmt.width - 1)
        found = np.ldexp(softmax.probabilities(p, codes).astype(float), -2 * p.kept)
        with np.errstate(over="ignore"):
            exact = exact_softmax(fmt.decode(codes), axis=1)
        assert np.abs(found - exact).max() < softmax.bound(p).probability
