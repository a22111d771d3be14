"""The host's configuration file: what a board was built with."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..base.checks import require
from ..base.files import json_text, write_whole
from ..golden.host import Configuration

__all__ = ["BoardFile"]

WRITTEN = "the file that `narrowgauge build` writes"
KEYS = ("board", "configuration", "hash", "clock_mhz", "divisor", "baud")


@dataclass(frozen=True)
class BoardFile:
    """What a host has to know of a board.

    Parameters
    ----------
    board : str
    configuration : Configuration
    clock_mhz : float
    divisor : int
        Cycles of a bit on the serial line.
    """

    board: str
    configuration: Configuration
    clock_mhz: float
    divisor: int

    @property
    def baud(self) -> int:
        """Bits a second on the serial line."""
        return round(self.clock_mhz * 1e6 / self.divisor)

    def write(self, path: str | os.PathLike, **more: object) -> None:
        """Write the file, as JSON, with further values."""
        write_whole(path, json_text({
            "board": self.board, "configuration": self.configuration.to_json(),
            "hash": f"{self.configuration.hash:#010x}", "clock_mhz": self.clock_mhz, "divisor": self.divisor,
            "baud": self.baud, **more}))

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Read the file; ValueError, in one line, where it is none."""
        try:
            found = json.loads(Path(path).read_text())
        except (ValueError, RecursionError):
            raise ValueError(f"{os.fspath(path)} is no JSON; allowed: {WRITTEN}") from None
        missing = [key for key in KEYS if not isinstance(found, dict) or key not in found]
        require(not missing, os.fspath(path), f"without {', '.join(missing)}", WRITTEN)
        clock, divisor = found["clock_mhz"], found["divisor"]
        require(type(clock) in (int, float) and 0 < clock < 1e4 and type(divisor) is int and 4 <= divisor <= 1 << 16,
                "clock and divisor", (clock, divisor), "those of " + WRITTEN)
        return cls(str(found["board"]), Configuration.from_json(found["configuration"]), clock, divisor)
