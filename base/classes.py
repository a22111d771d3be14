"""Classes named by text, so that no room has to import the one that has them."""

import importlib
from typing import Any

__all__ = ["imported"]


def imported(name: str, path: str) -> Any:
    """Return what "module:Class" names; a ValueError tells what is not found.

    Parameters
    ----------
    name : str
        Of the option or the parameter, for the message.
    path : str
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} is {path!r}; allowed: module:Class of a module that Python finds ({error})") from None
