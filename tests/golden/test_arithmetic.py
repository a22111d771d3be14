"""Operations of the work format against ml_dtypes, NumPy's float16, gfloat's and exact fractions; whole runs in it."""

import dataclasses
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from narrowgauge.golden import datasets, network
from narrowgauge.golden.floating import Arithmetic, PlainSystem, arithmetic
from narrowgauge.golden.formats import PRESETS, Fixed, Float
from narrowgauge.golden.recipes import Recipe, keep, make, work_in
from narrowgauge.golden.softmax import SoftmaxParameters

BF16, FP16, FP32 = (PRESETS[name] for name in ("bf16", "fp16", "fp32"))
OPERATIONS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


def codes(fmt, count, seed):
    """Return values of any codes, a quarter of them next to each other or to a power of two."""
    rng = np.random.default_rng(seed)
    any_code = rng.integers(0, 1 << fmt.width, (2, count))
    any_code[1, :count // 8] = any_code[0, :count // 8] ^ rng.integers(0, 8, count // 8)
    any_code[0, count // 8:count // 4] &= ~((1 << fmt.mantissa) - 1)
    return fmt.decode(any_code.astype(np.uint32)).astype(np.float32)


def generic(fmt):
    """Return the operations of a format as of one that NumPy does not have."""
    made = Arithmetic(fmt)
    made.native, made.dtype = False, np.dtype(np.float32)
    return made


def same(a, b):
    numbers = ~np.isnan(a)
    return np.array_equal(a, b, equal_nan=True) and np.array_equal(np.signbit(a)[numbers], np.signbit(b)[numbers])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("fmt, dtype", [(BF16, ml_dtypes.bfloat16), (FP16, np.float16), (PRESETS["fp8-e5m2"],
                                                                                       ml_dtypes.float8_e5m2)])
def test_operations_are_those_of_ml_dtypes_and_numpy(fmt, dtype, name):
    """ml_dtypes rounds float32's result again, which is another number only for subnormal quotients: those are left."""
    a, b = codes(fmt, 200_000, 1)
    found = getattr(generic(fmt), name)(a, b)
    expected = OPERATIONS[name](a.astype(dtype), b.astype(dtype)).astype(np.float32)
    keep = np.isnan(expected) | ~(np.abs(expected) < 2.0**fmt.emin) if name == "divide" and fmt == BF16 else slice(None)
    assert found.dtype == np.float32 and same(found[keep], expected[keep])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fmt, dtype", [(BF16, ml_dtypes.bfloat16), (FP16, np.float16)])
def test_every_square_root(fmt, dtype):
    every = fmt.decode(np.arange(1 << 16, dtype=np.uint32)).astype(np.float32)
    assert same(generic(fmt).root(every), np.sqrt(every.astype(dtype)).astype(np.float32))


def rounded(exact, fmt):
    """Round a Fraction to a format's number, ties to even; a Fraction below the largest."""
    if exact == 0:
        return Fraction(0)
    top = math.frexp(float(abs(exact)))[1] - 1
    top += (abs(exact) >= Fraction(2) ** (top + 1)) - (abs(exact) < Fraction(2) ** top)
    unit = Fraction(2) ** (max(top, fmt.emin) - fmt.mantissa)
    return round(exact / unit) * unit


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("fmt", [BF16, Float(8, 10), Float(4, 9), Float(3, 2), Float(6, 2)], ids=str)
def test_operations_are_exact_results_rounded_once(fmt):
    """Of finite operands, where the result is finite; quotients next to subnormals among them."""
    a, b = codes(fmt, 3000, 2)
    a[:300] = (a[:300].astype(np.float64) * float(2.0 ** fmt.emin)).astype(np.float32)
    a, work = fmt.round(a.astype(np.float64)).astype(np.float32), arithmetic(fmt)
    good = np.isfinite(a) & np.isfinite(b) & (b != 0)
    a, b = a[good], b[good]
    exact = {"add": Fraction.__add__, "subtract": Fraction.__sub__, "multiply": Fraction.__mul__,
             "divide": Fraction.__truediv__}
    for name, operation in exact.items():
        found, checked = getattr(work, name)(a, b), 0
        for x, y, got in zip(a.tolist(), b.tolist(), found.tolist()):
            expected = rounded(operation(Fraction(x), Fraction(y)), fmt)
            if abs(expected) <= Fraction(float(fmt.max)):
                assert Fraction(got) == expected, (name, x, y)
                checked += 1
        assert checked > len(a) // 4


def test_constants_are_rounded_once():
    for fmt in (BF16, Float(5, 4)):
        for n in (29, 32, 44, 50, 1437):
            assert Fraction(float(arithmetic(fmt).number(1 / n))) == rounded(Fraction(1, n), fmt)
    assert arithmetic(FP16).number(0.1) == np.float16(0.1) and arithmetic(FP32).number(0.1) == np.float32(0.1)


def small(classes=3):
    rng = np.random.default_rng(0)
    x = rng.random((14, 6)).astype(np.float32)
    y = (np.arange(14) % classes).astype(np.int64)
    return datasets.Dataset("small", x[:10], y[:10], x[10:], y[10:], classes)


@pytest.fixture
def no_native(monkeypatch):
    """fp16 as a format that NumPy does not have."""
    arithmetic(FP16)
    monkeypatch.setattr(arithmetic(FP16), "native", False)
    monkeypatch.setattr(arithmetic(FP16), "dtype", np.dtype(np.float32))
    yield
    monkeypatch.undo()


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True, "hidden": (5, 4)}, {"decay": 0.01, "momentum": 0.5}])
@pytest.mark.parametrize("parameters", [None, "fixed"])
def test_a_run_in_fp16_is_the_same_without_numpys_float16(settings, parameters, request):
    head = SoftmaxParameters(FP16, 3, 12)
    recipe = dataclasses.replace(work_in(make("fp32"), "fp16"), softmax=head)
    if parameters:
        recipe = keep(recipe, Fixed(16, 12), "kahan")
    data = small()
    runs = [network.train(recipe, data, epochs=3, batch=4, **settings)]
    request.getfixturevalue("no_native")
    runs.append(network.train(recipe, data, epochs=3, batch=4, **settings))
    assert runs[0].digest == runs[1].digest and runs[0].history == runs[1].history
    assert {array.dtype for layer in runs[1].parameters for array in layer} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["fp32", "bfp", "mx", "system", "fast"])
