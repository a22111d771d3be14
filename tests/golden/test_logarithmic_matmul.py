"""Matrix products of logarithmic numbers against dot products of the unit."""

from math import inf

import numpy as np
import pytest
from logarithms import LNS8, random_codes
from narrowgauge.golden import logarithmic
from narrowgauge.golden.formats import PRESETS, Log
from narrowgauge.golden.logarithmic import LNSDotParameters, Logs

# Matrix products.


def by_dots(a, b, p):
    """A matrix product by `dots`, transfer by transfer."""
    steps = max(1, -(-a.codes.shape[1] // p.lanes))
    out, overflow = np.zeros((len(a.codes), b.codes.shape[1])), False
    for i, j in np.ndindex(out.shape):
        x, y = np.zeros((2, steps * p.lanes), np.int64)
        x[:a.codes.shape[1]], y[:a.codes.shape[1]] = a.codes[i], b.codes[:, j]
        codes, over = logarithmic.dots(p, (x, np.full(steps, a.scale + 127)), (y, np.full(steps, b.scale + 127)),
                                       np.arange(steps) == 0, np.arange(steps) == steps - 1)
        out[i, j] = p.result.decode(codes)[0]
        overflow |= over
    return out, overflow


@pytest.mark.parametrize("shape", [(3, 50, 4), (1, 16, 1), (2, 5, 3), (5, 33, 2), (4, 32, 4), (1, 1, 1), (2, 0, 3)],
                         ids=str)
@pytest.mark.parametrize("settings, saturates", [
    ({}, False), ({"accumulation": "bins"}, False), ({"constants": 2, "result": PRESETS["fp16"], "lanes": 7}, False),
    ({"accumulation": "bins", "constants": 4, "fraction": 5}, False), ({"lsb": 20}, False),
    ({"lsb": 20, "accumulation": "bins", "constants": 1, "lanes": 5}, False),
    ({"accumulator": 33}, True), ({"accumulator": 33, "accumulation": "bins", "lanes": 4}, True),
    ({"format": Log(9, 16), "fraction": 10}, False), ({"format": Log(5, 1), "accumulator": 32, "lanes": 6}, True),
    ({"accumulator": 16, "lsb": 17, "accumulation": "bins", "constants": 2}, True),
], ids=str)
def test_matmul_is_dots(shape, settings, saturates):
    p = LNSDotParameters(**settings)
    m, k, n = shape
    rng = np.random.default_rng(23)
    # Mostly of one sign and large, so that what can saturate does.
    sign = 1 << (p.format.bits - 1)
    a, b = (random_codes(rng, p.format, size, 0.8) & ~np.where(rng.random(size) < 0.7, sign, 0)
            for size in ((m, k), (k, n)))
    if m > 2:
        a[1], b[:, 0] = 0, 0
    for scales in ((-20, 5), (-100, -90) if p.result == PRESETS["fp32"] else (-25, -24)):
        a_logs, b_logs = (Logs(p.format, codes.astype(np.uint32), scale) for codes, scale in zip((a, b), scales))
        values, overflow = logarithmic.matmul(a_logs, b_logs, p)
        expected, over = by_dots(a_logs, b_logs, p)
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, expected)
        assert overflow == over and (not saturates or k < 33 or overflow) and not np.signbit(values[values == 0]).any()


@pytest.mark.parametrize("settings, k", [
    ({}, 20000), ({"accumulation": "bins"}, 20000), ({"format": Log(9, 16), "fraction": 10}, 4000),
    ({"format": Log(5, 1)}, 3000), ({"format": Log(7, 4), "constants": 2, "accumulation": "bins"}, 3000),
], ids=str)
def test_both_ways_of_matmul_agree(settings, k):
    p = LNSDotParameters(**settings)
    rng = np.random.default_rng(29)
    x, y = (random_codes(rng, p.format, (rows, k), 0.9) for rows in (3, 2))
    # The first sum is as large as it can be, and odd in its smallest unit.
    odd = next((r for r in range(2, p.format.gamma) if p.table[0][r] & 1), 2)
    x[0], y[0] = p.format.top, p.format.top
    x[0, -1], y[0, -1] = 1, odd - 1
    fast = logarithmic.products._exact_product(x, y, p)
    ordered, overflow = logarithmic.products._ordered_product(x, y, p)
    assert not overflow
    np.testing.assert_array_equal(fast, ordered)
    table, top = p.table[0], p.format.top  # and in Python's integers
    products = [0 if not u & top or not v & top else
                (-1) ** ((u ^ v) >> (p.format.bits - 1)) *
                (table[((u & top) + (v & top)) % p.format.gamma] << ((u & top) + (v & top)) // p.format.gamma)
                for u, v in zip(x[0].tolist(), y[0].tolist())]
    assert fast[0, 0] == sum(products)
    assert k < 4000 or sum(products) > 1 << 53 and sum(products) & 1  # so K was cut, or float64 would not hold it


def test_matmul_is_taken_in_slabs(monkeypatch):
    p = LNSDotParameters(accumulator=33, lanes=4)
    rng = np.random.default_rng(31)
    a, b = (Logs(p.format, random_codes(rng, p.format, size).astype(np.uint32), 0) for size in ((9, 21), (21, 5)))
    whole = logarithmic.matmul(a, b, p)
    monkeypatch.setattr(logarithmic.products, "SLAB", 40)
    parts = logarithmic.matmul(a, b, p)
    np.testing.assert_array_equal(whole[0], parts[0])
    assert whole[1] == parts[1]


@pytest.mark.parametrize("settings", [{}, {"accumulator": 33}, {"accumulator": 33, "accumulation": "bins"}], ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 3, 0), (2, 0, 3), (0, 0, 0)], ids=str)
def test_matmul_of_nothing(shape, settings):
    p = LNSDotParameters(**settings)
    m, k, n = shape
    a, b = (Logs(p.format, np.zeros(size, np.uint32), 0) for size in ((m, k), (k, n)))
    values, overflow = logarithmic.matmul(a, b, p)
    assert values.shape == (m, n) and not values.any() and not overflow


