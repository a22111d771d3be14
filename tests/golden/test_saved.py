"""Saved training runs: a run that stops and goes on has the bits of one that never stopped; other files are refused."""

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
from narrowgauge.golden.datasets import Dataset
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.network import saved
from narrowgauge.golden.recipes import keep, make, work_in
from narrowgauge.golden.softmax import SoftmaxParameters

f32 = np.float32
RUN = {"seed": 3, "epochs": 2, "batch": 4, "hidden": (5,), "lr": 0.3}  # 11 examples: the last of 3 steps has 3


def data(features=7, image=None, odd=None):
    rng = np.random.default_rng(4)
    x, y = rng.random((11, features)).astype(f32), rng.integers(0, 3, 11)
    if odd is not None:
        x[7, 0] = odd
    return Dataset("small", x, y, x[:5], y[:5], 3, image)


def head(recipe, **settings):
    return dataclasses.replace(recipe, softmax=SoftmaxParameters(classes=3, bits=6, **settings))


CNN = {"model": "cnn", "hidden": (2, 3)}
CASES = {
    "fp32": (make("fp32"), {}),
    "fp32 with all settings": (make("fp32"), {"batch_norm": True, "decay": 0.01, "lr_drops": (0.4, 0.7), "hidden": ()}),
    "cnn": (make("bfp"), {**CNN, "batch_norm": True}),
    "bfp, stochastic": (make("bfp", weights_rounding="stochastic"), {}),
    "fast": (make("fast", alpha=0.4), {"hidden": (9, 5)}),
    "fast, no lag": (make("fast", lag=0, reverse=True), {}),
    "cpt": (make("cpt", cycles=2), CNN),
    "fp16": (make("fp16", loss_scale=1 << 18, growth_interval=2), {}),
    "fp16, batch statistics": (make("fp16"), {"batch_norm": True}),
    "mx": (make("mx"), {}),
    "bf16": (work_in(make("fp32"), "bf16"), {"batch_norm": True}),
    "bf16, a head of stochastic errors": (head(work_in(make("fp32"), "bf16"), rounding="stochastic"), {}),
    "a head": (head(make("fp32")), {"measure_every": 2}),
    "kahan": (keep(make("fp32"), "bf16", "kahan"), {"batch_norm": True}),
    "stochastic": (keep(make("fp32"), "bf16", "stochastic"), {}),
    "grow": (keep(make("bfp"), "bf16", "grow"), {}),
    "fixed point": (keep(make("fp32"), {"type": "Fixed", "bits": 8, "fraction": 5}, "kahan"), {}),
    "fixed point of bf16": (keep(work_in(make("fp32"), "bf16"), {"type": "Fixed", "bits": 8, "fraction": 5}), {}),
    "lns-madam": (make("lns-madam", rate_drops=[0.5]), {"batch_norm": True}),
    "lns-madam, fp32 moments": (make("lns-madam", second="fp32"), {}),
    "lns-madam, SGD": (make("lns-madam", update="sgd"), CNN),
    "lns-madam, sums that saturate": (make("lns-madam"), {"odd": 3e38}),
    "fp32 that diverges": (make("fp32"), {"odd": 3e38, "lr": 10}),
    "bfp that meets a NaN": (make("bfp"), {"odd": np.nan}),
}


def case_of(name):
    """Return the recipe, the data and the settings of a case."""
    recipe, settings = CASES[name]
    settings = {**RUN, **settings}
    odd = settings.pop("odd", None)
    return recipe, data(64, (8, 8), odd) if "model" in settings else data(odd=odd), settings


def chain(path, recipe, dataset, settings):
    """Train, stopped within every step but the first after each start; return the result, and how many stops."""
    stops = 0
    while True:
        def record(step, layer, gemm, kind, array, axis):
            nonlocal begun
            begun = step if begun is None else begun
            # At the step's first product, or at its last one, when other parts of the step have been done.
            if step == begun + 1 and (step % 2 == 0 or (gemm, layer) == ("weight-gradient", 0)):
                raise KeyboardInterrupt
        begun = None
        try:
            resume = path if stops else None
            return network.train(recipe, dataset, save=path, resume=resume, record=record, **settings), stops
        except KeyboardInterrupt as error:
            stops += 1
            assert str(error) == f"interrupted after {stops} of 6 steps; resume from {path}"


