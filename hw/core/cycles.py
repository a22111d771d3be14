"""The core's precisions that follow cycles: of each kind of tensor, where in its period the step of training is."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS, KINDS, OPCODE, WORD
from ...golden.core.sequencer import EDGES
from .issue import CODES
from .layouts import Geometry, fields_of

__all__ = ["Cycles"]

VALUE, LOW = FIELDS["value"][0], FIELDS["bits"][0]
PERIOD, POSITION = 0, EDGES + 1  # of a kind, in the memory; the edges lie between them
INDEX = POSITION.bit_length()


class Cycles(wiring.Component):
    """Holds period and edges of each kind, and counts the edges that the step of training has reached in its period.

    The position in the period goes on with the step. Where the step is set, or a period is given, it is the remainder
    of a division, which makes a bit in a cycle. All is made kind by kind, with one adder and one comparator.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    word : In(WORD)
        The instruction at hand.
    execute, wrong : In(1), Out(1)
        A ``cyclic`` or an ``edge`` is executed. It is wrong: there is no such kind, no period, or no room for an edge.
    next, anew : In(1)
        The step of training is the next one from the next cycle on; it may be any.
    step : In
        Of training.
    clear : In(1)
        Before a program: no kind follows a cycle.
    given : Out
        A bit for each kind: it follows a cycle.
    widths : Out
        Of each kind.
    settled : Out(1)
        These are those of the step.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.mantissa = geometry.parameters.system.mantissa
        super().__init__({
            "word": In(WORD), "execute": In(1), "wrong": Out(1), "next": In(1), "anew": In(1),
            "step": In(VALUE), "clear": In(1), "given": Out(len(KINDS)),
            "widths": Out(data.ArrayLayout(self.mantissa.bit_length(), len(KINDS))), "settled": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        given, edge, adds = fields_of(self.word, "cyclic"), fields_of(self.word, "edge"), Signal()
        of = given["kind"]  # of an edge, too
        lows = Array(Signal(LOW, name=f"low_{kind}") for kind in KINDS)
        counts = Array(Signal(range(EDGES + 1), name=f"edges_{kind}") for kind in KINDS)
        m.submodules.words = words = memory.Memory(shape=VALUE, depth=len(KINDS) << INDEX, init=[],
                                                   attrs={"ram_style": "distributed"})
        write, read = words.write_port(), words.read_port(domain="comb")
        kind, index = Signal(range(len(KINDS)), name="kind"), Signal(INDEX, name="index")
        rest = Signal(VALUE, name="rest")
        m.d.comb += [
            adds.eq(self.word[:OPCODE] == CODES["edge"]), read.addr.eq(Cat(index, kind)),
            self.wrong.eq((of >= len(KINDS)) | Mux(adds, ~self.given.bit_select(of, 1) | (counts[of] == EDGES),
                                                   ~given["period"].any())),
            write.en.eq(self.execute), write.addr.eq(Cat(Mux(adds, counts[of] + 1, PERIOD)[:INDEX], of)),
            write.data.eq(Mux(adds, edge["value"], given["period"])),
        ]
        with m.If(self.execute & adds):
            m.d.sync += counts[of].eq(counts[of] + 1)
        with m.Elif(self.execute):
            m.d.sync += [lows[of].eq(given["low"]), counts[of].eq(0), self.given.bit_select(of, 1).eq(1)]
        with m.If(self.clear):
            m.d.sync += self.given.eq(0)

        divides = Signal()
        period, dividend = Signal(VALUE, name="period"), Signal(VALUE, name="dividend")
        left = Signal(range(VALUE), name="left")
        width = Signal(range((1 << LOW) + EDGES), name="width")
        total, above = Signal(VALUE + 1, name="total"), Signal(VALUE + 2, name="above")
        m.d.comb += [total.eq(Mux(divides, Cat(dividend[-1], rest), rest + 1)), above.eq(total - period)]

        def begins() -> None:
            """Begin, or begin again: then the position is not that of the step before."""
            with m.If(self.next | self.anew | self.execute):
                m.d.sync += [kind.eq(0), index.eq(PERIOD), divides.eq(self.anew | self.execute | ~self.settled)]
                m.next = "PERIOD"

        with m.FSM(name="state"):
            with m.State("SETTLED"):
                m.d.comb += self.settled.eq(1)
                begins()
            with m.State("PERIOD"):
                m.d.sync += [period.eq(read.data), index.eq(POSITION)]
                m.next = "POSITION"
                begins()
            with m.State("POSITION"):
                # Behind the last step comes step 0.
                whole = divides | ~self.step.any()
                m.d.sync += [rest.eq(read.data), left.eq(0), dividend.eq(self.step), width.eq(lows[kind]),
                             divides.eq(whole)]
                with m.If(whole):
                    m.d.sync += [rest.eq(0), left.eq(VALUE - 1)]
                m.next = "REDUCE"
                begins()
            with m.State("REDUCE"):
                m.d.sync += [rest.eq(Mux(above[-1], total, above)), dividend.eq(dividend << 1), left.eq(left - 1)]
                with m.If(left == 0):
                    m.next = "KEEP"
                begins()
            with m.State("KEEP"):
                with m.If(~self.execute):
                    m.d.comb += [write.en.eq(1), write.addr.eq(Cat(C(POSITION, INDEX), kind)), write.data.eq(rest)]
                m.d.sync += index.eq(1)
                m.next = "COUNT"
                begins()
            with m.State("COUNT"):
                m.d.sync += [index.eq(index + 1),
                             width.eq(width + ((index <= counts[kind]) & (rest >= read.data)))]
                with m.If(index == POSITION):
                    m.d.sync += [width.eq(width), index.eq(PERIOD), kind.eq(kind + 1), self.widths[kind].eq(
                        Mux(width > self.mantissa, self.mantissa, width))]
                    m.next = "PERIOD"
                    with m.If(kind == len(KINDS) - 1):
                        m.next = "SETTLED"
                begins()
        return m
