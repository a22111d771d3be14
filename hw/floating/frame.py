"""What the floating-point units share: from the cuts of their pipelines to the rounded result."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.lib.wiring import In

from ...golden.formats import Float
from .. import meanings
from ..multiplier import Multiplier, text_of
from ..pipeline import signals, stage
from ..rounding import normalise, round_and_pack, window_of
from ..unit import StreamUnit
from ..words import lane_words

__all__ = ["FloatUnit", "top_field"]


class FloatUnit(StreamUnit):
    """What the pipelined units share: ports, cuts, and the way from an exact value to the result.

    Parameters
    ----------
    embedded : bool
        Whether the unit is a part of a pipeline. The pipeline moves the unit by a port ``enable`` in place of the
        handshake, and the unit has no status. With stochastic rounding the operands have a flag ``nearest`` then: such
        operands are rounded to nearest even and draw no random word.
    addressed : bool
        Whether random words come from a port ``words``, and not from the unit's own count. The word of a sum has to be
        there in the cycle before its result.

    Attributes
    ----------
    CUTS : tuple of str
        Places for registers, the most useful first: a unit of latency n has the first n.
    JOINED : bool
        Whether the exponent field of a result that may be subnormal is worked out in the sum that rounds.
    """

    JOINED = False

    def __init__(self, parameters: Any, operands: dict[str, Any], result: Float, *, embedded: bool = False,
                 addressed: bool = False) -> None:
        self.parameters, self.result, self.addressed = parameters, result, addressed
        self.flush, self._window = parameters.subnormals == "flush", window_of(parameters.mode)
        self._empty = 0  # bits at the bottom of the value, as for `normalise`
        self._embedded, self._choice = embedded, embedded and parameters.rounding == "stochastic"
        operands = operands | ({"nearest": 1} if self._choice else {})
        members = {"enable": In(1)} if embedded else {}
        members |= {"words": In(parameters.mode.bits)} if addressed else {}
        super().__init__(operands, {"value": result.width}, () if embedded else ("invalid", "overflow"), **members)

    @property
    def meanings(self) -> dict[str, str]:
        p = self.parameters
        return {
            "a": meanings.numbers(p.format), "b": meanings.numbers(p.format), "c": meanings.numbers(self.result),
            "subtract": "1: a - b, 0: a + b", "value": f"the result: {meanings.numbers(self.result)}",
            "invalid": "sticky: a result was NaN",
            "overflow": "sticky: a result of finite operands was beyond the largest finite value",
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        advance = self.handshake(m, self.enable if self._embedded else None)

        def cut(name: str, before: SimpleNamespace | None = None, *, drop: tuple[str, ...] = (), **values: Any
                ) -> SimpleNamespace:
            return stage(m, advance, name, before, drop=drop, registered=name in self.CUTS[:self.latency], **values)

        self._finish(m, advance, cut, *self._exact(m, advance, cut))
        return m

    def _multiplier(self) -> dict[str, Any]:
        """Return what `Multiplier` and `block` take."""
        cuts = self.CUTS[:self.latency]
        return {"width": self.parameters.format.mantissa + 1, "before": "inputs" in cuts, "behind": "product" in cuts,
                "kind": self.parameters.multiplier}

    @property
    def text(self) -> str:
        """Verilog of the module that the unit instantiates."""
        return text_of(**self._multiplier()) if hasattr(self.parameters, "multiplier") else ""

    def _product(self, m: Module, advance: Value, a: Value, b: Value) -> Value:
        """Return the product of two significands, behind the cuts ``inputs`` and ``product``."""
        m.submodules.multiplier = multiplier = Multiplier(**self._multiplier())
        m.d.comb += [multiplier.a.eq(a), multiplier.b.eq(b), multiplier.enable.eq(advance)]
        return multiplier.p

    def _finish(self, m: Module, advance: Value, cut: Callable, now: SimpleNamespace, depth: int, limited: bool
                ) -> None:
        """Normalise, round, encode: what `_exact` of each unit returns.

        `now` has ``valid``; ``value``, ``top``, ``sticky`` and ``flip`` as for `round_and_pack`, but with the leading
        one anywhere; ``negative``; ``cancels``: a zero is +0; ``infinite`` and ``nan``. `depth` is the greatest number
        of leading zeros, `limited` tells whether subnormal results are to be expected.
        """
        fmt, mode = self.result, self.parameters.mode
        shifts = [1 << k for k in reversed(range(depth.bit_length()))]
        half = (len(shifts) + 1) // 2
        limit, free, before, need, empty = None, C(0, 1), [], fmt.mantissa + 1 + self._window, self._empty
        if limited:
            n = len(shifts)
            limit = now.top[:n] | now.top[n:].any().replicate(n) if len(now.top) > n else Cat(now.top, C(0, n))[:n]
        for name, part, later in (("coarse", shifts[:half], sum(shifts[half:])), ("fine", shifts[half:], 0)):
            value, taken, free, below = normalise(m, name, now.value, part, fill=now.flip, limit=limit, free=free,
                                                  need=need + later, empty=empty)
            empty = max(empty - (len(now.value) - len(value)), 0)
            values = {"limit": limit, "free": free} if limited else {}
            before = [*reversed(taken), *before]
            now = cut(name, now, value=value, sticky=now.sticky | below, taken=Cat(before) if before else C(0, 1),
                      **values)
            before = [now.taken] if before else []
            if limited:
                limit, free = now.limit, now.free

        noise = None
        if mode.kind == "stochastic":
            word, = lane_words(self, m, advance & now.valid & ~now.nearest if self._choice else advance & now.valid,
                               seed=self.parameters.seed, lanes=1, bits=mode.bits)
            noise = Cat(C(1, 1), word) if mode.corrected else word
        # With flush, the shift may be greater than any field of a format of few exponents.
        size = max(len(now.top), len(now.taken)) + 1 if self.flush else len(now.top)
        joined = self.JOINED and limited
        top = Signal(signed(size) if self.flush else size)
        m.d.comb += top.eq(now.top if joined else now.top - now.taken)
        packed = round_and_pack(m, fmt, mode, now.value, top, flush=self.flush, sticky=now.sticky, flip=now.flip,
                                noise=noise, nearest=now.nearest if self._choice else None,
                                taken=now.taken if joined else None)
        over = fmt.max_code if mode.kind == "truncate" else fmt.overflow_code
        infinity = fmt.overflow_code if fmt.inf_code is None else fmt.inf_code
        nan = fmt.max_code if fmt.nan_code is None else fmt.nan_code
        magnitude = Signal(fmt.width - 1)
        if joined:
            packed.magnitude = packed.magnitude & packed.nonzero.replicate(fmt.width - 1)
        m.d.comb += magnitude.eq(Mux(now.nan, nan, Mux(now.infinite, infinity,
                                                       Mux(packed.over, over, packed.magnitude))))
        negative = now.negative & ~now.nan & ~(now.cancels & ~packed.nonzero & ~now.infinite)
        lost = packed.over & ~now.infinite if fmt.inf_code is not None else packed.over | now.infinite
        self.emit(m, advance, now.valid, value=Cat(magnitude, negative))
        if self._embedded:
            return
        # The status is told a cycle later, off the critical path.
        was_nan, was_lost = signals("was_nan was_lost")
        m.d.sync += [was_nan.eq(advance & now.valid & now.nan), was_lost.eq(advance & now.valid & lost & ~now.nan)]
        self.report(m, invalid=was_nan, overflow=was_lost)


def top_field(m: Module, field: Value, offset: int, low: int, high: int, flush: bool) -> Value:
    """Return field + offset, which is from `low` to `high`: signed with `flush`, else not below 0."""
    shape = signed(max(low.bit_length(), high.bit_length(), 1) + 1)
    top = Signal(shape, name="sum_top")
    m.d.comb += top.eq(field + offset)
    if flush:
        return top
    return (top & ~top[-1].replicate(len(top)))[:-1] if low < 0 else top.as_unsigned()[:-1]
