"""The instructions of a training core: fields, words, and units that execute them.

An instruction means matrices, never cycles: a tensor is a region of a memory, and a GEMM walks through it in hardware.
Source: numerics contract, section 15.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ...base.checks import require, require_int
from ..number_system import TENSORS as KINDS

__all__ = ["COUNTERS", "FIELDS", "KINDS", "MEMORIES", "OPERATIONS", "REGISTERS", "SEMAPHORES", "TENSORS", "UNITS",
           "WORD", "Instruction", "decode", "encode"]

WORD = 96  # bits of an instruction
OPCODE = 5
SEMAPHORES = 16
TENSORS = 64
# What executes instructions. The sequencer hands out those of the others, in the order of the program.
UNITS = ("sequencer", "in", "array", "head", "vector", "out")
# E has examples as 8-bit codes, X activations, D errors, W parameters, L labels.
MEMORIES = ("E", "X", "D", "W", "L")
REGISTERS = ("seed", "training", "measuring", "rate", "momentum", "decay", "scale", "method",
             "shift", "correction", "loss", "accepted", "interval")
COUNTERS = ("training", "measuring")
SIDES = ("a", "b", "to")

# Kinds of fields: bits, and the names that stand for numbers, if there are any.
FIELDS: Mapping[str, tuple[int, tuple[str, ...]]] = MappingProxyType({
    "flag": (1, ()), "tensor": (6, ()), "memory": (3, MEMORIES), "block": (13, ()), "offset": (6, ()),
    "stride": (12, ()), "size": (16, ()), "use": (10, ()), "plane": (2, ()), "value": (32, ()), "count": (24, ()),
    "register": (5, REGISTERS), "counter": (1, COUNTERS), "kind": (2, KINDS), "layer": (5, ()), "operand": (2, SIDES),
    "side": (8, ()), "taps": (4, ()), "bits": (4, ()), "code": (12, ()), "wide": (48, ()), "channels": (14, ()),
    "vector": (22, ()), "lane": (4, ()), "unit": (3, UNITS), "semaphore": (4, ()),
})


@dataclass(frozen=True)
class Operation:
    """What an instruction's name stands for: the unit that executes it, and its fields with their kinds."""

    unit: str
    fields: Mapping[str, str]
    summary: str


def _operation(unit: str, summary: str, /, **fields: str) -> Operation:
    return Operation(unit, MappingProxyType(fields), summary)


# In the order of their codes. Without a unit, the instruction itself names it.
OPERATIONS: Mapping[str, Operation] = MappingProxyType({
    "halt": _operation("sequencer", "the program ends"),
    "tensor": _operation("sequencer", "a tensor: a region of a memory, in blocks of side x side elements",
                         number="tensor", memory="memory", block="block", other="block", stride="stride",
                         top="offset", left="offset", rows="size", columns="size"),
    "view": _operation("sequencer", "a tensor that is a part of another one", number="tensor", of="tensor", row="size",
                       column="size", rows="size", columns="size"),
    "window": _operation("sequencer", "a matrix of the places of a window on images", number="tensor", of="tensor",
                         height="side", width="side", channels="channels", down="side", across="side",
                         taps_y="taps", taps_x="taps", step="taps", reverse="flag", shift_y="taps", shift_x="taps",
                         pad="taps"),
    "taps": _operation("sequencer", "a matrix of some taps of kernels", number="tensor", of="tensor", kernel="taps",
                       channels="channels", taps_y="taps", taps_x="taps", step="taps", shift_y="taps",
                       shift_x="taps"),
    "flip": _operation("sequencer", "a tensor changes places with its other half", number="tensor"),
    "set": _operation("sequencer", "a register has this value, from a step of training on",
                      register="register", value="value", since="value"),
    "step": _operation("sequencer", "words and rates are those of this counter's step, or of its next one",
                       counter="counter", next="flag"),
    "mode": _operation("sequencer", "modes of a kind of tensor in a layer", kind="kind", layer="layer",
                       value="value"),
    "logs": _operation("sequencer", "weights of a layer are logarithmic codes under this scale, held within a bound",
                       layer="layer", scale="code", bound="size"),
    "cyclic": _operation("sequencer", "precision of a kind of tensor: this, and one more from each `edge` of a period",
                         kind="kind", low="bits", period="value"),
    "edge": _operation("sequencer", "the next step of a period from which precision is one more", kind="kind",
                       value="value"),
    "adaptive": _operation("sequencer", "threshold of a tensor's precision in the program's first step, as (code, "
                           "rest), and whether the precision is 4 bits there, rather than 2",
                           kind="kind", layer="layer", code="code", rest="wide", wide="flag"),
    "slope": _operation("sequencer", "what thresholds of a kind fall by in a step, as (code, rest)", kind="kind",
                        code="code", rest="wide"),
    "divisor": _operation("sequencer", "rests of a kind count parts of a code: so many", kind="kind", rest="wide"),
    "loop": _operation("sequencer", "what follows, up to `end`, is executed so often", count="count"),
    "end": _operation("sequencer", "of a loop"),
    "sync": _operation("sequencer", "all units are idle before the next instruction"),
    "signal": _operation("", "a token, when all before it in this unit is done", unit="unit", semaphore="semaphore"),
    "wait": _operation("", "for a token, before all after it in this unit", unit="unit", semaphore="semaphore"),
    "part": _operation("sequencer", "the next GEMM's operand or result is a part of a tensor: its first vector, the "
                       "first number of that, and the vectors of a whole row",
                       side="operand", vector="vector", lane="lane", pitch="vector"),
    "gemm": _operation("array", "a product of matrices, with what is done to its results", a="tensor", b="tensor",
                       to="tensor", bias="tensor", mask="tensor", use="use", across_a="flag", across_b="flag",
                       biased="flag", masked="flag", relu="flag", update="flag", continued="flag", open="flag",
                       early="flag", count_a="flag", count_b="flag"),
    "head": _operation("head", "errors and losses of logits", a="tensor", labels="tensor", to="tensor", use="use"),
    "sums": _operation("vector", "sums over rows, by which biases move", a="tensor", to="tensor", use="use"),
    "fill": _operation("vector", "a tensor of one number", to="tensor", plane="plane", value="value"),
    "in": _operation("in", "a tensor from the host", to="tensor", plane="plane"),
    "out": _operation("out", "a tensor to the host", a="tensor", plane="plane"),
    "settle": _operation("sequencer", "all units but `in` are idle; then the moves since the last `settle` stay or are "
                         "undone, and the loss scale may change"),
})
CODES = {name: code for code, name in enumerate(OPERATIONS)}