def test_matmul_reports_infinite_results():
    p = LNSDotParameters(result=PRESETS["fp16"])
    one = logarithmic.quantise(np.float32([[300.0]]), LNS8)
    values, overflow = logarithmic.matmul(one, one, p)
    assert values.tolist() == [[inf]] and overflow


def test_matmul_of_quantised_numbers_is_near_the_product():
    rng = np.random.default_rng(37)
    x, y = rng.standard_normal((20, 64)).astype(np.float32), rng.standard_normal((64, 30)).astype(np.float32)
    a, b = logarithmic.quantise(x, LNS8), logarithmic.quantise(y, LNS8)
    exact = a.values() @ b.values()
    limit = np.abs(a.values()) @ np.abs(b.values())
    for count, bound in ((8, 0.002), (4, 0.034), (2, 0.062), (1, 0.062)):
        values, overflow = logarithmic.matmul(a, b, LNSDotParameters(constants=count))
        assert not overflow and (np.abs(values - exact) <= bound * limit).all()


def test_matmul_checks_its_operands():
    p = LNSDotParameters()
    a, b = (Logs(LNS8, np.zeros(shape, np.uint32), 0) for shape in ((2, 3), (3, 4)))
    with pytest.raises(ValueError, match=r"^format of the operands is \(Log\(bits=6.*; allowed: Log\(bits=8, gamma=8"):
        logarithmic.matmul(Logs(Log(6, 8), a.codes, 0), b, p)
    with pytest.raises(ValueError, match=r"^format of the operands is "):
        logarithmic.matmul(a, b, LNSDotParameters(Log(7, 4)))
    with pytest.raises(ValueError, match=r"^shapes is \(\(2, 3\), \(2, 3\)\); allowed: \(M, K\) and \(K, N\)$"):
        logarithmic.matmul(a, a, p)
    with pytest.raises(ValueError, match=r"^shapes is \(\(3,\), \(3, 4\)\); "):
        logarithmic.matmul(Logs(LNS8, a.codes[0], 0), b, p)
