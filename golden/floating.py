"""Floating point of any width: the operations on codes, each rounded once, and the units made of them.

Source: numerics contract, sections 1, 2 and 4.
"""

from dataclasses import dataclass

from .formats import PRESETS, Float, Parameters, require, require_int
from .rounding import KINDS, NEAREST, TRUNCATE, stochastic

__all__ = [
    "AdderParameters", "CastParameters", "FMAParameters", "MACParameters", "MultiplierParameters",
]

SUBNORMALS = ("keep", "flush")
MULTIPLIERS = ("dsp", "lut")


@dataclass(frozen=True)
class _FloatUnit(Parameters):
    """What the pipelined units have in common.

    Parameters
    ----------
    format : Float
        Of the operands.
    rounding : str
        ``nearest``, ``truncate`` or ``stochastic``.
    random_bits : int
        Width of a random word, 1 to 16. Only ``stochastic`` uses it, and the next two.
    corrected : bool
        Whether stochastic rounding is corrected (see `Rounding`).
    seed : int
        Seed of the random words, 0 to 2**31 - 1.
    subnormals : str
        ``keep``: gradual underflow. ``flush``: subnormal operands count as zeros of their sign, and a result
        that, rounded as if exponents had no lower end, is below the smallest normal number becomes one.
    latency : int, optional
        Cycles from an accepted transfer to its result, 1 to the class' `MOST`; `USUAL` when not given.
    """

    format: Float = PRESETS["fp16"]
    rounding: str = "nearest"
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1
    subnormals: str = "keep"
    latency: int = None

    def __post_init__(self):
        require(isinstance(self.format, Float) and self.format.mantissa >= 1, "format", self.format,
                "a Float with a mantissa of 1 bit or more")
        require(self.rounding in KINDS, "rounding", self.rounding, ", ".join(KINDS))
        require_int("random_bits", self.random_bits, 1, 16)
        require(type(self.corrected) is bool, "corrected", self.corrected, "true, false")
        require_int("seed", self.seed, 0, 2**31 - 1)
        require(self.subnormals in SUBNORMALS, "subnormals", self.subnormals, ", ".join(SUBNORMALS))
        if self.latency is None:
            object.__setattr__(self, "latency", self.USUAL)
        require_int("latency", self.latency, 1, self.MOST)

    @property
    def mode(self):
        """The Rounding."""
        return {"nearest": NEAREST, "truncate": TRUNCATE,
                "stochastic": stochastic(self.random_bits, self.corrected)}[self.rounding]

    def _like_format(self, name):
        """Make a format that was not given the operands' own; require a Float."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, self.format)
        value = getattr(self, name)
        require(isinstance(value, Float) and value.mantissa >= 1, name, value,
                "a Float with a mantissa of 1 bit or more")


@dataclass(frozen=True)
class AdderParameters(_FloatUnit):
    """Parameters of the unit ``float-adder``; see `_FloatUnit`."""

    MOST, USUAL = 6, 5


@dataclass(frozen=True)
class MultiplierParameters(_FloatUnit):
    """Parameters of the unit ``float-multiplier``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    result : Float, optional
        Format of the product; that of the operands when not given.
    multiplier : str
        ``dsp``: the family's multiplier block with its registers inside, where the Verilog is read with the
        family's macro defined, and ``*`` elsewhere. ``lut``: in LUTs.
    """

    result: Float = None
    multiplier: str = "dsp"

    MOST, USUAL = 6, 5

    def __post_init__(self):
        super().__post_init__()
        self._like_format("result")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))


@dataclass(frozen=True)
class FMAParameters(_FloatUnit):
    """Parameters of the unit ``float-fma``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    accumulator : Float, optional
        Format of the addend and of the result; that of the operands when not given.
    multiplier : str
        As in `MultiplierParameters`.
    """

    accumulator: Float = None
    multiplier: str = "dsp"

    MOST, USUAL = 8, 7

    def __post_init__(self):
        super().__post_init__()
        self._like_format("accumulator")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))


@dataclass(frozen=True)
class CastParameters(_FloatUnit):
    """Parameters of the unit ``float-cast``; beyond those of `_FloatUnit`:

    Parameters
    ----------
    result : Float
        The format to cast to.
    """

    format: Float = PRESETS["fp32"]
    result: Float = PRESETS["fp16"]

    MOST, USUAL = 3, 3

    def __post_init__(self):
        super().__post_init__()
        self._like_format("result")


@dataclass(frozen=True)
class MACParameters(Parameters):
    """Parameters of the unit ``float-mac``.

    Parameters
    ----------
    format : Float
        Of the operands.
    accumulator : Float
        Format of the sums, with Inf and NaN: fp32, bf16, fp16.
    accumulators : int
        Sums kept side by side: 2, 4, 8 or 16.
    multiplier : str
        As in `MultiplierParameters`.
    """

    format: Float = PRESETS["fp16"]
    accumulator: Float = PRESETS["fp16"]
    accumulators: int = 16
    multiplier: str = "dsp"

    def __post_init__(self):
        require(isinstance(self.format, Float) and self.format.mantissa >= 1, "format", self.format,
                "a Float with a mantissa of 1 bit or more")
        require(isinstance(self.accumulator, Float) and self.accumulator.specials == "ieee" and
                self.accumulator.overflow == "infinity" and self.accumulator.mantissa >= 2, "accumulator",
                self.accumulator, "a Float with specials 'ieee' and overflow 'infinity', such as fp32, bf16, fp16")
        require(type(self.accumulators) is int and self.accumulators in (2, 4, 8, 16), "accumulators",
                self.accumulators, "2, 4, 8, 16")
        require(self.multiplier in MULTIPLIERS, "multiplier", self.multiplier, ", ".join(MULTIPLIERS))
