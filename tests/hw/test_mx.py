# amaranth: UnusedElaboratable=no
"""The microscaling units: their Verilog against golden, under stalls, with exhaustive operands, and their timing."""

import itertools
import re

import numpy as np
import pytest
import units
from narrowgauge import catalog
from narrowgauge.golden import mx, recipes
from narrowgauge.sim import mx as bench
from narrowgauge.sim import recorded

CONVERTER, DOT = "mx-converter", "mx-dot"
ELEMENTS = list(mx.ELEMENTS)
# Formats that are no presets: a wide range, hardly any, and short integers.
ODD = [{"type": "Float", "exponent": 3, "mantissa": 3, "bias": 5},
       {"type": "Float", "exponent": 1, "mantissa": 5, "bias": 0, "specials": "none", "overflow": "saturate"},
       {"type": "Float", "exponent": 5, "mantissa": 1, "specials": "fn"},
       {"type": "Fixed", "bits": 3, "fraction": 0}, {"type": "Fixed", "bits": 8, "fraction": 2}]


def run(unit, settings, vectors, **options):
    return units.run(unit, catalog.find(unit).configure(settings), vectors, **options)


def check(unit, settings, count=3000):
    """Random and directed transfers: in full flow, whose timing is known, and under random stalls."""
    entry = catalog.find(unit)
    component = entry.component(entry.configure(settings))
    vectors = entry.vectors(entry.configure(settings), count, seed=11, record=False)
    run(unit, settings, vectors, seed=12)
    outcome = run(unit, settings, vectors, idle=0, busy=0)
    assert outcome.vectors == count and outcome.latency == component.latency
    if unit == CONVERTER:
        # A block a cycle: besides them, only the way through, the bench's watch and its start.
        assert outcome.cycles <= count + outcome.latency + 55


CONVERTERS = [
    {"block": 8, "work": "bf16", "scale_rule": "rceil"},
    {"block": 9, "element": "int8", "scale_rule": "even", "rounding": "stochastic", "corrected": True},
]
DOTS = [{"block": 8, "lanes": 4}, {"block": 8, "lanes": 4, "element": "fp8-e5m2", "accumulator": "bf16"},
        {"block": 8, "lanes": 4, "element_b": "fp8-e5m2"}]
PAIR = DOTS[2]
# That of the recipe `mx` in its products with gradients, which are their first operands.
RECIPE = {"element": "fp8-e5m2", "element_b": "fp8-e4m3"}


@pytest.mark.parametrize("unit, settings", [(CONVERTER, each) for each in CONVERTERS] + [(DOT, each) for each in DOTS],
                         ids=str)
def test_every_code_and_status_is_golden(unit, settings):
    check(unit, settings)


@pytest.mark.sweep
@pytest.mark.parametrize("element", ELEMENTS + ODD, ids=str)
@pytest.mark.parametrize("rule", mx.SCALE_RULES)
def test_every_element_rule_and_rounding_of_the_converter_is_golden(element, rule):
    turn = itertools.count(sum(map(ord, rule)))
    for rounding in ("nearest", "truncate", "stochastic"):
        k = next(turn)
        check(CONVERTER, {
            "element": element, "scale_rule": rule, "rounding": rounding, "block": [8, 11, 32, 17][k % 4],
            "work": ["fp32", "bf16", {"type": "Float", "exponent": 8, "mantissa": 10}][k % 3],
            "random_bits": [8, 1, 16, 5, 11][k % 5], "corrected": k % 2 == 1, "seed": k})


SIZES = [(8, 8), (32, 8), (15, 5), (64, 4), (16, 16)]


@pytest.mark.sweep
@pytest.mark.parametrize("element, block, lanes", [
    (element, *SIZES[(k + more) % 5]) for k, element in enumerate(ELEMENTS + ODD) for more in (0, 2)], ids=str)
def test_every_element_and_size_of_the_dot_is_golden(element, block, lanes):
    turn = block + lanes
    check(DOT, {"element": element, "block": block, "lanes": lanes, "accumulator": ["fp32", "bf16", "fp16"][turn % 3],
                "accumulators": [16, 2, 4, 8][turn % 4]})


def pairs_of(elements):
    """Return each two of the formats once, every other pair with its operands exchanged."""
    return [pair[::(-1)**turn] for turn, pair in enumerate(itertools.combinations(elements, 2))]


@pytest.mark.sweep
@pytest.mark.parametrize("turn, pair", list(enumerate(pairs_of(ELEMENTS + ODD))), ids=str)
def test_every_pair_of_formats_of_the_dot_is_golden(turn, pair):
    block, lanes = [(8, 8), (32, 8), (15, 5), (16, 4)][turn % 4]
    check(DOT, {"element": pair[0], "element_b": pair[1], "block": block, "lanes": lanes,
                "accumulator": ["fp32", "bf16", "fp16"][turn % 3]}, 2000)


