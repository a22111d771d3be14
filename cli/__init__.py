"""The command line. Each verb checks its options and outputs first, and works afterwards."""

import importlib
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from . import output
from .parser import parser

__all__ = ["main", "prepare"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0; 1 for mismatches or a misfit; 2 for an error; 130 when interrupted; 141 when the reader of standard output
    went away.
    """
    output.open_streams()
    try:
        status = _run(arguments)
    except OSError as error:
        status = _fail("narrowgauge", error)
    return output.BROKEN if output.gone() else status


def _run(arguments: list[str] | None) -> Any:
    try:
        options = parser().parse_args(arguments)
    except SystemExit as left:
        return left.code
    if options.verb is None:
        output.put(parser().format_help())
        return 2
    # Import NumPy and Amaranth only here: --help answers at once.
    from ..golden.errors import MissingExtra
    name = f"narrowgauge {options.verb}"
    try:
        return _prepare(options)() or 0
    except (ValueError, MissingExtra, OSError, RuntimeError) as error:
        return _fail(name, error)
    except KeyboardInterrupt as error:
        return _fail(name, str(error) or "interrupted", 130)


def _fail(name: str, error: object, status: int = 2) -> int:
    output.done()
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    output.tell(f"{name}: {text}")
    return status


def _prepare(options: Namespace) -> Callable[[], int | None]:
    return importlib.import_module(f".{options.module}", __package__).prepare(options)


def prepare(arguments: list[str]) -> Callable[[], int | None]:
    """Check a command line, and return a function that does the work.

    Raises
    ------
    ValueError, MissingExtra, OSError
        As `main` prints it.
    """
    return _prepare(parser().parse_args(arguments))
