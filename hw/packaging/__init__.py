"""Files by which other tools take up a generated module: FuseSoC, IP-XACT, Vivado."""

from .fusesoc import core
from .ipxact import STANDARDS, component
from .module import Packaged
from .vivado import script

__all__ = ["STANDARDS", "Packaged", "component", "core", "script"]
