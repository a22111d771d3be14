"""Conversion of a user's model: its layers become quantised ones, in place."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..base.checks import require
from ..golden.recipes import Recipe
from .layers import KINDS
from .numbers import Numbers

__all__ = ["Change", "Conversion", "convert"]


@dataclass(frozen=True)
class Change:
    """What became of a module that has products.

    Parameters
    ----------
    name : str
        Of the module in the model.
    kind : str
        Of its class, before.
    layer : int, optional
        Its number among the converted ones; None where it stays as it is.
    reason : str
        Why it stays as it is; empty otherwise.
    """

    name: str
    kind: str
    layer: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name or 'the model'} ({self.kind}): " + (
            f"kept, {self.reason}" if self.layer is None else f"converted, layer {self.layer}")


@dataclass(frozen=True, eq=False)
class Conversion:
    """A converted model, and what the training loop tells it.

    Parameters
    ----------
    model : Module
        The model that was given: it was changed in place.
    numbers : Numbers
        What its layers share.
    changes : tuple of Change
        Of each module that has products. Printed, a conversion has a line for each.
    """

    model: nn.Module
    numbers: Numbers
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes))

    def step(self) -> None:
        """Tell that a step of training is done: precisions and random words go on. See `attach`."""
        self.numbers.advance()

    def attach(self, optimiser: Any) -> None:
        """Call `step` after each step of an optimiser."""
        optimiser.register_step_post_hook(lambda *_: self.step())

    def groups(self) -> list[dict[str, Any]]:
        """Return the model's parameters as groups for an optimiser: each layer's own, whose random words are golden's.

        A group has ``params`` and ``layer``. Parameters of modules that were not converted form the last one.
        """
        groups: list[dict[str, Any]] = []
        last = 0
        seen: set[int] = set()
        for change in self.changes:
            if change.layer is not None:
                module = self.model.get_submodule(change.name)
                own = [each for each in module.parameters() if id(each) not in seen]
                seen.update(map(id, own))
                groups += [{"params": own, "layer": change.layer}] if own else []
                last = change.layer + type(module).layers
        others = [each for each in self.model.parameters() if id(each) not in seen]
        return groups + ([{"params": others, "layer": last}] if others else [])

    def report(self) -> dict | None:
        """Return precisions, bit operations and cycles so far, as ``train`` gives them: see `Numbers.report`."""
        return self.numbers.report()


def _found(model: nn.Module, keep: list[str]) -> tuple[list[Change], list[tuple[nn.Module, Change]]]:
    """Return the changes of a model, and of these the modules that are converted."""
    changes: list[Change] = []
    chosen: list[tuple[nn.Module, Change]] = []
    inside: set[int] = set()
    count = 0
    for name, module in model.named_modules():
        kind = next((each for each in KINDS if isinstance(module, each)), None)
        if kind is None or id(module) in inside:
            continue
        inside.update(id(part) for part in module.modules())  # an attention's output projection is its own
        pattern = next((each for each in keep if fnmatchcase(name, each)), None)
        if pattern is not None:
            reason: str | None = f"by keep={pattern!r}"
        elif type(module) is not kind:
            reason = f"because it is no {kind.__name__} of torch itself"
        else:
            reason = KINDS[kind].refusal(module)
        change = Change(name, type(module).__name__, None if reason else count, reason or "")
        changes.append(change)
        if not reason:
            chosen.append((module, change))
            count += KINDS[kind].layers
    return changes, chosen


def convert(model: nn.Module, recipe: Recipe | str, keep: Iterable[str] = (), *, seed: int = 1, exact: bool = False,
            steps: int | None = None) -> Conversion:
    """Make the products of a model those of a recipe: its modules are changed in place.

    Parameters
    ----------
    model : Module
        Its Linear, Conv1d, Conv2d, Embedding and MultiheadAttention modules are converted. Everything between them
        stays torch's, in fp32.
    recipe : Recipe, or the name of one
    keep : iterable of str
        Names of modules that stay as they are, as ``model.named_modules()`` has them; ``*`` stands for any part.
    seed, exact, steps
        As in `Numbers`.

    Returns
    -------
    Conversion
        Print it to see what was changed, and what was not and why.

    Raises
    ------
    ValueError
        One line: nothing can be converted, or a name of `keep` fits no module.
    """
    keep = list(keep)
    names = [name for name, _ in model.named_modules()]
    for pattern in keep:
        require(any(fnmatchcase(name, pattern) for name in names), "keep", pattern, "names of the model's modules")
    changes, chosen = _found(model, keep)
    require(len(chosen) > 0, "model", type(model).__name__, "one with a module to convert: "
            + ", ".join(kind.__name__ for kind in KINDS))
    last, change = chosen[-1]
    assert change.layer is not None
    numbers = Numbers(recipe, seed=seed, exact=exact, layers=change.layer + KINDS[type(last)].layers, steps=steps)
    for module, each in chosen:
        KINDS[type(module)].of(module, numbers, each.layer)
    return Conversion(model, numbers, tuple(changes))
