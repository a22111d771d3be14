"""The array's way from the memory into the buffers: rotation, tail, conversion."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from amaranth import *
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ...base.checks import require
from ...golden import words
from ...golden.array import FETCH, ArrayParameters
from ...golden.precision import WIDE
from ...golden.words import STAGES, VECTOR, blocks_of
from ..chunks import counted_fields, levels, total
from ..circuits import circuits_of
from ..pipeline import signals, stage
from ..words import AddressedWords
from .layouts import mode_layout, request_layout, size_of

__all__ = ["Path", "random_key", "rotate"]


class Path(wiring.Component):
    """Brings vectors from the memory into the buffers: reads, rotates, cuts off the tail, and converts, one a cycle.

    Parameters
    ----------
    parameters : ArrayParameters
    side : int
        Of the converter's random words.
    fetch : int
        Registers on a vector's way from its request to the converter; the last one behind the rotation.
    span : int, optional
        As in `Walker`.
    keys : int
        Bits of a tensor's key, if the chunks of its groups may be counted; then the converter can tell them.

    Members
    -------
    valid, vector : In
        What to read; see `request_layout`.
    address, index : Out
        Of the memory's read ports: of each bank; and how far the vector is rotated that comes from them.
    reading : Out(1)
        What was asked for `fetch` - 1 cycles before is at
    elements : In
        rotated back.
    lanes, place, value : Out
        The write ports of the buffers: one bit for each lane that is written, the address, the data.
    arrived : Out(1)
        The vector that is being written completes what a tile needs.
    of : Out(1)
        The side that it is for, in a path that serves both.
    invalid, overflow : Out(1)
        Sticky status of the converter.
    status_clear : In(1)
    key, begin : In(64), Out(64)
        If vectors may need random words: see `AddressedWords`. An index's block comes `behind` cycles later.
    counts, key_of : In(1), In(keys)
        With keys: the vector counts, for this tensor. `counted` and `key_counted` tell it again, `counting` cycles
        later, with the sums of the group's chunks and its exponent: `low`, `high` and `code`.
    """

    def __init__(self, parameters: ArrayParameters, side: int, *, fetch: int = FETCH, span: int | None = None,
                 keys: int | None = None) -> None:
        self.fetch, self.keys = fetch, keys
        self.parameters, self.kind = parameters, circuits_of(parameters.system)
        system, request = parameters.system, request_layout(parameters, span)
        converter = system.converter(side)
        addressed = ({"addressed": True} if system.random else {}) | ({"counted": True} if keys is not None else {})
        self.converter = cast(Any, self.kind.converter(converter, **addressed) if converter else None)
        self.delay = converter.latency if converter else 0
        self.fields = [name for name, _ in self.converter.o.payload.shape() if name not in self.kind.held] if (
            self.converter) else []
        width = sum(len(Value.cast(self.converter.o.payload[name])) for name in self.fields) or system.work.width
        super().__init__({
            "valid": In(1), "vector": In(request),
            "address": Out(data.ArrayLayout(size_of(parameters.memory // system.group), system.group)),
            "index": Out(request["index"].shape), "reading": Out(1),
            "elements": In(data.ArrayLayout(system.work.width, system.group)),
            "lanes": Out(request["lanes"].shape), "place": Out(request["place"].shape), "value": Out(width),
            "arrived": Out(1), "of": Out(1), "invalid": Out(1), "overflow": Out(1), "status_clear": In(1),
            **({"key": In(64), "begin": Out(64)} if system.random else {}),
            **self._counted(),
        })

        if system.random:
            require(self.behind >= STAGES, "cycles from a vector's request to its random words", self.behind,
                    f"{STAGES} or more, which it takes to make them")

    def _counted(self) -> dict[str, Any]:
        """Return the members for groups that are counted."""
        if self.keys is None:
            return {}
        format = self.converter.parameters.format
        fields = counted_fields(format.group, format.exponent, self.keys)
        return {"counts": In(1), "key_of": In(self.keys), **{name: Out(bits) for name, bits in fields.items()}}

    @property
    def counting(self) -> int:
        """Cycles from a request to the sums of its group's chunks."""
        return self.fetch + self.delay + self._late

    @property
    def _late(self) -> int:
        """Cycles for which these come later than the group."""
        return 1 + levels(self.parameters.system.group) - self.converter.words_before

    @property
    def behind(self) -> int:
        """Cycles from a request to the random words of its vector."""
        return self.fetch + self.delay - self.converter.words_before

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        system, vector = self.parameters.system, self.vector
        group, low = system.group, system.group.bit_length() - 1

        # Element (r, c) of a block is in bank r + c, at address r: a row is at one address of all banks, a column at
        # another one in each; both begin in the bank of their index.
        for bank in range(group):
            offset = (Mux(vector.transposed, bank - vector.index, vector.index)[:low],) if low else ()
            m.d.comb += self.address[bank].eq(Cat(*offset, vector.block))
        way = {name: vector[name] for name in ("lanes", "arrived", "of")}
        way["place"] = (vector.place + vector.at)[:len(self.place)]
        if self.keys is not None:
            way |= {"counts": self.counts, "key_of": self.key_of}
        now = stage(m, 1, "read", valid=self.valid, index=vector.index, tail=vector.tail, mode=vector.mode)
        # The memory answers late in the cycle: its answer is registered before it is rotated.
        for step in range(FETCH, self.fetch):
            now = stage(m, 1, f"waited{step}", now)
        now = stage(m, 1, "answered", now)
        m.d.comb += [self.index.eq(now.index), self.reading.eq(now.valid)]
        # What is beyond the reduction axis counts as zero. From a Mux synthesis would make a clear for each element. As
        # all registers of an ECP5's tile share one clear, the elements would need tiles of their own.
        kept = [each & ((now.tail == 0) | (now.tail > k)).replicate(len(each)) if low else each
                for k, each in enumerate(self.elements)]
        now = stage(m, 1, "fetched", now, drop=("tail", "index"), elements=Cat(kept))
        if self.converter:
            m.submodules.converter = converter = self.converter
            mode = data.View(mode_layout(system), now.mode)
            if system.random:
                # A vector's index starts so late that the words meet the vector.
                below = blocks_of(*system.random).bit_length() - 1
                index = Cat((vector.random[:VECTOR] + (vector.at << below))[:VECTOR], vector.random[VECTOR:])
                for step in range(self.behind - STAGES):
                    index = stage(m, 1, f"index{step}", index=index).index
                m.submodules.random = random = AddressedWords(lanes=system.random[0], bits=system.random[1])
                m.d.comb += [random.key.eq(self.key), random.index.eq(index), converter.words.eq(random.words),
                             self.begin.eq(random.begin)]
            m.d.comb += [
                converter.i.valid.eq(now.valid), converter.o.ready.eq(1),
                *self.kind.convert(converter.i.payload, now.elements, mode),
                self.value.eq(Cat(converter.o.payload[name] for name in self.fields)),
                converter.status_clear.eq(self.status_clear),
                self.invalid.eq(converter.invalid), self.overflow.eq(converter.overflow),
            ]
        else:
            m.d.comb += self.value.eq(now.elements)
        # It never stalls, so that where a vector goes comes out of a ring of as many words.
        delay, valid = self.fetch + self.delay, now.valid
        for step in range(self.delay):
            valid = stage(m, 1, f"way{step}", valid=valid).valid
        layout = data.StructLayout({name: len(value) for name, value in way.items()})
        m.submodules.ring = ring = memory.Memory(shape=layout, depth=1 << (delay - 1).bit_length(), init=[])
        write = ring.write_port()
        read = ring.read_port(domain="comb")
        count = Signal(range(ring.depth))
        m.d.sync += count.eq(count + 1)
        m.d.comb += [write.addr.eq(count), write.en.eq(1), read.addr.eq(count - delay),
                     *(write.data[name].eq(value) for name, value in way.items())]
        now = read.data
        m.d.comb += [self.lanes.eq(now.lanes & valid.replicate(len(self.lanes))), self.place.eq(now.place),
                     self.arrived.eq(valid & now.arrived), self.of.eq(now.of)]
        if self.keys is not None:
            sums = self._chunks(m)
            group = SimpleNamespace(valid=valid & now.counts, key_of=now.key_of, code=self.converter.o.payload.exponent)
            for step in range(self._late):
                group = stage(m, 1, f"counted{step}", group)
            m.d.comb += [self.counted.eq(group.valid), self.key_counted.eq(group.key_of), self.code.eq(group.code),
                         self.low.eq(sums.low[0]), self.high.eq(sums.high[0])]
        return m

    def _chunks(self, m: Module) -> Any:
        """Return the sums of the chunks of the converter's group."""
        chunks = [self.converter.truncated.word_select(lane, WIDE) for lane in range(self.parameters.system.group)]
        return total(m, C(1, 1), stage(m, 1, "chunks", low=[each[:2] for each in chunks],
                                       high=[each[2:] for each in chunks]))


