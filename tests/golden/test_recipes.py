import dataclasses
import json

import numpy as np
import pytest
from narrowgauge.golden.formats import PRESETS, BlockFloat, Float, parse
from narrowgauge.golden.recipes import RECIPES, TENSORS, LossScale, Quantiser, Recipe, make
from narrowgauge.golden.rounding import NEAREST, TRUNCATE, stochastic


def test_bfp_defaults_are_the_contracts():
    recipe = make("bfp")
    assert [recipe.quantiser(t).format for t in TENSORS] == [BlockFloat(16, 4, 8)] * 3
    assert [recipe.quantiser(t).rounding for t in TENSORS] == [NEAREST, NEAREST, stochastic(8)]
    assert recipe.accumulator == PRESETS["fp32"]


def test_fp32_has_no_block_formats():
    assert make("fp32") == Recipe("fp32")
    assert all(make("fp32").quantiser(t).format is None for t in TENSORS)


def test_fp16_is_fp16_throughout():
    recipe = make("fp16")
    assert recipe.work == recipe.accumulator == PRESETS["fp16"] and recipe.dtype == np.float16
    assert {described["format"] for described in recipe.formats().values()} == {"fp16"}
    assert (recipe.chunk, recipe.scale) == (64, None)
    assert {make(name).dtype for name in ("fp32", "bfp")} == {np.dtype(np.float32)}


def test_fp16_settings_switch_one_by_one():
    assert make("fp16", chunk=None) == dataclasses.replace(make("fp16"), chunk=None)
    assert make("fp16", loss_scale=64) == dataclasses.replace(make("fp16"), scale=LossScale(64, 100))
    assert make("fp16", loss_scale=64, growth_interval=None).scale == LossScale(64, None)


def test_settings_reach_their_tensor_alone():
    recipe = make("bfp", group=8, mantissa=3, exponent=6, gradients_mantissa=5, weights_rounding="truncate",
                  gradients_rounding="nearest", activations_rounding="stochastic", random_bits=4, corrected=True,
                  accumulator="bf16")
    assert recipe.weights == Quantiser(BlockFloat(8, 3, 6), TRUNCATE)
    assert recipe.activations == Quantiser(BlockFloat(8, 3, 6), stochastic(4, True))
    assert recipe.gradients == Quantiser(BlockFloat(8, 5, 6), NEAREST)
    assert recipe.accumulator == PRESETS["bf16"]


def test_random_settings_do_not_tell_unrandom_recipes_apart():
    assert make("bfp", gradients_rounding="nearest", random_bits=4) == make("bfp", gradients_rounding="nearest")


@pytest.mark.parametrize("tensor", TENSORS)
def test_own_mantissa_overrides_the_common_one(tensor):
    recipe = make("bfp", mantissa=4, **{f"{tensor}_mantissa": 2})
    assert {t: recipe.quantiser(t).format.mantissa for t in TENSORS} == {**dict.fromkeys(TENSORS, 4), tensor: 2}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(name).name = "other"


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("fp64", {}, "recipe is 'fp64'; allowed: fp32, bfp, fp16, mx, lns-madam"),
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
    ("bfp", {"group": 0}, "group is 0; allowed: an integer from 1 to 1024"),
    ("bfp", {"exponent": 1}, "exponent is 1; allowed: an integer from 2 to 9"),
    ("bfp", {"activations_rounding": "up"}, "activations_rounding is 'up'; allowed: nearest, truncate, stochastic"),
    ("bfp", {"random_bits": 17}, "random_bits is 17; allowed: an integer from 1 to 16"),
    ("bfp", {"random_bits": 0, "gradients_rounding": "nearest"}, "random_bits is 0; .*"),
    ("bfp", {"corrected": 1}, "corrected is 1; allowed: true, false"),
    ("bfp", {"accumulator": "fp33"}, "accumulator is 'fp33'; allowed: fp32, fp16, bf16, .*"),
    ("bfp", {"accumulator": []}, r"accumulator is \[\]; allowed: fp32, .*"),
    ("bfp", {"accumulator": "fast-4"}, "accumulator is BlockFloat.*; allowed: a Float .*"),
    ("bfp", {"accumulator": "fp8-e4m3"}, "accumulator is Float.*; allowed: a Float with specials 'ieee', .*"),
    # Its values are no fp32 numbers, so the way back to the work format would round again.
    ("bfp", {"accumulator": Float(9, 20)}, "accumulator is Float.*; allowed: .* values within fp32, .*"),
])
def test_bad_settings_are_named(name, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(name, **settings)


def test_recipe_rejects_mixed_operands():
    block = Quantiser(BlockFloat())
    with pytest.raises(ValueError, match="^formats is .*; allowed: all None, or each a BlockFloat, each an MX or .*$"):
        Recipe("half", weights=block)
    with pytest.raises(ValueError, match=r"^group is \[8, 16\]; allowed: one group size for all tensors$"):
        Recipe("groups", block, block, Quantiser(BlockFloat(8)))
    with pytest.raises(ValueError, match="^accumulator is .*; allowed: fp32, because the operands are$"):
        Recipe("fp32", accumulator=PRESETS["bf16"])


def test_recipe_rejects_work_that_the_operands_are_not():
    block, half = Quantiser(BlockFloat()), PRESETS["fp16"]
    with pytest.raises(ValueError, match="^work is .*; allowed: fp32, because the operands are not fp16$"):
        Recipe("half", block, block, block, accumulator=half, work=half)
    with pytest.raises(ValueError, match="^work is .*; allowed: fp32, fp16$"):
        Recipe("brain", accumulator=PRESETS["bf16"], work=PRESETS["bf16"])
    with pytest.raises(ValueError, match="^accumulator is .*; allowed: fp16, because the operands are$"):
        Recipe("half", work=half)
    with pytest.raises(ValueError, match="^chunk is 8; allowed: None, because work is fp32$"):
        Recipe("fp32", chunk=8)


@pytest.mark.parametrize("recipe", [make("fp32"), make("fp16"), make("bfp"),
                                    make("bfp", accumulator="bf16", mantissa=3),
                                    make("bfp", accumulator=Float(6, 12))], ids=["fp32", "fp16", "bfp", "bf16", "odd"])
def test_formats_survive_json(recipe):
    formats = json.loads(json.dumps(recipe.formats()))
    assert list(formats) == [*TENSORS, "accumulator"]
    for tensor in TENSORS:
        assert parse(formats[tensor]["format"]) == (recipe.quantiser(tensor).format or recipe.work)
        assert formats[tensor]["rounding"] == recipe.quantiser(tensor).rounding.kind
    assert parse(formats["accumulator"]["format"]) == recipe.accumulator


def test_formats_tell_random_bits_only_where_words_are_drawn():
    formats = make("bfp", random_bits=5).formats()
    assert formats["gradients"]["bits"] == 5 and formats["gradients"]["corrected"] is False
    assert "bits" not in formats["weights"]
