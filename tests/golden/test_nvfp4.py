"""NVFP4 against its definition in exact fractions."""

import doctest
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from microscaling import exact_element, exact_round, grid, specimens
from narrowgauge.golden import accumulator, mx
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.rounding import stochastic
from narrowgauge.golden.words import Stream, counted

# NVFP4.


def nearest_code(y, values):
    """Index of the nearest of rising values, ties to the even index; beyond the last it saturates."""
    if y >= values[-1]:
        return len(values) - 1
    low = next(k for k in reversed(range(len(values))) if values[k] <= y)
    rest = (y - values[low]) / (values[low + 1] - values[low])
    return low + (rest > Fraction(1, 2) or rest == Fraction(1, 2) and low % 2)


def test_nvfp4_is_its_definition():
    rng = np.random.default_rng(41)
    scale_values, element_values_ = grid("mxfp8-e4m3"), grid("mxfp4-e2m1")
    for trial in range(30):
        x = specimens(np.float32, rng, 3, 40) if trial % 2 else rng.standard_normal((3, 40)).astype(np.float32)
        x = x.astype(np.float32) * np.float32(2.0**-3)
        quantised = mx.quantise_nvfp4(x)
        tensor = Fraction(exact_round(Fraction(float(np.abs(x).max())) / (448 * 6), PRESETS["fp32"]))
        assert Fraction(quantised.tensor_scale) == tensor
        values = quantised.values()
        assert values.shape == x.shape
        for row in range(3):
            for j in range(3):
                part = [Fraction(float(v)) for v in x[row, 16 * j:16 * j + 16]]
                top = max(map(abs, part))
                code = nearest_code(top / 6 / tensor, scale_values) if top else 0
                assert quantised.scales[row, j] == code
                step = scale_values[code] * tensor
                for v, got in zip(part, values[row, 16 * j:16 * j + 16]):
                    q = element_values_[nearest_code(abs(v) / step, element_values_)] if step else Fraction(0)
                    assert Fraction(float(got)) == (q if v >= 0 else -q) * step


def test_nvfp4_rounds_its_quotients_once():
    values = grid("mxfp8-e4m3")
    middles = [(p + q) / 2 for p, q in zip(values, values[1:])]
    for tensor_scale in np.float32([1.1, 0.7, 2.0**-9 / 3]):
        near = np.float32([float(6 * Fraction(float(tensor_scale)) * m) for m in middles])
        near = np.concatenate([near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1e9))])
        x = np.zeros((len(near), 16), np.float32)
        x[:, 5] = near
        quantised = mx.quantise_nvfp4(x, tensor_scale=tensor_scale)
        assert quantised.scales[:, 0].tolist() == [
            nearest_code(Fraction(float(v)) / 6 / Fraction(float(tensor_scale)), values) for v in near]


def test_nvfp4_uses_its_whole_range():
    x = np.array([[2688.0, *[1.0] * 15], [6.0, *[0.5] * 15]], np.float32)
    quantised = mx.quantise_nvfp4(x)
    assert quantised.tensor_scale == 1 and quantised.scales[:, 0].tolist() == [0x7E, 0x38]
    assert quantised.values()[0, 0] == 2688 and (quantised.values()[1] == x[1]).all()


def test_nvfp4_bad_input():
    x = np.ones((2, 32), np.float32)
    x[1, 20] = np.inf
    assert np.isnan(mx.quantise_nvfp4(x).values()).all()
    assert not mx.quantise_nvfp4(np.zeros((2, 7), np.float32)).values().any()
    with pytest.raises(ValueError, match=r"^dtype of x is 'float64'; allowed: float16, float32$"):
        mx.quantise_nvfp4(np.ones(3))


def test_nvfp4_given_scale_and_stochastic_rounding():
    x = np.random.default_rng(43).standard_normal((4, 64)).astype(np.float32)
    words = Stream(1, 16)
    quantised = mx.quantise_nvfp4(x, rounding=stochastic(8), random=words, tensor_scale=2.0**-9)
    assert quantised.tensor_scale == 2.0**-9 and words.drawn == 16
    flat = x.reshape(-1, 16)
    noise = counted(1, 16, 0, 16)
    values = quantised.values().reshape(-1, 16)
    for k, row in enumerate(flat):
        step = Fraction(float(grid("mxfp8-e4m3")[quantised.scales.reshape(-1)[k]])) / 512
        for v, word, got in zip(row, noise[k], values[k]):
            v = Fraction(float(v))
            q = grid("mxfp4-e2m1")[exact_element(abs(v) / step, "mxfp4-e2m1", stochastic(8), int(word))] * step
            assert Fraction(float(got)) == (q if v >= 0 else -q)


def test_the_shared_addition_takes_addends_of_two_parts():
    rng = np.random.default_rng(47)
    fmt = PRESETS["fp32"]
    totals = fmt.round(np.ldexp(rng.standard_normal(4000), rng.integers(-3, 60, 4000)))
    high = np.ldexp(rng.integers(-(1 << 53), 1 << 53, 4000).astype(float), rng.integers(-3, 8, 4000))
    cancel = rng.random(4000) < 0.3
    high[cancel] = -totals[cancel]
    low = np.spacing(high) / 2 * rng.choice([0, 1, -1, 0.5, 2.0**-20, -(2.0**-40)], 4000)
    for total in (np.inf, -np.inf, np.nan):
        assert str(accumulator.accumulate(np.array([total]), high[:1], 0, fmt, np.ones(1))[0]) == str(total)
    got = accumulator.accumulate(totals, high, 0, fmt, low)
    for total, h, lower, new in zip(totals, high, low, got):
        assert new == exact_round(Fraction(total) + Fraction(h) + Fraction(lower), fmt)


# The page.


def test_the_examples_of_the_page_print_what_they_show():
    failures, examples = doctest.testfile(str(Path(__file__).parents[2] / "docs" / "mx.md"), module_relative=False)
    assert examples > 20 and not failures
