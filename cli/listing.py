# amaranth: UnusedElaboratable=no
"""``narrowgauge list``: what there is of each kind, from where it is registered."""

import argparse
import dataclasses
import inspect
import json
from collections.abc import Callable

from .. import catalog
from ..base.checks import require
from ..base.parameters import Parameters
from ..golden import datasets, formats, mx, recipes, systems
from ..synth.boards import BOARDS
from ..synth.targets import TARGETS
from . import output

__all__ = ["KINDS", "prepare"]


def _summary(registered: object) -> str:
    """Return the first line of what is registered, without its full stop."""
    return (inspect.getdoc(registered) or "").splitlines()[0].removesuffix(".")


def _defaults(parameters: type[Parameters]) -> dict:
    """Return {name: default}. A parameter that `to_json` leaves out has the default null."""
    return dict.fromkeys(field.name for field in dataclasses.fields(parameters)) | parameters().to_json()


def _units() -> list[dict]:
    return [{"unit": unit.name, "summary": unit.summary, "parameters": _defaults(unit.parameters)}
            for unit in catalog.UNITS.values()]


def _recipes() -> list[dict]:
    return [{"recipe": name, "summary": _summary(make),
             "settings": {key: each.default for key, each in inspect.signature(make).parameters.items()
                          if each.kind is not each.VAR_KEYWORD}}
            for name, make in recipes.RECIPES.items()]


def _formats() -> list[dict]:
    # The parameters are what `formats.parse`, or for microscaling `mx.parse`, reads.
    read = {name: {"type": type(fmt).__name__} | fmt.to_json() for name, fmt in formats.PRESETS.items()}
    read |= {name: fmt.to_json() for name, fmt in mx.PRESETS.items()}
    return [{"format": name, "summary": _summary(type(fmt)), "limits": fmt.limits._asdict(), "parameters": read[name]}
            for name, fmt in (formats.PRESETS | mx.PRESETS).items()]


def _systems() -> list[dict]:
    return [{"system": name, "summary": _summary(system) + (f"; no array: {system.refusal}" * (not system.circuits)),
             "settings": _defaults(system)} for name, system in systems.SYSTEMS.items()]


def _targets() -> list[dict]:
    return [{"target": name, "summary": target.summary, "devices": list(target.devices)}
            for name, target in TARGETS.items()]


def _boards() -> list[dict]:
    return [{"board": board.name, "summary": board.summary,
             "settings": {"clock_mhz": board.mhz, "data": board.data, **board.core}} for board in BOARDS.values()]


def _data() -> list[dict]:
    return [{"data": source.name, "summary": source.summary} for source in datasets.SOURCES]


KINDS = {"units": _units, "recipes": _recipes, "formats": _formats, "systems": _systems, "targets": _targets,
         "boards": _boards, "data": _data}


def prepare(options: argparse.Namespace) -> Callable[[], None]:
    """Check the options and return the work."""
    kind = options.kind
    require(kind in KINDS, "KIND", kind, ", ".join(KINDS))
    output.check(("--json", options.json))

    def work() -> None:
        entries = KINDS[kind]()
        if options.json is not None:
            output.write_json(options.json, {"tools": output.versions("amaranth"), kind: entries})
        else:
            output.put("".join(map(_text, entries)))

    return work


def _text(entry: dict) -> str:
    """Return an entry as lines for people: name and summary, and below them its values."""
    name, summary, *more = entry.values()
    lines = [f"{name}: {summary}\n"]
    for values in more:
        words = values if isinstance(values, list) else (
            f"{key}={_plain(value)}" for key, value in values.items())
        lines += [f"  {line}\n" for line in [", ".join(words)] if line]
    return "".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
