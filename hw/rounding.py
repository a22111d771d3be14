"""Floating-point numbers taken apart, aligned, normalised, and rounded: what all topics share of it."""

from types import SimpleNamespace

from amaranth import *
from amaranth.hdl import ValueLike

from ..golden.formats import Float
from ..golden.rounding import NEAREST, Rounding
from .pipeline import stage

__all__ = ["normalise", "round_and_pack", "round_sum", "shift_right_sticky", "unpack", "window_of"]


def unpack(m: Module, name: str, fmt: Float, code: Value, flush: bool = False) -> SimpleNamespace:
    """Take a code apart (combinational).

    Returns
    -------
    namespace
        ``negative``; ``significand`` (fmt.mantissa + 1 bits, the hidden one on top); ``field``, the exponent field,
        1 for subnormals, which have no hidden one instead; and the classes ``zero``, ``infinite``, ``nan``. With
        `flush`, subnormals are zeros. The significand of an Inf or a NaN means nothing.
    """
    field, fraction = code[fmt.mantissa:-1], code[:fmt.mantissa]
    normal, some, top = (Signal(name=f"{name}_{word}") for word in ("normal", "fraction", "top"))
    m.d.comb += [normal.eq(field.any()), some.eq(fraction.any()), top.eq(field.all())]
    significand = Cat(fraction & normal.replicate(len(fraction)) if flush else fraction, normal)
    infinite, nan = {
        "ieee": (top & ~some, top & some),
        "fn": (C(0, 1), top & fraction.all()),
        "none": (C(0, 1), C(0, 1)),
    }[fmt.specials]
    return SimpleNamespace(
        negative=code[-1], significand=significand, field=Cat(field[0] | ~normal, field[1:]),
        zero=~normal if flush else ~(normal | some), infinite=infinite, nan=nan)


def window_of(mode: Rounding) -> int:
    """Return how many bits below the last place a Rounding looks at one by one."""
    return {"nearest": 1, "truncate": 0, "stochastic": mode.window}[mode.kind]


