"""Recipes: which number format and rounding each tensor of a training run gets, by name."""

import dataclasses
import inspect
from dataclasses import dataclass, field, replace

import numpy as np

from ..base.checks import require, require_int
from . import systems
from .blockfloat import BFPSystem
from .floating import PlainSystem
from .formats import PRESETS, Fixed, Float, Log, parse
from .logarithmic import LNSSystem
from .madam import MadamParameters
from .mx import MXSystem
from .number_system import TENSORS, Mode, NumberSystem, named
from .precision import Adaptive, Constant, Cyclic, Policies
from .precision import parse as parse_policy
from .rounding import KINDS
from .softmax import SoftmaxParameters
from .update import METHODS

__all__ = [
    "LARGEST_SCALE", "Kept", "LossScale", "RECIPES", "TENSORS", "Recipe", "Stored", "bfp", "cpt", "fast", "fp16",
    "fp32", "keep", "lns_madam", "make", "mx", "system",
]

LARGEST_SCALE = 1 << 24  # its reciprocal is the smallest number of fp16


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
class Stored:
    """How weights are kept as logarithmic codes, and moved: no other copy of them exists.

    Parameters
    ----------
    format : Log
        Of the stored codes: that of the GEMMs' weights, or its octaves in more bits.
    madam : MadamParameters, optional
        What moves them. None: SGD with momentum, on the decoded weights in the work format, which are rounded to codes
        again after each step.
    rate : int
        Of `madam.update` at the start: 0 to 7.
    drops : tuple of float
        Parts of the run after which the rate falls by one, rising, above 0 and below 1; at most `rate` of them.
    second : str
        ``log``: Madam's second moment is a logarithmic code, as in `madam.update`. ``fp32``: it is fp32 instead, and
        so is all that follows from it, up to the integer that moves the code: for comparisons.
    """

    format: Log = PRESETS["lns16-update"]
    madam: MadamParameters = None
    rate: int = 4
    drops: tuple = ()
    second: str = "log"

    def __post_init__(self):
        require(self.madam is None or self.madam.weight == self.format, "weight", self.madam and self.madam.weight,
                f"{self.format}, the stored format")
        require_int("rate", self.rate, 0, 7)
        require(isinstance(self.drops, tuple) and len(self.drops) <= self.rate and
                all(type(each) is float and 0 < each < 1 for each in self.drops) and
                list(self.drops) == sorted(set(self.drops)), "rate_drops", self.drops,
                f"at most {self.rate} rising numbers above 0 and below 1, because the rate is {self.rate}")
        require(self.second in ("log", "fp32"), "second", self.second, "log, fp32")

    def rate_at(self, step, steps):
        """Return the rate of a step, counted from 0, in a run of `steps`."""
        return self.rate - sum(step >= part * steps for part in self.drops)

    def describe(self):
        """Return the stored format, its rounding, and what moves it: JSON-ready."""
        described = {"format": named(self.format), "rounding": "nearest", "update": "madam" if self.madam else "sgd"}
        if self.madam:
            kept = ("second_bits", "second_gamma", "second_bias", "random_bits") if self.second == "log" else ()
            described |= {"rate": self.rate, "rate_drops": list(self.drops), "clip": self.madam.clip,
                          "memory": self.madam.memory, "second": self.second}
            described |= {name: getattr(self.madam, name) for name in kept}
        return described


