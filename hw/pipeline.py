"""What every pipelined unit shares: signals with names, registers under one enable, sticky status."""

from types import SimpleNamespace

from amaranth import *

__all__ = ["bits_of", "signals", "stage", "sticky_status"]


def signals(names: str, shape=1, **settings) -> list[Signal]:
    """Return a signal for each word of `names`.

    Amaranth guesses a signal's name from the bytecode of the assignment. The guess fails for several targets, and under
    Python 3.13 for others: so every signal is told its name.
    """
    return [Signal(shape, name=name, **settings) for name in names.split()]


def stage(m, enable, name, before=None, *, drop=(), registered=True, **values):
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


def _cut(whole, parts):
    """Return a value cut into as many values of one width as there are parts of it."""
    width = len(whole) // len(parts)
    assert all(len(Value.cast(part)) == width for part in parts), [len(Value.cast(part)) for part in parts]
    return [whole[width * k:width * (k + 1)] for k in range(len(parts))]


def bits_of(*numbers):
    """Return how many bits a signed number has that can be each of these."""
    return 1 + max((-number - 1 if number < 0 else number).bit_length() for number in numbers)


def sticky_status(m, flag, condition, clear):
    """Drive a status flag that stays set until it is cleared; a condition met meanwhile wins."""
    with m.If(condition):
        m.d.sync += flag.eq(1)
    with m.Elif(clear):
        m.d.sync += flag.eq(0)
