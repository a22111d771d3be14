"""Recipes and runs for tests of training cores, and the cores whose Verilog is built for tests."""

import dataclasses
import fcntl
import os
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from narrowgauge import catalog
from narrowgauge.base.files import cache_folder
from narrowgauge.golden import core, datasets, network, recipes
from narrowgauge.golden.core import TrainerParameters
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.network.models import KINDS, layers_of
from narrowgauge.golden.softmax import SoftmaxParameters

DIGITS = datasets.load("digits").first(70, 45)


def recipe_of(name, work="bf16", update="plain", parameters=None, **settings):
    """Return a recipe with a softmax head, which one that works in fp16 has not by default."""
    made = recipes.work_in(recipes.make(name, **settings), work)
    kept = recipes.keep(made, parameters, update).with_head(10)
    return kept if kept.softmax else dataclasses.replace(kept, softmax=SoftmaxParameters(kept.work, 10, 9))


def run_of(recipe, hidden=(20,), model="mlp", **settings):
    """Return (the run of a core, the arguments of `network.train`)."""
    usual = {"seed": 3, "epochs": 1, "batch": 32, "lr": 0.1} | settings
    hidden = hidden if isinstance(model, str) else None
    layers = layers_of(model, DIGITS, hidden, False)
    return (core.Run(recipe, layers, len(DIGITS.train_x), len(DIGITS.test_x), **usual),
            usual | {"hidden": hidden, "model": model})


def convolutions(*entries):
    """Return a network of convolutions, and a linear layer."""
    return network.Model("own", tuple(KINDS["convolution"] | {"type": "convolution"} | entry for entry in entries) + (
        {"type": "flatten"}, {"type": "linear", "batch_norm": False}))


# Padding, a stride above it, and pixels that no place of the kernel meets.
OWN = convolutions({"outputs": 2, "padding": 2}, {"outputs": 6, "kernel": 2, "stride": 3, "padding": 1},
                   {"outputs": 4, "stride": 2, "padding": 1})


def with_head_of(parameters, recipe):
    """Return a recipe with the softmax head of a core."""
    return dataclasses.replace(recipe, softmax=parameters.softmax)


def require_golden(model, vectors):
    """Give a CoreModel the transfers of Vectors, and demand golden's answers and status."""
    count = model.transfers.input_words
    model.offer([np.array([[payload >> 32 * word & 0xFFFFFFFF for word in range(count)] for payload in vectors.inputs],
                          np.uint32)])
    found = []
    while len(found) < len(vectors.outputs):
        found += [sum(int(word) << 32 * k for k, word in enumerate(row)) for row in model.next()]
    wrong = next((k for k, pair in enumerate(zip(found, vectors.outputs)) if pair[0] != pair[1]), None)
    assert wrong is None, f"output {wrong}: {found[wrong]:x}, golden's is {vectors.outputs[wrong]:x}"
    assert len(found) == len(vectors.outputs)
    assert (model.state.invalid, model.state.overflow) == (vectors.status["invalid"], vectors.status["overflow"])


# Each takes a minute to build.
SIZES = {"activations": 12288, "errors": 6400, "weights": 5120, "labels": 256}
CORES = {
    "merged": {"rows": 2, "columns": 2, "converters": 1, "merged": True, "buffer": 2048, "decays": False},
    "lanes": {"rows": 2, "columns": 3, "converters": 2, "lanes": 4, "buffer": 256, "program": 1024, "windows": True,
              "updates": ("plain", "stochastic", "kahan"), "head": 4, "classes": 40, "error_rounding": "stochastic",
              "logits": PRESETS["fp16"], "policies": ("constant", "cyclic", "adaptive")},
    # For the sweep alone: one converter counts groups of both operands.
    "single": {"rows": 2, "columns": 2, "converters": 1, "merged": True, "buffer": 2048,
               "policies": ("constant", "adaptive"), "layers": 2, "head": 2, "windows": True},
}


@lru_cache
def core_of(name):
    """Return the parameters of a core, its module and its Verilog, which the processes of a run of tests share."""
    parameters = TrainerParameters(recipe_of("bfp").system, **SIZES | CORES[name])
    unit, run = catalog.find("trainer"), os.environ.get("PYTEST_XDIST_TESTRUNUID")
    module = unit.module_name(parameters)
    if not run:
        return parameters, module, unit.verilog(parameters)
    path = cache_folder("sim") / f"{name}.v"
    stamp = path.with_suffix(".run")
    with alone(f"text-{name}"):
        if not stamp.exists() or stamp.read_text() != run:
            path.write_text(unit.verilog(parameters))
            stamp.write_text(run)
        return parameters, module, path.read_text()


@contextmanager
def alone(what="trainer"):
    """Keep other processes of the tests from building the same core meanwhile, or from making the same text."""
    with open(cache_folder("sim") / f"{what}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
