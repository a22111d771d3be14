"""The core's memories: banks that rows and columns read alike, banks of M beside the lanes, and who may use them."""

from collections.abc import Sequence
from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ..array.path import rotate
from ..pipeline import UNCHECKED, delayed, signals
from .layouts import Geometry, least_power, piece_layout, read_layout, size_of

__all__ = ["READ", "Banks", "StateBanks", "bank_of", "place_of", "reads", "writes"]

READ = 4  # cycles from a request to its answer


def place_of(geometry: Geometry, name: str, element: int, plane: int = 0) -> tuple[str, str, int]:
    """Return the memory, the bank and the address of an element of X, D or W, or of a plane of M: see `views.places`.

    Planes from 1 on are those of M. An element has the same number there as in W.
    """
    side, low = geometry.side, geometry.low
    block, row, column = element >> 2 * low, element >> low & side - 1, element & side - 1
    if plane:
        lanes = geometry.lanes
        bank = (plane - 1) * lanes + column % lanes
        return "memory_m", f"bank{bank}", (block * side + row) * (side // lanes) + column // lanes
    where, base = geometry.memories[name]
    return f"memory_{where}", f"bank{(row + column) % side}", (base + block) * side + row


class Banks(wiring.Component):
    """A memory of blocks: element (r, c) of a block is in bank r + c, at address r.

    So both a row and a column have an element in every bank. Every cycle takes a request and a piece.

    Parameters
    ----------
    geometry : Geometry
    depth : int
        Blocks.
    width : int
        Elements of a piece.

    Members
    -------
    request : In
        See `read_layout`.
    found : Out
        The answer, `READ` cycles later: the elements that were asked for, in their order.
    valid, piece : In
        What is written; see `piece_layout`. It can be read by a request that comes two cycles later.
    """

    def __init__(self, geometry: Geometry, depth: int, width: int) -> None:
        self.geometry, self.depth, self.width = geometry, depth, width
        super().__init__({
            "request": In(read_layout(geometry)), "found": Out(data.ArrayLayout(geometry.bits, geometry.side)),
            "valid": In(1), "piece": In(piece_layout(geometry, width)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        side, low, bits = self.geometry.side, self.geometry.low, self.geometry.bits
        # Both come from many places, and wait a cycle.
        request = Signal.like(self.request, name="request")
        piece = Signal.like(self.piece, name="piece")
        valid = Signal()
        m.d.sync += [request.eq(self.request), piece.eq(self.piece), valid.eq(self.valid)]
        # Elements are rotated to where they belong among as many banks, and given to all of these.
        turn = least_power(self.width)
        first = Signal(low, name="first")
        places = size_of(turn)
        m.d.comb += first.eq(piece.row + piece.column)
        missing = (turn - self.width)
        given = Cat(piece.elements.as_value(), C(0, missing * bits)) if missing else piece.elements.as_value()
        back = (-first)[:places] if turn > 1 else C(0, 1)
        elements = rotate(m, "elements", given, bits, back) if turn > 1 else given
        live = rotate(m, "live", Cat(piece.live, C(0, missing)), 1, back) if turn > 1 else piece.live
        next_write, next_read = signals("next_write next_read", len(request.block))
        m.d.comb += [next_write.eq(piece.block + 1), next_read.eq(request.block + 1)]

        def beyond(place: Any, bank: int) -> Value:
            """Return whether a bank's element is in the next block."""
            return (C(bank, low) - place.row)[:low] < place.column

        answers = [Signal(bits, name=f"answer{bank}", reset_less=True) for bank in range(side)]
        for bank, answer in enumerate(answers):
            each = memory.Memory(shape=bits, depth=self.depth * side, init=[], attrs=UNCHECKED)
            m.submodules[f"bank{bank}"] = each
            write, read = each.write_port(), each.read_port()
            index = (C(bank, low) - first)[:low]
            near = index < turn if turn < side else C(1, 1)
            m.d.comb += [
                write.addr.eq(Cat(piece.row, Mux(beyond(piece, bank), next_write, piece.block))),
                write.data.eq(elements.word_select(bank % turn, bits)), write.en.eq(valid & near & live[bank % turn]),
                read.addr.eq(Mux(request.down, Cat((C(bank, low) - request.column)[:low], request.block),
                                 Cat(request.row, Mux(beyond(request, bank), next_read, request.block)))),
            ]
            m.d.sync += answer.eq(read.data)
        # Banks answer late in a cycle. In the next one their answers are rotated back, here once for all who ask.
        asked = delayed(m, "asked", (request.row + request.column)[:low], READ - 2)
        if self.geometry.windows:
            asked = (asked - delayed(m, "turn", request.turn, READ - 2))[:low]
        found = delayed(m, "found", rotate(m, "found", Cat(answers), bits, asked), 1)
        m.d.comb += self.found.as_value().eq(found)
        return m


def bank_of(geometry: Geometry, column: Value, plane: Value) -> Value:
    """Return the bank of M that has the number of a column in a plane, from 1 on (combinational)."""
    below = geometry.lanes.bit_length() - 1
    bank = Cat(column[:below], plane[1:])  # there are two planes at the most
    return bank if len(bank) else C(0, 1)


class StateBanks(wiring.Component):
    """M: what is kept beside each parameter of W. Bank j of a plane has columns j, j + lanes and so on, for lane j.

    The banks of plane 1 come first, which are the velocities. Those of plane 2 are the compensations.

    Parameters
    ----------
    geometry : Geometry
    depth : int
        Blocks.
    banks : int, optional
        `Geometry.banks` by default.

    Members
    -------
    request : In
        See `read_layout`. The answer has all lanes' columns around this one.
    found : Out
        The answer, `READ` cycles later, bank by bank.
    valid, piece : In
        What is written: see `piece_layout`. Bank j takes element j, where that is live.
    """

    def __init__(self, geometry: Geometry, depth: int, banks: int | None = None) -> None:
        self.geometry, self.depth, self.banks = geometry, depth, banks or geometry.banks
        super().__init__({
            "request": In(read_layout(geometry)), "found": Out(data.ArrayLayout(geometry.bits, self.banks)),
            "valid": In(1), "piece": In(piece_layout(geometry, self.banks)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        geometry, lanes = self.geometry, self.geometry.lanes
        below = lanes.bit_length() - 1
        request = Signal.like(self.request, name="request")
        piece = Signal.like(self.piece, name="piece")
        valid = Signal()
        m.d.sync += [request.eq(self.request), piece.eq(self.piece), valid.eq(self.valid)]
        # Parameters lie in a memory that others may share.
        base = geometry.memories["W"][1]
        if base:
            m.d.sync += [request.block.eq(self.request.block - base), piece.block.eq(self.piece.block - base)]
        for bank in range(self.banks):
            each = memory.Memory(shape=geometry.bits, depth=self.depth * geometry.side**2 // lanes, init=[],
                                 attrs=UNCHECKED)
            m.submodules[f"bank{bank}"] = each
            write, read = each.write_port(), each.read_port()
            found = delayed(m, f"bank{bank}_found", read.data, READ - 2)
            m.d.comb += [
                write.addr.eq(Cat(piece.column[below:], piece.row, piece.block)), write.data.eq(piece.elements[bank]),
                write.en.eq(valid & piece.live[bank]),
                read.addr.eq(Cat(request.column[below:], request.row, request.block)), self.found[bank].eq(found),
            ]
        return m


def reads(m: Module, name: str, memory_: Any, clients: Sequence[Any]) -> None:
    """Give a memory's read port to the first of its clients that wants it.

    Parameters
    ----------
    m : Module
    name : str
    memory_ : Banks or StateBanks
    clients : sequence of (wanted, request, granted)
        By their priority. `granted` is driven.
    """
    free: Value = C(1, 1)
    chosen: Any = clients[-1][1].as_value()
    for wanted, request, _ in reversed(clients[:-1]):
        chosen = Mux(wanted, request.as_value(), chosen)
    for number, (wanted, _, granted) in enumerate(clients):
        m.d.comb += granted.eq(wanted & free)
        later = Signal(name=f"{name}_free{number}")
        m.d.comb += later.eq(free & ~wanted)
        free = later
    m.d.comb += memory_.request.as_value().eq(chosen)


def writes(m: Module, name: str, memory_: Any, clients: Sequence[Any]) -> None:
    """Give a memory's write port to the first of its clients that has a piece; see `reads`.

    A client's piece may have fewer elements than the memory takes.
    """
    free: Value = C(1, 1)
    target = memory_.piece
    for number, (valid, _, ready) in enumerate(clients):
        m.d.comb += ready.eq(free)
        later = Signal(name=f"{name}_open{number}")
        m.d.comb += later.eq(free & ~valid)
        free = later
    m.d.comb += memory_.valid.eq(~free)
    for field in ("block", "row", "column", "live", "elements"):
        chosen = Value.cast(clients[-1][1][field])
        for valid, piece, _ in reversed(clients[:-1]):
            chosen = Mux(valid, Value.cast(piece[field]), chosen)
        m.d.comb += Value.cast(target[field]).eq(chosen)
