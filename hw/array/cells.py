"""The array's cells: a product's operands are read into buffers, and multiplied from there."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, memory

from ...golden.array import SIZE, ArrayParameters
from .. import verilog
from ..pipeline import stage
from .layouts import UNCHECKED, mode_layout, size_of
from .path import Path
from .results import keep_results
from .sequence import sequence
from .walker import Walker

__all__ = ["CELL", "begin", "multiply", "rows_first"]

CELL = verilog.PREFIX + "cell"  # of the name of the cell's module


def rows_first(rows: Walker, columns: Walker) -> Value:
    """Return whether a converter for both sides takes a vector of the rows next.

    First come the rows of a tile, then all columns, then the other rows. The order of conversions does not depend on
    time. No side waits for the other one in a circle.
    """
    return ~rows.idle & (~rows.begun | columns.idle)


def begin(m: Module, parameters: ArrayParameters, product: Any, start: Value, walkers: Sequence[Walker],
          waiting: Signal, taken: Value) -> SimpleNamespace:
    """Begin a product: the walkers read its operands. Return what waits for the cells, which need to know it.

    Parameters
    ----------
    m : Module
    parameters : ArrayParameters
    product : View
        With the fields of a product in `CellArray`.
    start : Value
        It begins in this cycle. The walkers are idle, and no other product is `waiting`.
    walkers : sequence of Walker
    waiting, taken : Signal
        A product waits for the cells; they take it.
    """
    system = parameters.system
    low = system.group.bit_length() - 1
    shapes = {"m": SIZE, "n": SIZE, "final": size_of(parameters.words), "first": 1, "last": 1,
              "a_mode": mode_layout(system), "b_mode": mode_layout(system)}
    queued = SimpleNamespace(**{name: Signal(shape, name=f"queued_{name}", reset_less=True)
                                for name, shape in shapes.items()})
    final = Signal(SIZE)  # vectors of a row before its last one
    m.d.comb += final.eq((product.k - 1)[low:SIZE])
    with m.If(taken):
        m.d.sync += waiting.eq(0)
    with m.If(start):
        m.d.sync += [waiting.eq(1), queued.m.eq(product.m), queued.n.eq(product.n), queued.final.eq(final),
                     queued.first.eq(product.first), queued.last.eq(product.last),
                     *(queued.a_mode[name].eq(product.a[name]) for name in system.modes),
                     *(queued.b_mode[name].eq(product.b[name]) for name in system.modes)]
    for side, (walker, operand, count) in enumerate(zip(walkers, (product.a, product.b), (product.m, product.n))):
        m.d.comb += [
            walker.start.eq(start), walker.rows.eq(count),
            walker.final.eq(Cat(final[:len(queued.final)], final[len(queued.final):].any())),
            walker.tail.eq(product.k[:low] if low else 0), walker.block.eq(operand.block),
            walker.stride.eq(operand.stride), walker.transposed.eq(operand.transposed),
            *(walker.mode[name].eq(operand[name]) for name in system.modes),
        ]
        if system.random:
            m.d.comb += [walker.use.eq(product.use ^ side), walker.number.eq(operand.vector),
                         walker.pitch.eq(Mux(product.pitch == 0, final + 1, product.pitch))]
    return queued


def multiply(unit: Any, m: Module, cell: Any, parameters: ArrayParameters, walkers: Sequence[Walker],
             paths: list[Path], queued: SimpleNamespace, waiting: Value, taken: Value) -> SimpleNamespace:
    """Multiply what the paths bring: buffers, cells, and the stream of results.

    Return what `sequence` does, with ``fed``: the cells are given operands; and ``status``, that of the cells alone.

    Parameters
    ----------
    unit : wiring.Component
        With `parameters`, an output stream ``o`` of results, ``status_clear``, and the status ``invalid``, ``overflow``
        and ``exceeded``: see `CellArray`.
    m : Module
        Of the unit.
    cell : FreeCell
    parameters : ArrayParameters
    walkers : sequence of Walker
    paths : list of Path
        One or two.
    queued, waiting, taken
        As in `begin`.
    """
    system = parameters.system
    rows, columns = walkers
    # The cells' product: where it is. Rows and columns that are left count from the current sums on.
    arrived = [path.arrived & (path.of == side) if len(paths) == 1 else path.arrived
               for side, path in enumerate(paths * (3 - len(paths)))]
    now = sequence(unit, m, (rows, columns), arrived, queued, waiting, taken)

    # Buffers: each row and each column of cells reads its own.
    advance = Signal()
    m.d.comb += now.pop.eq(advance)
    feeds = [[], []]
    for side, (walker, address) in enumerate(((rows, now.next.a), (columns, now.next.b))):
        path = paths[side % len(paths)]
        for lane in range(walker.lanes):
            buffer = memory.Memory(shape=len(path.value), depth=parameters.words, init=[], attrs=UNCHECKED)
            m.submodules[f"buffer{side}_{lane}"] = buffer
            port = buffer.write_port()
            m.d.comb += [port.addr.eq(path.place), port.data.eq(path.value),
                         port.en.eq(path.lanes[lane] & (path.of == side if len(paths) == 1 else 1))]
            port = buffer.read_port()
            m.d.comb += [port.addr.eq(address), port.en.eq(advance)]
            feeds[side].append(port.data)
    # A buffer answers late in the cycle: what the cells decide by, the modes among it, comes from registers.
    fed = stage(m, advance, "fed", valid=now.there, slot=now.next.slot, first=now.next.first, last=now.next.last,
                a_mode=now.next.a_mode, b_mode=now.next.b_mode)

    def assign(target: Any, found: Value, mode: Value) -> list:
        if not paths[0].converter or not isinstance(target, data.View):
            return [target.eq(found)]
        mode, given, low = data.View(mode_layout(system), mode), [], 0
        for name in paths[0].fields:
            size = len(Value.cast(target[name]))
            given.append(Value.cast(target[name]).eq(found[low:low + size]))
            low += size
        return given + [target[name].eq(mode[name]) for name in paths[0].kind.held]

    # The cells, all of one module and in step: `ready` and `valid` of one cell are those of all.
    values, ready, status = [], None, {"invalid": [], "overflow": []}
    ports = [name for name, _, _ in verilog.ports_of(cell)]
    for row in range(parameters.rows):
        for column in range(parameters.columns):
            name = f"{row}_{column}"
            operands = Signal(cell.i.payload.shape(), name=f"operands_{name}")
            m.d.comb += [*assign(operands.a, feeds[0][row], fed.a_mode),
                         *assign(operands.b, feeds[1][column], fed.b_mode),
                         operands.first.eq(fed.first), operands.last.eq(fed.last)]
            if parameters.interleaved:
                m.d.comb += operands.slot.eq(fed.slot)
            result = Signal(cell.o.payload.shape(), name=f"result_{name}")
            valid, can = Signal(name=f"valid_{name}"), Signal(name=f"ready_{name}")
            flags = {port: Signal(name=f"{port}_{name}") for port in status if port in ports}
            m.submodules[f"cell_{name}"] = Instance(
                CELL, i_clk=ClockSignal(), i_rst=ResetSignal(), i_i_payload=operands.as_value(),
                i_i_valid=fed.valid, o_i_ready=can, o_o_payload=result.as_value(), o_o_valid=valid,
                i_status_clear=unit.status_clear,
                **{f"o_{port}": flag for port, flag in flags.items()})
            values.append(result.value)
            for port, flag in flags.items():
                status[port].append(flag)
            if ready is None:
                ready, some = can, valid
    m.d.comb += advance.eq(~fed.valid | ready)
    keep_results(unit, m, now, some, Cat(values))
    for port, flags in status.items():
        m.d.comb += getattr(unit, port).eq(Cat(*flags, *(getattr(path, port) for path in paths)).any())
    now.fed, now.status = fed.valid, {port: Cat(flags).any() for port, flags in status.items()}
    return now
