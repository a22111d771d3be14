"""Number formats as parameters: published limits, JSON, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from narrowgauge.base.parameters import Parameters
from narrowgauge.golden.blockfloat import BFPConverterParameters, BFPFMACParameters
from narrowgauge.golden.formats import PRESETS, BlockFloat, Fixed, Float, Log, name_of, parse
from odd_formats import ALL, UNUSUAL
from peers import FINITE, each

pytestmark = pytest.mark.filterwarnings("error")

# Widths, largest values, smallest subnormals and canonical NaN codes as IEEE 754 and the OCP specifications print them.
PRESET_FACTS = {
    "fp32": (32, 3.4028234663852886e38, 2.0**-149, 0x7FC00000),
    "fp16": (16, 65504.0, 2.0**-24, 0x7E00),
    "bf16": (16, 3.3895313892515355e38, 2.0**-133, 0x7FC0),
    "fp8-e5m2": (8, 57344.0, 2.0**-16, 0x7E),
    "fp8-e4m3": (8, 448.0, 2.0**-9, 0x7F),
    "fp6-e3m2": (6, 28.0, 0.0625, None),
    "fp6-e2m3": (6, 7.5, 0.125, None),
    "fp4-e2m1": (4, 6.0, 0.5, None),
}


@pytest.mark.parametrize("name, facts", [pytest.param(name, facts, id=name) for name, facts in PRESET_FACTS.items()])
def test_preset_floats_have_the_published_limits(name, facts):
    fmt = PRESETS[name]
    assert (fmt.width, fmt.max, float(fmt.decode(1)), fmt.nan_code) == facts


def test_presets_are_those_of_the_contract():
    assert set(PRESETS) == {*PRESET_FACTS, "fast-2", "fast-4", "lns8", "lns16-update"}
    assert PRESETS["fast-2"] == BlockFloat(group=16, mantissa=2, exponent=8, bias=127)
    assert PRESETS["fast-4"] == BlockFloat(group=16, mantissa=4, exponent=8, bias=127)
    assert PRESETS["lns8"] == Log(bits=8, gamma=8)
    assert PRESETS["lns16-update"] == Log(bits=16, gamma=2048)


FORMATS = {**PRESETS, **UNUSUAL, "fixed": Fixed(12, -4), "block": BlockFloat(7, 3, 5, bias=0), "log": Log(6, 4)}


@pytest.mark.parametrize("fmt", each(FORMATS))
def test_format_goes_through_json_both_ways(fmt):
    text = json.dumps(fmt.to_json())
    for data in (fmt.to_json(), text):
        again = type(fmt).from_json(data)
        assert again == fmt and type(again) is type(fmt) and hash(again) == hash(fmt)
    assert parse({"type": type(fmt).__name__, **json.loads(text)}) == fmt
    assert parse(fmt) is fmt


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_parsed_and_named(name):
    assert parse(name) is PRESETS[name]
    assert name_of(PRESETS[name]) == name


def test_defaults_may_be_left_out_of_json():
    assert Float.from_json({"exponent": 5, "mantissa": 10}) == PRESETS["fp16"]
    assert BlockFloat.from_json("{}") == PRESETS["fast-4"]


@pytest.mark.parametrize("fmt", [pytest.param(f, id=n) for n, f in ALL.items() if f.specials == "ieee" and f.mantissa])
def test_converter_parameters_go_through_json_both_ways(fmt):
    parameters = BFPConverterParameters(group=8, mantissa=3, exponent=5, work=fmt, random_bits=4, corrected=True,
                                        seed=7)
    data = json.loads(json.dumps(parameters.to_json()))
    assert data["work"] == (name_of(fmt) or {"type": "Float", **fmt.to_json()})
    assert BFPConverterParameters.from_json(data) == parameters
    assert BFPConverterParameters.from_json(json.dumps(data)) == parameters


@pytest.mark.parametrize("fmt", each({"fp32": Float(8, 23), "bf16": Float(8, 7), "e6m9": Float(6, 9, bias=20)}))
def test_fmac_parameters_go_through_json_both_ways(fmt):
    parameters = BFPFMACParameters(group=32, mantissa=8, exponent=4, accumulator=fmt, chunks="parallel", accumulators=2)
    data = json.loads(json.dumps(parameters.to_json()))
    assert BFPFMACParameters.from_json(data) == parameters
    assert BFPFMACParameters.from_json(json.dumps(data)) == parameters


@dataclasses.dataclass(frozen=True)
class Nested(Parameters):
    """A field of every format class, and two that need not be given."""

    real: Float = PRESETS["fp16"]
    block: BlockFloat = PRESETS["fast-4"]
    log: Log = PRESETS["lns8"]
    fixed: Fixed = Fixed(8, 7)
    result: Float = None
    scale: Log = None
    count: int = None


NESTED = {
    "defaults": Nested(),
    "presets": Nested(PRESETS["bf16"], PRESETS["fast-2"], PRESETS["lns16-update"], Fixed(4, 4), PRESETS["fp8-e4m3"]),
    "others": Nested(Float(4, 0), BlockFloat(7, 3, 5), Log(6, 4), Fixed(12, -4), Float(2, 29), Log(5, 1), 3),
}


@pytest.mark.parametrize("parameters", each(NESTED))
def test_every_nested_format_goes_through_json_both_ways(parameters):
    data = parameters.to_json()
    assert Nested.from_json(data) == Nested.from_json(json.dumps(data)) == parameters
    assert all(value is None or isinstance(value, (str, int, dict)) for value in data.values())


def test_null_is_a_format_only_where_none_is_the_default():
    assert Nested.from_json('{"result": null, "scale": null, "count": null}') == Nested()
    for name in ("real", "block", "log", "fixed"):
        with pytest.raises(ValueError, match=r"^format is None; allowed: fp32, "):
            Nested.from_json({name: None})
    with pytest.raises(ValueError, match=r"^format is 'fp17'; allowed: fp32, "):
        Nested.from_json({"result": "fp17"})


@pytest.mark.parametrize("make", [BFPConverterParameters, BFPFMACParameters, BlockFloat, Log, Fixed])
def test_defaults_go_through_json_both_ways(make):
    assert make.from_json(json.dumps(make().to_json())) == make()


@pytest.mark.parametrize("fmt", each(FORMATS))
def test_formats_are_frozen(fmt):
    with pytest.raises(dataclasses.FrozenInstanceError):
        fmt.bias = 1


INTEGERS = [  # class, the other arguments, name, least, greatest
    (Float, {"mantissa": 3}, "exponent", 2, 11),
    (Float, {"exponent": 2}, "mantissa", 0, 29),
    (BlockFloat, {}, "group", 1, 1024),
    (BlockFloat, {}, "mantissa", 2, 8),
    (BlockFloat, {}, "exponent", 2, 9),
    (Log, {}, "bits", 3, 24),
    (Fixed, {}, "bits", 1, 32),
    (Fixed, {}, "fraction", -64, 64),
    (BFPConverterParameters, {}, "group", 4, 64),
    (BFPConverterParameters, {}, "mantissa", 2, 8),
    (BFPConverterParameters, {}, "exponent", 3, 8),
    (BFPConverterParameters, {}, "random_bits", 1, 16),
    (BFPConverterParameters, {}, "seed", 0, 2**31 - 1),
    (BFPFMACParameters, {}, "group", 4, 64),
    (BFPFMACParameters, {}, "mantissa", 2, 8),
    (BFPFMACParameters, {}, "exponent", 3, 8),
]


@pytest.mark.parametrize("make, others, name, low, high",
                         [pytest.param(*row, id=f"{row[0].__name__}-{row[2]}") for row in INTEGERS])
def test_integer_parameters_accept_their_range_and_nothing_else(make, others, name, low, high):
    for value in (low, high):
        assert getattr(make(**others, **{name: value}), name) == value
    # A Float with specials 'ieee' needs one exponent bit more than the others, and says so in its own words.
    least = 1 if (make, name) == (Float, "exponent") else low
    for wrong in (least - 1, high + 1, True, float(high), str(high), None, [high], np.int64(high)):
        message = rf"^{name} is {re_escape(wrong)}; allowed: an integer from {least} to {high}$"
        with pytest.raises(ValueError, match=message):
            make(**others, **{name: wrong})
        with pytest.raises(ValueError, match=message):
            make.from_json({**others, name: wrong})


def re_escape(value):
    return "".join(c if c.isalnum() or c in " '_" else "\\" + c for c in repr(value))


ERRORS = {
    "width": (lambda: Float(11, 21), r"^1 \+ exponent \+ mantissa is 33; allowed: at most 32 bits$"),
    "specials": (lambda: Float(5, 2, specials="inf"), r"^specials is 'inf'; allowed: ieee, fn, none$"),
    "overflow": (lambda: Float(5, 2, overflow="wrap"), r"^overflow is 'wrap'; allowed: infinity, saturate$"),
    "none-infinity": (lambda: Float(5, 2, specials="none"), r"^overflow is 'infinity'; allowed: saturate, because"),
    "ieee-e1": (lambda: Float(1, 2), r"^exponent is 1; allowed: 2 or more with specials 'ieee'"),
    "bias-high": (lambda: Float(5, 2, bias=1074), r"^bias is 1074; allowed: an integer that keeps every value within"),
    "bias-low": (lambda: Float(5, 2, bias=-994), r"^bias is -994; allowed: an integer that keeps every value within"),
    "bias-bool": (lambda: Float(5, 2, bias=True), r"^bias is True; allowed: an integer"),
    "bias-float": (lambda: Float(5, 2, bias=15.0), r"^bias is 15.0; allowed: an integer"),
    "bias-string": (lambda: Float(5, 2, bias="15"), r"^bias is '15'; allowed: an integer"),
    "e11-none": (lambda: Float(11, 4, **FINITE), r"^bias is 1023; allowed: an integer that keeps"),
    "block-bias-high": (lambda: BlockFloat(bias=481), r"^bias is 481; allowed: an integer that keeps the exponents"),
    "block-bias-low": (lambda: BlockFloat(bias=-226), r"^bias is -226; allowed: an integer that keeps the exponents"),
    "block-bias-bool": (lambda: BlockFloat(bias=False), r"^bias is False; allowed: an integer"),
    "block-bias-float": (lambda: BlockFloat(bias=1.0), r"^bias is 1.0; allowed: an integer"),
    "gamma-zero": (lambda: Log(8, 0), r"^gamma is 0; allowed: a power of two, 1 or more$"),
    "gamma-three": (lambda: Log(8, 3), r"^gamma is 3; allowed: a power of two"),
    "gamma-bool": (lambda: Log(8, True), r"^gamma is True; allowed: a power of two"),
    "gamma-float": (lambda: Log(8, 8.0), r"^gamma is 8.0; allowed: a power of two"),
    "parse-name": (lambda: parse("fp17"), r"^format is 'fp17'; allowed: fp32, fp16, .*lns16-update$"),
    "parse-number": (lambda: parse(16), r"^format is 16; allowed: fp32"),
    "parse-none": (lambda: parse(None), r"^format is None; allowed: fp32"),
    "parse-list": (lambda: parse(["fp32"]), r"^format is \['fp32'\]; allowed: fp32"),
    "parse-type": (lambda: parse({"type": "Posit"}), r"^type is 'Posit'; allowed: Float, BlockFloat, Log, Fixed$"),
    "parse-type-list": (lambda: parse({"type": ["Float"]}), r"^type is \['Float'\]; allowed: Float"),
    "parse-no-type": (lambda: parse({"bits": 8}), r"^type is None; allowed: Float"),
    "parse-field": (lambda: parse({"type": "Log", "bits": 8.0}), r"^bits is 8.0; allowed: an integer from 3 to 24$"),
    "json-key": (lambda: Fixed.from_json({"bit": 8}), r"^parameter is 'bit'; allowed: bits, fraction$"),
    "json-text-key": (lambda: Fixed.from_json('{"bit": 8}'), r"^parameter is 'bit'; allowed: bits, fraction$"),
    "json-missing": (lambda: Float.from_json({"exponent": 5}),
        r"^mantissa is None; allowed: a value, because it has no default$"),
    "json-list": (lambda: Fixed.from_json("[8]"), r"^parameters is \[8\]; allowed: a JSON object$"),
    "json-number": (lambda: Fixed.from_json("8"), r"^parameters is 8; allowed: a JSON object$"),
    "json-broken": (lambda: Fixed.from_json("{"), r"Expecting property name"),
    "work-name": (lambda: BFPConverterParameters.from_json({"work": "fp17"}), r"^format is 'fp17'; allowed: fp32"),
    "work-number": (lambda: BFPConverterParameters.from_json({"work": 16}), r"^format is 16; allowed: fp32"),
    "work-block": (lambda: BFPConverterParameters.from_json({"work": "fast-4"}),
        r"^work is BlockFloat.*; allowed: a Float"),
    "work-string": (lambda: BFPConverterParameters(work="fp32"),
        r"^work is 'fp32'; allowed: a Float with specials 'ieee'"),
    "work-fn": (lambda: BFPConverterParameters(work=PRESETS["fp8-e4m3"]),
        r"^work is Float.*; allowed: a Float with specials"),
    "work-m0": (lambda: BFPConverterParameters(work=Float(4, 0)), r"^work is Float.*; allowed: a Float with specials"),
    "corrected": (lambda: BFPConverterParameters(corrected=1), r"^corrected is 1; allowed: true, false$"),
    "corrected-text": (lambda: BFPConverterParameters.from_json({"corrected": "no"}),
        r"^corrected is 'no'; allowed: true"),
    "accumulator-none": (lambda: BFPFMACParameters(accumulator=PRESETS["fp4-e2m1"]),
        r"^accumulator is Float.*; allowed:"),
    "accumulator-saturating": (lambda: BFPFMACParameters(accumulator=Float(5, 10, overflow="saturate")),
        r"^accumulator is Float.*; allowed: a Float with specials 'ieee' and overflow 'infinity'"),
    "accumulator-m1": (lambda: BFPFMACParameters(accumulator=Float(5, 1)),
        r"^accumulator is Float.*; allowed: a Float"),
    "chunks": (lambda: BFPFMACParameters(chunks="both"), r"^chunks is 'both'; allowed: serial, parallel$"),
    "accumulators": (lambda: BFPFMACParameters(accumulators=3), r"^accumulators is 3; allowed: 2, 4, 8, 16$"),
    "accumulators-float": (lambda: BFPFMACParameters(accumulators=8.0), r"^accumulators is 8.0; allowed: 2, 4, 8, 16$"),
    "accumulators-bool": (lambda: BFPFMACParameters(accumulators=True),
        r"^accumulators is True; allowed: 2, 4, 8, 16$"),
}


@pytest.mark.parametrize("call, message", each(ERRORS))
def test_senseless_parameters_raise_and_name_what_is_allowed(call, message):
    with pytest.raises(ValueError, match=message):
        call()
