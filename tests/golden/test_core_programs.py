"""The training core's programs and parameters in golden: words, text, cycles, and what is refused."""

import dataclasses
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cores import OWN, recipe_of, run_of
from narrowgauge.golden import array, core, network, recipes
from narrowgauge.golden.core import Instruction, Sequencer, TrainerParameters, assemble
from narrowgauge.golden.core.instructions import OPERATIONS
from narrowgauge.golden.core.timing import latencies
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.number_system import TENSORS
from narrowgauge.golden.precision import threshold_code
from runs import DIGITS, runs


def test_the_program_of_the_page():
    """docs/units/core.md shows a program that multiplies: small integers, so that every sum is exact."""
    page = (Path(__file__).parents[2] / "docs" / "units" / "core.md").read_text()
    text = re.search(r"<!-- program -->\n```\n(.*?)```", page, re.DOTALL)[1]
    parameters, rng = TrainerParameters(recipe_of("bfp", mantissa=8).system), np.random.default_rng(1)
    w, b, x = (rng.integers(-3, 4, shape) for shape in ((10, 64), (1, 10), (32, 64)))
    sent = [parameters.work.encode(each.astype(float)) for each in (w, b, x)]
    host = SimpleNamespace(read=lambda rows, columns: sent.pop(0), written=[], write=lambda codes: host.written.append(
        codes))
    assert np.abs(x @ w.T + b).max() < 256  # what bf16 has exactly
    core.Core(parameters).run(assemble(text), host)
    np.testing.assert_array_equal(parameters.work.decode(host.written[0]), np.maximum(x @ w.T + b, 0))
    assert not sent and len(host.written) == 1


def test_word_of_an_instruction():
    """Codes follow the order of docs/units/core.md; fields lie above the code, the first one lowest."""
    assert core.encode(Instruction("halt")) == 0
    assert core.encode(Instruction("loop", count=9)) == list(OPERATIONS).index("loop") | 9 << 5
    fields = {"a": 1, "b": 2, "to": 3, "bias": 4, "mask": 5, "use": 6, "across_a": 1, "biased": 1, "open": 1}
    flags = 1 << 40 | 1 << 42 | 1 << 47
    assert core.encode(Instruction("gemm", **fields)) == (
        list(OPERATIONS).index("gemm") | (1 | 2 << 6 | 3 << 12 | 4 << 18 | 5 << 24 | 6 << 30 | flags) << 5)
    for word, text in ((31, "operation is 31"), (1 << 5, "bits above the fields of halt is '0x1'"),
                       (1 << 96, "word is")):
        with pytest.raises(ValueError, match=text):
            core.decode(word)


@pytest.mark.parametrize("text, error", [
    ("jump 3", "line 1: instruction is 'jump'"),
    ("halt\nset rat value=1", "line 2: register is 'rat'"),
    ("loop count=3 count=4", "line 1: field of loop is 'count'"),
    ("loop 3x", "line 1: count is '3x'"),
    ("gemm a=x b=y to=z relu=2", "line 1: relu of gemm is 2"),
    ("loop 3\nhalt", "loops without an end is 1"),
    ("end\nhalt", "loops around instruction 0 is -1"),
    ("sync", "last instruction is 'sync'"),
    ("wait sequencer\nhalt", "line 1: unit is 'sequencer'"),
])
def test_bad_text_is_one_line(text, error):
    with pytest.raises(ValueError) as found:
        assemble(text)
    assert str(found.value).startswith(error) and "\n" not in str(found.value)


@pytest.mark.parametrize("sizes, error", [
    ({"activations": 1024}, "activations is 1024; allowed: 3584 elements or more, which memory X needs"),
    ({"examples": 256}, "examples is 256; allowed: 2048 elements or more, which memory E needs"),
    ({"errors": 512}, "errors is 512; allowed: 1536 elements or more, which memory D needs"),
    ({"weights": 1792}, "weights is 1792; allowed: 3072 elements or more, which memory W needs"),
    ({"program": 64}, "program is 64; allowed: 256 or more, for "),
    ({"updates": ("kahan",)}, "updates is ('kahan',); allowed: plain among them"),
    ({"parameters": PRESETS["fp16"]}, "parameters is Float("),
    ({"error_bits": 5}, "head of the core is SoftmaxParameters("),
    ({"classes": 9}, "head of the core is SoftmaxParameters("),
    ({"classes": 17}, "head of the core is SoftmaxParameters("),
    ({"system": recipe_of("bfp", mantissa=3).system}, "mantissa is 3; allowed: 4 or more, which the recipe has"),
    ({"system": recipe_of("bfp", exponent=5).system}, "system is BFPSystem("),
])
def test_what_does_not_fit_is_told(sizes, error):
    run, _ = runs(recipe_of("bfp"))
    with pytest.raises(ValueError) as found:
        core.train(core.trainer_of(run, **sizes), run, DIGITS)
    assert str(found.value).startswith(error) and "\n" not in str(found.value)


