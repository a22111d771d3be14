# amaranth: UnusedElaboratable=no
"""Every unit in random configurations: refused in one line, or built, named on its own, golden to the bit, on time."""

import configurations
import numpy as np
import pytest
import units
from narrowgauge import catalog
from narrowgauge.catalog.unit import LONGEST
from narrowgauge.golden.formats import Float
from narrowgauge.sim.array import instructions
from narrowgauge.sim.sweep import Batch

# A core has a bench of its own: tests/sim/test_trainer_programs.py tries some.
UNITS = [name for name in catalog.UNITS if name != "trainer"]
# Units whose builds are short: more of them are tried.
SHORT = [name for name in UNITS if name.startswith(("float-", "precision-")) and name != "float-mac"] + [
    "lns-converter", "lns-decoder"]
LONG = [name for name in UNITS if name not in SHORT]


def log(bits, gamma):
    return {"type": "Log", "bits": bits, "gamma": gamma}


def ieee(exponent, mantissa, **more):
    return {"type": "Float", "exponent": exponent, "mantissa": mantissa, **more}


# Settings with which results were wrong, or which did not elaborate; see `right`, too.
CORNERS = [
    ("lns-converter", {"format": log(16, 1), "lanes": 4, "work": ieee(3, 5)}),
    ("lns-converter", {"work": ieee(2, 3), "format": log(5, 2), "lanes": 1}),
    ("float-adder", {"format": ieee(1, 4, specials="fn"), "subnormals": "flush", "rounding": "stochastic"}),
    ("bfp-converter", {"random_bits": 12, "work": ieee(2, 5, bias=0), "group": 5, "exponent": 5, "corrected": True}),
    ("bfp-converter", {"group": 5, "mantissa": 5, "work": ieee(4, 2, bias=629)}),
    ("lns-dot", {"format": log(6, 16), "lanes": 6, "accumulation": "bins", "accumulator": 23, "lsb": 3, "fraction": 5,
                 "result": ieee(3, 3, bias=538)}),
    ("array", {"system": "float", "rows": 2, "columns": 1, "sums": 8, "memory": 64, "buffer": 2}),
    ("lns-dot", {"format": log(6, 16), "lanes": 5, "accumulator": 23, "constants": 1, "fraction": 9}),
]


def made(unit, parameters):
    """Return what a Batch takes of a unit."""
    entry = catalog.find(unit)
    text = entry.verilog(parameters)
    assert "[-1:0]" not in text, parameters  # no signal of zero width
    return entry.component(parameters), entry.module_name(parameters), text


def slowest(unit, parameters):
    """Return Vectors of transfers that take as long as the unit says."""
    bench = catalog.find(unit).bench
    if unit == "array":
        return instructions(parameters, [(1, 1, 1, parameters.complete(), parameters.complete())])
    if unit == "softmax-grad":
        rows, classes = 4, parameters.classes
        return bench.vectors(parameters, np.arange(rows * classes) % 7, np.arange(rows * classes) % classes == 0,
                             np.zeros(rows * classes, int))
    transfers = list(bench.random(parameters, 60, 5))
    if unit == "bfp-fmac":  # at the greatest precision
        transfers[2][:] = transfers[5][:] = parameters.mantissa
    if unit == "precision-adaptive":  # tensors of one group, and so of one exponent
        transfers[-1][10:50] = True
    return bench.vectors(parameters, *transfers)


def check_timing(names, found, vectors, outcomes, quiet):
    """Compare latency and interval, in full flow and with long gaps, with what components say."""
    for unit, (component, name, _), each, flow, alone in zip(names, found, vectors, outcomes, quiet, strict=True):
        assert flow.mismatches == 0 and alone.mismatches == 0, (name, flow.report + alone.report)
        assert alone.latency == component.latency, name
        accepted = np.array([start for start, _ in alone.spans.values()])
        assert len(accepted) == len(each.inputs)
        gaps = np.diff([start for start, _ in flow.spans.values()])
        if unit == "softmax-grad":
            classes = component.parameters.classes
            # The first row waits for none.
            gaps = np.diff([flow.spans[k][0] for k in range(0, len(each.inputs), classes)])[1:]
        elif unit == "sgd-update":  # of the method that takes longest
            gaps = gaps[gaps == gaps.max()]
        # Transfers to one sum wait for each other, longer than the interval.
        assert unit == "array" or gaps.min() == component.interval, name


