# amaranth: UnusedElaboratable=no
"""The array: its Verilog against golden, results and cycles, in every number system and dataflow."""

import time

import numpy as np
import pytest
from narrowgauge import catalog
from narrowgauge.golden import array, network
from narrowgauge.hw.array.path import Path
from narrowgauge.sim import array as bench
from narrowgauge.sim import recorded
from narrowgauge.sim.array import instructions
from units import cases, outcome_of, run, text_of

ARRAY = catalog.find("array")
SMALL = {"rows": 2, "columns": 3, "group": 4, "memory": 256, "buffer": 64, "sums": 8}
SETTINGS = [
    SMALL,
    {"system": "lns", "rows": 3, "columns": 2, "lanes": 4, "memory": 256, "buffer": 64, "sums": 16},
    {"system": "float", "rows": 2, "columns": 2, "memory": 256, "buffer": 32, "sums": 4, "work": "fp32",
     "converters": 1},
    {"rows": 1, "columns": 1, "group": 4, "mantissa": 8, "exponent": 5, "memory": 32, "buffer": 16, "sums": 2,
     "work": "fp16", "accumulator": "fp16", "corrected": True, "seed": 7},
    {"rows": 5, "columns": 2, "group": 8, "mantissa": 3, "chunks": "parallel", "work": "bf16", "memory": 1024,
     "buffer": 128, "sums": 4},
    {"system": "float", "rows": 1, "columns": 4, "memory": 1024, "buffer": 256, "format": "fp8-e4m3",
     "work": "fp8-e4m3", "accumulator": "bf16", "multiplier": "lut"},
    {"system": "lns", "rows": 2, "columns": 2, "lanes": 16, "format": {"type": "Log", "bits": 6, "gamma": 4},
     "converters": 1, "accumulation": "bins", "work": "bf16", "accumulator": "fp16", "memory": 1024, "buffer": 256},
    {},
    {"system": "lns"},
    {"system": "float"},
    {"rows": 8, "columns": 8, "accumulator": "bf16", "work": "bf16"},
    {"group": 64, "rows": 1, "columns": 2, "memory": 8192},
    {"system": "int8", "lanes": 16, "rows": 2, "columns": 3, "work": "bf16", "accumulator": "fp16", "memory": 1024,
     "buffer": 256},
    {"system": "int8", "rows": 3, "columns": 1, "lanes": 8, "converters": 1, "memory": 256, "buffer": 64, "sums": 8},
    {"system": "int8", "rows": 2, "columns": 2, "lanes": 4, "memory": 256, "buffer": 64},
    {"system": "mx", "rows": 2, "columns": 2, "block": 8, "lanes": 4, "memory": 256, "buffer": 64, "sums": 8},
    {"system": "mx"},
    {"system": "mx", "rows": 3, "columns": 1, "block": 16, "lanes": 16, "element": "int8", "rounding": "stochastic",
     "converters": 1, "work": "bf16", "accumulator": "fp16", "memory": 1024, "buffer": 256},
    {"system": "mx", "rows": 1, "columns": 2, "block": 32, "lanes": 8, "element": "fp4-e2m1", "scale_rule": "rceil",
     "memory": 2048, "buffer": 256},
    {"system": "bf16", "rows": 2, "columns": 2, "memory": 256, "buffer": 64},
    {"system": "fp8", "rows": 1, "columns": 3, "memory": 256, "buffer": 64, "format": "fp8-e4m3",
     "accumulator": "bf16"},
]
QUICK = (0, 15)  # the builds of an array take long; tests of number systems have others


def taken(outcome, count):
    """Return in which cycle the last result of each product came, from the first one's instruction on."""
    start = outcome.spans[0][0]
    return [outcome.spans[at][1] - start for at in range(count)]


@cases(ARRAY, SETTINGS, quick=QUICK)
def test_random_and_recorded_instructions(parameters):
    vectors = ARRAY.vectors(parameters, 1500, 1)
    assert len(vectors.outputs) > 300
    run(ARRAY, parameters, vectors, seed=1)
    run(ARRAY, parameters, vectors, seed=2, idle=0.05, busy=0.7)


@pytest.mark.parametrize("row", [0, pytest.param(1, marks=pytest.mark.sweep)])
def test_results_wait_until_they_are_taken(row):
    """Many more of them than the unit keeps, and the cells are as fast as they can be."""
    parameters = ARRAY.configure(SETTINGS[row])
    mode = dict.fromkeys(parameters.system.modes, 2)
    vectors = instructions(parameters, [(8 * parameters.rows, 8 * parameters.columns, 1, mode, mode)] * 4)
    assert len(vectors.outputs) > 5 * parameters.waiting
    run(ARRAY, parameters, vectors, idle=0, busy=0.95)


