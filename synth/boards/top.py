# amaranth: UnusedElaboratable=no
"""A board's top module: clock, reset and pins round a device."""

import importlib
from typing import Any

from amaranth import ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.build import Attrs
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from ...golden.errors import MissingExtra
from .board import Board
from .pll import PLL

__all__ = ["Top", "platform_of"]

# Of the PLL: one output, which feeds it back.
FIXED = {"PLLRST_ENA": "DISABLED", "INTFB_WAKE": "DISABLED", "STDBY_ENABLE": "DISABLED", "DPHASE_SOURCE": "DISABLED",
         "OUTDIVIDER_MUXA": "DIVA", "OUTDIVIDER_MUXB": "DIVB", "OUTDIVIDER_MUXC": "DIVC", "OUTDIVIDER_MUXD": "DIVD",
         "CLKOP_ENABLE": "ENABLED", "CLKOP_FPHASE": 0, "FEEDBK_PATH": "CLKOP"}
NEEDS = "build needs amaranth-boards: pip install 'narrowgauge[boards]'"


def platform_of(board: Board) -> Any:
    """Return a board's platform, with its serial port."""
    module, _, name = board.platform.partition(":")
    try:
        platform = getattr(importlib.import_module(module), name)()
    except ImportError as error:
        raise MissingExtra(NEEDS) from error
    if board.serial:
        from amaranth_boards.resources import UARTResource
        connector, number, rx, tx = board.serial
        platform.add_resources([UARTResource(0, rx=rx, tx=tx, conn=(connector, number),
                                             attrs=Attrs(IO_TYPE="LVCMOS33", PULLMODE="UP"))])
    return platform


class Top(Elaboratable):
    """A device on a board. Its clock is the PLL's, and its reset lasts until the PLL has settled.

    Parameters
    ----------
    name : str
        The module of a `SerialDevice`.
    pll : PLL
    """

    def __init__(self, name: str, pll: PLL) -> None:
        self.name, self.pll = name, pll

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clock = clock = io.Buffer(io.Direction.Input, platform.request(platform.default_clk, dir="-"))
        serial = platform.request("uart", 0, dir={"rx": "-", "tx": "-"})
        m.submodules.rx = rx = io.Buffer(io.Direction.Input, serial.rx)
        m.submodules.tx = tx = io.Buffer(io.Direction.Output, serial.tx)
        locked = Signal()
        settings: dict[str, Any] = {f"p_{name}": value for name, value in (FIXED | self.pll.parameters).items()}
        m.submodules.pll = Instance(
            "EHXPLLL", **settings, a_FREQUENCY_PIN_CLKI=str(self.pll.given), a_FREQUENCY_PIN_CLKOP=str(self.pll.mhz),
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", i_CLKI=clock.i, i_CLKFB=ClockSignal(), i_RST=0, i_STDBY=0,
            i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1, i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0,
            o_CLKOP=ClockSignal(), o_LOCK=locked)
        m.submodules.reset = ResetSynchronizer(~locked)
        m.submodules.device = Instance(self.name, i_clk=ClockSignal(), i_rst=ResetSignal(), i_rx=rx.i, o_tx=tx.o)
        return m
