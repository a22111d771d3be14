"""The numbers of a model's products: a recipe, the step, the random words and the account of one training run."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.checks import require, require_int
from ..golden.formats import PRESETS
from ..golden.integer import INT8System
from ..golden.logarithmic import SCALE_BIAS as LOG_BIAS
from ..golden.network import GEMMS, MEASURED, Convolution, Gemms, draws_of, softmax_gradient
from ..golden.number_system import Draws
from ..golden.precision import Adaptive, Control
from ..golden.recipes import Recipe
from ..golden.recipes import make as recipe_of
from .quantise import quantise
from .words import count_of

__all__ = ["SLOTS", "Numbers", "address"]

LAYERS = 128  # whose uses a step's words have
SLOTS = {gemm: 2 * number for number, gemm in enumerate(GEMMS)}


def address(seed: int, layer: int, slot: int, step: int, vector: int = 0) -> Draws:
    """Return the address of random words: `draws_of`'s, for as many layers as a model has.

    Golden has 128 layers at most; 128 more take the words of the next seed.
    """
    return replace(draws_of(seed + layer // LAYERS, layer % LAYERS, slot, step), vector=vector)


class Numbers:
    """What the layers of a model share: how a recipe quantises their products, and where the run is.

    Parameters
    ----------
    recipe : Recipe, or the name of one
    seed : int
        Of the random words, 0 to 2**31 - 1. Processes that train together should each have their own.
    exact : bool
        True: products are golden's own, in the hardware's order of additions. Tensors go by way of NumPy, on the CPU.
        False: operands are quantised alike, and torch multiplies and adds them in fp32.
    layers : int
        Converted modules, which are counted from 0.
    steps : int, optional
        Of the run. Policies whose widths depend on the length of a run need it.

    Attributes
    ----------
    step : int
        Of training, from 0: `advance` counts it.
    control : precision.Control, optional
        Of block floating point: it chooses precisions and keeps the account.
    adaptive : bool
        Whether tensors' own numbers choose a precision.
    """

    def __init__(self, recipe: Recipe | str, *, seed: int = 1, exact: bool = False, layers: int = 1,
                 steps: int | None = None) -> None:
        recipe = recipe_of(recipe) if isinstance(recipe, str) else recipe
        require(isinstance(recipe, Recipe), "recipe", recipe, "a Recipe, or the name of one")
        require_int("seed", seed, 0, (1 << 31) - 1)
        require(type(exact) is bool, "exact", exact, "true, false")
        require(recipe.stored is None, "stored", "logarithmic weights", "None: give Madam to the optimiser, and to the "
                "layers a recipe with the number system lns")
        require(recipe.scale is None, "loss_scale", recipe.scale, "None: torch has loss scales of its own")
        timed = recipe.policies is not None and any(each.timed for each in vars(recipe.policies).values())
        if steps is not None or timed:
            require_int("steps", steps, 1, MEASURED - 1)
        self.recipe, self.seed, self.exact, self.layers, self.step = recipe, seed, exact, layers, 0
        self.control = Control(recipe, layers, steps or 1) if recipe.policies else None
        self.adaptive = self.control is not None and any(
            isinstance(each, Adaptive) for each in vars(recipe.policies).values())
        self._looks = self.adaptive or "scale" in recipe.system.modes
        self._single = recipe.work == PRESETS["fp32"]
        self._gemms = Gemms(recipe, seed, None, self.control)
        self._drawn: Counter[tuple] = Counter()  # vectors of words in this step, by layer and slot
        self._evaluated: Counter[int] = Counter()  # forward passes of each layer since the last step

    @property
    def invalid(self) -> bool:
        """Whether a product of ``exact=True`` met a NaN."""
        return self._gemms.invalid

    @property
    def overflow(self) -> bool:
        """Whether a product of ``exact=True`` overflowed."""
        return self._gemms.overflow

    def advance(self) -> None:
        """Begin the next step of training: call it after each step of the optimiser, or see `Conversion.attach`."""
        self.step += 1
        self._drawn.clear()
        self._evaluated.clear()

    def address(self, layer: int, training: bool) -> int:
        """Return the step whose random words a forward pass takes; passes that only measure have steps of their own."""
        if training:
            return self.step
        self._evaluated[layer] += 1
        return MEASURED + self._evaluated[layer] - 1

    def vectors(self, layer: int, slot: int, step: int, count: int) -> int:
        """Return the number of the first of `count` vectors of random words, which are taken now."""
        key = (layer, slot, step)
        self._drawn[key] += count
        return self._drawn[key] - count

    def mode(self, kind: str, layer: int, step: int, stored: Tensor) -> dict[str, int]:
        """Return the modes of an operand: see `Recipe.mode` and `Control.width`.

        Parameters
        ----------
        kind : str
        layer, step : int
        stored : Tensor
            The whole tensor as a matrix: weights (outputs, inputs), others (rows, features).
        """
        array = self._array(stored) if self._looks else None
        mode = self.recipe.mode(kind, array)
        if self.control:
            mode["precision"] = self.control.width(
                kind, layer, step if step < MEASURED else None, array)  # type: ignore[arg-type]  # None where unused
        return mode

    def operand(self, x: Tensor, axis: int, mode: dict[str, int], layer: int, slot: int, step: int) -> Tensor:
        """Return an operand, rounded along its reduction axis: the values that golden's operand has."""
        system: Any = self.recipe.system
        settings: dict[str, Any] = {}
        # No class of `formats` describes plain INT8: it has a name here.
        fmt: Any = "int8" if isinstance(system, INT8System) else system.format_of(mode)
        require(fmt is not None, "exact", self.exact, f"True, because {type(system).__name__} has no format that torch "
                "rounds to")
        if fmt == self.recipe.work:
            return self.work(x)
        if "scale" in mode:
            settings["scale"] = mode["scale"] - LOG_BIAS
        if hasattr(system, "scale_rule"):
            settings["scale_rule"] = system.scale_rule
        rounding, words = system.rounding_of(mode), None
        if rounding.kind == "stochastic":
            first = self.vectors(layer, slot, step, count_of(x, axis, system.group))
            words = address(self.seed, layer, slot, step, first)
        return quantise(self.work(x), fmt, rounding, axis, words, **settings)

    def work(self, x: Tensor) -> Tensor:
        """Return numbers rounded to the work format, as float32."""
        return x.float() if self._single else quantise(x.float(), self.recipe.work)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of numbers, rounded to the work format before and after."""
        if self._single:
            return x + y
        return quantise(self.work(x).double() + self.work(y).double(), self.recipe.work).float()

    def total(self, rows: Tensor) -> Tensor:
        """Return the sums of columns: with ``exact`` in the work format and in golden's order, else in fp32."""
        if not self.exact:
            return self.work(rows.sum(0))
        return self._tensor(self._gemms.totals(self._array(rows), 1)[0], rows)

    def count(self, gemm: str, kinds: tuple[str, ...], sizes: tuple[int, int, int], modes: tuple[dict, ...], step: int,
              times: int = 1) -> None:
        """Take products (m, k) times (k, n), of sizes (m, n, k), into the account, if the step is one of training."""
        if self.control and step < MEASURED:
            a, b = (self.recipe.system.format_of(mode).mantissa for mode in modes)
            self.control.count_sizes(gemm, kinds, sizes, (a, b), times)

    def exact_product(self, gemm: str, layer: int, operands: tuple[Tensor, Tensor], step: int,
                      whole: tuple[Tensor, Tensor], before: tuple[int, int], counted: tuple[Tensor, Tensor]) -> Tensor:
        """Return golden's product of operands as they are stored (2-D): see `Gemms.product`."""
        x, y, a, b, *others = (self._array(each) for each in (*operands, *whole, *counted))
        found = self._gemms.product(gemm, layer, x, y, step, (a, b), before, (others[0], others[1]))
        return self._tensor(found, operands[0])

    def exact_input_gradient(self, geometry: Convolution, layer: int, gradient: Tensor, kernels: Tensor, step: int
                             ) -> Tensor:
        """Return golden's gradient (batch, inputs) of a convolution's input: see `Gemms.input_gradient`."""
        found = self._gemms.input_gradient(geometry, layer, self._array(gradient), self._array(kernels), step)
        return self._tensor(found, gradient)

    def errors(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the errors (p - y) / batch of logits as golden has them: see `Gemms.errors` and `softmax_gradient`."""
        array, y = self._array(logits), labels.cpu().numpy()
        if self.recipe.softmax is not None:
            return self._tensor(self._gemms.errors(array, y, 1, self.layers - 1, self.step), logits)
        require(self._gemms.arithmetic.native, "softmax", None, "a head, because work is neither fp32 nor fp16: see "
                "Recipe.with_head")
        return self._tensor(softmax_gradient(array, y), logits)

    def _array(self, x: Tensor) -> np.ndarray:
        """Return a tensor as golden has it: an array of numbers of the work format, in the dtype for it."""
        return np.ascontiguousarray(self.work(x.detach()).cpu().numpy()).astype(self.recipe.dtype, copy=False)

    @staticmethod
    def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
        """Return an array of golden's as a tensor of float32, where another tensor is."""
        return torch.from_numpy(array).to(like.device, torch.float32)

    def report(self) -> dict | None:
        """Return the account of precisions, bit operations and cycles as `train` gives it: see `Control.report`.

        None where the recipe's number system has no precision that may change.
        """
        return self.control.report() if self.control else None
