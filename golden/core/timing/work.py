"""What a GEMM is for the array: sizes, modes, and the cycles of its peak."""

import math
from typing import Any

from ...array import peak
from ..model import OPERANDS, mode_of
from ..parameters import TrainerParameters
from ..sequencer import Issue

__all__ = ["modes_of", "sizes_of", "work_of"]


def modes_of(parameters: TrainerParameters, issue: Issue) -> list[Any]:
    """Return the modes of a GEMM's operands."""
    each = issue.instruction
    return [mode_of(parameters.system, issue, kind, each.use >> 3) for kind in OPERANDS[each.use & 7]]


def sizes_of(issue: Issue) -> tuple[int, int, int]:
    """Return rows, columns and length of a GEMM."""
    each, a, b = issue.instruction, issue.views["a"], issue.views["b"]
    m, k = (a.columns, a.rows) if each.across_a else (a.rows, a.columns)
    return m, b.columns if each.across_b else b.rows, k


def work_of(parameters: TrainerParameters, issue: Issue) -> tuple[int, float]:
    """Return the multiply-accumulates of a GEMM, and the cycles that they take at the array's peak."""
    macs = math.prod(sizes_of(issue))
    return macs, macs / peak(parameters.array, *modes_of(parameters, issue))
