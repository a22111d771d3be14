"""Recipes: which number format and rounding each tensor of a training run gets, by name."""

import inspect
from dataclasses import dataclass, replace

from .formats import PRESETS, BlockFloat, Float, parse, require, require_int
from .rounding import KINDS, NEAREST, Rounding

__all__ = ["RECIPES", "TENSORS", "Quantiser", "Recipe", "bfp", "fp32", "make"]

TENSORS = ("weights", "activations", "gradients")


@dataclass(frozen=True)
class Quantiser:
    """How one kind of tensor enters a GEMM.

    Parameters
    ----------
    format : BlockFloat, optional
        None: as it is, in the work format fp32.
    rounding : Rounding
    """

    format: BlockFloat = None
    rounding: Rounding = NEAREST

    def describe(self):
        """Return ``{"format", "rounding"}`` and, if stochastic, ``bits`` and ``corrected``: JSON-ready.

        ``format`` is what `formats.parse` reads.
        """
        if self.format is None:
            return {"format": "fp32", "rounding": "nearest"}
        # Spelled out, not a preset's name: "fast-4" would promise FAST's roundings as well.
        described = {"format": {"type": "BlockFloat", **self.format.to_json()}, "rounding": self.rounding.kind}
        if self.rounding.kind == "stochastic":
            described.update(bits=self.rounding.bits, corrected=self.rounding.corrected)
        return described


@dataclass(frozen=True)
class Recipe:
    """The number formats of a training run.

    Parameters
    ----------
    name : str
    weights, activations, gradients : Quantiser
        Operands of the GEMMs: all three in fp32, or all three in block floating point with
        equal groups.
    accumulator : Float
        What GEMMs add in; each of its values is an fp32 number, so going back to the work
        format is exact. fp32 when the operands are.
    """

    name: str
    weights: Quantiser = Quantiser()
    activations: Quantiser = Quantiser()
    gradients: Quantiser = Quantiser()
    accumulator: Float = PRESETS["fp32"]

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
        require(not all(plain) or acc == PRESETS["fp32"], "accumulator", acc, "fp32, because the operands are")

    def quantiser(self, tensor):
        """Return the Quantiser of ``weights``, ``activations`` or ``gradients``."""
        return getattr(self, tensor)

    def formats(self):
        """Return {tensor: `Quantiser.describe`}, and the same for ``accumulator``. JSON-ready."""
        described = {tensor: self.quantiser(tensor).describe() for tensor in TENSORS}
        named = next((name for name, preset in PRESETS.items() if preset == self.accumulator), None)
        accumulator = named or {"type": "Float", **self.accumulator.to_json()}
        return {**described, "accumulator": {"format": accumulator, "rounding": "nearest"}}


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


RECIPES = {"fp32": fp32, "bfp": bfp}


def make(name, **settings):
    """Return the recipe of that name, with settings that are the keywords of its function in `RECIPES`."""
    require(name in RECIPES, "recipe", name, ", ".join(RECIPES))
    allowed = list(inspect.signature(RECIPES[name]).parameters)
    for setting in settings:
        require(setting in allowed, f"setting of recipe {name}", setting, ", ".join(allowed) or "none")
    return RECIPES[name](**settings)
