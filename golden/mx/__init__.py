"""OCP microscaling (MX): a power-of-two scale over a block of narrow elements; NVFP4's two-level scaling beside it.

Source: OCP Microscaling Formats (MX) Specification 1.0; numerics contract, section 5.
"""

from .elements import ELEMENTS, MX, PRESETS, SCALE_BIAS, SCALE_NAN, SCALE_RULES, parse, scale_codes, union
from .numbers import Blocks, quantise
from .nvfp4 import NVFP4, quantise_nvfp4
from .products import dot, matmul
from .system import MXPairParameters, MXSystem, recoded
from .units import MXConverterParameters, MXDotParameters, convert, dots

__all__ = [
    "ELEMENTS", "MX", "NVFP4", "PRESETS", "SCALE_BIAS", "SCALE_NAN", "SCALE_RULES", "Blocks", "MXConverterParameters",
    "MXDotParameters", "MXPairParameters", "MXSystem", "convert", "dot", "dots", "matmul", "parse", "quantise",
    "quantise_nvfp4", "recoded", "scale_codes", "union",
]
