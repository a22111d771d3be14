"""What crosses a trainer's streams, and the harness of a simulated one: around a small stand-in, and the real one."""

import numpy as np
import pytest
from cores import recipe_of
from narrowgauge.golden.core import COUNTED, REPORT, TrainerParameters, assemble
from narrowgauge.golden.core.transfers import LOSS, TENSOR, TOLD, Transfers
from narrowgauge.golden.formats import Float
from narrowgauge.sim import runner
from narrowgauge.sim.core import CoreModel, Stuck, model, observed

# It answers elements with themselves, each transfer a message, and keeps the first one of each transfer. Its
# instructions: `sync` gives a pulse, `edge` a loss, which is its value, and `halt` a report, which counts from 7. After
# `flip` it takes nothing any more. After `cyclic` an output that waits is withdrawn, after `taps` it changes.
STAND_IN = f"""
module bank(input clk, input write, input [4:0] address, input [15:0] data,
            output [15:0] first);
  reg [15:0] bank0_words [31:0];
  assign first = bank0_words[0];
  always @(posedge clk) if (write) bank0_words[address] <= data;
endmodule

module stand_in(input clk, input rst, input [96:0] i_payload, input i_valid, output i_ready, output [66:0] o_payload,
                output o_valid, input o_ready, input status_clear, output reg invalid, output overflow, output stopped,
                output reg [9:0] number, output synced, input [3:0] counter, output reg [47:0] count);
  reg [63:0] bits; reg [1:0] kind; reg full, stuck, fickle, loose, waited; reg [4:0] left, place;
  wire taken = i_valid & i_ready, told = i_payload[96];
  wire [4:0] code = i_payload[4:0];
  assign i_ready = ~stuck & (~full | o_ready & o_valid & left == 0), o_valid = full & ~(fickle & waited);
  assign overflow = first == 16'h7f80, stopped = stuck;
  assign o_payload = {{left == 0, kind, bits ^ {{63'd0, loose & waited}}}}, synced = taken & told & code == 17;
  wire [15:0] first;
  bank memory_x(clk, taken & ~told, place, i_payload[15:0], first);
  always @(posedge clk) begin
    waited <= o_valid & ~o_ready; count <= 1000 + counter;
    if (o_valid & o_ready) begin
      if (left == 0) full <= 0; else begin left <= left - 1; bits <= bits + 1; end
    end
    if (status_clear) invalid <= 0;
    if (taken) begin
      if (told) number <= number + 1;
      if (~told) begin full <= 1; bits <= i_payload[63:0]; kind <= 0; left <= 0; place <= place + 1; end
      if (~told & i_payload[15:0] == 16'h7fc0) invalid <= 1;
      if (told & code == 0) begin full <= 1; bits <= 7; kind <= 2; left <= {len(REPORT) - 1}; end
      if (told & code == 11) begin full <= 1; bits <= i_payload[38:7]; kind <= 1; left <= 0; end
      if (told & code == 5) stuck <= 1;
      if (told & code == 10) fickle <= 1;
      if (told & code == 4) loose <= 1;
    end
    if (rst) begin
      full <= 0; stuck <= 0; fickle <= 0; loose <= 0; waited <= 0; left <= 0; place <= 0; number <= 0; invalid <= 0;
    end
  end
endmodule
"""
PARAMETERS = TrainerParameters(recipe_of("bfp").system)


def stand_in(**settings):
    found = CoreModel(PARAMETERS, "stand_in", STAND_IN, level=runner.QUICK, **settings)
    found.state.patience = 100
    return found


@pytest.mark.parametrize("stream, work", [(1, "bf16"), (4, "bf16"), (3, Float(8, 10)), (7, Float(8, 9)), (2, "fp32"),
                                          (16, "bf16")])
def test_elements_lie_one_above_the_other(stream, work):
    """Each row begins with a transfer, and its elements are those of an integer's bits."""
    parameters = TrainerParameters(recipe_of("bfp", work=work).system, stream=stream)
    transfers, rng = Transfers(parameters), np.random.default_rng(1)
    bits = parameters.element_bits
    for rows, columns in ((1, 1), (3, 2 * stream), (2, 2 * stream + 1)):
        codes = rng.integers(0, 1 << parameters.work.width, (rows, columns)).astype(np.uint32)
        expected = [sum(int(code) << bits * lane for lane, code in enumerate(row[first:first + stream]))
                    for row in codes for first in range(0, columns, stream)]
        sent = transfers.elements(codes)
        assert [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in sent] == expected
        assert len(sent) == transfers.count(rows, columns)
        top = transfers.output_bits
        came = [value | LOSS << top | 1 << top + 2 for value in expected]
        message = np.array([list(np.frombuffer(value.to_bytes(4 * transfers.output_words, "little"), "<u4"))
                            for value in came], np.uint32)
        np.testing.assert_array_equal(transfers.codes(message, rows, columns), codes)
        assert transfers.kind(message) == LOSS
        assert transfers.number(message[-1]) == expected[-1] % (1 << 64)


def test_instructions_have_a_kind_above_them():
    program = assemble("loop 3\nend\nset rate value=0x80000001 since=0xfedcba98\nhalt")
    for stream in (1, 16):
        transfers = Transfers(TrainerParameters(PARAMETERS.system, stream=stream))
        found = [int.from_bytes(row.tobytes(), "little") for row in transfers.instructions(program)]
        assert found == [word | 1 << max(96, 16 * stream) for word in program.words()]