@dataclass(frozen=True)
class Kept:
    """How SGD keeps parameters, velocities and compensations from step to step, and moves them.

    Parameters
    ----------
    format : Float or Fixed, optional
        None: the work format. With a Fixed format velocities are of the work format.
    update : str
        One of `update.METHODS`. Of a Fixed format, ``kahan`` has a carry word, and ``grow`` is not to be had.
    random_bits : int
        Of the stochastic update.
    carry : int
        Bits of the carry word.
    """

    format: object = None
    update: str = "plain"
    random_bits: int = 8
    carry: int = 8

    @property
    def fixed(self) -> bool:
        """Whether parameters are in fixed point."""
        return isinstance(self.format, Fixed)

    def __post_init__(self):
        require(self.update in METHODS, "update", self.update, ", ".join(METHODS))
        require(self.format is None or isinstance(self.format, (Float, Fixed)), "parameters", self.format,
                "a Float or a Fixed format, such as bf16")
        require(not self.fixed or self.update != "grow", "update", self.update,
                "plain, stochastic, kahan, because parameters are in fixed point")
        require_int("random_bits", self.random_bits, 1, 16)
        require_int("carry", self.carry, 1, 24)
        if self.fixed:
            require_int("bits of parameters", self.format.bits, 2, 32 if self.update != "kahan" else 40 - self.carry)

    def describe(self, work):
        """Return the format and the update, with what goes with it: JSON-ready."""
        described = {"format": named(self.format or work), "update": self.update}
        if self.update == "stochastic":
            described["bits"] = self.random_bits
        if self.update == "kahan" and self.fixed:
            described["carry"] = self.carry
        return described


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training run.

    Parameters
    ----------
    name : str
    system : NumberSystem
        Of the operands and sums of GEMMs. Its work format, fp32 or fp16, is what every tensor is kept in between GEMMs,
        except weights with `stored`, and what every other operation rounds to. Each value of its accumulator's format
        is a number of the work format, so going back to that is exact.
    modes : dict
        {kind of tensor: modes of an operand}, where they are not what `NumberSystem.mode` says.
    scale : LossScale, optional
        None: the loss is as it is, and no step is skipped.
    stored : Stored, optional
        None: weights are kept and moved as all other parameters are.
    kept : Kept
        Of all parameters that are moved by SGD, except those of `stored`.
    softmax : SoftmaxParameters, optional
        Of the unit that computes the errors p - y from the logits. None: they are computed in the work format.
    precision : precision.Policies, optional
        What chooses the mode ``precision`` of every operand in every step; `modes` have the greatest ones. None: they
        stay.
    words : str
        Where random words of operands come from. ``use``: each operand of each GEMM of each layer has words of its own.
        ``side``: all products take those of an array's two converters, one behind the other.
    """

    name: str
    system: NumberSystem = PlainSystem()
    modes: dict[str, Mode] = field(default_factory=dict)
    scale: LossScale = None
    stored: Stored = None
    kept: Kept = Kept()
    softmax: SoftmaxParameters = None
    precision: Policies = None
    words: str = "use"

    def __post_init__(self):
        acc, work = self.accumulator, self.work
        require(work in (PRESETS["fp32"], PRESETS["fp16"]), "work", work, "fp32, fp16")
        require(isinstance(acc, Float) and acc.specials == "ieee" and acc.overflow == "infinity" and
                2 <= acc.mantissa <= work.mantissa and acc.emax <= work.emax and
                acc.emin - acc.mantissa >= work.emin - work.mantissa, "accumulator", acc,
                f"a Float with specials 'ieee', overflow 'infinity' and values within {named(work)}, such as "
                + ("fp32, bf16, fp16" if work == PRESETS["fp32"] else "fp16"))
        for kind, mode in self.modes.items():
            require(kind in TENSORS, "tensor", kind, ", ".join(TENSORS))
            require(isinstance(mode, dict), f"modes of {kind}", mode, f"an object with {_modes_of(self.system)}")
            for name, value in mode.items():
                require(name in self.system.modes, f"mode of {kind}", name, _modes_of(self.system))
                require_int(f"{name} of {kind}", value, 0, (1 << self.system.modes[name]) - 1)
        require(self.scale is None or self.kept == Kept(), "loss_scale", self.scale,
                "None, because parameters have a format or an update of their own")
        if self.softmax is not None:
            require(isinstance(self.softmax, SoftmaxParameters), "softmax", self.softmax, "SoftmaxParameters, or None")
            # So that every error is a number of the work format.
            require(self.softmax.bits <= work.mantissa + 2, "softmax bits", self.softmax.bits,
                    f"at most {work.mantissa + 2}, because work is {named(work)}")
        if self.precision is not None:
            require(self.system.adaptive, "precision", self.precision,
                    "None, because the number system has no precision that may change")
            for tensor in TENSORS:
                top = getattr(self.precision, tensor).top
                require(self.mode(tensor)["precision"] == top, f"precision of {tensor}", self.mode(tensor)["precision"],
                        f"{top}, the greatest precision")
        if self.stored is not None:
            self.system.require_stored(self.stored)
            require(self.scale is None, "loss_scale", self.scale, "None, because weights are logarithmic")
        require(self.words in ("use", "side"), "words", self.words, "use, side")

    @property
    def accumulator(self) -> Float:
        """What GEMMs add in, or what their sums are rounded to."""
        return self.system.accumulator

    @property
    def work(self) -> Float:
        """What tensors are kept in."""
        return self.system.work

    @property
    def policies(self) -> Policies | None:
        """What decides on the mode ``precision``: `precision`, or constants; None where it may not change."""
        if self.precision or not self.system.adaptive:
            return self.precision
        return Policies(*(Constant(self.mode(tensor)["precision"]) for tensor in TENSORS))

    @property
    def dtype(self):
        """NumPy's type of the work format."""
        return np.dtype(np.float32 if self.work == PRESETS["fp32"] else np.float16)

    def mode(self, kind: str, array=None) -> Mode:
        """Return the modes of an operand: a tensor of this kind, of zeros where none is given."""
        array = np.zeros((1, 1), self.dtype) if array is None else array
        return self.system.mode(kind, array) | self.modes.get(kind, {})

    def formats(self) -> dict:
        """Return {tensor: `NumberSystem.describe`}, and for ``accumulator`` `NumberSystem.describe_sums`. JSON-ready.

        ``stored`` is `Stored.describe`; with a softmax head, ``errors`` is what it has them in, and its settings.
        ``parameters`` is `Kept.describe`, if there is anything to tell. With `precision`, each tensor has
        ``precision``, a dict that names its ``policy``; the mantissa of its format is the greatest one.
        """
        described = {tensor: self.system.describe(self.mode(tensor)) for tensor in TENSORS}
        if self.precision:
            for tensor in TENSORS:
                described[tensor]["precision"] = getattr(self.precision, tensor).describe()
        described["accumulator"] = self.system.describe_sums()
        described |= {"stored": self.stored.describe()} if self.stored else {}
        described |= {"parameters": self.kept.describe(self.work)} if self.kept != Kept() else {}
        if self.softmax:
            kept = ("random_bits", "corrected") if self.softmax.rounding == "stochastic" else ()
            described["errors"] = {"format": {"type": "Fixed", **self.softmax.error.to_json()},
                                   "rounding": self.softmax.rounding, "logits": named(self.softmax.format)}
            described["errors"] |= {name: getattr(self.softmax, name) for name in kept}
        return described


