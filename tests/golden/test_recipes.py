import dataclasses
import json

import numpy as np
import pytest
from narrowgauge.golden import mx
from narrowgauge.golden.blockfloat import BFPSystem
from narrowgauge.golden.floating import PlainSystem
from narrowgauge.golden.formats import PRESETS, BlockFloat, Fixed, Float, Log, parse
from narrowgauge.golden.logarithmic import LNSDotParameters, LNSSystem
from narrowgauge.golden.madam import MadamParameters
from narrowgauge.golden.precision import Adaptive, Constant, Cyclic, Policies, Rising
from narrowgauge.golden.recipes import RECIPES, TENSORS, LossScale, Recipe, Stored, make
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic
from narrowgauge.golden.softmax import SoftmaxParameters


def formats_of(recipe):
    return [recipe.system.format_of(recipe.mode(tensor)) for tensor in TENSORS]


def roundings_of(recipe):
    return [recipe.system.rounding_of(recipe.mode(tensor)) for tensor in TENSORS]


def test_bfp_defaults_are_the_contracts():
    recipe = make("bfp")
    assert formats_of(recipe) == [BlockFloat(16, 4, 8)] * 3
    assert roundings_of(recipe) == [NEAREST, NEAREST, stochastic(8)]
    assert recipe.accumulator == PRESETS["fp32"]


def test_fp32_has_no_block_formats():
    assert make("fp32") == Recipe("fp32")
    assert formats_of(make("fp32")) == [PRESETS["fp32"]] * 3


def test_fp16_is_fp16_throughout():
    recipe = make("fp16")
    assert recipe.work == recipe.accumulator == PRESETS["fp16"] and recipe.dtype == np.float16
    assert {described["format"] for described in recipe.formats().values()} == {"fp16"}
    assert (recipe.system, recipe.scale) == (PlainSystem(PRESETS["fp16"], 64), None)
    assert {make(name).dtype for name in ("fp32", "bfp")} == {np.dtype(np.float32)}


def test_fp16_settings_switch_one_by_one():
    assert make("fp16", chunk=None) == dataclasses.replace(make("fp16"), system=PlainSystem(PRESETS["fp16"]))
    assert make("fp16", loss_scale=64) == dataclasses.replace(make("fp16"), scale=LossScale(64, 100))
    assert make("fp16", loss_scale=64, growth_interval=None).scale == LossScale(64, None)


def test_mx_is_fp8_by_default():
    recipe = make("mx")
    assert formats_of(recipe) == [mx.PRESETS[name] for name in ("mxfp8-e4m3", "mxfp8-e4m3", "mxfp8-e5m2")]
    assert roundings_of(recipe) == [NEAREST] * 3
    assert (recipe.accumulator, recipe.stored) == (PRESETS["fp32"], None)


def test_mx_settings_reach_their_tensor_alone():
    recipe = make("mx", element="int8", gradients_element={"type": "Fixed", "bits": 6, "fraction": 4}, block=16,
                  gradients_rounding="stochastic", random_bits=4, accumulator="bf16")
    assert formats_of(recipe) == [mx.MX("int8", 16), mx.MX("int8", 16), mx.MX(Fixed(6, 4), 16)]
    assert roundings_of(recipe) == [NEAREST, NEAREST, stochastic(4)]
    assert recipe.accumulator == PRESETS["bf16"]


def test_lns_madam_keeps_weights_in_16_bits_and_multiplies_8():
    recipe = make("lns-madam")
    assert formats_of(recipe) == [PRESETS["lns8"]] * 3 and roundings_of(recipe) == [NEAREST] * 3
    assert recipe.system.cell(2) == LNSDotParameters() and recipe.stored.format == PRESETS["lns16-update"]
    assert recipe.stored.madam == MadamParameters() and recipe.scale is None


def test_lns_madam_settings_reach_their_parameters():
    recipe = make("lns-madam", bits=6, gamma=4, lanes=8, accumulation="bins", accumulator=24, lsb=2, constants=2,
                  weights_bits=12, rate=3, rate_drops=[0.5], clip=4, memory=64, second="fp32", second_bits=9,
                  second_gamma=4, random_bits=6)
    assert recipe.system.cell(2) == LNSDotParameters(Log(6, 4), 8, "bins", 24, 2, 2)
    assert recipe.stored == Stored(Log(12, 256), MadamParameters(
        weight=Log(12, 256), narrow=Log(6, 4), second_bits=9, second_gamma=4, second_bias=96, memory=64, clip=4,
        random_bits=6), 3, (0.5,), "fp32")
    assert make("lns-madam", second_bits=8, second_gamma=4).stored.madam.second_bias == 48
    assert make("lns-madam", second_bits=8, second_gamma=4, second_bias=60).stored.madam.second_bias == 60
    assert make("lns-madam", update="sgd", weights_bits=8).stored.format == PRESETS["lns8"]
    assert make("lns-madam", update="sgd").stored.madam is None
    assert make("lns-madam", bits=6, update="sgd", weights_bits=6).stored.format == Log(6, 8)


