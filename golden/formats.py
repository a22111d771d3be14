"""Number formats: frozen descriptions shared by golden models, hardware, benches and synthesis."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from ..base.checks import require, require_int
from ..base.parameters import Named
from .arrays import as_real
from .rounding import NEAREST, Rounding, round_scaled

__all__ = ["BlockFloat", "Fixed", "Float", "Format", "Limits", "Log", "PRESETS", "is_fixed", "is_float", "is_ieee",
           "name_of", "of_dtype", "parse"]

SPECIALS = ("ieee", "fn", "none")
OVERFLOWS = ("infinity", "saturate")


class Limits(NamedTuple):
    """What a format can tell apart.

    Parameters
    ----------
    bits : float
        Stored for a number, with its part of what a group shares.
    significant : float
        Bits of a number between two powers of two; of a logarithmic format -log2 of the step between two numbers.
    smallest, largest : float
        Positive numbers.
    scaled : bool
        Whether these two are multiplied by a scale of the whole tensor.
    """

    bits: float
    significant: float
    smallest: float
    largest: float
    scaled: bool = False


class Format(Named):
    """A number format. In JSON it is the name of its preset, or an object whose key ``type`` names its class."""

    def plain(self) -> str | dict:
        return name_of(self) or {"type": type(self).__name__, **self.to_json()}

    @property
    def sizes(self) -> str:
        """The parameters as a word of a module's name, for a format that is no preset."""
        raise NotImplementedError

    @property
    def fields(self) -> str:
        """The fields of a code, in words for a header."""
        raise NotImplementedError

    @property
    def limits(self) -> Limits:
        """What the format can tell apart."""
        raise NotImplementedError

    @staticmethod
    def parse(data: object) -> "Format":
        return parse(data)


