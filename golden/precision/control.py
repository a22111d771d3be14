"""The control of a run: it decides on every operand's width, keeps the account, and tests ranges."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...base.checks import require, require_int, require_lengths
from .. import blockfloat
from ..array import ArrayParameters, cycles
from ..blockfloat import Blocks
from .chunks import sums_of
from .policies import Adaptive

__all__ = ["AXES", "Control", "array_of", "range_test"]

# The axis of a stored tensor along which the groups of the decision lie. It is the reduction axis of the forward GEMM,
# and for gradients the reduction axis of the weight gradient.
AXES = {"weights": 1, "activations": 1, "gradients": 0}


def array_of(group: int) -> ArrayParameters | None:
    """Return the parameters of a 4 x 4 array for up to 8 bits, or None for groups that an array cannot have."""
    if group & (group - 1) or not 4 <= group <= 64:
        return None
    return ArrayParameters(blockfloat.BFPSystem(group=group, mantissa=8))


class Control:
    """Decides on the width of every operand of a run, and keeps the account.

    A tensor is decided on once a step, from groups along its axis of `AXES`. All products of the step that use the
    tensor have the same width, in any order [ours].

    Parameters
    ----------
    recipe : recipes.Recipe
        Of block floating point.
    layers, steps : int
    """

    def __init__(self, recipe: Any, layers: int, steps: int) -> None:
        self._policies, self._system, self._layers, self._steps = recipe.policies, recipe.system, layers, steps
        self._widths = {(kind, layer): bytearray() for kind in vars(self._policies) for layer in range(layers)}
        self._decided = dict.fromkeys(self._widths)  # the step of the latest decision
        self._sums: dict[tuple[str, int], tuple[int, int]] = {}  # of the latest step
        self._products: Counter[tuple] = Counter()

    def width(self, kind: str, layer: int, step: int | None, array: np.ndarray) -> int:
        """Return the magnitude bits of a use of a tensor.

        Parameters
        ----------
        kind : str
        layer : int
        step : int, optional
            None when accuracy is measured.
        array : ndarray
            The tensor as it is stored, not transposed for the product.
        """
        policy = getattr(self._policies, kind)
        widths = self._widths[kind, layer]
        if step is None:
            return policy.measured(widths[-1] if widths else None)
        if self._decided[kind, layer] != step:
            sums = self._statistics(kind, layer, array) if isinstance(policy, Adaptive) else None
            widths.append(policy.width(layer, self._layers, step, self._steps, sums))
            self._decided[kind, layer] = step
        return widths[-1]

    def _statistics(self, kind: str, layer: int, array: np.ndarray) -> tuple[int, int] | None:
        """Take the sums of a tensor, and return the sums to decide from.

        With a lag these were taken in the step before: None in the first step.
        """
        policy = getattr(self._policies, kind)
        before = self._sums.get((kind, layer))
        latest = sums_of(array, self._system.format_of({"precision": policy.top}), AXES[kind])
        self._sums[kind, layer] = latest
        return before if policy.lag else latest

    def count(self, gemm: str, kinds: Sequence[str], a: Blocks, b: Blocks) -> None:
        """Take a product of Blocks (M, K) and (K, N), of tensors of these kinds, into the account."""
        sizes = len(a.exponents), len(b.exponents), a.length
        self.count_sizes(gemm, kinds, sizes, (a.format.mantissa, b.format.mantissa))

    def count_sizes(self, gemm: str, kinds: Sequence[str], sizes: tuple[int, int, int], widths: tuple[int, int],
                    times: int = 1) -> None:
        """Take products (m, k) times (k, n), of sizes (m, n, k) and operands of so many bits, into the account."""
        self._products[gemm, tuple(kinds), *sizes, *widths] += times

    @property
    def sums(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Of each kind of tensor and layer that is decided on by its numbers: the sums of the latest step."""
        return dict(self._sums)

    @property
    def tensors(self) -> int:
        """Tensors with a width: those of each kind and layer."""
        return len(self._widths)

    def mark(self) -> tuple[dict, Counter]:
        """Return the latest sums and the account as they are now; widths, to which steps only add, need no mark."""
        return dict(self._sums), Counter(self._products)

    def saved(self, mark: tuple[dict, Counter], step: int) -> tuple[np.ndarray, dict]:
        """Return the state before a step, from the mark of this moment.

        Returns
        -------
        widths : ndarray of uint8, shape (kinds * layers, step)
        account : dict
            JSON-ready: the ``sums`` of each kind of tensor and layer, or None, and the counted ``products``.
        """
        sums, products = mark
        widths = np.stack([np.frombuffer(bytes(found[:step]), np.uint8) for found in self._widths.values()])
        return widths, {"sums": [sums.get(key) for key in self._widths],
                        "products": [[*key, count] for key, count in sorted(products.items())]}

    def restore(self, step: int, widths: np.ndarray, account: dict, gemms: Mapping[str, Sequence[str]]) -> None:
        """Take what was `saved` before a step.

        Parameters
        ----------
        step : int
        widths, account
            Of `saved`.
        gemms : mapping of str to sequence of str
            The kinds of the operands of each GEMM.

        Raises
        ------
        ValueError
            A run cannot have these.
        """
        require(widths.shape == (len(self._widths), step), "shape of widths", widths.shape,
                str((len(self._widths), step)))
        require_lengths(sums=account["sums"], tensors=self._widths)
        for (key, found), row, sums in zip(self._widths.items(), widths, account["sums"]):
            policy = getattr(self._policies, key[0])
            require(step == 0 or row.min() >= 2 and row.max() <= policy.top, "widths", key, f"2 to {policy.top}")
            found[:] = row.tobytes()
            require((sums is not None) == (step > 0 and isinstance(policy, Adaptive)), "sums", sums, "those of a step")
            if sums is not None:
                numerator, quarter = sums
                require_int("sum", numerator, 0, 1 << 64)
                require_int("sum", quarter, 0, 1 << 64)
                self._sums[key] = numerator, quarter
        for gemm, kinds, *numbers in account["products"]:
            require(gemm in gemms and tuple(kinds) == tuple(gemms[gemm]), "product", gemm, ", ".join(gemms))
            *sizes, a, b, count = numbers
            for number, low, high in (*((each, 1, 1 << 40) for each in (*sizes, count)), (a, 2, 8), (b, 2, 8)):
                require_int("number of products", number, low, high)
            m, n, k = sizes
            self._products[gemm, tuple(kinds), m, n, k, a, b] = count

    def report(self) -> dict:
        """Return the account: JSON-ready.

        Costs are sums over the products of training; the measuring of accuracy does not count. ``used`` is with the
        widths of the run, ``static`` with the greatest widths throughout, ``fp32`` with 32 bits.

        - ``widths``: per kind of tensor and layer, ``[first step, width]`` of each run of equal widths.
        - ``steps``: per kind and layer, the steps of each width.
        - ``bit_operations``: multiply-accumulates times the bits of both operands: ``used``, ``fp32``, ``static``.
        - ``passes``: cycles of one serial dot-product unit: ``used``, ``static``. A pair of groups takes
          ceil(a/2) * ceil(b/2) passes, and a product has M * N * ceil(K / group) pairs.
        - ``cycles``: those of the default 4 x 4 array of such units, each product alone: ``used``, ``static``. See
          `array.cycles`; the memory is taken to hold everything. None where no array can have the group.
        - ``products``: how often there was each product (m, k) times (k, n) of operands of a and b bits. From them
          other costs can be computed without training again.
        """
        widths: dict[str, list] = {}
        steps: dict[str, list] = {}
        for (kind, _), found in self._widths.items():
            changes = [k for k in range(len(found)) if k == 0 or found[k] != found[k - 1]]
            widths.setdefault(kind, []).append([[k, found[k]] for k in changes])
            steps.setdefault(kind, []).append({str(each): found.count(each) for each in sorted(set(found))})
        operations, passes = {"used": 0, "fp32": 0, "static": 0}, {"used": 0, "static": 0}
        array = array_of(self._system.group)
        spent: dict[str, Any] = dict.fromkeys(("used", "static"), 0 if array else None)
        for (_, kinds, m, n, k, *used), count in self._products.items():
            static = [getattr(self._policies, kind).top for kind in kinds]
            pairs = count * m * n * -(-k // self._system.group)
            for name, bits in (("used", used), ("fp32", (32, 32)), ("static", static)):
                operations[name] += count * m * n * k * math.prod(bits)
            for name, bits in (("used", used), ("static", static)):
                passes[name] += pairs * blockfloat.passes(*bits)
                if array:
                    spent[name] += count * cycles(array, m, n, k, *({"precision": each} for each in bits))
        products = [dict(zip(("gemm", "m", "n", "k", "a", "b"), (gemm, *sizes))) | {"count": count}
                    for (gemm, _, *sizes), count in sorted(self._products.items())]
        return {"widths": widths, "steps": steps, "bit_operations": operations, "passes": passes, "cycles": spent,
                "products": products}


def range_test(accuracy: Callable[[int], float], start: float, *, low: int = 2, high: int = 8, threshold: float = 0.1
               ) -> tuple[int | None, dict[int, float]]:
    """Return (the least useful width, {width: gain}): a test, after CPT's idea, for the lower end of the cycles.

    Training begins with `low` bits and takes one more at a time; the first width under which the training accuracy
    rises by more than `threshold` is the one. None, if there is none up to `high`.

    Parameters
    ----------
    accuracy : callable
        Given a width, trains on with it and returns the training accuracy. Widths rise from call to call.
    start : float
        The accuracy before the training.
    threshold : float
        The default, like the rule, is ours.
    """
    gains, before = {}, start
    for width in range(low, high + 1):
        after = accuracy(width)
        gains[width], before = after - before, after
        if gains[width] > threshold:
            return width, gains
    return None, gains
