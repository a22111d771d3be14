"""The training core in hardware: a program's instructions, executed beside memories. See `Trainer`."""

from .trainer import Trainer

__all__ = ["Trainer"]