def test_fast_chooses_for_every_tensor_and_has_the_papers_roundings():
    recipe = make("fast", alpha=0.5, group=8)
    assert formats_of(recipe) == [BlockFloat(8, 4, 8)] * 3
    assert roundings_of(recipe) == [TRUNCATE, TRUNCATE, stochastic(8)]
    assert recipe.precision == Policies(*[Adaptive(0.5, 0.3)] * 3)
    assert recipe.formats()["gradients"]["precision"] == {
        "policy": "adaptive", "alpha": 0.5, "beta": 0.3, "reverse": False, "lag": 1}


def test_cpt_cycles_weights_and_activations():
    recipe = make("cpt", low=4, high=7, cycles=9, gradients=6)
    assert [fmt.mantissa for fmt in formats_of(recipe)] == [7, 7, 6]
    assert recipe.precision == Policies(Cyclic(4, 7, 9), Cyclic(4, 7, 9), Constant(6))
    assert recipe.formats()["gradients"]["precision"] == {"policy": "constant", "bits": 6}
    json.dumps(recipe.formats())


def test_each_tensor_takes_its_own_policy_and_its_greatest_width():
    recipe = make("bfp", mantissa=3, weights_precision={"policy": "cyclic", "low": 2, "high": 6},
                  gradients_precision=Adaptive(reverse=True))
    assert recipe.precision == Policies(Cyclic(2, 6, 32), Constant(3), Adaptive(0.6, 0.3, True))
    assert [fmt.mantissa for fmt in formats_of(recipe)] == [6, 3, 4]
    assert make("bfp", weights_precision={"policy": "constant", "bits": 4}).precision == Policies()


@pytest.mark.parametrize("policies", [
    Policies(Constant(5), Cyclic(2, 7, 9), Adaptive(0.5, 0.25, True, 0)), Policies(Rising(3, 5), Adaptive(), Cyclic()),
    make("fast").precision, make("cpt").precision], ids=["mixed", "others", "fast", "cpt"])
def test_a_recipe_is_made_again_from_the_policies_that_its_formats_tell(policies):
    recipe = make("bfp", **{f"{tensor}_precision": policy for tensor, policy in vars(policies).items()})
    told = json.loads(json.dumps(recipe.formats()))
    assert make("bfp", **{f"{tensor}_precision": told[tensor]["precision"] for tensor in TENSORS}) == recipe
    assert recipe.precision == policies


def test_precision_needs_formats_of_the_greatest_one():
    with pytest.raises(ValueError, match="precision of weights is 4; allowed: 8, the greatest precision"):
        dataclasses.replace(make("bfp"), precision=Policies(Cyclic(3, 8)))
    with pytest.raises(ValueError, match="precision is .*; allowed: None, because the number system has no"):
        dataclasses.replace(make("mx"), precision=Policies())


def test_settings_reach_their_tensor_alone():
    recipe = make("bfp", group=8, mantissa=3, exponent=6, gradients_mantissa=5, weights_rounding="truncate",
                  gradients_rounding="nearest", activations_rounding="stochastic", random_bits=4, corrected=True,
                  accumulator="bf16")
    assert formats_of(recipe) == [BlockFloat(8, 3, 6), BlockFloat(8, 3, 6), BlockFloat(8, 5, 6)]
    assert roundings_of(recipe) == [TRUNCATE, stochastic(4, True), NEAREST]
    assert recipe.accumulator == PRESETS["bf16"]


def test_random_settings_do_not_tell_unrandom_recipes_apart():
    assert make("bfp", gradients_rounding="nearest", random_bits=4) == make("bfp", gradients_rounding="nearest")


