# amaranth: UnusedElaboratable=no
"""Faults seeded into the sources, each of which the bench must find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import catalogue, copy_sources, seed
from narrowgauge import catalog
from narrowgauge.cli.settings import settings
from unit_faults import CONVERTER, UNIT_FAULTS
from units import outcome_of

ROOT = Path(__file__).parents[2]
TRAINER = ("trainer", *(word for name, value in catalog.find("trainer").small.items()
                        for word in ("--set", f"{name}={value}")))
TRAINER_LANES = (*TRAINER, "--set", "lanes=2", "--set", 'updates=["kahan", "grow"]')
TRAINER_ADAPTIVE = (*(word.replace("program=64", "program=512") for word in TRAINER), "--set", "layers=2", "--set",
                    'policies=["constant", "adaptive"]')
TRAINER_HEAD = (*(word.replace("classes=4", "classes=24").replace("adders=1", "adders=4") for word in TRAINER),
                "--set", "head=4", "--set", "error_rounding=stochastic")
TRAINER_CYCLIC = (*TRAINER, "--set", 'policies=["constant", "cyclic"]')

# What is wrong: (what stands in the sources once, what it becomes, unit and settings).
FAULTS = UNIT_FAULTS | {
    "core: a bias is added to the wrong column": (
        "below, right = tensor.top + line, tensor.left[:low] + number",
        'below, right = tensor.top + line, tensor.left[:low] + number + (name == "other")', TRAINER),
    "core: what moves has the words of the row before": (
        "vector=(now.vector + now.line)[:VECTOR]", "vector=now.vector[:VECTOR]", TRAINER),
    "core: a mask of zero lets an error pass": (
        "zero.append((parts.negative | parts.zero) & ~parts.nan)", "zero.append(parts.negative & ~parts.nan)", TRAINER),
    "core: a part begins in the block above": (
        "made.block.eq(block + away), made.other.eq(other + away)", "made.block.eq(block), made.other.eq(other)",
        TRAINER),
    "core: a sum begins with the last one of before": (
        "before.eq(Mux(now.begins, 0, latest))", "before.eq(latest)", TRAINER),
    "core: biases decay": (
        "given.decay.eq(Mux(bias, 0, rates.decay))", "given.decay.eq(rates.decay)", TRAINER),
    "core: a compensation is kept beside another lane": (
        "self.moved_state.elements[bank].eq(", "self.moved_state.elements[plane * lanes + (k + plane) % lanes].eq(",
        TRAINER_LANES),
    "core: a compensation is not written": (
        "later[-lanes:].replicate(planes - 1)", "C(0, lanes * (planes - 1))", TRAINER_LANES),
    "core: the host's compensations are velocities": (
        "bank = Cat(column[:below], plane[1:])", "bank = Cat(column[:below], plane[2:])", TRAINER_LANES),
    "core: lanes that grow only compensate": ('grow="grow" in p.updates, rates', "rates", TRAINER_LANES),
    "core: a period begins a step late": (
        "rest.eq(Mux(above[-1], total, above))", "rest.eq(Mux(above[-1] | ~above.any(), total, above))",
        TRAINER_CYCLIC),
    "core: a precision of a cycle is not waited for": (
        "cycles.settled | ~cycling", "C(1, 1)", TRAINER_CYCLIC),
    "core: accuracy is measured with the precision of the step": (
        "cycling.eq(cycles.given.bit_select(self.kind, 1) & ~self.measured)",
        "cycling.eq(cycles.given.bit_select(self.kind, 1))", TRAINER_CYCLIC),
    "core: one operand's groups count for the other one": (
        "Mux(turn, one, steps[1][name])", 'Mux(turn | (name == "counts"), one, steps[1][name])', TRAINER_ADAPTIVE),
    "core: an operand counts without being asked to": (
        'gemm[f"count_{side}"] & self.adaptive', "self.adaptive", TRAINER_ADAPTIVE),
    "core: a tensor's span keeps what was chosen by": (
        "write.en.eq(self.counted | self.start | silent)", "write.en.eq(self.counted | silent)", TRAINER_ADAPTIVE),
    "core: rows side by side go on in the block of the last one": (
        "block.eq(base)]", "]", TRAINER_HEAD),
    "core: random words go to the unit of another row": (
        "now.valid & now.turns[each]), unit.words.eq", "now.valid & now.turns[each - 1]), unit.words.eq", TRAINER_HEAD),
    "core: a label is looked for in the next piece": (
        "offset.eq(now.label - now.at)", "offset.eq(now.label - read.at)", TRAINER_HEAD),
    "core: a choice is made at each use": (
        "same.eq(before.known & (before.step == self.step))", "same.eq(0)", TRAINER_ADAPTIVE),
}
# One of each kind: arithmetic, stalls, sums that wait, random words, control. The others are for the sweep.
QUICK = (
    "converter: a tie is rounded up", "converter: a stalled output is lost", "fMAC: a busy sum is not waited for",
    "accumulator: the exponent's end is one too high", "float: a stall draws a random word",
    "mx dot: a sum of two formats has the width of one", "lns dot: a bin takes another one's products",
    "sgd: the shared unit compensates with the weight after the step", "softmax: a stalled row loses an exponential",
)


def simulate(folder, arguments):
    """Run `narrowgauge simulate` on the sources in `folder`; return its exit status, JSON and errors."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NARROWGAUGE_CACHE": str(folder / "cache")}
    # The runtime library does not depend on the sources: one for all saves most of a build.
    shared = Path(os.environ.get("NARROWGAUGE_CACHE", ROOT / "build")) / "sim" / "runtime"
    linked = folder / "cache" / "sim" / "runtime"
    if shared.exists() and not linked.exists():
        linked.parent.mkdir(parents=True)
        linked.symlink_to(shared)
    done = subprocess.run(
        [sys.executable, "-m", "narrowgauge", "simulate", *arguments, "--vectors", "3000", "--json", "-"],
        cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_the_command_line_finds_a_fault_and_nothing_without_one(tmp_path):
    package = copy_sources(tmp_path)
    status, result, errors = simulate(tmp_path, CONVERTER)
    assert (status, errors) == (0, "")
    assert result["mismatches"] == 0 and result["vectors"] == 3000
    old, new, arguments = FAULTS["converter: a tie is rounded up"]
    seed(package, old, new)
    status, result, errors = simulate(tmp_path, arguments)
    assert status == 1 and result["mismatches"] > 0 and errors


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.sweep)
                                  for name in FAULTS])