@pytest.mark.parametrize("work", ["bf16", {"type": "Float", "exponent": 6, "mantissa": 7}], ids=str)
def test_everything_of_a_run_is_of_the_work_format(name, work):
    arrays = []
    recipe = work_in(make(name), work)
    run = network.train(recipe, small(), epochs=2, batch=4, batch_norm=True,
                        record=lambda step, layer, gemm, kind, array, axis: arrays.append(array))
    arrays += [array for layer in (*run.parameters, *filter(None, run.statistics)) for array in layer]
    fmt = recipe.work
    assert fmt == recipe.accumulator and run.recipe.softmax == SoftmaxParameters(fmt, 3, 9)
    assert len(arrays) > 20
    for array in arrays:
        assert array.dtype == np.float32 and same(array, fmt.round(array.astype(np.float64)).astype(np.float32))
    assert all(0 < each.head_loss < 3 for each in run.history)


def test_the_default_head_has_the_bits_that_the_work_format_can_use():
    for name in ("fp32", "fp16"):
        assert work_in(make("fp32"), name).with_head(10).softmax is None
    for work, bits in (("bf16", 9), ("fp8-e5m2", 4), ({"type": "Float", "exponent": 8, "mantissa": 10}, 12)):
        recipe = work_in(make("bfp"), work)
        assert recipe.with_head(7).softmax == SoftmaxParameters(recipe.work, 7, bits)
        own = dataclasses.replace(recipe, softmax=SoftmaxParameters(BF16, 7, 3))
        assert own.with_head(7) is own
    with pytest.raises(ValueError, match="^softmax is None; allowed: a head, because work is neither fp32 nor fp16"):
        network.gradients(network.Gemms(work_in(make("fp32"), "bf16"), 1), (), (), np.zeros((2, 3)), np.zeros(2), 0)


def test_the_heads_loss_is_the_mean_of_its_codes(monkeypatch):
    """Summed exactly over an epoch's steps, the tail among them."""
    seen = []
    gradient = network.passes.softmax.gradient

    def kept(*arguments, **settings):
        found = gradient(*arguments, **settings)
        seen.append(found[1])
        return found

    monkeypatch.setattr(network.passes.softmax, "gradient", kept)
    run = network.train(work_in(make("fp32"), "bf16"), small(), epochs=3, batch=4, measure_every=2)
    assert [len(each) for each in seen] == [4, 4, 2] * 3
    unit = 1 << run.recipe.softmax.fraction
    for row, steps in zip(run.history, (seen[3:6], seen[6:])):
        assert row.head_loss == sum(int(each.sum()) for each in steps) / 10 / unit
        assert abs(row.head_loss - row.loss) < 1


def test_sums_wider_than_the_work_format_are_rounded_to_it():
    recipe = Recipe("wide", dataclasses.replace(make("bfp").system, work=BF16))
    rng = np.random.default_rng(5)
    x, y = (BF16.round(rng.standard_normal(shape)).astype(np.float32) for shape in ((4, 40), (3, 40)))
    wide = network.Gemms(make("bfp"), 1).product("forward", 0, x, y, 0)
    found = network.Gemms(recipe, 1).product("forward", 0, x, y, 0)
    assert np.array_equal(found, BF16.round(wide.astype(np.float64))) and not np.array_equal(found, wide)


def test_work_formats_that_training_has_not_are_refused():
    for work in ("fp8-e4m3", {"type": "Float", "exponent": 8, "mantissa": 11}, {"type": "Float", "exponent": 9,
                                                                              "mantissa": 7}, "fp4-e2m1"):
        with pytest.raises(ValueError, match="^work is .*; allowed: fp32, fp16, bf16, or another Float with"):
            work_in(make("fp32"), work)
    with pytest.raises(ValueError, match="^work is 'bf16'; allowed: fp16, because the recipe is fp16$"):
        work_in(make("fp16"), "bf16")
    with pytest.raises(ValueError, match="^loss_scale is .*; allowed: None, because work is neither fp32 nor fp16$"):
        Recipe("scaled", PlainSystem(BF16), scale=make("fp16", loss_scale=8).scale)
    with pytest.raises(ValueError, match="^chunk is 8; allowed: None, because numbers are kept in bf16, "):
        PlainSystem(BF16, 8)
    assert work_in(make("bfp", accumulator="fp16"), "bf16", accumulator=True).accumulator == FP16
