# amaranth: UnusedElaboratable=no
"""A unit of the softmax head: rows of logits become errors, which are scaled, and losses."""

from typing import Any

from amaranth import *
from amaranth.lib import data, fifo, wiring
from amaranth.lib.wiring import In, Out

from ...golden.floating import CastParameters, MultiplierParameters
from ...golden.number_system import LANES
from .. import verilog
from ..floating import FloatCast, FloatMultiplier
from ..pipeline import elastic, signals, stage
from ..softmax import SoftmaxGrad
from .layouts import SIZE, Geometry

__all__ = ["Errors", "logits_layout"]

PIECES = 8  # pieces of logits that wait, or are on their way
VECTORS = 16  # vectors of random words, likewise


def logits_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a piece of a row: its logits, of which the first ones are live; ``targets`` has a 1 for the
    label's. ``last``: the piece ends the row.
    """
    width = geometry.width
    return data.StructLayout({"logits": data.ArrayLayout(geometry.bits, width), "targets": width, "live": width,
                              "last": 1})


class Errors(wiring.Component):
    """Takes rows of logits, one logit in a cycle, and gives as many errors.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    start : In(1)
        Before the first row of an instruction.
    columns, scale : In
        Logits of a row, and what errors are multiplied by. They stay until all errors are there.
    room, asked : Out(1), In(1)
        A piece more can wait here; it was asked for.
    given, piece : In(1), In
        It comes; see `logits_layout`.
    words_room, words_asked, words_given, words : Out(1), In(1), In(1), In
        Likewise a vector of random words, where errors are rounded by them: 16 errors of a row have one.
    valid, ready, elements : Out(1), In(1), Out
        Errors of a row that lie side by side, as many as a piece has, or the last ones of the row.
    loss : Out
        Of a row, for a cycle; else 0.
    invalid, status_clear : Out(1), In(1)
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = g = geometry
        p, own = g.parameters, g.parameters.softmax
        self.softmax = SoftmaxGrad(own, addressed=own.rounding == "stochastic")
        self.multiplier = FloatMultiplier(MultiplierParameters(p.work))
        self.cast = None if own.format == p.work else FloatCast(CastParameters(p.work, result=own.format))
        words: dict[str, Any] = {
            "words_room": Out(1), "words_asked": In(1), "words_given": In(1), "words": In(LANES * own.random_bits),
        } if self.softmax.addressed else {}
        super().__init__({
            "start": In(1), "columns": In(SIZE), "scale": In(g.bits), "room": Out(1), "asked": In(1), "given": In(1),
            "piece": In(logits_layout(g)), **words, "valid": Out(1), "ready": In(1),
            "elements": Out(data.ArrayLayout(g.bits, g.width)), "loss": Out(own.loss.bits - 1), "invalid": Out(1),
            "status_clear": In(1),
        })

    @property
    def text(self) -> str:
        """Verilog of the modules that it instantiates."""
        return verilog.joined((self.softmax, self.multiplier, *([self.cast] if self.cast else [])))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.softmax = softmax = self.softmax
        m.d.comb += [softmax.status_clear.eq(self.status_clear), self.invalid.eq(softmax.invalid)]
        self._give(m)
        if softmax.addressed:
            self._draw(m)
        self._scale(m)
        self._gather(m)
        last = softmax.o.valid & softmax.o.ready & softmax.o.payload.last
        m.d.comb += self.loss.eq(Mux(last, softmax.o.payload.loss, 0))
        return m

    def _give(self, m: Module) -> None:
        """Give the softmax the logits of pieces, one by one."""
        given = self.softmax.i
        taken, end = signals("logit_taken piece_end")
        pieces = _awaited(m, "pieces", PIECES, self.room, self.asked, self.given, self.piece.as_value(), taken & end)
        piece = data.View(self.piece.shape(), pieces.r_data)
        at = Signal(range(max(self.geometry.width, 2)), name="at")
        m.d.comb += end.eq(~(piece.live >> at)[1:].any())
        with m.If(taken):
            m.d.sync += at.eq(Mux(end, 0, at + 1))
        # Shifted whole, and cut then: a reader of the Verilog sees nothing cut without a word.
        logits, bits = piece.logits.as_value(), self.geometry.bits
        rest, targets = Signal.like(logits, name="rest_logits"), Signal.like(piece.targets, name="rest_targets")
        m.d.comb += [rest.eq(logits >> (at * bits)), targets.eq(piece.targets >> at)]
        logit, mark = rest[:bits], Cat(targets[0], piece.last & end)
        if self.cast is None:
            held, takes = elastic(m, "logit", given.ready, valid=pieces.r_rdy, value=logit, mark=mark)
            m.d.comb += [given.valid.eq(held.valid), given.payload.logit.eq(held.value),
                         Cat(given.payload.target, given.payload.last).eq(held.mark),
                         taken.eq(pieces.r_rdy & takes)]
            return
        # In the softmax's own format. What comes with each logit waits beside the cast.
        m.submodules.cast = cast = self.cast
        m.submodules.marks = marks = fifo.SyncFIFO(width=2, depth=PIECES)
        m.d.comb += [
            cast.status_clear.eq(0), cast.i.valid.eq(pieces.r_rdy & marks.w_rdy), cast.i.payload.a.eq(logit),
            taken.eq(cast.i.valid & cast.i.ready), marks.w_data.eq(mark), marks.w_en.eq(taken),
            given.valid.eq(cast.o.valid), cast.o.ready.eq(given.ready), marks.r_en.eq(cast.o.valid & given.ready),
            given.payload.logit.eq(cast.o.payload.value),
            Cat(given.payload.target, given.payload.last).eq(marks.r_data),
        ]

    def _draw(self, m: Module) -> None:
        """Give the softmax its random words: vectors wait before they are needed."""
        softmax, bits = self.softmax, self.softmax.parameters.random_bits
        at = Signal(SIZE, name="drawn")
        lane, last = at[:LANES.bit_length() - 1], at == self.columns - 1
        vectors = _awaited(m, "vectors", VECTORS, self.words_room, self.words_asked, self.words_given, self.words,
                           softmax.draw & (lane.all() | last))
        m.d.comb += softmax.words.eq(vectors.r_data.word_select(lane, bits))
        with m.If(softmax.draw):
            m.d.sync += at.eq(Mux(last, 0, at + 1))
        with m.If(self.start):
            m.d.sync += at.eq(0)

    def _scale(self, m: Module) -> None:
        """Make numbers of the work format of errors, and multiply them by the scale."""
        m.submodules.multiplier = multiplier = self.multiplier
        softmax, p, work = self.softmax, self.softmax.parameters, self.geometry.parameters.work
        error = softmax.o.payload.error
        magnitude = Signal(p.bits, name="magnitude")
        negative = error[-1]
        m.d.comb += magnitude.eq(Mux(negative, -error, error))
        fields = Signal(work.exponent, name="fields")
        shifted = Signal(p.bits, name="shifted")
        for place in range(p.bits):  # the first one counts
            with m.If(magnitude[place]):
                m.d.comb += [fields.eq(work.bias + place - (p.bits - 1)),
                             shifted.eq(magnitude << (p.bits - 1 - place))]
        fraction = shifted[:-1]
        spare = work.mantissa - len(fraction)
        code = Cat(C(0, spare), fraction) if spare >= 0 else fraction[-spare:]
        now = stage(m, softmax.o.ready, "coded", valid=softmax.o.valid, number=Cat(code, fields, negative))
        m.d.comb += [
            softmax.o.ready.eq(~now.valid | multiplier.i.ready), multiplier.i.valid.eq(now.valid),
            multiplier.i.payload.a.eq(now.number), multiplier.i.payload.b.eq(self.scale),
            multiplier.status_clear.eq(0),
        ]

    def _gather(self, m: Module) -> None:
        """Gather errors of a row in a piece."""
        o, width = self.multiplier.o, self.geometry.width
        slot = Signal(range(max(width, 2)), name="slot")
        left = Signal(SIZE, name="left")  # errors of the row, without this one
        goes = self.valid & self.ready
        m.d.comb += o.ready.eq(~self.valid | goes)
        whole = (slot == width - 1) | ~left.any()
        with m.If(o.valid & o.ready):
            m.d.sync += [left.eq(Mux(left.any(), left, self.columns) - 1), slot.eq(Mux(whole, 0, slot + 1)),
                         self.valid.eq(whole)]
            for k in range(width):
                with m.If(slot == k):
                    m.d.sync += self.elements[k].eq(o.payload.value)
        with m.Elif(goes):
            m.d.sync += self.valid.eq(0)
        with m.If(self.start):
            m.d.sync += left.eq(self.columns - 1)


def _awaited(m: Module, name: str, depth: int, room: Signal, asked: Value, given: Value, what: Value, taken: Value
             ) -> fifo.SyncFIFOBuffered:
    """Return a queue. What is `asked` for has its place in it, until it is `taken`."""
    m.submodules[name] = queue = fifo.SyncFIFOBuffered(width=len(what), depth=depth)
    under = Signal(range(depth + 1), name=f"{name}_under")
    # What was asked for in the cycle before is not in `under` yet.
    m.d.sync += room.eq(under < depth - 1)
    m.d.comb += [queue.w_en.eq(given), queue.w_data.eq(what), queue.r_en.eq(taken)]
    m.d.sync += under.eq(under + asked - taken)
    return queue
