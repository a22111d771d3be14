"""Errors that a user can act on."""

__all__ = ["MissingExtra"]


class MissingExtra(RuntimeError):
    """A verb needs a package that is not installed; the message names the extra that has it."""
