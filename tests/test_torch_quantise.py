"""Quantisation in torch equals golden to the bit: codes, scales and values."""

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make torch` installs it and runs these tests")

from narrowgauge.golden import blockfloat, integer, logarithmic, mx
from narrowgauge.golden.formats import PRESETS, BlockFloat, Fixed, Float, Log
from narrowgauge.golden.mx import MX
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, Rounding, stochastic
from narrowgauge.torch import FORMATS, Draws, encode, quantise
from narrowgauge.torch.quantise import format_of
from narrowgauge.torch.words import words

FLOATS = [*(fmt for fmt in PRESETS.values() if isinstance(fmt, Float)), Float(4, 0), Float(1, 2, specials="none",
          overflow="saturate"), Float(11, 20), Float(5, 10, bias=3), Float(8, 7, overflow="saturate"),
          Float(4, 3, specials="fn", overflow="saturate"), Float(6, 5, bias=200), Float(8, 22), Float(3, 2, bias=-90)]
FIXED = [Fixed(), Fixed(32, 16), Fixed(1, 0), Fixed(12, -8), Fixed(5, 40)]
BLOCKS = [*(BlockFloat(16, mantissa) for mantissa in range(2, 9)), BlockFloat(10, 8, 2), BlockFloat(7, 3, 9),
          BlockFloat(1, 4, 5), BlockFloat(33, 5, 6, bias=-150),
          BlockFloat(16, 4, 4, bias=200), BlockFloat(16, 4, 9, 400)]
MXS = [*mx.PRESETS.values(), MX("fp8-e4m3", 5), MX(Fixed(5, 2), 16), MX(Float(3, 4), 8), MX(Float(2, 2, bias=0), 7)]
ROUNDINGS = [NEAREST, TRUNCATE, stochastic(), stochastic(3, corrected=True), stochastic(16), stochastic(16, True)]
SOME = [NEAREST, stochastic(5), TRUNCATE, stochastic(16, True)]


def name(value):
    """Return a readable name of a parameter."""
    if isinstance(value, Rounding):
        return value.kind + (f"{value.bits}{'c' * value.corrected}" if value.kind == "stochastic" else "")
    return str(value).replace("specials=", "").replace("overflow=", "")


def everything(dtype):
    """Return every number of a 16-bit dtype, shuffled; Inf and NaN come last, apart: (as NumPy has them, tensor)."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    kind = np.float16 if dtype == torch.float16 else ml_dtypes.bfloat16
    finite = np.isfinite(codes.view(kind).astype(np.float32))
    codes = np.concatenate([np.random.default_rng(3).permutation(codes[finite]), codes[~finite]])
    tensor = torch.from_numpy(codes.view(np.int16)).view(dtype)
    return codes.view(kind) if kind == np.float16 else codes.view(kind).astype(np.float32), tensor


def bits_of(count, seed, dtype=np.float32):
    """Return random numbers of a dtype: half of them any bits, half of them near 1."""
    rng = np.random.default_rng(seed)
    kind = np.uint32 if dtype == np.float32 else np.uint64
    some = rng.integers(0, np.iinfo(kind).max, count // 2, kind, endpoint=True).view(dtype)
    near = (rng.standard_normal(count - count // 2) * np.exp2(rng.integers(-12, 12, count - count // 2))).astype(dtype)
    blocks = np.concatenate([some, near]).reshape(-1, 100)
    return rng.permutation(blocks).reshape(-1)


def same(found, expected):
    """Assert that two arrays have the same bits; a NaN has any."""
    found = np.asarray(found)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert ((found == expected) & (np.signbit(found) == np.signbit(expected)) | np.isnan(found) & np.isnan(expected)
            ).all()


def golden(x, fmt, rounding, random, axis=-1):
    """Return golden's (values, codes, scales, scale)."""
    with np.errstate(all="ignore"):
        if isinstance(fmt, (Float, Fixed)):
            codes = fmt.encode(x, rounding, random)
            return fmt.decode(codes), codes, None, None
        if isinstance(fmt, BlockFloat):
            found = blockfloat.quantise(x, fmt, axis=axis, rounding=rounding, random=random)
            return found.values(), found.mantissas, found.exponents, None
        if isinstance(fmt, MX):
            found = mx.quantise(x, fmt, axis=axis, rounding=rounding, random=random)
            return found.values(), found.elements, found.scales, None
        if isinstance(fmt, Log):
            found = logarithmic.quantise(x, fmt)
            return found.values(), found.codes, None, found.scale
        if fmt == "int8":
            found = integer.quantise(x)
            return found.values(), found.codes, None, found.scale
        found = mx.quantise_nvfp4(x, axis=axis, rounding=rounding, random=random)
        return found.values(), found.elements, found.scales, found.tensor_scale


def compare(numbers, tensor, fmt, rounding, axis=-1, seed=1):
    """Compare codes, scales and values of a tensor with golden's of the same numbers."""
    address = Draws(seed, 5, 3, 7)
    random = None
    if rounding.kind == "stochastic":
        group = getattr(fmt, "group", getattr(fmt, "block", 16))
        random = address.rows(numbers.shape, rounding.bits) if isinstance(fmt, (Float, Fixed)) else address.of(
            rounding, group)
    values, codes, scales, scale = golden(numbers, fmt, rounding, random, axis)
    found = encode(tensor, fmt, rounding, axis, address)
    assert (found.codes.numpy() == codes).all() and found.codes.shape == codes.shape
    assert scales is None or (found.scales.numpy() == scales).all() and found.scales.shape == scales.shape
    assert scale is None or found.scale == scale or np.isnan(found.scale) and np.isnan(scale)
    same(found.values(), values)
    rounded = quantise(tensor, fmt, rounding, axis, address)
    assert rounded.dtype == tensor.dtype
    with np.errstate(over="ignore"):
        if tensor.dtype == torch.bfloat16:
            same(rounded.float(), torch.from_numpy(values).bfloat16().float().numpy())
        else:
            same(rounded, values.astype(numbers.dtype))


OTHERS = [(fmt, NEAREST) for fmt in (PRESETS["lns8"], PRESETS["lns16-update"], Log(3, 1), Log(12, 1024), "int8")]
CASES = [(fmt, rounding) for fmt in [*FLOATS, *FIXED, *BLOCKS, *MXS, "nvfp4"] for rounding in SOME] + OTHERS
FEW = [case for case in CASES if case[1] in SOME[:2]]


WHOLE = ("nvfp4", "int8", *(fmt for fmt, _ in CASES if isinstance(fmt, Log)))  # a scale for the whole tensor


@pytest.mark.parametrize("fmt, rounding", [*FEW, *(pytest.param(*case, marks=pytest.mark.sweep) for case in CASES
                                                 if case not in FEW)], ids=name)
def test_every_number_of_16_bits(fmt, rounding):
    for dtype in (torch.float16, torch.bfloat16):
        numbers, tensor = everything(dtype)
        if fmt in WHOLE:
            special = ~np.isfinite(numbers)
            compare(numbers[special], tensor[torch.from_numpy(special)], fmt, rounding)
            numbers, tensor = numbers[~special], tensor[torch.from_numpy(~special)]
        compare(numbers, tensor, fmt, rounding)


@pytest.mark.parametrize("fmt, rounding", CASES, ids=name)
def test_random_numbers(fmt, rounding, count=4_000):
    numbers = bits_of(count, 1)
    if fmt in WHOLE:
        numbers = np.nan_to_num(numbers, posinf=1, neginf=-1)
    compare(numbers, torch.from_numpy(numbers), fmt, rounding)
    if not (fmt == "nvfp4" or isinstance(fmt, Log)):
        numbers = bits_of(count, 2, np.float64)
        compare(numbers, torch.from_numpy(numbers), fmt, rounding)


@pytest.mark.sweep
@pytest.mark.parametrize("fmt, rounding", CASES, ids=name)
def test_ten_million_random_numbers(fmt, rounding):
    test_random_numbers(fmt, rounding, 10_000_000)


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=name)
@pytest.mark.parametrize("fmt", [PRESETS["bf16"], PRESETS["fp8-e4m3"], BlockFloat(16, 4), MX(), "nvfp4"], ids=name)
def test_any_axis_of_views(fmt, rounding):
    numbers = bits_of(6000, 4)[:3 * 7 * 37 * 4].reshape(3, 7, 37, 4)
    numbers = np.nan_to_num(numbers, posinf=2, neginf=-2)
    tensor = torch.from_numpy(numbers)
    for axis in (0, 1, 2, 3, -2, -4):
        compare(numbers, tensor, fmt, rounding, axis)
    compare(numbers[:, 1:6:2].transpose(2, 0, 3, 1), tensor[:, 1:6:2].permute(2, 0, 3, 1), fmt, rounding, 1)
    compare(np.ascontiguousarray(numbers[..., :1]), tensor[..., :1].expand(3, 7, 37, 1), fmt, rounding, -2)


@pytest.mark.parametrize("fmt", [BlockFloat(16, 4), MX(), "nvfp4"], ids=name)
def test_long_rows_are_cut_between_groups(fmt):
    numbers = np.random.default_rng(6).standard_normal((40, 9000), np.float32)
    for rounding in (NEAREST, stochastic()):
        compare(numbers, torch.from_numpy(numbers), fmt, rounding, 0)


@pytest.mark.parametrize("fmt", [PRESETS["bf16"], Fixed(), BlockFloat(), MX(), "nvfp4", PRESETS["lns8"], "int8"],
                         ids=name)
@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (1,)], ids=str)
def test_empty_and_single_numbers(fmt, shape):
    compare(np.ones(shape, np.float32), torch.ones(shape), fmt, NEAREST)


@pytest.mark.parametrize("bits, lanes", [(1, 1), (5, 3), (8, 16), (8, 40), (9, 8), (12, 20), (16, 16), (16, 1024)])
def test_words_are_those_of_golden(bits, lanes):
    for address in (Draws(0), Draws(12345, 678, 9, 10), Draws(2**32 - 1, 2**32 - 1, 1023, 77)):
        expected = address.stream(lanes, bits).draw(3000)
        assert (words(address, lanes, 3000, bits).numpy() == expected).all()


def test_words_of_ones_own():
    x = np.random.default_rng(1).standard_normal((5, 40), np.float32)
    random = np.random.default_rng(2).integers(0, 256, (5, 3, 16))
    for given in (random, torch.from_numpy(random), torch.from_numpy(random.astype(np.uint8))):
        found = quantise(torch.from_numpy(x), "fast-4", "stochastic", -1, given)
        expected = blockfloat.quantise(x, BlockFloat(16, 4), rounding=stochastic(), random=random)
        same(found, expected.values().astype("f4"))


@pytest.mark.parametrize("name", FORMATS)
def test_every_name(name):
    assert quantise(torch.tensor([0.0, 1.0]), name).tolist() == [0, 1]


def test_the_gradient_passes_straight_through():
    x = torch.tensor([-1e30, -0.3, 0.0, 0.7, 1e30], requires_grad=True)
    slope = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    for fmt in ("fp8-e4m3", "fast-4", "mxfp4-e2m1", "lns8", "int8", "nvfp4", Fixed()):
        x.grad = None
        quantise(x, fmt).backward(slope)
        assert (x.grad == slope).all(), fmt
    assert not quantise(x.detach(), "bf16").requires_grad


def test_settings_of_scales():
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((4, 64), np.float32))
    for rule in mx.SCALE_RULES:
        same(quantise(x, "mxfp4-e2m1", scale_rule=rule),
             mx.quantise(x.numpy(), mx.PRESETS["mxfp4-e2m1"], scale_rule=rule).values().astype("f4"))
    same(quantise(x, "lns8", scale=-9), logarithmic.quantise(x.numpy(), PRESETS["lns8"], -9).values().astype("f4"))
    same(quantise(x, "int8", scale=-3), integer.quantise(x.numpy(), -3).values().astype("f4"))
    same(quantise(x, "nvfp4", scale=0.01), mx.quantise_nvfp4(x.numpy(), tensor_scale=0.01).values().astype("f4"))


def test_a_format_may_be_given_as_json():
    assert format_of({"type": "BlockFloat", "group": 8}) == BlockFloat(8)
    assert format_of({"element": "int8", "block": 16}) == MX("int8", 16)


@pytest.mark.parametrize("arguments, message", [
    ({"format": "fp7"}, "^format is 'fp7'; allowed: fp32, "),
    ({"rounding": "up"}, "^rounding is 'up'; allowed: nearest, truncate, stochastic, or a Rounding$"),
    ({"rounding": "stochastic"}, r"^words is None; allowed: Draws\(seed\) or a tensor of random words"),
    ({"rounding": "stochastic", "words": torch.zeros(3)}, "^dtype of words is 'torch.float32'; allowed: integers$"),
    ({"rounding": "stochastic", "words": [1, 2]}, r"^shape of words is \(2,\); allowed: 1 rows of 16 words$"),
    ({"format": "bf16", "rounding": "stochastic", "words": [1]}, r"^shape of words is \(1,\); allowed: \(2,\)$"),
    ({"axis": 1}, "^axis is 1; allowed: an integer from -1 to 0$"),
    ({"scale": 3}, "^scale is 3; allowed: None"),
    ({"format": "int8", "scale": 200}, "^scale is 200; allowed: an integer from -127 to 128$"),
    ({"format": "int8", "rounding": "truncate"}, "^rounding is 'truncate'; allowed: nearest"),
    ({"format": "mxint8", "scale_rule": "up"}, "^scale_rule is 'up'; allowed: floor, ceil, even, rceil$"),
    ({"x": torch.zeros(2, dtype=torch.int32)}, "^dtype of x is 'torch.int32'; allowed: torch.float32, "),
    ({"x": [1.0]}, "^x is 'list'; allowed: a torch.Tensor$"),
    ({"x": torch.tensor(1.0)}, r"^shape of x is \(\); allowed: one dimension or more$"),
    ({"x": torch.zeros(2, dtype=torch.float64), "format": "lns8"}, "^dtype of x is 'torch.float64'; allowed: float32"),
])
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantise(**{"x": torch.zeros(2), "format": "fast-4", **arguments})
