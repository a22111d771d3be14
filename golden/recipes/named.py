"""The recipes by name. One is a function here, and a line of `RECIPES`."""

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...base.checks import require, require_int
from .. import systems
from ..blockfloat import BFPSystem
from ..floating import PlainSystem
from ..formats import PRESETS, Log, is_float, parse
from ..logarithmic import LNSSystem
from ..madam import MadamParameters
from ..mx import MXSystem
from ..number_system import Mode
from ..precision import Adaptive, Constant, Cyclic, Policies, Policy
from ..precision import parse as parse_policy
from ..rounding import KINDS
from .recipe import TENSORS, Kept, LossScale, Recipe, Stored

__all__ = ["RECIPES", "bfp", "cpt", "fast", "fp16", "fp32", "keep", "lns_madam", "make", "mx", "system"]


def fp32() -> Recipe:
    """Everything in fp32; each GEMM adds in rising order, every product and sum rounded."""
    return Recipe("fp32")


def bfp(*, group: int = 16, mantissa: int = 4, exponent: int = 8, weights_mantissa: int | None = None,
        activations_mantissa: int | None = None, gradients_mantissa: int | None = None,
        weights_precision: dict | Policy | None = None, activations_precision: dict | Policy | None = None,
        gradients_precision: dict | Policy | None = None, weights_rounding: str = "nearest",
        activations_rounding: str = "nearest", gradients_rounding: str = "stochastic", random_bits: int = 8,
        corrected: bool = False, accumulator: Any = "fp32") -> Recipe:
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
        modes[tensor] = {"precision": own, "rounding": KINDS.index(kind)}
    numbers = BFPSystem(group, max(mode["precision"] for mode in modes.values()), exponent,
                        _float("accumulator", accumulator), random_bits=random_bits, corrected=corrected)
    if "stochastic" not in kinds:  # what is not used makes no other recipe
        numbers = replace(numbers, random_bits=8, corrected=False)
    return Recipe("bfp", numbers, modes,
                  precision=Policies(**policies) if any(policy is not None for policy in asked) else None)


def fast(*, group: int = 16, exponent: int = 8, alpha: float = 0.6, beta: float = 0.3, reverse: bool = False,
         lag: int = 1, weights_rounding: str = "truncate", activations_rounding: str = "truncate",
         gradients_rounding: str = "stochastic", random_bits: int = 8, corrected: bool = False,
         accumulator: Any = "fp32") -> Recipe:
    """Block floating point of 2 or 4 bits, by tensor, layer and step, after FAST (numerics contract, section 3).

    Parameters
    ----------
    alpha, beta, reverse, lag
        As in `precision.Adaptive`.
    group, exponent, weights_rounding, activations_rounding, gradients_rounding, random_bits, corrected, accumulator
        As in `bfp`; the roundings are FAST's own.
    """
    base = bfp(group=group, mantissa=4, exponent=exponent, weights_rounding=weights_rounding,
               activations_rounding=activations_rounding, gradients_rounding=gradients_rounding,
               random_bits=random_bits, corrected=corrected, accumulator=accumulator)
    policy = Adaptive(alpha, beta, reverse, lag)
    return replace(base, name="fast", precision=Policies(policy, policy, policy))


def cpt(*, low: int = 3, high: int = 8, cycles: int = 32, gradients: int = 8, group: int = 16, exponent: int = 8,
        weights_rounding: str = "nearest", activations_rounding: str = "nearest",
        gradients_rounding: str = "stochastic", random_bits: int = 8, corrected: bool = False,
        accumulator: Any = "fp32") -> Recipe:
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


def _float(name: str, value: object) -> Any:
    """Return the format that a Float or a preset's name means."""
    try:
        return parse(value)
    except (TypeError, ValueError):
        allowed = ", ".join(preset for preset, fmt in PRESETS.items() if is_float(fmt))
    raise ValueError(f"{name} is {value!r}; allowed: {allowed}")


def fp16(*, chunk: int = 64, loss_scale: int | None = None, growth_interval: int = 100) -> Recipe:
    """Everything in IEEE FP16, every operation's result rounded once, to nearest even; after arXiv 1911.07384.

    Only the paper's abstract could be read: the recipe is ours. docs/fp16.md tells what each setting does.

    Parameters
    ----------
    chunk : int, optional
        Products that are summed apart, in every sum of a GEMM, of a bias' gradient or of a statistic, before the
        partial sums are added. None: one sum of all products.
    loss_scale, growth_interval : int, optional
        `LossScale.start` and `LossScale.interval`. No `loss_scale`: no scaling, and no step is skipped. That is the
        default because nothing that was measured here needed it.
    """
    half = PRESETS["fp16"]
    scale = LossScale(1 if loss_scale is None else loss_scale, growth_interval)
    return Recipe("fp16", PlainSystem(half, chunk), scale=None if loss_scale is None else scale)


def mx(*, element: Any = "fp8-e4m3", gradients_element: Any = "fp8-e5m2", block: int = 32,
       gradients_rounding: str = "nearest", random_bits: int = 8, accumulator: Any = "fp32") -> Recipe:
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


def lns_madam(*, bits: int = 8, gamma: int = 8, lanes: int = 16, accumulation: str = "direct",
              accumulator: int | None = None, lsb: int = 0, constants: int | None = None, update: str = "madam",
              weights_bits: int = 16, rate: int = 7, rate_drops: Sequence[float] = (0.6, 0.7, 0.8, 0.9), clip: int = 10,
              memory: int = 1000, second: str = "log", second_bits: int = 10, second_gamma: int = 8,
              second_bias: int | None = None, random_bits: int = 8) -> Recipe:
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


def system(system: str = "int8", *, weights: Mode | None = None, activations: Mode | None = None,
           gradients: Mode | None = None, **settings: Any) -> Recipe:
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
    return Recipe("system", kind.from_json(settings), {name: mode for name, mode in modes.items() if mode is not None})


RECIPES = {"fp32": fp32, "bfp": bfp, "fp16": fp16, "mx": mx, "lns-madam": lns_madam, "fast": fast, "cpt": cpt,
           "system": system}


def make(name: str, **settings: Any) -> Recipe:
    """Return the recipe of that name, with settings that are the keywords of its function in `RECIPES`."""
    require(name in RECIPES, "recipe", name, ", ".join(RECIPES))
    allowed = [each for each in inspect.signature(RECIPES[name]).parameters if each != "settings"]
    if name == "system":
        kind = systems.find(settings.get("system", "int8"))
        allowed += [each.name for each in dataclasses.fields(kind)]
    for setting in settings:
        require(setting in allowed, f"setting of recipe {name}", setting, ", ".join(allowed) or "none")
    return RECIPES[name](**settings)


def work_in(recipe: Recipe, work: object, accumulator: bool = False) -> Recipe:
    """Return the recipe with another work format.

    Parameters
    ----------
    recipe : Recipe
    work : Float, or a preset's name
    accumulator : bool
        Whether GEMMs keep the format that they add in. Else it becomes the work format.
    """
    fmt = _float("work", work)
    if fmt == recipe.work:
        return recipe
    require(recipe.name != "fp16", "work", work, "fp16, because the recipe is fp16")
    settings = [each.name for each in dataclasses.fields(recipe.system)]  # type: ignore[arg-type]  # it is a dataclass
    own = {"work": fmt} | ({"accumulator": fmt} if "accumulator" in settings and not accumulator else {})
    return replace(recipe, system=replace(recipe.system, **own))  # type: ignore[type-var]


def keep(recipe: Recipe, parameters: object | None = None, update: str = "plain", **settings: Any) -> Recipe:
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
