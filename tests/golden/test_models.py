"""Networks of one's own: the files that tell of them, the layers that follow, and whole runs."""

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from narrowgauge.golden import core, network
from narrowgauge.golden.datasets import Dataset, load
from narrowgauge.golden.network import Convolution, Linear, Pool
from narrowgauge.golden.recipes import make, work_in

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.toml"
needs_digits = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
f32 = np.float32


def images(count=8, image=(6, 7), channels=2, classes=3):
    rng = np.random.default_rng(13)
    x = rng.standard_normal((count, image[0] * image[1] * channels)).astype(f32)
    y = rng.integers(0, classes, count)
    return Dataset("images", x, y, x[:4], y[:4], classes, image, channels=channels)


def model(*entries):
    """Return the model of layers as a file has them: a convolution by its outputs, kernel, stride and padding, ..."""
    return network.Model("own", tuple(entries))


def convolution(outputs, kernel=3, stride=1, padding=0, batch_norm=False):
    return {"type": "convolution", "outputs": outputs, "kernel": kernel, "stride": stride, "padding": padding,
            "batch_norm": batch_norm}


def pooling(kind, size, stride=None):
    return {"type": f"{kind}-pool", "size": size} | ({} if size == "global" else {"stride": stride or size})


def linear(outputs=None, batch_norm=False):
    return {"type": "linear", "batch_norm": batch_norm} | ({} if outputs is None else {"outputs": outputs})


# Whole networks.

OWN = model(convolution(4, 3, 1, 1, batch_norm=True), pooling("max", 2), convolution(3, 2, 2, 1),
            pooling("mean", "global"), {"type": "flatten"}, linear(5, batch_norm=True), linear())


def test_layers_follow_from_the_file_and_the_data():
    assert OWN.layers(images()) == (
        Convolution(6, 7, 2, 4, 3, 1, 1, True, Pool("max", 6, 7, 4, (2, 2), 2)),
        Convolution(3, 3, 4, 3, 2, 2, 1, False, Pool("mean", 2, 2, 3, (2, 2), 2)), Linear(3, 5, True), Linear(5, 3))
    assert model(convolution(4), pooling("mean", "global"), linear()).layers(images())[1] == Linear(4, 3)
    assert model(convolution(4), linear()).layers(images()) == (Convolution(6, 7, 2, 4), Linear(4 * 5 * 4, 3))
    assert model(linear(9), linear(3)).layers(images()) == (Linear(84, 9), Linear(9, 3))


@pytest.mark.parametrize(("name", "hidden", "batch_norm", "entries"), [
    ("mlp", (5, 4), False, (linear(5), linear(4), linear())),
    ("mlp", (5,), True, (linear(5, True), linear())),
    ("cnn", (2, 3), False, (convolution(2), convolution(3, stride=2), linear())),
    ("cnn", (2, 3), True, (convolution(2, batch_norm=True), convolution(3, stride=2, batch_norm=True), linear())),
])
def test_a_file_of_the_built_in_layers_has_their_digest(name, hidden, batch_norm, entries):
    runs = [network.train(make("fp32"), images(), epochs=2, batch=3, **settings) for settings in (
        {"model": name, "hidden": hidden, "batch_norm": batch_norm}, {"model": model(*entries)})]
    assert runs[0].digest == runs[1].digest and runs[0].layers == runs[1].layers


@pytest.mark.parametrize("recipe", [
    *(make(name) for name in ("fp16", "bfp", "mx", "lns-madam", "fast")), make("system", system="int8"),
    work_in(make("fp32"), "bf16")], ids=lambda recipe: f"{recipe.name}-{recipe.work.width}")
def test_every_recipe_trains_every_layer_and_repeats_itself(recipe):
    runs = [network.train(recipe, images(), epochs=1, batch=4, model=OWN) for _ in range(2)]
    assert runs[0].digest == runs[1].digest and runs[0].diverged is None and np.isfinite(runs[0].history[0].loss)


