"""Golden's model of a core's cycles beside the circuit: latencies that both have, and whole runs."""

import pytest
from cores import DIGITS, OWN, alone, core_of, recipe_of, run_of, with_head_of
from narrowgauge.golden import core
from narrowgauge.golden.core.parameters import TrainerParameters
from narrowgauge.golden.core.timing import latencies
from narrowgauge.golden.floating import CastParameters
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.softmax import SoftmaxParameters
from narrowgauge.hw import madam, rates, update
from narrowgauge.hw.core import epilogue, errors, memories, operands, sequencer, sums, tasks, tensors, tokens
from narrowgauge.hw.core.layouts import Geometry
from narrowgauge.hw.floating import FloatCast
from narrowgauge.hw.softmax import SoftmaxGrad
from narrowgauge.sim.core import Simulation


def test_latencies_are_those_of_the_circuit():
    assert (latencies.READ, latencies.SETTLE, latencies.BEHIND) == (memories.READ, tasks.SETTLE, epilogue.BEHIND)
    assert latencies.ADDER == epilogue.ADDER == update.ADDER
    assert (rates.SCALER, madam.MadamUpdate.latency) == (latencies.SCALER, latencies.MADAM)
    assert latencies.ADDITION == sums.ADDITION
    cast = FloatCast(CastParameters(PRESETS["bf16"], result=PRESETS["fp16"]))
    assert cast.latency == latencies.CAST
    assert (latencies.TOKENS, latencies.PIECES) == (tokens.QUEUE, errors.PIECES)
    assert latencies.CLEARED == 1 << sequencer.CLEARED
    assert len(operands.SLOTS) + tensors.LOOKED == latencies.LOOKED


@pytest.mark.parametrize("updates", [("plain",), ("stochastic", "kahan"), ("grow", "plain")])
def test_lanes_are_those_of_the_circuit(updates):
    parameters = TrainerParameters(recipe_of("bfp").system, updates=updates)
    assert latencies.update_latency(parameters) == update.SGDUpdate(Geometry(parameters).sgd).latency


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_softmax_unit_is_that_of_the_circuit(classes):
    unit = SoftmaxGrad(SoftmaxParameters(TrainerParameters(recipe_of("bfp").system).work, classes))
    assert latencies.softmax_latency(classes) == unit.latency


@pytest.mark.parametrize("name, recipe, settings, cut", [
    ("lanes", recipe_of("bfp", mantissa=2), {"hidden": (36, 9)}, {"parts": 2, "blocks": 2}),
    ("lanes", recipe_of("bfp", update="kahan"), {"hidden": (20,)}, {}),
    ("lanes", recipe_of("bfp", mantissa=2), {"model": "cnn", "hidden": (2, 5)}, {"parts": 2}),
    pytest.param("lanes", recipe_of("bfp"), {"model": OWN, "batch": 16}, {}, marks=pytest.mark.sweep),
    ("merged", recipe_of("bfp"), {"hidden": (20,)}, {"parts": 2, "blocks": 2}),
])
def test_cycles_of_a_run_are_within_a_percent(name, recipe, settings, cut):
    """Also of measuring accuracy. A host that waits for nothing feeds the core, as in the model."""
    parameters, module, text = core_of(name)
    run, _ = run_of(with_head_of(parameters, recipe), **settings)
    with alone():
        report = Simulation(parameters, run, DIGITS, module, text, **cut).finish().report
    for counter, cycles in core.training_cycles(parameters, run, **cut).items():
        assert cycles == pytest.approx(report[f"{counter}_cycles"], rel=0.01), counter
