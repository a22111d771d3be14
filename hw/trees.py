"""Sums and maxima of many numbers, in few long carry chains."""

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

from amaranth import *

from .pipeline import stage

__all__ = ["CHAIN", "largest", "packed_sums", "sum_products", "sum_with_carry"]

CHAIN = 72  # positions; a static timing analysis sees the whole chain as one path


def sum_with_carry(a: Value, b: Value, carry: Value) -> Value:
    """Return ``a + b + carry`` as one carry chain.

    Written as a three-operand sum, the synthesiser would build two adders; here the carry
    enters through a bit below both operands.
    """
    return (_below(a, carry) + _below(b, carry)) >> 1


def _below(value: Value, bit: Value) -> Value:
    wide = Cat(bit, value)
    return wide.as_signed() if value.shape().signed else wide


def packed_sums(m: Module, name: str, lanes: Sequence[tuple[Value, Value, Value | None]]) -> list[Value]:
    """Add pairs of unsigned numbers side by side in few long carry chains (combinational).

    A carry chain has a fixed cost at its ends (4 LUTs on ECP5), so many short chains are dear. Between two lanes is one
    position, in which the upper lane's carry-in is added to itself. The position's sum is the lower lane's carry-out.
    The position's carry does not depend on the lower lane. The position must not hold constants, or synthesis would cut
    the chain there: a lane without a carry-in lends the lowest bit of its second number.

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
    sums: list[Value] = []
    chain, length = [], 0
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


def largest(m: Module, advance: Value, now: SimpleNamespace, *, levels: int = 2) -> tuple[SimpleNamespace, Value]:
    """Find the largest of the unsigned numbers in the list ``now.best``, all of one width.

    A tree of comparisons, so many levels a stage. Returns the last stage and the number.
    """
    best, level = now.best, 0
    while len(best) > 1:
        for _ in range(levels):
            if len(best) == 1:
                break
            level += 1
            pairs = [(best[k], best[k + 1]) for k in range(0, len(best) - 1, 2)]
            # The lowest bit of a as the carry-in: of two that differ there alone, it picks the
            # larger, and of two equal ones either.
            sums = packed_sums(m, f"max{level}", [(a[1:], ~b[1:], a[0]) for a, b in pairs])
            winners = []
            for index, ((a, b), total) in enumerate(zip(pairs, sums, strict=True)):
                winner = Signal.like(a, name=f"max{level}_{index}")
                m.d.comb += winner.eq(Mux(total[-1], a, b))
                winners.append(winner)
            best = winners + best[2 * len(pairs):]
        now = stage(m, advance, f"max{level}_stage", now, best=best)
        best = now.best
    return now, best[0]


def sum_products(m: Module, advance: Value, now: SimpleNamespace, products: list[list[Value]], signs: list[Value],
                 field: int, *, scale: Value | None = None, complemented: bool = False,
                 drop: Collection[str] = ()) -> tuple[SimpleNamespace, list[Value], Value]:
    """Add signed products in a tree, one level a stage, and the exponents of both operands in the same chains.

    Parameters
    ----------
    m : Module
    advance : Value
    now : namespace
        Stage of the operands, with ``a_exponent``, ``b_exponent`` and ``scale``, what their sum lacks.
    products : list of list of Value
        For each sum that is wanted, the magnitudes of 3 or more lanes, all of equal width.
    signs : list of Value
        A bit for each lane.
    field : int
        Width of the sum of the exponents and the scale.
    scale : Value, optional
        A constant instead of ``now.scale``.
    complemented : bool
        Magnitudes with a sign are complemented already.
    drop : tuple of str
        Values of `now` that go no further.

    Returns
    -------
    now : namespace
        The last stage, with the signed ``field`` instead of what went into it.
    totals : list of Value
        The signed sums, but for
    carry : Value
        a one that may still have to be added to each.
    """
    # Signed products as complements: -x is ~x + 1, and the ones are the carries of the adder tree. The sign is kept
    # inverted, which adds a constant and makes the numbers unsigned. Each level of the tree doubles the constant: in
    # the end the constant is the sum's top bit.
    lanes = len(products[0])
    levels = (lanes - 1).bit_length()
    zero = C(1 << len(products[0][0]), len(products[0][0]) + 1)
    terms: list[Value] = []
    for group in products:
        flips = [C(0, 1) if complemented else sign for sign in signs]
        terms += [Cat(each ^ flips[k].replicate(len(each)), ~signs[k]) for k, each in enumerate(group)]
        terms += [zero] * ((1 << levels) - lanes)
    now = stage(m, advance, "term", now, drop=drop, terms=terms, signs=signs)
    for level in range(levels):
        count = (1 << levels) >> level
        carries = now.signs + [C(0, 1)] * (count // 2 - len(now.signs))
        # Every sum has the same signs, and so the same carries.
        used = carries[:-count // 2 - 1:-1]
        carries = carries[:-count // 2]
        pairs = [(now.terms[k], now.terms[k + 1], used[k % count // 2]) for k in range(0, len(now.terms), 2)]
        # The exponents are added in the same chains.
        changed: dict[str, Any] = {}
        gone: Collection[str] = ()
        if level == 0:
            pairs.append((now.a_exponent, now.b_exponent, None))
        elif level == 1:
            exponent = Cat(now.exponent, C(0, field))[:field]
            # The second number of a lane must not be constant; see `packed_sums`.
            pairs.append((exponent, now.scale, None) if scale is None else (scale, exponent, None))
        sums = packed_sums(m, f"level{level}", pairs)
        if level == 0:
            changed, gone = {"exponent": sums.pop()}, ("a_exponent", "b_exponent")
        elif level == 1:
            changed, gone = {"field": sums.pop()[:field].as_signed()}, ("exponent", "scale")
        now = stage(m, advance, f"level{level}", now, drop=gone, terms=sums, signs=carries or [C(0, 1)], **changed)
    return now, [Cat(total[:-1], ~total[-1]).as_signed() for total in now.terms], now.signs[0]