@pytest.mark.parametrize("tensor", TENSORS)
def test_own_mantissa_overrides_the_common_one(tensor):
    recipe = make("bfp", mantissa=4, **{f"{tensor}_mantissa": 2})
    assert [fmt.mantissa for fmt in formats_of(recipe)] == [2 if each == tensor else 4 for each in TENSORS]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(name).name = "other"


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("fp64", {}, f"recipe is 'fp64'; allowed: {', '.join(RECIPES)}"),
    ("fp32", {"group": 16}, "setting of recipe fp32 is 'group'; allowed: none"),
    ("bfp", {"mantisa": 4}, "setting of recipe bfp is 'mantisa'; allowed: group, mantissa, exponent, .*"),
    ("bfp", {"mantissa": 9}, "mantissa is 9; allowed: an integer from 2 to 8"),
    ("bfp", {"mantissa": True}, "mantissa is True; allowed: an integer from 2 to 8"),
    ("bfp", {"weights_mantissa": 1}, "weights_mantissa is 1; allowed: an integer from 2 to 8"),
    ("bfp", {"gradients_mantissa": 4.0}, "gradients_mantissa is 4.0; allowed: an integer from 2 to 8"),
    ("fp16", {"mantissa": 4}, "setting of recipe fp16 is 'mantissa'; allowed: chunk, loss_scale, growth_interval"),
    ("fp16", {"chunk": 0}, "chunk is 0; allowed: an integer from 1 to 1000000"),
    ("fp16", {"loss_scale": 1000}, "loss_scale is 1000; allowed: a power of two from 1 to 16777216, or null"),
    ("fp16", {"loss_scale": 2**25}, "loss_scale is 33554432; allowed: .*"),
    ("fp16", {"loss_scale": 8.0}, "loss_scale is 8.0; allowed: .*"),
    ("fp16", {"growth_interval": 0}, "growth_interval is 0; allowed: an integer from 1 to 1000000"),
    ("cpt", {"low": 1}, "low is 1; allowed: an integer from 2 to 8"),
    ("cpt", {"gradients": 9}, "gradients is 9; allowed: an integer from 2 to 8"),
    ("fast", {"alpha": 3}, "alpha is 3; allowed: a number from 0 to below 2"),
    ("fast", {"reverse": "yes"}, "reverse is 'yes'; allowed: true, false"),
    ("bfp", {"weights_precision": 4}, r"weights_precision: policy is 4; allowed: an object such as .*"),
    ("bfp", {"weights_precision": {}},
     "weights_precision: policy is None; allowed: constant, cyclic, rising, adaptive"),
    ("bfp", {"gradients_precision": {"policy": ["cyclic"]}},
     r"gradients_precision: policy is \['cyclic'\]; allowed: .*"),
    ("bfp", {"activations_precision": {"policy": "cyclic", "bits": 4}},
     "activations_precision: setting of policy cyclic is 'bits'; allowed: low, high, cycles"),
    ("bfp", {"weights_precision": {"policy": "constant", "bits": 9}},
     "weights_precision: bits is 9; allowed: an integer from 2 to 8"),
    ("bfp", {"weights_precision": {"policy": "constant"}, "weights_mantissa": 4},
     "weights_mantissa is 4; allowed: none, because weights_precision is given"),
    ("bfp", {"group": 0}, "group is 0; allowed: an integer from 1 to 1024"),
    ("bfp", {"exponent": 1}, "exponent is 1; allowed: an integer from 2 to 9"),
    ("bfp", {"activations_rounding": "up"}, "activations_rounding is 'up'; allowed: nearest, truncate, stochastic"),
    ("bfp", {"random_bits": 17}, "random_bits is 17; allowed: an integer from 1 to 16"),
    ("bfp", {"random_bits": 0, "gradients_rounding": "nearest"}, "random_bits is 0; .*"),
    ("bfp", {"corrected": 1}, "corrected is 1; allowed: true, false"),
    ("bfp", {"accumulator": "fp33"}, "accumulator is 'fp33'; allowed: fp32, fp16, bf16, .*"),
    ("bfp", {"accumulator": []}, r"accumulator is \[\]; allowed: fp32, .*"),
    ("bfp", {"accumulator": "fast-4"}, "accumulator is BlockFloat.*; allowed: a Float .*"),
    ("system", {"system": "fp8x"}, "system is 'fp8x'; allowed: bfp, mx, lns, float, bf16, fp8, int8, plain"),
    ("system", {"system": 8}, "system is 8; allowed: bfp, .*"),
    ("system", {"system": "int8", "mantissa": 4}, "setting of recipe system is 'mantissa'; allowed: system, weights, "
     "activations, gradients, lanes, work, accumulator"),
    ("system", {"system": "bfp", "weights": {"precision": 8}},
     "precision of weights is 8; allowed: an integer from 0 to 7"),
    ("system", {"system": "bfp", "weights": {"scale": 8}}, "mode of weights is 'scale'; allowed: precision, rounding"),
    ("system", {"system": "bf16", "weights": 8}, "modes of weights is 8; allowed: an object with none"),
    ("system", {"work": "fp8-e4m3"}, "work is Float.*; allowed: .*"),
    ("system", {"system": "fp8", "work": {"type": "Float", "exponent": 5, "mantissa": 1}},
     "work is Float.*; allowed: .*, 2 to 10 mantissa bits .*"),
    ("system", {"system": "bf16", "chunk": 4}, "chunk is 4; allowed: None, because numbers are kept in fp32, .*"),
    ("bfp", {"accumulator": "fp8-e4m3"}, "accumulator is Float.*; allowed: a Float with specials 'ieee', .*"),
    ("mx", {"element": "fp9"}, "element is 'fp9'; allowed: fp8-e5m2, .*"),
    ("mx", {"gradients_element": "fp9"}, "gradients_element is 'fp9'; allowed: fp8-e5m2, .*"),
    ("mx", {"block": 0}, "block is 0; allowed: an integer from 1 to 1024"),
    ("mx", {"gradients_rounding": "up"}, "gradients_rounding is 'up'; allowed: nearest, truncate, stochastic"),
    ("mx", {"accumulator": "fp33"}, "accumulator is 'fp33'; allowed: fp32, .*"),
    ("mx", {"mantissa": 4}, "setting of recipe mx is 'mantissa'; allowed: element, gradients_element, block, .*"),
    ("lns-madam", {"bits": 2}, "bits is 2; allowed: an integer from 3 to 24"),
    ("lns-madam", {"bits": 12}, "format is Log.*; allowed: a Log of .*"),
    ("lns-madam", {"gamma": 3}, "gamma is 3; allowed: a power of two, 1 or more"),
    ("lns-madam", {"constants": 3}, "constants is 3; allowed: 1, 2, 4, 8"),
    ("lns-madam", {"accumulator": 16}, "accumulator is 16; allowed: an integer from 33 to 48"),
    ("lns-madam", {"accumulation": "tree"}, "accumulation is 'tree'; allowed: direct, bins"),
    ("lns-madam", {"update": "adam"}, "update is 'adam'; allowed: madam, sgd"),
    ("lns-madam", {"weights_bits": 8}, "weights_bits is 8; allowed: an integer from 9 to 16"),
    ("lns-madam", {"weights_bits": 7, "update": "sgd"}, "weights_bits is 7; allowed: an integer from 8 to 16"),
    ("lns-madam", {"bits": 5, "weights_bits": 7}, "weights_bits is 7; allowed: an integer from 8 to 16"),
    ("lns-madam", {"rate": 8}, "rate is 8; allowed: an integer from 0 to 7"),
    ("lns-madam", {"rate_drops": 0.5}, "rate_drops is 0.5; allowed: a list of numbers above 0 and below 1"),
    ("lns-madam", {"rate": 1}, r"rate_drops is \(0.6, 0.7, 0.8, 0.9\); allowed: at most 1 rising .*"),
    ("lns-madam", {"rate_drops": [0.5, 0.5]}, r"rate_drops is \(0.5, 0.5\); allowed: at most 7 rising numbers .*"),
    ("lns-madam", {"rate_drops": [1]}, r"rate_drops is \(1,\); allowed: .* above 0 and below 1, .*"),
    ("lns-madam", {"second": "fp16"}, "second is 'fp16'; allowed: log, fp32"),
    ("lns-madam", {"second_bits": 5}, "second_bits is 5; allowed: an integer from 6 to 16"),
    ("lns-madam", {"second_gamma": 0}, "second_gamma is 0; allowed: 1, 2, 4, 8, 16"),
    ("lns-madam", {"clip": 0}, "clip is 0; allowed: an integer from 1 to 15"),
    # Its values are no fp32 numbers, so the way back to the work format would round again.
    ("bfp", {"accumulator": Float(9, 20)}, "accumulator is Float.*; allowed: .* values within fp32, .*"),
])
def test_bad_settings_are_named(name, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(name, **settings)


def test_recipe_rejects_logarithms_that_do_not_belong_together():
    log = LNSSystem()
    for other in (PlainSystem(), BFPSystem(), mx.MXSystem()):
        with pytest.raises(ValueError, match="^stored is .*; allowed: None, because the operands are not logarithmic$"):
            Recipe("other", other, stored=Stored())
    with pytest.raises(ValueError, match="^narrow is .*; allowed: .*, the format of the operands$"):
        Recipe("log", log, stored=Stored(madam=MadamParameters(narrow=Log(6, 2))))
    with pytest.raises(ValueError, match="^stored format is .*; allowed: .*, or its octaves in more bits$"):
        Recipe("log", log, stored=Stored(Log(16, 1024)))
    with pytest.raises(ValueError, match="^loss_scale is .*; allowed: None, because weights are logarithmic$"):
        Recipe("log", log, stored=Stored(), scale=LossScale())


def test_recipe_rejects_work_that_training_has_not():
    fn = PRESETS["fp8-e4m3"]
    with pytest.raises(ValueError, match="^work is .*; allowed: fp32, fp16, bf16, or another Float with specials"):
        PlainSystem(fn)
    with pytest.raises(ValueError, match="^chunk is 8; allowed: None, because numbers are kept in fp32, .*$"):
        PlainSystem(chunk=8)
    with pytest.raises(ValueError, match="^tensor is 'biases'; allowed: weights, activations, gradients$"):
        Recipe("kind", BFPSystem(), {"biases": {}})


@pytest.mark.parametrize("recipe", [make("mx"), make("mx", element="int8", block=8)], ids=["preset", "other"])
def test_formats_of_mx_survive_json(recipe):
    formats = json.loads(json.dumps(recipe.formats()))
    assert list(formats) == [*TENSORS, "accumulator"]
    assert [mx.parse(formats[tensor]["format"]) for tensor in TENSORS] == formats_of(recipe)


@pytest.mark.parametrize("recipe", [make("lns-madam"), make("lns-madam", bits=6, weights_bits=12, constants=2, rate=4),
                                    make("lns-madam", update="sgd"), make("lns-madam", second="fp32")],
                         ids=["default", "narrow", "sgd", "fp32"])
def test_formats_of_logarithms_survive_json(recipe):
    formats = json.loads(json.dumps(recipe.formats()))
    assert list(formats) == [*TENSORS, "accumulator", "stored"]
    dot = recipe.system.cell(2)
    assert {parse(formats[tensor]["format"]) for tensor in TENSORS} == {dot.format}
    sums, stored = formats["accumulator"], formats["stored"]
    assert parse(sums.pop("format")) == recipe.accumulator and sums.pop("rounding") == "nearest"
    assert dataclasses.replace(LNSDotParameters(dot.format), **sums) == dot
    assert parse(stored["format"]) == recipe.stored.format
    if recipe.stored.madam is None:
        assert stored == {"format": "lns16-update", "rounding": "nearest", "update": "sgd"}
    else:
        kept = {name: stored[name] for name in stored if name in MadamParameters.__dataclass_fields__}
        assert dataclasses.replace(recipe.stored.madam, **kept) == recipe.stored.madam
        assert ("second_bits" in stored) == (recipe.stored.second == "log")


@pytest.mark.parametrize("recipe", [make("fp32"), make("fp16"), make("bfp"),
                                    make("bfp", accumulator="bf16", mantissa=3),
                                    make("bfp", accumulator=Float(6, 12))], ids=["fp32", "fp16", "bfp", "bf16", "odd"])
def test_formats_survive_json(recipe):
    formats = json.loads(json.dumps(recipe.formats()))
    assert list(formats) == [*TENSORS, "accumulator"]
    assert [parse(formats[tensor]["format"]) for tensor in TENSORS] == formats_of(recipe)
    assert [formats[tensor]["rounding"] for tensor in TENSORS] == [each.kind for each in roundings_of(recipe)]
    assert parse(formats["accumulator"]["format"]) == recipe.accumulator


def test_formats_tell_random_bits_only_where_words_are_drawn():
    formats = make("bfp", random_bits=5).formats()
    assert formats["gradients"]["bits"] == 5 and formats["gradients"]["corrected"] is False
    assert "bits" not in formats["weights"]


def test_a_softmax_head_is_told_of_and_fits_the_work_format():
    assert make("fp32").softmax is None and "errors" not in make("fp32").formats()
    recipe = dataclasses.replace(make("fp16"), softmax=SoftmaxParameters(rounding="stochastic", bits=12))
    assert json.loads(json.dumps(recipe.formats()))["errors"] == {
        "format": {"type": "Fixed", "bits": 12, "fraction": 11}, "rounding": "stochastic", "logits": "bf16",
        "random_bits": 8, "corrected": False}
    with pytest.raises(ValueError, match="^softmax bits is 13; allowed: at most 12, because work is fp16$"):
        dataclasses.replace(make("fp16"), softmax=SoftmaxParameters(bits=13))
    with pytest.raises(ValueError, match="^softmax is 5; allowed: SoftmaxParameters, or None$"):
        dataclasses.replace(make("bfp"), softmax=5)
