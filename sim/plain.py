"""Test vectors as files, and a bench in plain Verilog that checks itself: for those who run no Python.

The bench is Verilog-2005. It reads the vectors, offers them with random gaps, takes the outputs with random gaps, and
compares every output and the status. It holds the unit to the same rules of the streams as `driver`.
"""

from typing import Any

from ..hw.origin import LICENCE, commented
from ..hw.ports import Port, ports
from .vectors import Vectors

__all__ = ["INPUTS", "OUTPUTS", "bench", "explained", "hexadecimal"]

INPUTS, OUTPUTS = "inputs.hex", "outputs.hex"
PATIENCE, TAIL, TOLD = 5000, 50, 5  # cycles without a transfer, cycles behind the last one, mismatches in full
BENCH = """\
// Bench of {unit}
{origin}
// Run it in the folder of {inputs} and {outputs}. Its last line begins with PASS or FAIL.
// IDLE and BUSY: percent of cycles that offer no input, and that take no output. SEED: of these gaps, not 0.
/* verilator lint_save */
/* verilator lint_off DECLFILENAME */ // the file may have any name
/* verilator lint_off PINCONNECTEMPTY */ // the vectors say nothing of some ports
module {unit}_tb;
  parameter IDLE = 30;
  parameter BUSY = 30;
  parameter [31:0] SEED = 32'd{seed};
  localparam [31:0] SENT = {sent}, SEEN = {seen}; // transfers in the files

  reg [{i_high}:0] inputs [0:{i_last}];
  reg [{o_high}:0] outputs [0:{o_last}];
  reg clk, rst, i_valid, o_ready;
  reg [{i_high}:0] i_payload;
  wire i_ready, o_valid;
  wire [{o_high}:0] o_payload;
{wires}
  {unit} unit (
{links}
  );

  initial begin
    $readmemh("{inputs}", inputs);
    {read};
    clk = 1'b0;
    rst = 1'b1;
    #42 rst = 1'b0;
  end
  always #5 clk = !clk;

  // Xorshift of 32 bits: the same gaps in every simulator.
  reg [31:0] dice, left, right;
  always @* begin
    left = dice ^ (dice << 13);
    right = left ^ (left >> 17);
  end
  wire idle = {{16'd0, dice[15:0]}} % 100 < IDLE;
  wire busy = {{16'd0, dice[31:16]}} % 100 < BUSY;

  // What the clock edge at hand transfers, and whether an output waited before it.
  wire sends = (i_valid && i_ready) === 1'b1;
  wire sees = (o_valid && o_ready) === 1'b1;
  reg [31:0] sent, seen, wrong, quiet, tail;
  reg waited;
  reg [{o_high}:0] held;
  wire [31:0] next = sent + {{31'd0, sends}};
  wire broken = waited && (o_valid !== 1'b1 || o_payload !== held);
  wire more = sees && seen >= SEEN;
  wire differs = sees && seen < SEEN && o_payload !== {expected};
  wire complete = sent == SENT && seen >= SEEN;
{flags}
  always @(posedge clk)
    if (rst) begin
      dice <= SEED;
      {{sent, seen, wrong, quiet, tail}} <= 160'd0;
      {{i_valid, o_ready, waited}} <= 3'd0;
    end else begin
      dice <= right ^ (right << 5);
      sent <= next;
      seen <= seen + {{31'd0, sees}};
      quiet <= sends || sees ? 32'd0 : quiet + 32'd1;
      tail <= complete ? tail + 32'd1 : 32'd0;
      // An offered input stays until it is taken.
      if (!i_valid || i_ready) begin
        i_valid <= next < SENT && !idle;
        i_payload <= inputs[next < SENT ? next[{i_index}:0] : {i_bits}'d0];
      end
      o_ready <= !busy;
      waited <= (o_valid && !o_ready) === 1'b1;
      held <= o_payload;
      wrong <= wrong + {{31'd0, broken || more || differs}};
      if (wrong < {told}) begin
        if (broken) $display("a waiting output changed: %h", o_payload);
        if (more) $display("an output beyond the last one: %h", o_payload);
        if (differs) $display("output %0d: got %h, expected %h", seen, o_payload, {expected});
      end
      if (tail == {tail} || quiet == {patience}) begin
{told_flags}        if (!complete)
          $display("FAIL: stuck after %0d of %0d inputs and %0d of %0d outputs", sent, SENT, seen, SEEN);
        else if (wrong != 0) $display("FAIL: %0d of %0d outputs are wrong", wrong, SEEN);
{failed_flags}        else $display("PASS: %0d inputs, %0d outputs", SENT, SEEN);
        $finish;
      end
    end
endmodule
/* verilator lint_restore */
"""


