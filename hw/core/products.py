# amaranth: UnusedElaboratable=no
"""The core's products: the array without a memory of its own."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.array import FETCH, SIZE
from ...golden.core.instructions import FIELDS
from ...golden.words import USE, VECTOR
from .. import verilog
from ..array.cells import CELL, begin, multiply, rows_first
from ..array.grid import FreeCell
from ..array.path import Path
from ..array.walker import Walker
from ..circuits import circuits_of
from ..pipeline import elastic, signals
from .bands import Bands, either
from .codes import array_of
from .gather import result_layout
from .issue import drive_kind
from .layouts import Geometry, read_layout
from .memories import READ
from .patches import Patches, tensor_layout
from .scales import Scales
from .statistics import CHOICE, Counting, choice_layout, key_of

__all__ = ["Products", "product_layout"]


def product_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a product: that of the array's instruction, and what the core has beside it."""
    operand = data.StructLayout({"block": geometry.block, "stride": geometry.block, "transposed": 1,
                                 "first": geometry.low, **({"along": geometry.along} if geometry.along else {}),
                                 "source": 1, **geometry.system.modes, "vector": VECTOR,
                                 **({"counts": 1} if geometry.adaptive else {}),
                                 **({"given": 1} if geometry.scaled else {}),
                                 **({"tensor": tensor_layout(geometry)} if geometry.windows else {})})
    return data.StructLayout({"m": SIZE, "n": SIZE, "k": SIZE, "first": 1, "last": 1, "a": operand, "b": operand,
                              "use": USE, "pitch": VECTOR, "key": 64})


