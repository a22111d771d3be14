# amaranth: UnusedElaboratable=no
"""The netlist after synthesis, under the same bench as the Verilog before it."""

import pytest
from narrowgauge import catalog
from narrowgauge.synth import flow
from units import run

# The quick ones, in settings that have more of a netlist than the small examples. The small examples are for the sweep.
QUICK = [
    ("bfp-converter", {"group": 4}),
    ("float-fma", {"format": "fp8-e5m2"}),
    ("precision-cyclic", {"iterations": 605, "cycles": 3}),
]
# The array and the core have memories in block RAM, whose cells have no open models.
SWEPT = [(unit.name, unit.small) for unit in catalog.UNITS.values()
         if unit.name not in ("array", "trainer") and (unit.name, unit.small) not in QUICK] + [
    ("bfp-fmac", {"group": 4, "accumulator": "bf16", "chunks": "parallel"}),
    ("mx-dot", {"block": 8, "lanes": 4, "element_b": "fp8-e5m2"}),
    ("lns-dot", {"lanes": 4, "accumulator": 24, "lsb": 16}),
    ("sgd-update", {"format": "fp8-e5m2", "schedule": "shared", "grow": True}), ("precision-adaptive", {})]


@pytest.mark.parametrize("name, settings", [*QUICK, *(pytest.param(*row, marks=pytest.mark.sweep) for row in SWEPT)],
                         ids=lambda each: each if isinstance(each, str) else "-".join(map(str, each.values())))
def test_the_ecp5_netlist_is_golden(name, settings):
    unit = catalog.find(name)
    parameters = unit.configure(settings)
    module = unit.module_name(parameters)
    netlist = flow.netlist(unit.verilog(parameters), module, "ecp5")
    assert " + " not in netlist.split("endmodule")[0]  # cells, not the source again
    run(unit, parameters, unit.vectors(parameters, 2000, 3), netlist, seed=3)
