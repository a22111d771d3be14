"""Training cores of every number system: random programs under stalls, and a run, are golden's.

Beside block floating point, whose cores have tests of their own. The core that is always built has scales of whole
tensors, and vectors that are shorter than a block's row.
"""

import dataclasses

import pytest
from cores import DIGITS, alone, recipe_of, require_golden, run_of
from narrowgauge import catalog
from narrowgauge.golden import core, network
from narrowgauge.golden.softmax import SoftmaxParameters
from narrowgauge.sim.core import CoreModel, Simulation
from narrowgauge.sim.core.vectors import trainer_random, trainer_vectors

NINE = {"type": "Float", "exponent": 6, "mantissa": 9}
# Of a recipe: its settings, and those of the core.
SYSTEMS = {
    "int8 of 4 lanes": ("system", "bf16", {"system": "int8", "lanes": 4}, {}),
    "int8": ("system", NINE, {"system": "int8"}, {"converters": 2, "lanes": 2}),
    "int8 in fp16": ("system", "fp16", {"system": "int8", "lanes": 8}, {"converters": 2}),
    "mx": ("mx", "bf16", {"gradients_rounding": "stochastic"}, {"converters": 2, "adders": 2}),
    "mx of one element": ("mx", "bf16", {"element": "fp6-e2m3", "gradients_element": "fp6-e2m3"}, {"merged": True}),
    "mx int8 and fp4": ("mx", "bf16", {"element": "int8", "gradients_element": "fp4-e2m1", "block": 16}, {"lanes": 2}),
    "mx of short blocks": ("mx", "bf16", {"element": "fp4-e2m1", "gradients_element": "fp6-e3m2", "block": 8},
                           {"merged": True}),
    "fp8": ("system", "bf16", {"system": "fp8"}, {"converters": 2, "lanes": 4, "columns": 3}),
    "fp8-e4m3": ("system", "bf16", {"system": "fp8", "format": "fp8-e4m3"}, {"merged": True}),
    "bf16": ("system", "bf16", {"system": "bf16"}, {"converters": 2, "buffer": 256}),
    "fp16": ("system", "fp16", {"system": "float"}, {"merged": True, "lanes": 2}),
    "plain": ("system", NINE, {"system": "plain"}, {"merged": True}),
    "recipe fp16": ("fp16", "fp16", {"chunk": 8}, {"converters": 2, "lanes": 2}),
    "bfp of short groups": ("bfp", "bf16", {"group": 4}, {"converters": 2, "buffer": 256}),
    "fast of short groups": ("fast", "bf16", {"group": 8}, {"merged": True}),
}


@pytest.mark.parametrize("name", [name if name == "int8 of 4 lanes" else pytest.param(name, marks=pytest.mark.sweep)
                                  for name in SYSTEMS])
def test_a_core_of_every_system(name):
    kind, work, settings, sizes = SYSTEMS[name]
    recipe = recipe_of(kind, work, "stochastic", **settings)
    if recipe.softmax is None:  # fp16 works without a head
        recipe = dataclasses.replace(recipe, softmax=SoftmaxParameters(recipe.work, 10, 9))
    run, usual = run_of(recipe, batch=24, momentum=0.9, decay=0.01)
    sizes = {"rows": 1, "columns": 2, "sums": 2, "converters": 1, "buffer": 1024, "program": 1024, "adders": 1} | sizes
    parameters, unit = core.trainer_of(run, **sizes), catalog.find("trainer")
    module, text = unit.module_name(parameters), unit.verilog(parameters)
    with alone():
        simulation = Simulation(parameters, run, DIGITS, module, text, check="step", idle=0.2, busy=0.2)
    found, expected = simulation.finish(), network.train(recipe, DIGITS, **usual)
    assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
    assert found.result.history == expected.history
    for seed in range(2):
        vectors = trainer_vectors(parameters, *trainer_random(parameters, 5000, seed))
        require_golden(CoreModel(parameters, module, text, seed=seed, idle=0.3 * seed, busy=0.2 * seed), vectors)
        assert len(vectors.outputs) > 1000
