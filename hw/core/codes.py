# amaranth: UnusedElaboratable=no
"""Logarithmic weights in the core: their codes are operands without a conversion."""

from dataclasses import dataclass
from typing import Any

from amaranth import *
from amaranth.lib import data, memory

from ...golden.array import ArrayParameters
from ...golden.core import TrainerParameters
from ...golden.formats import PRESETS, Log
from ...golden.logarithmic import LNSConverterParameters, LNSSystem
from ...golden.number_system import NumberSystem
from ..logarithmic import LNSCircuits, LNSConverter
from ..logarithmic.layout import SCALE, vector_layout
from ..pipeline import delayed
from ..unit import StreamUnit

__all__ = ["CodedArray", "CodedCircuits", "CodedConverter", "CodedParameters", "CodedSystem", "array_of", "narrowed",
           "system_of"]


@dataclass(frozen=True)
class CodedParameters(LNSConverterParameters):
    """Parameters of a `CodedConverter`.

    Parameters
    ----------
    format, work, lanes
        As in `LNSConverterParameters`.
    weight : Log
        Of codes that come as they are: as many octaves as `format` in at least as many bits.
    """

    weight: Log = PRESETS["lns16-update"]


class CodedConverter(StreamUnit):
    """An `LNSConverter` past which codes of weights go: they are brought to fewer bits, and come out as late.

    Nothing holds it back.

    Parameters
    ----------
    parameters : CodedParameters

    Members
    -------
    i : In(stream)
        As in `LNSConverter`, with ``coded``: the elements are codes of `CodedParameters.weight`, in their low bits.
    o : Out(stream)
        As in `LNSConverter`.
    invalid, overflow : Out(1)
        As in `LNSConverter`; codes raise nothing.
    status_clear : In(1)
    """

    def __init__(self, parameters: CodedParameters) -> None:
        self.parameters = p = parameters
        self.converter = LNSConverter(p)
        super().__init__({"elements": data.ArrayLayout(p.work.width, p.lanes), "scale": SCALE, "given": 1, "coded": 1},
                         vector_layout(p.format, p.lanes))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        p, given, found = self.parameters, self.i.payload, self.o.payload
        m.submodules.converter = converter = self.converter
        taken = converter.i.payload
        # On their way through the converter codes count as zeros.
        elements = given.elements.as_value()
        m.d.comb += [
            converter.i.valid.eq(self.i.valid), self.i.ready.eq(1), converter.o.ready.eq(1),
            taken.elements.as_value().eq(Mux(given.coded, 0, elements)), taken.scale.eq(given.scale),
            taken.given.eq(given.given), converter.status_clear.eq(self.status_clear),
            self.invalid.eq(converter.invalid), self.overflow.eq(converter.overflow),
        ]
        # Codes wait in a ring of as many words as there are cycles, or more.
        delay = self.latency
        codes = Cat(narrowed(m, f"narrow{lane}", code[:p.weight.bits], p.weight, p.format)
                    for lane, code in enumerate(given.elements))
        m.submodules.ring = ring = memory.Memory(shape=len(codes), depth=1 << (delay - 1).bit_length(), init=[])
        write, read = ring.write_port(), ring.read_port(domain="comb")
        count = Signal(range(ring.depth))
        m.d.sync += count.eq(count + 1)
        m.d.comb += [write.addr.eq(count), write.data.eq(codes), write.en.eq(1), read.addr.eq(count - delay)]
        coded = delayed(m, "coded", given.coded, delay)
        m.d.comb += [
            self.o.valid.eq(converter.o.valid), found.scale.eq(converter.o.payload.scale),
            found.codes.as_value().eq(Mux(coded, read.data, converter.o.payload.codes.as_value())),
        ]
        return m


def narrowed(m: Module, name: str, code: Value, weight: Log, narrow: Log) -> Value:
    """Return a weight's code in the format of operands, rounded to the nearest: see `golden.logarithmic.narrowed`."""
    shift, size = weight.bits - narrow.bits, narrow.bits - 1
    t = code[shift:-1] if shift else code[:-1]
    if shift:
        sum_ = Signal(size, name=name)
        m.d.comb += sum_.eq(t + (code[shift - 1] & ~t.all()))
        t = sum_
    return Cat(t, code[-1] & t.any())


class CodedCircuits(LNSCircuits):
    """Circuits of a core whose weights are logarithmic codes."""

    converter = CodedConverter

    @staticmethod
    def convert(payload: data.View, elements: Value, mode: data.View) -> list:
        return [*LNSCircuits.convert(payload, elements, mode), payload.coded.eq(mode.coded)]


@dataclass(frozen=True)
class CodedSystem(LNSSystem):
    """Logarithmic numbers in the core's array. The mode ``coded`` tells that an operand consists of codes.

    Parameters
    ----------
    weight : Log
        Of these codes.
    """

    weight: Log = PRESETS["lns16-update"]

    circuits = "narrowgauge.hw.core.codes:CodedCircuits"
    modes = {"scale": 8, "coded": 1}

    def converter(self, side: int) -> CodedParameters:
        """Return the parameters of a side's converter."""
        return CodedParameters(self.format, self.work, self.lanes, self.weight)


class CodedArray(ArrayParameters):
    """Parameters of an array with a `CodedSystem`, which is none that has a name of its own."""

    @property
    def name(self) -> str:
        return "lns"


def array_of(parameters: TrainerParameters, **sizes: int) -> ArrayParameters:
    """Return the parameters of a core's array, with other sizes of its memories."""
    p, kind = parameters, CodedArray if parameters.madam else ArrayParameters
    return kind(system_of(p), p.rows, p.columns, p.sums, p.converters, **sizes)


def system_of(parameters: TrainerParameters) -> NumberSystem:
    """Return the number system as a core's array has it."""
    madam, system = parameters.madam, parameters.system
    if madam is None:
        return system
    assert isinstance(system, LNSSystem), "only logarithmic weights have codes"
    return CodedSystem(**vars(system), weight=madam.weight)
