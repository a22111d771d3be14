"""Files of saved training runs: whole or not at all; what is no file of the run is refused in one line."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import zipfile

import numpy as np
import pytest
from narrowgauge.base import files
from narrowgauge.golden import network
from narrowgauge.golden.network import saved
from narrowgauge.golden.recipes import keep, make
from saved_runs import RUN, case_of, data, f32, head, members, resume, run_of, same


@pytest.fixture
def path(tmp_path):
    """The file of a run of two epochs, in a folder of its own."""
    made = tmp_path / "run.npz"
    network.train(make("bfp"), data(), save=made, **RUN)
    return made


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("broken", ["half", "replace"])
def test_a_file_is_written_whole_or_not_at_all(broken, error, path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise error

    if broken == "replace":
        monkeypatch.setattr(files.os, "replace", fail)
    else:
        real = files.whole

        class Slow:
            def __init__(self, file):
                self.file = file

            def write(self, content):
                self.file.write(content[:len(content) // 2])
                self.file.flush()
                fail()

        @contextlib.contextmanager
        def whole(where):
            with real(where) as file:
                yield Slow(file)

        monkeypatch.setattr(saved, "whole", whole)
    # After the interrupt in the file of the first epoch, there is a second one in the file that answers it.
    with pytest.raises(type(error)):
        network.train(make("bfp"), data(), save=path, **RUN)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["run.npz"]


def changed(**arrays):
    return dataclasses.replace(data(), **arrays)


@pytest.mark.parametrize("recipe, dataset, settings, message", [
    (None, None, {"seed": 4}, "seed is 4; allowed: 3"),
    (None, None, {"batch": 5}, "batch is 5; allowed: 4"),
    (None, None, {"lr": 0.5}, "lr is 0.5; allowed: 0.3"),
    (None, None, {"lr_drops": (0.5,)}, "lr_drops is [0.5]; allowed: []"),
    (None, None, {"momentum": 0.5}, "momentum is 0.5; allowed: 0.9"),
    (None, None, {"decay": 0.5}, "decay is 0.5; allowed: 0"),
    (None, None, {"batch_norm": True}, "layers.0.normalised is True; allowed: False"),
    (None, None, {"measure_every": 2}, "measure_every is 2; allowed: 1"),
    (None, None, {"hidden": (6,)}, "layers.0.outputs is 6; allowed: 5"),
    (None, None, {"hidden": (5, 5)}, "number of layers is 3; allowed: 2"),
    (None, changed(name="large", train_x=data().train_x / 2), {}, "data.name is 'large'; allowed: 'small'"),
    (None, changed(test_x=data().train_x, test_y=data().train_y), {}, "data.examples.test is 11; allowed: 5"),
    (None, changed(classes=4), {}, "data.classes is 4; allowed: 3"),
    (None, data(7, (7, 1)), {"lr": 0.5}, "lr is 0.5; allowed: 0.3"),
    (make("bfp", mantissa=5), None, {}, "recipe.system.mantissa is 5; allowed: 4"),
    (make("bfp", weights_rounding="stochastic"), None, {}, "recipe.modes.weights.rounding is 2; allowed: 0"),
    (make("fp32"), None, {}, "recipe.name is 'fp32'; allowed: 'bfp'"),
    (keep(make("bfp"), "bf16"), None, {}, "recipe.kept.format is 'bf16'; allowed: None"),
    (keep(make("bfp"), None, "kahan"), None, {}, "recipe.kept.update is 'kahan'; allowed: 'plain'"),
    (head(make("bfp")), None, {}, "recipe.softmax is {'type': 'SoftmaxParameters', "),
    (make("bfp", weights_precision={"policy": "cyclic", "low": 3, "high": 4, "cycles": 2}), None, {},
     "recipe.precision is {'type': 'Policies', 'weights': {'type': 'Cyclic', 'low': 3, 'high': 4, 'cycles': 2}, "),
])
def test_another_configuration_is_refused_by_what_differs_first(recipe, dataset, settings, message, path):
    before = path.read_bytes()
    with pytest.raises(ValueError) as error:
        network.train(recipe or make("bfp"), dataset or data(), resume=path, save=path, **{**RUN, **settings})
    assert str(error.value).startswith(message) and str(error.value).endswith(f", as in {path}")
    assert path.read_bytes() == before


def test_a_setting_of_the_file_alone_is_told_in_one_line(path):
    run = run_of(path)
    run["configuration"]["recipe"]["two\nlines"] = "more\nlines" * 100
    rewrite(path, run=run)
    match = r"^recipe\.two\\nlines is None; allowed: 'more\\nlines.*\.\.\., as in "
    with pytest.raises(ValueError, match=match) as error:
        resume(path)
    assert one_line(error, path)


def test_other_values_of_the_same_shape_are_other_data(path):
    for part in ("train_x", "train_y", "test_x", "test_y"):
        array = getattr(data(), part).copy()
        array[0] = 2 - array[0]
        with pytest.raises(ValueError, match="^data.sha256 is '[0-9a-f]{64}'; allowed: '[0-9a-f]{64}', as in "):
            network.train(make("bfp"), changed(**{part: array}), resume=path, **RUN)
    # The name is no part of the contents.
    assert network.train(make("bfp"), changed(name="elsewhere"), resume=path, **RUN).digest


def test_a_number_system_of_ones_own_counts_by_its_name_and_settings():
    from posit8 import Posit8System
    described = saved.describe(Posit8System())
    assert described["type"] == "Posit8System" and described == json.loads(json.dumps(described))
    fields = {field.name for field in dataclasses.fields(Posit8System)}
    assert described.keys() == fields | {"type"}


def rewrite(path, run=None, **arrays):
    """Write the file again with other numbers or arrays; None leaves an array out."""
    found = members(path)
    if run is not None:
        found["run"] = np.frombuffer(json.dumps(run).encode(), np.uint8)
    found = {name: array for name, array in (found | arrays).items() if array is not None}
    np.savez(path, **found)


def test_a_file_is_plain_npz(path):
    """Read by NumPy alone, it has the bits of the run; NumPy's own npz of it is taken too."""
    result, found = network.train(make("bfp"), data(), **RUN), members(path)
    for i, (weights, bias) in enumerate(result.parameters):
        assert found[f"{i}.weights.parameter"].view(f32).tobytes() == weights.tobytes()
        assert found[f"{i}.bias.parameter"].view(f32).tobytes() == bias.tobytes()
    velocities = [found[f"{i}.{name}.velocity"] for i in (0, 1) for name in ("weights", "bias")]
    assert hashlib.sha256(b"".join(each.tobytes() for each in velocities)).hexdigest() == result.state_digest
    assert run_of(path)["generator"]["bit_generator"] == "PCG64" and run_of(path)["step"] == 6
    rewrite(path)
    assert same(network.train(make("bfp"), data(), resume=path, **RUN), result)


