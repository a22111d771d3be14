# amaranth: UnusedElaboratable=no
"""examples/posit8.py: its numbers against exact fractions, and all of it through the command line, as a user has it."""

import bisect
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import posit8
import posit8_circuits
import pytest
import units
from faults import seed
from lint import lint
from narrowgauge.golden import systems
from narrowgauge.golden.array import ArrayParameters
from narrowgauge.golden.formats import PRESETS, Float
from narrowgauge.golden.number_system import Draws, NumberSystem
from narrowgauge.golden.recipes import make
from narrowgauge.sim import array as bench
from narrowgauge.sim.vectors import Vectors, pack
from posit8 import Posit8System
from products import check_training

EXAMPLES = Path(__file__).parents[2] / "examples"
SYSTEM = ("--system", "posit8:Posit8System")
SMALL = ("rows=1", "columns=1", "memory=64", "buffer=8192")
SIZES = [word for pair in SMALL for word in ("--set", pair)]


@pytest.fixture
def registered(monkeypatch):
    """Register the system for one test."""
    monkeypatch.setattr(systems, "SYSTEMS", dict(systems.SYSTEMS))
    return systems.register("posit8:Posit8System")


@pytest.fixture
def small(registered):
    """The array of the command line's settings: all tests of a circuit share its simulator."""
    return ArrayParameters.from_json({"system": registered, "rows": 1, "columns": 1, "memory": 64, "buffer": 8192})


def narrowgauge(*words, folder=EXAMPLES):
    return subprocess.run([sys.executable, "-m", "narrowgauge", *words], cwd=folder, capture_output=True, text=True)


def number(code, bits=8):
    """Return the value of a code of posit<bits,1> by the standard's formula, which needs no complement: a Fraction."""
    sign, *rest = (code >> k & 1 for k in reversed(range(bits)))
    if not any(rest):
        return None if sign else Fraction(0)
    run = len(list(itertools.takewhile(lambda bit: bit == rest[0], rest)))
    regime = run - 1 if rest[0] else -run
    exponent, *fraction = rest[run + 1:] or [0]
    below = sum((Fraction(bit, 2 << k) for k, bit in enumerate(fraction)), Fraction(0))
    return (1 - 3 * sign + below) * Fraction(2) ** ((1 - 2 * sign) * (2 * regime + exponent + sign))


POSITIVE = [number(code) for code in range(128)]


def nearest(x):
    """Return the code that a Fraction becomes."""
    magnitude = abs(x)
    if magnitude == 0:
        return 0
    code = bisect.bisect(POSITIVE, magnitude) - 1
    if code == 0:
        code = 1
    elif code < 127:
        middle = number(2 * code + 1, bits=9)
        code += magnitude > middle or (magnitude == middle and code % 2 == 1)
    return code if x > 0 else 256 - code


def rounded(x, fmt):
    """Return the value of a Float nearest to a Fraction, to even, or Inf."""
    if abs(x) >= Fraction(2) ** (fmt.emax + 1) - Fraction(2) ** (fmt.emax - fmt.mantissa - 1):
        return np.copysign(np.inf, float(x))
    exponent = fmt.emin
    while abs(x) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    place = Fraction(2) ** (exponent - fmt.mantissa)
    return float(round(x / place) * place)  # Python rounds a Fraction to even


def test_codes_are_the_standards():
    values = posit8.decode(np.arange(256))
    assert values[128] == 0  # NaR
    assert [Fraction(each) for each in np.delete(values, 128)] == [number(c) for c in range(256) if c != 128]


def numbers():
    """Return all numbers, all midpoints, the next ones to them in fp32, and numbers of all exponents: float32."""
    exact = [number(code) for code in range(256) if code != 128] + [number(c, 9) for c in range(512) if c != 256]
    values = np.array([float(each) for each in exact], np.float32)
    assert [Fraction(float(each)) for each in values] == exact
    beside = [np.nextafter(values, np.float32(way)) for way in (np.inf, -np.inf)]
    values = np.concatenate([values, *beside,
                             np.random.default_rng(1).integers(0, 1 << 32, 3000, np.uint32).view(np.float32)])
    return values[np.isfinite(values)]


