"""What the headers of the Verilog say of fields that several units have: codes, groups, vectors, sums."""

from ..golden.formats import BlockFloat, Float, Format, Log, name_of

__all__ = ["PRECISION", "ROUNDING", "group", "numbers", "of_operands", "of_sums", "scale", "vector"]

ROUNDING = "0 nearest even, 1 truncate, 2 stochastic"
PRECISION = "magnitude bits in use, 2 to {}"


def numbers(fmt: Format) -> str:
    """Return what a code of a format is, in words: a preset's name, or the fields."""
    return f"code of {name_of(fmt)}" if name_of(fmt) else f"code: {fmt.fields}"


def group(fmt: BlockFloat, prefix: str = "") -> dict[str, str]:
    """Return the meanings of a group's fields: see `hw.formats.group_layout`."""
    return {
        f"{prefix}elements": f"worth (-1)**sign * magnitude * 2**(exponent - {fmt.bias} - (precision - 1))",
        f"{prefix}exponent": f"shared exponent with bias {fmt.bias}",
        f"{prefix}precision": PRECISION.format(fmt.mantissa),
    }


def scale(name: str = "scale", nan: bool = False) -> dict[str, str]:
    """Return the meaning of a scale that is a power of two: of a microscaling block (with NaN) or of a vector."""
    return {name: "multiplies by 2**(scale - 127); " + ("255 makes the block NaN" if nan else "0 to 254")}


def vector(fmt: Log, prefix: str = "") -> dict[str, str]:
    """Return the meanings of a vector of logarithmic numbers: see `hw.logarithmic.vector_layout`."""
    return {
        f"{prefix}codes": f"top bit s, below it t: worth (-1)**s * 2**(scale - 127 + t / {fmt.gamma}), or 0 if t is 0",
    } | scale(f"{prefix}scale")


def of_operands(fields: dict[str, str]) -> dict[str, str]:
    """Return the meanings of the fields of operands a and b from those of either."""
    return {f"{operand}.{name}": text for operand in "ab" for name, text in fields.items()}


def of_sums(accumulator: Float) -> dict[str, str]:
    """Return the meanings of what a unit with a bank of sums is given and answers."""
    return {
        "slot": "the sum's number in the bank",
        "first": "start the sum from +0",
        "last": "emit the sum after this addition; the bank keeps it",
        "value": f"the sum: {numbers(accumulator)}",
        "overflow": "sticky: a finite sum, to which something finite was added, became infinite",
    }
