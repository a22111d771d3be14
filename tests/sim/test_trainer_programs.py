# amaranth: UnusedElaboratable=no
"""The trainer's Verilog executes any program as golden does, and stops at what is none."""

import configurations
import numpy as np
import pytest
from cores import alone, core_of, require_golden
from narrowgauge import catalog
from narrowgauge.golden.core import ERRORS, Core, Sequencer, assemble
from narrowgauge.golden.core.instructions import OPERATIONS
from narrowgauge.golden.core.transfers import Transfers
from narrowgauge.hw.core import Trainer
from narrowgauge.sim.core import CoreModel
from narrowgauge.sim.core.vectors import trainer_random, trainer_recorded, trainer_vectors


def model_of(*arguments, **settings):
    """Return a CoreModel, which is built once."""
    with alone():
        return CoreModel(*arguments, **settings)


@pytest.mark.parametrize("name, make, seed, stalls", [
    ("merged", trainer_random, 1, {}), ("merged", trainer_random, 2, {"idle": 0.4, "busy": 0.4}),
    ("merged", trainer_recorded, 3, {"busy": 0.8}), ("lanes", trainer_random, 4, {"idle": 0.1, "busy": 0.1}),
    ("lanes", trainer_random, 5, {"idle": 0.9}), ("lanes", trainer_recorded, 6, {}),
    *(pytest.param(name, trainer_random, seed, {"idle": 0.2, "busy": 0.2}, marks=pytest.mark.sweep)
      for name in ("merged", "lanes", "single") for seed in range(10, 20)),
])
def test_random_programs_are_golden(name, make, seed, stalls):
    parameters, module, text = core_of(name)
    vectors = trainer_vectors(parameters, *make(parameters, 4000, seed))
    model = model_of(parameters, module, text, seed=seed, **stalls)
    require_golden(model, vectors)
    assert len(vectors.outputs) > 1000


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(12))
def test_random_cores_are_golden(seed):
    """Of any number system, any sizes and all flags. What golden alone has is refused, and others are drawn."""
    unit, rng = catalog.find("trainer"), np.random.default_rng(seed)
    while True:
        parameters = configurations.random_parameters("trainer", rng, tiny=seed % 2)
        try:
            unit.component(parameters)
            break
        except ValueError as error:
            assert "in a circuit" in str(error) or "the work format" in str(error)
    model = model_of(parameters, unit.module_name(parameters), unit.verilog(parameters), seed=seed, idle=0.2, busy=0.2)
    vectors = trainer_vectors(parameters, *trainer_random(parameters, 4000, seed))
    require_golden(model, vectors)
    assert len(vectors.outputs) > 1000


# Tensors that most of the programs below need.
USUAL = """\
tensor x memory=X stride=1 rows=16 columns=16
tensor d memory=D stride=1 rows=16 columns=16
tensor w memory=W stride=1 rows=16 columns=16
tensor y memory=L rows=1 columns=16
mode weights value=4
mode activations value=4
mode gradients value=4
"""
FIRST = USUAL.count("\n")


