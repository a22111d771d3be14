"""The softmax head in hardware: from logits to the errors p - y and the loss, one class per cycle, rows in a stream."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import memory
from amaranth.lib.wiring import In, Out

from ...golden.softmax import SoftmaxParameters, tables
from ..meanings import numbers
from ..multiplier import Multiplier, block
from ..pipeline import UNCHECKED, signals, stage
from ..rounding import unpack
from ..trees import sum_with_carry
from ..unit import StreamUnit
from ..words import lane_words
from .functions import ALWAYS, distances, exponentials, looked_up, multipliers, normalised, phases

__all__ = ["SoftmaxGrad"]

ROWS = 16  # places for rows whose sums are under way: a LUT RAM has as many
SCANNED = 16  # cycles from the reading of a logit to the sum with its exponential
NORMALISED = 2  # cycles from a row's sum to its normalised sum
LOOKED_UP = 6  # cycles from a normalised sum to the reading of the row's first exponential
EMITTED = 4  # cycles from the reading of an exponential to its error


class SoftmaxGrad(StreamUnit):
    """Errors p - y of the classes of an example, and its cross-entropy: three passes over a row of logits.

    First the logits come in, one per cycle, and the greatest of them is kept. Then their distances d from it are found
    in fixed point, and e**-d, by a table of powers of two with linear interpolation. Their sum S is normalised, and
    1 / S and ln S are interpolated in another table. Last, e**-d / S - y goes out, one per cycle, rounded once: on the
    magnitude, 1 to the largest number. Before that each probability is within ``golden.softmax.bound`` of the exact
    one. A NaN makes each error of its row 0 and the loss the largest; an Inf is the number next to the largest. Each
    error draws one random word if the rounding is stochastic. Source: numerics contract, section 9.

    The passes of different rows overlap. A pass takes a cycle for each class. The second pass takes one more, for the
    greatest logit.

    Parameters
    ----------
    parameters : SoftmaxParameters
    addressed : bool
        Whether the random words come from outside.

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
    words : In(random_bits)
        If `addressed` and the rounding is stochastic: the random word of the error that is rounded.
    draw : Out(1)
        With ``words``: the word is used up in this cycle. The next cycle needs the next word.

    Attributes
    ----------
    latency : int
        Cycles from the last logit of a row of as many as there are classes to its first error.
    interval : int
        Cycles between full rows: the number of classes, and 1.
    """

    def __init__(self, parameters: SoftmaxParameters, addressed: bool = False) -> None:
        self.parameters, self.addressed = parameters, addressed and parameters.rounding == "stochastic"
        p = parameters
        words: dict[str, Any] = {"words": In(p.random_bits), "draw": Out(1)} if self.addressed else {}
        super().__init__({"logit": p.format.width, "target": 1, "last": 1},
                         {"error": p.bits, "last": 1, "loss": p.loss.bits - 1}, **words)

    @property
    def latency(self) -> int:
        return 1 + self.parameters.classes + SCANNED + NORMALISED + LOOKED_UP + EMITTED

    @property
    def interval(self) -> int:  # type: ignore[override]
        return self.parameters.classes + 1

    @property
    def text(self) -> str:
        """Verilog of the modules that the unit instantiates."""
        found = [block(**settings) for settings in multipliers(self.parameters).values()]
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
        p = self.parameters
        # Exponentials wait in a ring, and so do rows. Each is full when one place is left.
        in_flight = p.classes + SCANNED + NORMALISED + LOOKED_UP
        depth = 1 << (in_flight - (in_flight - 1) // self.interval).bit_length()
        m.submodules.powers = powers = memory.Memory(shape=p.kept + 3, depth=depth, init=[], attrs=UNCHECKED)
        room, free, started = signals("room free started")
        scan = Signal(range(depth))
        now, rest = distances(m, p, self._take(m, scan, started, room, free))

        # What the loss needs of a row's logits, with the row's end.
        m.submodules.targets = targets = memory.Memory(shape=p.loss.bits + 1, depth=ROWS, init=[], attrs=UNCHECKED)
        marked, void, row_ends = signals("marked void row_ends")
        distance = Signal(p.loss.bits - 1)
        ended = targets.write_port()
        with m.If(now.start):
            m.d.sync += [marked.eq(0), void.eq(now.void)]
        with m.If(now.valid & now.target):
            m.d.sync += [distance.eq(now.distance), marked.eq(1)]
        m.d.sync += row_ends.eq(now.valid & now.last)
        m.d.comb += [ended.data.eq(Cat(distance, marked, void)), ended.en.eq(row_ends)]

        # The exponentials are kept as they come, shorter than they are summed.
        now = exponentials(m, p, phases(m, p, now, rest))
        written = powers.write_port()
        power = powers.read_port()
        m.d.comb += [written.data.eq(Cat(now.power[p.guard - p.kept:], now.target, now.last)), written.en.eq(now.valid)]
        found = looked_up(m, p, *normalised(m, p, now))
        m.submodules.rows = rows = memory.Memory(shape=len(found.row), depth=ROWS, init=[], attrs=UNCHECKED)
        known = rows.write_port()
        m.d.comb += [known.data.eq(found.row), known.en.eq(found.valid)]

        # The last pass reads a row's sums with its first exponential.
        row, target = rows.read_port(), targets.read_port()
        there, more, opens, advance = signals("there more opens advance")
        begun = Signal.like(row.addr)
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            more.eq(there & ~power.data[-1]), opens.eq(~more & (row.addr != known.addr)),
            power.en.eq(advance), row.en.eq(advance & opens), target.en.eq(row.en), target.addr.eq(row.addr),
            room.eq((scan + 1)[:len(scan)] != power.addr), free.eq((begun + 1)[:len(begun)] != row.addr),
        ]
        with m.If(advance):
            m.d.sync += there.eq(more | opens)
        for pointer, moves in ((written.addr, written.en), (power.addr, advance & (more | opens)),
                               (begun, started), (ended.addr, ended.en), (known.addr, known.en), (row.addr, row.en)):
            with m.If(moves):
                m.d.sync += pointer.eq(pointer + 1)
        self._emit(m, advance, there, power.data, row.data, target.data)
        return m

    def _take(self, m: Module, scan: Signal, started: Signal, room: Value, free: Value) -> SimpleNamespace:
        """Take a row in, and read the row before again: its greatest logit first, at `started`, then each one.

        `scan` counts the logits that are read. Each needs `room`, and a start needs a `free` row. Returns the stage of
        a logit, with ``valid``, its ``order`` and its marks. At ``start``, the order is the greatest.
        """
        p, fmt, payload = self.parameters, self.parameters.format, self.i.payload
        size = fmt.width
        # By order: codes of which the greater number is the greater one, a zero without its sign.
        depth = 1 << (p.classes + 1).bit_length()
        m.submodules.orders = orders = memory.Memory(shape=size + 2, depth=depth, init=[], attrs=UNCHECKED)
        kept = orders.write_port()
        read = orders.read_port()
        end = Signal.like(kept.addr)
        place = Signal(range(p.classes))
        greatest = Signal(size)
        fresh = Signal(init=1)
        bad, full, accepted, last, scanned = signals("bad full accepted last scanned")
        logit = unpack(m, "logit", fmt, payload.logit)
        negative = Signal()
        order = Signal(size)
        m.d.comb += [
            negative.eq(logit.negative & ~logit.zero),
            order.eq(Cat(payload.logit[:-1] ^ negative.replicate(size - 1), ~negative)),
            self.i.ready.eq(~full & ((kept.addr + 1)[:len(end)] != read.addr)),
            accepted.eq(self.i.valid & self.i.ready), last.eq(payload.last | (place == p.classes - 1)),
            kept.data.eq(Cat(order, payload.target, last)), kept.en.eq(accepted),
            scanned.eq((read.addr != end) & room), started.eq(full & (read.addr == end) & free),
            read.addr.eq(scan), read.en.eq(1),
        ]
        self.report(m, invalid=accepted & logit.nan, overflow=accepted & logit.infinite)
        with m.If(accepted):
            m.d.sync += [kept.addr.eq(kept.addr + 1), place.eq(Mux(last, 0, place + 1)), fresh.eq(last), full.eq(last),
                         bad.eq(bad & ~fresh | logit.nan)]
            with m.If(fresh | (order > greatest)):
                m.d.sync += greatest.eq(order)
        with m.If(scanned):
            m.d.sync += scan.eq(scan + 1)
        with m.If(started):
            m.d.sync += [full.eq(0), end.eq(kept.addr)]
        now = stage(m, ALWAYS, "read", valid=scanned, start=started, void=bad)
        row = read.data
        return stage(m, ALWAYS, "order", now, order=Mux(now.start, greatest, row[:size]), target=row[size],
                     last=row[size + 1])

    def _emit(self, m: Module, advance: Value, there: Value, power: Value, row: Value, target: Value) -> None:
        """Multiply exponentials by the reciprocal of their sum, round the errors, and find the loss beside them."""
        p, octaves = self.parameters, tables(self.parameters).octaves
        low, bits = p.value - p.fraction, p.value + p.integer + 1
        size = p.loss.bits - 1
        reciprocal, logarithm, k = row[:p.kept + 1], row[p.kept + 1:][:p.value + 1], row[p.kept + p.value + 2:]
        distance, marked, void = target[:size], target[size], target[size + 1]
        m.submodules.products = products = Multiplier(**multipliers(p)["products"])
        m.d.comb += [products.enable.eq(advance), products.a.eq(power[:-2]), products.b.eq(reciprocal)]
        octave = Array(C(each, bits) for each in octaves)[k]
        now = stage(m, advance, "emit_held", valid=there, last=power[-1], target=power[-2], void=void, marked=marked,
                    part=(octave + Cat(C(1 << low >> 1, low), distance))[:bits], logarithm=logarithm)
        now = stage(m, advance, "emit_product", now, drop=("part", "logarithm"),
                    rest=(now.part - now.logarithm)[:bits])
        over = now.void | now.rest[p.value + p.integer:].any()
        loss = now.rest[low:p.value + p.integer] | over.replicate(size)
        error = self._rounded(m, products.p[:2 * p.kept + 1], now.target, advance & now.valid)
        self.emit(m, advance, now.valid, error=Mux(now.void, 0, error), last=now.last,
                  loss=Mux(now.marked | now.void, loss, 0))

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
            if self.addressed:
                m.d.comb += self.draw.eq(draw)
            (word,) = lane_words(self, m, draw, seed=p.seed, lanes=1, bits=mode.bits)
            noise = Cat(1, word) if mode.corrected else word
            window = min(mode.window, spare)
            noise = noise[len(noise) - window:] ^ target.replicate(window)
            rest = below[:spare - window]
            carry = target & rest.any() if len(rest) else C(0, 1)
            number = sum_with_carry(Cat(below[spare - window:], kept), noise, carry)[window:]
        number = number[:p.bits]
        one = number[-1]
        return Cat(Mux(target, number[:-1], number[:-1] | one.replicate(p.bits - 1)), target & ~one)
