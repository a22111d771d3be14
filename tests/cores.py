"""Recipes for tests of training cores, and the cores that are built for them."""

from functools import lru_cache

from narrowgauge.golden import core, recipes
from narrowgauge.hw import verilog
from narrowgauge.hw.core import Trainer


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
    """Return a core's parameters, the name of its module, and its Verilog."""
    parameters = core.TrainerParameters(**SIZES | CORES[name])
    return parameters, f"trainer_{name}", verilog.emit(Trainer(parameters), f"trainer_{name}")
