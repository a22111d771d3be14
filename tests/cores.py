"""Recipes for tests of training cores, and the cores that are built for them."""

import fcntl
from functools import lru_cache

from narrowgauge import catalog
from narrowgauge.base.files import cache_folder
from narrowgauge.golden import core, recipes
from narrowgauge.golden.core.transfers import Transfers
from narrowgauge.sim.core.build import built


def recipe_of(name, work="bf16", update="plain", parameters=None, **settings):
    made = recipes.work_in(recipes.make(name, **settings), work)
    return recipes.keep(made, parameters, update).with_head(10)


SIZES = {"system": recipe_of("bfp").system, "activations": 4096, "errors": 2048, "weights": 4096, "labels": 256}
# Two builds, for all tests: each takes a minute.
CORES = {
    "merged": {"rows": 2, "columns": 2, "converters": 1, "merged": True, "buffer": 2048},
    "lanes": {"rows": 2, "columns": 3, "converters": 2, "lanes": 4, "buffer": 256, "program": 1024},
}


@lru_cache
def trainer(name):
    """Return a core's parameters, the name of its module, and its Verilog, of which there is a model."""
    parameters, unit = core.TrainerParameters(**SIZES | CORES[name]), catalog.find("trainer")
    module, text = unit.module_name(parameters), unit.verilog(parameters)
    # One process builds for all: the others wait.
    with open(cache_folder("sim") / "trainer.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built(text, module, Transfers(parameters))
    return parameters, module, text
