import itertools

import numpy as np
import pytest
from narrowgauge.golden import floating
from narrowgauge.golden.formats import PRESETS, Float

FP16 = PRESETS["fp16"]


def codes(values, fmt=FP16):
    return fmt.encode(values)


def any_code(rng, shape):
    return rng.integers(0, 1 << 16, shape)


def wide(rng, shape):
    return codes(rng.standard_normal(shape) * np.exp2(rng.integers(-14, 7, shape)))


def tiny(rng, shape):
    """Numbers whose products are subnormal, or nothing."""
    return codes(rng.standard_normal(shape) * 2**-12.5)


def few_bits(rng, shape):
    """Numbers of which sums often lie in the middle between two."""
    return codes(rng.integers(-63, 64, shape) * np.exp2(rng.integers(-6, 7, shape)))


def huge(rng, shape):
    """Numbers of which some sums overflow."""
    return codes(rng.standard_normal(shape) * 2.0**6.5)


def check(a, b, chunk, fmt=FP16):
    """Hold a product against `dot`, code by code."""
    order = {"order": "sequential"} if chunk is None else {"order": "chunked", "chunk": chunk}
    expected = floating.dot(a[:, np.newaxis], b.T[np.newaxis], fmt, **order)
    product = floating.matmul(fmt.decode(a), fmt.decode(b), fmt, chunk)
    np.testing.assert_array_equal(fmt.encode(product), expected)
    return expected


@pytest.mark.parametrize("make", [any_code, wide, tiny, few_bits, huge])
@pytest.mark.parametrize("chunk", [None, 1, 7, 16, 99])
def test_equals_dot(make, chunk):
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 1), (3, 30, 40), (9, 15, 7)):
        rows, depth, columns = shape
        check(make(rng, (rows, depth)), make(rng, (depth, columns)), chunk)


def test_the_inputs_reach_their_cases():
    rng = np.random.default_rng(1)
    subnormal = check(tiny(rng, (30, 40)), tiny(rng, (40, 30)), 16) & 0x7FFF
    assert ((subnormal > 0) & (subnormal < 0x400)).mean() > 0.8
    infinite = check(huge(rng, (30, 40)), huge(rng, (40, 30)), 16) & 0x7FFF == FP16.inf_code
    assert 0.05 < infinite.mean() < 0.95


@pytest.mark.parametrize(("a", "b", "chunk"), [
    # -2**-26 rounds to -0, to which +0 is added, or another -0.
    ([-2**-13], [2**-13], None), ([-2**-13], [2**-13], 1), ([-2**-13, 0], [2**-13, 1], None),
    ([-2**-13, -0.0], [2**-13, 1], None), ([-2**-13, -0.0], [2**-13, 1], 1), ([0, -2**-13], [1, 2**-13], None),
    # 65504 and half a unit: a tie that goes to Inf, from both sides; just below it.
    ([255.875, 16], [256, 1], None), ([-255.875, -16], [256, 1], None), ([255.875, 15.9921875], [256, 1], None),
    # Back from above the largest number there is no way.
    ([60000, 60000, -60000], [1, 1, 1], None), ([60000, 60000, -60000], [1, 1, 1], 2),
    # Ties, above and below an even number; and barely no ties, which twice rounded they would be.
    ([1, 1], [1, 2**-11], None), ([1.0009765625, 1], [1, 2**-11], None), ([1, 1.0009765625], [1, 2**-11], None),
    ([1, 2**-11, 2**-24], [1, 1, 2**-24], None), ([1, 2**-11 + 2**-21, -2**-14], [1, 1, 2**-7], None),
    ([2**-24, 257], [2**-24, 2**-11 * 1.0009765625], None),
    # The half of the smallest number, and a little more.
    ([2**-13], [2**-12], None), ([2**-13 * 1.0009765625], [2**-12], None), ([2**-24, 2**-13], [1, 2**-12], None),
    ([np.inf, 1], [1, 2], None), ([np.inf, 1], [0, 2], None), ([np.inf, -np.inf], [1, 1], 1), ([np.nan, 1], [1, 1], 1),
])
def test_directed_cases(a, b, chunk):
    check(codes([a]), codes([b]).T, chunk)


def test_slabs_and_orientation_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    a, b = (FP16.decode(make(rng, shape)) for make, shape in ((huge, (21, 50)), (wide, (50, 17))))
    whole = {chunk: FP16.encode(floating.matmul(a, b, FP16, chunk)) for chunk in (None, 8)}
    for chunk, slab in itertools.product(whole, (1, 40, 1000)):
        monkeypatch.setattr(floating.products, "SLAB", slab)
        assert np.array_equal(FP16.encode(floating.matmul(a, b, FP16, chunk)), whole[chunk])
        assert np.array_equal(FP16.encode(floating.matmul(b.T, a.T, FP16, chunk)).T, whole[chunk])


def test_order_matters():
    # 1 is lost beside 4096 unless the ones come together.
    a = np.array([[4096, *[1] * 8]])
    assert floating.matmul(a, np.ones((9, 1))) == 4096
    assert floating.matmul(a[:, ::-1], np.ones((9, 1))) == 4104
    assert floating.matmul(a, np.ones((9, 1)), chunk=2) == 4096  # 4096, 2, 2, 2, 1: ties to even
    assert floating.matmul(a, np.ones((9, 1)), chunk=3) == 4104  # 4096, 3, 3
    assert floating.matmul(np.ones((1, 5000)), np.ones((5000, 1))) == 2048
    assert floating.matmul(np.ones((1, 5000)), np.ones((5000, 1)), chunk=64) == 5000


@pytest.mark.parametrize("fmt", [PRESETS["fp8-e5m2"], Float(4, 6), Float(5, 10, bias=20)], ids=["e5m2", "e4m6", "bias"])
def test_other_accumulators(fmt):
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 1 << fmt.width, shape) for shape in ((8, 20), (20, 8)))
    check(a, b, None, fmt)
    check(a, b, 6, fmt)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 3), (2, 3, 0)])
def test_empty_products(shape):
    rows, depth, columns = shape
    for chunk in (None, 4):
        assert not floating.matmul(np.ones((rows, depth)), np.ones((depth, columns)), chunk=chunk).any()


@pytest.mark.parametrize(("settings", "message"), [
    ({"accumulator": PRESETS["bf16"]}, "accumulator is .*; allowed: a Float .* such as fp16"),
    ({"accumulator": PRESETS["fp8-e4m3"]}, "accumulator is .*; allowed: a Float with specials 'ieee', .*"),
    ({"chunk": 0}, "chunk is 0; allowed: None, or an integer, 1 or more"),
    ({"b": np.ones((2, 2))}, r"shapes is \(\(2, 3\), \(2, 2\)\); allowed: \(M, K\) and \(K, N\)"),
])
def test_bad_operands_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        floating.matmul(**{"a": np.ones((2, 3)), "b": np.ones((3, 2)), **settings})
