"""Optimisers whose weights are kept in narrow numbers, and moved with golden's bits.

After arXiv 1810.05486 (Kahan), 2405.03637 (grow), 2106.13914 (Madam) and 2502.20566 (AdamW with stochastic rounding).
Source: numerics contract, sections 7 and 8.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.checks import require, require_int
from ..golden import formats, madam
from ..golden.formats import Float
from ..golden.madam import MadamParameters
from ..golden.network import UPDATE, LogWeights
from ..golden.recipes import Stored
from ..golden.rounding import NEAREST, stochastic
from ..golden.update import METHODS, rate_code
from .elements import decode, encode_float
from .moving import Arithmetic, moved
from .numbers import address
from .tensors import levels, log_values
from .words import count_of, element_words

__all__ = ["AdamW", "Madam", "SGD"]


class _Optimiser(torch.optim.Optimizer):
    """An optimiser with random words by address: a step, and for each parameter a layer.

    A parameter group may have a ``layer``, whose words its parameters take in turn, as in golden; see
    `Conversion.groups`. Without it each parameter counts as a layer of its own.
    """

    def __init__(self, parameters: Iterable[Any], defaults: dict[str, Any], seed: int) -> None:
        require_int("seed", seed, 0, (1 << 31) - 1)
        self._seed = seed
        super().__init__(parameters, defaults | {"layer": None})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        """Take the gradients of one step; return what the closure does, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = 0
        for group in self.param_groups:
            vector = 0
            for parameter in group["params"]:
                layer = number if group["layer"] is None else group["layer"]
                if parameter.grad is not None:
                    require(not parameter.grad.is_sparse, "gradient", "sparse", "dense gradients")
                    self._move(parameter, group, layer, vector)
                number += 1
                vector += count_of(_rows(parameter), -1, 16) if group["layer"] is not None else 0
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any], layer: int, vector: int) -> None:
        raise NotImplementedError

    def _words(self, parameter: Tensor, bits: int, layer: int, vector: int) -> Tensor:
        """Return a random word for each number of a parameter, in the order in which golden keeps it."""
        step = self.state[parameter]["step"]
        rows = _rows(parameter)
        found = element_words(address(self._seed, layer, UPDATE, step, vector), stochastic(bits), tuple(rows.shape),
                              parameter.device)
        assert found is not None
        if parameter.dim() != 4:
            return found.reshape(parameter.shape)
        outputs, channels, height, width = parameter.shape
        return found.reshape(outputs, height, width, channels).permute(0, 3, 1, 2)

    def _begun(self, parameter: Tensor, **zeros: Tensor) -> dict[str, Any]:
        """Return the state of a parameter, which begins at step 0 with copies of tensors."""
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state.update({name: each.clone() for name, each in zeros.items()})
        return state


def _rows(parameter: Tensor) -> Tensor:
    """Return a parameter as golden has it: a convolution's weights as (outputs, patch), channel by channel."""
    return parameter.detach().permute(0, 2, 3, 1).flatten(1) if parameter.dim() == 4 else parameter.detach()


