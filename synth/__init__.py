"""What a unit costs: synthesis, placement and routing of its Verilog with Yosys and nextpnr."""
