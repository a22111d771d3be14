"""What every pipelined unit shares: registers under one enable, carry chains used well, shifters."""

from types import SimpleNamespace

from amaranth import *

__all__ = [
    "CHAIN", "bits_of", "normalise", "packed_sums", "shift_right_sticky", "signals", "stage", "sticky_status",
    "sum_with_carry",
]

CHAIN = 72  # positions; a static timing analysis sees the whole chain as one path


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
        back as a list. A value called ``valid`` is cleared by reset; the others are not, which saves reset wiring.
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


def normalise(m, name, value, widths, *, fill=0, limit=None, free=0, need=None):
    """Shift `value` left by powers of two while its top bits are zero (combinational).

    Parameters
    ----------
    m : Module
    name : str
        Prefix of the intermediate signals.
    value : Value
    widths : list of int
        Powers of two to try, falling.
    fill : Value
        Bit that enters at the bottom.
    limit : Value, optional
        The total shift may not exceed this number, whose bit k belongs to the width 2**k.
    free : Value
        Set when an earlier call already found the limit out of reach.
    need : int, optional
        Top bits that matter in the end. What cannot get there any more is cut off after each shift.

    Returns
    -------
    tuple
        The shifted value, flags that tell which widths were shifted by (in the order of
        `widths`), the new `free`, and whether a bit that was cut off differs from `fill`.
    """
    taken, cut = [], []
    fill = Value.cast(fill)
    before, above = value, None
    for index, width in enumerate(widths):
        take = Signal(name=f"{name}_take{width}")
        shifted = Signal(len(value), name=f"{name}_left{width}")
        # Both cases of the shift before are looked at while that is still being decided.
        zero = value[-width:] == 0
        if taken:
            zero = Mux(taken[-1], Cat(fill.replicate(above), before[:-above])[-width:] == 0, before[-width:] == 0)
        if limit is None:
            m.d.comb += take.eq(zero)
        else:
            # As long as every bit of the limit so far has been used up, only its next bit allows
            # a shift; one bit that was allowed but not needed leaves more room than can be used.
            room = limit[width.bit_length() - 1]
            m.d.comb += take.eq(zero & (free | room))
            free = free | (room & ~zero)
        m.d.comb += shifted.eq(Mux(take, Cat(fill.replicate(width), value[:-width]), value))
        before, above, value = value, width, shifted
        taken.append(take)
        spare = len(value) - need - sum(widths[index + 1:]) if need is not None else 0
        if spare > 0:
            cut.append((value[:spare] ^ fill.replicate(spare)).any())
            value = value[spare:]
    return value, taken, free, Cat(cut).any() if cut else C(0, 1)


def shift_right_sticky(m, name, value, amount, widths, *, fill=0, sticky=0):
    """Shift `value` right by the bits of `amount` named in `widths`, `fill` entering at the top.

    Returns the shifted value and `sticky` ORed with every bit that fell off.
    """
    before, moved = value, None
    for width in widths:
        chosen = amount[width.bit_length() - 1]
        shifted = Signal(len(value), name=f"{name}_right{width}")
        m.d.comb += shifted.eq(Mux(chosen, Cat(value[width:], fill.replicate(min(width, len(value)))), value))
        # Both cases of the shift before are looked at while that is still being made.
        lost = before[:width].any()
        if moved is not None:
            lost = Mux(amount[moved.bit_length() - 1], before[moved:moved + width].any(), lost)
        sticky = sticky | (chosen & lost)
        before, moved, value = value, width, shifted
    return value, sticky


def bits_of(*numbers):
    """Return how many bits a signed number has that can be each of these."""
    return 1 + max((-number - 1 if number < 0 else number).bit_length() for number in numbers)


def sticky_status(m, flag, condition, clear):
    """Drive a status flag that stays set until it is cleared; a condition met meanwhile wins."""
    with m.If(condition):
        m.d.sync += flag.eq(1)
    with m.Elif(clear):
        m.d.sync += flag.eq(0)
