"""What crosses the streams of a core, as words of 32 bits: the lowest bits of a transfer are in its first word."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.checks import require
from .instructions import WORD
from .parameters import TrainerParameters
from .program import Program
from .report import report_of

__all__ = ["INSTRUCTION", "LOSS", "NUMBER", "TENSOR", "TOLD", "Transfers"]

ELEMENTS, INSTRUCTION = 0, 1  # kinds of what the host sends
TENSOR, LOSS, TOLD = 0, 1, 2  # kinds of what the core sends; the last one is its report
NUMBER = 64  # bits of a loss, and of a number of the report


class Transfers:
    """Turns programs and tensors into transfers, and transfers into tensors and numbers.

    A transfer to the core has its bits, and above them a bit of its kind. One from the core has its bits, two of its
    kind, and whether it is the last one of its message. A row of a tensor begins with a new transfer. Each transfer has
    `stream` elements of `element_bits`, the first one lowest.

    Parameters
    ----------
    parameters : TrainerParameters

    Attributes
    ----------
    input_bits, output_bits : int
        Without the kind.
    input_words, output_words : int
        Words of a transfer.
    """

    def __init__(self, parameters: TrainerParameters) -> None:
        self.stream, self.element = parameters.stream, parameters.element_bits
        self.told = report_of(parameters)
        bits = self.stream * self.element
        self.input_bits, self.output_bits = max(WORD, bits), max(NUMBER, bits)
        self.input_words, self.output_words = -(-(self.input_bits + 1) // 32), -(-(self.output_bits + 3) // 32)

    def instructions(self, program: Program) -> np.ndarray:
        """Return the transfers of a program, shape (instructions, input_words)."""
        found = np.zeros((len(program.instructions), self.input_words), np.uint32)
        for part in range(WORD // 32):
            found[:, part] = [word >> 32 * part & 0xFFFFFFFF for word in program.words()]
        found[:, self.input_bits // 32] |= np.uint32(INSTRUCTION << self.input_bits % 32)
        return found

    def elements(self, codes: np.ndarray) -> np.ndarray:
        """Return the transfers of a tensor, shape (transfers, input_words), from codes of shape (rows, columns)."""
        rows, columns = codes.shape
        padded = np.zeros((rows, -(-columns // self.stream) * self.stream), np.uint64)
        padded[:, :columns] = codes
        padded = padded.reshape(-1, self.stream)
        found = np.zeros((len(padded), self.input_words), np.uint64)
        for lane in range(self.stream):
            word, shift = divmod(lane * self.element, 32)
            shifted = padded[:, lane] << np.uint64(shift)
            found[:, word] |= shifted & np.uint64(0xFFFFFFFF)
            if shift + self.element > 32:
                found[:, word + 1] |= shifted >> np.uint64(32)
        return found.astype(np.uint32)

    @staticmethod
    def payloads(transfers: np.ndarray) -> list[int]:
        """Return transfers of shape (n, words) as integers, as a port's bits are."""
        return [int.from_bytes(row.astype("<u4").tobytes(), "little") for row in transfers]

    def count(self, rows: int, columns: int) -> int:
        """Return the transfers of a tensor."""
        return rows * -(-columns // self.stream)

    def kind(self, message: np.ndarray) -> int:
        """Return the kind of what the core sent: `TENSOR`, `LOSS`, `TOLD`. All transfers of a message have it."""
        kinds = {self._bits(row, self.output_bits, 2) for row in message.tolist()}
        require(len(kinds) == 1, "kinds of transfers of a message", sorted(kinds), "one")
        return kinds.pop()

    def codes(self, message: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """Return the codes of a tensor that came, shape (rows, columns), from transfers (transfers, output_words)."""
        require(len(message) == self.count(rows, columns), "transfers of a tensor", len(message),
                f"{self.count(rows, columns)}, for {rows} x {columns} elements")
        wide = message.astype(np.uint64)
        found = np.empty((len(message), self.stream), np.uint32)
        for lane in range(self.stream):
            word, shift = divmod(lane * self.element, 32)
            pair = wide[:, word]
            if shift + self.element > 32:
                pair = pair | wide[:, word + 1] << np.uint64(32)
            found[:, lane] = pair >> np.uint64(shift) & np.uint64((1 << self.element) - 1)
        return found.reshape(rows, -1)[:, :columns]

    def number(self, transfer: np.ndarray) -> int:
        """Return the number of a transfer: a loss, or one of the report's."""
        return self._bits(transfer.tolist(), 0, NUMBER)

    def report(self, message: np.ndarray) -> dict[str, int]:
        """Return the numbers of a report, by the names of `report_of`."""
        require(len(message) == len(self.told), "numbers of a report", len(message), f"{len(self.told)}")
        return {name: self.number(row) for name, row in zip(self.told, message)}

    @staticmethod
    def _bits(row: Sequence[Any], place: int, bits: int) -> int:
        whole = sum(word << 32 * number for number, word in enumerate(row))
        return whole >> place & ((1 << bits) - 1)
