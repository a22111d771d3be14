# amaranth: UnusedElaboratable=no
"""Styles of ports, register slices and templates, of every unit: their text, and what they do in a bench."""

import re
from functools import lru_cache

import pytest
from lint import elaborate, icarus, lint, slang
from narrowgauge import catalog
from narrowgauge.hw import ports
from narrowgauge.sim.sweep import Batch

SLICED = (False, True)
text_of = lru_cache(4)(catalog.Unit.verilog)
VARIANTS = [(style, sliced) for style in ports.STYLES for sliced in SLICED]


@pytest.fixture(autouse=True)
def texts_once(monkeypatch):
    """Make the text of each unit once."""
    monkeypatch.setattr(catalog.Unit, "verilog", text_of)


def parts(unit, parameters):
    """Return the unit's text, and those of its wrappers by the names of their modules, without the unit's."""
    own, name = text_of(unit, parameters), unit.module_name(parameters)
    wrappers = {}
    for style, sliced in VARIANTS:
        whole = unit.wrapped(parameters, style, sliced)
        assert whole.endswith(own)
        wrappers[ports.wrapper_name(name, style, sliced)] = whole.removesuffix(own)
    assert wrappers.pop(name) == ""
    return own, wrappers


def using(unit, parameters, style, sliced):
    """Return a module round a template, whose inputs are the wires that the template wants driven."""
    text = unit.template(parameters, "verilog", style, sliced)
    clock, reset = ("aclk", "aresetn") if style == "axi" else ("clk", "rst")
    names = {port.name: port.direction for port in ports.wrappers.outside(unit.component(parameters), style).ports[2:]}
    prefix = unit.name.replace("-", "_")
    declared = re.findall(r"(?m)^wire (?:signed )?(?:\[(\d+):0\] )?(\w+)( =)?;?", text)
    inputs, outputs, drive = 0, [], []
    for high, name, given in declared:
        width, port = int(high or 0) + 1, name.removeprefix(f"{prefix}_")
        if not given and names.get(port) == "out":
            outputs.append(name)
        elif not given:
            drive.append(f"  assign {name} = in[{inputs + width - 1}:{inputs}];")
            inputs += width
        if given and "tdata" not in name and "payload" not in name:
            outputs.append(name)
    module = f"use_{style}_{'slice' if sliced else 'bare'}"
    return module, inputs, "\n".join([
        f"module {module}(input wire {clock}, input wire {reset}, input wire [{inputs - 1}:0] in, output wire out);",
        *(f"  {line}" for line in text.splitlines()), *drive, f"  assign out = ^{{{', '.join(outputs)}}};",
        "endmodule\n"])


def users(unit, parameters):
    """Return modules round the templates of all styles by name, and of `user`, which has an instance of each."""
    made = [using(unit, parameters, *variant) for variant in VARIANTS]
    ports_, instances = ["input wire clk", "input wire rst"], []
    for module, inputs, _ in made:
        ports_ += [f"input wire [{inputs - 1}:0] {module}_in", f"output wire {module}_out"]
        clock, reset = ("aclk", "aresetn") if "_axi_" in module else ("clk", "rst")
        instances.append(f"  {module} {module} (.{clock}(clk), .{reset}({'!' * (reset == 'aresetn')}rst), "
                         f".in({module}_in), .out({module}_out));")
    return {module: text for module, _, text in made} | {
        "user": "\n".join([f"module user({', '.join(ports_)});", *instances, "endmodule\n"])}


@pytest.mark.parametrize("unit", [
    pytest.param(unit, id=name, marks=[pytest.mark.sweep] if name == "trainer" else [])
    for name, unit in catalog.UNITS.items()])
def test_every_tool_takes_every_style_of_every_unit(unit, tmp_path):
    parameters = unit.configure(unit.small)
    name = unit.module_name(parameters)
    own, wrappers = parts(unit, parameters)
    texts = {f"{each}.v": text for each, text in {
        **users(unit, parameters), name: own, **wrappers}.items()}
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    assert lint(tmp_path, *texts, "--top-module", "user", "-Wno-VARHIDDEN") == ""
    assert slang(tmp_path, *texts) == ""
    assert not icarus(tmp_path, *texts, top="user")
    others = " ".join({file.removesuffix(".v") for file in texts} - {name})
    elaborate(f"ports-{unit.name}", texts, f"hierarchy -check -top user\nproc {others}\ncheck -assert {others}")
    (tmp_path / f"{name}_pkg.sv").write_text(unit.template(parameters, "package"))
    (tmp_path / "structures.sv").write_text(structures(unit, parameters))
    files = (f"{name}_pkg.sv", "structures.sv")
    assert lint(tmp_path, *files, language="1800-2017") == ""
    assert slang(tmp_path, *files, standard="1800-2017") == ""


