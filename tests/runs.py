"""Runs of a core in golden: what tests share."""

from narrowgauge.golden import datasets, network
from narrowgauge.golden.core import Run
from narrowgauge.golden.network.models import layers_of

__all__ = ["DIGITS", "runs"]

DIGITS = datasets.load("digits").first(140, 45)


def runs(recipe, hidden=(20,), data=DIGITS, **settings):
    """Return (the run of a core, the same for `network.train`)."""
    usual = {"seed": 3, "epochs": 2, "batch": 32, "lr": 0.1} | settings
    model = usual.pop("model", "mlp")
    layers = layers_of(model, data, None if isinstance(model, network.Model) else hidden, False)
    hidden = None if isinstance(model, network.Model) else hidden
    return Run(recipe, layers, len(data.train_x), len(data.test_x), **usual), usual | {"hidden": hidden, "model": model}
