"""Faults seeded into the sources, each of which `narrowgauge simulate` must find."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONVERTER = ("bfp-converter", "--set", "group=4")
SUBNORMAL = (*CONVERTER, "--set", "work=fp16")
FMAC = ("bfp-fmac", "--set", "group=4")
SMALL = (*FMAC, "--set", "accumulator=fp16")
PARALLEL = (*FMAC, "--set", "chunks=parallel")

# What is wrong: (file, what stands there once, what it becomes, unit and settings).
FAULTS = {
    "converter: a tie is rounded up": (
        "hw/blockfloat.py", "guard & (q[0] | rest_bits.any() | s4.sticky[k])", "guard", CONVERTER),
    "converter: a sticky bit is dropped": (
        "hw/blockfloat.py", "rest_bits.any() | s4.sticky[k]", "rest_bits.any()", CONVERTER),
    "converter: a carry-out is dropped": (
        "hw/blockfloat.py", "full.eq((q & ~Cat(mask, C(0, 1))).any() | (s6.above", "full.eq((s6.above", CONVERTER),
    "converter: lanes in the wrong order": (
        "hw/blockfloat.py", "self.o.payload.elements.as_value().eq(Cat(elements))",
        "self.o.payload.elements.as_value().eq(Cat(reversed(elements)))", CONVERTER),
    "converter: a zero keeps its sign": (
        "hw/blockfloat.py", "s6.negative[k] & magnitude.any()", "s6.negative[k]", CONVERTER),
    "converter: a group above the field does not saturate": (
        "hw/blockfloat.py", "(s6.above & s6.nonzero[k])", "C(0, 1)", CONVERTER),
    "converter: an all-subnormal group is one place off": (
        "hw/blockfloat.py", "m.d.comb += depth.eq(place)", "m.d.comb += depth.eq(place + 1)", SUBNORMAL),
    "converter: random words are drawn by every transfer": (
        "hw/blockfloat.py", "advance & s4.valid & s4.stochastic", "advance & s4.valid", CONVERTER),
    "converter: the random words move on by a position too few": (
        "hw/lfsr.py", "lfsr.leap_matrix(self.bits)", "lfsr.leap_matrix(self.bits - 1)", CONVERTER),
    "converter: NaN is not reported": (
        "hw/blockfloat.py", "self.invalid, advance & s6.valid & s6.nan", "self.invalid, C(0, 1)", CONVERTER),
    "converter: a stalled output is lost": (
        "hw/blockfloat.py", "advance.eq(~self.o.valid | self.o.ready), self.i.ready", "advance.eq(1), self.i.ready",
        CONVERTER),
    "fMAC: a stall repeats a transfer": (
        "hw/accumulator.py", "valid=s1.valid & ~hazard", "valid=s1.valid", FMAC),
    "fMAC: a busy sum is not waited for": (
        "hw/accumulator.py", "Cat(valid & (slot == other) for valid, other in under_way).any()", "C(0, 1)", FMAC),
    "fMAC: the last pass is merged without its weight": (
        "hw/blockfloat.py", "Mux(now.shift, merged << 2, merged)", "merged", FMAC),
    "fMAC: the carry of a negative product is dropped": (
        "hw/blockfloat.py", "m.d.sync += merged.eq(sum_with_carry(base, dot, carry))",
        "m.d.sync += merged.eq(base + dot)", FMAC),
    "fMAC: a diagonal of chunk products is one place off": (
        "hw/blockfloat.py", "parts.append((word[:start], lower[:2]))", "parts.append((word[:start], lower[1:3]))",
        PARALLEL),
    "accumulator: a tie is rounded up": (
        "hw/accumulator.py", "out.guard & (out.tail | out.kept[0])", "out.guard", FMAC),
    "accumulator: bits below the window are forgotten": (
        "hw/pipeline.py", "sticky = sticky | (chosen & lost)", "sticky = sticky", FMAC),
    "accumulator: subnormals are normalised away": (
        "hw/pipeline.py", "take.eq(zero & (free | room))", "take.eq(zero)", SMALL),
    "accumulator: the exponent's end is one too high": (
        "hw/accumulator.py", "exponent.eq(now.exponent + 2 - now.taken)", "exponent.eq(now.exponent + 1 - now.taken)",
        SMALL),
    "accumulator: an exact zero keeps a sign": (
        "hw/accumulator.py", "out.negative & nonzero", "out.negative", FMAC),
    "accumulator: overflow is not reported": (
        "hw/accumulator.py", "advance & finite_before & now_infinite", "C(0, 1)", SMALL),
}


def simulate(folder, arguments):
    """Run `narrowgauge simulate` on the sources in `folder`; return its exit status, JSON and errors."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NARROWGAUGE_CACHE": str(folder / "cache")}
    # The runtime library does not depend on the sources: one for all saves most of a build.
    shared = Path(os.environ.get("NARROWGAUGE_CACHE", ROOT / "build")) / "sim" / "libruntime.a"
    if shared.exists():
        (folder / "cache" / "sim").mkdir(parents=True)
        shutil.copy(shared, folder / "cache" / "sim")
    done = subprocess.run(
        [sys.executable, "-m", "narrowgauge", "simulate", *arguments, "--vectors", "3000", "--json", "-"],
        cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def copy_sources(folder):
    package = folder / "narrowgauge"
    package.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copy(path, package)
    for room in ("golden", "hw", "sim"):
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    return package


@pytest.mark.parametrize("arguments", [CONVERTER, FMAC], ids=["converter", "fmac"])
def test_without_a_fault_nothing_is_found(arguments, tmp_path):
    copy_sources(tmp_path)
    status, result, errors = simulate(tmp_path, arguments)
    assert (status, errors) == (0, "")
    assert result["mismatches"] == 0 and result["vectors"] == 3000


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(name, tmp_path):
    file, old, new, arguments = FAULTS[name]
    path = copy_sources(tmp_path) / file
    text = path.read_text()
    assert text.count(old) == 1, f"the fault no longer fits {file}: {old!r}"
    path.write_text(text.replace(old, new))
    status, result, errors = simulate(tmp_path, arguments)
    assert status == 1, errors
    assert result["mismatches"] > 0
    assert errors
