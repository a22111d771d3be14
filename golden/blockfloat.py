"""Block floating point: quantiser, memory layout, exact group dot product, matrix product.

Source: numerics contract, section 3, after FAST (arXiv 2110.15456).
"""

from dataclasses import dataclass, replace

import numpy as np

from ..base.checks import require, require_int, require_lengths
from ..base.parameters import Parameters
from . import lfsr
from .accumulator import BANK, RECURRENCE, require_sums, sum_groups, sums_of
from .arrays import as_rows, broadcast
from .formats import PRESETS, BlockFloat, Float
from .groups import as_groups, draw_words, from_groups, slabs_of
from .rounding import NEAREST, TRUNCATE, stochastic

__all__ = [
    "Blocks", "ConverterParameters", "FMACParameters", "System", "convert", "dot", "fmac", "matmul",
    "pack", "passes", "quantise", "unpack",
]


@dataclass(frozen=True)
class Blocks:
    """An array in block floating point, its groups laid along one axis.

    Attributes
    ----------
    format : BlockFloat
    exponents : ndarray of int16, shape (..., groups)
        Exponent codes; the grouped axis comes last.
    mantissas : ndarray of int8 (int16 for 8-bit magnitudes), shape (..., groups, group)
        Signed magnitudes; a tail is padded with zeros. A zero has no sign.
    length : int
        Elements along the grouped axis, padding not counted.
    axis : int
        Where the grouped axis belongs in the array that was quantised.
    invalid : bool
        A NaN was met (and saturated).
    """

    format: BlockFloat
    exponents: np.ndarray
    mantissas: np.ndarray
    length: int
    axis: int = -1
    invalid: bool = False

    def values(self):
        """Return the float64 values in the shape of the array that was quantised. Exact."""
        shift = self.exponents.astype(np.int32) - (self.format.bias + self.format.mantissa - 1)
        values = np.ldexp(self.mantissas.astype(np.float64), shift[..., np.newaxis])
        return from_groups(values, self.length, self.axis)


def quantise(x, fmt, *, axis=-1, rounding=NEAREST, random=None):
    """Quantise an array to block floating point along one axis.

    Parameters
    ----------
    x : array_like of float
        Any shape of one dimension or more; float16, float32 or float64, taken exactly.
    fmt : BlockFloat
    axis : int
        Axis along which groups lie; its tail is padded with zeros.
    rounding : Rounding
        The carry out of a magnitude saturates under each.
    random : lfsr.Stream or array of int, optional
        For a stochastic rounding: a stream of `group` lanes, from which one draw per group is
        taken (groups in C order with the grouped axis last), or the words themselves, of shape
        (..., groups, group).

    Returns
    -------
    Blocks
        A group whose exponent is above the field, or that holds an Inf or a NaN, gets the top
        exponent code, and every non-zero element of it saturates. Below the field the group
        is aligned to the lowest exponent. An all-zero group has exponent code 0.
    """
    flat, shape, length = as_groups(x, axis, fmt.group)
    words = draw_words(random, rounding, fmt.group, len(flat))
    exponents = np.empty(len(flat), np.int16)
    mantissas = np.empty(flat.shape, np.int8 if fmt.mantissa < 8 else np.int16)
    invalid = False
    for part in slabs_of(len(flat), fmt.group):
        noise = None if words is None else words[part]
        invalid |= _quantise_rows(flat[part], fmt, rounding, noise, exponents[part], mantissas[part])
    return Blocks(fmt, exponents.reshape(shape), mantissas.reshape(*shape, fmt.group), length, axis, invalid)