def test_recorded_products_of_the_recipe_are_golden():
    parameters = catalog.find(DOT).configure(RECIPE)
    run(DOT, RECIPE, bench.dot_vectors(parameters, *bench.dot_recorded(parameters, 2000, 13)), seed=14)


@pytest.mark.parametrize("settings, gradients", [(RECIPE, 0), ({"element_b": "fp8-e5m2"}, 1)], ids=["first", "second"])
def test_recorded_gradients_have_the_format_of_the_wider_range(settings, gradients):
    parameters = catalog.find(DOT).configure(settings)
    recipe, recorded_blocks = recipes.make("mx"), bench.dot_recorded(parameters, 2000, 13)
    blocks = {True: set(), False: set()}
    for kind, array in recorded.tensors("mx"):
        quantised = mx.quantise(array, recipe.system.format_of(recipe.mode(kind)))
        blocks[kind == "gradients"] |= {block.tobytes() for block in quantised.elements.reshape(-1, 32)}
    for operand, fmt in enumerate((parameters.format, parameters.format_b)):
        ours = {block.astype(np.uint8).tobytes() for block in recorded_blocks[2 * operand + 1]}
        assert fmt == recipe.system.format_of(recipe.mode("gradients" if operand == gradients else "weights"))
        assert len(ours) > 100 and ours <= blocks[operand == gradients]


@pytest.mark.sweep
@pytest.mark.parametrize("unit", [CONVERTER, DOT])
def test_a_hundred_thousand_transfers_of_the_default_are_golden(unit):
    run(unit, {}, catalog.find(unit).vectors(catalog.find(unit).configure({}), 100_000, seed=31), seed=32)


def test_different_parameters_have_different_module_names():
    for unit, values in ((CONVERTER, {"element": ELEMENTS + ODD, "block": [8, 9], "scale_rule": mx.SCALE_RULES,
                                      "rounding": ["nearest", "stochastic"], "work": ["fp32", "bf16"]}),
                         (DOT, {"element": ELEMENTS + ODD, "block": [8, 16], "lanes": [4, 8],
                                "accumulator": ["fp32", "bf16"], "accumulators": [4, 16]}),
                         (DOT, {"element": ELEMENTS + ODD, "element_b": ELEMENTS + ODD,
                                "accumulator": ["fp32", "bf16"]})):
        names = {catalog.find(unit).module_name(catalog.find(unit).configure(dict(zip(values, each))))
                 for each in itertools.product(*values.values())}
        assert len(names) == np.prod([len(each) for each in values.values()])
        assert all(name.isidentifier() for name in names)


def test_the_header_speaks_of_blocks_alone():
    """Groups and tensors belong to other units, and a field of operand b has that operand's width."""
    for unit, settings in ((CONVERTER, {}), (DOT, {"element_b": "fp4-e2m1"})):
        parameters = catalog.find(unit).configure(settings)
        header = catalog.find(unit).header(parameters)
        assert not re.search("group|tensor|result|given", header)
        assert "scale: multiplies by 2**(scale - 127); 255 makes the block NaN" in header
    assert '"element_b": "fp4-e2m1"' in header
    assert "[255:0]  a.elements: 32 x 8 bits" in header and "[391:264]  b.elements: 32 x 4 bits" in header


# Exhaustive operands.


