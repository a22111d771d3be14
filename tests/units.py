# amaranth: UnusedElaboratable=no
"""What the tests of the units share: a unit's text, made once, its benches, its settings as parameters of a test.

A unit is given by its name or as its entry in the catalogue.

There are two benches. They drive the same vectors, with stalls, and check the same rules. That of the command line,
`simulate`, runs in cocotb. The other, `run`, is compiled: it takes a third of the time to build, and next to none to
run. tests/sim/test_driver.py holds both to the same faults.
"""

from functools import lru_cache

import pytest
from narrowgauge import catalog
from narrowgauge.hw import verilog
from narrowgauge.sim import runner
from narrowgauge.sim.sweep import Batch

__all__ = ["cases", "examples", "first", "outcome_of", "run", "run_component", "simulate", "text_of"]


def first(names, count=1):
    """Return parameters of a test: the first ones for every run of the tests, and the others for the sweep."""
    return [pytest.param(name, marks=[pytest.mark.sweep] if index >= count else []) for index, name in enumerate(names)]


def _entry(unit):
    return catalog.find(unit) if isinstance(unit, str) else unit


def examples(unit):
    """Return the parameters of a unit's examples, but for the defaults of array and core, whose texts take seconds."""
    entry = _entry(unit)
    return [each for each in entry.examples if entry.name not in ("array", "trainer") or each != entry.parameters()]


@lru_cache(32)
def text_of(unit, parameters):
    """Return a unit's Verilog, which has its module, and no signal of zero width."""
    entry = _entry(unit)
    text = entry.verilog(parameters)
    assert f"\nmodule {entry.module_name(parameters)}(" in text and "[-1:0]" not in text
    return text


def _passed(outcome, options):
    assert outcome.mismatches == 0, "\n".join([f"options {options}", *outcome.report])
    return outcome


def outcome_of(component, name, vectors, text=None, **options):
    """Run the compiled bench of a component, and return the outcome."""
    text = text if text is not None else verilog.emit(component, name)
    (outcome,) = Batch([(component, name, text)]).run([vectors], **options)
    # As the bench of the command line has them: of transfers that complete outputs.
    outcome.spans = {index: list(span) for index, span in outcome.spans.items() if span[1] is not None}
    return outcome


def run_component(component, name, vectors, text=None, **options):
    """Run the compiled bench of a component; demand no mismatch, and return the outcome."""
    return _passed(outcome_of(component, name, vectors, text, **options), options)


def run(unit, parameters, vectors, text=None, **options):
    """Run the compiled bench of a unit, or of another text than its own, as `run_component` does."""
    entry = _entry(unit)
    return run_component(entry.component(parameters), entry.module_name(parameters), vectors,
                         text or text_of(unit, parameters), **options)


def simulate(unit, parameters, vectors, **options):
    """Run the bench of the command line, demand no mismatch, and return the outcome."""
    entry = _entry(unit)
    return _passed(runner.run(entry.component(parameters), entry.module_name(parameters), vectors,
                              text=text_of(unit, parameters), **options), options)


def cases(unit, rows, quick):
    """Parametrise over parameters, by module name; rows of settings that are not in `quick` are for the sweep."""
    entry = _entry(unit)
    found = [entry.configure(row) for row in rows]
    return pytest.mark.parametrize("parameters", [
        pytest.param(each, id=entry.module_name(each), marks=[pytest.mark.sweep] if index not in quick else [])
        for index, each in enumerate(found)])
