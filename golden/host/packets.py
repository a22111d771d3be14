"""What host and device send each other: packets of 32-bit words.

The first word of a packet to the device has its kind in the upper four bits, and a count below them. A packet from the
device begins with a word that has the kind of the core's message there, and nothing else.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ...base.checks import require
from ..core import Program
from ..core.report import REPORT
from ..core.transfers import TENSOR, TOLD, Transfers
from .configuration import Configuration

__all__ = ["KINDS", "KIND", "Answers", "Packets", "check_of"]

KIND = 28  # the lowest bit of a kind
# Of packets to the device. A count is one of transfers, or of words for `table`, `store` and `rows`.
KINDS = ("elements", "instructions", "bytes", "table", "store", "rows")


def check_of(words: np.ndarray, before: int = 0) -> int:
    """Return the check of words, uint32: rotated left by one, then xor with the word, for each of them."""
    turns = np.arange(len(words) - 1, -1, -1, dtype=np.uint64) % np.uint64(32)
    wide = words.astype(np.uint64) << turns
    folded = int(np.bitwise_xor.reduce((wide | wide >> np.uint64(32)) & np.uint64(0xFFFFFFFF))) if len(words) else 0
    turn = len(words) % 32
    return (before << turn | before >> (32 - turn)) & 0xFFFFFFFF ^ folded


class Packets:
    """Turns programs, tensors and data sets into packets.

    Rows of codes that were stored are sent as their places. Other rows of codes that the table has are sent as bytes.

    Parameters
    ----------
    configuration : Configuration
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.transfers = Transfers(configuration.trainer)
        self._table = np.zeros(0, np.uint32)  # codes, in order
        self._rows: dict[bytes, int] = {}     # of a stored row's bytes: its first word

    def instructions(self, program: Program) -> np.ndarray:
        """Return the packet of a program."""
        words = np.array([word >> 32 * part & 0xFFFFFFFF for word in program.words() for part in range(3)], np.uint32)
        return _packet("instructions", len(program.instructions), words)

    def elements(self, codes: np.ndarray) -> np.ndarray:
        """Return the packet of a tensor's codes, shape (rows, columns), as they are."""
        words = self.transfers.elements(codes)[:, :self.transfers.stream * self.transfers.element // 32]
        return _packet("elements", len(words), words.ravel())

    def tensor(self, codes: np.ndarray) -> np.ndarray:
        """Return the packet of a tensor's codes, shape (rows, columns): the shortest one that there is."""
        found = self._bytes_of(codes)
        if found is None:
            return self.elements(codes)
        per_row = found.shape[1] // self.transfers.stream
        places = [self._rows.get(row.tobytes()) for row in self._whole(found)]
        if None not in places:
            return _packet("rows", len(places), np.array([per_row, *places], np.uint32))
        return _packet("bytes", len(found) * per_row, _words(found))

    def keep(self, examples: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the packets that give the device a table and, where it has room, the examples.

        Parameters
        ----------
        examples : array of codes, shape (examples, columns)
            What `tensor` will be given. Where there are more than 256 codes, nothing is sent, and nothing is kept.
        """
        self._table, self._rows = np.zeros(0, np.uint32), {}
        table = np.unique(examples).astype(np.uint32)
        if len(table) > 256:
            return
        self._table = table
        yield _packet("table", len(table), table)
        found = self._bytes_of(examples)
        assert found is not None
        rows = self._whole(found)
        if rows.size > 4 * self.configuration.data:
            return
        words = rows.shape[1] // 4
        self._rows = {row.tobytes(): number * words for number, row in enumerate(rows)}
        yield _packet("store", rows.size // 4, np.concatenate([np.zeros(1, np.uint32), _words(rows)]))

    def _bytes_of(self, codes: np.ndarray) -> np.ndarray | None:
        """Return a tensor's codes as places in the table, rows filled up to transfers; None where one is not there."""
        if not len(self._table):
            return None
        found = np.minimum(np.searchsorted(self._table, codes), len(self._table) - 1)
        if not np.array_equal(self._table[found], codes):
            return None
        return _filled(found.astype(np.uint8), self.transfers.stream)

    def _whole(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of bytes as the data memory has them: each begins with a word."""
        return _filled(rows, 4)


class Answers:
    """Turns the device's words into messages.

    Parameters
    ----------
    transfers : Transfers
    length : callable
        Returns the transfers of the next tensor that comes.
    """

    def __init__(self, transfers: Transfers, length: Callable[[], int]) -> None:
        self.transfers, self._length = transfers, length
        self._words = np.zeros(0, np.uint32)
        self._kind: int | None = None
        self._count = 0  # transfers of the message

    def take(self, words: np.ndarray) -> None:
        """Take words that came."""
        self._words = np.concatenate([self._words, words])

    def message(self) -> np.ndarray | None:
        """Return the next message's transfers, shape (n, output_words), as the core gave them; None if it is not whole.

        Raises
        ------
        ValueError
            The words are no message.
        """
        if self._kind is None:
            if not len(self._words):
                return None
            first, self._words = int(self._words[0]), self._words[1:]
            require(first & ((1 << KIND) - 1) == 0 and first >> KIND <= TOLD, "first word of a message", first,
                    "a kind alone")
            self._kind = first >> KIND
            self._count = self._length() if self._kind == TENSOR else len(REPORT) if self._kind == TOLD else 1
        t = self.transfers
        each = t.stream * t.element // 32 if self._kind == TENSOR else 2
        if len(self._words) < self._count * each:
            return None
        found = np.zeros((self._count, t.output_words), np.uint32)
        found[:, :each] = self._words[:self._count * each].reshape(self._count, each)
        found[:, t.output_bits // 32] |= np.uint32(self._kind << t.output_bits % 32)
        self._words, self._kind = self._words[self._count * each:], None
        return found


def _packet(kind: str, count: int, words: np.ndarray) -> np.ndarray:
    require(count < 1 << KIND, f"{kind} of a packet", count, f"below {1 << KIND}")
    return np.concatenate([np.array([KINDS.index(kind) << KIND | count], np.uint32), words.astype(np.uint32)])


def _filled(rows: np.ndarray, multiple: int) -> np.ndarray:
    """Return rows that are longer by zeros, up to a multiple of so many."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % multiple)))


def _words(rows: np.ndarray) -> np.ndarray:
    """Return bytes as words, the first byte lowest."""
    flat = rows.ravel()
    return np.pad(flat, (0, -len(flat) % 4)).view("<u4").astype(np.uint32)