@cases(ARRAY, SETTINGS, quick=(15,))
def test_cycles(parameters):
    """Of products one behind the other, as golden tells them, to the cycle."""
    rng = np.random.default_rng(4)
    for _ in range(8):
        count = int(rng.integers(1, 6))
        products = [(*bench.sizes_of(rng, parameters), *(dict(zip(parameters.system.modes, map(int, each)))
                     for each in bench.modes(rng, parameters.system, 2))) for _ in range(count)]
        outcome = run(ARRAY, parameters, instructions(parameters, products), idle=0, busy=0)
        expected = array.schedule(parameters, [(*each[:3], parameters.interval(*each[3:]))
                                               for each in products])
        assert taken(outcome, count) == expected
        assert array.cycles(parameters, *products[0]) == expected[0]


@pytest.mark.parametrize("row", QUICK[:2])
def test_cycles_of_a_product_in_parts(row):
    """Of one that is longer than the buffers, which golden splits."""
    parameters = ARRAY.configure(SETTINGS[row])
    mode = {name: parameters.system.default(name) for name in parameters.system.modes}
    sizes = 7, 8, 150
    parts = array.split(parameters, *sizes)
    assert sum(last for _, _, last in parts) > 1 and len(parts) > 4
    outcome = run(ARRAY, parameters, instructions(parameters, [(*part, mode, mode, flags) for part, *flags in parts]),
                  idle=0, busy=0)
    interval = parameters.system.interval(mode, mode)
    ends = array.schedule(parameters, [(*part, interval, last) for part, _, last in parts])
    emitting = [index for index, (_, _, last) in enumerate(parts) if last]
    found = [outcome.spans[index][1] for index in emitting]
    assert np.diff(found).tolist() == np.diff([ends[index] for index in emitting]).tolist()
    assert array.cycles(parameters, *sizes, mode, mode) == ends[-1]


@pytest.mark.parametrize("settings", [SMALL, SMALL | {"converters": 1}, {
    "system": "mx", "rows": 1, "columns": 1, "block": 8, "lanes": 4, "rounding": "stochastic", "memory": 64,
    "buffer": 64}], ids=["bfp", "one converter", "mx"])
def test_a_product_of_another_step_waits_for_its_key(settings):
    """Until the words of the vectors before are made, and as long again for the key; later ones of the step do not."""
    parameters = ARRAY.configure(settings)
    mode = dict.fromkeys(parameters.system.modes, 2)
    outcome = run(ARRAY, parameters, instructions(parameters, [(1, 1, 1, mode, mode)] * 5, [0, 0, 7, 7, 2**32 - 1]),
                  idle=0, busy=0)
    gaps = np.diff([outcome.spans[at][0] for at in range(5)]).tolist()
    wait = 2 * Path(parameters, 0).behind + 3
    # A vector is requested one cycle behind its instruction; with one converter, the second one two.
    assert gaps[1] == gaps[3] == wait + parameters.converters % 2 + 1 and gaps[0] == gaps[2] < 12


def test_latency():
    parameters = ARRAY.configure(SMALL)
    mode = {"precision": 4, "rounding": 0}
    outcome = run(ARRAY, parameters, instructions(parameters, [(1, 1, 1, mode, mode)]), idle=0, busy=0)
    assert outcome.latency == ARRAY.component(parameters).latency == array.cycles(parameters, 1, 1, 1, mode, mode)


def training(parameters, modes):
    """Return the Vectors of a layer's three products in training, 64 x 64 x 64, each tensor stored once.

    Of recorded tensors, repeated to that size, for each of `modes`.
    """
    system, sources = parameters.system, [each for each in recorded.products() if each[0].shape[1] == 64][0]
    rng = np.random.default_rng(5)
    tensors = [np.resize(each, (64, 64)) for each in (*sources, rng.normal(size=(64, 64)) * 0.01)]
    model = array.ArrayModel(parameters)
    groups = 64 // system.group
    rows, place, block = [], {}, 0
    for kind, matrix in zip(("activations", "weights", "gradients"), tensors, strict=True):
        place[kind] = [block, groups]
        model.store(block, groups, matrix)
        for at in range(block, block + groups * groups):
            rows += [(0, model.memory[at, index], index, 0, 0, 0, 1, 1, [at, 0, 0], [0, 0, 0])
                     for index in range(system.group)]
        block += groups * groups
    for mode in modes:
        for uses in network.GEMMS.values():
            sides = [[*place[kind], int(axis == 0), *mode] for kind, axis in uses]
            rows.append((1, np.zeros(system.group, int), 0, 64, 64, 64, 1, 1, *sides))
    columns = list(zip(*rows, strict=True))
    width = 3 + len(system.modes)
    for side in (-2, -1):
        columns[side] = [[*each, *[0] * (width - len(each))] for each in columns[side]]
    return bench.array_vectors(parameters, *(np.array(each) for each in columns))


