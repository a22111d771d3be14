"""Saved runs of a small data set: what their tests share."""

import dataclasses
import json

import numpy as np
from narrowgauge.golden import network
from narrowgauge.golden.datasets import Dataset
from narrowgauge.golden.recipes import keep, make, work_in
from narrowgauge.golden.softmax import SoftmaxParameters

__all__ = ["CASES", "CNN", "RUN", "case_of", "data", "f32", "head", "members", "resume", "run_of", "same",
           "told"]

f32 = np.float32
RUN = {"seed": 3, "epochs": 2, "batch": 4, "hidden": (5,), "lr": 0.3}  # 11 examples: the last of 3 steps has 3


def data(features=7, image=None, odd=None):
    rng = np.random.default_rng(4)
    x, y = rng.random((11, features)).astype(f32), rng.integers(0, 3, 11)
    if odd is not None:
        x[7, 0] = odd
    return Dataset("small", x, y, x[:5], y[:5], 3, image)


def head(recipe, **settings):
    return dataclasses.replace(recipe, softmax=SoftmaxParameters(classes=3, bits=6, **settings))


CNN = {"model": "cnn", "hidden": (2, 3)}
CASES = {
    "fp32": (make("fp32"), {}),
    "fp32 with all settings": (make("fp32"), {"batch_norm": True, "decay": 0.01, "lr_drops": (0.4, 0.7), "hidden": ()}),
    "cnn": (make("bfp"), {**CNN, "batch_norm": True}),
    "bfp, stochastic": (make("bfp", weights_rounding="stochastic"), {}),
    "fast": (make("fast", alpha=0.4), {"hidden": (9, 5)}),
    "fast, no lag": (make("fast", lag=0, reverse=True), {}),
    "cpt": (make("cpt", cycles=2), CNN),
    "fp16": (make("fp16", loss_scale=1 << 18, growth_interval=2), {}),
    "fp16, batch statistics": (make("fp16"), {"batch_norm": True}),
    "mx": (make("mx"), {}),
    "bf16": (work_in(make("fp32"), "bf16"), {"batch_norm": True}),
    "bf16, a head of stochastic errors": (head(work_in(make("fp32"), "bf16"), rounding="stochastic"), {}),
    "a head": (head(make("fp32")), {"measure_every": 2}),
    "kahan": (keep(make("fp32"), "bf16", "kahan"), {"batch_norm": True}),
    "stochastic": (keep(make("fp32"), "bf16", "stochastic"), {}),
    "grow": (keep(make("bfp"), "bf16", "grow"), {}),
    "fixed point": (keep(make("fp32"), {"type": "Fixed", "bits": 8, "fraction": 5}, "kahan"), {}),
    "fixed point of bf16": (keep(work_in(make("fp32"), "bf16"), {"type": "Fixed", "bits": 8, "fraction": 5}), {}),
    "lns-madam": (make("lns-madam", rate_drops=[0.5]), {"batch_norm": True}),
    "lns-madam, fp32 moments": (make("lns-madam", second="fp32"), {}),
    "lns-madam, SGD": (make("lns-madam", update="sgd"), CNN),
    "lns-madam, sums that saturate": (make("lns-madam"), {"odd": 3e38}),
    "fp32 that diverges": (make("fp32"), {"odd": 3e38, "lr": 10}),
    "bfp that meets a NaN": (make("bfp"), {"odd": np.nan}),
}


def case_of(name):
    """Return the recipe, the data and the settings of a case."""
    recipe, settings = CASES[name]
    settings = {**RUN, **settings}
    odd = settings.pop("odd", None)
    return recipe, data(64, (8, 8), odd) if "model" in settings else data(odd=odd), settings


def told(result):
    """All that a run ends with."""
    return {name: getattr(result, name) for name in (
        "digest", "state_digest", "history", "precision", "diverged", "invalid", "overflow", "skipped", "loss_scale",
        "start")}


def same(one, other):
    """Whether two results tell the same; losses that are NaN are."""
    return repr(told(one)) == repr(told(other))


def members(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def run_of(path):
    return json.loads(members(path)["run"].tobytes())


def resume(path, recipe=None):
    return network.train(recipe or make("bfp"), data(), resume=path, **RUN)
