"""ULX3S: an ECP5 beside a USB serial chip."""

from .board import SMALL, Board

__all__ = ["ULX3S"]

_LOAD = "openFPGALoader -b ulx3s {bit}"

ULX3S = (
    Board("ulx3s-25f", "ULX3S with an ECP5-25F; serial port by its USB connector",
          "amaranth_boards.ulx3s:ULX3S_25F_Platform", block_rams=56, mhz=62.5, core=SMALL, load=_LOAD),
    Board("ulx3s-85f", "ULX3S with an ECP5-85F; serial port by its USB connector",
          "amaranth_boards.ulx3s:ULX3S_85F_Platform", block_rams=208, mhz=62.5, core=SMALL, data=29184, load=_LOAD),
)
