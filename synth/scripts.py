"""The scripts that Yosys runs: for FPGAs, for gates, for netlists that a simulator runs."""

__all__ = ["ASIC", "CELLS", "FPGA", "GATES", "NETLIST", "YOSYS_ONLY"]

# A unit may keep the hierarchy of repeated modules, to have them synthesised once. From here on it is in the way.
FLAT = "setattr -mod -unset keep_hierarchy *\nflatten -noscopeinfo"

# Unit and wrapper are synthesised apart and joined as netlists. Neither can be optimised with knowledge of the other.
# abc9 swallows what is printed afterwards: statistics go to files.
FPGA = f"""\
read_verilog {{macro}} unit.v
{{synth}} {{unit}} -top {{top}}
{FLAT}
{{patch}}
tee -q -o unit.stat stat -json
design -stash unit
read_verilog wrapper.v
{{synth}} -top wrapper
{{patch}}
tee -q -o wrapper.stat stat -json
delete {{top}}
design -copy-from unit {{top}}
hierarchy -check
flatten -noscopeinfo
write_json design.netlist
"""

YOSYS_ONLY = f"""\
read_verilog unit.v
{{synth}} {{unit}} -top {{top}}
{FLAT}
tee -q -o unit.stat stat -json
"""

# Gates are two-input NAND and NOR and the inverter. Yosys' own ABC script may never come back on arithmetic,
# and an initial value, which no standard cell has, would keep a flip-flop from being mapped. -nodffe and
# -nosdff: a later opt must not put the enables and resets back into the flip-flops.
ABC = "abc -g {gates} -script +strash;dc2;dch;map,-B,0.9;topo"
ASIC = f"""\
read_verilog unit.v
{{synth}} -top {{top}}
setattr -unset init w:*
dfflegalize -cell $_DFF_P_ x
opt -fast -nodffe -nosdff
{ABC.format(gates="cmos2")}
{FLAT}
opt_clean
tee -q -o unit.stat stat -json -tech cmos
tee -q -o unit.levels ltp -noff
"""

# Standard cells of a library. Memories become flip-flops. ABC buffers what gates drive, but not flip-flops' outputs.
CELLS = f"""\
read_verilog unit.v
{{synth}} -top {{top}}
setattr -unset init w:*
dfflibmap -liberty cells.lib
opt -fast -nodffe -nosdff
abc -liberty cells.lib -script +strash;&get,-n;&dch,-f;&nf;&put;buffer,-c,-N,16;topo;upsize;dnsize;topo
{FLAT}
opt_clean -purge
write_json cells.netlist
"""

GATES = f"""\
read_verilog unit.v
synth -flatten -noabc -top {{top}}
dfflegalize -cell $_DFF_P_ 01
opt -fast -nodffe -nosdff
{ABC.format(gates="simple")}
{FLAT}
opt_clean
write_verilog -noattr netlist.v
"""

# -defer: only the models that are used are worked out; all of the iCE40's take two minutes.
NETLIST = """\
read_verilog unit.v
{synth} {unit} {plain} -top {top}
setattr -mod -unset keep_hierarchy *
flatten -noscopeinfo
write_verilog -noattr cells.v
design -reset
read_verilog -defer cells.v {models}
hierarchy -check -top {top}
proc
flatten -noscopeinfo
opt_expr
opt_clean -purge
tee -q -o unit.stat stat -json
write_verilog -noattr netlist.v
"""