def test_activations_of_products_are_pooled_and_padded():
    shapes = {}

    def keep(step, layer, gemm, kind, array, axis):
        shapes[layer, gemm, kind] = array.shape

    network.train(make("fp32"), images(), epochs=1, batch=8, model=OWN, record=keep)
    assert shapes[1, "forward", "activations"] == (8 * 2 * 2, 2 * 2 * 4)  # of 3 x 3 pooled pixels, padded
    assert shapes[2, "forward", "activations"] == (8, 3)
    assert shapes[0, "weight-gradient", "gradients"] == (8 * 6 * 7, 4)  # those of the maxima, and zeros


def test_a_run_of_a_models_own_is_saved_and_goes_on(tmp_path):
    recipe, path, settings = make("fp32"), tmp_path / "run.npz", {"batch": 3, "model": OWN}
    network.train(recipe, images(), epochs=1, save=path, **settings)
    whole, resumed = (network.train(recipe, images(), epochs=2, resume=resume, **settings) for resume in (None, path))
    assert whole.state_digest == resumed.state_digest
    other = model(OWN.entries[0] | {"padding": 0}, *OWN.entries[1:])
    with pytest.raises(ValueError, match=r"layers\.0\.padding"):
        network.train(recipe, images(), epochs=2, resume=path, batch=3, model=other)


@pytest.mark.parametrize(("entry", "message"), [
    (convolution(4, batch_norm=True), "batch statistics of layer 1 is True; allowed: false: a core has none yet"),
    (convolution(4), r"pooling of layer 1 is Pool\(.*\); allowed: None: a core has none yet"),
])
def test_a_core_refuses_what_it_does_not_have_yet(entry, message):
    recipe = work_in(make("bfp"), "bf16").with_head(3)
    plain, own = (core.Run(recipe, model(*entries).layers(images()), 8, batch=4) for entries in (
        (convolution(4), linear()), (entry, *([pooling("max", 2)] if "Pool" in message else []), linear())))
    with pytest.raises(ValueError, match=f"^{message}$"):
        core.compiled(core.trainer_of(plain), own)


# Files.

def write(folder, text, name="net.toml"):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_toml_and_json_tell_the_same_and_defaults_are_filled_in(tmp_path):
    toml = write(tmp_path, """
        layer = [
            {type = "convolution", outputs = 4, padding = 1, batch_norm = true},
            {type = "max-pool", size = 2}, {type = "convolution", outputs = 3, kernel = 2, stride = 2, padding = 1},
            {type = "mean-pool", size = "global"}, {type = "flatten"},
            {type = "linear", outputs = 5, batch_norm = true}, {type = "linear"}]""")
    layers = [{"type": "convolution", "outputs": 4, "padding": 1, "batch_norm": True}, {"type": "max-pool", "size": 2},
              {"type": "convolution", "outputs": 3, "kernel": 2, "stride": 2, "padding": 1},
              {"type": "mean-pool", "size": "global"}, {"type": "flatten"},
              {"type": "linear", "outputs": 5, "batch_norm": True}, {"type": "linear"}]
    found = [network.read_model(toml), network.find_model(write(tmp_path, json.dumps({"layer": layers}), "net.JSON"))]
    assert [each.name for each in found] == [toml, str(tmp_path / "net.JSON")]
    assert found[0].entries == found[1].entries
    assert found[0].layers(images()) == OWN.layers(images())
    assert found[0].entries[1] == {"type": "max-pool", "size": 2, "stride": 2}
    assert network.find_model("cnn") == "cnn"
    # Entries are themselves a file again.
    again = write(tmp_path, json.dumps({"layer": found[0].entries}), "more.json")
    assert network.read_model(again).entries == found[0].entries


def test_the_page_shows_the_example():
    page = (EXAMPLE.parents[1] / "docs" / "models.md").read_text()
    shown = re.search(r"<!-- example -->\n```toml\n(.*?)```\n<!-- end -->", page, re.DOTALL)[1]
    assert EXAMPLE.read_text().endswith("\n\n" + shown)


@needs_digits
def test_the_example_is_learnt():
    result = network.train(make("bfp"), load("digits").first(600, None), epochs=2, model=network.read_model(EXAMPLE))
    assert result.accuracy["test"] > 0.6
    assert result.layers[-1] == Linear(2 * 2 * 16, 10)


