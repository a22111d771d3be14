"""The trainer's Verilog, simulated: runs end with golden's digests, under stalls, and its memories are golden's."""

import dataclasses

import numpy as np
import pytest
from cores import DIGITS, OWN, alone, core_of, recipe_of, run_of, with_head_of
from narrowgauge.golden import core, network
from narrowgauge.golden.core import COUNTED, RunHost, compiled
from narrowgauge.golden.core.transfers import TOLD
from narrowgauge.sim.core import CoreModel, Simulation

CYCLE = {"policy": "cyclic", "low": 2, "high": 4, "cycles": 1}


@pytest.mark.parametrize("name, recipe, settings, own", [
    ("merged", recipe_of("bfp"), {"epochs": 2}, {"check": "step", "idle": 0.3, "busy": 0.3}),
    ("merged", recipe_of("bfp", mantissa=2, update="stochastic"), {"batch": 31, "hidden": (18, 17), "seed": 5},
     {"check": "instruction"}),
    ("lanes", recipe_of("bfp", update="stochastic"), {"lr_drops": (0.3, 0.7), "decay": 0.01, "epochs": 2},
     {"check": "step", "idle": 0.9, "seed": 2}),
    ("lanes", recipe_of("bfp", update="kahan"), {"decay": 0.01, "lr_drops": (0.5,), "epochs": 2, "seed": 7},
     {"check": "step", "idle": 0.2, "busy": 0.2}),
    ("lanes", recipe_of("bfp", mantissa=3, gradients_rounding="nearest"), {"batch": 70, "hidden": (36, 9)},
     {"busy": 0.9, "parts": 2, "blocks": 2}),
    ("lanes", recipe_of("bfp"), {"hidden": (8,) * 7, "lr_drops": (0.5,)}, {}),
    ("lanes", recipe_of("bfp", mantissa=2), {"batch": 69, "hidden": (1,)}, {}),  # the last batch has one example
    ("merged", recipe_of("bfp", update="stochastic"), {"batch": 1, "hidden": ()}, {"seed": 3}),
    ("lanes", recipe_of("bfp", activations_precision=CYCLE | {"cycles": 3}, gradients_precision=CYCLE),
     {"epochs": 2, "batch": 20}, {"check": "step"}),
    ("lanes", recipe_of("fast", update="stochastic"), {"epochs": 4, "batch": 50, "hidden": (20, 20)},
     {"check": "instruction", "idle": 0.2}),
    ("lanes", recipe_of("fast", alpha=0.9, beta=0.7, reverse=True), {"epochs": 3, "batch": 35, "hidden": (36,)},
     {"parts": 2, "blocks": 2, "busy": 0.2}),
    ("lanes", recipe_of("bfp", update="stochastic"), {"model": OWN, "batch": 16}, {"check": "step", "busy": 0.2}),
    pytest.param("lanes", recipe_of("fast", update="kahan"), {"model": OWN, "batch": 16, "epochs": 2},
                 {"check": "instruction", "parts": 2, "idle": 0.2}, marks=pytest.mark.sweep),
    pytest.param("lanes", recipe_of("bfp", update="kahan"), {"model": "cnn", "hidden": (2, 5)},
                 {"check": "step", "parts": 2}, marks=pytest.mark.sweep),
    pytest.param("single", recipe_of("bfp", mantissa=2), {"model": "cnn", "hidden": (2, 5)}, {"check": "step"},
                 marks=pytest.mark.sweep),
    *(pytest.param(name, recipe_of("fast", alpha=alpha), {"epochs": 4, "batch": 35, "hidden": (36,), "seed": seed},
                   {"parts": 2, "blocks": 2, "idle": 0.1}, marks=pytest.mark.sweep)
      for seed, alpha in enumerate((0.3, 0.6, 0.9)) for name in ("single", "lanes")),
])
def test_a_run_ends_with_the_digests_of_training(name, recipe, settings, own):
    parameters, module, text = core_of(name)
    recipe = with_head_of(parameters, recipe)
    run, usual = run_of(recipe, **settings)
    with alone():
        simulation, history = Simulation(parameters, run, DIGITS, module, text, **own), []
    expected = network.train(recipe, DIGITS, progress=lambda *_: history.append(simulation.advance()), **usual)
    found = simulation.finish()
    assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
    assert tuple(history) == found.result.history == expected.history
    report = found.report
    assert (report["error"], report["number"]) == (0, len(simulation.program.instructions) - 1)
    assert (found.result.invalid, found.result.overflow) == (None, None)
    # The trainer counts what was seen from outside, and a part of its last instruction: the counters are sent by then.
    # Its last cycles, fewer than there are counters, may not be counted yet.
    spent = simulation.model.spent
    assert -len(COUNTED) < report["training_cycles"] - simulation.cycles <= spent[report["number"]]
    assert report["measuring_cycles"] == spent.sum() - spent[0] - spent[report["number"]] - simulation.cycles


