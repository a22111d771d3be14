"""OCP microscaling (MX): a power-of-two scale over a block of narrow elements; NVFP4's two-level scaling beside it.

Source: OCP Microscaling Formats (MX) Specification 1.0; numerics contract, section 5.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..base.checks import require, require_int
from ..base.parameters import Parameters
from . import formats, lfsr
from .accumulator import accumulate, require_sums, sum_groups, sums_of, two_sum
from .arrays import as_rows
from .formats import Fixed, Float
from .groups import as_groups, draw_words, from_groups, slabs_of
from .products import product
from .rounding import KINDS, NEAREST, TRUNCATE, stochastic

__all__ = [
    "ELEMENTS", "MX", "NVFP4", "PRESETS", "SCALE_BIAS", "SCALE_NAN", "SCALE_RULES", "Blocks", "ConverterParameters",
    "DotParameters", "convert", "dot", "dots", "matmul", "parse", "quantise", "quantise_nvfp4", "scale_codes",
]

SCALE_BIAS, SCALE_NAN = 127, 255  # of E8M0: 2**(code - 127), and the code that makes the whole block NaN
SCALE_TOP = SCALE_NAN - 1
SCALE_RULES = ("floor", "ceil", "even", "rceil")

ELEMENTS = {name: formats.PRESETS[name] for name in ("fp8-e5m2", "fp8-e4m3", "fp6-e3m2", "fp6-e2m3", "fp4-e2m1")}
ELEMENTS["int8"] = Fixed(8, 6)


class _WithElement(Parameters):
    """Parameters with a field ``element``: a Float or a Fixed, in JSON by its name in `ELEMENTS` or as an object."""

    def to_json(self):
        return super().to_json() | self._named("element")

    def _named(self, field):
        """Return a dict of the field and the name in `ELEMENTS` of its element; an empty one without a name."""
        named = next((name for name, each in ELEMENTS.items() if each == getattr(self, field)), None)
        return {field: named} if named else {}

    def _check_element(self, field="element"):
        element = getattr(self, field)
        if isinstance(element, str) and element in ELEMENTS:
            element = ELEMENTS[element]
        elif isinstance(element, dict):
            element = formats.parse(element)
        object.__setattr__(self, field, element)
        if isinstance(element, Float):
            fits = element.width <= 8 and element.exponent <= 5 and element.mantissa >= 1
            fits = fits and element.bias >= 0 and element.emax >= 0
        else:
            fits = isinstance(element, Fixed) and 3 <= element.bits <= 8 and 0 <= element.fraction <= element.bits - 2
        require(fits, field, element,
                ", ".join(ELEMENTS) + ", a Float of up to 8 bits, 5 or fewer of them exponent and 1 or more mantissa, "
                "a Fixed of 3 to 8 bits; the largest value 1 or more and the bias or fraction not negative")


@dataclass(frozen=True)
class MX(_WithElement):
    """Blocks of `block` elements, each ``element * 2**(scale code - 127)``; a scale code of 255 makes them all NaN.

    Parameters
    ----------
    element : Float or Fixed
        Also by its name in `ELEMENTS`.
    block : int
        Elements that share a scale, 1 to 1024.
    """

    element: object = formats.PRESETS["fp8-e4m3"]
    block: int = 32

    def __post_init__(self):
        self._check_element()
        require_int("block", self.block, 1, 1024)

    @property
    def magnitude(self):
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
    def unit(self):
        """The exponent of the elements' lowest bit: every element is an integer times ``2**unit``."""
        return self.magnitude.emin - self.magnitude.mantissa

    @property
    def bits(self):
        """Bits of the magnitude of an element as such an integer; that of Fixed counts its most negative number."""
        if isinstance(self.element, Fixed):
            return self.element.bits
        return self.magnitude.emax - self.unit + 1

    def decode(self, codes):
        """Return the float64 values of element codes, without their scale. Exact."""
        return self.element.decode(codes)

    def encode(self, values, rounding=NEAREST, random=None):
        """Round finite values to element codes (uint8), saturating; a zero keeps its sign where there is one."""
        codes = self.magnitude.encode(values, rounding, random)
        if isinstance(self.element, Fixed):  # sign and magnitude to two's complement
            top = 1 << (self.element.bits - 1)
            magnitude = (codes & (top - 1)).astype(np.int64)
            codes = np.where(codes & top, -magnitude, magnitude) & (2 * top - 1)
        return codes.astype(np.uint8)


