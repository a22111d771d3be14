"""Dot products of floating-point numbers, and the units' golden functions."""


import numpy as np
import pytest
from narrowgauge.golden import floating, reference
from narrowgauge.golden.floating import (
    AdderParameters,
    CastParameters,
    FMAParameters,
    MACParameters,
    MultiplierParameters,
)
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.words import blocks, key
from peers import (
    BF16,
    E2M1,
    E4M3,
    E5M2,
    EXACT_PRODUCTS,
    FP16,
    FP32,
    WIDE,
    all_pairs,
    assert_same,
    each,
    pattern,
    random_pairs,
    to_peer,
)

pytestmark = pytest.mark.filterwarnings("error")

DOT_SHAPES = [(5, 1), (3, 16), (4, 17), (2, 33)]


@pytest.mark.parametrize("shape", DOT_SHAPES, ids=str)
@pytest.mark.parametrize("fmt, dtype", each(EXACT_PRODUCTS))
def test_dot_in_order_is_float32_addition(fmt, dtype, shape):
    """The products are exact in float32, so NumPy's additions, one by one, are the reference."""
    rng = np.random.default_rng(16)
    a, b = (v.reshape(shape) for v in random_pairs(fmt, int(np.prod(shape)), rng))
    a, b = (np.where(v & (1 << (fmt.width - 1)) - 1 > fmt.max_code, 1, v) for v in (a, b))
    product = to_peer(a, dtype).astype(np.float32) * to_peer(b, dtype).astype(np.float32)

    def in_order(values):
        total = np.zeros(values.shape[0], np.float32)
        for column in values.T:
            total = total + column
        return total

    sequential = in_order(product)
    assert_same(floating.dot(a, b, fmt, accumulator=FP32), sequential, FP32)
    for chunk in (1, 4, 16):
        sums = [in_order(product[:, begin:begin + chunk]) for begin in range(0, shape[1], chunk)]
        ours = floating.dot(a, b, fmt, accumulator=FP32, order="chunked", chunk=chunk)
        assert_same(ours, in_order(np.stack(sums, axis=1)), FP32)


@pytest.mark.parametrize("result", WIDE)
def test_exact_dot_rounds_the_exact_sum_once(result):
    """E4M3 products span 36 bits: float64 sums them exactly, and NumPy rounds that once (ml_dtypes twice)."""
    other, target = WIDE[result]
    rng = np.random.default_rng(17)
    a, b = rng.integers(0, 256, (2, 3000, 40))
    a, b = (np.where(v & 127 == 127, 1, v) for v in (a, b))
    a[::3, 20:], b[::3, 20:] = a[::3, :20], b[::3, :20] ^ 128  # cancels to zero
    a[1::3, 20:], b[1::3, 20:] = a[1::3, :20], b[1::3, :20] ^ 128
    a[1::3, 7] ^= 2 * rng.integers(0, 2, 1000)  # but for a little
    a = np.where(a & 127 == 127, 1, a)
    exact = (E4M3.decode(a) * E4M3.decode(b)).sum(axis=1)
    assert np.mean(exact == 0) > 0.3
    with np.errstate(over="ignore"):
        theirs = other.encode(exact) if result == "bfloat16" else exact.astype(target).view(pattern(target))
    np.testing.assert_array_equal(floating.dot(a, b, E4M3, accumulator=other, order="exact"), theirs)


def test_exact_dot_of_a_wide_range():
    """fp32: what float64, even extended, cannot hold. The great products cancel and the least remains."""
    big, one, tiny = 0x7F000000, 0x3F800000, 0x00000001
    a = np.array([big, tiny, big, one, one])
    b = np.array([big, tiny, big ^ 1 << 31, tiny, tiny ^ 1 << 31])
    wide = Float(11, 20)
    assert floating.dot(a, b, FP32, order="exact", accumulator=wide) == wide.encode(2.0**-298)
    assert floating.dot(a, b, FP32, order="exact") == 0
    assert floating.dot(a[:4], b[:4], FP32, order="exact") == tiny
    assert floating.dot(a, b, FP32) == 0x7F800000  # in order it overflows


