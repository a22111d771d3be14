"""Plain INT8 against exact fractions, NumPy's rounding, its integers, and its casts."""

import json
from fractions import Fraction
from math import inf

import numpy as np
import pytest
from narrowgauge.golden import integer
from narrowgauge.golden.array import ArrayModel, ArrayParameters, Operand, Product
from narrowgauge.golden.formats import PRESETS, Fixed, Float
from narrowgauge.golden.integer import INT8ConverterParameters, INT8DotParameters, INT8System, Integers

# Results: the presets with Inf, and some whose range is far from that of the sums.
RESULTS = {"fp32": PRESETS["fp32"], "fp16": PRESETS["fp16"], "bf16": PRESETS["bf16"], "fp8-e5m2": PRESETS["fp8-e5m2"],
           "e2m1": Float(2, 1), "e5m10-low": Float(5, 10, bias=60), "e6m9-high": Float(6, 9, bias=-20)}
every_result = pytest.mark.parametrize("result", [pytest.param(fmt, id=name) for name, fmt in RESULTS.items()])


def power(exponent):
    return Fraction(2) ** exponent


def exact_code(x, scale):
    """The integer of a float, and whether it was beyond the ends."""
    if np.isnan(x):
        return 0, False
    if np.isinf(x):
        return (127 if x > 0 else -127), True
    rounded = round(Fraction(float(x)) / power(scale))  # to nearest even
    return max(-127, min(127, rounded)), abs(rounded) > 127


def exact_round(value, fmt):
    """A fraction, rounded to a format with Inf, to nearest even."""
    size = abs(value)
    if not size:
        return 0.0
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < power(exponent)
    step = power(max(exponent, fmt.emin) - fmt.mantissa)
    rounded = round(size / step) * step
    found = inf if rounded > Fraction(fmt.max) else float(rounded)
    return -found if value < 0 and found else found


# Conversion.


@pytest.mark.parametrize("work", [PRESETS["fp8-e5m2"], Float(5, 6), Float(8, 3), Float(2, 1), PRESETS["fp8-e4m3"]],
                         ids=["fp8-e5m2", "e5m6", "e8m3", "e2m1", "fp8-e4m3"])
def test_convert_every_code(work):
    """Under scales all over, from far below the smallest number to far above the largest one."""
    p = INT8ConverterParameters(work, 4)
    codes = np.arange(1 << work.width)
    values = work.decode(codes)
    for scale in (-127, 128, 0, *range(work.emin - work.mantissa - 9, work.emax + 3, 3)):
        scale = max(-127, min(128, scale))
        out, invalid, overflow = integer.convert(p, codes.reshape(-1, 4), np.full(len(codes) // 4, scale + 127))
        expected = [exact_code(x, scale) for x in values]
        assert out.dtype == np.int8
        assert out.reshape(-1).tolist() == [code for code, _ in expected]
        assert overflow.tolist() == np.reshape([beyond for _, beyond in expected], (-1, 4)).any(axis=1).tolist()
        assert invalid.tolist() == np.isnan(values).reshape(-1, 4).any(axis=1).tolist()


@pytest.mark.parametrize("work", ["fp32", "fp16", "bf16"])
def test_convert_is_rint_of_what_is_divided(work):
    """Division by a power of two is exact in float64, and np.rint rounds once."""
    p, rng = INT8ConverterParameters(PRESETS[work], 16), np.random.default_rng(1)
    codes = rng.integers(0, 1 << p.work.width, (4000, 16))
    scales = rng.integers(0, 256, 4000)
    near = p.work.decode(codes[:, 0])
    near = np.frexp(np.where(np.isfinite(near), near, 1.0))[1] + 127 - 7 + rng.integers(-2, 9, 4000)
    scales[::2] = np.clip(near, 0, 255)[::2]
    out, invalid, overflow = integer.convert(p, codes, scales)
    x = p.work.decode(codes)
    quotients = np.rint(x / 2.0 ** (scales - 127)[:, np.newaxis])
    assert np.array_equal(out, np.where(np.isnan(x), 0, np.clip(quotients, -127, 127)))
    assert np.array_equal(overflow, (np.abs(quotients) > 127).any(axis=1))
    assert np.array_equal(invalid, np.isnan(x).any(axis=1))


def test_quantise_is_convert():
    p, rng = INT8ConverterParameters(PRESETS["fp32"], 8), np.random.default_rng(2)
    x = np.ldexp(rng.normal(size=(200, 8)), rng.integers(-8, 8, (200, 1))).astype(np.float32)
    x[3, 1], x[5, 2], x[7] = np.nan, -np.inf, 0
    for k, row in enumerate(x):
        found = integer.quantise(row, int(rng.integers(-12, 4)) if k % 2 else None)
        out, invalid, overflow = integer.convert(p, p.work.encode(row)[np.newaxis], [found.scale + 127])
        assert found.codes.tolist() == out[0].tolist()
        assert (found.invalid, found.overflow) == (invalid[0], overflow[0])


def test_ties_go_to_the_even_integer_and_the_ends_are_symmetric():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.25, 127.5, 128, -127.49, -127.5, -128])
    found = integer.quantise(x, 0)
    assert found.codes.tolist() == [0, 2, 2, 0, -2, 126, 127, 127, 127, -127, -127, -127]
    assert [integer.quantise([each], 0).overflow for each in x] == [False] * 7 + [True] * 2 + [False] + [True] * 2


