"""A walk through a tensor, row by row, or some rows side by side: where its next elements lie."""

from types import SimpleNamespace
from typing import Any

from amaranth import *

from ..pipeline import signals
from .layouts import SIZE, Geometry

__all__ = ["cursor"]


def cursor(m: Module, name: str, geometry: Geometry, tensor: Any, *, start: Value, moves: Value, step: Any = 1,
           ahead: Any = 0, beside: int = 1) -> SimpleNamespace:
    """Walk through a tensor; each row begins anew. Of rows that go side by side, each has a step in turn.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the registers' names.
    geometry : Geometry
    tensor : View
        A place, as `place_layout` has it. It is there in the cycle before the start, and stays during the walk.
    start, moves : Value
        Go to the first element; go on by `step` elements, or to the next row.
    step, ahead : int or Value
        The place is that of the element so far ahead.
    beside : int
        Rows that go side by side: a power of two.

    Returns
    -------
    namespace
        ``line`` and ``at``: row and column in the tensor, without `ahead`. ``block``, ``row``, ``column``: the place.
        ``rest``: elements of the row from ``at`` on; ``last``: a step ends the row; ``end``: it ends the tensor.
        ``turns``: a bit for each of the rows side by side, 1 for this one. ``across``: a step of the last of them.
    """
    low = geometry.low
    line, at = signals(f"{name}_line {name}_at", SIZE)
    down, right = signals(f"{name}_down {name}_right", SIZE + 1)
    block = Signal(geometry.block, name=f"{name}_block")
    last, end = signals(f"{name}_last {name}_end")
    # Registers, because this arithmetic would lie on the longest paths: the rest of a row, whether a step ends it, and
    # the number of the last row.
    rest, bottom = signals(f"{name}_rest {name}_bottom", SIZE)
    single = tensor.columns <= step
    m.d.sync += bottom.eq(tensor.rows - 1)
    final = line == bottom
    m.d.comb += [down.eq(tensor.top + line), right.eq(tensor.left[:low] + at + ahead), end.eq(last & final)]
    below = beside.bit_length() - 1
    turns = [line[:below] == number for number in range(beside)] if below else [C(1, 1)]
    across = turns[-1] | final if below else C(1, 1)
    # The block in which the first one of the rows side by side goes on.
    base = Signal(geometry.block, name=f"{name}_base") if below else block
    following = Mux(down[:low].all(), block + tensor.stride, block)
    with m.If(moves):
        m.d.sync += [line.eq(line + 1), block.eq(following)]
        with m.If(across):
            m.d.sync += [at.eq(at + step), rest.eq(rest - step), last.eq(rest <= step + step),
                         line.eq(Cat(C(0, below), line[below:])), block.eq(base)]
            with m.If(last):
                m.d.sync += [at.eq(0), rest.eq(tensor.columns), last.eq(single), line.eq(line + 1),
                             block.eq(following), base.eq(following)]
    with m.If(start):
        m.d.sync += [line.eq(0), at.eq(0), rest.eq(tensor.columns), last.eq(single), block.eq(tensor.block),
                     base.eq(tensor.block)]
    return SimpleNamespace(line=line, at=at, block=block + (right >> low), row=down[:low], column=right[:low],
                           rest=rest, last=last, end=end, turns=turns, across=across)