def _quantise_rows(x, fmt, rounding, random, exponents, mantissas):
    """Quantise rows of one group each into the given arrays; return whether there was a NaN."""
    top_q = (1 << fmt.mantissa) - 1
    # The maximum along the short axis is six times faster on a transposed copy.
    top = np.abs(np.ascontiguousarray(x.T)).max(axis=0)
    special = ~np.isfinite(top)
    exponent = np.frexp(np.where(special, 1, top))[1] - 1
    above = special | (exponent > fmt.emax) & (top != 0)
    exponent = np.where(top == 0, fmt.emin, np.clip(exponent, fmt.emin, fmt.emax))
    exponent[above] = fmt.emax
    exponents[:] = exponent + fmt.bias

    window = rounding.window if rounding.kind == "stochastic" else 0
    shift = fmt.mantissa - 1 + window - exponent
    limits = np.finfo(x.dtype)
    wide = shift.max() >= limits.maxexp or shift.min() < limits.minexp
    with np.errstate(invalid="ignore", over="ignore"):
        if wide:  # the power of two itself is no number of this dtype
            scaled = np.ldexp(x.astype(np.float64), shift[:, np.newaxis])
        else:
            scaled = x * np.ldexp(x.dtype.type(1), shift)[:, np.newaxis]
        # Scaling rounds only where the result is subnormal, far below the first bit that counts.
        if rounding.kind == "stochastic":
            q = np.abs(scaled).astype(np.int16 if fmt.mantissa + window < 14 else np.int32)
            q += rounding.noise(random.astype(q.dtype))
            q >>= window
            np.minimum(q, top_q, out=q)
            q *= 1 - 2 * np.signbit(x).view(np.int8)
        else:
            q = np.rint(scaled, out=scaled) if rounding.kind == "nearest" else scaled
            q = np.clip(q, -top_q, top_q, out=q)
        np.copyto(mantissas, q, casting="unsafe")
    if above.any():
        saturated = np.where(np.signbit(x[above]), -top_q, top_q)
        mantissas[above] = np.where(x[above] == 0, 0, saturated)
    return bool(special.any() and np.isnan(x[special]).any())


def pack(blocks):
    """Return the memory layout: ``(exponents, planes)`` as uint8 arrays of packed bits.

    Exponents lie apart from mantissas, `exponent` bits each. Each 2-bit chunk has a plane of its
    own, the lowest first, in which every element takes 3 bits: the chunk, then the sign. So a
    group takes ``exponent + group * chunks * 3`` bits. Bits fill each byte from the lowest.
    """
    fmt = blocks.format
    shifts = np.arange(fmt.exponent)
    exponents = np.packbits((blocks.exponents.reshape(-1, 1) >> shifts) & 1, bitorder="little")
    q = blocks.mantissas.reshape(-1).astype(np.int16)
    magnitude = np.abs(q)
    planes = []
    for c in range(fmt.chunks):
        chunk = (magnitude >> (2 * c)) & 3 | (q < 0) << 2
        planes.append(np.packbits((chunk[:, np.newaxis] >> np.arange(3)) & 1, bitorder="little"))
    return exponents, planes


def unpack(exponents, planes, fmt, shape, length, axis=-1):
    """Return the Blocks whose `pack` gave these arrays.

    Parameters
    ----------
    shape : tuple of int
        Shape of the exponents, (..., groups).
    length, axis : int
        As in `Blocks`.
    """
    count = int(np.prod(shape))
    bits = np.unpackbits(exponents, count=count * fmt.exponent, bitorder="little")
    codes = bits.reshape(count, fmt.exponent).astype(np.int16) @ (1 << np.arange(fmt.exponent, dtype=np.int16))
    magnitude, negative = np.zeros(count * fmt.group, np.int16), False
    for c, plane in enumerate(planes):
        bits = np.unpackbits(plane, count=count * fmt.group * 3, bitorder="little").reshape(-1, 3)
        magnitude |= (bits[:, 0] | bits[:, 1] << 1).astype(np.int16) << (2 * c)
        negative = bits[:, 2].astype(bool)
    mantissas = np.where(negative, -magnitude, magnitude)
    mantissas = mantissas.astype(np.int8 if fmt.mantissa < 8 else np.int16).reshape(*shape, fmt.group)
    return Blocks(fmt, codes.reshape(shape), mantissas, length, axis)


