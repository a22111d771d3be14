# amaranth: UnusedElaboratable=no
"""The converter of an array whose gradients have an element or a rounding of their own."""

from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.formats import Fixed, Float
from ...golden.mx import MXPairParameters, recoded
from ..unit import StreamUnit
from .converter import MXConverter

__all__ = ["MXPair"]


class MXPair(StreamUnit):
    """Two converters to MX formats, of which a transfer takes one; their blocks have a common element.

    Both take the same time, so that blocks are in order. Nothing holds them back: a block is taken as it comes.

    Parameters
    ----------
    parameters : MXPairParameters
    addressed : bool
        As in `MXConverter`.

    Members
    -------
    i : In(stream)
        ``elements`` (codes of the work format, element 0 lowest) and ``gradient``: it is for the second converter.
    o : Out(stream)
        One block; see `block_layout`.
    invalid, overflow, status_clear, words
        As in `MXConverter`.
    """

    words_before = MXConverter.words_before + 1

    def __init__(self, parameters: MXPairParameters, addressed: bool = False) -> None:
        self.parameters, self.addressed = parameters, addressed
        first = parameters.first
        self.converters = [MXConverter(each, addressed) for each in (first, parameters.second)]
        words: dict[str, Any] = {"words": In(first.block * first.random_bits)} if addressed else {}
        super().__init__({"elements": data.ArrayLayout(first.work.width, first.block), "gradient": 1},
                         {"elements": data.ArrayLayout(parameters.element.width, first.block), "scale": 8}, **words)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        given, common = self.i.payload, self.parameters.element
        valid, elements, scales = [], [], []
        for number, (name, converter) in enumerate(zip(("other", "gradient"), self.converters)):
            m.submodules[name] = converter
            block, element = converter.o.payload, converter.parameters.element
            m.d.comb += [
                converter.i.valid.eq(self.i.valid & (given.gradient == number)), converter.o.ready.eq(1),
                converter.i.payload.elements.eq(given.elements), converter.status_clear.eq(self.status_clear),
            ]
            if self.addressed:
                m.d.comb += converter.words.eq(self.words)
            codes = []
            for lane, code in enumerate(block.elements):
                if element != common:
                    m.submodules[f"{name}{lane}"] = recode = _Recode(element, common)
                    m.d.comb += recode.code.eq(code)
                    code = recode.recoded
                codes.append(code)
            valid.append(converter.o.valid)
            elements.append(Cat(codes))
            scales.append(block.scale)
        m.d.comb += [self.i.ready.eq(1), *(getattr(self, name).eq(Cat(getattr(each, name) for each in self.converters)
                                                                  .any()) for name in ("invalid", "overflow"))]
        self.emit(m, 1, Cat(valid).any(), elements=Mux(valid[1], *reversed(elements)),
                  scale=Mux(valid[1], *reversed(scales)))
        return m


class _Recode(wiring.Component):
    """Gives an element's code the common element's (combinational): a table of magnitudes, beside a sign."""

    def __init__(self, element: Float | Fixed, common: Float | Fixed) -> None:
        self.element, self.common = element, common
        super().__init__({"code": In(element.width), "recoded": Out(common.width)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        element, common, top = self.element, self.common, self.element.width - 1
        if isinstance(common, Fixed):
            assert isinstance(element, Fixed)
            m.d.comb += self.recoded.eq(self.code.as_signed() << (common.fraction - element.fraction))
            return m
        negative, magnitude = self.code[-1], Signal(top)
        if isinstance(element, Fixed):
            m.d.comb += magnitude.eq(Mux(negative, -self.code, self.code))
        else:
            m.d.comb += magnitude.eq(self.code)
        m.d.comb += self.recoded[-1].eq(negative)
        with m.Switch(magnitude):
            for code, found in enumerate(recoded(element, common)[:1 << top].tolist()):
                with m.Case(code):
                    m.d.comb += self.recoded[:-1].eq(found)
        return m
