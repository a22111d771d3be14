# amaranth: UnusedElaboratable=no
"""Test vectors in files, with a bench in plain Verilog: simulators pass it, and find faults, without Python."""

import json
import re

import pytest
from faults import catalogue
from lint import lint, slang
from narrowgauge import catalog, cli
from narrowgauge.hw.ports import ports
from narrowgauge.sim.vectors import unpack
from simulators import NEEDS_ICARUS, again, icarus, verdict, verilator


def folder_of(unit, folder, *options):
    """Write the files of a unit's small example, and return its entry and the module's name."""
    entry = catalog.find(unit)
    settings = [word for name, value in entry.small.items() for word in (
        "--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}")]
    assert cli.main(["vectors", unit, *settings, "-o", str(folder), *options]) == 0
    return entry, entry.module_name(entry.configure(entry.small))


def in_icarus(folder, name, *options):
    return verdict(icarus(folder, f"{name}.v", f"{name}_tb.v", options=options))


def in_verilator(folder, name):
    return verdict(verilator(folder, f"{name}.v", f"{name}_tb.v", top=f"{name}_tb"))


@pytest.mark.parametrize("unit", [pytest.param(unit, marks=[pytest.mark.sweep] if unit == "trainer" else [])
                                  for unit in catalog.UNITS])
def test_benches_are_plain_verilog(unit, tmp_path, capsys):
    _, name = folder_of(unit, tmp_path, "--vectors", "20")
    assert lint(tmp_path, f"{name}.v", f"{name}_tb.v", "--timing", "--top-module", f"{name}_tb") == ""
    assert slang(tmp_path, f"{name}.v", f"{name}_tb.v") == ""


# A pipeline, fewer outputs than inputs, rows, no status, structures, memory.
QUICK = ("float-adder", "bfp-fmac", "softmax-grad", "precision-cyclic", "bfp-converter", "madam-update")


@NEEDS_ICARUS
@pytest.mark.parametrize("unit", [pytest.param(unit, marks=[] if unit in QUICK else [pytest.mark.sweep])
                                  for unit in catalog.UNITS])
def test_icarus_passes_the_bench(unit, tmp_path, capsys):
    entry, name = folder_of(unit, tmp_path, "--vectors", "200", "--seed", "3")
    told = json.loads((tmp_path / "vectors.json").read_text())
    assert in_icarus(tmp_path, name) == (
        f"PASS: {told['inputs']['count']} inputs, {told['outputs']['count']} outputs")
    # Without gaps, and with many.
    for percent in (0, 90):
        gaps = (f"-P{name}_tb.IDLE={percent}", f"-P{name}_tb.BUSY={90 - percent}")
        assert in_icarus(tmp_path, name, *gaps).startswith("PASS")


# A fault of the converter's sources: a tie is rounded up.
TIE = ("guard & (q[0] | rest_bits.any() | s4.sticky[k])", "guard")
# What a module round the unit makes of the unit's own port, and the verdict.
FAULTS = {
    "wrong bit": ("o_payload", "true_o_payload ^ 1'b1", r"FAIL: [1-9]\d* of \d+ outputs are wrong"),
    "changed": ("o_payload", "true_o_payload ^ waited", r"FAIL: [1-9]\d* of \d+ outputs are wrong"),
    "withdrawn": ("o_valid", "true_o_valid & ~waited", r"FAIL: (stuck after .*|[1-9]\d* of \d+ outputs are wrong)"),
    "never ready": ("i_ready", "1'b0", r"FAIL: stuck after 0 of 100 inputs and 0 of \d+ outputs"),
    "unknown": ("o_valid", "true_o_valid & 1'bx", r"FAIL: stuck after \d+ of 100 inputs and 0 of \d+ outputs"),
    "status": ("overflow", "~true_overflow", r"FAIL: the status is wrong"),
}


def spoil(folder, entry, name, port, value):
    """Put a module of the unit's name and ports round it, one of whose ports tells `value` instead."""
    own = [("clk", "in", 1), ("rst", "in", 1)] + [
        (each.name, each.direction, each.width) for each in ports(entry.component(entry.configure(entry.small)))]
    declared = ", ".join(f"{way}put wire [{width - 1}:0] {each}" for each, way, width in own)
    (width,) = [width for each, _, width in own if each == port]
    links = ", ".join(f".{each}({'true_' * (each == port)}{each})" for each, _, _ in own)
    text = (folder / f"{name}.v").read_text().replace(f"module {name}(", f"module {name}_true(")
    (folder / f"{name}.v").write_text(
        f"{text}module {name}({declared});\n  wire [{width - 1}:0] true_{port};\n  assign {port} = {value};\n"
        f"  reg waited;\n  always @(posedge clk) waited <= o_valid & ~o_ready;\n  {name}_true unit ({links});\n"
        "endmodule\n")


