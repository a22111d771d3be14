"""How a weight in narrow floating point takes a change: golden's `update.step` in torch, operation by operation.

Source: numerics contract, section 8.
"""

from typing import Any

import torch
from torch import Tensor

from ..base.checks import require
from ..golden.formats import PRESETS, Float
from ..golden.rounding import NEAREST, Rounding
from ..golden.update import METHODS
from .elements import round_float

__all__ = ["Arithmetic", "moved"]


class Arithmetic:
    """Additions and multiplications of a Float's numbers, each rounded once, to nearest even.

    Numbers are held in float64. Rounding a float64 result again gives the exact result rounded once, as float64 has at
    least two bits more than twice the format's.

    Parameters
    ----------
    fmt : Float
        With Inf and NaN, and no number beyond fp32's.
    """

    def __init__(self, fmt: Float) -> None:
        require(isinstance(fmt, Float) and fmt.specials == "ieee" and fmt.overflow == "infinity" and
                1 <= fmt.mantissa <= 23 and fmt.emax <= 127 and fmt.emin - fmt.mantissa >= -149, "format", fmt,
                "a Float with specials 'ieee', overflow 'infinity', a mantissa and values within fp32's, such as fp32, "
                "bf16, fp16")
        self.format = fmt

    def number(self, x: Tensor) -> Tensor:
        """Return numbers rounded to the format, as float64."""
        if self.format == PRESETS["fp32"]:
            return x.to(torch.float32).to(torch.float64)
        return round_float(x.to(torch.float64), self.format, NEAREST)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a + b."""
        return self.number(a + b)

    def multiply(self, a: Any, b: Tensor) -> Tensor:
        """Return a * b."""
        return self.number(a * b)

    def add_rounded(self, a: Tensor, b: Tensor, rounding: Rounding, words: Tensor) -> Tensor:
        """Return a + b rounded stochastically."""
        total = a + b
        virtual = total - a
        error = (a - (total - virtual)) + (b - virtual)
        # Where the sum was rounded up, the next number below it has the bits that the exact sum begins with.
        outward = (error != 0) & (torch.signbit(error) != torch.signbit(total)) & torch.isfinite(total)
        total = torch.where(outward, torch.nextafter(total, torch.zeros_like(total)), total)
        return round_float(total, self.format, rounding, words)


def moved(arithmetic: Arithmetic, method: str, weight: Tensor, change: Tensor, compensation: Tensor,
          rounding: Rounding = NEAREST, words: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (weights, compensations) after a change: the last part of `golden.update.step`.

    Parameters
    ----------
    arithmetic : Arithmetic
    method : str
        One of `METHODS`.
    weight, change, compensation : Tensor
        Numbers of the format, in float64.
    rounding, words
        Of the method ``stochastic``: a random word for each weight.
    """
    require(method in METHODS, "update", method, ", ".join(METHODS))
    add = arithmetic.add
    if method == "stochastic":
        assert words is not None, "they are drawn"
        return arithmetic.add_rounded(weight, change, rounding, words), torch.zeros_like(compensation)
    if method == "plain":
        return add(weight, change), torch.zeros_like(compensation)
    if method == "kahan":
        wanted = add(change, -compensation)
        total = add(weight, wanted)
        return total, add(add(total, -weight), -wanted)
    total = add(weight, change)
    rest = add(add(change, -add(total, -weight)), compensation)
    grown = add(total, rest)
    return grown, add(rest, -add(grown, -total))
