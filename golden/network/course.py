"""The course of a run: all that its next step depends on, noted after every step, written to a file and read again."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..datasets import Dataset
from ..recipes import LARGEST_SCALE, Recipe
from .layers import Layer
from .passes import GEMMS, Gemms
from .saved import Field, Reader, describe, reading, require_place, write
from .state import State, digest

__all__ = ["Course", "Epoch", "configuration"]

# The parts of a saved run that `Course.start` takes.
GIVEN = ("parameter", "bound", "scale", "mean", "variance")
Source = Callable[[int], Iterable[Iterable[Iterable[np.ndarray]]] | None]
FLAGS = ("invalid", "overflow", "finite")  # of the products


@dataclass(frozen=True)
class Epoch:
    """How a run stood after an epoch.

    Parameters
    ----------
    epoch : int
        From 1.
    loss : float
        Mean cross-entropy over the training part. Only reported, so its last bits may be the machine's.
    train_accuracy, test_accuracy : float
        0 .. 1, from the recipe's own forward path.
    head_loss : float, optional
        With a softmax head, the mean of its own losses over the epoch's steps of training: exact.
    """

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    head_loss: float | None = None


def _sha256(dataset: Dataset) -> str:
    """Return the SHA-256 of features (float32) and labels (int64) of the training and the test part, little-endian."""
    contents = hashlib.sha256()
    for array, kind in ((dataset.train_x, "<f4"), (dataset.train_y, "<i8"), (dataset.test_x, "<f4"),
                        (dataset.test_y, "<i8")):
        contents.update(np.ascontiguousarray(array, kind).data)
    return contents.hexdigest()


def configuration(recipe: Recipe, dataset: Dataset, layers: Sequence[Layer], state: State, *, contents: bool,
                  **settings: Any) -> dict:
    """Return all settings that decide the bits of a run, JSON-ready.

    Parameters
    ----------
    recipe, dataset, layers, state
    contents : bool
        Whether to hash the contents of the data set, which takes time.
    **settings
        Of `train`: seed, batch, lr, lr_drops, momentum, decay, measure_every, epochs.
    """
    data = {"name": dataset.name, "examples": {"train": len(dataset.train_x), "test": len(dataset.test_x)},
            "features": dataset.features, "classes": dataset.classes, "sha256": _sha256(dataset) if contents else None}
    return describe({"data": data, "layers": layers, **settings, "recipe": recipe, "formats": state.formats()})


def _timed(recipe: Recipe, lr_drops: Sequence[float]) -> str | None:
    """Return what depends on the number of a run's steps, or None."""
    if lr_drops:
        return "lr_drops are parts of the whole run"
    if recipe.stored and recipe.stored.drops:
        return "rate_drops are parts of the whole run"
    if recipe.policies and any(policy.timed for policy in vars(recipe.policies).values()):
        return "the precision depends on the length of the run"
    return None


