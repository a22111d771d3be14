"""The work of an exploration: commands of narrowgauge, each a process; their results, kept by content."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..base.environment import unsteered
from ..base.files import json_text, write_whole
from .space import OPTIONS, Space

__all__ = ["Store", "plan_words", "run", "shown", "stop", "synth_words", "train_words"]

PACKAGE = Path(__file__).parents[1]
# Of other rooms no result depends.
ROOMS = {"train": ("base", "golden"), "plan": ("base", "golden"),
         "synth": ("base", "golden", "hw", "sim", "synth", "catalog", "report")}
_children: set[subprocess.Popen] = set()


def _pairs(option: str, table: dict) -> list[str]:
    words = []
    for name, value in table.items():
        text = value if isinstance(value, str) else json.dumps(value)
        words += [f"--{option}", f"{name}={text}"]
    return words


def _run_words(point: dict) -> list[str]:
    words = []
    for option in OPTIONS:
        if option in point:
            name, value = "--" + option.replace("_", "-"), point[option]
            if value is True:
                words.append(name)
            elif value is not False:
                words += [name, value if isinstance(value, str) else json.dumps(value)]
    return words + _pairs("set", point.get("set", {}))


def train_words(point: dict, seed: int) -> list[str]:
    """Return the arguments of the training of a point."""
    return ["train", *_run_words(point), "--seed", str(seed)]


def plan_words(point: dict, seed: int) -> list[str]:
    """Return the arguments of its plan."""
    return ["plan", *_run_words(point), *_pairs("core", point.get("core", {})), "--seed", str(seed)]


def synth_words(unit: str, settings: dict, target: str, space: Space) -> list[str]:
    """Return the arguments of the synthesis of a unit."""
    words = ["synth", unit, *_pairs("set", settings), "--target", target]
    if target == "asic" and space.liberty is not None:
        words += ["--liberty", space.liberty]
    return [*words, "--seeds", str(space.place_seeds)]


def shown(words: list[str]) -> str:
    """Return arguments as a command line for people."""
    return shlex.join(["narrowgauge", *words])


def run(words: list[str]) -> dict:
    """Run a command in a process of its own, and return its outcome.

    Returns
    -------
    dict
        ``result`` (what the command's JSON holds, or None), ``reason`` (why there is none, in a line, or None),
        ``final`` (whether another run would end the same way), ``seconds``.
    """
    start = time.monotonic()
    # One thread each: commands run side by side.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-W", "ignore", "-m", __name__.split(".")[0], *words, "--json", str(path)]
        child = subprocess.Popen(command, env=unsteered() | threads, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
                                 start_new_session=True)
        _children.add(child)
        try:
            _, said = child.communicate()
        finally:
            _children.discard(child)
        seconds = time.monotonic() - start
        # Status 1: a unit or a run that does not fit, which is an answer.
        if child.returncode in (0, 1) and path.exists():
            return {"result": json.loads(path.read_text()), "reason": None, "final": True, "seconds": seconds}
    lines = said.strip().splitlines() or [f"it ended with status {child.returncode}, without a word"]
    return {"result": None, "reason": lines[-1], "final": child.returncode == 2, "seconds": seconds}


def stop() -> None:
    """End the commands that run here."""
    for child in list(_children):
        try:
            os.killpg(child.pid, signal.SIGTERM)
        except ProcessLookupError:
            continue


@lru_cache
def _sources(rooms: tuple[str, ...]) -> str:
    """Return a hash of the package's sources in some of its rooms."""
    digest = hashlib.sha256(__version__.encode())
    for room in rooms:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()


class Store:
    """Outcomes of commands in a folder, by what they depend on: the arguments, files they name, and the sources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, words: list[str]) -> Path:
        files = [hashlib.sha256(Path(word).read_bytes()).hexdigest() for word in words if os.path.isfile(word)]
        text = json.dumps([words, files, _sources(ROOMS[words[0]])])
        return self.folder / f"{words[0]}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

    def get(self, words: list[str]) -> dict | None:
        """Return the outcome of a command, if it is kept."""
        try:
            found = json.loads(self._path(words).read_text())
            return found if found["words"] == words else None
        except (OSError, ValueError, KeyError):
            return None

    def put(self, words: list[str], outcome: dict[str, Any]) -> None:
        """Keep an outcome, whole or not at all, unless another run might end otherwise."""
        if outcome["final"]:
            write_whole(self._path(words), json_text({"words": words, **outcome}))
