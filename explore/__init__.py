"""Explore a space of number formats: accuracy of training against the cost of hardware, and a report of both."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..base.files import json_text, writable_folder, write_whole
from . import engine
from .commands import Store, plan_words, synth_words, train_words
from .rows import array_of, mark_fronts, row_of, unit_of
from .space import SPACES, Space, find

__all__ = ["FILES", "SPACES", "Space", "check", "explore", "find"]

FILES = ("explore.json", "report.html")


def check(space: Space | Mapping | str | os.PathLike, output: str | os.PathLike) -> Space:
    """Return the space, after the check that its report can be written; ValueError tells what is wrong."""
    found = find(space)
    writable_folder("--output", output, FILES)
    return found


def explore(space: Space | Mapping | str | os.PathLike, output: str | os.PathLike = "build/explore", *,
            workers: int | None = None, scheduler: str | None = None,
            progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Train, plan and synthesise all points of a space, and write ``explore.json`` and ``report.html``.

    Outcomes are kept in ``output/results`` as they come. A second call, after a stop of any kind, makes what is
    missing. A point that fails is a row that says why.

    Parameters
    ----------
    space : Space, dict, path or str
        A dict has the keys of a TOML file; a str may be the name of a shipped space.
    output : path
        Folder.
    workers, scheduler
        As for `engine.executor`.
    progress : callable, optional
        Called with a line of text now and then.

    Returns
    -------
    dict
        ``space``, ``complete``, and ``rows``, of plain JSON values: see `rows.row_of`.
    """
    found = check(space, output)
    points = [_Point(found, settings) for settings in found.points]
    owners: dict[tuple[str, ...], list[_Point]] = {}
    for point in points:
        for words in point.trainings.values():
            owners.setdefault(tuple(words), []).append(point)
    outcomes: dict[tuple[str, ...], dict] = {}

    def after(words: list[str], outcome: dict) -> list[list[str]]:
        outcomes[tuple(words)] = outcome
        return [each for point in owners.get(tuple(words), ()) for each in point.follow(outcome)]

    with engine.executor(workers, scheduler) as (pool, at_once):
        complete = engine.work([words for point in points for words in point.first()], Store(Path(output) / "results"),
                               pool, at_once, after, progress, found.minutes)
    rows = [point.row(outcomes) for point in points]
    mark_fronts(rows)
    result = {"space": found.name, "about": found.about, "complete": complete, "rows": rows}
    write_whole(Path(output) / FILES[0], json_text(result))
    from .page import page  # it needs Matplotlib
    write_whole(Path(output) / FILES[1], page(result))
    return result


class _Point:
    """The commands of a point: trainings and a plan, and behind the first training the syntheses."""

    def __init__(self, space: Space, settings: dict) -> None:
        self.space, self.settings = space, settings
        self.trainings = {seed: train_words(settings, seed) for seed in space.seeds}
        self.plan = plan_words(settings, space.seeds[0]) if space.plan else None
        self.costs: dict[str, list[str]] | None = None
        self.without: str | None = None

    def first(self) -> list[list[str]]:
        """Return the commands that depend on no other."""
        return [*self.trainings.values(), *([self.plan] if self.plan else [])]

    def follow(self, outcome: dict) -> list[list[str]]:
        """Return the syntheses, once a training has told the number system."""
        if self.costs is not None or not outcome["result"]:
            return []
        self.costs, told = {}, outcome["result"]["system"]
        unit = unit_of(told)
        if unit is None:
            self.without = f"the catalogue has no unit for the dot products of system {told['name']}"
        array = array_of(told, self.space.array) if self.space.array is not None else None
        for target in self.space.targets:
            if unit is not None:
                self.costs[target] = synth_words(*unit, target, self.space)
            if array is not None:
                self.costs[f"array on {target}"] = synth_words("array", array, target, self.space)
        return list(self.costs.values())

    def row(self, outcomes: Mapping[tuple[str, ...], dict]) -> dict[str, Any]:
        """Return the row, from the outcomes so far; a command without an outcome was not begun."""
        missing = {"result": None, "reason": "not run: the time was up", "final": False, "seconds": 0.0}

        def found(words: list[str]) -> dict:
            return outcomes.get(tuple(words), missing)

        costs = self.costs or {}
        row = row_of(self.settings, {seed: found(words) for seed, words in self.trainings.items()},
                     found(self.plan) if self.plan else None, {target: found(words) for target, words in costs.items()},
                     [*self.first(), *costs.values()])
        if self.without and self.space.targets:
            row["failures"].append(self.without)
        return row
