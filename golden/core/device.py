"""A core as its host sees it: transfers in, transfers out."""

from collections.abc import Iterable

import numpy as np

from .instructions import WORD, decode
from .model import Core
from .parameters import TrainerParameters
from .program import Program
from .transfers import INSTRUCTION, LOSS, TENSOR, TOLD, Transfers

__all__ = ["Device"]


class Device:
    """Answers transfers as the unit ``trainer`` does. One program follows another; a program that is cut off waits.

    Parameters
    ----------
    parameters : TrainerParameters

    Attributes
    ----------
    core : Core
        Its memories are those of all programs.
    answers : list of (int, int)
        Payloads so far, and the number of the transfer that the core took last before each.
    """

    def __init__(self, parameters: TrainerParameters) -> None:
        self.core, self.transfers = Core(parameters), Transfers(parameters)
        self.answers: list[tuple[int, int]] = []
        self._taken = -1

    def run(self, payloads: Iterable[int]) -> None:
        """Take transfers: integers, as the port's bits are."""
        self._source = iter(payloads)
        words: list[int] = []
        try:
            while True:
                bits, kind = self._take()
                if kind != INSTRUCTION:
                    raise ValueError("elements come while no program runs")
                words.append(bits & ((1 << WORD) - 1))
                if words[-1] & 31 == 0:  # `halt` comes first among operations
                    program, words = Program(tuple(decode(word) for word in words)), []
                    self.core.run(program, self)
                    steps = (0 if step is None else step + 1 for step in (self.core.invalid, self.core.overflow))
                    told = {"error": 0, "number": len(program.instructions) - 1,
                            **dict(zip(("invalid", "overflow"), steps)), **self.core.losses}
                    self._send(TOLD, [told[name] for name in self.transfers.told])
        except StopIteration:
            pass

    def _take(self) -> tuple[int, int]:
        payload = next(self._source)
        self._taken += 1
        return payload & ((1 << self.transfers.input_bits) - 1), payload >> self.transfers.input_bits

    def read(self, rows: int, columns: int) -> np.ndarray:
        """Return the codes of a tensor that comes, shape (rows, columns)."""
        stream, width = self.transfers.stream, self.transfers.element
        found = np.zeros((rows, -(-columns // stream) * stream), np.uint32)
        for at in range(found.size // stream):
            bits, kind = self._take()
            assert kind != INSTRUCTION, "an instruction comes where elements are due"
            found.reshape(-1, stream)[at] = [bits >> width * lane & ((1 << width) - 1) for lane in range(stream)]
        return found[:, :columns]

    def write(self, codes: np.ndarray) -> None:
        """Send a tensor."""
        self._send(TENSOR, self.transfers.payloads(self.transfers.elements(codes)))

    def loss(self, total: int) -> None:
        """Send a sum of losses."""
        self._send(LOSS, [total])

    def _send(self, kind: int, numbers: list[int]) -> None:
        for at, number in enumerate(numbers):
            last = at == len(numbers) - 1
            top = self.transfers.output_bits
            self.answers.append((number | kind << top | last << top + 2, self._taken))
