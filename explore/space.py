"""Spaces to explore, as TOML: which trainings, on which targets, and how long."""

import itertools
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base.checks import require, require_int

__all__ = ["SPACES", "Space", "find"]

SPACES = {path.stem: path for path in sorted((Path(__file__).parent / "spaces").glob("*.toml"))}
# Options of `narrowgauge train` that a point may have, in the order of its command.
OPTIONS = ("recipe", "system", "work", "parameters", "update", "decay", "softmax_bits", "softmax_rounding", "data",
           "examples", "model", "hidden", "batch_norm", "epochs", "batch", "lr", "lr_drops", "momentum")
TABLES = ("set", "core")  # NAME=VALUE options
MOST = 100_000  # points
KEYS = ("about", "seeds", "targets", "liberty", "place_seeds", "plan", "array", "budget", "settings", "grid", "draw")


@dataclass(frozen=True)
class Space:
    """What is explored.

    Attributes
    ----------
    name, about : str
    points : list of dict
        Settings of trainings: options by name, and the tables ``set`` and ``core``. Each once, in order.
    seeds : tuple of int
        Of the trainings of each point.
    targets : tuple of str
        Of the synthesis of each point's dot product; none are needed.
    liberty : str, optional
        A library of cells for the target ``asic``.
    place_seeds : int
        Placements on an FPGA.
    plan : bool
        Whether the cycles of a training step are told.
    array : dict, optional
        Settings of an array that is synthesised, too, such as ``{"rows": 2, "columns": 2}``.
    minutes : float, optional
        After these no more work is begun.
    """

    name: str
    points: list[dict]
    about: str = ""
    seeds: tuple[int, ...] = (1, 2, 3)
    targets: tuple[str, ...] = ()
    liberty: str | None = None
    place_seeds: int = 1
    plan: bool = True
    array: dict | None = field(default=None)
    minutes: float | None = None

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Space":
        """Return the space of a TOML file, or of a shipped one's name.

        Raises
        ------
        ValueError
            One line: no such file or name, no TOML, or a refusal by `of`.
        """
        file = SPACES.get(os.fspath(path), Path(path))
        try:
            found = tomllib.loads(file.read_text())
        except OSError as error:
            require(False, "SPACE", os.fspath(path), f"a file ({error.strerror}), or {', '.join(SPACES)}")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            require(False, "SPACE", os.fspath(path), f"a file in TOML ({error})")
        return cls.of(found, file.stem)

    @classmethod
    def of(cls, found: Mapping[str, Any], name: str = "space") -> "Space":
        """Return the space that a dict describes: the keys of a TOML file.

        A value of ``settings``, ``grid`` or ``draw`` that is a list stands for alternatives.
        """
        for key in found:
            require(key in KEYS, f"key of {name}", key, ", ".join(KEYS))
        budget = found.get("budget", {})
        require(isinstance(budget, dict) and set(budget) <= {"minutes", "points"}, "budget", budget, "minutes, points")
        seeds, targets = tuple(found.get("seeds", (1, 2, 3))), tuple(found.get("targets", ()))
        for seed in seeds:
            require_int("seeds", seed, 0, 2**31 - 1)
        require(len(set(seeds)) == len(seeds) > 0, "seeds", list(seeds), "one seed or more, each once")
        require(all(isinstance(each, str) for each in targets), "targets", list(targets), "names of targets")
        require_int("place_seeds", found.get("place_seeds", 1), 1, 1000)
        minutes = budget.get("minutes")
        require(minutes is None or (isinstance(minutes, (int, float)) and minutes > 0), "budget.minutes", minutes,
                "a number above 0")
        require_int("budget.points", budget.get("points", MOST), 1, MOST)
        points = list(_points(found))[:budget.get("points", MOST)]
        require(0 < len(points) <= MOST, "points", len(points), f"1 to {MOST:,}")
        return cls(name, points, str(found.get("about", "")), seeds, targets, found.get("liberty"),
                   found.get("place_seeds", 1), bool(found.get("plan", True)), found.get("array"), minutes)


def find(space: "Space | Mapping | str | os.PathLike") -> Space:
    """Return a space: itself, of a dict, of a file, or of a shipped one's name."""
    if isinstance(space, Space):
        return space
    return Space.of(space) if isinstance(space, Mapping) else Space.read(space)


def _points(found: Mapping[str, Any]) -> Iterator[dict]:
    """Yield the points of grids, and of draws, each once."""
    common = _flat(found.get("settings", {}))
    seen = set()
    grids, draws = found.get("grid", []), found.get("draw", [])
    require(isinstance(grids, list) and isinstance(draws, list), "grid", grids, "tables [[grid]] and [[draw]]")
    if not grids and not draws:
        grids = [{}]
    for point in itertools.chain(*(_grid(common | _flat(each)) for each in grids),
                                 *(_draw(common, each) for each in draws)):
        key = json.dumps(point, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield point


def _flat(table: Mapping[str, Any]) -> dict[tuple[str, str], list]:
    """Return alternatives by (option, "") and (table, name)."""
    flat = {}
    for key, value in table.items():
        option, _, rest = key.partition(".")
        if option in TABLES and (rest or isinstance(value, dict)):
            for name, each in {rest: value}.items() if rest else value.items():
                flat[option, name] = each if isinstance(each, list) else [each]
        else:
            require(key in OPTIONS, "setting", key, ", ".join((*OPTIONS, *TABLES)))
            flat[key, ""] = value if isinstance(value, list) else [value]
        require(all(flat.values()), key, value, "a value, or a list of them")
    return flat


def _point(flat: Mapping[tuple[str, str], Any]) -> dict:
    point: dict[str, Any] = {}
    for option in (*OPTIONS, *TABLES):
        for (own, name), value in flat.items():
            if own == option and not name:
                point[option] = value
            elif own == option:
                point.setdefault(option, {})[name] = value
    return point


def _grid(flat: Mapping[tuple[str, str], list]) -> Iterator[dict]:
    """Yield every combination; the last setting changes the fastest."""
    for values in itertools.product(*flat.values()):
        yield _point(dict(zip(flat, values)))


def _draw(common: Mapping[tuple[str, str], list], table: Mapping[str, Any]) -> Iterator[dict]:
    """Yield ``count`` random points: each setting is one of its alternatives."""
    table = dict(table)
    count, seed = table.pop("count", None), table.pop("seed", 1)
    require_int("draw.count", count, 1, MOST)
    require_int("draw.seed", seed, 0, 2**31 - 1)
    flat, rng = dict(common) | _flat(table), np.random.default_rng(seed)
    for _ in range(count):
        yield _point({key: values[rng.integers(len(values))] for key, values in flat.items()})
