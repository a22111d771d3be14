"""A device behind a serial line, simulated: in this process, or behind a pseudo terminal."""

from .model import DeviceModel
from .terminal import serve

__all__ = ["DeviceModel", "serve"]
