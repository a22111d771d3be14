"""A recipe: the number system of a training run, what keeps the parameters, the loss scale and the precision."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...base.checks import require, require_int
from ..floating import PlainSystem, arithmetic, require_work
from ..formats import PRESETS, Float, Log, is_fixed, is_float, is_ieee
from ..madam import MadamParameters
from ..number_system import TENSORS, Mode, NumberSystem, named
from ..precision import Constant, Policies
from ..softmax import SoftmaxParameters
from ..update import METHODS

__all__ = ["LARGEST_SCALE", "TENSORS", "Kept", "LossScale", "Recipe", "Stored"]

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
    interval: int | None = 100

    def __post_init__(self) -> None:
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
    madam: MadamParameters | None = None
    rate: int = 4
    drops: tuple[float, ...] = ()
    second: str = "log"

    def __post_init__(self) -> None:
        require(self.madam is None or self.madam.weight == self.format, "weight", self.madam and self.madam.weight,
                f"{self.format}, the stored format")
        require_int("rate", self.rate, 0, 7)
        require(isinstance(self.drops, tuple) and len(self.drops) <= self.rate and
                all(type(each) is float and 0 < each < 1 for each in self.drops) and
                list(self.drops) == sorted(set(self.drops)), "rate_drops", self.drops,
                f"at most {self.rate} rising numbers above 0 and below 1, because the rate is {self.rate}")
        require(self.second in ("log", "fp32"), "second", self.second, "log, fp32")

    def rate_at(self, step: int, steps: int) -> int:
        """Return the rate of a step, counted from 0, in a run of `steps`."""
        return self.rate - sum(step >= part * steps for part in self.drops)

    def describe(self) -> dict:
        """Return the stored format, its rounding, and what moves it: JSON-ready."""
        described: dict[str, Any] = {"format": named(self.format), "rounding": "nearest",
                                     "update": "madam" if self.madam else "sgd"}
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

    format: Any = None
    update: str = "plain"
    random_bits: int = 8
    carry: int = 8

    @property
    def fixed(self) -> bool:
        """Whether parameters are in fixed point."""
        return is_fixed(self.format)

    def __post_init__(self) -> None:
        require(self.update in METHODS, "update", self.update, ", ".join(METHODS))
        require(self.format is None or is_float(self.format) or self.fixed, "parameters", self.format,
                "a Float or a Fixed format, such as bf16")
        require(not self.fixed or self.update != "grow", "update", self.update,
                "plain, stochastic, kahan, because parameters are in fixed point")
        require_int("random_bits", self.random_bits, 1, 16)
        require_int("carry", self.carry, 1, 24)
        if self.fixed:
            require_int("bits of parameters", self.format.bits, 2, 32 if self.update != "kahan" else 40 - self.carry)

    def describe(self, work: Float) -> dict:
        """Return the format and the update, with what goes with it: JSON-ready."""
        described: dict[str, Any] = {"format": named(self.format or work), "update": self.update}
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
        Of the operands and sums of GEMMs. Its work format is what every tensor is kept in between GEMMs, except weights
        with `stored`, and what every other operation rounds to; see `require_work`. A sum in the accumulator's format
        is rounded to the work format.
    modes : dict
        {kind of tensor: modes of an operand}, where they are not what `NumberSystem.mode` says.
    scale : LossScale, optional
        None: the loss is as it is, and no step is skipped.
    stored : Stored, optional
        None: weights are kept and moved as all other parameters are.
    kept : Kept
        Of all parameters that are moved by SGD, except those of `stored`.
    softmax : SoftmaxParameters, optional
        Of the unit that computes the errors p - y from the logits. None: they are computed in the work format, or
        where it is neither fp32 nor fp16 by the head that `with_head` gives.
    precision : precision.Policies, optional
        What chooses the mode ``precision`` of every operand in every step; `modes` have the greatest ones. None: they
        stay.
    """

    name: str
    system: NumberSystem = PlainSystem()
    modes: dict[str, Mode] = field(default_factory=dict)
    scale: LossScale | None = None
    stored: Stored | None = None
    kept: Kept = Kept()
    softmax: SoftmaxParameters | None = None
    precision: Policies | None = None

    def __post_init__(self) -> None:
        acc, work = self.accumulator, self.work
        require_work(work)
        self.plain  # noqa: B018  # its own checks
        require(is_ieee(acc) and acc.mantissa <= 23 and acc.emax <= 127 and acc.emin - acc.mantissa >= -149,
                "accumulator", acc,
                "a Float with specials 'ieee', overflow 'infinity' and values within fp32, such as fp32, bf16, fp16")
        for kind, mode in self.modes.items():
            require(kind in TENSORS, "tensor", kind, ", ".join(TENSORS))
            require(isinstance(mode, dict), f"modes of {kind}", mode, f"an object with {_modes_of(self.system)}")
            for name, value in mode.items():
                require(name in self.system.modes, f"mode of {kind}", name, _modes_of(self.system))
                require_int(f"{name} of {kind}", value, 0, (1 << self.system.modes[name]) - 1)
        require(self.scale is None or self.kept == Kept(), "loss_scale", self.scale,
                "None, because parameters have a format or an update of their own")
        native = arithmetic(work).native
        require(self.scale is None or native, "loss_scale", self.scale, "None, because work is neither fp32 nor fp16")
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

    @property
    def accumulator(self) -> Float:
        """What GEMMs add in, or what their sums are rounded to."""
        return self.system.accumulator

    @property
    def work(self) -> Float:
        """What tensors are kept in."""
        return self.system.work

    @property
    def chunk(self) -> int | None:
        """Products that are summed apart before the sums are, if the number system does so."""
        return getattr(self.system, "chunk", None)

    @property
    def plain(self) -> PlainSystem:
        """How columns are summed."""
        return PlainSystem(self.work, self.chunk)

    @property
    def batches_alike(self) -> bool:
        """Whether an example's logits are the same in any batch: no random word, and no scale of a whole tensor."""
        small, large = np.ones((1, 1), self.dtype), np.full((1, 1), 1000, self.dtype)
        return all(self.mode(kind, small) == self.mode(kind, large) and
                   self.system.rounding_of(self.mode(kind)).kind != "stochastic" for kind in ("weights", "activations"))

    @property
    def policies(self) -> Policies | None:
        """What decides on the mode ``precision``: `precision`, or constants; None where it may not change."""
        if self.precision or not self.system.adaptive:
            return self.precision
        return Policies(*(Constant(self.system.format_of(self.mode(tensor)).mantissa) for tensor in TENSORS))

    @property
    def dtype(self) -> np.dtype:
        """NumPy's type of arrays of the work format's numbers."""
        return arithmetic(self.work).dtype

    def with_head(self, classes: int) -> "Recipe":
        """Return the recipe with the softmax head that it has by default for so many classes.

        A recipe that works in fp32 or fp16 has none. Another one takes logits in the work format, and as many bits for
        an error as that can use, at most 16.
        """
        if self.softmax is not None or arithmetic(self.work).native:
            return self
        head = SoftmaxParameters(self.work, classes, min(16, self.work.mantissa + 2))
        return replace(self, softmax=head)

    def mode(self, kind: str, array: Any = None) -> Mode:
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


def _modes_of(system: NumberSystem) -> str:
    return ", ".join(system.modes) or "none"