@pytest.mark.parametrize("recipe, error", [
    (recipe_of("lns-madam", second="fp32"), "weights is Log(bits=16, gamma=2048)"),
    (recipe_of("fast", lag=0), "lag of weights is 0; allowed: 1"),
    (recipe_of("cpt"), "precision of weights is 'cyclic'; allowed: constant, adaptive, the core's policies"),
    (recipes.make("bfp"), "softmax is None; allowed: a head: give --softmax-bits"),
    (recipe_of("fp16", "fp16", loss_scale=8), "loss_scale is False; allowed: true"),
    (recipe_of("bfp", parameters={"type": "Fixed", "bits": 16, "fraction": 12}), "parameters is Fixed("),
])
def test_recipes_that_have_no_core(recipe, error):
    run, _ = runs(recipe)
    parameters = TrainerParameters(recipe.system.arrayed, error_bits=9,
                                   policies=("constant", "adaptive") if recipe.system.adaptive else ("constant",))
    with pytest.raises(ValueError) as found:
        core.compiled(parameters, run)
    assert str(found.value).startswith(error)


@pytest.mark.parametrize("text, error", [
    ("logs scale=1920 bound=5", "instruction 3, logs: scale is -128; allowed: -127 to 127"),
    ("logs scale=2048", "instruction 3, logs: bound is 0; allowed: 1 or more"),
    ("gemm a=x b=w to=d", "logarithmic weights of layer 0 is 'without a scale'"),
    ("logs scale=2048 bound=5\ngemm a=x b=w to=d open", "continued and open is (0, 1)"),
])
def test_logarithmic_weights_that_no_program_has(text, error):
    run, _ = runs(recipe_of("lns-madam"))
    program = core.assemble(f"""tensor x memory=X stride=1 rows=16 columns=16
        tensor d memory=D stride=1 rows=16 columns=16
        tensor w memory=W stride=1 rows=16 columns=16
        {text}
        halt""")
    with pytest.raises(ValueError) as found:
        core.Core(core.trainer_of(run)).run(program, None)
    assert str(found.value).startswith(error)


@pytest.mark.parametrize("settings, error", [
    ({"lr": 0.1, "momentum": 0.5}, "lr is 0.1; allowed: 0 or a power of two, because the core's rates are powers"),
    ({"lr": 0.125, "momentum": 0.9}, "momentum is 0.9"), ({"lr": 0.125, "momentum": 0, "decay": 0.01}, "decay is 0.01"),
])
def test_rates_that_are_no_powers_of_two(settings, error):
    run, _ = runs(recipe_of("bfp"), **settings)
    with pytest.raises(ValueError) as found:
        core.compiled(core.trainer_of(run, rates="powers"), run)
    assert str(found.value).startswith(error)


@pytest.mark.parametrize("settings, error", [
    ({"decay": 0.01}, "decay is 0.01; allowed: 0: a core does not multiply it by a loss scale"),
    ({"lr": 1e-5}, "lr is 1e-05; allowed: 0, or 6.103515625e-05 or more, in a core"),
    ({"momentum": 3e-5}, "momentum is 3e-05; allowed: 0, or 6.103515625e-05 or more, in a core"),
])
def test_rates_that_a_core_would_round_otherwise_are_refused(settings, error):
    run, _ = runs(recipe_of("fp16", "fp16", loss_scale=8), **settings)
    with pytest.raises(ValueError) as found:
        core.compiled(core.trainer_of(run), run)
    assert str(found.value) == error


def test_a_core_has_layers_whose_tensors_choose():
    run, _ = runs(recipe_of("fast"), hidden=(20, 20))
    assert core.trainer_of(run).layers == 4
    with pytest.raises(ValueError, match="^layers is 2; allowed: 3 or more, whose tensors choose their precisions$"):
        core.compiled(core.trainer_of(run, layers=2), run)