LAST = '[[layer]]\ntype = "linear"\n'


def behind(keys, *more):
    """Return a file of a convolution with these keys, other layers by their keys, and a linear one."""
    rows = [f'{{type = "convolution", outputs = 4{keys}}}', *(f"{{type = {row}}}" for row in more), '{type = "linear"}']
    return f"layer = [{', '.join(rows)}]"



@pytest.mark.parametrize(("text", "message"), [
    ("", ": layer is None; allowed: a list of one layer or more"),
    ("layer = []", r": layer is \[\]; allowed: a list of one layer or more"),
    ("layer = 3", ": layer is 3; allowed: a list .*"),
    ("layers = []", ": key is 'layers'; allowed: layer"),
    ("layer = [3]", ": layer 1 is 3; allowed: an object with type"),
    ("layer = [{}]", ": layer 1: type is None; allowed: convolution, linear, max-pool, mean-pool, flatten"),
    (LAST + 'outputs = 2\n[[layer]]\ntype = "conv"', ": layer 2: type is 'conv'; allowed: convolution, linear, .*"),
    (LAST.replace("linear", "convolution") + "output = 3",
     ": layer 1: key is 'output'; allowed: type, outputs, kernel, stride, padding, batch_norm"),
    (LAST + "kernel = 3", ": layer 1: key is 'kernel'; allowed: type, outputs, batch_norm"),
    (LAST + LAST, ": layer 1: outputs is missing; allowed: an integer from 1 to 65536"),
    (LAST + "outputs = 0", ": layer 1: outputs is 0; allowed: an integer from 1 to 65536"),
    (LAST + "outputs = true", ": layer 1: outputs is True; allowed: an integer from 1 to 65536"),
    (LAST + "outputs = 3.0", r": layer 1: outputs is 3\.0; allowed: an integer .*"),
    (LAST + "batch_norm = 1\noutputs = 2\n" + LAST, ": layer 1: batch_norm is 1; allowed: true, false"),
    (LAST + "batch_norm = true", ": layer 1: batch_norm is True; allowed: false, because the layer is the last"),
    ('layer = [{type = "convolution", outputs = 4}]', ": layer 1: type is 'convolution'; allowed: linear, because .*"),
    (behind("097"), ": layer 1: outputs is 4097; allowed: an integer from 1 to 4096"),
    (behind(", kernel = 65"), ": layer 1: kernel is 65; allowed: an integer from 1 to 64"),
    (behind(", stride = 0"), ": layer 1: stride is 0; allowed: an integer from 1 to 64"),
    (behind(", padding = 3"), ": layer 1: padding is 3; allowed: an integer from 0 to 2"),
    ('layer = [{type = "max-pool", size = 2}, {type = "linear"}]',
     ": layer 1: type is 'max-pool'; allowed: convolution, linear, flatten, because a pooling stands right behind .*"),
    (behind("", '"max-pool", size = 2', '"mean-pool", size = 2'),
     ": layer 3: type is 'mean-pool'; allowed: .*"),
    (behind("", '"max-pool"'),
     ": layer 2: size is missing; allowed: an integer from 1 to 64, or 'global'"),
    (behind("", '"max-pool", size = 3, stride = 2'),
     ": layer 2: stride is 2; allowed: an integer from 3 to 64: size or more, so that no windows overlap"),
    (behind("", '"max-pool", size = "all"'),
     ": layer 2: size is 'all'; allowed: an integer from 1 to 64, or 'global'"),
    (behind("", '"max-pool", size = "global", stride = 1'),
     ": layer 2: stride is 1; allowed: none, because the size is global"),
    ((LAST + "outputs = 2\n") * 32 + LAST,
     ": layer 33: linear layers and convolutions up to here is 33; allowed: at most 32"),
    ("layer = ", r": not TOML \(Invalid value .*\)"),
    ("a = " + "[" * 20000, r": not TOML \(.*\)"),
    ("#" * 65537, ": bytes is 'more than 65536'; allowed: at most 65536"),
])
def test_bad_files_are_named_by_layer(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(path)}{message}$"):
        network.read_model(path)


