# amaranth: UnusedElaboratable=no
"""Training cores of every number system: random programs under stalls, and a run, are golden's.

Beside block floating point, whose cores have tests of their own.
"""

import dataclasses
import re
from functools import lru_cache

import pytest
from cores import DIGITS, OWN, alone, recipe_of, require_golden, run_of
from narrowgauge import catalog
from narrowgauge.golden import core, network
from narrowgauge.golden.core import ERRORS, assemble
from narrowgauge.golden.core.sequencer import CODE
from narrowgauge.hw.core import Trainer
from narrowgauge.sim.core import CoreModel, Simulation
from narrowgauge.sim.core.vectors import trainer_random, trainer_vectors

SMALL = {"type": "Float", "exponent": 6, "mantissa": 7}
NINE = {"type": "Float", "exponent": 6, "mantissa": 9}
# Of a recipe: its settings, and those of the core.
SYSTEMS = {
    "int8 of 4 lanes": ("system", "bf16", {"system": "int8", "lanes": 4}, {}),
    "int8": ("system", NINE, {"system": "int8"}, {"converters": 2, "lanes": 2}),
    "int8 in fp16": ("system", "fp16", {"system": "int8", "lanes": 8}, {"converters": 2}),
    "mx": ("mx", "bf16", {"gradients_rounding": "stochastic"}, {"converters": 2, "adders": 2}),
    "mx of one element": ("mx", "bf16", {"element": "fp6-e2m3", "gradients_element": "fp6-e2m3"}, {"merged": True}),
    "mx int8 and fp4": ("mx", "bf16", {"element": "int8", "gradients_element": "fp4-e2m1", "block": 16}, {"lanes": 2}),
    "mx of short blocks": ("mx", "bf16", {"element": "fp4-e2m1", "gradients_element": "fp6-e3m2", "block": 8},
                           {"merged": True}),
    "fp8": ("system", "bf16", {"system": "fp8"}, {"converters": 2, "lanes": 4, "columns": 3}),
    "fp8-e4m3": ("system", "bf16", {"system": "fp8", "format": "fp8-e4m3"}, {"merged": True}),
    "bf16": ("system", "bf16", {"system": "bf16"}, {"converters": 2, "buffer": 256}),
    "fp16": ("system", "fp16", {"system": "float"}, {"merged": True, "lanes": 2}),
    "plain": ("system", NINE, {"system": "plain"}, {"merged": True}),
    "recipe fp16": ("fp16", "fp16", {"chunk": 8}, {"converters": 2, "lanes": 2}),
    "fp16 with windows": ("fp16", "fp16", {"chunk": 16}, {"lanes": 2}),
    "bfp of short groups with windows": ("bfp", "bf16", {"group": 8}, {"converters": 2}),
    "int8 with windows": ("system", "bf16", {"system": "int8"}, {"merged": True, "buffer": 16384}),
    "lns with windows": ("lns-madam", "bf16", {}, {"converters": 2, "lanes": 2, "buffer": 16384}),
    "lns": ("lns-madam", "bf16", {}, {"converters": 2, "lanes": 4}),
    "lns of short vectors": ("lns-madam", "fp16", {"lanes": 4, "constants": 1, "accumulator": 24, "lsb": 13},
                             {"merged": True, "lanes": 2, "rates": "powers"}),
    "lns of 12 bits": ("lns-madam", NINE, {"weights_bits": 12, "accumulation": "bins", "second_bits": 9},
                       {"rows": 2, "merged": True, "updates": ("stochastic", "kahan")}),
    "bfp of short groups": ("bfp", "bf16", {"group": 4}, {"converters": 2, "buffer": 256}),
    "fast of short groups": ("fast", "bf16", {"group": 8}, {"merged": True}),
}


@lru_cache
def made(name):
    """Return (recipe, run, arguments of `network.train`, parameters of the core, its module, its Verilog)."""
    kind, work, settings, sizes = SYSTEMS[name]
    recipe = recipe_of(kind, work, "stochastic", **settings)
    rates = {"lr": 0.125, "momentum": 0.5} if "rates" in sizes else {"momentum": 0.9, "decay": 0.01}
    run, usual = run_of(recipe, batch=24, model=OWN if "windows" in name else "mlp", **rates)
    sizes = {"rows": 1, "columns": 2, "sums": 2, "converters": 1, "buffer": 1024, "program": 1024, "adders": 1} | sizes
    parameters, unit = core.trainer_of(run, **sizes), catalog.find("trainer")
    return recipe, run, usual, parameters, unit.module_name(parameters), unit.verilog(parameters)


@pytest.mark.sweep
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_core_of_every_system(name):
    recipe, run, usual, parameters, module, text = made(name)
    with alone():
        simulation = Simulation(parameters, run, DIGITS, module, text, check="step", idle=0.2, busy=0.2)
    found, expected = simulation.finish(), network.train(recipe, DIGITS, **usual)
    assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
    assert found.result.history == expected.history
    for seed in range(2):
        vectors = trainer_vectors(parameters, *trainer_random(parameters, 5000, seed))
        require_golden(CoreModel(parameters, module, text, seed=seed, idle=0.3 * seed, busy=0.2 * seed), vectors)
        assert len(vectors.outputs) > 1000


# Of a core: the loss scale of each run, and after how many steps it doubles. From 2**15 on steps are skipped.
SCALES = [(1 << 24, 1), (1 << 15, 2), (8, 2), (1, None)]


@pytest.mark.sweep
@pytest.mark.parametrize("sizes", [{"merged": True, "converters": 1},
                                   {"converters": 2, "lanes": 4, "windows": True}], ids=["merged", "lanes"])
