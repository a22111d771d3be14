"""A compiled model of a trainer: programs and tensors in, messages out, and its memories."""

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ...base.checks import require
from ...base.files import whole
from ...golden.core import COUNTED, Program, TrainerParameters
from ...golden.core.transfers import Transfers
from .build import MEMORIES, built
from .harness import REASONS

__all__ = ["CoreModel", "Stuck"]

ROOM = 1 << 12
PATIENCE = 1_000_000
FOREVER = 2**62
BROKEN = ("a waiting output changed", "a waiting output was withdrawn")


class Stuck(RuntimeError):
    """Nothing moves in a trainer, or it broke a rule of its streams."""


class _State(ctypes.Structure):
    """What `HARNESS` knows by that name."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("inputs", "outputs", "spent")),
                *((name, ctypes.c_int64) for name in ("count", "sent", "more", "room", "came", "idle", "busy")),
                ("dice", ctypes.c_uint64),
                *((name, ctypes.c_int64) for name in (
                    "stop", "pause", "patience", "quiet", "cycle", "first", "last", "number", "invalid", "overflow",
                    "stopped", "broken", "clear"))]


class CoreModel:
    """A compiled model of a trainer, in the state after reset.

    Parameters
    ----------
    parameters : TrainerParameters
    name, text : str
        The top module, and its Verilog.
    seed : int
        Of the stalls.
    idle, busy : float
        Probability that a cycle offers no input, or takes no output.
    waves : path, optional
        File for a waveform in VCD form; it is written by `close`.
    window : (int, int), optional
        First and last cycle of the waveform.
    level : str
        As for `built`.

    Raises
    ------
    RuntimeError
        Verilator or the compiler failed.
    """

    def __init__(self, parameters: TrainerParameters, name: str, text: str, *, seed: int = 1, idle: float = 0.0,
                 busy: float = 0.0, waves: str | os.PathLike | None = None, window: tuple[int, int] | None = None,
                 level: str = "-O1") -> None:
        self.transfers, self._waves = Transfers(parameters), waves
        folder = built(text, name, self.transfers, waves is not None, level)
        self.arrays = json.loads((folder / MEMORIES).read_text())
        self._library = library = ctypes.CDLL(str(folder / "unit.so"))
        library.create.argtypes, library.create.restype = [ctypes.c_char_p], ctypes.c_void_p
        library.destroy.argtypes = [ctypes.c_void_p]
        library.reset.argtypes = library.run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        library.run.restype = ctypes.c_int64
        library.counter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        library.counter.restype = ctypes.c_uint64
        library.memory.argtypes, library.memory.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_void_p
        self._scratch = tempfile.TemporaryDirectory() if waves is not None else None
        self._dump = Path(self._scratch.name) / "dump.vcd" if self._scratch else None
        self._inputs = np.zeros((0, self.transfers.input_words), np.uint32)
        self._outputs = np.zeros((ROOM, self.transfers.output_words), np.uint32)
        self.spent = np.zeros(2 * parameters.program, np.int64)
        self.state = _State(
            outputs=self._outputs.ctypes.data, spent=self.spent.ctypes.data, room=ROOM, patience=PATIENCE,
            idle=round(65536 * idle), busy=round(65536 * busy), dice=seed * 1_000_003 + 1)
        self.state.first, self.state.last = window or (0, FOREVER)
        self.state.pause = FOREVER
        self._model = library.create(str(self._dump).encode())
        self.reset()

    def close(self) -> None:
        """Delete the model, and write the waveform. Without it, nothing is written."""
        if self._model:
            self._library.destroy(self._model)
            self._model = None
            if self._waves is not None and self._dump is not None:
                with open(self._dump, "rb") as source, whole(self._waves) as target:
                    shutil.copyfileobj(source, target)

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self._library.destroy(self._model)

    @property
    def cycles(self) -> int:
        """Cycles so far."""
        return self.state.cycle

    @property
    def number(self) -> int:
        """Number of the instruction that the trainer is at."""
        return self.state.number

    def reset(self) -> None:
        """Reset the trainer in whatever it does; what was to be sent is forgotten. Memories keep what they hold."""
        self._source: Iterator[np.ndarray] = iter(())
        self._parts: list[np.ndarray] = []
        self.state.count = self.state.sent = self.state.came = self.state.more = 0
        self._library.reset(self._model, ctypes.byref(self.state))

    def send(self, program: Program, tensors: Iterable[np.ndarray]) -> None:
        """Send a program, and then what it reads.

        Parameters
        ----------
        program : Program
        tensors : iterable of ndarray
            Codes of shape (rows, columns), in the program's order. They are asked for as they are needed.
        """
        def parts() -> Iterator[np.ndarray]:
            yield self.transfers.instructions(program)
            for codes in tensors:
                yield self.transfers.elements(codes)

        self.offer(parts())

    def offer(self, parts: Iterable[np.ndarray]) -> None:
        """Send transfers, shape (n, input_words) each, whatever they are."""
        self._source, self.state.more = iter(parts), 1

    def clear(self) -> None:
        """Clear the sticky status, in the next cycle."""
        self.state.clear = 1

    def next(self, synced: bool = False) -> np.ndarray | None:
        """Run to the next message, and return its transfers, shape (n, output_words).

        With `synced`, run to the next ``sync`` instruction at most: there None is returned, and the memories can be
        read.

        Raises
        ------
        Stuck
            Nothing moved for ``state.patience`` cycles, or a rule of the streams was broken.
        """
        state = self.state
        state.stop = int(synced)
        while True:
            reason = REASONS[self._library.run(self._model, ctypes.byref(state))]
            for bit, text in enumerate(BROKEN):
                if state.broken >> bit & 1:
                    raise Stuck(f"cycle {self.cycles}: {text}")
            if reason == "hungry":
                self._fill()
                continue
            if reason == "quiet":
                raise Stuck(f"nothing has moved for {state.patience} cycles, up to cycle {self.cycles}, at instruction "
                            f"{state.number}, with {state.count - state.sent} transfers waiting to be taken")
            if reason in ("synced", "paused"):
                return None
            self._parts.append(self._outputs[:state.came].copy())
            state.came = 0
            if reason == "message":
                message, self._parts = np.concatenate(self._parts), []
                return message

    def drain(self) -> None:
        """Send no further part, and run until nothing moves any more; messages that come are dropped."""
        self.state.more = self.state.stop = 0
        while REASONS[self._library.run(self._model, ctypes.byref(self.state))] != "quiet":
            self.state.came = 0

    def run(self, cycles: int) -> None:
        """Run so many cycles; messages that come are dropped."""
        self.state.pause = self.cycles + cycles
        while self.cycles < self.state.pause:
            self.next()
        self.state.pause = FOREVER

    def _fill(self) -> None:
        """Hand over the next part of what is to be sent."""
        part = next(self._source, None)
        if part is None:
            self.state.more = 0
            return
        self._inputs = np.ascontiguousarray(part, np.uint32)
        self.state.inputs, self.state.count, self.state.sent = self._inputs.ctypes.data, len(part), 0

    def counters(self) -> dict[str, int]:
        """Return what the trainer has counted, by the names of `golden.core.COUNTED`. It takes some cycles."""
        return {name: self._library.counter(self._model, ctypes.byref(self.state), number)
                for number, name in enumerate(COUNTED)}

    def memory(self, path: str) -> np.ndarray:
        """Return what an array of the Verilog holds now, such as ``memory_x.bank0_words``: a view, which changes."""
        require(path in self.arrays, "array", path, ", ".join(self.arrays))
        number, (size, count) = list(self.arrays).index(path), self.arrays[path]
        where = self._library.memory(self._model, number)
        return np.frombuffer((ctypes.c_char * (size * count)).from_address(where), f"<u{size}")