def _modes_of(system):
    return ", ".join(system.modes) or "none"


def fp32():
    """Everything in fp32; each GEMM adds in rising order, every product and sum rounded."""
    return Recipe("fp32")


def bfp(*, group=16, mantissa=4, exponent=8, weights_mantissa=None, activations_mantissa=None,
        gradients_mantissa=None, weights_precision=None, activations_precision=None, gradients_precision=None,
        weights_rounding="nearest", activations_rounding="nearest", gradients_rounding="stochastic", random_bits=8,
        corrected=False, accumulator="fp32"):
    """Block floating point after FAST (numerics contract, section 3).

    Parameters
    ----------
    group, mantissa, exponent : int
        As in `BlockFloat`; `mantissa` is that of all tensors which are given neither their own nor a policy.
    weights_mantissa, activations_mantissa, gradients_mantissa : int, optional
    weights_precision, activations_precision, gradients_precision : dict or policy, optional
        What `precision.parse` reads. The tensor's mantissa is then the greatest width of it. Where some tensors have
        one, the others are constant.
    weights_rounding, activations_rounding, gradients_rounding : str
        ``nearest``, ``truncate``, ``stochastic``. FAST itself has ``truncate`` for the first two.
    random_bits, corrected
        Of the stochastic roundings; see `Rounding`.
    accumulator : Float, or a preset's name
    """
    require_int("mantissa", mantissa, 2, 8)
    mantissas = (weights_mantissa, activations_mantissa, gradients_mantissa)
    asked = (weights_precision, activations_precision, gradients_precision)
    kinds = (weights_rounding, activations_rounding, gradients_rounding)
    modes, policies = {}, {}
    for tensor, own, policy, kind in zip(TENSORS, mantissas, asked, kinds):
        if policy is not None:
            try:
                policy = parse_policy(policy)
            except ValueError as error:
                raise ValueError(f"{tensor}_precision: {error}") from None
            require(own is None, f"{tensor}_mantissa", own, f"none, because {tensor}_precision is given")
            own = policy.top
        own = mantissa if own is None else own
        require_int(f"{tensor}_mantissa", own, 2, 8)
        policies[tensor] = policy or Constant(own)
        require(kind in KINDS, f"{tensor}_rounding", kind, ", ".join(KINDS))
        modes[tensor] = {"precision": own, "rounding": ("nearest", "truncate", "stochastic").index(kind)}
    numbers = BFPSystem(group, max(mode["precision"] for mode in modes.values()), exponent,
                        _float("accumulator", accumulator), random_bits=random_bits, corrected=corrected)
    if "stochastic" not in kinds:  # what is not used makes no other recipe
        numbers = replace(numbers, random_bits=8, corrected=False)
    return Recipe("bfp", numbers, modes,
                  precision=Policies(**policies) if any(policy is not None for policy in asked) else None)


