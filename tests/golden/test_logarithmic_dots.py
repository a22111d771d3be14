"""Dot products of logarithmic numbers against their definition in exact integers."""

import json
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement
from math import inf

import numpy as np
import pytest
from logarithms import LNS8, RESULTS, every_result, exact_constant, exact_round, exact_weight, random_codes
from narrowgauge.golden import logarithmic
from narrowgauge.golden.formats import Float, Log
from narrowgauge.golden.logarithmic import LNSDotParameters

# Formats of a dot product at the ends of what is allowed, with the largest quotient of their products.
FORMATS = {"lns8": (LNS8, 31), "4-1": (Log(4, 1), 14), "4-4": (Log(4, 4), 3), "5-1": (Log(5, 1), 30),
           "5-2": (Log(5, 2), 15), "6-16": (Log(6, 16), 3), "7-4": (Log(7, 4), 31), "9-16": (Log(9, 16), 31)}
every_format = pytest.mark.parametrize("fmt", [pytest.param(fmt, id=name) for name, (fmt, _) in FORMATS.items()])


def exact_product(x, y, p):
    """The bin and the value in it (of which the constant is no part) of a product of two codes, and its lsb-th part."""
    fmt = p.format
    tx, ty = x & fmt.top, y & fmt.top
    quotient, remainder = divmod(tx + ty, fmt.gamma)
    high, low = divmod(remainder, fmt.gamma // p.constants)
    value = 0 if not tx or not ty or quotient < p.lsb else Fraction(2) ** quotient * (1 + Fraction(low, fmt.gamma))
    return high, -value if (x ^ y) >> (fmt.bits - 1) else value


class ExactSums:
    """What a dot product accumulates, by definition: Fractions of units of 1."""

    def __init__(self, p):
        self.p, self.overflow = p, False
        self.weights = [exact_weight(k, p.constants, p.fraction) for k in range(p.constants)]
        self.start()

    def start(self):
        """From 0."""
        self.sums = [Fraction(0)] * (1 if self.p.accumulation == "direct" else self.p.constants)

    def add(self, xs, ys):
        """Of a transfer: all at once, then limits."""
        p = self.p
        for x, y in zip(xs, ys, strict=True):
            high, value = exact_product(x, y, p)
            if p.accumulation == "direct":
                self.sums[0] += value * self.weights[high]
            else:
                self.sums[high] += value
        # The accumulator's bits weigh 2**lsb and more; below are those that the products have.
        below = exact_below(p)
        low, high = -(1 << (p.accumulator - 1)), (1 << (p.accumulator - 1)) - Fraction(1, 1 << below)
        held = [min(max(each, low << p.lsb), high * 2**p.lsb) for each in self.sums]
        self.overflow |= held != self.sums
        self.sums = held

    def total(self):
        """The sum of the bins times their constants."""
        if self.p.accumulation == "direct":
            return self.sums[0]
        return sum(each * weight for each, weight in zip(self.sums, self.weights))


def exact_below(p):
    """Bits of products below their leading unit: of the constants, or, in bins, of the linear part."""
    gamma = p.format.gamma
    if p.accumulation == "direct":
        parts = [exact_constant(r, gamma, p.constants, p.fraction) for r in range(gamma)]
        return max(each.denominator for each in parts).bit_length() - 1
    return gamma.bit_length() - 1 if p.constants < gamma else 0


def exact_dots(p, a, b, first, last):
    """Emitted values and overflow."""
    sums, values = ExactSums(p), []
    for k in range(len(first)):
        if first[k]:
            sums.start()
        sums.add(a[0][k].tolist(), b[0][k].tolist())
        if last[k]:
            scale = Fraction(2) ** (int(a[1][k]) + int(b[1][k]) - 254)
            values.append(exact_round(sums.total() * scale, p.result))
            sums.overflow |= values[-1] in (inf, -inf)
    return values, sums.overflow


def assert_dots(p, a, b, first, last):
    """That `dots` is the definition, signs of zeros too; return whether anything overflowed."""
    values, overflow = exact_dots(p, a, b, first, last)
    codes, over = logarithmic.dots(p, a, b, first, last)
    assert codes.dtype == np.uint32
    got = p.result.decode(codes)
    np.testing.assert_array_equal(got, values)
    assert not np.signbit(got[got == 0]).any()
    assert over == overflow
    return overflow


A = [(0, 124), (1, 100), (0, 82), (0, 127)]
W = [(0, 114), (0, 120), (1, 127), (1, 64)]


def test_the_vector_of_the_contract():
    a, w = (np.array([[s << 7 | t for s, t in codes]]) for codes in (A, W))
    bins = LNSDotParameters(lanes=4, accumulation="bins")
    assert logarithmic.dot(a, w, bins).tolist() == [[0, -67108864, 0, 0, -134217728, 0, 536870912, -8388608]]
    assert logarithmic.dot(a, w, LNSDotParameters(lanes=4)).tolist() == [160138526720]
    for p in (bins, LNSDotParameters(lanes=4)):
        codes, overflow = logarithmic.dots(p, (a, [127]), (w, [127]), [True], [True])
        assert p.result.decode(codes).tolist() == [float(np.float32(160138526720 / 256))] and not overflow


def every_setting(fmt, few=True):
    """LNSDotParameters of a format: every count of constants, and some fractions and lsbs."""
    counts = [1 << k for k in range(fmt.gamma.bit_length())]
    quotient = 2 * fmt.top // fmt.gamma
    for accumulation in ("direct", "bins"):
        for count in counts:
            for fraction, lsb in [(8, 0), (4, quotient // 3), (10, quotient)] if few else [
                    (fraction, lsb) for fraction in range(4, 11) for lsb in range(quotient + 1)]:
                yield LNSDotParameters(fmt, 4, accumulation, lsb=lsb, constants=count, fraction=fraction)


def assert_every_pair(p):
    fmt = p.format
    codes = np.arange(1 << fmt.bits)
    got = logarithmic.dot(codes[:, np.newaxis, np.newaxis], codes[:, np.newaxis], p)
    x, y = (each.ravel().tolist() for each in np.meshgrid(codes, codes, indexing="ij"))
    # Each pair's definition, of which there are few different ones.
    cached = lru_cache(None)(lambda tx, ty, sign: exact_product(tx | sign << (fmt.bits - 1), ty, p))
    expected = [cached(min(u & fmt.top, v & fmt.top), max(u & fmt.top, v & fmt.top), (u ^ v) >> (fmt.bits - 1))
                for u, v in zip(x, y)]
    if p.accumulation == "direct":
        unit = Fraction(2) ** (p.lsb - exact_below(p))
        weight = [exact_weight(k, p.constants, p.fraction) for k in range(p.constants)]
        scaled = lru_cache(None)(lambda high, value: value * weight[high] / unit)
        np.testing.assert_array_equal(got.ravel(), [int(scaled(*each)) for each in expected])
        assert all(scaled(*each).denominator == 1 for each in set(expected))
        return
    unit = Fraction(2) ** (p.lsb - exact_below(p))
    assert all(Fraction(value / unit).denominator == 1 for _, value in set(expected))
    bins = got.reshape(-1, p.constants)
    high = np.array([each[0] for each in expected])
    whole = lru_cache(None)(lambda value: int(value / unit))
    picked = np.take_along_axis(bins, high[:, np.newaxis], 1)[:, 0]
    np.testing.assert_array_equal(picked, [whole(value) for _, value in expected])
    assert (bins != 0).sum() == (picked != 0).sum()  # all other bins get nothing


@every_format
def test_every_pair_of_codes(fmt):
    more = [LNSDotParameters(fmt, constants=2, lsb=9, fraction=10),
            LNSDotParameters(fmt, constants=4, accumulation="bins", lsb=1)] if fmt.bits == 8 else []
    for p in every_setting(fmt) if fmt.bits < 7 else [LNSDotParameters(fmt), *more]:
        assert_every_pair(p)


@pytest.mark.sweep
@every_format
def test_every_pair_of_codes_and_every_setting(fmt):
    for p in every_setting(fmt, few=fmt.bits > 5):
        assert_every_pair(p)


@every_format
def test_bins_make_the_direct_sum_when_nothing_saturates(fmt):
    rng = np.random.default_rng(11)
    n = 300
    for direct in every_setting(fmt):
        if direct.accumulation == "bins":
            continue
        bins = LNSDotParameters(**{**direct.__dict__, "accumulation": "bins"})
        a, b = ((random_codes(rng, fmt, (n, 4)), rng.integers(90, 160, n)) for _ in range(2))
        first, last = rng.random(n) < 0.1, rng.random(n) < 0.5
        codes, overflow = logarithmic.dots(direct, a, b, first, last)
        again, also = logarithmic.dots(bins, a, b, first, last)
        assert not overflow and not also
        np.testing.assert_array_equal(codes, again)


@pytest.mark.parametrize("accumulation", ["direct", "bins"])
@every_format
def test_dots_is_the_definition(fmt, accumulation):
    rng = np.random.default_rng(13)
    overflows = []
    quotient = 2 * fmt.top // fmt.gamma
    for trial in range(6):
        lsb = int(rng.choice([0, quotient // 4, quotient // 2]))
        least = max(quotient - lsb + 2, 8)
        p = LNSDotParameters(fmt, int(rng.integers(4, 9)), accumulation, None if trial == 0 else least + trial % 2, lsb,
                             1 << int(rng.integers(0, fmt.gamma.bit_length())), int(rng.integers(4, 11)),
                             list(RESULTS.values())[trial])
        assert LNSDotParameters.from_json(json.dumps(p.to_json())) == p
        n = 60
        scales = [rng.integers(0, 255, n) if trial % 2 else rng.integers(100, 140, n) for _ in range(2)]
        a, b = ((random_codes(rng, fmt, (n, p.lanes), 0.6 if trial else 0.1), scale) for scale in scales)
        if trial > 1:  # of one sign, so that sums saturate, at either end
            a[0][:40] &= fmt.top
            b[0][:40] = (b[0][:40] & fmt.top) | (np.arange(40) // 20 << (fmt.bits - 1))[:, np.newaxis]
        overflows.append(assert_dots(p, a, b, rng.random(n) < 0.08, rng.random(n) < 0.7))
    assert any(overflows)


@every_result
@pytest.mark.parametrize("accumulation", ["direct", "bins"])
def test_results_at_both_ends_of_their_range(result, accumulation):
    p = LNSDotParameters(lanes=4, accumulation=accumulation, accumulator=40, result=result)
    rng = np.random.default_rng(17)
    n = 150
    a, b = (random_codes(rng, LNS8, (n, 4)) for _ in range(2))
    seen = set()
    for place in (result.emin - result.mantissa, result.emin, 0, result.emax):
        total = np.clip(254 + place - 25 + rng.integers(-9, 10, n), 0, 508)
        low = np.clip(total - 127, 0, 254)
        assert_dots(p, (a, low), (b, total - low), np.ones(n, bool), np.ones(n, bool))
        codes, _ = logarithmic.dots(p, (a, low), (b, total - low), np.ones(n, bool), np.ones(n, bool))
        magnitude = codes & ~np.uint32(1 << (result.width - 1))
        seen |= {"inf"} if (magnitude == result.inf_code).any() else set()
        seen |= {"zero"} if (magnitude == 0).any() else set()
        seen |= {"subnormal"} if ((magnitude > 0) & (magnitude < 1 << result.mantissa)).any() else set()
    if result.emax < 120:
        assert seen == {"inf", "zero", "subnormal"}


@every_result
def test_totals_of_more_than_53_bits_round_once(result):
    rng = np.random.default_rng(19)
    total = rng.integers(0, 1 << 62, 400) >> rng.integers(0, 40, 400)
    # A tie of the result, one to either side of it, and one in the last bit of all.
    tie = (1 << 61) + (np.arange(8) << (61 - result.mantissa)) + (1 << (60 - result.mantissa))
    tie = np.concatenate([tie + d for d in (0, 1, -1, 512, -512, 1024, -1024)]) >> rng.integers(0, 4, 56)
    total = np.concatenate([total, tie, [0, 1, 1 << 53, (1 << 53) + 1, (1 << 62) - 1, 1 << 62]])
    total = np.concatenate([total, -total])
    for place in (0, result.emin - result.mantissa - 60, result.emin - 62, result.emax - 61):
        exponent = np.clip(place + rng.integers(-2, 3, total.size), -300, 320)
        got = logarithmic.products._rounded(total, exponent, result)
        expected = [exact_round(Fraction(t) * Fraction(2) ** e, result)
                    for t, e in zip(total.tolist(), exponent.tolist())]
        np.testing.assert_array_equal(got, expected)
        assert not np.signbit(got[got == 0]).any()


@pytest.mark.parametrize("accumulation", ["direct", "bins"])
def test_a_long_sum_keeps_its_last_bit_beyond_53(accumulation):
    # 4096 products of 2**31 are 2**43, 2**55 units. A product of 2**30 more makes a tie of the result's 13 bits, which
    # the last transfer decides: its products leave one unit, of 2**-12, which float64 would lose.
    result = Float(8, 12)
    p = LNSDotParameters(lanes=64, accumulation=accumulation, constants=4, fraction=10, accumulator=46, result=result)
    units, bits = p.table
    assert bits == 12
    a, b = np.full((66, 64), 124), np.full((66, 64), 124)
    a[64:] = 0
    a[64, 0] = b[64, 0] = 120
    sums = {sum(units[r] for r in some): some for some in combinations_with_replacement(range(2, 8), 7)}
    plus, minus = next((sums[total + 1], sums[total]) for total in sums if total + 1 in sums)
    a[65, :14], b[65, :14] = 1, np.array(plus + minus) - 1
    b[65, 7:14] |= 128
    scale, first, last = np.full(66, 127), np.arange(66) == 0, np.arange(66) >= 63
    for sign in (1, -1):
        a[65, :14] |= 128 if sign < 0 else 0
        codes, overflow = logarithmic.dots(p, (a, scale), (b, scale), first, last)
        exact = [Fraction(2) ** 43, Fraction(2) ** 43 + 2**30]
        exact.append(exact[-1] + sign * Fraction(1, 4096))
        assert result.decode(codes).tolist() == [exact_round(each, result) for each in exact] and not overflow
        assert (exact_round(exact[2], result) > 2**43) == (sign > 0)
        assert float(exact[2]) == exact[1]


def test_sums_saturate_transfer_by_transfer_and_at_both_ends():
    p = LNSDotParameters(lanes=4, accumulator=33)
    top = np.full((1, 4), 127)  # products of 431 / 256 * 2**31, of which 1.2 fill 33 bits
    minus, one_minus = top | 128, np.array([[0, 0, 0, 255]])
    scale, one = np.full(3, 127), np.ones(3, bool)
    most, least = float(np.float32(2.0**32 - 2.0**-8)), -(2.0**32)
    product = 431 * 2.0**23
    cases = [
        ([top, top, top], [most] * 3),
        ([minus, minus, minus], [least] * 3),
        ([top, one_minus, minus], [most, 2.0**32 - 2.0**-8 - product, least]),
    ]
    for transfers, expected in cases:
        codes, overflow = logarithmic.dots(p, (np.concatenate(transfers), scale), (np.resize(top, (3, 4)), scale),
                                           np.arange(3) == 0, one)
        assert p.result.decode(codes).tolist() == [float(np.float32(each)) for each in expected] and overflow
    # Within one transfer, what is beyond may come back.
    mixed = np.array([[127, 127, 255, 255]])
    codes, overflow = logarithmic.dots(p, (mixed, [127]), (top, [127]), [True], [True])
    assert codes.tolist() == [0] and not overflow
    exactly = np.array([[120, 120, 120, 120]]) | 128  # 4 * 2**30
    codes, overflow = logarithmic.dots(p, (exactly, [127]), (np.full((1, 4), 120), [127]), [True], [True])
    assert p.result.decode(codes).tolist() == [-(2.0**32)] and not overflow
    codes, overflow = logarithmic.dots(p, (exactly & 127, [127]), (np.full((1, 4), 120), [127]), [True], [True])
    assert p.result.decode(codes).tolist() == [most] and overflow


def test_bins_and_direct_differ_once_something_saturates():
    # Bins of 33 bits hold as many products each as the direct sum holds of all: here the sum is full, no bin is.
    a, b = np.array([[127, 126, 125, 124]]), np.full((1, 4), 127)
    results = {}
    for accumulation in ("direct", "bins"):
        p = LNSDotParameters(lanes=4, accumulation=accumulation, accumulator=33)
        codes, overflow = logarithmic.dots(p, (a, [127]), (b, [127]), [True], [True])
        results[accumulation] = p.result.decode(codes).tolist()[0], overflow
    assert results["direct"] == (2.0**32, True)
    assert results["bins"] == ((431 + 395 + 362 + 332) * 2.0**23, False)


def test_products_below_lsb_are_dropped_before_they_are_added():
    a = np.array([[16, 17, 15, 15]])
    b = np.array([[16, 16, 16, 15 | 128]])  # quotients 4, 4, 3, 3
    for lsb, expected in ((3, 256 * 2 + 279 * 2 + 470 - 431), (4, 256 + 279), (5, 0)):
        assert logarithmic.dot(a, b, LNSDotParameters(lanes=4, lsb=lsb)).tolist() == [expected]


def test_no_sum_leaves_64_bits():
    # Golden's integers, at the limits of all parameters: the held sum, and a transfer of 64 of the largest products.
    for bits in range(4, 10):
        for gamma in (1, 2, 4, 8, 16):
            for count in (1, 2, 4, 8, 16):
                for fraction in range(4, 11):
                    for accumulation in ("direct", "bins"):
                        make = {"format": Log(bits, gamma), "lanes": 64, "accumulation": accumulation,
                                "constants": count, "fraction": fraction}
                        try:
                            default = LNSDotParameters(**make)
                        except ValueError:
                            continue
                        widest = min(48, 60 - fraction - gamma.bit_length())
                        least = max(default.quotient + 2, 8)
                        assert least <= default.accumulator == min(least + 15, widest)
                        largest = int(logarithmic.product_table(default).max())
                        narrow = LNSDotParameters(**make, accumulator=least)
                        assert largest <= narrow.most  # every product fits
                        if default.accumulator == least + 15:
                            assert 32768 * largest <= default.most
                        p = LNSDotParameters(**make, accumulator=widest)
                        assert p.most + 64 * largest < 1 << 63
                        merged = sum(exact_weight(k, count, fraction) for k in range(count)) * 2**fraction
                        assert p.accumulation == "direct" or (p.most + 1) * merged < 1 << 63


def test_dots_take_nothing():
    none, codes = np.zeros(0, int), np.zeros((0, 16), int)
    for accumulation in ("direct", "bins"):
        out, overflow = logarithmic.dots(LNSDotParameters(accumulation=accumulation), (codes, none), (codes, none),
                                         none, none)
        assert out.shape == (0,) and not overflow


def test_the_scales_of_the_last_transfer_count():
    p = LNSDotParameters(lanes=4)
    ones = np.full((3, 4), 8)
    codes, _ = logarithmic.dots(p, (ones, [0, 254, 127]), (ones, [3, 130, 128]), [True, False, False],
                                [False, False, True])
    assert p.result.decode(codes).tolist() == [12 * 4 * 2]
