"""The training core, to the bit: an interpreter of its programs.

Source: numerics contract, section 15; every operation is one of the sections before it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ...base.checks import require
from .. import madam, softmax, update
from ..floating import arithmetic
from ..logarithmic import Logs
from ..network import GEMMS, UPDATE, relu
from ..number_system import Draws, Mode, NumberSystem, vectors_of
from ..precision import chunks_of, decide, sum_chunks, sum_limit
from ..rounding import NEAREST, stochastic
from ..update import METHODS
from .parameters import PLANES, TrainerParameters
from .program import Program
from .sequencer import LARGEST_LOSS, Issue, Part, Sequencer
from .views import View, places

__all__ = ["OPERANDS", "UNCOUNTED", "Core", "Host", "mode_of"]

# By the slot of a GEMM's random words: kinds of its operands. See `network.draws_of`.
OPERANDS = {2 * number: tuple(kind for kind, _ in operands) for number, operands in enumerate(GEMMS.values())}
# The slot whose operand b is not counted: activations are counted where they are operand a, at one converter.
UNCOUNTED = 4


class Host(Protocol):
    """What is at the other end of the core's streams."""

    def read(self, rows: int, columns: int) -> np.ndarray:
        """Return the next tensor that the host sends: codes of shape (rows, columns)."""

    def write(self, codes: np.ndarray) -> None:
        """Take codes that the core sends."""

    def loss(self, total: int) -> None:
        """Take the sum of the head's losses, as codes, of a batch or a part of one."""


def mode_of(system: NumberSystem, issue: Issue, kind: str, layer: int) -> Mode | None:
    """Return an operand's modes, or None where the program gives none.

    They lie in the value of a ``mode``, the first one lowest. A precision that follows a cycle is the cycle's.
    """
    packed = issue.modes.get((kind, layer))
    if packed is None:
        return None
    mode = {}
    for name, bits in system.modes.items():
        mode[name], packed = packed & ((1 << bits) - 1), packed >> bits
    if kind in issue.widths:
        mode["precision"] = issue.widths[kind]
    return mode