def test_inf_and_nan():
    found = integer.quantise([1.0, np.inf, -np.inf, np.nan, 0.0])
    assert (found.codes.tolist(), found.scale, found.invalid, found.overflow) == ([64, 127, -127, 0, 0], -6, True, True)
    assert found.values().tolist() == [1, 127 / 64, -127 / 64, 0, 0]
    only = integer.quantise([np.nan, np.nan])
    assert (only.codes.tolist(), only.scale, only.invalid, only.overflow) == ([0, 0], -127, True, False)


def test_the_scale_is_the_least_under_which_nothing_saturates():
    rng = np.random.default_rng(3)
    tops = [*np.ldexp(rng.uniform(0.5, 1, 300), rng.integers(-150, 150, 300)),
            *(factor * 2.0**place for factor in (1, 127, 127.5, np.nextafter(127.5, 0), 128, 255, np.nextafter(255, 0))
              for place in (-140, -134, -7, 0, 5, 120, 128, 129))]
    for top in tops:
        fits = [scale for scale in range(-127, 129) if Fraction(float(top)) < power(scale) * Fraction(255, 2)]
        found = integer.scale_of([0, -top, top / 3])
        assert found == (fits[0] if fits else 128)
        assert integer.quantise([top]).overflow == (not fits)
    assert integer.scale_of([]) == integer.scale_of([0.0, -0.0]) == -127
    assert integer.scale_of([np.inf, 3, np.nan]) == integer.scale_of([3])


def test_integers_have_values_and_a_transpose():
    found = integer.quantise(np.arange(6).reshape(2, 3), -2)
    assert found.values().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.T.values().tolist() == [[0, 3], [1, 4], [2, 5]] and found.T.scale == -2
    assert integer.quantise(found.values(), -2).codes.tolist() == found.codes.tolist()


# Dot products.


def exact_dots(p, a, b, first, last):
    """Emitted sums, one addition at a time, in Python's integers."""
    total, found = 0, []
    for x, sx, y, sy, begins, ends in zip(*a, *b, first, last):
        total = (0 if begins else total) + sum(int(i) * int(j) for i, j in zip(x, y))
        assert -2**31 <= total < 2**31
        if ends:
            found.append(exact_round(total * power(int(sx) + int(sy) - 254), p.result))
    return found


