# amaranth: UnusedElaboratable=no
"""The Verilog of every unit, under Verilator's lint, as Verilog-2005."""

import re
import subprocess

import pytest
from narrowgauge import catalog
from narrowgauge.sim import runner
from units import CORNERS, usual


def test_every_unit_of_the_catalogue_is_here():
    assert list(CORNERS) == list(catalog.UNITS)


def cases():
    for unit, rows in CORNERS.items():
        for row in rows:
            parameters = catalog.find(unit).configure(row)
            marks = [] if row in usual(unit) else [pytest.mark.sweep]
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
