"""Circuits of cores drawn at random, for each mixture of updates and any numbers: programs and a run are golden's."""

import dataclasses
import random

import pytest
from cores import DIGITS, alone, recipe_of, require_golden, run_of
from narrowgauge import catalog
from narrowgauge.golden import core, mx, network
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.update import METHODS
from narrowgauge.sim.core import CoreModel, Simulation
from narrowgauge.sim.core.vectors import trainer_random, trainer_vectors

# In which lanes lack something, or have a method that their core does not ask for.
MIXTURES = [("grow",), ("kahan",), METHODS, ("grow", "plain"), ("stochastic", "kahan"), ("stochastic",)]

LANES = (1, 2, 4, 8, 16)


def drawn(seed):
    """Return (recipe, settings of the run, settings of the core, settings of the simulation)."""
    draw = random.Random(seed)
    updates = MIXTURES[seed % len(MIXTURES)]
    work = draw.choice(["bf16", {"type": "Float", "exponent": 8, "mantissa": 9}])
    name, settings = draw.choice([
        ("bfp", {"group": draw.choice([8, 16, 32]), "mantissa": draw.randint(2, 4)}),
        ("mx", {"block": draw.choice([8, 16, 32]), "element": draw.choice([*mx.ELEMENTS]),
                "gradients_element": draw.choice([*mx.ELEMENTS]),
                "gradients_rounding": draw.choice(["nearest", "truncate", "stochastic"])}),
        ("system", {"system": "int8", "lanes": draw.choice([4, 16, 32])}),
        ("system", {"system": "fp8", "format": draw.choice(["fp8-e4m3", "fp8-e5m2"])})])
    recipe = recipe_of(name, work if name != "mx" else "bf16", draw.choice(updates), **settings)
    head = dataclasses.replace(recipe.softmax, format=draw.choice([recipe.work, PRESETS["fp16"]]),
                               rounding=draw.choice(["nearest", "stochastic"]))
    recipe = dataclasses.replace(recipe, softmax=head)
    run = {"hidden": (draw.randint(3, 40),), "seed": draw.randint(0, 2**31 - 1), "batch": draw.randint(20, 60),
           "lr": draw.choice([0.1, 1.5]), "momentum": draw.choice([0, 0.9]), "decay": draw.choice([0, 0.01]),
           "lr_drops": draw.choice([(), (0.4,)]), "epochs": 2}
    merged = draw.random() < 0.5
    sizes = {"rows": draw.randint(1, 3), "columns": draw.randint(1, 3), "sums": draw.choice([2, 4]),
             "buffer": 4096 if "lanes" in settings else 1024,  # what has a scale is not cut
             "lanes": LANES[seed % len(LANES)], "adders": draw.choice([1, 2, 4]), "stream": draw.randint(1, 5),
             "merged": merged, "converters": 1 if merged else draw.randint(1, 2), "program": 1024,
             "head": draw.choice([1, 2, 4])}
    stalls = {"idle": draw.choice([0, 0.3]), "busy": draw.choice([0, 0.3]), "seed": seed}
    return recipe, run, sizes | {"updates": updates}, stalls


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(3 * len(MIXTURES)))
def test_drawn_circuits_are_golden(seed):
    recipe, settings, sizes, stalls = drawn(seed)
    run, usual = run_of(recipe, **settings)
    parameters, unit = core.trainer_of(run, **sizes), catalog.find("trainer")
    module, text = unit.module_name(parameters), unit.verilog(parameters)
    expected = network.train(recipe, DIGITS, **usual)
    with alone():
        simulation = Simulation(parameters, run, DIGITS, module, text, check="step", **stalls)
    found = simulation.finish()
    assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
    assert found.result.history == expected.history
    vectors = trainer_vectors(parameters, *trainer_random(parameters, 6000, seed))
    require_golden(CoreModel(parameters, module, text, **stalls), vectors)