def test_a_program_begins_without_groups_that_were_counted():
    """It is the same program again, with the weights that it left: with the groups of before it would choose."""
    run, _ = runs(recipe_of("fast", alpha=0.1, beta=0.1), epochs=1)
    parameters = core.trainer_of(run)
    program, model, widths = core.compiled(parameters, run), core.Core(parameters), []
    for _ in range(2):
        found = []
        host = core.RunHost(parameters, run, DIGITS)
        model.run(program, host, lambda issue, found=found: found.append(dict(model._decided)))
        first = next(each for each in found if len(each) == 6)
        widths.append({width for step, width in first.values() if step == 0})
    assert widths == [{2}, {2}]


@pytest.mark.parametrize("settings, error", [
    ({"vectors": 3}, "vectors is 3"), ({"lanes": 3}, "lanes is 3"), ({"activations": 1000}, "activations is 1000"),
    ({"activations": 16384 + 256}, "activations is 16640"), ({"labels": 100}, "labels is 100"),
    ({"merged": True}, "converters is 2"), ({"updates": ("sgd",)}, "updates is ('sgd',)"),
    ({"policies": ("cyclic",)}, "policies is ('cyclic',)"), ({"program": 100}, "program is 100"),
    ({"policies": ("constant", "adaptive"), "mantissa": 3}, "mantissa is 3"), ({"layers": 3}, "layers is 3"),
    ({"stream": 0}, "stream is 0"), ({"head": 3}, "head is 3"), ({"error_rounding": "up"}, "error_rounding is 'up'"),
    ({"system": "plain"}, "system is 'plain'"), ({"rows": 17}, "rows is 17"),
    ({"loss_scale": True}, "loss_scale is True"),
    ({"system": "int8", "policies": ("constant", "cyclic")}, "policies is ('constant', 'cyclic')"),
    ({"rates": "shifts"}, "rates is 'shifts'"), ({"madam": {}}, "madam is MadamParameters("),
    ({"system": "lns", "madam": {"narrow": {"type": "Log", "bits": 9, "gamma": 16}}}, "madam is MadamParameters("),
])
def test_bad_parameters_are_one_line(settings, error):
    with pytest.raises(ValueError) as found:
        TrainerParameters.from_json(settings)
    assert str(found.value).startswith(error) and "\n" not in str(found.value)


def test_parameters_come_back_from_json():
    parameters = TrainerParameters(recipe_of("bfp").system, parameters=PRESETS["fp32"], updates=("kahan", "plain"))
    told = parameters.to_json()
    assert told["mantissa"] == 4 and told["work"] == "bf16" and told["parameters"] == "fp32"
    assert TrainerParameters.from_json(told) == parameters


def test_a_setting_of_both_comes_back_from_json():
    """The core and some number systems have lanes."""
    parameters = TrainerParameters(recipe_of("system", system="int8", lanes=8).system, lanes=2)
    told = parameters.to_json()
    assert (told["lanes"], told["system_lanes"]) == (2, 8)
    assert TrainerParameters.from_json(told) == parameters


@pytest.mark.parametrize("alpha, beta, reverse, layers, steps", [
    (0.6, 0.3, False, 3, 100), (0.6, 0.3, True, 2, 37), (1.9, 1.99, False, 5, 11), (0.5, 0.25, False, 2, 64),
    (0.5, 0.25, False, 2, 128), (0.5, 0.25, True, 1, 128), (0.123456789, 0.987654321, True, 7, 1000)])
def test_thresholds_of_every_step(alpha, beta, reverse, layers, steps):
    """The sequencer's sums give the codes that fractions give, ties and both ends included."""
    recipe = recipe_of("fast", alpha=alpha, beta=beta, reverse=reverse)
    run, _ = runs(recipe, hidden=(4,) * (layers - 1), epochs=steps, batch=140)
    program = core.compiled(core.trainer_of(run, program=1024), run)
    policy = recipe.policies.weights
    found = defaultdict(dict)
    for issue in Sequencer(16, program).issues():
        if issue.instruction.name == "gemm" and not issue.registers["measured"]:
            found[issue.registers["step"]] |= issue.thresholds
    assert found == {step: {(kind, layer): threshold_code(policy.threshold(layer, layers, step, steps))
                            for kind in TENSORS for layer in range(layers)} for step in range(steps)}


