"""Recipes: which number format and rounding each tensor of a training run gets, by name."""

import inspect
from dataclasses import dataclass, replace

import numpy as np

from .formats import PRESETS, BlockFloat, Float, parse, require, require_int
from .rounding import KINDS, NEAREST, Rounding

__all__ = ["LARGEST_SCALE", "LossScale", "RECIPES", "TENSORS", "Quantiser", "Recipe", "bfp", "fp16", "fp32", "make"]

TENSORS = ("weights", "activations", "gradients")
LARGEST_SCALE = 1 << 24  # its reciprocal is the smallest number of fp16


@dataclass(frozen=True)
class Quantiser:
    """How one kind of tensor enters a GEMM.

    Parameters
    ----------
    format : BlockFloat, optional
        None: as it is, in the work format.
    rounding : Rounding
    """

    format: BlockFloat = None
    rounding: Rounding = NEAREST

    def describe(self, work=PRESETS["fp32"]):
        """Return ``{"format", "rounding"}`` and, if stochastic, ``bits`` and ``corrected``: JSON-ready.

        ``format`` is what `formats.parse` reads.
        """
        if self.format is None:
            return {"format": _named(work), "rounding": "nearest"}
        # Spelled out, not a preset's name: "fast-4" would promise FAST's roundings as well.
        described = {"format": {"type": "BlockFloat", **self.format.to_json()}, "rounding": self.rounding.kind}
        if self.rounding.kind == "stochastic":
            described.update(bits=self.rounding.bits, corrected=self.rounding.corrected)
        return described


def _named(fmt):
    """Return a Float's preset name, or else what `formats.parse` reads."""
    named = next((name for name, preset in PRESETS.items() if preset == fmt), None)
    return named or {"type": "Float", **fmt.to_json()}


@dataclass(frozen=True)
class LossScale:
    """The power of two by which the loss, and so every gradient and momentum, is multiplied.

    A step that would make a momentum Inf or NaN is skipped, and the scale halves, down to 1. After `interval` steps
    in a row that were not, it doubles, up to `LARGEST_SCALE`, unless a momentum would become Inf by it.

    Parameters
    ----------
    start : int
        1 to `LARGEST_SCALE`.
    interval : int, optional
        None: it never doubles.
    """

    start: int = 1024
    interval: int = 100

    def __post_init__(self):
        start = self.start
        require(type(start) is int and 1 <= start <= LARGEST_SCALE and start & (start - 1) == 0, "loss_scale", start,
                f"a power of two from 1 to {LARGEST_SCALE}, or null")
        if self.interval is not None:
            require_int("growth_interval", self.interval, 1, 10**6)


@dataclass(frozen=True)
class Recipe:
    """The number formats of a training run.

    Parameters
    ----------
    name : str
    weights, activations, gradients : Quantiser
        Operands of the GEMMs: all three in the work format, or all three in block floating point
        with equal groups.
    accumulator : Float
        What GEMMs add in; each of its values is a number of the work format, so going back to
        that is exact. The work format when the operands are.
    work : Float
        What every tensor is kept in between GEMMs, and every other operation rounds to: fp32, or
        fp16 when the operands are.
    chunk : int, optional
        With work in fp16, products that are summed apart before the sums are: see `floating.matmul`.
    scale : LossScale, optional
        None: the loss is as it is, and no step is skipped.
    """

    name: str
    weights: Quantiser = Quantiser()
    activations: Quantiser = Quantiser()
    gradients: Quantiser = Quantiser()
    accumulator: Float = PRESETS["fp32"]
    work: Float = PRESETS["fp32"]
    chunk: int = None
    scale: LossScale = None

    def __post_init__(self):
        formats = [self.quantiser(tensor).format for tensor in TENSORS]
        plain = [fmt is None for fmt in formats]
        require(all(plain) or not any(plain), "formats", formats, "all None, or each a BlockFloat")
        groups = {fmt.group for fmt in formats if fmt}
        require(len(groups) <= 1, "group", sorted(groups), "one group size for all tensors")
        acc = self.accumulator
        require(isinstance(acc, Float) and acc.specials == "ieee" and acc.overflow == "infinity" and
                2 <= acc.mantissa <= 23 and acc.emax <= 127 and acc.emin - acc.mantissa >= -149,
                "accumulator", acc, "a Float with specials 'ieee', overflow 'infinity' and values within fp32, "
                "such as fp32, bf16, fp16")
        require(self.work in (PRESETS["fp32"], PRESETS["fp16"]), "work", self.work, "fp32, fp16")
        require(all(plain) or self.work == PRESETS["fp32"], "work", self.work, "fp32, because the operands are blocks")
        require(not all(plain) or acc == self.work, "accumulator", acc,
                f"{_named(self.work)}, because the operands are")
        require(self.chunk is None or self.work == PRESETS["fp16"], "chunk", self.chunk, "None, because work is fp32")
        if self.chunk is not None:
            require_int("chunk", self.chunk, 1, 10**6)

    @property
    def dtype(self):
        """NumPy's type of the work format."""
        return np.dtype(np.float32 if self.work == PRESETS["fp32"] else np.float16)

    def quantiser(self, tensor):
        """Return the Quantiser of ``weights``, ``activations`` or ``gradients``."""
        return getattr(self, tensor)

    def formats(self):
        """Return {tensor: `Quantiser.describe`}, and the same for ``accumulator``. JSON-ready."""
        described = {tensor: self.quantiser(tensor).describe(self.work) for tensor in TENSORS}
        return {**described, "accumulator": {"format": _named(self.accumulator), "rounding": "nearest"}}


