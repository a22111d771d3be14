"""Training runs beside golden, and memories beside golden's: with golden's own core in the place of a simulated one."""

from collections import deque

import numpy as np
import pytest
from cores import recipe_of
from narrowgauge.golden import core, datasets, network
from narrowgauge.golden.core import COUNTED, ERRORS, REPORT, Sequencer
from narrowgauge.golden.core.transfers import LOSS, TENSOR, TOLD, Transfers
from narrowgauge.golden.network.models import layers_of
from narrowgauge.sim.core import Differs, Simulation, Stuck, comparison, training

DIGITS = datasets.load("digits").first(70, 45)
USUAL = {"seed": 3, "epochs": 2, "batch": 32, "lr": 0.1}


class Fake:
    """A core of golden's with the manners of a CoreModel. What it is asked to spoil, it spoils in its memories."""

    spoilt = None  # (number of an instruction, how often before, memory, element, code)
    stopped = None  # number of an instruction that is refused

    def __init__(self, parameters, name, text):
        self.core, self.transfers = core.Core(parameters), Transfers(parameters)
        self.state = type("State", (), {"patience": 0, "number": 0})()
        self.spent, self.cycles = np.zeros(2 * parameters.program, np.int64), 0
        self.messages, self.times = deque(), 0

    def send(self, program, tensors):
        self.issues, self.tensors = Sequencer(self.core.parameters.side, program).issues(), tensors
        assert len(self.transfers.instructions(program)) == len(program.instructions)

    def read(self, rows, columns):
        return next(self.tensors).reshape(rows, columns)

    def write(self, codes):
        rows = codes.shape[0]
        padded = np.zeros((rows, -(-codes.shape[1] // self.transfers.stream) * self.transfers.stream), int)
        padded[:, :codes.shape[1]] = codes
        self.message(TENSOR, [sum(int(code) << self.transfers.element * lane for lane, code in enumerate(group))
                              for group in padded.reshape(-1, self.transfers.stream)])

    def loss(self, total):
        self.message(LOSS, [total])

    def message(self, kind, values):
        top, size = self.transfers.output_bits, 4 * self.transfers.output_words
        self.messages.append(np.array([np.frombuffer((value | kind << top).to_bytes(size, "little"), "<u4")
                                       for value in values]))

    def next(self, synced=False):
        while not self.messages:
            issue = next(self.issues, None)
            if issue is None or issue.number == self.stopped:
                told = dict.fromkeys(REPORT, 3) | {"error": 0 if issue is None else 3, "number": self.stopped or 0,
                                                 "invalid": 0, "overflow": 0}
                self.message(TOLD, list(told.values()))
            elif issue.instruction.name == "sync":
                if synced:
                    return None
            else:
                self.core.execute(issue, self)
                self.spent[issue.number] += 10
                self.cycles += 10
                self.state.number = issue.number
                if self.spoilt and issue.number == self.spoilt[0]:
                    self.times += 1
                    if self.times > self.spoilt[1]:
                        self.core.memories[self.spoilt[2]][self.spoilt[3]] = self.spoilt[4]
        return self.messages.popleft()

    def counters(self):
        return dict.fromkeys(COUNTED, 3)

    def memory(self, path):
        memory, plane = path.split("/")
        size = len(self.core.memories[memory]) // (core.parameters.PLANES if memory == "W" else 1)
        return self.core.memories[memory][int(plane) * size:][:size]

    def close(self):
        pass


def places_of(parameters):
    """Each plane in an array, backwards first so that addresses are not elements."""
    sizes = {name: blocks * (256 if name == "L" else parameters.side**2) for name, blocks in parameters.blocks.items()}
    return {(name, plane): [(f"{name}/{plane}", np.arange(sizes[name])[::-1], np.arange(sizes[name])[::-1])]
            for name in "XDWL" for plane in range(1 + parameters.planes if name == "W" else 1)}


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.setattr(training, "CoreModel", Fake)
    monkeypatch.setattr(comparison, "places_of", places_of)

    def make(recipe, check=None, checkpoint=None, saved=False, parts=1, **sizes):
        layers = layers_of("mlp", DIGITS, (20,), False)
        run = core.Run(recipe, layers, len(DIGITS.train_x), len(DIGITS.test_x), checkpoint=checkpoint, saved=saved,
                       **USUAL)
        return Simulation(core.trainer_of(run, **sizes), run, DIGITS, "", "", check=check, parts=parts)

    return make


@pytest.mark.parametrize("check", [None, "step", "instruction"])
def test_a_run_goes_on_epoch_by_epoch(simulation, check):
    """It ends with the digests of training, and its history is the same; products are counted in training alone."""
    recipe = recipe_of("bfp", update="stochastic")
    found, rows, macs = simulation(recipe, check), [], []

    def progress(epoch, epochs, row):
        rows.append((found.advance(), row))
        macs.append(found.macs)

    expected = network.train(recipe, DIGITS, hidden=(20,), progress=progress, **USUAL)
    ended = found.finish()
    assert len(rows) == 2 and all(mine == golden for mine, golden in rows)
    assert (ended.result.digest, ended.result.state_digest) == (expected.digest, expected.state_digest)
    assert (ended.result.invalid, ended.result.overflow) == (None, None)
    of_an_epoch = 70 * (2 * 64 * 20 + 3 * 20 * 10)
    assert macs == [of_an_epoch, 2 * of_an_epoch] and ended.macs == macs[-1]
    assert ended.peak == ended.macs / 64  # 16 cells of 16 products, and four passes of 2 bits by 2
    assert ended.utilisation == ended.peak / 3
    # In an epoch the fake took ten cycles for each instruction of a unit; two batches of 32 and one of 6 are trained.
    issues = [each for each in Sequencer(16, found.program).issues() if each.unit != "sequencer"]
    measuring = [number for number, each in enumerate(found.program.instructions) if each.name == "step"
                 and each.counter == 1][0]
    training = [number for number, each in enumerate(found.program.instructions) if each.name == "step"
                and each.counter == 0 and not each.next]
    assert found.cycles == 10 * len([each for each in issues if not measuring < each.number < training[-1]])


@pytest.mark.parametrize("name, parts, step, measured", [("bfp", 2, 2, [1, 2]), ("bfp", 1, 3, [2]),
                                                         ("fast", 1, 1, [1, 2])])
def test_a_saved_run_goes_on_and_is_saved(simulation, tmp_path, name, parts, step, measured):
    """From any step to the end of an epoch, where the file has the core's codes, and from there to the run's end."""
    recipe, path, usual = recipe_of(name), tmp_path / "run.npz", {"hidden": (20,), **USUAL}

    def record(number, *_):
        if number == step:
            raise KeyboardInterrupt

    whole = network.train(recipe, DIGITS, save=tmp_path / "whole.npz", **usual)
    with pytest.raises(KeyboardInterrupt):
        network.train(recipe, DIGITS, save=path, record=record, **usual)
    found = simulation(recipe, "step", network.checkpoint(recipe, DIGITS, resume=path, **usual), True, parts)
    rows, epochs = [], []

    def source(step):
        codes = found.codes(step)
        if codes is not None:
            epochs.append(step // 3)
        return codes

    mine = network.train(recipe, DIGITS, resume=path, save=path, source=source, **usual,
                         progress=lambda *_: rows.append(found.advance()))
    ended = found.finish()
    assert (ended.result.digest, ended.result.state_digest) == (whole.digest, whole.state_digest)
    assert mine.digest == whole.digest and ended.result.history == whole.history
    assert rows == list(whole.history[-len(measured):])
    assert epochs == measured and path.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert ended.macs == (140 - min(32 * step, 70)) * (2 * 64 * 20 + 3 * 20 * 10)
    # Nothing is left: the core sends back what it got.
    done = simulation(recipe, None, network.checkpoint(recipe, DIGITS, resume=path, **usual), True, parts)
    assert network.train(recipe, DIGITS, resume=path, save=path, source=done.codes, **usual).digest == whole.digest
    assert done.finish().result.digest == whole.digest and done.macs == 0


def numbered(program, name, place=0):
    return [number for number, each in enumerate(program.instructions) if each.name == name][place]


def block_of(program, tensor):
    return next(each.block for each in program.instructions if each.name == "tensor"
                and program.name(each.number) == tensor)


def test_the_first_difference_is_described(simulation, monkeypatch):
    """An element of the second layer's weights goes wrong in step 2, and one of the errors after it."""
    found = simulation(recipe_of("bfp"), "instruction")
    program = found.program
    number = [number for number, each in enumerate(program.instructions)
              if each.name == "gemm" and each.update and each.use >> 3 == 1][0]
    # Weights of 10 x 20 are two blocks wide; element (3, 17) is in the second one.
    element = (block_of(program, "w2") + 1) * 256 + 3 * 16 + 1
    monkeypatch.setattr(Fake, "spoilt", (number, 1, "W", element, 0x4040))
    with pytest.raises(Differs) as error:
        found.advance()
    expected = int(found.comparison.core.memories["W"][element])
    value = float(found.parameters.work.decode(np.array([expected]))[0])
    assert str(error.value) == (
        f"cycle {found.model.cycles}, step 1, layer 2: w2[3, 17] in W is 0x4040 (3), and golden's is {expected:#x} "
        f"({value:g}); after instruction {number}, {program.line(number)}; 0 other elements differ")


def test_what_was_not_to_change_comes_last(simulation, monkeypatch):
    """A bias of the first layer that changes with the second one's is told as such, and only if those are right."""
    found = simulation(recipe_of("bfp"), "instruction")
    number, place = numbered(found.program, "sums"), block_of(found.program, "b1") * 256
    line = found.program.line(number)
    for element, told in ((place + 5, r"b1\[0, 5\] in W is 0x9 \(.*\), and golden's is 0x0 \(0\), which was not to "
                                      f"change; after instruction {number}, {line}; 0 other"),
                          (slice(place + 5, place + 20), r"b2\[0, 0\] in W .*\); after .*; 14 other")):
        monkeypatch.setattr(Fake, "spoilt", (number, 0, "W", element, 9))
        with pytest.raises(Differs, match=told):
            simulation(recipe_of("bfp"), "instruction").advance()


@pytest.mark.parametrize("memory, tensor", [("W", "b2"), ("X", "x0"), ("L", "y"), ("D", "d2")])
def test_any_memory_is_compared_where_golden_wrote(simulation, monkeypatch, memory, tensor):
    found = simulation(recipe_of("bfp"), "step")
    element = block_of(found.program, tensor) * 256 + (16 if tensor == "b2" else 0)  # biases have a row each
    monkeypatch.setattr(Fake, "spoilt", (numbered(found.program, "sums"), 0, memory, element, 9))
    layer = "" if tensor in ("x0", "y") else ", layer 2"
    with pytest.raises(Differs, match=rf"step \d{layer}: {tensor}\[0, 0\] in {memory} is 0x9 "):
        found.advance()


@pytest.mark.parametrize("update, plane", [("plain", 1), ("kahan", 1), ("kahan", 2), ("grow", 2)])
def test_velocities_and_compensations_are_compared(simulation, monkeypatch, update, plane):
    """Each plane of memory M after an update, and after the host has sent it."""
    found = simulation(recipe_of("bfp", update=update), "instruction")
    size = len(found.model.core.memories["W"]) // core.parameters.PLANES
    for name, tensor in (("sums", "b2"), ("in", "w1")):
        number = numbered(found.program, name, plane if name == "in" else 0)
        element = plane * size + block_of(found.program, tensor) * 256 + (16 if tensor == "b2" else 0)
        monkeypatch.setattr(Fake, "spoilt", (number, 0, "W", element, 9))
        told = rf"{tensor}\[0, 0\] in M, plane {plane} is 0x9 .*; after instruction {number},"
        with pytest.raises(Differs, match=told):
            simulation(recipe_of("bfp", update=update), "instruction").advance()


def test_what_golden_never_wrote_may_hold_anything(simulation, monkeypatch):
    """The last rows of the block of biases have none."""
    found = simulation(recipe_of("bfp"), "step")
    last = len(found.model.core.memories["W"]) // core.parameters.PLANES - 1
    monkeypatch.setattr(Fake, "spoilt", (numbered(found.program, "sums"), 0, "W", last, 9))
    assert found.advance()


def test_a_program_that_was_stopped_is_told(simulation, monkeypatch):
    found = simulation(recipe_of("bfp"))
    number = numbered(found.program, "gemm", 1)
    monkeypatch.setattr(Fake, "stopped", number)
    with pytest.raises(Stuck) as error:
        found.advance()
    assert str(error.value) == (
        f"the program was stopped: {ERRORS[3]}, at instruction {number}: {found.program.line(number)}")


def test_a_check_needs_room_for_its_instructions(simulation):
    with pytest.raises(ValueError, match="program is 256; allowed: 512 or more, for [0-9]+ instructions with those of"):
        simulation(recipe_of("bfp", update="kahan"), "instruction", program=256)
