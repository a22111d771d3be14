"""From layers, recipe and batch to a program: where tensors lie, what a step does, and what does not fit."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ...base.checks import require, require_int
from ..array import split
from ..floating import arithmetic
from ..network import HEAD, MEASURED, Linear
from ..number_system import vectors_of
from ..recipes import Recipe
from ..update import METHODS, rate_code
from .instructions import COUNTERS, FIELDS, KINDS, MEMORIES, REGISTERS, SIDES, TENSORS, Instruction
from .parameters import BANK, TrainerParameters
from .program import Program
from .sequencer import Sequencer
from .tokens import synchronised

__all__ = ["Run", "compiled", "require_runs", "trainer_of"]

TESTED = 1 << 30  # accuracy of the test part is measured in steps so far behind those of the training part
FORWARD, INPUT, WEIGHT = 0, 2, 4  # slots of random words: see `network.draws_of`


@dataclass(frozen=True)
class Run:
    """What a program is made for: everything of a training run that is not the core's own.

    Parameters
    ----------
    recipe : Recipe
    layers : tuple of Linear
    train, test : int
        Examples.
    seed, epochs, batch, lr, momentum, decay, lr_drops, measure_every
        As in `network.train`.
    """

    recipe: Recipe
    layers: tuple[Any, ...]
    train: int
    test: int = 0
    seed: int = 1
    epochs: int = 1
    batch: int = 32
    lr: float = 0.1
    momentum: float = 0.9
    decay: float = 0
    lr_drops: tuple[float, ...] = ()
    measure_every: int = 1

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * -(-self.train // self.batch)


def require_runs(parameters: TrainerParameters, run: Run) -> None:
    """Raise ValueError, in one line, where a recipe or a network cannot run in a core, or not in this one."""
    p, recipe = parameters, run.recipe
    system: Any = p.system
    alike = system.adaptive and type(system) is type(recipe.system)
    wide: dict[str, Any] = {"mantissa": system.mantissa} if alike else {}
    if "seed" in vars(system):
        wide["seed"] = system.seed  # a run has its own
    own = replace(recipe.system, **wide)  # type: ignore[type-var]  # it is a dataclass
    require(own == system, "system", system, f"{own}, the recipe's")
    if alike:
        least = vars(recipe.system)["mantissa"]
        require(least <= system.mantissa, "mantissa", system.mantissa, f"{least} or more, which the recipe has")
    require(recipe.softmax is not None, "softmax", None, "a head: give --softmax-bits, because a core has no float64")
    head = recipe.softmax
    assert head is not None  # for mypy
    require(replace(p.softmax, classes=head.classes, seed=head.seed) == head and p.softmax.guard == head.guard
            and p.classes >= run.layers[-1].outputs, "head of the core", p.softmax,
            f"{head}, the recipe's, or one of as many bits for the sum")
    require(recipe.scale is None, "loss_scale", recipe.scale, "None: a core does not skip steps yet")
    require(recipe.stored is None, "stored", recipe.stored, "None: a core does not keep logarithmic weights yet")
    require(not recipe.kept.fixed, "parameters", recipe.kept.format, "a Float: fixed-point parameters have no core")
    require((recipe.kept.format or recipe.work) == p.stored, "parameters", p.stored,
            f"{recipe.kept.format or recipe.work}, the recipe's")
    require(recipe.kept.update in p.updates, "updates", p.updates, f"{recipe.kept.update} among them")
    require(recipe.kept.update != "stochastic" or recipe.kept.random_bits == p.update_bits, "update_bits",
            p.update_bits, f"{recipe.kept.random_bits}, the recipe's")
    for kind, policy in vars(recipe.policies).items() if recipe.policies else ():
        require(policy.describe()["policy"] == "constant", f"precision of {kind}", policy.describe()["policy"],
                "constant: a core does not change precision yet")
    for number, layer in enumerate(run.layers):
        require(isinstance(layer, Linear), f"layer {number + 1}", type(layer).__name__,
                "Linear: a core has no convolutions yet")
    require_int("layers", len(run.layers), 1, 1 << FIELDS["layer"][0])
    require_int("batch", run.batch, 1, 65535)


def trainer_of(run: Run, **settings: Any) -> TrainerParameters:
    """Return the parameters of a core that the run fits: the recipe's numbers, and memories just as large as needed.

    Parameters
    ----------
    run : Run
    **settings
        Others of `TrainerParameters`, in place of these.
    """
    recipe = run.recipe
    require(recipe.softmax is not None, "softmax", None, "a head: give --softmax-bits, because a core has no float64")
    assert recipe.softmax is not None
    head, group = recipe.softmax, recipe.system.group
    usual: dict[str, Any] = {
        "system": recipe.system, "classes": head.classes, "error_bits": head.bits, "error_rounding": head.rounding,
        "logits": None if head.format == recipe.work else head.format, "parameters": recipe.kept.format,
        "updates": (recipe.kept.update,), "update_bits": recipe.kept.random_bits,
    }
    layout = _Layout(run, group)
    needed = layout.needed[0] + layout.x[1], *layout.needed[1:]  # with room for the next batch
    for name, blocks in zip(("activations", "errors", "weights"), needed):
        size, bank = blocks * group * group, BANK * group
        usual[name] = size if size <= bank else -(-size // bank) * bank
    usual["labels"] = 2 * -(-run.batch // 256) * 256
    return TrainerParameters(**usual | settings)


class _Layout:
    """Where tensors lie: of each memory, the blocks that are needed, and of each tensor the first block."""

    def __init__(self, run: Run, group: int) -> None:
        def blocks(rows: int, columns: int) -> int:
            return -(-rows // group) * -(-columns // group)

        sizes = [run.layers[0].inputs, *(layer.outputs for layer in run.layers)]
        self.stride = [-(-size // group) for size in sizes]
        self.x, at = [], 0
        for size in sizes:
            self.x.append(at)
            at += blocks(run.batch, size)
        x_end = at
        # Errors of two layers at a time are alive: those of odd layers begin at 0, and those of even ones behind.
        halves = [max((blocks(run.batch, size) for size in sizes[1:][half::2]), default=0) for half in (0, 1)]
        self.d = [(number % 2) * halves[0] for number in range(len(run.layers))]
        self.w, at = [], 0
        for layer in run.layers:
            self.w.append(at)
            at += blocks(layer.outputs, layer.inputs)
        # Biases lie in rows of blocks that they share.
        widest = max(self.stride[1:])
        self.b = [(at + number // group * widest, number % group) for number in range(len(run.layers))]
        self.needed = x_end, sum(halves), at + -(-len(run.layers) // group) * widest


class _Compiler:
    def __init__(self, parameters: TrainerParameters, run: Run) -> None:
        self.p, self.run, self.group = parameters, run, parameters.system.group
        self.layout = _Layout(run, self.group)
        self.names: dict[str, int] = {}
        self.shapes: dict[str, dict[str, int]] = {}
        self.code: list[Instruction] = []
        self.body: list[Instruction] | None = None
        self.state = Sequencer(self.group)
        for name, needed in zip(("X", "D", "W"), self.layout.needed):
            has, setting = parameters.blocks[name], {"X": "activations", "D": "errors", "W": "weights"}[name]
            require(needed <= has, setting, has * self.group**2,
                    f"{needed * self.group**2} elements or more, which memory {name} needs for this network and batch")
        require(run.batch <= parameters.labels, "labels", parameters.labels, f"{run.batch} or more, those of a batch")

    def emit(self, name: str, **fields: int) -> None:
        """Add an instruction, to the body of the innermost loop if one is being made."""
        instruction = Instruction(name, **fields)
        if self.body is not None:
            self.body.append(instruction)
            return
        self.code.append(instruction)
        if name not in ("loop", "end"):
            self.state.issue(len(self.code), instruction)

    def loop(self, count: int, make: Callable[[], None]) -> None:
        """Emit a loop whose body `make` emits, with its tokens; units are idle before it and after it."""
        body: list[Instruction] = []
        self.body = body
        make()
        self.body = None
        first, body, last = synchronised(self.state, body, self.group, count > 1)
        sync = Instruction("sync")
        self.code += [sync, *first, Instruction("loop", count=count), *body, Instruction("end"), *last, sync]

    def number(self, name: str) -> int:
        """Return the number of a tensor's name, a new one if there is none."""
        require(name in self.names or len(self.names) < TENSORS, "tensors", len(self.names) + 1,
                f"at most {TENSORS}: fewer layers")
        return self.names.setdefault(name, len(self.names))

    def tensor(self, name: str, memory: str, block: int, stride: int, rows: int, columns: int, top: int = 0,
               left: int = 0, other: int | None = None) -> None:
        other = block if other is None else other
        shape = {"memory": MEMORIES.index(memory), "block": block, "other": other, "stride": stride, "top": top,
                 "left": left, "rows": rows, "columns": columns}
        self.shapes[name] = shape
        self.emit("tensor", number=self.number(name), **shape)

    def set(self, register: str, value: int, since: int = 0) -> None:
        self.emit("set", register=REGISTERS.index(register), value=value, since=since)

    def constant(self, value: float) -> int:
        return int(self.p.work.encode(arithmetic(self.p.work).number(value)))

    def batch(self, rows: int) -> None:
        """Define what depends on the size of a batch."""
        self.rows = rows
        layout, layers, blocks = self.layout, self.run.layers, self.p.blocks
        for i in range(len(layers) + 1):
            size = layers[0].inputs if i == 0 else layers[i - 1].outputs
            # The next batch comes in meanwhile, where there is room for it.
            other = layout.needed[0] if i == 0 and blocks["X"] >= layout.needed[0] + layout.x[1] else layout.x[i]
            self.tensor(f"x{i}", "X", layout.x[i], layout.stride[i], rows, size, other=other)
            if i:
                self.tensor(f"d{i}", "D", layout.d[i - 1], layout.stride[i], rows, size)
        labels = -(-self.run.batch // 256)
        self.tensor("y", "L", 0, 1, 1, rows, other=labels if blocks["L"] >= 2 * labels else 0)

    def gemm(self, layer: int, slot: int, a: str, b: str, to: str, sizes: tuple[int, int, int], **flags: Any) -> None:
        """Emit a product, in parts if it does not fit the buffers."""
        bias, mask = flags.pop("bias", None), flags.pop("mask", None)
        across = [slot == WEIGHT, slot != FORWARD]
        common = {"use": 8 * layer + slot, "across_a": int(across[0]), "across_b": int(across[1]),
                  "biased": int(bias is not None), "masked": int(mask is not None), **flags}
        m, n, k = sizes
        parts = self.parts(m, n, k)
        if len(parts) == 1:
            self.emit("gemm", a=self.number(a), b=self.number(b), to=self.number(to),
                      bias=self.number(bias) if bias else 0, mask=self.number(mask) if mask else 0, **common)
            return
        require(not hasattr(self.p.system, "lanes") or "scale" not in self.p.system.modes, "buffer", self.p.buffer,
                "more: operands with a scale of the whole tensor are not cut")
        pitch, start = -(-k // self.group), 0
        for (rows, columns, depth), top, left, start, first, last in parts:
            for side, (name, tensor, turned, vectors, at) in enumerate((("va", a, across[0], rows, top),
                                                                       ("vb", b, across[1], columns, left))):
                self.view(name, tensor, *((depth, vectors, start, at) if turned else (vectors, depth, at, start)))
                self.emit("part", side=side, vector=at * pitch + start // self.group, pitch=pitch)
            self.view("vto", to, rows, columns, top, left)
            if flags.get("update"):
                whole = vectors_of(n)
                self.emit("part", side=SIDES.index("to"), vector=top * whole + left // 16, lane=left % 16, pitch=whole)
            if bias:
                self.view("vbias", bias, 1, columns, 0, left)
            if mask:
                self.view("vmask", mask, rows, columns, top, left)
            self.emit("gemm", a=self.number("va"), b=self.number("vb"), to=self.number("vto"),
                      continued=int(not first), open=int(not last), bias=self.number("vbias") if bias else 0,
                      mask=self.number("vmask") if mask else 0, **common)

    def view(self, name: str, of: str, rows: int, columns: int, row: int, column: int) -> None:
        self.emit("view", number=self.number(name), of=self.number(of), row=row, column=column, rows=rows,
                  columns=columns)

    def parts(self, m: int, n: int, k: int) -> list[tuple]:
        """Return the parts of a product: (sizes, first row, first column, first along k, first, last)."""
        found, top, left, start = [], 0, 0, 0
        for (rows, columns, depth), first, last in split(self.p.array, m, n, k):
            found.append(((rows, columns, depth), top, left, start, first, last))
            start = 0 if last else start + depth
            if last:
                top, left = (top, left + columns) if left + columns < n else (top + rows, 0)
        return found

    def forward(self) -> None:
        for i, layer in enumerate(self.run.layers):
            self.gemm(i, FORWARD, f"x{i}", f"w{i + 1}", f"x{i + 1}", (self.rows, layer.outputs, layer.inputs),
                      bias=f"b{i + 1}", relu=int(i + 1 < len(self.run.layers)))

    def train(self) -> None:
        """Emit a step of training."""
        rows, layers = self.rows, self.run.layers
        for part in sorted(self.run.lr_drops):
            since = math.ceil(part * self.run.steps)
            drops = sum(since >= each * self.run.steps for each in self.run.lr_drops)
            self.set("rate", self.rate(drops), since)
        self.emit("in", to=self.number("x0"))
        self.emit("in", to=self.number("y"))
        self.forward()
        last = len(layers)
        self.emit("head", a=self.number(f"x{last}"), labels=self.number("y"), to=self.number(f"d{last}"),
                  use=8 * (last - 1) + HEAD)
        for i in reversed(range(last)):
            if i:
                self.gemm(i, INPUT, f"d{i + 1}", f"w{i + 1}", f"d{i}", (rows, layers[i].inputs, layers[i].outputs),
                          mask=f"x{i}")
            self.emit("part", side=SIDES.index("to"), vector=layers[i].outputs * vectors_of(layers[i].inputs),
                      pitch=vectors_of(layers[i].outputs))
            self.emit("sums", a=self.number(f"d{i + 1}"), to=self.number(f"b{i + 1}"), use=8 * i + WEIGHT)
            self.gemm(i, WEIGHT, f"d{i + 1}", f"x{i}", f"w{i + 1}", (layers[i].outputs, layers[i].inputs, rows),
                      update=1)
        self.emit("step", counter=COUNTERS.index("training"), next=1)
        self.flip("x0")
        self.flip("y")

    def rate(self, drops: int) -> int:
        return rate_code(self.p.stored, float(self.run.lr * 0.5**drops), "lr")

    def epoch(self) -> None:
        """Emit an epoch of training: full batches, and the last one."""
        full, tail = divmod(self.run.train, self.run.batch)
        for count, rows in ((full, self.run.batch), (1, tail)):
            if count and rows:
                self.batch(rows)
                self.set("scale", self.constant(1 / rows))
                self.loop(count, self.train)

    def measure(self, examples: int, first: int) -> None:
        """Emit the measuring of accuracy: logits go to the host."""
        def body() -> None:
            self.emit("in", to=self.number("x0"))
            self.forward()
            self.emit("out", a=self.number(f"x{len(self.run.layers)}"))
            self.emit("step", counter=COUNTERS.index("measuring"), next=1)
            self.flip("x0")

        full, tail = divmod(examples, self.run.batch)
        self.set("measuring", first)
        self.emit("step", counter=COUNTERS.index("measuring"))
        for count, rows in ((full, self.run.batch), (1, tail)):
            if count and rows:
                self.batch(rows)
                self.loop(count, body)
        self.emit("step", counter=COUNTERS.index("training"))

    def flip(self, name: str) -> None:
        """Emit that the next batch goes to the other half, if there is one."""
        if self.shapes[name]["other"] != self.shapes[name]["block"]:
            self.emit("flip", number=self.number(name))

    def whole(self) -> None:
        """Emit a run: parameters in, epochs, parameters out."""
        run, layout, recipe = self.run, self.layout, self.run.recipe
        self.set("seed", run.seed)
        self.set("method", METHODS.index(recipe.kept.update))
        self.set("rate", self.rate(0))
        self.set("momentum", rate_code(self.p.stored, float(run.momentum), "momentum"))
        self.set("decay", rate_code(self.p.stored, float(run.decay), "decay"))
        self.modes()
        planes = range(self.p.planes + 1)
        for i, layer in enumerate(run.layers):
            self.tensor(f"w{i + 1}", "W", layout.w[i], layout.stride[i], layer.outputs, layer.inputs)
            block, top = layout.b[i]
            self.tensor(f"b{i + 1}", "W", block, 1, 1, layer.outputs, top)
            for name in (f"w{i + 1}", f"b{i + 1}"):
                for plane in planes:
                    self.emit("in", to=self.number(name), plane=plane)
        groups, rest = divmod(run.epochs, run.measure_every)
        for loops, epochs in ((groups, run.measure_every), (1, rest)):
            if loops and epochs:
                self.emit("loop", count=loops)
                self.emit("loop", count=epochs)
                self.epoch()
                self.emit("end")
                self.measure(run.train, MEASURED)
                if run.test:
                    self.measure(run.test, MEASURED + TESTED)
                self.emit("end")
        for i in range(len(run.layers)):
            for name in (f"w{i + 1}", f"b{i + 1}"):
                for plane in planes:
                    self.emit("out", a=self.number(name), plane=plane)
        self.emit("halt")

    def modes(self) -> None:
        """Emit the modes of every operand, but those that depend on the tensor's numbers."""
        system, recipe = self.p.system, self.run.recipe
        if "scale" in system.modes:
            return
        for kind in KINDS:
            packed, place = 0, 0
            for name, value in recipe.mode(kind).items():
                packed |= value << place
                place += system.modes[name]
            for layer in range(len(self.run.layers) if system.modes else 0):
                self.emit("mode", kind=KINDS.index(kind), layer=layer, value=packed)


def compiled(parameters: TrainerParameters, run: Run) -> Program:
    """Return the program of a run in a core; ValueError, in one line, where it does not fit."""
    require_runs(parameters, run)
    compiler = _Compiler(parameters, run)
    compiler.whole()
    return Program(tuple(compiler.code), {number: name for name, number in compiler.names.items()})