@NEEDS_ICARUS
@pytest.mark.parametrize("fault", FAULTS)
def test_icarus_fails_the_bench_of_a_unit_with_a_fault(fault, tmp_path, capsys):
    port, value, expected = FAULTS[fault]
    entry, name = folder_of("bfp-fmac", tmp_path, "--vectors", "100")
    spoil(tmp_path, entry, name, port, value)
    assert re.fullmatch(expected, in_icarus(tmp_path, name))


def test_verilator_passes_the_bench_and_fails_it_with_another_output(tmp_path, capsys):
    _, name = folder_of("bfp-converter", tmp_path, "--vectors", "400")
    assert in_verilator(tmp_path, name).startswith("PASS: 400 inputs")
    path = tmp_path / "outputs.hex"
    lines = path.read_text().splitlines()
    for line in (7, 399):
        lines[line] = f"{int(lines[line], 16) ^ 1:0{len(lines[line])}x}"
    path.write_text("\n".join(lines) + "\n")
    assert verdict(again(tmp_path, f"{name}_tb")) == "FAIL: 2 of 400 outputs are wrong"


@pytest.mark.sweep
def test_verilator_fails_the_bench_of_sources_with_a_fault(tmp_path, capsys):
    entry, name = folder_of("bfp-converter", tmp_path, "--vectors", "400")
    unit = catalogue(tmp_path, TIE).find("bfp-converter")
    (tmp_path / f"{name}.v").write_text(unit.verilog(unit.configure(entry.small)))
    assert re.fullmatch(r"FAIL: [1-9]\d* of 400 outputs are wrong", in_verilator(tmp_path, name))


def test_the_files_hold_the_vectors(tmp_path, capsys):
    entry, name = folder_of("bfp-fmac", tmp_path, "--vectors", "60", "--seed", "9")
    parameters = entry.configure(entry.small)
    vectors = entry.vectors(parameters, 60, 9)
    told = json.loads((tmp_path / "vectors.json").read_text())
    assert (told["unit"], told["module"], told["seed"], told["recorded"]) == ("bfp-fmac", name, 9, True)
    assert told["parameters"] == parameters.to_json() and told["tools"]["narrowgauge"]
    for part, payloads in (("inputs", vectors.inputs), ("outputs", vectors.outputs)):
        lines = (tmp_path / told[part]["file"]).read_text().splitlines()
        assert [int(line, 16) for line in lines] == payloads and told[part]["count"] == len(payloads)
        widths = [field["width"] for field in told[part]["fields"]]
        assert sum(widths) == told[part]["width"] and len({len(line) for line in lines}) == 1
        # Fields follow each other without a gap, as `unpack` takes them apart.
        lowest = [unpack(1 << field["low"], *widths) for field in told[part]["fields"]]
        assert lowest == [[int(row == column) for column in range(len(widths))] for row in range(len(widths))]
    assert told["origin"] == list(vectors.origin) and told["status"] == vectors.status


@NEEDS_ICARUS
def test_no_output_at_all_is_a_bench_that_passes(tmp_path, capsys):
    """A transfer that asks for no sum has no output."""
    for seed in range(1, 20):
        _, name = folder_of("bfp-fmac", tmp_path, "--vectors", "1", "--seed", str(seed))
        if not json.loads((tmp_path / "vectors.json").read_text())["outputs"]["count"]:
            break
    assert in_icarus(tmp_path, name) == "PASS: 1 inputs, 0 outputs"


def test_what_cannot_be_written_is_told_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(catalog.Unit, "vectors", lambda *_: pytest.fail("worked"))
    (tmp_path / "file").touch()
    for folder, reason in ((tmp_path / "file" / "under", "Not a directory"), ("", "a folder")):
        assert cli.main(["vectors", "float-adder", "-o", str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("narrowgauge vectors: --output is ") and reason in err and err.count("\n") == 1