def check(configurations_):
    """Hold configurations, pairs (unit, parameters), against golden: in full flow, under stalls, and their timing."""
    names = [unit for unit, _ in configurations_]
    found = [made(*each) for each in configurations_]
    batch = Batch(found)
    vectors = [catalog.find(unit).vectors(parameters, 300, 3, record=False) for unit, parameters in configurations_]
    for options in ({"idle": 0, "busy": 0}, {"seed": 4}):
        for (unit, parameters), outcome in zip(configurations_, batch.run(vectors, **options), strict=True):
            assert outcome.mismatches == 0, "\n".join([unit, str(parameters.to_json()), str(options), *outcome.report])
            assert outcome.vectors >= 300 or unit == "array", unit
    timed = [slowest(*each) for each in configurations_]
    check_timing(names, found, timed, batch.run(timed, idle=0, busy=0), batch.run(timed, idle=0.97, busy=0))


def distinct(pairs):
    """Return the pairs (unit, parameters) without repetition."""
    return list({(unit, str(parameters)): (unit, parameters) for unit, parameters in pairs}.values())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in (1, 2))],
                         ids="seed{}".format)
def test_small_configurations(seed):
    rng = np.random.default_rng(seed)
    check(distinct((unit, configurations.random_parameters(unit, rng, tiny=True))
                   for unit in [*SHORT, *LONG[seed::3]]))


def test_corners():
    check([(unit, catalog.find(unit).configure(settings)) for unit, settings in CORNERS])


def right():
    """Return transfers at corners, as (unit, settings, operands of its vectors, the values that belong to them)."""
    one, none = np.ones(1, int), np.zeros(1, int)
    # A difference below the smallest normal number, 1, is flushed.
    fmt = Float(2, 5)
    yield ("float-adder", {"format": ieee(2, 5), "subnormals": "flush"},
           (fmt.encode([1.625]), fmt.encode([1.59375]), one), [0])
    # 515 * 853 = 858 * 512 - 1: nothing but the lowest bit of the product is left.
    fmt = Float(5, 9)
    yield ("float-fma", {"format": ieee(5, 9), "subnormals": "flush"},
           tuple(fmt.encode([each]) for each in (515 / 2, 853 / 512, -858 / 2)), fmt.encode([-(2.0**-10)]))
    # Zeros have the lowest scale.
    yield "lns-converter", {"work": "fp16", "lanes": 1}, (np.zeros((1, 1), int), none, none == 1), [0]
    # 1 is 2**(t/2 - 127) with t = 254 and the lowest scale: higher ones would be enough for it.
    yield ("lns-converter", {"format": log(16, 2), "lanes": 1},
           (np.full((1, 1), 0x3F800000), none, none == 1), [254])
    # 1, 3, -1/2 and 0 in units of 1/4, under the exponent of 3.
    fmt = Float(2, 1)
    elements = [4, 12, 2 | 1 << 4, 0]
    yield ("bfp-converter", {"random_bits": 16, "work": ieee(2, 1), "group": 4},
           (fmt.encode([[1, 3, -0.5, 0]]), one * 4, none),
           [sum(each << 5 * k for k, each in enumerate(elements)) | 128 << 20 | 4 << 28])
    # The constants 256 + 470 - 332 - 395 are -1, times 2**(9 - 8); the sum has 33 bits with its sign.
    yield ("lns-dot", {"lanes": 4, "accumulator": 25, "lsb": 9, "result": "bf16"},
           (np.full((1, 4), 64), one * 127, np.array([[8, 15, 11 | 128, 13 | 128]]), one * 127, one == 1, one == 1),
           [0xC000])
    # 3.875 is rounded to the smallest number, 4.
    yield ("float-cast", {"format": ieee(1, 4, bias=0, specials="none", overflow="saturate"),
                          "result": ieee(4, 1, bias=-2)}, (np.array([0x1F]),), [1])


def test_right_values_at_corners():
    cases = [(unit, catalog.find(unit).configure(settings), operands, values)
             for unit, settings, operands, values in right()]
    vectors = [catalog.find(unit).bench.vectors(parameters, *operands) for unit, parameters, operands, _ in cases]
    for (*_, values), each in zip(cases, vectors, strict=True):
        assert each.outputs == [int(value) for value in values]
    # And many transfers of the same settings.
    batch = Batch([made(unit, parameters) for unit, parameters, *_ in cases])
    many = [catalog.find(unit).vectors(parameters, 600, 2, record=False) for unit, parameters, *_ in cases]
    for outcome in [*batch.run(vectors), *batch.run(many)]:
        assert outcome.mismatches == 0, outcome.report


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(6), ids="seed{}".format)
@pytest.mark.parametrize("unit", UNITS)
def test_configurations(unit, seed):
    """Large ones too, by themselves."""
    entry = catalog.find(unit)
    parameters = configurations.random_parameters(unit, np.random.default_rng([seed, *unit.encode()]), tiny=seed % 2)
    vectors = entry.vectors(parameters, 1000 if unit != "array" else 400, seed)
    units.run(unit, parameters, vectors, seed=seed)
    timed = slowest(unit, parameters)
    outcome = units.run(unit, parameters, timed, idle=0.97, busy=0)
    assert outcome.latency == entry.component(parameters).latency, parameters


