"""Test vectors of a stream unit: transfers in, transfers out, and words that describe them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Vectors", "pack", "unpack"]


@dataclass
class Vectors:
    """What a bench drives and expects.

    Attributes
    ----------
    inputs, outputs : list of int
        Payloads in order.
    origin : sequence of int
        The input that completes each output.
    status : dict of str to int
        Sticky status ports and their expected values after the last transfer.
    describe : callable
        ``describe(index)`` tells the operands of input `index` in words.
    show : callable
        ``show(payload)`` tells an output payload in words.
    """

    inputs: list[int]
    outputs: list[int]
    origin: Sequence[int] | np.ndarray
    status: dict[str, int] = field(default_factory=dict)
    describe: Callable[[int], str] = str
    show: Callable[[int], str] = hex


def pack(*fields: tuple[np.ndarray, int]) -> list[int]:
    """Pack fields into payloads, the first lowest.

    Parameters
    ----------
    *fields : (array, width)
        Arrays of shape (n,) or (n, k): k elements, element 0 lowest; negative numbers wrap.

    Returns
    -------
    list of int
    """
    columns = []
    for array, width in fields:
        array = np.asarray(array).astype(np.int64)
        count = array.shape[1] if array.ndim > 1 else 1  # not -1, which no transfers leave open
        bits = (array.reshape(len(array), count, 1) >> np.arange(width)) & 1
        columns.append(bits.reshape(len(array), count * width).astype(np.uint8))
    rows = np.packbits(np.concatenate(columns, axis=1), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def unpack(payload: int, *widths: int) -> list[int]:
    """Split a payload into its fields, lowest first (unsigned ints)."""
    fields = []
    for width in widths:
        fields.append(payload & ((1 << width) - 1))
        payload >>= width
    return fields
