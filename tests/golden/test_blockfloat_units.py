"""Golden functions of the units of block floating point against loops over scalars."""

import numpy as np
import pytest
from blocks import BF16, FAST4, FP16, FP32, assert_same, each, exact_add, exact_group, operands, power
from narrowgauge.golden import blockfloat as bf
from narrowgauge.golden.formats import BlockFloat, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import Stream

pytestmark = pytest.mark.filterwarnings("error")

CONVERTERS = {
    "default": bf.BFPConverterParameters(),
    "g4-m8-e3-fp16": bf.BFPConverterParameters(group=4, mantissa=8, exponent=3, work=FP16, random_bits=3, seed=0),
    "g7-m5-e5-bf16-corrected": bf.BFPConverterParameters(7, 5, 5, BF16, random_bits=12, corrected=True, seed=2**31 - 1),
    "g64-m2-e8-e6m9": bf.BFPConverterParameters(64, 2, 8, Float(6, 9, bias=40), random_bits=16, seed=9),
}


@each("parameters", CONVERTERS)
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_convert_is_the_scalar_loop(parameters, step):
    rng = np.random.default_rng(step)
    work, n = parameters.work, 150
    codes = rng.integers(0, 2**work.width, (n, parameters.group))
    # Near each other, so that groups hold more than one element that counts; zeros, Inf and NaN here and there.
    field = rng.integers(0, 2**work.exponent - 1, (n, 1)) - rng.integers(0, 4, codes.shape)
    near = rng.random(n) < 0.8
    others = codes & ~(2**work.exponent - 1 << work.mantissa)
    codes[near] = (np.clip(field, 0, 2**work.exponent - 2) << work.mantissa | others)[near]
    codes[rng.random(codes.shape) < 0.1] = 0
    codes[3], codes[5, 1], codes[6, 2] = 0, work.inf_code, work.nan_code
    codes[7] = 1 << (work.width - 1)
    precision, rounding = rng.integers(-1, 11, n), rng.integers(0, 4, n)
    result = bf.convert(parameters, codes, precision, rounding, step)
    stream = Stream(parameters.seed, parameters.group, bits=parameters.random_bits, vector=step)
    none = np.zeros(parameters.group, int)
    for i in range(n):
        m = min(max(int(precision[i]), 2), parameters.mantissa)
        kind = {0: NEAREST, 1: TRUNCATE, 3: NEAREST}.get(int(rounding[i]))
        words = none if kind else stream.draw(1)[0]
        kind = kind or stochastic(parameters.random_bits, parameters.corrected)
        x = work.decode(codes[i]).tolist()
        fmt = BlockFloat(parameters.group, m, parameters.exponent)
        code, q = exact_group(x, fmt, kind, words.tolist())
        assert (int(result[0][i]), result[1][i].tolist()) == (code, q), i
        assert result[2][i] == any(v != v for v in x)
        assert result[3][i] == any(not abs(v) < 2.0 ** (fmt.emax + 1) for v in x)
    assert [r.dtype for r in result] == [np.int16, np.int16, bool, bool]


def test_convert_resumes_and_takes_nothing():
    parameters = CONVERTERS["default"]
    rng = np.random.default_rng(14)
    codes = rng.integers(0, 2**32, (60, 16))
    precision, rounding = np.full(60, 4), rng.integers(0, 3, 60)
    whole = bf.convert(parameters, codes, precision, rounding, 7)
    used = 7 + int((rounding[:25] == 2).sum())
    parts = [bf.convert(parameters, codes[part], precision[part], rounding[part], step)
             for part, step in ((slice(25), 7), (slice(25, None), used))]
    for one, *two in zip(whole, *parts):
        np.testing.assert_array_equal(one, np.concatenate(two))
    empty = bf.convert(parameters, codes[:0], precision[:0], rounding[:0])
    assert [r.shape for r in empty] == [(0,), (0, 16), (0,), (0,)]


FMACS = {
    "default": bf.BFPFMACParameters(),
    "g4-m8-e3-fp16": bf.BFPFMACParameters(4, 8, 3, FP16, accumulators=2),
    "g7-m5-e5-bf16": bf.BFPFMACParameters(7, 5, 5, BF16, accumulators=16),
    "g64-m2-e8-e4m3": bf.BFPFMACParameters(64, 2, 8, Float(4, 3), accumulators=4),
}
PATTERNS = {  # probabilities of `first` and of `last`
    "rare": (0.05, 0.05),
    "often": (0.4, 0.5),
    "never-first": (0.0, 0.3),
    "always": (1.0, 1.0),
    "never-last": (0.2, 0.0),
}


def transfers(parameters, n, rng, spread):
    """Operands of n transfers, products around one with exponents that vary by `spread`."""
    sides, middle = [], parameters.format.bias
    for _ in range(2):
        precision = rng.integers(0, 11, n)
        top = 2 ** np.clip(precision, 2, parameters.mantissa) - 1
        q = rng.integers(-top[:, np.newaxis], top[:, np.newaxis] + 1, (n, parameters.group))
        q[rng.random(n) < 0.1] = 0
        exponents = np.clip(middle + rng.integers(-spread, spread + 1, n), 0, 2**parameters.exponent - 1)
        sides.append((exponents, q, precision))
    return sides