@dataclass(frozen=True)
class Float(Format):
    """Sign, exponent and mantissa with gradual underflow; up to 32 bits.

    Source: numerics contract, section 1.

    Parameters
    ----------
    exponent : int
        Exponent width in bits, 1 to 11.
    mantissa : int
        Stored mantissa width in bits, 0 to 29; ``1 + exponent + mantissa <= 32``.
    bias : int, optional
        Subtracted from the exponent code; ``2**(exponent-1) - 1`` when not given.
    specials : str
        ``ieee``: the top exponent is Inf and NaN. ``fn``: no Inf, the all-ones code is NaN.
        ``none``: every code is finite.
    overflow : str
        What a result beyond the largest finite value becomes: ``infinity`` (NaN where
        there is no Inf) or ``saturate``. ``specials="none"`` needs ``saturate``.
    """

    exponent: int
    mantissa: int
    bias: int = None  # type: ignore[assignment]  # an integer, once made
    specials: str = "ieee"
    overflow: str = "infinity"

    def __post_init__(self) -> None:
        require_int("exponent", self.exponent, 1, 11)
        require_int("mantissa", self.mantissa, 0, 29)
        require(self.width <= 32, "1 + exponent + mantissa", self.width, "at most 32 bits")
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** (self.exponent - 1) - 1)
        require(self.specials in SPECIALS, "specials", self.specials, ", ".join(SPECIALS))
        require(self.overflow in OVERFLOWS, "overflow", self.overflow, ", ".join(OVERFLOWS))
        require(self.specials != "none" or self.overflow == "saturate", "overflow", self.overflow,
                "saturate, because specials is 'none' and there is no infinity")
        require(self.specials != "ieee" or self.exponent > 1, "exponent", self.exponent,
                "2 or more with specials 'ieee', whose top exponent code holds no numbers")
        # Both ends must be float64 numbers, or decode could not be exact.
        require(type(self.bias) is int and self.emin - self.mantissa >= -1074 and self.emax <= 1023,
                "bias", self.bias, "an integer that keeps every value within float64")

    @property
    def width(self) -> int:
        """Bits of a code."""
        return 1 + self.exponent + self.mantissa

    @property
    def sizes(self) -> str:
        word = f"e{self.exponent}m{self.mantissa}b{self.bias}"
        return word + (self.specials if self.specials != "ieee" else "") + "s" * (self.overflow == "saturate")

    @property
    def fields(self) -> str:
        text = f"sign, {self.exponent} bits of exponent with bias {self.bias}, {self.mantissa} bits of fraction"
        return text + (f" ({self.specials})" if self.specials != "ieee" else "")

    @property
    def emin(self) -> int:
        """Exponent (floor of log2) of the smallest normal number."""
        return 1 - self.bias

    @property
    def max_code(self) -> int:
        """Code of the largest finite value."""
        top = (1 << (self.width - 1)) - 1
        return {"ieee": top - (1 << self.mantissa), "fn": top - 1, "none": top}[self.specials]

    @property
    def emax(self) -> int:
        """Exponent (floor of log2) of the largest finite value."""
        return max(self.max_code >> self.mantissa, 1) - self.bias

    @cached_property
    def max(self) -> float:
        """Largest finite value."""
        return float(self.decode(self.max_code))

    @property
    def limits(self) -> Limits:
        """A subnormal number has fewer significant bits."""
        return Limits(self.width, self.mantissa + 1, 2.0 ** (self.emin - self.mantissa), self.max)

    @property
    def inf_code(self) -> int | None:
        """Code of +Inf, or None."""
        return self.max_code + 1 if self.specials == "ieee" else None

    @property
    def nan_code(self) -> int | None:
        """Code of the canonical NaN (positive, top mantissa bit set, rest clear), or None."""
        if self.inf_code is not None:
            return self.inf_code + (1 << self.mantissa >> 1) if self.mantissa else None
        return (1 << (self.width - 1)) - 1 if self.specials == "fn" else None

    @property
    def overflow_code(self) -> int:
        """Positive code that a finite result beyond the largest finite value becomes."""
        if self.overflow == "saturate":
            return self.max_code
        code = self.inf_code if self.inf_code is not None else self.nan_code
        assert code is not None, "without Inf and NaN, overflow saturates"
        return code

    def decode(self, codes: ArrayLike) -> np.ndarray:
        """Return the float64 values of integer codes (any shape). Exact."""
        codes = np.asarray(codes).astype(np.int64)
        magnitude = codes & ((1 << (self.width - 1)) - 1)
        field = magnitude >> self.mantissa
        fraction = magnitude - (field << self.mantissa)
        significand = np.where(field > 0, fraction + (1 << self.mantissa), fraction)
        shift = np.maximum(field, 1) - self.bias - self.mantissa
        with np.errstate(over="ignore"):  # the code of Inf, when emax is float64's own
            values = np.ldexp(significand.astype(np.float64), shift.astype(np.int32))
        if self.specials == "ieee":
            values = np.where(magnitude == self.inf_code, np.inf, values)
        values = np.where(magnitude > (self.max_code if self.specials == "fn" else self.max_code + 1), np.nan, values)
        return np.where((codes >> (self.width - 1)) & 1, -values, values)

    def encode(self, values: ArrayLike, rounding: Rounding = NEAREST, random: ArrayLike | None = None) -> np.ndarray:
        """Round values (any float dtype, any shape) to codes (uint32), one rounding each.

        Parameters
        ----------
        values : array_like of float
            Taken as float64. NaN becomes the canonical NaN, or the largest finite value
            in a format without NaN; Inf becomes Inf, or follows `overflow`.
        rounding : Rounding
            Overflow under `TRUNCATE` gives the largest finite value, as IEEE 754 has it.
        random : array_like of int, optional
            Random words of the shape of `values`, for a stochastic rounding.
        """
        with np.errstate(invalid="ignore"):  # a signalling NaN
            values = as_real("values", values, np.float64)
        magnitude = np.abs(values)
        special = ~np.isfinite(magnitude)
        magnitude = np.where(special, 0.0, magnitude)
        exponent = np.where(magnitude > 0, np.maximum(np.frexp(magnitude)[1] - 1, self.emin), self.emin)
        q = round_scaled(magnitude, self.mantissa - exponent, rounding, random)
        # The hidden one of q adds itself to the exponent field, and so does a carry out of q.
        codes = ((exponent - self.emin).astype(np.int64) << self.mantissa) + q
        over = self.max_code if rounding.kind == "truncate" else self.overflow_code
        codes = np.where(codes > self.max_code, over, codes)
        infinity = self.overflow_code if self.inf_code is None else self.inf_code
        codes = np.where(special, infinity, codes)
        codes = codes | (np.signbit(values).astype(np.int64) << (self.width - 1))
        nan = self.max_code if self.nan_code is None else self.nan_code
        return np.where(np.isnan(values), nan, codes).astype(np.uint32)

    def round(self, values: ArrayLike, rounding: Rounding = NEAREST, random: ArrayLike | None = None) -> np.ndarray:
        """Round values to the format and return them as float64."""
        if rounding != NEAREST or not self.mantissa:  # without mantissa bits, ties are decided by the hidden one
            return self.decode(self.encode(values, rounding, random))
        with np.errstate(invalid="ignore"):  # a signalling NaN
            values = as_real("values", values, np.float64)
        return self.nearest(np.ascontiguousarray(values).ravel()).reshape(values.shape)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Round a contiguous array of float64 to a format with mantissa bits, to nearest even: `round` without checks.

        The array has a dimension or more.

        A normal number is rounded by an addition to its code as float64. All else goes the long way.
        """
        magnitude, below = np.abs(values), 52 - self.mantissa
        bits = values.view(np.int64)
        rounded = (bits + ((1 << below - 1) - 1) + (bits >> below & 1) & -1 << below).view(np.float64)
        unusual = magnitude < 2.0**self.emin
        unusual &= magnitude != 0
        unusual |= ~(magnitude <= self.max)
        if unusual.any():
            rounded[unusual] = self.decode(self.encode(values[unusual]))
        return rounded


@dataclass(frozen=True)
class BlockFloat(Format):
    """Block floating point: signed magnitudes of `mantissa` bits under one exponent per group.

    An element is ``(-1)**s * q * 2**(E - (mantissa - 1))``, q in 0..2**mantissa - 1 with no
    hidden one; the exponent code is ``E + bias``. Source: numerics contract, sections 1 and 3.

    Parameters
    ----------
    group : int
        Elements that share an exponent, 1 to 1024.
    mantissa : int
        Magnitude bits, 2 to 8.
    exponent : int
        Exponent width in bits, 2 to 9.
    bias : int, optional
        Added to the exponent; ``2**(exponent-1) - 1`` when not given.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    bias: int = None  # type: ignore[assignment]  # an integer, once made

    def __post_init__(self) -> None:
        require_int("group", self.group, 1, 1024)
        require_int("mantissa", self.mantissa, 2, 8)
        require_int("exponent", self.exponent, 2, 9)
        if self.bias is None:
            object.__setattr__(self, "bias", 2 ** (self.exponent - 1) - 1)
        # The golden model scales products of two elements in float64.
        require(type(self.bias) is int and self.emin >= -480 and self.emax <= 480, "bias", self.bias,
                "an integer that keeps the exponents within -480 to 480")

    @property
    def emin(self) -> int:
        """Lowest exponent (code 0)."""
        return -self.bias

    @property
    def emax(self) -> int:
        """Highest exponent (all-ones code)."""
        return (1 << self.exponent) - 1 - self.bias

    @property
    def limits(self) -> Limits:
        """Of the greatest element of a group; the others may have fewer significant bits."""
        low = self.mantissa - 1
        return Limits(1 + self.mantissa + self.exponent / self.group, self.mantissa, 2.0 ** (self.emin - low),
                      ((1 << self.mantissa) - 1) * 2.0 ** (self.emax - low))

    @property
    def chunks(self) -> int:
        """2-bit chunks of a magnitude; an odd mantissa rounds up."""
        return (self.mantissa + 1) // 2