@pytest.mark.parametrize("idle, busy, seed", [(0, 0, 1), (0.7, 0, 2), (0, 0.7, 3), (0.5, 0.5, 4)])
def test_nothing_is_lost_under_stalls(idle, busy, seed, monkeypatch):
    """Messages come whole and in order, and no cycle depends on how many transfers are handed over at a time."""
    rng = np.random.default_rng(seed)
    tensors = [rng.integers(0, 1 << 16, (rows, 4)).astype(np.uint32) for rows in (3, 1, 40)]
    program, cycles = assemble("edge weights value=9\nedge weights value=5\nhalt"), set()
    for rows, room in ((1, 1), (7, 1000), (1000, 3)):
        monkeypatch.setattr(model, "ROOM", room)
        with_stalls = stand_in(idle=idle, busy=busy, seed=seed)
        with_stalls.send(program, (each[at:at + rows] for each in tensors for at in range(0, len(each), rows)))
        read = with_stalls.transfers
        assert [read.number(with_stalls.next()[0]) for _ in range(2)] == [9, 5]
        report = with_stalls.next()
        assert read.kind(report) == TOLD and list(read.report(report).values()) == list(range(7, 7 + len(REPORT)))
        found = [with_stalls.next() for _ in range(44)]
        assert {read.kind(each) for each in found} == {TENSOR}
        np.testing.assert_array_equal(np.concatenate([read.codes(each, 1, 4) for each in found]),
                                      np.concatenate(tensors))
        cycles.add(with_stalls.cycles)
        assert with_stalls.counters() == {name: 1000 + number for number, name in enumerate(COUNTED)}
    assert len(cycles) == 1


def test_memories_are_read_where_a_program_stops():
    """A pulse is told after what came before it, and two pulses in a row are both told."""
    found = stand_in(idle=0.3, busy=0.3)
    found.send(assemble("sync\nsync\nedge weights value=2\nsync\nhalt"), [np.arange(20, 32).reshape(3, 4)])
    kinds = [None if message is None else found.transfers.kind(message)
             for message in (found.next(synced=True) for _ in range(8))]
    assert kinds == [None, None, LOSS, None, TOLD, TENSOR, TENSOR, TENSOR]
    assert found.memory("memory_x.bank0_words")[:4].tolist() == [20, 24, 28, 0]
    # Those that nobody asks for are passed by.
    found.reset()
    found.send(assemble("sync\nedge weights value=2\nhalt"), [])
    assert [found.transfers.kind(found.next()) for _ in range(2)] == [LOSS, TOLD]


def test_a_reset_forgets_what_was_under_way():
    found = stand_in(busy=0.9)
    found.send(assemble("halt"), [np.full((9, 4), 0x7FC0)])
    for _ in range(3):
        found.next()
    assert found.state.invalid == 1
    found.reset()
    assert found.memory("memory_x.bank0_words")[0] == 0x7FC0
    found.send(assemble("edge weights value=6\nhalt"), [np.full((1, 4), 0x7FC0)])
    assert found.transfers.number(found.next()[0]) == 6
    assert found.state.invalid == 0
    assert [found.transfers.kind(found.next()) for _ in range(2)] == [TOLD, TENSOR] and found.state.invalid == 1
    found.clear()
    with pytest.raises(Stuck, match="nothing has moved for 100 cycles, up to cycle [0-9]+, at instruction 2, with 0 "):
        found.next()
    assert found.state.invalid == 0
    assert found.spent[2] >= 100 and found.spent.sum() == found.cycles - 4  # two resets of two cycles


def test_a_trainer_is_drained():
    """It gets what is handed over to it, and nothing more; what it sends is dropped. Then it may begin again."""
    found, asked = stand_in(busy=0.5), []
    found.send(assemble("edge weights value=6\nhalt"), (asked.append(at) or np.full((1, 4), at) for at in range(9)))
    assert found.transfers.number(found.next()[0]) == 6
    found.drain()
    assert len(asked) < 9 and found.state.sent == found.state.count
    found.reset()
    found.send(assemble("edge weights value=5\nhalt"), [])
    assert found.transfers.number(found.next()[0]) == 5


@pytest.mark.parametrize("text, error", [
    ("flip t1", "nothing has moved for 100 cycles, up to cycle [0-9]+, at instruction 1, with 1 transfers waiting"),
    ("cyclic weights", "a waiting output was withdrawn"), ("taps t1 of=t2", "a waiting output changed"),
])
def test_what_a_trainer_must_not_do_is_told(text, error):
    found = stand_in(busy=0.9)
    found.send(assemble(f"{text}\nhalt"), [np.zeros((2, 4))])
    with pytest.raises(Stuck, match=error):
        for _ in range(9):
            found.next()


def test_a_waveform_has_the_cycles_of_its_window(tmp_path):
    path = tmp_path / "core.vcd"
    found = stand_in(waves=path, window=(10, 19))
    found.send(assemble("halt"), [np.zeros((30, 4))])
    for _ in range(31):
        found.next()
    assert not path.exists()
    found.close()
    text = path.read_text()
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert times == list(range(20, 40)) and "i_payload" in text and "bits" in text


def test_a_program_is_observed():
    program = assemble("""
        tensor x memory=X rows=4 columns=4
        wait in
        in x
        signal in
        loop 2
            step measuring next
            fill x value=1
            step training next
        end
        halt""")
    def names(check):
        return [each.name for each in observed(program, check).instructions]

    assert names("step") == ["tensor", "wait", "in", "signal", "loop", "step", "fill", "step", "sync", "end", "halt"]
    assert names("instruction") == ["tensor", "wait", "in", "sync", "signal", "loop", "step", "fill", "sync", "step",
                                    "end", "halt"]
    with pytest.raises(ValueError, match="check is 'epoch'; allowed: step, instruction"):
        observed(program, "epoch")
