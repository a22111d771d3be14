# amaranth: UnusedElaboratable=no
"""``narrowgauge list``."""

import dataclasses
import json

from .. import catalog
from . import output

__all__ = ["prepare"]


def prepare(options):
    """Check the options and return the work."""
    output.check(("--json", options.json))

    def work():
        # A parameter that `to_json` leaves out has the default null.
        units = [{"unit": unit.name, "summary": unit.summary, "parameters": dict.fromkeys(
            field.name for field in dataclasses.fields(unit.parameters)) | unit.parameters().to_json()}
            for unit in catalog.UNITS.values()]
        if options.json is not None:
            output.write_json(options.json, {"tools": output.versions("amaranth"), "units": units})
            return
        lines = []
        for unit in units:
            values = (f"{name}={value if isinstance(value, str) else json.dumps(value)}"
                      for name, value in unit["parameters"].items())
            lines.append(f"{unit['unit']}: {unit['summary']}\n  {', '.join(values)}\n")
        output.put("".join(lines))

    return work