@pytest.mark.parametrize(("text", "message"), [
    ("[]", r" is \[\]; allowed: an object with layer"),
    ('{"layer": [{"type": "linear", "type": "linear"}]}', r": not JSON \(a key stands twice in an object\)"),
    ('{"layer": [{"type": "linear", "outputs": NaN}]}', ": layer 1: outputs is nan; allowed: an integer .*"),
    ("[" * 50000, r": not JSON \(.*\)"), ("{", r": not JSON \(.*\)"), ("", r": not JSON \(.*\)"),
])
def test_bad_json_is_named(tmp_path, text, message):
    path = write(tmp_path, text, "net.json")
    with pytest.raises(ValueError, match=f"^{re.escape(path)}{message}$"):
        network.read_model(path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^none\.toml: No such file or directory; expected a model file$"):
        network.find_model("none.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ValueError, match=r"folder\.toml: Is a directory; expected a model file$"):
        network.find_model(str(tmp_path / "folder.toml"))
    (tmp_path / "net.toml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"net\.toml: not TOML \('utf-8' codec .*\)$"):
        network.find_model(str(tmp_path / "net.toml"))
    with pytest.raises(ValueError, match=r"^model is 'net'; allowed: mlp, cnn, or a file whose name ends in .toml or"):
        network.find_model("net")
    with pytest.raises(ValueError, match=r"^model is 'net\.yaml'; allowed: a file whose name ends in .toml or .json$"):
        network.read_model("net.yaml")


@pytest.mark.parametrize(("entries", "data", "message"), [
    ((convolution(4), linear()), {"image": None, "channels": 1},
     "layer 1: type is 'convolution'; allowed: linear, because its input is 84 numbers and no image"),
    (({"type": "flatten"}, convolution(4), linear()), {},
     "layer 2: type is 'convolution'; allowed: linear, because its input is 84 numbers and no image"),
    ((linear(4), {"type": "flatten"}, linear()), {},
     "layer 2: type is 'flatten'; allowed: linear, because .* 4 numbers .*"),
    ((convolution(4, 7), linear()), {},
     "layer 1: kernel is 7; allowed: an integer from 1 to 6, because the image is 6 x 7 pixels with a padding of 0"),
    ((convolution(4, 5), convolution(4, 5, padding=1), linear()), {},
     "layer 2: kernel is 5; allowed: an integer from 1 to 4, because the image is 2 x 3 pixels with a padding of 1"),
    ((convolution(4), pooling("max", 5), linear()), {},
     "layer 2: size is 5; allowed: an integer from 1 to 4, or 'global', because the image is 4 x 5 pixels"),
    ((linear(4), linear(4)), {},
     "layer 2: outputs is 4; allowed: 3, the classes of images, because the layer is the last"),
    ((linear(60000), linear(60000), linear()), {},
     "layer 2: weights up to here is 3605040000; allowed: at most 67108864"),
    ((convolution(4096, 1), convolution(4096, 5, 1, 2), linear()), {},
     "layer 2: numbers of an example is 4300800; allowed: at most 4194304"),
])
def test_layers_that_do_not_fit_the_data_are_named(entries, data, message):
    dataset = dataclasses.replace(images(), **data)
    with pytest.raises(ValueError, match=f"^own: {message}$"):
        model(*entries).layers(dataset)


@pytest.mark.parametrize(("settings", "message"), [
    ({"hidden": (3,)}, r"hidden is \(3,\); allowed: none, because the model is a file, which has its own"),
    ({"batch_norm": True}, "batch_norm is True; allowed: false, because the model is a file, which says it by layer"),
    ({"model": "net.toml"}, r"model is 'net\.toml'; allowed: mlp, cnn, or a Model, which read_model gives"),
    ({"model": None}, "model is None; allowed: mlp, cnn, or a Model, .*"),
])
def test_settings_of_built_in_models_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        network.train(make("fp32"), images(), **{"batch": 4, "model": OWN} | settings)

