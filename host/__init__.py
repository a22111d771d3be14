"""The host of a training core on a board: transports, the device behind them, and the driver of training runs."""

from .board import BoardFile
from .device import Device
from .driver import Driver
from .transports import HostError, LiteX, Serial, Simulated, Transport, connect

__all__ = ["BoardFile", "Device", "Driver", "HostError", "LiteX", "Serial", "Simulated", "Transport", "connect"]
