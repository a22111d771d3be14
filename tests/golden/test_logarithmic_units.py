"""Golden functions of the units of logarithmic numbers, and their parameters."""

import json
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import inf

import numpy as np
import pytest
from logarithms import LNS8, WIDE, every_result, exact_codes, exact_round, gammas, name_of
from narrowgauge.golden import logarithmic
from narrowgauge.golden.formats import PRESETS, Fixed, Float, Log
from narrowgauge.golden.logarithmic import LNSConverterParameters, LNSDecoderParameters, LNSDotParameters

# The converter and the decoder.

WORKS = {"fp32": PRESETS["fp32"], "bf16": PRESETS["bf16"], "fp16": PRESETS["fp16"], "e4m3": Float(4, 3),
         "e5m26": Float(5, 26), "e8m2-saturating": Float(8, 2, overflow="saturate")}


@pytest.mark.parametrize("work", [pytest.param(fmt, id=name) for name, fmt in WORKS.items()])
@pytest.mark.parametrize("fmt", [LNS8, Log(4, 1), Log(12, 32), Log(16, 1)], ids=name_of)
def test_convert_is_the_definition(work, fmt):
    p = LNSConverterParameters(fmt, work, 6)
    assert LNSConverterParameters.from_json(json.dumps(p.to_json())) == p
    rng = np.random.default_rng(41)
    n = 200
    # Magnitudes near each other, as in a tensor, anywhere; anything at all; zeros; Inf and NaN.
    codes = rng.integers(0, work.max_code + 1, (n, 1)) - rng.integers(0, 12 << work.mantissa, (n, 6))
    codes = np.maximum(codes, rng.integers(0, 2, (n, 6)))
    codes = np.where(rng.random((n, 1)) < 0.2, rng.integers(0, work.max_code + 1, (n, 6)), codes)
    codes = np.where(rng.random((n, 6)) < 0.1, 0, codes)
    codes[::20] = 0
    special = rng.random((n, 6)) < 0.02
    codes = np.where(special, rng.integers(work.inf_code, 1 << (work.width - 1), (n, 6)), codes)
    codes = np.where(rng.random((n, 6)) < 0.01, work.inf_code, codes)
    codes |= rng.integers(0, 2, (n, 6)) << (work.width - 1)
    scale, given = rng.integers(0, 255, n), rng.random(n) < 0.5
    out, used, invalid, overflow = logarithmic.convert(p, codes, scale, given)
    assert out.dtype == np.uint32 and used.dtype == np.int64
    for k in range(n):
        xs = work.decode(codes[k]).tolist()
        expected, exponent, above = exact_codes(xs, fmt, int(scale[k]) - 127 if given[k] else None, work.emax)
        assert (out[k].tolist(), int(used[k])) == (expected, exponent + 127), k
        assert (bool(invalid[k]), bool(overflow[k])) == (bool(np.isnan(xs).any()), above), k


@pytest.mark.parametrize("work", ["fp16", "fp32"])
def test_convert_is_quantise_with_a_scale_for_each_transfer(work):
    p = LNSConverterParameters(LNS8, PRESETS[work], 5)
    rng = np.random.default_rng(43)
    dtype = np.float16 if work == "fp16" else np.float32
    x = np.ldexp(rng.standard_normal((300, 5)), rng.integers(-10, 10, (300, 1))).astype(dtype)
    x[5, 2], x[9, 1], x[11] = np.inf, np.nan, 0
    given, scale = rng.random(300) < 0.3, rng.integers(110, 140, 300)
    out, used, invalid, _ = logarithmic.convert(p, p.work.encode(x), scale, given)
    for k in range(300):
        logs = logarithmic.quantise(x[k], LNS8, int(scale[k]) - 127 if given[k] else None)
        assert (logs.codes.tolist(), logs.scale + 127, logs.invalid) == (out[k].tolist(), used[k], invalid[k])


@lru_cache(None)
def exact_power(r, gamma):
    """2**(r / gamma), to 60 digits."""
    with localcontext() as context:
        context.prec = 60
        return Fraction(Decimal(2) ** (Decimal(r) / gamma))


