"""What every pipelined unit shares: registers under one enable, and carry chains used well."""

from types import SimpleNamespace

from amaranth import *

__all__ = ["CHAIN", "packed_sums", "stage", "sticky_status", "sum_with_carry"]

CHAIN = 72  # positions; a static timing analysis sees the whole chain as one path


def stage(m, enable, name, before=None, *, drop=(), **values):
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
    **values : Value
        New values, which replace equal names of `before`. One called ``valid`` is cleared by
        reset; the others are not, which saves their reset wiring.
    """
    values = {key: value for key, value in vars(before or SimpleNamespace()).items() if key not in drop} | values
    out = {key: Signal.like(Value.cast(value), name=f"{name}_{key}", reset_less=key != "valid")
           for key, value in values.items()}
    with m.If(enable):
        m.d.sync += [out[key].eq(value) for key, value in values.items()]
    return SimpleNamespace(**out)


def sum_with_carry(a, b, carry):
    """Return ``a + b + carry`` as one carry chain.

    Written as a three-operand sum, the synthesiser would build two adders; here the carry
    enters through a bit below both operands.
    """
    return (_below(a, carry) + _below(b, carry)) >> 1


def _below(value, bit):
    wide = Cat(bit, value)
    return wide.as_signed() if value.shape().signed else wide


def packed_sums(m, name, lanes):
    """Add pairs of unsigned numbers side by side in few long carry chains (combinational).

    A carry chain has a fixed cost at its ends (4 LUTs on ECP5), so many short ones are dear.
    Between two lanes is one position in which the carry-in of the upper one is added to itself:
    its sum is the carry-out of the lower lane, and its carry does not depend on that. The
    position must not hold constants, or synthesis would cut the chain there; a lane without a
    carry-in lends its lowest bit of the second number.

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the intermediate signals.
    lanes : list of (Value, Value, Value or None)
        Two numbers of equal width, and a carry-in or None.

    Returns
    -------
    list of Signal
        The sums, one bit wider than the numbers.
    """
    sums, chain, length = [], [], 0
    for index, (a, b, carry) in enumerate(lanes):
        assert len(a) == len(b)
        chain.append((a, b, carry) if carry is not None else (a, Cat(C(0, 1), b[1:]), b[0]))
        length += len(a) + 1
        if index + 1 < len(lanes) and length + len(lanes[index + 1][0]) + 1 <= CHAIN:
            continue
        total = Signal(length + 1, name=f"{name}_chain{len(sums)}")
        m.d.comb += total.eq(Cat(Cat(c, a) for a, _, c in chain) + Cat(Cat(c, b) for _, b, c in chain))
        position = 1
        for a, _, _ in chain:
            sums.append(total[position:position + len(a) + 1])
            position += len(a) + 1
        chain, length = [], 0
    return sums


def sticky_status(m, flag, condition, clear):
    """Drive a status flag that stays set until it is cleared; a condition met meanwhile wins."""
    with m.If(condition):
        m.d.sync += flag.eq(1)
    with m.Elif(clear):
        m.d.sync += flag.eq(0)
