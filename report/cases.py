# amaranth: UnusedElaboratable=no
"""What the report trains, simulates and synthesises."""

import json
from dataclasses import dataclass
from functools import cached_property

from .. import catalog

__all__ = [
    "CASES", "DATA", "DEVICE", "DEVICE_NAME", "FAILURES", "QUICK", "RECIPES", "RUNS", "SETTINGS", "TARGET",
    "VECTORS", "VECTOR_SEED", "Case",
]

TARGET, DEVICE, DEVICE_NAME = "ecp5", "25k", "ECP5-25F"


@dataclass(frozen=True)
class Case:
    """A unit with settings, as ``--set`` takes them, and the catalogue's objects for both.

    `device` is another where the unit does not fit the report's own.
    """

    name: str
    settings: dict
    device: str = DEVICE

    @property
    def label(self):
        where = [f"on {self.device}"] if self.device != DEVICE else []
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.settings.items()), *where])

    @property
    def arguments(self):
        return " ".join([self.name, *(f"--set {key}={value if isinstance(value, str) else json.dumps(value)}"
                                     for key, value in self.settings.items())])

    @cached_property
    def unit(self):
        return catalog.find(self.name)

    @cached_property
    def parameters(self):
        return self.unit.configure(self.settings)

    @cached_property
    def component(self):
        return self.unit.component(self.parameters)

    @cached_property
    def module(self):
        return self.unit.module_name(self.parameters)

    @cached_property
    def verilog(self):
        return self.unit.verilog(self.parameters)

    def to_json(self):
        return {"label": self.label, "unit": self.name, "parameters": self.parameters.to_json()}


# What is trained, simulated and synthesised. All of it is in the report's commands.
RECIPES = {"fp32": "#3f87d6", "bfp": "#e0762d", "fp16": "#2f9e78", "lns-madam": "#8a5cc2"}  # with colours of curves
RUNS = (1, 2, 3)
DATA = "digits"
SETTINGS = {"epochs": 20, "lr": 0.1, "momentum": 0.9, "batch": 32, "hidden": [32]}
# Where a unit does not fit the report's own device: another one, by unit and number system.
DEVICES = {("array", "lns"): "85k"}
CASES = tuple(Case(unit.name, settings, DEVICES.get((unit.name, settings.get("system")), DEVICE))
              for unit in catalog.UNITS.values() for settings in unit.shown)
QUICK = ("bfp-converter", "bfp-fmac", "float-fma")  # labels of the cases of a quick report
VECTORS, VECTOR_SEED = 10000, 1
FAILURES = 5  # described in the report, for each unit
