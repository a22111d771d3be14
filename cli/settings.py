"""Values that options give as text."""

import json
import os
import sys
from argparse import Namespace
from typing import NoReturn

from ..base.checks import require
from ..golden import systems

__all__ = ["numbers", "settings", "settings_of", "value"]


def settings_of(options: Namespace) -> dict:
    """Return the settings that ``--set`` and ``--system`` give; a number system of the user's own is registered."""
    found, system = settings(options.set), options.system
    if system is None:
        return found
    if ":" in system:
        # An installed command does not look into the folder that it is called in. No longer than this: a folder
        # may hide packages that are imported later.
        here = os.getcwd()
        sys.path.insert(0, here)
        try:
            system = systems.register(system)
        finally:
            sys.path.remove(here)
    systems.find(system)
    require(found.get("system", system) == system, "--set system", found.get("system"), f"{system}, as --system says")
    return found | {"system": system}


def settings(pairs: list[str], option: str = "--set") -> dict:
    """Return {name: value} of an option's NAME=VALUE arguments; a value is JSON, or else text."""
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{option} is {pair!r}; allowed: NAME=VALUE")
        if name in found:
            raise ValueError(f"{option} names {name!r} twice; allowed: once")
        found[name] = value(text)
    return found


def value(text: str) -> object:
    """Return what JSON text means, or else the text. NaN and Infinity, which Python's JSON knows, are text."""
    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def numbers(name: str, text: str | None, kind: type, allowed: str) -> tuple | None:
    """Return the numbers of N[,N...], or None for no text."""
    try:
        return None if text is None else tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} is {text!r}; allowed: {allowed}") from None
