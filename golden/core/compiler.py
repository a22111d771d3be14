"""From layers, recipe and batch to a program: what a step does, and in which parts."""

import math
from collections.abc import Iterator

from ...base.checks import require, require_int
from ..floating import arithmetic
from ..madam import correction
from ..network import HEAD, MEASURED, TESTED, Convolution
from ..number_system import vectors_of
from ..precision import Adaptive
from ..recipes import Kept
from ..update import METHODS, rate_code
from .builder import FORWARD, INPUT, WEIGHT, Builder
from .instructions import COUNTERS, SIDES
from .layout import SIZES, Layout, Run, parts_of, require_runs
from .modes import emit_modes
from .parameters import TrainerParameters
from .program import Program
from .sequencer import CODE

__all__ = ["compiled", "reading"]


class _Compiler(Builder):
    def __init__(self, parameters: TrainerParameters, run: Run, parts: int, blocks: int) -> None:
        policies = vars(run.recipe.policies).items() if run.recipe.policies else ()
        super().__init__(parameters, run, [kind for kind, policy in policies if isinstance(policy, Adaptive)])
        self.pieces, self.cut = parts, blocks
        require(parts == blocks == 1 or not self.scaled, "parts and blocks", (parts, blocks),
                "1: operands have a scale of the whole tensor")
        self.layout = Layout(run, parameters.side, parameters.examples > 0)
        for setting, name in SIZES.items():
            has, needed = parameters.blocks[name], self.layout.needed[name]
            require(needed <= has, setting, has * parameters.side**2,
                    f"{needed * parameters.side**2} elements or more, which memory {name} needs for this network and "
                    "batch")
        require(run.batch <= parameters.labels, "labels", parameters.labels, f"{run.batch} or more, those of a batch")

    def constant(self, value: float) -> int:
        return int(self.p.work.encode(arithmetic(self.p.work).number(value)))

    def batch(self, rows: int) -> None:
        """Define what depends on the size of a batch."""
        self.rows = rows
        layout, layers, blocks = self.layout, self.run.layers, self.p.blocks
        for i in range(len(layers) + 1):
            size = self.layout.sizes[i]
            # The next batch comes in meanwhile, where there is room for it.
            memory, other = "X" if i else layout.source, layout.x[i]
            if i == 0 and blocks[memory] >= layout.needed[memory] + layout.examples:
                other = layout.needed[memory]
            self.tensor(f"x{i}", memory, layout.x[i], layout.stride[i], rows, size, other=other)
            if i:
                self.tensor(f"d{i}", "D", layout.d[i - 1], layout.stride[i], rows, size)
        labels = -(-self.run.batch // 256)
        self.tensor("y", "L", 0, 1, 1, rows, other=labels if blocks["L"] >= 2 * labels else 0)

    def pipelined(self, stages: int) -> Iterator[tuple[int, int, int]]:
        """Yield (stage, first row, rows) of each part of a batch in each stage: a part follows the one before it."""
        parts = parts_of(self.rows, self.pieces, self.p.side)
        for time in range(len(parts) + stages - 1):
            for stage in range(stages):
                if 0 <= time - stage < len(parts):
                    yield stage, *parts[time - stage]

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield (first, number) of the first layer's outputs that are moved, and used, apart from others."""
        outputs = self.run.layers[0].outputs
        size = -(-outputs // (self.cut * self.p.side)) * self.p.side
        yield from ((start, min(size, outputs - start)) for start in range(0, outputs, size))

    def forward(self, head: bool = False) -> None:
        """Emit the forward pass, and with `head` the errors of the last layer, part by part."""
        layers, last = self.run.layers, len(self.run.layers)
        for i, start, rows in self.pipelined(last + head):
            x = self.part_of(f"x{i}", start, rows)
            if i == last:
                if start and self.p.error_rounding == "stochastic":
                    self.emit("part", vector=start * vectors_of(layers[-1].outputs))
                self.emit("head", a=self.number(x), labels=self.number(self.part_of("y", 0, 1, start, rows)),
                          to=self.number(self.part_of(f"d{last}", start, rows)), use=8 * (last - 1) + HEAD)
                continue
            layer, z = layers[i], self.pixels(i, self.part_of(f"x{i + 1}", start, rows))
            x, m = self.patches(i, x), rows * layer.positions
            for left, outputs in [(0, layer.outputs)] if i else self.blocks():
                self.gemm(i, FORWARD, x, self.part_of(f"w{i + 1}", left, outputs),
                          self.part_of(z, 0, m, left, outputs), (m, outputs, layer.patch), start * layer.positions,
                          left, bias=self.part_of(f"b{i + 1}", 0, 1, left, outputs), relu=int(i + 1 < last))

    def patches(self, i: int, x: str) -> str:
        """Return the name of a layer's patches: what its forward product multiplies."""
        layer = self.run.layers[i]
        if not isinstance(layer, Convolution):
            return x
        (down, across), kernel = layer.shape, layer.kernel
        return self.window("patches", x, height=layer.height, width=layer.width, channels=layer.channels,
                           down=down, across=across, taps_y=kernel, taps_x=kernel, step=layer.stride, pad=layer.padding)

    def pixels(self, i: int, tensor: str) -> str:
        """Return the name of a layer's result, or of its gradient, with a row for each pixel."""
        layer = self.run.layers[i]
        if not isinstance(layer, Convolution):
            return tensor
        down, across = layer.shape
        return self.window("pixels", tensor, height=down, width=across, channels=layer.outputs, down=down,
                           across=across, taps_y=1, taps_x=1, step=1)

    def backward(self, i: int) -> None:
        """Emit the input gradient of a layer, part by part; of a convolution, phase by phase."""
        layer, before = self.run.layers[i], (0, 0)
        if not isinstance(layer, Convolution):
            for _, start, rows in self.pipelined(1):
                d, to, mask = (self.part_of(name, start, rows) for name in (f"d{i + 1}", f"d{i}", f"x{i}"))
                self.gemm(i, INPUT, d, f"w{i + 1}", to, (rows, layer.inputs, layer.outputs), start, mask=mask)
            return
        step, kernel, (height, width) = layer.stride, layer.kernel, layer.shape
        if step > kernel:  # pixels that no place of the kernel meets
            self.emit("fill", to=self.number(f"d{i}"))
        for py in range(min(step, layer.height)):
            for px in range(min(step, layer.width)):
                (out_y, ky), (out_x, kx) = (divmod(start + layer.padding, step) for start in (py, px))
                if max(ky, kx) >= kernel:
                    continue
                taps_y, taps_x = (len(range(start, kernel, step)) for start in (ky, kx))
                down, across = len(range(py, layer.height, step)), len(range(px, layer.width, step))
                name = f"w{i + 1}_taps"
                self.emit("taps", number=self.number(name), of=self.number(f"w{i + 1}"), kernel=kernel,
                          channels=layer.channels, taps_y=taps_y, taps_x=taps_x, step=step, shift_y=ky, shift_x=kx)
                k, places = taps_y * taps_x * layer.outputs, down * across
                groups = -(-k // self.group)
                for _, start, rows in self.pipelined(1):
                    d, to, mask = (self.part_of(each, start, rows) for each in (f"d{i + 1}", f"d{i}", f"x{i}"))
                    d = self.window("phase", d, height=height, width=width, channels=layer.outputs, down=down,
                                    across=across, taps_y=taps_y, taps_x=taps_x, step=1, reverse=1, shift_y=out_y,
                                    shift_x=out_x)
                    to, mask = (self.window("phase", each, height=layer.height, width=layer.width,
                                            channels=layer.channels, down=down, across=across, taps_y=1, taps_x=1,
                                            step=step, shift_y=py, shift_x=px) for each in (to, mask))
                    self.gemm(i, INPUT, d, name, to, (rows * places, layer.channels, k), start * places, mask=mask,
                              before=before)
                before = before[0] + self.rows * places * groups, before[1] + layer.channels * groups

    def move(self, i: int, first: int, outputs: int) -> None:
        """Emit the weight gradient of some outputs of a layer, by which their weights move."""
        layer = self.run.layers[i]
        m = self.rows * layer.positions
        d = self.part_of(self.pixels(i, f"d{i + 1}"), 0, m, first, outputs)
        self.gemm(i, WEIGHT, d, self.patches(i, f"x{i}"), self.part_of(f"w{i + 1}", first, outputs),
                  (outputs, layer.patch, m), first, update=1)

    def train(self) -> None:
        """Emit a step of training."""
        layers = self.run.layers
        for part in sorted(self.run.lr_drops):
            since = math.ceil(part * self.run.steps)
            drops = sum(since >= each * self.run.steps for each in self.run.lr_drops)
            self.set("rate", self.rate(drops), since)
        self.corrections()
        self.emit("in", to=self.number("x0"))
        self.emit("in", to=self.number("y"))
        self.settle()  # behind these, so that examples come while the step before ends
        self.forward(head=True)
        for i in reversed(range(len(layers))):
            self.emit("part", side=SIDES.index("to"), vector=layers[i].outputs * vectors_of(layers[i].patch),
                      pitch=vectors_of(layers[i].outputs))
            self.emit("sums", a=self.number(self.pixels(i, f"d{i + 1}")), to=self.number(f"b{i + 1}"),
                      use=8 * i + WEIGHT)
            if i:
                self.backward(i)
        # The next step begins with the first layer's weights. If they move in one block, they move first, and others
        # are multiplied while results leave. In several blocks they move last: the next step begins with the first of
        # them. The others then cover the time in which the latest errors are written.
        *most, last = [(0, *block) for block in self.blocks()]
        others = [(i, 0, layer.outputs) for i, layer in enumerate(layers)][1:]
        for block in [*others, *most, last] if most else [last, *others]:
            self.move(*block)
        self.emit("step", counter=COUNTERS.index("training"), next=1)
        self.flip("x0")
        self.flip("y")

    def settle(self) -> None:
        """Emit the end of the step before, which a loss scale may have made invalid."""
        if self.run.recipe.scale:
            self.emit("settle")

    def madam(self) -> None:
        """Emit scales and bounds of logarithmic weights."""
        for layer, logs in enumerate(self.run.begin.logs):
            if logs:
                scale, bound = logs
                self.emit("logs", layer=layer, scale=scale + CODE, bound=bound)

    def corrections(self) -> None:
        """Emit what Madam needs in a step: its rate, and the correction of second moments, from the steps they change.

        Corrections rise to 0, so that each change is found by halving.
        """
        stored, steps = self.run.recipe.stored, self.run.steps
        if stored is None:
            return
        assert stored.madam is not None
        for part in (0.0, *stored.drops):
            since = math.ceil(part * steps)
            self.set("shift", stored.rate_at(since, steps), since)
        since = 0
        while since < steps:
            value, low, high = correction(stored.madam, since + 1), since, steps
            self.set("correction", value % (1 << 32), since)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if correction(stored.madam, middle + 1) == value else (low, middle)
            since = high

    def rate(self, drops: int) -> int:
        return self.rate_of("lr", self.run.lr * 0.5**drops)

    def rate_of(self, name: str, value: float) -> int:
        code = rate_code(self.p.stored, float(value), name)
        # Where the work format moves parameters, a rate may be subnormal in training.
        narrow = self.run.recipe.kept != Kept() or not arithmetic(self.p.work).native
        require(code > 0 or value == 0 or narrow, name, value, f"0, or {2.0**self.p.stored.emin} or more, in a core")
        return code

    def epoch(self, done: int = 0) -> None:
        """Emit an epoch of training, but for the steps that are done: full batches, and the last one."""
        full, tail = divmod(self.run.train, self.run.batch)
        for count, rows in ((full - done, self.run.batch), (1, tail)):
            if count > 0 and rows:
                self.batch(rows)
                self.set("scale", self.constant(1 / rows))
                self.loop(count, self.train)
                self.settle()

    def measure(self) -> None:
        """Emit what follows an epoch that is measured."""
        self.logits(self.run.train, MEASURED)
        if self.run.test:
            self.logits(self.run.test, MEASURED + TESTED)
        if self.run.saved:
            self.emit("step", counter=COUNTERS.index("measuring"))
            self.parameters("out", "a")
            self.emit("step", counter=COUNTERS.index("training"))

    def parameters(self, name: str, field: str) -> None:
        """Emit an instruction for each plane of each parameter."""
        for i in range(len(self.run.layers)):
            for tensor in (f"w{i + 1}", f"b{i + 1}"):
                for plane in range(self.p.planes + 1):
                    self.emit(name, **{field: self.number(tensor)}, plane=plane)

    def logits(self, examples: int, first: int) -> None:
        """Emit a forward pass of examples: logits go to the host."""
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

    def whole(self) -> None:
        """Emit a run: parameters in, epochs, parameters out."""
        run, recipe = self.run, self.run.recipe
        self.set("seed", run.seed)
        if run.begin.step:
            self.set("training", run.begin.step)
        self.set("method", METHODS.index(recipe.kept.update))
        self.set("rate", self.rate(0))
        self.set("momentum", self.rate_of("momentum", run.momentum))
        if self.p.decays:
            self.set("decay", self.rate_of("decay", run.decay))
        if recipe.scale:
            for name, value in (("loss", run.begin.scale.bit_length() - 1), ("accepted", run.begin.accepted),
                                ("interval", recipe.scale.interval or 0)):
                self.set(name, value)
        emit_modes(self)
        self.madam()
        self.define()
        self.parameters("in", "to")
        self.epochs()
        self.parameters("out", "a")
        self.emit("halt")

    def define(self) -> None:
        """Emit the tensors of all parameters."""
        layout = self.layout
        for i, layer in enumerate(self.run.layers):
            self.tensor(f"w{i + 1}", "W", layout.w[i], layout.pitch[i], layer.outputs, layer.patch)
            block, top = layout.b[i]
            self.tensor(f"b{i + 1}", "W", block, 1, 1, layer.outputs, top)

    def read(self) -> None:
        """Emit that parameters are sent."""
        self.define()
        self.parameters("out", "a")
        self.emit("halt")

    def epochs(self) -> None:
        """Emit the epochs that are left, and the measuring of accuracy."""
        run = self.run
        epoch, done = divmod(run.begin.step, run.per_epoch)  # whole ones, and steps of the next one
        to_measure = run.measured[len(run.begin.history):]
        if to_measure and (done or epoch == to_measure[0] or epoch % run.measure_every):
            # A run goes on within what is measured together.
            if done:
                self.epoch(done)
                epoch += 1
            if to_measure[0] > epoch:
                self.emit("loop", count=to_measure[0] - epoch)
                self.epoch()
                self.emit("end")
            self.measure()
            epoch = to_measure[0]
        groups, rest = divmod(run.epochs - epoch, run.measure_every)
        for loops, epochs in ((groups, run.measure_every), (1, rest)):
            if loops and epochs:
                self.emit("loop", count=loops)
                self.emit("loop", count=epochs)
                self.epoch()
                self.emit("end")
                self.measure()
                self.emit("end")


def compiled(parameters: TrainerParameters, run: Run, parts: int = 1, blocks: int = 1) -> Program:
    """Return the program of a run in a core; ValueError, in one line, where it does not fit.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    parts : int
        Parts of a batch that follow each other through the forward pass, the head and the input gradients: while one is
        in the head, the array works on the next one. 1 to 8.
    blocks : int
        Parts of the first layer's outputs, 1 to 8: the next step uses the first ones while the last ones move. No bit
        depends on either number.
    """
    require_runs(parameters, run)
    require_int("parts", parts, 1, 8)
    require_int("blocks", blocks, 1, 8)
    compiler = _Compiler(parameters, run, parts, blocks)
    compiler.whole()
    return _program(compiler)


def reading(parameters: TrainerParameters, run: Run) -> Program:
    """Return a program that sends parameters and moments, for a core that a run's program was stopped in."""
    compiler = _Compiler(parameters, run, 1, 1)
    compiler.read()
    return _program(compiler)


def _program(compiler: _Compiler) -> Program:
    parameters = compiler.p
    count = len(compiler.code)
    require(count <= parameters.program, "program", parameters.program,
            f"{1 << (count - 1).bit_length()} or more, for {count} instructions")
    return Program(tuple(compiler.code), {number: name for name, number in compiler.names.items()})