class _Narrow(_Optimiser):
    """An optimiser of weights in a Float, moved by one of `METHODS`."""

    def __init__(self, parameters: Iterable[Any], format: Any, update: str, random_bits: int, seed: int,
                 defaults: dict[str, Any]) -> None:
        self._arithmetic = Arithmetic(formats.parse(format))  # type: ignore[arg-type]  # which checks it
        require(update in METHODS, "update", update, ", ".join(METHODS))
        require_int("random_bits", random_bits, 1, 16)
        self._update, self._rounding = update, stochastic(random_bits)
        super().__init__(parameters, defaults, seed)

    @property
    def format(self) -> Float:
        """Of the weights."""
        return self._arithmetic.format

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, which are rounded to the format, to nearest even."""
        super().add_param_group(param_group)
        with torch.no_grad():
            for parameter in self.param_groups[-1]["params"]:
                parameter.copy_(self._arithmetic.number(parameter))

    def _take(self, parameter: Tensor, change: Tensor, state: dict[str, Any], layer: int, vector: int) -> None:
        """Move a parameter by a change, a number of the format in float64."""
        words = None
        if self._update == "stochastic":
            words = self._words(parameter, self._rounding.bits, layer, vector)
        before = state.get("compensation", torch.zeros((), device=parameter.device)).double()
        weight, compensation = moved(self._arithmetic, self._update, parameter.double(), change, before, self._rounding,
                                     words)
        parameter.copy_(weight)
        if "compensation" in state:
            state["compensation"].copy_(compensation)
        state["step"] += 1

    def _zeros(self, parameter: Tensor, *names: str) -> dict[str, Tensor]:
        """Return tensors of zeros by name, and one for the compensation if the update has one."""
        more = ("compensation",) if self._update in ("kahan", "grow") else ()
        return {name: torch.zeros_like(parameter, dtype=torch.float32) for name in (*names, *more)}


class SGD(_Narrow):
    """SGD with momentum and weight decay in narrow floating point, every operation rounded: `golden.update.step`.

    Parameters
    ----------
    parameters
        Parameters or groups of them. They are rounded to the format, in which they stay.
    lr, momentum, weight_decay : float
        From 0 to below 2; rounded to the format, and a subnormal one counts as zero. Each group may have its own.
    format : Float, or a preset's name
        Of weights, velocities, compensations and gradients.
    update : str
        ``plain``, ``stochastic``, ``kahan`` or ``grow``.
    random_bits, seed : int
        Of the stochastic update.
    """

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float = 0.0, weight_decay: float = 0.0, *,
                 format: Any = "fp32", update: str = "plain", random_bits: int = 8, seed: int = 1) -> None:
        super().__init__(parameters, format, update, random_bits, seed,
                         {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            self._rates(group)

    def _rates(self, group: dict[str, Any]) -> list[float]:
        fmt = self.format
        return [float(fmt.decode(rate_code(fmt, group[name], name))) for name in ("lr", "momentum", "weight_decay")]

    def _move(self, parameter: Tensor, group: dict[str, Any], layer: int, vector: int) -> None:
        state = self._begun(parameter, **self._zeros(parameter, "velocity"))
        to, (lr, momentum, decay) = self._arithmetic, self._rates(group)
        gradient, velocity = to.number(parameter.grad), state["velocity"].double()
        if decay:
            gradient = to.add(gradient, to.multiply(decay, parameter.double()))
        velocity = to.add(to.multiply(momentum, velocity), gradient)
        state["velocity"].copy_(velocity)
        self._take(parameter, -to.multiply(lr, velocity), state, layer, vector)


class AdamW(_Narrow):
    """AdamW whose weights are kept in bf16, or in another Float, and take the change as golden's SGD does.

    Moments and the change are computed in fp32, operation by operation as `torch.optim.AdamW` without ``foreach`` does.
    The change, decay included, is rounded to the format once, to nearest even, and then moves the weight. After arXiv
    2502.20566; that moments are in fp32 is ours.

    Parameters
    ----------
    parameters, format, update, random_bits, seed
        As in `SGD`.
    lr, betas, eps, weight_decay
        As in `torch.optim.AdamW`.
    """

    def __init__(self, parameters: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, *, format: Any = "bf16", update: str = "stochastic",
                 random_bits: int = 16, seed: int = 1) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            require(type(value) in (int, float) and value >= 0, name, value, "a number, 0 or above")
        require(len(betas) == 2 and all(0 <= each < 1 for each in betas), "betas", betas,
                "two numbers from 0 to below 1")
        super().__init__(parameters, format, update, random_bits, seed,
                         {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _move(self, parameter: Tensor, group: dict[str, Any], layer: int, vector: int) -> None:
        state = self._begun(parameter, **self._zeros(parameter, "mean", "square"))
        (first, second), count = group["betas"], state["step"] + 1
        gradient, mean, square = parameter.grad.float(), state["mean"], state["square"]
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        divisor = (square.sqrt() / (1 - second**count) ** 0.5).add_(group["eps"])
        change = torch.zeros_like(mean).addcdiv_(mean, divisor, value=-(group["lr"] / (1 - first**count)))
        if group["weight_decay"]:
            change.add_(parameter.float(), alpha=-group["lr"] * group["weight_decay"])
        self._take(parameter, self._arithmetic.number(change), state, layer, vector)


class Madam(_Optimiser):
    """Madam: weights are logarithmic codes, which a step moves by integers; `golden.madam.update`.

    Parameters hold the values of the codes, rounded to float32; the state has the codes. Weights begin as golden's do:
    see `golden.network.LogWeights`. Biases and gains should be given to another optimiser, as a step is relative.

    Parameters
    ----------
    parameters
        Parameters or groups of them.
    rate : int
        A normalised gradient of 1 moves a code by 2**rate: 0 to 7. Each group may have its own. With 16 bits the
        learning rate is 2**rate / 2048.
    settings : MadamParameters, optional
    seed : int
        Of the random words.
    """

    def __init__(self, parameters: Iterable[Any], rate: int = 7, *, settings: MadamParameters | None = None,
                 seed: int = 1) -> None:
        require_int("rate", rate, 0, 7)
        self._settings = settings or MadamParameters()
        super().__init__(parameters, {"rate": rate}, seed)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, which are rounded to logarithmic codes."""
        super().add_param_group(param_group)
        fmt = self._settings.weight
        for parameter in self.param_groups[-1]["params"]:
            held = LogWeights(Stored(fmt, self._settings), parameter.detach().cpu().float().numpy(), 1)
            codes = torch.from_numpy(held.start.codes.astype(np.int32)).to(parameter.device)
            self.state[parameter] = {"step": 0, "codes": codes, "scale": held.start.scale, "bound": held.bound,
                                     "second": torch.zeros_like(codes)}
            self._show(parameter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state, whose codes stay integers."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("codes", "second"):
                state[name] = state[name].to(torch.int32)

    @torch.no_grad()
    def _show(self, parameter: Tensor) -> None:
        """Give a parameter the values of its codes."""
        state = self.state[parameter]
        parameter.copy_(log_values(state["codes"].long(), self._settings.weight, state["scale"]))

    def _move(self, parameter: Tensor, group: dict[str, Any], layer: int, vector: int) -> None:
        state, p = self.state[parameter], self._settings
        words = self._words(parameter, p.random_bits, layer, vector).long()
        state["step"] += 1
        codes, second = _madam(p, state["codes"].long(), parameter.grad, state["second"].long(),
                               madam.correction(p, state["step"]), group["rate"], state["bound"], words)
        state["codes"].copy_(codes)
        state["second"].copy_(second)
        self._show(parameter)


def _madam(p: MadamParameters, weights: Tensor, gradients: Tensor, seconds: Tensor, correction: int, rate: int,
           bound: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next (codes, second moments), as int64: `golden.madam.update`."""
    gradients = decode(encode_float(gradients, p.gradient, NEAREST), p.gradient)
    nan, infinite = torch.isnan(gradients), torch.isinf(gradients)
    magnitude = gradients.abs().masked_fill_(nan | infinite, 0)
    # 2 * log2|g| in codes of the second moment; 0 is none.
    square = (levels(magnitude, 2 * p.second_gamma) + p.second_gamma * p.second_bias).clamp_(0, p.second_top)
    square = square.masked_fill_(magnitude == 0, 0).masked_fill_(infinite, p.second_top)

    low, entries, end = madam.growth(p.second_gamma, p.memory, p.random_bits)
    table = torch.tensor(entries, device=weights.device)
    d = torch.where(square > 0, square - seconds, low)
    inside = table[(d - low).clamp(0, len(table) - 1)]
    grown = (seconds << p.random_bits) + torch.where(d < low + len(table), inside, (d << p.random_bits) + end)
    later = (grown + words >> p.random_bits).clamp_(0, p.second_top)
    later = torch.where(nan, seconds, later)

    thresholds = torch.tensor(p.thresholds, device=weights.device)
    count = torch.searchsorted(thresholds, square - later + correction, right=True)
    count = count.masked_fill_((square == 0) | nan, 0)
    sign = torch.where(torch.signbit(gradients) ^ (weights >> p.weight.bits - 1 & 1).bool(), 1, -1)
    t = weights & p.weight.top
    new = (t + sign * (count << rate)).clamp_(1, bound).masked_fill_(t == 0, 0)
    return new | weights & ~p.weight.top, later
