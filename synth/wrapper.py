"""The test wrapper that lets a unit with any number of ports be placed on a device with few pins."""

from collections.abc import Sequence

__all__ = ["PINS", "stub", "wrapper"]

# Clock, serial input, serial output: every port of the unit but its clock hangs on a register.
PINS = ("clk", "si", "so")

# Outputs that a fold register takes in. With the register before it, they are the inputs of a LUT4.
FOLD = 3


def stub(top: str, ports: Sequence[tuple[str, str, int]]) -> str:
    """Return a black box with the ports of module `top`."""
    names = ", ".join(name for name, _, _ in ports)
    lines = [f"  {direction}put [{width - 1}:0] {name};" for name, direction, width in ports]
    return "\n".join([f"(* blackbox *) module {top}({names});", *lines, "endmodule\n"])


def wrapper(top: str, ports: Sequence[tuple[str, str, int]]) -> str:
    """Return Verilog of module `wrapper`, which holds one instance, `unit`, of module `top`.

    A shift register feeds every input bit, reset included, from one pin. A register takes in every output bit, and
    further registers fold these bits into one pin by exclusive or. So each path of the unit runs from register to
    register, and no part of the unit is unused. The wrapper puts no logic into the unit's paths. It costs a flip-flop
    per input bit and per output bit. Per three output bits it costs a further flip-flop and a LUT.

    Parameters
    ----------
    top : str
        Module name of the unit.
    ports : list of (name, 'in' or 'out', width)
        All ports of the unit. `clk` is its clock, where it has one.
    """
    links, width = [], {"in": 0, "out": 0}
    for name, direction, bits in ports:
        if name == "clk":
            links.append(".clk(clk)")
            continue
        low = width[direction]
        width[direction] += bits
        links.append(f".{name}({direction}puts[{low + bits - 1}:{low}])")
    taps = [f"^captured[{min(low + FOLD, width['out']) - 1}:{low}]" for low in range(0, width["out"], FOLD)]
    folds = [f"    fold[{k}] <= {tap}{f' ^ fold[{k - 1}]' if k else ''};" for k, tap in enumerate(taps)]
    return "\n".join([
        f"module wrapper({', '.join(PINS)});",
        "  input clk, si;",
        "  output so;",
        f"  reg [{max(width['in'], 1) - 1}:0] inputs;",
        f"  wire [{width['out'] - 1}:0] outputs;",
        f"  reg [{width['out'] - 1}:0] captured;",
        f"  reg [{len(taps) - 1}:0] fold;",
        f"  assign so = fold[{len(taps) - 1}];",
        f"  {top} unit({', '.join(links)});",
        "  always @(posedge clk) begin",
        "    inputs <= {inputs, si};",
        "    captured <= outputs;",
        *folds,
        "  end",
        "endmodule\n",
    ])