@pytest.mark.parametrize("error, number, text", [
    ("an operation", FIRST, "window t9 of=x height=4 width=4 channels=1 down=4 across=4 taps_y=1 taps_x=1 step=1"),
    ("an operation", FIRST, "set shift value=1"),
    ("an operation", FIRST, "gemm a=x b=w to=d use=1"),
    ("an operation", FIRST, "gemm a=x b=w to=d bias=w mask=x biased masked"),
    ("an operation", FIRST, "gemm a=d b=x to=w relu update use=4"),
    ("a tensor that was not", FIRST, "in t9"),
    ("a tensor that was not", FIRST, "view t9 of=t8 rows=1 columns=1"),
    ("a tensor that was not", FIRST, "flip t9"),
    ("a tensor that was not", FIRST, "tensor t9 memory=X rows=0 columns=5"),
    ("a part beyond", FIRST, "view t9 of=x row=10 rows=7 columns=16"),
    ("a part beyond", FIRST, "view t9 of=x column=16 rows=1 columns=1"),
    ("a memory", FIRST, "tensor t9 memory=E rows=1 columns=1"),
    ("a memory", FIRST, "gemm a=w b=x to=d"),
    ("a memory", FIRST, "gemm a=x b=d to=d"),
    ("a memory", FIRST, "gemm a=x b=w to=w"),
    ("a memory", FIRST, "gemm a=d b=x to=x update use=4"),
    ("a memory", FIRST, "head a=d labels=y to=d"),
    ("a memory", FIRST, "out y"),
    ("a memory", FIRST, "in x plane=1"),
    ("a memory", FIRST, "out w plane=2"),
    ("a tensor beyond", FIRST, "tensor t9 memory=X block=47 stride=1 rows=16 columns=17"),
    ("a tensor beyond", FIRST, "tensor t9 memory=X stride=48 rows=17 columns=1"),
    ("a tensor beyond", FIRST, "tensor t9 memory=X block=8191 stride=1 rows=1 columns=1"),
    ("a tensor beyond", FIRST, "tensor t9 memory=X other=48 stride=1 rows=1 columns=1"),
    ("a tensor beyond", FIRST, "tensor t9 memory=L left=1 rows=1 columns=256"),
    ("vectors that", FIRST + 1, "tensor t9 memory=X stride=2 left=1 rows=16 columns=16\n"
                                "gemm a=t9 b=w to=d"),
    ("sizes of", FIRST + 1, "tensor t9 memory=X stride=1 rows=16 columns=15\ngemm a=t9 b=w to=d"),
    ("sizes of", FIRST + 1, "tensor t9 memory=D stride=1 rows=15 columns=16\ngemm a=x b=w to=t9"),
    ("sizes of", FIRST, "gemm a=x b=w to=d bias=w biased"),
    ("sizes of", FIRST + 1, "part b pitch=7\ngemm a=x b=w to=d"),
    ("sizes of", FIRST, "sums a=d to=w"),
    ("more classes", FIRST, "head a=x labels=y to=d"),
    ("a method", FIRST + 1, "set method value=2\ngemm a=d b=x to=w update use=4"),
    ("a wait", FIRST, "wait in"),
    ("a wait", FIRST + 2, "signal array\nwait in\nwait in"),
    ("loops too", FIRST + 3, "loop 2\nloop 2\nloop 2\nloop 2\nend\nend\nend\nend"),
    ("loops too", FIRST, "loop 0\nend"),
    ("an operand without", FIRST, "gemm a=x b=w to=d use=8"),
    ("a rate", FIRST, "set rate value=16384"),
    ("a rate", FIRST, "set momentum value=1"),
])
def test_what_cannot_be_executed_stops_the_program(error, number, text):
    """The report tells where; another program begins after a reset."""
    parameters, module, verilog = core_of("merged")
    model = model_of(parameters, module, verilog, idle=0.1)
    code = assemble(USUAL + "sync\nhalt")
    try:
        program = assemble(USUAL + text + "\nsync\nhalt")
    except ValueError:  # four loops, or none: the words are as good as any
        rows = [model.transfers.instructions(assemble(f"{USUAL}{part}\nhalt")) for part in ("sync",)]
        words = rows[0].copy()
        loops = [line.split() for line in text.splitlines()]
        extra = np.zeros((len(loops), words.shape[1]), np.uint32)
        for row, (name, *count) in zip(extra, loops):
            row[0] = list(OPERATIONS).index(name) | (int(count[0]) << 5 if count else 0)
            row[-1] = words[0, -1]
        model.offer([np.concatenate([words[:FIRST], extra, words[FIRST:]])])
    else:
        model.send(program, iter(()))
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]][:len(error)], report["number"]) == (error, number)
    model.run(100)
    assert model.state.stopped == 1 and model.state.number == number
    model.reset()
    model.send(code, iter(()))
    report = model.transfers.report(model.next())
    assert (report["error"], report["number"], model.state.stopped) == (0, FIRST + 1, 0)


@pytest.mark.parametrize("error, number, text", [
    ("a cycle", FIRST, "cyclic weights low=2"), ("a cycle", FIRST, "edge gradients value=1"),
    ("a cycle", FIRST + 7, "cyclic weights low=2 period=9\n" + 7 * "edge weights value=1\n"),
    ("a cycle", FIRST + 1, "cyclic weights low=2 period=9\nedge activations value=1\n"),
    ("a layer", FIRST + 1, "adaptive weights layer=3\nadaptive weights layer=4"),
])
def test_policies_that_cannot_be_stop_the_program(error, number, text):
    """Golden refuses them too."""
    parameters, module, verilog = core_of("lanes")
    model = model_of(parameters, module, verilog)
    program = assemble(USUAL + text + "\nhalt")
    model.send(program, iter(()))
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]][:len(error)], report["number"]) == (error, number)
    with pytest.raises(ValueError, match=f"instruction {number}, "):
        list(Sequencer(parameters.side, program, parameters.layers).issues())


