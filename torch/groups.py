"""Tensors cut into groups along one axis, each group to be quantised on its own."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base.checks import require
from ..golden.rounding import Rounding
from .words import group_words

__all__ = ["Layout", "slabs_of"]

SLAB = 1 << 17  # elements worked on at a time on a CPU, so that every intermediate tensor stays in the cache


@dataclass(frozen=True)
class Layout:
    """How a tensor is cut into groups: it is seen as (n, group, inner), and a number per group as (n, 1, inner).

    Attributes
    ----------
    shape : tuple of int
        Of the tensor.
    axis : int
        Along which groups lie, 0 or more.
    group : int
    """

    shape: tuple[int, ...]
    axis: int
    group: int

    @classmethod
    def of(cls, x: Tensor, axis: int, group: int) -> "Layout":
        """Return the layout of a tensor of one dimension or more."""
        require(x.dim() > 0, "shape of x", tuple(x.shape), "one dimension or more")
        require(-x.dim() <= axis < x.dim(), "axis", axis, f"an integer from {-x.dim()} to {x.dim() - 1}")
        return cls(tuple(x.shape), axis % x.dim(), group)

    @property
    def length(self) -> int:
        """Elements along the axis."""
        return self.shape[self.axis]

    @property
    def groups(self) -> int:
        """Groups along the axis."""
        return -(-self.length // self.group)

    @property
    def inner(self) -> int:
        """Elements from one to the next along the axis."""
        return math.prod(self.shape[self.axis + 1:])

    @property
    def outer(self) -> int:
        """Rows of groups."""
        return math.prod(self.shape[:self.axis])

    def cut(self, x: Tensor) -> Tensor:
        """Return the tensor as (n, group, inner), its tail padded with zeros."""
        x = x.reshape(self.outer, self.length, self.inner)
        if self.length % self.group:
            x = torch.nn.functional.pad(x, (0, 0, 0, self.groups * self.group - self.length))
        return x.reshape(self.outer * self.groups, self.group, self.inner)

    def joined(self, x: Tensor) -> Tensor:
        """Return what `cut` was given."""
        x = x.reshape(self.outer, self.groups * self.group, self.inner)
        return x[:, :self.length].reshape(self.shape)

    def last(self, x: Tensor) -> Tensor:
        """Return (n, group or 1, inner) as golden has it: (..., groups, group), or (..., groups, 1)."""
        others = self.shape[:self.axis] + self.shape[self.axis + 1:]
        x = x.reshape(self.outer, self.groups, x.shape[1], self.inner).permute(0, 3, 1, 2)
        return x.reshape(*others, self.groups, x.shape[3])

    def words(self, given: Any, rounding: Rounding, device: Any) -> Tensor | None:
        """Return the random words as (n, group, inner); golden has them in C order with the grouped axis last."""
        rows = self.outer * self.groups * self.inner
        found = group_words(given, rounding, self.group, rows, device)
        if found is None or self.inner == 1:
            return found if found is None else found.reshape(rows, self.group, 1)
        found = found.reshape(self.outer, self.inner, self.groups, self.group).permute(0, 2, 3, 1)
        return found.reshape(self.outer * self.groups, self.group, self.inner)


def slabs_of(x: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Yield indices of parts of (n, group, inner), of whole groups and `SLAB` elements or so.

    Another device than a CPU gets everything as one part.
    """
    n, group, inner = x.shape
    if x.device.type != "cpu":
        yield slice(0, n), slice(None), slice(0, inner)
        return
    rows, columns = max(1, SLAB // max(1, group * inner)), max(1, SLAB // group)
    for row in range(0, n, rows):
        for column in range(0, inner, columns):
            yield slice(row, row + rows), slice(None), slice(column, column + columns)
