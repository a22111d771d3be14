# amaranth: UnusedElaboratable=no
"""The Verilog of every unit, under Verilator's lint, as Verilog-2005."""

import itertools
import re
import subprocess

import pytest
from narrowgauge import catalog
from narrowgauge.sim import runner


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
SETTINGS = {
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


def test_every_unit_of_the_catalogue_is_here():
    assert list(SETTINGS) == list(catalog.UNITS)


def cases():
    for unit, rows in SETTINGS.items():
        for row in rows:
            parameters = catalog.find(unit).configure(row)
            # Of the many corners of the first units most are for the sweep.
            marks = [pytest.mark.sweep] if rows.index(row) % 4 and len(rows) > 4 else []
            yield pytest.param(unit, parameters, id=catalog.find(unit).module_name(parameters), marks=marks)


def lint(folder, *files):
    """Return what Verilator's strictest lint says of files in a folder, as Verilog-2005."""
    with runner.surroundings():  # has Verilator on PATH
        found = subprocess.run(["verilator", "--lint-only", "-Wall", "-Wno-fatal", "--quiet", "--default-language",
                                "1364-2005", *files], cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout + found.stderr


@pytest.mark.parametrize("unit, parameters", list(cases()))
def test_the_text_passes_lint_as_verilog_2005(unit, parameters, tmp_path):
    name = catalog.find(unit).module_name(parameters)
    text = catalog.find(unit).verilog(parameters)
    # No identifier needs a backslash: none looks like a bit of a bus, or like a number that someone has to look up.
    assert "\\" not in text and not re.search(r"\b(unused|signal)(_\d+)?\b", re.sub("//.*", "", text))
    (tmp_path / f"{name}.v").write_text(text)
    assert lint(tmp_path, f"{name}.v") == ""


def test_waivers_end_with_the_text(tmp_path):
    unit = catalog.find("precision-cyclic")
    (tmp_path / "unit.v").write_text(unit.verilog(unit.parameters()))
    (tmp_path / "user.v").write_text("""\
module user(input clk, input rst, input [3:0] a, input b, output valid, output [7:0] forward);
  wire [7:0] precision = a;
  precision_cyclic unit(.clk(clk), .rst(rst), .i_payload(1'b1), .i_valid(1'b1), .i_ready(), .o_payload(forward),
                        .o_valid(valid), .o_ready(precision[0]));
endmodule
""")
    said = lint(tmp_path, "unit.v", "user.v", "--top-module", "user")
    assert all(f"{rule}: user.v" in said for rule in ("WIDTHEXPAND", "UNUSEDSIGNAL")) and "unit.v" not in said, said
