"""SGD's update against NumPy and ml_dtypes operation by operation, against exact fractions, and in fixed point."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden.formats import PRESETS, Fixed, Float
from narrowgauge.golden.rounding import stochastic
from narrowgauge.golden.update import METHODS, SGDParameters, rate_code, step, updates
from updates import BF16, E5M2, FP16, PEERS, by_reference, operands, sequence

NEAREST_METHODS = ("plain", "kahan", "grow")

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
