# amaranth: UnusedElaboratable=no
"""The bench itself: every way to break the rules of a stream is reported, and told so that one can act on it."""

import random

import numpy as np
import pytest
import units
from amaranth import Module, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from narrowgauge import catalog
from narrowgauge.golden.core import REPORT
from narrowgauge.hw import verilog
from narrowgauge.sim import runner
from narrowgauge.sim.vectors import Vectors, pack, unpack


class Fault(enum.Enum, shape=3):
    """What the unit does wrong with a transfer."""

    NONE = 0
    WRONG = 1  # one more than it should be
    CHANGES = 2  # while it waits, the payload is another
    WITHDRAWS = 3  # valid falls while it waits
    TWICE = 4  # emitted twice
    LOST = 5
    JAMS = 6  # nothing is taken any more
    ALARMS = 7  # sets the status


class Increment(wiring.Component):
    """Adds one to a byte, holding one transfer at a time; each transfer says what shall go wrong with it."""

    i: In(stream.Signature(data.StructLayout({"byte": 8, "fault": Fault})))
    o: Out(stream.Signature(8))
    overflow: Out(1)
    status_clear: In(1)

    def elaborate(self, platform):
        m = Module()
        byte, fault = Signal(8), Signal(Fault)
        full, jammed, hidden = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq((~full | (self.o.valid & self.o.ready & (fault != Fault.TWICE))) & ~jammed),
            self.o.valid.eq(full & ~hidden),
            self.o.payload.eq((byte + 1 + (fault == Fault.WRONG)) ^ ((fault == Fault.CHANGES) & ~self.o.ready)),
        ]
        m.d.sync += hidden.eq((fault == Fault.WITHDRAWS) & self.o.valid & ~self.o.ready)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [full.eq(fault == Fault.TWICE), fault.eq(Fault.NONE)]
        with m.If(self.i.valid & self.i.ready):
            new = self.i.payload.fault
            m.d.sync += [
                byte.eq(self.i.payload.byte), fault.eq(new), full.eq(new != Fault.LOST),
                jammed.eq(new == Fault.JAMS), self.overflow.eq(self.overflow | (new == Fault.ALARMS)),
            ]
        return m


COUNT = 60
BYTES = [index * 7 % 251 for index in range(COUNT)]


def increments(faults=None, origin=range(COUNT)):
    """Return Vectors of COUNT bytes, the faults at the indices given."""
    kinds = [(faults or {}).get(index, Fault.NONE).value for index in range(COUNT)]
    return Vectors(
        pack((BYTES, 8), (kinds, 3)), [byte + 1 for byte in BYTES], origin, {"overflow": 0},
        lambda index: f"the byte {BYTES[index]}", lambda payload: f"{payload} in decimal")


def run(faults=None, *, seed=1, origin=range(COUNT), **options):
    """Drive COUNT bytes, the faults at the indices given."""
    return runner.run(Increment(), "increment", increments(faults, origin), seed=seed, **options)


@pytest.mark.parametrize("idle, busy", [(0, 0), (0.3, 0.3), (0.9, 0), (0, 0.9)])
def test_a_unit_without_a_fault_passes(idle, busy):
    outcome = run(idle=idle, busy=busy)
    assert (outcome.vectors, outcome.mismatches, outcome.report, outcome.latency) == (COUNT, 0, [], 1)


@pytest.mark.parametrize("where", [0, 30, COUNT - 1], ids=["first", "middle", "last"])
def test_a_wrong_code_is_reported_with_its_operands_and_both_results(where):
    outcome = run({where: Fault.WRONG})
    assert outcome.mismatches == 1
    assert outcome.report == [
        f"output {where}, completed by input {where}: the byte {BYTES[where]}\n"
        f"  expected {BYTES[where] + 1} in decimal\n"
        f"  got      {BYTES[where] + 2} in decimal"]


def test_a_report_repeats_with_its_seed_and_the_index_does_not_depend_on_it():
    first, again, other = (run({41: Fault.WRONG, 17: Fault.CHANGES}, seed=seed, busy=0.7) for seed in (5, 5, 6))
    assert first == again
    assert other.cycles != first.cycles
    assert other.report[0] == first.report[0]


def test_every_wrong_code_is_counted_and_the_first_five_are_told():
    outcome = run(dict.fromkeys(range(10, 30), Fault.WRONG))
    assert outcome.mismatches == 20
    assert [text.split(",")[0] for text in outcome.report] == [f"output {index}" for index in range(10, 15)]


