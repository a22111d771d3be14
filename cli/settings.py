"""Values that options give as text."""

import json

__all__ = ["numbers", "settings", "value"]


def settings(pairs: list[str]) -> dict:
    """Return {name: value} of NAME=VALUE arguments; a value is JSON, or else text."""
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set is {pair!r}; allowed: NAME=VALUE")
        if name in found:
            raise ValueError(f"--set names {name!r} twice; allowed: once")
        found[name] = value(text)
    return found


def value(text: str) -> object:
    """Return what JSON text means, or else the text. NaN and Infinity, which Python's JSON knows, are text."""
    def refuse(constant):
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