def test_a_nan_and_an_overflow_stick_with_their_step():
    """A number of the third batch that is NaN is met in step 2, and training goes on. Its group is beyond any range."""
    run, _ = runs(recipe_of("bfp"), epochs=1, batch=35)
    x = DIGITS.train_x.copy()
    order = np.random.default_rng(3)
    network.initialise(run.layers, order, run.recipe.work)
    chosen = np.argsort(order.random(len(x)), kind="stable")
    x[chosen[70], 5] = np.nan
    found = core.train(core.trainer_of(run), run, dataclasses.replace(DIGITS, train_x=x))
    assert (found.invalid, found.overflow) == (2, 2)


@pytest.mark.parametrize("converters", [1, 2])
@pytest.mark.parametrize("bits", [2, 4])
def test_cycles_of_a_product_are_those_of_the_array(bits, converters):
    """The model of whole tiles is within 1.3 % and 2 cycles of the array's, which is exact to the cycle."""
    parameters = TrainerParameters(recipe_of("bfp").system, converters=converters, adders=16)
    beside = latencies.READ - 2 + latencies.WALKED  # a core's memories answer so much later than the array's
    for m, n, k in ((64, 64, 64), (32, 10, 32), (10, 32, 32), (50, 32, 784), (32, 400, 50), (5000, 8, 9)):
        program = assemble(f"""
            mode weights value={bits}
            mode activations value={bits}
            tensor a memory=X stride=64 rows={m} columns={k}
            tensor b memory=W stride=64 rows={n} columns={k}
            tensor c memory=D stride=64 rows={m} columns={n}
            gemm a=a b=b to=c
            halt""")
        last = len(program.instructions) - 2
        products = core.Timeline(parameters, program, mark=last).products
        found = products.marks[0].cycle + parameters.system.cell(parameters.sums).latency + array.RESULT
        exact = array.cycles(parameters.array, m, n, k, *[{"precision": bits}] * 2)
        assert abs(found - products.all[0].begin - beside - exact) <= max(2, 0.013 * exact), (m, n, k)


def test_cycles_of_a_step():
    """What costs nothing in the ideal costs cycles: fewer lanes, a slower head, a host that is slow."""
    run, _ = runs(recipe_of("bfp", mantissa=2), hidden=(32,))
    found = {name: core.step_cycles(core.trainer_of(run, **{"lanes": 8, "vectors": 2, "head": 4} | sizes), run, parts)
             for name, sizes, parts in (("best", {}, 2), ("whole", {}, 1), ("lanes", {"lanes": 1}, 2),
                                        ("head", {"head": 1}, 2), ("host", {"stream": 1}, 2))}
    # Products of a step: forward and weight gradient of both layers, and one input gradient.
    assert all(each.macs == 32 * (2 * 64 * 32 + 3 * 32 * 10) for each in found.values())
    best = found.pop("best")
    serial = core.step_cycles(core.trainer_of(run, lanes=8, vectors=2, head=4), run, serial=True)
    assert serial.cycles > found["whole"].cycles + 32 * 64 / 4  # the examples do not come in meanwhile
    assert all(each.cycles > best.cycles for each in found.values())
    for each in (*found.values(), serial, best):
        assert each.busy["array"] + each.starved + each.blocked == pytest.approx(1)
    assert found["lanes"].blocked > 0.4 > 0.05 > best.blocked
    # A parameter a cycle: all weights and biases, one after the other.
    assert found["lanes"].cycles > 64 * 32 + 32 * 10
    # A batch is asked for when a step's last products are: too late for a slow host.
    assert found["host"].busy["in"] > 0.6 and found["host"].cycles > 32 * 64 + 32
    assert best.utilisation == pytest.approx(best.macs / 256 / best.cycles)
    assert best.utilisation < best.ceiling < 1


@pytest.mark.parametrize("rows, columns", [(1, 1), (2, 3), (4, 4)])
def test_buffers_of_operands_with_a_scale_hold_every_product(rows, columns):
    """They are never cut. Half of the buffer would be too small, or is the usual one."""
    run, _ = run_of(recipe_of("system", system="int8"), model=OWN, batch=32)
    parameters = core.trainer_of(run, rows=rows, columns=columns, program=4096)
    core.compiled(parameters, run)
    if parameters.buffer > core.TrainerParameters.buffer:
        with pytest.raises(ValueError, match="^buffer is .*; allowed: more: "):
            core.compiled(dataclasses.replace(parameters, buffer=parameters.buffer // 2), run)
    else:
        assert (rows, columns) == (4, 4)
