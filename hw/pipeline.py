"""What every pipelined unit shares: signals with names, registers under one enable, sticky status."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from amaranth import *
from amaranth.hdl import ShapeLike, ValueLike
from amaranth.lib import memory

__all__ = ["UNCHECKED", "bits_of", "delayed", "elastic", "signals", "stage", "sticky_status"]

# Attribute of a memory: nothing is used that was read from a word while it was written. No circuit need watch for it.
UNCHECKED: dict[str, Any] = {"no_rw_check": 1}


def signals(names: str, shape: ShapeLike = 1, **settings: Any) -> list[Signal]:
    """Return a signal for each word of `names`.

    Amaranth guesses a signal's name from the bytecode of the assignment. The guess fails for several targets, and under
    Python 3.13 for others: so every signal is told its name.
    """
    return [Signal(shape, name=name, **settings) for name in names.split()]


def stage(m: Module, enable: ValueLike, name: str, before: SimpleNamespace | None = None, *,
          drop: Collection[str] = (), registered: bool = True, **values: ValueLike | list) -> SimpleNamespace:
    """Register values under a common enable; return them as a namespace.

    Parameters
    ----------
    m : Module
    enable : Value
    name : str
        Prefix of the registers' names.
    before : namespace, optional
        An earlier stage, whose values are handed on as well unless named in `drop`.
    drop : tuple of str
    registered : bool
        False: name the values, but let them through. Units whose latency is a parameter choose so
        which of their cuts hold registers.
    **values : Value or list of Value
        New values, which replace equal names of `before`. A list, of values of one width, is one register, and comes
        back as a list of unsigned values. A value called ``valid`` is cleared by reset; the others are not, which saves
        reset wiring.
    """
    values = {key: value for key, value in vars(before or SimpleNamespace()).items() if key not in drop} | values
    whole = {key: Cat(value) if isinstance(value, list) else Value.cast(value) for key, value in values.items()}
    registers = {key: Signal.like(value, name=f"{name}_{key}", reset_less=key != "valid")
                 for key, value in whole.items()}
    assignments = [registers[key].eq(value) for key, value in whole.items()]
    if registered:
        with m.If(enable):
            m.d.sync += assignments
    else:
        m.d.comb += assignments
    return SimpleNamespace(**{key: _cut(register, values[key]) if isinstance(values[key], list) else register
                              for key, register in registers.items()})


def elastic(m: Module, name: str, leaves: ValueLike, **values: ValueLike) -> tuple[SimpleNamespace, Signal]:
    """Register values that wait until they leave. One more is kept beside, when a cycle brings what cannot go on.

    So whether new values are taken comes from a register, and not from what happens behind in the same cycle.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the registers' names.
    leaves : Value
        The registered values leave, if they are valid.
    **values : Value
        With ``valid``, which is cleared by reset; the others are not.

    Returns
    -------
    namespace, Signal
        The registered values; and whether new ones are taken.
    """
    valid = Signal(name=f"{name}_valid")
    kept, takes, goes = signals(f"{name}_kept {name}_takes {name}_goes")
    comes = Value.cast(values.pop("valid"))
    m.d.comb += [takes.eq(~kept), goes.eq(~valid | leaves)]
    m.d.sync += kept.eq(~goes & (kept | comes))
    with m.If(goes):
        m.d.sync += valid.eq(kept | comes)
    found = SimpleNamespace(valid=valid)
    for key, value in values.items():
        register, spare = (Signal.like(Value.cast(value), name=f"{name}_{each}{key}", reset_less=True)
                           for each in ("", "spare_"))
        with m.If(takes):
            m.d.sync += spare.eq(value)
        with m.If(goes):
            m.d.sync += register.eq(Mux(kept, spare, value))
        setattr(found, key, register)
    return found, takes


def _cut(whole: Value, parts: list) -> list[Value]:
    """Return a value cut into as many values of one width as there are parts of it."""
    width = len(whole) // len(parts)
    assert all(len(Value.cast(part)) == width for part in parts), [len(Value.cast(part)) for part in parts]
    return [whole[width * k:width * (k + 1)] for k in range(len(parts))]


def delayed(m: Module, name: str, value: ValueLike, cycles: int) -> Value:
    """Return a value as it was some cycles ago: out of a ring of words, which is smaller than as many registers."""
    given = Value.cast(value)
    if cycles < 4:
        for step in range(cycles):
            given = stage(m, 1, f"{name}{step}", value=given).value
        return given
    depth = 1 << (cycles - 1).bit_length()
    m.submodules[f"{name}_ring"] = ring = memory.Memory(shape=len(given), depth=depth, init=[], attrs=UNCHECKED)
    write, read = ring.write_port(), ring.read_port()
    count = Signal(range(depth), name=f"{name}_count")
    m.d.sync += count.eq(count + 1)
    # The port answers a cycle later.
    m.d.comb += [write.addr.eq(count), write.data.eq(given), write.en.eq(1), read.addr.eq(count - (cycles - 1))]
    return read.data


def bits_of(*numbers: int) -> int:
    """Return how many bits a signed number has that can be each of these."""
    return 1 + max((-number - 1 if number < 0 else number).bit_length() for number in numbers)


def sticky_status(m: Module, flag: Signal, condition: ValueLike, clear: ValueLike) -> None:
    """Drive a status flag that stays set until it is cleared; a condition met meanwhile wins."""
    with m.If(condition):
        m.d.sync += flag.eq(1)
    with m.Elif(clear):
        m.d.sync += flag.eq(0)
