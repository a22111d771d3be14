"""The core's precision control: what takes the place of the precision that an operand's mode has."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS, OPCODE, WORD
from ...golden.core.report import ERRORS
from ...golden.precision import NARROW, WIDE
from .cycles import Cycles
from .issue import CODES, error_of
from .layouts import Geometry
from .statistics import CHOICE, choice_layout
from .thresholds import Thresholds

__all__ = ["POLICY", "Precisions"]

# Instructions of each policy.
POLICY = {"constant": (), "cyclic": ("cyclic", "edge"), "adaptive": ("adaptive", "slope", "divisor")}
OPERATION, CYCLE, LAYERS = map(error_of, ("an operation", "a cycle", "a layer beyond"))


class Precisions(wiring.Component):
    """Chooses precisions as the core's policies do.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    word : In(WORD)
        The instruction at hand.
    execute, error : In, Out
        An instruction of a policy is executed. Or why it cannot be.
    busy : Out(1)
        The step of training must not change, and no instruction of a policy be executed.
    next, anew, step : In
        See `Cycles`.
    measured : In(1)
        Accuracy is measured: no precision is chosen.
    clear, index : In
        Before a program: what lies at `index` begins anew.
    asks, kind, use : In
        The precision of an operand is wanted, until it is `answered`: its kind, and the GEMM's ``use``.
    answered, chosen, width, adaptive : Out
        Whether a precision takes the place of its mode's, and which; whether the tensor has chosen it.
    choose, choice, choosable, decided, decided_wide, undecided
        If tensors may choose: see `Thresholds`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__({
            "word": In(WORD), "execute": In(1), "error": Out(range(len(ERRORS))), "busy": Out(1), "next": In(1),
            "anew": In(1), "step": In(FIELDS["value"][0]), "measured": In(1), "clear": In(1),
            "index": In(FIELDS["kind"][0] + FIELDS["layer"][0]),
            "asks": In(1), "kind": In(FIELDS["kind"][0]), "use": In(FIELDS["use"][0]),
            "answered": Out(1), "chosen": Out(1), "adaptive": Out(1),
            "width": Out(geometry.parameters.system.modes["precision"]),
            **({"choose": Out(1), "choice": Out(choice_layout(geometry)), **dict.fromkeys(CHOICE, In(1))}
               if geometry.adaptive else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        chosen, there, width = C(0, 1), C(1, 1), C(0, 1)
        if "cyclic" in self.geometry.parameters.policies:
            m.submodules.cycles = cycles = Cycles(self.geometry)
            mine, cycling = self._is("cyclic"), Signal()
            m.d.comb += [
                cycles.word.eq(self.word), cycles.execute.eq(self.execute & mine), cycles.next.eq(self.next),
                cycles.anew.eq(self.anew), cycles.step.eq(self.step), cycles.clear.eq(self.clear),
                cycling.eq(cycles.given.bit_select(self.kind, 1) & ~self.measured),
            ]
            chosen, there, width = cycling, cycles.settled | ~cycling, cycles.widths[self.kind]
            with m.If(mine & cycles.wrong):
                m.d.comb += self.error.eq(CYCLE)
        if self.geometry.adaptive:
            m.submodules.thresholds = thresholds = Thresholds(self.geometry)
            mine = self._is("adaptive")
            m.d.comb += [
                *(getattr(thresholds, name).eq(getattr(self, name))
                  for name in ("word", "next", "step", "clear", "index", "kind", "use", "measured", *CHOICE)),
                thresholds.asks.eq(self.asks & there), thresholds.execute.eq(self.execute & mine),
                self.busy.eq(thresholds.busy), self.choose.eq(thresholds.choose), self.choice.eq(thresholds.choice),
                self.adaptive.eq(thresholds.chosen),
            ]
            chosen, there = chosen | thresholds.chosen, thresholds.answered
            width = Mux(thresholds.chosen, Mux(thresholds.wide, WIDE, NARROW), width)
            with m.If(mine & thresholds.wrong):
                m.d.comb += self.error.eq(OPERATION)
            with m.Elif(mine & thresholds.beyond):
                m.d.comb += self.error.eq(LAYERS)
        m.d.comb += [self.answered.eq(there), self.chosen.eq(chosen), self.width.eq(width)]
        return m

    def _is(self, policy: str) -> Value:
        """Return whether the instruction at hand is one of a policy."""
        return Cat(self.word[:OPCODE] == CODES[name] for name in POLICY[policy]).any()