def assert_decode(p, codes, scale):
    """That `decode` rounds what codes of shape (n, lanes) mean, correctly."""
    out, overflow = logarithmic.decode(p, codes, scale)
    assert out.dtype == np.uint32
    got = p.result.decode(out)
    assert not np.signbit(got[got == 0]).any()
    fmt = p.format
    rounded = lru_cache(None)(
        lambda t, k: exact_round(exact_power(t % fmt.gamma, fmt.gamma) * Fraction(2) ** (k + t // fmt.gamma), p.result))
    for k in range(len(codes)):
        expected = []
        for code in codes[k].tolist():
            value = rounded(code & fmt.top, int(scale[k]) - 127) if code & fmt.top else 0.0
            expected.append(0.0 - value if code > fmt.top else value)
        assert got[k].tolist() == expected, (codes[k], scale[k])
        assert overflow[k] == (inf in expected or -inf in expected)


@every_result
@pytest.mark.parametrize("fmt", [LNS8, Log(4, 1), Log(4, 4), Log(12, 32), Log(16, 16)],
                         ids=name_of)
def test_decode_rounds_correctly(result, fmt):
    p = LNSDecoderParameters(fmt, result, 3)
    assert LNSDecoderParameters.from_json(json.dumps(p.to_json())) == p
    rng = np.random.default_rng(47)
    for place in (result.emin - result.mantissa - 1, result.emin, 0, result.emax):
        n = 150
        t = rng.integers(0, fmt.top + 1, (n, 3))
        codes = t | rng.integers(0, 2, (n, 3)) << (fmt.bits - 1)
        scale = np.clip(127 + place - t[:, 0] // fmt.gamma + rng.integers(-2, 3, n), 0, 254)
        assert_decode(p, codes, scale)


@pytest.mark.sweep
@every_result
@gammas
def test_decode_every_code_under_every_scale(result, gamma):
    fmt = Log(max(4, gamma.bit_length() + 3), gamma)
    p = LNSDecoderParameters(fmt, result, 1 << 4)
    codes = np.resize(np.arange(1 << fmt.bits), (255, 1 << fmt.bits))
    assert_decode(p, codes.reshape(-1, 16), np.repeat(np.arange(255), (1 << fmt.bits) // 16))


def test_decode_has_both_ends():
    p = LNSDecoderParameters(LNS8, PRESETS["fp16"], 4)
    codes = np.array([[0, 128, 127, 255], [1, 129, 8, 136], [1, 0, 0, 128]])
    out, overflow = logarithmic.decode(p, codes, [254, 127 - 26, 127])
    assert PRESETS["fp16"].decode(out).tolist() == [[0, 0, inf, -inf], [0, 0, 2.0**-24 * 0, 0], [1.0908203125, 0, 0, 0]]
    assert out[1].tolist() == [0, 0, 0, 0]  # 2**-25 is a tie, to even; no zero is negative
    assert overflow.tolist() == [True, False, False]


def test_converter_and_decoder_take_nothing():
    none = np.zeros(0, int)
    out, used, invalid, overflow = logarithmic.convert(LNSConverterParameters(), np.zeros((0, 16), int), none, none)
    assert out.shape == (0, 16) and used.shape == invalid.shape == overflow.shape == (0,)
    out, overflow = logarithmic.decode(LNSDecoderParameters(), np.zeros((0, 16), int), none)
    assert out.shape == (0, 16) and overflow.shape == (0,)


@gammas
def test_what_is_decoded_is_quantised_to_the_same_codes(gamma):
    bits = max(4, gamma.bit_length() + 3)
    fmt = Log(bits, gamma)
    codes = np.arange(1 << bits).reshape(-1, 8)
    scale = np.full(len(codes), 120)
    decoded, _ = logarithmic.decode(LNSDecoderParameters(fmt, PRESETS["fp32"], 8), codes, scale)
    again, _, _, overflow = logarithmic.convert(LNSConverterParameters(fmt, PRESETS["fp32"], 8), decoded, scale,
                                                np.ones(len(codes), bool))
    np.testing.assert_array_equal(again, np.where(codes == 1 << (bits - 1), 0, codes))
    assert not overflow.any()


# Bad parameters.

FORMAT16 = r"; allowed: a Log of 4 to 16 bits, gamma 1 to 32 and at most 2\*\*\(bits-2\), such as lns8$"
FORMAT9 = r"; allowed: a Log of 4 to 9 bits, gamma 1 to 16 and at most 2\*\*\(bits-2\), such as lns8$"
RESULT = r"; allowed: a Float with specials 'ieee', overflow 'infinity' and a mantissa, such as fp32, bf16, fp16$"
WORK = (r"; allowed: a Float with specials 'ieee', 2 mantissa bits or more and exponents within fp32's, such as fp32, "
        r"bf16, fp16$")


@pytest.mark.parametrize("cls, settings, message", [
    (LNSConverterParameters, {"format": Log(3, 1)}, r"^format is Log\(bits=3, gamma=1\)" + FORMAT16),
    (LNSConverterParameters, {"format": Log(17, 8)}, r"^format is Log\(bits=17, gamma=8\)" + FORMAT16),
    (LNSConverterParameters, {"format": WIDE}, r"^format is Log\(bits=16, gamma=2048\)" + FORMAT16),
    (LNSConverterParameters, {"format": Log(6, 32)}, r"^format is Log\(bits=6, gamma=32\)" + FORMAT16),
    (LNSConverterParameters, {"format": "lns8"}, r"^format is 'lns8'" + FORMAT16),
    (LNSConverterParameters, {"format": PRESETS["fp16"]}, r"^format is Float\(.*" + FORMAT16),
    (LNSConverterParameters, {"work": PRESETS["fp8-e4m3"]}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": Float(5, 1)}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": Float(9, 10)}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": Float(8, 10, bias=128)}, r"^work is Float\(.*" + WORK),
    (LNSConverterParameters, {"work": None}, r"^work is None" + WORK),
    (LNSConverterParameters, {"lanes": 0}, r"^lanes is 0; allowed: an integer from 1 to 64$"),
    (LNSConverterParameters, {"lanes": 65}, r"^lanes is 65; allowed: an integer from 1 to 64$"),
    (LNSConverterParameters, {"lanes": 8.0}, r"^lanes is 8.0; allowed: an integer from 1 to 64$"),
    (LNSDecoderParameters, {"format": Log(8, 64)}, r"^format is Log\(bits=8, gamma=64\)" + FORMAT16),
    (LNSDecoderParameters, {"result": PRESETS["fp8-e4m3"]}, r"^result is Float\(.*" + RESULT),
    (LNSDecoderParameters, {"result": Float(5, 10, overflow="saturate")}, r"^result is Float\(.*" + RESULT),
    (LNSDecoderParameters, {"result": Float(5, 0)}, r"^result is Float\(.*" + RESULT),
    (LNSDecoderParameters, {"result": Fixed(8, 7)}, r"^result is Fixed\(.*" + RESULT),
    (LNSDecoderParameters, {"lanes": True}, r"^lanes is True; allowed: an integer from 1 to 64$"),
    (LNSDotParameters, {"format": Log(3, 1)}, r"^format is Log\(bits=3, gamma=1\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(10, 16)}, r"^format is Log\(bits=10, gamma=16\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(9, 32)}, r"^format is Log\(bits=9, gamma=32\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(4, 8)}, r"^format is Log\(bits=4, gamma=8\)" + FORMAT9),
    (LNSDotParameters, {"format": Log(8, 4)},
     r"^format is Log\(.*; allowed: one whose largest product is below 2\*\*41$"),
    (LNSDotParameters, {"lanes": 3}, r"^lanes is 3; allowed: an integer from 4 to 64$"),
    (LNSDotParameters, {"lanes": 65}, r"^lanes is 65; allowed: an integer from 4 to 64$"),
    (LNSDotParameters, {"accumulation": "tree"}, r"^accumulation is 'tree'; allowed: direct, bins$"),
    (LNSDotParameters, {"accumulator": 32}, r"^accumulator is 32; allowed: an integer from 33 to 48$"),
    (LNSDotParameters, {"accumulator": 49}, r"^accumulator is 49; allowed: an integer from 33 to 48$"),
    (LNSDotParameters, {"accumulator": 46, "format": Log(9, 16), "fraction": 10},
     r"^accumulator is 46; allowed: an integer from 33 to 45$"),
    (LNSDotParameters, {"accumulator": 7, "lsb": 31}, r"^accumulator is 7; allowed: an integer from 8 to 48$"),
    (LNSDotParameters, {"accumulator": 40.0}, r"^accumulator is 40.0; allowed: an integer from 33 to 48$"),
    (LNSDotParameters, {"lsb": 32}, r"^lsb is 32; allowed: an integer from 0 to 31$"),
    (LNSDotParameters, {"lsb": -1}, r"^lsb is -1; allowed: an integer from 0 to 31$"),
    (LNSDotParameters, {"constants": 3}, r"^constants is 3; allowed: 1, 2, 4, 8$"),
    (LNSDotParameters, {"constants": 16}, r"^constants is 16; allowed: 1, 2, 4, 8$"),
    (LNSDotParameters, {"constants": True}, r"^constants is True; allowed: 1, 2, 4, 8$"),
    (LNSDotParameters, {"constants": 2, "format": Log(5, 1)}, r"^constants is 2; allowed: 1$"),
    (LNSDotParameters, {"fraction": 3}, r"^fraction is 3; allowed: an integer from 4 to 10$"),
    (LNSDotParameters, {"fraction": 11}, r"^fraction is 11; allowed: an integer from 4 to 10$"),
    (LNSDotParameters, {"result": PRESETS["fp6-e3m2"]}, r"^result is Float\(.*" + RESULT),
])
def test_parameters_that_make_no_sense(cls, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        cls(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call, message", [
    (lambda: logarithmic.quantise(np.ones(3), LNS8), r"^dtype of x is 'float64'; allowed: float16, float32$"),
    (lambda: logarithmic.quantise([1, 2], LNS8), r"^dtype of x is 'int64'; allowed: float16, float32$"),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), Log(24, 1 << 15)),
     r"^format is Log\(bits=24, gamma=32768\); allowed: a Log with gamma at most 16384$"),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), "lns8"), r"^format is 'lns8'; allowed: a Log "),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), LNS8, 128),
     r"^scale is 128; allowed: an integer from -127 to 127$"),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), LNS8, -128), r"^scale is -128; "),
    (lambda: logarithmic.quantise(np.ones(3, np.float32), LNS8, 1.5), r"^scale is 1.5; "),
])
def test_arguments_that_make_no_sense(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("parameters", [
    LNSConverterParameters(), LNSDecoderParameters(), LNSDotParameters(),
    LNSConverterParameters(Log(12, 32), Float(5, 6), 3), LNSDecoderParameters(Log(4, 4), Float(4, 3), 1),
    LNSDotParameters(Log(7, 4), 9, "bins", 30, 3, 2, 5, PRESETS["bf16"]),
], ids=lambda p: type(p).__name__)
def test_parameters_go_through_json_both_ways(parameters):
    data = json.loads(json.dumps(parameters.to_json()))
    assert type(parameters).from_json(data) == parameters == type(parameters).from_json(json.dumps(data))
    hash(parameters)


def test_what_is_not_given_is_chosen():
    p = LNSDotParameters()
    assert (p.accumulator, p.constants, p.quotient, p.below) == (48, 8, 31, 8)
    assert LNSDotParameters.from_json('{"accumulator": null, "constants": null}') == p
    narrow = LNSDotParameters(Log(4, 4), lsb=2)
    assert (narrow.accumulator, narrow.constants, narrow.quotient) == (23, 4, 3)
    assert LNSDotParameters(Log(5, 1)).below == 0  # a constant of 1 has no fraction
    assert LNSDotParameters(constants=2, accumulation="bins").below == 3
