"""What a program is built of: tensors, their parts, loops with tokens, and products cut to fit the buffers."""

from collections.abc import Callable, Sequence
from typing import Any

from ...base.checks import require
from ..array import split
from ..number_system import vectors_of
from .instructions import MEMORIES, REGISTERS, SIDES, TENSORS, Instruction
from .layout import Run
from .parameters import TrainerParameters
from .sequencer import Sequencer
from .tokens import synchronised
from .views import Window

__all__ = ["FORWARD", "INPUT", "WEIGHT", "Builder"]

FORWARD, INPUT, WEIGHT = 0, 2, 4  # slots of random words: see `network.draws_of`


class Builder:
    """Instructions so far, and the names and shapes of tensors.

    Parameters
    ----------
    parameters : TrainerParameters
    run : Run
    adaptive : sequence of str
        Kinds of tensors whose groups are counted for their precision.
    """

    def __init__(self, parameters: TrainerParameters, run: Run, adaptive: Sequence[str]) -> None:
        self.p, self.run, self.group, self.adaptive = parameters, run, parameters.system.group, adaptive
        self.scaled = "scale" in parameters.system.modes  # of a whole tensor
        self.names: dict[str, int] = {}
        self.shapes: dict[str, dict[str, int]] = {}
        self.code: list[Instruction] = []
        self.body: list[Instruction] | None = None
        self.state = Sequencer(parameters.side)

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
        first, body, last = synchronised(self.state, body, self.p.side, count > 1)
        sync = Instruction("sync")
        self.code += [sync, *first, Instruction("loop", count=count), *body, Instruction("end"), *last, sync]

    def number(self, name: str) -> int:
        """Return the number of a tensor's name, a new one if there is none."""
        require(name in self.names or len(self.names) < TENSORS, "tensors", len(self.names) + 1,
                f"at most {TENSORS}: fewer layers, parts or blocks")
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

    def flip(self, name: str) -> None:
        """Emit that the next batch goes to the other half, if there is one."""
        if self.shapes[name]["other"] != self.shapes[name]["block"]:
            self.emit("flip", number=self.number(name))

    def view(self, name: str, of: str, rows: int, columns: int, row: int, column: int) -> None:
        self.emit("view", number=self.number(name), of=self.number(of), row=row, column=column, rows=rows,
                  columns=columns)

    def part_of(self, tensor: str, row: int, rows: int, column: int = 0, columns: int = 0) -> str:
        """Return the name of a part of a tensor, which is defined here unless it is all of it.

        No `columns` means all of them.
        """
        shape = self.shapes[tensor]
        columns = columns or shape["columns"]
        if (rows, columns) == (shape["rows"], shape["columns"]):
            return tensor
        # Only parts of examples and outputs have numbers of their own: they are used again and again.
        name = f"{tensor}_{row or column}" if "_" not in tensor else f"{tensor.split('_')[0]}_part"
        self.view(name, tensor, rows, columns, row, column)
        self.shapes[name] = shape | {"rows": rows, "columns": columns}
        return name

    def window(self, name: str, of: str, **fields: int) -> str:
        """Define a window on a tensor, and return its name."""
        name = f"{of.split('_')[0]}_{name}"
        view = Window(**dict.fromkeys(Window.__dataclass_fields__, 0) | fields)
        rows, columns = view.size(self.shapes[of]["rows"], self.shapes[of]["columns"])
        self.emit("window", number=self.number(name), of=self.number(of), **vars(view))
        self.shapes[name] = self.shapes[of] | {"rows": rows, "columns": columns}
        return name

    def gemm(self, layer: int, slot: int, a: str, b: str, to: str, sizes: tuple[int, int, int], row: int = 0,
             column: int = 0, before: tuple[int, int] = (0, 0), **flags: Any) -> None:
        """Emit a product, in parts if it does not fit the buffers.

        `row` and `column` are its first ones in the product of whole tensors, of which it may be a part. `before` are
        the vectors of each side in the products before, where a product of whole tensors is made in several.
        """
        bias, mask = flags.pop("bias", None), flags.pop("mask", None)
        across = [slot == WEIGHT, slot != FORWARD]
        common = {"use": 8 * layer + slot, "across_a": int(across[0]), "across_b": int(across[1]),
                  "biased": int(bias is not None), "masked": int(mask is not None), **flags}
        m, n, k = sizes
        parts, pitch = self.parts(m, n, k), -(-k // self.group)
        require(len(parts) == 1 or not self.scaled, "buffer", self.p.buffer,
                "more: operands with a scale of the whole tensor are not cut")
        for (rows, columns, depth), top, left, start, first, last in parts:
            names = a, b, to, bias, mask
            if len(parts) > 1:
                self.view("va", a, *((depth, rows, start, top) if across[0] else (rows, depth, top, start)))
                self.view("vb", b, *((depth, columns, start, left) if across[1] else (columns, depth, left, start)))
                self.view("vto", to, rows, columns, top, left)
                if bias:
                    self.view("vbias", bias, 1, columns, 0, left)
                if mask:
                    self.view("vmask", mask, rows, columns, top, left)
                names = "va", "vb", "vto", bias and "vbias", mask and "vmask"
            for side, at in enumerate((row + top, column + left)):
                if (at or start or depth < k or before[side]) and self.p.system.random:
                    self.emit("part", side=side, vector=before[side] + at * pitch + start // self.group, pitch=pitch)
            if flags.get("update") and (row or column or len(parts) > 1):
                whole, at = vectors_of(self.run.layers[layer].patch), column + left
                self.emit("part", side=SIDES.index("to"), vector=(row + top) * whole + at // 16, lane=at % 16,
                          pitch=whole)
            counts = self.counts(slot, row, column + left)
            fields = {field: self.number(name) for field, name in zip(("a", "b", "to", "bias", "mask"), names) if name}
            self.emit("gemm", **fields, **counts, continued=int(not first), open=int(not last), **common)

    def counts(self, slot: int, row: int, column: int) -> dict[str, int]:
        """Return which operands' groups are counted for their precision: each of a tensor once.

        Activations and weights have their groups along the forward product, gradients along the weight gradient.
        """
        kinds = {FORWARD: ("activations", "weights"), WEIGHT: ("gradients", "")}.get(slot, ("", ""))
        return {f"count_{side}": int(kind in self.adaptive and not other)
                for side, kind, other in zip("ab", kinds, (column, row))}

    def parts(self, m: int, n: int, k: int) -> list[tuple]:
        """Return the parts of a product: (sizes, first row, first column, first along k, first, last)."""
        found, top, left, start = [], 0, 0, 0
        for (rows, columns, depth), first, last in split(self.p.array, m, n, k):
            found.append(((rows, columns, depth), top, left, start, first, last))
            start = 0 if last else start + depth
            if last:
                top, left = (top, left + columns) if left + columns < n else (top + rows, 0)
        return found