PRESETS = {f"mx{name}": MX(element) for name, element in ELEMENTS.items()}


def parse(data):
    """Return the MX format that a preset name, a dict or a format object means."""
    if isinstance(data, MX):
        return data
    if isinstance(data, dict):
        return MX.from_json(data)
    require(data in list(PRESETS), "format", data, ", ".join(PRESETS))
    return PRESETS[data]


@dataclass(frozen=True)
class Blocks:
    """An array in an MX format, its blocks laid along one axis.

    Attributes
    ----------
    format : MX
    scales : ndarray of uint8, shape (..., blocks)
        E8M0 codes; the blocked axis comes last.
    elements : ndarray of uint8, shape (..., blocks, block)
        Element codes; a tail is padded with zeros.
    length : int
        Elements along the blocked axis, padding not counted.
    axis : int
        Where the blocked axis belongs in the array that was quantised.
    invalid, overflow : bool
        Whether a NaN was met; whether an Inf or a NaN was, or a scale above the largest was wanted.
    """

    format: MX
    scales: np.ndarray
    elements: np.ndarray
    length: int
    axis: int = -1
    invalid: bool = False
    overflow: bool = False

    def values(self):
        """Return the float64 values in the shape of the array that was quantised. Exact."""
        scales = self.scales.astype(np.int32)[..., np.newaxis]
        values = np.ldexp(_values(self.format)[self.elements], scales - SCALE_BIAS)
        values = np.where(scales == SCALE_NAN, np.nan, values)
        return from_groups(values, self.length, self.axis)


@lru_cache(32)
def _values(fmt):
    """Values of all element codes (and of the bytes above them, which count as their low bits)."""
    width = fmt.element.bits if isinstance(fmt.element, Fixed) else fmt.element.width
    return fmt.decode(np.arange(256) & ((1 << width) - 1))


@lru_cache(32)
def _integers(fmt):
    """What the element codes are in units of ``2**fmt.unit``, as float64: NaN where Inf or NaN."""
    values = _values(fmt)
    return np.where(np.isfinite(values), np.ldexp(values, -fmt.unit), np.nan)


def scale_codes(top, fmt, rule="floor"):
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
    return np.where(finite, np.clip(_wanted(np.where(finite, top, 0), fmt, rule), 0, SCALE_TOP),
                    SCALE_NAN).astype(np.uint8)


def _wanted(top, fmt, rule):
    """Return the scale codes that a rule wants for finite `top`, below 0 and above 254 too (int64)."""
    require(rule in SCALE_RULES, "scale_rule", rule, ", ".join(SCALE_RULES))
    half, exponent = np.frexp(top)
    significand, largest = 2 * half, fmt.magnitude
    up = {"floor": lambda: 0,
          "ceil": lambda: significand > 1,
          "even": lambda: significand >= 2 - 2.0**-(largest.mantissa + 1),
          "rceil": lambda: significand > largest.max / 2.0**largest.emax}[rule]()
    return np.where(top == 0, 0, exponent.astype(np.int64) - 1 - largest.emax + SCALE_BIAS + up)


def quantise(x, fmt, *, axis=-1, rounding=NEAREST, scale_rule="floor", random=None):
    """Quantise an array to an MX format along one axis.

    Parameters
    ----------
    x : array_like of float
        Any shape of one dimension or more; float16, float32 or float64, taken exactly.
    fmt : MX
    axis : int
        Axis along which blocks lie; its tail is padded with zeros.
    rounding : Rounding
        Of the elements; a magnitude beyond the largest element saturates under each.
    scale_rule : str
        See `scale_codes`.
    random : lfsr.Stream or array of int, optional
        For a stochastic rounding: a stream of `block` lanes, from which one draw per block is taken (blocks in C
        order with the blocked axis last), or the words themselves, of shape (..., blocks, block).

    Returns
    -------
    Blocks
        A block that holds a NaN or an Inf gets the NaN scale, and its elements are zeros.
    """
    require(scale_rule in SCALE_RULES, "scale_rule", scale_rule, ", ".join(SCALE_RULES))
    flat, shape, length = as_groups(x, axis, fmt.block)
    words = draw_words(random, rounding, fmt.block, len(flat))
    scales, elements = np.empty(len(flat), np.uint8), np.empty(flat.shape, np.uint8)
    invalid = overflow = False
    for part in slabs_of(len(flat), fmt.block):
        nan, above = _quantise_rows(flat[part], fmt, scale_rule, rounding, None if words is None else words[part],
                                    scales[part], elements[part])
        invalid, overflow = invalid | bool(nan.any()), overflow | bool(above.any())
    return Blocks(fmt, scales.reshape(shape), elements.reshape(*shape, fmt.block), length, axis, invalid, overflow)


