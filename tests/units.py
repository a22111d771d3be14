# amaranth: UnusedElaboratable=no
"""What the tests of the units share: a unit's text, made once, its bench, its settings as parameters of a test.

A unit is given by its name or as its entry in the catalogue.
"""

import itertools
from functools import lru_cache

import pytest
from narrowgauge import catalog
from narrowgauge.sim import runner

__all__ = ["CORNERS", "SMALL", "cases", "examples", "run", "text_of", "usual"]

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


def corners(unit):
    """Settings of a block-floating-point unit: the ends of each size, and odd ones between them."""
    for group, mantissa, exponent in itertools.product((4, 5, 64), (2, 8), (3, 8)):
        if group == 5 and mantissa != exponent:
            sizes = {"group": group, "mantissa": mantissa + 1 if mantissa == 2 else 7, "exponent": exponent}
        else:
            sizes = {"group": group, "mantissa": mantissa, "exponent": exponent}
        if unit == "bfp-converter":
            yield sizes | {"work": "fp32" if (group, mantissa) != (64, 8) else "bf16"}
        else:
            yield sizes
            if (group, mantissa) != (64, 8):
                yield sizes | {"chunks": "parallel"}


UNCENTRED = {"type": "Float", "exponent": 4, "mantissa": 5, "bias": -3, "overflow": "saturate"}
ONE_BIT = {"type": "Float", "exponent": 1, "mantissa": 1, "specials": "fn"}
# Settings of each unit at the ends of what its text depends on.
CORNERS = {
    "bfp-converter": [*corners("bfp-converter")],
    "bfp-fmac": [*corners("bfp-fmac")],
    "float-adder": [{}, {"format": "fp6-e2m3", "latency": 3, "rounding": "stochastic", "random_bits": 1}],
    "float-multiplier": [{}, {"result": "fp32", "multiplier": "lut"}],
    "float-fma": [{}, {"format": UNCENTRED, "accumulator": "fp16", "latency": 2, "rounding": "stochastic"}],
    "float-cast": [{}, {"format": ONE_BIT, "result": {"type": "Float", "exponent": 2, "mantissa": 20}}],
    "float-mac": [{}, {"format": "fp8-e4m3", "accumulators": 4, "multiplier": "lut"}],
    "mx-converter": [{"block": 8}, {"block": 9, "element": "int8", "rounding": "stochastic"}],
    "mx-dot": [{"block": 8, "lanes": 4}, {"block": 8, "lanes": 8, "element": "fp4-e2m1"},
               {"block": 8, "lanes": 8, "element": "int8", "element_b": "fp8-e5m2"}],
    "lns-converter": [{"lanes": 4}, {"lanes": 1, "format": {"type": "Log", "bits": 4, "gamma": 1}, "work": "fp16"}],
    "lns-decoder": [{"lanes": 4}, {"lanes": 1, "format": {"type": "Log", "bits": 4, "gamma": 1}, "result": "fp16"}],
    "lns-dot": [{"lanes": 4}, {"lanes": 4, "accumulation": "bins", "accumulator": 24, "lsb": 9, "constants": 2},
                {"lanes": 5, "format": {"type": "Log", "bits": 4, "gamma": 1}, "result": "bf16"}],
    "madam-update": [{}, {"lanes": 2, "gradient": "bf16", "second_gamma": 1, "second_bits": 6, "clip": 1,
                          "random_bits": 9}],
    "sgd-update": [{}, {"format": {"type": "Float", "exponent": 2, "mantissa": 2}, "grow": True, "random_bits": 1},
                   {"format": "fp8-e5m2", "schedule": "shared", "grow": True, "rates": "powers"}],
    "softmax-grad": [{}, {"classes": 2, "bits": 2, "format": "fp4-e2m1", "rounding": "stochastic", "corrected": True},
                     {"classes": 1024, "bits": 16, "format": "fp32", "rounding": "truncate"}],
    "precision-cyclic": [{}, {"iterations": 5}],
    "precision-adaptive": [{}, {"group": 5, "mantissa": 6, "exponent": 3, "guard": 0, "count": 1, "fraction": 1}],
    "array": [{"group": 4, "rows": 1, "columns": 2, "memory": 32, "buffer": 16, "sums": 2},
              {"system": "lns", "lanes": 4, "rows": 2, "columns": 1, "memory": 64, "buffer": 16, "converters": 1},
              {"system": "float", "rows": 2, "columns": 3, "memory": 16, "buffer": 16, "work": "bf16"},
              {"system": "int8", "lanes": 4, "rows": 2, "columns": 2, "memory": 64, "buffer": 16}],
}


def usual(unit):
    """Return the corners of a unit that are no matter of the sweep: a few, where there are many."""
    return CORNERS[unit] if len(CORNERS[unit]) <= 4 else CORNERS[unit][::6]


def examples(unit):
    """Return the parameters of a unit's examples: a small one, the default and a few corners."""
    rows = [SMALL[unit], {}, *usual(unit)[:4]]
    # The text of an array as large as the default takes seconds.
    return list(dict.fromkeys(_entry(unit).configure(row) for row in rows if row or unit != "array"))


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