def scalar_fmac(parameters, a, b, slot, first, last):
    totals, codes, overflow = [0.0] * parameters.accumulators, [], False
    bias = 2 ** (parameters.exponent - 1) - 1
    for i in range(len(slot)):
        unit = 0
        for exponents, _, precision in (a, b):
            unit += int(exponents[i]) - bias - (min(max(int(precision[i]), 2), parameters.mantissa) - 1)
        addend = power(unit) * sum(x * y for x, y in zip(a[1][i].tolist(), b[1][i].tolist()))
        before = 0.0 if first[i] else totals[slot[i]]
        totals[slot[i]] = exact_add(before, addend, parameters.accumulator)
        overflow |= np.isinf(totals[slot[i]]) and not np.isinf(before)
        if last[i]:
            codes.append(int(parameters.accumulator.encode(totals[slot[i]])))
    return codes, overflow


@each("pattern", PATTERNS)
@each("parameters", FMACS)
@pytest.mark.parametrize("spread", [2, 150])
def test_fmac_is_the_scalar_loop(parameters, pattern, spread):
    rng = np.random.default_rng(15)
    n = 250
    a, b = transfers(parameters, n, rng, spread)
    slot = rng.integers(0, parameters.accumulators, n)
    first, last = (rng.random(n) < p for p in pattern)
    codes, overflow = bf.fmac(parameters, a, b, slot, first, last)
    assert codes.dtype == np.uint32 and type(overflow) is bool
    assert (codes.tolist(), overflow) == scalar_fmac(parameters, a, b, slot, first, last)


@pytest.mark.parametrize("slots", [
    pytest.param(np.zeros(40, np.uint8), id="one-slot"),
    pytest.param(np.arange(40) % 8, id="in-turn"),
    pytest.param(np.arange(40) // 5, id="one-after-another"),
    pytest.param(7 - np.arange(40) // 5, id="backwards"),
])
def test_fmac_interleaving_does_not_matter_to_a_slot(slots):
    parameters = FMACS["default"]
    rng = np.random.default_rng(16)
    a, b = transfers(parameters, 40, rng, 4)
    first, last = rng.random(40) < 0.3, np.ones(40, bool)
    codes, _ = bf.fmac(parameters, a, b, slots, first, last)
    for slot in np.unique(slots):
        mine = slots == slot
        alone, _ = bf.fmac(parameters, *(tuple(x[mine] for x in side) for side in (a, b)), slots[mine], first[mine],
                           last[mine])
        np.testing.assert_array_equal(codes[mine], alone)


def test_fmac_overflow_is_reported_once_per_start_and_inf_stays():
    parameters = FMACS["g4-m8-e3-fp16"]
    full, zero = np.full(4, 255), np.zeros(4, int)
    q = np.array([full, full, -full, zero, full])
    side = (np.full(5, 7), q, np.full(5, 8))
    ones = (np.full(5, 7), np.full((5, 4), 255), np.full(5, 8))
    slot, last = np.zeros(5, int), np.ones(5, bool)
    codes, overflow = bf.fmac(parameters, side, ones, slot, np.zeros(5, bool), last)
    assert overflow is False and FP16.decode(codes).max() < np.inf
    many = [tuple(np.repeat(x, 40, axis=0) for x in (part[0][:1], part[1][:1], part[2][:1])) for part in (side, ones)]
    codes, overflow = bf.fmac(parameters, *many, np.zeros(40, int), np.arange(40) == 35, np.ones(40, bool))
    values = FP16.decode(codes)
    stuck = np.flatnonzero(np.isinf(values))
    assert overflow is True and stuck[0] > 1 and stuck[-1] == 34 and np.all(np.diff(stuck) == 1)
    assert values[35] == values[0]


def test_fmac_takes_nothing():
    parameters = FMACS["default"]
    empty = (np.zeros(0, int), np.zeros((0, 16), int), np.zeros(0, int))
    codes, overflow = bf.fmac(parameters, empty, empty, np.zeros(0, int), np.zeros(0, bool), np.zeros(0, bool))
    assert codes.shape == (0,) and overflow is False


def test_fmac_of_quantised_rows_is_their_matmul():
    """The unit's view and the tensor's view of the same sums."""
    rng = np.random.default_rng(17)
    parameters = FMACS["default"]
    a, b = operands(FAST4, FAST4, rng, shape=(3, 4), length=90)
    product = bf.matmul(a, b, parameters.accumulator)
    rows, columns, groups = np.meshgrid(np.arange(3), np.arange(4), np.arange(6), indexing="ij")
    rows, columns, groups = rows.ravel(), columns.ravel(), groups.ravel()
    four = np.full(rows.size, 4)
    codes, _ = bf.fmac(parameters, (a.exponents[rows, groups], a.mantissas[rows, groups], four),
                       (b.exponents[columns, groups], b.mantissas[columns, groups], four),
                       (rows * 4 + columns) % 8, groups == 0, groups == 5)
    assert_same(FP32.decode(codes).reshape(3, 4), product)
