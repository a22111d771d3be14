"""The tensors, modes and random words of an instruction of a unit, gathered and checked before it is handed out."""

from typing import Any

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ...golden import words
from ...golden.core.instructions import FIELDS, KINDS, MEMORIES, SIDES, TENSORS, WORD
from ...golden.core.model import OPERANDS, UNCOUNTED
from ...golden.core.report import ERRORS
from ...golden.core.sequencer import CODE
from ...golden.logarithmic import SCALE_BIAS
from ...golden.update import METHODS
from ...golden.words import STAGES
from ..array.layouts import mode_layout
from ..pipeline import UNCHECKED, signals
from ..words import AddressedWords
from .issue import CODES, FLAGS, SHAPED, SLOTS, coded_b, drive_kind, error_of, issue_layout, taken_by
from .layouts import SIZE, Geometry, fields_of
from .tensors import LOOKED, entry_layout

__all__ = ["Operands"]

OPERATION, UNDEFINED, UNREACHED, UNALIGNED, UNFIT, CLASSES, METHOD, MODELESS, STRANGE = map(error_of, (
    "an operation", "a tensor that", "a memory", "vectors that", "sizes of", "more classes", "a method", "an operand",
    "a window that"))
MODES = FIELDS["kind"][0] + FIELDS["layer"][0]