def test_numbers_become_the_nearest_posit():
    values = numbers().astype(np.float64)
    codes, invalid, beyond = posit8.encode(values)
    assert codes.tolist() == [nearest(Fraction(each)) for each in values]
    assert not invalid.any() and beyond.tolist() == [abs(each) > 4096 for each in values] and beyond.any()
    special, invalid, beyond = posit8.encode([np.nan, np.inf, -np.inf, -0.0])
    assert special.tolist() == [0, 127, 129, 0]
    assert invalid.tolist() == [True, False, False, False] and beyond.tolist() == [False, True, True, False]


def test_all_products_are_exact():
    a, b = (each.ravel() for each in np.meshgrid(np.arange(256), np.arange(256)))
    lanes = [(np.stack([each, np.zeros_like(each)], axis=1),) for each in (a, b)]
    every = np.ones(len(a), bool)
    codes, invalid, overflow = Posit8System(lanes=2).dot(*lanes, every, every)
    values = [number(code) or Fraction(0) for code in range(256)]
    expected = [values[x] * values[y] for x, y in zip(a.tolist(), b.tolist())]
    # A product has 10 bits: fp32 holds it.
    assert [Fraction(each) for each in PRESETS["fp32"].decode(codes).tolist()] == expected
    assert not np.any(codes == 1 << 31) and not invalid and not overflow


@pytest.mark.parametrize("result", [PRESETS["fp32"], PRESETS["fp16"], PRESETS["bf16"], Float(3, 4)], ids=str)
def test_sums_are_rounded_once(result):
    rng = np.random.default_rng(2)
    system = Posit8System(accumulator=result)
    # Of all codes, and of the largest and the least ones, where a sum has the most bits.
    ends = np.array([0, 1, 2, 63, 64, 65, 126, 127, 129, 130, 191, 192, 193, 255])
    a, b = (np.where(rng.random((600, 1)) < 0.5, rng.integers(0, 256, (600, 4)), rng.choice(ends, (600, 4)))
            for _ in range(2))
    first, last = rng.random(600) < 0.2, rng.random(600) < 0.5
    codes, _, overflow = system.dot((a,), (b,), first, last)
    total, expected = Fraction(0), []
    for x, y, begins, ends in zip(a.tolist(), b.tolist(), first, last):
        total = (0 if begins else total) + sum((number(p) or 0) * (number(q) or 0) for p, q in zip(x, y))
        expected += [rounded(Fraction(total), result)] if ends else []
    assert np.array_equal(result.decode(codes), expected) and overflow == np.isinf(expected).any()
    assert not np.signbit(result.decode(codes))[np.equal(expected, 0)].any()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_of_more_bits_than_float64_is_rounded_once(sign):
    # 16,384 squares of maxpos, half a place of fp32, and the least there is: in float64 that would be a tie.
    a = np.full((4097, 4), 127)
    b = np.full((4097, 4), 127 if sign > 0 else 129)
    a[-1], b[-1] = [127, 1, 0, 0], [96, 1, 0, 0]
    b[-1, :2] = b[-1, :2] if sign > 0 else 256 - b[-1, :2]
    total = sum(number(int(x)) * number(int(y)) for x, y in zip(a.ravel(), b.ravel()))
    assert float(np.float32(float(total))) != rounded(total, PRESETS["fp32"])
    at = np.arange(4097)
    codes, _, _ = Posit8System().dot((a,), (b,), at == 0, at == 4096)
    assert PRESETS["fp32"].decode(codes).tolist() == [rounded(total, PRESETS["fp32"])]


def test_so_many_products_fit():
    at = np.arange(8192)
    for codes in ((127, 127), (127, 129)):
        a, b = (np.full((8192, 4), code) for code in codes)
        square = float(number(codes[0]) * number(codes[1]))
        totals = []
        for count in (3, 4):
            a[-1, count:] = 0
            a[-1, :count] = codes[0]
            totals += Posit8System().dot((a,), (b,), at == 0, at == 8191)[0].tolist()
        assert PRESETS["fp32"].decode(totals).tolist() == [np.float32(32767 * square), -abs(32768 * square)]


