"""Weight update by SGD with momentum, in narrow floating or fixed point: plain, stochastic, Kahan, grow.

Source: numerics contract, section 8; after arXiv 1810.05486 (Kahan) and 2405.03637 (grow).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..base.checks import require, require_int
from ..base.parameters import Parameters
from . import floating
from .formats import PRESETS, Fixed, Float, is_ieee
from .rounding import NEAREST, Rounding, round_scaled, stochastic
from .words import counted

__all__ = ["METHODS", "RATES", "SGDParameters", "change", "extended", "rate_code", "step", "updates"]

METHODS = ("plain", "stochastic", "kahan", "grow")  # in the order of the unit's codes
RATES = ("float", "powers")
SCHEDULES = ("pipelined", "shared")


@dataclass(frozen=True)
class SGDParameters(Parameters):
    """Parameters of the unit ``sgd-update``.

    Parameters
    ----------
    format : Float
        Of weights, velocities, compensations and gradients: specials ``ieee``, overflow ``infinity``, the usual bias,
        and a mantissa of 2 bits or more.
    schedule : str
        ``pipelined``: a weight per cycle. ``shared``: one adder and one multiplier, used in turn.
    grow : bool
        Whether the unit can grow: three additions more.
    rates : str
        ``float``: learning rate, momentum and decay are numbers of the format. ``powers``: powers of two, so that
        there is no multiplier.
    random_bits, seed : int
        Of the stochastic rounding: width of a random word, 1 to 16; 0 to 2**31 - 1.
    multiplier : str
        As in `floating.MultiplierParameters`.
    compensated : bool
        Whether the unit has the methods with a compensation: three additions more. Without it neither payload has a
        compensation, and the unit cannot grow.
    decays : bool
        Whether weights decay: one product and one addition more. Without it the payload has no decay, which is 0.
    """

    format: Float = PRESETS["bf16"]
    schedule: str = "pipelined"
    grow: bool = False
    rates: str = "float"
    random_bits: int = 8
    seed: int = 1
    multiplier: str = "dsp"
    compensated: bool = True
    decays: bool = True

    def __post_init__(self) -> None:
        fmt = self.format
        require(is_ieee(fmt, 2) and fmt.bias == 2 ** (fmt.exponent - 1) - 1, "format", fmt,
                "a Float with specials 'ieee', overflow 'infinity', the usual bias and a mantissa of 2 bits or more, "
                "such as bf16, fp16, fp32, fp8-e5m2")
        require(self.schedule in SCHEDULES, "schedule", self.schedule, ", ".join(SCHEDULES))
        require(type(self.grow) is bool, "grow", self.grow, "true, false")
        require(self.rates in RATES, "rates", self.rates, ", ".join(RATES))
        require_int("random_bits", self.random_bits, 1, 16)
        require_int("seed", self.seed, 0, 2**31 - 1)
        require(self.multiplier in floating.MULTIPLIERS, "multiplier", self.multiplier,
                ", ".join(floating.MULTIPLIERS))
        require(type(self.compensated) is bool, "compensated", self.compensated, "true, false")
        require(type(self.decays) is bool, "decays", self.decays, "true, false")
        require(self.compensated or not self.grow, "grow", self.grow, "false, because compensated is false")

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the unit, in the order of their codes."""
        return METHODS[:(4 if self.grow else 3) if self.compensated else 2]

    @property
    def method_bits(self) -> int:
        """Bits of a method's code."""
        return 2 if self.compensated else 1

    @property
    def rate_bits(self) -> int:
        """Bits of a rate: those of the format's codes of numbers from 0 to below 2, or of their exponents alone."""
        return self.format.exponent - 1 + self.format.mantissa - self.rate_shift

    @property
    def rate_shift(self) -> int:
        """Bits that a rate lacks below, beside the format's code."""
        return 0 if self.rates == "float" else self.format.mantissa

    def rate(self, value: float) -> int:
        """Return the unit's code of a rate that is a number: `rate_code`, and with powers of two their exponent."""
        code = rate_code(self.format, value)
        short = code >> self.rate_shift
        require(code == short << self.rate_shift, "rate", value, "0 or a power of two")
        return short