def _quantise_rows(x, fmt, rule, rounding, random, scales, elements):
    """Quantise rows of one block each into the given arrays; return which had a NaN and which overflowed."""
    # The maximum along the short axis is several times faster on a transposed copy.
    top = np.abs(np.ascontiguousarray(x.T)).max(axis=0)
    special = ~np.isfinite(top)
    wanted = _wanted(np.where(special, 0, top).astype(np.float64), fmt, rule)
    codes = np.clip(wanted, 0, SCALE_TOP)
    scales[:] = np.where(special, SCALE_NAN, codes)
    shift = (SCALE_BIAS - codes).astype(np.int32)[:, np.newaxis]
    # Scaling rounds only what is far below the first bit that counts.
    with np.errstate(invalid="ignore", over="ignore"):
        if x.dtype == np.float32 and rounding.kind != "stochastic":
            scaled = x * np.ldexp(np.float32(1), shift)
            bits = scaled.view(np.uint32)
            index = bits >> np.uint32(LOST)
            index |= (bits & np.uint32((1 << LOST) - 1)) != 0
            np.take(_table(fmt, rounding), index, out=elements, mode="clip")
        else:
            elements[:] = fmt.encode(np.ldexp(x.astype(np.float64), shift), rounding, random)
    elements[special] = 0
    return np.isnan(top), special | (wanted > SCALE_TOP)


LOST = 14  # bits of a float32 that are jammed into one


@lru_cache(32)
def _table(fmt, rounding):
    """Element codes of all float32 numbers whose lowest `LOST` bits are clear.

    That leaves 9 mantissa bits. Elements have 7 or fewer, so they round alike from a float32 and from the float32 with
    its lost bits jammed into the ninth: that one differs from every element and every midpoint in the same direction.
    """
    values = (np.arange(1 << (32 - LOST), dtype=np.uint32) << np.uint32(LOST)).view(np.float32)
    return fmt.encode(np.nan_to_num(values), rounding)


def _checked(a, b):
    """Integers of the elements of both, NaN-free, and which blocks are NaN."""
    qa, qb = (_integers(x.format)[x.elements] for x in (a, b))
    bad = [np.isnan(q).any(axis=-1) | (x.scales == SCALE_NAN) for q, x in ((qa, a), (qb, b))]
    return np.nan_to_num(qa, copy=False), np.nan_to_num(qb, copy=False), *bad


def _group_sums(multiply, qa, qb, a, b):
    """Return exact dot products of integers as ``(high, low)``: float64 arrays, whose exact sum they are.

    `multiply` makes float64 dot products, in any order, of the operands' integers or of halves of their bits; a, b are
    the MX formats. The low part is at most half a unit in the last place of the high one.
    """
    if a.bits + b.bits + a.block.bit_length() <= 53:
        return multiply(qa, qb), 0
    half_a, half_b = a.bits // 2, b.bits // 2
    (high_a, low_a), (high_b, low_b) = (_halves(q, half) for q, half in ((qa, half_a), (qb, half_b)))
    high = multiply(high_a, high_b)
    middle = multiply(high_a, low_b) + multiply(low_a, high_b)
    high, error = two_sum(high, middle)
    return two_sum(high, error + multiply(low_a, low_b))


def _halves(q, bits):
    """Split float64 integers into a multiple of ``2**bits`` and what is below."""
    high = np.ldexp(np.floor(np.ldexp(q, -bits)), bits)
    return high, q - high


def dot(a, b):
    """Return the exact dot products of corresponding blocks, as float64 arrays ``(high, low)``.

    Their exact sum is the dot product. `low` is 0 wherever one float64 holds the sum, as it does for all pairs of
    presets but E5M2 with E5M2 or E4M3. A block with the NaN scale, or with an element that is Inf or NaN (which
    `quantise` never makes), gives NaN.
    """
    require(a.format.block == b.format.block, "blocks", (a.format.block, b.format.block), "of equal length")
    qa, qb, bad_a, bad_b = _checked(a, b)
    high, low = _group_sums(lambda x, y: np.einsum("...i,...i->...", x, y), qa, qb, a.format, b.format)
    shift = a.scales.astype(np.int32) + b.scales - 2 * SCALE_BIAS + a.format.unit + b.format.unit
    return np.where(bad_a | bad_b, np.nan, np.ldexp(high, shift)), np.where(bad_a | bad_b, 0, np.ldexp(low, shift))


