"""Saved training runs: one that stops and goes on has the bits of one that never stopped; others start from its end."""

import contextlib
import hashlib
import os

import numpy as np
import pytest
from narrowgauge.golden import network
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.recipes import keep, make
from saved_runs import CASES, RUN, case_of, data, f32, head, members, run_of, same


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