@every_result
@pytest.mark.parametrize("lanes", [4, 7, 64])
def test_dots_are_exact_sums_rounded_once(result, lanes):
    """Scaled to be near the ends of the result's range, and within it."""
    p, rng, n = INT8DotParameters(lanes, result), np.random.default_rng(4), 400
    bits = rng.integers(1, 8, (n, 1))
    a, b = (np.clip(rng.integers(-128, 128, (n, lanes)) >> 8 - bits, -127, 127) for _ in range(2))
    first, last = (rng.random(n) < 0.2) | (np.arange(n) == 0), rng.random(n) < 0.5
    place = np.array([result.emin - result.mantissa - 4, result.emin - 12, -8, result.emax - 14])[rng.integers(0, 4, n)]
    scales = place + rng.integers(-6, 7, n) + 254
    one = np.clip(scales // 2, 0, 255)
    scales = one, np.clip(scales - one, 0, 255)
    codes, overflow = integer.dots(p, (a, scales[0]), (b, scales[1]), first, last)
    expected = exact_dots(p, (a, scales[0]), (b, scales[1]), first, last)
    found = result.decode(codes)
    assert codes.dtype == np.uint32
    assert found.tolist() == expected and not np.signbit(found[found == 0]).any()
    assert overflow == (inf in np.abs(expected))


def test_the_largest_sums_do_not_wrap_and_larger_ones_do():
    """131,071 products of 127 * 127 are below 2**31; 133,145 of them are not."""
    p, many = INT8DotParameters(64), 133_145 // 64 + 1
    full, scales = np.full((many, 64), 127), np.full(many, 127)
    below = 131_071 // 64
    last = np.isin(np.arange(many), (below - 1, many - 1))
    for sign in (1, -1):
        codes, overflow = integer.dots(p, (full, scales), (sign * full, scales), np.arange(many) == 0, last)
        exact = sign * 127 * 127 * 64 * np.array([below, many])
        assert abs(exact[0]) < 2**31 < abs(exact[1]) and not overflow
        wrapped = [int(exact[0]), int(exact[1]) - sign * 2**32]
        assert PRESETS["fp32"].decode(codes).tolist() == np.float32(wrapped).tolist()
    assert 131_071 * 128 * 128 < 2**31


def test_a_sum_is_kept_and_the_last_scales_count():
    p = INT8DotParameters(4)
    a = np.array([[1, 2, 3, 4], [5, 0, 0, 0], [0, 0, 0, 1]]), np.array([0, 130, 126])
    b = np.ones((3, 4), int), np.array([255, 127, 127])
    codes, _ = integer.dots(p, a, b, [True, False, False], [False, True, True])
    assert PRESETS["fp32"].decode(codes).tolist() == [15 * 8, 16 / 2]


# Matrix products.


@pytest.mark.parametrize(("result", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 64, 7), (9, 3000, 4), (3, 0, 2)])
def test_matmul_is_numpys_integer_product_rounded_by_a_cast(result, dtype, shape):
    """A 32-bit integer times a power of two is exact in float64, so that the cast is the only rounding."""
    (m, k, n), rng = shape, np.random.default_rng(5)
    one, two = rng.integers(-127, 128, (m, k)).astype(np.int8), rng.integers(-127, 128, (k, n)).astype(np.int8)
    for scales in ((0, 0), (-60, 40), (-100, -60), (-14, -14), (-2, -5), (60, 52), (-127, -127), (128, 128)):
        a, b = Integers(one, scales[0]), Integers(two, scales[1])
        exact = (one.astype(np.int64) @ two.astype(np.int64)) * 2.0 ** sum(scales)
        with np.errstate(over="ignore"):
            expected = exact.astype(dtype).astype(np.float64)
        values, overflow = integer.matmul(a, b, INT8DotParameters(result=PRESETS[result]))
        assert np.array_equal(values, expected) and not np.signbit(values[values == 0]).any()
        assert overflow == np.isinf(expected).any()


def test_results_are_subnormal_and_infinite_and_a_zero_is_positive():
    p = INT8DotParameters(result=PRESETS["fp16"])
    row = Integers(np.array([[1]], np.int8), -24)
    for codes, scale, expected in (([[3]], 0, 3 * 2.0**-24), ([[-1]], -1, 0.0), ([[-3]], -1, -(2.0**-23)),
                                   ([[127]], 40, inf), ([[-127]], 40, -inf), ([[127]], 33, 127 * 512.0)):
        values, overflow = integer.matmul(row, Integers(np.array(codes, np.int8), scale), p)
        assert values.tolist() == [[expected]] and not (expected == 0 and np.signbit(values).any())
        assert overflow == np.isinf(expected)


def test_dots_are_matmul():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(6, 40)), rng.normal(size=(40, 5))
    a, b = integer.quantise(x), integer.quantise(y)
    expected, _ = integer.matmul(a, b)
    p = INT8DotParameters(8)
    pairs = [(i, j) for i in range(6) for j in range(5)]
    rows = np.concatenate([a.codes[i].reshape(5, 8) for i, _ in pairs])
    columns = np.concatenate([b.codes[:, j].reshape(5, 8) for _, j in pairs])
    at = np.arange(len(rows)) % 5
    codes, _ = integer.dots(p, (rows, np.full(len(rows), a.scale + 127)), (columns, np.full(len(rows), b.scale + 127)),
                            at == 0, at == 4)
    assert np.array_equal(PRESETS["fp32"].decode(codes).reshape(6, 5), expected)


# In the array.


