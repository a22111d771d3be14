"""The core's precisions that tensors choose: thresholds, which fall from step to step, and the latest choices."""

from typing import Any

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden.core.instructions import FIELDS, KINDS, OPCODE, WORD
from ...golden.core.sequencer import CODE
from ...golden.precision import FRACTION
from .issue import CODES
from .layouts import Geometry, fields_of
from .statistics import CHOICE, choice_layout

__all__ = ["Thresholds"]

KIND, LAYER, WIDE = (FIELDS[name][0] for name in ("kind", "layer", "wide"))
LUTS = {"ram_style": "distributed"}


class Thresholds(wiring.Component):
    """Has a threshold for each kind of tensor and layer, and asks for a choice at a tensor's first use in a step.

    A threshold is a whole code and a rest, each of 48 bits. With the next step of training all fall, one behind the
    other.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    word : In(WORD)
        The instruction at hand.
    execute, wrong : In(1), Out(1)
        An ``adaptive``, ``slope`` or ``divisor`` is executed. It cannot be: there is no such kind.
    beyond : Out(1)
        It cannot be: there is no such layer.
    next, step : In
        The step of training is the next one from the next cycle on; the step.
    busy : Out(1)
        Thresholds are falling: none of these instructions, and no further step.
    clear, index : In
        Before a program: what lies at `index` is not there any more.
    asks, kind, use : In
        The precision of an operand is wanted, until it is `answered`.
    measured : In(1)
        Accuracy is measured.
    answered, chosen, wide : Out(1)
        Whether the tensor chooses its precision, and whether that is of 4 bits.
    choose, choice : Out
        Choose from what was counted; see `Counting`.
    choosable, decided, decided_wide, undecided : In(1)
        That can be; it is done; the tensor gets 4 bits. No group was counted: it gets what
        its ``adaptive`` tells.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__({
            "word": In(WORD), "execute": In(1), "wrong": Out(1), "beyond": Out(1), "next": In(1),
            "step": In(FIELDS["value"][0]), "busy": Out(1), "clear": In(1), "index": In(KIND + LAYER),
            "asks": In(1), "kind": In(KIND), "use": In(FIELDS["use"][0]), "measured": In(1),
            "answered": Out(1), "chosen": Out(1), "wide": Out(1),
            "choose": Out(1), "choice": Out(choice_layout(geometry)), **dict.fromkeys(CHOICE, In(1)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        low = self.geometry.layer
        threshold = data.StructLayout({"known": 1, "wide": 1, "code": signed(WIDE), "rest": WIDE})
        slope = data.StructLayout({"code": signed(CODE.bit_length() + 1), "rest": WIDE})
        choice = data.StructLayout({"known": 1, "wide": 1, "step": len(self.step)})
        ports = {}
        for name, shape, bits in (("threshold", threshold, KIND + low), ("slope", slope, KIND),
                                  ("divisor", WIDE, KIND), ("latest", choice, KIND + low)):
            m.submodules[f"{name}s"] = each = memory.Memory(shape=shape, depth=1 << bits, init=[], attrs=LUTS)
            ports[name] = each.write_port(), each.read_port(domain="comb")
        writes, found = ({name: port[side] for name, port in ports.items()} for side in (0, 1))

        # Instructions, and the beginning of a program.
        fields = {name: fields_of(self.word, name) for name in ("adaptive", "slope", "divisor")}
        is_ = {name: self.word[:OPCODE] == CODES[name] for name in fields}
        given, falls, parts = fields.values()
        cleared = Cat(self.index[:low], self.index[LAYER:])
        m.d.comb += [
            self.wrong.eq(given["kind"] >= len(KINDS)), self.beyond.eq(is_["adaptive"] & given["layer"][low:].any()),
            *(each.en.eq(self.clear) for each in writes.values()),
            *(writes[name].addr.eq(cleared) for name in ("threshold", "latest")),
            *(writes[name].addr.eq(Mux(self.clear, self.index[LAYER:], given["kind"]))
              for name in ("slope", "divisor")),
        ]
        with m.If(~self.clear):
            m.d.comb += [
                *(writes[name].en.eq(self.execute & is_[name]) for name in ("slope", "divisor")),
                writes["slope"].data.code.eq(falls["code"] - CODE), writes["slope"].data.rest.eq(falls["rest"]),
                writes["divisor"].data.eq(parts["rest"]),
            ]
        with m.If(self.execute & is_["adaptive"]):
            m.d.comb += [
                writes["threshold"].en.eq(1), writes["threshold"].addr.eq(Cat(given["layer"][:low], given["kind"])),
                writes["threshold"].data.known.eq(1), writes["threshold"].data.code.eq(given["code"] - CODE),
                writes["threshold"].data.rest.eq(given["rest"]), writes["threshold"].data.wide.eq(given["wide"]),
            ]

        # A tensor's threshold, and the latest choice for it.
        key = Signal(KIND + low, name="key")
        now, down, whole = Signal(threshold, name="now"), Signal(slope, name="down"), Signal(WIDE, name="whole")
        code, rest, borrow = Signal(signed(WIDE), name="code"), Signal(WIDE, name="rest"), Signal()
        same = Signal()
        layer = self.use[3:]
        m.d.comb += [found[name].addr.eq(key) for name in ("threshold", "latest")]
        m.d.comb += [found[name].addr.eq(key[low:]) for name in ("slope", "divisor")]
        tie = Signal(signed(WIDE), name="tie")
        m.d.comb += [
            tie.eq(now.code - (~now.rest.any() & now.code[0])), self.choice.kind.eq(self.kind),
            self.choice.layer.eq(layer),
            self.choice.threshold.eq(Mux(tie[-1], 0, Mux(tie[FRACTION + 1:].any(), (2 << FRACTION) - 1, tie))),
        ]
        with m.FSM(name="state"):
            with m.State("IDLE"):
                m.d.sync += key.eq(Mux(self.next, 0, Cat(layer[:low], self.kind)))
                with m.If(self.next):
                    m.next = "READ"
                with m.Elif(self.asks):
                    m.next = "LOOK"
            with m.State("READ"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [now.eq(found["threshold"].data), down.eq(found["slope"].data),
                             whole.eq(found["divisor"].data)]
                m.next = "FALL"
            with m.State("FALL"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [Cat(rest, borrow).eq(now.rest - down.rest), code.eq(now.code - down.code)]
                m.next = "KEEP"
            with m.State("KEEP"):
                write = writes["threshold"]
                m.d.comb += [
                    self.busy.eq(1), write.en.eq(1), write.addr.eq(key), write.data.known.eq(now.known),
                    write.data.wide.eq(now.wide),
                    write.data.code.eq(code - borrow), write.data.rest.eq(rest + (whole & borrow.replicate(WIDE))),
                ]
                m.d.sync += key.eq(key + 1)
                m.next = "READ"
                with m.If(key.all()):
                    m.next = "IDLE"
            with m.State("LOOK"):
                before = found["latest"].data
                m.d.sync += [
                    now.eq(found["threshold"].data), same.eq(before.known & (before.step == self.step)),
                    self.wide.eq(before.wide),
                    self.chosen.eq(found["threshold"].data.known & ~layer[low:].any() & ~self.measured),
                ]
                m.next = "CHOOSE"
            with m.State("CHOOSE"):
                with m.If(~self.chosen | same):
                    m.next = "ANSWER"
                with m.Elif(self.choosable):
                    m.d.comb += self.choose.eq(1)
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(self.decided):
                write, wide = writes["latest"], Mux(self.undecided, now.wide, self.decided_wide)
                m.d.comb += [write.en.eq(1), write.addr.eq(key), write.data.known.eq(1), write.data.wide.eq(wide),
                             write.data.step.eq(self.step)]
                m.d.sync += self.wide.eq(wide)
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.comb += self.answered.eq(1)
                m.next = "IDLE"
        return m
