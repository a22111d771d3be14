"""The MX formats: elements of a block, and the rules for its scale.

Source: OCP Microscaling Formats (MX) Specification 1.0; numerics contract, section 5.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ...base.checks import require, require_int
from ...base.parameters import Parameters
from .. import formats
from ..formats import Fixed, Float, Limits
from ..rounding import NEAREST, Rounding

__all__ = [
    "ELEMENTS", "MX", "PRESETS", "SCALE_BIAS", "SCALE_NAN", "SCALE_RULES", "SCALE_TOP", "WideMX", "WithElement",
    "parse", "scale_codes", "union", "wanted_codes",
]

SCALE_BIAS, SCALE_NAN = 127, 255  # of E8M0: 2**(code - 127), and the code that makes the whole block NaN
SCALE_TOP = SCALE_NAN - 1
SCALE_RULES = ("floor", "ceil", "even", "rceil")

ELEMENTS = {name: formats.PRESETS[name] for name in ("fp8-e5m2", "fp8-e4m3", "fp6-e3m2", "fp6-e2m3", "fp4-e2m1")}
ELEMENTS["int8"] = Fixed(8, 6)


class WithElement(Parameters):
    """Parameters with a field ``element``: a Float or a Fixed, in JSON by its name in `ELEMENTS` or as an object.

    Attributes
    ----------
    widest : int
        Bits of an element, at the most.
    """

    widest: ClassVar[int] = 8

    def to_json(self) -> dict:
        return super().to_json() | self._named("element")

    def _named(self, field: str) -> dict[str, str]:
        """Return a dict of the field and the name in `ELEMENTS` of its element; an empty one without a name."""
        named = next((name for name, each in ELEMENTS.items() if each == getattr(self, field)), None)
        return {field: named} if named else {}

    def _check_element(self, field: str = "element") -> None:
        element = getattr(self, field)
        if isinstance(element, str) and element in ELEMENTS:
            element = ELEMENTS[element]
        elif isinstance(element, dict):
            element = formats.parse(element)
        object.__setattr__(self, field, element)
        if isinstance(element, Float):
            fits = element.width <= self.widest and element.exponent <= self.widest - 3 and element.mantissa >= 1
            fits = fits and element.bias >= 0 and element.emax >= 0
        else:
            fits = isinstance(element, Fixed) and 3 <= element.bits <= 8 and 0 <= element.fraction <= element.bits - 2
        require(fits, field, element,
                ", ".join(ELEMENTS) + ", a Float of up to 8 bits, 5 or fewer of them exponent and 1 or more mantissa, "
                "a Fixed of 3 to 8 bits; the largest value 1 or more and the bias or fraction not negative")


@dataclass(frozen=True)
class MX(WithElement):
    """Blocks of `block` elements, each ``element * 2**(scale code - 127)``; a scale code of 255 makes them all NaN.

    Parameters
    ----------
    element : Float or Fixed
        Also by its name in `ELEMENTS`.
    block : int
        Elements that share a scale, 1 to 1024.
    """

    element: Float | Fixed = formats.PRESETS["fp8-e4m3"]
    block: int = 32

    def __post_init__(self) -> None:
        self._check_element()
        require_int("block", self.block, 1, 1024)

    @property
    def magnitude(self) -> Float:
        """The Float, saturating, whose magnitudes those of the elements are.

        For a Fixed, one of a single exponent: its codes are the integers. What is below the most negative number's
        magnitude is all that rounding may reach, so a Fixed is used symmetrically.
        """
        element = self.element
        if isinstance(element, Float):
            return replace(element, overflow="saturate")
        return Float(1, element.bits - 2, bias=1 + element.fraction - (element.bits - 2), specials="none",
                     overflow="saturate")

    @property
    def unit(self) -> int:
        """The exponent of the elements' lowest bit: every element is an integer times ``2**unit``."""
        return self.magnitude.emin - self.magnitude.mantissa

    @property
    def bits(self) -> int:
        """Bits of the magnitude of an element as such an integer; that of Fixed counts its most negative number."""
        if isinstance(self.element, Fixed):
            return self.element.bits
        return self.magnitude.emax - self.unit + 1

    @property
    def limits(self) -> Limits:
        """Those of an element under any scale."""
        element = self.element.limits
        return Limits(element.bits + 8 / self.block, element.significant, element.smallest * 2.0**-127,
                      element.largest * 2.0**127)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the float64 values of element codes, without their scale. Exact."""
        return self.element.decode(codes)

    def encode(self, values: np.ndarray, rounding: Rounding = NEAREST, random: np.ndarray | None = None) -> np.ndarray:
        """Round finite values to element codes (uint8), saturating; a zero keeps its sign where there is one."""
        codes = self.magnitude.encode(values, rounding, random)
        if isinstance(self.element, Fixed):  # sign and magnitude to two's complement
            top = 1 << (self.element.bits - 1)
            magnitude = (codes & (top - 1)).astype(np.int64)
            codes = np.where(codes & top, -magnitude, magnitude) & (2 * top - 1)
        return codes.astype(np.uint8)


class WideMX(MX):
    """Blocks whose elements are a `union`: what a cell multiplies, where its operands may have two elements."""

    widest = 16


def union(first: Float | Fixed, second: Float | Fixed) -> Float | Fixed:
    """Return the element that has every finite number of two elements: as few bits, and no Inf and no NaN.

    Fixed if both are; else a Float, whose codes hold a Fixed's numbers but the most negative one.
    """
    if isinstance(first, Fixed) and isinstance(second, Fixed):
        fraction = max(first.fraction, second.fraction)
        return Fixed(max(each.bits - each.fraction for each in (first, second)) + fraction, fraction)
    formats = [MX(each) for each in (first, second)]
    mantissa = max(each.magnitude.mantissa for each in formats)
    least = min(0, min(each.unit for each in formats) + mantissa)  # exponent of the smallest normal number
    normal = max(each.magnitude.emax for each in formats) - least + 1
    return Float(normal.bit_length(), mantissa, bias=1 - least, specials="none", overflow="saturate")


PRESETS = {f"mx{name}": MX(element) for name, element in ELEMENTS.items()}


def parse(data: Any) -> MX:
    """Return the MX format that a preset name, a dict or a format object means."""
    if isinstance(data, MX):
        return data
    if isinstance(data, dict):
        return MX.from_json(data)
    require(data in list(PRESETS), "format", data, ", ".join(PRESETS))
    return PRESETS[data]


def scale_codes(top: np.ndarray, fmt: MX, rule: str = "floor") -> np.ndarray:
    """Return the E8M0 scale codes (uint8) that a rule gives blocks whose largest magnitudes are `top`.

    With E = floor(log2 top), and emax that of the largest element, the exponent of the scale is E - emax, plus one

    - ``floor``: never, so that magnitudes above the largest element saturate;
    - ``ceil``: when `top` is not a power of two;
    - ``even``: when rounding `top` to the mantissa of the elements, ties upward, carries into the next power of two;
    - ``rceil``: when `top` would saturate otherwise, so that nothing ever does.

    It is clamped to -127 .. 127, whose code is 254. Zero has code 0, and Inf and NaN have 255.

    Parameters
    ----------
    top : array_like of float
        Not negative; taken as float64.
    fmt : MX
    rule : str
    """
    top = np.asarray(top, np.float64)
    finite = np.isfinite(top)
    return np.where(finite, np.clip(wanted_codes(np.where(finite, top, 0), fmt, rule), 0, SCALE_TOP),
                    SCALE_NAN).astype(np.uint8)


def wanted_codes(top: np.ndarray, fmt: MX, rule: str) -> np.ndarray:
    """Return the scale codes that a rule wants for finite `top`, below 0 and above 254 too (int64)."""
    require(rule in SCALE_RULES, "scale_rule", rule, ", ".join(SCALE_RULES))
    half, exponent = np.frexp(top)
    significand, largest = 2 * half, fmt.magnitude
    up = {"floor": lambda: 0,
          "ceil": lambda: significand > 1,
          "even": lambda: significand >= 2 - 2.0**-(largest.mantissa + 1),
          "rceil": lambda: significand > largest.max / 2.0**largest.emax}[rule]()
    return np.where(top == 0, 0, exponent.astype(np.int64) - 1 - largest.emax + SCALE_BIAS + up)