WINDOW = "height=4 width=4 channels=1 down=4 across=4 taps_y=1 taps_x=1 step=1"


@pytest.mark.parametrize("error, number, text", [
    ("a window that", FIRST, f"window t9 of=x {WINDOW} channels=2"),
    ("a window that", FIRST, f"window t9 of=x {WINDOW} width=3"),
    ("a window that", FIRST, "taps t9 of=w kernel=3 channels=2 taps_y=1 taps_x=1 step=1"),
    ("a window that", FIRST, f"window t9 of=x {WINDOW} down=255 across=255"),
    ("a window that", FIRST, f"window t9 of=y {WINDOW}"),
    ("a window that", FIRST + 1, f"window t9 of=x {WINDOW}\nwindow t8 of=t9 {WINDOW}"),
    ("a window that", FIRST + 1, f"window t9 of=x {WINDOW}\nin t9"),
    ("a window that", FIRST + 1, f"window t9 of=x {WINDOW}\nout t9"),
    ("a window that", FIRST + 1, f"window t9 of=x {WINDOW}\nhead a=t9 labels=y to=d"),
    ("a window that", FIRST + 1, f"window t9 of=d {WINDOW}\nfill to=t9"),
    ("a window that", FIRST + 2, f"window t9 of=d {WINDOW} pad=1\ntensor t8 memory=W rows=1 columns=1\n"
                                 "sums a=t9 to=t8"),
    ("a window that", FIRST + 3, f"window t9 of=d {WINDOW} down=1 across=2 step=4\n"
                                 "tensor t8 memory=X stride=1 rows=32 columns=16\n"
                                 "tensor t7 memory=W stride=1 rows=1 columns=16\ngemm a=t8 b=t7 to=t9"),
    ("a window that", FIRST + 2, f"window t9 of=w {WINDOW} down=1 across=1\n"
                                 "tensor t8 memory=X stride=1 rows=16 columns=1\ngemm a=d b=t8 to=t9 across_a across_b "
                                 "update use=4"),
    ("a tensor that was not", FIRST, f"window t9 of=x {WINDOW} taps_y=0"),
    ("a tensor that was not", FIRST, f"window t9 of=t8 {WINDOW}"),
    ("a part beyond", FIRST + 1, f"window t9 of=x {WINDOW}\nview t8 of=t9 row=250 rows=7 columns=1"),
    ("sizes of", FIRST + 1, f"window t9 of=x {WINDOW}\ngemm a=t9 b=w to=d"),
    ("a memory", FIRST, "fill to=w"), ("a memory", FIRST, "fill to=d plane=1"),
    ("an operation", FIRST, "fill to=d value=65536"),
])
def test_windows_that_cannot_be_stop_the_program(error, number, text):
    parameters, module, verilog = core_of("lanes")
    model = model_of(parameters, module, verilog, idle=0.1)
    # The last value of a field counts.
    lines = [" ".join({word.partition("=")[0]: word for word in line.split()}.values())
             for line in text.splitlines()]
    model.send(assemble(USUAL + "\n".join(lines) + "\nsync\nhalt"), iter(()))
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]][:len(error)], report["number"]) == (error, number)


def test_activations_are_counted_where_they_are_operand_a():
    parameters, module, verilog = core_of("lanes")
    program = assemble(USUAL + "gemm a=d b=x to=w update use=4 count_b\nhalt")
    model = model_of(parameters, module, verilog)
    model.send(program, iter(()))
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]], report["number"]) == (ERRORS[1], FIRST)
    with pytest.raises(ValueError, match="count_b is 1; allowed: 0"):
        Core(parameters).run(program, None)