def fast(*, group=16, exponent=8, alpha=0.6, beta=0.3, reverse=False, weights_rounding="truncate",
         activations_rounding="truncate", gradients_rounding="stochastic", random_bits=8, corrected=False,
         accumulator="fp32"):
    """Block floating point of 2 or 4 bits, by tensor, layer and step, after FAST (numerics contract, section 3).

    Parameters
    ----------
    alpha, beta, reverse
        As in `precision.Adaptive`.
    group, exponent, weights_rounding, activations_rounding, gradients_rounding, random_bits, corrected, accumulator
        As in `bfp`; the roundings are FAST's own.
    """
    base = bfp(group=group, mantissa=4, exponent=exponent, weights_rounding=weights_rounding,
               activations_rounding=activations_rounding, gradients_rounding=gradients_rounding,
               random_bits=random_bits, corrected=corrected, accumulator=accumulator)
    policy = Adaptive(alpha, beta, reverse)
    return replace(base, name="fast", precision=Policies(policy, policy, policy))


def cpt(*, low=3, high=8, cycles=32, gradients=8, group=16, exponent=8, weights_rounding="nearest",
        activations_rounding="nearest", gradients_rounding="stochastic", random_bits=8, corrected=False,
        accumulator="fp32"):
    """Block floating point whose precision cycles, after CPT (numerics contract, section 3).

    That the cycles are of block floating point, CPT's own being of integers, is ours.

    Parameters
    ----------
    low, high, cycles : int
        Of weights and activations, as in `precision.Cyclic`.
    gradients : int
        Bits of gradients, always.
    group, exponent, weights_rounding, activations_rounding, gradients_rounding, random_bits, corrected, accumulator
        As in `bfp`.
    """
    policy = Cyclic(low, high, cycles)
    require_int("gradients", gradients, 2, 8)
    base = bfp(group=group, mantissa=high, exponent=exponent, gradients_mantissa=gradients,
               weights_rounding=weights_rounding, activations_rounding=activations_rounding,
               gradients_rounding=gradients_rounding, random_bits=random_bits, corrected=corrected,
               accumulator=accumulator)
    return replace(base, name="cpt", precision=Policies(policy, policy, Constant(gradients)))


def _float(name, value):
    """Return the format that a Float or a preset's name means."""
    try:
        return parse(value)
    except (TypeError, ValueError):
        require(False, name, value, ", ".join(n for n, f in PRESETS.items() if isinstance(f, Float)))


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
    return Recipe("fp16", PlainSystem(half, chunk), scale=None if loss_scale is None else scale)


def mx(*, element="fp8-e4m3", gradients_element="fp8-e5m2", block=32, gradients_rounding="nearest", random_bits=8,
       accumulator="fp32"):
    """OCP microscaling formats (numerics contract, section 5; docs/mx.md), FP8 by default.

    Parameters
    ----------
    element, gradients_element : str or dict
        Of weights and activations, and of gradients: as in `mx.MX`.
    block : int
    gradients_rounding : str
        ``nearest``, ``truncate``, ``stochastic``. The other tensors are rounded to nearest.
    random_bits : int
        Of the stochastic rounding.
    accumulator : Float, or a preset's name
    """
    return Recipe("mx", MXSystem(element, gradients_element, block, gradients_rounding=gradients_rounding,
                                 random_bits=random_bits, accumulator=_float("accumulator", accumulator)))


