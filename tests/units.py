# amaranth: UnusedElaboratable=no
"""What the tests of the units share: a unit's text, made once, its bench, its settings as parameters of a test.

A unit is given by its name or as its entry in the catalogue.
"""

from functools import lru_cache

import pytest
from narrowgauge import catalog
from narrowgauge.sim import runner

__all__ = ["cases", "examples", "run", "text_of"]

def _entry(unit):
    return catalog.find(unit) if isinstance(unit, str) else unit


def examples(unit):
    """Return the parameters of a unit's examples, but for the default of the array, whose text takes seconds."""
    entry = _entry(unit)
    return [each for each in entry.examples if unit != "array" or each != entry.parameters()]


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