def test_dot_of_inf_and_nan():
    one, inf, minus, nan = 0x3C00, 0x7C00, 0xFC00, 0x7E00
    rows = np.array([[one, inf, one], [minus, one, minus], [inf, one, minus], [0, one, nan], [one, one, one]])
    for order in ("sequential", "chunked", "exact"):
        result = floating.dot(rows, np.full(3, one), FP16, order=order, chunk=2)
        assert result.tolist() == [inf, minus, nan, nan, 0x4200]
    assert floating.dot([inf], [0], FP16, order="exact") == nan
    # The sign is that of the Inf, however great the finite products are.
    assert floating.dot([0x7BFF, inf], [0x7BFF, 0x8001], FP16, order="exact") == minus
    assert floating.dot([0xFBFF, minus], [0x7BFF, 0x8001], FP16, order="exact") == inf


def test_dot_of_nothing_and_of_broadcast_shapes():
    for order in ("sequential", "chunked", "exact"):
        assert floating.dot(np.zeros((2, 0), int), np.zeros((2, 0), int), FP16, order=order).tolist() == [0, 0]
        assert floating.dot(np.zeros((0, 4), int), np.zeros(4, int), FP16, order=order).shape == (0,)
        result = floating.dot(np.full((2, 1, 4), 0x3C00), np.full((3, 4), 0x4000), FP16, order=order)
        assert result.dtype == np.uint32 and result.tolist() == [[0x4800] * 3] * 2
        assert floating.dot([0x8000] * 3, [0x3C00] * 3, FP16, order=order) == 0  # -0 products: it starts from +0


def test_shapes_broadcast_and_integers_of_any_dtype_will_do():
    column, row = np.array([[0x3C00], [0xBC00]], np.uint16), np.array([0x4000, 0x0000, 0x3C00], np.int64)
    assert floating.add(column, row, FP16).tolist() == [[0x4200, 0x3C00, 0x4000], [0x3C00, 0xBC00, 0]]
    assert floating.add(column, row, FP16).dtype == np.uint32
    assert floating.multiply(0x4000, row.astype(np.int16), FP16).tolist() == [0x4400, 0, 0x4000]
    assert floating.fma(column, 0x3C00, row, FP16).shape == (2, 3)
    assert floating.cast(0x3C00, FP16, FP32).shape == () and floating.cast(0x3C00, FP16, FP32) == 0x3F800000
    assert floating.add(np.zeros((2, 0), int), 0, FP16).shape == (2, 0)
    words = np.array([0, 255])
    assert floating.add(0x3C00, 0x1000, FP16, stochastic(8), words).tolist() == [0x3C00, 0x3C01]


