"""Ports of units in the Verilog: descriptions, styles, templates."""

from .description import Field, Port, describe_ports, ports, ports_of
from .templates import TEMPLATES, template
from .wrappers import SLICE, STYLES, wrap, wrapper_name

__all__ = ["SLICE", "STYLES", "TEMPLATES", "Field", "Port", "describe_ports", "ports", "ports_of", "template", "wrap",
           "wrapper_name"]