def test_a_saved_run_goes_on_within_an_epoch(tmp_path):
    """With learning rates that fell before and fall later, random words by step, and a last batch of its own."""
    parameters, module, text = core_of("lanes")
    recipe = with_head_of(parameters, recipe_of("bfp", mantissa=3, update="stochastic"))
    path = tmp_path / "run.npz"
    run, usual = run_of(recipe, epochs=2, batch=16, lr_drops=(0.3, 0.9), decay=0.01, hidden=(20, 9))

    def record(step, *_):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.train(recipe, DIGITS, save=path, record=record, **usual)
    begin = network.checkpoint(recipe, DIGITS, resume=path, **usual)
    run = dataclasses.replace(run, checkpoint=begin, saved=True)
    with alone():
        simulation = Simulation(parameters, run, DIGITS, module, text, check="step", idle=0.3, busy=0.3, parts=2)
    expected = network.train(recipe, DIGITS, save=tmp_path / "whole.npz", **usual)
    network.train(recipe, DIGITS, resume=path, save=path, source=simulation.codes, **usual,
                  progress=lambda *_: simulation.advance())
    found = simulation.finish()
    assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
    assert found.result.history == expected.history and found.report["error"] == 0
    assert path.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_a_reset_leads_to_a_fresh_start():
    """In whatever a trainer was; what its memories hold, NaN among it, does not matter."""
    parameters, module, text = core_of("merged")
    run, usual = run_of(recipe_of("bfp"))
    expected = core.train(parameters, run, DIGITS)
    with alone():
        model, rng = CoreModel(parameters, module, text, idle=0.2, busy=0.2), np.random.default_rng(1)
    x = DIGITS.train_x.copy()
    x[::7] = np.nan
    spoilt = dataclasses.replace(DIGITS, train_x=x)
    program = compiled(parameters, run)
    for cycles in rng.integers(100, 15000, 6).tolist():
        model.send(program, RunHost(parameters, run, spoilt).tensors())
        model.run(cycles)
        model.reset()
    assert model.state.invalid == 0 or not model.run(1) and model.state.invalid == 0
    host = RunHost(parameters, run, DIGITS)
    model.send(program, host.tensors())
    shapes = [(issue.views["a"].rows, issue.views["a"].columns)
              for issue in core.Sequencer(parameters.side, program).issues() if issue.instruction.name == "out"]
    while model.transfers.kind(message := model.next()) != TOLD:
        if model.transfers.kind(message):
            host.loss(model.transfers.number(message[0]))
        else:
            host.write(model.transfers.codes(message, *shapes.pop(0)))
    assert host.result(program, None, None).digest == expected.digest
    assert host.history == list(expected.history)


def test_a_nan_sticks_with_its_step():
    """A number of the third batch that is NaN is met in step 2, and training goes on; golden meets it there too."""
    parameters, module, text = core_of("lanes")
    run, _ = run_of(with_head_of(parameters, recipe_of("bfp")), batch=20)
    x = DIGITS.train_x.copy()
    order = np.random.default_rng(3)
    network.initialise(run.layers, order, run.recipe.work)
    x[np.argsort(order.random(len(x)), kind="stable")[40], 5] = np.nan
    data = dataclasses.replace(DIGITS, train_x=x)
    with alone():
        simulation = Simulation(parameters, run, data, module, text)
    found = simulation.finish()
    expected = core.train(parameters, run, data)
    assert (found.result.invalid, found.result.overflow) == (expected.invalid, expected.overflow)
    assert expected.invalid == 2
    assert found.result.digest == expected.digest
