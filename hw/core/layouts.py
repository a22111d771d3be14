"""Layouts and widths that the core's parts share."""

from dataclasses import dataclass, replace

from amaranth import *
from amaranth.lib import data

from ...golden.array import SIZE
from ...golden.core import TrainerParameters
from ...golden.core.instructions import FIELDS, KINDS, OPCODE, OPERATIONS
from ...golden.madam import MadamParameters
from ...golden.number_system import NumberSystem
from ...golden.update import SGDParameters
from ..array.layouts import size_of
from ..madam import CORRECTION, RATE
from .codes import system_of

__all__ = ["NUMBER", "SIZE", "Geometry", "fields_of", "kept_layout", "least_power", "madam_layout", "piece_layout",
           "place_layout", "read_layout", "shape_layout", "size_of"]

NUMBER = SIZE + 2  # bits of a place in a row of a tensor, which may be beyond either end


def least_power(number: int) -> int:
    """Return the least power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Geometry:
    """Sizes that follow from a core's parameters.

    Attributes
    ----------
    side, low : int
        Elements of a block's row, and the bits of an index in it.
    along : int
        Bits of a vector's number in a block's row; 0 where that is a vector.
    width : int
        Results that leave the cells in a cycle: a part of a row of cells, or those of whole rows side by side.
    lanes : int
        Parameters that are moved in a cycle.
    planes, banks : int
        Planes of M, each with a number beside every parameter; and the banks of M: `lanes` for each plane.
    bits : int
        Of an element of the memories.
    system : NumberSystem
        As the array has it: see `codes.system_of`.
    sgd : SGDParameters
        Of an update lane: with a compensation, or able to grow, where a method of the core needs it.
    madam : MadamParameters, optional
        Of an update lane of logarithmic weights: gradients are in the work format.
    rates : dict of str to int
        What parameters are moved by, beside a method, with its bits.
    memories : dict of str to (str, int)
        Of X, D and W: the memory that has it, and the first of its blocks there.
    depths : dict of str to int
        Blocks of each memory.
    windows : bool
        There are windows and taps.
    loss : bool
        There may be a loss scale.
    chunk : int, optional
        Products, and rows of errors, that are summed apart before their sums are added.
    chooses, adaptive, scaled : bool
        Precisions may be chosen; tensors may choose theirs; operands have a scale of the whole tensor.
    needs_modes : bool
        A program has to give modes of operands.
    layer : int
        Bits of a layer whose tensors may.
    counted : tuple of tuple of str
        Of each converter, the kinds of tensors whose groups may be counted there.
    """

    parameters: TrainerParameters

    @property
    def side(self) -> int:
        return self.parameters.side

    @property
    def low(self) -> int:
        return self.side.bit_length() - 1

    @property
    def along(self) -> int:
        return (self.side // self.parameters.system.group).bit_length() - 1

    @property
    def width(self) -> int:
        return self.parameters.width

    @property
    def lanes(self) -> int:
        return self.parameters.lanes

    @property
    def planes(self) -> int:
        return self.parameters.planes

    @property
    def banks(self) -> int:
        return self.planes * self.lanes

    @property
    def bits(self) -> int:
        return self.parameters.work.width

    @property
    def system(self) -> NumberSystem:
        return system_of(self.parameters)

    @property
    def sgd(self) -> SGDParameters:
        p = self.parameters
        return SGDParameters(p.stored, grow="grow" in p.updates, rates=p.rates, random_bits=p.update_bits,
                             compensated=p.planes > 1, decays=p.decays)

    @property
    def rates(self) -> dict[str, int]:
        names = ("rate", "momentum", "decay") if self.parameters.decays else ("rate", "momentum")
        return dict.fromkeys(names, self.sgd.rate_bits)

    @property
    def madam(self) -> MadamParameters | None:
        p = self.parameters
        return p.madam and replace(p.madam, gradient=p.work, lanes=1)

    @property
    def memories(self) -> dict[str, tuple[str, int]]:
        blocks = self.parameters.blocks
        if self.parameters.merged:
            return {"X": ("xdw", 0), "D": ("xdw", blocks["X"]), "W": ("xdw", blocks["X"] + blocks["D"])}
        return {name: (name.lower(), 0) for name in "XDW"}

    @property
    def depths(self) -> dict[str, int]:
        blocks = self.parameters.blocks
        if self.parameters.merged:
            return {"xdw": blocks["X"] + blocks["D"] + blocks["W"]}
        return {name.lower(): blocks[name] for name in "XDW"}

    @property
    def windows(self) -> bool:
        return self.parameters.windows

    @property
    def loss(self) -> bool:
        return self.parameters.loss_scale

    @property
    def chunk(self) -> int | None:
        return getattr(self.parameters.system, "chunk", None)

    @property
    def chooses(self) -> bool:
        return self.parameters.policies != ("constant",)

    @property
    def adaptive(self) -> bool:
        return "adaptive" in self.parameters.policies

    @property
    def scaled(self) -> bool:
        return "scale" in self.parameters.system.modes

    @property
    def needs_modes(self) -> bool:
        return bool(self.parameters.system.modes) and not self.scaled

    @property
    def layer(self) -> int:
        return (self.parameters.layers - 1).bit_length()

    @property
    def counted(self) -> tuple[tuple[str, ...], ...]:
        return (KINDS,) if self.parameters.converters == 1 else (("activations", "gradients"), ("weights",))

    def key_bits(self, converter: int) -> int:
        """Return the bits of a number of such a tensor in a layer."""
        return self.layer + (len(self.counted[converter]) - 1).bit_length()

    @property
    def block(self) -> int:
        """Bits of a block's number."""
        return max(*map(size_of, self.depths.values()), size_of(self.parameters.labels // 256))


def place_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a tensor's place: see `golden.core.View`. Blocks are those of the memory that has it."""
    return data.StructLayout({
        "memory": FIELDS["memory"][0], "block": geometry.block, "stride": geometry.block, "top": geometry.low,
        "left": SIZE, "rows": SIZE, "columns": SIZE,
    })


def shape_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a window or of taps, for a walk through it from its first element on.

    An image is a row of its tensor: line by line, and in a line pixel by pixel. Of taps the image is a kernel, and
    there is one for each output. See `golden.core.Window` and `golden.core.Taps`. All places may be outside the image.

    - ``height``, ``line``: lines of an image, and numbers of a line.
    - ``across``, ``down``: places, or taps. ``count``: images, or outputs. With ``taps`` outputs change fastest.
    - ``run``: numbers that always follow each other. ``turns``: runs of a line, which go back with ``reverse``.
    - ``step``: lines from a place to the one below. ``step_x``, ``step_y``: numbers to the next place, and below.
    - ``y0``, ``b0``, ``x0``: an image's first place. This is its line, where the line begins, and the place in it.
    - ``safe``: each row is a pixel of an image.
    - The first row has ``image`` and place (``y``, ``x``). ``py``, ``b`` and ``q`` are as ``y0``, ``b0`` and ``x0``.
      ``block`` is the first one of its row of blocks.
    - The first column is number ``e`` of run ``tx``. From a place it is ``pyt`` lines away, ``bt`` numbers to the line,
      and ``qt`` in it.
    - ``tall``, ``wide``: rows and columns of the tensor, where a scale is searched for in all of it.
    """
    return data.StructLayout({
        "windowed": 1, "taps": 1, "reverse": 1, "safe": 1, "height": 8, "line": SIZE, "across": 8, "down": 8,
        "turns": 4, "run": SIZE, "count": SIZE, "step": 4, "step_x": 18, "step_y": NUMBER,
        "y0": signed(6), "x0": signed(19), "b0": NUMBER,
        "image": SIZE, "block": geometry.block, "x": 8, "y": 8, "q": signed(27), "py": signed(13), "b": NUMBER,
        "e": SIZE, "tx": 4, "qt": signed(19), "pyt": signed(6), "bt": NUMBER,
        **(dict.fromkeys(("tall", "wide"), SIZE) if geometry.scaled else {}),
    })


def madam_layout(geometry: Geometry) -> dict[str, int]:
    """Return what Madam's lanes are told beside a gradient, with its bits: nothing where there are none."""
    madam = geometry.madam
    return {"shift": RATE, "correction": CORRECTION, "bound": madam.weight.bits - 1} if madam else {}


def kept_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of what a part of a window is found by: its first row and column, and the window's numbers."""
    return data.StructLayout({"row": SIZE, "column": SIZE, "places": SIZE, "channels": 14})


def read_layout(geometry: Geometry) -> data.StructLayout:
    """Return the layout of a request for a memory's elements: from (row, column) of a block on, along the row.

    What goes beyond the block is read from the next one. With ``down`` they follow each other along the column.
    With windows, ``turn`` is the place of the first one in the answer, which goes on at its beginning.
    """
    return data.StructLayout({"block": geometry.block, "row": geometry.low, "column": geometry.low, "down": 1,
                              **({"turn": geometry.low} if geometry.windows else {})})


def piece_layout(geometry: Geometry, width: int) -> data.StructLayout:
    """Return the layout of elements from a place on, along the row, of which the `live` ones count."""
    return data.StructLayout({"block": geometry.block, "row": geometry.low, "column": geometry.low, "live": width,
                              "elements": data.ArrayLayout(geometry.bits, width)})


def fields_of(word: Value, name: str) -> dict[str, Value]:
    """Return the fields of an instruction's word, were it of this operation."""
    found, place = {}, OPCODE
    for field, kind in OPERATIONS[name].fields.items():
        bits = FIELDS[kind][0]
        found[field] = word[place:place + bits]
        place += bits
    return found
