"""The device's own bus, and AXI4-Lite in front of it."""

from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...golden.host.registers import APERTURE

__all__ = ["ADDRESS", "AXILite", "AXILiteSignature", "BusSignature"]

ADDRESS = (APERTURE // 4 - 1).bit_length()  # bits of a word's address
OKAY, SLVERR = 0, 2


class BusSignature(wiring.Signature):
    """The device's bus, as its manager sees it: it never waits.

    A request lasts for a cycle with ``select``. In the next cycle ``answer`` has what was read, and ``fault`` tells
    that the request could not be done.
    """

    def __init__(self) -> None:
        super().__init__({
            "select": Out(1), "write": Out(1), "address": Out(ADDRESS), "data": Out(32), "strobe": Out(4),
            "answer": In(32), "fault": In(1),
        })


class AXILiteSignature(wiring.Signature):
    """AXI4-Lite of 32 bits, as its manager sees it. Addresses are in bytes."""

    def __init__(self) -> None:
        address, code = ADDRESS + 2, 2
        super().__init__({
            "awaddr": Out(address), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(code), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(code), "rvalid": In(1), "rready": Out(1),
        })


class AXILite(wiring.Component):
    """Does the transfers of AXI4-Lite on the device's bus, one at a time.

    Address and data of a write may come in either order. Reads and writes take turns where both wait. Each ready comes
    from a register. Faults are answered by SLVERR.

    Members
    -------
    axi : In(AXILiteSignature)
    bus : Out(BusSignature)
    """

    def __init__(self) -> None:
        super().__init__({"axi": In(AXILiteSignature()), "bus": Out(BusSignature())})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        axi, bus = self.axi, self.bus
        # Each channel to the device has a register. It is empty when its ready is 1.
        aw, w, ar = Signal(ADDRESS, name="aw"), Signal(36, name="w"), Signal(ADDRESS, name="ar")
        for ready, valid, register, value in (
                (axi.awready, axi.awvalid, aw, axi.awaddr[2:]), (axi.wready, axi.wvalid, w, Cat(axi.wdata, axi.wstrb)),
                (axi.arready, axi.arvalid, ar, axi.araddr[2:])):
            with m.If(ready & valid):
                m.d.sync += [register.eq(value), ready.eq(0)]
        live = Signal(name="live")  # not before the first cycle after a reset
        m.d.sync += live.eq(1)
        with m.If(~live):
            m.d.sync += [axi.awready.eq(1), axi.wready.eq(1), axi.arready.eq(1)]
        writes, reads, turn = Signal(name="writes"), Signal(name="reads"), Signal(name="turn")
        asks, write = Signal(name="asks"), Signal(name="write")
        m.d.comb += [
            writes.eq(live & ~axi.awready & ~axi.wready & ~axi.bvalid),
            reads.eq(live & ~axi.arready & ~axi.rvalid),
            write.eq(writes & (~reads | turn)),
            bus.select.eq((writes | reads) & ~asks), bus.write.eq(write), bus.address.eq(Mux(write, aw, ar)),
            Cat(bus.data, bus.strobe).eq(w),
        ]
        m.d.sync += asks.eq(bus.select)
        with m.If(bus.select):
            m.d.sync += turn.eq(~write)
        wrote = Signal(name="wrote")
        m.d.sync += wrote.eq(write)
        with m.If(axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        response = Mux(bus.fault, SLVERR, OKAY)
        with m.If(asks & wrote):
            m.d.sync += [axi.bvalid.eq(1), axi.bresp.eq(response), axi.awready.eq(1), axi.wready.eq(1)]
        with m.If(asks & ~wrote):
            m.d.sync += [axi.rvalid.eq(1), axi.rresp.eq(response), axi.rdata.eq(bus.answer), axi.arready.eq(1)]
        return m
