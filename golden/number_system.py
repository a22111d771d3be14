"""The protocol of a number system: what training and the array ask about numbers.

A number system is a frozen dataclass of settings that derives from `NumberSystem`. `systems.SYSTEMS` names the number
systems; docs/adding-a-number-system.md adds one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..base.parameters import Parameters
from .accumulator import BANK, RECURRENCE
from .formats import Float, name_of
from .rounding import NEAREST, Rounding
from .words import Stream

__all__ = [
    "TENSORS", "BankedSystem", "Draws", "Mode", "NumberSystem", "Operand", "ScaledSystem", "named", "vectors_of",
]

TENSORS = ("weights", "activations", "gradients")
LANES = 16  # numbers of a row with a vector of random words, where numbers have no groups of their own
PAIRS = 1 << 17  # transfers of a product at a time

Mode = dict[str, int]  # the value of each of a number system's modes


def vectors_of(columns: int) -> int:
    """Return the vectors of random words of a row of so many numbers."""
    return -(-columns // LANES)


@dataclass(frozen=True)
class Draws:
    """The address of an operand's random words: see `words`.

    Parameters
    ----------
    seed, step, use : int
    vector : int
        Number of the operand's first vector.
    row : (length, pitch), optional
        Of a part of an operand: the vectors of a row in the part, and of a row in the whole operand.
    """

    seed: int
    step: int = 0
    use: int = 0
    vector: int = 0
    row: tuple[int, int] | None = None

    def of(self, rounding: Rounding, lanes: int) -> Stream | None:
        """Return the stream for a rounding of so many lanes, or None where the rounding is not stochastic."""
        return self.stream(lanes, rounding.bits) if rounding.kind == "stochastic" else None

    def stream(self, lanes: int, bits: int) -> Stream:
        """Return the words of vectors of so many lanes, from the first one on."""
        return Stream(self.seed, lanes, bits=bits, step=self.step, use=self.use, vector=self.vector, row=self.row,
                      bounded=True)

    def rows(self, shape: tuple[int, ...], bits: int) -> np.ndarray:
        """Return a word for each number of a matrix, or of a row: 16 in a row of it have a vector."""
        count, columns = math.prod(shape[:-1]), shape[-1]
        each = vectors_of(columns)
        words = self.stream(LANES, bits).draw(count * each)
        return words.reshape(count, each * LANES)[:, :columns].reshape(shape)


@dataclass(frozen=True, eq=False)
class Operand:
    """A converted matrix: arrays of shape (rows, groups, ...) as `NumberSystem.convert` returns them."""

    arrays: tuple[np.ndarray, ...]


class NumberSystem(Parameters):
    """What every number system has; a class to derive frozen dataclasses of settings from.

    The array needs all of it but the part *training*. Training asks for that part alone, and what stands here answers
    it by `convert` and `dot`: a number system of the array trains, with the same bits. A system overrides `operand` and
    `product` where it has a faster way to the same bits.

    Attributes
    ----------
    name : str, optional
        The name under which `systems.register` registers the class; else it is the class's own in lower case.
    circuits : str or type
        Class of the hardware, or "module:class" of it: see `hw.circuits`. None where there is no hardware: `refusal`
        then tells why.
    work, accumulator : Float
        The format that operands are read in, and the format of results.
    group : int
        Elements of an operand vector, which share a converter and a cell. In an array it is a power of two.
    modes : mapping of str to int
        {name: bits} of what an instruction says of an operand, such as its precision: fields of the unit.
    recurrence : int
        Cycles between two additions to one sum of a cell. 1: the sums of a tile follow each other. More: they take
        turns, and a cell's input has ``slot``.
    depth : int
        With a `recurrence` above 1: cycles from a transfer that a cell accepts to its addition.
    random : (lanes, bits), optional
        Of the words that a converter of the array takes for a vector, if it may round stochastically.
    seed : int
        Of the array's random words.
    adaptive : bool
        Whether the mode ``precision`` may change during training: see `precision`.
    """

    circuits: ClassVar[str | type | None] = None
    refusal: ClassVar[str] = "it has no hardware"
    adaptive: ClassVar[bool] = False
    random: tuple[int, int] | None = None
    seed: int = 0
    work: Float
    accumulator: Float
    group: int
    modes: Mapping[str, int] = {}
    recurrence: int = 1
    depth: int

    # The array.

    @property
    def arrayed(self) -> "NumberSystem":
        """The number system whose array has the same bits."""
        return self

    def default(self, name: str) -> int:
        """Return the value of a mode where an instruction gives none."""
        raise NotImplementedError

    def cell(self, sums: int) -> Any:
        """Return the parameters of a cell with so many sums; they have a ``latency`` in cycles."""
        raise NotImplementedError

    def converter(self, side: int) -> Any:
        """Return the parameters of the converter of side 0 (rows) or 1 (columns), which have a ``latency``.

        None where the work format needs no conversion.
        """
        raise NotImplementedError

    @property
    def vector_bits(self) -> int:
        """Bits of a converted vector, as the array's buffers keep it."""
        return self.group * self.work.width

    def interval(self, a: Mode, b: Mode) -> int:
        """Return the cycles that a transfer takes in a cell, for the modes of both operands."""
        return 1

    def convert(self, side: int, codes: np.ndarray, mode: Mode, draws: Draws
                ) -> tuple[tuple[np.ndarray, ...], bool, bool]:
        """Convert vectors (n, group) of codes of the work format, whose random words are from `draws` on.

        Returns
        -------
        arrays : tuple of ndarray
            Each of n entries; together they are the converted vectors.
        invalid, overflow : bool
            The sticky status.
        """
        raise NotImplementedError

    def dot(self, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], first: np.ndarray, last: np.ndarray
            ) -> tuple[np.ndarray, bool, bool]:
        """Return (codes, invalid, overflow) of the sums of dot products of corresponding vectors.

        Parameters
        ----------
        a, b : tuple of ndarray
            As `convert` returns them.
        first, last : ndarray of bool
            A sum starts from +0; a sum is emitted, as a code of the accumulator's format.
        """
        raise NotImplementedError

    # Training.

    def mode(self, kind: str, array: Any) -> Mode:
        """Return the modes of an operand in training, where the recipe gives none.

        Parameters
        ----------
        kind : str
            One of `TENSORS`.
        array : ndarray
            The whole tensor, in the work format.
        """
        return {name: self.default(name) for name in self.modes}

    def format_of(self, mode: Mode) -> Any:
        """Return the format of operands of these modes, or None where no class of `formats` describes it."""
        return None

    def rounding_of(self, mode: Mode) -> Rounding:
        """Return the rounding of operands of these modes."""
        return NEAREST

    def describe(self, mode: Mode) -> dict:
        """Return ``format``, ``rounding`` and, if it is stochastic, ``bits`` and ``corrected``: JSON-ready."""
        fmt, rounding = self.format_of(mode), self.rounding_of(mode)
        # Without a format of its own, the system's settings tell what its numbers are.
        told: dict[str, Any] = {
            "format": named(fmt) if fmt else {"type": type(self).__name__, **self.to_json()},
            "rounding": rounding.kind,
        }
        if rounding.kind == "stochastic":
            told |= {"bits": rounding.bits, "corrected": rounding.corrected}
        return told

    def describe_sums(self) -> dict:
        """Return ``format`` and ``rounding`` of sums, and what else tells them: JSON-ready."""
        return {"format": named(self.accumulator), "rounding": "nearest"}

    def require_stored(self, stored: Any) -> None:
        """Raise ValueError if weights cannot be kept so: see `recipes.Stored`."""
        raise ValueError(f"stored is {stored!r}; allowed: None, because the operands are not logarithmic")

    def operand(self, array: Any, axis: int, mode: Mode, side: int, draws: Draws) -> tuple[Any, bool, bool]:
        """Convert a matrix for a product.

        Parameters
        ----------
        array : ndarray, 2-D
            In the work format.
        axis : int
            The reduction axis of the product: 1 of the first operand, 0 of the second one.
        mode : dict
        side : int
            0 for the first operand, 1 for the second one.
        draws : Draws

        Returns
        -------
        operand : object
            For `product`.
        invalid, overflow : bool
            A NaN was met; a number was beyond the range.
        """
        codes = self.work.encode(array if axis == 1 else array.T)
        rows, length = codes.shape
        groups = -(-length // self.group)
        padded = np.zeros((rows, groups * self.group), codes.dtype)
        padded[:, :length] = codes
        arrays, invalid, overflow = self.convert(side, padded.reshape(-1, self.group), mode, draws)
        return Operand(tuple(each.reshape(rows, groups, *each.shape[1:]) for each in arrays)), invalid, overflow

    def product(self, a: Any, b: Any) -> tuple[np.ndarray, bool, bool]:
        """Return the values (M, N) of a product in the accumulator's format, invalid and overflow.

        Parameters
        ----------
        a, b : object
            From `operand`, of matrices (M, K) and (K, N).
        """
        (m, groups), n = a.arrays[0].shape[:2], len(b.arrays[0])
        codes = np.empty((m, n), np.uint32)
        invalid = overflow = False
        rows = max(1, PAIRS // (n * groups))
        for top in range(0, m, rows):
            count = min(rows, m - top)
            row, column = np.divmod(np.repeat(np.arange(count * n), groups), n)
            along = np.tile(np.arange(groups), count * n)
            part, bad, over = self.dot(tuple(each[top + row, along] for each in a.arrays),
                                       tuple(each[column, along] for each in b.arrays), along == 0, along == groups - 1)
            codes[top:top + count] = part.reshape(count, n)
            invalid, overflow = invalid | bad, overflow | over
        return self.accumulator.decode(codes), invalid, overflow


class BankedSystem(NumberSystem):
    """A number system whose cell adds to sums in an accumulator bank: see `hw.accumulator`."""

    recurrence = RECURRENCE

    @property
    def depth(self) -> int:  # type: ignore[override]  # follows from the cell, and is never set
        """Cycles from a transfer that a cell accepts to its addition."""
        return self.cell(2).latency - BANK


class ScaledSystem(NumberSystem):
    """A number system whose instruction gives each operand a scale, exponent + 127, for all its vectors.

    To be added: the settings, `lanes` among them; `default`, `cell`, `converter`, `convert` and `dot`.
    """

    modes = {"scale": 8}
    lanes: int

    @property
    def group(self) -> int:  # type: ignore[override]  # told by another setting, and never set
        """Elements of a vector."""
        return self.lanes

    def mode(self, kind: str, array: Any) -> Mode:
        """Return a scale for the tensor's largest finite magnitude: `default` is that of magnitudes from 16 to 32."""
        magnitudes = np.abs(np.asarray(array, np.float64))
        largest = magnitudes.max(initial=0.0, where=np.isfinite(magnitudes))
        exponent = np.frexp(largest)[1] - 5 if largest else -254
        return {"scale": int(np.clip(self.default("scale") + exponent, 0, 254))}


def named(fmt: Any) -> str | dict:
    """Return a format's preset name, or else what `formats.parse` reads."""
    return name_of(fmt) or {"type": type(fmt).__name__, **fmt.to_json()}