def structures(unit, parameters):
    """Return a module that takes payloads apart as structures; slang and Verilator refuse it unless widths fit."""
    name = unit.module_name(parameters)
    lines, declared = [], []
    for port in ports.ports(unit.component(parameters)):
        if port.fields:
            kind = f"{name}_pkg::{port.name[0]}_t"
            declared += [f"input wire {kind} {port.name}", f"output wire [{port.width - 1}:0] {port.name}_bits"]
            lines += [f"  assign {port.name}_bits = {port.name};",
                      f"  if ($bits({kind}) != {port.width}) begin : gen_{port.name} "
                      f"$error(\"width of {port.name}\"); end"]
    return "\n".join([f"module structures({', '.join(declared)});", *lines, "endmodule\n"])


def taken_apart(header):
    """Return the fields of each payload by port, as the unit's header tells them: (name, lowest bit, width)."""
    found, port = {}, None
    for line in header:
        if match := re.match(r"//   (\w+)  (?:in|out) \d+  ", line):
            port = match[1]
        elif match := re.match(r"//     \[(\d+):(\d+)\]  ([\w.]+): ", line):
            found.setdefault(port, []).append((match[3], int(match[2]), int(match[1]) - int(match[2]) + 1))
    return found


def adapter(unit, parameters, name, inner, links, body=""):
    """Return a module with the unit's own ports round a wrapper."""
    own = [("clk", "in", 1), ("rst", "in", 1), *(
        (port.name, port.direction, port.width) for port in ports.ports(unit.component(parameters)))]
    given = dict(links)
    used = " ".join(given.values()) + body
    rest = [(port, port) for port, _, _ in own if not re.search(rf"\b{port}\b", used)]
    declared = ", ".join(f"{direction}put wire [{width - 1}:0] {port}" for port, direction, width in own)
    connections = ", ".join(f".{port}({signal})" for port, signal in [*links, *rest])
    return f"module {name}({declared});\n{body}  {inner} inner ({connections});\nendmodule\n"


def by_fields(unit, parameters, sliced):
    """Return an adapter that hands a wrapper the members of the package's structures."""
    name = unit.module_name(parameters)
    links, body = [], f"  import {name}_pkg::*;\n  i_t given;\n  o_t result;\n"
    body += "  assign given = i_payload;\n  assign o_payload = result;\n"
    for port, fields in taken_apart(unit.verilog(parameters).splitlines()).items():
        variable = {"i": "given", "o": "result"}[port[0]]
        for field, _, _ in fields:
            member = field.replace("use", "use_") if field == "use" else field
            links.append((f"{port[0]}_{field.replace('.', '_')}", f"{variable}.{member}"))
    module = f"by_fields_{unit.name.replace('-', '_')}_{sliced}"
    return module, adapter(unit, parameters, module, ports.wrapper_name(name, "fields", sliced), links, body)


def by_axi(unit, parameters, sliced):
    """Return an adapter that hands a wrapper the fields where the wrapper's header says that they are."""
    name = unit.module_name(parameters)
    inner = ports.wrapper_name(name, "axi", sliced)
    header = unit.wrapped(parameters, "axi", sliced).split("module ")[0].splitlines()
    outer, own = taken_apart(header), taken_apart(unit.verilog(parameters).splitlines())
    widths = dict(re.findall(r"//   (\w+)  (?:in|out) (\d+)  ", "\n".join(header)))
    # The bits above the fields are ones: nothing may depend on them.
    body = [f"wire [{int(widths[f'{bus}_tdata']) - 1}:0] {bus};" for bus in ("s_axis", "m_axis")]
    used = sum(width for _, _, width in outer["s_axis_tdata"])
    if used < int(widths["s_axis_tdata"]):
        body.append(f"assign s_axis[{int(widths['s_axis_tdata']) - 1}:{used}] = ~0;")
    links = [("aclk", "clk"), ("aresetn", "~rst"), ("s_axis_tdata", "s_axis"), ("s_axis_tvalid", "i_valid"),
             ("s_axis_tready", "i_ready"), ("m_axis_tdata", "m_axis"), ("m_axis_tvalid", "o_valid"),
             ("m_axis_tready", "o_ready")]
    for bus, port in (("s_axis", "i_payload"), ("m_axis", "o_payload")):
        where = {field: (low, width) for field, low, width in outer[f"{bus}_tdata"]}
        for field, low, width in own[port]:
            bits = f"{port}[{low + width - 1}:{low}]"
            if field == "last":
                links.append((f"{bus}_tlast", bits))
                continue
            there = f"{bus}[{where[field][0] + width - 1}:{where[field][0]}]"
            assert where[field][1] == width
            body.append(f"assign {there} = {bits};" if bus == "s_axis" else f"assign {bits} = {there};")
    module = f"by_axi_{unit.name.replace('-', '_')}_{sliced}"
    return module, adapter(unit, parameters, module, inner, links, "".join(f"  {line}\n" for line in body))