def fp32():
    """Everything in fp32; each GEMM adds in rising order, every product and sum rounded."""
    return Recipe("fp32")


def bfp(*, group=16, mantissa=4, exponent=8, weights_mantissa=None, activations_mantissa=None,
        gradients_mantissa=None, weights_rounding="nearest", activations_rounding="nearest",
        gradients_rounding="stochastic", random_bits=8, corrected=False, accumulator="fp32"):
    """Block floating point after FAST (numerics contract, section 3).

    Parameters
    ----------
    group, mantissa, exponent : int
        As in `BlockFloat`; `mantissa` is that of all tensors which are not given their own.
    weights_mantissa, activations_mantissa, gradients_mantissa : int, optional
    weights_rounding, activations_rounding, gradients_rounding : str
        ``nearest``, ``truncate``, ``stochastic``. FAST itself has ``truncate`` for the first two.
    random_bits, corrected
        Of the stochastic roundings; see `Rounding`.
    accumulator : Float, or a preset's name
    """
    require_int("mantissa", mantissa, 2, 8)
    require_int("random_bits", random_bits, 1, 16)
    require(type(corrected) is bool, "corrected", corrected, "true, false")
    base = BlockFloat(group, mantissa, exponent)
    try:
        accumulator = parse(accumulator)
    except (TypeError, ValueError):
        require(False, "accumulator", accumulator, ", ".join(n for n, f in PRESETS.items() if isinstance(f, Float)))
    mantissas = (weights_mantissa, activations_mantissa, gradients_mantissa)
    kinds = (weights_rounding, activations_rounding, gradients_rounding)
    quantisers = {}
    for tensor, own, kind in zip(TENSORS, mantissas, kinds):
        own = mantissa if own is None else own
        require_int(f"{tensor}_mantissa", own, 2, 8)
        require(kind in KINDS, f"{tensor}_rounding", kind, ", ".join(KINDS))
        stochastic = kind == "stochastic"
        rounding = Rounding(kind, random_bits, corrected) if stochastic else Rounding(kind)
        quantisers[tensor] = Quantiser(replace(base, mantissa=own), rounding)
    return Recipe("bfp", **quantisers, accumulator=accumulator)


def fp16(*, chunk=64, loss_scale=None, growth_interval=100):
    """Everything in IEEE FP16, every operation's result rounded once, to nearest even; after arXiv 1911.07384.

    Only the paper's abstract could be read: the recipe is ours. docs/fp16.md tells what each setting does.

    Parameters
    ----------
    chunk : int, optional
        Products that each sum of a GEMM, of a bias' gradient or of a statistic takes apart before those sums are
        added; None: one sum of them all.
    loss_scale, growth_interval : int, optional
        `LossScale.start` and `LossScale.interval`. No `loss_scale`: no scaling, and no step is skipped. That is the
        default because nothing that was measured here needed it.
    """
    half = PRESETS["fp16"]
    scale = LossScale(1 if loss_scale is None else loss_scale, growth_interval)
    return Recipe("fp16", accumulator=half, work=half, chunk=chunk, scale=None if loss_scale is None else scale)


RECIPES = {"fp32": fp32, "bfp": bfp, "fp16": fp16}


def make(name, **settings):
    """Return the recipe of that name, with settings that are the keywords of its function in `RECIPES`."""
    require(name in RECIPES, "recipe", name, ", ".join(RECIPES))
    allowed = list(inspect.signature(RECIPES[name]).parameters)
    for setting in settings:
        require(setting in allowed, f"setting of recipe {name}", setting, ", ".join(allowed) or "none")
    return RECIPES[name](**settings)