class Course:
    """All that the next step of a run depends on.

    Parameters
    ----------
    gemms : Gemms
    state : State
    rng : Generator
        After it gave the first weights.
    configured : dict
        The run's `configuration`.
    save : path, optional
        Of the file that the run is saved to.
    source : callable, optional
        Called with a step before a file is written. The file gets the codes that it returns, as `State.codes` does, in
        place of the state's own. Where it returns None, no file is written.

    Attributes
    ----------
    per_epoch : int
        Steps of an epoch.
    history : list of Epoch
    diverged : dict, optional
        See `Result`.
    given : str, optional
        The digest of what `start` took.
    """

    def __init__(self, gemms: Gemms, state: State, rng: np.random.Generator, configured: dict,
                 save: str | os.PathLike | None = None, source: Source | None = None) -> None:
        self.gemms, self.state, self._rng, self.configured, self._save = gemms, state, rng, configured, save
        self._source, self._written = source, cast(int | None, None)
        self.per_epoch = -(-configured["data"]["examples"]["train"] // configured["batch"])
        self.history: list[Epoch] = []
        self.diverged: dict | None = None
        self.given: str | None = None
        self._generator = self._rng.bit_generator.state
        self._noted: dict = {}
        if save is not None:
            require_place("save", save)

    def batches(self, count: int, batch: int, epoch: int) -> Iterator[np.ndarray]:
        """Yield the numbers of the examples of each step that an epoch still has, of `count` examples in all."""
        within = self.state.steps - (epoch - 1) * self.per_epoch
        if within == self.per_epoch:
            return
        self._generator = self._rng.bit_generator.state
        order = np.argsort(self._rng.random(count), kind="stable")
        if within == 0:
            self.gemms.losses = []  # the old list may be noted
        for start in range(within * batch, count, batch):
            yield order[start:start + batch]

    def _due(self, epoch: int, epochs: int) -> bool:
        """Return whether an epoch is measured in a run of so many."""
        return epoch % self.configured["measure_every"] == 0 or epoch == epochs

    def unmeasured(self, epoch: int) -> bool:
        """Return whether an epoch is still to be measured."""
        return self._due(epoch, self.configured["epochs"]) and not (
            self.history and self.history[-1].epoch == epoch)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Save the run as it was noted last when the block is interrupted."""
        self.note()
        try:
            yield
        except KeyboardInterrupt as error:
            if self._save is None or error.args:  # it has been told
                raise
            self.write()
            if self._written is None:
                raise
            done, steps = self._written, self.configured["epochs"] * self.per_epoch
            raise KeyboardInterrupt(f"interrupted after {done} of {steps} steps; resume from {self._save}") from None

    def note(self) -> None:
        """Note what a file gets, if there is one. A step that is interrupted afterwards does not change the note.

        Arrays are noted themselves, because no step changes one in place. Of what grows alone, the length is noted.
        """
        if self._save is None:
            return
        state, gemms, control = self.state, self.gemms, self.gemms.control
        within = state.steps % self.per_epoch
        run = {"step": state.steps, "generator": self._generator if within else self._rng.bit_generator.state,
               "loss_scale": state.scale, "skipped": state.skipped, "accepted": state.accepted,
               "flags": {name: getattr(gemms, name) for name in FLAGS}, "diverged": self.diverged,
               "start": self.given, "measured": len(self.history)}
        self._noted = {"run": run, "fields": state.fields(), "losses": gemms.losses, "batches": len(gemms.losses),
                       "control": control and control.mark()}

    def write(self) -> None:
        """Write what was noted last to the file, if there is one."""
        if self._save is None:
            return
        run, control = self._noted["run"], self.gemms.control
        arrays = {name: field.array for name, field in self._noted["fields"].items()}
        if self._source:
            codes = self._source(run["step"])
            if codes is None:
                return
            arrays |= self.state.coded(codes)
        arrays["losses"] = np.array(self._noted["losses"][:self._noted["batches"]], np.int64).reshape(-1, 2)
        rows = [[row.loss, row.train_accuracy, row.test_accuracy, *([] if row.head_loss is None else [row.head_loss])]
                for row in self.history[:run["measured"]]]
        arrays["history"] = np.array(rows, np.float64).reshape(len(rows), self._columns)
        account = None
        if control:
            arrays["widths"], account = control.saved(self._noted["control"], run["step"])
        write(self._save, {"configuration": self.configured, **run, "account": account}, arrays)
        self._written = run["step"]

    @property
    def _columns(self) -> int:
        """Numbers of an `Epoch`."""
        return 3 if self.gemms.recipe.softmax is None else 4

    def start(self, path: str | os.PathLike) -> None:
        """Take the parameters and statistics of a saved run with the same layers and formats."""
        with reading(path) as saved:
            for name in ("layers", "formats"):
                saved.require_same({name: self.configured[name]}, {name: saved.run["configuration"][name]})
            self.state.restore({name: saved.field(name, field) for name, field in self.state.fields().items()
                                if name.rpartition(".")[2] in GIVEN})
        self.given = digest(self.state.whole(), self.gemms.recipe.work)

    def resume(self, path: str | os.PathLike) -> None:
        """Take all of a saved run with the same configuration.

        The number of epochs may be another one where nothing depends on it.
        """
        with reading(path) as saved:
            step, measured = self._position(saved, self._require_configuration(saved))
            done, within = divmod(step, self.per_epoch)
            head, control = self._columns == 4, self.gemms.control
            batches = (within or min(step, self.per_epoch)) if head else 0
            fields = self.state.fields()
            more = {"losses": Field(np.empty((batches, 2), np.int64), (0, 1 << 62)),
                    "history": Field(np.empty((len(measured), self._columns)))}
            if control:
                more["widths"] = Field(np.empty((control.tensors, step), np.uint8))
            saved.require_members([*fields, *more])
            self.state.restore({name: saved.field(name, field) for name, field in fields.items()}, step)
            found = {name: saved.field(name, field) for name, field in more.items()}
            self.gemms.losses = [(total, rows) for total, rows in found["losses"].tolist()]
            saved.require(all(rows > 0 for _, rows in self.gemms.losses), "losses")
            accuracies = found["history"][:, 1:3]
            saved.require(bool(((accuracies >= 0) & (accuracies <= 1)).all()), "history")
            self.history = [Epoch(epoch, *row) for epoch, row in zip(measured, found["history"].tolist())]
            if control:
                control.restore(step, found["widths"], saved.run["account"],
                                {gemm: [kind for kind, _ in operands] for gemm, operands in GEMMS.items()})
            self._restore_numbers(saved, step)
            # A number takes one step of PCG64, and an order takes a number for each example.
            generator = self._rng.bit_generator
            assert isinstance(generator, np.random.PCG64), "it is default_rng's"
            generator.advance(done * self.configured["data"]["examples"]["train"])
            self._generator = generator.state
            saved.require(saved.run["generator"] == self._generator, "generator")

    def _require_configuration(self, saved: Reader) -> int:
        """Refuse another configuration; return the epochs of the saved one."""
        mine, theirs = dict(self.configured), dict(saved.run["configuration"])
        wanted, epochs = mine.pop("epochs"), theirs.pop("epochs")
        if theirs["data"]["sha256"] == mine["data"]["sha256"]:
            theirs["data"]["name"] = mine["data"]["name"]  # the same data may lie in another folder
        saved.require_same(mine, theirs)
        saved.require_int("epochs", epochs, 1, 10**6)
        reason = _timed(self.gemms.recipe, mine["lr_drops"])
        if wanted != epochs and reason:
            saved.differ("epochs", wanted, str(epochs), reason)
        return epochs

    def _position(self, saved: Reader, epochs: int) -> tuple[int, list[int]]:
        """Return the steps of a saved run of so many epochs, and the epochs that were measured."""
        wanted = self.configured["epochs"]
        step = saved.require_int("step", saved.run["step"], 0, epochs * self.per_epoch)
        done, within = divmod(step, self.per_epoch)
        due = [epoch for epoch in range(1, done + 1) if self._due(epoch, epochs)]
        count = saved.require_int("measured", saved.run["measured"], 0, len(due))
        # The last epoch alone may be still to be measured.
        saved.require(due[count:] in ([], [done]) and not (within and due[count:]), "measured")
        if wanted * self.per_epoch < step:
            saved.differ("epochs", wanted, f"{done + (within > 0)} or more")
        if count and not self._due(due[count - 1], wanted):
            saved.differ("epochs", wanted, str(epochs), "its last epoch was measured out of turn")
        return step, due[:count]

    def _restore_numbers(self, saved: Reader, step: int) -> None:
        """Take the single numbers of a run that has had so many steps."""
        state, run = self.state, saved.run
        for name in FLAGS:
            saved.require(type(run["flags"][name]) is bool, name)
            setattr(self.gemms, name, run["flags"][name])
        state.scale = saved.require_int("loss_scale", run["loss_scale"], 1, LARGEST_SCALE if state.limits else 1)
        saved.require(state.scale & (state.scale - 1) == 0, "loss_scale")
        state.skipped = saved.require_int("skipped", run["skipped"], 0, step if state.limits else 0)
        state.accepted = saved.require_int("accepted", run["accepted"], 0, step)
        self.given = run["start"]
        saved.require(self.given is None or len(bytes.fromhex(self.given)) == 32, "start")
        self.diverged = run["diverged"]
        if self.diverged is not None:
            saved.require(self.diverged.keys() == {"epoch", "step"}, "diverged")
            first = saved.require_int("diverged", self.diverged["step"], 0, step - 1)
            saved.require_int("diverged", self.diverged["epoch"], 1 + first // self.per_epoch,
                              1 + first // self.per_epoch)