class Core:
    """A training core: its memories, and what instructions do to them.

    Parameters
    ----------
    parameters : TrainerParameters
    table : array of int, optional
        Codes of the work format for the 8-bit codes of memory E.

    Attributes
    ----------
    memories : dict of str to ndarray of uint32
        Flat. W has `PLANES` of them: parameters, velocities, compensations.
    invalid, overflow : int or None
        Sticky: the step of training in which a NaN was met, and in which a sum or an operand was beyond the range.
    """

    def __init__(self, parameters: TrainerParameters, table: np.ndarray | None = None) -> None:
        self.parameters, self.table = parameters, table
        self.group, self.side, self.system = parameters.system.group, parameters.side, parameters.system
        self.memories = {
            name: np.zeros((PLANES if name == "W" else 1) * count * (256 if name == "L" else self.side**2), np.uint32)
            for name, count in parameters.blocks.items()}
        self.arithmetic = arithmetic(parameters.work)
        self.invalid: int | None = None
        self.overflow: int | None = None
        self._parts: list[tuple[Any, Any]] = []
        self.losses = {"loss": 0, "accepted": 0, "skipped": 0}
        self._velocities: list[np.ndarray] = []  # those of the moves since the last `settle`
        # Of each kind of tensor and layer: the groups counted in this step, and the step of the latest decision with
        # the precision.
        self._counted: dict[tuple[str, int], list] = {}
        self._decided: dict[tuple[str, int], tuple[int, int]] = {}

    def run(self, program: Program, host: Host, watch: Callable[[Issue], None] | None = None) -> None:
        """Execute a program; `watch` is called after every instruction of a unit. No groups are counted before."""
        self._counted, self._decided = {}, {}
        self.losses, self._velocities = dict.fromkeys(self.losses, 0), []
        with np.errstate(all="ignore"):
            for issue in Sequencer(self.side, program, self.parameters.layers).issues():
                self.execute(issue, host)
                if watch:
                    watch(issue)

    def execute(self, issue: Issue, host: Host) -> None:
        """Do what an instruction of a unit means. Tokens mean nothing here, where one follows the other."""
        if issue.instruction.name not in ("signal", "wait", "sync"):
            getattr(self, f"_{issue.instruction.name}")(issue, host)

    # Memories.

    def read(self, view: View, plane: int = 0) -> np.ndarray:
        """Return the codes of a view, shape (rows, columns), 0 outside an image; of memory W those of a plane."""
        where, start = self._where(view, plane)
        found = self.memories[view.memory][where + start]
        return np.where(where < 0, np.uint32(0), found) if view.shape else found

    def write(self, view: View, codes: np.ndarray, plane: int = 0) -> None:
        """Put codes of shape (rows, columns) into a view."""
        where, start = self._where(view, plane)
        require(view.shape is None or int(where.min()) >= 0, "place of a result", -1, "one in the image")
        self.memories[view.memory][where + start] = codes

    def _where(self, view: View, plane: int) -> tuple[np.ndarray, int]:
        """Return the places of a view in a plane, and where the plane begins."""
        where, size = places(view, self.side), len(self.memories[view.memory])
        size //= PLANES if view.memory == "W" else 1
        require(plane == 0 or view.memory == "W" and plane <= self.parameters.planes, "plane", plane,
                f"0, or for a tensor in W at most {self.parameters.planes}")
        last = int(where.max())
        require(last < size, f"end of a tensor in {view.memory}", last + 1, f"at most {size} elements")
        return where, plane * size

    def values(self, view: View) -> np.ndarray:
        """Return the numbers of a view in the work format."""
        codes = self.read(view)
        if view.memory == "E":
            require(self.table is not None, "table", None, "one, because there are examples as 8-bit codes")
            assert self.table is not None
            codes = self.table[codes]
        fmt = self.parameters.stored if view.memory == "W" else self.parameters.work
        return self.arithmetic.number(fmt.decode(codes))

    def store(self, view: View, numbers: np.ndarray) -> None:
        """Put numbers of the work format into a view of X or D."""
        require(view.memory in "XD", "memory of a result", view.memory, "X, D")
        self.write(view, self.parameters.work.encode(numbers))

    def _flag(self, issue: Issue, invalid: bool, overflow: bool = False) -> None:
        step = issue.registers["training"]
        self.invalid = step if invalid and self.invalid is None else self.invalid
        self.overflow = step if overflow and self.overflow is None else self.overflow

    # Instructions.

    def _gemm(self, issue: Issue, host: Host) -> None:
        each, views = issue.instruction, issue.views
        layer, slot = each.use >> 3, each.use & 7
        require(slot in OPERANDS, "use", each.use, "8 * layer + 0, 2 or 4")
        require(slot != UNCOUNTED or not each.count_b, "count_b", 1, "0 in this product")
        sides = []
        for side, (name, across) in enumerate((("a", each.across_a), ("b", each.across_b))):
            kind = OPERANDS[slot][side]
            stored = self._operand(issue, kind, layer, views[name])
            mode = mode_of(self.system, issue, kind, layer)
            if mode is None:  # a scale is of the tensor that there are windows of
                mode = self.system.mode(kind, self._operand(issue, kind, layer, views[name].tensor))
            array = stored.T if across else stored  # vectors are rows
            if (kind, layer) in issue.thresholds:
                mode["precision"] = self._width(issue, kind, layer)
                if getattr(each, f"count_{name}"):
                    self._counted[kind, layer].append(chunks_of(array, self.system.format_of(mode), 1))
            part = issue.parts.get(name, Part())
            length = -(-(views[name].rows if across else views[name].columns) // self.group)
            draws = Draws(issue.registers["seed"], issue.registers["step"], each.use + side, part.vector,
                          (length, part.pitch or length))
            sides.append((array if side == 0 else array.T, 1 - side, mode, side, draws))
        found = self._product(issue, sides)
        if found is None:
            return
        if each.biased:
            found = self.arithmetic.add(found, self.values(views["bias"])[0])
        if each.relu:
            found = relu(found)
        if each.masked:
            found = np.where(self.values(views["mask"]) <= 0, found.dtype.type(0), found)
        if each.update:
            move = self._multiply if self.parameters.madam else self._move
            move(issue, views["to"], found, layer, issue.registers["decay"], issue.parts.get("to", Part()))
        else:
            self.store(views["to"], found)

    def _operand(self, issue: Issue, kind: str, layer: int, view: View) -> Any:
        """Return a tensor as it is stored: numbers, or logarithmic weights."""
        if kind == "weights" and self.parameters.madam:
            return Logs(self.parameters.madam.weight, self._codes(view), self._logs(issue, layer)[0])
        return self.values(view)

    def _codes(self, view: View, plane: int = 0) -> np.ndarray:
        """Return codes of logarithmic weights, or of their second moments: of each number the bits that they have."""
        p = self.parameters.madam
        assert p is not None
        return self.read(view, plane) & np.uint32(p.second_top if plane else (1 << p.weight.bits) - 1)

    @staticmethod
    def _logs(issue: Issue, layer: int) -> tuple[int, int]:
        """Return scale and bound of a layer's logarithmic weights."""
        require(layer in issue.logs, f"logarithmic weights of layer {layer}", "without a scale", "those of `logs`")
        return issue.logs[layer]

    def _product(self, issue: Issue, sides: list) -> np.ndarray | None:
        """Return a product in the work format, or None of a part that is not the last one along k."""
        each = issue.instruction
        whole = not each.continued and not each.open
        require(whole or self.parameters.madam is None, "continued and open", (each.continued, each.open),
                "0, because weights are logarithmic")
        kind: Any = self.system if whole else NumberSystem
        own = () if whole else (self.system,)
        operands = []
        for arguments in sides:
            operand, invalid, overflow = kind.operand(*own, *arguments)
            self._flag(issue, invalid, overflow)
            operands.append(operand)
        if not whole:
            self._parts = (self._parts if each.continued else []) + [tuple(operands)]
            if each.open:
                return None
            operands = [type(pair[0])(tuple(np.concatenate(found, axis=1) for found in zip(
                *(part.arrays for part in pair)))) for pair in zip(*self._parts)]
            self._parts = []
        found, invalid, overflow = kind.product(*own, *operands)
        self._flag(issue, invalid, overflow)
        return self.arithmetic.number(found)

    def _width(self, issue: Issue, kind: str, layer: int) -> int:
        """Return the precision of a tensor from the groups that were counted in the step before, if there was one."""
        key, step = (kind, layer), issue.registers["step"]
        if self._decided.get(key, (None, 0))[0] != step:
            counted, self._counted[key] = self._counted.get(key), []
            width = issue.firsts[key]
            if counted:
                sums = sum_chunks(*map(np.concatenate, zip(*counted)), limit=sum_limit(self.group))
                width = decide(*sums[:2], issue.thresholds[key])
            self._decided[key] = step, width
        return self._decided[key][1]

    def _move(self, issue: Issue, view: View, gradient: np.ndarray, layer: int, decay: int, part: Part) -> None:
        """Move parameters by gradients in the work format."""
        p, registers = self.parameters, issue.registers
        method, fmt = METHODS[registers["method"]], p.stored
        for name in ("rate", "momentum", "decay") if p.rates == "powers" else ():
            require(registers[name] & ((1 << fmt.mantissa) - 1) == 0, name, registers[name], "0 or a power of two")
        require(p.decays or registers["decay"] == 0, "decay", registers["decay"], "0, because decays is false")
        require(view.memory == "W", "memory of parameters", view.memory, "W")
        require(method in p.updates, "method", method, ", ".join(p.updates))
        random, rounding = None, NEAREST
        if method == "stochastic":
            random = self._words(issue, gradient.shape, layer, part, p.update_bits)
            rounding = stochastic(p.update_bits)
        planes = range(1 + p.planes)
        kept = [self.read(view, plane) for plane in planes]
        weights, velocities, compensations = kept + [np.zeros_like(kept[0])] * (2 - p.planes)
        found = update.step(fmt, method, weights, velocities, compensations, fmt.encode(gradient), registers["rate"],
                            registers["momentum"], decay, random, rounding, 1 << registers["loss"])
        for plane, codes in zip(planes, found):
            self.write(view, codes, plane)
        if p.loss_scale:
            where = self._where(view, 0)[0]
            for plane, codes in enumerate(kept, 1 + p.planes):
                self._plane(plane)[where] = codes
            self._velocities.append(found[1])

    def _plane(self, plane: int) -> np.ndarray:
        """Return a plane of W and M: with a loss scale the last two are old parameters and old velocities."""
        return self.memories["W"].reshape(PLANES, -1)[plane]

    def _settle(self, issue: Issue, host: Host) -> None:
        """Keep what moved since the last `settle`, or undo it; and change the loss scale."""
        registers, work = issue.registers, self.arithmetic
        require(self.parameters.loss_scale and isinstance(registers, dict), "loss_scale", False, "true, to settle")
        assert isinstance(registers, dict)  # for mypy
        weights, velocities, old_weights, old_velocities = map(self._plane, range(PLANES))

        def scaled(codes: np.ndarray, factor: float) -> np.ndarray:
            values = self.parameters.stored.decode(codes)
            found = self.parameters.stored.encode(work.multiply(work.number(values), work.number(factor)))
            return np.where(np.isfinite(values), found, codes)

        moved = [work.number(self.parameters.stored.decode(each)) for each in self._velocities]
        if moved and not all(np.isfinite(each).all() for each in moved):
            self.losses["skipped"] += 1
            registers["accepted"] = 0
            weights[:], velocities[:] = old_weights, scaled(old_velocities, 0.5 if registers["loss"] else 1)
            registers["loss"] -= registers["loss"] > 0
        elif moved:
            registers["accepted"] += 1
            if registers["accepted"] == registers["interval"]:
                registers["accepted"] = 0
                twice = (work.multiply(each, work.number(2)) for each in moved)
                if registers["loss"] < LARGEST_LOSS and all(np.isfinite(each).all() for each in twice):
                    registers["loss"] += 1
                    velocities[:] = scaled(velocities, 2)
        self.losses |= {name: registers[name] for name in ("loss", "accepted")}
        self._velocities = []

    @staticmethod
    def _words(issue: Issue, shape: tuple[int, int], layer: int, part: Part, bits: int) -> np.ndarray:
        """Return the random words of an update: 16 numbers of a row have a vector."""
        registers, (rows, columns) = issue.registers, shape
        length = vectors_of(part.lane + columns)
        draws = Draws(registers["seed"], registers["step"], 8 * layer + UPDATE, part.vector,
                      (length, part.pitch or vectors_of(columns)))
        words = draws.stream(16, bits).draw(rows * length)
        return words.reshape(rows, length * 16)[:, part.lane:part.lane + columns]

    def _multiply(self, issue: Issue, view: View, gradient: np.ndarray, layer: int, decay: int, part: Part) -> None:
        """Move logarithmic weights by Madam; nothing decays."""
        p, registers = self.parameters.madam, issue.registers
        assert p is not None
        correction = registers["correction"] - (registers["correction"] >> 31 << 32)
        words = self._words(issue, gradient.shape, layer, part, p.random_bits)
        codes, _, seconds, invalid, overflow = madam.update(
            p, self._codes(view), p.gradient.encode(gradient), self._codes(view, 1), correction, registers["shift"],
            self._logs(issue, layer)[1], words)
        self.write(view, codes)
        self.write(view, seconds, 1)
        self._flag(issue, bool(invalid.any()), bool(overflow.any()))

    def _sums(self, issue: Issue, host: Host) -> None:
        """Move biases by sums over rows, in their order, from +0. Nothing decays."""
        array = self.values(issue.views["a"])
        ones = np.ones((1, len(array)), self.arithmetic.dtype)
        found = self.arithmetic.number(self.parameters.plain.product(ones, array)[0])
        self._move(issue, issue.views["to"], found, issue.instruction.use >> 3, 0, issue.parts.get("to", Part()))

    def _head(self, issue: Issue, host: Host) -> None:
        views, registers = issue.views, issue.registers
        p, work = self.parameters.softmax, self.arithmetic
        logits = self.values(views["a"])
        labels = self.read(views["labels"])[0].astype(np.int64)
        words = None
        if p.rounding == "stochastic":
            part = issue.parts.get("a", Part())
            draws = Draws(registers["seed"], registers["step"], issue.instruction.use, part.vector)
            words = draws.rows(logits.shape, p.random_bits)
        found, losses, invalid, _ = softmax.gradient(p, p.format.encode(logits), labels, random=words)
        self._flag(issue, bool(invalid.any()))
        host.loss(int(losses.sum()))
        scale = self.parameters.work.decode(registers["scale"])
        if scale >= 2.0**self.parameters.work.emin:  # a subnormal one stays as it is
            scale = scale * 2.0 ** registers["loss"]
        scale = self.arithmetic.number(scale)
        self.store(views["to"], work.multiply(work.number(p.error.decode(found)), scale))

    def _fill(self, issue: Issue, host: Host) -> None:
        view = issue.views["to"]
        self.write(view, np.full((view.rows, view.columns), issue.instruction.value, np.uint32),
                   issue.instruction.plane)

    def _in(self, issue: Issue, host: Host) -> None:
        view = issue.views["to"]
        self.write(view, host.read(view.rows, view.columns), issue.instruction.plane)

    def _out(self, issue: Issue, host: Host) -> None:
        host.write(self.read(issue.views["a"], issue.instruction.plane))