def test_a_faster_product_is_that_of_the_cell(monkeypatch):
    rng = np.random.default_rng(4)
    slow, calls = NumberSystem.product, []
    monkeypatch.setattr(NumberSystem, "product", lambda self, *sides: calls.append(1) or slow(self, *sides))
    for scale, exact in ((1.0, True), (2.0**11, False)):
        for result in ("fp32", "fp16"):
            system = Posit8System(accumulator=PRESETS[result])
            operands = [system.operand((scale * rng.normal(size=shape)).astype(np.float32), 1 - side, {}, side,
                                       Draws(1))[0] for side, shape in enumerate(((9, 70), (70, 4)))]
            expected = slow(system, *operands)
            found = system.product(*operands)
            assert np.array_equal(system.accumulator.encode(found[0]), system.accumulator.encode(expected[0]))
            assert found[1:] == expected[1:] == (False, not exact and result == "fp16")
    assert len(calls) == 2


def test_settings(registered):
    assert registered == "posit8"
    for settings, message in (({"lanes": 3}, "lanes is 3; allowed: a power of two"),
                              ({"lanes": 128}, "lanes is 128; allowed: an integer from 2 to 64"),
                              ({"work": "fp8-e4m3"}, "work is Float(.*; allowed: a Float with a mantissa, and normal"),
                              ({"accumulator": "fp8-e4m3"}, "accumulator is Float(.*; allowed: a Float with specials")):
        with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
            ArrayParameters.from_json({"system": "posit8", **settings})
    parameters = ArrayParameters.from_json({"system": "posit8", "work": "fp16", "lanes": 8})
    assert ArrayParameters.from_json(parameters.to_json()) == parameters


@pytest.mark.parametrize("settings", [{}, {"lanes": 8, "work": "fp16", "accumulator": "fp16"}], ids=str)
def test_training_has_the_bits_of_the_array(registered, settings, monkeypatch):
    check_training(make("system", system=registered, **settings), monkeypatch)


def test_training_through_the_command_line():
    results = [narrowgauge("train", *SYSTEM, "--batch", "16", "--lr", "0.02", "--epochs", "3", "--json", "-")
               for _ in range(2)]
    first, second = (json.loads(each.stdout) for each in results)
    assert first["digest"] == second["digest"] and first["accuracy"]["test"] > 0.9
    assert first["system"]["name"] == "posit8" and first["formats"]["weights"]["format"]["type"] == "Posit8System"


