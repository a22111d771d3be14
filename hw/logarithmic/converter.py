"""The converter from floating point to logarithmic numbers."""

from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib import data

from ...golden.formats import Log
from ...golden.logarithmic import SCALE_BIAS, SCALE_MAX, SCALE_MIN, LNSConverterParameters
from .. import meanings
from ..log2 import Level
from ..pipeline import bits_of, stage
from ..rounding import unpack
from ..trees import largest, packed_sums
from ..unit import StreamUnit
from .layout import SCALE, vector_layout

__all__ = ["LNSConverter", "least_scale"]


class LNSConverter(StreamUnit):
    """Converter from floating point to logarithmic numbers: one vector per cycle.

    Each logarithm is rounded to nearest, exactly. The scale is the least under which the vector's largest magnitude
    fits, or the one given with the transfer, for a scale of more than a vector. What is too large saturates, what
    rounds to the logarithm 0 or below is zero, without a sign. Inf and NaN become the largest number with their sign;
    for the scale they count as numbers of the exponent above the largest. Source: numerics contract, section 6.

    Parameters
    ----------
    parameters : LNSConverterParameters

    Members
    -------
    i : In(stream)
        ``elements`` (codes of the work format, element 0 lowest), ``scale`` (exponent + 127), ``given`` (use it).
    o : Out(stream)
        ``codes``, ``scale``; see `vector_layout`.
    invalid, overflow : Out(1)
        Sticky: a NaN came in; an Inf or a NaN came in, or a number was too large for its scale.
    status_clear : In(1)
        Clears both.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result.
    interval : int
        Cycles between transfers: 1.
    """

    def __init__(self, parameters: LNSConverterParameters) -> None:
        self.parameters = parameters
        elements = data.ArrayLayout(parameters.work.width, parameters.lanes)
        super().__init__({"elements": elements, "scale": SCALE, "given": 1},
                         vector_layout(parameters.format, parameters.lanes))

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return {
            "elements": meanings.numbers(p.work), "given": "1: take the scale that came in, 0: find the vector's own",
            "invalid": "sticky: a NaN came in",
            "overflow": "sticky: an Inf or a NaN came in, or a number was too large for its scale",
        } | meanings.scale("i.scale") | meanings.vector(p.format, "o.")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parameters, payload = self.parameters, self.i.payload
        fmt, work, lanes = parameters.format, parameters.work, parameters.lanes
        low = fmt.gamma.bit_length() - 1
        advance = self.handshake(m)

        # Logarithms of the elements, counted from the exponent below the least that matters: numbers below the lowest
        # scale are zeros.
        level = Level(work, fmt.gamma, SCALE_MIN)
        parts = [unpack(m, f"element{k}", work, code) for k, code in enumerate(payload.elements)]
        now = stage(m, advance, "split", valid=self.i.valid, given=payload.given, scale=payload.scale,
                    significands=[each.significand for each in parts], fields=[each.field for each in parts],
                    negative=[each.negative for each in parts],
                    special=[each.infinite | each.nan for each in parts], nan=Cat(each.nan for each in parts).any())
        found = [level.find(m, f"level{k}", now.significands[k], now.fields[k], now.special[k]) for k in range(lanes)]
        now = stage(m, advance, "found", now, drop=("significands", "fields"), found=found)
        now = stage(m, advance, "level", now, drop=("found",),
                    best=[level.round(m, f"level{k}", each) for k, each in enumerate(now.found)])
        now = SimpleNamespace(**vars(now), levels=now.best)
        now, best = largest(m, advance, now, levels=1)

        # The least scale, and the number to take off the levels for the scale in use.
        own = least_scale(m, "wanted", fmt, level, best)
        now = stage(m, advance, "scale", now, drop=("best", "given"), scale=Mux(now.given, now.scale, own))
        high = level.width - low
        bits = max(high, SCALE, (abs(level.base) + SCALE_BIAS).bit_length(), fmt.bits - 1 - low) + 2
        offset = Signal(signed(bits))
        m.d.comb += offset.eq(SCALE_BIAS + level.base - now.scale)
        now = stage(m, advance, "offset", now, offset=offset)
        sums = packed_sums(m, "octave", [
            (now.offset.as_unsigned(), Cat(each[low:], C(0, bits - high)), None) for each in now.levels])
        rest: dict[str, Any] = {"remainders": [each[:low] for each in now.levels]} if low else {}
        now = stage(m, advance, "octave", now, drop=("levels", "offset"), octaves=[each[:bits] for each in sums],
                    some=[each.any() for each in now.levels], **rest)

        # Clip.
        codes, above = [], []
        for k in range(lanes):
            octave = now.octaves[k]
            t = Cat(now.remainders[k] if low else (), octave)[:fmt.bits - 1]
            beyond = (octave[fmt.bits - 1 - low:-1].any() & ~octave[-1]) & now.some[k] | now.special[k]
            zero = (octave[-1] | ~now.some[k]) & ~now.special[k]
            code = Signal(fmt.bits - 1, name=f"code{k}")
            m.d.comb += code.eq((t | beyond.replicate(fmt.bits - 1)) & ~zero.replicate(fmt.bits - 1))
            codes.append(Cat(code, now.negative[k] & code.any()))
            above.append(beyond)
        self.emit(m, advance, now.valid, codes=Cat(codes), scale=now.scale)
        self.report(m, invalid=advance & now.valid & now.nan, overflow=advance & now.valid & Cat(above).any())
        return m


def least_scale(m: Module, name: str, fmt: Log, level: Level, largest: Value) -> Value:
    """Return the code of the least scale under which a number of the level `largest` fits (combinational)."""
    low = fmt.gamma.bit_length() - 1
    octaves = (fmt.top + 1) >> low
    least = 1 - octaves + level.base + SCALE_BIAS
    size = max(level.width + 3, bits_of(least, least + (1 << level.width - low) - 1))
    wanted = Signal(signed(size), name=name)
    m.d.comb += wanted.eq(largest[low:] + least)
    top = SCALE_MAX + SCALE_BIAS
    own = Mux(wanted < 0, 0, Mux(wanted > top, top, wanted))[:SCALE]
    if least > 0:  # the least number of the format wants more than the lowest scale, which is that of zeros
        own = Mux(largest.any(), own, 0)
    return own