@dataclass(frozen=True)
class Instruction:
    """An instruction: the name of its operation, and a number for each field. What is left out is 0.

    Parameters
    ----------
    name : str
        One of `OPERATIONS`.
    fields : mapping of str to int
    """

    name: str
    fields: Mapping[str, int]

    def __init__(self, name: str, /, **fields: int) -> None:
        require(name in OPERATIONS, "instruction", name, ", ".join(OPERATIONS))
        kinds = OPERATIONS[name].fields
        for field in fields:
            require(field in kinds, f"field of {name}", field, ", ".join(kinds) or "none")
        complete = {field: fields.get(field, 0) for field in kinds}
        for field, value in complete.items():
            bits, names = FIELDS[kinds[field]]
            require_int(f"{field} of {name}", value, 0, (len(names) or 1 << bits) - 1)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "fields", MappingProxyType(complete))

    def __getattr__(self, field: str) -> int:
        try:
            return self.__dict__["fields"][field]
        except KeyError:
            raise AttributeError(field) from None

    def __repr__(self) -> str:
        return f"Instruction({', '.join([repr(self.name), *(f'{key}={value}' for key, value in self.fields.items())])})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Instruction) and self.name == other.name and self.fields == other.fields

    def __hash__(self) -> int:
        return hash((self.name, *self.fields.values()))

    @property
    def unit(self) -> str:
        """What executes it."""
        return OPERATIONS[self.name].unit or UNITS[self.fields["unit"]]


def encode(instruction: Instruction) -> int:
    """Return the word of an instruction: the operation's code in the lowest bits, above it the fields in order."""
    word, place = CODES[instruction.name], OPCODE
    for field, kind in OPERATIONS[instruction.name].fields.items():
        word |= instruction.fields[field] << place
        place += FIELDS[kind][0]
    return word


def decode(word: int) -> Instruction:
    """Return the instruction of a word; ValueError if it is none: bits that no field has are zero."""
    require(type(word) is int and 0 <= word < 1 << WORD, "word", word, f"an integer of {WORD} bits")
    code, rest = word & ((1 << OPCODE) - 1), word >> OPCODE
    require(code < len(OPERATIONS), "operation", code, f"0 to {len(OPERATIONS) - 1}")
    name, fields = list(OPERATIONS)[code], {}
    for field, kind in OPERATIONS[name].fields.items():
        bits = FIELDS[kind][0]
        fields[field], rest = rest & ((1 << bits) - 1), rest >> bits
    require(rest == 0, f"bits above the fields of {name}", hex(rest), "0")
    return Instruction(name, **fields)


def widths() -> dict[str, int]:
    """Return the bits that each operation's word uses."""
    return {name: OPCODE + sum(FIELDS[kind][0] for kind in operation.fields.values())
            for name, operation in OPERATIONS.items()}


def check(instructions: Iterable[Instruction]) -> None:
    """Raise ValueError unless loops are closed, at most three deep, and the last instruction is `halt`."""
    depth, last = 0, None
    for number, last in enumerate(instructions):
        depth += (last.name == "loop") - (last.name == "end")
        require(0 <= depth <= 3, f"loops around instruction {number}", depth, "0 to 3")
    require(depth == 0, "loops without an end", depth, "0")
    require(last is not None and last.name == "halt", "last instruction", last and last.name, "halt")
