"""Printing and writing, for all verbs."""

import importlib.metadata
import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, TextIO

from .. import __version__
from ..base.files import json_text, same, special, writable, write_whole

__all__ = ["check", "check_waves", "done", "gone", "open_streams", "progress", "put", "say", "tell", "versions",
           "warn", "write", "write_json"]

BROKEN = 141  # exit status of a program that SIGPIPE ends
_gone: set[str] = set()


def open_streams() -> None:
    """Open the null device where the shell closed a standard stream, lest a file takes its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _silence(stream: TextIO, number: int) -> None:
    """Redirect a stream, and the text in its buffer, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
    stream.flush()


def put(text: str) -> None:
    """Write text to standard output at once. After the reader left, write nothing: see `gone`.

    Raises
    ------
    OSError
        Of another kind; its ``filename`` is "standard output".
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _gone.add("standard output")
        _silence(sys.stdout, 1)
    except OSError as error:
        _silence(sys.stdout, 1)
        error.filename = "standard output"
        raise


def tell(text: str, end: str = "\n") -> None:
    """Write a line to standard error. After the reader left, write nothing."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr, 2)


def gone() -> bool:
    """Return whether the reader of standard output went away, and forget it."""
    found = bool(_gone)
    _gone.clear()
    return found


def say(options: Namespace, text: str) -> None:
    """Print a result line, unless standard output is the JSON's."""
    if options.json != "-":
        put(f"{text}\n")


def progress(text: str) -> None:
    """Show progress on a terminal; stay quiet in a pipe."""
    if sys.stderr.isatty():
        tell(f"\r\033[K{text}", end="")


def done() -> None:
    """Clear the line of progress."""
    progress("")


def warn(options: Namespace, parameters: Any) -> None:
    """Print the warning of allowed but doubtful parameters: one line."""
    if getattr(parameters, "warning", None):
        tell(f"narrowgauge {options.verb}: warning: {parameters.warning}")


def check(*outputs: tuple[str, str | None]) -> None:
    """Require that each (option, path) can be written, and that no two paths are the same file.

    None is no output, and ``-`` is standard output.
    """
    checked: list[tuple[str, str]] = []
    for option, path in outputs:
        if path is None or path == "-":
            continue
        writable(option, path)
        for other, earlier in checked:
            if same(path, earlier):
                raise ValueError(f"{option} is {path!r}; allowed: another file than that of {other}")
        checked.append((option, path))


def check_waves(path: str | None) -> None:
    """Require that a waveform's name tells its form."""
    if path is not None and not special(path) and Path(path).suffix.lower() != ".vcd":
        raise ValueError(f"--waves is {path!r}; allowed: a name that ends in .vcd, the form that is written "
                         "(GTKWave's vcd2fst makes FST of it)")


def write(target: str | None, text: str) -> None:
    """Write text to a file whole, or to standard output for ``-`` or None."""
    if target in (None, "-"):
        put(text)
    else:
        write_whole(target, text)


def write_json(target: str | None, data: object) -> None:
    """Write data as JSON to a file, to standard output for ``-``, or not at all for None."""
    if target is not None:
        write(target, json_text(data))


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of narrowgauge, Python, NumPy and other packages."""
    found = {"narrowgauge": __version__, "python": sys.version.split()[0]}
    return found | {package: importlib.metadata.version(package) for package in ("numpy", *packages)}