def told(result):
    """All that a run ends with."""
    return {name: getattr(result, name) for name in (
        "digest", "state_digest", "history", "precision", "diverged", "invalid", "overflow", "skipped", "loss_scale",
        "start")}


def same(one, other):
    """Whether two results tell the same; losses that are NaN are."""
    return repr(told(one)) == repr(told(other))


@pytest.mark.parametrize("case", CASES)
def test_a_run_stopped_at_every_step_has_the_bits_of_one_that_never_stopped(case, tmp_path):
    recipe, dataset, settings = case_of(case)
    whole = network.train(recipe, dataset, **settings)
    result, stops = chain(tmp_path / "run.npz", recipe, dataset, settings)
    assert stops == 5
    assert same(result, whole) and os.listdir(tmp_path) == ["run.npz"]
    # Saved when all was done: the file alone has the result.
    assert same(network.train(recipe, dataset, resume=tmp_path / "run.npz", **settings), whole)


def test_the_cases_reach_what_they_are_for():
    def run(case):
        recipe, dataset, settings = case_of(case)
        return network.train(recipe, dataset, **settings)
    assert run("fp16").skipped == 2 and run("fp16").loss_scale > 1 << 16
    assert run("lns-madam, sums that saturate").overflow
    assert run("fp32 that diverges").diverged == {"epoch": 1, "step": 1}
    assert run("bfp that meets a NaN").invalid
    widths = run("fast").precision["widths"]
    assert any(len(layer) > 1 for kind in widths.values() for layer in kind)


@pytest.fixture
def path(tmp_path):
    """The file of a run of two epochs, in a folder of its own."""
    made = tmp_path / "run.npz"
    network.train(make("bfp"), data(), save=made, **RUN)
    return made


def refused(path, message, recipe=None, dataset=None, **settings):
    """Require that a resumed run is refused with this line, before it trains, and that the file stays."""
    before = path.read_bytes()
    with pytest.raises(ValueError) as error:
        network.train(recipe or make("bfp"), dataset or data(), resume=path, save=path,
                      record=lambda *_: pytest.fail("trained"), **{**RUN, **settings})
    assert str(error.value) == message.format(path=path)
    assert path.read_bytes() == before


def test_the_state_is_saved_after_each_epoch(tmp_path):
    path, digests = tmp_path / "run.npz", []

    def progress(epoch, epochs, row):
        if epoch > 1:
            digests.append(network.train(make("bfp"), data(), resume=path, **{**RUN, "epochs": epoch - 1}).digest)

    network.train(make("bfp"), data(), save=path, progress=progress, **{**RUN, "epochs": 4})
    assert digests == [network.train(make("bfp"), data(), **{**RUN, "epochs": each}).digest for each in (1, 2, 3)]


def test_an_interrupt_while_accuracy_is_measured_repeats_the_measuring(tmp_path, monkeypatch):
    recipe, dataset, settings = case_of("a head")
    whole, path = network.train(recipe, dataset, **settings), tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        patch.setattr(network.run, "_evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt, match="interrupted after 6 of 6 steps"):
            network.train(recipe, dataset, save=path, **settings)
    steps = []
    result = network.train(recipe, dataset, resume=path, record=lambda step, *_: steps.append(step), **settings)
    assert same(result, whole) and steps == []


def test_without_a_file_an_interrupt_is_as_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt) as error:
        network.train(make("bfp"), data(), progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("mine")), **RUN)
    assert str(error.value) == "mine"


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


