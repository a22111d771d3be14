"""The ranges of versions in pyproject.toml: bits and Verilog are the same at both ends."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from narrowgauge.base.files import cache_folder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
              if not line.startswith("#"))


def ranges():
    """Return the lower end of each range, by package."""
    needs = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    return {name: low for name, low in (re.match(r"([\w-]+)(?:>=([\d.]+))?", each).groups() for each in needs) if low}


def test_each_range_has_a_version_that_is_installed():
    assert ranges().keys() == PINNED.keys() and {"numpy", "amaranth"} < PINNED.keys()
    for name, version in PINNED.items():
        if name != "torch":
            assert metadata.version(name) == version


@pytest.mark.sweep
def test_the_oldest_versions_have_the_same_bits_and_verilog(tmp_path):
    oldest = ranges()
    home = cache_folder("oldest")
    python = home / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    needs = [each for extra in ([], ["data"], ["sim"]) for each in (
        PROJECT["optional-dependencies"][extra[0]] if extra else PROJECT["dependencies"])]
    names = [re.match(r"[\w-]+", each)[0] for each in needs]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "pytest", *needs, *(
        f"{name}=={oldest[name]}" for name in names if name in oldest)], check=True)
    (tmp_path / "narrowgauge").symlink_to(ROOT)
    path = os.pathsep.join(map(str, (tmp_path, ROOT / "tests")))
    told = subprocess.run([python, "tests/hashes.py"], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True,
                          capture_output=True, text=True).stdout
    assert told.splitlines() == (ROOT / "tests" / "bytes.txt").read_text().splitlines()