def round_and_pack(m: Module, fmt: Float, mode: Rounding, value: Value, top: Value, *, flush: bool = False,
                   sticky: ValueLike = 0, flip: ValueLike = 0, noise: Value | None = None,
                   nearest: Value | None = None, more: Value | None = None, settled: bool = False,
                   taken: Value | None = None) -> SimpleNamespace:
    """Round a normalised value to a format (combinational): the one place where codes are made.

    Parameters
    ----------
    m : Module
    fmt : Float
    mode : Rounding
    value : Value
        Unsigned, its top bit the leading one; or not, if it is subnormal (never with `flush`, but for zero).
    top : Value
        Exponent field that belongs to the top bit, less one; with `flush` signed, else never negative.
    flip : Value
        The value is the complement of a negative number. Ones go on below the value without end; 1 more in the last
        place of them all would make the value exact.
    sticky : Value
        Whether there is anything below the value; with `flip`, whether anything but ones. Stochastic rounding needs
        ``fmt.mantissa + 1 + mode.window`` exact bits.
    noise : Value, optional
        What `Rounding.noise` makes of a random word.
    nearest : Value, optional
        Of stochastic rounding, without `flip`: where set, the value is rounded to nearest even instead.
    more : Value, optional
        One more in `top`.
    settled : bool
        Without `flush`: `top` is zero wherever the top bit of the value is.
    taken : Value, optional
        Without `flush`: what `top` is too large by. It equals `top` where the value is subnormal, and is never greater.
        The magnitude of a zero means nothing then.

    Returns
    -------
    namespace
        ``magnitude``: the code without its sign. ``over``: beyond the largest finite value; then `magnitude` means
        nothing. ``nonzero``: the exact value is not zero.
    """
    p, sticky, flip = fmt.mantissa + 1, Value.cast(sticky), Value.cast(flip)
    window = window_of(mode)
    missing = max(p + window - len(value), 0)
    if missing:
        value = Cat(flip.replicate(missing), value)
    kept, below, rest = value[-p:], value[len(value) - p - window:len(value) - p], value[:len(value) - p - window]
    tail = (rest ^ flip.replicate(len(rest))).any() | sticky if len(rest) else sticky
    # All ones below, and the one that is missing, carry into what is kept.
    ones = flip & ~tail
    # One bit more than `top` needs; with flush, it is the sign of the field. Without, a zero has the field 0, however
    # far it could have been shifted.
    above = top[-1] if flush else C(0, 1)
    top = top if flush or settled or taken is not None else top & kept[-1].replicate(len(top))
    number = Cat(kept[:-1], top, above.replicate(max(fmt.exponent - len(top), 1)))
    # The hidden one adds itself to the exponent field, and so does a carry.
    hidden = Cat(C(0, p - 1), kept[-1])
    if more is not None:
        hidden = Cat(C(0, p - 1), kept[-1] ^ more, kept[-1] & more)
    if taken is not None:
        # kept[-1] - taken, bit by bit: each bit is changed if there is a one below it, but that of an odd difference.
        # A carry chain would take more logic. No more is taken than the field holds.
        room = len(number) - (p - 1)
        taken = taken[:room]
        borrows = [taken[0] & ~kept[-1]]
        for bit in taken[1:]:
            borrows.append(borrows[-1] | bit)
        difference = Cat(taken[0] ^ kept[-1], *(bit ^ borrow for bit, borrow in zip(taken[1:], borrows)))
        sign = borrows[-1].replicate(room - len(taken))
        hidden = Cat(C(0, p - 1), difference, sign)
    code = Signal(len(number))
    if mode.kind == "stochastic":
        carry = ones
        if nearest is not None:
            # As noise, a little less than a half; what lacks is carried in by all but a tie that is even.
            noise, carry = Mux(nearest, (1 << window - 1) - 1, noise), nearest & (tail | kept[0])
        m.d.comb += code.eq((Cat(carry, below, number) + Cat(carry, noise, hidden))[1 + window:])
    else:
        up = ones
        if mode.kind == "nearest":
            up = Mux(flip, below | (ones & kept[0]), below & (tail | kept[0]))
        m.d.comb += code.eq(number + Cat(up, hidden[1:]))
    field, magnitude = code[p - 1:], code[:fmt.width - 1]
    beyond = field[fmt.exponent:].any()
    over = {"ieee": beyond | field[:fmt.exponent].all(), "fn": beyond | magnitude.all(), "none": beyond}[fmt.specials]
    if flush:
        tiny = ~kept[-1] | field[-1] | ~field.any()
        over, magnitude = over & ~tiny, magnitude & ~tiny.replicate(len(magnitude))
    return SimpleNamespace(magnitude=magnitude, over=over, nonzero=kept.any() | below.any() | tail | flip)


