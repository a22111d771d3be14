"""Checks of values from users. An error is one line that names the value and the allowed values."""

from collections.abc import Sized

__all__ = ["require", "require_int", "require_lengths"]


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise ValueError naming the parameter, its value and what is allowed."""
    if not condition:
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def require_int(name: str, value: object, low: int, high: int) -> None:
    """Require an integer (a bool is none) from `low` to `high`."""
    require(type(value) is int and low <= value <= high, name, value, f"an integer from {low} to {high}")


def require_lengths(**arrays: Sized) -> None:
    """Require arrays of transfers that are equally many."""
    lengths = {name: len(array) for name, array in arrays.items()}
    require(len(set(lengths.values())) <= 1, "lengths", lengths, "as many of each")