def _bits(count: int) -> int:
    """Return the bits of an index of `count` elements."""
    return max(1, (count - 1).bit_length())


def hexadecimal(payloads: list[int], width: int) -> str:
    """Return payloads of `width` bits as lines for ``$readmemh``."""
    return "".join(f"{payload:0{-(-width // 4)}x}\n" for payload in payloads)


def bench(component: Any, unit: str, vectors: Vectors, seed: int) -> str:
    """Return the bench's Verilog, module ``<unit>_tb``.

    Parameters
    ----------
    component : wiring.Component
        As `runner.run` takes it.
    unit : str
        Name of its module.
    vectors : Vectors
    seed : int
        Of the gaps.
    """
    found = {port.name: port for port in ports(component)}
    streams = [f"{stream}_{role}" for stream in "io" for role in ("payload", "valid", "ready")]
    others = [port for name, port in found.items() if name not in streams]
    wires = [f"  wire {name};" for name in vectors.status]
    links = [(name, name) for name in ("clk", "rst", *streams)] + [
        (port.name, f"{port.width}'d0" if port.direction == "in" else port.name * (port.name in vectors.status))
        for port in others]
    widths = [found[f"{stream}_payload"].width for stream in "io"]
    count = len(vectors.outputs)
    told, failed, flags = "", "", ""
    if vectors.status:
        wrong = " || ".join(f"{name} !== 1'b{value}" for name, value in vectors.status.items())
        flags = f"  wire bad_status = {wrong};\n"
        failed = '        else if (bad_status) $display("FAIL: the status is wrong");\n'
        told = "".join(f"        if ({name} !== 1'b{value}) $display(\"{name} is %b, expected {value}\", {name});\n"
                       for name, value in vectors.status.items())
    read = f'$readmemh("{OUTPUTS}", outputs)' if count else f"outputs[0] = {widths[1]}'d0"
    i_bits, o_bits = _bits(len(vectors.inputs)), _bits(count)
    return BENCH.format(
        unit=unit, origin=commented("//"), inputs=INPUTS, outputs=OUTPUTS, seed=seed or 1, sent=len(vectors.inputs),
        seen=count,
        i_high=widths[0] - 1, o_high=widths[1] - 1, i_last=len(vectors.inputs) - 1, o_last=max(count, 1) - 1,
        i_bits=i_bits, i_index=i_bits - 1, expected=f"outputs[seen[{o_bits - 1}:0]]",
        wires="\n".join(wires) + "\n" * bool(wires), links=",\n".join(f"    .{port}({link})" for port, link in links),
        read=read, flags=flags, told_flags=told, failed_flags=failed, told=TOLD, tail=TAIL, patience=PATIENCE)


def _described(port: Port, file: str, count: int) -> dict[str, Any]:
    return {"file": file, "count": count, "width": port.width, "fields": [
        {"name": ".".join(field.path), "low": field.low, "width": field.width, "meaning": field.meaning}
        for field in port.fields]}


def explained(component: Any, vectors: Vectors) -> dict[str, Any]:
    """Return what the vectors are, as a dict of plain JSON values.

    ``inputs`` and ``outputs``: the file, the number of payloads, their width and their fields, the lowest first.
    ``origin``: for each output the index of its last input. ``status``: the sticky flags after the last
    output.
    """
    found = {port.name: port for port in ports(component)}
    return {
        "inputs": _described(found["i_payload"], INPUTS, len(vectors.inputs)),
        "outputs": _described(found["o_payload"], OUTPUTS, len(vectors.outputs)),
        "origin": [int(index) for index in vectors.origin],
        "status": {name: int(value) for name, value in vectors.status.items()},
        "licence": LICENCE[0].removeprefix("licence: "),
    }
