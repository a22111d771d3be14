"""OrangeCrab r0.2: a small board with an ECP5, without a chip for a serial port."""

from .board import SMALL, Board

__all__ = ["ORANGECRAB"]

_LOAD = "dfu-util -a 0 -D {bit}"
_PACK = ("--compress", "--freq", "38.8")  # what its boot loader and its memory want
_PINS = ("io", 0, "0", "1")               # rx and tx

ORANGECRAB = (
    Board("orangecrab-25f", "OrangeCrab r0.2 with an ECP5-25F; serial port by header pins 0 (rx) and 1 (tx), 3.3 V",
          "amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_25FPlatform", mhz=60, serial=_PINS, core=SMALL, pack=_PACK,
          load=_LOAD),
    Board("orangecrab-85f", "OrangeCrab r0.2 with an ECP5-85F; serial port by header pins 0 (rx) and 1 (tx), 3.3 V",
          "amaranth_boards.orangecrab_r0_2:OrangeCrabR0_2_85FPlatform", mhz=60, serial=_PINS,
          core=SMALL, data=29184, pack=_PACK, load=_LOAD),
)
