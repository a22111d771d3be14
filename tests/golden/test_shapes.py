"""Public golden functions on empty arrays, which have empty results or zeros, and on what they refuse in one line."""

import numpy as np
import pytest
from narrowgauge.golden import array, blockfloat, floating, integer, logarithmic, madam, mx, precision, softmax, update
from narrowgauge.golden.formats import PRESETS, BlockFloat, Fixed, Log
from narrowgauge.golden.rounding import stochastic
from narrowgauge.golden.words import Stream

FP16, GROUP4 = PRESETS["fp16"], BlockFloat(4, 4)
E5M2 = mx.PRESETS["mxfp8-e5m2"]
SHAPES = [(0, 3), (3, 0), (0,), (0, 0), (2, 0, 3)]


def none(*shape):
    return np.zeros(shape, int)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_arrays_quantise_to_empty_ones(shape):
    x = np.zeros(shape, np.float32)
    noise = {"rounding": stochastic(8), "random": Stream(1, 4, bits=8)}
    for found in (blockfloat.quantise(x, GROUP4), blockfloat.quantise(x, GROUP4, **noise), mx.quantise(x, mx.MX()),
                  mx.quantise_nvfp4(x), logarithmic.quantise(x, Log()), integer.quantise(x)):
        assert found.values().shape == shape
    blocks = blockfloat.quantise(x, GROUP4)
    back = blockfloat.unpack(*blockfloat.pack(blocks), GROUP4, blocks.exponents.shape, blocks.length)
    assert back.mantissas.shape == blocks.mantissas.shape and back.values().shape == shape
    assert FP16.encode(x).shape == Fixed(8, 7).encode(x).shape == FP16.decode(x.astype(int)).shape == shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_codes_give_empty_codes(shape):
    codes = np.zeros(shape, int)
    for operation in (floating.add, floating.subtract, floating.multiply, floating.compare, floating.maximum):
        assert operation(codes, codes, FP16).shape == shape
    assert floating.fma(codes, codes, codes, FP16).shape == floating.cast(codes, FP16, FP16).shape == shape
    for order in floating.ORDERS:
        found = floating.dot(codes, codes, FP16, order=order)
        assert found.shape == shape[:-1] and not found.any()
    assert [each.shape for each in update.step(FP16, "kahan", *[codes] * 4, 0, 0)] == [shape] * 3
    assert update.extended(Fixed(8, 7), 4, codes, codes, np.zeros(shape))[0].shape == shape
    assert madam.update(madam.MadamParameters(), *[codes] * 3, 0, 0, 100, codes)[0].shape == shape


