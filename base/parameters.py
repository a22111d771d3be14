"""Parameters as JSON: frozen dataclasses, out and back."""

import dataclasses
import json
from typing import Any, ClassVar, Self

from .checks import require

__all__ = ["Named", "Parameters"]


class Parameters:
    """Mixin for frozen dataclasses: a JSON-ready dict out, the same object back in.

    A field annotated with a subclass of `Named` holds a `Named` object. In JSON the object is the value that its
    `plain` returns. Null stands for None where None is the field's default.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]  # of the dataclass that derives from it

    def to_json(self) -> dict:
        """Return the parameters as a dict of plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value.plain() if isinstance(value, Named) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, data: dict | str) -> Self:
        """Make the object from `to_json`'s dict, or from that dict as JSON text."""
        data = json.loads(data) if isinstance(data, str) else data
        require(isinstance(data, dict), "parameters", data, "a JSON object")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in data:
            require(name in fields, "parameter", name, ", ".join(fields))
        for field in fields.values():
            needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            require(field.name in data or not needed, field.name, None, "a value, because it has no default")
        return cls(**{name: _parsed(fields[name], value) for name, value in data.items()})


class Named(Parameters):
    """Parameters that stand in others by a name of their own, or else as an object."""

    def plain(self) -> str | dict:
        """Return the JSON value that `parse` makes this object of."""
        raise NotImplementedError

    @staticmethod
    def parse(data: object) -> "Named":
        """Return the object that a JSON value, or the object itself, means."""
        raise NotImplementedError


def _parsed(field: dataclasses.Field, value: Any) -> Any:
    # What need not be given is None in the making, and may be null.
    if isinstance(field.type, type) and issubclass(field.type, Named) and not (value is field.default is None):
        return field.type.parse(value)
    return value
