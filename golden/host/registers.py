"""The register map of the device: once, for circuit, driver, header and documentation."""

from dataclasses import dataclass

__all__ = ["APERTURE", "ERRORS", "FIELDS", "IDENTITY", "INPUT", "OUTPUT", "REGISTERS", "VERSION", "WINDOW", "Field",
           "Register"]

IDENTITY = 0x4E47_5431  # "NGT1"
VERSION = 0x0001_0000   # of this map: major in the upper half, minor in the lower one
APERTURE = 4096         # bytes
WINDOW = 1024           # bytes of each window: any word of a window means the same
INPUT, OUTPUT = 0x800, 0xC00

# By code. The first one since the last reset is kept.
ERRORS = (
    "none",
    "a word for the input while it was full",
    "a word from the output while it was empty",
    "a packet of a kind that there is none of",
    "a packet on the stream that ended early, or did not end",
    "rows or bytes of a data memory that this device does not have",
)


@dataclass(frozen=True)
class Field:
    """A part of a register.

    Parameters
    ----------
    name : str
    low, width : int
        The lowest bit, and the number of bits.
    meaning : str
    """

    name: str
    low: int
    width: int
    meaning: str


@dataclass(frozen=True)
class Register:
    """A register of 32 bits.

    Parameters
    ----------
    name : str
    address : int
        In bytes.
    access : str
        r: read alone; rw: keeps what is written; w1: a written 1 acts, and is read as 0; w1c: a written 1 clears.
    meaning : str
    fields : tuple of Field
        Bits of no field are 0. Without fields the register is one number.
    value : int, optional
        Of a register that never changes.
    """

    name: str
    address: int
    access: str
    meaning: str
    fields: tuple[Field, ...] = ()
    value: int | None = None

    @property
    def mask(self) -> int:
        """The bits that mean something."""
        return sum(((1 << each.width) - 1) << each.low for each in self.fields) if self.fields else 0xFFFFFFFF


EVENTS = (
    Field("report", 0, 1, "a program has ended, or was stopped: its report waits at the output"),
    Field("output", 1, 1, "a message waits at the output"),
    Field("stopped", 2, 1, "an error stopped the program"),
    Field("error", 3, 1, "the register error has a code"),
)

CONSTANTS = {"identity": IDENTITY, "version": VERSION}

_ROWS: tuple[tuple[str, str, str, tuple[Field, ...]], ...] = (
    ("identity", "r", f"{IDENTITY:#010x}: a training core of narrowgauge", ()),
    ("version", "r", "of this register map", (
        Field("minor", 0, 16, "grows with every addition"), Field("major", 16, 16, "grows when older drivers break"))),
    ("configuration", "r", "the first 32 bits of the configuration's SHA-256", ()),
    ("capability", "r", "sizes of the device", (
        Field("stream", 0, 8, "elements of a transfer"), Field("element", 8, 8, "bits of an element"),
        Field("depth", 16, 16, "words of the input queue, and of the output queue"))),
    ("data", "r", "words of the data memory; 0: there is none", ()),
    ("control", "w1", "commands", (
        Field("reset", 0, 1, "the core and both queues begin anew, whatever they were doing"),
        Field("clear", 1, 1, "clears invalid and overflow"))),
    ("irq_enable", "rw", "events that raise irq", EVENTS),
    ("irq_status", "w1c", "events since they were cleared", EVENTS),
    ("status", "r", "what the core tells now", (
        Field("stopped", 0, 1, "an error stopped the program, until a reset"),
        Field("invalid", 1, 1, "a NaN was met"), Field("overflow", 2, 1, "a number was beyond its range"))),
    ("error", "r", "of the device: a code; it stays until a reset", (Field("code", 0, 8, "; ".join(
        f"{code} {text}" for code, text in enumerate(ERRORS))),)),
    ("instruction", "r", "number of the instruction that the core is at, or was stopped at", ()),
    ("room", "r", "words that the input window takes now", ()),
    ("waiting", "r", "words that the output window has now", ()),
    ("received", "r", "words taken since the reset, by the window and the stream", ()),
    ("received_check", "r", "of these words: rotated left by one, then xor with the word, for each", ()),
    ("given", "r", "words given since the reset, by the window and the stream", ()),
    ("given_check", "r", "of these words, likewise", ()),
    ("losses", "r", "sums of losses that the core has told since the reset", ()),
    ("loss", "r", "the lower half of the latest one", ()),
    ("loss_high", "r", "the upper half", ()),
    ("counter", "rw", "the counter that count tells: an index into the core's COUNTED", (
        Field("index", 0, 4, "of the counter"),)),
    ("count", "r", "the lower half of the counter; the upper half is latched when this is read", ()),
    ("count_high", "r", "the upper half, as it was when count was read", ()),
)

REGISTERS: dict[str, Register] = {
    name: Register(name, 4 * number, access, meaning, fields, CONSTANTS.get(name))
    for number, (name, access, meaning, fields) in enumerate(_ROWS)}
FIELDS = {name: {each.name: each for each in register.fields} for name, register in REGISTERS.items()}
