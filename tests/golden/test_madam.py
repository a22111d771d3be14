"""Madam's update against its definition in integers and fractions, and against what it approximates, in float64."""

import json
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import logarithmic, madam
from narrowgauge.golden.formats import PRESETS, Float, Log
from narrowgauge.golden.madam import MadamParameters
from narrowgauge.golden.words import counted

P = MadamParameters()
SETTINGS = [P, MadamParameters(second_gamma=1, second_bits=6, memory=2, clip=1, random_bits=1, second_bias=30),
            MadamParameters(second_gamma=16, second_bits=12, memory=50, clip=15, random_bits=4),
            MadamParameters(second_gamma=2, memory=65536, random_bits=16, clip=7)]
every = pytest.mark.parametrize("p", SETTINGS, ids=lambda p: f"{p.second_gamma}-{p.memory}-{p.random_bits}")


def reaches(x, level, unit):
    """Whether log2(x) * unit >= level, of a positive Fraction and integers (a half is one in twice the unit)."""
    power = x**unit
    return power >= (Fraction(2)**level)


def rounded_log(x, unit):
    """round(unit * log2(x)) of a positive Fraction, halves (of rational logarithms alone) to even, by squaring."""
    guess = round(unit * (math.log2(x.numerator) - math.log2(x.denominator)))
    # 2 * unit * log2(x) is between 2 * guess - 1 and 2 * guess + 1.
    while not reaches(x, 2 * guess - 1, 2 * unit):
        guess -= 1
    while reaches(x, 2 * guess + 1, 2 * unit):
        guess += 1
    return guess


def one(weight=20000, gradient=0.0, second=600, correction=0, rate=4, bound=32767, word=0, p=P):
    """The update of a weight, t with the sign of `weight`, as plain integers: t, narrow t (signed), V, statuses."""
    code = abs(weight) | (weight < 0) << (p.weight.bits - 1)
    new, narrow, second, invalid, overflow = madam.update(
        p, [code], p.gradient.encode([gradient]), [second], correction, rate, bound, [word])

    def number(code, fmt):
        return int(code & fmt.top) * (-1 if code >> (fmt.bits - 1) else 1)

    return (number(int(new[0]), p.weight), number(int(narrow[0]), p.narrow), int(second[0]), bool(invalid[0]),
            bool(overflow[0]))


# The table of growth, the thresholds and the correction.


