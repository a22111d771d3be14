"""What the tests of the block-floating-point units share."""

import pytest
from narrowgauge import catalog

__all__ = ["CONVERTER", "FMAC", "VALUES", "cases", "settings_of", "words"]

CONVERTER, FMAC = "bfp-converter", "bfp-fmac"
VALUES = {
    CONVERTER: {
        "group": [4, 5, 16, 31, 64], "mantissa": [2, 3, 4, 5, 6, 7, 8], "exponent": [3, 5, 8],
        "work": ["fp32", "fp16", "bf16"], "random_bits": [1, 3, 8, 11, 16], "corrected": [False, True],
        "seed": [0, 1, 77, 2**31 - 1],
    },
    FMAC: {
        "group": [4, 5, 16, 31, 64], "mantissa": [2, 3, 4, 5, 6, 7, 8], "exponent": [3, 5, 8],
        "accumulator": ["fp32", "bf16", "fp16"], "chunks": ["serial", "parallel"], "accumulators": [2, 4, 8, 16],
    },
}


def settings_of(unit, row):
    return dict(zip(VALUES[unit], row))


def cases(rows_of, quick=None):
    """Parametrise over (unit, parameters) of both units, by module name; rows not in `quick` are for the sweep."""
    found = []
    for unit in (CONVERTER, FMAC):
        for index, row in enumerate(rows_of(unit)):
            settings = row if isinstance(row, dict) else settings_of(unit, row)
            parameters = catalog.find(unit).configure(settings)
            marks = [pytest.mark.sweep] if quick is not None and index not in quick else []
            found.append(pytest.param(unit, parameters, id=catalog.find(unit).module_name(parameters), marks=marks))
    return pytest.mark.parametrize("unit, parameters", found)


def words(text):
    return set(text.split())
