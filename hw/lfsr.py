"""Random words in hardware: the golden model's leaping LFSR, one register per lane."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..golden import lfsr

__all__ = ["LeapLFSR"]


class LeapLFSR(wiring.Component):
    """Linear-feedback shift registers, one per lane, that move k positions per draw.

    Lane l starts (and restarts on reset) in ``start_state(seed, l)``; its word is the top `bits`
    of the register. Source: numerics contract, section 2.

    Parameters
    ----------
    seed, lanes, bits : int

    Members
    -------
    words : Out(lanes * bits)
        The current draw of every lane, lane 0 lowest.
    draw : In(1)
        Move every lane on by one draw.
    """

    def __init__(self, *, seed: int, lanes: int, bits: int) -> None:
        self.seed, self.lanes, self.bits = seed, lanes, bits
        super().__init__({"words": Out(lanes * bits), "draw": In(1)})

    def word(self, lane: int) -> Value:
        """Return the current word of one lane."""
        return self.words[self.bits * lane:self.bits * (lane + 1)]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        columns = lfsr.leap_matrix(self.bits)
        words = []
        for lane in range(self.lanes):
            state = Signal(lfsr.WIDTH, name=f"state{lane}", init=lfsr.start_state(self.seed, lane))
            rows = [[state[i] for i in range(lfsr.WIDTH) if columns[i] >> row & 1] for row in range(lfsr.WIDTH)]
            with m.If(self.draw):
                m.d.sync += state.eq(Cat(Cat(*row).xor() for row in rows))
            words.append(state[-self.bits:])
        m.d.comb += self.words.eq(Cat(words))
        return m