@pytest.mark.parametrize("recipe, settings, reason", [
    (make("fp32"), {"lr_drops": (0.5,)}, "lr_drops are parts of the whole run"),
    (make("lns-madam", rate_drops=[0.5]), {}, "rate_drops are parts of the whole run"),
    (make("cpt"), {}, "the precision depends on the length of the run"),
    (make("fast"), {}, "the precision depends on the length of the run"),
], ids=["lr drops", "rate drops", "cpt", "fast"])
def test_another_total_is_refused_where_something_depends_on_it(recipe, settings, reason, tmp_path):
    path = tmp_path / "run.npz"
    network.train(recipe, data(), save=path, **RUN, **settings)
    refused(path, f"epochs is 3; allowed: 2, as in {{path}}, because {reason}", recipe, epochs=3, **settings)


@pytest.mark.parametrize("recipe, stop", [
    (make("fp16"), 3), (make("fp16"), 4), (make("fp16"), 6), (make("fast", beta=0), 4), (make("cpt", low=8), 4),
    (make("lns-madam", rate_drops=[]), 4), (head(make("fp32")), 3)],
    ids=["fp16-3", "fp16-4", "fp16-6", "fast", "cpt", "lns-madam", "head"])
def test_a_run_goes_on_to_another_total_where_nothing_depends_on_it(recipe, stop, tmp_path):
    path = tmp_path / "run.npz"

    def record(step, *_):
        if step == stop:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        network.train(recipe, data(), save=path, record=record, **RUN)
    for epochs in {3: (3, 2, 1), 4: (3, 2), 6: (3,)}[stop]:
        other = network.train(recipe, data(), resume=path, **{**RUN, "epochs": epochs})
        assert same(other, network.train(recipe, data(), **{**RUN, "epochs": epochs}))
    if stop > 3:
        refused(path, "epochs is 1; allowed: 2 or more, as in {path}", recipe, epochs=1)


def test_a_last_epoch_that_was_measured_as_the_last_stays_the_last(tmp_path):
    path, settings = tmp_path / "run.npz", {"measure_every": 2, "epochs": 3}
    network.train(make("bfp"), data(), save=path, **{**RUN, **settings})
    refused(path, "epochs is 4; allowed: 3, as in {path}, because its last epoch was measured out of turn",
            **{**settings, "epochs": 4})


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


