"""What a device is made for: its core, and what stands between the core and the host."""

import hashlib
import json
from dataclasses import dataclass
from typing import Self

from ...base.checks import require, require_int
from ..core import TrainerParameters

__all__ = ["Configuration"]

DEPTHS = (64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Configuration:
    """Parameters of a training core as a device.

    Parameters
    ----------
    trainer : TrainerParameters
        With ``stream`` 2 or 4.
    data : int
        Words of the data memory, which keeps examples as bytes, four in a word: a multiple of 512, or 0 for none.
    depth : int
        Words of the input queue, and of the output queue.
    """

    trainer: TrainerParameters
    data: int = 0
    depth: int = 512

    def __post_init__(self) -> None:
        p = self.trainer
        require(p.stream in (2, 4), "stream", p.stream, "2, 4, in a device")
        require(p.element_bits == 16, "bits of an element", p.element_bits, "16, in a device")
        require_int("data", self.data, 0, 1 << 20)
        require(self.data % 512 == 0, "data", self.data, "a multiple of 512 words, or 0")
        require(self.depth in DEPTHS, "depth", self.depth, ", ".join(map(str, DEPTHS)))

    def to_json(self) -> dict:
        """Return the parameters as a dict of plain JSON values."""
        return {"trainer": self.trainer.to_json(), "data": self.data, "depth": self.depth}

    @classmethod
    def from_json(cls, data: dict) -> Self:
        """Make the object from `to_json`'s dict."""
        require(isinstance(data, dict) and set(data) == {"trainer", "data", "depth"}, "configuration", data,
                "an object with trainer, data, depth")
        return cls(TrainerParameters.from_json(data["trainer"]), data["data"], data["depth"])

    @property
    def block_rams(self) -> dict[str, int]:
        """Block RAMs of 18 kbit that each memory takes: those of the core, the queues, the table, the data memory."""
        return self.trainer.block_rams | {"queues": 2 * -(-self.depth // 512), "table": 1, "data": self.data // 512}

    @property
    def hash(self) -> int:
        """The first 32 bits of the SHA-256 of its JSON: the register ``configuration``."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