@every
def test_the_growth_is_the_rounded_logarithm(p):
    low, table, end = madam.growth(p.second_gamma, p.memory, p.random_bits)
    unit, keep = p.second_gamma << p.random_bits, Fraction(p.memory - 1, p.memory)

    def exact(d):
        # By the natural logarithm with 40 digits, as the table's makers take another base's.
        with localcontext() as context:
            context.prec = 40
            v = Decimal(keep.numerator) / keep.denominator + (Decimal(2).ln() * d / p.second_gamma).exp() / p.memory
            scaled = unit * v.ln() / Decimal(2).ln()
            assert abs(abs(scaled - int(scaled)) - Decimal("0.5")) > Decimal("1e-12")
            return round(scaled)

    step = max(1, len(table) // 300)
    for d in [*range(low, low + len(table), step), low + len(table) - 1]:
        assert table[d - low] == exact(d)
    for beyond in (0, 1, 7, 200):
        d = low + len(table) + beyond
        assert (d << p.random_bits) + end == exact(d)
        assert table[0] == exact(low - beyond)
    assert table[-low] == 0 and list(table) == sorted(table)


def test_the_growth_of_whole_octaves_is_exact_in_integers():
    low, table, _ = madam.growth(4, 6, 3)
    for octaves in range(-(-low // 4), (low + len(table)) // 4):
        value = Fraction(5, 6) + Fraction(2)**octaves / 6
        assert table[4 * octaves - low] == rounded_log(value, 4 << 3)


def test_the_default_table_is_as_documented():
    low, table, end = madam.growth(8, 1000, 8)
    assert (low, low + len(table) - 1, table[0], end) == (-22, 181, -3, -20410)


@every
def test_the_thresholds_are_where_the_root_rounds_up(p):
    # The least D with 2**(D / 2c) above n - 1/2, which is (2n - 1) / 2: in integers.
    for n, threshold in enumerate(p.thresholds, 1):
        root = Fraction(2 * n - 1, 2)**(2 * p.second_gamma)
        assert Fraction(2)**threshold > root >= Fraction(2)**(threshold - 1)
    differences = np.arange(-200, 200)
    expected = [sum(d >= each for each in p.thresholds) for d in differences]
    np.testing.assert_array_equal(madam.steps_of(differences, p), expected)


def test_the_default_thresholds_are_as_documented():
    assert P.thresholds == (-15, 10, 22, 29, 35, 40, 44, 47, 50, 52)


@pytest.mark.parametrize("p", [P, MadamParameters(second_gamma=16, memory=3)], ids=["1000", "3"])
def test_the_correction_is_the_rounded_logarithm(p):
    for step in (1, 2, 3, 10, 100):
        assert madam.correction(p, step) == rounded_log(1 - Fraction(p.memory - 1, p.memory)**step, p.second_gamma)
    assert madam.correction(P, 1) == -80 and madam.correction(P, 1000) == -5
    assert [madam.correction(P, step) for step in (3159, 3160)] == [-1, 0] and madam.correction(P, 10**9) == 0


# A weight's step.


@pytest.mark.parametrize("weight, gradient, second, step, word, expected", [
    (20000, 0.01, 0, 1, 128, (19984, 78, 582)), (20000, 0.01, 600, 100, 0, (19936, 78, 602)),
    (20000, 0.01, 600, 100, 255, (19936, 78, 603)), (-20000, 0.01, 600, 100, 128, (-20064, -78, 602)),
    (20000, 1, 600, 100, 128, (19840, 78, 688)), (20000, 0, 600, 100, 0, (20000, 78, 599)),
    (20000, np.nan, 600, 100, 128, (20000, 78, 600)), (20000, np.inf, 600, 100, 128, (19840, 78, 943)),
    (100, 1, 600, 100, 128, (1, 0, 688))], ids=str)
def test_the_worked_example_of_the_contract(weight, gradient, second, step, word, expected):
    got = one(weight, gradient, second, madam.correction(P, step), word=word)
    assert got[:3] == expected
    assert got[3:] == (np.isnan(gradient), np.isinf(gradient))


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_steps_are_as_many_as_the_gradient_is_roots_of_the_second_moment(away, sign):
    # v = 1 is kept by so long a memory and such a word, but for a code at most, so that n is |g|.
    p = MadamParameters(memory=65536, random_bits=12)
    for g, n in ((0.4, 0), (0.5, 0), (0.53, 1), (1.0, 1), (1.4, 1), (1.6, 2), (3.1, 3), (9.0, 9), (10.0, 10), (90, 10)):
        gradient = -sign * g if away else sign * g
        for rate in range(8):
            t, *_ = one(sign * 9000, gradient, 8 * 96, rate=rate, word=4095, p=p)
            assert t == sign * (9000 + (n << rate) * (1 if away else -1)), g


def test_a_weight_is_held_within_one_and_its_bound_and_keeps_its_sign():
    for sign in (1, -1):
        # Ten steps of 16 off: exactly to 0, one above it, and one beyond.
        assert [one(sign * t, sign * 1.0, 600)[0] for t in (159, 160, 161, 162)] == [sign, sign, sign, 2 * sign]
        assert one(sign * 5, sign * 1.0, 600)[0] == sign
        assert one(sign * 1, sign * 1.0, 600)[0] == sign
        assert one(sign * 30000, -sign * 1.0, 600, bound=30005)[0] == sign * 30005
        assert one(sign * 30000, 0.0, 600, bound=20000)[0] == sign * 20000
        assert one(sign * 30000, np.nan, 600, bound=20000)[0] == sign * 20000
        assert one(sign * 32767, -sign * 1.0, 600, rate=7)[0] == sign * 32767
        assert one(sign * 9, 0.0, 600, bound=1)[0] == sign


def test_a_zero_stays_zero_whatever_its_sign():
    for code in (0, 1 << 15):
        for gradient in (-1.0, 0.0, 1.0, np.inf):
            new, narrow, *_ = madam.update(P, [code], P.gradient.encode([gradient]), [600], 0, 4, 32767, [0])
            assert (int(new[0]), int(narrow[0])) == (code, 0)


@pytest.mark.parametrize("p", [P, MadamParameters(weight=Log(8, 8), narrow=Log(7, 4))], ids=["16", "8"])
def test_narrow_codes_are_rounded_half_up_and_held(p):
    for t in range(p.weight.top + 1):
        expected = min(math.floor(Fraction(t, 1 << p.shift) + Fraction(1, 2)), p.narrow.top)
        for sign in (0, 1):
            code = t | sign << (p.weight.bits - 1)
            got = int(logarithmic.narrowed(code, p.weight, p.narrow))
            assert got == (expected | (sign << (p.narrow.bits - 1) if expected else 0))


# The second moment.


def test_the_square_of_every_bf16_gradient_is_exact():
    fmt = PRESETS["bf16"]
    # With a memory of 2 and V = 0, which is 2**-320, V becomes what the square's code is less 1, in its codes.
    p = MadamParameters(gradient=fmt, second_bits=16, second_gamma=8, second_bias=320, memory=2)
    codes = np.arange(1, fmt.inf_code)
    _, _, moved, *_ = madam.update(p, codes * 0 + 1, codes, 0 * codes, 0, 0, 100, 0 * codes)
    for code, second in zip(codes.tolist()[::7], moved.tolist()[::7]):
        x = Fraction(float(fmt.decode(code)))
        assert second + 8 == rounded_log(x, 16) + 8 * 320


def test_a_gradient_whose_square_is_off_the_scale():
    p = MadamParameters(second_bits=8)  # 2**-96 to 2**-64.1
    assert one(gradient=2.0**-30, second=9, p=p)[2:] == (175, False, True)
    assert one(gradient=2.0**-48, second=9, p=p)[2:] == (8, False, False)  # code 0: counts as none
    assert one(gradient=2.0**-47, second=200, correction=0, p=p)[0] == 20000
    assert one(gradient=np.nan, second=255, p=p, word=255)[2:] == (255, True, False)


def test_the_second_moment_never_leaves_its_codes():
    rng = np.random.default_rng(3)
    for p in SETTINGS:
        seconds = rng.choice([0, 1, 2, p.second_top - 1, p.second_top], 4000)
        gradients = p.gradient.encode(rng.choice([0, 1e-30, 1e-12, 1, 1e18, np.inf], 4000))
        words = rng.integers(0, 1 << p.random_bits, 4000)
        _, _, moved, *_ = madam.update(p, 0 * seconds + 9, gradients, seconds, 0, 0, 99, words)
        assert moved.min() >= 0 and moved.max() <= p.second_top


def test_on_average_the_second_moment_moves_as_it_should():
    rng = np.random.default_rng(4)
    for d in (-30, -4, 3, 20, 41):
        words = rng.integers(0, 256, 40_000)
        g = np.full(40_000, P.gradient.encode(2.0**((400 + d) / 16 - 48)))
        _, _, moved, *_ = madam.update(P, 0 * words + 9, g, 0 * words + 400, 0, 0, 99, words)
        exact = 8 * math.log2(0.999 + 0.001 * 2**(d / 8))
        assert moved.mean() - 400 == pytest.approx(exact, abs=0.5 / 256 + 4 * 0.5 / 200)


def test_updates_draw_a_word_per_lane_and_transfer():
    p = MadamParameters(lanes=3, seed=9)
    rng = np.random.default_rng(1)
    shape = (50, 3)
    arrays = (rng.integers(0, 65536, shape), p.gradient.encode(rng.normal(size=shape)), rng.integers(0, 1024, shape),
              -rng.integers(0, 81, 50), rng.integers(0, 8, 50), rng.integers(1, 32768, 50))
    whole = madam.updates(p, *arrays)
    rest = madam.updates(p, *(each[20:] for each in arrays), step=20)
    for a, b in zip(whole, rest):
        np.testing.assert_array_equal(a[20:], b)
    words = counted(9, 3, 0, 50, 8)
    for k in range(50):
        for lane in range(3):
            got = madam.update(p, *(each[k, lane] for each in arrays[:3]), *(each[k] for each in arrays[3:]),
                               words[k, lane])
            assert [int(each) for each in got[:3]] == [int(each[k, lane]) for each in whole[:3]]


def test_it_does_what_the_code_of_the_paper_does_on_average():
    """A thousand weights for 300 steps."""
    rng = np.random.default_rng(5)
    n, fmt = 1000, P.weight
    t = rng.integers(15000, 25000, n)
    sign = rng.integers(0, 2, n)
    codes, seconds = t | sign << 15, np.zeros(n, int)
    weights = np.where(sign == 1, -1, 1) * np.exp2((t - 20000) / fmt.gamma)
    start, v = weights.copy(), np.zeros(n)
    scales = np.exp2(rng.uniform(-12, 0, n))
    for step in range(1, 301):
        # The gradients have a drift, so that weights go somewhere.
        g = P.gradient.round(scales * (rng.normal(size=n) + 0.7))
        weights, v = madam.twin(weights, g, v, step)
        codes, _, seconds, *_ = madam.update(P, codes, P.gradient.encode(g), seconds, madam.correction(P, step), 4,
                                             fmt.top, rng.integers(0, 256, n))
        codes, seconds = codes.astype(int), seconds.astype(int)
    errors = seconds / 8 - 96 - np.log2(v)
    # Rounding at random spreads V: step k moves it by about c * log2(e) / k, with as much of a variance, and what is
    # left of that at step n is (k / n)**2. Their sum is 5.8, so a deviation of 2.4 codes, 0.3 octaves.
    assert abs(errors.mean()) < 0.05 and errors.std() < 0.35
    moved = (codes & fmt.top) - t
    expected = (np.log2(np.abs(weights)) - np.log2(np.abs(start))) * fmt.gamma
    # That is 10 % of a gradient's steps, one way or the other.
    assert np.corrcoef(moved, expected)[0, 1] > 0.99
    assert np.abs(moved - expected).mean() < 0.1 * np.abs(expected).mean()


# Parameters.


@pytest.mark.parametrize("changes, name", [
    ({"weight": Log(7, 4)}, "weight"), ({"weight": Log(17, 4096)}, "weight"), ({"weight": PRESETS["fp32"]}, "weight"),
    ({"narrow": Log(8, 4)}, "narrow"), ({"narrow": PRESETS["lns16-update"]}, "narrow"),
    ({"gradient": PRESETS["fp8-e4m3"]}, "gradient"), ({"gradient": Float(8, 1)}, "gradient"),
    ({"gradient": Float(9, 8)}, "gradient"), ({"second_bits": 5}, "second_bits"), ({"second_bits": 17}, "second_bits"),
    ({"second_gamma": 3}, "second_gamma"), ({"second_gamma": 32}, "second_gamma"),
    ({"second_bias": -129}, "second_bias"), ({"memory": 1}, "memory"),
    ({"memory": 65536}, "random_bits"), ({"clip": 0}, "clip"), ({"clip": 16}, "clip"),
    ({"lanes": 0}, "lanes"), ({"lanes": 17}, "lanes"), ({"random_bits": 0}, "random_bits"), ({"seed": -1}, "seed"),
    ({"memory": True}, "memory")], ids=str)
def test_parameters_that_make_no_sense_are_refused(changes, name):
    with pytest.raises(ValueError, match=f"^{name} is .*; allowed: "):
        MadamParameters(**changes)


@every
def test_parameters_go_into_json_and_come_back(p):
    assert MadamParameters.from_json(json.dumps(p.to_json())) == p