@pytest.mark.parametrize("m, k, n", [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
def test_empty_products_are_zeros(m, k, n):
    a, b = np.zeros((m, k), np.float32), np.zeros((k, n), np.float32)
    saturating = logarithmic.LNSDotParameters(lsb=9, accumulator=24)
    bins = logarithmic.LNSDotParameters(lsb=9, accumulator=24, accumulation="bins")
    logs = logarithmic.quantise(a, Log()), logarithmic.quantise(b, Log())
    products = [
        blockfloat.matmul(blockfloat.quantise(a, GROUP4), blockfloat.quantise(b, GROUP4, axis=0)),
        *(mx.matmul(mx.quantise(a, fmt), mx.quantise(b, fmt, axis=0)) for fmt in (mx.MX(), E5M2)),
        *(logarithmic.matmul(*logs, each)[0] for each in (logarithmic.LNSDotParameters(), saturating, bins)),
        integer.matmul(integer.quantise(a), integer.quantise(b))[0], floating.matmul(a, b),
        floating.matmul(a, b, chunk=4),
    ]
    for found in products:
        assert found.shape == (m, n) and found.dtype == np.float64 and not found.any()
    assert blockfloat.dot(*[blockfloat.quantise(a, GROUP4)] * 2)[0].shape == (m, -(-k // 4))
    assert mx.dot(*[mx.quantise(a, E5M2)] * 2)[0].shape == (m, -(-k // 32))


def test_no_transfers_have_no_results():
    group, lanes = (none(0), none(0, 4), none(0)), (none(0, 16), none(0))
    seven = [none(0)] * 5
    stochastic_mx = mx.MXConverterParameters(rounding="stochastic")
    found = [
        blockfloat.convert(blockfloat.BFPConverterParameters(4), none(0, 4), none(0), none(0)),
        blockfloat.fmac(blockfloat.BFPFMACParameters(4), group, group, none(0), none(0), none(0)),
        mx.convert(mx.MXConverterParameters(), none(0, 32)), mx.convert(stochastic_mx, none(0, 32)),
        mx.dots(mx.MXDotParameters(), (none(0), none(0, 32)), (none(0), none(0, 32)), none(0), none(0), none(0)),
        logarithmic.convert(logarithmic.LNSConverterParameters(), *lanes, none(0) == 1),
        logarithmic.decode(logarithmic.LNSDecoderParameters(), *lanes),
        *(logarithmic.dots(logarithmic.LNSDotParameters(accumulation=each), lanes, lanes, none(0), none(0))
          for each in ("direct", "bins")),
        integer.convert(integer.INT8ConverterParameters(), *lanes),
        integer.dots(integer.INT8DotParameters(), lanes, lanes, none(0), none(0)),
        *(floating.adder(floating.AdderParameters(rounding=each), *seven[:3]) for each in ("nearest", "stochastic")),
        floating.mac(floating.MACParameters(), *seven), floating.fused(floating.FMAParameters(), *seven[:3]),
        *(softmax.errors(softmax.SoftmaxParameters(rounding=each), *seven[:3]) for each in ("nearest", "stochastic")),
        update.updates(update.SGDParameters(), *seven, *seven[:3]),
        madam.updates(madam.MadamParameters(), *[none(0, 1)] * 3, *seven[:3]),
        precision.cyclic(precision.CyclicParameters(), none(0) == 1),
        precision.adaptive(precision.AdaptiveParameters(), none(0), none(0, 16), none(0), none(0) == 1),
    ]
    for each in found:
        assert len(each[0]) == 0 and not any(np.any(part) for part in each)
    for shape in ((0, 10), (3, 0)):
        assert softmax.probabilities(softmax.SoftmaxParameters(), none(*shape)).shape == shape


ONE = np.zeros(3, np.float32)
REFUSED = {
    "no dimension": (lambda: blockfloat.quantise(1.5, GROUP4), "shape of x"),
    "no dimension, mx": (lambda: mx.quantise(1.5, mx.MX()), "shape of x"),
    "no dimension, codes": (lambda: floating.dot(1, 1, FP16), "shape of a and b"),
    "axis": (lambda: blockfloat.quantise(ONE, GROUP4, axis=1), "axis is 1; allowed: an integer from -1 to 0"),
    "text": (lambda: blockfloat.quantise(["a"], GROUP4), "x is "),
    "text, integer": (lambda: integer.quantise(["a"]), "x is "),
    "text, encode": (lambda: FP16.encode("a"), "values is "),
    "complex": (lambda: blockfloat.quantise([1j], GROUP4), "dtype of x is 'complex128'"),
    "complex, encode": (lambda: FP16.encode([1j]), "dtype of values is 'complex128'"),
    "complex, matmul": (lambda: floating.matmul([[1j]], [[1]]), "dtype of a is 'complex128'"),
    "ragged": (lambda: integer.quantise([[1, 2], [3]]), "x is "),
    "float64, logarithmic": (lambda: logarithmic.quantise(np.zeros(3), Log()), "dtype of x is 'float64'"),
    "floats as codes": (lambda: floating.add([1.5], [1.5], FP16), "dtype of a is 'float64'"),
    "shapes of codes": (lambda: floating.add(none(3), none(2), FP16), "shapes is "),
    "shapes of a dot": (lambda: floating.dot(none(3), none(2), FP16), "shapes is "),
    "random words": (lambda: blockfloat.quantise(ONE, GROUP4, rounding=stochastic(8), random=none(5)),
                     "shape of random is (5,); allowed: 1 rows of 4 words"),
    "groups": (lambda: blockfloat.dot(blockfloat.quantise(ONE, GROUP4), blockfloat.quantise(ONE, BlockFloat(8, 4))),
               "groups is (4, 8)"),
    "vectors in a product": (lambda: integer.matmul(*[integer.quantise(ONE)] * 2), "shapes is "),
    "width of a transfer": (lambda: blockfloat.convert(blockfloat.BFPConverterParameters(4), none(2, 3), none(2),
                                                       none(2)),
                            "shape of codes is (2, 3); allowed: (n, 4)"),
    "number of transfers": (lambda: blockfloat.convert(blockfloat.BFPConverterParameters(4), none(2, 4), none(3),
                                                       none(2)),
                            "lengths is "),
    "width, logarithmic": (lambda: logarithmic.convert(logarithmic.LNSConverterParameters(), none(2, 3), none(2),
                                                       none(2)),
                           "shape of codes is (2, 3); allowed: (n, 16)"),
    "number, mac": (lambda: floating.mac(floating.MACParameters(), *[none(2)] * 4, none(3)), "lengths is "),
    "matrix to store": (lambda: array.ArrayModel(array.ArrayParameters()).store(0, 1, ONE), "shape of values is (3,)"),
    "vector to write": (lambda: array.ArrayModel(array.ArrayParameters()).write(0, 0, False, none(3)),
                        "shape of elements is (3,); allowed: (16,)"),
    "rows of logits": (lambda: softmax.probabilities(softmax.SoftmaxParameters(), none(3)), "shape of logits"),
    "empty product of the array": (lambda: array.ArrayModel(array.ArrayParameters()).multiply(array.Product(0, 1, 1)),
                                   "m is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused_in_one_line(name):
    call, expected = REFUSED[name]
    with pytest.raises(ValueError) as refused:
        call()
    assert str(refused.value).startswith(expected) and "; allowed: " in str(refused.value)
    assert "\n" not in str(refused.value)