def test_fault_is_found(name, tmp_path):
    """In the compiled bench, which takes a third of the time of the command line's."""
    old, new, (unit, *words) = FAULTS[name]
    entry = catalogue(tmp_path, (old, new)).find(unit)
    parameters = entry.configure(settings(words[1::2]))
    vectors = entry.vectors(parameters, 3000, 1, record=False)
    outcome = outcome_of(entry.component(parameters), entry.module_name(parameters), vectors,
                         entry.verilog(parameters))
    assert outcome.mismatches > 0 and outcome.report


def test_every_fault_fits_one_place():
    texts = [path.read_text() for room in ("base", "golden", "hw", "sim", "catalog", "cli")
             for path in (ROOT / room).rglob("*.py")]
    places = {name: sum(text.count(old) for text in texts) for name, (old, *_) in FAULTS.items()}
    assert {name: count for name, count in places.items() if count != 1} == {}


def test_every_unit_has_a_fault():
    assert set(QUICK) <= set(FAULTS)
    assert {arguments[0] for _, _, arguments in FAULTS.values()} == set(catalog.UNITS)


@pytest.mark.parametrize("text, places", [("nowhere to be found", "0"), ("return m\n", "[0-9]{2}")])
def test_a_fault_that_fits_no_place_or_several_is_refused(text, places, tmp_path):
    with pytest.raises(AssertionError, match=f"fits {places} places; allowed: one"):
        seed(copy_sources(tmp_path), text, "")