# A tiny unit, one with `last` on both sides, one with structures inside, one with a signed field. The array has a field
# called by a word of SystemVerilog, and takes long to compile.
DRIVEN = ("precision-cyclic", "softmax-grad", "bfp-fmac", "madam-update")
# Faults of a register slice, as the text before and behind. None may make transfers for ever: the bench waits for them.
FAULTS = {
    "spare lost": ("spare_valid ? spare_payload : i_payload", "i_payload"),
    "ready always": ("assign i_ready = !spare_valid;", "assign i_ready = 1'b1;"),
    "not held": ("if (slice_ready || !slice_valid)", "if (1'b1)"),
    "not told": ("slice_valid <= spare_valid || i_valid;", "slice_valid <= i_valid;"),
}


def driven(names, variants):
    """Return outcomes of the bench by (unit, style, sliced), of adapters round wrappers, in one compiled model."""
    jobs, vectors, keys = [], [], []
    for unit_name in names:
        unit = catalog.find(unit_name)
        parameters = unit.configure(unit.small)
        component, module = unit.component(parameters), unit.module_name(parameters)
        own, wrappers = parts(unit, parameters)
        shared = own + unit.template(parameters, "package")
        drives = unit.vectors(parameters, 400, 3, record=False)
        for style, sliced in variants:
            name, text = ports.wrapper_name(module, style, sliced), ""
            wrapper = wrappers[name]
            if style != "packed":
                name, text = {"fields": by_fields, "axi": by_axi}[style](unit, parameters, sliced)
            jobs.append((component, name, shared + wrapper + text))
            keys.append((unit_name, style, sliced))
            vectors.append(drives)
            shared = ""
        if unit_name == "softmax-grad":
            wrapper = wrappers[f"{module}_slice"]
            for fault, (before, behind) in FAULTS.items():
                name = f"fault_{fault.replace(' ', '_')}"
                faulty = wrapper.replace(before, behind)
                assert faulty != wrapper
                jobs.append((component, name, faulty.replace(f"module {module}_slice(", f"module {name}(")))
                keys.append((unit_name, fault, True))
                vectors.append(drives)
    return dict(zip(keys, Batch(jobs).run(vectors), strict=True))


@pytest.fixture(scope="module")
def outcomes():
    return driven(DRIVEN, [("packed", True), ("fields", False), ("axi", True)])


@pytest.mark.sweep
@pytest.mark.parametrize("unit", catalog.UNITS)
def test_wrappers_of_every_unit_do_what_it_does(unit):
    for key, outcome in driven([unit], VARIANTS[1:]).items():
        assert key[1] in FAULTS or outcome.mismatches == 0, (key, outcome.report)


def test_wrappers_do_what_the_unit_does(outcomes):
    for (unit, style, sliced), outcome in outcomes.items():
        if style not in FAULTS:
            assert outcome.mismatches == 0, (unit, style, sliced, outcome.report)
            assert outcome.vectors


def test_a_slice_adds_a_cycle_and_takes_nothing_from_the_throughput():
    unit = catalog.find("float-adder")
    parameters = unit.configure(unit.small)
    component, module = unit.component(parameters), unit.module_name(parameters)
    vectors = unit.vectors(parameters, 300, 1, record=False)
    own, wrappers = parts(unit, parameters)
    both = Batch([(component, module, own), (component, f"{module}_slice", wrappers[f"{module}_slice"])])
    bare, sliced = both.run([vectors] * 2, idle=0, busy=0)
    assert (sliced.mismatches, sliced.latency) == (0, bare.latency + ports.SLICE)
    assert sliced.cycles == bare.cycles + ports.SLICE


# Everything that i_ready depends on within a cycle, and o_ready among it.
CONE = "o:i_ready %ci*:-$dff,-$dffe,-$sdff,-$sdffe,-$sdffce i:o_ready %i"


@pytest.mark.parametrize("name", ["float-adder", "bfp-fmac", "precision-cyclic"])
def test_behind_a_slice_no_path_leads_from_o_ready_to_i_ready(name):
    unit = catalog.find(name)
    parameters = unit.configure(unit.small)
    for sliced, expected in ((False, "any"), (True, "none")):
        top = ports.wrapper_name(unit.module_name(parameters), "packed", sliced)
        elaborate(f"ready-{top}", {"unit.v": unit.wrapped(parameters, "packed", sliced)},
                  f"hierarchy -top {top}\nproc\nflatten\nopt_clean\nselect -assert-{expected} {CONE}")


def test_faults_of_a_slice_are_found(outcomes):
    for fault in FAULTS:
        assert outcomes["softmax-grad", fault, True].mismatches, fault