def matmul(a, b, accumulator=formats.PRESETS["fp32"]):
    """Return the matrix product of two MX matrices, float64 values of `accumulator`.

    Parameters
    ----------
    a : Blocks, shape (M, K)
        In blocks along K.
    b : Blocks, shape (K, N)
        In blocks along K, so its arrays are (N, blocks) and (N, blocks, block).
    accumulator : Float
        Starts at +0. The exact dot products of the pairs of blocks are added in rising order along K, with one
        rounding each, to nearest even. A NaN block makes every sum that it enters NaN.
    """
    for name, operand, axis in (("a", a, (-1, 1)), ("b", b, (0, -2))):
        require(operand.scales.ndim == 2 and operand.axis in axis, f"axis of {name}", operand.axis,
                "the reduction axis of the product")
    require(a.length == b.length and a.format.block == b.format.block, "operands",
            ((a.length, a.format.block), (b.length, b.format.block)), "equal reduction lengths and blocks")
    qa, qb, bad_a, bad_b = _checked(a, b)
    ea, eb = (x.scales.astype(np.int64) for x in (a, b))
    offset = 2 * SCALE_BIAS - a.format.unit - b.format.unit
    bits = a.format.bits + b.format.bits + (a.format.block - 1).bit_length()
    if bits < 53:
        total = sum_groups((ea, qa), (eb, qb), offset, bits, accumulator)
    else:
        total = np.zeros((len(ea), len(eb)))
        for k in range(ea.shape[1]):
            high, low = _group_sums(lambda x, y: product(x, y.T), qa[:, k], qb[:, k], a.format, b.format)
            total = accumulate(total, high, ea[:, k, np.newaxis] + eb[:, k] - offset, accumulator, low)
    return np.where(bad_a.any(axis=1)[:, np.newaxis] | bad_b.any(axis=1), np.nan, total)


@dataclass(frozen=True)
class ConverterParameters(_WithElement):
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

    element: object = formats.PRESETS["fp8-e4m3"]
    block: int = 32
    scale_rule: str = "floor"
    rounding: str = "nearest"
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1
    work: Float = formats.PRESETS["fp32"]

    def __post_init__(self):
        self._check_element()
        require_int("block", self.block, 8, 64)
        require(self.scale_rule in SCALE_RULES, "scale_rule", self.scale_rule, ", ".join(SCALE_RULES))
        require(self.rounding in KINDS, "rounding", self.rounding, ", ".join(KINDS))
        require_int("random_bits", self.random_bits, 1, 16)
        require(type(self.corrected) is bool, "corrected", self.corrected, "true, false")
        require_int("seed", self.seed, 0, 2**31 - 1)
        work = self.work
        require(isinstance(work, Float) and work.specials == "ieee" and work.exponent == 8 and work.bias == 127 and
                1 <= work.mantissa <= 23, "work", work, "fp32, bf16, another Float with their exponents, Inf and NaN")

    @property
    def format(self):
        """The MX format of the blocks."""
        return MX(self.element, self.block)

    @property
    def mode(self):
        """The Rounding."""
        return {"nearest": NEAREST, "truncate": TRUNCATE,
                "stochastic": stochastic(self.random_bits, self.corrected)}[self.rounding]


@dataclass(frozen=True)
class DotParameters(_WithElement):
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

    element: object = formats.PRESETS["fp8-e4m3"]
    element_b: object = None
    block: int = 32
    lanes: int = 8
    accumulator: Float = formats.PRESETS["fp32"]
    accumulators: int = 16

    def __post_init__(self):
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
    def format_b(self) -> MX:
        """The MX format of operand b."""
        return MX(self.element if self.element_b is None else self.element_b, self.block)

    def to_json(self):
        """Return the parameters as a dict of plain JSON values; without ``element_b`` for equal elements."""
        data = super().to_json()
        if self.element_b is None:
            del data["element_b"]
            return data
        return data | self._named("element_b")