@pytest.mark.sweep
@pytest.mark.parametrize("work", ["fp32", "fp16"])
def test_the_converter_alone(work):
    """All codes of fp16; in fp32 all numbers, midpoints and neighbours. The array's bench has numbers about 1."""
    work = PRESETS[work]
    codes = np.arange(1 << 16) if work == PRESETS["fp16"] else work.encode(numbers())[:-1]
    codes = np.random.default_rng(5).permutation(codes)[:len(codes) // 4 * 4].reshape(-1, 4)
    circuit = posit8_circuits.PositConverter(posit8.PositConverterParameters(work, 4))
    expected, invalid, beyond = posit8.encode(work.decode(codes))
    quiet = ~(invalid | beyond).any(axis=1)
    for some in (quiet, quiet | True):
        status = {"invalid": int(invalid[some].any()), "overflow": int(beyond[some].any())}
        vectors = Vectors(pack((codes[some], work.width)), pack((expected[some], 8)), range(some.sum()), status)
        units.run_component(circuit, "posit_converter", vectors)


@pytest.mark.parametrize("result", ["fp32", pytest.param("fp16", marks=pytest.mark.sweep)])
def test_the_cell_alone(result):
    """All products, each in a lane, in sums of any lengths."""
    rng = np.random.default_rng(6)
    system = Posit8System(accumulator=PRESETS[result])
    pairs = rng.permutation(1 << 16)
    a, b = (pairs >> 8).reshape(-1, 4), (pairs & 0xFF).reshape(-1, 4)
    first, last = rng.random(len(a)) < 0.4, rng.random(len(a)) < 0.6
    first[0] = True
    codes, _, overflow = system.dot((a,), (b,), first, last)
    vectors = Vectors(pack((a, 8), (b, 8), (first, 1), (last, 1)), list(map(int, codes)), np.flatnonzero(last),
                      {"overflow": int(overflow)})
    assert overflow == (result == "fp16")
    units.run_component(posit8_circuits.PositDot(system.cell(2)), "posit_dot", vectors)


def test_the_bench_through_the_command_line():
    """With random stalls, numbers of all kinds, and recorded ones."""
    done = narrowgauge("simulate", "array", *SYSTEM, *SIZES, "--vectors", "2000", "--json", "-")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["vectors"] == 2000 and told["mismatches"] == 0
    assert told["parameters"]["system"] == "posit8"


def test_the_cell_holds_as_many_products(small):
    """32,767 squares of maxpos, and one more, in parts: the memory of 64 elements, read again and again."""
    sizes = [*[4096] * 7, 4095, *[4096] * 8]
    count = 16 + len(sizes)
    at, ones = np.arange(count), np.ones(count, int)
    first, last = (np.where(at < 16, 1, at % 8 == end) for end in (0, 7))
    k = np.array([1] * 16 + sizes)
    # The four rows of each of the four blocks are written; the operands begin in block 0.
    blocks = np.stack([np.where(at < 16, at // 4, 0), ones, 0 * ones], axis=1)
    elements = np.full((count, 4), int(PRESETS["fp32"].encode(4096.0)))
    vectors = bench.array_vectors(small, at >= 16, elements, at % 4, ones, ones, k, first, last, blocks, blocks)
    expected = [PRESETS["fp32"].encode(each) for each in (32767 * 2.0**24, -32768 * 2.0**24)]
    assert [each & 0xFFFFFFFF for each in vectors.outputs] == expected
    units.run("array", small, vectors)


@pytest.mark.sweep
def test_times_are_those_of_golden(small):
    measured, expected = bench.timing(small)
    assert measured == expected


def test_lint_passes(small, tmp_path):
    text = units.text_of("array", small)
    assert "\\" not in text and not re.search(r"\b(unused|signal)(_\d+)?\b", re.sub("//.*", "", text))
    (tmp_path / "array.v").write_text(text)
    assert lint(tmp_path, "array.v") == ""


FAULTS = {
    "the converter fills a regime of ones with zeros": ("fill=~small", "fill=C(0, 1)"),
    "the cell's fine shift is too short": ("place=now.place[:3]", "place=now.place[:2]"),
}


@pytest.mark.sweep
@pytest.mark.parametrize("fault", FAULTS)
def test_the_bench_finds_a_fault(fault, tmp_path):
    for path in EXAMPLES.glob("posit8*.py"):
        shutil.copy(path, tmp_path)
    seed(tmp_path, *FAULTS[fault])
    done = narrowgauge("simulate", "array", *SYSTEM, *SIZES, "--vectors", "2000", "--json", "-", folder=tmp_path)
    assert done.returncode == 1 and json.loads(done.stdout)["mismatches"] > 0, done.stderr


@pytest.mark.sweep
def test_training_in_a_core():
    """The page's command ends with golden's digest, which the page has."""
    page = (EXAMPLES.parent / "docs" / "adding-a-number-system.md").read_text()
    command = re.search(r"^    narrowgauge (train .*--rtl.*)$", re.sub(r"\\\n *", "", page), re.M)[1]
    done = narrowgauge(*shlex.split(command), "--json", "-")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rtl"]["identical"] and told["digest"].startswith(re.search(r"digest begins with `(\w+)`", page)[1])


@pytest.mark.sweep
def test_an_array_is_placed():
    done = narrowgauge("synth", "array", "--target", "ecp5", *SYSTEM, "--set", "rows=1", "--set", "columns=1",
                       "--set", "memory=256", "--set", "buffer=64", "--seeds", "1", "--json", "-")
    told = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert told["parameters"]["system"] == "posit8" and told["lut"] > 1000 and told["fmax_mhz"]["min"] > 50