def one_line(error, path):
    text = str(error.value)
    return str(path) in text and "\n" not in text and len(text) < 600


def test_a_cut_or_harmed_file_is_refused(path):
    content = path.read_bytes()
    whole = resume(path)
    for size in [*range(0, len(content), 397), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="damaged, or no saved run of training") as error:
            resume(path)
        assert one_line(error, path)
    harmless = 0
    for place in range(0, len(content), 29):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1:])
        try:
            result = resume(path)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            # Such as a date in the archive's list.
            harmless += 1
            assert same(result, whole)
    assert harmless < len(content) / 29 / 4


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("kind, message", [
    ("text", "damaged, or no saved run of training (File is not a zip file)"),
    ("other arrays", "its members cannot be right; expected a saved run of training"),
    ("objects", "run is not uint8 of shape"), ("compressed", "run is compressed; expected a saved run of training"),
    ("bomb", "0.bias.velocity is not float32 of shape (5,); expected a saved run of training"),
    ("long", "its size of run cannot be right; expected a saved run of training"),
    ("huge header", "0.bias.velocity is not float32 of shape (5,); expected a saved run of training"),
    ("twice", "its members cannot be right"), ("missing", "it has no '1.bias.velocity.npy'"),
    ("more", "it has a foreign '2.bias.velocity.npy'"),
    ("dtype", "0.bias.velocity is not float32 of shape (5,)"),
    ("shape", "0.bias.velocity is not float32 of shape (5,)"),
    ("order", "0.weights.velocity is not float32 of shape (5, 7)"),
    ("folder", "no plain file"), ("deep", "damaged, or no saved run of training"), ("no object", "damaged"),
    ("version", "version 2, where this program knows 1"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_foreign_file_is_refused(kind, message, path, tmp_path):
    found, zeros = members(path), np.zeros(1 << 24, np.uint8)
    if kind == "text":
        path.write_text("{}")
    elif kind == "other arrays":
        np.savez(path, x=np.arange(3))
    elif kind == "objects":
        np.savez(path, **(found | {"run": np.array([Bomb()], object)}))
    elif kind == "compressed":
        np.savez_compressed(path, **found)
    elif kind == "bomb":
        np.savez(path, **found)
        with zipfile.ZipFile(path) as archive:
            rest = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in rest.items():
                if name == "0.bias.velocity.npy":
                    archive.writestr(name, content[:128] + zeros.tobytes())
                else:
                    archive.writestr(name, content)
    elif kind == "long":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("run.npy", bytes((1 << 26) + 200))
    elif kind == "huge header":
        with zipfile.ZipFile(path) as archive:
            rest = {info.filename: archive.read(info) for info in archive.infolist()}
        rest["0.bias.velocity.npy"] = rest["0.bias.velocity.npy"].replace(b"(5,), }       ", b"(5000000000,), }")
        assert len(rest["0.bias.velocity.npy"]) == 128 + 20 + 2
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in rest.items():
                archive.writestr(name, content)
    elif kind == "twice":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("run.npy", b"")
    elif kind == "missing":
        rewrite(path, **{"1.bias.velocity": None})
    elif kind == "more":
        rewrite(path, **{"2.bias.velocity": np.zeros(3, f32)})
    elif kind == "dtype":
        rewrite(path, **{"0.bias.velocity": np.zeros(5, np.int32)})
    elif kind == "shape":
        rewrite(path, **{"0.bias.velocity": np.zeros((5, 1), f32)})
    elif kind == "order":
        rewrite(path, **{"0.weights.velocity": np.asfortranarray(found["0.weights.velocity"])})
    elif kind == "folder":
        path = tmp_path / "folder"
        path.symlink_to("/dev/null")
    elif kind == "deep":
        rewrite(path, run=None)
        np.savez(path, **(found | {"run": np.frombuffer(b"[" * 100000, np.uint8)}))
    elif kind == "no object":
        rewrite(path, run=[1])
    else:
        rewrite(path, run=run_of(path) | {"version": 2})
    with pytest.raises(ValueError) as error:
        resume(path)
    assert message in str(error.value) and one_line(error, path)


JUNK = [None, True, -1, 0.5, 10**30, float("nan"), "text", [], [[1]], {"step": 1}]


def places(data, *before):
    """Yield the keys that lead to each value in JSON data."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from places(value, *before, key)


def test_junk_among_the_numbers_is_refused(path):
    recipe = make("fast")
    network.train(recipe, data(), save=path, **RUN)
    run, digest = run_of(path), resume(path, recipe).digest
    run["account"]["products"] = run["account"]["products"][:1]
    tried = [place for place in places(run) if place[0] != "configuration"]
    tried += [("configuration",), ("configuration", "epochs"), ("configuration", "data"), ("configuration", "layers"),
              ("configuration", "recipe", "system"), ("configuration", "data", "sha256")]
    refusals = 0
    for number, place in enumerate(tried):
        # Two kinds of junk at a place, all kinds at every fifth one.
        for junk in JUNK[number % 5::5]:
            harmed = json.loads(json.dumps(run))
            inner = harmed
            for key in place[:-1]:
                inner = inner[key]
            before, inner[place[-1]] = inner[place[-1]], junk
            rewrite(path, run=harmed)
            try:
                assert resume(path, recipe).digest == digest, (place, junk)
            except ValueError as error:
                assert "\n" not in str(error) and str(path) in str(error), (place, junk)
                refusals += 1
            else:
                # What a run may have, and no products at all.
                assert type(junk) is type(before) and junk in (None, True, []), (place, junk)
    assert refusals > 1.7 * len(tried)


@pytest.mark.parametrize("case, name, value", [
    ("bfp, stochastic", "widths", 1), ("bfp, stochastic", "widths", 5), ("bfp, stochastic", "history", 1.5),
    ("a head", "losses", -1), ("kahan", "0.weights.parameter", 1 << 16), ("kahan", "0.gain.velocity", 1 << 16),
    ("kahan", "0.gain.compensation", 1 << 16), ("fixed point", "0.weights.parameter", 256),
    ("fixed point", "0.weights.compensation", 256), ("fixed point of bf16", "1.bias.velocity", 1 + 2**-10),
    ("bf16", "0.mean", 1 + 2**-10), ("lns-madam", "0.weights.parameter", 1 << 16),
    ("lns-madam", "0.weights.parameter", 0), ("lns-madam", "0.weights.second", 1024),
    ("lns-madam", "0.weights.bound", 0), ("lns-madam", "0.weights.scale", 128),
    ("lns-madam, fp32 moments", "0.weights.second", -1), ("lns-madam, fp32 moments", "0.weights.start_part", 2),
])
def test_values_that_no_run_has_are_refused(case, name, value, path):
    recipe, dataset, settings = case_of(case)
    network.train(recipe, dataset, save=path, **settings)
    network.train(recipe, dataset, resume=path, **settings)
    array = members(path)[name].copy()
    array[(-1,) * array.ndim] = value
    rewrite(path, **{name: array})
    with pytest.raises(ValueError, match=f"{name}|widths|history|losses|weights") as error:
        network.train(recipe, dataset, resume=path, **settings)
    assert one_line(error, path)


@pytest.mark.parametrize("recipe, settings, message", [
    (make("fp32"), {"hidden": (6,)}, "layers.0.outputs is 6; allowed: 5"),
    (make("fp32"), {"hidden": ()}, "number of layers is 1; allowed: 2"),
    (make("fp32"), {"batch_norm": True}, "layers.0.normalised is True; allowed: False"),
    (make("fp16"), {}, "formats.0.weights is 'fp16'; allowed: 'fp32'"),
    (keep(make("fp32"), "bf16"), {}, "formats.0.weights is 'bf16'; allowed: 'fp32'"),
    (make("lns-madam"), {}, "formats.0.weights is 'lns16-update'; allowed: 'fp32'"),
])
def test_parameters_of_other_layers_or_formats_are_no_start(recipe, settings, message, path):
    with pytest.raises(ValueError) as error:
        network.train(recipe, data(), start=path, **{**RUN, **settings})
    assert str(error.value) == f"{message}, as in {path}"


@pytest.mark.parametrize("place, message", [
    ("-", "save is '-'; allowed: a plain file"), ("/dev/null", "save is '/dev/null'; allowed: a plain file"),
    ("no/such/run.npz", "save is 'no/such/run.npz'; allowed: a file that can be written "),
])
def test_a_place_that_cannot_be_written_is_told_before_any_training(place, message):
    with pytest.raises(ValueError) as error:
        network.train(make("bfp"), data(), save=place, record=lambda *_: pytest.fail("trained"), **RUN)
    assert str(error.value).startswith(message)


def test_a_run_is_not_both_started_and_resumed(path):
    with pytest.raises(ValueError, match="^start is .*; allowed: None, because the run is resumed$"):
        network.train(make("bfp"), data(), start=path, resume=path, **RUN)