def members(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def run_of(path):
    return json.loads(members(path)["run"].tobytes())


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


def resume(path, recipe=None):
    return network.train(recipe or make("bfp"), data(), resume=path, **RUN)


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


@pytest.mark.parametrize("name", ["bfp", "fp16", "lns-madam", "fp32, kahan"])
def test_a_run_starts_from_given_parameters(name, tmp_path):
    recipe, given, own = {
        "bfp": (make("fp32"), make("bfp"), {}), "fp16": (make("fp16"), make("fp16", loss_scale=8), {}),
        "lns-madam": (make("lns-madam"), make("lns-madam", second="fp32"), {}),
        "fp32, kahan": (make("fp32"), keep(make("bfp"), None, "kahan"), {})}[name]
    source, path, seen = tmp_path / "source.npz", tmp_path / "run.npz", {}
    before = network.train(recipe, data(), save=source, batch_norm=True, **RUN)

    def record(step, layer, gemm, kind, array, axis):
        if step == 0 and gemm == "forward" and kind == "weights":
            seen[layer] = array

    settings = {"batch_norm": True, "seed": 8, "epochs": 2, "batch": 3, "hidden": (5,), "momentum": 0.5}
    result = network.train(given, data(), start=source, record=record, save=path, **settings)
    for layer, (weights, *_) in enumerate(before.parameters):
        if name == "lns-madam":
            assert seen[layer].scale == weights.scale and np.array_equal(seen[layer].codes, weights.codes)
        else:
            assert seen[layer].tobytes() == weights.tobytes()
    assert result.start == before.digest and before.start is None and len(result.history) == 2
    assert result.digest not in (before.digest, network.train(given, data(), **settings).digest)
    # The rest is new: a run that is stopped before its first step has the given parameters, and zeros.
    with pytest.raises(KeyboardInterrupt, match="after 0 of 8 steps"):
        network.train(given, data(), start=source, save=path, **settings,
                      record=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run_of(path)["start"] == before.digest
    for member, array in members(path).items():
        if member.endswith(("velocity", "second", "compensation")):
            assert not array.any(), member
        elif member.endswith(("parameter", "mean", "variance", "bound", "scale")):
            assert np.array_equal(array, members(source)[member]), member
    # It goes on without the file that it started from.
    source.unlink()
    assert same(network.train(given, data(), resume=path, **settings), result)


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


def test_a_run_is_not_both_started_and_resumed(path):
    with pytest.raises(ValueError, match="^start is .*; allowed: None, because the run is resumed$"):
        network.train(make("bfp"), data(), start=path, resume=path, **RUN)


@pytest.mark.parametrize("place, message", [
    ("-", "save is '-'; allowed: a plain file"), ("/dev/null", "save is '/dev/null'; allowed: a plain file"),
    ("no/such/run.npz", "save is 'no/such/run.npz'; allowed: a file that can be written "),
])
def test_a_place_that_cannot_be_written_is_told_before_any_training(place, message):
    with pytest.raises(ValueError) as error:
        network.train(make("bfp"), data(), save=place, record=lambda *_: pytest.fail("trained"), **RUN)
    assert str(error.value).startswith(message)


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_state_digest_covers_velocities_and_what_else_moves():
    """After one step from zero, with a gradient of 1 for each of two parameters: by hand."""
    ones = [(f32([[1]]), f32([1]))]

    def moments(recipe, work="fp32", lr=0.25):
        start = [(f32([[2]]).astype(recipe.dtype), f32([0]).astype(recipe.dtype))]
        state = network.State(recipe, start, steps=1)
        state.step([tuple(each.astype(recipe.dtype) for each in ones[0])], [None], lr, 0.5)
        return network.digest(state.moments(), PRESETS[work])

    assert moments(make("fp32")) == sha(b"\0\0\x80\x3f" * 2)
    # The loss scale is in the gradient, and stays in the velocity.
    assert moments(make("fp16", loss_scale=8), "fp16") == sha(b"\0\x3c" * 2)
    # bf16: 2 + -(0.001953125 * 1) is 2 again, so Kahan's compensation is what was lost; 0 - 2**-9 is exact.
    assert moments(keep(make("fp32"), "bf16", "plain"), lr=2**-9) == sha(b"\x80\x3f" * 2)
    assert moments(keep(make("fp32"), "bf16", "kahan"), lr=2**-9) == sha(b"\x80\x3f\x00\x3b\x80\x3f\0\0")
    assert moments(keep(make("fp32"), "bf16", "grow"), lr=2**-9) == sha(b"\x80\x3f\x00\xbb\x80\x3f\0\0")
    # Fixed point in units of 1/32: a carry word of 8 bits has the units of 2**-13, and -(2**-9) is 0xf0 of them.
    fixed = {"type": "Fixed", "bits": 8, "fraction": 5}
    assert moments(keep(make("fp32"), fixed, "kahan"), lr=2**-9) == sha(b"\0\0\x80\x3f\xf0" * 2)
    assert moments(keep(make("fp32"), fixed, "plain"), lr=2**-9) == sha(b"\0\0\x80\x3f" * 2)
    # Madam: v = 1/1000 in codes of 1/8 octave from 2**-96 on, 688.27, rounded by a random word; the bias has SGD's.
    assert moments(make("lns-madam")) in (sha(code.to_bytes(2, "little") + b"\0\0\x80\x3f") for code in (688, 689))
    second = f32(1 / 1000) * f32(1)
    assert moments(make("lns-madam", second="fp32")) == sha(second.tobytes() + b"\0\0\x80\x3f")
    assert moments(make("lns-madam", update="sgd")) == sha(b"\0\0\x80\x3f" * 2)
