"""Recipes for tests of training cores, and the two cores whose Verilog is built for tests."""

import fcntl
from contextlib import contextmanager
from functools import lru_cache

from narrowgauge import catalog
from narrowgauge.base.files import cache_folder
from narrowgauge.golden import recipes
from narrowgauge.golden.core import TrainerParameters


def recipe_of(name, work="bf16", update="plain", parameters=None, **settings):
    made = recipes.work_in(recipes.make(name, **settings), work)
    return recipes.keep(made, parameters, update).with_head(10)


# Each takes a minute to build.
SIZES = {"activations": 12288, "errors": 6400, "weights": 5120, "labels": 256}
CORES = {
    "merged": {"rows": 2, "columns": 2, "converters": 1, "merged": True, "buffer": 2048},
    "lanes": {"rows": 2, "columns": 3, "converters": 2, "lanes": 4, "buffer": 256, "program": 1024},
}


@lru_cache
def core_of(name):
    """Return the parameters of a core, its module and its Verilog."""
    parameters = TrainerParameters(recipe_of("bfp").system, **SIZES | CORES[name])
    unit = catalog.find("trainer")
    return parameters, unit.module_name(parameters), unit.verilog(parameters)


@contextmanager
def alone():
    """Keep other processes of the tests from building the same core meanwhile."""
    with open(cache_folder("sim") / "trainer.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
