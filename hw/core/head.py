# amaranth: UnusedElaboratable=no
"""The core's softmax head: rows of logits are read, errors are scaled and written, losses are added up."""

from typing import Any

from amaranth import *
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from ...base.checks import require
from ...golden.core.transfers import NUMBER
from ...golden.floating import CastParameters, MultiplierParameters
from ...golden.number_system import LANES
from ...golden.words import STAGES, USE, VECTOR, blocks_of
from .. import verilog
from ..floating import FloatCast, FloatMultiplier
from ..pipeline import signals, stage
from ..softmax import SoftmaxGrad
from ..words import AddressedWords
from .cursor import cursor
from .layouts import SIZE, Geometry, piece_layout, place_layout, read_layout
from .memories import READ

__all__ = ["Head"]

WAITING = 8  # pieces of logits on their way, at the most
VECTORS = 16  # vectors of random words that wait, or are on their way


class Head(wiring.Component):
    """Takes a row of logits after the other, one logit in a cycle, and gives as many errors.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start, busy : In, Out
        An instruction, with what follows; it is executed.
    a, labels, to, scale, key, use, vector : In
        Places, and registers; they stay while it is executed.
    wanted, request, granted, found : Out, Out, In, In
        Of the memory that has the logits.
    label, labelled : Out, In
        An address of memory L, which answers a cycle later.
    valid, ready, piece : Out, In, Out
        An error.
    loss, loss_valid, loss_ready : Out, Out, In
        The sum of the losses, when all errors are there.
    invalid, status_clear : Out(1), In(1)
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        p = g.parameters
        self.softmax = SoftmaxGrad(p.softmax, addressed=p.softmax.rounding == "stochastic")
        self.multiplier = FloatMultiplier(MultiplierParameters(p.work))
        own = p.softmax.format
        self.cast = None if own == p.work else FloatCast(CastParameters(p.work, result=own))
        place = place_layout(g)
        require(p.work.bias >= p.softmax.bits, "error_bits", p.softmax.bits,
                f"at most {p.work.bias}, in a circuit, so that no error is a subnormal number")
        super().__init__({
            "start": In(1), "busy": Out(1), "a": In(place), "labels": In(place), "to": In(place), "scale": In(g.bits),
            "key": In(64), "use": In(USE), "vector": In(VECTOR),
            "wanted": Out(1), "request": Out(read_layout(g)), "granted": In(1),
            "found": In(data.ArrayLayout(g.bits, g.side)), "label": Out(SIZE), "labelled": In(SIZE),
            "valid": Out(1), "ready": In(1), "piece": Out(piece_layout(g, g.width)),
            "loss": Out(NUMBER), "loss_valid": Out(1), "loss_ready": In(1), "invalid": Out(1), "status_clear": In(1),
        })

    @property
    def text(self) -> str:
        """Verilog of the modules that it instantiates."""
        return verilog.joined((self.softmax, self.multiplier, *([self.cast] if self.cast else [])))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, bits, a, to = self.geometry, self.geometry.bits, self.a, self.to
        p = g.parameters.softmax
        m.submodules.softmax = softmax = self.softmax
        m.submodules.multiplier = multiplier = self.multiplier
        m.d.comb += [softmax.status_clear.eq(self.status_clear), self.invalid.eq(softmax.invalid)]

        # Logits are asked for in pieces, as long as there is room for them behind.
        asks, busy = signals("asks busy")
        under = Signal(range(WAITING + 1))
        fresh = Signal()  # the row's label is there
        goes = self.wanted & self.granted
        read = cursor(m, "read", g, a, start=self.start, moves=goes, step=g.width)
        m.d.comb += [
            *(self.request[name].eq(getattr(read, name)) for name in ("block", "row", "column")),
            self.wanted.eq(asks & fresh & (under != WAITING)),
            self.label.eq(Cat(self.labels.left + read.line)[:SIZE] + (self.labels.block << 8)),
        ]
        m.d.sync += fresh.eq(asks & ~(goes & read.last))
        with m.If(goes & read.end):
            m.d.sync += asks.eq(0)
        offset = Signal(SIZE, name="offset")
        m.d.comb += offset.eq(self.labelled - read.at)
        now = stage(m, 1, "asked", valid=goes, last=read.last,
                    live=Cat(read.rest > k for k in range(g.width)), targets=Cat(offset == k for k in range(g.width)))
        for step in range(1, READ):
            now = stage(m, 1, f"read{step}", now)
        entry = data.StructLayout({"logits": data.ArrayLayout(bits, g.width), "targets": g.width, "live": g.width,
                                   "last": 1})
        m.submodules.pieces = pieces = fifo.SyncFIFOBuffered(width=entry.size, depth=WAITING)
        head = data.View(entry, pieces.r_data)
        m.d.comb += [pieces.w_en.eq(now.valid), pieces.w_data.eq(
            Cat(*(self.found[k] for k in range(g.width)), now.targets, now.live, now.last))]
        # They go on one by one.
        at = Signal(range(max(g.width, 2)), name="at")
        end, taken = signals("piece_end logit_taken")
        mark = Cat(head.targets.bit_select(at, 1), head.last & end)
        m.d.comb += [end.eq(~(head.live >> at)[1:].any()), pieces.r_en.eq(taken & end)]
        with m.If(taken):
            m.d.sync += at.eq(Mux(end, 0, at + 1))
        given = softmax.i
        if self.cast:
            self._rounded(m, pieces.r_rdy, taken, head.logits[at], mark)
        else:
            m.d.comb += [given.valid.eq(pieces.r_rdy), taken.eq(given.valid & given.ready),
                         given.payload.logit.eq(head.logits[at]),
                         Cat(given.payload.target, given.payload.last).eq(mark)]
        m.d.sync += under.eq(under + goes - (taken & end))

        # Errors become numbers of the work format, which are multiplied by the scale.
        error = softmax.o.payload.error
        magnitude = Signal(p.bits, name="magnitude")
        negative = error[-1]
        moved = softmax.o.valid & softmax.o.ready
        m.d.comb += magnitude.eq(Mux(negative, -error, error))
        work = g.parameters.work
        fields = Signal(work.exponent, name="fields")
        shifted = Signal(p.bits, name="shifted")
        for place in range(p.bits):  # the first one counts
            with m.If(magnitude[place]):
                m.d.comb += [fields.eq(work.bias + place - (p.bits - 1)),
                             shifted.eq(magnitude << (p.bits - 1 - place))]
        fraction = shifted[:-1]
        scaled, number = Signal(name="scaled"), Signal(work.width, name="number", reset_less=True)
        spare = work.mantissa - len(fraction)
        code = Cat(C(0, spare), fraction) if spare >= 0 else fraction[-spare:]
        free = ~multiplier.i.valid | multiplier.i.ready
        with m.If(free):
            m.d.sync += [scaled.eq(softmax.o.valid), number.eq(Cat(code, fields, negative))]
        m.d.comb += [
            softmax.o.ready.eq(free), multiplier.i.valid.eq(scaled), multiplier.i.payload.a.eq(number),
            multiplier.i.payload.b.eq(self.scale), multiplier.status_clear.eq(0),
        ]
        with m.If(moved & softmax.o.payload.last):
            m.d.sync += self.loss.eq(self.loss + softmax.o.payload.loss)

        # Errors of a row gather in a piece. Where they go.
        goes = self.valid & self.ready
        write = cursor(m, "write", g, to, start=self.start, moves=goes, step=g.width)
        m.d.comb += [
            *(self.piece[name].eq(getattr(write, name)) for name in ("block", "row", "column")),
            self.piece.live.eq(Cat(write.rest > k for k in range(g.width))), multiplier.o.ready.eq(~self.valid | goes),
        ]
        slot = Signal(range(max(g.width, 2)), name="slot")
        left = Signal(SIZE, name="left")  # errors of the row, without this one
        comes = multiplier.o.valid & multiplier.o.ready
        whole = (slot == g.width - 1) | ~left.any()
        with m.If(comes):
            m.d.sync += [left.eq(Mux(left.any(), left, to.columns) - 1), slot.eq(Mux(whole, 0, slot + 1)),
                         self.valid.eq(whole)]
            for k in range(g.width):
                with m.If(slot == k):
                    m.d.sync += self.piece.elements[k].eq(multiplier.o.payload.value)
        with m.Elif(goes):
            m.d.sync += self.valid.eq(0)
        with m.If(self.start):
            m.d.sync += [asks.eq(1), busy.eq(1), self.loss.eq(0), left.eq(to.columns - 1)]
        with m.If(goes & write.end):
            m.d.sync += self.loss_valid.eq(1)
        with m.If(self.loss_valid & self.loss_ready):
            m.d.sync += [self.loss_valid.eq(0), busy.eq(0)]
        m.d.comb += self.busy.eq(busy)
        if p.rounding == "stochastic":
            self._words(m)
        return m

    def _words(self, m: Module) -> None:
        """Give the head its random words: 16 errors of a row have a vector, which waits before it is needed."""
        p, a, softmax = self.geometry.parameters.softmax, self.a, self.softmax
        bits = p.mode.bits
        m.submodules.random = random = AddressedWords(lanes=LANES, bits=bits)
        m.submodules.words = vectors = fifo.SyncFIFO(width=LANES * bits, depth=VECTORS)
        # Vectors are asked for row by row, as long as there is room for them.
        asks = Signal(name="asks")
        under = Signal(range(VECTORS + 1), name="under")
        number = Signal(VECTOR, name="number")
        row = Signal(SIZE, name="word_row")
        column = Signal(SIZE + 1, name="word_column")
        goes, pops = signals("word_asked word_taken")
        below = blocks_of(LANES, bits).bit_length() - 1
        m.d.comb += [
            goes.eq(asks & (under != VECTORS)), random.key.eq(self.key),
            random.index.eq(Cat(C(0, below), number[:VECTOR - below], self.use)),
        ]
        with m.If(goes):
            m.d.sync += [number.eq(number + 1), column.eq(column + LANES)]
            with m.If(column + LANES >= a.columns):
                m.d.sync += [column.eq(0), row.eq(row + 1), asks.eq(row != a.rows - 1)]
        now = stage(m, 1, "word0", valid=goes)
        for step in range(1, STAGES):
            now = stage(m, 1, f"word{step}", now)
        m.d.comb += [vectors.w_data.eq(random.words), vectors.w_en.eq(now.valid), vectors.r_en.eq(pops)]
        m.d.sync += under.eq(under + goes - pops)
        at = Signal(SIZE, name="drawn")
        m.d.comb += [softmax.words.eq(vectors.r_data.word_select(at[:LANES.bit_length() - 1], bits)),
                     pops.eq(softmax.draw & (at[:LANES.bit_length() - 1].all() | (at == a.columns - 1)))]
        with m.If(softmax.draw):
            m.d.sync += at.eq(Mux(at == a.columns - 1, 0, at + 1))
        with m.If(self.start):
            m.d.sync += [asks.eq(1), number.eq(self.vector), row.eq(0), column.eq(0), at.eq(0)]

    def _rounded(self, m: Module, valid: Value, taken: Signal, logit: Value, mark: Value) -> None:
        """Give logits to the softmax in its own format; what comes with each waits beside the cast."""
        m.submodules.cast = cast = self.cast
        assert cast is not None
        m.submodules.marks = marks = fifo.SyncFIFO(width=2, depth=WAITING)
        given = self.softmax.i
        m.d.comb += [
            cast.status_clear.eq(0), cast.i.valid.eq(valid & marks.w_rdy), cast.i.payload.a.eq(logit),
            taken.eq(cast.i.valid & cast.i.ready), marks.w_data.eq(mark), marks.w_en.eq(taken),
            given.valid.eq(cast.o.valid), cast.o.ready.eq(given.ready), marks.r_en.eq(cast.o.valid & given.ready),
            given.payload.logit.eq(cast.o.payload.value),
            Cat(given.payload.target, given.payload.last).eq(marks.r_data),
        ]