def utilisation(parameters, modes):
    """Simulate the three products of training in each mode; return the multiply-accumulates a cycle of the peak's.

    An instruction's cycles are counted from the result before it: the next product begins while one is still made.
    """
    vectors = training(parameters, modes)
    outcome = run(ARRAY, parameters, vectors, idle=0, busy=0)
    ends = [outcome.spans[at][1] for at in sorted(outcome.spans)]
    cycles = np.diff([outcome.spans[min(outcome.spans)][0], *ends]).reshape(len(modes), 3)
    names = list(parameters.system.modes)
    peaks = [array.peak(parameters, *[dict(zip(names, mode))] * 2) for mode in modes]
    return 64**3 / np.array(peaks)[:, np.newaxis] / cycles


@pytest.mark.sweep
def test_the_three_dataflows_of_training_reach_nine_tenths_of_the_peak():
    """At each precision of a 4 x 4 array of 16-element cells, counted in simulation; golden's count is a quick test."""
    found = utilisation(ARRAY.configure({"memory": 16384}), [(2, 2), (3, 1), (4, 2)])
    assert (found > 0.9).all() and found.max() <= 1, found


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["mx", "lns", "float", "bf16", "int8"])
def test_the_three_dataflows_in_other_number_systems(name):
    parameters = ARRAY.configure({"system": name, "memory": 16384})
    found = utilisation(parameters, [tuple(parameters.complete().values())])
    assert (found > 0.9).all() and found.max() <= 1, found


def test_a_product_that_does_not_fit_is_told_and_waits():
    parameters = ARRAY.configure(SMALL)
    mode = {"precision": 2, "rounding": 0}
    with pytest.raises(ValueError, match="^n is 25"):
        array.Product(1, 25, 8).fits(parameters)
    vectors = instructions(parameters, [(1, 24, 8, mode, mode), (1, 1, 1, mode, mode)])
    run(ARRAY, parameters, vectors)
    # The same instruction with a column more: `n` stands behind `multiply`, the elements, the index and `m`.
    low = 1 + 4 * 32 + 2 + array.SIZE
    vectors.inputs[0] += 1 << low
    outcome = outcome_of(ARRAY.component(parameters), ARRAY.module_name(parameters), vectors,
                         text_of(ARRAY, parameters))
    assert any("status exceeded is 1" in entry for entry in outcome.report)
    assert any("stuck after 1 of 2 inputs" in entry for entry in outcome.report)


def test_an_empty_product_has_no_results():
    parameters = ARRAY.configure(SMALL)
    mode = {"precision": 2, "rounding": 0}
    vectors = instructions(parameters, [(3, 4, 5, mode, mode)] * 5)
    sizes = {1: 1 + 4 * 32 + 2, 2: 1 + 4 * 32 + 2 + array.SIZE, 3: 1 + 4 * 32 + 2 + 2 * array.SIZE}
    for at, low in sizes.items():
        vectors.inputs[at] &= ~(((1 << array.SIZE) - 1) << low)
    kept = [index for index, at in enumerate(vectors.origin) if at not in sizes]
    vectors.outputs = [vectors.outputs[index] for index in kept]
    vectors.origin = [vectors.origin[index] for index in kept]
    run(ARRAY, parameters, vectors)


@pytest.mark.parametrize("settings", [SMALL, pytest.param({"rows": 8, "columns": 8}, marks=pytest.mark.sweep)])
def test_the_cell_is_one_module_and_elaboration_is_short(settings):
    """Of an 8 x 8 array: 64 instances of one module, in under 30 s."""
    parameters = ARRAY.configure(settings)
    start = time.process_time()
    text = ARRAY.verilog(parameters)
    assert time.process_time() - start < 30
    name = ARRAY.module_name(parameters)
    assert text.count(f"module {name}__cell(") == 1
    assert text.count(f"  {name}__cell cell_") == parameters.rows * parameters.columns
