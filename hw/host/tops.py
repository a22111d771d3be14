# amaranth: UnusedElaboratable=no
"""Whole devices: behind AXI buses, and behind a serial line."""

from typing import Any

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...golden.host import Configuration
from .bus import AXILite, AXILiteSignature
from .device import Device
from .packets import FRAMED
from .serial import Receiver, Transmitter, Uartbone

__all__ = ["AXIDevice", "SerialDevice"]


class AXIDevice(wiring.Component):
    """A training core behind AXI4-Lite registers, with AXI4-Stream for packets and messages.

    Parameters
    ----------
    configuration : Configuration
    core : component, optional
        As for `Device`.

    Members
    -------
    s_axi : In(AXILiteSignature)
    s_axis, m_axis : In(stream), Out(stream)
        ``word`` and ``last``.
    irq : Out(1)
    """

    def __init__(self, configuration: Configuration, core: Any = None) -> None:
        self.device = Device(configuration, streamed=True, core=core)
        super().__init__({"s_axi": In(AXILiteSignature()), "s_axis": In(stream.Signature(FRAMED)),
                          "m_axis": Out(stream.Signature(FRAMED)), "irq": Out(1)})

    @property
    def text(self) -> str:
        """Verilog of the modules that the core instantiates."""
        return self.device.text

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.device = device = self.device
        m.submodules.lite = lite = AXILite()
        connect(m, flipped(self.s_axi), lite.axi)
        connect(m, lite.bus, device.bus)
        connect(m, flipped(self.s_axis), device.words)
        connect(m, device.told, flipped(self.m_axis))
        m.d.comb += self.irq.eq(device.irq)
        return m


class SerialDevice(wiring.Component):
    """A training core behind a serial line that speaks LiteX's uartbone.

    Parameters
    ----------
    configuration : Configuration
    divisor : int
        Cycles of a bit on the line.
    timeout : int
        Cycles after which half a request is forgotten.
    core : component, optional
        As for `Device`.

    Members
    -------
    rx, tx : In(1), Out(1)
    irq : Out(1)
    """

    def __init__(self, configuration: Configuration, divisor: int, timeout: int, core: Any = None) -> None:
        self.device = Device(configuration, core=core)
        self.receiver, self.transmitter, self.bridge = Receiver(divisor), Transmitter(divisor), Uartbone(timeout)
        super().__init__({"rx": In(1), "tx": Out(1), "irq": Out(1)})

    @property
    def text(self) -> str:
        """Verilog of the modules that the core instantiates."""
        return self.device.text

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.device = device = self.device
        m.submodules.receiver = receiver = self.receiver
        m.submodules.transmitter = transmitter = self.transmitter
        m.submodules.bridge = bridge = self.bridge
        connect(m, bridge.bus, device.bus)
        m.d.comb += [
            receiver.rx.eq(self.rx), bridge.came.eq(receiver.valid), bridge.byte.eq(receiver.byte),
            transmitter.valid.eq(bridge.valid), transmitter.byte.eq(bridge.answer), bridge.ready.eq(transmitter.ready),
            self.tx.eq(transmitter.tx), self.irq.eq(device.irq),
        ]
        return m
