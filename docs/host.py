"""Writes the table of registers in host.md. ``python docs/host.py`` takes a second."""

import sys

from experiments import HERE, fill
from narrowgauge.golden.host import REGISTERS

PAGE = HERE / "host.md"


def registers_table():
    """Return the Markdown table of registers and their fields."""
    lines = ["| address | register | | bits | meaning |", "| ---: | --- | --- | --- | --- |"]
    for register in REGISTERS.values():
        lines.append(f"| {register.address:#04x} | `{register.name}` | {register.access} | | {register.meaning} |")
        for field in register.fields:
            top = field.low + field.width - 1
            bits = f"{top}:{field.low}" if field.width > 1 else f"{field.low}"
            lines.append(f"| | | | {bits} `{field.name}` | {field.meaning} |")
    return "\n".join(lines)


def main():
    """Write the table."""
    fill(PAGE, {"registers": registers_table()})


if __name__ == "__main__":
    sys.exit(main())
