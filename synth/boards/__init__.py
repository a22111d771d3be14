"""Boards by name. A board is a file of this folder, and its entries here."""

from .board import SMALL, Board
from .orangecrab import ORANGECRAB
from .ulx3s import ULX3S

__all__ = ["BOARDS", "Board"]

# A device alone: `narrowgauge board` simulates it.
SIMULATED = Board("simulated", "no board: Verilog and the host's file alone, to be simulated", "", mhz=50, core=SMALL,
                  data=32768)
BOARDS: dict[str, Board] = {board.name: board for board in (*ULX3S, *ORANGECRAB, SIMULATED)}
