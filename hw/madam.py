"""Madam's weight update in hardware: logarithmic weights move by additions to their codes."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data, memory
from amaranth.lib.wiring import In

from ..golden.madam import MadamParameters, growth
from . import meanings
from .log2 import Level
from .pipeline import stage
from .rounding import unpack
from .trees import sum_with_carry
from .unit import StreamUnit
from .words import CountedWords

__all__ = ["CORRECTION", "RATE", "MadamUpdate"]

RATE = 3  # bits of a rate
CORRECTION = 16  # bits of a correction
HELD = ("correction", "rate", "bound")  # fields for all weights of a transfer


class MadamUpdate(StreamUnit):
    """Madam's update of weights that are logarithms: `lanes` of them per cycle, without a multiplier.

    For each weight the second moment V moves towards the square of the gradient g, rounded stochastically; 2 * log2 |g|
    is exact. The gradient, divided by the root of the new second moment, is rounded to an integer n, 0 to `clip`, and
    the weight's logarithm t moves by n * 2**rate: down where gradient and weight have one sign, else up. Then it is
    held within 1 and `bound`. A weight that is zero stays so; no other becomes zero or changes its sign. A NaN changes
    nothing, an Inf is the largest square. Each transfer draws one random word per lane. Source: numerics contract,
    section 7.

    Parameters
    ----------
    parameters : MadamParameters
    addressed : bool
        Whether random words come from a port, and not from the unit's own count of transfers.
    held : bool
        Promises that ``correction``, ``rate`` and ``bound`` stay as they are while transfers are under way, also in
        cycles without a valid one. Then the pipeline has no registers for them.

    Members
    -------
    i : In(stream)
        ``weights``, ``gradients``, ``seconds`` (codes, element 0 lowest); ``correction`` (-32,768 to 0, see
        `golden.madam.correction`), ``rate`` and ``bound`` (1 to the top code), for all of them.
    o : Out(stream)
        ``weights``, ``narrow`` (the weights rounded to the narrow format), ``seconds``.
    invalid, overflow : Out(1)
        Sticky: a gradient was NaN; it was Inf, or its square above the largest second moment.
    status_clear : In(1)
        Clears both.
    words : In(lanes * random_bits)
        If `addressed`: the random words of the transfer that was accepted `words_behind` cycles before, lane 0 lowest.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    words_behind : int
        If `addressed`: cycles from an accepted transfer to the cycle of its random words, unless the unit stalls. While
        it stalls, the words have to stay.
    interval : int
        Cycles between transfers: 1.
    """

    latency = 14
    words_behind = 7

    def __init__(self, parameters: MadamParameters, *, addressed: bool = False, held: bool = False) -> None:
        self.parameters, self.addressed, self.held = parameters, addressed, held
        p, lanes = parameters, parameters.lanes
        weights, seconds = data.ArrayLayout(p.weight.bits, lanes), data.ArrayLayout(p.second_bits, lanes)
        words: dict[str, Any] = {"words": In(lanes * p.random_bits)} if addressed else {}
        super().__init__(
            {"weights": weights, "gradients": data.ArrayLayout(p.gradient.width, lanes), "seconds": seconds,
             "correction": signed(CORRECTION), "rate": RATE, "bound": p.weight.bits - 1},
            {"weights": weights, "narrow": data.ArrayLayout(p.narrow.bits, lanes), "seconds": seconds},
            **words)

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        second = f"second moment, code V: worth 2**(V / {p.second_gamma} - {p.second_bias}), or 0 if V is 0"
        return {
            "weights": f"top bit s, below it t: worth (-1)**s * 2**(k + t / {p.weight.gamma}), or 0 if t is 0",
            "narrow": f"the weight rounded, of the same scale k: (-1)**s * 2**(k + t / {p.narrow.gamma})",
            "gradients": meanings.numbers(p.gradient), "seconds": second,
            "correction": "what the second moment's start at 0 takes off it, in its codes: two's complement, at most 0",
            "rate": "log2 of what a normalised gradient of 1 moves a weight's t by",
            "bound": "largest t of a weight, 1 or more",
            "invalid": "sticky: a gradient was NaN",
            "overflow": "sticky: a gradient was Inf, or its square above the largest second moment",
            "words": "random words of the transfer whose second moments now move",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, lanes, bits = parameters.gradient, parameters.lanes, parameters.second_bits
        size = parameters.weight.bits - 1  # of a logarithm
        advance = self.handshake(m)

        def told(now: SimpleNamespace, name: str) -> Value:
            """Return what comes with a transfer, for all its weights."""
            return payload[name] if self.held else getattr(now, name)

        # The logarithms of the gradients' squares, in codes of the second moment; what gives 0 or less counts as zero.
        level = Level(fmt, 2 * parameters.second_gamma, -parameters.second_bias // 2)
        parts = [unpack(m, f"gradient{k}", fmt, code) for k, code in enumerate(payload.gradients)]
        now = stage(m, advance, "split", valid=self.i.valid, logarithms=[code[:-1] for code in payload.weights],
                    signs=[code[-1] for code in payload.weights],
                    away=[each.negative ^ code[-1] for each, code in zip(parts, payload.weights)],
                    significands=[each.significand for each in parts], fields=[each.field for each in parts],
                    infinite=[each.infinite for each in parts], nan=[each.nan for each in parts],
                    seconds=list(payload.seconds), **({} if self.held else {name: payload[name] for name in HELD}))
        found = [level.find(m, f"level{k}", now.significands[k], now.fields[k], now.infinite[k] | now.nan[k])
                 for k in range(lanes)]
        now = stage(m, advance, "found", now, drop=("significands", "fields"), found=found)
        # What is none above an exponent has the level 0, which is worth more than the least code if the offset is.
        offset = parameters.second_gamma * (2 * level.base + parameters.second_bias)
        now = stage(m, advance, "level", now, drop=("found",), levels=[
            level.round(m, f"level{k}", each, offset) for k, each in enumerate(now.found)])
        squares, above = [], []
        for k in range(lanes):
            value, infinite = now.levels[k], now.infinite[k]
            live = ~value[-1] & ~now.nan[k]
            if offset > 0:
                live = live & (value != offset)
            above.append(infinite | (live & value[bits:].any()))
            square = Signal(bits, name=f"square{k}")
            m.d.comb += square.eq((value[:bits] & live.replicate(bits)) | above[k].replicate(bits))
            squares.append(square)
        # A correction so low that no gradient counts need not be known any closer.
        window = _Window(parameters.thresholds[0], parameters.thresholds[-1])
        near = min((parameters.second_top - window.low).bit_length() + 1, CORRECTION)
        far, correction = C(0, 1), told(now, "correction")
        if near < CORRECTION:
            far = (correction[near:] ^ correction[near - 1].replicate(CORRECTION - near)).any()
        # How far the squares are from the second moments; and the squares, corrected.
        now = stage(m, advance, "apart", now, drop=("levels", "infinite", "correction"), squares=squares,
                    above=Cat(above).any(), far=far,
                    apart=[square - second for square, second in zip(squares, now.seconds)],
                    corrected=[square + correction[:near].as_signed() for square in squares])

        # The greater of both, less what a table tells for their distance, is the new second moment.
        table, words = self._table()
        addresses, greater, some = [], [], []
        for k in range(lanes):
            distance, square = now.apart[k], now.squares[k]
            some.append(square.any())
            addresses.append(table.index(distance.as_signed(), below=~some[k]))
            greater.append(Mux(distance[-1], now.seconds[k], square))
        now = stage(m, advance, "greater", now, drop=("apart", "squares", "seconds"), addresses=addresses,
                    greater=greater, some=Cat(some) & ~now.far.replicate(lanes))
        less = self._look_up(m, advance, words, now.addresses)
        now = stage(m, advance, "read", now, drop=("addresses", "far"))
        # Nothing is taken off for a NaN.
        now = stage(m, advance, "less", now, less=[Mux(now.nan[k], 0, less[k]) for k in range(lanes)],
                    nan=Cat(now.nan).any())
        noise = self._noise(m, advance & now.valid)
        seconds = []
        for k in range(lanes):
            sum_ = Cat(noise[k], now.greater[k]) - now.less[k]
            second = Signal(sum_.shape(), name=f"second{k}")
            m.d.comb += second.eq(sum_)
            seconds.append(Mux(second[-1], 0, second[parameters.random_bits:][:bits]))
        now = stage(m, advance, "moved", now, drop=("less", "greater"), seconds=seconds)
        now = stage(m, advance, "difference", now, drop=("corrected",), differences=[
            corrected.as_signed() - second for corrected, second in zip(now.corrected, now.seconds)])

        # The normalised gradients as integers, moved up by the rate; complemented where they are to be taken off.
        counts = [window.look_up(now.differences[k].as_signed(), ~now.some[k],
                                 lambda value: sum(value >= each for each in parameters.thresholds))
                  for k in range(lanes)]
        now = stage(m, advance, "count", now, drop=("differences", "some"), counts=counts)
        changes, rate = [], told(now, "rate")
        for k in range(lanes):
            count, off = now.counts[k], ~now.away[k]
            value = Signal(len(count) + 1, name=f"value{k}")
            m.d.comb += value.eq(Mux(rate[0], Cat(C(0, 1), count), count) ^ off.replicate(len(count) + 1))
            changes.append(Cat(_choose([value[place - shift] if 0 <= place - shift < len(value) else off
                                        for shift in range(0, 1 << RATE, 2)], rate[1:])
                               for place in range(len(value) + (1 << RATE) - 2)))
        now = stage(m, advance, "change", now, drop=("counts", "rate"), changes=changes)

        # Move the weights.
        wide = max(size, len(changes[0])) + 2
        moved = []
        for k in range(lanes):
            change, off = now.changes[k], ~now.away[k]
            moved.append(sum_with_carry(now.logarithms[k], Cat(change, off).as_signed(), off)[:wide])
        now = stage(m, advance, "sum", now, drop=("changes", "logarithms", "away"), moved=moved,
                    zero=[~each.any() for each in now.logarithms])
        logarithms, bound = [], told(now, "bound")
        for k in range(lanes):
            value = now.moved[k]
            room, limited = Signal(signed(wide), name=f"room{k}"), Signal(size, name=f"limited{k}")
            m.d.comb += [
                room.eq(bound - value.as_signed()),
                limited.eq(Mux(room[-1], bound, Mux(value[-1], 0, value[:size]))),
            ]
            # Of the value 0 only the lowest bit is left to be set.
            least = value[-1] | ~value.any()
            logarithms.append(Mux(now.zero[k], 0, Cat(limited[0] | least, limited[1:])))
        now = stage(m, advance, "weight", now, drop=("bound", "moved", "zero"), logarithms=logarithms)

        weights, narrow = [], []
        for k in range(lanes):
            t, sign = now.logarithms[k], now.signs[k]
            weights.append(Cat(t, sign))
            high, half = t[parameters.shift:], t[parameters.shift - 1]
            # Too short for a carry chain to be worth its ends.
            carries = [half & ~high.all()]
            for bit in high[:-1]:
                carries.append(carries[-1] & bit)
            narrow.append(Cat(high ^ Cat(carries), sign & (half | high.any())))
        self.emit(m, advance, now.valid, weights=Cat(weights), narrow=Cat(narrow), seconds=Cat(now.seconds))
        self.report(m, invalid=advance & now.valid & now.nan, overflow=advance & now.valid & now.above)
        return m

    def _noise(self, m: Module, draw: Value) -> list[Value]:
        """Return the lanes' random words."""
        lanes, bits = self.parameters.lanes, self.parameters.random_bits
        if self.addressed:
            return [self.words.word_select(k, bits) for k in range(lanes)]
        m.submodules.random = random = CountedWords(seed=self.parameters.seed, lanes=lanes, bits=bits)
        m.d.comb += random.draw.eq(draw)
        return [random.word(k) for k in range(lanes)]

    def _table(self) -> "tuple[_Window, list[int]]":
        """Return the window of distances in a table, and the words of that.

        The growth of V by a square d codes above it is the greater of d and 0, less a number that is never negative: a
        word, in units of 2**-random_bits. Words so large that nothing is left of any V are made no larger.
        """
        parameters = self.parameters
        low, table, end = growth(parameters.second_gamma, parameters.memory, parameters.random_bits)
        window, most = _Window(low + 1, low + len(table)), 1 << (parameters.second_bits + parameters.random_bits)

        def word(d: int) -> int:
            grown = table[max(d - low, 0)] if d < low + len(table) else (d << parameters.random_bits) + end
            return min((max(d, 0) << parameters.random_bits) - grown, most)

        return window, [word(d) for d in window.values]

    def _look_up(self, m: Module, advance: Value, words: list[int], addresses: list[Value]) -> list[Value]:
        """Return the words at the lanes' addresses, a cycle later. Two lanes share a memory, as block RAM allows."""
        lanes, found = self.parameters.lanes, []
        for k in range(lanes):
            if k % 2 == 0:
                rom = memory.Memory(shape=max(words).bit_length(), depth=len(words), init=words)
                m.submodules[f"table{k // 2}"] = rom
            port = rom.read_port()
            m.d.comb += [port.addr.eq(addresses[k]), port.en.eq(advance)]
            found.append(port.data)
        return found


