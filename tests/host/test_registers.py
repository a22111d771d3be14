"""The register map and its exports: what PeakRDL reads back is the map."""

import re

import pytest
from narrowgauge.golden.host import APERTURE, INPUT, OUTPUT, REGISTERS, WINDOW
from narrowgauge.hw.host import description


@pytest.fixture(scope="module")
def read_back(tmp_path_factory):
    compiler = pytest.importorskip("systemrdl")
    path = tmp_path_factory.mktemp("rdl") / "map.rdl"
    path.write_text(description.systemrdl())
    made = compiler.RDLCompiler()
    made.compile_file(str(path))
    return made.elaborate().top


def test_systemrdl_has_every_register_at_its_address(read_back):
    found = {node.inst_name: node.absolute_address for node in read_back.registers()}
    assert found == {register.name: register.address for register in REGISTERS.values()}
    windows = {node.inst_name: (node.absolute_address, node.size) for node in read_back.children()
               if node.inst_name in ("input", "output")}
    assert windows == {"input": (INPUT, WINDOW), "output": (OUTPUT, WINDOW)}


def test_systemrdl_has_every_field_with_its_access(read_back):
    ways = {"r": (True, False), "rw": (True, True), "w1": (False, True), "w1c": (True, True)}
    for node in read_back.registers():
        register = REGISTERS[node.inst_name]
        fields = {each.inst_name: (each.low, each.width, each.get_property("desc")) for each in node.fields()}
        assert fields == ({each.name: (each.low, each.width, each.meaning) for each in register.fields}
                          or {"value": (0, 32, register.meaning)})
        for each in node.fields():
            assert (each.is_sw_readable, each.is_sw_writable) == ways[register.access], node.inst_name
            if register.value is not None:
                assert each.get_property("reset") == register.value >> each.low & ((1 << each.width) - 1)


def test_registers_do_not_overlap_and_leave_the_windows_free():
    addresses = [register.address for register in REGISTERS.values()]
    assert len(set(addresses)) == len(addresses) and max(addresses) < INPUT
    assert all(address % 4 == 0 for address in addresses)
    assert (OUTPUT - INPUT, APERTURE - OUTPUT) == (WINDOW, WINDOW)
    for register in REGISTERS.values():
        assert sum(each.width for each in register.fields) == (bin(register.mask).count("1") if register.fields else 0)


def test_header_and_page_have_every_register():
    pytest.importorskip("peakrdl_cheader")
    pytest.importorskip("peakrdl_markdown")
    header, page = description.header(), description.markdown()
    for register in REGISTERS.values():
        for field in register.fields:
            name = f"NARROWGAUGE__{register.name}__{field.name}".upper()
            assert re.search(rf"#define {name}_bp {field.low}\b", header)
            assert re.search(rf"#define {name}_bw {field.width}\b", header)
        assert register.name in page and f"{register.address:#X}"[2:] in page
