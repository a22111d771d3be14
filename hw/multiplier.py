"""Integer multipliers: a family's multiplier block with its registers inside, or LUTs."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .pipeline import signals
from .verilog import PREFIX

__all__ = ["Multiplier", "block", "chunk_product", "rows", "text_of"]

# Yosys does not move registers into the ECP5's and Gowin's blocks, so the blocks are named here. Each family's text
# stands behind its macro; simulators and other families take `*` and plain registers, which mean the same.
# Macro: (widest operands, text).
FAMILIES = {
    "NARROWGAUGE_ECP5": (18, """\
  MULT18X18D #(
    .REG_INPUTA_CLK("{ecp5_before}"), .REG_INPUTA_CE("CE0"), .REG_INPUTA_RST("RST0"),
    .REG_INPUTB_CLK("{ecp5_before}"), .REG_INPUTB_CE("CE0"), .REG_INPUTB_RST("RST0"),
    .REG_INPUTC_CLK("NONE"), .REG_PIPELINE_CLK("NONE"),
    .REG_OUTPUT_CLK("{ecp5_behind}"), .REG_OUTPUT_CE("CE0"), .REG_OUTPUT_RST("RST0"), .GSR("DISABLED")
  ) block (
    .CLK0(clk), .CLK1(1'b0), .CLK2(1'b0), .CLK3(1'b0), .CE0(ce), .CE1(1'b0), .CE2(1'b0), .CE3(1'b0),
    .RST0(1'b0), .RST1(1'b0), .RST2(1'b0), .RST3(1'b0),
    .SIGNEDA(1'b0), .SIGNEDB(1'b0), .SOURCEA(1'b0), .SOURCEB(1'b0),
{ecp5_pins}
  );
