# amaranth: UnusedElaboratable=no
"""What the tests of the units share: a unit's text, made once, its bench, its settings as parameters of a test.

A unit is given by its name or as its entry in the catalogue.
"""

from functools import lru_cache

import pytest
from narrowgauge import catalog
from narrowgauge.sim import runner

__all__ = ["cases", "run", "text_of"]

# A small setting of each unit of the catalogue.
SMALL = {
    "bfp-converter": {"group": 4}, "bfp-fmac": {"group": 4, "accumulator": "bf16"}, "float-adder": {},
    "float-multiplier": {}, "float-fma": {"format": "fp8-e5m2"}, "float-cast": {}, "float-mac": {"format": "fp8-e4m3"},
    "mx-converter": {"block": 8}, "mx-dot": {"block": 8, "lanes": 4, "element": "fp4-e2m1"},
    "lns-converter": {"lanes": 4}, "lns-decoder": {"lanes": 4},
    "lns-dot": {"lanes": 4, "accumulator": 24, "lsb": 16, "constants": 1}, "madam-update": {},
    "sgd-update": {"format": "fp8-e5m2", "schedule": "shared"}, "softmax-grad": {"format": "fp8-e5m2"},
    "precision-cyclic": {}, "precision-adaptive": {"group": 4},
    "array": {"group": 4, "rows": 1, "columns": 1, "memory": 64, "buffer": 64, "accumulator": "bf16", "work": "bf16"},
}


def _entry(unit):
    return catalog.find(unit) if isinstance(unit, str) else unit


@lru_cache(32)
def text_of(unit, parameters):
    """Return a unit's Verilog."""
    return _entry(unit).verilog(parameters)


def run(unit, parameters, vectors, text=None, **options):
    """Run the bench, of another text than the unit's if there is one, demand no mismatch, return the outcome."""
    entry = _entry(unit)
    outcome = runner.run(entry.component(parameters), entry.module_name(parameters), vectors,
                         text=text or text_of(unit, parameters), **options)
    assert outcome.mismatches == 0, "\n".join([f"options {options}", *outcome.report])
    return outcome


def cases(unit, rows, quick):
    """Parametrise over parameters, by module name; rows of settings that are not in `quick` are for the sweep."""
    entry = _entry(unit)
    found = [entry.configure(row) for row in rows]
    return pytest.mark.parametrize("parameters", [
        pytest.param(each, id=entry.module_name(each), marks=[pytest.mark.sweep] if index not in quick else [])
        for index, each in enumerate(found)])
