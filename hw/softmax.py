"""The softmax head in hardware: from logits to the errors p - y and the loss, one class per cycle and pass."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import memory

from ..golden.softmax import SoftmaxParameters, tables
from .meanings import numbers
from .multiplier import Multiplier, block
from .pipeline import signals, stage
from .rounding import unpack
from .trees import sum_with_carry
from .unit import StreamUnit
from .words import CountedWords

__all__ = ["SoftmaxGrad"]

ALWAYS = C(1, 1)
SCANNED = 15  # cycles from the reading of a logit to the sum with its exponential
LOOKED_UP = 4  # cycles from an address to what is interpolated there
EMITTED = 4  # cycles from the reading of an exponential to its error


class SoftmaxGrad(StreamUnit):
    """Errors p - y of the classes of an example, and its cross-entropy: three passes over a row of logits.

    First the logits come in, one per cycle, and the greatest of them is kept. Then their distances d from it are found
    in fixed point, and e**-d, by a table of powers of two with linear interpolation; their sum S is normalised, and
    1 / S and ln S are interpolated in the same table. Last, e**-d / S - y goes out, one per cycle, rounded once: on the
    magnitude, 1 to the largest number. Before that each probability is within ``golden.softmax.bound`` of the exact
    one. A NaN makes each error of its row 0 and the loss the largest; an Inf is the number next to the largest. Each
    error draws one random word if the rounding is stochastic. Source: numerics contract, section 9.

    Parameters
    ----------
    parameters : SoftmaxParameters

    Members
    -------
    i : In(stream)
        ``logit`` (code), ``target`` (1: y of that class is 1, else 0) and ``last`` (1: ends the row). A row of as many
        logits as there are classes needs no ``last``.
    o : Out(stream)
        For each class, in the same order, ``error`` (two's complement, all bits but one behind the binary point),
        ``last`` (1 with the row's last error) and ``loss`` (nats, without sign, `SoftmaxParameters.fraction` bits
        behind the binary point; the same in all transfers of a row; of the last target, 0 without one).
    invalid, overflow : Out(1)
        Sticky: a logit was NaN; it was Inf.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from the last logit of a row of as many as there are classes to its first error.
    interval : int
        Cycles between such rows: three per class and a constant.
    """

    def __init__(self, parameters: SoftmaxParameters) -> None:
        self.parameters = parameters
        p = parameters
        # Whole bits of a sum of exponentials, by all but one of which it may have to be shifted, there and back.
        self._sum = p.classes.bit_length()
        low, table = p.phase - p.index, tables(p)
        self._points = [(start, start - end) for points in (table.powers, table.reciprocals, table.logarithms)
                        for start, end in zip(points, points[1:])]
        self._slope = max(slope for _, slope in self._points).bit_length()
        common = {"before": True, "behind": True, "kind": "dsp"}
        self._multipliers = {
            "turns": {"width": p.fraction, **common},
            "rises": {"width": max(low, self._slope), **common},
            "products": {"width": p.kept + 1, **common},
        }
        super().__init__({"logit": p.format.width, "target": 1, "last": 1},
                         {"error": p.bits, "last": 1, "loss": p.loss.bits - 1})

    @property
    def latency(self) -> int:
        p = self.parameters
        return p.classes + 2 + SCANNED + 2 * (self._sum - 1) + LOOKED_UP + 2 + EMITTED

    @property
    def interval(self) -> int:  # type: ignore[override]
        classes = self.parameters.classes
        return self.latency + classes - EMITTED - 1 + max(classes, EMITTED)

    @property
    def text(self) -> str:
        """Verilog of the modules that the unit instantiates."""
        found = [block(**settings) for settings in self._multipliers.values()]
        return "".join(dict(each for each in found if each).values())

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return {
            "logit": numbers(p.format), "target": "1: the example's class",
            "i.last": f"the row's last class; a row of {p.classes} needs none", "o.last": "the row's last error",
            "error": f"p - y, two's complement, {p.bits - 1} bits behind the binary point",
            "loss": f"cross-entropy of the row in nats, without sign, {p.fraction} bits behind the binary point",
            "invalid": "sticky: a logit was NaN", "overflow": "sticky: a logit was Inf",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, fmt, payload = self.parameters, self.parameters.format, self.i.payload
        size = fmt.width

        # A row, by order: codes of which the greater number is the greater one, a zero without its sign.
        m.submodules.orders = orders = memory.Memory(shape=size + 1, depth=p.classes, init=[])
        kept = orders.write_port()
        read = orders.read_port()
        index, top = signals("index top", range(p.classes))  # top: the place of the row's last class
        greatest = Signal(size)
        fresh = Signal(init=1)
        bad, void = signals("bad void")
        accepted, advance, emitting, busy = signals("accepted advance emitting busy")
        logit = unpack(m, "logit", fmt, payload.logit)
        negative = Signal()
        order = Signal(size)
        m.d.comb += [
            negative.eq(logit.negative & ~logit.zero),
            order.eq(Cat(payload.logit[:-1] ^ negative.replicate(size - 1), ~negative)),
            accepted.eq(self.i.valid & self.i.ready),
            kept.addr.eq(index), kept.data.eq(Cat(order, payload.target)), kept.en.eq(accepted),
            read.addr.eq(index), read.en.eq(advance),
        ]
        self.report(m, invalid=accepted & logit.nan, overflow=accepted & logit.infinite)

        start, scanning, ask = signals("start scanning ask")
        step = Signal(range(SCANNED + 1))
        sums = Signal(self._sum + p.guard)
        shifts = Signal(range(self._sum))
        now, rest, chosen = self._distances(m, start, scanning, greatest, read.data)
        looked = self._look_up(m, self._turns(m, now, rest), sums, ask & ~step[0], ask & step[0])

        # The exponentials are kept as they come, shorter than they are summed.
        m.submodules.powers = powers = memory.Memory(shape=p.kept + 1, depth=p.classes, init=[])
        written = powers.write_port()
        power = powers.read_port()
        m.d.comb += [written.data.eq(looked.power[p.guard - p.kept:]), written.en.eq(looked.summed),
                     power.addr.eq(index), power.en.eq(advance)]
        with m.If(looked.summed):
            m.d.sync += [written.addr.eq(written.addr + 1), sums.eq(sums + looked.power)]
        reciprocal = Signal(p.value + 1)
        with m.If(looked.reciprocal):
            m.d.sync += reciprocal.eq(looked.value)
        loss = self._loss(m, looked, shifts, chosen, void)

        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(accepted):
                    m.d.sync += [fresh.eq(0), bad.eq(bad | logit.nan), index.eq(index + 1)]
                    with m.If(fresh | (order > greatest)):
                        m.d.sync += greatest.eq(order)
                    with m.If(payload.last | (index == p.classes - 1)):
                        m.d.sync += [top.eq(index), index.eq(0)]
                        m.next = "START"
            # What the row before has left is not touched until all of its errors have gone.
            with m.State("START"), m.If(~busy):
                m.d.comb += start.eq(1)
                m.d.sync += [fresh.eq(1), void.eq(bad), bad.eq(0), sums.eq(0), written.addr.eq(0)]
                m.next = "SCAN"
            with m.State("SCAN"):
                m.d.comb += scanning.eq(1)
                m.d.sync += [index.eq(index + 1), step.eq(0)]
                with m.If(index == top):
                    m.d.sync += index.eq(0)
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.sync += [step.eq(step + 1), shifts.eq(self._sum - 1)]
                with m.If(step == SCANNED - 1):
                    m.d.sync += step.eq(0)
                    m.next = "NORMALISE"
            # The first bit of the sum is brought to the top, and the reciprocal moved back as far as it was not there.
            with m.State("NORMALISE"):
                m.d.sync += step.eq(step + 1)
                with m.If(~sums[-1]):
                    m.d.sync += [sums.eq(sums << 1), shifts.eq(shifts - 1)]
                with m.If(step == self._sum - 2):
                    m.d.sync += step.eq(0)
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.comb += ask.eq(step < 2)
                m.d.sync += step.eq(step + 1)
                with m.If(step == LOOKED_UP + 1):
                    m.d.sync += step.eq(0)
                    m.next = "SHIFT"
            with m.State("SHIFT"):
                m.d.sync += step.eq(step + 1)
                with m.If(shifts.any()):
                    m.d.sync += [reciprocal.eq(reciprocal >> 1), shifts.eq(shifts - 1)]
                with m.If(step == self._sum - 2):
                    m.next = "EMIT"
            with m.State("EMIT"):
                m.d.comb += emitting.eq(1)
                with m.If(advance):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == top):
                        m.d.sync += index.eq(0)
                        m.next = "TAKE"

        # The last pass.
        m.submodules.products = products = Multiplier(**self._multipliers["products"])
        m.d.comb += [advance.eq(~self.o.valid | self.o.ready), products.enable.eq(advance), products.a.eq(power.data),
                     products.b.eq(reciprocal[p.value - p.kept:])]
        read_ = stage(m, advance, "emit_read", valid=emitting, last=index == top)
        held = stage(m, advance, "emit_held", read_, target=read.data[-1])
        now = stage(m, advance, "emit_product", held)
        m.d.comb += busy.eq(read_.valid | held.valid | now.valid | self.o.valid)
        error = self._rounded(m, products.p[:2 * p.kept + 1], now.target, advance & now.valid)
        self.emit(m, advance, now.valid, error=Mux(void, 0, error), last=now.last, loss=loss)
        return m

    def _distances(self, m: Module, start: Value, scanning: Value, greatest: Value, row: Value
                   ) -> tuple[SimpleNamespace, Value, SimpleNamespace]:
        """Find the distances of a row's logits from the greatest, which goes before them, at `start`.

        Returns their stage, with ``valid``; their fractions, a cycle earlier; and the last target's distance, and
        whether there was one, as registers.
        """
        p, fmt = self.parameters, self.parameters.format
        now = stage(m, ALWAYS, "read", valid=scanning, start=start)
        now = stage(m, ALWAYS, "order", now, order=Mux(now.start, greatest, row[:-1]), target=row[-1])

        # Fixed point: the first bit of the largest numbers is at the top, one bit for rounding below the last place.
        negative = ~now.order[-1]
        parts = unpack(m, "scanned", fmt, Cat(now.order[:-1] ^ negative.replicate(len(now.order) - 1), negative))
        whole = p.field_top - fmt.bias + 1
        width = max(whole, 1) + p.fraction + 1
        below = max(1 - whole, 0)  # how far the largest numbers are from a first bit worth 1
        room = Signal(signed(max(fmt.exponent, abs(p.field_top).bit_length()) + 2))
        amount = Signal(range((1 << fmt.exponent) + below + (1 << width.bit_length())))
        m.d.comb += [room.eq(p.field_top - parts.field), amount.eq(room + below)]
        large, bits = room[-1], width.bit_length()
        now = stage(m, ALWAYS, "place", now, drop=("order",), negative=negative ^ now.start, large=large,
                    equal=now.order == greatest, significand=parts.significand, amount=amount[:bits],
                    far=amount[bits:].any() | large)
        spare = width - len(now.significand)
        placed = Cat(C(0, spare), now.significand) if spare >= 0 else now.significand[-spare:]
        half = bits // 2
        now = stage(m, ALWAYS, "coarse", now, drop=("significand",),
                    value=_right(Mux(now.far, 0, placed), now.amount, range(half, bits)))
        now = stage(m, ALWAYS, "fine", now, drop=("amount", "far"), value=_right(now.value, now.amount, range(half)))

        # The bit below the last place is rounded up by the carry.
        greatest_fixed = Signal(signed(width + 1))
        beside = Signal()
        rounded, value = now.value[0], now.value[1:]
        difference = Signal(signed(width + 2))
        m.d.comb += difference.eq(sum_with_carry(
            Mux(now.start, 0, greatest_fixed), Cat(value ^ (~now.negative).replicate(width - 1), ~now.negative)
            .as_signed(), rounded ^ ~now.negative))
        with m.If(now.start):
            m.d.sync += [greatest_fixed.eq(difference), beside.eq(now.large)]
        now = stage(m, ALWAYS, "apart", now, drop=("start", "negative", "large", "value"), difference=difference,
                    beyond=now.large | beside)
        size = p.loss.bits - 1
        distance = Signal(size)
        above = now.beyond
        if width + 2 > size:
            above = above | now.difference[size:].any()
        m.d.comb += distance.eq(Mux(now.equal, 0, Cat(now.difference[:size]) | above.replicate(size)))
        now = stage(m, ALWAYS, "distance", now, drop=("difference", "beyond", "equal"), distance=distance)
        chosen = Signal(size)
        marked = Signal()
        with m.If(start):
            m.d.sync += marked.eq(0)
        with m.If(now.valid & now.target):
            m.d.sync += [chosen.eq(now.distance), marked.eq(1)]
        return now, distance[:p.fraction], SimpleNamespace(distance=chosen, marked=marked)

    def _turns(self, m: Module, now: SimpleNamespace, rest: Value) -> SimpleNamespace:
        """Multiply distances by log2(e): return a stage with ``valid``, the integer part ``n`` and the fraction ``f``.

        The fraction of a distance comes as `rest`, for the register inside the multiplier, beside that of the distance.
        """
        p, constants = self.parameters, tables(self.parameters)
        m.submodules.turns = turns = Multiplier(**self._multipliers["turns"])
        m.d.comb += [turns.a.eq(rest), turns.b.eq(constants.factor), turns.enable.eq(1)]
        bits = constants.wholes[-1].bit_length() + 1
        whole = Array(C(each, bits) for each in constants.wholes)[now.distance[p.fraction:]]
        up = p.phase - p.fraction
        now = stage(m, ALWAYS, "whole", valid=now.valid,
                    value=(whole + Cat(C(0, up), now.distance[:p.fraction]))[:bits])
        turned = (now.value + turns.p[2 * p.fraction + 1 - p.phase:2 * p.fraction])[:bits]
        return stage(m, ALWAYS, "turned", valid=now.valid, f=turned[:p.phase], n=turned[p.phase:])

    def _look_up(self, m: Module, now: SimpleNamespace, sums: Value, reciprocal: Value, logarithm: Value
                 ) -> SimpleNamespace:
        """Interpolate powers of two for the valid of a stage, and what is asked of the normalised sum.

        Returns a namespace: ``value`` with ``reciprocal`` or ``logarithm``, and ``power``, shifted, with ``summed``.
        """
        p = self.parameters
        low, unit = p.phase - p.index, p.value + 1
        m.submodules.table = table = memory.Memory(
            shape=unit + self._slope, depth=len(self._points),
            init=[start | slope << unit for start, slope in self._points])
        m.submodules.rises = rises = Multiplier(**self._multipliers["rises"])
        port = table.read_port()
        f = Signal(p.phase)
        m.d.comb += [
            f.eq(Mux(now.valid, now.f, sums[-1 - p.phase:-1])),
            port.addr.eq(Cat(f[low:], reciprocal, logarithm)), port.en.eq(1),
            rises.b.eq(port.data[unit:]), rises.enable.eq(1),
        ]
        now = stage(m, ALWAYS, "address", valid=now.valid, reciprocal=reciprocal, logarithm=logarithm, n=now.n,
                    rest=f[:low])
        m.d.comb += rises.a.eq(now.rest)
        now = stage(m, ALWAYS, "slope", now, drop=("rest",), base=port.data[:unit])
        now = stage(m, ALWAYS, "rise", now)
        value = now = stage(m, ALWAYS, "value", now, drop=("base",), value=now.base - rises.p[low:low + self._slope])
        # The powers, which the integer part shifts.
        spare = p.guard - p.value
        aligned = Cat(C(0, spare), now.value[:unit]) if spare > 0 else now.value[:unit]
        half = len(now.n) // 2
        now = stage(m, ALWAYS, "shift", valid=now.valid, n=now.n,
                    power=_right(aligned, now.n, range(half, len(now.n))))
        power = _right(now.power, now.n, range(half))
        now = stage(m, ALWAYS, "power", valid=now.valid, power=power[-spare:] if spare < 0 else power)
        return SimpleNamespace(value=value.value[:unit], reciprocal=value.reciprocal, logarithm=value.logarithm,
                               power=now.power, summed=now.valid)

    def _loss(self, m: Module, looked: SimpleNamespace, shifts: Value, chosen: SimpleNamespace, void: Value) -> Value:
        """Return the loss, a register that changes when the logarithm of a sum has been looked up."""
        p, octaves = self.parameters, tables(self.parameters).octaves
        low, bits = p.value - p.fraction, p.value + p.integer + 1
        octave = Array(C(each, bits) for each in octaves)[shifts]
        part, rest = signals("part rest", bits)
        loss = Signal(p.loss.bits - 1)
        m.d.sync += part.eq(octave + Cat(C(1 << low >> 1, low), chosen.distance))
        m.d.comb += rest.eq(part - looked.value)
        over = void | rest[p.value + p.integer:].any()
        with m.If(looked.logarithm):
            m.d.sync += loss.eq(Mux(chosen.marked | void, rest[low:p.value + p.integer] | over.replicate(len(loss)), 0))
        return loss

    def _rounded(self, m: Module, product: Value, target: Value, draw: Value) -> Value:
        """Return the error for a probability with twice `kept` fraction bits (combinational).

        A target's magnitude is 1 - p: with noise N below a unit u, -floor((1 - p + N) / u) = floor((p + u - 1 - N) / u)
        less 1, and u - 1 - N are the bits of N inverted. To nearest, there is no difference.
        """
        p = self.parameters
        mode, spare = p.mode, 2 * p.kept - (p.bits - 1)
        below, kept = product[:spare], product[spare:]
        if mode.kind == "nearest":
            number = kept + (below[-1] & (below[:-1].any() | kept[0]))
        elif mode.kind == "truncate":
            number = kept + (target & below.any())
        else:
            m.submodules.random = random = CountedWords(seed=p.seed, lanes=1, bits=mode.bits)
            m.d.comb += random.draw.eq(draw)
            noise = Cat(1, random.words) if mode.corrected else random.words
            window = min(mode.window, spare)
            noise = noise[len(noise) - window:] ^ target.replicate(window)
            rest = below[:spare - window]
            carry = target & rest.any() if len(rest) else C(0, 1)
            number = sum_with_carry(Cat(below[spare - window:], kept), noise, carry)[window:]
        number = number[:p.bits]
        one = number[-1]
        return Cat(Mux(target, number[:-1], number[:-1] | one.replicate(p.bits - 1)), target & ~one)


def _right(value: Value, amount: Value, places: range) -> Value:
    """Return `value` shifted right by some bits of `amount`."""
    for place in reversed(places):
        moved = value[1 << place:]
        value = Mux(amount[place], moved if len(moved) else 0, value)[:len(value)]
    return value