def test_slabs_do_not_show():
    """More elements than are worked on at a time, in two dimensions, with words."""
    rng = np.random.default_rng(18)
    a, b, w = rng.integers(0, 2**16, (3, 7, floating.operations.SLAB // 3))
    whole = floating.add(a, b, FP16, stochastic(16), w)
    for row in range(7):
        np.testing.assert_array_equal(whole[row], floating.add(a[row], b[row], FP16, stochastic(16), w[row]))


ERRORS = {
    "add-random": (lambda: floating.add(0, 0, FP16, stochastic(8)),
                   r"^random is None; allowed: one random word per element, because rounding is stochastic$"),
    "dot-order": (lambda: floating.dot([0], [0], FP16, order="tree"),
                  r"^order is 'tree'; allowed: sequential, chunked, exact$"),
    "dot-chunk": (lambda: floating.dot([0], [0], FP16, chunk=0), r"^chunk is 0; allowed: an integer, 1 or more$"),
    "dot-chunk-float": (lambda: floating.dot([0], [0], FP16, chunk=2.0), r"^chunk is 2.0; allowed: an integer"),
    "dot-random": (lambda: floating.dot([0], [0], FP16, stochastic(8)), r"^random is None; allowed: 1 random words"),
    "dot-words": (lambda: floating.dot([0] * 5, [0] * 5, FP16, stochastic(8), [0] * 5, order="chunked", chunk=4),
                  r"^shape of random is \(5,\); allowed: \(\.\.\., 7\), one word per rounding$"),
    "reference-order": (lambda: reference.dot([0], [0], FP16, order="tree"), r"^order is 'tree'; allowed: sequential"),
    "format": (lambda: AdderParameters(format=Float(4, 0)), r"^format is Float.*; allowed: a Float with a mantissa"),
    "format-name": (lambda: AdderParameters(format="fp16"), r"^format is 'fp16'; allowed: a Float with a mantissa"),
    "rounding": (lambda: AdderParameters(rounding="up"), r"^rounding is 'up'; allowed: nearest, truncate, stochastic$"),
    "random-bits": (lambda: AdderParameters(random_bits=17), r"^random_bits is 17; allowed: an integer from 1 to 16$"),
    "corrected": (lambda: AdderParameters(corrected=1), r"^corrected is 1; allowed: true, false$"),
    "seed": (lambda: AdderParameters(seed=-1), r"^seed is -1; allowed: an integer from 0 to 2147483647$"),
    "subnormals": (lambda: AdderParameters(subnormals="drop"), r"^subnormals is 'drop'; allowed: keep, flush$"),
    "latency": (lambda: AdderParameters(latency=0), r"^latency is 0; allowed: an integer from 1 to \d+$"),
    "latency-fma": (lambda: FMAParameters(latency=99), r"^latency is 99; allowed: an integer from 1 to \d+$"),
    "result": (lambda: MultiplierParameters(result=PRESETS["fast-4"]), r"^result is BlockFloat.*; allowed: a Float"),
    "cast": (lambda: CastParameters(result=Float(4, 0)), r"^result is Float.*; allowed: a Float with a mantissa"),
    "multiplier": (lambda: FMAParameters(multiplier="soft"), r"^multiplier is 'soft'; allowed: dsp, lut$"),
    "accumulator": (lambda: FMAParameters(accumulator=16), r"^accumulator is 16; allowed: a Float with a mantissa"),
    "mac-accumulator": (lambda: MACParameters(accumulator=E4M3), r"^accumulator is Float.*; allowed: .* 'ieee'"),
    "mac-accumulators": (lambda: MACParameters(accumulators=3), r"^accumulators is 3; allowed: 2, 4, 8, 16$"),
    "mac-multiplier": (lambda: MACParameters(multiplier=None), r"^multiplier is None; allowed: dsp, lut$"),
    "mac-format": (lambda: MACParameters(format=None), r"^format is None; allowed: a Float with a mantissa"),
}


@pytest.mark.parametrize("call, message", each(ERRORS))
def test_senseless_arguments_raise_and_name_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()


PARAMETERS = {
    "adder": AdderParameters(),
    "adder-stochastic": AdderParameters(format=E4M3, rounding="stochastic", random_bits=5, corrected=True, seed=9),
    "multiplier": MultiplierParameters(),
    "multiplier-wide": MultiplierParameters(format=E5M2, result=Float(4, 9), subnormals="flush", multiplier="lut"),
    "fma": FMAParameters(format=BF16, accumulator=FP32, rounding="truncate"),
    "fma-same": FMAParameters(),
    "cast": CastParameters(),
    "mac": MACParameters(format=E4M3, accumulator=FP32, accumulators=4),
}


@pytest.mark.parametrize("parameters", each(PARAMETERS))
def test_parameters_go_through_json_both_ways(parameters):
    assert type(parameters).from_json(parameters.to_json()) == parameters


def test_a_format_that_is_not_given_is_the_operands():
    assert MultiplierParameters.from_json('{"format": "bf16", "result": null}').result == BF16
    assert FMAParameters.from_json('{"format": "bf16"}').accumulator == BF16


MODES = {
    "nearest": {},
    "truncate": {"rounding": "truncate"},
    "stochastic": {"rounding": "stochastic", "random_bits": 11, "seed": 77},
    "corrected-flush": {"rounding": "stochastic", "corrected": True, "subnormals": "flush"},
}


@pytest.mark.parametrize("mode", each(MODES))
def test_units_are_the_reference_with_a_word_per_transfer(mode):
    """Codes and flags; every transfer draws one word of lane 0, whatever its operands."""
    rng, step, n = np.random.default_rng(19), 1000, 300
    a, b = random_pairs(E5M2, n, rng)
    a[:20], b[:20] = E5M2.max_code, E5M2.max_code ^ rng.integers(0, 2, 20) << 7
    c, subtract = rng.integers(0, 2**16, n), rng.random(n) < 0.5
    make = {"format": E5M2, **mode}
    units = {
        "adder": (floating.adder, AdderParameters(**make), (a, b, subtract)),
        "multiplier": (floating.multiplier, MultiplierParameters(result=E4M3, **make), (a, b)),
        "fused": (floating.fused, FMAParameters(accumulator=FP16, **make), (a, b, c)),
        "caster": (floating.caster, CastParameters(result=E2M1, **make), (a,)),
    }
    for name, (unit, p, operands) in units.items():
        flush, k = p.subnormals == "flush", p.random_bits
        # A block for each transfer, of which its first byte, or two, have the word.
        found = blocks(key(p.seed), np.arange(step, step + len(operands[0]), dtype=np.uint32))
        drawn = (found[:, 0] >> (8 - k) if k <= 8 else found.view("<u2")[:, 0] >> (16 - k)).tolist()
        expected = []
        for word, *row in zip(drawn, *(v.tolist() for v in operands)):
            if name == "adder":
                scalar = reference.subtract if row[2] else reference.add
                expected.append(scalar(*row[:2], E5M2, p.mode, word, flush))
            elif name == "multiplier":
                expected.append(reference.multiply(*row, E5M2, p.mode, word, flush, E4M3))
            elif name == "fused":
                expected.append(reference.fma(*row, E5M2, p.mode, word, flush, FP16))
            else:
                expected.append(reference.cast(*row, E5M2, E2M1, p.mode, word, flush))
        codes, invalid, overflow = unit(p, *operands, step=step)
        assert codes.dtype == np.uint32 and invalid.dtype == overflow.dtype == bool
        assert list(zip(codes.tolist(), invalid.tolist(), overflow.tolist())) == expected, name
        assert invalid.any() and overflow.any()
        first, rest = unit(p, *(v[:100] for v in operands), step=step), \
            unit(p, *(v[100:] for v in operands), step=step + 100)
        for whole, *parts in zip((codes, invalid, overflow), first, rest):
            np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_units_take_no_transfers():
    none = np.zeros(0, int)
    for mode in MODES.values():
        for result in (floating.adder(AdderParameters(**mode), none, none, none.astype(bool)),
                       floating.multiplier(MultiplierParameters(**mode), none, none),
                       floating.fused(FMAParameters(**mode), none, none, none),
                       floating.caster(CastParameters(**mode), none)):
            assert [v.shape for v in result] == [(0,)] * 3
    codes, invalid, overflow = floating.mac(MACParameters(), none, none, none, none.astype(bool), none.astype(bool))
    assert codes.shape == (0,) and invalid is False and overflow is False


def mac_transfers(fmt, n, slots, rng):
    a, b = random_pairs(fmt, n, rng)
    return a, b, rng.integers(0, slots, n), rng.random(n) < 0.1, rng.random(n) < 0.4


@pytest.mark.parametrize("fmt, dtype", each(EXACT_PRODUCTS))
def test_mac_is_float32_addition(fmt, dtype):
    """The products are exact in float32, so NumPy's additions are the reference: Inf and NaN as well."""
    rng = np.random.default_rng(20)
    a, b, slot, first, last = mac_transfers(fmt, 3000, 8, rng)
    calm = np.arange(a.size) < 2000  # without Inf and NaN at first, or they would be everywhere
    a, b = (np.where(calm & (v & (1 << (fmt.width - 1)) - 1 > fmt.max_code), 1, v) for v in (a, b))
    sums, emitted = np.zeros(8, np.float32), []
    with np.errstate(all="ignore"):
        product = to_peer(a, dtype).astype(np.float32) * to_peer(b, dtype).astype(np.float32)
        for i in range(a.size):
            before = np.float32(0) if first[i] else sums[slot[i]]
            sums[slot[i]] = before + product[i] + np.float32(0)  # the last term makes -0 the unit's +0
            if last[i]:
                emitted.append(sums[slot[i]])
    parameters = MACParameters(format=fmt, accumulator=FP32, accumulators=8)
    codes, invalid, overflow = floating.mac(parameters, a, b, slot, first, last)
    assert codes.dtype == np.uint32
    assert_same(codes, np.array(emitted, np.float32), FP32)
    assert (invalid, overflow) == (True, False)


def test_mac_is_the_reference_one_by_one():
    """fp16 sums of fp16 products, which overflow: each transfer is an fma but for the sign of an exact zero."""
    rng = np.random.default_rng(21)
    a, b, slot, first, last = mac_transfers(FP16, 4000, 4, rng)
    a, b = (np.where(v & 0x7FFF > FP16.max_code, 1, v) for v in (a, b))
    a[5::50], b[5::50] = a[4:-1:50], b[4:-1:50] ^ 0x8000
    slot[5::50] = slot[4:-1:50]
    first[4::50] = True
    sums, emitted, overflowed, invalid = [0] * 4, [], False, False
    for i in range(a.size):
        before = 0 if first[i] else sums[slot[i]]
        x, y, c = reference.decode(int(a[i]), FP16), reference.decode(int(b[i]), FP16), reference.decode(before, FP16)
        exact = reference.total(reference.product(x, y), c)
        code, bad, over = (0, False, False) if exact.is_zero else reference.round_exact(exact, FP16)
        sums[slot[i]], invalid, overflowed = code, invalid | bad, overflowed | over
        if last[i]:
            emitted.append(code)
    assert overflowed and 0x8000 in emitted and 0 in emitted  # a negative sum may round to -0
    ours = floating.mac(MACParameters(accumulators=4), a, b, slot, first, last)
    assert ours[0].tolist() == emitted and ours[1:] == (invalid, overflowed)


@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
def test_mac_of_chunks_is_the_reference_of_each_sum(chunk):
    """Each sum from a `first` to its only `last` is a chunked dot product."""
    rng = np.random.default_rng(22)
    sizes = rng.integers(1, 150, 40)
    ends = np.cumsum(sizes)
    a, b, *_ = mac_transfers(FP16, int(ends[-1]), 4, rng)
    a, b = (np.where(v & 0x7FFF > FP16.max_code, 1, v)[:ends[-1]] for v in (a, b))
    first, last = np.isin(np.arange(ends[-1]), ends - sizes), np.isin(np.arange(ends[-1]), ends - 1)
    codes, *_ = floating.mac(MACParameters(chunk=chunk), a, b, np.zeros(ends[-1], int), first, last)
    for code, size, end in zip(codes.tolist(), sizes.tolist(), ends.tolist()):
        part = slice(end - size, end)
        assert code == reference.dot(a[part].tolist(), b[part].tolist(), FP16, order="chunked", chunk=chunk)


ONE, INF, NAN, BIG, TINY = 0x3C00, 0x7C00, 0x7E00, 0x7BFF, 0x0001
# transfers (a, b, first) into one slot -> the last sum, invalid, overflow
MACS = {
    "starts from +0": ([(0x8000, ONE, True)], 0, False, False),
    "-0 plus a -0 product is +0": ([(0x8001, TINY, True), (0x8000, ONE, False)], 0, False, False),
    "a negative product below the subnormals": ([(0x8001, TINY, True)], 0x8000, False, False),
    "1 - 1 is +0": ([(ONE, ONE, True), (0xBC00, ONE, False)], 0, False, False),
    "overflow": ([(BIG, ONE, True), (BIG, ONE, False)], INF, False, True),
    "overflow of a product alone": ([(BIG, BIG, True)], INF, False, True),
    "a great product is not rounded before it cancels": ([(BIG, ONE, True), (0xFBFF, 0x4000, False)], 0xFBFF,
                                                         False, False),
    "Inf that came in is no overflow": ([(INF, ONE, True), (BIG, BIG, False)], INF, False, False),
    "Inf - Inf": ([(INF, ONE, True), (INF, 0xBC00, False)], NAN, True, False),
    "Inf from overflow, minus Inf": ([(BIG, BIG, True), (0xFC00, ONE, False)], NAN, True, True),
    "0 * Inf": ([(0, INF, True)], NAN, True, False),
    "NaN stays": ([(0xFC01, ONE, True), (ONE, ONE, False)], NAN, True, False),
    "first forgets NaN": ([(NAN, ONE, True), (ONE, ONE, True)], ONE, True, False),
    "first forgets Inf": ([(INF, ONE, True), (ONE, ONE, True)], ONE, False, False),
}


@pytest.mark.parametrize("transfers, code, invalid, overflow", each(MACS))
def test_mac_corners(transfers, code, invalid, overflow):
    a, b, first = (np.array(column) for column in zip(*transfers))
    last = np.arange(a.size) == a.size - 1
    codes, *flags = floating.mac(MACParameters(), a, b, np.full(a.size, 3), first, last)
    assert codes.tolist() == [code] and flags == [invalid, overflow]


def test_truncation_is_toward_zero_of_the_exact_result():
    """Magnitudes never grow, and the next code up is beyond: for every pair of E4M3."""
    fmt = Float(4, 3)
    a, b = all_pairs(fmt)
    number = (np.abs(fmt.decode(a)) <= fmt.max) & (np.abs(fmt.decode(b)) <= fmt.max)
    a, b = a[number], b[number]
    for operation, exact in ((floating.add, fmt.decode(a) + fmt.decode(b)),
                             (floating.multiply, fmt.decode(a) * fmt.decode(b))):
        codes = operation(a, b, fmt, TRUNCATE)
        magnitude = codes & 0x7F
        assert np.all(fmt.decode(magnitude) <= np.abs(exact))
        below_top = magnitude < fmt.max_code
        assert np.all(fmt.decode(magnitude + 1)[below_top] > np.abs(exact)[below_top])
        assert np.all(np.signbit(fmt.decode(codes)) == np.signbit(exact))
        np.testing.assert_array_equal(operation(a, b, fmt, NEAREST), fmt.encode(exact))
