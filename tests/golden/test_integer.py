"""Plain INT8: conversion and products against NumPy's integers and exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from narrowgauge.golden import integer
from narrowgauge.golden.array import Array, ArrayParameters, Operand, Product
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.integer import SCALE_BIAS, ConverterParameters, DotParameters, quantise


def nearest_even(value, scale):
    """Return what a finite float is in units of 2**scale, rounded to nearest even, in exact fractions."""
    return round(Fraction(float(value)) / Fraction(2) ** scale)


@pytest.mark.parametrize("work", ["fp8-e5m2", "fp8-e4m3", "fp16", "bf16"])
def test_conversion_of_every_code_is_that_of_fractions(work):
    fmt = PRESETS[work]
    codes = np.arange(1 << fmt.width) if fmt.width == 8 else np.random.default_rng(1).integers(0, 1 << 16, 1500)
    values = fmt.decode(codes)
    for scale in (-127, -20, -9, -7, -3, 0, 2, 9, 128):
        found, invalid, overflow = integer.convert(
            ConverterParameters(fmt, 1), codes[:, np.newaxis], np.full(len(codes), scale + SCALE_BIAS))
        for value, code, bad, over in zip(values, found[:, 0], invalid, overflow):
            if np.isnan(value):
                assert (code, bad, over) == (0, True, False)
                continue
            exact = (1 if value > 0 else -1) * 1000 if np.isinf(value) else nearest_even(value, scale)
            assert (code, bad, over) == (max(min(exact, 127), -127), False, abs(exact) > 127)


def test_the_scale_is_the_least_under_which_nothing_saturates():
    rng = np.random.default_rng(2)
    values = [*np.ldexp(rng.uniform(0.5, 1, 200), rng.integers(-100, 100, 200)), 127.0, 127.49, 127.5, 128.0, 2.0**-20]
    for value in values:
        scale = integer.scale_of(np.array([value, -value / 3, 0, np.inf, np.nan]))
        assert nearest_even(value, scale) <= 127 < nearest_even(value, scale - 1)
    assert integer.scale_of(np.zeros(3)) == -127 and integer.scale_of([2.0**140]) == 128
    found = quantise(np.array([[1.0, -127.0], [np.nan, 3.5]]))
    assert found.scale == 0 and found.codes.tolist() == [[1, -127], [0, 4]]
    assert (found.invalid, found.overflow) == (True, False)
    assert quantise([np.inf, 1.0]).codes.tolist() == [127, 64] and quantise([np.inf, 1.0]).overflow
    assert np.array_equal(quantise([0.75, 3], -2).values(), [0.75, 3])


@pytest.mark.parametrize(("result", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
def test_products_are_numpys_integers_rounded_once(result, dtype):
    rng = np.random.default_rng(3)
    p = DotParameters(result=PRESETS[result])
    for scales in ((0, 0), (-9, -8), (-127, -20), (-100, -49), (40, 70)):
        a, b = (integer.Integers(rng.integers(-127, 128, shape).astype(np.int8), scale)
                for shape, scale in zip(((7, 300), (300, 5)), scales))
        exact = a.codes.astype(np.int64) @ b.codes.astype(np.int64)
        # A 32-bit integer times a power of two is exact in float64, so that the cast is the one rounding.
        with np.errstate(over="ignore"):
            expected = np.ldexp(exact.astype(np.float64), sum(scales)).astype(dtype).astype(np.float64)
        values, overflow = integer.matmul(a, b, p)
        assert np.array_equal(values, expected) and overflow == np.isinf(expected).any()


def test_the_longest_sum_of_an_array_does_not_wrap():
    ones = integer.Integers(np.full((1, 65535), 127, np.int8), 0)
    values, _ = integer.matmul(ones, ones.T)
    assert values[0, 0] == np.float32(65535 * 127 * 127)


def test_transfers_add_up_as_they_come():
    rng = np.random.default_rng(4)
    p, count = DotParameters(lanes=4), 40
    a, b = (rng.integers(-127, 128, (count, 4)) for _ in range(2))
    scales = [rng.integers(100, 140, count) for _ in range(2)]
    first, last = rng.random(count) < 0.3, rng.random(count) < 0.5
    first[0] = True
    codes, overflow = integer.dots(p, (a, scales[0]), (b, scales[1]), first, last)
    total, expected = 0, []
    for k in range(count):
        total = (0 if first[k] else total) + int((a[k] * b[k]).sum())
        if last[k]:
            expected.append(np.float32(total * 2.0 ** int(scales[0][k] + scales[1][k] - 2 * SCALE_BIAS)))
    assert np.array_equal(codes, np.array(expected).view(np.uint32)) and not overflow


def test_on_the_array():
    rng = np.random.default_rng(5)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((20, 40), (10, 40)))
    model, operands, found = Array(ArrayParameters("int8")), [], []
    for block, matrix, transposed in ((0, x, False), (10, y, True)):
        found.append(quantise(matrix))
        stored = matrix.T if transposed else matrix
        model.store(block, 3, stored)
        operands.append(Operand(block, 3, transposed, {"scale": found[-1].scale + SCALE_BIAS}))
    codes = model.multiply(Product(20, 10, 40, *operands))
    assert np.array_equal(PRESETS["fp32"].decode(codes), integer.matmul(found[0], found[1].T)[0])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ConverterParameters(lanes=65), "lanes is 65; allowed: an integer from 1 to 64"),
    (lambda: ConverterParameters(work=Float(4, 0)), "work is Float"),
    (lambda: DotParameters(lanes=3), "lanes is 3; allowed: an integer from 4 to 64"),
    (lambda: DotParameters(result=PRESETS["fp8-e4m3"]), "result is Float"),
    (lambda: quantise([1.0], 129), "scale is 129; allowed: an integer from -127 to 128"),
])
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