def round_sum(m: Module, advance: Value, now: SimpleNamespace, value: Value, low: int,
              fmt: Float) -> tuple[SimpleNamespace, Value, Value]:
    """Round a signed integer, scaled by a power of two, to nearest even: the tail of units with integer sums.

    Parameters
    ----------
    m : Module
    advance : Value
    now : namespace
        Stage of the sum: ``valid``, ``last`` (the sum is emitted) and the signed ``field``. The field, plus one, is the
        exponent field that belongs to the top bit of the value's magnitude. Its width is the value's without the sign.
    value : Value
        Signed.
    low : int
        The least field there is.
    fmt : Float
        With Inf: specials ``ieee``, overflow ``infinity``.

    Returns
    -------
    now : namespace
        The last stage, 6 later.
    code : Value
        Of the result; a zero is +0.
    over : Value
        Whether a result is beyond the largest finite value; the code is that of Inf then.
    """
    p, window = fmt.mantissa + 1, window_of(NEAREST)
    # A negative sum is complemented, and left one too small: the rounding adds what is missing.
    sign, size = value[-1], len(value) - 1
    now = stage(m, advance, "sign", valid=now.valid & now.last, field=now.field, negative=sign,
                value=value[:-1] ^ sign.replicate(size))
    value, negative, top = now.value, now.negative, now.field
    sticky = C(0, 1)
    if low < 0:
        # A number below the normal ones moves down by p + 1 places, and then as far up again as that was too far:
        # so one shifter does both. Lower still, nothing is left but less than a half.
        right = p + 1
        missing = max(p + right - size, 0)
        value, size = Cat(negative.replicate(missing), value), size + missing
        moved = Signal(size)
        below = top[-1]
        m.d.comb += moved.eq(Mux(below, value[right:], value))
        sticky = below & (value[:right] ^ negative.replicate(right)).any()
        raised = Signal(signed(len(top)))
        m.d.comb += raised.eq(top + Mux(below, right, 0))
        value, top = moved, raised[:-1] & ~raised[-1].replicate(len(raised) - 1)
    else:
        top = top[:-1]
    now = stage(m, advance, "right", now, drop=("field",), value=value, top=top, sticky=sticky)
    # Normalise, but not below the exponent of the smallest normal number. The widest shift looks at the most bits:
    # it has a stage of its own. Of -1, complemented, all bits are zeros: its leading one is what fills from below.
    shifts = [1 << k for k in reversed(range(size.bit_length()))]
    n = len(shifts)
    limit, free = Cat(now.top, C(0, n))[:n] | now.top[n:].any().replicate(n), C(0, 1)
    taken: list[Value] = []
    for name, part, later in (("coarse", shifts[:1], shifts[1:]), ("middle", shifts[1:3], shifts[3:]),
                              ("fine", shifts[3:], [])):
        value, shifted, free, below = normalise(m, name, now.value, part, fill=now.negative, limit=limit, free=free,
                                                need=p + window + sum(later))
        now = stage(m, advance, name, now, value=value, taken=Cat(reversed(shifted), *taken), free=free, limit=limit,
                    sticky=now.sticky | below)
        limit, free, taken = now.limit, now.free, [now.taken]
    final = Signal(len(now.top), name="final_top")
    m.d.comb += final.eq(now.top - now.taken)
    now = stage(m, advance, "placed", now, drop=("taken", "free", "limit"), top=final)
    packed = round_and_pack(m, fmt, NEAREST, now.value, now.top, sticky=now.sticky, flip=now.negative)
    magnitude = Signal(fmt.width - 1)
    m.d.comb += magnitude.eq(Mux(packed.over, fmt.inf_code, packed.magnitude))
    return now, Cat(magnitude, now.negative & magnitude.any()), packed.over


def normalise(m: Module, name: str, value: Value, widths: list[int], *, fill: ValueLike = 0, limit: Value | None = None,
              free: ValueLike = 0, need: int | None = None, empty: int = 0
              ) -> tuple[Value, list[Signal], ValueLike, Value]:
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
    empty : int
        Bits at the bottom that equal `fill` wherever the top four bits are zero.

    Returns
    -------
    tuple
        The shifted value, flags that tell which widths were shifted by (in the order of
        `widths`), the new `free`, and whether a bit that was cut off differs from `fill`.
    """
    taken: list[Signal] = []
    cut = []
    fill = Value.cast(fill)
    before, above = value, 0
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
            # While all bits of the limit so far have been used, only the limit's next bit allows a shift. A bit that
            # was allowed but not needed leaves more room than all later shifts can use.
            room = limit[width.bit_length() - 1]
            m.d.comb += take.eq(zero & (free | room))
            free = free | (room & ~zero)
        if empty and width >= 4:
            upper = value[empty:]
            entering = fill.replicate(min(width, len(upper)))
            m.d.comb += shifted.eq(Cat(value[:empty], Mux(take, Cat(entering, upper[:-width]), upper)))
        else:
            m.d.comb += shifted.eq(Mux(take, Cat(fill.replicate(width), value[:-width]), value))
        before, above, value = value, width, shifted
        taken.append(take)
        spare = len(value) - need - sum(widths[index + 1:]) if need is not None else 0
        if spare > 0:
            cut.append((value[:spare] ^ fill.replicate(spare)).any())
            value, empty = value[spare:], max(empty - spare, 0)
    return value, taken, free, Cat(cut).any() if cut else C(0, 1)


def shift_right_sticky(m: Module, name: str, value: Value, amount: Value, widths: list[int], *, fill: ValueLike = 0,
                       sticky: ValueLike = 0) -> tuple[Value, ValueLike]:
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