@lru_cache(256, typed=True)  # True is not the 1 that it equals
def rate_code(fmt: Float, value: float, name: str = "rate") -> int:
    """Return the code of a rate: rounded to nearest, from 0 to below 2. What would be subnormal is zero."""
    require(type(value) in (int, float) and 0 <= value < 2, name, value, "a number from 0 to below 2")
    code = int(fmt.encode(float(value)))
    require(bool(fmt.decode(code) < 2), name, value, f"a number that is below 2 in {fmt}")
    return code if code >> fmt.mantissa else 0


class _Codes:
    """The operations of `step` on codes of any Float, each rounded to nearest even."""

    def __init__(self, fmt: Float) -> None:
        self._fmt = fmt

    def load(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(codes).astype(np.uint32)

    def store(self, numbers: np.ndarray) -> np.ndarray:
        return numbers

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return floating.add(a, b, self._fmt)

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return floating.multiply(a, b, self._fmt)

    def negate(self, a: np.ndarray) -> np.ndarray:
        return a ^ np.uint32(1 << (self._fmt.width - 1))


class _Numbers:
    """The same on float64 numbers, several times as fast, for formats with Inf and NaN of which float64 has enough.

    Rounding twice, to float64 and to the format, gives the exact result rounded once. float64 has at least two bits
    more than twice the format's. So its result lies at a half of the format's last place only if the exact result does.
    """

    def __init__(self, fmt: Float) -> None:
        self._fmt = fmt
        self._lowest, self._highest = (np.int64((each + 1023) << 52) for each in (fmt.emin, fmt.emax))
        self._shift = np.int64(((52 - fmt.mantissa) << 52) + (1 << 51))
        self._up, self._down = 2.0 ** (1023 - fmt.emax), 2.0 ** (fmt.emax - 1023)

    @staticmethod
    def serves(fmt: Float) -> bool:
        return (fmt.specials == "ieee" and fmt.overflow == "infinity" and fmt.mantissa <= 24 and
                fmt.emin - fmt.mantissa >= -450 and fmt.emax <= 450)

    def load(self, codes: np.ndarray) -> np.ndarray:
        return self._fmt.decode(codes)

    def store(self, numbers: np.ndarray) -> np.ndarray:
        return self._fmt.encode(numbers)

    def _rounded(self, exact: np.ndarray) -> np.ndarray:
        """Round to the format, as `floating.matmul` does: what is added has its last place, and is taken off again."""
        power = np.clip(exact.view(np.int64) & np.int64(0x7FF << 52), self._lowest, self._highest) + self._shift
        power = power.view(np.float64)
        # From 2**(emax + 1) on, and only there, the first product is Inf.
        return np.copysign((exact + power - power) * self._up * self._down, exact)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._rounded(a + b)

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self._rounded(a * b)

    def negate(self, a: np.ndarray) -> np.ndarray:
        return -a


@lru_cache(64)
def _operations(fmt: Float) -> _Codes | _Numbers:
    """Return the faster one of `_Numbers` and `_Codes` that serves the format."""
    return (_Numbers if _Numbers.serves(fmt) else _Codes)(fmt)


def _change(ops: _Codes | _Numbers, fmt: Float, weights: np.ndarray, velocities: np.ndarray, gradients: np.ndarray,
            lr: Any, momentum: Any, decay: Any, scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return (changes, new velocities) as numbers of `ops`: `step` but for its last part. Rates are codes."""
    # Rates of the exponent code 0 are zero.
    lr, momentum, decay = (np.where(np.asarray(each) >> fmt.mantissa == 0, 0, each) for each in (lr, momentum, decay))
    if decay.any():
        decayed = ops.add(gradients, ops.multiply(ops.load(decay), weights))
        gradients = np.where(decay == 0, gradients, decayed)
    velocities = ops.add(ops.multiply(ops.load(momentum), velocities), gradients)
    change = ops.negate(ops.multiply(ops.load(lr), velocities))
    if scale != 1:
        change = ops.multiply(ops.load(fmt.encode(1 / scale)), change)
    return change, velocities


def change(fmt: Float, weights: np.ndarray, velocities: np.ndarray, gradients: np.ndarray, lr: Any, momentum: Any,
           decay: Any = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (changes of the weights, new velocities) as codes (uint32): `step` but for its last part.

    Parameters as in `step`.
    """
    ops = _operations(fmt)
    with np.errstate(all="ignore"):
        w, v, g = map(ops.load, (weights, velocities, gradients))
        u, v = _change(ops, fmt, w, v, g, lr, momentum, decay)
    return ops.store(u), ops.store(v)


def step(fmt: Float, method: str, weights: np.ndarray, velocities: np.ndarray, compensations: np.ndarray,
         gradients: np.ndarray, lr: Any, momentum: Any, decay: Any = 0, random: np.ndarray | None = None,
         rounding: Rounding | None = None, scale: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the next (weights, velocities, compensations) as codes (uint32) of one format.

    Every operation is rounded to nearest even. Only the sum named below is rounded stochastically.

        g <- g + decay*w, unless decay is 0;  v <- momentum*v + g;  u <- -(lr*v)
        plain, stochastic:  w <- w + u, the latter rounded stochastically;  c <- 0
        kahan:  y <- u - c;  t <- w + y;  c <- (t - w) - y;  w <- t
        grow:  t <- w + u;  y <- (u - (t - w)) + c;  w <- t + y;  c <- y - (w - t)

    The exact weight is near w - c under ``kahan``, and w + c under ``grow``. Source: numerics contract, section 8.

    Parameters
    ----------
    fmt : Float
    method : str
        One of `METHODS`.
    weights, velocities, compensations, gradients : array_like of int
        Codes of `fmt`, of one shape.
    lr, momentum, decay : int or array_like of int
        Codes of `fmt`, not negative; a subnormal one counts as zero. See `rate_code`.
    random : array_like of int, optional
        A word for each weight, for ``stochastic``.
    rounding : Rounding, optional
        That of ``stochastic``: 8 random bits when not given.
    scale : int
        Of the loss, a power of two: u <- u / scale. Decay is not multiplied by it.
    """
    require(method in METHODS, "update", method, ", ".join(METHODS))
    ops = _operations(fmt)
    add, negate = ops.add, ops.negate
    with np.errstate(all="ignore"):
        w, v, c, g = map(ops.load, (weights, velocities, compensations, gradients))
        u, v = _change(ops, fmt, w, v, g, lr, momentum, decay, scale)
        if method == "stochastic":
            moved = floating.add(ops.store(w), ops.store(u), fmt, rounding or stochastic(), random)
            return moved, ops.store(v), np.zeros_like(moved)
        if method == "plain":
            w, c = add(w, u), np.zeros_like(c)
        elif method == "kahan":
            y = add(u, negate(c))
            t = add(w, y)
            w, c = t, add(add(t, negate(w)), negate(y))
        else:
            t = add(w, u)
            y = add(add(u, negate(add(t, negate(w)))), c)
            w = add(t, y)
            c = add(y, negate(add(w, negate(t))))
        return ops.store(w), ops.store(v), ops.store(c)


def updates(parameters: SGDParameters, weights: np.ndarray, velocities: np.ndarray, compensations: np.ndarray,
            gradients: np.ndarray, method: np.ndarray, lr: Any, momentum: Any, decay: Any, draws: int = 0,
            random: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Golden function of ``sgd-update``: transfers in order, each one weight.

    Parameters
    ----------
    parameters : SGDParameters
    weights, velocities, compensations, gradients : array of int, shape (n,)
        Codes of the format. Without `compensated` the compensations mean nothing.
    method : array of int, shape (n,)
        Indices into `METHODS`, of `method_bits` bits. With `compensated` and without `grow`, 3 counts as 2.
    lr, momentum, decay : array of int, shape (n,)
        Codes of `rate_bits` bits; see `SGDParameters.rate`. Without `decays` the decay means nothing.
    draws : int
        Random words drawn before. Each stochastic update draws a word.
    random : array of int, shape (n,), optional
        A word for each transfer, for a unit with a port for words. No word is drawn then.

    Returns
    -------
    weights, velocities, compensations : ndarray of uint32, shape (n,)
    invalid : ndarray of bool, shape (n,)
        The new weight, velocity or compensation is NaN.
    overflow : ndarray of bool, shape (n,)
        None of them is, but one is infinite.
    """
    fmt = parameters.format
    arrays = [np.asarray(each).astype(np.int64) for each in (weights, velocities, compensations, gradients)]
    rates = [np.asarray(each).astype(np.int64) << parameters.rate_shift for each in (lr, momentum, decay)]
    if not parameters.decays:
        rates[2] = np.zeros_like(rates[1])
    method, codes = np.asarray(method), range(1 << parameters.method_bits)
    require(bool(np.isin(method, codes).all()), "method", method, f"codes from 0 to {codes[-1]}")
    method = np.minimum(method, len(parameters.methods) - 1)
    found = np.zeros((3, len(method)), np.uint32)
    for index, name in enumerate(METHODS):
        rows = np.flatnonzero(method == index)
        words = random if random is None else np.asarray(random)[rows]
        if name == "stochastic" and words is None:
            words = counted(parameters.seed, 1, draws, len(rows), parameters.random_bits)[:, 0]
        w, v, c, g, *chosen = (each[rows] for each in (*arrays, *rates))
        found[:, rows] = step(fmt, name, w, v, c, g, chosen[0], chosen[1], chosen[2], words,
                              stochastic(parameters.random_bits))
    assert fmt.inf_code is not None  # the parameters' specials are ieee
    magnitude = found & ((1 << (fmt.width - 1)) - 1)
    invalid = (magnitude > fmt.inf_code).any(axis=0)
    return *found, invalid, (magnitude == fmt.inf_code).any(axis=0) & ~invalid


def extended(fmt: Fixed, carry: int, weights: np.ndarray, carries: np.ndarray, changes: np.ndarray,
             rounding: Rounding = NEAREST, random: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the next (weights, carries) of fixed-point weights that a carry word extends below by some bits.

    Weight and carry are one number in two's complement, ``weight * 2**carry + carry word`` in units of
    2**-(fraction + carry). The change is rounded to these units, once, and added; the sum saturates. With `carry` = 0
    it is the plain update, or with a stochastic rounding the stochastic one. Source: numerics contract, section 8.

    Parameters
    ----------
    fmt : Fixed
        Of the weights, which are codes of it.
    carry : int
        Bits of a carry word, 0 to 24; those of both are at most 40.
    weights, carries : array of int
        Carry words are unsigned.
    changes : array of float64
        A change that is NaN counts as 0.
    rounding : Rounding
    random : array of int, optional
    """
    require_int("carry", carry, 0, min(24, 40 - fmt.bits))
    wide = fmt.bits + carry
    weights, carries = (np.asarray(each).astype(np.int64) for each in (weights, carries))
    whole = ((weights ^ 1 << (fmt.bits - 1)) - (1 << (fmt.bits - 1)) << carry) + carries
    # Twice the range is enough to saturate from any weight.
    limit = np.ldexp(1.0, fmt.bits - fmt.fraction)
    changes = np.clip(np.nan_to_num(np.asarray(changes, np.float64), nan=0.0), -limit, limit)
    units = round_scaled(np.abs(changes), fmt.fraction + carry, rounding, random)
    whole = np.clip(whole + np.where(changes < 0, -units, units), -1 << (wide - 1), (1 << (wide - 1)) - 1)
    return (whole >> carry & ((1 << fmt.bits) - 1)).astype(np.uint32), (whole & ((1 << carry) - 1)).astype(np.uint32)