def test_a_payload_that_changes_while_it_waits_is_reported():
    outcome = run(dict.fromkeys(range(20, 40), Fault.CHANGES), busy=0.5)
    assert outcome.mismatches > 0
    assert "the waiting output changed from" in outcome.report[0]


def test_a_withdrawn_output_is_reported():
    outcome = run(dict.fromkeys(range(20, 40), Fault.WITHDRAWS), busy=0.5)
    assert outcome.mismatches > 0
    assert "a waiting output was withdrawn" in outcome.report[0]


@pytest.mark.parametrize("busy", [0, 0.5])
def test_an_output_too_many_at_the_end_is_reported(busy):
    outcome = run({COUNT - 1: Fault.TWICE}, busy=busy)
    assert outcome.mismatches == 1
    assert f"an output beyond the last expected one: {BYTES[-1] + 1:#x}" in outcome.report[0]


def test_an_output_too_many_in_the_middle_is_reported():
    outcome = run({30: Fault.TWICE})
    # All that follow are off by one, and early.
    assert outcome.mismatches > 5
    assert outcome.report[0].startswith("output 31, ")
    assert "came before its input" in outcome.report[-1]


def test_a_lost_transfer_is_reported():
    outcome = run({COUNT - 1: Fault.LOST})
    assert outcome.mismatches == 1
    assert outcome.report == [f"stuck after {COUNT} of {COUNT} inputs and {COUNT - 1} of {COUNT} outputs"]
    outcome = run({30: Fault.LOST})
    assert outcome.report[0].startswith("output 30, ")
    assert outcome.report[-1].startswith(f"stuck after {COUNT} of {COUNT} inputs")


def test_a_unit_that_takes_nothing_any_more_is_reported():
    outcome = run({20: Fault.JAMS})
    assert (outcome.vectors, outcome.mismatches) == (21, 1)
    assert outcome.report == [f"stuck after 21 of {COUNT} inputs and 21 of {COUNT} outputs"]


def test_an_output_before_the_input_that_completes_it_is_reported():
    outcome = run(origin=[*range(1, COUNT), COUNT - 1], idle=0.9)
    assert outcome.mismatches > 0
    assert "output 0 came before its input" in outcome.report[0]


def test_a_wrong_status_is_reported():
    outcome = run({20: Fault.ALARMS})
    assert outcome.mismatches == 1
    assert outcome.report == ["status overflow is 1, expected 0"]


def test_a_text_of_ones_own_is_simulated_in_place_of_the_component():
    text = verilog.emit(Increment(), "increment")
    assert text.count("assign o_valid = ") == 1
    (report,) = run(text=text.replace("assign o_valid = ", "assign o_valid = 1'b0 & ")).report
    assert report.startswith("stuck after ") and report.endswith(f" 0 of {COUNT} outputs")


def test_a_text_that_does_not_compile_names_the_log():
    with pytest.raises(RuntimeError, match=r"^Verilator could not build increment; see .*build\.log$"):
        run(text="module increment(; endmodule\n")


def test_a_bench_prints_nothing(capfd):
    run({30: Fault.WRONG})
    assert capfd.readouterr() == ("", "")


# The compiled bench, which most tests of units take, finds the same.


@pytest.mark.parametrize("faults, options, reports", [
    ({}, {}, []),
    ({30: Fault.WRONG}, {}, [
        f"output 30, completed by input 30: the byte {BYTES[30]}\n  expected {BYTES[30] + 1} in decimal\n"
        f"  got      {BYTES[30] + 2} in decimal"]),
    (dict.fromkeys(range(20, 40), Fault.CHANGES), {"busy": 0.5}, ["a waiting output changed"]),
    (dict.fromkeys(range(20, 40), Fault.WITHDRAWS), {"busy": 0.5}, ["a waiting output was withdrawn"]),
    ({COUNT - 1: Fault.TWICE}, {}, ["an output came beyond the last expected one"]),
    ({COUNT - 1: Fault.LOST}, {}, [f"stuck after {COUNT} of {COUNT} inputs and {COUNT - 1} of {COUNT} outputs"]),
    ({20: Fault.JAMS}, {}, [f"stuck after 21 of {COUNT} inputs and 21 of {COUNT} outputs"]),
    ({20: Fault.ALARMS}, {}, ["status overflow is 1, expected 0"]),
], ids=lambda each: str([*each.values()][0]) if isinstance(each, dict) and each else "")
def test_the_compiled_bench_reports_every_fault(faults, options, reports):
    outcome = units.outcome_of(Increment(), "increment", increments(faults), **options)
    assert (outcome.mismatches, outcome.report) == (len(reports), reports)


