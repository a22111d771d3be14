"""Saved runs and golden's core: one that goes on there, or comes from there, has the bits of a run that never stopped.
"""

import dataclasses

import numpy as np
import pytest
from cores import recipe_of
from narrowgauge.golden import core, datasets, network
from narrowgauge.golden.core import Run, Sequencer
from narrowgauge.golden.core.tokens import require_ordered
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.network.models import layers_of
from narrowgauge.golden.recipes import keep, make
from narrowgauge.golden.softmax import SoftmaxParameters

DIGITS = datasets.load("digits").first(70, 20)
USUAL = {"seed": 3, "epochs": 2, "batch": 20, "lr": 0.1}  # an epoch has three whole batches, and one of 10
CASES = {
    "plain": (recipe_of("bfp"), {}, {}),
    "stochastic": (recipe_of("bfp", update="stochastic", mantissa=2), {"epochs": 1}, {"blocks": 2}),
    "kahan, drops, decay": (recipe_of("bfp", update="kahan"), {"lr_drops": (0.2, 0.7), "decay": 0.01}, {}),
    "plain, where others compensate": (recipe_of("bfp"), {}, {"updates": ("plain", "kahan")}),
    "cpt": (recipe_of("cpt", cycles=2), {}, {}),
    "fast": (recipe_of("fast"), {"hidden": (20, 12)}, {}),
    "fast, reversed": (recipe_of("fast", alpha=0.9, beta=0.7, reverse=True), {"epochs": 3}, {}),
    "lns-madam": (recipe_of("lns-madam", rate_drops=[0.4]), {}, {}),
    "lns-madam, kahan": (recipe_of("lns-madam", update="kahan"), {"epochs": 1}, {}),
    "a loss scale, with skipped steps": (recipe_of("fp16", "fp16", loss_scale=1 << 24, growth_interval=1),
                                         {"batch": 20}, {}),
    "epochs measured in turn": (recipe_of("bfp"), {"epochs": 5, "measure_every": 3, "batch": 35}, {"parts": 2}),
    "one batch an epoch, in parts": (recipe_of("bfp"), {"batch": 70, "epochs": 3}, {"parts": 3}),
}


def runs(name):
    """Return the recipe, the settings of `network.train`, the run of a core, and what it is made of and cut by."""
    recipe, settings, sizes = CASES[name]
    settings = {**USUAL, "hidden": (20,), **settings}
    own = {key: value for key, value in settings.items() if key != "hidden"}
    run = Run(recipe, layers_of("mlp", DIGITS, settings["hidden"], False), 70, 20, **own)
    cut = {key: value for key, value in sizes.items() if key in ("parts", "blocks")}
    return recipe, settings, run, {key: value for key, value in sizes.items() if key not in cut}, cut


def stop(path, recipe, settings, step):
    """Train until a step begins, and save the run there."""
    def record(number, layer, gemm, kind, array, axis):
        if number == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.train(recipe, DIGITS, save=path, record=record, **settings)


@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_on_in_a_core_from_any_step(name, tmp_path):
    recipe, settings, run, sizes, cut = runs(name)
    whole, parameters = network.train(recipe, DIGITS, **settings), core.trainer_of(run, **sizes)
    path, fresh = tmp_path / "run.npz", core.compiled(parameters, run, **cut)
    for step in range(1, run.steps):
        stop(path, recipe, settings, step)
        begin = network.checkpoint(recipe, DIGITS, resume=path, **settings)
        assert begin.step == step
        found = core.train(parameters, dataclasses.replace(run, checkpoint=begin), DIGITS, **cut)
        assert (found.digest, found.state_digest) == (whole.digest, whole.state_digest), step
        assert found.history == whole.history
        require_ordered(Sequencer(parameters.side, found.program).issues(), parameters.side)
        assert found.program.instructions != fresh.instructions


def stay(monkeypatch, path, recipe, settings, times):
    """Train until accuracy is measured for the so-many-th time, and save the run before that."""
    evaluate, calls = network.run._evaluate, []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 2 * times - 1:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(network.run, "_evaluate", interrupted)
        network.train(recipe, DIGITS, save=path, **settings)


@pytest.mark.parametrize("name", ["plain", "fast, reversed", "epochs measured in turn"])
def test_a_run_goes_on_where_accuracy_is_to_be_measured(name, monkeypatch, tmp_path):
    recipe, settings, run, sizes, cut = runs(name)
    whole, parameters, path = network.train(recipe, DIGITS, **settings), core.trainer_of(run, **sizes), tmp_path / "run"
    for times, measured in enumerate(run.measured):
        stay(monkeypatch, path, recipe, settings, times + 1)
        begin = network.checkpoint(recipe, DIGITS, resume=path, **settings)
        assert (begin.step, len(begin.history)) == (measured * run.per_epoch, times)
        found = core.train(parameters, dataclasses.replace(run, checkpoint=begin), DIGITS, **cut)
        assert (found.digest, found.history) == (whole.digest, whole.history)