def test_a_core_with_a_loss_scale(sizes):
    """One core trains with every scale: it is no part of a core's parameters."""
    for scale, interval in SCALES:
        recipe = recipe_of("fp16", "fp16", chunk=8, loss_scale=scale, growth_interval=interval)
        run, usual = run_of(recipe, batch=7)
        sizes = {"rows": 1, "columns": 2, "sums": 2, "buffer": 1024, "program": 1024, "adders": 1} | sizes
        parameters, unit = core.trainer_of(run, **sizes), catalog.find("trainer")
        module, text = unit.module_name(parameters), unit.verilog(parameters)
        with alone():
            simulation = Simulation(parameters, run, DIGITS, module, text, check="step", idle=0.2, busy=0.2)
        found, expected = simulation.finish(), network.train(recipe, DIGITS, **usual)
        assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
        assert found.result.history == expected.history
        assert (1 << found.report["loss"], found.report["skipped"]) == (expected.loss_scale, expected.skipped)
        assert (expected.skipped > 0) == (scale >= 1 << 15)
    for seed in range(2):
        vectors = trainer_vectors(parameters, *trainer_random(parameters, 5000, seed))
        require_golden(CoreModel(parameters, module, text, seed=seed, idle=0.3 * seed, busy=0.2 * seed), vectors)
        assert len(vectors.outputs) > 1000


@pytest.mark.sweep
def test_a_saved_run_of_logarithmic_weights_goes_on(tmp_path):
    """Within an epoch; Madam's rate has fallen before, and falls again."""
    recipe, run, usual, parameters, module, text = made("lns")
    usual, path = usual | {"epochs": 3}, tmp_path / "run.npz"

    def record(step, *_):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        network.train(recipe, DIGITS, save=path, record=record, **usual)
    begin = network.checkpoint(recipe, DIGITS, resume=path, **usual)
    assert begin.step % 3 and begin.logs
    run = dataclasses.replace(run, epochs=3, checkpoint=begin, saved=True)
    with alone():
        simulation = Simulation(parameters, run, DIGITS, module, text, check="step", idle=0.1, busy=0.3)
    expected = network.train(recipe, DIGITS, save=tmp_path / "whole.npz", **usual)
    network.train(recipe, DIGITS, resume=path, save=path, source=simulation.codes, **usual,
                  progress=lambda *_: simulation.advance())
    found = simulation.finish()
    assert (found.result.digest, found.result.state_digest) == (expected.digest, expected.state_digest)
    assert found.result.history == expected.history
    assert path.read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.sweep
def test_neither_array_nor_lanes_multiply():
    """Where rates are powers of two. A product with a power of two is a choice of bits."""
    *_, text = made("lns of short vectors")
    modules = {name.partition("__")[2] or name: body for name, body in re.findall(
        r"(?ms)^module (\w+)\((.*?)^endmodule", text)}
    multiplies = {name for name, body in modules.items() if "multiplier" in body or any(
        not factor or int(factor, 16) & (int(factor, 16) - 1) for factor in re.findall(
            r" \* (?:\d+'h([0-9a-f]+);|\w+)", body))}
    parts = {name for name in modules if name.startswith(("mover", "products", "cell"))}
    assert {"mover_bias", "mover_lane0", "products_path0_converter", "products_rows", "cell"} <= parts
    assert not multiplies & parts and multiplies


@pytest.mark.sweep
@pytest.mark.parametrize("error, text", [
    ("a scale or", f"logs scale={CODE - 128} bound=5"), ("a scale or", f"logs scale={CODE + 128} bound=5"),
    ("a scale or", f"logs scale={CODE}"), ("a scale or", f"logs scale={CODE} bound=32768"),
    ("a scale or", "set shift value=8"), ("a scale or", "set correction value=65536"),
    ("an operand without", "gemm a=x b=w to=d"), ("an operand without", "gemm a=d b=x to=w update use=4"),
    ("an operation", f"logs scale={CODE} bound=5\ngemm a=x b=w to=d open"),
])
def test_what_a_logarithmic_core_does_not_execute(error, text):
    *_, parameters, module, verilog = made("lns")
    program = assemble(f"""tensor x memory=X stride=1 rows=16 columns=16
        tensor d memory=D stride=1 rows=16 columns=16
        tensor w memory=W stride=1 rows=16 columns=16
        {text}
        halt""")
    with alone():
        model = CoreModel(parameters, module, verilog, idle=0.1)
    model.send(program, iter(()))
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]][:len(error)], report["number"]) == (error, 3 + text.count("\n"))
    model.reset()
    model.send(assemble(f"logs scale={CODE + 127} bound=32767\nset correction value={2**32 - 2**15}\nhalt"), iter(()))
    assert model.transfers.report(model.next())["error"] == 0


@pytest.mark.parametrize("settings, error", [
    ({"work": "fp16", "accumulator": "fp16", "system": "lns", "madam": {"second_bits": 16}}, None),
    ({"work": SMALL, "accumulator": SMALL, "system": "lns", "madam": {}}, "bits of weights and second moments is 16"),
    ({"work": "bf16", "accumulator": "bf16", "system": "lns", "madam": {"gradient": "fp16"}}, "gradient is Float("),
])
def test_circuits_of_logarithmic_weights_that_are_refused(settings, error):
    parameters = core.TrainerParameters.from_json(settings)
    if error is None:
        Trainer(parameters)
        return
    with pytest.raises(ValueError) as found:
        Trainer(parameters)
    assert str(found.value).startswith(error) and "\n" not in str(found.value)
