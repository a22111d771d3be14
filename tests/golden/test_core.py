"""The training core in golden: programs as words and text, tokens, and runs with the digest of `network.train`."""

import dataclasses
import random
import re
from collections import Counter, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cores import convolutions, recipe_of
from narrowgauge.golden import array, core, datasets, network, recipes
from narrowgauge.golden.core import Instruction, Program, Run, Sequencer, TrainerParameters, assemble
from narrowgauge.golden.core.instructions import OPERATIONS, UNITS, WORD, widths
from narrowgauge.golden.core.timing import latencies
from narrowgauge.golden.core.tokens import require_ordered
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.network.models import layers_of
from narrowgauge.golden.number_system import TENSORS
from narrowgauge.golden.precision import threshold_code
from narrowgauge.golden.softmax import SoftmaxParameters

DIGITS = datasets.load("digits").first(140, 45)


def runs(recipe, hidden=(20,), data=DIGITS, **settings):
    """Return (the run of a core, the same for `network.train`)."""
    usual = {"seed": 3, "epochs": 2, "batch": 32, "lr": 0.1} | settings
    model = usual.pop("model", "mlp")
    layers = layers_of(model, data, None if isinstance(model, network.Model) else hidden, False)
    hidden = None if isinstance(model, network.Model) else hidden
    return Run(recipe, layers, len(data.train_x), len(data.test_x), **usual), usual | {"hidden": hidden, "model": model}