def test_a_run_may_be_done_and_may_get_more_epochs(tmp_path):
    recipe, settings, run, _, _ = runs("plain")
    path, parameters = tmp_path / "run.npz", core.trainer_of(run)
    for epochs in (2, 3):
        usual = settings | {"epochs": epochs}
        network.train(recipe, DIGITS, save=path, **settings)
        begin, whole = network.checkpoint(recipe, DIGITS, resume=path, **usual), network.train(recipe, DIGITS, **usual)
        assert (begin.step, len(begin.history)) == (run.steps, 2)
        found = core.train(parameters, dataclasses.replace(run, epochs=epochs, checkpoint=begin), DIGITS)
        assert (found.digest, found.state_digest) == (whole.digest, whole.state_digest)
        assert found.history == whole.history


@pytest.mark.parametrize("name", ["plain", "lns-madam", "fast"])
def test_a_run_begins_with_the_parameters_of_another_one(name, tmp_path):
    recipe, settings, run, sizes, _ = runs(name)
    path, own = tmp_path / "run.npz", {"seed": 9, "batch": 32}
    network.train(recipe, DIGITS, save=path, **settings | {"epochs": 1})
    whole = network.train(recipe, DIGITS, start=path, **settings | own)
    begin = network.checkpoint(recipe, DIGITS, start=path, **settings | own)
    run = dataclasses.replace(run, checkpoint=begin, **own)
    found = core.train(core.trainer_of(run, **sizes), run, DIGITS)
    assert begin.step == 0
    assert (found.digest, found.state_digest, found.history) == (whole.digest, whole.state_digest, whole.history)


@pytest.mark.parametrize("name", [*(name for name in CASES if CASES[name][1].get("epochs") != 1),
                                  "fp32", "fp16", "fp32 with compensations in bf16"])
def test_what_a_core_has_is_saved(name, tmp_path):
    """After each measured epoch a file has the core's codes; they are golden's, and so are the bytes of the file."""
    if name in CASES:
        recipe, settings, run, sizes, cut = runs(name)
    else:  # parameters that golden keeps as numbers
        kept = ("bf16", "kahan") if "bf16" in name else (None, "plain")
        recipe = keep(dataclasses.replace(make("bfp"), softmax=SoftmaxParameters(PRESETS["fp32"], 10, 9)), *kept)
        if name == "fp16":
            recipe = recipe_of("bfp", "fp16")
        settings, sizes, cut = {**USUAL, "hidden": (20,)}, {}, {}
        run = Run(recipe, layers_of("mlp", DIGITS, (20,), False), 70, 20, **USUAL)
    run = dataclasses.replace(run, saved=True)
    parameters = core.trainer_of(run, **sizes)
    host = core.RunHost(parameters, run, DIGITS, cut.get("parts", 1))
    model, program = core.Core(parameters), core.compiled(parameters, run, **cut)
    issues, found = Sequencer(parameters.side, program).issues(), []

    def advance(*_):
        """Let the core train for as long as golden did."""
        count = len(host.history)
        while len(host.history) == count or host.latest is None:
            with np.errstate(all="ignore"):
                model.execute(next(issues), host)

    def source(step):
        if step % (run.per_epoch * run.measure_every) and step != run.steps:
            return None
        found.append(host.codes())
        return found[-1]

    mine, theirs = tmp_path / "core.npz", tmp_path / "golden.npz"
    whole = network.train(recipe, DIGITS, save=theirs, **settings)
    again = network.train(recipe, DIGITS, save=mine, progress=advance, source=source, **settings)
    assert again.digest == whole.digest and len(found) == len(run.measured)
    assert mine.read_bytes() == theirs.read_bytes()
    # What the core has is what the file has: other codes are other bytes.
    codes = found[-1]
    codes[1][0][1] = codes[1][0][1] ^ 1
    wrong = tmp_path / "wrong.npz"
    network.train(recipe, DIGITS, save=wrong, source=lambda step: codes, **settings)
    with np.load(wrong) as saved, np.load(theirs) as right:
        assert [each for each in saved.files if not np.array_equal(saved[each], right[each])] == [
            "1.weights." + ("second" if parameters.madam else "velocity")]


def test_an_interrupted_run_keeps_what_the_core_had(tmp_path):
    """The file is that of the last epoch that ended; without one there is none."""
    recipe, settings, run, _, _ = runs("plain")
    path, state = tmp_path / "run.npz", network.checkpoint(recipe, DIGITS, **settings).codes

    def source(step):
        return None if step % run.per_epoch else state

    def record(number, *_):
        if number == at:
            raise KeyboardInterrupt

    for at, told in ((2, ""), (6, f"interrupted after 4 of 8 steps; resume from {path}")):
        with pytest.raises(KeyboardInterrupt) as error:
            network.train(recipe, DIGITS, save=path, record=record, source=source, **settings)
        assert str(error.value) == told and path.exists() == (at == 6)
    assert network.checkpoint(recipe, DIGITS, resume=path, **settings).step == 4