def convert(parameters, codes, step=0):
    """Golden function of ``mx-converter``: transfers of one block each, in order.

    Parameters
    ----------
    parameters : ConverterParameters
    codes : array of int, shape (n, block)
        Elements as codes of the work format.
    step : int
        Transfers before the first one here: with stochastic rounding, each has drawn a random word per lane.

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
        words = lfsr.words(p.seed, p.block, step, len(x), p.random_bits)
    scales, elements = np.empty(len(x), np.uint8), np.empty(x.shape, np.uint8)
    invalid, overflow = _quantise_rows(x, p.format, p.scale_rule, p.mode, words, scales, elements)
    return scales, elements, invalid, overflow


def dots(parameters, a, b, slot, first, last):
    """Golden function of ``mx-dot``: transfers of two blocks each, in order.

    Parameters
    ----------
    parameters : DotParameters
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
    a, b = (Blocks(fmt, np.asarray(scales, np.uint8), np.asarray(elements, np.uint8), fmt.block)
            for fmt, (scales, elements) in ((parameters.format, a), (parameters.format_b, b)))
    high, low = dot(a, b)
    codes, overflow = sums_of(parameters.accumulator, high, 0, slot, first, last, low)
    return codes, bool(np.isnan(high).any()), overflow


@dataclass(frozen=True)
class NVFP4:
    """An array in NVFP4: E2M1 elements, an E4M3 scale for each block of 16 and one fp32 scale for the tensor.

    Attributes
    ----------
    tensor_scale : float
        Value of the fp32 scale; NaN if the array held an Inf or a NaN, which makes all its values NaN.
    scales : ndarray of uint8, shape (..., blocks)
        E4M3 codes, not negative.
    elements : ndarray of uint8, shape (..., blocks, 16)
        E2M1 codes.
    length, axis : int
        As in `Blocks`.
    """

    tensor_scale: float
    scales: np.ndarray
    elements: np.ndarray
    length: int
    axis: int = -1

    BLOCK = 16

    def values(self):
        """Return the float64 values, element * block scale * tensor scale. Exact."""
        scale = formats.PRESETS["fp8-e4m3"].decode(self.scales) * self.tensor_scale
        values = formats.PRESETS["fp4-e2m1"].decode(self.elements) * scale[..., np.newaxis]
        return from_groups(values, self.length, self.axis)


def quantise_nvfp4(x, *, axis=-1, rounding=NEAREST, random=None, tensor_scale=None):
    """Quantise an array to NVFP4 along one axis.

    The tensor scale is amax / (448 * 6), rounded to fp32; a block's scale is its largest magnitude / 6 / tensor scale,
    rounded to E4M3; an element is x / (block scale * tensor scale), rounded to E2M1. The quotients are exact before
    their one rounding (to nearest even for the scales), and what is beyond the largest number saturates. Where the
    scales multiply to zero, the elements are zeros.

    Parameters
    ----------
    x : array_like of float16 or float32
        Any shape of one dimension or more.
    axis, rounding, random
        As in `quantise`, with 16 lanes or words per block.
    tensor_scale : float, optional
        An fp32 value to use instead of the array's own.
    """
    x = np.asarray(x)
    require(x.dtype in (np.float16, np.float32), "dtype of x", str(x.dtype), "float16, float32")
    flat, shape, length = as_groups(x, axis, NVFP4.BLOCK)
    words = draw_words(random, rounding, NVFP4.BLOCK, len(flat))
    element, scale = formats.PRESETS["fp4-e2m1"], replace(formats.PRESETS["fp8-e4m3"], overflow="saturate")
    flat = flat.astype(np.float64)
    top = np.abs(flat).max(axis=1, initial=0)
    # Quotients of numbers of so few bits are either a midpoint of the rounding that follows or farther from it than
    # float64's own rounding moves them: one rounding in effect.
    if tensor_scale is None:
        tensor_scale = formats.PRESETS["fp32"].round(top.max(initial=0) / (scale.max * element.max))
    tensor_scale = float(np.float32(tensor_scale))
    if not np.isfinite(top).all():
        tensor_scale = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = scale.encode(np.where(top == 0, 0, top / (element.max * tensor_scale)))
        divisor = (scale.decode(scales) * tensor_scale)[:, np.newaxis]
        quotients = np.where(divisor == 0, 0, flat / divisor)
    elements = element.encode(np.nan_to_num(quotients), rounding, words)
    return NVFP4(tensor_scale, scales.astype(np.uint8).reshape(shape),
                 elements.astype(np.uint8).reshape(*shape, NVFP4.BLOCK), length, axis)
