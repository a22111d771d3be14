"""The training core in golden: runs with the digest of `network.train`, tokens, and their programs as text."""

import dataclasses
import random
from collections import Counter, defaultdict, deque
from types import SimpleNamespace

import numpy as np
import pytest
from cores import convolutions, recipe_of
from narrowgauge.golden import core, network
from narrowgauge.golden.core import Instruction, Program, Sequencer, TrainerParameters, assemble
from narrowgauge.golden.core.instructions import UNITS, WORD, widths
from narrowgauge.golden.core.tokens import require_ordered
from narrowgauge.golden.formats import PRESETS
from narrowgauge.golden.number_system import TENSORS
from narrowgauge.golden.softmax import SoftmaxParameters
from runs import DIGITS, runs


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
    "fp16, in chunks": (recipe_of("fp16", "fp16", chunk=16), {"hidden": (18, 17), "batch": 45}, {"lanes": 4}),
    "fp16, chunks of convolutions, cut": (recipe_of("fp16", "fp16"), CNN, {"buffer": 4096, "program": 4096}),
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


@pytest.mark.parametrize("scale, interval", [(1, None), (8, 2), (1 << 15, 1), (1 << 24, 3)])
def test_a_loss_scale_skips_steps_and_grows(scale, interval):
    """The velocities' digest has the scale in it. From 2^15 on some steps are skipped."""
    recipe = recipe_of("fp16", "fp16", chunk=8, loss_scale=scale, growth_interval=interval)
    run, usual = runs(recipe, batch=14)
    expected, parameters = network.train(recipe, DIGITS, **usual), core.trainer_of(run, lanes=2)
    program, host, model = core.compiled(parameters, run), core.RunHost(parameters, run, DIGITS), core.Core(parameters)
    model.run(program, host)
    found = host.result(program, model.invalid, model.overflow)
    assert (found.digest, found.state_digest) == (expected.digest, expected.state_digest)
    assert found.history == expected.history
    assert (1 << model.losses["loss"], model.losses["skipped"]) == (expected.loss_scale, expected.skipped)
    assert (expected.skipped > 0) == (scale >= 1 << 15) and (scale != 8 or expected.loss_scale > 8)
    require_ordered(Sequencer(parameters.side, program).issues(), parameters.side)


def test_a_program_settles_what_moved_alone():
    """Nothing moved: no step is counted. Inf and NaN that did not move neither skip a step nor change."""
    parameters = TrainerParameters("float", updates=("plain",), loss_scale=True)
    model, host = core.Core(parameters), SimpleNamespace(read=lambda *shape: np.full(shape, 0x3C00, np.uint32),
                                                         write=None)
    velocities = model._plane(1)
    velocities[-3:] = 0x7C00, 0x7E01, 0x7BFF
    model.run(assemble("set loss value=3\nset interval value=1\nsettle\nsettle\nhalt"), host)
    assert model.losses == {"loss": 3, "accepted": 0, "skipped": 0}
    model.run(assemble("tensor d memory=D stride=1 rows=1 columns=1\ntensor x memory=X stride=1 rows=1 columns=1\n"
                       "tensor w memory=W stride=1 rows=1 columns=1\nset loss value=3\nset interval value=1\n"
                       "in d\nin x\ngemm a=d b=x to=w across_a across_b update use=4\nsettle\nhalt"), host)
    assert model.losses == {"loss": 4, "accepted": 0, "skipped": 0}
    assert velocities[0] == 0x4000 and velocities[-3:].tolist() == [0x7C00, 0x7E01, 0x7C00]
    with pytest.raises(ValueError, match="^instruction 0, set: loss is 25; allowed: 0 to 24$"):
        model.run(assemble("set loss value=25\nhalt"), host)


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
