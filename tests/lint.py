"""What tools say of a Verilog text: Verilator's strictest lint, slang, Icarus Verilog and Yosys."""

import shutil
import subprocess
import sys

import pytest
from narrowgauge.base.files import cache_folder
from narrowgauge.sim import runner
from narrowgauge.synth import tools

__all__ = ["elaborate", "icarus", "lint", "slang"]

SLANG = """\
import sys
from pyslang import driver
slang = driver.Driver()
slang.addStandardArgs()
good = slang.parseCommandLine(" ".join(["slang", *sys.argv[1:]])) and slang.processOptions()
sys.exit(not (good and slang.parseAllSources() and slang.runFullCompilation(True)))
"""


def lint(folder, *files, language="1364-2005"):
    """Return what Verilator's strictest lint says of files in a folder, by default as Verilog-2005."""
    with runner.surroundings():  # has Verilator on PATH
        found = subprocess.run(["verilator", "--lint-only", "-Wall", "-Wno-fatal", "--quiet", "--default-language",
                                language, *files], cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return found.stdout + found.stderr


def slang(folder, *files, standard="1364-2005"):
    """Return what slang says of files in a folder, by default as Verilog-2005, or else 1800-2017; skip without it."""
    pytest.importorskip("pyslang")
    found = subprocess.run([sys.executable, "-c", SLANG, "--std", standard, *files], cwd=folder, capture_output=True,
                           text=True)
    assert found.returncode == 0, (found.stdout + found.stderr)[-2000:]
    return found.stdout + found.stderr


def icarus(folder, *files, top):
    """Return what Icarus Verilog says when it elaborates a top, as Verilog-2005; None where it is not installed."""
    if not shutil.which("iverilog"):
        return None
    found = subprocess.run(["iverilog", "-g2005", "-Wall", "-t", "null", "-s", top, *files], cwd=folder,
                           capture_output=True, text=True)
    assert found.returncode == 0, (found.stdout + found.stderr)[-2000:]
    # Icarus says this of itself where a constant has 64 bits, and takes all of them.
    return "".join(line for line in (found.stdout + found.stderr).splitlines(keepends=True)
                   if not line.startswith("warning: verinum::as_long() truncated"))


def elaborate(name, texts, commands):
    """Run commands of Yosys on Verilog texts by file name, in the project's build folder; an error raises."""
    work = cache_folder("elaborated") / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tools.write(work, texts)
    return tools.yosys(work, f"read_verilog {' '.join(texts)}\n{commands}")
