"""The training core as a device: its registers, the words that it takes and gives, and its configuration."""

from .configuration import Configuration
from .packets import Answers, Packets
from .registers import APERTURE, ERRORS, FIELDS, IDENTITY, INPUT, OUTPUT, REGISTERS, VERSION, WINDOW, Register

__all__ = ["APERTURE", "ERRORS", "FIELDS", "IDENTITY", "INPUT", "OUTPUT", "REGISTERS", "VERSION", "WINDOW", "Answers",
           "Configuration", "Packets", "Register"]