@pytest.mark.parametrize("converters", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 16), (20, 33, 40)])
def test_the_array_makes_the_same_products(shape, converters):
    rng = np.random.default_rng(7)
    m, n, k = shape
    matrices = [(rng.normal(size=(rows, k)) * 2.0 ** rng.integers(-6, 6, (rows, k))).astype(np.float32)
                for rows in (m, n)]
    model = ArrayModel(ArrayParameters("int8", converters=converters, memory=1 << 15))
    operands, numbers = [], []
    for side, matrix in enumerate(matrices):
        numbers.append(integer.quantise(matrix))
        stored = matrix.T if side else matrix
        stride = -(-stored.shape[1] // 16) + 1
        model.store(60 * side, stride, stored)
        operands.append(Operand(60 * side, stride, bool(side), {"scale": numbers[-1].scale + integer.SCALE_BIAS}))
    codes = model.multiply(Product(*shape, *operands))
    expected, _ = integer.matmul(numbers[0], numbers[1].T, model.parameters.system.cell(2))
    assert np.array_equal(PRESETS["fp32"].decode(codes), expected)
    assert (model.invalid, model.overflow) == (False, False)


def test_the_array_tells_of_nan_and_of_what_is_too_large():
    for value, status in ((np.nan, (True, False)), (np.inf, (False, True)), (40, (False, True)), (31, (False,) * 2)):
        model = ArrayModel(ArrayParameters("int8"))
        model.store(0, 1, np.array([[1.0, value]]))
        model.multiply(Product(1, 1, 2, Operand(0), Operand(5)))
        assert (model.invalid, model.overflow) == status
    model = ArrayModel(ArrayParameters(INT8System(accumulator=PRESETS["fp16"])))
    model.store(0, 1, np.array([[1.0]]))
    model.multiply(Product(1, 1, 1, Operand(0, mode={"scale": 127}), Operand(0, mode={"scale": 255})))
    assert not model.overflow  # 1 is nothing beside 2**128
    model.store(0, 1, np.array([[2.0**20]]))
    model.multiply(Product(1, 1, 1, Operand(0, mode={"scale": 141}), Operand(0, mode={"scale": 141})))
    assert model.overflow


# Parameters.

WORK = r"; allowed: a Float of 2 exponent bits and 1 mantissa bit or more, such as fp32, bf16, fp16$"
RESULT = r"; allowed: a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16$"


@pytest.mark.parametrize(("kind", "settings", "message"), [
    (INT8ConverterParameters, {"work": Float(1, 3, specials="fn")}, r"^work is Float\(.*" + WORK),
    (INT8ConverterParameters, {"work": Float(4, 0)}, r"^work is Float\(.*" + WORK),
    (INT8ConverterParameters, {"work": "fp32"}, r"^work is 'fp32'" + WORK),
    (INT8ConverterParameters, {"lanes": 0}, r"^lanes is 0; allowed: an integer from 1 to 64$"),
    (INT8ConverterParameters, {"lanes": 65}, r"^lanes is 65; allowed: an integer from 1 to 64$"),
    (INT8DotParameters, {"lanes": 3}, r"^lanes is 3; allowed: an integer from 4 to 64$"),
    (INT8DotParameters, {"lanes": 8.0}, r"^lanes is 8.0; allowed: an integer from 4 to 64$"),
    (INT8DotParameters, {"result": PRESETS["fp8-e4m3"]}, r"^result is Float\(.*" + RESULT),
    (INT8DotParameters, {"result": Float(5, 10, overflow="saturate")}, r"^result is Float\(.*" + RESULT),
    (INT8DotParameters, {"result": Float(5, 0)}, r"^result is Float\(.*" + RESULT),
    (INT8DotParameters, {"result": Fixed(8, 7)}, r"^result is Fixed\(.*" + RESULT),
    (INT8System, {"lanes": 2}, r"^lanes is 2; allowed: an integer from 4 to 64$"),
    (INT8System, {"accumulator": PRESETS["fp8-e4m3"]}, r"^result is Float\(.*" + RESULT),
    (INT8System, {"work": Float(4, 0)}, r"^work is Float\(.*" + WORK),
])
def test_parameters_that_make_no_sense(kind, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [-128, 129, 1.5, "0"])
def test_a_scale_that_makes_no_sense(scale):
    with pytest.raises(ValueError, match=rf"^scale is {scale!r}; allowed: an integer from -127 to 128$"):
        integer.quantise([1.0], scale)


def test_matmul_checks_its_shapes():
    a = Integers(np.zeros((2, 3), np.int8), 0)
    with pytest.raises(ValueError, match=r"^shapes is \(\(2, 3\), \(2, 3\)\); allowed: \(M, K\) and \(K, N\)$"):
        integer.matmul(a, a)


@pytest.mark.parametrize("parameters", [
    INT8ConverterParameters(), INT8ConverterParameters(Float(4, 5), 3), INT8DotParameters(),
    INT8DotParameters(8, Float(6, 9)),
    INT8System(), INT8System(8, PRESETS["bf16"], PRESETS["fp16"]), ArrayParameters("int8", rows=2),
    ArrayParameters(INT8System(lanes=8), memory=64)], ids=lambda p: type(p).__name__)
def test_parameters_go_through_json_both_ways(parameters):
    text = json.dumps(parameters.to_json())
    assert type(parameters).from_json(text) == parameters
