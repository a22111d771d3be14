"""The sequencer's loops."""

from types import SimpleNamespace

from amaranth import *

from ...golden.core.instructions import FIELDS
from .issue import CODES, error_of
from .layouts import fields_of

__all__ = ["loops"]

LOOPS = 3  # that may be within each other
LOOPED = error_of("loops too")


def loops(s: SimpleNamespace, code: Value, clear: Value) -> None:
    """Execute ``loop`` and ``end``.

    Parameters
    ----------
    s : namespace
        Of the sequencer: `m`, the instruction's word, its address `at`, `failed`, and what moves `onward`.
    code : Value
        The instruction's operation.
    clear : Value
        A program begins: no loop is open.
    """
    m, bits = s.m, FIELDS["count"][0]
    starts, lefts = ([Signal(shape, name=f"loop_{name}{k}") for k in range(LOOPS)]
                     for name, shape in (("start", s.at.shape()), ("left", bits)))
    depth = Signal(range(LOOPS + 1))
    with m.If(clear):
        m.d.sync += depth.eq(0)
    count = fields_of(s.word, "loop")["count"]
    with m.If(code == CODES["loop"]):
        with m.If((depth == LOOPS) | ~count.any()):
            m.d.comb += s.failed.eq(LOOPED)
        m.d.sync += depth.eq(depth + 1)
        s.onward()
        for level in range(LOOPS):
            with m.If(depth == level):
                m.d.sync += [starts[level].eq(s.at + 1), lefts[level].eq(count)]
    with m.Else():
        with m.If(~depth.any()):
            m.d.comb += s.failed.eq(LOOPED)
        s.onward()
        for level in range(LOOPS):
            with m.If(depth == level + 1):
                m.d.sync += lefts[level].eq(lefts[level] - 1)
                with m.If(lefts[level] == 1):
                    m.d.sync += depth.eq(level)
                with m.Else():
                    m.d.sync += s.at.eq(starts[level])
