"""Random words in hardware: blocks of the golden model's function, one set a cycle, and a unit's count of its vectors.
"""

from typing import Any

import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..golden import words
from ..golden.words import STAGES, blocks_of

__all__ = ["AddressedWords", "CountedWords", "lane_words"]


def lane_words(unit: Any, m: Module, draw: Value, *, seed: int, lanes: int, bits: int) -> list[Value]:
    """Return the words of a unit's current vector, lane by lane: from its port ``words``, or else from its own count.

    Parameters
    ----------
    unit : wiring.Component
        ``addressed`` tells whether it has the port.
    m : Module
        Of the unit.
    draw : Value
        The vector moves on.
    seed, lanes, bits : int
    """
    source: Any = unit
    if not unit.addressed:
        m.submodules.random = source = CountedWords(seed=seed, lanes=lanes, bits=bits)
        m.d.comb += source.draw.eq(draw)
    return [source.words.word_select(lane, bits) for lane in range(lanes)]


def _words_of(block: list[Value], lanes: int, bits: int) -> Value:
    """Return the words of lanes, lane 0 lowest, from the blocks of a vector."""
    size, everything = 8 if bits <= 8 else 16, Cat(block)
    return Cat(everything[size * (lane + 1) - bits:size * (lane + 1)] for lane in range(lanes))


def _block(m: Module, name: str, enable: Value, key: Value, index: Value, start: list[tuple[int, ...]] | None
           ) -> list[Value]:
    """Return the four words of a block, `STAGES` cycles behind its index; two levels of logic a stage.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the registers' names.
    enable : Value
        All registers move.
    key, index : Value
        Of 64 and 32 bits. Every stage takes the key as it is in its cycle.
    start : list of tuple of int, optional
        What the registers hold after reset; without it they are not reset.
    """
    def kept(at: int, **values: Value) -> list[Value]:
        registers: list[Value] = []
        for place, (part, value) in enumerate(values.items()):
            settings = {"init": start[at][place]} if start else {"reset_less": True}
            registers.append(Signal(len(value), name=f"{name}_{part}{at + 1}", **settings))
        with m.If(enable):
            m.d.sync += [register.eq(value) for register, value in zip(registers, values.values())]
        return registers

    def left(value: Value, places: int) -> Value:
        return Value.cast(value).rotate_left(places)

    k0, k1, k2, high = key[:16], key[16:32], key[32:48], key[32:]
    r, half = index[:16] ^ k0, index[16:]
    for at, more in enumerate((k1, None, k2, None)):
        half = half ^ (left(r, 1) & left(r, 14)) ^ (left(r, 13) if more is None else more)
        r = r ^ (left(half, 9) & left(half, 11)) ^ left(half, 4)
        r, half = kept(at, r=r, l=half)
    s = Cat(r, half)
    t = left(s, 5) ^ (left(s, 18) & left(s, 11)) ^ high
    s, t, u = kept(4, s=s, t=t, u=left(t, 9) ^ left(s, 22) ^ (left(t, 21) & left(s, 28)) ^ words.U)
    v = left(u, 13) ^ left(t, 27) ^ (left(s, 7) & left(u, 26)) ^ words.V
    s, t, u, v = kept(5, s=s ^ left(u, 3) ^ (left(v, 21) & left(u, 12)), t=t ^ left(v, 17) ^ (left(u, 25) & left(v, 6)),
                      u=u, v=v)
    return kept(6, s=s, t=t, u=u ^ left(t, 9) ^ (left(s, 26) & left(t, 14)),
                v=v ^ left(s, 22) ^ (left(t, 2) & left(s, 11)))


class CountedWords(wiring.Component):
    """The words of a unit that counts its vectors, from 0 after reset, under step 0 and use 0.

    Its registers begin as if the vectors before had been drawn: there is no time to wait. Source: numerics contract,
    section 2.

    Parameters
    ----------
    seed, lanes, bits : int

    Members
    -------
    words : Out(lanes * bits)
        Of the current vector, lane 0 lowest.
    draw : In(1)
        Move on by one vector.
    """

    def __init__(self, *, seed: int, lanes: int, bits: int) -> None:
        self.seed, self.lanes, self.bits = seed, lanes, bits
        super().__init__({"words": Out(lanes * bits), "draw": In(1)})

    def word(self, lane: int) -> Value:
        """Return the current word of one lane."""
        return self.words.word_select(lane, self.bits)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        count, key = blocks_of(self.lanes, self.bits), words.key(self.seed)
        below = count.bit_length() - 1
        number = Signal(32 - below, init=STAGES)
        with m.If(self.draw):
            m.d.sync += number.eq(number + 1)
        # The last register holds vector 0, the one before it vector 1.
        vectors = np.arange(STAGES - 1, -1, -1, dtype=np.uint32) << np.uint32(below)
        whole: list[Value] = []
        for part in range(count):
            held = words.stages(key, vectors + np.uint32(part))
            start = [tuple(int(each[at]) for each in stage) for at, stage in enumerate(held)]
            whole += _block(m, f"block{part}", self.draw, C(key, 64), Cat(C(part, below), number), start)
        m.d.comb += self.words.eq(_words_of(whole, self.lanes, self.bits))
        return m


class AddressedWords(wiring.Component):
    """The words of vectors that are told: `STAGES` cycles behind an index. Source: numerics contract, section 2.

    Parameters
    ----------
    lanes, bits : int

    Members
    -------
    key : In(64)
        Has to stay while indices are under way.
    index : In(32)
        Of the vector's first block.
    words : Out(lanes * bits)
        Lane 0 lowest.
    begin : Out(64)
        The first 8 bytes of the block at `index`, which are the next key in a chain of keys.
    """

    def __init__(self, *, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        super().__init__({"key": In(64), "index": In(32), "words": Out(lanes * bits), "begin": Out(64)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        count = blocks_of(self.lanes, self.bits)
        below = count.bit_length() - 1
        whole: list[Value] = []
        for part in range(count):
            # Only the first block's index may be any number: that of a key.
            index = Cat(C(part, below), self.index[below:]) if part else self.index
            whole += _block(m, f"block{part}", C(1, 1), self.key, index, None)
        m.d.comb += [self.words.eq(_words_of(whole, self.lanes, self.bits)), self.begin.eq(Cat(whole)[:64])]
        return m
