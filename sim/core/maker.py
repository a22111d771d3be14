"""Makes random programs of the trainer, an instruction at a time, with the tensors that they read."""

from typing import Any

import numpy as np

from ...golden.array import Product
from ...golden.core import Instruction, Program, Taps, TrainerParameters, Window
from ...golden.core.instructions import MEMORIES
from ...golden.core.transfers import Transfers

__all__ = ["LARGER", "Maker"]

# Numbers of tensors that have parts: of a matrix, and of a window.
LARGER, WHOLE = 60, 61
STEP = Instruction("sync")  # behind each instruction of a unit, because golden executes them in order


class Maker:
    """Makes a program, and the tensors that it reads."""

    def __init__(self, parameters: TrainerParameters, rng: np.random.Generator) -> None:
        self.p, self.rng, self.side = parameters, rng, parameters.side
        self.code: list[Instruction] = []
        self.tensors: list[np.ndarray] = []
        self.numbers = 0

    def emit(self, name: str, **fields: Any) -> None:
        """Add an instruction, and behind one of a unit a ``sync``."""
        self.code.append(Instruction(name, **{field: int(value) for field, value in fields.items()}))
        if self.code[-1].unit != "sequencer":
            self.code.append(STEP)

    def tensor(self, memory: str, rows: int, columns: int, top: int = 0, left: int = 0) -> int:
        """Define a tensor anywhere in a memory, if it fits there at all; return its number."""
        blocks, rng = self.p.blocks[memory], self.rng
        number, self.numbers = self.numbers % LARGER, self.numbers + 1
        if memory == "L":
            first = int(rng.integers(0, self.p.labels - columns + 1))
            self.emit("tensor", number=number, memory=MEMORIES.index(memory), block=first // 256, left=first % 32,
                      rows=1, columns=columns)
            return number
        high, wide = -(-(top + rows) // self.side), -(-(left + columns) // self.side)
        stride = int(rng.integers(wide, max((blocks - wide) // max(high - 1, 1), wide) + 1)) if high > 1 else wide
        last = (high - 1) * stride + wide
        block = int(rng.integers(0, blocks - last + 1))
        place = {"memory": MEMORIES.index(memory), "block": block, "other": block, "stride": stride}
        if rng.random() < 0.5:
            self.emit("tensor", number=number, **place, top=top, left=left, rows=rows, columns=columns)
        else:  # as a part of a larger one, which begins with a block
            self.emit("tensor", number=LARGER, **place, rows=top + rows, columns=left + columns)
            self.emit("view", number=number, of=LARGER, row=top, column=left, rows=rows, columns=columns)
        return number

    def images(self, memory: str, rows: int, columns: int, pixels: bool = False) -> list | None:
        """Return where a window or taps, of any kind and with a part of so many rows and columns, would lie.

        The answer is (rows and columns of the tensor, its first row and column, Window or Taps, row and column of the
        part), or None where none was found. Rows of a result are `pixels` of an image.
        """
        rng = self.rng
        for _ in range(20):
            draw = {name: int(rng.integers(1, 7)) for name in ("height", "width", "down", "across")}
            step, pad = int(rng.integers(1, 4)), int(rng.integers(0, 3))
            shift_y, shift_x = (int(each) for each in rng.integers(0, 3, 2))
            channels = int(rng.integers(1, 13))
            shape: Window | Taps
            if memory == "W":
                kernel = int(rng.integers(1, 5))
                shift_y, shift_x = (int(each) for each in rng.integers(0, min(step, kernel), 2))
                taps_y, taps_x = (len(range(shift, kernel, step)) for shift in (shift_y, shift_x))
                shape = Taps(kernel, columns + int(rng.integers(3)), taps_y, taps_x, step, shift_y, shift_x)
                count, places = -(-rows // (taps_y * taps_x)) + int(rng.integers(3)), taps_y * taps_x
                whole = kernel**2 * shape.channels
                size = places * count, shape.channels
            else:
                taps_x, reverse = int(rng.integers(1, 4)), int(rng.integers(2))
                taps_y = -(-columns // (taps_x * channels)) + int(rng.integers(2))
                if pixels:
                    channels, taps_y, taps_x, reverse, pad = columns + int(rng.integers(3)), 1, 1, 0, 0
                    for name, along, shift in (("height", "down", shift_y), ("width", "across", shift_x)):
                        draw[name] = (draw[along] - 1) * step + shift + 1 + int(rng.integers(2))
                if taps_y > 15:
                    continue
                shape = Window(channels=channels, taps_y=taps_y, taps_x=taps_x, step=step, reverse=reverse,
                               shift_y=shift_y, shift_x=shift_x, pad=pad, **draw)
                places = shape.down * shape.across
                count = -(-rows // places) + int(rng.integers(2))
                whole = shape.height * shape.width * channels
                size = places * count, taps_y * taps_x * channels
            top, left = (int(rng.integers(self.side)) * int(rng.integers(2)) for _ in range(2))
            if self.fits(memory, count, whole, top, left):
                part = [int(rng.integers(0, most - least + 1)) for most, least in zip(size, (rows, columns))]
                return [(count, whole), (top, left), shape, part]
        return None

    def window(self, memory: str, rows: int, columns: int, found: list) -> tuple[int, int]:
        """Define what `images` found; return the numbers of the tensor and of the window's part."""
        (count, whole), start, shape, part = found
        tensor = self.tensor(memory, count, whole, *start)
        number, self.numbers = self.numbers % LARGER, self.numbers + 1
        self.emit("window" if isinstance(shape, Window) else "taps", number=WHOLE, of=tensor, **vars(shape))
        self.emit("view", number=number, of=WHOLE, row=part[0], column=part[1], rows=rows, columns=columns)
        return tensor, number

    def fits(self, memory: str, rows: int, columns: int, top: int = 0, left: int = 0) -> bool:
        """Return whether a memory has room for a tensor."""
        return -(-(top + rows) // self.side) * -(-(left + columns) // self.side) <= self.p.blocks[memory]

    def multiplies(self, m: int, n: int, k: int) -> bool:
        """Return whether the buffers have room for a product."""
        try:
            Product(m, n, k).fits(self.p.array)
        except ValueError:
            return False
        return True

    def numbers_of(self, rows: int, columns: int) -> np.ndarray:
        """Return codes: most of like numbers, some of zeros, in a few tensors of any code at all."""
        rng, work = self.rng, self.p.work
        values = rng.normal(size=(rows, columns)) * 2.0 ** rng.integers(-6, 3, (rows, 1))
        codes = np.where(rng.random((rows, columns)) < 0.1, 0, work.encode(values)).astype(np.uint32)
        if rng.random() < 0.02:
            codes[rng.integers(rows), rng.integers(columns)] = rng.integers(0, 1 << work.width)
        return codes

    def logs_of(self, rows: int, columns: int) -> np.ndarray:
        """Return codes of logarithmic weights: most in the upper octaves, some zeros, and any."""
        rng, fmt = self.rng, self.p.madam.weight  # type: ignore[union-attr]  # where there are any
        codes = rng.integers(fmt.top // 2, fmt.top + 1, (rows, columns)) | rng.integers(0, 2, (rows, columns)) << (
            fmt.bits - 1)
        kind = rng.random((rows, columns))
        codes = np.where(kind < 0.2, rng.integers(0, 1 << fmt.bits, (rows, columns)), np.where(kind < 0.25, 0, codes))
        return codes.astype(np.uint32)

    def kept_of(self, rows: int, columns: int, plane: int) -> np.ndarray:
        """Return codes of weights, or what is kept of them in a plane."""
        madam = self.p.madam
        if madam is None or plane > 1:
            return self.numbers_of(rows, columns)
        return self.rng.integers(0, madam.second_top + 1, (rows, columns)).astype(np.uint32) if plane else (
            self.logs_of(rows, columns))

    def bring(self, number: int, codes: np.ndarray, plane: int = 0) -> None:
        """Read a tensor."""
        self.emit("in", to=number, plane=plane)
        self.tensors.append(codes)

    @property
    def cost(self) -> int:
        """Transfers of the program so far, and of what it reads."""
        return len(self.code) + 1 + sum(len(each) * -(-each.shape[1] // self.p.stream) for each in self.tensors)

    def payloads(self) -> list[int]:
        """Return the program's transfers, and those of its tensors."""
        transfers = Transfers(self.p)
        program = Program((*self.code, Instruction("halt")))
        rows = [transfers.instructions(program), *map(transfers.elements, self.tensors)]
        return transfers.payloads(np.concatenate(rows))
