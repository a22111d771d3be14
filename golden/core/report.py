"""What a core tells its host when a program has ended, or was stopped, and what it counts."""

from typing import Any

from .instructions import COUNTERS, UNITS

__all__ = ["COUNTED", "ERRORS", "REPORT", "report_of"]

# By code. An error stops the program at an instruction.
ERRORS = (
    "none",
    "an operation that this core does not have",
    "a tensor that was not defined before, or is empty",
    "a part beyond the end of its tensor",
    "a memory that this unit does not reach there",
    "a tensor beyond the end of its memory",
    "vectors that do not begin with a group",
    "sizes of operands and results that do not fit each other",
    "a product that does not fit the buffers",
    "more classes than the head has",
    "a method of update that this core does not have",
    "a wait for a token that was not signalled before",
    "loops too deep, without a count, or without a beginning",
    "a program longer than its memory",
    "an operand without a mode",
    "a rate of 2 or more, or below the least normal number",
    "an instruction in the stream where elements are due",
    "elements in the stream while no program runs",
    "a cycle of precisions without a period, or an edge without a cycle, or too many of them",
    "a layer beyond those whose tensors may choose their precisions",
    "a window that its tensor does not have, or that this operation does not take",
    "a scale or a bound of logarithmic weights, or what Madam moves them by, beyond its range",
)

# In this order: the error's code and the number of its instruction; the first steps with a NaN and with a number beyond
# its range, one more than the step, or 0.
REPORT = ("error", "number", "invalid", "overflow")


def report_of(parameters: Any) -> tuple[str, ...]:
    """Return the names of a core's report. With a loss scale 2**loss it has two registers, and the skipped steps."""
    return REPORT + (("loss", "accepted", "skipped") if parameters.loss_scale else ())


# What a core counts, for training and then for measuring. First come all cycles, then those with work for each unit.
# The last ones are cycles in which the array's cells were starved, and blocked.
COUNTED = tuple(f"{counter}_{name}" for counter in COUNTERS for name in ("cycles", *UNITS[1:], "starved", "blocked"))