"""),
    "NARROWGAUGE_ICE40": (16, """\
  SB_MAC16 #(
    .A_REG(1'b{before}), .B_REG(1'b{before}), .PIPELINE_16x16_MULT_REG2(1'b{behind}),
    .TOPOUTPUT_SELECT(2'b11), .BOTOUTPUT_SELECT(2'b11)
  ) block (
    .CLK(clk), .CE(ce), .A(wide_a[15:0]), .B(wide_b[15:0]), .C(16'b0), .D(16'b0), .O(wide_p[31:0]),
    .AHOLD(1'b0), .BHOLD(1'b0), .CHOLD(1'b0), .DHOLD(1'b0), .IRSTTOP(1'b0), .IRSTBOT(1'b0), .ORSTTOP(1'b0),
    .ORSTBOT(1'b0), .OLOADTOP(1'b0), .OLOADBOT(1'b0), .OHOLDTOP(1'b0), .OHOLDBOT(1'b0), .ADDSUBTOP(1'b0),
    .ADDSUBBOT(1'b0), .CI(1'b0), .ACCUMCI(1'b0), .SIGNEXTIN(1'b0)
  );
"""),
    "NARROWGAUGE_GOWIN": (18, """\
  MULT18X18 #(.AREG(1'b{before}), .BREG(1'b{before}), .OUT_REG(1'b{behind})) block (
    .CLK(clk), .CE(ce), .RESET(1'b0), .A(wide_a), .B(wide_b), .DOUT(wide_p),
    .SIA(18'b0), .SIB(18'b0), .ASEL(1'b0), .BSEL(1'b0), .ASIGN(1'b0), .BSIGN(1'b0)
  );
"""),
    "NARROWGAUGE_NEXUS": (18, """\
  MULT18X18 #(.REGINPUTA("{nexus_before}"), .REGINPUTB("{nexus_before}"), .REGOUTPUT("{nexus_behind}")) block (
    .CLK(clk), .CEA(ce), .CEB(ce), .CEOUT(ce), .RSTA(1'b0), .RSTB(1'b0), .RSTOUT(1'b0),
    .SIGNEDA(1'b0), .SIGNEDB(1'b0), .A(wide_a), .B(wide_b), .Z(wide_p)
  );
"""),
}
TEXT = """\
module {name}(input clk, input ce, input [{top}:0] a, input [{top}:0] b, output [{end}:0] p);
{families}`else
{plain}
`endif
endmodule
"""
USED = """\
  wire [17:0] wide_a = a, wide_b = b;
  wire [35:0] wide_p;
  assign p = wide_p[{end}:0];
"""
PLAIN = {
    (False, False): "  assign p = a * b;",
    (True, False): ("  reg [{top}:0] held_a, held_b;\n  assign p = held_a * held_b;\n"
                    "  always @(posedge clk) if (ce) begin held_a <= a; held_b <= b; end"),
    (False, True): "  reg [{end}:0] held_p;\n  assign p = held_p;\n  always @(posedge clk) if (ce) held_p <= a * b;",
    (True, True): ("  reg [{top}:0] held_a, held_b;\n  reg [{end}:0] held_p;\n  assign p = held_p;\n"
                   "  always @(posedge clk) if (ce) begin held_a <= a; held_b <= b; held_p <= held_a * held_b; end"),
}


def block(width: int, *, before: bool, behind: bool, kind: str) -> tuple[str, str] | None:
    """Return (name, Verilog text) of the module that a `Multiplier` of these parameters instantiates, or None."""
    families = [(macro, text) for macro, (widest, text) in FAMILIES.items() if width <= widest]
    if kind == "lut" or not families:
        return None
    name = f"{PREFIX}multiplier_{width}" + "_before" * before + "_behind" * behind
    top, end = width - 1, 2 * width - 1
    pins = [f".{port}{k}(wide_{port.lower()}[{k}])" for port, count in (("A", 18), ("B", 18), ("P", 36))
            for k in range(count)]
    lines = [", ".join(pins[start:start + 6]) for start in range(0, len(pins), 6)]
    fields = {"before": int(before), "behind": int(behind), "ecp5_pins": ",\n".join(f"    {line}" for line in lines)}
    for place, registered in (("before", before), ("behind", behind)):
        fields[f"ecp5_{place}"] = "CLK0" if registered else "NONE"
        fields[f"nexus_{place}"] = "REGISTER" if registered else "BYPASS"
    texts = [f"{'`elsif' if index else '`ifdef'} {macro}\n" + (USED + text).format(end=end, **fields)
             for index, (macro, text) in enumerate(families)]
    return name, TEXT.format(name=name, top=top, end=end, families="".join(texts),
                             plain=PLAIN[before, behind].format(top=top, end=end))


def text_of(width: int, **settings: Any) -> str:
    """Return the Verilog text of a `Multiplier`'s module; an empty text where LUTs multiply."""
    instance = block(width, **settings)
    return instance[1] if instance else ""


class Multiplier(wiring.Component):
    """Product of two unsigned numbers, with registers before and behind it.

    Parameters
    ----------
    width : int
        Of both operands.
    before, behind : bool
        Whether operands, and whether the product, are registered.
    kind : str
        ``dsp`` or ``lut``; see `golden.floating.MultiplierParameters`.

    Members
    -------
    a, b : In(width)
    p : Out(2 * width)
    enable : In(1)
        Of the registers.
    """

    def __init__(self, width: int, *, before: bool, behind: bool, kind: str) -> None:
        self.width, self.before, self.behind, self.kind = width, before, behind, kind
        super().__init__({"a": In(width), "b": In(width), "p": Out(2 * width), "enable": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        instance = block(self.width, before=self.before, behind=self.behind, kind=self.kind)
        if instance:
            m.submodules.block = Instance(
                instance[0], i_clk=ClockSignal(), i_ce=self.enable, i_a=self.a, i_b=self.b, o_p=self.p)
            return m
        a, b = signals("a b", self.width)
        p = Signal(2 * self.width)
        m.d.comb += p.eq(a * b if self.kind == "dsp" else rows(m, a, b))
        for target, source, registered in ((a, self.a, self.before), (b, self.b, self.before),
                                           (self.p, p, self.behind)):
            if registered:
                with m.If(self.enable):
                    m.d.sync += target.eq(source)
            else:
                m.d.comb += target.eq(source)
        return m


def rows(m: Module, a: Value, b: Value) -> Value:
    """Return a * b as a balanced sum of rows, which synthesis does not take for a multiplication."""
    terms = [(k, a & b[k].replicate(len(a))) for k in range(len(b))]
    level = 0
    while len(terms) > 1:
        sums = []
        for index, ((low, x), (high, y)) in enumerate(zip(terms[::2], terms[1::2])):
            # The bits of x below y's lowest pass by.
            apart = high - low
            total = Signal(max(len(x) - apart, len(y)) + 1, name=f"rows{level}_{index}")
            m.d.comb += total.eq(x[apart:] + y)
            sums.append((low, Cat(x[:apart], total)))
        terms = sums + terms[len(sums) * 2:]
        level += 1
    return terms[0][1]


def chunk_product(a: Value, b: Value) -> Value:
    """Return the 4-bit product of two 2-bit chunks: four functions of four inputs, a LUT4 each."""
    low = a[0] & b[0]
    return Cat(low, (a[1] & b[0]) ^ (a[0] & b[1]), a[1] & b[1] & ~low, a[1] & b[1] & low)
