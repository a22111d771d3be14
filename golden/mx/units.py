"""The units ``mx-converter`` and ``mx-dot``: their parameters, and what they compute.

Source: OCP Microscaling Formats (MX) Specification 1.0; numerics contract, section 5.
"""

from dataclasses import dataclass

import numpy as np

from ...base.checks import require, require_int
from ..accumulator import BANK, require_sums, sums_of
from ..arrays import as_rows
from ..formats import PRESETS, Fixed, Float
from ..rounding import KINDS, Rounding, require_random, rounding_of
from ..words import Stream
from .elements import MX, SCALE_RULES, WideMX, WithElement
from .numbers import Blocks, quantise_rows
from .products import dot

__all__ = ["MXConverterParameters", "MXDotParameters", "WideDotParameters", "convert", "dots"]


@dataclass(frozen=True)
class MXConverterParameters(WithElement):
    """Parameters of the unit ``mx-converter``.

    Parameters
    ----------
    element : Float or Fixed
        Of the blocks, also by its name in `ELEMENTS`.
    block : int
        Elements per block and per transfer, 8 to 64.
    scale_rule : str
        ``floor``, ``ceil``, ``even`` or ``rceil``; see `scale_codes`.
    rounding : str
        Of the elements: ``nearest``, ``truncate`` or ``stochastic``.
    random_bits : int
        Width of a random word, 1 to 16. Only ``stochastic`` uses it, and the next two.
    corrected : bool
        Whether stochastic rounding is corrected (see `Rounding`).
    seed : int
        Seed of the lanes' random words, 0 to 2**31 - 1.
    work : Float
        Format of the input elements, with the exponents of fp32, Inf and NaN: fp32, bf16.
    """

    element: Float | Fixed = PRESETS["fp8-e4m3"]
    block: int = 32
    scale_rule: str = "floor"
    rounding: str = "nearest"
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1
    work: Float = PRESETS["fp32"]

    def __post_init__(self) -> None:
        self._check_element()
        require_int("block", self.block, 8, 64)
        require(self.scale_rule in SCALE_RULES, "scale_rule", self.scale_rule, ", ".join(SCALE_RULES))
        require(self.rounding in KINDS, "rounding", self.rounding, ", ".join(KINDS))
        require_random(self)
        work = self.work
        require(isinstance(work, Float) and work.specials == "ieee" and work.exponent == 8 and work.bias == 127 and
                1 <= work.mantissa <= 23, "work", work, "fp32, bf16, another Float with their exponents, Inf and NaN")

    @property
    def format(self) -> MX:
        """The MX format of the blocks."""
        return MX(self.element, self.block)

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its block."""
        return 10 + (self.block - 1).bit_length()

    @property
    def mode(self) -> Rounding:
        """The Rounding."""
        return rounding_of(self.rounding, self.random_bits, self.corrected)


@dataclass(frozen=True)
class MXDotParameters(WithElement):
    """Parameters of the unit ``mx-dot``.

    Parameters
    ----------
    element : Float or Fixed
        Of the blocks of operand a, also by its name in `ELEMENTS`.
    element_b : Float or Fixed, optional
        Of the blocks of operand b. None, and in JSON absent or null: the same as `element`. A format that equals
        `element` becomes None.
    block : int
        Elements per block, 8 to 64.
    lanes : int
        Elements multiplied per cycle, 4 or more; divides `block`.
    accumulator : Float
        Format of the sums: fp32, bf16, fp16.
    accumulators : int
        Sums kept side by side: 2, 4, 8 or 16.
    """

    element: Float | Fixed = PRESETS["fp8-e4m3"]
    element_b: Float | Fixed | None = None
    block: int = 32
    lanes: int = 8
    accumulator: Float = PRESETS["fp32"]
    accumulators: int = 16

    def __post_init__(self) -> None:
        self._check_element()
        if self.element_b is not None:
            self._check_element("element_b")
        # Equal hardware has equal parameters, however they are given.
        if self.element_b == self.element:
            object.__setattr__(self, "element_b", None)
        require_int("block", self.block, 8, 64)
        require(type(self.lanes) is int and self.lanes in [n for n in range(4, self.block + 1) if self.block % n == 0],
                "lanes", self.lanes, f"a divisor of the block, {self.block}, of 4 or more")
        require_sums(self.accumulator, self.accumulators)

    @property
    def format(self) -> MX:
        """The MX format of operand a."""
        return MX(self.element, self.block)

    @property
    def places(self) -> list[int]:
        """Powers of two by which the unit shifts a product of significands up, ascending."""
        # An element is its significand, moved up by its place; the places of a product add up.
        highest = sum(fmt.bits - fmt.magnitude.mantissa - 1
                      for fmt in (self.format, self.format_b) if isinstance(fmt.element, Float))
        return [1 << k for k in range(highest.bit_length())]

    @property
    def latency(self) -> int:
        """Cycles from an accepted transfer to its emitted sum."""
        return 4 + (len(self.places) > 3) + (self.lanes - 1).bit_length() + BANK

    @property
    def format_b(self) -> MX:
        """The MX format of operand b."""
        return MX(self.element if self.element_b is None else self.element_b, self.block)

    def to_json(self) -> dict:
        """Return the parameters as a dict of plain JSON values; without ``element_b`` for equal elements."""
        data = super().to_json()
        if self.element_b is None:
            del data["element_b"]
            return data
        return data | self._named("element_b")


class WideDotParameters(MXDotParameters):
    """Parameters of a cell of ``mx-dot`` whose elements, of both operands, are a `union`."""

    widest = WideMX.widest

    @property
    def format(self) -> MX:
        """The format of both operands."""
        return WideMX(self.element, self.block)

    @property
    def format_b(self) -> MX:
        """The format of both operands."""
        return self.format


def convert(parameters: MXConverterParameters, codes: np.ndarray, step: int = 0, random: Stream | None = None
            ) -> tuple[np.ndarray, ...]:
    """Golden function of ``mx-converter``: transfers of one block each, in order.

    Parameters
    ----------
    parameters : MXConverterParameters
    codes : array of int, shape (n, block)
        Elements as codes of the work format.
    step : int
        Transfers before the first one here: with stochastic rounding, each has drawn a random word per lane.
    random : Stream, optional
        Of the block's lanes, in place of the unit's own words.

    Returns
    -------
    scales : ndarray of uint8, shape (n,)
    elements : ndarray of uint8, shape (n, block)
    invalid, overflow : ndarray of bool, shape (n,)
        Whether the transfer raised the sticky status: a NaN; an Inf or a NaN, or a scale above the largest.
    """
    p = parameters
    x = as_rows("codes", p.work.decode(codes), p.block).astype(np.float32)
    words = None
    if p.rounding == "stochastic":
        words = (random or Stream(p.seed, p.block, bits=p.random_bits, vector=step)).draw(len(x))
    scales, elements = np.empty(len(x), np.uint8), np.empty(x.shape, np.uint8)
    invalid, overflow = quantise_rows(x, p.format, p.scale_rule, p.mode, words, scales, elements)
    return scales, elements, invalid, overflow


def dots(parameters: MXDotParameters, a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...], slot: np.ndarray,
         first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, bool, bool]:
    """Golden function of ``mx-dot``: transfers of two blocks each, in order.

    Parameters
    ----------
    parameters : MXDotParameters
    a, b : tuple (scales, elements)
        Arrays of shapes (n,) and (n, block): scale codes and element codes.
    slot : array of int, shape (n,)
        Which accumulator each transfer adds to.
    first, last : array of bool, shape (n,)
        Start from +0; emit the sum after this addition (the accumulator keeps it).

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the accumulator format, in order.
    invalid : bool
        Whether a dot product was NaN.
    overflow : bool
        Whether a finite accumulator became infinite.
    """
    x, y = (Blocks(fmt, np.asarray(scales, np.uint8), np.asarray(elements, np.uint16), fmt.block)
            for fmt, (scales, elements) in ((parameters.format, a), (parameters.format_b, b)))
    high, low = dot(x, y)
    codes, overflow = sums_of(parameters.accumulator, high, 0, slot, first, last, low)
    return codes, bool(np.isnan(high).any()), overflow
