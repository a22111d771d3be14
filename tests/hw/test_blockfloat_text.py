# amaranth: UnusedElaboratable=no
"""The Verilog of the block-floating-point units: keywords, ports, names, the same bytes every time."""

import itertools
import os
import re
import subprocess
import sys

import pytest
from bfp_units import CONVERTER, FMAC, VALUES, cases, words
from narrowgauge import catalog
from narrowgauge.hw import verilog
from units import text_of

# The Verilog itself.


SAMPLES = {
    CONVERTER: [{}, {"group": 5, "mantissa": 3, "exponent": 5, "work": "fp16", "corrected": True},
                {"group": 4, "work": {"type": "Float", "exponent": 5, "mantissa": 2}, "seed": 12}],
    FMAC: [{}, {"group": 5, "mantissa": 3, "exponent": 5, "accumulator": "bf16", "chunks": "parallel"},
           {"group": 4, "mantissa": 2, "accumulator": {"type": "Float", "exponent": 5, "mantissa": 2, "bias": -4}}],
}

VERILOG_2005 = words("""
    always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default defparam
    design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive endspecify endtable
    endtask event for force forever fork function generate genvar highz0 highz1 if ifnone incdir include initial inout
    input instance integer join large liblist library localparam macromodule medium module nand negedge nmos nor
    noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1 pulldown pullup
    pulsestyle_ondetect pulsestyle_onevent rcmos real realtime reg release repeat rnmos rpmos rtran rtranif0 rtranif1
    scalared showcancelled signed small specify specparam strong0 strong1 supply0 supply1 table task time tran tranif0
    tranif1 tri tri0 tri1 triand trior trireg unsigned use uwire vectored wait wand weak0 weak1 while wire wor xnor xor
""")
SYSTEMVERILOG = words("""
    accept_on alias always_comb always_ff always_latch assert assume before bind bins binsof bit break byte chandle
    checker class clocking const constraint context continue cover covergroup coverpoint cross dist do endchecker
    endclass endclocking endgroup endinterface endpackage endprogram endproperty endsequence enum eventually expect
    export extends extern final first_match foreach forkjoin global iff ignore_bins illegal_bins implements implies
    import inside int interconnect interface intersect join_any join_none let local logic longint matches modport
    nettype new nexttime null package packed priority program property protected pure rand randc randcase randsequence
    ref reject_on restrict return s_always s_eventually s_nexttime s_until s_until_with sequence shortint shortreal
    soft solve static string strong struct super sync_accept_on sync_reject_on tagged this throughout timeprecision
    timeunit type typedef union unique unique0 until until_with untyped var virtual void wait_order weak wildcard with
    within
""")


def code_of(text):
    """The text without comments, strings, attributes and escaped identifiers."""
    return re.sub(r'//[^\n]*|/\*.*?\*/|\(\* .*? \*\)|"[^"\n]*"|\\\S+', " ", text, flags=re.S)


@cases(SAMPLES.get)
def test_the_text_keeps_to_the_keywords_of_verilog_2005_and_clear_of_those_of_systemverilog(unit, parameters):
    code = code_of(text_of(unit, parameters))
    code = re.sub(r"\d*'s?[bodh][0-9a-fxz_]+", " ", code)
    used = set(re.findall(r"(?<![\w$])[A-Za-z_][\w$]*", code))
    declared = set()
    for line in re.findall(r"\b(?:input|output|wire|reg|integer)\b([^;]*);", code):
        declared.update(re.findall(r"(?<![\w$])[A-Za-z_][\w$]*", line.split("=")[0]))
    modules = set(re.findall(r"\bmodule\s+([A-Za-z_]\w*)", code))
    instances = set(re.findall(r"^\s+(?:\w+ )?([A-Za-z_]\w*)\s*\($", code, flags=re.M))
    ports = set(re.findall(r"\.([A-Za-z_]\w*)\(", code))
    assert used - VERILOG_2005 <= declared | modules | instances | ports
    assert not used & SYSTEMVERILOG
    assert set(re.findall(r"\$[a-z]+\b(?=\()", code)) <= {"$signed", "$unsigned"}