class _Window:
    """The numbers that a function distinguishes: all below `low` are alike to it, and all from `high` on.

    They are looked up by an index of their low bits and what limits the high ones. Those bits are limited to their
    least and greatest values of which nothing is distinguished, so that the low ones need no limit.

    Attributes
    ----------
    low, high : int
    values : list of int
        For each index, a number that has it.
    """

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        # As few index bits as possible; of these as few high ones as possible.
        self._bits, _, self._fine, self._ends = min(
            (fine + (ends[1] - ends[0]).bit_length(), -fine, fine, ends)
            for fine in range((high - low).bit_length() + 1) for ends in [((low >> fine) - 1, -(-high >> fine))])
        coarse = self._bits - self._fine
        first = self._ends[0]
        blocks = [first + (block - first) % (1 << coarse) for block in range(1 << coarse)]
        self.values = [(min(block, self._ends[1]) << self._fine) + rest
                       for block in blocks for rest in range(1 << self._fine)]

    def index(self, value: Value, below: Value) -> Value:
        """Return the index of a signed number (combinational); with `below`, of one below the window."""
        value, under, over = self._beyond(value)
        first, last = (C(end, self._bits - self._fine) for end in self._ends)
        return Cat(value[:self._fine], Mux(below | under, first, Mux(over, last, value[self._fine:self._bits])))

    def look_up(self, value: Value, below: Value, function: Callable[[int], int]) -> Value:
        """Return a function's value, never negative, for a signed number (combinational): in logic."""
        value, under, over = self._beyond(value)
        results = [function(each) for each in self.values]
        size = max(results).bit_length()
        least, most = (C(function(end << self._fine), size) for end in self._ends)
        inside = Array(C(each, size) for each in results)[value[:self._bits]]
        return Mux(below | under, least, Mux(over, most, inside))

    def _beyond(self, value: Value) -> tuple[Value, Value, Value]:
        """Return a signed number, wide enough, and whether it is in or below the first block, in or above the last."""
        first, last = self._ends
        spare = max(self._bits, self._fine + 1 + max(first.bit_length(), last.bit_length())) - len(value)
        if spare > 0:
            value = Cat(value, value[-1].replicate(spare))
        block = value[self._fine:]
        return value, ~_reaches(block, first + 1), _reaches(block, last)


def _reaches(value: Value, constant: int) -> Value:
    """Return whether a signed number, given as bits, is `constant` or more: a function of few bits, not a subtraction.
    """
    result = C(1, 1)
    for place in range(len(value)):
        bit = value[place] if place < len(value) - 1 else ~value[place]
        wanted = constant >> place & 1 if place < len(value) - 1 else constant >= 0
        result = (bit & result) if wanted else (bit | result)
    return result


def _choose(values: list, which: Value) -> Value:
    """Return one of four bits, as a function of two functions of four."""
    first = Mux(which[1], which[0], Mux(which[0], values[1], values[0]))
    return Mux(which[1], Mux(first, values[3], values[2]), first)
