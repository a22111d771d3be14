"""What there is to know of a board."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SMALL", "Board"]

# Of a core for an ECP5-25F: what differs from the default.
SMALL = {"rows": 2, "columns": 2, "converters": 1, "merged": True, "adders": 2, "stream": 2}


@dataclass(frozen=True)
class Board:
    """A board, its pins and what core it has room for.

    Parameters
    ----------
    name, summary : str
    platform : str
        "module:Class" in the package amaranth_boards: pins and device.
    mhz : float
        Of the clock that the core is built for, unless another one is asked for.
    block_rams : int
        Of 18 kbit, that the device has; 0: as many as are needed.
    serial : tuple of str, optional
        Pins of the board's connector for rx and tx, "connector pin pin", where it has no chip for a serial port.
    core : mapping
        Parameters of a core in place of the defaults.
    data : int
        Words of data memory that there is room for.
    baud : int
        Bits a second, about.
    pack : tuple of str
        Options of ecppack.
    load : str
        How the bitstream is loaded; ``{bit}`` is its name.
    """

    name: str
    summary: str
    platform: str
    mhz: float
    block_rams: int = 0
    serial: tuple[str, int, str, str] | None = None
    core: Mapping[str, Any] = field(default_factory=dict)
    data: int = 0
    baud: int = 1_000_000
    pack: tuple[str, ...] = ("--compress",)
    load: str = "openFPGALoader -b {board} {bit}"
