# amaranth: UnusedElaboratable=no
"""The Verilog of every unit, under Verilator's lint and slang's, as Verilog-2005."""

import itertools
import json
import re

import hashes
import pytest
from lint import lint, slang
from narrowgauge import catalog
from narrowgauge.hw.origin import LICENCE
from units import examples, text_of


def corners(unit):
    """Return settings of a block-floating-point unit: the ends of each size, and odd ones between them."""
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


def cases():
    """Yield units with the parameters of their examples, and of many corners of the first units, for the sweep."""
    for unit, entry in catalog.UNITS.items():
        small = entry.configure(entry.small)
        for parameters in examples(unit):
            # Arrays take some ten seconds, a core half a minute: all but the small ones are for the sweep.
            marks = [pytest.mark.sweep] if unit in ("array", "trainer") and parameters != small else []
            yield pytest.param(unit, parameters, id=entry.module_name(parameters), marks=marks)
    for unit in ("bfp-converter", "bfp-fmac"):
        entry = catalog.find(unit)
        for parameters in dict.fromkeys(map(entry.configure, corners(unit))):
            if parameters not in entry.examples:
                yield pytest.param(unit, parameters, id=entry.module_name(parameters), marks=pytest.mark.sweep)


def check_header(entry, parameters, text):
    """The comments that open a text give the parameters back, and tell the timing."""
    header = list(itertools.takewhile(lambda line: line.startswith("//"), text.splitlines()))
    (data,) = [line.removeprefix("// parameters: ") for line in header if line.startswith("// parameters: ")]
    assert json.loads(data) == parameters.to_json()
    assert type(parameters).from_json(data) == parameters
    assert all(f"// {line}" in header for line in LICENCE)
    component = entry.component(parameters)
    recurrence = f", recurrence {component.recurrence}" if hasattr(component, "recurrence") else ""
    assert f"// latency {component.latency} cycles, interval {component.interval}{recurrence}" in header


@pytest.mark.parametrize("unit, parameters", list(cases()))
def test_the_text_is_as_it_was_and_passes_lint_as_verilog_2005(unit, parameters, tmp_path):
    entry = catalog.find(unit)
    name = entry.module_name(parameters)
    text = text_of(unit, parameters)
    if name in hashes.kept():
        changed = hashes.differences([hashes.line(unit, parameters)])
        assert not changed, changed
    check_header(entry, parameters, text)
    # No identifier needs a backslash: none looks like a bit of a bus, or like a number that someone has to look up.
    assert "\\" not in text and not re.search(r"\b(unused|signal)(_\d+)?\b|\b_\d+_\b", re.sub("//.*", "", text))
    (tmp_path / f"{name}.v").write_text(text)
    assert lint(tmp_path, f"{name}.v") == ""
    assert slang(tmp_path, f"{name}.v", "-Wwidth-trunc") == ""


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
