"""Number systems: each trains with the bits of its array, and a faster way to a product is the slow one to the bit."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from narrowgauge.golden import mx, number_system, systems
from narrowgauge.golden.array import ArrayParameters
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.number_system import Draws, NumberSystem
from narrowgauge.golden.recipes import Recipe, make
from narrowgauge.golden.systems import SYSTEMS
from products import check_training

ARRAYS = [name for name, system in SYSTEMS.items() if system.circuits]
SETTINGS = {
    **{name: {"system": name} for name in ARRAYS},
    "bfp, stochastic": {"system": "bfp", "group": 8, "gradients": {"precision": 3, "rounding": 2},
                        "weights": {"precision": 2, "rounding": 1}, "accumulator": "bf16"},
    "bfp, codes beyond the ends": {"system": "bfp", "gradients": {"precision": 7, "rounding": 3},
                                   "weights": {"precision": 0}},
    "mx, stochastic": {"system": "mx", "block": 8, "element": "fp6-e3m2", "rounding": "stochastic"},
    "mx, gradients of their own": {"system": "mx", "block": 8, "gradients_element": "fp8-e5m2",
                                   "gradients_rounding": "stochastic"},
    "lns, bins": {"system": "lns", "lanes": 4, "accumulation": "bins", "lsb": 2},
    "fp8-e4m3 in bf16": {"system": "fp8", "format": "fp8-e4m3", "accumulator": "bf16"},
    "bfp in bf16": {"system": "bfp", "work": "bf16", "accumulator": "bf16", "gradients": {"rounding": 2}},
    "float of 12 bits in itself": {"system": "float", **dict.fromkeys(("format", "accumulator", "work"), {
        "type": "Float", "exponent": 5, "mantissa": 6})},
    "int8 in fp16": {"system": "int8", "lanes": 8, "work": "fp16", "accumulator": "fp16"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_training_has_the_bits_of_the_array(settings, monkeypatch):
    check_training(make("system", **settings), monkeypatch)


def numbers(rng, shape, work):
    """Return an array of any numbers of the work format, near one and far from it, with zeros of both signs."""
    values = rng.normal(size=shape) * 2.0 ** rng.integers(-20, 10, shape)
    far = rng.random(shape)
    values = np.where(far < 0.1, work.decode(rng.integers(0, 1 << work.width, shape)), values)
    values = np.where(far > 0.9, np.where(far > 0.95, 0.0, -0.0), values)
    return np.where(np.isfinite(values), values, 1.0)


FLOATS = [(PRESETS[name], PRESETS[sums]) for name in ("bf16", "fp16", "fp8-e4m3", "fp8-e5m2", "fp32")
          for sums in ("fp32", "fp16", "bf16")] + [(Float(8, 12), Float(8, 9)), (Float(6, 2), Float(3, 4))]


@pytest.mark.parametrize("fmt, sums", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["near", "tiny", "special"])
def test_float_products_are_those_of_the_unit(fmt, sums, kind):
    """`FloatSystem.product` against `number_system`'s, which gives the unit's golden function every transfer."""
    system = systems.find("float")(format=fmt, accumulator=sums, work=PRESETS["fp32"])
    rng = np.random.default_rng(3)
    for _ in range(4):
        x, y = numbers(rng, (7, 30), fmt), numbers(rng, (30, 5), fmt)
        if kind == "tiny":  # sums between subnormals of the accumulator
            x = np.ldexp(rng.integers(-40, 41, x.shape), (sums.emin - sums.mantissa) // 2 - 3)
            y = np.ldexp(rng.integers(-40, 41, y.shape), -(-(sums.emin - sums.mantissa) // 2) - 3)
        if kind == "special":
            x[0, 3], x[2, 4], y[5, 0] = np.inf, np.nan, -np.inf
        x, y = (np.asarray(each, np.float32) for each in (x, y))
        operands = [system.operand(array, axis, {}, side, Draws(1))[0] for side, (array, axis) in
                    enumerate(((x, 1), (y, 0)))]
        slow, fast = NumberSystem.product(system, *operands), system.product(*operands)
        assert np.array_equal(sums.encode(slow[0]), sums.encode(fast[0])) and slow[1:] == fast[1:]


@pytest.mark.parametrize("name", ["bfp", "mx", "lns", "int8"])
def test_products_are_those_of_the_units(name):
    """A system's own operands and product against `number_system`'s, which go through ``convert`` and ``dot``."""
    system = systems.find(name)()
    rng = np.random.default_rng(4)
    for _ in range(3):
        x, y = (rng.normal(size=shape).astype(np.float32) * np.float32(2.0) ** rng.integers(-6, 6, shape)
                for shape in ((9, 70), (70, 4)))
        own, slow = [], []
        for side, array in enumerate((x, y)):
            mode = system.mode("weights", array)
            array = array.astype(np.float32)
            own.append(system.operand(array, 1 - side, mode, side, Draws(1))[0])
            slow.append(NumberSystem.operand(system, array, 1 - side, mode, side, Draws(1))[0])
        expected = NumberSystem.product(system, *slow)
        assert np.array_equal(system.accumulator.encode(system.product(*own)[0]),
                              system.accumulator.encode(expected[0]))


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_sums_of_chunks_are_those_of_training(chunk):
    """Float, transfer by transfer and as a whole, is the plain system that has it for its array."""
    plain, rng = systems.find("plain")(PRESETS["fp16"], chunk), np.random.default_rng(7)
    system = plain.arrayed
    assert system.chunk == chunk and system.depth == systems.find("float")().depth
    arrays = [plain.work.round(rng.normal(size=shape) * 40) for shape in ((9, 70), (70, 5))]
    operands = [NumberSystem.operand(system, array, 1 - side, {}, side, Draws(1))[0]
                for side, array in enumerate(arrays)]
    expected = plain.product(*arrays)[0]
    assert np.array_equal(system.product(*operands)[0], expected)
    assert np.array_equal(NumberSystem.product(system, *operands)[0], expected)
    assert not np.array_equal(systems.find("plain")(PRESETS["fp16"]).product(*arrays)[0], expected)


def test_products_in_parts_are_whole(monkeypatch):
    system, rng = systems.find("int8")(lanes=4), np.random.default_rng(5)
    operands = [NumberSystem.operand(system, array, 1 - side, system.mode("weights", array), side, Draws(1))[0]
                for side, array in enumerate((rng.normal(size=(9, 10)), rng.normal(size=(10, 3))))]
    whole = NumberSystem.product(system, *operands)[0]
    monkeypatch.setattr(number_system, "PAIRS", 10)
    assert np.array_equal(NumberSystem.product(system, *operands)[0], whole)


@pytest.mark.parametrize("gradients", ["fp8-e5m2", "int8", "fp4-e2m1"])
@pytest.mark.parametrize("element", ["fp8-e4m3", "int8"])
def test_an_element_of_their_own_for_gradients(element, gradients):
    """Training's own products are the array's, whichever operand has gradients, and with any number at all."""
    assert systems.find("mx")(gradients_element="fp8-e4m3") == systems.find("mx")()
    system = systems.find("mx")(element, gradients, gradients_rounding="stochastic", accumulator=PRESETS["fp16"])
    assert system.modes == {"gradient": 1} and Recipe("mx", system).mode("gradients") == {"gradient": 1}
    ArrayParameters(system)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 70)).astype(np.float32), rng.normal(size=(70, 5)).astype(np.float32)
    spoilt = x.copy()
    spoilt[3, 40], spoilt[5, 3], spoilt[:, 65] = np.nan, np.inf, 1e6
    for array, modes in itertools.product((x, spoilt), itertools.product((0, 1), repeat=2)):
        made = [[kind.operand(*own, each, 1 - side, {"gradient": mode}, side, Draws(1))
                 for side, (each, mode) in enumerate(zip((array, y), modes))]
                for kind, own in ((system, ()), (NumberSystem, (system,)))]
        assert [each[1:] for each in made[0]] == [each[1:] for each in made[1]]
        ours = system.product(*(each[0] for each in made[0]))
        expected = NumberSystem.product(system, *(each[0] for each in made[1]))
        assert np.array_equal(ours[0], expected[0], equal_nan=True) and ours[1:] == expected[1:]


@pytest.mark.parametrize("pair", list(itertools.combinations_with_replacement(mx.ELEMENTS, 2)), ids="-".join)
def test_a_common_element_has_the_numbers_of_both(pair):
    elements = [mx.ELEMENTS[each] for each in pair]
    common = mx.union(*elements)
    for element in elements:
        values = element.decode(np.arange(1 << element.width))
        kept = np.isfinite(values) & (values != -2 if element == mx.ELEMENTS["int8"] else True)  # never converted to
        assert np.array_equal(common.decode(mx.recoded(element, common)[:1 << element.width])[kept], values[kept])


@pytest.mark.parametrize("name", SYSTEMS)
def test_settings_survive_json_and_the_system_is_told(name):
    system = SYSTEMS[name]()
    assert type(system).from_json(system.to_json()) == system and systems.name_of(system) == name
    if system.circuits:
        assert type(system).from_json(ArrayParameters(name).system.to_json()) == system
    else:
        with pytest.raises(ValueError, match=f"^system is '{name}'; allowed: one that has an array: {system.refusal}$"):
            ArrayParameters(name)


def test_only_classes_of_number_systems_are_registered(monkeypatch):
    monkeypatch.setattr(systems, "SYSTEMS", dict(SYSTEMS))
    for path in ("no_such_module:System", "dataclasses", "dataclasses:Nothing", ":", "json:"):
        with pytest.raises(ValueError, match=rf"^system is {re.escape(repr(path))}; allowed: module:Class of .*"):
            systems.register(path)
    for path in ("fractions:Fraction", "narrowgauge.golden.number_system:NumberSystem"):
        with pytest.raises(ValueError, match=f"^system is '{path}'; allowed: a dataclass made from NumberSystem$"):
            systems.register(path)
    with monkeypatch.context() as patch:
        patch.delattr(SYSTEMS["int8"], "convert")
        patch.delattr(SYSTEMS["int8"], "dot")
        with pytest.raises(ValueError, match="^system is '.*'; allowed: .* of its own for the array: convert, dot$"):
            systems.register("narrowgauge.golden.integer:INT8System")
    with pytest.raises(ValueError, match="^system is FloatSystem.*; allowed: bfp, "):
        monkeypatch.delitem(systems.SYSTEMS, "float")
        systems.name_of(SYSTEMS["float"]())
    assert systems.register("narrowgauge.golden.integer:INT8System") == "int8system"
    assert dataclasses.fields(systems.find("int8system")) == dataclasses.fields(SYSTEMS["int8"])