def every_code_beside(parameters, leader):
    """Blocks that hold every code of the work format once, each led by one code in another lane for another one."""
    others = parameters.block - 1
    codes = np.arange(1 << parameters.work.width)
    codes = np.resize(codes, (-(-len(codes) // others), others))
    return np.insert(codes, leader % parameters.block, leader, axis=1)


def converter_exhaustive(settings, leaders):
    parameters = catalog.find(CONVERTER).configure(settings)
    for leader in leaders:
        vectors = bench.converter_vectors(parameters, every_code_beside(parameters, leader))
        run(CONVERTER, settings, vectors, idle=0, busy=0)


# Zero, the depths of the subnormal numbers, both ends, and one with a fraction that rules disagree about.
LEADERS = [0, 1, 5, 0x40, 0x7F, 0x80, 0x0155, 0x03FF, 0x07FE, 0x3F80, 0x3FE0, 0x3FE1, 0x3FF8, 0x7F7F]


def test_every_bf16_number_beside_chosen_ones():
    converter_exhaustive(CONVERTERS[0], [1, 0x0155, 0x3FE0, 0x3FE1])


@pytest.mark.sweep
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("rule", mx.SCALE_RULES)
def test_every_bf16_number_beside_many(element, rule):
    # Two rules of a kind have all of them between them.
    leaders = LEADERS[(ELEMENTS.index(element) + mx.SCALE_RULES.index(rule)) % 2::2]
    converter_exhaustive({"block": 16, "work": "bf16", "element": element, "scale_rule": rule}, leaders)


def every_pair(settings):
    """Transfers with every pair of element codes, alone in a lane that moves on, and what is known of their sums."""
    parameters = catalog.find(DOT).configure(settings)
    formats = parameters.format, parameters.format_b
    codes = [np.arange(1 << fmt.element.width) for fmt in formats]
    a, b = (each.reshape(-1) for each in np.meshgrid(*codes))
    lane = np.arange(parameters.block) == (np.arange(len(a)) % parameters.block)[:, np.newaxis]
    always, scales = np.ones(len(a), bool), np.full(len(a), mx.SCALE_BIAS)
    slot = np.arange(len(a)) % parameters.accumulators
    vectors = bench.dot_vectors(parameters, scales, np.where(lane, a[:, np.newaxis], 0), scales,
                                np.where(lane, b[:, np.newaxis], 0), slot, always, always)
    values = [fmt.decode(each) for fmt, each in zip(formats, codes)]
    x, y = (np.where(np.isfinite(each), each, np.nan) for each in values)
    got = parameters.accumulator.decode([payload & 0xFFFFFFFF for payload in vectors.outputs])
    np.testing.assert_array_equal(got, x[a] * y[b])  # not by golden alone
    return vectors


@pytest.mark.parametrize("settings", [DOTS[0], PAIR], ids=str)
def test_every_pair_of_elements_that_the_recipe_multiplies(settings):
    run(DOT, settings, every_pair(settings), idle=0, busy=0)


@pytest.mark.sweep
@pytest.mark.parametrize("element", ELEMENTS + ODD, ids=str)
def test_every_pair_of_elements(element):
    settings = {"block": 32, "lanes": 8, "element": element}
    run(DOT, settings, every_pair(settings), idle=0, busy=0)


@pytest.mark.sweep
@pytest.mark.parametrize("pair", pairs_of(ELEMENTS), ids=str)
def test_every_pair_of_elements_of_two_formats(pair):
    settings = {"block": 8, "lanes": 4, "element": pair[0], "element_b": pair[1]}
    run(DOT, settings, every_pair(settings), idle=0, busy=0)


# Timing and statuses.


@pytest.mark.parametrize("settings", DOTS, ids=str)
def test_the_dot_takes_a_transfer_each_interval(settings):
    parameters = catalog.find(DOT).configure(settings)
    component = catalog.find(DOT).component(parameters)
    count = 640
    rng = np.random.default_rng(5)
    elements = rng.integers(0, 64, (2, count, parameters.block))
    scales, always = np.full(count, mx.SCALE_BIAS), np.ones(count, bool)
    vectors = bench.dot_vectors(parameters, scales, elements[0], scales, elements[1],
                                np.arange(count) % parameters.accumulators, always, always)
    outcome = run(DOT, settings, vectors, idle=0, busy=0)
    assert outcome.latency == component.latency
    assert outcome.cycles <= count * component.interval + component.latency + 55
    # All to one sum: a transfer each `recurrence`.
    vectors = bench.dot_vectors(parameters, scales, elements[0], scales, elements[1], np.zeros(count, int), always,
                                always)
    outcome = run(DOT, settings, vectors, idle=0, busy=0)
    assert 0 <= outcome.cycles - (count - 1) * component.recurrence - component.latency <= 60


def test_the_statuses_tell_nan_from_inf():
    parameters = catalog.find(CONVERTER).configure(CONVERTERS[0])
    work = parameters.work
    for code, status in ((work.max_code, (0, 0)), (work.inf_code, (0, 1)), (work.nan_code, (1, 1))):
        codes = np.full((40, parameters.block), 0x3F80)
        codes[20, 3] = code
        vectors = bench.converter_vectors(parameters, codes)
        assert vectors.status == dict(zip(("invalid", "overflow"), status))
        run(CONVERTER, CONVERTERS[0], vectors)


def test_a_nan_block_spends_its_sum_alone():
    parameters = catalog.find(DOT).configure(DOTS[0])
    count, one = 64, int(parameters.format.encode(1.0))
    elements, scales = np.full((count, parameters.block), one), np.full(count, mx.SCALE_BIAS)
    bad = scales.copy()
    bad[9] = mx.SCALE_NAN
    slot = np.arange(count) % 4
    vectors = bench.dot_vectors(parameters, scales, elements, bad, elements, slot, np.arange(count) // 4 % 8 == 0,
                                np.ones(count, bool))
    values = parameters.accumulator.decode([payload & 0xFFFFFFFF for payload in vectors.outputs])
    # From transfer 9 to the start of that sum, at 33.
    assert np.flatnonzero(np.isnan(values)).tolist() == [9, 13, 17, 21, 25, 29]
    assert vectors.status == {"invalid": 1, "overflow": 0}
    run(DOT, DOTS[0], vectors)