def passes(a_mantissa, b_mantissa):
    """Return the chunk pairs, and so the serial dot product's cycles, for two precisions."""
    return ((a_mantissa + 1) // 2) * ((b_mantissa + 1) // 2)


def dot(a, b):
    """Return the exact dot products of corresponding groups as ``(integer, exponent)``: integer * 2**exponent.

    Both are int64 of the broadcast shape of the exponents. Equal to the merged chunk dot
    products, sum of 4**(c+d) * D_cd.
    """
    require(a.format.group == b.format.group, "groups", (a.format.group, b.format.group), "of equal length")
    broadcast(a=a.exponents, b=b.exponents)
    integer = np.einsum("...i,...i->...", a.mantissas.astype(np.int64), b.mantissas.astype(np.int64))
    return integer, a.exponents.astype(np.int64) + b.exponents.astype(np.int64) - _offset(a.format, b.format)


def _offset(a, b):
    """Return what the sum of two exponent codes has above the exponent of their product's unit."""
    return a.bias + a.mantissa - 1 + b.bias + b.mantissa - 1


def matmul(a, b, accumulator=PRESETS["fp32"]):
    """Return the matrix product of two block-floating-point matrices, float64 values of `accumulator`.

    Parameters
    ----------
    a : Blocks, shape (M, K)
        Grouped along K.
    b : Blocks, shape (K, N)
        Grouped along K, so its arrays are (N, groups) and (N, groups, group).
    accumulator : Float
        Starts at +0. Groups are added in rising order along K, one rounding each.
    """
    for name, operand, axis in (("a", a, (-1, 1)), ("b", b, (0, -2))):
        require(operand.exponents.ndim == 2 and operand.axis in axis, f"axis of {name}", operand.axis,
                "the reduction axis of the product")
    require(a.length == b.length and a.format.group == b.format.group, "operands",
            ((a.length, a.format.group), (b.length, b.format.group)), "equal reduction lengths and groups")
    bits = (a.format.group << (a.format.mantissa + b.format.mantissa)).bit_length() - 1
    return sum_groups((a.exponents, a.mantissas), (b.exponents, b.mantissas), _offset(a.format, b.format), bits,
                      accumulator)


@dataclass(frozen=True)
class ConverterParameters(Parameters):
    """Parameters of the unit ``bfp-converter``.

    Parameters
    ----------
    group : int
        Elements per group and per transfer, 4 to 64.
    mantissa : int
        Greatest magnitude width, 2 to 8; the precision of a transfer is 2 .. mantissa.
    exponent : int
        Width of the shared exponent, 3 to 8; its bias is ``2**(exponent-1) - 1``.
    work : Float
        Format of the input elements, with Inf and NaN: fp32, fp16, bf16.
    random_bits : int
        Width of a random word, 1 to 16.
    corrected : bool
        Whether stochastic rounding is corrected (see `Rounding`).
    seed : int
        Seed of the lanes' random words, 0 to 2**31 - 1.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    work: Float = PRESETS["fp32"]
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1

    def __post_init__(self):
        _require_unit_format(self)
        require(isinstance(self.work, Float) and self.work.specials == "ieee" and self.work.mantissa >= 1,
                "work", self.work, "a Float with specials 'ieee', such as fp32, fp16, bf16")
        require_int("random_bits", self.random_bits, 1, 16)
        require(type(self.corrected) is bool, "corrected", self.corrected, "true, false")
        require_int("seed", self.seed, 0, 2**31 - 1)

    @property
    def format(self):
        """The BlockFloat at the greatest precision."""
        return BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def roundings(self):
        """What the codes 0, 1, 2 of the rounding field choose."""
        return (NEAREST, TRUNCATE, stochastic(self.random_bits, self.corrected))

    @property
    def latency(self):
        """Cycles from an accepted transfer to its group."""
        return 8 + ((self.group - 1).bit_length() + 1) // 2


@dataclass(frozen=True)
class FMACParameters(Parameters):
    """Parameters of the unit ``bfp-fmac``.

    Parameters
    ----------
    group : int
        Elements per group, 4 to 64.
    mantissa : int
        Greatest magnitude width of both operands, 2 to 8.
    exponent : int
        Width of the shared exponents, 3 to 8; the bias is ``2**(exponent-1) - 1``.
    accumulator : Float
        Format of the sums: fp32, bf16, fp16.
    chunks : str
        ``serial``: one pair of 2-bit chunks a cycle. ``parallel``: all pairs at once.
    accumulators : int
        Sums kept side by side: 2, 4, 8 or 16.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    accumulator: Float = PRESETS["fp32"]
    chunks: str = "serial"
    accumulators: int = 16

    def __post_init__(self):
        _require_unit_format(self)
        require_sums(self.accumulator, self.accumulators)
        require(self.chunks in ("serial", "parallel"), "chunks", self.chunks, "serial, parallel")

    @property
    def format(self):
        """The BlockFloat at the greatest precision."""
        return BlockFloat(self.group, self.mantissa, self.exponent)

    @property
    def chunk_macs(self):
        """Multiply-accumulates of 2-bit chunks in a cycle."""
        return self.group * (self.format.chunks**2 if self.chunks == "parallel" else 1)

    @property
    def serial(self):
        """Whether a transfer may take more than one cycle."""
        return self.chunks == "serial" and self.format.chunks > 1

    @property
    def latency(self):
        """Cycles from an accepted transfer to its emitted sum."""
        products = 2 if self.serial or self.format.chunks == 1 else 1 + self.format.chunks
        return products + (self.group - 1).bit_length() + 1 + BANK


def _require_unit_format(parameters):
    require_int("group", parameters.group, 4, 64)
    require_int("mantissa", parameters.mantissa, 2, 8)
    require_int("exponent", parameters.exponent, 3, 8)


@dataclass(frozen=True)
class System(Parameters):
    """Block floating point as a number system of the array: see `array`.

    An instruction chooses each operand's precision and its rounding (0 nearest even, 1 truncate, 2 stochastic).

    Parameters
    ----------
    group, mantissa, exponent, accumulator, chunks
        As in `FMACParameters`.
    work, random_bits, corrected
        As in `ConverterParameters`.
    seed : int
        Of the random words of rows, 0 to 2**31 - 2; those of columns have the next one.
    """

    group: int = 16
    mantissa: int = 4
    exponent: int = 8
    accumulator: Float = PRESETS["fp32"]
    chunks: str = "serial"
    work: Float = PRESETS["fp32"]
    random_bits: int = 8
    corrected: bool = False
    seed: int = 1

    recurrence = RECURRENCE

    def __post_init__(self):
        require_int("seed", self.seed, 0, 2**31 - 2)
        self.cell(2), self.converter(0)

    @property
    def modes(self):
        """Fields of an operand, and their bits."""
        return {"precision": self.mantissa.bit_length(), "rounding": 2}

    def default(self, name):
        """Return the value of a mode that is not given."""
        return {"precision": self.mantissa, "rounding": 0}[name]

    def cell(self, sums):
        """Return the cell's parameters."""
        return FMACParameters(self.group, self.mantissa, self.exponent, self.accumulator, self.chunks, sums)

    def converter(self, side):
        """Return the parameters of a side's converter."""
        return ConverterParameters(self.group, self.mantissa, self.exponent, self.work, self.random_bits,
                                   self.corrected, self.seed + side)

    @property
    def depth(self):
        """Cycles from a transfer that a cell accepts to its addition."""
        return self.cell(2).latency - BANK

    def interval(self, a, b):
        """Return the cycles that a transfer takes."""
        cell = self.cell(2)
        return passes(*(min(max(mode["precision"], 2), self.mantissa) for mode in (a, b))) if cell.serial else 1

    def convert(self, side, codes, mode, step):
        """Return the arrays (exponents, mantissas, precisions) of vectors, the draws, and the sticky status."""
        count = len(codes)
        exponents, mantissas, invalid, overflow = convert(
            self.converter(side), codes, np.full(count, mode["precision"]), np.full(count, mode["rounding"]), step)
        draws = count if mode["rounding"] == 2 else 0
        arrays = exponents, mantissas, np.full(count, mode["precision"])
        return arrays, draws, bool(invalid.any()), bool(overflow.any())

    def dot(self, a, b, first, last):
        """Return the codes of sums of dot products, and the sticky status."""
        codes, overflow = fmac(self.cell(2), a, b, np.zeros(len(first), int), first, last)
        return codes, False, overflow


def convert(parameters, codes, precision, rounding, step=0):
    """Golden function of ``bfp-converter``: transfers of one group each, in order.

    Parameters
    ----------
    parameters : ConverterParameters
    codes : array of int, shape (n, group)
        Elements as codes of the work format.
    precision : array of int, shape (n,)
        Magnitude bits of each transfer; below 2 counts as 2, above the maximum as the maximum.
    rounding : array of int, shape (n,)
        0 nearest, 1 truncate, 2 stochastic (3 counts as nearest).
    step : int
        Stochastic transfers before the first one here: only those draw random words.

    Returns
    -------
    exponents : ndarray of int16, shape (n,)
    mantissas : ndarray of int16, shape (n, group)
        Signed magnitudes.
    invalid, overflow : ndarray of bool, shape (n,)
        Whether the transfer raised the sticky status: a NaN; a group above the exponent field.
    """
    x = as_rows("codes", parameters.work.decode(codes), parameters.group)
    require_lengths(codes=x, precision=precision, rounding=rounding)
    precision = np.clip(precision, 2, parameters.mantissa)
    rounding = np.where(np.asarray(rounding) == 3, 0, rounding)
    exponents = np.zeros(len(x), np.int16)
    mantissas = np.zeros(x.shape, np.int16)
    draws = np.cumsum(rounding == 2) - 1
    words = lfsr.words(parameters.seed, parameters.group, step, int(draws[-1]) + 1 if len(x) else 0,
                       parameters.random_bits)
    for kind, m in {(int(r), int(p)) for r, p in zip(rounding, precision)}:
        rows = (rounding == kind) & (precision == m)
        blocks = quantise(x[rows], replace(parameters.format, mantissa=m), rounding=parameters.roundings[kind],
                          random=words[draws[rows]] if kind == 2 else None)
        exponents[rows], mantissas[rows] = blocks.exponents[:, 0], blocks.mantissas[:, 0]
    top = np.abs(x).max(axis=1)
    return exponents, mantissas, np.isnan(top), ~(top < np.ldexp(1.0, parameters.format.emax + 1))


def fmac(parameters, a, b, slot, first, last):
    """Golden function of ``bfp-fmac``: transfers of two groups each, in order.

    Parameters
    ----------
    parameters : FMACParameters
    a, b : tuple (exponents, mantissas, precisions)
        Arrays of shapes (n,), (n, group) and (n,): exponent codes, signed magnitudes below
        ``2**precision``, and magnitude bits (clamped to 2 .. the maximum).
    slot : array of int, shape (n,)
        Which accumulator each transfer adds to.
    first, last : array of bool, shape (n,)
        Start from +0; emit the sum after this addition (the accumulator keeps it).

    Returns
    -------
    codes : ndarray of uint32
        Emitted sums, as codes of the accumulator format, in order.
    overflow : bool
        Whether a finite accumulator became infinite.
    """
    (ea, qa, pa), (eb, qb, pb) = a, b
    require_lengths(a=qa, b=qb, slot=slot, first=first, last=last)
    integer = np.einsum("ij,ij->i", np.asarray(qa, np.int64), np.asarray(qb, np.int64))
    pa, pb = (np.clip(p, 2, parameters.mantissa) for p in (pa, pb))
    exponent = np.asarray(ea, np.int64) + eb - 2 * parameters.format.bias - (pa - 1) - (pb - 1)
    return sums_of(parameters.accumulator, integer, exponent, slot, first, last)
