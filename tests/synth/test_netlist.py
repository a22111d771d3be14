# amaranth: UnusedElaboratable=no
"""The netlist after synthesis, under the same bench as the Verilog before it."""

import pytest
from narrowgauge import catalog
from narrowgauge.sim import runner
from narrowgauge.synth import flow


@pytest.mark.parametrize("name, settings", [
    ("bfp-converter", {"group": 4}),
    pytest.param("bfp-fmac", {"group": 4}, marks=pytest.mark.sweep),
    ("bfp-fmac", {"group": 4, "accumulator": "bf16", "chunks": "parallel"}),
    ("float-fma", {"format": "fp8-e5m2"}),
    ("mx-dot", {"block": 8, "lanes": 4, "element_b": "fp8-e5m2"}),
    ("lns-converter", {"lanes": 4}),
    ("lns-dot", {"lanes": 4, "accumulator": 24, "lsb": 16}),
    pytest.param("madam-update", {}, marks=pytest.mark.sweep),
    pytest.param("sgd-update", {"format": "fp8-e5m2", "schedule": "shared", "grow": True}, marks=pytest.mark.sweep),
    pytest.param("softmax-grad", {}, marks=pytest.mark.sweep),
    ("precision-cyclic", {"iterations": 605, "cycles": 3}),
    pytest.param("precision-adaptive", {}, marks=pytest.mark.sweep),
], ids=["converter", "fmac", "fmac-bf16-parallel", "fma", "mx-dot", "lns-converter", "lns-dot", "madam-update",
        "sgd-update", "softmax-grad", "precision-cyclic", "precision-adaptive"])
def test_the_ecp5_netlist_is_golden(name, settings):
    unit = catalog.find(name)
    parameters = unit.configure(settings)
    module = unit.module_name(parameters)
    netlist = flow.netlist(unit.verilog(parameters), module, "ecp5")
    assert " + " not in netlist.split("endmodule")[0]  # cells, not the source again
    outcome = runner.run(unit.component(parameters), module, unit.vectors(parameters, 2000, 3), seed=3, text=netlist)
    assert (outcome.mismatches, outcome.report) == (0, [])