def test_what_does_not_fit_the_buffers_stops_the_program():
    """Columns of 16 vectors each, beside buffers of 128: 17 are too many for two columns of cells."""
    parameters, module, verilog = core_of("merged")
    model = model_of(parameters, module, verilog)
    model.send(assemble("tensor a memory=X stride=4 rows=1 columns=64\ntensor b memory=W stride=1 rows=64 columns=16\n"
                        "tensor c memory=D stride=4 rows=1 columns=64\nmode activations value=4\nmode weights value=4\n"
                        "tensor e memory=X stride=1 rows=1 columns=16\ngemm a=e b=b to=c\nsync\nhalt"), iter(()))
    assert model.transfers.report(model.next())["error"] == 0
    parameters, module, verilog = core_of("lanes")
    model = model_of(parameters, module, verilog)
    model.send(assemble("tensor a memory=X stride=1 rows=1 columns=16\ntensor b memory=W stride=1 rows=64 columns=16\n"
                        "tensor c memory=D stride=4 rows=1 columns=64\nmode activations value=4\nmode weights value=4\n"
                        "gemm a=a b=b to=c\nsync\nhalt"), iter(()))
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]], report["number"]) == ("a product that does not fit the buffers", 5)


@pytest.mark.parametrize("sent, error, number", [
    ("elements", "elements in the stream while no program runs", 0),
    ("instruction", "an instruction in the stream where elements are due", FIRST),
    ("long", "a program longer than its memory", 0),
])
def test_a_broken_stream_stops_the_program(sent, error, number):
    parameters, module, verilog = core_of("merged")
    model = model_of(parameters, module, verilog)
    program = model.transfers.instructions(assemble(USUAL + "in x\nsync\nhalt"))
    elements = model.transfers.elements(np.ones((16, 16), np.uint32))
    model.offer({"elements": [elements], "instruction": [program, elements[:5], program],
                 "long": [np.repeat(program[:1], parameters.program + 1, axis=0)]}[sent])
    report = model.transfers.report(model.next())
    assert (ERRORS[report["error"]], report["number"]) == (error, number)


def test_an_empty_program_takes_its_latency():
    parameters, module, verilog = core_of("merged")
    model, ends = model_of(parameters, module, verilog), []
    halt = model.transfers.instructions(assemble("halt"))
    model.offer([halt, halt, halt, halt])
    for _ in range(4):
        model.next()
        ends.append(model.cycles)
    assert np.diff(ends).tolist() == [Trainer.latency] * 3


def test_status_is_sticky_until_it_is_cleared():
    """A NaN in an operand; then the status is cleared, and the same program without one leaves it so."""
    parameters, module, verilog = core_of("merged")
    model = model_of(parameters, module, verilog)
    program = assemble(USUAL + "set training value=41\nin x\nsync\ngemm a=x b=w to=d\nsync\nhalt")
    x = np.zeros((16, 16), np.uint32)
    for code, invalid, overflow in ((0x7FC0, 42, 42), (0, 42, 42), (0x7F80, 42, 42)):
        x[3, 5] = code
        model.send(program, iter((x,)))
        report = model.transfers.report(model.next())
        assert (report["invalid"], report["overflow"]) == (invalid, overflow)
    model.clear()
    model.run(2)
    assert (model.state.invalid, model.state.overflow) == (0, 0)
    for code, invalid, overflow in ((0, 0, 0), (0x7F80, 0, 42), (0x7FC0, 42, 42)):
        x[3, 5] = code
        model.send(program, iter((x,)))
        report = model.transfers.report(model.next())
        assert (report["invalid"], report["overflow"]) == (invalid, overflow)


@pytest.mark.parametrize("name", ["merged", "lanes"])
def test_units_that_write_side_by_side_lose_nothing(name):
    """Biases move while a product's results are stored, in one memory if the memories are merged."""
    parameters, module, verilog = core_of(name)
    rng, work = np.random.default_rng(1), parameters.work
    lines = ["tensor e memory=D stride=3 rows=32 columns=48", "tensor d memory=D block=6 stride=2 rows=32 columns=32",
             "tensor w memory=W stride=1 rows=32 columns=16", "tensor b memory=W block=2 stride=3 rows=1 columns=48",
             "tensor x0 memory=X stride=1 rows=32 columns=16", "tensor x1 memory=X block=2 stride=1 rows=32 columns=16",
             *(f"mode {kind} value=4" for kind in ("weights", "activations")), f"set rate value={work.encode(1.0)}",
             *(f"in {each}" for each in ("e", "w", "b", "x0", "x1")), "sync"]
    for number, rows in enumerate(range(1, 32)):
        lines += [f"view f of=e rows={rows} columns=48", "sums a=f to=b", f"gemm a=x{number % 2} b=w to=d", "sync",
                  "out d", "sync", "out b", "sync"]
    shapes = ((32, 48), (32, 16), (1, 48), (32, 16), (32, 16))
    tensors = [work.encode(rng.normal(size=shape)).astype(np.uint32) for shape in shapes]
    transfers = Transfers(parameters)
    rows = [transfers.instructions(assemble("\n".join([*lines, "halt"]))), *map(transfers.elements, tensors)]
    vectors = trainer_vectors(parameters, np.array(transfers.payloads(np.concatenate(rows)), object))
    require_golden(model_of(parameters, module, verilog), vectors)