@dataclass(frozen=True)
class Log(Format):
    """Logarithmic code: ``(-1)**s * scale * 2**(t/gamma)``; t = 0 is zero, whatever s.

    Source: numerics contract, sections 1 and 6.
    """

    bits: int = 8
    gamma: int = 8

    def __post_init__(self) -> None:
        require_int("bits", self.bits, 3, 24)
        require(type(self.gamma) is int and self.gamma > 0 and self.gamma & (self.gamma - 1) == 0,
                "gamma", self.gamma, "a power of two, 1 or more")

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.bits

    @property
    def sizes(self) -> str:
        return f"b{self.bits}g{self.gamma}"

    @property
    def fields(self) -> str:
        return f"sign and t of {self.bits - 1} bits"

    @property
    def limits(self) -> Limits:
        """Of all numbers."""
        least, most = 1 / self.gamma, self.top / self.gamma
        step = float(np.expm1(np.log(2) * least))
        return Limits(self.bits, -math.log2(step), 2.0**least, 2.0**most if most < 1024 else math.inf, True)

    @property
    def top(self) -> int:
        """Largest t; also the mask of t in a code."""
        return (1 << (self.bits - 1)) - 1

    def decode(self, codes: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Return float64 values of codes (sign in the top bit, t below it), correct to float64 rounding."""
        codes = np.asarray(codes).astype(np.int64)
        t = codes & ((1 << (self.bits - 1)) - 1)
        values = np.where(t == 0, 0.0, scale * np.exp2(t / self.gamma))
        return np.where(((codes >> (self.bits - 1)) & 1) & (t > 0), -values, values)


@dataclass(frozen=True)
class Fixed(Format):
    """Two's complement of `bits` bits with `fraction` of them behind the binary point."""

    bits: int = 8
    fraction: int = 7

    def __post_init__(self) -> None:
        require_int("bits", self.bits, 1, 32)
        require_int("fraction", self.fraction, -64, 64)

    @property
    def width(self) -> int:
        """Bits of a code."""
        return self.bits

    @property
    def sizes(self) -> str:
        return f"fixed{self.bits}f{self.fraction}"

    @property
    def fields(self) -> str:
        return f"two's complement, {self.bits} bits, {self.fraction} of them behind the binary point"

    @property
    def limits(self) -> Limits:
        """Of the greatest number; smaller ones have fewer significant bits."""
        return Limits(self.bits, self.bits - 1, 2.0**-self.fraction, ((1 << self.bits - 1) - 1) * 2.0**-self.fraction)

    def decode(self, codes: ArrayLike) -> np.ndarray:
        """Return the float64 values of codes (the low `bits` bits count). Exact."""
        codes = np.asarray(codes).astype(np.int64) & ((1 << self.bits) - 1)
        return np.ldexp((codes - ((codes >> (self.bits - 1)) << self.bits)).astype(np.float64), -self.fraction)

    def encode(self, values: ArrayLike, rounding: Rounding = NEAREST, random: ArrayLike | None = None) -> np.ndarray:
        """Round values to codes (uint32); beyond the ends they saturate, NaN becomes 0."""
        numbers = np.nan_to_num(as_real("values", values, np.float64), nan=0.0)
        top = (1 << (self.bits - 1)) - 1
        # One step beyond the end is enough to saturate, and keeps the scaled integers small.
        limit = np.ldexp(float(top + 2), -self.fraction)
        q = round_scaled(np.minimum(np.abs(numbers), limit), self.fraction, rounding, random)
        q = np.where(numbers < 0, -np.minimum(q, top + 1), np.minimum(q, top))
        return (q & ((1 << self.bits) - 1)).astype(np.uint32)


PRESETS: dict[str, Any] = {
    "fp32": Float(8, 23),
    "fp16": Float(5, 10),
    "bf16": Float(8, 7),
    "fp8-e5m2": Float(5, 2),
    "fp8-e4m3": Float(4, 3, specials="fn"),
    "fp6-e3m2": Float(3, 2, specials="none", overflow="saturate"),
    "fp6-e2m3": Float(2, 3, specials="none", overflow="saturate"),
    "fp4-e2m1": Float(2, 1, specials="none", overflow="saturate"),
    "fast-2": BlockFloat(16, 2),
    "fast-4": BlockFloat(16, 4),
    "lns8": Log(8, 8),
    "lns16-update": Log(16, 2048),
}

_TYPES = {cls.__name__: cls for cls in (Float, BlockFloat, Log, Fixed)}


def is_float(value: object) -> TypeGuard[Float]:
    """Return whether a value is a Float."""
    return isinstance(value, Float)


def is_ieee(value: object, mantissa: int = 1) -> TypeGuard[Float]:
    """Return whether a value is a Float with Inf and NaN, to which results overflow, and some mantissa bits."""
    return is_float(value) and value.specials == "ieee" and value.overflow == "infinity" and value.mantissa >= mantissa


def is_fixed(value: object) -> TypeGuard[Fixed]:
    """Return whether a value is a Fixed."""
    return isinstance(value, Fixed)


def of_dtype(dtype: np.dtype) -> Float:
    """Return the format of NumPy's float16, or else fp32."""
    return PRESETS["fp16" if dtype == np.float16 else "fp32"]


def name_of(fmt: object) -> str | None:
    """Return the preset name of a format, or None."""
    return next((name for name, preset in PRESETS.items() if preset == fmt), None)


def parse(data: Any) -> Format:
    """Return the format that a preset name, a dict with ``type``, or a format object means."""
    if isinstance(data, Format):
        return data
    if isinstance(data, dict):
        fields = dict(data)
        kind = fields.pop("type", None)
        require(kind in list(_TYPES), "type", kind, ", ".join(_TYPES))
        return _TYPES[kind].from_json(fields)
    require(data in list(PRESETS), "format", data, ", ".join(PRESETS))
    return PRESETS[data]
