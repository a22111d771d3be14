# amaranth: UnusedElaboratable=no
"""Scales of whole tensors: before a product its operands are read, and their greatest numbers are found."""

from typing import Any

from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..circuits import circuits_of
from ..pipeline import elastic, signals, stage
from ..rounding import unpack
from ..trees import largest
from .cursor import cursor
from .layouts import Geometry, place_layout, read_layout
from .memories import READ

__all__ = ["Scales"]


class Scales(wiring.Component):
    """Reads the operands of a product, and gives each the scale of its greatest magnitude that counts.

    One converter reads one operand after the other. Two converters read both at a time. An operand is not read if the
    program gives it a scale.

    Parameters
    ----------
    geometry : Geometry
    product : data.StructLayout
        See `product_layout`.

    Members
    -------
    start, given : In
        A product is here.
    busy, done, product : Out
        It is at work; the product has its scales now. `product` stays until the next one.
    wanted, request, granted, found : Out, Out, In, In
        Of each converter: as in `Products`.
    second : Out(1)
        Of one converter: it reads operand b.
    """

    def __init__(self, geometry: Geometry, product: data.StructLayout) -> None:
        self.geometry, self.converters = geometry, geometry.parameters.converters
        found = data.ArrayLayout(geometry.bits, geometry.side)
        sides = range(self.converters)
        super().__init__({
            "start": In(1), "given": In(product), "busy": Out(1), "done": Out(1), "product": Out(product),
            "second": Out(1),
            **{f"wanted{side}": Out(1) for side in sides}, **{f"granted{side}": In(1) for side in sides},
            **{f"request{side}": Out(read_layout(geometry)) for side in sides},
            **{f"found{side}": In(found) for side in sides},
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        product, system = self.product, self.geometry.system
        find = circuits_of(system).scale
        with m.If(self.start):
            m.d.sync += product.eq(self.given)
        operands = (product.a, product.m), (product.b, product.n)
        scans = []
        for number in range(self.converters):
            m.submodules[f"scan{number}"] = scan = _Scan(self.geometry)
            own = operands[number:] if self.converters > 1 else operands
            places = [self._place(operand, count) for operand, count in own]
            place = {name: Mux(self.second, places[1][name], value) if self.converters == 1 else value
                     for name, value in places[0].items()}
            m.d.comb += [
                *(scan.place[name].eq(value) for name, value in place.items()),
                getattr(self, f"wanted{number}").eq(scan.wanted), getattr(self, f"request{number}").eq(scan.request),
                scan.granted.eq(getattr(self, f"granted{number}")), scan.found.eq(getattr(self, f"found{number}")),
            ]
            scans.append(scan)
        finished = ~Cat(scan.busy for scan in scans).any()
        codes = []
        for number, scan in enumerate(scans):
            codes.append(find(m, f"scale{number}", system, scan.magnitude))

        def keep(side: int) -> None:
            """Keep a side's scale, unless it is given."""
            operand = operands[side][0]
            with m.If(~operand.given):
                m.d.sync += operand.scale.eq(codes[side if self.converters > 1 else 0])

        starts = [scan.start for scan in scans]
        with m.FSM(name="state") as states:
            with m.State("IDLE"), m.If(self.start):
                m.next = "FIRST"
            # A scan is busy from the cycle on in which it starts, and its magnitude stays.
            with m.State("FIRST"):
                m.d.comb += [start.eq(~operands[side][0].given) for side, start in enumerate(starts)]
                m.next = "READ"
            with m.State("READ"), m.If(finished):
                for side in range(self.converters):
                    keep(side)
                m.next = "DONE" if self.converters > 1 else "SECOND"
            if self.converters == 1:
                with m.State("SECOND"):
                    m.d.comb += [self.second.eq(1), starts[0].eq(~product.b.given)]
                    m.next = "LAST"
                with m.State("LAST"):
                    m.d.comb += self.second.eq(1)
                    with m.If(finished):
                        keep(1)
                        m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        m.d.comb += self.busy.eq(~states.ongoing("IDLE"))
        return m

    def _place(self, operand: Any, count: Value) -> dict[str, Value]:
        """Return the place of an operand's matrix, or of the tensor that it is a window of."""
        g, depth = self.geometry, self.product.k
        across, first = operand.transposed, operand.first
        along = Cat(C(0, g.low - g.along), operand.along if g.along else C(0, 0))
        place = {"block": operand.block, "stride": operand.stride, "top": Mux(across, along, first),
                 "left": Mux(across, first, along), "rows": Mux(across, depth, count),
                 "columns": Mux(across, count, depth)}
        if g.windows:
            tensor = operand.tensor
            of_tensor = {"top": tensor.top, "left": tensor.left, "rows": tensor.window.tall,
                         "columns": tensor.window.wide}
            place |= {name: Mux(tensor.window.windowed, value, place[name]) for name, value in of_tensor.items()}
        return place


class _Scan(wiring.Component):
    """Finds the greatest magnitude of a matrix, a code of the work format without its sign.

    Inf and NaN count if they do in the number system. Of a window the matrix is the tensor itself.

    Members
    -------
    start, place : In
        Begin with this matrix; it stays.
    busy, magnitude : Out
        From the cycle after `start` on, until `magnitude` is that of the matrix; it stays.
    wanted, request, granted, found : Out, Out, In, In
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        super().__init__({
            "start": In(1), "place": In(place_layout(geometry)), "busy": Out(1), "magnitude": Out(geometry.bits - 1),
            "wanted": Out(1), "request": Out(read_layout(geometry)), "granted": In(1),
            "found": In(data.ArrayLayout(geometry.bits, geometry.side)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        g, work = self.geometry, self.geometry.parameters.work
        asks, goes = signals("asks goes")
        walk = cursor(m, "walk", g, self.place, start=self.start, moves=goes, step=g.side)
        held, free = elastic(m, "held", self.granted, valid=asks, block=walk.block, row=walk.row, column=walk.column,
                             live=Cat(walk.rest > lane for lane in range(g.side)))
        m.d.comb += [goes.eq(asks & free), self.wanted.eq(held.valid),
                     *(self.request[name].eq(getattr(held, name)) for name in ("block", "row", "column"))]
        now = stage(m, 1, "asked", valid=held.valid & self.granted, live=held.live)
        for step in range(1, READ):
            now = stage(m, 1, f"read{step}", now)
        kept, finite = [], getattr(circuits_of(g.system), "finite", True)
        for lane, code in enumerate(self.found):
            parts = unpack(m, f"number{lane}", work, code)
            counts = now.live[lane] & ~parts.infinite & ~parts.nan if finite else now.live[lane]
            kept.append(code[:-1] & counts.replicate(g.bits - 1))
        now = stage(m, 1, "found", now, drop=("live",), best=kept)
        now, best = largest(m, C(1, 1), now)
        with m.If(now.valid & (best > self.magnitude)):
            m.d.sync += self.magnitude.eq(best)
        # Numbers are on their way for so long.
        delay = READ + 2 + g.low
        left = Signal(range(delay + 1), name="left")
        with m.If(left.any() & ~asks & ~held.valid):
            m.d.sync += left.eq(left - 1)
        with m.If(goes & walk.end):
            m.d.sync += asks.eq(0)
        with m.If(self.start):
            m.d.sync += [asks.eq(1), self.magnitude.eq(0), left.eq(delay)]
        m.d.comb += self.busy.eq(left.any())
        return m