def lns_madam(*, bits=8, gamma=8, lanes=16, accumulation="direct", accumulator=None, lsb=0, constants=None,
              update="madam", weights_bits=16, rate=7, rate_drops=(0.6, 0.7, 0.8, 0.9), clip=10, memory=1000,
              second="log", second_bits=10, second_gamma=8, second_bias=None, random_bits=8):
    """Logarithmic numbers after LNS-Madam (numerics contract, sections 6 and 7; docs/logarithmic.md).

    Weights exist as logarithmic codes alone, which the update moves; GEMMs take them in `bits` bits. All other
    parameters are fp32 and moved by SGD with momentum: Madam's steps are relative and would leave a zero where it is.

    Parameters
    ----------
    bits, gamma : int
        Of the operands of GEMMs, as in `Log`.
    lanes, accumulation, accumulator, lsb, constants
        As in `logarithmic.LNSDotParameters`.
    update : str
        ``madam``, or ``sgd``: with momentum, in fp32, on the decoded weights, which are rounded to codes again.
    weights_bits : int
        Of the stored weights, up to 16: as many octaves as the operands have. Madam needs more than `bits`.
    rate, rate_drops, second
        As in `Stored`. The learning rate is 2**rate / gamma of the stored weights, with 16 bits: 2**-4, and
        2**-8 in the last tenth of the run. LNS-Madam's own 2**-7, rate 4, learns too slowly for runs of a thousand
        steps.
    clip, memory, second_bits, second_gamma, second_bias, random_bits : int
        As in `madam.MadamParameters`. When no `second_bias` is given, three quarters of the codes of the second moment
        lie below 1.
    """
    fmt = Log(bits, gamma)
    numbers = LNSSystem(fmt, lanes, accumulation, accumulator, lsb, constants)
    require(update in ("madam", "sgd"), "update", update, "madam, sgd")
    require_int("weights_bits", weights_bits, max(8, bits + 1) if update == "madam" else bits, 16)
    wide = Log(weights_bits, gamma << (weights_bits - bits))
    require(isinstance(rate_drops, (tuple, list)), "rate_drops", rate_drops, "a list of numbers above 0 and below 1")
    parameters = None
    if update == "madam":
        parameters = MadamParameters(weight=wide, narrow=fmt, second_bits=second_bits, second_gamma=second_gamma,
                                     clip=clip, memory=memory, random_bits=random_bits)
        if second_bias is None:
            second_bias = min(3 * 2**second_bits // second_gamma // 4, 320)
        parameters = replace(parameters, second_bias=second_bias)
    return Recipe("lns-madam", numbers, stored=Stored(wide, parameters, rate, tuple(rate_drops), second))


def system(system="int8", *, weights=None, activations=None, gradients=None, **settings):
    """Any number system, with the same bits as its array.

    Parameters
    ----------
    system : str
        A name of `systems.SYSTEMS`.
    weights, activations, gradients : dict, optional
        Modes of the operands of a kind, such as ``{"precision": 2}``.
    **settings
        Of the number system.
    """
    kind = systems.find(system)
    modes = {"weights": weights, "activations": activations, "gradients": gradients}
    return Recipe("system", kind.from_json(settings), {name: mode for name, mode in modes.items() if mode is not None},
                  words="side")


RECIPES = {"fp32": fp32, "bfp": bfp, "fp16": fp16, "mx": mx, "lns-madam": lns_madam, "fast": fast, "cpt": cpt,
           "system": system}


def make(name, **settings):
    """Return the recipe of that name, with settings that are the keywords of its function in `RECIPES`."""
    require(name in RECIPES, "recipe", name, ", ".join(RECIPES))
    allowed = [each for each in inspect.signature(RECIPES[name]).parameters if each != "settings"]
    if name == "system":
        kind = systems.find(settings.get("system", "int8"))
        allowed += [each.name for each in dataclasses.fields(kind)]
    for setting in settings:
        require(setting in allowed, f"setting of recipe {name}", setting, ", ".join(allowed) or "none")
    return RECIPES[name](**settings)


def keep(recipe, parameters=None, update="plain", **settings):
    """Return the recipe with another `Kept`.

    Parameters
    ----------
    recipe : Recipe
    parameters : Float or Fixed, or what `formats.parse` reads, optional
        The format; None is the work format.
    update : str
    **settings
        ``random_bits``, ``carry``.
    """
    try:
        fmt = None if parameters is None else parse(parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"parameters: {error}") from None
    # The work format is what there is without one.
    return replace(recipe, kept=Kept(None if fmt == recipe.work else fmt, update, **settings))