class Products(wiring.Component):
    """Multiplies matrices from the core's memories: walkers, converters, buffers and cells of the array.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    i : In(stream)
        A product; see `product_layout`. It is taken when the operands of the one before have been read.
    o : Out(stream)
        See `result_layout`.
    wanted, request, granted : Out, Out, In
        Of each converter: a request to a memory, ``source`` tells to which one. See `Geometry.memories`: with two
        converters, operand a is in X or, with a source of 1, in D, and operand b in W or X.
    found : In
        Of each converter, `READ` cycles later: the answers of both memories.
    starved, blocked : Out(1)
        The cells have a product, and wait for operands; for room for their results.
    reading : Out(1)
        Operands are being read.
    taken : Out(1)
        The cells begin with the latest product. Where it has another key, they have done all before it.
    cells_invalid, cells_overflow : Out(1)
        Status of the cells alone: of the product that they took last. That of the converters is of the latest product.
    invalid, overflow, exceeded, status_clear
        As in `CellArray`.
    choose, choice, clear, choosable, decided, decided_wide, undecided
        If tensors may choose their precisions: see `Counting`.
    waits : In(1)
        Likewise: there is a product that has not come yet.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        p = geometry.parameters
        # The memory of the array's parameters is as large as the core's largest.
        largest = max(geometry.depths.values()) * geometry.side**2
        self.parameters = array_of(p, buffer=p.buffer, memory=1 << (largest - 1).bit_length())
        self.cell = FreeCell(circuits_of(geometry.system).cell(geometry.system.cell(p.sums)))
        found = data.ArrayLayout(geometry.bits, geometry.side)
        sides = range(p.converters)
        super().__init__({
            "i": In(stream.Signature(product_layout(geometry))),
            "o": Out(stream.Signature(result_layout(self.parameters))),
            **{f"wanted{side}": Out(1) for side in sides}, **{f"granted{side}": In(1) for side in sides},
            **{f"request{side}": Out(read_layout(geometry)) for side in sides},
            **{f"source{side}": Out(2) for side in sides},
            **{f"found{side}": In(found) for side in sides},
            "starved": Out(1), "blocked": Out(1), "reading": Out(1), "taken": Out(1),
            "cells_invalid": Out(1), "cells_overflow": Out(1),
            "invalid": Out(1), "overflow": Out(1), "exceeded": Out(1), "status_clear": In(1),
            **({"choose": In(1), "choice": In(choice_layout(geometry)), "clear": In(1), "waits": In(1),
                **dict.fromkeys(CHOICE, Out(1))} if geometry.adaptive else {}),
        })

    @property
    def text(self) -> str:
        """Verilog of the cell's module."""
        return "\n(* keep_hierarchy *)\n" + verilog.emit(self.cell, CELL)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, p, product = self.geometry, self.parameters, self.i.payload
        waiting, taken, starts, under_way = signals("waiting taken starts under_way")
        # What the walkers begin with.
        walked, scales, ready = product, None, starts
        if g.scaled:
            m.submodules.scales = scales = Scales(g, product.shape())
            walked, ready = scales.product, scales.done
        walkers = [Walker(p, side, span=g.side, bands=g.windows) for side in (0, 1)]
        m.submodules.rows, m.submodules.columns = rows, columns = walkers
        paths = self._paths(m)
        sources = [Signal(name=f"{side}_source") for side in "ab"]
        counts = self._counts(m, starts) if g.adaptive else [{}, {}]
        steps = [{"source": Cat(sources[side], C(side, 1)), **counts[side]} for side in (0, 1)]
        # A vector waits here for its turn at a memory, so that no walker does in the same cycle.
        free = [Signal(name=f"free{side}") for side in range(p.converters)]
        bands = list[Bands]()
        if g.windows:
            patches = self._patches(m, walked, ready, walkers)
            bands = [Bands(m, g, side, walkers, patches, counts) for side in range(p.converters)]
            asked = [each.segments(free[side], steps) for side, each in enumerate(bands)]
        else:
            asked = self._asked(m, walkers, steps, free)
        held = [self._read(m, side, path, free[side], asked[side]) for side, path in enumerate(paths)]
        given = [each.vectors(held[side].goes, held[side], paths[side], getattr(self, f"found{side}"))
                 for side, each in enumerate(bands)] or held
        if scales:
            for side in range(p.converters):
                self._scan(m, scales, side, held[side], sources)
        m.d.comb += under_way.eq(Cat(walker.go for walker in walkers).any() |
                                 Cat(*(each.valid for each in held), *(each.going for each in bands)).any())

        # A product of another key waits until no vector is under way: no word is needed later.
        quiet = _rests(m, "quiet", under_way, paths[0].fetch + paths[0].delay + 2)
        key, alike = Signal(64, name="key"), Signal(name="alike")
        # The keys are compared in the cycle before: an instruction is handed out some cycles after its key is there.
        m.d.sync += alike.eq(key == product.key)
        m.d.comb += [
            self.i.ready.eq(rows.idle & columns.idle & ~waiting & (alike | quiet)),
            starts.eq(self.i.valid & self.i.ready), self.reading.eq(~rows.idle | ~columns.idle | under_way | waiting),
            *(path.key.eq(key) for path in paths if p.system.random),
            rows.first.eq(walked.a.first), columns.first.eq(walked.b.first),
        ]
        if g.along:
            m.d.comb += [rows.along.eq(walked.a.along), columns.along.eq(walked.b.along)]
        if scales:
            m.d.comb += [scales.start.eq(starts), scales.given.eq(product)]
            with m.If(scales.busy):
                m.d.comb += [self.i.ready.eq(0), self.reading.eq(1)]
        other = Signal(name="other")  # the product that waits has another key than the one in the cells
        with m.If(taken):
            m.d.sync += other.eq(0)
        with m.If(starts):
            m.d.sync += [key.eq(product.key), sources[0].eq(product.a.source), sources[1].eq(product.b.source),
                         other.eq(~alike)]
        if g.adaptive:
            self._count(m, paths, given, rows.idle & columns.idle & ~under_way & ~self.waits, under_way)
        queued = begin(m, p, walked, ready, walkers, waiting, taken)
        admitted = Signal(name="admitted")
        now = multiply(self, m, self.cell, p, walkers, paths, queued, admitted, taken)
        # So the status of the cells is always of one step.
        calm = _rests(m, "calm", now.there | now.fed, p.system.cell(p.sums).latency + 2)
        m.d.comb += [
            admitted.eq(waiting & (~other | calm)), self.taken.eq(taken), self.starved.eq(now.starved),
            self.blocked.eq(now.blocked), self.cells_invalid.eq(now.status["invalid"]),
            self.cells_overflow.eq(now.status["overflow"]),
        ]
        return m

    def _paths(self, m: Module) -> list[Path]:
        """Return the converters."""
        g, p = self.geometry, self.parameters
        keys = [g.key_bits(side) if g.adaptive else None for side in range(p.converters)]
        paths = [Path(p, side, fetch=FETCH + READ - 2, span=g.side, keys=keys[side]) for side in range(p.converters)]
        for side, path in enumerate(paths):
            m.submodules[f"path{side}"] = path
            m.d.comb += path.status_clear.eq(self.status_clear)
        return paths

    @staticmethod
    def _asked(m: Module, walkers: list[Walker], steps: list[dict], room: list[Signal]) -> list[dict]:
        """Let the walkers go on, and return what each converter is asked for. Both may share one."""
        rows, columns = walkers
        shared = len(room) == 1
        if shared:
            turn = rows_first(rows, columns)
            takes = [rows.wants & turn & room[0], columns.wants & ~turn & room[0]]
        else:
            takes = [walker.wants & room[side] for side, walker in enumerate(walkers)]
        m.d.comb += [walker.go.eq(take) for walker, take in zip(walkers, takes)]
        if not shared:
            return [{"valid": walker.wants, "vector": walker.vector.as_value(), **steps[side]}
                    for side, walker in enumerate(walkers)]
        asked = {"valid": Mux(turn, rows.wants, columns.wants), **either(m, turn, walkers, steps)}
        return [asked]

    def _read(self, m: Module, side: int, path: Path, free: Signal, asked: dict) -> SimpleNamespace:
        """Read a converter's vectors from its memories; return the vector that waits for them."""
        g, granted = self.geometry, getattr(self, f"granted{side}")
        request, found = getattr(self, f"request{side}"), getattr(self, f"found{side}")
        now, goes_on = elastic(m, f"held{side}", granted, **asked)
        now.goes = granted & now.valid if g.scaled else granted  # what a search for scales is granted is no vector
        vector = data.View(path.vector.shape(), now.vector)
        inside: Any = 0
        if g.along:  # there are several vectors in a block's row
            inside = Cat(C(0, g.low - g.along), vector.inside)
        m.d.comb += [
            free.eq(goes_on), getattr(self, f"wanted{side}").eq(now.valid),
            getattr(self, f"source{side}").eq(now.source), path.valid.eq(now.goes), path.vector.eq(vector),
            request.block.eq(vector.block), request.down.eq(vector.transposed),
            request.row.eq(Mux(vector.transposed, inside, vector.index)),
            request.column.eq(Mux(vector.transposed, vector.index, inside)),
            Value.cast(path.elements).eq(Value.cast(found)),
        ]
        if g.windows:
            with m.If(~now.plain):
                m.d.comb += [request[name].eq(getattr(now, name))
                             for name in ("block", "row", "column", "down", "turn")]
        return now

    def _scan(self, m: Module, scales: Scales, side: int, held: SimpleNamespace, sources: list[Signal]) -> None:
        """Let the search for scales use a converter's memories, once no vector waits there."""
        own = {name: getattr(scales, f"{name}{side}") for name in ("wanted", "granted", "request", "found")}
        m.d.comb += own["found"].eq(getattr(self, f"found{side}"))
        second = C(1, 1) if side else scales.second
        with m.If(scales.busy & ~held.valid):
            m.d.comb += [
                getattr(self, f"wanted{side}").eq(own["wanted"]), getattr(self, f"request{side}").eq(own["request"]),
                own["granted"].eq(getattr(self, f"granted{side}")),
                getattr(self, f"source{side}").eq(Cat(Mux(second, sources[1], sources[0]), second)),
            ]

    def _patches(self, m: Module, product: Any, starts: Value, walkers: list[Walker]) -> list[Patches]:
        """Return the walks through both operands' windows."""
        found = []
        for name, operand, rows, walker in (("a", product.a, product.m, walkers[0]),
                                            ("b", product.b, product.n, walkers[1])):
            bands = self.parameters.tile[walker.side] // walker.band_lines
            m.submodules[f"{name}_patches"] = patches = Patches(self.geometry, walker.band, bands)
            m.d.comb += [patches.start.eq(starts), patches.tensor.eq(operand.tensor),
                         patches.across.eq(operand.transposed), patches.length.eq(product.k), patches.rows.eq(rows),
                         walker.banded.eq(patches.banded)]
            found.append(patches)
        return found

    def _counts(self, m: Module, starts: Value) -> list[dict[str, Signal]]:
        """Return whether each operand is counted, and for which tensor."""
        g, product = self.geometry, self.i.payload
        sides = []
        for side, (name, operand) in enumerate((("a", product.a), ("b", product.b))):
            converter = min(side, g.parameters.converters - 1)
            counts = Signal(name=f"{name}_counts")
            key = Signal(g.key_bits(converter), name=f"{name}_key")
            kind = Signal(FIELDS["kind"][0], name=f"{name}_kind")
            drive_kind(m, kind, product.use, lambda *kinds, side=side: kinds[side])
            with m.If(starts):
                m.d.sync += [counts.eq(operand.counts), key.eq(key_of(g, converter, kind, product.use[3:3 + g.layer]))]
            sides.append({"counts": counts, "key_of": key})
        return sides

    def _count(self, m: Module, paths: list[Path], given: list[SimpleNamespace], quiet: Value, going: Value) -> None:
        """Count the groups of operands, and choose of them."""
        m.submodules.counting = counting = Counting(self.geometry, paths[0].counting + 1)
        for number, path in enumerate(paths):
            group = getattr(counting, f"group{number}")
            m.d.comb += [path.counts.eq(given[number].counts), path.key_of.eq(given[number].key_of),
                         *(group[name].eq(getattr(path, name)) for name, _ in group.shape())]
        m.d.comb += [
            counting.going.eq(going), counting.quiet.eq(quiet),
            counting.choose.eq(self.choose), counting.choice.eq(self.choice), counting.clear.eq(self.clear),
            *(getattr(self, name).eq(getattr(counting, name)) for name in CHOICE),
        ]


def _rests(m: Module, name: str, works: Value, cycles: int) -> Value:
    """Return whether nothing has worked for some cycles, which are counted."""
    count = Signal(range(cycles + 1), name=name)
    with m.If(works):
        m.d.sync += count.eq(0)
    with m.Elif(count != cycles):
        m.d.sync += count.eq(count + 1)
    return count == cycles