class Operands(wiring.Component):
    """Gathers what a unit is given, but for registers: places, modes, parts, and the key of random words.

    Parameters
    ----------
    geometry : Geometry

    Members
    -------
    word : In(WORD)
        The instruction at hand.
    start, done, error : In, Out, Out
        It is one of a unit; all is gathered; or it cannot be executed, and why.
    taken : In(1)
        The unit has taken it.
    mode, part, logs : In(1)
        It is a ``mode``, a ``part``, or with logarithmic weights ``logs``, and executed.
    renew : In(2)
        The step has changed; the seed has.
    seed, step, method : In
        Registers.
    clear, index : In
        Before a program: modes `index` are not there any more.
    look, looked : Out, In
        See `Tensors`.
    issue : Out
        See `issue_layout`; registers are not driven.
    asks, kind, answered, chosen, width, adaptive : Out, Out, In, In, In, In
        If precisions may be chosen: see `Precisions`.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        value = FIELDS["value"][0]
        chosen = {} if not geometry.chooses else {
            "asks": Out(1), "kind": Out(FIELDS["kind"][0]), "answered": In(1), "chosen": In(1), "adaptive": In(1),
            "width": In(geometry.parameters.system.modes["precision"])}
        super().__init__({
            "word": In(WORD), "start": In(1), "done": Out(1), "error": Out(range(len(ERRORS))), "taken": In(1),
            "mode": In(1), "part": In(1), "renew": In(2), "seed": In(value), "step": In(value),
            "method": In(range(len(METHODS))), "clear": In(1), "index": In(MODES), "look": Out(range(TENSORS)),
            "looked": In(entry_layout(geometry)), "issue": Out(issue_layout(geometry)),
            **chosen, **({"logs": In(1)} if geometry.madam else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        issue, code = self.issue, self.word[:5]
        gemm = fields_of(self.word, "gemm")
        units = taken_by(self.geometry)
        is_ = {name: Signal(name=f"is_{name}") for name in units}
        m.d.sync += [is_[name].eq(code == CODES[name]) for name in units]  # the word is there before the start

        # Which tensors there are, and which of them is looked for.
        needed = Signal(len(SLOTS), name="needed")
        slot = Signal(range(len(SLOTS) + LOOKED), name="slot")
        numbers = Array(Signal(range(TENSORS), name=f"number_{name}") for name in SLOTS)
        for name, taken in units.items():
            fields = fields_of(self.word, name)
            with m.If(is_[name]):
                for field, target in taken.items():
                    at = SLOTS.index(target)
                    if field not in ("bias", "mask"):
                        m.d.comb += [needed[at].eq(1), numbers[at].eq(fields[field])]
                if name == "gemm":
                    at = SLOTS.index("other")
                    m.d.comb += [needed[at].eq(fields["biased"] | fields["masked"]),
                                 numbers[at].eq(Mux(fields["biased"], fields["bias"], fields["mask"]))]
        m.d.comb += self.look.eq(numbers[slot[:2]])

        self._parts(m)
        modes = self._modes(m, gemm["use"], slot)
        known = self._key(m)
        modeless = is_["gemm"] & ~modes.data[0] if self.geometry.needs_modes else C(0, 1)
        if self.geometry.madam:
            bound = self._bounds(m, gemm["use"])
            m.d.comb += issue.bound.eq(bound[1:])
            modeless = is_["gemm"] & (slot[0] & coded_b(gemm["use"]) & ~modes.data[0] | gemm["update"] & ~bound[0])

        plane = Signal.like(issue.plane)
        for name in ("in", "out"):
            with m.If(is_[name]):
                m.d.comb += plane.eq(fields_of(self.word, name)["plane"])
        use = Mux(is_["gemm"], gemm["use"], Mux(is_["head"], fields_of(self.word, "head")["use"],
                                               fields_of(self.word, "sums")["use"]))
        m.d.comb += [
            *([issue.fills.eq(is_["fill"]), issue.value.eq(fields_of(self.word, "fill")["value"])]
              if self.geometry.windows else []),
            *(issue[name].eq(gemm[name]) for name in FLAGS), issue.use.eq(use), issue.plane.eq(plane),
        ]

        # The bias or the mask is a window. It has the shape that the result has.
        self.other_windowed, self.alike = signals("other_windowed other_alike")
        wrong = Signal.like(self.error, name="wrong")
        errors = self._wrong(m, is_, plane)
        for condition, error in reversed(errors):
            with m.If(condition):
                m.d.comb += wrong.eq(error)

        ask = Signal()
        with m.FSM(name="state"):
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [slot.eq(0), ask.eq(1)]
                m.next = "LOOK"
            # The table takes a number in each cycle. Its places come in the same order.
            with m.State("LOOK"):
                m.d.sync += slot.eq(slot + 1)
                with m.If(slot == len(SLOTS) - 1 + LOOKED):
                    m.d.sync += slot.eq(0)
                    m.next = "MODES"
                for number, name in enumerate(SLOTS):
                    with m.If((slot == number + LOOKED) & needed[number]):
                        m.d.sync += [issue[name][field].eq(self.looked[field]) for field, _ in issue[name].shape()]
                        if self.geometry.windows:
                            m.d.sync += self._shaped(number)
                        with m.If(~self.looked.known):
                            m.d.comb += self.error.eq(UNDEFINED)
                            m.next = "IDLE"
            with m.State("MODES"):
                waits = ask
                if self.geometry.chooses:
                    m.d.comb += self.asks.eq(is_["gemm"] & ~ask)
                    waits = ask | is_["gemm"] & ~self.answered
                m.d.sync += ask.eq(~waits)
                with m.If(~waits):
                    m.d.sync += slot.eq(1)
                    for number, side in enumerate("ab"):
                        with m.If(slot == number):
                            m.d.sync += issue[f"{side}_mode"].as_value().eq(modes.data[1:])
                            if self.geometry.chooses:
                                with m.If(self.chosen):
                                    m.d.sync += issue[f"{side}_mode"].precision.eq(self.width)
                            if self.geometry.scaled:
                                m.d.sync += issue[f"{side}_given"].eq(modes.data[0])
                            if self.geometry.adaptive:
                                m.d.sync += issue[f"count_{side}"].eq(gemm[f"count_{side}"] & self.adaptive)
                    with m.If(modeless):
                        m.d.comb += self.error.eq(MODELESS)
                        m.next = "IDLE"
                    with m.Elif(slot == 1):
                        m.next = "CHECK"
            with m.State("CHECK"):
                checked = Signal.like(wrong)
                m.d.sync += checked.eq(wrong)
                m.next = "CHECKED"
            with m.State("CHECKED"):
                m.d.comb += self.error.eq(checked)
                with m.If(checked.any()):
                    m.next = "IDLE"
                with m.Elif(known | ~(is_["gemm"] | is_["head"] | is_["sums"])):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
        return m

    def _parts(self, m: Module) -> None:
        """Keep what ``part`` tells, for the next instruction that has parts."""
        issue, part = self.issue, fields_of(self.word, "part")
        code = self.word[:5]
        for number, name in enumerate(SIDES):
            target = issue[f"{name}_part"]
            with m.If(self.part & (part["side"] == number)):
                m.d.sync += [target[field].eq(part[field]) for field, _ in target.shape()]
            with m.If(self.clear | self.taken & Cat(code == CODES[each] for each in ("gemm", "head", "sums")).any()):
                m.d.sync += target.as_value().eq(0)

    def _modes(self, m: Module, use: Value, side: Value) -> Any:
        """Keep modes of each kind of tensor in each layer; return the read port: that of a side's operand."""
        given, layout = fields_of(self.word, "mode"), mode_layout(self.geometry.parameters.system)
        m.submodules.modes = modes = memory.Memory(shape=1 + layout.size, depth=1 << MODES, init=[],
                                                   attrs=UNCHECKED | {"ram_style": "distributed"})
        write, read = modes.write_port(), modes.read_port()
        written, wanted = self.mode, Cat(given["layer"], given["kind"])
        value = Cat(C(1, 1), given["value"][:layout.size])
        if self.geometry.madam:
            # Weights have the scale of their codes, whatever mode they are given.
            weights, logs = KINDS.index("weights"), fields_of(self.word, "logs")
            written = self.logs | self.mode & (given["kind"] != weights)
            wanted = Mux(self.logs, Cat(logs["layer"], C(weights, FIELDS["kind"][0])), wanted)
            value = Mux(self.logs, Cat(C(1, 1), (logs["scale"] - (CODE - SCALE_BIAS))[:layout.size]), value)
        kind = self.kind if self.geometry.chooses else Signal(FIELDS["kind"][0])
        drive_kind(m, kind, use, lambda a, b: Mux(side[0], b, a))
        m.d.comb += [
            read.addr.eq(Cat(use[3:3 + FIELDS["layer"][0]], kind)), write.en.eq(self.clear | written),
            write.addr.eq(Mux(self.clear, self.index, wanted)), write.data.eq(Mux(self.clear, 0, value)),
        ]
        return read

    def _bounds(self, m: Module, use: Value) -> Value:
        """Keep the bound of each layer's weights; return that of a GEMM's layer, above a bit that tells it is there."""
        given, bits = fields_of(self.word, "logs"), len(self.issue.bound)
        layer = FIELDS["layer"][0]
        m.submodules.bounds = bounds = memory.Memory(shape=1 + bits, depth=1 << layer, init=[],
                                                     attrs=UNCHECKED | {"ram_style": "distributed"})
        write, read = bounds.write_port(), bounds.read_port()
        m.d.comb += [
            read.addr.eq(use[3:3 + layer]), write.en.eq(self.clear | self.logs),
            write.addr.eq(Mux(self.clear, self.index, given["layer"])),
            write.data.eq(Mux(self.clear, 0, Cat(C(1, 1), given["bound"][:bits]))),
        ]
        return read.data

    def _key(self, m: Module) -> Value:
        """Make the key of the seed and the step, when they have changed; return whether it is there."""
        m.submodules.random = random = AddressedWords(lanes=8, bits=8)
        begun, key = signals("begun key", 64)
        fresh = Signal(2)  # the seed's key, the step's key is there
        made = Signal(range(STAGES + 1))
        m.d.comb += [random.key.eq(Mux(fresh[0], begun, C(words.START, 64))),
                     random.index.eq(Mux(fresh[0], self.step, self.seed)), self.issue.key.eq(key)]
        renew = Signal.like(self.renew, name="renewed")  # long before the key is needed
        m.d.sync += renew.eq(self.renew)
        with m.If(self.clear | renew.any()):
            m.d.sync += [made.eq(0), fresh[1].eq(0)]
            with m.If(self.clear | renew[1]):
                m.d.sync += fresh[0].eq(0)
        with m.Elif(~fresh[1]):
            m.d.sync += made.eq(made + 1)
            with m.If(made == STAGES):
                m.d.sync += [made.eq(0), fresh.eq(Cat(C(1, 1), fresh[0]))]
                with m.If(fresh[0]):
                    m.d.sync += key.eq(random.begin)
                with m.Else():
                    m.d.sync += begun.eq(random.begin)
        return fresh[1]

    def _shaped(self, slot: int) -> list:
        """Keep the shape of a tensor that was looked at. A mask's shape is compared with the result's."""
        shape = self.looked.window
        if slot < len(SHAPED):
            return [self.issue[SHAPED[slot]].eq(shape)]
        return [self.other_windowed.eq(shape.windowed), self.alike.eq(
            (shape.windowed == self.issue.to_shape.windowed) & (~shape.windowed | self._same(shape)))]

    def _same(self, shape: Any) -> Value:
        """Return whether a shape equals the result's. Both tensors may lie anywhere."""
        return Cat(shape[name] == self.issue.to_shape[name] for name, _ in shape.shape() if name != "block").all()

    def _wrong(self, m: Module, is_: dict[str, Signal], plane: Value) -> list[tuple[Value, int]]:
        """Return what makes an instruction impossible, and the error's code; the first one counts."""
        g, p, issue = self.geometry, self.geometry.parameters, self.issue
        a, b, to, other = (issue[name] for name in SLOTS)
        gemm, head, sums, in_, out = (is_[name] for name in ("gemm", "head", "sums", "in", "out"))
        group = p.system.group.bit_length() - 1

        def lies(place: Any, names: str) -> Value:
            return Cat(place.memory == MEMORIES.index(name) for name in names).any()

        m_, k = (Signal(SIZE, name=name) for name in ("m", "k"))
        n, depth = (Signal(SIZE, name=name) for name in ("n", "depth"))
        m.d.comb += [
            m_.eq(Mux(issue.across_a, a.columns, a.rows)), k.eq(Mux(issue.across_a, a.rows, a.columns)),
            n.eq(Mux(issue.across_b, b.columns, b.rows)), depth.eq(Mux(issue.across_b, b.rows, b.columns)),
        ]
        aligned = [~Mux(across, place.top, place.left[:g.low])[:g.low - g.along].any()
                   for place, across in ((a, issue.across_a), (b, issue.across_b))]
        strange: list[tuple[Value, int]] = []
        if g.windows:
            windowed = [issue[name].windowed for name in SHAPED]
            aligned = [each | is_window for each, is_window in zip(aligned, windowed)]
            strange = [(
                gemm & (windowed[2] & (issue.update | ~issue.to_shape.safe)
                        | Mux(issue.biased, self.other_windowed, issue.masked & ~self.alike))
                | sums & (windowed[0] & ~issue.a_shape.safe | windowed[2]) | head & Cat(windowed).any()
                | (in_ | is_["fill"]) & windowed[2] | out & windowed[0], STRANGE)]
            filled = fields_of(self.word, "fill")
            strange += [(is_["fill"] & (~lies(to, "XD") | filled["plane"].any()), UNREACHED),
                        (is_["fill"] & filled["value"][g.bits:].any(), OPERATION)]
        groups = (k + (p.system.group - 1))[group:]
        pitches = [Mux(part.pitch.any(), part.pitch, groups) for part in (issue.a_part, issue.b_part)]
        methods = Cat(self.method == METHODS.index(name) for name in p.updates).any()
        moved = gemm & issue.update | sums
        stepped = sums if p.madam else moved  # by a method of SGD
        below = g.lanes.bit_length() - 1
        placed = (issue.to_part.lane ^ to.left)[:below].any() if below else C(0, 1)
        return [
            (gemm & ~Cat(issue.use[:3] == slot for slot in OPERANDS).any(), OPERATION),
            *([(gemm & (issue.continued | issue.open), OPERATION)] if p.madam else []),
            *([(gemm & (issue.use[:3] == UNCOUNTED) & fields_of(self.word, "gemm")["count_b"], OPERATION)]
              if g.adaptive else []),
            (gemm & (issue.biased & issue.masked | issue.update & (issue.biased | issue.masked | issue.relu)),
             OPERATION),
            (gemm & (~lies(a, "XD") | ~lies(b, "WX") | issue.biased & ~lies(other, "W")
                     | issue.masked & ~lies(other, "X") | ~Mux(issue.update, lies(to, "W"), lies(to, "XD"))),
             UNREACHED),
            (head & ~(lies(a, "X") & lies(b, "L") & lies(to, "D")), UNREACHED),
            (sums & ~(lies(a, "D") & lies(to, "W")), UNREACHED),
            (in_ & ~lies(to, "XDWL") | out & ~lies(a, "XDW"), UNREACHED),
            ((in_ | out) & (plane > Mux(lies(to, "W") & in_ | lies(a, "W") & out, p.planes, 0)), UNREACHED),
            (gemm & ((k != depth) | (to.rows != m_) | (to.columns != n)
                     | issue.biased & ((other.rows != 1) | (other.columns != n))
                     | issue.masked & ((other.rows != m_) | (other.columns != n)) | (pitches[0] != pitches[1])), UNFIT),
            *strange,
            (head & ((a.rows != to.rows) | (a.columns != to.columns) | (b.rows != 1) | (b.columns != a.rows)), UNFIT),
            (sums & ((to.rows != 1) | (to.columns != a.columns)), UNFIT),
            (in_ & lies(to, "L") & (to.rows != 1), UNFIT),
            (gemm & ~(aligned[0] & aligned[1]) | moved & placed, UNALIGNED),
            (head & (a.columns > p.classes), CLASSES),
            (stepped & ~methods, METHOD),
        ]