# The generator.


def test_every_field_is_drawn():
    owners = [(unit, None) for unit in catalog.UNITS if unit not in configurations.SCALED]
    owners += [(unit, each) for unit in configurations.SCALED for each in configurations.ARRAYS]
    known = {(*each, unit) for unit, system in owners for each in configurations.fields_of(unit, system)}
    assert all(configurations.draw_of(*each) for each in known)
    keys = {key for owner, name, unit in known for key in (f"{unit}.{name}", f"{owner}.{name}", name)}
    assert set(configurations.FIELDS) <= keys  # and nothing else


STRANGE = [None, True, -1, 0, 1, 3, 10**9, 2**31, 2.5, float("nan"), "", "x", "fp32", [], {}, {"type": "Float"},
           {"type": "Log", "bits": 8}, {"type": "Float", "exponent": 5, "mantissa": [1]}, {"type": ["Float"]},
           {"type": "Fixed", "bits": "8"}, ["fp32"], (1,)]


@pytest.mark.parametrize("unit", catalog.UNITS)
def test_strange_values_are_taken_or_refused_in_one_line(unit):
    entry = catalog.find(unit)
    refused = 0
    for system in configurations.ARRAYS if unit == "array" else [None]:
        for _, name in configurations.fields_of(unit, system):
            for value in STRANGE:
                try:
                    entry.configure({name: value} | ({"system": system} if system else {}))
                except ValueError as error:
                    assert "; allowed: " in str(error) and "\n" not in str(error)
                    refused += 1
    assert refused > 0


# Names.


def test_names_differ_wherever_parameters_do():
    """Of random settings, and of pairs that differ in one field."""
    count = 0
    for unit in catalog.UNITS:
        entry = catalog.find(unit)
        rng, names = np.random.default_rng(6), {}
        for _ in range(40):
            settings = configurations.random_parameters(unit, rng).to_json()
            system = settings.get("system")
            changed = [settings]
            for owner, name in configurations.fields_of(unit, system):
                value = configurations.draw_of(owner, name, unit)(rng, False)
                changed.append({key: each for key, each in settings.items() if key != name})
                changed[-1] |= {} if value is None else {name: value}
            for each in changed:
                try:
                    parameters = entry.configure(each)
                except ValueError:
                    continue
                name = entry.module_name(parameters)
                assert name.isascii() and name.isidentifier() and len(name) <= LONGEST
                assert "__" not in name  # which stands between a unit's name and that of a module inside it
                assert names.setdefault(name, parameters) == parameters, name
                count += 1
    assert count > 4000


def test_usual_names():
    for unit, settings, name in (
        ("bfp-fmac", {}, "bfp_fmac_g16_m4_e8"), ("bfp-fmac", {"accumulator": "bf16"}, "bfp_fmac_g16_m4_e8_bf16"),
        ("sgd-update", {}, "sgd_update_bf16"), ("bfp-converter", {"work": "bf16"}, "bfp_converter_g16_m4_e8_bf16"),
        ("array", {"accumulator": "bf16"}, "array_bfp_4x4_g16_m4_e8_bf16"),
        ("array", {"work": "bf16"}, "array_bfp_4x4_g16_m4_e8_work_bf16"),
        ("array", {"system": "lns"}, "array_lns_4x4_lns8"),
        ("trainer", {"updates": ["plain"], "merged": True, "converters": 1},
         "trainer_bfp_4x4_g16_m4_e8_cv1_merged_plain"), ("float-cast", {}, "float_cast_fp32_fp16"),
    ):
        entry = catalog.find(unit)
        assert entry.module_name(entry.configure(settings)) == name


def test_a_long_name_is_cut_and_told_apart(monkeypatch):
    monkeypatch.setattr("narrowgauge.catalog.unit.LONGEST", 24)
    entry = catalog.find("bfp-fmac")
    names = {entry.module_name(entry.configure({"accumulator": fmt})) for fmt in ("fp32", "bf16", "fp16")}
    assert "bfp_fmac_g16_m4_e8" in names and len(names) == 3 and {len(name) for name in names} <= {18, 23, 24}
