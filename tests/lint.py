"""Verilator's strictest lint of a Verilog text."""

import subprocess

from narrowgauge.sim import runner

__all__ = ["lint"]


def lint(folder, *files):
    """Return what Verilator's strictest lint says of files in a folder, as Verilog-2005."""
    with runner.surroundings():  # has Verilator on PATH
        found = subprocess.run(["verilator", "--lint-only", "-Wall", "-Wno-fatal", "--quiet", "--default-language",
                                "1364-2005", *files], cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout + found.stderr
