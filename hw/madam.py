"""Madam's weight update in hardware: logarithmic weights move by additions to their codes."""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..golden.madam import MadamParameters, growth
from .floating import unpack
from .lfsr import LeapLFSR
from .log2 import Level
from .pipeline import stage, sticky_status, sum_with_carry

__all__ = ["MadamUpdate"]

RATE = 3  # bits of a rate
CORRECTION = 16  # bits of a correction


class MadamUpdate(wiring.Component):
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

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    latency = 16
    interval = 1

    def __init__(self, parameters: MadamParameters):
        self.parameters = parameters
        p, lanes = parameters, parameters.lanes
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "weights": data.ArrayLayout(p.weight.bits, lanes),
                "gradients": data.ArrayLayout(p.gradient.width, lanes),
                "seconds": data.ArrayLayout(p.second_bits, lanes),
                "correction": signed(CORRECTION),
                "rate": RATE,
                "bound": p.weight.bits - 1,
            }))),
            "o": Out(stream.Signature(data.StructLayout({
                "weights": data.ArrayLayout(p.weight.bits, lanes),
                "narrow": data.ArrayLayout(p.narrow.bits, lanes),
                "seconds": data.ArrayLayout(p.second_bits, lanes),
            }))),
            "invalid": Out(1),
            "overflow": Out(1),
            "status_clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, lanes, bits = parameters.gradient, parameters.lanes, parameters.second_bits
        size = parameters.weight.bits - 1  # of a logarithm
        advance = Signal()
        m.d.comb += [advance.eq(~self.o.valid | self.o.ready), self.i.ready.eq(advance)]

        # The logarithms of the gradients' squares, in codes of the second moment; what gives 0 or less counts as zero.
        level = Level(fmt, 2 * parameters.second_gamma, -parameters.second_bias // 2)
        parts = [unpack(m, f"gradient{k}", fmt, code) for k, code in enumerate(payload.gradients)]
        now = stage(m, advance, "split", valid=self.i.valid, logarithms=Cat(code[:-1] for code in payload.weights),
                    signs=Cat(code[-1] for code in payload.weights),
                    away=Cat(each.negative ^ code[-1] for each, code in zip(parts, payload.weights)),
                    significands=Cat(each.significand for each in parts), fields=Cat(each.field for each in parts),
                    infinite=Cat(each.infinite for each in parts), nan=Cat(each.nan for each in parts),
                    seconds=Cat(payload.seconds), correction=payload.correction, rate=payload.rate,
                    bound=payload.bound)
        found = [level.find(m, f"level{k}", _part(now.significands, k, lanes), _part(now.fields, k, lanes),
                            now.infinite[k] | now.nan[k]) for k in range(lanes)]
        now = stage(m, advance, "found", now, drop=("significands", "fields"), found=Cat(found))
        now = stage(m, advance, "level", now, drop=("found",), levels=Cat(
            level.round(m, f"level{k}", _part(now.found, k, lanes)) for k in range(lanes)))
        squares, above = zip(*(self._square(m, f"square{k}", level, _part(now.levels, k, lanes), now.infinite[k],
                                            now.nan[k]) for k in range(lanes)))
        # A correction so low that no gradient counts need not be known any closer.
        window = _Window(parameters.thresholds[0], parameters.thresholds[-1])
        near = min((parameters.second_top - window.low).bit_length() + 1, CORRECTION)
        far = C(0, 1)
        if near < CORRECTION:
            far = (now.correction[near:] ^ now.correction[near - 1].replicate(CORRECTION - near)).any()
        now = stage(m, advance, "square", now, drop=("levels", "infinite"), squares=Cat(squares),
                    above=Cat(above).any(), correction=now.correction[:near], far=far)

        # How far the squares are from the second moments; and the squares, corrected.
        apart, corrected, some = [], [], []
        for k in range(lanes):
            square, second = _part(now.squares, k, lanes), _part(now.seconds, k, lanes)
            apart.append(square - second)
            corrected.append(square + now.correction.as_signed())
            some.append(square.any())
        now = stage(m, advance, "apart", now, drop=("correction",), apart=Cat(apart), corrected=Cat(corrected),
                    some=Cat(some))

        # The greater of both, less what a table tells for their distance, is the new second moment.
        table, words = self._table()
        addresses, greater = [], []
        for k in range(lanes):
            distance = _part(now.apart, k, lanes)
            addresses.append(table.index(distance.as_signed(), below=~now.some[k]))
            greater.append(Mux(distance[-1], _part(now.seconds, k, lanes), _part(now.squares, k, lanes)))
        now = stage(m, advance, "greater", now, drop=("apart", "squares", "seconds"), addresses=Cat(addresses),
                    greater=Cat(greater), some=now.some & ~now.far.replicate(lanes))
        less = self._look_up(m, advance, words, now.addresses)
        now = stage(m, advance, "read", now, drop=("addresses", "far"))
        now = stage(m, advance, "less", now, less=less)
        m.submodules.lfsr = random = LeapLFSR(seed=parameters.seed, lanes=lanes, bits=parameters.random_bits)
        m.d.comb += random.draw.eq(advance & now.valid)
        moved = [(Cat(_part(random.words, k, lanes), _part(now.greater, k, lanes)) - _part(now.less, k, lanes))
                 [parameters.random_bits:] for k in range(lanes)]
        now = stage(m, advance, "moved", now, drop=("less",), moved=Cat(moved))
        seconds, differences = [], []
        for k in range(lanes):
            value, corrected = _part(now.moved, k, lanes), _part(now.corrected, k, lanes)
            second = Signal(bits, name=f"second{k}")
            m.d.comb += second.eq(Mux(now.nan[k], _part(now.greater, k, lanes),
                                      value[:bits] & ~value[-1].replicate(bits)))
            seconds.append(second)
            differences.append(corrected.as_signed() - second)
        now = stage(m, advance, "difference", now, drop=("moved", "greater", "corrected", "nan"), seconds=Cat(seconds),
                    differences=Cat(differences), nan=now.nan.any())

        # The normalised gradients as integers, moved up by the rate; complemented where they are to be taken off.
        counts = [window.look_up(_part(now.differences, k, lanes).as_signed(), ~now.some[k],
                                 lambda value: sum(value >= each for each in parameters.thresholds))
                  for k in range(lanes)]
        now = stage(m, advance, "count", now, drop=("differences", "some"), counts=Cat(counts))
        changes = []
        for k in range(lanes):
            change = Signal(len(counts[k]) + (1 << RATE) - 1, name=f"change{k}")
            m.d.comb += change.eq(_part(now.counts, k, lanes) << now.rate)
            changes.append(change ^ ~now.away[k].replicate(len(change)))
        now = stage(m, advance, "change", now, drop=("counts", "rate"), changes=Cat(changes))

        # Move the weights.
        wide = max(size, len(changes[0])) + 2
        moved = []
        for k in range(lanes):
            change, off = _part(now.changes, k, lanes), ~now.away[k]
            moved.append(sum_with_carry(_part(now.logarithms, k, lanes), Cat(change, off).as_signed(), off)[:wide])
        now = stage(m, advance, "sum", now, drop=("changes", "logarithms", "away"), moved=Cat(moved), zero=Cat(
            ~_part(now.logarithms, k, lanes).any() for k in range(lanes)))
        least, most = [], []
        for k in range(lanes):
            value = _part(now.moved, k, lanes)
            # Its sign tells that the value is not beyond the bound.
            room = Signal(wide + 1, name=f"room{k}")
            m.d.comb += room.eq(value.as_signed() + Cat(~now.bound, C(1, 1)).as_signed())
            least.append(now.zero[k] | value[-1] | ~value.any())
            most.append(now.zero[k] | ~room[-1])
        now = stage(m, advance, "limit", now, drop=("moved", "zero"), least=Cat(least), most=Cat(most), moved=Cat(
            _part(now.moved, k, lanes)[:size] for k in range(lanes)))
        logarithms = []
        for k in range(lanes):
            # Both flags mean zero.
            value = Signal(size, name=f"limited{k}")
            m.d.comb += value.eq(Mux(now.most[k], now.bound, _part(now.moved, k, lanes)) &
                                 ~now.least[k].replicate(size))
            logarithms.append(Cat(value[0] | (now.least[k] & ~now.most[k]), value[1:]))
        now = stage(m, advance, "weight", now, drop=("bound", "moved", "least", "most"), logarithms=Cat(logarithms))

        weights, narrow = [], []
        for k in range(lanes):
            t, sign = _part(now.logarithms, k, lanes), now.signs[k]
            weights.append(Cat(t, sign))
            high, half = t[parameters.shift:], t[parameters.shift - 1]
            rounded = Signal(len(high), name=f"narrow{k}")
            m.d.comb += rounded.eq(high + (half & ~high.all()))
            narrow.append(Cat(rounded, sign & (half | high.any())))
        with m.If(advance):
            m.d.sync += [
                self.o.valid.eq(now.valid),
                self.o.payload.weights.as_value().eq(Cat(weights)),
                self.o.payload.narrow.as_value().eq(Cat(narrow)),
                self.o.payload.seconds.as_value().eq(now.seconds),
            ]
        sticky_status(m, self.invalid, advance & now.valid & now.nan, self.status_clear)
        sticky_status(m, self.overflow, advance & now.valid & now.above, self.status_clear)
        return m

    def _square(self, m, name, level, value, infinite, nan):
        """Return the code of a gradient's square, 0 for one that does not count, and whether it is above the top."""
        parameters = self.parameters
        gamma, bits = parameters.second_gamma, parameters.second_bits
        low = gamma.bit_length() - 1
        offset = 2 * level.base + parameters.second_bias
        raw = Signal(signed(max(level.width - low, abs(offset).bit_length() + 1, bits - low) + 2), name=f"{name}_raw")
        m.d.comb += raw.eq(value[low:] + offset)
        whole, negative = Cat(value[:low], raw), raw[-1]
        # The least level is that of a zero; it may be worth more than the least code.
        live = ~negative & ~nan & (value.any() if offset > 0 else C(1, 1))
        above = infinite | (live & whole[bits:].any())
        square = Signal(bits, name=name)
        m.d.comb += square.eq((whole[:bits] & live.replicate(bits)) | above.replicate(bits))
        return square, above

    def _table(self):
        """Return the window of distances in a table, and the words of that.

        The growth of V by a square d codes above it is the greater of d and 0, less a number that is never negative: a
        word, in units of 2**-random_bits. Words so large that nothing is left of any V are made no larger.
        """
        parameters = self.parameters
        low, table, end = growth(parameters.second_gamma, parameters.memory, parameters.random_bits)
        window, most = _Window(low + 1, low + len(table)), 1 << (parameters.second_bits + parameters.random_bits)

        def word(d):
            grown = table[max(d - low, 0)] if d < low + len(table) else (d << parameters.random_bits) + end
            return min((max(d, 0) << parameters.random_bits) - grown, most)

        return window, [word(d) for d in window.values]

    def _look_up(self, m, advance, words, addresses):
        """Return the words at the lanes' addresses, a cycle later, in an order of memories that suits block RAM."""
        lanes = self.parameters.lanes
        width = max(words).bit_length()
        found = []
        for k in range(lanes):
            m.submodules[f"table{k}"] = rom = memory.Memory(shape=width, depth=len(words), init=words)
            port = rom.read_port()
            m.d.comb += [port.addr.eq(_part(addresses, k, lanes)), port.en.eq(advance)]
            found.append(port.data)
        return Cat(found)


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

    def __init__(self, low, high):
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

    def index(self, value, below):
        """Return the index of a signed number (combinational); with `below`, of one below the window."""
        coarse, (first, last) = self._bits - self._fine, self._ends
        block = value[self._fine:]
        # Wide enough for the ends to be numbers of that many bits.
        spare = max(coarse, first.bit_length(), last.bit_length()) + 1 - len(block)
        if spare > 0:
            block = Cat(block, value[-1].replicate(spare))
        under, over = below | ~_reaches(block, first + 1), _reaches(block, last)
        return Cat(value[:self._fine], Mux(under, C(first, coarse), Mux(over, C(last, coarse), block[:coarse])))

    def look_up(self, value, below, function):
        """Return a function's value, never negative, for a signed number (combinational)."""
        results = [function(each) for each in self.values]
        return Array(C(each, max(results).bit_length()) for each in results)[self.index(value, below)]


def _reaches(value, constant):
    """Return whether a signed number, given as bits, is `constant` or more: a function of few bits, not a subtraction.
    """
    result = C(1, 1)
    for place in range(len(value)):
        bit = value[place] if place < len(value) - 1 else ~value[place]
        wanted = constant >> place & 1 if place < len(value) - 1 else constant >= 0
        result = (bit & result) if wanted else (bit | result)
    return result


def _part(values, k, lanes):
    """Return what belongs to lane k."""
    return values.word_select(k, len(values) // lanes)