class Recorder(core.RunHost):
    """Keeps all tensors that came."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.all = []

    def write(self, codes):
        self.all.append(codes)
        super().write(codes)


def cut(sizes):
    """Return (how a program is cut, what a core is made of)."""
    return ({name: value for name, value in sizes.items() if name in ("parts", "blocks")},
            {name: value for name, value in sizes.items() if name not in ("parts", "blocks")})


CNN = {"model": "cnn", "hidden": (8, 16), "epochs": 1, "batch": 70}
HEAD = dataclasses.replace(recipe_of("bfp"), softmax=SoftmaxParameters(PRESETS["bf16"], 10, 5, "stochastic"))
OWN = convolutions({"outputs": 5, "padding": 2}, {"outputs": 6, "kernel": 2, "stride": 3, "padding": 1},
                   {"outputs": 4, "stride": 2, "padding": 1})  # like `cores.OWN`, and wider
SPREAD = {
    "bfp": (recipe_of("bfp", mantissa=2), {}, {}),
    "bfp, truncated": (recipe_of("bfp", gradients_rounding="truncate"), {"hidden": ()}, {}),
    "int8": (recipe_of("system", system="int8"), {}, {"rows": 2}),
    "bf16": (recipe_of("system", system="bf16"), {"hidden": (7, 5)}, {"columns": 3}),
    "fp8": (recipe_of("system", system="fp8"), {}, {"lanes": 4}),
    "lns": (recipe_of("system", system="lns"), {"batch": 45}, {"vectors": 2}),
    "mx": (recipe_of("system", system="mx"), {}, {"converters": 1, "merged": True}),
    "stochastic": (recipe_of("bfp", update="stochastic"), {"batch": 31, "hidden": (18, 17)}, {}),
    "kahan, drops, decay": (recipe_of("bfp", update="kahan"), {"lr_drops": (0.3, 0.7), "decay": 0.01}, {}),
    "grow, fp32 parameters": (recipe_of("bfp", update="grow", parameters="fp32"), {"epochs": 3, "measure_every": 2},
                              {"updates": ("plain", "grow")}),
    "plain, where others compensate": (recipe_of("bfp"), {"epochs": 1}, {"updates": ("plain", "kahan")}),
    "cut along n": (recipe_of("bfp", update="stochastic"), {}, {"buffer": 128, "program": 1024}),
    "cut along k, 3 x 5": (recipe_of("bfp", update="stochastic"), {"epochs": 1, "batch": 35, "hidden": (9,)},
                           {"buffer": 32, "rows": 3, "columns": 5, "program": 4096}),
    "cut along k, 2 x 2": (recipe_of("bfp", update="stochastic"), {"epochs": 1, "batch": 35, "hidden": (5,)},
                           {"buffer": 64, "rows": 2, "columns": 2, "sums": 4, "program": 4096}),
    "parts and blocks": (recipe_of("bfp", update="stochastic"), {"hidden": (36, 20), "batch": 50},
                         {"parts": 2, "blocks": 2}),
    "errors rounded stochastically, in parts": (HEAD, {"batch": 50}, {"parts": 3}),
    "convolutions": (recipe_of("bfp", mantissa=2, update="stochastic"), CNN, {}),
    "convolutions, parts, cut": (recipe_of("bfp", mantissa=2), CNN | {"hidden": (18, 7)},
                                 {"parts": 2, "blocks": 2, "buffer": 512, "program": 2048}),
    "convolutions, int8": (recipe_of("system", system="int8"), CNN, {"buffer": 65536}),
    "convolutions of one's own": (recipe_of("bfp", update="stochastic"), {"model": OWN, "epochs": 1, "batch": 70},
                                  {"parts": 2, "program": 1024}),
    "lns-madam": (recipe_of("lns-madam", rate_drops=[0.3, 0.8]), {"epochs": 3, "hidden": (20, 9)}, {"program": 1024}),
    "lns-madam, biases by Kahan": (recipe_of("lns-madam", update="kahan"), CNN, {"program": 1024}),
    "cycles of precision": (recipe_of("cpt", cycles=3), {"epochs": 3}, {}),
    "adaptive precision": (recipe_of("fast"), {"epochs": 4, "hidden": (20, 20)}, {}),
    "adaptive precision, cut": (recipe_of("fast", alpha=0.9, beta=0.7, reverse=True), {"epochs": 3, "batch": 50},
                                {"buffer": 128, "program": 2048, "parts": 2}),
    "examples as codes": (recipe_of("bfp"), {}, {"examples": 4096}),
    "examples as codes, one batch": (recipe_of("bfp"), {}, {"examples": 2048}),
    "wider core": (recipe_of("bfp", mantissa=2), {}, {"system": recipe_of("bfp", mantissa=4).system, "classes": 16}),
}


@pytest.mark.parametrize("name", SPREAD)
def test_digest_is_that_of_training(name):
    recipe, settings, sizes = SPREAD[name]
    run, usual = runs(recipe, **settings)
    expected = network.train(recipe, DIGITS, **usual)
    parts, sizes = cut(sizes)
    parameters = core.trainer_of(run, **sizes)
    found = core.train(parameters, run, DIGITS, **parts)
    assert (found.digest, found.state_digest) == (expected.digest, expected.state_digest)
    assert found.history == expected.history
    require_ordered(Sequencer(parameters.side, found.program).issues(), parameters.side)


def test_operands_lie_in_the_memories_that_a_gemm_names():
    """Every tensor that training multiplies is in the core's memories when its GEMM begins."""
    recipe, settings, sizes = SPREAD["stochastic"]
    run, usual = runs(recipe, **settings)
    recorded = []
    network.train(recipe, DIGITS, **usual, record=lambda step, layer, gemm, kind, array, axis: recorded.append(
        ((step, layer, gemm), kind, array.copy())))
    expected, found = defaultdict(dict), Counter()
    for key, kind, tensor in recorded:
        expected[key][kind] = tensor
    model = core.Core(parameters := core.trainer_of(run, **sizes))
    execute = model.execute

    def watched(issue, host):
        each = issue.instruction
        if each.name == "gemm" and not issue.registers["measured"]:
            gemm = list(network.GEMMS)[(each.use & 7) // 2]
            tensors = expected[issue.registers["step"], each.use >> 3, gemm]
            for (kind, _), side in zip(network.GEMMS[gemm], "ab"):
                np.testing.assert_array_equal(model.values(issue.views[side]), tensors[kind])
                found[kind] += 1
        execute(issue, host)

    model.execute = watched
    model.run(core.compiled(parameters, run), Recorder(parameters, run, DIGITS))
    assert set(found) == set(TENSORS) and sum(found.values()) == len(recorded)


def shuffled(parameters, run, seed, depth):
    """Execute a run's program with units that work side by side, in an order drawn; return the core and the host.

    Each unit has a queue of `depth` instructions. A unit is drawn, and does its next instruction if it may.
    """
    model, host, draw = core.Core(parameters), Recorder(parameters, run, DIGITS), random.Random(seed)
    issues = Sequencer(parameters.side, core.compiled(parameters, run)).issues()
    queues, tokens, offered = {unit: deque() for unit in UNITS[1:]}, Counter(), next(issues)
    while offered or any(queues.values()):
        ready = [unit for unit, queue in queues.items() if queue and not (
            queue[0].instruction.name == "wait" and not tokens[queue[0].instruction.semaphore])]
        if offered and offered.instruction.name == "sync":
            issue = not any(queues.values())
        else:
            issue = bool(offered) and len(queues[offered.unit]) < depth
        assert ready or issue, "the units wait for each other"
        if issue and (not ready or draw.random() < 0.5):
            if offered.instruction.name != "sync":
                queues[offered.unit].append(offered)
            offered = next(issues, None)
            continue
        if not ready:
            continue
        done = queues[draw.choice(ready)].popleft()
        if done.instruction.name in ("signal", "wait"):
            tokens[done.instruction.semaphore] += 1 if done.instruction.name == "signal" else -1
        with np.errstate(all="ignore"):
            model.execute(done, host)
    assert not any(tokens.values()), "tokens are left"
    return model, host


@pytest.mark.parametrize("seed, depth, name", [(1, 1, "kahan, drops, decay"), (2, 2, "stochastic"), (3, 8, "bf16"),
                                               (4, 8, "cut along n")])
def test_units_side_by_side_end_with_the_same_memories(seed, depth, name):
    recipe, settings, sizes = SPREAD[name]
    run, _ = runs(recipe, **settings | {"epochs": 1})
    parameters = core.trainer_of(run, **sizes)
    model, host = shuffled(parameters, run, seed, depth)
    expected, told = core.Core(parameters), Recorder(parameters, run, DIGITS)
    expected.run(core.compiled(parameters, run), told)
    for memory in "XDWL":
        np.testing.assert_array_equal(model.memories[memory], expected.memories[memory])
    np.testing.assert_array_equal(np.concatenate([each.ravel() for each in host.all]),
                                  np.concatenate([each.ravel() for each in told.all]))


@pytest.mark.parametrize("name", ["convolutions of one's own", "cut along n"])
def test_memories_may_hold_anything_at_first(name):
    """Numbers from before, NaN among them, reach nothing: neither padding of blocks, nor pixels without a gradient."""
    recipe, settings, sizes = SPREAD[name]
    run, _ = runs(recipe, **settings | {"epochs": 1})
    parts, sizes = cut(sizes)
    parameters = core.trainer_of(run, **sizes)
    program, written, rng = core.compiled(parameters, run, **parts), [], np.random.default_rng(1)
    for used in (False, True):
        found, host = core.Core(parameters), Recorder(parameters, run, DIGITS)
        for place, memory in found.memories.items() if used else ():
            memory[:] = rng.integers(0, 1 << 16, len(memory)) if place != "L" else 9
        found.run(program, host)
        written.append(np.concatenate([each.ravel() for each in host.all]))
        assert found.invalid is None
    np.testing.assert_array_equal(*written)


def test_a_missing_token_is_found():
    """Without any one semaphore of a loop, the order is not assured, or another semaphore assures it as well."""
    run, _ = runs(recipe_of("bfp"), epochs=1)
    program = core.compiled(core.trainer_of(run), run)
    numbers = {each.semaphore for each in program.instructions if each.name == "wait"}
    found = set()
    for number in numbers:
        rest = tuple(each for each in program.instructions
                     if each.name not in ("wait", "signal") or each.semaphore != number)
        try:
            require_ordered(Sequencer(16, Program(rest)).issues(), 16)
        except ValueError as error:
            assert "order of instruction" in str(error)
            found.add(number)
    assert len(found) >= len(numbers) - 3
    unsignalled = tuple(each for each in program.instructions if each.name != "signal")
    with pytest.raises(ValueError, match="semaphore 0 is 'without a token'"):
        list(Sequencer(16, Program(unsignalled)).issues())
    early = tuple(Instruction("gemm", **each.fields | {"early": 1}) if each.name == "gemm" else each
                  for each in program.instructions)
    with pytest.raises(ValueError, match="flag early of instruction"):
        require_ordered(Sequencer(16, Program(early)).issues(), 16)


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


def test_words_and_text_come_back():
    for name in ("stochastic", "cut along k, 3 x 5"):
        recipe, settings, sizes = SPREAD[name]
        run, _ = runs(recipe, **settings)
        program = core.compiled(core.trainer_of(run, **sizes), run)
        words = program.words()
        assert max(words) < 1 << WORD
        assert Program.from_words(words).instructions == program.instructions
        again = assemble(program.text())
        assert again.instructions == program.instructions and again.text() == program.text()
    assert max(widths().values()) <= WORD


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
    (recipe_of("bfp", parameters={"type": "Fixed", "bits": 16, "fraction": 12}), "parameters is Fixed("),
])
def test_recipes_that_have_no_core(recipe, error):
    run, _ = runs(recipe)
    parameters = TrainerParameters(recipe.system, error_bits=9,
                                   policies=("constant", "adaptive") if recipe.system.adaptive else ("constant",))
    with pytest.raises(ValueError) as found:
        core.compiled(parameters, run)
    assert str(found.value).startswith(error)


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
    ({"system": "int8", "policies": ("constant", "cyclic")}, "policies is ('constant', 'cyclic')"),
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
