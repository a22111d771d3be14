"""A stream unit's frame: ports, handshake, output register and sticky status."""

from collections.abc import Iterable
from typing import Any

from amaranth import *
from amaranth.hdl import ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .pipeline import sticky_status

__all__ = ["DotUnit", "StreamUnit"]


class StreamUnit(wiring.Component):
    """Component with a stream in, a stream out, and sticky status.

    Parameters
    ----------
    i, o : dict or data.StructLayout
        Fields of the payloads. Each payload is one packed port.
    status : tuple of str
        Sticky flags. Without a flag there is no port ``status_clear``.
    **members : In or Out
        Further ports.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    invalid, overflow : Out(1)
        The flags of `status`.
    status_clear : In(1)
        Clears all flags.

    Attributes
    ----------
    latency : int
        Cycles from an accepted transfer to its result. A unit without a latency of its own has its parameters'.
    interval : int
        Cycles between transfers.
    """

    interval = 1

    parameters: Any
    i: stream.Interface
    o: stream.Interface
    status_clear: Signal

    def __init__(self, i: dict | data.StructLayout, o: dict | data.StructLayout,
                 status: Iterable[str] = ("invalid", "overflow"), **members: wiring.Member) -> None:
        payloads = [each if isinstance(each, data.StructLayout) else data.StructLayout(each) for each in (i, o)]
        super().__init__({
            "i": In(stream.Signature(payloads[0])), "o": Out(stream.Signature(payloads[1])),
            **dict.fromkeys(status, Out(1)), **({"status_clear": In(1)} if status else {}), **members,
        })

    @property
    def latency(self) -> int:
        return self.parameters.latency

    def handshake(self, m: Module, moves: ValueLike | None = None) -> Signal:
        """Return when the pipeline moves: its result is taken, or there is none; `moves` replaces this condition.

        A pipeline that moves accepts a transfer.
        """
        advance = Signal()
        m.d.comb += [advance.eq(~self.o.valid | self.o.ready if moves is None else moves), self.i.ready.eq(advance)]
        return advance

    def emit(self, m: Module, advance: ValueLike, valid: ValueLike, **payload: ValueLike) -> None:
        """Register a result, the fields of `o`, whenever the pipeline moves."""
        with m.If(advance):
            m.d.sync += [self.o.valid.eq(valid)] + [
                Value.cast(self.o.payload[name]).eq(value) for name, value in payload.items()]

    def report(self, m: Module, **conditions: ValueLike) -> None:
        """Set each named flag where its condition holds; see `sticky_status`."""
        for name, condition in conditions.items():
            sticky_status(m, getattr(self, name), condition, self.status_clear)


class DotUnit(StreamUnit):
    """Unit with one sum, to which each transfer adds the dot product of two vectors. The result is rounded to a float.

    Parameters
    ----------
    parameters : dataclass
        With ``result``, the Float of emitted sums.
    vector : data.StructLayout
        Of each operand.

    Members
    -------
    i : In(stream)
        ``a``, ``b``, ``first`` (start from 0), ``last`` (emit the new sum, which is kept).
    o : Out(stream)
        ``value`` (code of the result format).
    """

    def __init__(self, parameters: Any, vector: data.StructLayout) -> None:
        self.parameters = parameters
        super().__init__({"a": vector, "b": vector, "first": 1, "last": 1}, {"value": parameters.result.width},
                         ("overflow",))