def test_the_compiled_bench_counts_wrong_codes_and_sees_an_output_before_its_input():
    wrong = increments(dict.fromkeys(range(10, 30), Fault.WRONG))
    assert units.outcome_of(Increment(), "increment", wrong).mismatches == 20
    early = increments(origin=[*range(1, COUNT), COUNT - 1])
    (report,) = units.outcome_of(Increment(), "increment", early, idle=0.9).report
    assert report.endswith("came before its input")


def small(unit):
    """Return the parameters of a unit's small example, and Vectors; one in five transfers is recorded."""
    parameters = catalog.find(unit).configure(catalog.find(unit).small)
    return parameters, catalog.find(unit).vectors(parameters, 500, 5)


# A simulator of a core takes a minute to build.
@pytest.mark.parametrize("unit", [pytest.param(unit, marks=[pytest.mark.sweep] if unit == "trainer" else [])
                                  for unit in catalog.UNITS])
def test_every_unit_is_golden_in_the_bench_of_the_command_line(unit):
    parameters, vectors = small(unit)
    assert units.simulate(unit, parameters, vectors, seed=6).vectors == len(vectors.inputs)


# A pipeline, one that waits for sums, one that is busy for many cycles, and one that does not answer every transfer.
QUICK = ("float-cast", "bfp-fmac", "softmax-grad", "precision-adaptive")


@pytest.mark.parametrize("unit", [pytest.param(unit, marks=[] if unit in QUICK else [pytest.mark.sweep])
                                  for unit in catalog.UNITS])
def test_both_benches_find_the_same_cycles(unit):
    parameters, vectors = small(unit)
    usual, compiled = (bench(unit, parameters, vectors, idle=0, busy=0) for bench in (units.simulate, units.run))
    assert usual.latency == compiled.latency
    later = min(usual.spans.values())[0] - min(compiled.spans.values())[0]  # the resets are not of equal length
    assert usual.spans == {index: [start + later, end + later] for index, (start, end) in compiled.spans.items()}


# Packing, against bits put together one by one.


def naive(rows, widths):
    payloads = []
    for row in rows:
        payload = position = 0
        for field, width in zip(row, widths):
            for element in field if isinstance(field, list) else [field]:
                for bit in range(width):
                    payload |= (element >> bit & 1) << (position + bit)
                position += width
        payloads.append(payload)
    return payloads


@pytest.mark.parametrize("shapes", [
    [(1, None)], [(8, None)], [(5, 4)], [(3, None), (1, None), (17, None)], [(5, 16), (8, None), (3, None)],
    [(32, 64), (2, None)], [(33, 3), (1, 7), (62, None)],
], ids=str)
def test_pack_puts_the_first_field_and_its_first_element_lowest(shapes):
    dice = random.Random(str(shapes))
    rows = []
    for _ in range(50):
        row = []
        for width, count in shapes:
            values = [dice.randrange(-(1 << (width - 1)), 1 << width) for _ in range(count or 1)]
            row.append(values if count else values[0])
        rows.append(row)
    widths = [width for width, _ in shapes]
    fields = [(np.array(column), width) for column, width in zip(zip(*rows), widths)]
    payloads = pack(*fields)
    assert payloads == naive(rows, widths)
    assert all(type(payload) is int for payload in payloads)
    flat = [width for width, count in shapes for _ in range(count or 1)]
    for row, payload in zip(rows, payloads):
        elements = [each for field in row for each in (field if isinstance(field, list) else [field])]
        assert unpack(payload, *flat) == [each & ((1 << width) - 1) for each, width in zip(elements, flat)]


def test_pack_takes_lists_and_bools_and_no_transfers_at_all():
    assert pack(([True, False], 1), ([2, -1], 2)) == [0b101, 0b110]
    assert pack((np.zeros((0, 4), int), 3), (np.zeros(0, bool), 1)) == []


@pytest.mark.parametrize("unit", catalog.UNITS)
@pytest.mark.parametrize("count", [1, 2])
def test_vectors_may_be_as_few_that_nothing_comes_out(unit, count):
    entry = catalog.find(unit)
    outputs = set()
    for seed in range(20):
        vectors = entry.vectors(entry.parameters(), count, seed, record=False)
        assert len(vectors.inputs) == count
        outputs.add(len(vectors.outputs))
    # The softmax head's vectors are whole rows: it answers each of their transfers.
    if unit == "trainer":  # each transfer is a program of a `halt`, which has a report
        assert outputs == {count * len(REPORT)}
    elif unit == "softmax-grad" or "last" not in dict(entry.component(entry.parameters()).i.payload.shape()):
        assert outputs == {count}
    elif count == 1:
        assert 0 in outputs
