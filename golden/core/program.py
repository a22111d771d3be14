"""Programs of a training core: instructions, the names of tensors, and both as text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...base.checks import require
from .instructions import FIELDS, OPERATIONS, TENSORS, UNITS, Instruction, check, decode, encode

__all__ = ["UNUSED", "Program", "assemble"]

UNUSED = {"bias": "biased", "mask": "masked"}  # tensors of a GEMM that mean nothing without these flags


@dataclass(frozen=True)
class Program:
    """A program, checked when it is made.

    Parameters
    ----------
    instructions : tuple of Instruction
        The last one is ``halt``; loops lie at most three deep.
    names : mapping of int to str
        Of tensors, for people. Where there is none, tensor 5 is ``t5``.
    """

    instructions: tuple[Instruction, ...]
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.instructions)

    def words(self) -> list[int]:
        """Return the words of the instructions."""
        return [encode(each) for each in self.instructions]

    @classmethod
    def from_words(cls, words: Iterable[int], names: Mapping[int, str] | None = None) -> "Program":
        """Return the program of these words."""
        return cls(tuple(decode(word) for word in words), names or {})

    def name(self, tensor: int) -> str:
        """Return a tensor's name."""
        return self.names.get(tensor, f"t{tensor}")

    def line(self, number: int) -> str:
        """Return an instruction as a line of text."""
        return self._line(self.instructions[number])

    def text(self) -> str:
        """Return the program as text that `assemble` reads, indented by loops, with a comment on what is computed."""
        lines, depth = [], 0
        for each in self.instructions:
            depth -= each.name == "end"
            line = "    " * depth + self._line(each)
            comment = self._comment(each)
            lines.append(f"{line:<64}; {comment}" if comment else line)
            depth += each.name == "loop"
        return "\n".join(lines) + "\n"

    def _line(self, instruction: Instruction) -> str:
        parts = [instruction.name]
        for number, (name, kind) in enumerate(OPERATIONS[instruction.name].fields.items()):
            value = instruction.fields[name]
            names = FIELDS[kind][1]
            shown = self.name(value) if kind == "tensor" else names[value] if names else str(value)
            if kind == "flag":
                parts += [name] if value else []
            elif number == 0 and instruction.name not in ("gemm", "head", "sums"):
                parts.append(shown)
            elif name == "other" and value == instruction.block or name in UNUSED and not instruction.fields[
                    UNUSED[name]]:
                continue
            elif value or kind == "tensor" or names or name == "other":
                parts.append(f"{name}={shown}")
        return " ".join(parts)

    def _comment(self, each: Instruction) -> str:
        name = self.name
        if each.name == "gemm":
            a, b = name(each.a) + "'" * each.across_a, name(each.b) + "'" * (not each.across_b)
            found = f"{a} {b}" + f" + {name(each.bias)}" * each.biased
            found = f"relu({found})" if each.relu else found
            found += f" where {name(each.mask)} > 0" * each.masked
            if each.open:
                return f"sums of {found}"
            return f"{name(each.to)} moves by {found}" if each.update else f"{name(each.to)} = {found}"
        if each.name == "head":
            return f"{name(each.to)} = (softmax({name(each.a)}) - {name(each.labels)}) scale"
        if each.name == "sums":
            return f"{name(each.to)} moves by sums over rows of {name(each.a)}"
        return ""


def assemble(text: str) -> Program:
    """Return the program of a text: an instruction a line, ``name first-field field=value flag``, ``;`` for comments.

    Names of tensors get numbers in the order in which they are met. ``t5`` is tensor 5, unless that number is taken.
    Values are decimal, or hexadecimal after 0x. A tensor's ``other`` is its block unless it
    is given.
    """
    numbers: dict[str, int] = {}
    instructions = []
    for row, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        name, *rest = words
        try:
            require(name in OPERATIONS, "instruction", name, ", ".join(OPERATIONS))
            fields = OPERATIONS[name].fields
            values: dict[str, int] = {}
            for place, word in enumerate(rest):
                key, equals, shown = word.partition("=")
                if not equals and place == 0 and fields and next(iter(fields.values())) != "flag":
                    key, shown = next(iter(fields)), word
                require(key in fields and key not in values, f"field of {name}", key, ", ".join(fields) or "none")
                values[key] = 1 if fields[key] == "flag" and not equals else _value(key, fields[key], shown, numbers)
            if name == "tensor":
                values.setdefault("other", values.get("block", 0))
            instructions.append(Instruction(name, **values))
        except ValueError as error:
            raise ValueError(f"line {row}: {error}") from None
    return Program(tuple(instructions), {number: name for name, number in numbers.items() if name != f"t{number}"})


def _value(field: str, kind: str, shown: str, numbers: dict[str, int]) -> int:
    bits, names = FIELDS[kind]
    if kind == "tensor":
        if shown not in numbers:
            taken = set(numbers.values())
            own = int(shown[1:]) if shown[:1] == "t" and shown[1:].isdecimal() else None
            free = own if own is not None and own not in taken else next(
                (each for each in range(TENSORS) if each not in taken), TENSORS)
            require(free < TENSORS, "tensors", free + 1, f"at most {TENSORS}")
            numbers[shown] = free
        return numbers[shown]
    if names:
        allowed = UNITS[1:] if kind == "unit" else names
        require(shown in allowed, field, shown, ", ".join(allowed))
        return names.index(shown)
    try:
        return int(shown, 0)
    except ValueError:
        raise ValueError(f"{field} is {shown!r}; allowed: an integer of {bits} bits") from None