def random_key(m: Module, parameters: ArrayParameters, payload: data.View, wanted: Value, going: Value,
               paths: Sequence[Any]) -> Value:
    """Drive the paths' keys of random words; return whether they are those of an instruction's step.

    When they are not, and nothing is under way, the first path makes the key from that of the seed.

    Parameters
    ----------
    m : Module
    parameters : ArrayParameters
    payload : View
        The instruction.
    wanted : Value
        It is a product, and could begin if the key were right.
    going : Value
        A vector is requested.
    paths : sequence of Path
    """
    seed = parameters.system.seed
    start = words.chained(words.START, seed)
    key, step = Signal(64, name="key", init=words.key(seed)), Signal(32, name="step")
    behind = paths[0].behind
    quiet = Signal(range(behind + 1), name="quiet")  # cycles since an index was last another one
    making, known = signals("making known")
    m.d.comb += [known.eq((payload.step == step) & ~making), *(path.key.eq(key) for path in paths)]
    with m.If(making):
        m.d.comb += paths[0].vector.random.eq(step)  # the walkers are idle, so that `at` is 0
    with m.If(going):
        m.d.sync += quiet.eq(0)
    with m.Elif(quiet != behind):
        m.d.sync += quiet.eq(quiet + 1)
    with m.Elif(making):
        m.d.sync += [key.eq(paths[0].begin), making.eq(0)]
    with m.Elif(wanted & ~known):
        m.d.sync += [key.eq(start), step.eq(payload.step), making.eq(1), quiet.eq(0)]
    return known


def rotate(m: Module, name: str, value: Value, width: int, places: Value) -> Value:
    """Return a vector of elements of `width` bits, rotated down by so many places (combinational)."""
    turned = [Signal(len(value), name=f"{name}_turned{k}") for k in range(len(places) + 1)]
    m.d.comb += turned[0].eq(value)
    for level, bit in enumerate(places):
        now = turned[level]
        m.d.comb += turned[level + 1].eq(Mux(bit, Cat(now[width << level:], now[:width << level]), now))
    return turned[-1]