@cases(SAMPLES.get)
def test_the_text_tells_nothing_of_the_source(unit, parameters):
    text = text_of(unit, parameters)
    # Attributes: of cases that list every value anyway, and of wires that a register with that value drives.
    assert set(re.findall(r"\(\*(?!\)) *(\w*)", text)) <= {"full_case", "init"}
    for word in (os.getcwd(), os.path.expanduser("~") + "/", sys.prefix, "site-packages", ".py"):
        assert word not in text
    assert not re.search(r"(?:/[\w.-]+){2,}", code_of(text))


@cases(SAMPLES.get)
def test_the_ports_are_those_of_the_contract(unit, parameters):
    text = text_of(unit, parameters)
    name = catalog.find(unit).module_name(parameters)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    head, body = re.search(rf"^module {name}\((.*?)\);(.*?)^endmodule", text, flags=re.S | re.M).groups()
    status = ["invalid", "overflow"] if unit == CONVERTER else ["overflow"]
    expected = ["clk", "rst", "i_payload", "i_valid", "i_ready", "o_payload", "o_valid", "o_ready", "status_clear"]
    assert sorted(head.split(", ")) == sorted(expected + status)
    found = {}
    for direction, high, port in re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", body, flags=re.M):
        found[port] = (direction.removesuffix("put"), int(high or 0) + 1)
    p, outs = parameters, {"i_ready", "o_payload", "o_valid", *status}
    group = p.group * (p.mantissa + 1) + p.exponent + p.mantissa.bit_length()
    if unit == CONVERTER:
        widths = {"i_payload": p.group * p.work.width + p.mantissa.bit_length() + 2, "o_payload": group}
    else:
        slot = (p.accumulators - 1).bit_length()
        widths = {"i_payload": 2 * group + slot + 2, "o_payload": p.accumulator.width + slot}
    assert found == {port: ("out" if port in outs else "in", widths.get(port, 1)) for port in expected + status}
    listed = verilog.ports_of(catalog.find(unit).component(parameters))
    assert {port: (direction, width) for port, direction, width in listed} == found
    for port, (direction, width) in found.items():
        assert re.search(rf"^//   {port}  {direction} {width}\b", text, flags=re.M), f"{port} is not in the header"


@pytest.mark.parametrize("unit", [pytest.param(CONVERTER, marks=pytest.mark.sweep), FMAC])
def test_the_bytes_do_not_depend_on_the_hash_seed(unit, tmp_path):
    texts = []
    for seed in ("0", "4711"):
        command = [sys.executable, "-m", "narrowgauge", "generate", unit, "--set", "group=5", "--set", "mantissa=3"]
        found = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True,
                               check=True)
        texts.append(found.stdout)
    assert texts[0] == texts[1]
    parameters = catalog.find(unit).configure({"group": 5, "mantissa": 3})
    assert texts[0].decode() == text_of(unit, parameters)


def formats(*, least):
    """Presets and others, among them some that differ in one field only."""
    yield from ("fp32", "fp16", "bf16", "fp8-e5m2")
    for exponent, mantissa, bias, overflow in itertools.product((5, 6), (least, 10), (-3, 3, None),
                                                                ("infinity", "saturate")):
        data = {"type": "Float", "exponent": exponent, "mantissa": mantissa, "overflow": overflow}
        yield data if bias is None else data | {"bias": bias}


@pytest.mark.parametrize("unit", [CONVERTER, FMAC])
def test_different_parameters_have_different_module_names(unit):
    values = dict(VALUES[unit])
    if unit == CONVERTER:
        values |= {"work": list(formats(least=1)), "random_bits": [1, 8, 16], "seed": [0, 1, 2**31 - 1]}
    else:
        values["accumulator"] = [each for each in formats(least=2)
                                 if isinstance(each, str) or each["overflow"] == "infinity"]
    values |= {"group": [4, 16, 64], "mantissa": [2, 4, 8]}
    entry = catalog.find(unit)
    names = {}
    for row in itertools.product(*values.values()):
        parameters = entry.configure(dict(zip(values, row)))
        name = entry.module_name(parameters)
        assert names.setdefault(name, parameters) == parameters, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert len(names) > 1000