@pytest.mark.parametrize("first", ["sums", "gemm"])
def test_products_and_sums_move_parameters_by_rates_of_their_own(first):
    """Both do at once, now one, now the other a little earlier."""
    parameters, module, verilog = core_of("merged")
    rng, work = np.random.default_rng(2), parameters.work
    lines = ["tensor e memory=D stride=3 rows=32 columns=48", "tensor x memory=X stride=1 rows=32 columns=16",
             "tensor w memory=W stride=1 rows=48 columns=16", "tensor b memory=W block=3 stride=3 rows=1 columns=48",
             *(f"mode {kind} value=4" for kind in ("gradients", "activations")),
             *(f"in {each}" for each in ("e", "w", "b", "x")), "sync"]
    moves = {"gemm": [f"set rate value={work.encode(0.5)}", "gemm a=e b=x to=w across_a across_b update use=4"],
             "sums": [f"set rate value={work.encode(0.25)}", "sums a=f to=b"]}
    for rows in range(1, 32, 2):
        order = moves[first] + moves["gemm" if first == "sums" else "sums"]
        lines += [f"view f of=e rows={rows} columns=48", *order, "sync", "out w", "sync", "out b", "sync"]
    tensors = [work.encode(rng.normal(size=shape)).astype(np.uint32)
               for shape in ((32, 48), (48, 16), (1, 48), (32, 16))]
    transfers = Transfers(parameters)
    rows = [transfers.instructions(assemble("\n".join([*lines, "halt"]))), *map(transfers.elements, tensors)]
    vectors = trainer_vectors(parameters, np.array(transfers.payloads(np.concatenate(rows)), object))
    require_golden(model_of(parameters, module, verilog), vectors)


class Sent:
    """A host that sends tensors, and keeps what comes."""

    def __init__(self, *tensors):
        self.tensors, self.came = iter(tensors), []

    def read(self, rows, columns):
        return next(self.tensors)

    def write(self, codes):
        self.came.append(codes)


@pytest.mark.parametrize("name", ["lanes", pytest.param("single", marks=pytest.mark.sweep)])
def test_a_choice_waits_for_the_groups_that_are_under_way(name):
    """One product after the other counts the tensor that the next one chooses by; its first groups mislead."""
    parameters, module, verilog = core_of(name)
    program = assemble("""
        tensor x memory=X stride=1 rows=208 columns=16
        tensor w memory=W stride=1 rows=16 columns=16
        tensor d memory=D stride=1 rows=208 columns=16
        mode activations value=4
        mode weights value=4
        in x
        in w
        adaptive activations code=2150
        adaptive weights code=2150
        slope activations code=2047
        slope weights code=2040
        sync
        loop 4
            gemm a=x b=w to=d count_a count_b
            step training next
            gemm a=x b=w to=d count_a count_b
            sync
            out d
            sync
            step training next
        end
        halt""")
    rng = np.random.default_rng(1)
    x = rng.choice([0.375, 0.4375], (208, 16))  # the lower chunk alone is not 0
    x[:, 0] = 1.0
    x[60:] = rng.choice([0.5, 1.0], (148, 16))  # the higher one alone
    x, w = (parameters.work.encode(each).astype(np.uint32) for each in (x, rng.normal(size=(16, 16))))
    host = Sent(x, w)
    golden = Core(parameters)
    golden.run(program, host)
    model = model_of(parameters, module, verilog)
    model.send(program, iter((x, w)))
    for expected in host.came:
        np.testing.assert_array_equal(model.transfers.codes(model.next(), 208, 16), expected)
    assert model.transfers.report(model.next())["error"] == 0
    assert len({each.tobytes() for each in host.came}) > 1
