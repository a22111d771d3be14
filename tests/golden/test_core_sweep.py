"""Cores, networks and settings drawn at random: each run ends with the digests of `network.train`."""

import random

import pytest
from cores import recipe_of
from narrowgauge.golden import core, datasets, network
from narrowgauge.golden.core import Run, Sequencer
from narrowgauge.golden.core.tokens import require_ordered
from narrowgauge.golden.network.models import KINDS, layers_of

CASES = 60


def drawn(seed):
    """Return (recipe, model, data, settings of training, settings of the core, how its programs are cut)."""
    draw = random.Random(seed)
    data = datasets.load("digits").first(draw.randint(40, 90), draw.randint(10, 40))
    recipe = draw.choice([
        ("bfp", {"mantissa": draw.randint(2, 8), "group": draw.choice([8, 16, 32])}),
        ("bfp", {"weights_rounding": "stochastic", "exponent": draw.randint(5, 8)}),
        ("fast", {"alpha": round(draw.uniform(0, 1.9), 3), "beta": round(draw.uniform(0, 1.9), 3)}),
        ("cpt", {"cycles": draw.randint(1, 9)}), ("lns-madam", {"memory": draw.choice([10, 1000])}),
        ("system", {"system": draw.choice(["mx", "int8", "bf16", "lns"])})])
    work = draw.choice(["bf16", {"type": "Float", "exponent": 8, "mantissa": 9}])
    recipe = recipe_of(recipe[0], work, draw.choice(["plain", "stochastic", "kahan", "grow"]),
                       draw.choice([None, None, "fp32"]), **recipe[1])
    if draw.random() < 0.5:
        model = tuple(KINDS["linear"] | {"type": "linear", "outputs": draw.randint(1, 40)}
                      for _ in range(draw.randint(0, 3)))
        entries = ({"type": "flatten"}, *model, {"type": "linear", "batch_norm": False})
    else:
        model = tuple(KINDS["convolution"] | {
            "type": "convolution", "outputs": draw.randint(1, 20), "kernel": (kernel := draw.randint(1, 3)),
            "stride": draw.randint(1, 3), "padding": draw.randint(0, kernel - 1)} for _ in range(draw.randint(1, 2)))
        entries = (*model, {"type": "flatten"}, {"type": "linear", "batch_norm": False})
    settings = {"seed": draw.randint(0, 2**31 - 1), "epochs": draw.randint(1, 3), "batch": draw.randint(5, 40),
                "lr": 0.05, "momentum": draw.choice([0, 0.9]), "decay": draw.choice([0, 0.01]),
                "lr_drops": draw.choice([(), (0.4, 0.75)]), "measure_every": draw.choice([1, 2])}
    sizes = {"rows": draw.randint(1, 5), "columns": draw.randint(1, 5), "sums": draw.choice([2, 4, 16]),
             "buffer": draw.choice([1024, 4096, 65536]), "examples": draw.choice([0, 0, 65536]), "program": 4096}
    cut = {"parts": draw.randint(1, 4), "blocks": draw.randint(1, 3)}
    if "scale" in recipe.system.modes:
        sizes["buffer"], cut = 65536, {}
    return recipe, network.Model("drawn", entries), data, settings, sizes, cut


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(CASES))
def test_drawn_runs_end_with_the_digests_of_training(seed):
    recipe, model, data, settings, sizes, cut = drawn(seed)
    try:
        layers = layers_of(model, data, None, False)
    except ValueError:
        pytest.skip("the layers do not fit each other")
    run = Run(recipe, layers, len(data.train_x), len(data.test_x), **settings)
    expected = network.train(recipe, data, model=model, **settings)
    parameters = core.trainer_of(run, **sizes)
    found = core.train(parameters, run, data, **cut)
    assert (found.digest, found.state_digest) == (expected.digest, expected.state_digest)
    assert found.history == expected.history
    require_ordered(Sequencer(parameters.side, found.program).issues(), parameters.side)
